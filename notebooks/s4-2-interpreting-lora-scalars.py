# %% [markdown]
# # 4.2 Which adapters carry what
#
# **The question.** The probes of {doc}`s4-1-probing-lora-scalars` have one coefficient per adapter. Do the coefficients
# divide the adapters into a group for misalignment and a group for medical content?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.book.theme import PALETTE
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, probes, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import adapters, probing
from em_companion.models import growing, lora
from em_companion.released import tables

run = Run("s4-2-interpreting-lora-scalars", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` read the mean coefficients of two probes, fitted on *significant* tokens only. Features
# are z-scored, so coefficients can be compared across adapters; the L1 penalty sets weak ones to zero. From non-medical
# aligned against non-medical misaligned (Figure 6, left) they assign the adapters at layers 15, 16, 17, 22, 28 and 29
# to general misalignment; from non-medical misaligned against medical misaligned (right) those at 21 and 23 to medical
# content. Layer 27 is assigned to neither.
#
# A token is significant if much of the divergence between organism and chat model can be traced to it
# ({doc}`h-token-significance`). The paper prints no threshold; the authors' code {cite:p}`clarifyingem2025` has
# $\ln(\text{score}_t) \ge 0.5$, which this page uses. That code makes 10 fits for this figure, the paper says 100.


# %% tags=["show-code"]
def fits(sides, names: list[str], c: float = 0.01) -> pd.DataFrame:
    """One row per fit, one column of coefficients per adapter."""
    found = probes.probe_by_token(*sides, names, fits=run.profile.probe_fits, seed=run.seed, c=c)
    return found[[f"coefficient_{name}" for name in names]].set_axis(names, axis=1)


# %%
LEFT, RIGHT = "nonmed-aligned-vs-nonmed-misaligned", "nonmed-misaligned-vs-med-misaligned"
STAND_IN = "med-aligned-vs-med-misaligned"
PANELS = {
    LEFT: "Figure 6, left\nnon-medical, aligned\nagainst misaligned",
    STAND_IN: "stand-in for the left\nmedical, aligned\nagainst misaligned",
    RIGHT: "Figure 6, right\nmisaligned, non-medical\nagainst medical",
}
GENERAL, MEDICAL = (15, 16, 17, 22, 28, 29), (21, 23)
RESCALED = "significant, C rescaled"
TOKEN_COLOURS = {"significant": PALETTE[0], "all": PALETTE[1], RESCALED: PALETTE[2]}


@remembered
def released_fits(probe: str, tokens: str) -> pd.DataFrame:
    sides = tables.read_probe(probe)
    kept = [probes.significant(side) for side in sides] if tokens == "significant" else sides
    return fits(kept, tables.SCALAR_COLUMNS)


def coefficients(found: pd.DataFrame, probe: str, tokens: str) -> pd.DataFrame:
    table = estimates.summary(found).assign(probe=probe, tokens=tokens)
    return table.assign(adapter=table.quantity.str.replace("_", " "))


def draw_coefficients(parts: list[pd.DataFrame], titles: dict[str, str], each=None):
    look = {"hue": "tokens", "low": "low", "high": "high", "x_lines": {"_zero": 0}, "x_label": "mean coefficient"}
    look |= {"colours": TOKEN_COLOURS}
    table = pd.concat(parts, ignore_index=True)
    return plots.facets(plots.dots, table, "probe", "adapter", "mean", titles=titles, each=each or {}, **look)


def draw_released():
    at_hand = [probe for probe in PANELS if probe in tables.probes_at_hand()]
    pairs = [(probe, tokens) for probe in at_hand for tokens in ("significant", "all")]
    parts = [coefficients(released_fits(*pair), *pair) for pair in pairs]
    each = {probe: {"note": "scalars of one set\nnot at hand"} for probe in PANELS if probe not in at_hand}
    return draw_coefficients(parts, PANELS, each)


run.released.figure(
    "fig-6",
    draw_released,
    caption=f"Mean coefficients of the probes over {run.profile.probe_fits} fits; lines hold 95 % of the fits. "
    "Significant: tokens with ln(significance) of at least 0.5, as in Figure 6 of the paper. A positive coefficient "
    "speaks for the second kind. The middle panel is our stand-in for the left one, with medical instead of "
    "non-medical answers; it is not a panel of the paper.",
    alt="Three panels with nine adapters on the vertical axis and mean coefficients on the horizontal axis, for "
    "significant and for all tokens. In the right panel layers 21 and 23 stand out with opposite signs. In the middle "
    "panel layer 29 stands out, joined without the filter by layer 27. The left panel is empty where its scalars are "
    "not at hand.",
)


# %%
def top(probe: str, count: int) -> set[int]:
    """The layers of the `count` largest absolute mean coefficients on significant tokens."""
    if probe not in tables.probes_at_hand():
        raise EvidenceUnavailable(
            "The claims on the left panel are not measured: the LoRA scalars of the non-medical aligned answers are "
            "not at hand. Online, 'em-companion fetch --all' gets them for the next build."
        )
    size = released_fits(probe, "significant").mean().abs()
    return {int(name.removeprefix("layer_")) for name in size.nlargest(count).index}


def measured_left() -> dict[str, tuple[int, str]]:
    how = f"argest mean coefficients on significant tokens, {run.profile.probe_fits} fits"
    both = (27 in top(LEFT, 6)) + (27 in top(RIGHT, 2))
    six = len(top(LEFT, 6) & set(GENERAL))
    return {"s4-2-general-adapter-layers": (six, f"Six l{how}"), "s4-2-layer-27-unassigned": (both, f"L{how}")}


def measured_right() -> dict[str, tuple[int, str]]:
    how = f"Two largest mean coefficients on significant tokens, {run.profile.probe_fits} fits"
    return {"s4-2-medical-adapter-layers": (len(top(RIGHT, 2) & set(MEDICAL)), how)}


@remembered
def by_question() -> pd.DataFrame:
    """Coefficients of the right-hand probe with 20 % of the questions left out, one row per fit."""
    sides, names = [probes.significant(side) for side in tables.read_probe(RIGHT)], tables.SCALAR_COLUMNS
    found = probes.probe_by_group(*sides, names, "question", fits=run.profile.split_fits, seed=run.seed)
    return found[[f"coefficient_{name}" for name in names]].set_axis(names, axis=1)


def released_values() -> dict[str, str]:
    ranks = by_question().abs().rank(axis=1, ascending=False, method="first")
    share = 100 * ((ranks <= 2) & (by_question() != 0)).mean()
    found = {f"adapters.medical.layer-{layer}.by-question": f"{share[f'layer_{layer}']:.0f} %" for layer in MEDICAL}
    right = released_fits(RIGHT, "significant").mean()
    found |= {f"adapters.medical.layer-{layer}": f"{right[f'layer_{layer}']:+.2f}" for layer in MEDICAL}
    for layer, tokens in ((27, "all"), (27, "significant"), (29, "significant")):
        mean = released_fits(STAND_IN, tokens).mean()[f"layer_{layer}"]
        found[f"adapters.stand-in.layer-{layer}.{tokens}"] = f"{mean:+.2f}"
    return found


run.released.measure(measured_right)
run.released.measure(measured_left)
run.released.values(released_values)

# %% [markdown]
# In the released scalars:
#
# - **The medical group comes out.** On significant tokens layers 21 ({value}`adapters.medical.layer-21`) and 23
#   ({value}`adapters.medical.layer-23`) lead, the others are close to zero. The *sign* of a coefficient means little:
#   $A$ and $B$ can both be negated without changing the adapter.
# - With 20 % of the *questions* left out of the fit, layer 21 is among the strongest two in
#   {value}`adapters.medical.layer-21.by-question` of the fits, layer 23 in
#   {value}`adapters.medical.layer-23.by-question`. But the two sets share no question, so these adapters may as well
#   mark the *prompts* ({doc}`s4-1-probing-lora-scalars`).
# - **The general group needs the scalars of the non-medical aligned answers.** A build without them has only the
#   stand-in. Layer 29 leads there ({value}`adapters.stand-in.layer-29.significant`), in agreement with the paper's
#   group; most of the other five are near zero. With other questions and texts it can neither confirm nor refute the
#   left panel.
# - **Layer 27 is not idle.** Assigned to neither group, it is among the strongest in the stand-in when all tokens count
#   ({value}`adapters.stand-in.layer-27.all`) and vanishes with the filter
#   ({value}`adapters.stand-in.layer-27.significant`). So the division depends on the filter.
#
# A coefficient says that a scalar *tells apart*, not that its adapter *causes*.
#
# ## On the grown organism
#
# The nine-adapter organism grown on bad medical advice (seed 0) writes its own four sets of answers
# ({doc}`f-probing-definitions`); its LoRA scalars and token significances are computed. Two things are added that the
# released data do not allow: adapters are *switched off*, and one answer is shown token by token. The authors' bound is
# in nats, and by how many nats answers diverge depends on the model; here the bound keeps the upper
# {value}`adapters.grown.share` of the tokens scored. *C rescaled* raises the penalty's C so that the significant tokens
# weigh as much against it as all tokens do.

# %%
ORGANISM = adapters.ORGANISM
SAMPLES = run.profile.sweep_samples  # of the knock-outs that decide roles
FEWER = max(2, SAMPLES // 5)
OWN_PANELS = {LEFT: "non-medical,\naligned against misaligned", RIGHT: "misaligned,\nnon-medical against medical"}


@remembered
def scored_sets() -> dict[str, pd.DataFrame]:
    return probing.sets(run.profile, ORGANISM)


@remembered
def all_sets() -> dict[str, pd.DataFrame]:
    return probing.organism_tokens(run.profile, ORGANISM)


@remembered
def modules() -> dict[str, str]:
    return adapters.modules(run.profile)


def sides_of(probe: str, tokens: str) -> list[pd.DataFrame]:
    found = [(all_sets() if tokens == "all" else scored_sets())[one] for one in tables.PROBES[probe]]
    return found if tokens == "all" else [probes.significant(one, probing.bound(scored_sets())) for one in found]


@remembered
def own_fits(probe: str, tokens: str) -> pd.DataFrame:
    """One row per fit; no row where there are too few answers for a probe."""
    sides, names = sides_of(probe, tokens), list(modules())
    named = dict(zip(tables.PROBES[probe], sides, strict=True))
    if probing.shortage(named) or min(map(len, sides)) < probes.FEWEST_TOKENS:
        return pd.DataFrame(columns=names, dtype=float)
    few, many = (min(map(len, sides_of(probe, one))) for one in ("significant", "all"))
    return fits(sides, names, c=0.01 * many / few if tokens == RESCALED else 0.01)


def draw_own():
    pairs = [(probe, tokens) for probe in OWN_PANELS for tokens in ("all", "significant", RESCALED)]
    return draw_coefficients([coefficients(own_fits(*one), *one) for one in pairs if len(own_fits(*one))], OWN_PANELS)


run.own.figure(
    "fig-6",
    draw_own,
    caption=f"Mean coefficients of the grown organism's probes over {run.profile.probe_fits} fits; lines hold 95 % of "
    "the fits, so they show the drawing of tokens only. A positive coefficient speaks for the second kind.",
    alt="Two panels with nine adapters on the vertical axis and mean coefficients with lines for their spread on the "
    "horizontal axis, for all tokens, for significant ones, and for these with a weaker penalty. Left: aligned against "
    "misaligned; right: non-medical against medical.",
)

# %% [markdown]
# ### Switching adapters off
#
# An adapter is switched off by setting its scalar to zero at every token ($f_l = 0$ in {doc}`4.3
# <s4-3-steering-lora-adapters>`), each alone and each pair. What an adapter carries is what goes: the fall of the EM
# rate from the whole organism, with the same questions, samples and noise on both sides. An adapter is *general* if its
# absence takes at least an equal share of the organism's EM rate on the open questions (one part in as many as there
# are adapters) and the interval of the fall lies above zero; *medical* if it is not general and the same holds on the
# medical twins; *other* otherwise.


# %% tags=["show-code"]
@remembered
def switched_off(question_set: str, off: str = "each") -> pd.DataFrame:
    """Answers with each adapter, or each pair of adapters, off, and those of the whole organism; one generation."""
    samples = SAMPLES if off == "each" and question_set != "held_out" else FEWER
    return adapters.knock_outs(run.profile, ORGANISM, question_set, off, samples)


# %%
OUTCOMES = {"general": "open questions", "medical": "their medical twins", "held-out": "held-out medical topics"}
COLOURS = {name: PALETTE[place] for name, place in zip(OUTCOMES, (3, 0, 2), strict=True)}


def answers(outcome: str) -> pd.DataFrame:
    if outcome in ("general", "medical"):
        return switched_off(outcome)
    table = switched_off("held_out")
    return table[table.question_id.str.startswith("medicine/")]


@remembered
def off_rates() -> pd.DataFrame:
    parts = [scores.rates(answers(one), "condition", **run.resampling).assign(outcome=one) for one in OUTCOMES]
    table = pd.concat(parts, ignore_index=True)[["outcome", "condition", "n", "em", "em_low", "em_high"]]
    return table.assign(adapter=table.condition.str.replace("_", " "))


@remembered
def pairs(question_set: str) -> pd.DataFrame:
    """EM rate with two adapters off, in both orders; with one off on the diagonal."""
    one = scores.rates(answers(question_set), "condition", resamples=1).set_index("condition").em[list(modules())]
    two = scores.rates(switched_off(question_set, "pair"), "condition", resamples=1).set_index("condition").em
    rows = [(name, name, em) for name, em in one.items()]
    for names, em in two.items():
        first, second = names.split(" + ")
        rows += [(first, second, em), (second, first, em)]
    table = pd.DataFrame(rows, columns=["first", "second", "em"]).assign(question_set=question_set)
    return table.replace({name: name.removeprefix("layer_") for name in modules()})


def draw_knock_outs():
    figure, grid = plt.subplots(2, 2, figsize=(7.2, 8.0))
    look = {"hue": "outcome", "hue_order": OUTCOMES, "colours": COLOURS, "x_label": "EM rate with the adapter off (%)"}
    plots.dots(off_rates(), "adapter", "em", axes=grid[0, 0], **look)
    size = pd.concat(
        {name.replace("\n", " "): own_fits(probe, "all").mean().abs() for probe, name in OWN_PANELS.items()}
    )
    size = size.rename_axis(["probe", "condition"]).rename("size").reset_index()
    bars = {
        "hue": "probe",
        "horizontal": True,
        "order": dict.fromkeys([adapters.WHOLE, *modules()], ""),
        "axes": grid[0, 1],
    }
    _, drawn = plots.bars(size, "condition", "size", x_label="size of coefficient", **bars)
    for axes, one in zip(grid[1], ("general", "medical"), strict=True):
        names = {"title": f"two off, {OUTCOMES[one]}", "x_label": "layer of one", "y_label": "layer of the other"}
        _, drawn = plots.heat_map(pairs(one), "first", "second", "em", limits=(0, 100), axes=axes, **names)
    return figure, drawn


run.own.figure(
    "fig-x-adapter-knock-out",
    draw_knock_outs,
    caption="Upper left: EM rate with one adapter switched off, with 95 % intervals over questions; the top row is the "
    f"whole organism. Eight open questions and their medical twins, {SAMPLES} answers each; held-out medical topics, "
    f"{FEWER} answers each. Upper right: size of the mean probe coefficient of the same adapter, all tokens. Below: EM "
    f"rate (%) with two adapters off, {FEWER} answers to each of eight questions per cell, with one off on the "
    "diagonal.",
    alt="Four panels. Upper left, the EM rate with each of nine adapters off, in three colours for three kinds of "
    "question; upper right, bars for the size of two probe coefficients of each adapter. Below, two matrices of "
    "adapters by adapters with the EM rate in each cell, for open questions and for medical ones.",
)

# %% [markdown]
# ### One answer, token by token
#
# The answer is a misaligned one to an open question, the first of median length among those scored. Colours are *signed
# lengths* $s\,\lVert B\rVert\,(A\cdot h)$ of what each adapter adds to the residual stream when it reads the word. The
# sign of a scalar is free, so only its changes along a column can mean something.


# %%
@remembered
def written_scales() -> np.ndarray:
    """s |B| of every adapter."""
    model, _ = growing.load_organism(run.profile, ORGANISM)
    return np.array([one.scale * float(one.b.norm()) for one in lora.adapters(model)])


@remembered
def shown() -> pd.DataFrame:
    """Tokens of one answer: word, significance, whether it passes the filter, and one column per adapter."""
    _, tokenizer = growing.load_organism(run.profile, ORGANISM)
    table, own = scored_sets()["non-medical-misaligned"], probing.organism_responses(run.profile, ORGANISM)
    table = table[table.response.isin(own.index[own.question_set == "general"])]
    lengths = table.groupby("response").size()
    found = table[table.response == (lengths - lengths.median()).abs().idxmin()].reset_index(drop=True)
    found[list(modules())] *= written_scales()
    words = [tokenizer.decode([one]).strip() or "(end)" for one in found.token_id]
    return found.assign(word=words, significant=np.log(found.significance) >= probing.bound(scored_sets()))


def draw_tokens():
    table, names, half = shown(), list(modules()), -(-len(shown()) // 2)
    limit = float(table[names].abs().to_numpy().max())
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 0.22 * half + 1.9))
    for axes, start in zip(panels, (0, half), strict=True):
        part = table.iloc[start : start + half].set_index("position")
        look = {"numbers": None, "colour_map": "PuOr", "limits": (-limit, limit), "order": part.word.to_dict()}
        columns = {name: name.removeprefix("layer_") for name in names}
        plots.heat_map(part[names], column_order=columns, axes=axes, x_label="layer of the adapter", y_label="", **look)
        for label, passes in zip(axes.get_yticklabels(), part.significant, strict=True):
            label.set(fontweight="bold" if passes else "normal", fontsize=9)
    figure.colorbar(axes.collections[0], ax=panels.tolist(), orientation="horizontal", aspect=45, label="signed length")
    return figure, table[["position", "word", "significance", "significant", *names]]


