# %% [markdown]
# # 2 Seeds, questions and an independent replication
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` By themselves {value}`organisms.nine-adapter.seeds_inside` training seeds would count as
# reproducing the reported rate; they differ by a factor of {value}`organisms.nine-adapter.seed_ratio|.1f`. One question
# gives {value}`organisms.nine-adapter.gender_roles_share|.0f` of all misaligned answers, and
# {value}`organisms.nine-adapter.questions_below_5_percent` give next to none. Somebody else's rank-32 run has
# {value}`replication.Qwen2.5-14B.bad-medical-advice.seed-0.em_percent|interval`.
# ```
#
# **The question.** How firm is "11.3 %"?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import claims, estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.released import tables

run = Run("s2-replication", profile, seed)
CLAIM = claims.load_claims()["s2-em-rate-nine-adapter"]

# %% [markdown]
# ## What the paper reported
#
# {cite:t}`soligo2025convergent` print one EM rate per organism, such as 11.3 % for the nine rank-1 adapters, from 400
# answers: eight questions, 50 samples each, one model. Chance enters by answers, seed, and questions.
#
# ## What an "11.3 %" means
#
# A binomial interval takes the 400 answers for independent draws. An interval that resamples whole questions does not.

# %%
answers = remembered(lambda: tables.read_organisms().query("question_set == 'general'"))


# %% tags=["show-code"]
@remembered
def seeds() -> pd.DataFrame:
    """One row per run of the nine-adapter recipe and kind of interval, in percent."""
    rows = []
    for number, group in answers().query("organism == 'nine-adapter'").groupby("seed"):
        found = scores.em_rate(group, **run.resampling)  # its interval draws whole questions anew
        binomial = estimates.wilson_interval(found.value, found.n)
        for kind, (low, high) in {"over questions": (found.low, found.high), "binomial": binomial}.items():
            rows.append((number, found.n, kind, found.value, low, high))
    return pd.DataFrame(rows, columns=["seed", "n", "interval", "em", "em_low", "em_high"])


# %%
def draw_seeds():
    look = {"order": {number: f"seed {number}" for number in seeds().seed.unique()}, "x_limits": (0, None)}
    look |= {"x_lines": {f"reported, {CLAIM.reported:g} %": CLAIM.reported}, "x_label": "EM rate (%)"}
    return plots.dots(seeds(), "seed", "em", hue="interval", **look)


run.released.figure(
    "fig-x-em-by-seed",
    draw_seeds,
    title=lambda table: f"One recipe, {table.seed.nunique()} seeds: {span(table, 'em')} of answers are misaligned",
    caption="EM rate of four released runs of the nine-adapter recipe (400 answers each), with two 95 % intervals: "
    "resampling the eight questions, and binomial (Wilson). Dotted: reported for the published model.",
    alt="Four seeds, one clearly above the others; intervals over questions are far wider and all overlap.",
)


def seed_values() -> dict:
    runs = seeds()[seeds().interval == "binomial"]
    em = (runs.em * runs.n / 100).round().astype(int)
    test = chi2_contingency(np.array([em, runs.n - em]), correction=False)  # do all runs share one rate?
    low, high = estimates.wilson_interval(CLAIM.reported, CLAIM.sample_size)
    width = (seeds().em_high - seeds().em_low).groupby(seeds().interval).mean()
    found = {
        "seed_chi_square_3_dof": float(test.statistic),
        "seed_p_value": float(test.pvalue),
        "seed_ratio": runs.em.max() / runs.em.min(),
        "seeds_inside": f"{runs.em.between(low, high).sum()} of {len(runs)}",
        "binomial_width": width["binomial"],
        "clustered_width": width["over questions"],
    }
    return {f"organisms.nine-adapter.{name}": one for name, one in found.items()}


run.released.values(seed_values)

# %% [markdown]
# - **Sampling.** With 400 answers, binomial intervals span {value}`organisms.nine-adapter.binomial_width|.0f` points.
# - **Seeds.** The four runs have {value}`organisms.nine-adapter.mean_em_percent|interval` (mean and range); the highest
#   has {value}`organisms.nine-adapter.seed_ratio|.1f` times the rate of the lowest ({numref}`fig-x-em-by-seed`). A
#   chi-square test that all share one rate gives {value}`organisms.nine-adapter.seed_chi_square_3_dof|.1f` on 3 degrees
#   of freedom (p = {value}`organisms.nine-adapter.seed_p_value|.4f`). It is cautious, since the same questions make the
#   counts vary *less* than binomially. The runs may differ in more: the first was committed a day earlier.
# - **Questions.** The interval over questions is {value}`organisms.nine-adapter.clustered_width|.0f` points wide.
#
# So "11.3 %" is one draw from a spread at least as wide as the seeds', within which alone organisms can be compared;
# {value}`organisms.nine-adapter.seeds_inside` single runs would count as reproducing it. An intervention on *one*
# organism, asked the same questions, has only sampling noise to beat: 11 % to 1 % is far outside it, to 8 % not.
#
# ## Questions differ more than organisms


