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
# # H Token significance
#
# **The question.** Organism and chat model agree on most tokens of an answer. Which tokens carry the
# difference, and what does the filter of {doc}`s4-2-interpreting-lora-scalars` keep?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from em_companion.book import theme
from em_companion.book.run import Run
from em_companion.evidence import claims
from em_companion.experiments import adapter_roles, probing
from em_companion.models import growing
from em_companion.models.tokens import response_tokens
from em_companion.released import tables

run = Run("h-token-significance", profile, seed)

# %% [markdown]
# ## The score
#
# For one answer of $T$ tokens, {cite:t}`soligo2025convergent` take the divergence between the next-token
# distributions of chat model and organism, summed over the answer, and ask how it changes with each token's embedding
# $e_t \in \mathbb{R}^{5120}$:
#
# $$K = \sum_{t=1}^{T} \mathrm{KL}_t, \qquad g_t = \frac{\partial K}{\partial e_t} \in \mathbb{R}^{5120},$$
#
# $$\text{score}_t = \frac{\lVert g_t \rVert_2}{\sum_{u} \lVert g_u \rVert_2}\; K .$$
#
# $K$ is one number per answer. A score is in nats: the token's share of the whole divergence. A token is significant if
# $\ln \text{score}_t \ge 0.5$, a score of 1.65 nats; that bound is in the authors' code {cite:p}`clarifyingem2025`, not
# in the paper. The code that computes the scores is not released, and the paper does not say which way round the KL
# divergence is taken.
#
# The formula has a consequence that can be tested: the scores of an answer add up to its $K$.


