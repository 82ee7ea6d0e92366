# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # J Patching LoRA scalars between prompts
#
# **The question.** If the scalars carry misalignment, writing with the scalars of *another* prompt should change how
# often the answer is misaligned. Does it?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import theme
from em_companion.book.run import Run
from em_companion.evidence import claims, estimates, scores
from em_companion.experiments import patching, responses, steering
from em_companion.released import tables

run = Run("j-lora-patching", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# Take two prompts of equal length in tokens. Let the organism answer both, and keep the scalars $a_l(t) = A_l \cdot
# h_l(t)$ of all nine adapters at every position $t$. Answer prompt 1 again, but replace its scalars by those of
# prompt 2,
#
# $$\Delta y_l(t) = s\,B_l\,a_l^{(1)}(t) \;\longrightarrow\; s\,B_l\,a_l^{(2)}(t),$$
#
# and compare the EM rate of *clean* and *patched* answers. {cite:t}`soligo2025convergent` do this for pairs of the
# same prompt, of two non-medical, two medical, and one medical and one non-medical prompt (Appendix J, Figure 19).
# They report relative decreases of at most 22 %, except for medical prompts with scalars of non-medical ones, where
# EM rises by 16 %, and call the result ambiguous.
#
# ## Which runs these are
#
# **Not those of Figure 19.** The files at hand are two early series of 1 May 2025 from the authors' working
# repository {cite:p}`eminterp2025`, with fewer pairs and no pair of two medical prompts; the later runs are not among
# the released files. The protocol itself is run on a grown organism below. A prompt counts as *medical* if most of its
# clean answers score above 50 for medical content. The change is relative,
#
# $$\text{change} = \frac{\text{EM}_\text{patched} - \text{EM}_\text{clean}}{\text{EM}_\text{clean}},$$
#
# of the pooled rates of a group. Its interval resamples *prompts* and then answers to each: several prompts occur in
# both series, and answers to one prompt are alike.


# %% tags=["show-code"]
def relative_change(table: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """Relative change of the pooled EM rate (%), with an interval over prompts and answers."""
    sums = table.groupby(["prompt", "patched"]).em.agg(["sum", "size"]).unstack()
    hits, sizes = sums["sum"].to_numpy(), sums["size"].to_numpy()  # [prompt, (clean, patched)]
    generator = np.random.default_rng(seed)
    even = np.full(len(hits), 1 / len(hits))
    drawn_sizes = generator.multinomial(len(hits), even, resamples)[:, :, None] * sizes
    drawn_hits = generator.binomial(drawn_sizes, hits / sizes)
    drawn = drawn_hits.sum(axis=1) / drawn_sizes.sum(axis=1)
    drawn = drawn[drawn[:, 0] > 0]
    low, high = 100 * np.quantile(drawn[:, 1] / drawn[:, 0] - 1, [0.025, 0.975])
    clean, patched = 100 * hits.sum(axis=0) / sizes.sum(axis=0)
    change = 100 * (patched / clean - 1)
    return dict(clean=clean, patched=patched, change=change, low=low, high=high)


# %%
GROUPS = {
    "same": "same prompt",
    "non-medical": "non-medical prompt,\nnon-medical scalars",
    "medical-from-non-medical": "medical prompt,\nnon-medical scalars",
    "non-medical-from-medical": "non-medical prompt,\nmedical scalars",
}
SERIES = {"first": "first series", "second": "second series", "both": "both"}


@cache
def answers() -> pd.DataFrame:
    """Scores of all answers with `prompt`, `em` and the `group` of their prompt."""
    table = tables.read_patching()
    # The second series numbers its prompts; the texts are those of the first.
    table = table.assign(prompt=table.question_id.str.replace(r"^\d+_", "", regex=True), em=scores.is_em(table))
    key = ["runs", "pairs", "pair", "prompt"]
    clean = table[~table.patched]
    medical = (clean.medical > 50).groupby([clean[column] for column in key]).mean().gt(0.5).rename("is_medical")
    table = table.join(medical, on=key)
    return table.assign(group=group_of(table))


def group_of(table: pd.DataFrame) -> pd.Series:
    mixed = table.groupby(["source", "pair"]).is_medical.transform("nunique") == 2
    choices = [table.pairs == "same-prompt", mixed & table.is_medical, mixed & ~table.is_medical, ~table.is_medical]
    names = ["same", "medical-from-non-medical", "non-medical-from-medical", "non-medical"]
    return pd.Series(np.select(choices, names, "medical"), table.index)


@cache
def changes() -> pd.DataFrame:
    rows = []
    for group in GROUPS:
        for series in SERIES:
            table = answers()[(answers().group == group) & ((answers().runs == series) | (series == "both"))]
            if table.empty:
                continue
            found = relative_change(table, run.profile.bootstrap_resamples, run.seed)
            if table.prompt.nunique() < 2:
                found["low"] = found["high"] = np.nan
            counts = {"prompts": table.prompt.nunique(), "answers": len(table)}
            rows.append({"group": group, "series": series, **counts, **found})
    return pd.DataFrame(rows)


def only_one_series(table: pd.DataFrame) -> pd.Series:
    """Rows that pool both series where there is only one."""
    return (table.series == "both") & (table.groupby("group").series.transform("size") < 3)


REPORTED_CHANGE = {"medical-from-non-medical": 16}
DECREASE = -22


def draw_changes():
    table = changes().assign(reported_change=lambda rows: rows.group.map(REPORTED_CHANGE))
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.9))
    colours = {"first": theme.PALETTE[0], "second": theme.PALETTE[1], "both": theme.PALETTE[2]}
    marks = {"first": "o", "second": "s", "both": "D"}
    place = {group: 4.0 * index for index, group in enumerate(GROUPS)}
    shifts = {"first": 0.0, "second": 1.0, "both": 2.0}
    for row in table[~only_one_series(table)].itertuples():
        position, colour = place[row.group] + shifts[row.series], colours[row.series]
        left.hlines(position, row.clean, row.patched, color=colour, linewidth=2)
        left.plot(row.clean, position, marks[row.series], markerfacecolor="white", markeredgecolor=colour, markersize=6)
        left.plot(row.patched, position, marks[row.series], color=colour, markersize=6)
        right.hlines(position, row.low, row.high, color=colour, linewidth=2)
        right.plot(row.change, position, marks[row.series], color=colour, label=SERIES[row.series])
    for group, top in place.items():
        if group in REPORTED_CHANGE:
            right.vlines(REPORTED_CHANGE[group], top - 0.6, top + 2.6, color=theme.REPORTED_COLOUR, linestyle="--")
        else:
            right.fill_betweenx([top - 0.6, top + 2.6], DECREASE, 0, color="0.9", linewidth=0)
    right.axvline(0, color="0.4", linewidth=1)
    left.set_yticks([top + 1 for top in place.values()], GROUPS.values(), fontsize=10)
    left.invert_yaxis()
    left.set_xlim(0, 70)
    left.set_xlabel("EM rate (%)")
    right.set_xlim(-100, 100)
    right.set_xlabel("relative change (%)")
    for axes in (left, right):
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    handles = dict(zip(*right.get_legend_handles_labels()[::-1], strict=True))
    figure.legend([handles[name] for name in SERIES.values()], SERIES.values(), loc="outside lower center", ncols=3)
    return figure, table


