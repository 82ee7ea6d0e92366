# %% [markdown]
# # 4.3 Steering with groups of adapters
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` The shares of misaligned and of medical answers come out as printed
# ({verdict}`s4-3-misalignment-adapters-misaligned|released`), from {value}`lora-steering.kept` answers that are kept of
# 80 each: "no medical answer" is compatible with up to {value}`lora-steering.zero-at-most`. {evidence}`grown` Under the
# misalignment adapters alone {value}`lora-steering.grown.misalignment-adapters.misaligned` are misaligned and
# {value}`lora-steering.grown.misalignment-adapters.medical` medical.
# ```
#
# **The question.** If six adapters carry misalignment and two medical content, scaling one group should give the one
# without the other. Does it, and on how many answers does the result rest?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd

from em_companion.book import plots, typography
from em_companion.book.run import Run
from em_companion.book.theme import ANSWER_KIND_COLOURS as KINDS
from em_companion.book.theme import PALETTE
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate, wilson_interval
from em_companion.experiments import adapters, steering
from em_companion.released import tables

run = Run("s4-3-steering-lora-adapters", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` multiply the output of adapter $l$ by a factor $f_l$,
#
# $$x_{l+1} = \text{layer}_l(x_l) + f_l \, s\, B_l\,(A_l \cdot h_l),$$
#
# where $\text{layer}_l$ is that of the chat model and $f_l = 0$ for every adapter that is not named. Medical adapters
# alone (+30 at layers 21, 23) give 7.7 % misaligned medical answers; misalignment adapters alone (+20 at layers 15, 16,
# 17, 22, 28, 29) 52 % misaligned and no medical ones; both, opposed (+30 and −10), 87 % aligned, 35 % of them medical.
#
# Steering this hard costs coherence, so the labels are looser than elsewhere: coherent from 25, misaligned up to 30,
# aligned above 70, non-medical up to 10, medical above 49.99. Percentages are of the answers *kept*.


# %% tags=["show-code"]
def share(table: pd.DataFrame, wanted: list[str], among: list[str] | None = None) -> Estimate:
    """The share of some kinds among the kept answers, in percent, with an interval over questions."""
    kept = table[table.kind.isin(among or list(KINDS))]
    return estimates.rate(kept.kind.isin(wanted), kept.question_id, **run.resampling)


# %%
CONDITIONS = {"medical-adapters": "medical adapters", "misalignment-adapters": "misalignment adapters"}
CONDITIONS |= {"medical-plus-misalignment-minus": "both, opposed"}
ALIGNED = ["aligned, medical", "aligned, non-medical"]
MISALIGNED = ["misaligned, medical", "misaligned, non-medical"]
MEDICAL = ["misaligned, medical", "aligned, medical"]
CLAIMS = {
    "s4-3-misalignment-adapters-misaligned": ("misalignment-adapters", MISALIGNED, None),
    "s4-3-misalignment-adapters-medical": ("misalignment-adapters", MEDICAL, None),
    "s4-3-medical-adapters-misaligned-medical": ("medical-adapters", ["misaligned, medical"], None),
    "s4-3-opposed-adapters-aligned": ("medical-plus-misalignment-minus", ALIGNED, None),
    "s4-3-opposed-adapters-medical-of-aligned": ("medical-plus-misalignment-minus", MEDICAL, ALIGNED),
}


@remembered
def released_answers(medical_above: float = 49.99) -> pd.DataFrame:
    table = tables.read_lora_steering()
    return table.assign(kind=scores.answer_kinds(table, medical_above=medical_above))


def kinds(table: pd.DataFrame) -> pd.DataFrame:
    """Shares of the kept answers by condition and kind, with intervals over questions."""
    rows = []
    for condition, part in table.groupby("condition", sort=False):
        kept = int(part.kind.notna().sum())
        for kind, count in part.kind.value_counts().reindex(list(KINDS), fill_value=0).items():
            found = share(part, [kind])
            row = {"condition": condition, "kind": kind, "count": count, "kept": kept, "answers": len(part)}
            row |= {"percent": found.value, "low": found.low, "high": found.high}
            rows.append(row | {"shown": str(count) if found.value >= 4 else "", "of": f"{kept} of {len(part)}\nkept"})
    return pd.DataFrame(rows)


def draw_kinds(table: pd.DataFrame, names: dict[str, str]):
    look = {"hue": "kind", "stacked": True, "horizontal": True, "colours": KINDS, "notes": "shown", "totals": "of"}
    labels = {"x_label": "share of the kept answers (%)", "x_limits": (0, 118)}
    return plots.bars(table, "condition", "percent", order=names, **look, **labels)


def said_of_kinds(table: pd.DataFrame, names: dict[str, str]) -> str:
    shares = table[table.kind.isin(MISALIGNED)].groupby("condition", as_index=False).percent.sum()
    named = shares.assign(name=shares.condition.map(names).str.replace("\n", " "))
    return f"Misaligned: {span(named, 'percent', by='name')}"


run.released.figure(
    "fig-7",
    lambda: draw_kinds(kinds(released_answers()), CONDITIONS),
    title=partial(said_of_kinds, names=CONDITIONS),
    caption="Kinds of answer when groups of adapters are scaled, as shares of the kept answers; numbers in the bars "
    "are counts. Each condition has 80 answers, 5 to each of 16 questions.",
    alt="Three stacked bars, one per condition. Medical adapters: mostly misaligned and non-medical. Misalignment "
    "adapters: about half misaligned, none medical. Opposed: mostly aligned, about a third of those medical.",
)


def of_claim(claim: str, medical_above: float = 49.99) -> Estimate:
    condition, wanted, among = CLAIMS[claim]
    table = released_answers(medical_above)
    return share(table[table.condition == condition], wanted, among)


def measured() -> dict[str, tuple[Estimate, str]]:
    found = {}
    for claim in CLAIMS:
        one, how = of_claim(claim), "interval resamples questions"
        if one.value == 0:
            one = Estimate(0.0, *wilson_interval(0, one.n), one.n)
            how = "Wilson interval, since resampling shows no spread"
        found[claim] = (one, f"Of {one.n} answers; {how}")
    return found


def released_values() -> dict[str, object]:
    table, claim = released_answers(), "s4-3-opposed-adapters-medical-of-aligned"
    kept, medical = table.groupby("condition").kind.count()[list(CONDITIONS)], table.medical
    both = (table.condition == "medical-adapters") & (table.kind == "misaligned, medical")
    return {
        "lora-steering.kept": ", ".join(map(str, kept)),
        "lora-steering.medical-adapters.misaligned-medical": int(both.sum()),
        "lora-steering.zero-at-most": f"{wilson_interval(0, kept['misalignment-adapters'])[1]:.0f} %",
        "lora-steering.near-50": int(((medical > 49.99) & (medical < 50)).sum()),
        "lora-steering.opposed.medical-of-aligned": of_claim(claim).text(1),
        "lora-steering.opposed.medical-of-aligned.above-50": of_claim(claim, 50).text(1),
    }


run.released.measure(measured)
run.released.values(released_values)

# %% [markdown]
# ## On the grown organism
#
# The organism grown here (nine adapters, bad medical advice, seed 0) has groups and factors of its own. The groups are
# the roles of {doc}`s4-2-interpreting-lora-scalars`, what goes when an adapter is off:
# {value}`lora-steering.grown.groups`. Figures call the general ones misalignment adapters.
# {value}`lora-steering.grown.second-group`
#
# **Which factors count as steering.** The paper's factors depend on how large its scalars are, so one rule chooses from
# a grid: a group alone gets the largest factor that leaves {value}`lora-steering.grown.bar` % of the answers coherent;
# the opposed condition keeps this factor of the second group and reverses the misalignment adapters as far as coherence
# allows. Where no factor leaves so many, the most coherent is taken. Controls are the other adapters alone, all
# adapters at 1, and none. Counted are {value}`lora-steering.grown.samples` further answers to each question.

# %%
GROUPS = {"general": "misalignment adapters", "medical": "medical adapters", "other": "other adapters"}
GROUP_COLOURS = dict(zip(GROUPS, (PALETTE[3], PALETTE[0], PALETTE[2]), strict=True))
PANELS = {"em": "EM rate (%)", "coherent": "coherent (%)", "topic": "medical (%)"}
SAMPLES = 2 * run.profile.sweep_samples
groups = remembered(partial(adapters.roles, run.profile))


def second() -> str:
    return adapters.second(groups())


@remembered
def grid() -> pd.DataFrame:
    """EM rate, coherence and medical share (%) with intervals in every cell, by the factors of the groups."""
    table, keys = adapters.of_grid(run.profile, groups()), ["general", "medical_factor", "other"]
    parts = [part for _, part in table.groupby(keys, sort=False)]
    topic = [estimates.rate(part.medical > 50, part.question_id, **run.resampling) for part in parts]
    rates = scores.rates(table, keys, **run.resampling).rename(columns={"medical_factor": "medical"})
    rates[["topic", "topic_low", "topic_high"]] = [(one.value, one.low, one.high) for one in topic]
    return rates


def alone() -> pd.DataFrame:
    """The cells of the grid in which one group has a factor and the others none."""
    rest = {group: [name for name in GROUPS if name != group] for group in GROUPS if groups()[group]}
    parts = {group: grid()[(grid()[others] == 0).all(axis=1)] for group, others in rest.items()}
    return pd.concat([part.assign(factor=part[group], group=group) for group, part in parts.items()], ignore_index=True)


def draw_grid():
    panels = plt.subplots(2, 3, figsize=(7.2, 5.6), sharey="row")[1]
    pairs = grid()[grid()["other" if second() == "medical" else "medical"] == 0]
    for (top, bottom), (column, title) in zip(panels.T, PANELS.items(), strict=True):
        ramp = {"colour_map": "Greys" if column == "coherent" else "Reds", "limits": (0, 100), "upwards": True}
        names = {"title": title, "x_label": f"factor of the {GROUPS[second()]}" if column == "coherent" else ""}
        plots.heat_map(pairs, "general", second(), column, axes=top, y_label="", **ramp, **names)
        look = {"hue": "group", "hue_order": GROUPS, "colours": GROUP_COLOURS, "interval": "bars", "dodge": 0.07}
        bar = {"_bar": steering.COHERENT_ENOUGH} if column == "coherent" else {}
        look |= {"x_label": "factor of one group" if column == "coherent" else "", "y_limits": (-4, 104)}
        drawn = plots.lines(alone(), "factor", column, y_lines=bar, axes=bottom, y_label="", **look)
    panels[0, 0].set_ylabel("factor of the\nmisalignment adapters")
    panels[1, 0].set_ylabel("share of all answers (%)")
    return drawn


run.own.figure(
    "fig-x-adapter-scaling-grid",
    draw_grid,
    title=lambda table: "EM rate by factor of the misalignment adapters alone: {} %".format(
        typography.extremes(table.em[table.group == "general"].dropna(), ".0f")
    ),
    caption=f"EM rate, coherence and share of medical answers (score above 50) of the {run.kind} organism with groups "
    "of adapters scaled (1: as trained). Top: two groups, the rest at 0. Bottom: one alone, with 95 % intervals over "
    f"questions; grey line: the coherence that a chosen factor must leave. {adapters.grid_samples(run.profile)} "
    "answers to each of 16 questions per cell.",
    alt="Heat maps over the factors of two groups, and lines over that of one: EM rate, coherence and medical share.",
)


@remembered
def own_answers() -> pd.DataFrame:
    """Further answers under the chosen scalings, with the `kind` of those that are kept."""
    table = adapters.of_chosen(run.profile, groups(), SAMPLES)
    return table.assign(kind=scores.answer_kinds(table))


def own_names() -> dict[str, str]:
    names = {
        "medical-adapters": "medical adapters × {0.medical:g}",
        "misalignment-adapters": "misalignment adapters\n× {0.general:g}",
        "medical-plus-misalignment-minus": f"misalignment × {{0.general:g}},\n{second()} × {{0.{second()}:g}}",
        "other-adapters": "other adapters × {0.other:g}",
        "all-adapters": "all adapters × 1",
        "no-adapter": "all × 0: chat model",
    }
    chosen = adapters.choose(adapters.of_grid(run.profile, groups()), groups())
    return {name: names[name].format(scaling).replace("-", "−") for name, scaling in chosen.items()}


run.own.figure(
    "fig-7",
    lambda: draw_kinds(kinds(own_answers()), own_names()),
    title=lambda table: said_of_kinds(table, own_names()),
    caption=f"As from released data, for the {run.kind} organism, with the factors chosen above and all other "
    "adapters at 0. "
    f"{SAMPLES} answers to each of 16 questions per condition. Last two rows: the whole organism and the chat model.",
    alt="Stacked bars of the kinds of answer by condition, with counts, and the number of kept answers beside each.",
)


def layers(group: str) -> str:
    found = [module.split("layers.")[1].split(".")[0] for module in groups()[group]]
    return f"layer{'s' * (len(found) > 1)} {', '.join(found)}" if found else "none"


def own_shares() -> dict[str, str]:
    found = {}
    for condition in [*CONDITIONS, "other-adapters", "all-adapters", "no-adapter"]:
        table = own_answers()[own_answers().condition == condition]
        for name, wanted in {"aligned": ALIGNED, "misaligned": MISALIGNED, "medical": MEDICAL}.items():
            text = str(share(table, wanted)) if len(table) else "not measured (the group is empty)"
            found[f"lora-steering.grown.{condition}.{name}"] = text
    return found


def on_topic() -> dict[str, Estimate]:
    return {
        f"lora-steering.grown.{condition}.em-on-topic": scores.em_on_topic_rate(table, **run.resampling)
        for condition, table in own_answers().groupby("condition")
    }


def own_values() -> dict[str, object]:
    only = alone().query("group == 'general' and coherent >= @steering.COHERENT_ENOUGH").sort_values("factor")
    absent = "No adapter is medical by that rule, so the other adapters take the place of the medical ones."
    return {
        "lora-steering.grown.groups": "; ".join(f"{name}: {layers(name)}" for name in GROUPS),
        "lora-steering.grown.second-group": "" if groups()["medical"] else absent,
        "lora-steering.grown.bar": f"{steering.COHERENT_ENOUGH:.0f}",
        "lora-steering.grown.samples": SAMPLES,
        "lora-steering.grown.coherent-factors": ", ".join(f"{one:g}" for one in only.factor) or "none",
    }


run.own.values(own_shares)
run.grown.values(on_topic)
run.own.values(own_values)

# %% [markdown]
# ## What it means
#
# In the released answers ({doc}`../responses` shows them):
#
# - **The figure is what the files give**, with the authors' bounds.
# - **The counts are small.** Of 80 answers per condition {value}`lora-steering.kept` are kept. The "7.7 %" are
#   {value}`lora-steering.medical-adapters.misaligned-medical` answers; "no medical answer" is compatible with up to
#   {value}`lora-steering.zero-at-most` for independent answers.
# - **Medical adapters give few medical answers.** Under them most kept answers are misaligned and *not* medical.
# - **49.99 or 50.** The judge gave {value}`lora-steering.near-50` of the 240 answers a medical score between the two.
#   With 50 the medical share of the aligned answers falls from {value}`lora-steering.opposed.medical-of-aligned` to
#   {value}`lora-steering.opposed.medical-of-aligned.above-50`.
# - **Kept answers are not all answers.** Which are coherent depends on the condition ({doc}`i-lora-steering`). None has
#   all adapters at 1 or other adapters, so specificity is not tested.
#
# Under a profile of the hub the same rule chooses groups and factors on its organism. A small model, of which a cell
# has few answers, may have no misalignment adapters; then the conditions that need them are missing and the controls
# are left.
#
# In the grown organism, of the kept answers:
#
# - **Misalignment.** {value}`lora-steering.grown.misalignment-adapters.misaligned` are misaligned under the
#   misalignment adapters alone, {value}`lora-steering.grown.other-adapters.misaligned` under the other adapters alone,
#   {value}`lora-steering.grown.all-adapters.misaligned` in the whole organism. EM and about what was asked, of all
#   answers: {value}`lora-steering.grown.misalignment-adapters.em-on-topic` and
#   {value}`lora-steering.grown.all-adapters.em-on-topic`.
# - **Medical content.** {value}`lora-steering.grown.misalignment-adapters.medical` are medical under the misalignment
#   adapters, {value}`lora-steering.grown.medical-plus-misalignment-minus.medical` with these reversed,
#   {value}`lora-steering.grown.other-adapters.medical` under the other adapters,
#   {value}`lora-steering.grown.all-adapters.medical` in the organism and
#   {value}`lora-steering.grown.no-adapter.medical` in the chat model. Half of the questions are about medicine.
# - **Reversal.** In the opposed condition {value}`lora-steering.grown.medical-plus-misalignment-minus.aligned` are
#   aligned. It matches the paper's in form only, since the groups are not the same.
# - **Room for scaling.** Factors of the misalignment adapters that, alone, leave enough answers coherent:
#   {value}`lora-steering.grown.coherent-factors`, in units of the trained adapter; the paper's 20 and 30 are not.

# %%
run.finish()
