# %% [markdown]
# # J Patching LoRA scalars between prompts
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` Non-medical scalars in medical prompts change EM by
# {value}`patching.medical-from-non-medical.both` (reported: +16 %): {verdict}`j-non-medical-into-medical|released`.
# {evidence}`grown` By {value}`patching.grown.medical-from-non-medical`, but scalars of the *same* prompt already change
# it by {value}`patching.grown.same`.
# ```
#
# **The question.** If the scalars carry misalignment, do those of *another* prompt change the EM rate?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import patching, steering
from em_companion.released import tables

run = Run("j-lora-patching", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# Take two prompts of equal length in tokens. Let the organism answer both, and keep the scalars $a_l(t) = A_l \cdot
# h_l(t)$ of all nine adapters at every position $t$. Answer prompt 1 again with the scalars of prompt 2,
#
# $$\Delta y_l(t) = s\,B_l\,a_l^{(1)}(t) \;\longrightarrow\; s\,B_l\,a_l^{(2)}(t),$$
#
# and compare the EM rate of *clean* and *patched* answers. {cite:t}`soligo2025convergent` do this for pairs of the same
# prompt, of two non-medical, two medical, and one of each (Appendix J, Figure 19). They report relative decreases of at
# most 22 %, except for medical prompts with scalars of non-medical ones, where EM rises by 16 %: an ambiguous result.
#
# The released files at hand are **not those of Figure 19** but two early series of 1 May 2025 from the authors' working
# repository {cite:p}`eminterp2025`, with fewer pairs and no pair of two medical prompts. A prompt counts as *medical*
# if most of its clean answers score above 50 for medical content. The change is relative,
#
# $$\text{change} = \frac{\text{EM}_\text{patched} - \text{EM}_\text{clean}}{\text{EM}_\text{clean}},$$
#
# of the pooled rates of a group. Its interval resamples *prompts*, since some are in both series, and answers to each.


# %% tags=["show-code"]
def released_change(table: pd.DataFrame) -> dict[str, float]:
    """Relative change of the pooled EM rate (%), with an interval over prompts and answers."""
    sums = table.groupby(["prompt", "patched"]).em.agg(["sum", "size"]).unstack()
    hits, sizes = sums["sum"].to_numpy(), sums["size"].to_numpy()  # [prompt, (clean, patched)]
    generator = np.random.default_rng(run.seed)
    drawn_sizes = estimates.resampled(generator, len(hits), run.profile.bootstrap_resamples)[:, :, None] * sizes
    drawn = generator.binomial(drawn_sizes, hits / sizes).sum(axis=1) / drawn_sizes.sum(axis=1)
    drawn = drawn[drawn[:, 0] > 0]
    low, high = 100 * np.quantile(drawn[:, 1] / drawn[:, 0] - 1, [0.025, 0.975]) if len(hits) > 1 else (np.nan, np.nan)
    clean, patched = 100 * hits.sum(axis=0) / sizes.sum(axis=0)
    return {"clean": clean, "patched": patched, "change": 100 * (patched / clean - 1), "low": low, "high": high}


# %%
GROUPS = {
    "same": "same prompt",
    "non-medical": "non-medical prompt,\nnon-medical scalars",
    "medical": "medical prompt,\nmedical scalars",
    "medical-from-non-medical": "medical prompt,\nnon-medical scalars",
    "non-medical-from-medical": "non-medical prompt,\nmedical scalars",
}
REPORTED_RISE, REPORTED_DECREASE = {"medical-from-non-medical": 16.0}, -22.0


def group_of(same: pd.Series, prompt_medical: pd.Series, donor_medical: pd.Series) -> np.ndarray:
    choices = [same, prompt_medical & ~donor_medical, ~prompt_medical & donor_medical, prompt_medical]
    return np.select(
        choices, ["same", "medical-from-non-medical", "non-medical-from-medical", "medical"], "non-medical"
    )


@remembered
def released_answers() -> pd.DataFrame:
    """Scores of all answers with `prompt`, `em` and the `group` of their prompt."""
    table = tables.read_patching()
    # The second series numbers its prompts; the texts are those of the first.
    table = table.assign(prompt=table.question_id.str.replace(r"^\d+_", "", regex=True), em=scores.is_em(table))
    key = ["runs", "pairs", "pair", "prompt"]
    clean = table[~table.patched]
    medical = (clean.medical > 50).groupby([clean[column] for column in key]).mean().gt(0.5).rename("is_medical")
    table = table.join(medical, on=key)
    mixed = table.groupby(["source", "pair"]).is_medical.transform("nunique") == 2
    return table.assign(group=group_of(table.pairs == "same-prompt", table.is_medical, table.is_medical ^ mixed))


@remembered
def released_changes() -> pd.DataFrame:
    """One row per group and series, and of both series together where a group has both."""
    rows = []
    for group, table in released_answers().groupby("group"):
        parts = dict(list(table.groupby("runs")))
        for series, part in (parts | ({"both": table} if len(parts) > 1 else {})).items():
            counts = {"prompts": part.prompt.nunique(), "answers": len(part)}
            rows.append({"group": group, "series": series} | counts | released_change(part))
    return pd.DataFrame(rows).sort_values("group", key=lambda one: one.map(list(GROUPS).index), kind="stable")


def draw_changes(table: pd.DataFrame, hue: str | None, limits: tuple | None = None):
    left, right = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.6))[1]
    table = table.assign(reported=table.group.map(REPORTED_RISE))
    table["decrease"] = table.reported.isna().map({True: REPORTED_DECREASE})
    look = {"hue": hue, "order": {group: name for group, name in GROUPS.items() if group in set(table.group)}}
    plots.dots(table, "group", "patched", before="clean", axes=left, x_label="EM rate (%); open: clean", **look)
    reported = {"reported rise": "reported", "reported decrease, at most": "decrease"}
    look |= {"low": "low", "high": "high", "reported": reported, "x_lines": {"_zero": 0}, "axes": right}
    return plots.dots(table, "group", "change", x_label="relative change (%)", x_limits=limits, **look)