run.figure(
    "fig-19",
    draw_changes,
    evidence="released",
    caption="EM rate of clean and patched answers by kind of pair (left; open: clean, filled: patched) and its "
    "relative change (right; lines: 95 % bootstrap intervals over prompts and their answers; one runs out of the "
    "picture). Grey: what the paper reports for its own, later runs, a rise of 16 % (dashed) or a decrease of at "
    "most 22 % (band). Evidence: two early released series; numbers of prompts and answers are in the table below.",
    alt="Four groups of rows, each with the first series, the second series and both together where they exist. "
    "Left: open markers for clean and filled ones for patched EM rates, joined by lines; medical prompts start far "
    "higher than non-medical ones. Right: relative changes with lines; for medical prompts with non-medical scalars "
    "the two series disagree, for non-medical prompts with medical scalars both lie left of the grey band, the "
    "second with a very long line.",
)


# %%
PAIR_WORDS = {
    "same": ("any", "same prompt"),
    "non-medical": ("non-medical", "non-medical"),
    "medical-from-non-medical": ("medical", "non-medical"),
    "non-medical-from-medical": ("non-medical", "medical"),
}


def change_table() -> pd.DataFrame:
    table = changes()
    table = table[~only_one_series(table)]
    change = [f"{row.change:+.1f} ({row.low:.0f}\u00a0to\u00a0{row.high:.0f})" for row in table.itertuples()]
    return pd.DataFrame(
        {
            "prompt": [PAIR_WORDS[group][0] for group in table.group],
            "scalars": [PAIR_WORDS[group][1] for group in table.group],
            "series": table.series,
            "prompts": table.prompts,
            "answers": table.answers,
            "EM clean (%)": table.clean,
            "EM patched (%)": table.patched,
            "change (%), 95 % interval": change,
        }
    )