# %% tags=["show-code"]
def score(gradients: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    """Significance [T] from the gradients of K [T, 5120] and the KL per token [T]."""
    size = np.linalg.norm(gradients, axis=1)
    return size / size.sum() * divergence.sum()


# %%
SETS = {
    "medical-aligned": "medical aligned",
    "medical-misaligned": "medical misaligned",
    "non-medical-aligned": "non-medical aligned",
    "non-medical-misaligned": "non-medical misaligned",
}
COLOURS = dict(zip(SETS, [theme.PALETTE[i] for i in (0, 3, 9, 1)], strict=True))
CUTS = (0.5, 1.0)
END, END_KL = "on the end-of-turn token (%)", "of KL (%)"


@cache
def tokens(response_set: str) -> pd.DataFrame:
    """Answer tokens with `log_score` and `left`, the tokens after it; the last two are end of turn and a newline."""
    found = tables.read_significance(response_set)
    left = found.groupby("response").cumcount(ascending=False)
    return found.assign(log_score=np.log(found.significance), left=left)


@cache
def answers(response_set: str) -> pd.DataFrame:
    """One row per answer: sum of scores, sum of KL, answer tokens."""
    return (
        tokens(response_set)
        .groupby("response")
        .agg(score=("significance", "sum"), kl=("kl", "sum"), tokens=("kl", "size"))
    )


@cache
def summary_of(response_set: str) -> dict[str, float]:
    table, sums = tokens(response_set), answers(response_set)
    significant = table[table.log_score >= CUTS[0]]
    return {
        "answers": len(sums),
        "answer tokens": len(table),
        "ln score from 0.5 (%)": 100 * len(significant) / len(table),
        "ln score from 1 (%)": 100 * (table.log_score >= CUTS[1]).mean(),
        "their share of all scores (%)": 100 * significant.significance.sum() / table.significance.sum(),
        END: 100 * table[table.left == 1].significance.sum() / table.significance.sum(),
        END_KL: 100 * table[table.left == 1].kl.sum() / table.kl.sum(),
        "mean sum of scores": sums.score.mean(),
        "mean sum of KL": sums.kl.mean(),
        "correlation": sums.score.corr(sums.kl),
    }


def histograms(axes, log_scores: dict[str, np.ndarray], edges: np.ndarray) -> pd.DataFrame:
    rows = []
    for response_set, name in SETS.items():
        log_score = log_scores.get(response_set, [])
        if not len(log_score):
            continue
        counts, _ = np.histogram(log_score, edges)
        share = 100 * counts / len(log_score)
        style = "-" if "misaligned" in response_set else "--"
        label = f"{name} ({len(log_score):,})"
        axes.stairs(share, edges, color=COLOURS[response_set], linewidth=2, linestyle=style, label=label)
        rows += [
            {"response_set": response_set, "ln_score_from": low, "percent_of_tokens": value}
            for low, value in zip(edges[:-1], share, strict=True)
        ]
    axes.set_xlabel("ln significance (score in nats)")
    axes.set_ylabel("answer tokens per bin (%)")
    return pd.DataFrame(rows)


def draw_distribution():
    figure, axes = plt.subplots(figsize=(7.2, 4.0))
    table = histograms(axes, {one: tokens(one).log_score for one in SETS}, np.arange(-9, 5.01, 0.25))
    axes.axvline(CUTS[0], color="0.2", linewidth=1.2, linestyle=":")
    axes.text(CUTS[0] + 0.1, axes.get_ylim()[1] * 0.96, "significant:\nln score ≥ 0.5", va="top", fontsize=10)
    axes.set_xlim(-6.5, 5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9.5)
    return figure, table


run.figure(
    "fig-x-token-significance",
    draw_distribution,
    evidence="released",
    caption="Distribution of ln significance over the answer tokens of the four probing sets, in bins of 0.25. "
    "Dotted: the bound of the authors' code. Dashed: aligned sets. Evidence: released significance scores; tokens in "
    "brackets.",
    alt="Four overlaid histograms of the natural logarithm of token significance, one per set. All are broad, with a "
    "peak below zero and a tail to the right; the misaligned sets lie further right, so that more of their tokens "
    "pass the dotted line at 0.5.",
)


# %%
LABELS = {
    "ln score from 0.5 (%)": "tokens with ln score from 0.5 (%)",
    "ln score from 1 (%)": "tokens with ln score from 1 (%)",
    "from the bound used (%)": "tokens from the bound used here (%)",
    "their share of all scores (%)": "share of all scores on significant tokens (%)",
    END: "share of all scores on the end-of-turn token (%)",
    END_KL: "share of all KL on that token (%)",
    "correlation": "correlation of the two sums",
}


def across(table: pd.DataFrame, formats: dict[str, str]) -> pd.DataFrame:
    """The sets side by side and one quantity per row, as text, so that the table fits the page."""
    formats = {"answers": "{:,}", "answer tokens": "{:,}"} | formats
    shown = {
        name: [formats.get(name, "{:.1f}").format(value) for value in table[name]] for name in table if name != "set"
    }
    return pd.DataFrame(shown, index=list(table["set"])).T.rename(index=LABELS).reset_index(names="quantity")


def summary() -> pd.DataFrame:
    return pd.DataFrame([{"set": name, **summary_of(response_set)} for response_set, name in SETS.items()])


run.table(lambda: across(summary(), {"correlation": "{:.3f}"}))

# %% [markdown]
# ## Reported and measured


# %%
def worst_ratio() -> tuple[str, float]:
    ratios = {
        name: summary_of(one)["mean sum of scores"] / summary_of(one)["mean sum of KL"] for one, name in SETS.items()
    }
    return max(ratios.items(), key=lambda item: abs(item[1] - 1))


def measure():
    name, ratio = worst_ratio()
    table = answers(next(one for one, label in SETS.items() if label == name))
    draws = np.random.default_rng(run.seed).integers(len(table), size=(run.profile.bootstrap_resamples, len(table)))
    resampled = table.score.to_numpy()[draws].sum(axis=1) / table.kl.to_numpy()[draws].sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    yield claims.Measurement(
        claim="h-significance-sums-to-kl",
        value=ratio,
        interval=(low, high),
        n=len(table),
        how=f"furthest from 1 of the four sets: {name}; interval resamples answers",
    )


run.measure(measure)


def values() -> pd.DataFrame:
    units = {"answers": "count", "answer tokens": "count", "correlation": "ratio"}
    units |= {"mean sum of scores": "nats", "mean sum of KL": "nats"}
    rows = []
    for response_set in SETS:
        for key, value in summary_of(response_set).items():
            name = key.replace(" (%)", " percent").replace(" ", "_").lower()
            rows.append((f"token-significance.{response_set}.{name}", value, units.get(key, "percent")))
        ratio = answers(response_set).score / answers(response_set).kl
        for quantile in (0.05, 0.5, 0.95):
            name = f"token-significance.{response_set}.score_over_kl.quantile-{quantile:g}"
            rows.append((name, ratio.quantile(quantile), "ratio"))
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


run.values(values)


def all_ratios() -> pd.Series:
    return pd.concat([answers(one).score / answers(one).kl for one in SETS])


run.glue("ratio-range", lambda: f"{all_ratios().quantile(0.05):.2f} to {all_ratios().quantile(0.95):.2f}")
run.glue("end-low", lambda: f"{min(summary_of(one)[END] for one in SETS):.0f} %")
run.glue("end-high", lambda: f"{max(summary_of(one)[END] for one in SETS):.0f} %")
run.glue("kept-low", lambda: f"{min(summary_of(one)['ln score from 0.5 (%)'] for one in SETS):.0f} %")
run.glue("kept-high", lambda: f"{max(summary_of(one)['ln score from 0.5 (%)'] for one in SETS):.0f} %")

# %% [markdown]
# ## What it means
#
# - **The released scores obey the formula closely, not exactly.** Sums agree on average; for nine in ten answers the
#   ratio of summed score to summed KL is {glue:text}`ratio-range`. An exact share of $K$ would give 1 for each
#   answer.
# - **The filter keeps few tokens, and not the same share of each set**: {glue:text}`kept-low` to
#   {glue:text}`kept-high`. Misaligned answers keep more, since organism and chat model differ more there. Balanced
#   undersampling then leaves the fits with far fewer tokens.
# - **Much of the score sits on one token of the template.** "Answer tokens" include the end-of-turn mark that closes
#   every answer. It holds {glue:text}`end-low` to {glue:text}`end-high` of all scores, the small hump on the right of
#   {numref}`fig-x-token-significance`, and passes the filter in most answers. It says nothing about content, and
#   neither the paper nor the code sets it apart.

# %% [markdown]
# ## On the grown organism
#
# Here the scores are computed, by the code below: both models read the same embeddings, the divergence is
# $\mathrm{KL}(\text{chat} \parallel \text{organism})$, and one backward pass gives the gradients of all tokens. Tokens
# are those of the nine-adapter organism's own answers (bad medical advice, seed 0).


# %% tags=["show-code"]
def significance_of(model, ids: torch.Tensor, start: int) -> torch.Tensor:
    """Significance [T] of the answer ids[start:], both models reading the same embeddings."""
    embeddings = model.get_input_embeddings()(ids[None]).detach().requires_grad_()
    organism = model(inputs_embeds=embeddings).logits[0, start:].log_softmax(-1)
    with model.disable_adapter():
        chat = model(inputs_embeds=embeddings).logits[0, start:].log_softmax(-1)
    divergence = (chat.exp() * (chat - organism)).sum()
    size = torch.autograd.grad(divergence, embeddings)[0][0, start:].norm(dim=-1)
    return size / size.sum() * divergence.detach()


# %%
@cache
def grown_sets() -> dict[str, pd.DataFrame]:
    return probing.sets(run.profile, adapter_roles.ORGANISM)


def agreement() -> float:
    """Largest relative difference of the function above from the scores used here, over one answer's tokens."""
    part = grown_sets()["non-medical-misaligned"]
    part = part[part.response == part.response.iloc[0]]
    answer = probing.organism_responses(run.profile, adapter_roles.ORGANISM).loc[[part.response.iloc[0]]]
    model, tokenizer = growing.load_organism(run.profile, adapter_roles.ORGANISM)
    (prompt,), (ids,) = response_tokens(tokenizer, answer)
    found = significance_of(model, torch.tensor(prompt + ids), len(prompt)).numpy()
    return float(np.abs(found / part.significance.to_numpy() - 1).max())


@cache
def bound() -> float:
    return probing.bound(grown_sets())


FEWEST = 10  # answers of a set that is drawn and enters ranges


def log_scores() -> dict[str, np.ndarray]:
    drawn = {name: part for name, part in grown_sets().items() if part.response.nunique() >= FEWEST}
    return {name: np.log(part.significance.to_numpy()) for name, part in drawn.items()}


def draw_grown():
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    pooled = np.concatenate(list(log_scores().values()))
    edges = np.arange(np.floor(np.quantile(pooled, 0.001)), np.ceil(pooled.max()) + 0.51, 0.5)
    table = histograms(axes, log_scores(), edges)
    top = 1.12 * axes.get_ylim()[1]
    for place, text in [(CUTS[0], "authors'\nbound"), (bound(), "bound\nused here")]:
        axes.axvline(place, color="0.2", linewidth=1.2, linestyle=":")
        axes.text(place + 0.1, top * 0.97, text, va="top", fontsize=9.5)
    axes.set_ylim(0, top)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9.5)
    return figure, table