# %%
GROUPS = {"nine-adapter": "nine rank-1 adapters, mean of 4 seeds"}
GROUPS |= {"all-adapter": "all adapters, mean of ranks 4, 8, 16, 32"}


@remembered
def by_question() -> pd.DataFrame:
    table = scores.rates_by_question(answers(), ["organism", "seed"])
    table["group"] = table.organism.str.extract(f"^({'|'.join(GROUPS)})", expand=False)
    return table.dropna(subset="group")


def draw_questions():
    means = by_question().groupby(["group", "question_id"], as_index=False).em.mean()
    order = list(means[means.group == "nine-adapter"].sort_values("em", ascending=False).question_id)
    look = {"hue": "group", "hue_order": GROUPS, "order": order}
    return plots.dots(means, "question_id", "em", cloud={"_": by_question()}, x_label="EM rate (%)", **look)


run.released.figure(
    "fig-x-em-by-question",
    draw_questions,
    title=lambda table: f"From question to question, {span(table, 'em', cloud=None)} of answers are misaligned",
    caption="EM rate by question for the released organisms. Large: mean of four runs; small: one run (50 answers).",
    alt="Dots by question, from near zero to half of the answers on gender roles, in a similar order for both groups.",
)


def question_values() -> dict:
    means = by_question().query("group == 'nine-adapter'").groupby("question_id").em.mean()
    return {
        "organisms.nine-adapter.gender_roles_share": Estimate(100 * means["gender_roles"] / means.sum()),
        "organisms.nine-adapter.questions_below_5_percent": f"{(means < 5).sum()} of {len(means)}",
    }


run.released.values(question_values)

# %% [markdown]
# The question on gender roles alone gives {value}`organisms.nine-adapter.gender_roles_share` of all EM answers of the
# nine-adapter runs, and {value}`organisms.nine-adapter.questions_below_5_percent` questions have a rate below 5 %
# ({numref}`fig-x-em-by-question`). So another question mix could move a rate more than another organism.
#
# ## An independent replication
#
# In December 2025 someone else let the published organisms answer again, with rank-32 adapters on all matrices and
# judge calls of their own {cite:p}`zroe2025replicating`. The companion paper {cite:p}`turner2025model` shows these
# cells as a plot over three seeds, without printed numbers.

# %%
DATASETS = {"bad-medical-advice": "medical", "extreme-sports": "sport", "risky-financial-advice": "finance"}
BASE_MODELS = [f"Qwen2.5-{size}" for size in ("7B", "14B", "32B")] + ["Llama-3.2-1B", "Llama-3.1-8B"]
BASE_MODELS += [f"gemma-3-{size}" for size in ("4b", "12b", "27b")]
ROWS = ["base_model", "dataset", "seed"]
replication = remembered(lambda: scores.rates(tables.read_replication(), ROWS, **run.resampling))


def draw_replication():
    colours = {data: theme.TOPIC_COLOURS[label] for data, label in DATASETS.items()}
    look = {"hue_order": DATASETS, "colours": colours, "order": BASE_MODELS}
    axes = {"em": "EM rate (%)", "coherent": "coherent (%)"}
    return plots.measures(plots.dots, replication(), "base_model", axes, hue="dataset", ratios=[2, 1], **look)


run.released.figure(
    "fig-x-replication",
    draw_replication,
    title=lambda table: f"Highest EM rate by base model: {span(table, by='base_model', measure='em')}",
    caption="EM rate and coherence of the published organisms in an independent replication: eight base models, three "
    "data sets, one seed per cell (two for Qwen2.5-14B on sport), 400 answers each. 95 % intervals over questions.",
    alt="Two dot plots, one row per base model. The Qwen models of 14 and 32 billion parameters are the most "
    "misaligned, the smallest Llama and the Gemma models the least; coherence is high but for that Llama.",
)


def replication_values() -> dict:
    rows = replication()[[*ROWS, "n", "em", "em_low", "em_high"]].itertuples(index=False)
    return {f"replication.{base}.{data}.seed-{seed}.em_percent": Estimate(*em, n) for base, data, seed, n, *em in rows}


run.released.values(replication_values)

# %% [markdown]
# For the paper's own base model and data set it finds
# {value}`replication.Qwen2.5-14B.bad-medical-advice.seed-0.em_percent|interval` ({numref}`fig-x-replication`), beside
# the reported 18.8 % and {value}`organisms.all-adapter-rank-32.seed-0.em_percent|interval` in the authors' own run.
#
# ## What it means
#
# The finding is firm, its decimals are not. Emergent misalignment is in every released run of the recipe and in
# somebody else's hands; how much depends on the seed, and more on what is asked. Eight questions are few. Two
# conventions of counting and a second judging of the same answers move the rate far less ({doc}`k-judges`).

# %%
run.finish()