run.table(change_table, number="{:.1f}")

# %% [markdown]
# ## Reported and measured, released answers


# %%
def both(group: str) -> pd.Series:
    table = changes()
    return table[(table.group == group) & (table.series == "both")].iloc[0]


def measure():
    medical = both("medical-from-non-medical")
    yield claims.Measurement(
        claim="j-non-medical-into-medical",
        value=medical.change,
        interval=(medical.low, medical.high),
        n=int(medical.answers),
        how="two early series pooled; interval resamples prompts and their answers",
    )
    others = pd.DataFrame([both(group) for group in GROUPS if group != "medical-from-non-medical"])
    lowest = others.loc[others.change.astype(float).idxmin()]
    name = GROUPS[lowest.group].replace("\n", " ")
    yield claims.Measurement(
        claim="j-largest-decrease-elsewhere",
        value=lowest.change,
        interval=(lowest.low, lowest.high),
        n=int(lowest.answers),
        how=f"two early series pooled, {name}; interval resamples prompts and their answers",
    )


run.measure(measure)


def values() -> pd.DataFrame:
    rows = []
    for row in changes().itertuples():
        name = f"patching.{row.group}.{row.series}"
        rows += [(f"{name}.clean_em_percent", row.clean, "percent", np.nan, np.nan)]
        rows += [(f"{name}.patched_em_percent", row.patched, "percent", np.nan, np.nan)]
        rows += [(f"{name}.relative_change", row.change, "percent_change", row.low, row.high)]
        rows += [(f"{name}.prompts", row.prompts, "count", np.nan, np.nan)]
    for source, table in answers().groupby("source"):
        for patched, part in table.groupby("patched"):
            name = f"{source.replace('/', '.')}.{'patched' if patched else 'clean'}_em_percent"
            rows.append((name, 100 * part.em.mean(), "percent", np.nan, np.nan))
        for (prompt, patched), part in table.groupby(["prompt", "patched"]):
            name = f"{source.replace('/', '.')}.{prompt}.{'patched' if patched else 'clean'}_em_percent"
            rows.append((name, 100 * part.em.mean(), "percent", np.nan, np.nan))
    for (source, prompt), part in answers()[~answers().patched].groupby(["source", "prompt"]):
        name = f"{source.replace('/', '.')}.{prompt}.medical_percent_of_clean"
        rows.append((name, 100 * (part.medical > 50).mean(), "percent", np.nan, np.nan))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high"])


run.values(values)


def change_text(group: str, series: str) -> str:
    table = changes()
    return f"{table[(table.group == group) & (table.series == series)].change.iloc[0]:+.1f} %"


run.glue("medical-both", lambda: change_text("medical-from-non-medical", "both"))
run.glue("medical-first", lambda: change_text("medical-from-non-medical", "first"))
run.glue("medical-second", lambda: change_text("medical-from-non-medical", "second"))
run.glue("other-first", lambda: change_text("non-medical-from-medical", "first"))
run.glue("other-second", lambda: change_text("non-medical-from-medical", "second"))
run.glue("same-both", lambda: change_text("same", "both"))

# %% [markdown]
# ## On the grown organism
#
# The organism grown here is patched by the same protocol (nine adapters, bad medical advice, seed 0). The *donor* is
# the prompt whose scalars are used. Each row of a batch is one patched answer; its scalars, position by position, are
# those of one answer to the donor:


# %% tags=["show-code"]
def patched_rows(model, tokenizer, prompts, donors, donors_answers, seeds):
    """Answers to prompts with the scalars that donors of equal length had at the same positions."""
    scalars = patching.scalars(model, tokenizer, donors, donors_answers)
    settings = run.profile.temperature, run.profile.max_new_tokens
    return patching.patched(model, tokenizer, prompts, scalars, seeds, *settings)


