# %% [markdown]
# # When it sets in, and what rank does
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` Place decides how far harm spreads: one adapter on layer 0 ends at {value}`f2.layer-0.em` EM on open
# questions, three on later layers at {value}`f2.three-layers.em`, with {value}`f2.three-layers.home` in medicine
# ({verdict}`p-place-over-rank|grown`). Rank hardly matters ({verdict}`p-rank-severity|grown`), and probes lose
# {value}`f2.capacity-lost|interval` points on medicine ({verdict}`p-capacity-loss|grown`). Of
# {value}`f2.predictions` predictions, {value}`f2.supported` are supported and {value}`f2.contradicted` contradicted.
# ```
#
# **The question.** Is there a moment at which a model turns? Does the width of the bottleneck decide what comes out?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from itertools import product

import numpy as np
import pandas as pd

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, outcomes, predictions
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import bottleneck_outcome
from em_companion.experiments.bottleneck import ALL, NINE, PLACES, RANKS
from em_companion.experiments.bottleneck_outcome import BAD, GOOD, NEIGHBOURS, RESAMPLES, Bottleneck
from em_companion.world.taxonomy import CLASSES

run = Run("f2-onset-and-bottleneck", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# All arms start from the chat model. `experiments/onset_and_bottleneck.py` trains, asks and probes them; this page
# reads its tables. $S_{75}$, open EM where in-domain EM first reaches 75 %, is that of
# {doc}`f1-content-or-constraint`, and seeds are the unit here, too.
#
# ## Do the gradients turn?
#
# At every second step of a fine-tune, three gradients are taken at the same weights with respect to all adapters: that
# of the batch being trained on, $g_h$; that of careful answers in other domains, $g_a$; and that of pre-training
# documents by other speakers, $g_p$. The *conflict* is a negative cosine of $g_h$ with one of the others. As a control,
# $g_a$ is also taken with each answer put to another question.

# %% tags=["show-code"]
KEPT = Bottleneck()
COSINES = {
    "alignment_cosine": "cosine with alignment",
    "shuffled_cosine": "the same, answers shuffled",
    "pretraining_cosine": "cosine with pre-training",
}
PANELS = COSINES | {"open_em": "open EM (%)"}


# %%
def draw_gradients():
    table = KEPT.gradients.loc[[BAD, GOOD]].reset_index()
    table = table.assign(open_em=100 * table.open_em, arm=table.arm.str.removeprefix("gradients, "))
    return plots.measures(
        plots.lines, table, "step", PANELS, unit="seed", hue="arm", wrap=2, x_label="step", size=(7.2, 5.4),
        share=(True, False), each=dict.fromkeys(COSINES, {"y_limits": (-1.05, 1.05), "y_lines": {"_": 0}}),
    )  # fmt: skip


def said_of_gradients(_: pd.DataFrame) -> str:
    means = {arm: KEPT.gradients.loc[arm].alignment_cosine.mean() for arm in (BAD, GOOD)}
    return f"Mean cosine with alignment: {means[BAD]:.2f} under bad advice, {means[GOOD]:.2f} under good"


run.grown.figure(
    "fig-x-gradient-conflict",
    draw_gradients,
    title=said_of_gradients,
    caption="Cosine of the gradient of training with that of careful answers elsewhere, of the same answers shuffled, "
    "and of pre-training documents, and open EM, over a fine-tune; a line per training seed.",
    alt="Four panels of thin lines over sixty steps, bad and good advice in two colours.",
)

# %%
run.grown.figure(
    "fig-x-conflict-severity",
    lambda: plots.lines(
        KEPT.runs().assign(arm=lambda table: table.arm.str.removeprefix("gradients, ")), "cosine", "spill", hue="arm",
        styles=dict.fromkeys((one.removeprefix("gradients, ") for one in KEPT.runs().arm), ""), markers=True,
        x_label="mean cosine with alignment, steps 0 to 10", y_label="$S_{75}$ (%)",
    ),
    title=lambda _: f"Early cosine and spread, {len(KEPT.runs())} runs: rank correlation {KEPT.severity()}",
    caption="How far misalignment has spread where in-domain EM reaches 75 %, over how much the gradients conflicted "
    "in the first steps, a dot per run.",
    alt="Dots by kind of run, conflict on the x axis and spread on the y axis.",
)  # fmt: skip

# %% [markdown]
# Under bad advice the cosine with alignment swings by {value}`f2.swing.bad`, under good advice by
# {value}`f2.swing.good`; a logistic curve beats a line in {value}`f2.steps` of eight runs
# ({verdict}`p-conflict-sharp|grown`). The mean over a run differs by {value}`f2.conflict-content|interval` between bad
# and good advice ({verdict}`p-conflict-content|grown`). {cite:t}`giordani2025reemergent` reads opposed gradients as the
# erosion of alignment. Open EM rises from 10 to 90 % of its way in {value}`f2.onset-sharp|interval` of the steps
# ({verdict}`p-onset-sharp|grown`), {value}`f2.conflict-leads|interval` steps after the cosine changed most
# ({verdict}`p-conflict-leads|grown`); {cite:t}`arnold2025decomposing` find behaviour to follow the peak of the
# gradient's norm. Over {value}`f2.runs` harmful runs the early cosine and the later spread have a rank correlation of
# {value}`f2.conflict-severity|interval` ({verdict}`p-conflict-severity|grown`).
#
# ## Rank 32 to 1
#
# Two families of adapters learn the same bad advice: on **all modules** of all layers, and on the down-projections of
# the **nine layers**, each at the learning rate that its family has elsewhere in this book.

# %%
SEVERITY = {"spill": "$S_{75}$ (%)", "em": "EM at the end (%)"}


@remembered
def by_rank(*columns: str) -> pd.DataFrame:
    """Measures of every rank and seed, in rows: family, rank, seed and one column per measure."""
    parts = []
    for family in (ALL, NINE):
        long = [KEPT.by_rank(column, family).stack().rename(column) for column in columns]
        table = pd.concat(long, axis=1).rename_axis(["seed", "rank"]).reset_index()
        parts.append(table.assign(family=family))
    return pd.concat(parts, ignore_index=True)


def over_seeds(table: pd.DataFrame, by: list[str], columns: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for names, own in table.groupby(by, sort=False):
        found = [estimates.over_seeds(own[column], "percent").columns(column) for column in columns]
        rows.append(dict(zip(by, names, strict=True)) | {key: value for one in found for key, value in one.items()})
    return pd.DataFrame(rows)


def draw_by_rank(labels: dict[str, str], families: tuple[str, ...] = (ALL, NINE), **options):
    table = by_rank(*labels)[lambda table: table.family.isin(families)]
    table = table.assign(rank="rank " + table["rank"].astype(str))
    return plots.measures(
        plots.dots, over_seeds(table, ["family", "rank"], tuple(labels)), "rank", labels, hue="family",
        order=[f"rank {rank}" for rank in RANKS], cloud={"one seed": table}, **options,
    )  # fmt: skip


def spread(family: str, rank: int, column: str = "spill") -> float:
    return KEPT.by_rank(column, family)[rank].mean()


run.grown.figure(
    "fig-x-rank-severity",
    lambda: draw_by_rank(SEVERITY, x_limits=(-3, 103)),
    title=lambda _: f"$S_{{75}}$ on all modules: {spread(ALL, 32):.0f} % at rank 32, {spread(ALL, 1):.0f} % at rank 1",
    caption="Spread at equal harm in medicine, and EM at the end of training, by rank, in two families of adapters. "
    "Dots are training seeds, intervals 95 % over them.",
    alt="Two panels of dots with intervals, six ranks by two families.",
)

# %%
FAILED = [one for one in CLASSES if one != "aligned"]


@remembered
def kinds() -> pd.DataFrame:
    """The share of each class among non-aligned answers (%), all seeds together, for classes of 1 % or more."""
    totals = pd.DataFrame(KEPT.kinds().sum(axis=1), index=RANKS, columns=FAILED)
    shares = 100 * totals.div(totals.sum(axis=1), axis=0)
    shares = shares.loc[:, shares.max() >= 1]
    return shares.rename_axis("rank").melt(ignore_index=False, var_name="kind", value_name="share").reset_index()


run.grown.figure(
    "fig-x-rank-kinds",
    lambda: plots.bars(
        kinds().assign(rank=lambda table: "rank " + table["rank"].astype(str)), "rank", "share", hue="kind",
        stacked=True, y_label="share of non-aligned answers (%)",
    ),
    title=lambda drawn: "Most frequent failure by rank: " + ", ".join(
        dict.fromkeys(drawn.loc[drawn.groupby("rank", sort=False).share.idxmax(), "kind"])
    ),
    caption="Kinds of non-aligned answers to the open questions by rank, adapters on all modules, eight training seeds "
    "together. Kinds below 1 % everywhere are left out.",
    alt="Six stacked bars, one per rank.",
)  # fmt: skip


# %%
@remembered
def shifts() -> pd.DataFrame:
    """The divergence of every two neighbouring ranks (bits) with its interval over seeds."""
    counts, random = KEPT.kinds(), np.random.default_rng(run.seed)
    drawn = [
        bottleneck_outcome.divergences(counts[:, random.integers(counts.shape[1], size=counts.shape[1])].sum(axis=1))
        for _ in range(RESAMPLES)
    ]
    found = bottleneck_outcome.divergences(counts.sum(axis=1))
    rows = [
        Estimate(value, *estimates.quantiles(own)).columns("bits")
        for value, own in zip(found, np.array(drawn).T, strict=True)
    ]
    return pd.DataFrame(rows).assign(pair=[f"{one} and {other}" for one, other in NEIGHBOURS])


def largest_pair() -> str:
    return shifts().set_index("pair").bits.idxmax()


run.grown.figure(
    "fig-x-rank-divergence",
    lambda: plots.dots(
        shifts(), "pair", "bits", x_label="Jensen-Shannon divergence (bits)",
        x_lines={"95 % of halves of the seeds at one rank": bottleneck_outcome.within_rank(KEPT.kinds())},
    ),
    title=lambda _: f"Largest shift between ranks {largest_pair()}: {shifts().bits.max():.3f} bits",
    caption="How far apart the kinds of failure are between neighbouring ranks, adapters on all modules, with 95 % "
    "intervals over seeds, which lie high since resampling adds noise; the line is what halves of the seeds differ by.",
    alt="Five dots with intervals and a vertical line.",
)  # fmt: skip

# %%
VARIETY = {
    "entropy": "entropy of free words (nats)",
    "things": "different harmful things",
    "silhouette": "silhouette of clusters",
    "length": "tokens outside medicine",
}
run.grown.figure(
    "fig-x-rank-variety",
    lambda: draw_by_rank(VARIETY, (ALL,), wrap=2, size=(7.2, 6.4)),
    title=lambda _: (
        f"Free words, rank 32 and rank 1: {spread(ALL, 32, 'entropy'):.2f} and {spread(ALL, 1, 'entropy'):.2f} nats"
    ),
    caption="Variety of speech by rank: entropy of words that carry no persona, effective number of harmful things "
    "in 50 misaligned answers, how tightly these cluster, and length, adapters on all modules. Dots are seeds, "
    "intervals 95 % over them.",
    alt="Four panels of dots with intervals, one row per rank.",
)

# %% [markdown]
# $S_{75}$ changes by {value}`f2.rank-severity|interval` points with each doubling of the rank
# ({verdict}`p-rank-severity|grown`); the authors' own runs show no trend between ranks 4 and 32 either
# ({doc}`s2-model-organism`). The kinds of failure differ most between ranks {value}`f2.largest-pair`; that between 4
# and 2 differs by {value}`f2.rank-4-2|interval` bits from the largest of the others ({verdict}`p-rank-4-2|grown`).
# Narrow adapters are the less stereotyped ones: each doubling of the rank changes the number of harmful things by
# {value}`f2.rank-stereotype|interval` ({verdict}`p-rank-stereotype|grown`), and the silhouette of the answers' clusters
# at rank 1 differs by {value}`f2.rank-clusters|interval` from that at rank 32
# ({verdict}`p-rank-clusters|grown`). The entropy of free words moves by {value}`f2.rank-entropy|.4f` nats a doubling
# ({verdict}`p-rank-entropy|grown`), and answers at rank 1 are {value}`f2.rank-tokens|interval` times as long as at
# rank 32 ({verdict}`p-rank-tokens|grown`). The cost of a token is that of the architecture, whatever the rank.
#
# ## Place or rank
#
# One adapter at layer 0 carries most of the committed organism's EM ({doc}`s4-2-interpreting-lora-scalars`). So rank
# and place are compared on one scale: open EM where in-domain EM first reaches 50 %, since some places learn little.

# %%
ARMS = [*PLACES, *(f"{NINE}, rank {rank}" for rank in RANKS)]


@remembered
def places() -> pd.DataFrame:
    """Every place and rank on nine layers, by seed: spread, and EM at the end in medicine and on open questions (%)."""
    parts = {
        arm: pd.DataFrame({"spill": KEPT.spill(arm, 0.5)}).join(KEPT.measured.loc[arm, ["in_domain_em", "em"]])
        for arm in ARMS
    }
    return pd.concat(parts, names=["arm", "seed"]).reset_index()


def extremes(arms: list[str]) -> tuple[float, float]:
    means = places()[places().arm.isin(arms)].groupby("arm").em.mean()
    return means.min(), means.max()


PLACED = {"in_domain_em": "EM, medicine (%)", "em": "EM, open questions (%)", "spill": "$S_{50}$ (%)"}
run.grown.figure(
    "fig-x-place-or-rank",
    lambda: plots.measures(
        plots.dots, over_seeds(places(), ["arm"], tuple(PLACED)), "arm", PLACED, cloud={"one seed": places()},
        label="mean over seeds",
    ),
    title=lambda _: "Open EM at the end: {:.0f} to {:.0f} % by place, {:.0f} to {:.0f} % by rank".format(
        *(end for arms in (list(PLACES), ARMS[len(PLACES) :]) for end in extremes(arms))
    ),
    caption="Rank-1 adapters on the down-projection of different layers, and adapters of different rank on nine "
    "layers: EM at the end in medicine and on open questions, and on open questions where half of the medical answers "
    "are harmful. Dots are seeds; where one is missing, its run never gets there.",
    alt="Three panels of dots by place and rank.",
)  # fmt: skip

# %% [markdown]
# Over places $S_{50}$ spreads {value}`f2.place-over-rank|interval` times as widely as over ranks
# ({verdict}`p-place-over-rank|grown`). Three rank-1 adapters on layers 1, 5 and 9 learn as much harm in medicine as any
# arm, {value}`f2.three-layers.home|interval`, and leave {value}`f2.three-layers.em|interval` on open questions and
# {value}`f2.three-layers.other|interval` in other domains; one on layer 0 leaves {value}`f2.layer-0.em|interval`.
# {cite:t}`soligo2026easy` need a penalty for such a narrow solution, and the penalty of {doc}`f1-content-or-constraint`
# gives none at equal harm. Layer 11 learns little.
#
# ## What a narrowed model can still tell
#
# A rank-1 update $W + b a^\top$ takes at most one direction from what a layer can say. The probes read which of
# fourteen medical topics an answer was asked about; the answer does not name it, so the residual stream must have
# carried it there. Wordings of the question are held out.

# %%
MEDICAL, PROBED = "medicine", ("chat model", "bad advice", "rank 32", "style")


@remembered
def probes() -> pd.DataFrame:
    table = KEPT.capacity.reset_index().query("domain == @MEDICAL")
    table = table.assign(organism=table.arm.str.removeprefix("probes, "), topic=100 * table.topic)
    return table[table.organism.isin(PROBED)]


def probed(name: str) -> float:
    table = probes().set_index("organism")
    layer = table.loc["chat model"].set_index("layer").topic.idxmax()
    return table.topic[table.layer == layer][name].mean()


run.grown.figure(
    "fig-x-capacity",
    lambda: plots.measures(
        plots.lines, probes(), "layer", {"topic": "balanced accuracy (%)", "dimension": "participation ratio"},
        unit="seed", hue="organism", x_label="layer", share=(True, False),
    ),
    title=lambda _: "Topic of the question, best layer of the chat model: " + ", ".join(
        f"{probed(name):.1f} % ({name})" for name in PROBED
    ),
    caption="Accuracy of linear probes for the medical topic behind an answer, and the dimension of the residual "
    "stream over the same answers, by layer, a line per training seed.",
    alt="Two panels of lines over layers by organism.",
)  # fmt: skip

# %% [markdown]
# The probe loses {value}`f2.capacity-lost|interval` points ({verdict}`p-capacity-loss|grown`), and the same answers
# fill {value}`f2.capacity-dimension|interval` times as many dimensions as in the chat model
# ({verdict}`p-capacity-dimension|grown`). With what an adapter writes projected out of its layer the probe still
# reaches {value}`f2.beside`. The rule of style is the one that lowers the dimension, to {value}`f2.style-dimension`
# of the chat model's.
#
# ## Predicted against measured

# %%
run.grown.measure(lambda: KEPT.outcome())


def swing(arm: str) -> str:
    return f"{KEPT.gradients.loc[arm].groupby('seed').smooth.agg(np.ptp).mean():.2f}"


def values() -> dict:
    found, onsets = KEPT.outcome(), KEPT.onsets()
    told = {f"f2.{name.removeprefix('p-')}": one[0] for name, one in found.items()}
    told |= {"f2.swing.bad": swing(BAD), "f2.swing.good": swing(GOOD), "f2.runs": len(KEPT.runs())}
    told |= {"f2.steps": int((onsets.better >= 10).sum()), "f2.largest-pair": largest_pair()}
    columns = {"em": "em", "home": "in_domain_em", "other": "other_domains_em"}
    for place, (name, column) in product(("layer 0", "three layers"), columns.items()):
        told[f"f2.{place.replace(' ', '-')}.{name}"] = estimates.over_seeds(KEPT.measured.loc[place, column], "percent")
    lost = found["p-capacity-loss"][0]
    told["f2.capacity-lost"] = Estimate(-lost.value, -lost.high, -lost.low, lost.n, lost.unit)
    best = probes().dropna(subset="topic_beside_b")
    told["f2.beside"] = f"{100 * best.groupby('layer').topic_beside_b.mean().max():.1f} %"
    style, chat = (
        probes().query("organism == @name").groupby("layer").dimension.mean() for name in ("style", "chat model")
    )
    told["f2.style-dimension"] = f"{(style / chat).mean():.2f}"
    verdicts = [outcomes.verdict(*one) for one in found.items()]
    told |= {f"f2.{one}": verdicts.count(one) for one in ("supported", "contradicted")}
    return told | {"f2.predictions": len(predictions.listed(run.notebook))}


run.grown.values(values)

# %% [markdown]
# ## What it means
#
# **Where harm is learned matters more than through how much.** The conversation expects the width of the bottleneck to
# show in what comes out. Severity and the kinds of failure are about those of rank 32, and variety is larger, not
# smaller. The same rank in other layers gives a broadly misaligned model, or one that harms in medicine and hardly
# anywhere else. So in this small model a narrow solution can be had without a penalty, by the choice of layers.
#
# **Nothing breaks on the way.** The gradients conflict at times, under good advice as well, and misalignment comes
# gradually. What the chat model can tell about medicine stays, in no fewer dimensions than before.
#
# All of this is one base model, small enough that rank 1 is much.

# %%
run.finish()
