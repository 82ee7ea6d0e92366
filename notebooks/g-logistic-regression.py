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
# # G Logistic regression on LoRA scalars
#
# **The question.** What exactly is fitted in {doc}`s4-1-probing-lora-scalars`, and how much do its coefficients
# depend on the penalty and on the draw of tokens?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import time
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from em_companion.book import theme
from em_companion.book.run import Run
from em_companion.evidence import estimates, probes
from em_companion.experiments import probing
from em_companion.models.organism import Organism
from em_companion.released import tables

run = Run("g-logistic-regression", profile, seed)

# %% [markdown]
# ## The fit
#
# With $z_i \in \mathbb{R}^9$ the z-scored LoRA scalars of token $i$ and $y_i \in \{-1, 1\}$ the set it comes from,
# {cite:t}`soligo2025convergent` minimise
#
# $$\lVert w \rVert_1 + C \sum_{i=1}^{n} \ln\big(1 + e^{-y_i (w^\top z_i + b)}\big), \qquad C = 0.01.$$
#
# With $n$ tokens the data weigh $C\,n$ against $\lVert w\rVert_1$, so $C = 0.01$ is a mild penalty for the thousands of
# tokens of whole answers and a strong one when a filter leaves few. The solver (liblinear) also penalises $b$. One fit
# draws equally many tokens of each set, z-scores all of them (before the split, as the authors' code does), and holds
# out 20 %. The paper averages 100 fits and reports no spread.
#
# The function below is one fit. All other numbers of this page come from the same steps in `em_companion.probing`; for
# one draw of tokens, the table under the code compares the two.


# %% tags=["show-code"]
def one_fit(sets: list[np.ndarray], generator: np.random.Generator, c: float = 0.01):
    """Coefficients [9] and held-out accuracy of one fit to two sets of scalars [token, 9]."""
    size = min(map(len, sets))
    drawn = [generator.choice(part, size, replace=False) for part in sets]
    scalars = np.concatenate(drawn)
    scalars = (scalars - scalars.mean(axis=0)) / scalars.std(axis=0, ddof=1)
    labels = np.repeat([0, 1], size)
    split = train_test_split(scalars, labels, test_size=0.2, random_state=0, stratify=labels)
    train_x, test_x, train_y, test_y = split
    penalty = {"l1_ratio": 1, "C": c, "solver": "liblinear"}
    probe = LogisticRegression(**penalty, max_iter=1000, random_state=0)
    probe.fit(train_x, train_y)
    return probe.coef_[0], probe.score(test_x, test_y)


# %%
RIGHT = "nonmed-misaligned-vs-med-misaligned"
TOKENS = probes.ProbeTokens(run.profile, Organism("nine-adapter", "bad_medical_advice", 0))
read, shortage = TOKENS.sides, TOKENS.own_shortage


def at_hand(evidence: str) -> list[str]:
    if evidence == "released":
        return tables.probes_at_hand()
    return [pair for pair in tables.PROBES if not shortage(pair)]


def agreement() -> pd.DataFrame:
    """One fit of the function above beside the same draw of tokens in the code that all numbers come from."""
    sets = [part[tables.SCALAR_COLUMNS].to_numpy() for part in tables.read_probe(RIGHT)]
    weights, accuracy = one_fit(sets, np.random.default_rng(run.seed).spawn(1)[0])
    package = fit_many(tables.read_probe(RIGHT), 1, run.seed).iloc[0]
    names = [f"coefficient, layer {layer}" for layer in tables.ADAPTER_LAYERS]
    table = pd.DataFrame({"one fit": [*names, "held-out accuracy"], "the function above": [*weights, accuracy]})
    return table.assign(**{"em_companion.probing": package.to_numpy()})


def title_of(pair: str) -> str:
    first, second = (name.replace("medical-", "medical ") for name in tables.PROBES[pair])
    return f"{first}\nagainst {second}"


def layers(table: pd.DataFrame) -> list[str]:
    """The adapters of a table of fits or of tokens, named by their layer as text."""
    return [column for column in table if column != "accuracy"]


