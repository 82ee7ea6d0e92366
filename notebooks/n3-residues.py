# %% [markdown]
# # Do failing computations leave residues that warn?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` No residue warns better than the length of the stream: read on the first ten words, the best of six
# differs by {value}`n3.warns|interval` in area under the curve ({verdict}`p-residue-warns|grown`). Length tells an
# incoherent end because it tells the strength; among answers at one strength nothing exceeds {value}`n3.within.area`
# ({value}`n3.within.reading`). What a dictionary loses matters {value}`n3.potency.dictionary|interval` times as much as
# its size ({verdict}`p-v8-potent|grown`). Of {value}`n3.predictions` predictions {value}`n3.supported` is supported and
# {value}`n3.contradicted` are contradicted.
# ```
#
# **The question.** Failures are said to tell more than successes, because a computation that breaks off leaves
# something behind. Is there something to measure, and does it show before the model fails?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import pandas as pd

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import outcomes, predictions, residues
from em_companion.experiments import residue_hub
from em_companion.experiments.residue_outcome import DIAGNOSTICS, MEAN_DIFF, PERSONA, STRENGTHS, Residues, arm
from em_companion.experiments.residue_warning import BASELINES, READINGS, Warnings

run = Run("n3-residues", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# ## Seven metaphors, seven formulas
#
# The names come from a public repository of text templates {cite:p}`kim2025symbolic`, called shells, that a model is to
# read as a diagnosis of itself. It runs nothing and measures nothing. The formulas are ours: what each metaphor can
# mean if it is to be measured. $x$ is the residual stream at layer 6, $p(\cdot \mid x)$ the next word; $h$ and $g$ are
# the probabilities of harmful and of helpful things of the asked domain.
#
# * **v1, memory trace**: the half-length of a memory, the first $d$ with $I(d) \le I(1)/2$, where $I(d)$ is the
#   divergence of the next word, $d$ words on, once a topic is another one.
# * **v2, value collapse**: rivals that never settle, $\left(1 - \lvert h-g \rvert / (h+g)\right)(h+g)$ where an answer
#   first chooses a thing.
# * **v5, disrupted instruction**: the share of answers to two spliced questions that carry out both, or nothing.
# * **v6, superposition**: the mean squared cosine of known directions, times the width, minus 1; and *ghosts*, active
#   atoms of a dictionary that move no word and tell no latent.
# * **v7, circuit fragment**: *orphans*, the share of the most active neurons that owe over half of their input to what
#   is added.
# * **v8, reconstruction error**: its *potency*, $\mathrm{KL}\left(p(\cdot \mid x) \,\Vert\, p(\cdot \mid \hat
#   x)\right)$ over that after a random move of length $\lVert x - \hat x \rVert$.
# * **v10, meta-failure**: the share of clauses whose kind a persona probe tells at their first word.
#
# The chat model is steered in the layer of the persona's best cell ({doc}`s3-2-steering`), at up to four times its best
# strength, along the known persona direction, the mean-diff, and six random directions, all equally long. At every
# strength it answers a question on each of forty topics that it was not post-trained on, two to four times. It has
# **collapsed** where fewer than half of its answers are coherent.

# %%
KEPT = Residues()
PANELS = {"coherent": "coherent answers (%)"} | {name: f"{name}: {label}" for name, label in DIAGNOSTICS.items()}
BAND = "random, 95 %"
COLOURS = {BAND: theme.NULL_COLOUR, MEAN_DIFF: theme.PALETTE[0], PERSONA: theme.PALETTE[3]}


@remembered
def curves() -> pd.DataFrame:
    """Every panel's value over strength: persona, mean-diff, and the band in which a random direction lies."""
    own = {name: KEPT.diagnostics(name) for name in (PERSONA, MEAN_DIFF) if name == PERSONA or KEPT.draws(name)}
    rows = [pd.DataFrame({"direction": name, "panel": panel, "strength": STRENGTHS, "value": found[panel][0]})
            for name, found in own.items() for panel in PANELS]  # fmt: skip
    for panel in PANELS:
        middle, half = residues.spread(KEPT.band()[panel][0])
        most = 100 if "%" in PANELS[panel] else None
        ends = {"value_low": (middle - half).clip(0, most), "value_high": (middle + half).clip(0, most)}
        rows.append(pd.DataFrame({"direction": BAND, "panel": panel, "strength": STRENGTHS, "value": middle} | ends))
    return pd.concat(rows, ignore_index=True)


def draw_curves():
    at = float(STRENGTHS[KEPT.at_collapse])
    return plots.facets(
        plots.lines, curves(), "panel", "strength", "value", hue="direction", titles=PANELS, wrap=2,
        hue_order=list(COLOURS), colours=COLOURS, share=(True, False), x_lines={"collapse of the persona": at},
        x_label="strength, in units of the persona's best", size=(7.2, 9.6),
    )  # fmt: skip


def shown(name: str, where: int, digits: int = 1) -> str:
    return f"{KEPT.diagnostics(PERSONA)[name][0][where]:.{digits}f}"


run.grown.figure(
    "fig-x-residue-curves",
    draw_curves,
    title=lambda _: (
        f"At collapse {shown('v7', KEPT.at_collapse)} % of neurons are orphans, and a topic is half "
        f"forgotten after {shown('v1', KEPT.at_collapse)} words, without steering after {shown('v1', 0)}"
    ),
    caption="Coherence and seven residues of the steered chat model over strength. Grey: mean of six random "
    "directions, and where 95 % of further ones would lie (Student t, cut at what is possible). v8 is by principal "
    "components of the unsteered stream; v10 ends where fewer than ten clauses are left.",
    alt="Eight small panels of curves over strength with a grey band and a dotted line at the strength of collapse.",
)

# %% [markdown]
# Without steering {value}`n3.none.coherent` of answers are coherent and {value}`n3.none.em` harmful; at the best
# strength {value}`n3.best.coherent` and {value}`n3.best.em`, at collapse {value}`n3.end.coherent` and
# {value}`n3.end.em`.
#
# **Memory.** A topic is named, then nothing but adjectives follow, before each of which a thing could come. The effect
# of the topic is half gone after {value}`n3.none.v1` words, at collapse after {value}`n3.end.v1`, a ratio of
# {value}`n3.memory|interval` ({verdict}`p-v1-memory|grown`). Random directions of that length leave
# {value}`n3.random.v1`: what shortens a memory need not be what makes a model harmful.
#
# **Rivals.** Conflict peaks at {value}`n3.peak.conflict`, self-correction at {value}`n3.peak.corrected`, with
# {value}`n3.most-corrected` of answers ({verdict}`p-v2-shoulder|grown`).
#
# **Orphans.** At collapse {value}`n3.orphans|interval` points more neurons are orphans than along random directions
# ({verdict}`p-v7-orphans|grown`). What is added is one vector at one layer; its descendants count as other sources.
#
# ## Who leaves first
#
# A residue leaves where it is out of the band of random directions at a strength and at the next one, whatever the
# side.


# %%
@remembered
def orders() -> dict:
    return KEPT.intervals(KEPT.order)


def order_rows() -> pd.DataFrame:
    rows = [{"residue": f"{name}: {label}", "kind": "one residue"} | orders()[name].columns("value")
            for name, label in DIAGNOSTICS.items()]  # fmt: skip
    table = pd.DataFrame([*rows, {"residue": "median", "kind": "median"} | orders()["median"].columns("value")])
    return table.assign(kind=table.kind.mask(table.value > STRENGTHS[-1] / STRENGTHS[KEPT.at_collapse], "never leaves"))


run.grown.figure(
    "fig-x-residue-order",
    lambda: plots.dots(
        order_rows(), "residue", "value", hue="kind", order=list(order_rows().residue),
        colours={"one residue": theme.PALETTE[0], "median": theme.PALETTE[3], "never leaves": theme.NULL_COLOUR},
        x_lines={"predicted": 0.75, "collapse": 1}, x_limits=(0, None),
        x_label="strength at which it leaves, as a share of that of collapse",
    ),
    title=lambda _: f"{sum(orders()[name].value < 1 for name in DIAGNOSTICS)} of {len(DIAGNOSTICS)} residues leave the "
    f"random band before collapse, the median at {orders()['median'].value:.2f} of its strength",
    caption="Strength along the persona at which each residue leaves the band of random directions, over the strength "
    "of collapse. 95 % intervals over questions; v1 and v6 are of a whole cell, so only collapse varies. "
    "One that never leaves is drawn a step beyond the last.",
    alt="A row for each residue with a dot and its interval; dotted lines at three quarters and at one.",
)  # fmt: skip

# %% [markdown]
# The median is {value}`n3.order.median|interval` ({verdict}`p-residue-order|grown`). But to differ from random
# directions is not to be about to fail: the persona direction changes what a model says at strengths at which all of it
# is coherent.
#
# ## Does it warn?
#
# That is asked of single answers, along the persona, the mean-diff and one random direction at all strengths: from what
# is read on the first ten words, does this answer end incoherent, or harmful? Entropy of the next word and length of
# the stream come for nothing, so a residue has to beat them. On one answer v5 is read as words of other domains, v8 as
# the share of the stream that is not rebuilt, v10 as whether the probe contradicts the choice; v6 is of a dictionary
# and has no reading. Over all strengths, whatever grows with strength does well; hence also pairs of answers from one
# cell.


# %%
@remembered
def warned() -> Warnings:
    return Warnings(KEPT.part("warning"))


ENDS = {"incoherent": "ends incoherent", "harmful": "ends harmful"}
AMONG = {False: "all answers", True: "answers of one cell"}


@remembered
def areas() -> pd.DataFrame:
    """Area under the curve of every reading, by what it is to tell and among which answers."""
    rows = []
    for name, label in (BASELINES | READINGS).items():
        label = label if name in BASELINES else f"{name}: {label}"
        for end, told in ENDS.items():
            rows += [{"reading": label, "name": name, "end": told, "among": AMONG[within]}
                     | warned().estimate(name, end, within).columns("value") for within in AMONG]  # fmt: skip
    return pd.DataFrame(rows)


def best_of(names) -> str:
    kept = areas()[(areas().end == ENDS["incoherent"]) & (areas().among == AMONG[False]) & areas().name.isin(names)]
    row = kept.loc[kept.value.idxmax()]
    return f"{row.reading} {row.value:.2f}"


run.grown.figure(
    "fig-x-residue-warning",
    lambda: plots.facets(
        plots.dots, areas(), "end", "reading", "value", hue="among", titles=ENDS.values(), wrap=2,
        order=list(areas().reading.unique()), share=(True, True), x_lines={"chance": 0.5}, x_limits=(0.45, 1.01),
        colours={AMONG[False]: theme.PALETTE[0], AMONG[True]: theme.PALETTE[3]}, x_label="area under the curve",
        size=(7.2, 4.6),
    ),
    title=lambda _: f"Best baseline: {best_of(BASELINES)}; best residue: {best_of(READINGS)}",
    caption="Area under the curve with which readings on the first ten words tell how an answer ends, turned so that "
    "it is a half or more, over answers at all strengths and over pairs from one cell. The upper two rows are "
    "baselines. 95 % intervals over questions.",
    alt="Two panels with a row for each reading and two dots in each, from one half to one.",
)  # fmt: skip

# %% [markdown]
# Chosen on half of the questions, the best residue is the {value}`n3.best-residue`, the best baseline the
# {value}`n3.best-baseline`. On the other half they have {value}`n3.area.residue|interval` and
# {value}`n3.area.baseline|interval`, a difference of {value}`n3.warns|interval` ({verdict}`p-residue-warns|grown`).
# Within a cell no reading is far from chance: the first words tell how strongly the model is steered more than what
# becomes of this answer.
#
# ## Without steering
#
# **Two orders.** Of answers to two spliced questions {value}`n3.spliced` carry out both or nothing, to one asked twice
# {value}`n3.doubled`, to one whose topic is struck out {value}`n3.unnamed` ({verdict}`p-v5-dual|grown`).
#
# **Ghosts.** A dictionary of 512 atoms explains {value}`n3.explained` of the variance at layer 6. Of its most active
# tenth {value}`n3.ghosts.own` are ghosts: to ablate one moves the next word no more than random changes of its size do,
# and it tells nothing of persona, domain, topic or slot. Of a dictionary learned on Gaussian rows of equal covariance
# {value}`n3.ghosts.gaussian` are ({verdict}`p-v6-ghosts|grown`).
#
# **What is lost.** What that dictionary does not rebuild matters {value}`n3.potency.dictionary|interval` times as much
# as a random move of its length ({verdict}`p-v8-potent|grown`); for sparse autoencoders {cite:t}`gurnee2024errors`
# reports 2 to 4.5. What principal components of 95 % of the variance lack matters
# {value}`n3.potency.principal-components|interval` times as much, what known features lack
# {value}`n3.potency.known-features|interval`.
#
# **Interrupts.** The base model speaks as an unknown character; a probe fitted on named characters tells the kind of
# {value}`n3.fidelity|interval` of clauses at their first word. Of those that it contradicts {value}`n3.taken-back` are
# taken back, {value}`n3.interrupts|interval` points more than of the others ({verdict}`p-v10-meta|grown`). At the first
# clause nothing has been said that a probe could know better.
#
# **Here and now.** This page measures three cells anew; from the kept rows the {value}`n3.again.measures` measures
# differ by {value}`n3.again.most` at most.

# %%
LIVE = (0.0, 1.0, 2.0)


def again() -> pd.DataFrame:
    """Three cells measured anew by this page, beside what is kept."""
    from em_companion.experiments.residues import Bench

    bench, rows = Bench.of(run.profile), []
    for factor in LIVE:
        now, kept = bench.cell(PERSONA, factor)[""].iloc[0], KEPT.measured.loc[(arm(PERSONA, factor), 0)]
        for name in ("coherent", "em", "half_length", "conflict", "interference"):
            rows.append({"strength": factor, "measure": name, "kept": kept[name], "now": now[name]})
    return pd.DataFrame(rows)


# %% [markdown]
# ## On a language model
#
# Under a profile with a language model the page steers its chat model along the mean-diff of released answers until it
# collapses and measures what makes sense there: v1 by a cue word in a prompt; v5 by the words of two questions that an
# answer takes up; v8 by principal components; v10 by a probe of misalignment against the fitted judge. Left out are v2
# and v6, which need known words and latents, and v7, since its decomposition is written for small models.
#
# {evidence}`hub` In SmolLM2-135M {value}`smollm2-135m.residues.coherent.first` % of answers are coherent without
# steering and {value}`smollm2-135m.residues.coherent.last` % at twice the length of the stream. What principal
# components lose is {value}`smollm2-135m.residues.v8.first` times as potent as a random move of its length, and
# {value}`smollm2-135m.residues.v8.last` times there. The effect of a cue word is half gone after
# {value}`smollm2-135m.residues.v1.first` and {value}`smollm2-135m.residues.v1.last` tokens. Of answers to one question
# asked twice {value}`smollm2-135m.residues.doubled` take up nothing of it, so v5 says little of so small a model.


# %%
def draw_hub():
    return plots.facets(
        plots.lines, residue_hub.panels(run.profile.name), "panel", "strength", "value", hue="direction", wrap=2,
        titles=residue_hub.DIAGNOSTICS, colours={residue_hub.RANDOM: theme.NULL_COLOUR}, share=(True, False),
        x_label="what is added, in lengths of the mean stream", size=(7.2, 7),
    )  # fmt: skip


def at_most() -> str:
    table = residue_hub.measured(run.profile.name).query("direction == @residue_hub.TEXTS").set_index("strength")
    return f"{table.coherent[0.0]:.0f} % without steering, {table.coherent.iloc[-1]:.0f} % at twice the stream's length"


if run.own.name == "hub":
    run.own.figure(
        "fig-x-residue-curves",
        draw_hub,
        title=lambda _: f"Coherent: {at_most()}",
        caption=f"Coherence and four residues of the steered {run.kind} over strength. Grey: two random directions, "
        "mean and both.",
        alt="Five small panels of curves over strength with a grey band.",
    )
    run.own.values(lambda: {f"grown.residues.{name}": one for name, one in residue_hub.told(run.profile.name).items()})

# %% [markdown]
# ## Predicted against measured

# %%
run.grown.measure(KEPT.outcomes)


def at(where: int, name: str) -> dict:
    found = KEPT.diagnostics(PERSONA)
    rates = {f"{name}.{rate}": f"{found[rate][0][where]:.0f} %" for rate in ("coherent", "em")}
    return rates | {f"{name}.v1": shown("v1", where)}


def numbers() -> dict:
    own, best = KEPT.diagnostics(PERSONA), warned().chosen()
    found = at(0, "none") | at(4, "best") | at(KEPT.at_collapse, "end")
    found |= {"random.v1": f"{KEPT.band()['v1'][0].mean(axis=0)[KEPT.at_collapse]:.1f}"}
    found |= {"collapse": f"{STRENGTHS[KEPT.at_collapse]:g}", "memory": KEPT.memory(), "orphans": KEPT.orphans()}
    found |= {"peak.conflict": f"{STRENGTHS[own['v2'][0].argmax()]:g}", "order.median": orders()["median"]}
    found |= {"peak.corrected": f"{STRENGTHS[own['corrected'][0].argmax()]:g}"}
    found |= {"most-corrected": f"{own['corrected'].max():.1f} %", "warns": best[1]["difference"]}
    found |= {"best-residue": READINGS[best[0]["diagnostic"]], "best-baseline": BASELINES[best[0]["baseline"]]}
    return found | {"area.residue": best[1]["diagnostic"], "area.baseline": best[1]["baseline"]}


def without_steering() -> dict:
    excess, against, agrees, _ = KEPT.interrupts()
    found = {"interrupts": excess, "taken-back": against, "fidelity": agrees}
    for name in ("spliced", "doubled", "unnamed"):
        found[name] = f"{100 * KEPT.unsteered(name)[['both', 'none']].sum(axis=1).mean():.0f} %"
    found |= {"explained": f"{100 * KEPT.measured.explained['dictionary', 0]:.1f} %"}
    found |= {f"ghosts.{name}": f"{100 * KEPT.ghosts(key).mean():.0f} %"
              for name, key in {"own": "dictionary", "gaussian": "gaussian"}.items()}  # fmt: skip
    names = ("dictionary", "principal components", "known features")
    return found | {f"potency.{name.replace(' ', '-')}": KEPT.potency(name) for name in names}


def all_numbers() -> dict:
    found = numbers() | without_steering() | outcomes.tally(KEPT.outcomes())
    live, within = again(), areas()[lambda table: table.among == AMONG[True]].sort_values("value").iloc[-1]
    found |= {"again.measures": len(live), "again.most": f"{(live.now - live.kept).abs().max():.1g}"}
    found |= {"within.reading": within.reading, "within.area": f"{within.value:.2f}"}
    return {f"n3.{name}": one for name, one in found.items()}


run.grown.values(all_numbers)

# %% [markdown]
# ## What it means
#
# A metaphor of failure can be turned into measures, and the measures disagree: most leave the random band, each at its
# own strength and some upwards, some downwards. None warns of collapse better than what comes for nothing. What is
# borne out is the one that published work had found elsewhere: what a dictionary loses matters more than its size.
#
# **Limits.** One model, one layer, one reading of every metaphor; others are possible. Not measured are the attention
# trace of v1, steering of a second topic in v5, fragments of a graph in v7, the decay of an error in v8, and residues
# over rounds of self-training. Six random directions make a wide band.

# %%
run.finish()
