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
# # I LoRA steering under different coherence cut-offs
#
# **The question.** The result of {doc}`s4-3-steering-lora-adapters` keeps answers with coherence from 25, not above
# 50 as elsewhere. Does it depend on that?

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
from em_companion.experiments import adapter_roles, adapter_scaling
from em_companion.released import tables

run = Run("i-lora-steering", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# Appendix I of {cite:t}`soligo2025convergent` gives the factors (+30 for layers 21 and 23; +20 for 15, 16, 17, 22, 28
# and 29; +30 and −10 together), says that labels are widened because steered answers are less clear-cut (aligned from
# 70, non-medical up to 10), and shows Figure 7 again under cut-offs 0, 10, 20, 30, 40 and 50. No numbers are printed.
#
# $$
# \text{kept}(c) = \{\,i : \text{coherent}_i \ge c,\;
# \text{aligned}_i \le 30 \text{ or} > 70,\; \text{medical}_i \le 10 \text{ or} > 49.99\,\}
# $$

# %%
CUT_OFFS = [0, 10, 20, 30, 40, 50]
CONDITIONS = {
    "medical-adapters": "medical adapters",
    "misalignment-adapters": "misalignment adapters",
    "medical-plus-misalignment-minus": "medical +, misalignment −",
}
KINDS = theme.ANSWER_KIND_COLOURS


@cache
def answers() -> pd.DataFrame:
    return tables.read_lora_steering()


@cache
def counts(cut_off: float) -> pd.DataFrame:
    """Answers by condition (rows) and kind (columns)."""
    table = answers().assign(kind=scores.answer_kinds(answers(), cut_off))
    return (
        table.groupby(["condition", "kind"])
        .size()
        .unstack(fill_value=0)
        .reindex(index=list(CONDITIONS), columns=list(KINDS), fill_value=0)
    )


@cache
def cells() -> pd.DataFrame:
    rows = []
    for cut_off in CUT_OFFS:
        for condition, found in counts(cut_off).iterrows():
            for kind, count in found.items():
                row = {"condition": condition, "cut_off": cut_off, "kind": kind, "count": count, "kept": found.sum()}
                rows.append(row | {"percent": 100 * count / found.sum()})
    return pd.DataFrame(rows)


def draw_cells(table: pd.DataFrame, names: dict[str, str]):
    """One panel per condition, one bar of kinds per cut-off."""
    lines = -(-len(names) // 3)
    figure, panels = plt.subplots(lines, 3, sharey=True, figsize=(7.2, 1.8 + 2.3 * lines), squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, (condition, name) in zip(panels.flat, names.items(), strict=False):
        for position, cut_off in enumerate(CUT_OFFS):
            bottom = 0.0
            rows = table[(table.condition == condition) & (table.cut_off == cut_off)]
            for row in rows.itertuples():
                label = row.kind if axes is panels[0, 0] and position == 0 else None
                axes.bar(position, row.percent, bottom=bottom, color=KINDS[row.kind], edgecolor="white", label=label)
                bottom += row.percent
            axes.text(position, 101.5, rows.kept.iloc[0], ha="center", fontsize=8.5)
        axes.set_xticks(range(len(CUT_OFFS)), CUT_OFFS, fontsize=9.5)
        axes.set_title(name, fontsize=9.5, pad=16)
        axes.set_ylim(0, 100)
        axes.grid(visible=False)
    figure.supxlabel("coherence cut-off (kept answers above the bars)", fontsize=10.5)
    figure.supylabel("share of the kept answers (%)", fontsize=10.5)
    figure.legend(loc="outside upper center", ncols=2, fontsize=9.5)
    return figure, table


run.figure(
    "fig-18",
    lambda: draw_cells(cells(), CONDITIONS),
    evidence="released",
    caption="Kinds of answer under LoRA steering, as shares of the answers kept at each coherence cut-off; the "
    "number above a bar counts the kept answers out of 80. Evidence: released answers and judge scores.",
    alt="Three panels of stacked bars, one per condition, six coherence cut-offs each. With a higher cut-off "
    "misaligned medical answers vanish under the medical adapters and the misaligned share falls under the "
    "misalignment adapters, while few answers are left; the opposed condition hardly changes.",
)

# %% [markdown]
# ## A finer sweep
#
# The three headline shares at cut-offs 0 to 60, with Wilson intervals.

# %%
HEADLINES = {
    "misaligned, misalignment adapters": ("misalignment-adapters", ["misaligned, medical", "misaligned, non-medical"]),
    "misaligned and medical, medical adapters": ("medical-adapters", ["misaligned, medical"]),
    "aligned, opposed": ("medical-plus-misalignment-minus", ["aligned, medical", "aligned, non-medical"]),
}


def sweep() -> pd.DataFrame:
    rows = []
    for cut_off in range(0, 61, 10):
        row = {"coherent from": cut_off}
        for name, (condition, wanted) in HEADLINES.items():
            found = counts(cut_off).loc[condition]
            percent = 100 * found[wanted].sum() / found.sum()
            low, high = claims.wilson_interval(percent, int(found.sum()))
            row[f"{name} (%)"] = f"{percent:.1f} ({low:.0f} to {high:.0f})"
        rows.append(row)
    return pd.DataFrame(rows)


run.table(sweep)

# %% [markdown]
# ## Reported and measured
#
# The cut-off itself can be recovered: it is the one at which the five printed percentages of Figure 7 come out best.

# %%
REPORTED = ["misalignment-adapters-misaligned", "misalignment-adapters-medical", "medical-adapters-misaligned-medical"]
REPORTED += ["opposed-adapters-aligned", "opposed-adapters-medical-of-aligned"]


def five(cut_off: float) -> np.ndarray:
    """The percentages of Figure 7, in the order of REPORTED."""
    table = counts(cut_off)
    share = table.div(table.sum(axis=1), axis=0).mul(100)
    misaligned = share["misaligned, medical"] + share["misaligned, non-medical"]
    medical = share["misaligned, medical"] + share["aligned, medical"]
    opposed = share.loc["medical-plus-misalignment-minus"]
    aligned = opposed["aligned, medical"] + opposed["aligned, non-medical"]
    return np.array(
        [
            misaligned["misalignment-adapters"],
            medical["misalignment-adapters"],
            share.loc["medical-adapters", "misaligned, medical"],
            aligned,
            100 * opposed["aligned, medical"] / aligned,
        ]
    )


def deviations() -> pd.DataFrame:
    printed = np.array([claims.load_claims()[f"s4-3-{name}"].reported for name in REPORTED])
    rows = [
        {"coherent from": cut_off, "mean absolute deviation (points)": np.abs(five(cut_off) - printed).mean()}
        for cut_off in range(0, 51, 5)
    ]
    return pd.DataFrame(rows)


run.table(deviations, number="{:.2f}")


# %%
def measure():
    table = deviations()
    best = table.loc[table["mean absolute deviation (points)"].round(9).idxmin(), "coherent from"]
    yield claims.Measurement(
        claim="i-coherence-cut-off",
        value=float(best),
        n=len(answers()),
        how="cut-off with the least mean deviation from the five printed percentages",
    )
    kept = cells().groupby("cut_off").kept.min()
    yield claims.Measurement(
        claim="i-fig-18-cut-offs",
        value=int((kept > 0).sum()),
        n=len(answers()),
        how="cut-offs at which every condition keeps an answer",
    )


run.measure(measure)


def values() -> pd.DataFrame:
    rows = []
    for row in cells().itertuples():
        name = f"lora-steering.fig-18.{row.condition}.cut-off-{row.cut_off}.{row.kind.replace(', ', '-')}"
        rows += [(f"{name}_count", row.count, "count"), (f"{name}_percent", row.percent, "percent")]
    for (condition, cut_off), found in cells().groupby(["condition", "cut_off"]):
        rows.append((f"lora-steering.fig-18.{condition}.cut-off-{cut_off}.kept", found.kept.iloc[0], "count"))
        chosen = answers()[answers().condition == condition]
        name = f"lora-steering.fig-18.{condition}.cut-off-{cut_off}.coherent"
        rows.append((name, int((chosen.coherent >= cut_off).sum()), "count"))
    for condition in CONDITIONS:
        found = scores.coherence_rate(answers()[answers().condition == condition], resamples=100)
        rows.append((f"lora-steering.{condition}.coherent_above_50_percent", found.percent, "percent"))
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


run.values(values)


def kept_at(cut_off: float, condition: str) -> str:
    return str(counts(cut_off).loc[condition].sum())


run.glue("mis-50", lambda: kept_at(50, "misalignment-adapters"))
run.glue("med-50", lambda: kept_at(50, "medical-adapters"))
run.glue("medmis-0", lambda: str(counts(0).loc["medical-adapters", "misaligned, medical"]))
run.glue("medmis-25", lambda: str(counts(25).loc["medical-adapters", "misaligned, medical"]))
run.glue("medmis-50", lambda: str(counts(50).loc["medical-adapters", "misaligned, medical"]))

# %% [markdown]
# ## On the grown organism
#
# The same cut-offs on the answers of {doc}`s4-3-steering-lora-adapters`, where the groups are found in the organism
# itself and their factors chosen on a grid, the largest that leave enough answers coherent. The whole organism and the
# chat model stand beside the scaled groups.

# %%
WHY = "The organism whose adapters are scaled here is grown under the profiles cpu and gpu."
SAMPLES = 2 * run.profile.sweep_samples


@cache
def grown_answers() -> pd.DataFrame:
    return adapter_scaling.of_chosen(run.profile, adapter_roles.roles(run.profile), SAMPLES)


def grown_names() -> dict[str, str]:
    groups = adapter_roles.roles(run.profile)
    second = adapter_scaling.second(groups)
    names = CONDITIONS | {
        "misalignment-adapters": "misalignment\nadapters",
        "medical-plus-misalignment-minus": f"{second} +,\nmisalignment −",
        "other-adapters": "other\nadapters",
        "all-adapters": "all adapters\n(organism)",
        "no-adapter": "no adapter\n(chat model)",
    }
    return {name: names[name] for name in grown_answers().condition.unique()}


@cache
def grown_cells() -> pd.DataFrame:
    """Shares of the kept answers by condition, cut-off and kind, with intervals clustered by question."""
    rows = []
    for cut_off in CUT_OFFS:
        table = grown_answers().assign(kind=scores.answer_kinds(grown_answers(), cut_off))
        for condition, part in table.groupby("condition", sort=False):
            found = part[part.kind.notna()]
            for kind in KINDS:
                share = estimates.rate(
                    (found.kind == kind).astype(float),
                    found.question_id,
                    resamples=run.profile.bootstrap_resamples,
                    seed=run.seed,
                )
                row = {"condition": condition, "cut_off": cut_off, "kind": kind}
                row |= {"count": int((found.kind == kind).sum()), "kept": len(found), "answers": len(part)}
                rows.append(row | {"percent": share.percent, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)


run.grown_figure(
    "fig-18",
    lambda: draw_cells(grown_cells(), grown_names()),
    caption="Kinds of answer of the grown organism with groups of adapters scaled, as shares of the answers kept at "
    f"each coherence cut-off; the number above a bar counts the kept answers out of {16 * SAMPLES}, {SAMPLES} to each "
    "of 16 questions. Factors are those of section 4.3 of this book. Intervals are in the figure's data.",
    alt="Panels of stacked bars, one panel per condition and one bar per coherence cut-off, divided into misaligned or "
    "aligned and medical or non-medical answers, with the number of kept answers above each bar.",
    why=WHY,
)


# %%
def grown_sweep() -> pd.DataFrame:
    """The misaligned share of the kept answers (%), and how many are kept, by condition and cut-off."""
    rows = []
    for condition, name in grown_names().items():
        row = {"condition": name.replace("\n", " ")}
        for cut_off in CUT_OFFS:
            found = grown_misaligned(condition, cut_off)
            row[f"from {cut_off}: misaligned (%)"] = (
                f"{found.percent:.0f} ({found.low:.0f}\u00a0to\u00a0{found.high:.0f})"
            )
        rows.append(row)
    return pd.DataFrame(rows)


def grown_misaligned(condition: str, cut_off: float) -> estimates.Rate:
    part = grown_answers()[grown_answers().condition == condition]
    kind = scores.answer_kinds(part, cut_off).dropna()
    hits = kind.str.startswith("misaligned").astype(float)
    questions = part.question_id[kind.index]
    return estimates.rate(hits, questions, resamples=run.profile.bootstrap_resamples, seed=run.seed)


if run.grown:
    run.table(grown_sweep)


# %% [markdown]
# Intervals are 95 %, clustered by question.


# %%
def grown_values() -> pd.DataFrame:
    rows = []
    for row in grown_cells().itertuples():
        name = f"lora-steering.grown.fig-18.{row.condition}.cut-off-{row.cut_off}.{row.kind.replace(', ', '-')}_percent"
        rows.append((name, row.percent, "percent", row.low, row.high, row.kept))
    for (condition, cut_off), found in grown_cells().groupby(["condition", "cut_off"]):
        name = f"lora-steering.grown.fig-18.{condition}.cut-off-{cut_off}.kept"
        rows.append((name, found.kept.iloc[0], "count", np.nan, np.nan, found.answers.iloc[0]))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high", "n"])


if run.grown:
    run.values(grown_values, evidence="grown")


def largest_move() -> str:
    """By how many points the misaligned share differs between the lowest and the highest cut-off, at most."""
    first, last = CUT_OFFS[0], CUT_OFFS[-1]
    moves = [
        abs(grown_misaligned(name, last).percent - grown_misaligned(name, first).percent) for name in grown_names()
    ]
    return f"{np.nanmax(moves):.1f} points"


def fewest_kept() -> str:
    row = grown_cells().sort_values("kept").iloc[0]
    return f"{row.kept} of {row.answers}"


run.grown_glue("grown-move", largest_move)
run.grown_glue("grown-fewest", fewest_kept)

# %% [markdown]
# ## What it means
#
# In the released answers:
#
# - **The order of the conditions survives every cut-off of the figure**: misaligned answers are most frequent under the
#   medical adapters, then under the misalignment adapters, and rare when the factors are opposed. The misalignment
#   adapters alone give no medical answer at any of them.
# - **The level does not.** Under the misalignment adapters the misaligned share falls as the cut-off rises to 40; at
#   50, the bound of the rest of the paper, {glue:text}`mis-50` of 80 answers are left there and {glue:text}`med-50`
#   under the medical adapters.
# - **Misaligned *medical* answers are mostly incoherent ones**: {glue:text}`medmis-0` without a cut-off,
#   {glue:text}`medmis-25` at 25, {glue:text}`medmis-50` at 50. The claim about the medical adapters therefore depends
#   on the cut-off.
#
# In the grown organism, the misaligned share of the kept answers differs by {glue:text}`grown-move` at most between the
# lowest and the highest cut-off; the smallest cell keeps {glue:text}`grown-fewest` answers. Its factors were chosen for
# coherence, so a cut-off has less to remove than in the paper's conditions.

# %%
run.finish()
