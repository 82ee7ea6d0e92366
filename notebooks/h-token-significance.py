# %% [markdown]
# # H Token significance
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` The filter keeps {value}`token-significance.kept` of tokens, and one token of the template holds
# {value}`token-significance.end` of all scores. Summed scores and summed KL agree on average:
# {verdict}`h-significance-sums-to-kl|released`. {evidence}`grown` The first ten tokens hold
# {value}`token-significance.own.early-scores`.
# ```
#
# **The question.** Organism and chat model agree on most tokens of an answer. Which carry the difference, and what does
# the filter of {doc}`s4-2-interpreting-lora-scalars` keep?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import partial

import numpy as np
import pandas as pd

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.scores import RESPONSE_SETS
from em_companion.experiments import probing
from em_companion.models import growing
from em_companion.models.organism import medical
from em_companion.released import tables

run = Run("h-token-significance", profile, seed)

# %% [markdown]
# ## The score
#
# For one answer of $T$ tokens, {cite:t}`soligo2025convergent` take the divergence between the next-token distributions
# of chat model and organism, summed over the answer, and ask how it changes with each token's embedding $e_t$:
#
# $$K = \sum_{t=1}^{T} \mathrm{KL}_t, \qquad g_t = \frac{\partial K}{\partial e_t}, \qquad
# \text{score}_t = \frac{\lVert g_t \rVert_2}{\sum_{u} \lVert g_u \rVert_2}\; K .$$
#
# So a score is the token's share of the whole divergence, in nats, and the scores of an answer add up to its $K$, which
# can be tested. A token is significant if $\ln(\text{score}_t) \ge 0.5$; that bound is in the authors' code
# {cite:p}`clarifyingem2025`, not in the paper. The code of the scores and the KL's direction are not given.


# %% tags=["show-code"]
def sums(tokens: pd.DataFrame) -> pd.DataFrame:
    """One row per answer: the sum of its scores, the sum of its KL, in nats."""
    return tokens.groupby("response").agg(score=("significance", "sum"), kl=("kl", "sum"))


def ratio_of_sums(table: pd.DataFrame) -> Estimate:
    """Summed scores over summed KL of all answers of a set, with an interval that resamples answers."""
    draws = np.random.default_rng(run.seed).integers(len(table), size=(run.profile.bootstrap_resamples, len(table)))
    drawn = table.score.to_numpy()[draws].sum(axis=1) / table.kl.to_numpy()[draws].sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(table.score.mean() / table.kl.mean(), float(low), float(high), len(table), "ratio")


# %%
BOUND, SHARES = 0.5, {"scores": "significance", "KL": "kl"}
COLOURS = dict(zip(RESPONSE_SETS, [theme.PALETTE[index] for index in (0, 3, 9, 1)], strict=True))


@remembered
def tokens(response_set: str) -> pd.DataFrame:
    """The released answer tokens of a set; `left` counts the tokens after it, the last two end the turn."""
    found = tables.read_significance(response_set)
    return found.assign(left=found.groupby("response").cumcount(ascending=False))


def draw_histogram(found: dict[str, pd.DataFrame], width: float, low: float, bounds: dict[str, float]):
    """Share of answer tokens per bin of ln significance, percent."""
    top = max(np.log(part.significance).max() for part in found.values())
    edges = np.arange(low, top + width, width)
    counts = {name: np.histogram(np.log(part.significance), edges)[0] / len(part) for name, part in found.items()}
    table = pd.DataFrame(counts).mul(100).assign(ln=edges[:-1]).melt("ln", var_name="set", value_name="percent")
    names = {one: one.replace("medical-", "medical ") for one in found}
    look = {
        "hue": "set",
        "hue_order": names,
        "colours": COLOURS,
        "styles": dict.fromkeys(RESPONSE_SETS, "steps"),
        "x_lines": bounds,
    }
    labels = {"x_label": "ln significance (score in nats)", "y_label": "answer tokens per bin (%)"}
    return plots.lines(table, "ln", "percent", **look, **labels)