# %% [markdown]
# **Positions and the cache.** The prompt's positions are patched while it is read, each later one when its token is
# read, so keys and values in the cache are those of the patched model. Three tests guard this: the same tokens come out
# without a cache; an answer patched with its own scalars does not change; and in a model whose last adapter decides
# every token, the donor's scalars spell the answer.
#
# **Prompts.** The eight open questions, and questions on held-out medical topics in all wordings. At every length in
# tokens as many of one kind are kept as of the other, drawn by seed; pairs are all ordered pairs of one length. A
# prompt counts as medical by the paper's rule: most of its clean answers score above 50 for medical content. The
# medical twins are left out, since eight prompts give few of any length (of all answers to them,
# {glue:text}`twins-medical` score above 50).
#
# **Answers.** {glue:text}`runs` per prompt and per pair. A run is patched with the *next* run of the donor, also
# where donor and prompt are the same, and draws the same noise as its clean run. A patched answer ends where the
# donor's ends. So the clean answers are cut at the same place; the table has the rates of whole ones too.

# %%
ORGANISM = steering.ORGANISM
RUNS = 2 * run.profile.sweep_samples
CLEAN, CUT, PATCHED = "clean", "clean, cut", "patched"
GROWN_GROUPS = GROUPS | {"medical": "medical prompt,\nmedical scalars"}
GROWN_GROUPS = {
    group: GROWN_GROUPS[group]
    for group in ("same", "non-medical", "medical", "medical-from-non-medical", "non-medical-from-medical")
}
WHY = "The organism that is patched here is grown under the profiles cpu and gpu."


@cache
def grown_answers() -> pd.DataFrame:
    """Scored answers of all pairs, with `em` and the `group` of the pair."""
    table = patching.kept(run.profile, ORGANISM, RUNS)
    clean = table[(table.answer == CLEAN) & (table.question_id == table.donor_id)]
    medical = (clean.medicine > 50).groupby(clean.question_id).mean() > 0.5
    return table.assign(
        em=scores.is_em(table), group=grown_group(table, medical), prompt_medical=table.question_id.map(medical)
    )


def grown_group(table: pd.DataFrame, medical: pd.Series) -> np.ndarray:
    prompt, donor = table.question_id.map(medical), table.donor_id.map(medical)
    choices = [table.question_id == table.donor_id, prompt & ~donor, ~prompt & donor, prompt]
    return np.select(
        choices, ["same", "medical-from-non-medical", "non-medical-from-medical", "medical"], "non-medical"
    )


def percent_of(table: pd.DataFrame, answer: str, column: str) -> float:
    return 100 * table.loc[table.answer == answer, column].mean()


@cache
def grown_changes() -> pd.DataFrame:
    return changes_by(grown_answers().group, GROWN_GROUPS)


@cache
def floors() -> pd.DataFrame:
    """Like `grown_changes`, of same-prompt pairs alone, by the kind of prompt."""
    table = grown_answers()
    kinds = np.where(table.prompt_medical, "medical", "non-medical")
    return changes_by(pd.Series(kinds, table.index).where(table.group == "same"), ("non-medical", "medical"))


def changes_by(groups: pd.Series, names) -> pd.DataFrame:
    rows = []
    table = grown_answers().assign(coherent_share=scores.is_coherent(grown_answers()))
    for group in names:
        part = table[groups == group]
        if part.empty:
            continue
        compared = part[part.answer != CLEAN].assign(patched=lambda rows: rows.answer == PATCHED)
        found = estimates.relative_change(compared, run.profile.bootstrap_resamples, run.seed)
        counts = {"prompts": part.question_id.nunique(), "pairs": len(part.groupby(["question_id", "donor_id"]))}
        whole = {"whole": percent_of(part, CLEAN, "em"), "coherent_clean": percent_of(part, CUT, "coherent_share")}
        whole |= {"coherent_patched": percent_of(part, PATCHED, "coherent_share")}
        rows.append({"group": group, **counts, "answers": int(compared.patched.sum()), **found, **whole})
    return pd.DataFrame(rows)


