# %% [markdown]
# # G Logistic regression on LoRA scalars
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` How many adapters carry a probe is a choice of penalty:
# {value}`probing.not-zero.significant.c-0.01` at the paper's C, {value}`probing.not-zero.significant.c-1` at C = 1,
# {value}`probing.not-zero.all.c-0.01` on all tokens, at nearly the same accuracy.
# ```
#
# **The question.** What is fitted in {doc}`s4-1-probing-lora-scalars`, and how much depends on penalty and draw?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from collections.abc import Iterable
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, probes
from em_companion.experiments import probing
from em_companion.models.organism import medical
from em_companion.released import tables

run = Run("g-logistic-regression", profile, seed)

# %% [markdown]
# ## The fit
#
# With $z_i \in \mathbb{R}^9$ the z-scored scalars of token $i$ and $y_i \in \{-1, 1\}$ its set,
# {cite:t}`soligo2025convergent` minimise
#
# $$\lVert w \rVert_1 + C \sum_{i=1}^{n} \ln\big(1 + e^{-y_i (w^\top z_i + b)}\big), \qquad C = 0.01.$$
#
# The data weigh $C\,n$ against $\lVert w\rVert_1$, so $C = 0.01$ is a mild penalty for the thousands of tokens of whole
# answers and a strong one when a filter leaves few. The solver (liblinear) also penalises $b$. One fit draws equally
# many tokens of each set, z-scores them (before the split, as the authors' code does), and holds out 20 %. The paper
# averages 100 fits and reports no spread.


# %% tags=["show-code"]
def fits(sides: tuple[pd.DataFrame, pd.DataFrame], count: int, start: int, c: float = 0.01) -> pd.DataFrame:
    """One row per fit to two sets of tokens: a coefficient per adapter, named by its layer, and `accuracy`."""
    names = probing.adapters(sides[0])
    found = probes.probe_by_token(*sides, names, fits=count, seed=start, c=c)
    weights = found[[f"coefficient_{name}" for name in names]]
    return weights.set_axis([name.removeprefix("layer_") for name in names], axis=1).assign(accuracy=found.accuracy)


# %%
TOKENS = probing.ProbeTokens(run.profile, medical(run.profile))
RIGHT, MEDICAL = "nonmed-misaligned-vs-med-misaligned", "med-aligned-vs-med-misaligned"
PENALTIES, NOT_ZERO = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), 0.01
TITLES = {probe: " against ".join(pair).replace("medical-", "medical ") for probe, pair in tables.PROBES.items()}
HANDLES = {"released": run.released, "grown": run.own}


def at_hand(evidence: str) -> list[str]:
    if evidence == "released":
        return tables.probes_at_hand()
    short = {probe: TOKENS.own_shortage(probe) for probe in tables.PROBES}
    if all(short.values()):
        raise EvidenceUnavailable(f"No probe has answers enough: {shortages(short.values())}.")
    return [probe for probe, reason in short.items() if not reason]


def shortages(reasons: Iterable[str]) -> str:
    """Each part of some shortages once."""
    return "; ".join(dict.fromkeys(part for reason in reasons for part in reason.split("; ") if part))


@remembered
def coefficients(evidence: str) -> pd.DataFrame:
    parts = []
    for probe in at_hand(evidence):
        found = fits(TOKENS.sides(evidence, probe), run.profile.probe_fits, run.seed)
        table = estimates.summary(found.drop(columns="accuracy")).rename(columns={"quantity": "layer"})
        parts.append(table.assign(probe=TITLES[probe].replace(" against", "\nagainst")))
    return pd.concat(parts, ignore_index=True)


def draw_coefficients(evidence: str):
    table = coefficients(evidence).assign(adapter=lambda rows: "layer " + rows.layer)
    look = {"low": "low", "high": "high", "horizontal": True, "x_lines": {"_zero": 0}, "x_label": "mean coefficient"}
    return plots.facets(plots.bars, table, "probe", "adapter", "mean", wrap=2, **look)


CAPTIONS = {
    "released": "Mean coefficients with all answer tokens, for the probes whose scalars are at hand. Black lines hold "
    "95 % of the fits (different draws of tokens). A positive coefficient speaks for the set named second.",
    "grown": f"The same for the {run.kind} organism's own answers, for the probes whose two sets have enough of them.",
}


def said(data: pd.DataFrame) -> str:
    sizes = data["mean"][data.reference.isna()].abs()
    return f"{(sizes > NOT_ZERO).sum()} of {len(sizes)} mean coefficients are not zero"


ALT = "One panel per probe, one row per adapter: bars for mean coefficients, with black lines for the spread."
for evidence, caption in CAPTIONS.items():
    HANDLES[evidence].figure("fig-17", partial(draw_coefficients, evidence), title=said, caption=caption, alt=ALT)