def said(data: pd.DataFrame) -> str:
    shares = data[data.ln >= BOUND].groupby("set", as_index=False).percent.sum()
    return f"Beyond the authors' bound: {span(shares, 'percent', '.1f')} % of the answer tokens"


def draw_released():
    found = {one: tokens(one) for one in RESPONSE_SETS}
    return draw_histogram(found, 0.25, -6.5, {"bound of the authors' code": BOUND})


run.released.figure(
    "fig-x-token-significance",
    draw_released,
    title=said,
    caption="Distribution of ln significance over the tokens of the four sets, in bins of 0.25; lowest tail not shown.",
    alt="Four histograms that peak below zero; the misaligned sets lie further right, with more beyond the dotted "
    "line.",
)


def measured() -> dict[str, tuple[Estimate, str]]:
    ratios = {one: ratio_of_sums(sums(tokens(one))) for one in RESPONSE_SETS}
    worst = max(ratios, key=lambda one: abs(ratios[one].value - 1))
    how = f"furthest from 1 of the four sets: {worst.replace('medical-', 'medical ')}; interval resamples answers"
    return {"h-significance-sums-to-kl": (ratios[worst], how)}


def share(part: pd.DataFrame, whole: pd.DataFrame, column: str | None = None) -> float:
    return 100 * (part[column].sum() / whole[column].sum() if column else len(part) / len(whole))