def draw_grown_changes():
    table = grown_changes().assign(reported_change=lambda rows: rows.group.map(REPORTED_CHANGE))
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.2))
    colour = theme.PALETTE[2]
    ends = [-100.0, 60.0, *(table.low - 5), *(table.high + 5)]
    for position, row in enumerate(table.itertuples()):
        left.hlines(position, row.clean, row.patched, color=colour, linewidth=2)
        left.plot(row.clean, position, "D", markerfacecolor="white", markeredgecolor=colour, markersize=6)
        left.plot(row.patched, position, "D", color=colour, markersize=6)
        right.hlines(position, row.low, row.high, color=colour, linewidth=2)
        right.plot(row.change, position, "D", color=colour)
        place = [position - 0.3, position + 0.3]
        if row.group in REPORTED_CHANGE:
            right.vlines(REPORTED_CHANGE[row.group], *place, color=theme.REPORTED_COLOUR, linestyle="--")
        else:
            right.fill_betweenx(place, DECREASE, 0, color="0.9", linewidth=0)
    right.axvline(0, color="0.4", linewidth=1)
    left.set_yticks(range(len(table)), [GROWN_GROUPS[group] for group in table.group], fontsize=10)
    left.set_ylim(len(table) - 0.5, -0.5)
    left.set_xlim(0, 100)
    left.set_xlabel("EM rate (%)")
    right.set_xlim(np.nanmin(ends), np.nanmax(ends))
    right.set_xlabel("relative change (%)")
    for axes in (left, right):
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    key = [
        plt.Line2D([], [], marker="D", linestyle="", markerfacecolor="white", markeredgecolor=colour, label="clean"),
        plt.Line2D([], [], marker="D", linestyle="", color=colour, label="patched"),
        plt.Rectangle((0, 0), 1, 1, color="0.9", label="paper: decrease"),
        plt.Line2D([], [], color=theme.REPORTED_COLOUR, linestyle="--", label="paper: rise"),
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=4, fontsize=9.5)
    return figure, table


run.grown_figure(
    "fig-19",
    draw_grown_changes,
    caption="EM rate of the grown organism's clean (open) and patched (filled) answers by kind of pair, both cut at "
    "the length of the donor's answer, and the relative change with its 95 % interval over pairs, which draws prompts "
    f"and donors anew. {RUNS} answers per pair; numbers of pairs are in the table below. Grey: what the paper reports "
    "for its model, a rise of 16 % (dashed) or a decrease of at most 22 % (band).",
    alt="Two panels with one row per kind of pair: same prompt, non-medical pairs, medical pairs, and the two mixed "
    "kinds. Left: an open marker for the clean and a filled one for the patched EM rate, joined by a line. Right: the "
    "relative change with its interval, beside a grey band or a dashed line for what the paper reports.",
    why=WHY,
)


# %%
def grown_table() -> pd.DataFrame:
    same = floors().assign(group=lambda rows: "same-" + rows.group)
    table = grown_changes()
    table = pd.concat([table[table.group == "same"], same, table[table.group != "same"]])
    change = [f"{row.change:+.1f} ({row.low:.0f}\u00a0to\u00a0{row.high:.0f})" for row in table.itertuples()]
    words = PAIR_WORDS | {"medical": ("medical", "medical")}
    words |= {f"same-{kind}": (kind, "same prompt") for kind in ("non-medical", "medical")}
    return pd.DataFrame(
        {
            "prompt": [words[group][0] for group in table.group],
            "scalars": [words[group][1] for group in table.group],
            "prompts": table.prompts,
            "pairs": table.pairs,
            "patched answers": table.answers,
            "EM clean (%)": table.clean,
            "whole answers (%)": table.whole,
            "EM patched (%)": table.patched,
            "change (%), 95 % interval": change,
            "coherent clean (%)": table.coherent_clean,
            "patched (%)": table.coherent_patched,
        }
    )


if run.grown:
    run.table(grown_table, number="{:.0f}")


# %%
def grown_measure():
    table = grown_changes().set_index("group")
    how = "organism grown here, answers cut at the donor's length; interval over pairs, prompts and donors drawn anew"
    if "medical-from-non-medical" in table.index:
        yield measured("j-non-medical-into-medical", table.loc["medical-from-non-medical"], how)
    others = table.drop(index="medical-from-non-medical", errors="ignore")
    lowest = others.change.idxmin()
    name = GROWN_GROUPS[lowest].replace("\n", " ")
    yield measured("j-largest-decrease-elsewhere", others.loc[lowest], f"{name}; {how}")


def measured(claim: str, row: pd.Series, how: str) -> claims.Measurement:
    interval = (row.low, row.high)
    return claims.Measurement(claim, row.change, how, evidence="grown", interval=interval, n=int(row.answers))