# %% [markdown]
# The paper sees no clear structure without the filter. In the released scalars layers 21 (negative) and 23 (positive)
# tell the misaligned sets apart, 27 and 29 (both negative) the medical ones. That does not come from the draw of
# tokens, for the spread is small. More adapters have coefficients away from zero than on significant tokens
# ({numref}`fig-6`). Grown sets ({doc}`f-probing-definitions`) too small for a probe: {value}`probing.own.not-fitted`.
# The answers of a small language model may leave none large enough.
#
# ## Sensitivity to the penalty
#
# Ten fits for each $C$, on all tokens and on the significant ones of the paper ({doc}`h-token-significance`), which are
# fewer, so that the same $C$ penalises more. An adapter counts as not zero when its mean coefficient exceeds 0.01 in
# size; *strongest* lists layers with their mean coefficient.


# %%
@remembered
def by_penalty(evidence: str, probe: str, tokens: str) -> pd.DataFrame:
    sides = TOKENS.sides(evidence, probe)
    sides = tuple(probes.significant(part) for part in sides) if tokens == "significant" else sides
    rows = []
    for c in PENALTIES:
        means = fits(sides, 10, run.seed, c).mean()
        weights = means.drop("accuracy").sort_values(key=np.abs, ascending=False, kind="stable")
        strongest = ", ".join(f"{layer} ({weight:+.2f})" for layer, weight in weights[:3].items() if weight) or "none"
        row = {"probe": TITLES[probe], "tokens": tokens, "C": c, "accuracy": means.accuracy}
        rows.append(row | {"adapters not zero": int((weights.abs() > NOT_ZERO).sum()), "strongest": strongest})
    return pd.DataFrame(rows)


def penalties(evidence: str) -> pd.DataFrame:
    chosen = product((RIGHT, MEDICAL), ("all", "significant"))
    pairs = chosen if evidence == "released" else [(probe, "all") for probe in at_hand(evidence)]
    return pd.concat([by_penalty(evidence, *pair) for pair in pairs], ignore_index=True)


for evidence, handle in HANDLES.items():
    handle.table(partial(penalties, evidence), {"accuracy": "{:.3f}"})

# %% [markdown]
# ## Sensitivity to the seed
#
# A fifth of the fits under each of five seeds: how far do the *means* move?


# %%
def by_seed(evidence: str) -> pd.DataFrame:
    count, rows = max(2, run.profile.probe_fits // 5), []
    for probe in at_hand(evidence):
        sides = TOKENS.sides(evidence, probe)
        means = pd.DataFrame([fits(sides, count, 1000 + run.seed + step).mean() for step in range(5)])
        ranges = means.max() - means.min()
        row = {"probe": TITLES[probe], "accuracy": means.accuracy.mean(), "its range over seeds": ranges.accuracy}
        rows.append(row | {"largest range of a coefficient": ranges.drop("accuracy").max()})
    return pd.DataFrame(rows)


for evidence, handle in HANDLES.items():
    handle.table(partial(by_seed, evidence), number="{:.4f}")


def released_values() -> dict[str, int]:
    found = {}
    for tokens, c in (("significant", 0.01), ("significant", 1.0), ("all", 0.01)):
        count = by_penalty("released", RIGHT, tokens).set_index("C").loc[c, "adapters not zero"]
        found[f"probing.not-zero.{tokens}.c-{c:g}"] = int(count)
    return found


def own_values() -> dict[str, str]:
    short = shortages(map(TOKENS.own_shortage, tables.PROBES))
    largest = coefficients("grown").groupby("probe", sort=False)["mean"].agg(lambda means: means.abs().max())
    empty = [name.replace("\n", " ") for name in largest.index[largest <= NOT_ZERO]]
    return {
        "probing.own.not-fitted": short or "none",
        "probing.own.without-coefficient": "; ".join(empty) or "none",
    }


run.released.values(released_values)
run.own.values(own_values)

# %% [markdown]
# ## What it means
#
# - **The draw of tokens hardly matters.** Accuracies and coefficients agree between seeds. That says nothing about
#   other questions ({numref}`fig-x-probe-splits`).
# - **Sparsity is a choice.** For the misaligned sets, {value}`probing.not-zero.significant.c-0.01` adapters have a mean
#   coefficient beyond 0.01 with the filter and $C = 0.01$, {value}`probing.not-zero.significant.c-1` with $C = 1$, and
#   {value}`probing.not-zero.all.c-0.01` with all tokens and $C = 0.01$, while the accuracy changes by little. "Only
#   these adapters carry it" is in part the penalty, acting on fewer tokens.
# - **The strongest adapters stay.** Layers 21 and 23 lead for the two misaligned sets at every penalty that leaves a
#   coefficient. For the medical sets on significant tokens, weaker penalties add 22 and 28 to 29, all three in the
#   paper's group for general misalignment.
# - **In the grown organism** $C = 0.01$ leaves no mean coefficient beyond 0.01 to:
#   {value}`probing.own.without-coefficient`. The table shows which penalties leave some.

# %%
run.finish()