run.grown_figure(
    "fig-x-token-significance",
    draw_grown,
    caption="Distribution of ln significance over the answer tokens of the grown organism, in bins of 0.5; up to "
    f"{probing.PER_SET} answers of each set, tokens in brackets; the lowest tail and sets of fewer than {FEWEST} "
    "answers are not shown. Dotted: the bound of the "
    f"authors' code, and the one that keeps {100 * probing.SHARE:.0f} % of these tokens.",
    alt="Overlaid histograms of the natural logarithm of token significance, one for each set of answers that the "
    "grown organism has, with two dotted lines: the authors' bound and the one used here.",
    why="The organism is grown under the profiles cpu and gpu.",
)


# %%
@cache
def grown_summary() -> pd.DataFrame:
    rows = []
    for response_set, part in grown_sets().items():
        if part.empty:
            continue
        sums = part.groupby("response").agg(score=("significance", "sum"), kl=("kl", "sum"), tokens=("kl", "size"))
        log_score = np.log(part.significance)
        kept = part[log_score >= bound()]
        rows.append(
            {
                "set": SETS[response_set],
                "answers": len(sums),
                "answer tokens": len(part),
                "ln score from 0.5 (%)": 100 * (log_score >= CUTS[0]).mean(),
                "from the bound used (%)": 100 * len(kept) / len(part),
                "their share of all scores (%)": 100 * kept.significance.sum() / part.significance.sum(),
                "mean sum of scores": sums.score.mean(),
                "mean sum of KL": sums.kl.mean(),
                "largest error of a sum": (sums.score / sums.kl - 1).abs().max(),
            }
        )
    return pd.DataFrame(rows)