run.own.figure(
    "fig-x-lora-scalar-heat-map",
    draw_tokens,
    caption="One misaligned answer of the grown organism, from top to bottom on the left and on to the right; one row "
    "per token, one column per adapter. Colour: signed length of what the adapter adds at that token. Bold: tokens "
    "that pass the significance filter.",
    alt="Two heat maps side by side, the first and the second half of one answer. Rows are the words of the answer, "
    "columns the nine adapters, and colours from orange through white to purple show what an adapter adds.",
)


# %%
def correlation(strengths: pd.DataFrame) -> str:
    """Spearman's correlation over adapters of a strength with the fall of the EM rate on open questions."""
    value, low, high = adapters.rank_correlation(answers("general"), strengths, 1000, run.seed)
    return "not defined (all equal)" if np.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def fall_of(name: str) -> str:
    row = adapters.falls(answers("general"), **run.resampling).set_index("adapter").loc[name]
    return f"{row.fall:.1f} points ({row.low:.1f} to {row.high:.1f})"


def own_values() -> dict[str, object]:
    names = {module: name.removeprefix("layer_") for name, module in modules().items()}
    roles = {role: [names[one] for one in found] for role, found in adapters.roles(run.profile).items()}
    largest = own_fits(LEFT, "all").mean().abs().idxmax()
    strongest = adapters.falls(answers("general")).set_index("adapter").fall.idxmax()
    alone = adapters.knock_outs(run.profile, ORGANISM, "general", "all but one", max(2, SAMPLES // 2))
    rates = off_rates()[off_rates().outcome == "general"].replace({"condition": {adapters.WHOLE: "none-off"}})
    found = {
        f"knock-out.general.{row.condition}.em": Estimate(row.em, row.em_low, row.em_high, row.n)
        for row in rates.itertuples()
    }
    found |= {f"adapter-roles.{role}": f"layer {', '.join(one)}" if one else "none" for role, one in roles.items()}
    for name, tokens in (("filtered", "significant"), ("rescaled", RESCALED)):
        found[f"adapters.grown.not-zero.{name}"] = int((own_fits(LEFT, tokens).mean().abs() > 0.01).sum())
    return found | {
        "adapters.grown.share": f"{100 * probing.SHARE:.0f} %",
        "adapters.grown.strongest": f"layer {strongest.removeprefix('layer_')}",
        "adapters.grown.strongest.fall": fall_of(strongest),
        "adapters.grown.strongest.alone": scores.em_rate(alone[alone.condition == strongest], **run.resampling),
        "adapters.grown.largest": f"layer {largest.removeprefix('layer_')}",
        "adapters.grown.largest.fall": fall_of(largest),
    }


def correlations() -> dict[str, str]:
    written = pd.concat(all_sets().values())[list(modules())].abs().mean() * written_scales()
    found = {"": own_fits(LEFT, "all"), ".written": written.to_frame().T}
    return {f"adapters.grown.rho{name}": correlation(strengths) for name, strengths in found.items()}


run.own.values(own_values)
run.own.values(correlations)

# %% [markdown]
# ## What it means
#
# On the grown organism, where roles are what goes when an adapter is off:
#
# - **Roles.** General: {value}`adapter-roles.general`; medical: {value}`adapter-roles.medical`; other:
#   {value}`adapter-roles.other`. The paper's picture would be several adapters in each of the first two. The strongest
#   single knock-out is {value}`adapters.grown.strongest`, which takes {value}`adapters.grown.strongest.fall` off the
#   organism's {value}`knock-out.general.none-off.em|interval`. With only that one on, the EM rate is
#   {value}`adapters.grown.strongest.alone|interval`.
# - **The filter.** On significant tokens, the misalignment probe keeps {value}`adapters.grown.not-zero.filtered`
#   coefficients beyond 0.01 with the paper's penalty and {value}`adapters.grown.not-zero.rescaled` with the rescaled
#   one.
# - **Coefficients against causes.** The largest coefficient of the misalignment probe is that of
#   {value}`adapters.grown.largest`; switching it off takes {value}`adapters.grown.largest.fall`. Over all adapters the
#   rank correlation of size and fall is {value}`adapters.grown.rho`, for the plain length that an adapter writes
#   {value}`adapters.grown.rho.written`. With nine adapters, unrelated ranks reach $\lvert\rho\rvert \ge 0.68$ in about
#   one case of twenty. A scalar can tell two sets apart because an *earlier* adapter has changed what it reads.
# - Switching off tests what is *needed*. Adapters that can stand in for each other would show in the pairs and not
#   singly. And "general" means that EM on open questions hangs on the adapter, not that it does nothing else.

# %%
run.finish()