run.released.figure(
    "fig-19",
    lambda: draw_changes(released_changes(), "series", (-100, 150)),
    title=lambda data: f"Patching changes EM rates by {span(data, 'change', '+.0f', reference=None)} %",
    caption="EM rate of clean and patched answers by kind of pair (left) and its relative change (right; 95 % "
    "intervals over prompts and answers, one cut off), in two early released series. Diamonds: the paper's own, later "
    "runs.",
    alt="Rows by group and series: medical prompts start far higher, and with non-medical scalars the series disagree.",
)


def as_estimate(row: pd.Series) -> Estimate:
    return Estimate(row.change, row.low, row.high, int(row.answers), "percent_change")


def measured(table: pd.DataFrame, how: str) -> dict[str, tuple[Estimate, str]]:
    """The two claims, from one row per group."""
    found, medical = table.set_index("group"), "medical-from-non-medical"
    others = found.drop(index=medical, errors="ignore").dropna(subset="change")
    claims = {"j-non-medical-into-medical": (as_estimate(found.loc[medical]), how)} if medical in found.index else {}
    if others.empty:  # no clean answer is misaligned
        return claims
    lowest = others.change.astype(float).idxmin()
    name = GROUPS[lowest].replace("\n", " ")
    return claims | {"j-largest-decrease-elsewhere": (as_estimate(others.loc[lowest]), f"{name}; {how}")}


HOW = "two early series pooled; interval resamples prompts and their answers"
run.released.measure(lambda: measured(released_changes().groupby("group").tail(1), HOW))
run.released.values(
    lambda: {f"patching.{row.group}.{row.series}": f"{row.change:+.1f} %" for row in released_changes().itertuples()}
)

# %% [markdown]
# ## On the grown organism
#
# The organism grown here is patched by the same protocol (nine adapters, bad medical advice, seed 0). The *donor* is
# the prompt whose scalars are used. Every position is patched when its token is read, so keys and values in the cache
# are those of the patched model. Prompts are the eight open questions, and questions on held-out medical topics in all
# wordings; at every length as many of one kind are kept as of the other, and pairs are all ordered pairs of one length,
# with {value}`patching.grown.runs` answers each. A run is patched with the *next* run of the donor, also where that is
# the prompt itself, and draws the noise of its clean run. Patched and clean answers are cut where the donor's ends.

# %%
RUNS = max(2 * run.profile.sweep_samples, min(20, run.profile.samples_per_question))


@remembered
def own_answers() -> pd.DataFrame:
    """Scored answers of all pairs, clean ones cut, with `em`, `patched` and the `group` of the pair."""
    table = patching.kept(run.profile, steering.ORGANISM, RUNS)
    same = table.question_id == table.donor_id
    clean = table[(table.answer == "clean") & same]
    medical = (clean.medicine > 50).groupby(clean.question_id).mean() > 0.5
    prompt, donor = table.question_id.map(medical), table.donor_id.map(medical)
    table = table.assign(em=scores.is_em(table), patched=table.answer == "patched", prompt_medical=prompt)
    return table.assign(group=group_of(same, prompt, donor))[table.answer != "clean"]


def changes_by(groups: pd.Series) -> pd.DataFrame:
    rows = []
    for group, part in own_answers().groupby(groups):
        coherent = 100 * scores.is_coherent(part).groupby(part.patched).mean()
        row = {"group": group, "prompts": part.question_id.nunique(), "answers": int(part.patched.sum())}
        row |= {"pairs": part.groupby(["question_id", "donor_id"]).ngroups}
        row |= {"coherent": coherent[False], "coherent_patched": coherent[True]}
        rows.append(row | estimates.relative_change(part, **run.resampling))
    return pd.DataFrame(rows).set_index("group", drop=False)