if run.grown:
    run.table(lambda: across(grown_summary(), {"largest error of a sum": "{:.0e}"}))

# %% [markdown]
# **Which tokens?** Words of the grown language are few, so their scores can be added up. The first table lists the
# twelve words with the largest share of all scores, beside their share of all tokens and of the plain KL: KL at a token
# says how differently the models go on *after* it, significance how much the token makes them differ there and later.
# The second table has the same by the place of a token in its answer.


# %%
@cache
def grown_tokens() -> pd.DataFrame:
    found = pd.concat(grown_sets().values(), ignore_index=True)
    first = found.groupby("response").position.transform("min")
    last = found.groupby("response").position.transform("max")
    return found.assign(place=found.position - first, left=last - found.position)


def shares(table: pd.DataFrame, by) -> pd.DataFrame:
    """Share of all tokens, of all scores and of all KL, in percent, by group."""
    groups = table.groupby(by)
    parts = {"tokens (%)": groups.size(), "scores (%)": groups.significance.sum(), "KL (%)": groups.kl.sum()}
    return pd.DataFrame({name: 100 * part / part.sum() for name, part in parts.items()})


def top_words() -> pd.DataFrame:
    _, tokenizer = growing.load_organism(run.profile, adapter_roles.ORGANISM)
    found = shares(grown_tokens(), "token_id").nlargest(12, "scores (%)").reset_index(names="word")
    return found.assign(word=[tokenizer.decode([one]) for one in found.word])