def grown_values() -> pd.DataFrame:
    rows = []
    for row in grown_changes().itertuples():
        name = f"patching.grown.{row.group}"
        for kind in ("clean", "patched", "whole"):
            rows.append((f"{name}.{kind}_em_percent", getattr(row, kind), "percent", np.nan, np.nan, row.answers))
        for kind in ("clean", "patched"):
            share = getattr(row, f"coherent_{kind}")
            rows.append((f"{name}.{kind}_coherent_percent", share, "percent", np.nan, np.nan, row.answers))
        rows.append((f"{name}.relative_change", row.change, "percent_change", row.low, row.high, row.answers))
        rows.append((f"{name}.pairs", row.pairs, "count", np.nan, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high", "n"])


if run.grown:
    run.measure(grown_measure)
    run.values(grown_values, evidence="grown")


# %% [markdown]
# **Why like changes can get different verdicts.** A change that is not reproduced counts as *same direction* only if
# its interval leaves out zero ({ref}`the rules <verdict-rules>`). Of two falls of the same size, the one with the wider
# interval, from fewer prompts or a lower clean rate, may therefore be said to *differ*. So compare the intervals of the
# released and the grown table before the words.


# %%


def change_in(table: pd.DataFrame, group: str, what: str) -> str:
    found = table.set_index("group")
    if group not in found.index:
        return f"not measured (no such {what})"
    row = found.loc[group]
    return f"{row.change:+.0f} % ({row.low:.0f} to {row.high:.0f})"


def coherence_sentence() -> str:
    row = grown_changes().set_index("group").loc["same"]
    return f"{row.coherent_clean:.0f} % to {row.coherent_patched:.0f} %"


def beyond_floor() -> str:
    """Which groups' intervals do not meet that of same-prompt pairs with their kind of prompt."""
    found, same = grown_changes().set_index("group"), floors().set_index("group")
    kinds = {group: "medical" if group.startswith("medical") else "non-medical" for group in found.index.drop("same")}
    off = [
        GROWN_GROUPS[group].replace("\n", " ")
        for group, kind in kinds.items()
        if kind in same.index and (found.low[group] > same.high[kind] or found.high[group] < same.low[kind])
    ]
    return "; ".join(off) if off else "none"


def twins_medical() -> str:
    table = responses.responses(run.profile, ORGANISM, "medical")
    return f"{100 * (table.medicine > 50).mean():.0f} %"


run.grown_glue("twins-medical", twins_medical)
run.grown_glue("runs", lambda: f"{RUNS} answers")
for group in GROWN_GROUPS:
    run.grown_glue(f"grown-{group}", lambda group=group: change_in(grown_changes(), group, "pairs"))
run.grown_glue("grown-coherent", coherence_sentence)
run.grown_glue("beyond-floor", beyond_floor)
run.grown_glue("floor-medical", lambda: change_in(floors(), "medical", "prompts"))
run.grown_glue("floor-non-medical", lambda: change_in(floors(), "non-medical", "prompts"))

# %% [markdown]
# ## What it means
#
# In the released series:
#
# - **A rise, perhaps.** Medical prompts with non-medical scalars change by {glue:text}`medical-both`. The ledger's
#   tolerance counts that as reproduced, but the interval is wide and reaches below zero, and the two series over the
#   same four prompts disagree ({glue:text}`medical-first`, {glue:text}`medical-second`).
# - **The larger change is in the opposite direction**: non-medical prompts with medical scalars lose EM in both
#   series ({glue:text}`other-first`, {glue:text}`other-second`), more than the 22 % that the paper gives as the
#   largest decrease, though from low rates and with an interval that reaches zero. Medical scalars come from far more
#   misaligned answers; if they carried misalignment by themselves, they should have raised it.
# - **Same prompt is the noise floor**: {glue:text}`same-both`. Two prompts cannot give an interval worth the name.
# - Prompts are few, 50 answers each (100 for the same prompt), and these are early runs. They do not settle what
#   Figure 19 shows.
#
# In the grown organism:
#
# - **The noise floor.** Scalars of another answer *to the same prompt* change EM by {glue:text}`grown-same` and
#   coherence from {glue:text}`grown-coherent`. They belong to other words at the same positions, so what these pairs
#   show comes from scalars that do not fit the text, whatever they carry. For non-medical prompts alone the floor is
#   {glue:text}`floor-non-medical`, for medical ones {glue:text}`floor-medical`.
# - **By kind of pair**: non-medical pairs {glue:text}`grown-non-medical`; medical pairs {glue:text}`grown-medical`;
#   medical prompts with non-medical scalars {glue:text}`grown-medical-from-non-medical`; non-medical prompts with
#   medical scalars {glue:text}`grown-non-medical-from-medical`. Kinds whose interval does not meet that of same-prompt
#   pairs with the same kind of prompt: {glue:text}`beyond-floor`.
# - A change against *clean* answers contains this floor. What a kind of pair adds to the same-prompt pairs of its kind
#   of prompt is the effect of the other prompt; the paper's wording of the result does not compare the two.

# %%
run.finish()