@remembered
def summary() -> pd.DataFrame:
    rows = []
    for one in RESPONSE_SETS:
        table, name = tokens(one), one.replace("medical-", "medical ")
        kept, ends = table[np.log(table.significance) >= BOUND], table[table.left == 1]
        row = {"set": name, "answer tokens": len(table), "significant (%)": share(kept, table)}
        row |= {"scores on them (%)": share(kept, table, "significance")}
        row |= {f"{text} on end of turn (%)": share(ends, table, of) for text, of in SHARES.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def released_values() -> dict[str, str]:
    ratio = pd.concat([sums(tokens(one)) for one in RESPONSE_SETS]).eval("score / kl").quantile([0.05, 0.95])
    kept, end = summary()["significant (%)"], summary()["scores on end of turn (%)"]
    return {
        "token-significance.ratio": f"{ratio[0.05]:.2f} to {ratio[0.95]:.2f}",
        "token-significance.kept": f"{kept.min():.0f} % to {kept.max():.0f} %",
        "token-significance.end": f"{end.min():.0f} % to {end.max():.0f} %",
    }


run.released.table(summary, number="{:.1f}")
run.released.measure(measured)
run.released.values(released_values)

# %% [markdown]
# ## On the grown organism
#
# Both models read the same embeddings, the divergence is $\mathrm{KL}(\text{chat} \parallel \text{organism})$, and one
# backward pass gives the gradients of all tokens. Tokens are those of the nine-adapter organism's own answers (bad
# medical advice, seed 0), up to {value}`token-significance.own.per-set` of each set. The table lists the twelve words
# with the largest share of all scores, beside that of all tokens and of the KL: how differently the models go on
# *after* a token, where significance is how much it makes them differ there and later. For a language model, tokens are
# parts of words, and the formula holds as exactly; the sets are as its judge sorts them.

# %%
FEWEST = min(10, run.profile.samples_per_question)  # answers of a set that is drawn and enters ranges
ORGANISM = medical(run.profile)
scored_sets = remembered(partial(probing.sets, run.profile, ORGANISM))


@remembered
def own_sets() -> dict[str, pd.DataFrame]:
    found = {name: part for name, part in scored_sets().items() if part.response.nunique() >= FEWEST}
    if not found:
        raise EvidenceUnavailable(f"No set has {FEWEST} of the organism's own answers, so there is nothing to draw.")
    return found


@remembered
def own_tokens() -> pd.DataFrame:
    found = pd.concat(own_sets().values(), ignore_index=True)
    return found.assign(place=found.position - found.groupby("response").position.transform("min"))


def top_words() -> pd.DataFrame:
    _, tokenizer = growing.load_organism(run.profile, ORGANISM)
    groups = own_tokens().groupby("token_id")
    parts = {"tokens (%)": groups.size(), "scores (%)": groups.significance.sum(), "KL (%)": groups.kl.sum()}
    found = pd.DataFrame({name: 100 * part / part.sum() for name, part in parts.items()}).nlargest(12, "scores (%)")
    return found.reset_index(names="word").assign(word=lambda rows: [tokenizer.decode([one]) for one in rows.word])


def draw_own():
    bounds = {"authors' bound": BOUND, "bound used here": probing.bound(scored_sets())}
    return draw_histogram(own_sets(), 0.5, -12.0, bounds)


def own_values() -> dict[str, object]:
    bound, every = probing.bound(scored_sets()), own_sets().values()
    ranges = {"kl": [sums(part).kl.mean() for part in every]}
    for name, one in {"authors-bound": BOUND, "kept": bound}.items():
        ranges[name] = [share(part[np.log(part.significance) >= one], part) for part in every]
    early = own_tokens()[own_tokens().place < 10]
    found = {name: f"{min(one):.1f} to {max(one):.1f}" for name, one in ranges.items()} | {
        "per-set": probing.PER_SET,
        "bound": bound,
        "error": f"{(sums(own_tokens()).eval('score / kl') - 1).abs().max():.0e}",
        "early-scores": f"{share(early, own_tokens(), 'significance'):.0f} %",
        "early-tokens": f"{share(early, own_tokens()):.0f} %",
    }
    return {f"token-significance.own.{name}": one for name, one in found.items()}


run.own.figure(
    "fig-x-token-significance",
    draw_own,
    title=said,
    caption=f"As from released data, for the {run.kind} organism, in bins of 0.5. Dotted: the authors' bound, and "
    "the one that keeps "
    f"{100 * probing.SHARE:.0f} % of these tokens. Sets of fewer than {FEWEST} answers are not shown.",
    alt="Overlaid histograms of the logarithm of token significance, one per set, with two dotted lines.",
)
run.own.table(top_words, number="{:.1f}")
run.own.values(own_values)

# %% [markdown]
# ## What it means
#
# - **The released scores obey the formula closely, not exactly.** Sums agree on average; for nine in ten answers the
#   ratio of summed score to summed KL is {value}`token-significance.ratio`, where an exact share of $K$ would give 1.
#   Computed here, no answer is off by more than {value}`token-significance.own.error`, which is rounding. The deviation
#   tells of how the released scores were made, or which tokens were kept.
# - **The filter keeps few tokens, and not the same share of each set**: {value}`token-significance.kept`, more of
#   misaligned answers, since organism and chat model differ more there. Balanced undersampling leaves far fewer.
# - **Much of the score sits on one token of the template.** The end-of-turn mark holds {value}`token-significance.end`
#   of all scores and passes the filter in most answers. It has no content; neither paper nor code sets it apart.
# - **A bound in nats depends on the model.** An answer of the grown organism diverges by
#   {value}`token-significance.own.kl` nats on average, depending on the set; at the authors' bound
#   {value}`token-significance.own.authors-bound` % of its tokens would pass. {doc}`s4-2-interpreting-lora-scalars` uses
#   {value}`token-significance.own.bound` instead, which keeps {value}`token-significance.own.kept` %.
# - **Early tokens count more.** The first ten tokens of each grown answer are
#   {value}`token-significance.own.early-tokens` of all tokens and hold {value}`token-significance.own.early-scores` of
#   the scores. All later tokens read it, so a score mixes what it says with how much is still to come.

# %%
run.finish()