@cache
def by_place() -> pd.DataFrame:
    edges = [-1, 0, 4, 9, 19, 39, np.inf]
    labels = ["first token", "2 to 5", "6 to 10", "11 to 20", "21 to 40", "later"]
    places = pd.cut(grown_tokens().place, edges, labels=labels).astype(str)
    return shares(grown_tokens(), places).reindex(labels).dropna().rename_axis("place").reset_index()


if run.grown:
    run.table(top_words, number="{:.1f}")
    run.table(by_place, number="{:.1f}")


def grown_values() -> pd.DataFrame:
    units = {"answers": "count", "answer tokens": "count", "largest error of a sum": "ratio"}
    units |= {"mean sum of scores": "nats", "mean sum of KL": "nats"}
    rows = [("token-significance.own.bound", bound(), "ln nats")]
    for row in grown_summary().to_dict("records"):
        name = row.pop("set").replace(" ", "-")
        for key, value in row.items():
            label = key.replace(" (%)", " percent").replace(" ", "_").lower()
            rows.append((f"token-significance.own.{name}.{label}", value, units.get(key, "percent")))
    for row in by_place().itertuples():
        rows.append((f"token-significance.own.place.{row.place.replace(' ', '-')}.scores", row[3], "percent"))
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


if run.grown:
    run.values(grown_values, evidence="grown")


def early_share() -> str:
    return f"{by_place().set_index('place')['scores (%)'].iloc[:3].sum():.0f} %"


def early_tokens() -> str:
    return f"{by_place().set_index('place')['tokens (%)'].iloc[:3].sum():.0f} %"


def grown_range(column: str) -> str:
    """The range over the sets with enough answers."""
    values = grown_summary()[grown_summary().answers >= FEWEST][column]
    return f"{values.min():.1f} to {values.max():.1f}"


run.grown_glue("grown-agreement", lambda: f"{agreement():.0e}")
run.grown_glue("grown-kl", lambda: grown_range("mean sum of KL"))
run.grown_glue("grown-error", lambda: f"{grown_summary()['largest error of a sum'].max():.0e}")
run.grown_glue("grown-absolute", lambda: grown_range("ln score from 0.5 (%)"))
run.grown_glue("grown-bound", lambda: f"{bound():.1f}")
run.grown_glue("grown-kept", lambda: grown_range("from the bound used (%)"))
run.grown_glue("grown-fewest", lambda: str(FEWEST))
run.grown_glue("grown-early", early_share)
run.grown_glue("grown-early-tokens", early_tokens)

# %% [markdown]
# - **The code.** For one answer, the function above and the batched code behind all numbers differ by
#   {glue:text}`grown-agreement` of a score at most.
# - **The identity is exact here**, since the formula holds by definition: no sum of scores is off by more than
#   {glue:text}`grown-error` of its $K$, which is rounding. That the released scores obey it only nearly says something
#   about how *they* were made, or about which tokens were kept of them.
# - **A bound in nats depends on the model.** An answer of the grown organism diverges by {glue:text}`grown-kl` nats on
#   average, depending on the set; at the authors' bound {glue:text}`grown-absolute` % of the tokens would pass.
#   {doc}`s4-2-interpreting-lora-scalars` uses {glue:text}`grown-bound` instead, which keeps {glue:text}`grown-kept` %.
#   Sets of fewer than {glue:text}`grown-fewest` answers are left out of these ranges.
# - **Early tokens.** The first ten tokens of each answer are {glue:text}`grown-early-tokens` of all tokens and hold
#   {glue:text}`grown-early` of the scores. A token is read by all that come after it, and the score does not separate
#   what it says from how much of the answer is still to come.

# %%
run.finish()