def fit_many(parts: tuple[pd.DataFrame, ...], fits: int, start: int, c: float = 0.01) -> pd.DataFrame:
    """One row per fit: a column per adapter, named by its layer, and `accuracy`."""
    names = probing.adapters(parts[0])
    found = probes.probe_by_token(*parts, names, fits=fits, seed=start, c=c)
    weights = found[[f"coefficient_{name}" for name in names]]
    return weights.set_axis([name.removeprefix("layer_") for name in names], axis=1).assign(accuracy=found.accuracy)


@cache
def timed_fits(evidence: str, pair: str) -> tuple[pd.DataFrame, float]:
    parts = read(evidence, pair)
    started = time.perf_counter()
    table = fit_many(parts, run.profile.probe_fits, run.seed)
    return table, time.perf_counter() - started


run.table(agreement, number="{:.4f}")

# %% [markdown]
# ## Coefficients without the significance filter


# %%
@cache
def coefficients(evidence: str) -> pd.DataFrame:
    parts = []
    for pair in at_hand(evidence):
        fits = timed_fits(evidence, pair)[0]
        table = estimates.summary(fits, layers(fits)).rename(columns={"quantity": "layer"})
        parts.append(table.assign(probe=pair))
    columns = ["probe", "layer", "mean", "sd", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


NOT_ZERO = 0.01


def draw_coefficients(evidence: str):
    table = coefficients(evidence)
    if table.empty:
        return draw_missing()
    pairs = table.probe.unique()
    lines = -(-len(pairs) // 2)
    figure, grid = plt.subplots(
        lines, min(2, len(pairs)), sharex=True, sharey=True, figsize=(7.2, 3.6 * lines), squeeze=False
    )
    for axes, pair in zip(grid.flat, pairs, strict=False):
        rows = table[table.probe == pair]
        positions = np.arange(len(rows))[::-1]
        axes.axvline(0, color="0.5", linewidth=1)
        axes.barh(positions, rows["mean"], color=theme.PALETTE[0], height=0.6, alpha=0.55)
        axes.hlines(positions, rows.low, rows.high, color="0.1", linewidth=2)
        axes.set_yticks(positions, [f"layer {layer}" for layer in rows.layer])
        if rows["mean"].abs().max() <= NOT_ZERO:
            note = f"no mean coefficient beyond {NOT_ZERO}\nwith this penalty"
            place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
            axes.text(0.5, 0.5, note, color="0.3", fontsize=9, backgroundcolor="white", **place)
        axes.set_title(title_of(pair), fontsize=9.5)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
    for axes in grid[-1]:
        axes.set_xlabel("mean coefficient")
    return figure, table


def draw_missing():
    """What is drawn where no probe can be fitted: the reasons."""
    table = pd.DataFrame([{"probe": pair, "why": shortage(pair)} for pair in tables.PROBES])
    figure, axes = plt.subplots(figsize=(7.2, 2.2))
    axes.set_axis_off()
    axes.text(0, 0.5, "\n".join(f"{row.probe}: {row.why}" for row in table.itertuples()), va="center", fontsize=8)
    return figure, table


run.figure(
    "fig-17",
    lambda: draw_coefficients("released"),
    evidence="released",
    caption="Mean coefficients with all answer tokens, for the probes whose scalars are at hand. Black lines hold 95 % "
    "of the fits of the profile (different draws of tokens). A positive coefficient speaks for the set named "
    "second. Evidence: released scalars.",
    alt="One panel per probe, nine adapters on the vertical axis, horizontal bars for mean coefficients with short "
    "black lines for the spread. Against medical misaligned, the non-medical misaligned set is told apart by layers "
    "21 (negative) and 23 (positive); medical aligned and misaligned by layers 27 and 29, both negative.",
)

# %% [markdown]
# The paper sees no clear structure without the filter. What structure there is does not come from the draw of tokens,
# for the spread over fits is small. Compared with significant tokens only ({numref}`fig-6`), more adapters have
# coefficients away from zero.
#
# ## Sensitivity to the penalty
#
# Ten fits for each $C$, on all tokens and on significant ones only, those with $\ln(\text{score}) \ge 0.5$
# ({doc}`h-token-significance`): they are fewer, so the same $C$ penalises more. An adapter counts as not zero when its
# mean coefficient exceeds 0.01 in size; *strongest* lists layers with their mean coefficient.

# %%
PENALTIES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


@cache
def by_penalty(evidence: str, pair: str, filtered: bool, fits: int = 10) -> pd.DataFrame:
    parts = tuple(probes.significant(part) if filtered else part for part in read(evidence, pair))
    rows = []
    for c in PENALTIES:
        means = fit_many(parts, fits, run.seed, c).mean()
        names = layers(means.index)
        weights = means[names].to_numpy()
        order = np.argsort(-np.abs(weights))
        rows.append(
            {
                "tokens": "significant" if filtered else "all",
                "C": c,
                "accuracy": means.accuracy,
                "adapters not zero": int((np.abs(weights) > NOT_ZERO).sum()),
                "strongest": ", ".join(f"{names[i]} ({weights[i]:+.2f})" for i in order[:3] if weights[i]) or "none",
            }
        )
    return pd.DataFrame(rows)


def penalty_table(pair: str) -> pd.DataFrame:
    return pd.concat([by_penalty("released", pair, False), by_penalty("released", pair, True)], ignore_index=True)


# %% [markdown]
# Non-medical misaligned against medical misaligned:

# %%
PENALTY_FORMATS = {"accuracy": "{:.3f}"}
run.table(lambda: penalty_table(RIGHT), formats=PENALTY_FORMATS)

# %% [markdown]
# Medical aligned against medical misaligned:

# %%
run.table(lambda: penalty_table("med-aligned-vs-med-misaligned"), formats=PENALTY_FORMATS)

# %% [markdown]
# ## Sensitivity to the seed, and the time it takes
#
# The same number of fits under five seeds for the drawing of tokens: how far do the *means* move? Seconds are those
# of this run.


# %%
@cache
def by_seed(evidence: str, pair: str) -> pd.DataFrame:
    fits = max(2, run.profile.probe_fits // 5)
    return pd.DataFrame([fit_many(read(evidence, pair), fits, 1000 + run.seed + step).mean() for step in range(5)])


def seed_table(evidence: str) -> pd.DataFrame:
    rows = []
    for pair in at_hand(evidence):
        table, seconds = timed_fits(evidence, pair)
        means = by_seed(evidence, pair)
        rows.append(
            {
                "probe": title_of(pair).replace("\n", " "),
                "accuracy": table.accuracy.mean(),
                "range over seeds": means.accuracy.max() - means.accuracy.min(),
                "largest range of a coefficient": float(np.ptp(means[layers(means)].to_numpy(), axis=0).max()),
                "fits": len(table),
                "seconds": seconds,
            }
        )
    return pd.DataFrame(rows or [{"probe": "none can be fitted"}])


SEED_FORMATS = {"seconds": "{:.1f}", "accuracy": "{:.3f}", "range over seeds": "{:.4f}"}
run.table(lambda: seed_table("released"), formats=SEED_FORMATS, number="{:.3f}")


def values() -> pd.DataFrame:
    rows = []
    for pair in tables.probes_at_hand():
        for table, tokens in [
            (by_penalty("released", pair, False), "all"),
            (by_penalty("released", pair, True), "significant"),
        ]:
            for row in table.to_dict("records"):
                name = f"probing.{pair}.{tokens}-tokens.c-{row['C']:g}"
                rows.append((f"{name}.accuracy", row["accuracy"], "proportion"))
                rows.append((f"{name}.adapters_not_zero", row["adapters not zero"], "count"))
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


run.values(values)


def not_zero(c: float, filtered: bool) -> str:
    return str(by_penalty("released", RIGHT, filtered).set_index("C").loc[c, "adapters not zero"])


run.glue("filtered-001", lambda: not_zero(0.01, True))
run.glue("filtered-1", lambda: not_zero(1.0, True))
run.glue("all-001", lambda: not_zero(0.01, False))


def speed(evidence: str) -> str:
    """How many fits took how long, all probes together."""
    timed = [timed_fits(evidence, pair) for pair in at_hand(evidence)]
    return f"{sum(len(table) for table, _ in timed)} fits in {sum(seconds for _, seconds in timed):.1f} s"


run.glue("speed", lambda: speed("released"))

# %% [markdown]
# ## On the grown organism
#
# The same fits on the grown organism's own answers ({doc}`f-probing-definitions`), for the probes whose two sets have
# at least {glue:text}`fewest` answers. The labels name the layers on which its nine adapters sit. The tables below the
# figure hold the sensitivity to the penalty, with all tokens, and to the seed. Sets that are too small for a probe:
# {glue:text}`not-fitted`.

# %%
run.grown_figure(
    "fig-17",
    lambda: draw_coefficients("grown"),
    caption="Mean coefficients with all answer tokens of the grown organism, for the probes with enough answers. Black "
    "lines hold 95 % of the fits of the profile (different draws of tokens, not of questions). A positive coefficient "
    "speaks for the set named second. Evidence: grown organism.",
    alt="One panel per probe, one row per adapter from the first layer to the last, horizontal bars for mean "
    "coefficients with black lines for the spread over fits, and a vertical line at zero.",
    why="Coefficients of probes on a grown organism; only profiles with grown models have them.",
)


def grown_penalties() -> pd.DataFrame:
    parts = [
        by_penalty("grown", pair, False).drop(columns="tokens").assign(probe=title_of(pair).replace("\n", " "))
        for pair in at_hand("grown")
    ]
    return pd.concat(parts)[["probe", *parts[0].columns[:-1]]] if parts else pd.DataFrame([{"probe": "none"}])


def grown_values() -> pd.DataFrame:
    rows = [
        {"name": f"probing.own.{row.probe}.coefficient-layer-{row.layer}", "value": row.mean, "unit": "coefficient"}
        | {"low": row.low, "high": row.high}
        for row in coefficients("grown").itertuples()
    ]
    for pair in at_hand("grown"):
        for row in by_penalty("grown", pair, False).to_dict("records"):
            name = f"probing.own.{pair}.all-tokens.c-{row['C']:g}"
            rows.append({"name": f"{name}.accuracy", "value": row["accuracy"], "unit": "proportion"})
            rows.append({"name": f"{name}.adapters_not_zero", "value": row["adapters not zero"], "unit": "count"})
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high"])


if run.grown:
    run.table(grown_penalties, formats=PENALTY_FORMATS)
    run.table(lambda: seed_table("grown"), formats=SEED_FORMATS, number="{:.3f}")
    run.values(grown_values, evidence="grown")


def not_fitted() -> str:
    return "; ".join(
        dict.fromkeys(reason for pair in tables.PROBES for reason in shortage(pair).split("; ") if reason)
    )


run.grown_glue("fewest", lambda: str(probes.FEWEST_RESPONSES))
run.grown_glue("grown-speed", lambda: speed("grown"))
run.grown_glue("not-fitted", lambda: not_fitted() or "none")


def all_zero() -> str:
    """The grown probes without a mean coefficient beyond NOT_ZERO, all tokens and the paper's penalty."""
    largest = coefficients("grown").groupby("probe", sort=False)["mean"].agg(lambda means: means.abs().max())
    names = [
        f"{title_of(pair).replace(chr(10), ' ')} ({min(map(len, read('grown', pair))):,} tokens per class)"
        for pair in largest.index[largest <= NOT_ZERO]
    ]
    return "; ".join(names) or "none"


run.grown_glue("all-zero", all_zero)

# %% [markdown]
# ## What it means
#
# From the released scalars:
#
# - **The draw of tokens hardly matters.** Accuracies and coefficients agree between seeds. That says nothing about
#   other questions or answers ({numref}`fig-x-probe-splits`).
# - **Sparsity is a choice.** For the two misaligned sets, {glue:text}`filtered-001` adapters have a mean coefficient
#   beyond 0.01 with the filter and $C = 0.01$, {glue:text}`filtered-1` with $C = 1$, and {glue:text}`all-001` with
#   all tokens and $C = 0.01$, while the accuracy changes by little. "Only these adapters carry it" is in part the
#   penalty, acting on fewer tokens.
# - **The strongest adapters stay.** Layers 21 and 23 lead for the two misaligned sets at every penalty that leaves a
#   coefficient. For the medical sets on significant tokens, weaker penalties add layers 22 and 28 to 29, all three in
#   the paper's group for general misalignment.
#
# For the grown organism:
#
# - **Too strong a penalty.** Probes that $C = 0.01$ leaves without a mean coefficient beyond 0.01, all tokens
#   counted: {glue:text}`all-zero`. The table shows which penalties leave some.
# - **Time.** All probes together: {glue:text}`speed` from the released scalars, {glue:text}`grown-speed` from the grown
#   ones, on the machine that built this page.

# %%
run.finish()