@remembered
def floors() -> pd.DataFrame:
    """Like `own_changes`, of same-prompt pairs alone, by the kind of prompt."""
    kinds = own_answers().prompt_medical.map({True: "medical", False: "non-medical"})
    return changes_by(kinds.where(own_answers().group == "same"))


own_changes = remembered(lambda: changes_by(own_answers().group))


run.own.figure(
    "fig-19",
    lambda: draw_changes(own_changes(), None),
    title=lambda data: f"Patching changes EM rates by {span(data, 'change', '+.0f', reference=None)} %",
    caption=f"As from released data, for the {run.kind} organism; 95 % intervals over pairs, which draw prompts "
    "and donors anew. "
    f"{RUNS} answers per pair. Diamonds: what the paper reports for its model.",
    alt="Left: hollow marks for clean, filled for patched EM rates. Right: relative changes; diamonds as reported.",
)


def own_values() -> dict[str, object]:
    found, same, off = own_changes(), floors(), []
    for group in found.index.drop("same"):
        kind = "medical" if group.startswith("medical") else "non-medical"
        if kind in same.index and (found.low[group] > same.high[kind] or found.high[group] < same.low[kind]):
            off.append(GROUPS[group].replace("\n", " "))
    texts = dict.fromkeys(GROUPS, "not measured (no such pairs)")
    texts |= {row.Index: str(as_estimate(row)) for row in found.itertuples()}
    texts |= {f"floor.{row.Index}": str(as_estimate(row)) for row in same.itertuples()}
    texts["coherent"] = f"{found.coherent['same']:.0f} % to {found.coherent_patched['same']:.0f} %"
    for patched, rows in own_answers().query("group == 'same'").groupby("patched"):
        texts[f"on-topic.{'patched' if patched else 'clean'}"] = str(scores.em_on_topic_rate(rows, **run.resampling))
    texts |= {"runs": RUNS, "beyond-floor": "; ".join(off) or "none"}
    return {f"patching.grown.{name}": one for name, one in texts.items()}


HERE = "organism grown here, " if run.own is run.grown else ""
OWN_HOW = f"{HERE}answers cut at the donor's length; interval over pairs, prompts and donors drawn anew"
run.own.measure(lambda: measured(own_changes(), OWN_HOW))
run.own.values(own_values)

# %% [markdown]
# A change counts as *reproduced* or *same direction* only if its interval leaves out zero ({ref}`the rules
# <verdict-rules>`), so like changes can get different verdicts: compare intervals before words.
#
# ## What it means
#
# In the released series:
#
# - **A rise, perhaps.** Medical prompts with non-medical scalars change by
#   {value}`patching.medical-from-non-medical.both`. By the ledger's tolerance that agrees with the paper, but the
#   interval reaches below zero, and the two series over the same four prompts disagree
#   ({value}`patching.medical-from-non-medical.first`, {value}`patching.medical-from-non-medical.second`).
# - **The larger change is in the opposite direction**: non-medical prompts with medical scalars lose EM in both series
#   ({value}`patching.non-medical-from-medical.first`, {value}`patching.non-medical-from-medical.second`), though from
#   low rates and with an interval that reaches zero. Medical scalars come from far more misaligned answers, so if they
#   carried misalignment they should have raised it.
# - **Same prompt is the noise floor.** Prompts are few and the runs early; they do not settle what Figure 19 shows.
#
# In the grown organism:
#
# - **The noise floor.** Scalars of another answer *to the same prompt* change EM by {value}`patching.grown.same` and
#   coherence from {value}`patching.grown.coherent`; EM on topic is {value}`patching.grown.on-topic.clean` before and
#   {value}`patching.grown.on-topic.patched` after. They belong to other words, so this comes from scalars that do not
#   fit the text. For non-medical prompts alone the floor is {value}`patching.grown.floor.non-medical`, for medical ones
#   {value}`patching.grown.floor.medical`.
# - **By kind of pair**: non-medical {value}`patching.grown.non-medical`; medical {value}`patching.grown.medical`;
#   medical prompts with non-medical scalars {value}`patching.grown.medical-from-non-medical`; non-medical prompts with
#   medical scalars {value}`patching.grown.non-medical-from-medical`. Kinds whose interval does not meet that of
#   same-prompt pairs with the same kind of prompt: {value}`patching.grown.beyond-floor`.
# - Under a profile of the hub the medical prompts are twins of open questions, and pairs are few.
# - Only what a kind of pair adds to this floor is the effect of the other prompt; the paper does not compare the two.

# %%
run.finish()
