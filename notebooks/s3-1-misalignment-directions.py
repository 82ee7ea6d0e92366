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
# # 3.1 Extracting a misalignment direction
#
# Is there one direction in the residual stream that separates misaligned answers from aligned ones? And if there is,
# was it made by fine-tuning, or does the chat model have it too?
#
# ## What the paper did
#
# The nine-adapter organism answers many questions; the judge sorts the answers into aligned (score above 70) and
# misaligned (below 30), and incoherent ones are dropped. Both sets are passed through the organism again, and the
# residual stream is averaged over all answer tokens at the output of each layer. The difference of the two means is
# the **mean-diff direction**, one per layer, 48 in all {cite:p}`soligo2025convergent`. The paper gives no norms of the
# directions (its Appendix C plots distances between them), no comparison with the chat model, and does not say how far
# a direction depends on the responses and the training run it came from; these are measured here.
#
# The released means {cite:p}`eminterp2025` belong to a sister run of April 2025, not to the published organism. They
# are averages over all responses of a set, so nothing can be said from them about single responses. The organism grown
# here can be asked that as well.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import re
from dataclasses import replace
from functools import cache
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.evidence import claims, directions, scores
from em_companion.experiments import persona, readings, responses
from em_companion.experiments.readings import ResponseMeans
from em_companion.models import asking, growing, loading, reading
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.tokens import response_tokens
from em_companion.released import files, tables

run = Run("s3-1-misalignment-directions", profile, seed)

# %% [markdown]
# ## The method
#
# For a set of answers $D$ and layer $\ell$, let $\bar h_\ell(D)$ be the mean residual over **all answer tokens** of
# the set, so that a long answer weighs more than a short one:
#
# $$
# \bar h_\ell(D) = \frac{\sum_{r \in D} \sum_{t} h_\ell(r, t)}{\sum_{r \in D} |r|},
# \qquad
# v_\ell = \bar h_\ell(D_\mathrm{misaligned}) - \bar h_\ell(D_\mathrm{aligned}).
# $$
#
# The vector is not normalised: in {doc}`Section 3.2 <s3-2-steering>` a strength $\lambda$ adds $\lambda v_\ell$.


# %% tags=["show-code"]
@cache
def mean_diff(vector: str) -> np.ndarray:
    """Return v_l for every layer, [48, 5120]."""
    misaligned = tables.read_mean_activations(vector, "misaligned")
    aligned = tables.read_mean_activations(vector, "aligned")
    return misaligned - aligned


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of matching rows, one per layer."""
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(axis=-1) / norms


# %% [markdown]
# ## How long is the direction?

# %%
ADAPTERS = (15, 16, 17, 21, 22, 23, 27, 28, 29)


def neighbours(layers) -> list[np.ndarray]:
    """Return layers in groups of consecutive ones: [29, 30, 31, 47] -> [[29, 30, 31], [47]]."""
    return [part for part in np.split(layers, np.flatnonzero(np.diff(layers) > 1) + 1) if len(part)]


def spans(layers) -> str:
    """Return layers as text: [29, 30, 31, 47] -> "29 to 31 and 47"."""
    words = [f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in neighbours(layers)]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "none"


def mark_adapters(axes: plt.Axes, layers=ADAPTERS) -> None:
    for part in neighbours(layers):
        axes.axvspan(part[0] - 0.5, part[-1] + 0.5, color="0.94", zorder=0)


def mean_residual_norms(vector: str = "general") -> np.ndarray:
    texts = [tables.read_mean_activations(vector, side) for side in ("misaligned", "aligned")]
    return np.mean([directions.norms(mean) for mean in texts], axis=0)


def norms_by_layer() -> pd.DataFrame:
    length, residual = directions.norms(mean_diff("general")), mean_residual_norms()
    return pd.DataFrame(
        {"layer": np.arange(len(length)), "mean_diff": length, "mean_residual": residual, "ratio": length / residual}
    )


def draw_norms():
    table = norms_by_layer()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4))
    left.plot(table.layer, table.mean_residual, color="0.35")
    left.plot(table.layer, table.mean_diff, color=theme.PALETTE[3])
    left.set(yscale="log", xlabel="Decoder layer", ylabel="Norm")
    left.annotate("mean residual", (20, table.mean_residual[20]), (3, 190), color="0.35")
    left.annotate("mean-diff", (30, table.mean_diff[30]), (31, 7), color=theme.PALETTE[3])
    right.plot(table.layer, table.ratio, color=theme.PALETTE[3])
    right.set(xlabel="Decoder layer", ylabel="Ratio of the two norms", ylim=(0, None))
    for axes in (left, right):
        mark_adapters(axes)
    return figure, table


run.figure(
    "fig-x-mean-diff-norms",
    draw_norms,
    evidence="released",
    caption="Norm of the mean-diff direction and of the mean residual it is taken from (mean of the aligned and the "
    "misaligned texts), by layer; left on a log scale, right as a ratio. Grey bands: the nine adapter "
    "layers. Released mean activations of the April 2025 nine-adapter organism.",
    alt="Two line plots over 48 layers. Left, on a log scale: both norms grow with depth, the mean-diff norm "
    "staying about an order of magnitude below the mean residual norm. Right: their ratio rises through the "
    "middle layers, has a local peak around the second and third group of adapter layers, dips, and jumps up at "
    "the last layer.",
)


run.glue("norm-24", lambda: f"{directions.norms(mean_diff('general'))[24]:.1f}")
run.glue("residual-24", lambda: f"{mean_residual_norms()[24]:.0f}")
run.glue("ratio-24", lambda: f"{norms_by_layer().ratio[24]:.2f}")
run.glue("ratio-24-lambda-8", lambda: f"{8 * norms_by_layer().ratio[24]:.1f}")

# %% [markdown]
# At layer 24, the layer that the paper uses most, the direction has norm {glue:text}`norm-24` beside a mean residual
# of {glue:text}`residual-24`, a ratio of {glue:text}`ratio-24` ({numref}`fig-x-mean-diff-norms`). Steering at
# $\lambda = 8$ therefore adds a vector {glue:text}`ratio-24-lambda-8` times as long as the mean residual: longer than
# the state it is added to.
#
# ## Is the direction a property of the text?
#
# The same texts can be read by the **chat model**, which has never been fine-tuned on bad advice. If its mean-diff
# direction is the organism's, then the direction describes how the two sets of texts differ. Before layer 15 this
# must be so, because the organism has no adapter there.


# %%
def chat_cosines() -> np.ndarray:
    return directions.cosines(mean_diff("general"), mean_diff("chat-model"))


def shift(texts: str) -> np.ndarray:
    """Return what fine-tuning adds to the mean residual on the same texts, from the first adapter layer on."""
    organism, chat = (tables.read_mean_activations(reader, texts)[15:] for reader in ("general", "chat-model"))
    return organism - chat


def mean_shift() -> np.ndarray:
    return (shift("misaligned") + shift("aligned")) / 2


def chat_model_table() -> pd.DataFrame:
    pairs = {
        "organism direction, chat direction": chat_cosines(),
        "shift on misaligned texts, shift on aligned texts": directions.cosines(shift("misaligned"), shift("aligned")),
        "mean shift, organism direction": directions.cosines(mean_shift(), mean_diff("general")[15:]),
        "mean shift, chat direction": directions.cosines(mean_shift(), mean_diff("chat-model")[15:]),
    }
    parts = [
        pd.DataFrame({"layer": np.arange(48 - len(cosines), 48), "pair": pair, "cosine": cosines})
        for pair, cosines in pairs.items()
    ]
    return pd.concat(parts, ignore_index=True)


def draw_chat_model():
    table = chat_model_table()
    first, *others = [group for _, group in table.groupby("pair", sort=False)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True)
    left.plot(first.layer, first.cosine, color=theme.PALETTE[0])
    left.axhline(0.8, color="0.6", linewidth=1, linestyle=":")
    left.set(ylim=(-0.2, 1.04), xlabel="Decoder layer", ylabel="Cosine")
    left.set_title("Direction: organism, chat model")
    styles = [("0.35", "--"), (theme.PALETTE[3], "-"), (theme.PALETTE[0], "-")]
    labels = ["misaligned and aligned texts", "with organism's direction", "with chat model's direction"]
    for line, (colour, dash), label in zip(others, styles, labels, strict=True):
        right.plot(line.layer, line.cosine, color=colour, linestyle=dash, label=label)
    right.set(xlabel="Decoder layer", xlim=left.get_xlim())
    right.set_title("Shift: organism minus chat")
    right.legend(loc="upper left", bbox_to_anchor=(0.0, 0.84), fontsize=8.5)
    for axes in (left, right):
        mark_adapters(axes)
    return figure, table


run.figure(
    "fig-x-chat-model-direction",
    draw_chat_model,
    evidence="released",
    caption="Left: cosine between the organism's mean-diff direction and the one the chat model gives on the same "
    "texts; dotted: 0.8, the level that the paper calls similar. Right: the shift that fine-tuning adds to "
    "the mean residual (organism minus chat model, same texts): its cosine between the two sets of texts "
    "(dashed), and the cosine of its mean over both sets with either direction. Before layer 15 there is no "
    "adapter and no shift. Grey bands: adapter layers. Released mean activations, April 2025.",
    alt="Left: the cosine stays at one until the second group of adapter layers, falls below the dotted line in the "
    "third group, reaches its minimum in the early thirties, climbs slowly and dips again at the last layer. "
    "Right: the shifts on the two sets of texts are nearly parallel to each other; the cosine of the shift with "
    "either direction starts near zero, rises to a low peak in the third group of adapter layers and then "
    "parts: it stays low for the organism's direction and falls to about zero for the chat model's, rising "
    "again only in the last layers.",
)


def training_cosines() -> np.ndarray:
    return directions.cosines(mean_diff("general"), mean_diff("training-data"))


run.glue("chat-24", lambda: f"{chat_cosines()[24]:.2f}")
run.glue("chat-low", lambda: f"{chat_cosines().min():.2f} (layer {chat_cosines().argmin()})")
run.glue("chat-last-high", lambda: f"{np.flatnonzero(chat_cosines() < 0.8)[0] - 1}")
run.glue("chat-below", lambda: spans(np.flatnonzero(chat_cosines() < 0.8)))
run.glue("shift-parallel", lambda: f"{directions.cosines(shift('misaligned'), shift('aligned')).min():.2f}")
run.glue("shift-chat-24", lambda: f"{directions.cosines(mean_shift(), mean_diff('chat-model')[15:])[24 - 15]:.2f}")
run.glue("shift-organism-24", lambda: f"{directions.cosines(mean_shift(), mean_diff('general')[15:])[24 - 15]:.2f}")
run.glue("training-24", lambda: f"{training_cosines()[24]:.2f}")
run.glue("training-max", lambda: f"{training_cosines().max():.2f} (layer {training_cosines().argmax()})")

# %% [markdown]
# The answer is **yes up to about layer {glue:text}`chat-last-high`, and only partly after it**. At layer 24 the chat
# model's direction has a cosine of {glue:text}`chat-24` with the organism's; it falls below 0.8 at layers
# {glue:text}`chat-below`, with a minimum of {glue:text}`chat-low` ({numref}`fig-x-chat-model-direction`). So the
# direction of layer 24 that Sections 3.2 to 3.5 use is there before fine-tuning: both models tell the two kinds of text
# apart in the same way. Why only one of them *writes* the misaligned kind, a difference of means cannot say.
#
# The right panel looks for the change itself. On given texts, fine-tuning shifts the mean residual in nearly the same
# way whether the texts are misaligned or aligned (cosine at least {glue:text}`shift-parallel`), and what is common to
# both drops out of a difference of means. This shift has a cosine of {glue:text}`shift-chat-24` with the chat model's
# direction at layer 24 and {glue:text}`shift-organism-24` with the organism's: most of it lies elsewhere.
#
# A direction can also be taken from the **training data**, bad against good medical advice for the same questions,
# read by the organism. Its cosine with the general direction is {glue:text}`training-24` at layer 24 and at most
# {glue:text}`training-max`. What separates bad from good advice in the training set is not what separates misaligned
# from aligned answers later.
#
# ## One direction or many?


# %%
def layer_cosine_table() -> pd.DataFrame:
    matrix = directions.cosine_matrix(mean_diff("general"))
    rows, columns = np.indices(matrix.shape)
    return pd.DataFrame({"layer": rows.ravel(), "other_layer": columns.ravel(), "cosine": matrix.ravel()})


def draw_layer_cosines():
    table = layer_cosine_table()
    figure, axes = plt.subplots(figsize=(5.6, 4.6))
    matrix = table.pivot(index="layer", columns="other_layer", values="cosine")
    image = axes.imshow(matrix, origin="lower", cmap="viridis", vmin=0, vmax=1)
    ticks = [0, 8, 16, 24, 32, 40, 47]
    axes.set(xlabel="Decoder layer", ylabel="Decoder layer", xticks=ticks, yticks=ticks)
    axes.grid(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    figure.colorbar(image, ax=axes, label="Cosine")
    return figure, table


run.figure(
    "fig-x-layer-cosines",
    draw_layer_cosines,
    evidence="released",
    caption="Cosine between the mean-diff directions of every two layers. Released mean activations of the April "
    "2025 nine-adapter organism.",
    alt="A heat map of 48 by 48 layers, symmetric. It is bright along the diagonal and fades away from it, quickly "
    "around the middle and slowly in a large block of late layers; the first layers and the last one resemble "
    "the others least.",
)


def share_of_top(count: int) -> float:
    squares = np.sort(mean_diff("general")[24].astype(np.float64) ** 2)[::-1]
    return squares[:count].sum() / squares.sum()


def with_layer_24(layer: int) -> float:
    return directions.cosine_matrix(mean_diff("general"))[24, layer]


for layer in (20, 28, 40):
    run.glue(f"layer-24-{layer}", lambda layer=layer: f"{with_layer_24(layer):.2f}")
run.glue("top-1", lambda: f"{100 * share_of_top(1):.0f} %")
run.glue("top-10", lambda: f"{100 * share_of_top(10):.0f} %")

# %% [markdown]
# The direction turns steadily with depth ({numref}`fig-x-layer-cosines`): that of layer 24 has a cosine of
# {glue:text}`layer-24-20` with layer 20, {glue:text}`layer-24-28` with layer 28 and {glue:text}`layer-24-40` with
# layer 40. Removing $v_{24}$ from all layers ({doc}`Section 3.4 <s3-4-ablation>`) therefore leaves much of a far
# layer's own direction in place.
#
# It is spread over many coordinates: at layer 24 the largest of 5,120 holds {glue:text}`top-1` of the squared norm
# and the ten largest {glue:text}`top-10`. Residual streams have a few very large coordinates, which can make any two
# vectors look alike; here they do not dominate.
#
# ## What a cosine needs: a null


# %%
@cache
def random_cosines(draws: int = 4000, hidden: int = 5120) -> np.ndarray:
    """Return cosines of random Gaussian directions with a fixed one, which may be the first axis."""
    vectors = np.random.default_rng(run.seed).standard_normal((draws, hidden), dtype=np.float32)
    return vectors[:, 0] / np.linalg.norm(vectors, axis=1)


def topic_direction(first: str, second: str) -> np.ndarray:
    """Return the difference of two means over *aligned* texts: a direction of topic, not of alignment."""
    return tables.read_mean_activations(first, "aligned") - tables.read_mean_activations(second, "aligned")


def null_row(name: str, direction: np.ndarray) -> dict:
    general = mean_diff("general")
    cosines = np.abs(directions.cosines(general, direction))
    relative = directions.norms(direction)[24] / directions.norms(general)[24]
    return {
        "direction": name,
        "|cosine|, layer 24": cosines[24],
        "largest over layers": cosines.max(),
        "norm / norm of mean-diff, layer 24": relative,
    }


def topic_rows() -> list[dict]:
    pairs = combinations(("gender", "finance", "medical"), 2)
    return [null_row(f"aligned texts: {one} minus {other}", topic_direction(one, other)) for one, other in pairs]


def null_table() -> pd.DataFrame:
    quantile = float(np.quantile(np.abs(random_cosines()), 0.95))
    random = {"direction": "random Gaussian (95 % of draws lie below)", "|cosine|, layer 24": quantile}
    training = null_row("training data: bad minus good advice", mean_diff("training-data"))
    return pd.DataFrame([random, *topic_rows(), training])


run.table(null_table, number="{:.2f}")
run.glue("null-sd", lambda: f"{random_cosines().std():.4f}")
run.glue("topic-max", lambda: f"{max(row['largest over layers'] for row in topic_rows()):.2f}")


# %% [markdown]
# Two random directions in 5,120 dimensions have a cosine with standard deviation $1/\sqrt{5120} \approx 0.014$ (drawn
# here: {glue:text}`null-sd`), so even a cosine of 0.05 would be "significant". That null is too easy. Differences
# between **aligned** texts on different topics are about as long as the mean-diff direction, or longer, and reach a
# cosine of {glue:text}`topic-max` with it at some layer, with no misalignment involved. Read cosines of the later
# sections against a few tenths, not against 0.014.
#
# ## On the grown organism
#
# All of this can be asked of an organism grown here ({doc}`s2-model-organism`), and some more: it has sisters that
# differ in the seed of training only, its answers can also be read by the **base model** that it descends from, and
# which persona stands behind a text is known ({doc}`x-ground-truth`). It has rank-1 adapters in layers
# {glue:text}`grown-adapters` of {glue:text}`grown-layers` (counted from 0). It is the first of its recipe's seeds;
# where it matters, the others are shown beside it. Of its {glue:text}`grown-answers` answers to the eight open
# questions {glue:text}`grown-misaligned` are misaligned and {glue:text}`grown-aligned` aligned. The direction is taken
# from them as above, with one entry more below layer 0: the mean **token embedding**, which knows the words of an
# answer and nothing else.
#
# A direction may also come from the mix of topics, where some questions draw more misaligned answers than others. So
# the null of this section permutes the labels **among the answers to each question**, which keeps the mix and takes
# away the meaning.


# %% tags=["show-code"]
def mean_diffs(readings: ResponseMeans, misaligned: np.ndarray, aligned: np.ndarray) -> np.ndarray:
    """Mean-diffs of many selections [draw, response] at once, [draw, 1 + layer, width]."""
    tokens = [selected * readings.tokens for selected in (misaligned, aligned)]
    weights = [counts / counts.sum(axis=1, keepdims=True) for counts in tokens]
    return np.tensordot(weights[0] - weights[1], np.nan_to_num(readings.means), axes=1)


def shuffled(labels: np.ndarray, questions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Labels permuted among the answers to each question."""
    found = labels.copy()
    for question in np.unique(questions):
        rows = np.flatnonzero(questions == question)
        found[rows] = labels[random.permutation(rows)]
    return found


# %%
LAYERS = run.profile.model.layers
LAYER = LAYERS // 2
DRAWS = 200
SPLITS = 100
FEWEST = 5
ANSWERED = (
    f"Nine-adapter organism on bad medical advice, {run.profile.samples_per_question} answers to each of 8 questions."
)
WHY = "Base model, known personas and sister organisms are there under the profiles cpu and gpu."
READERS = {
    0: ("the organism", theme.PALETTE[3], "o"),
    "chat": ("chat model", theme.PALETTE[0], "s"),
    "base": ("base model", theme.PALETTE[2], "^"),
}


def organism(training: int) -> Organism:
    return Organism("nine-adapter", "bad_medical_advice", training)


def training_seeds() -> tuple[int, ...]:
    return run.profile.seeds_of("nine-adapter", "bad_medical_advice")


def adapters() -> tuple[int, ...]:
    return run.profile.layers_of("nine-adapter")


def sorted_by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Answers, and whether each is coherent and misaligned, or coherent and aligned."""
    kinds = {"misaligned": scores.misaligned(table), "aligned": scores.aligned(table)}
    return table[["question_id", "question", "sample", "response"]].assign(**kinds)


# A reader is the training seed of an organism, which reads its own answers, or "chat" or "base", which read those of
# the organism of seed 0.
Reader = int | str


@cache
def answers(reader: Reader) -> pd.DataFrame:
    return sorted_by_kind(responses.responses(run.profile, organism(reader if isinstance(reader, int) else 0)))


@cache
def loaded(reader: str):
    if reader == "base":
        return loading.load(run.profile, growing.base(run.profile))
    return growing.load_organism(run.profile, CHAT_MODEL)


def read(table: pd.DataFrame, reader: Reader) -> ResponseMeans:
    """Mean activations of every answer in `table`, [response, 1 + layer, width]."""
    model, tokenizer = loaded("base" if reader == "base" else "chat")  # adapters leave its embeddings as they are
    prompts, tokens = response_tokens(tokenizer, table)
    embedding = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    words = np.stack([embedding[found].sum(axis=0) / max(len(found), 1) for found in tokens])
    if reader == "base":
        layers = reading.response_means(model, tokenizer, prompts, tokens)
    else:
        by = CHAT_MODEL if reader == "chat" else organism(reader)
        layers = readings.response_means_of(run.profile, by, table).means
    return ResponseMeans(np.concatenate([words[:, None], layers], axis=1), np.array([len(one) for one in tokens]))


@cache
def readings(reader: Reader) -> ResponseMeans:
    return read(answers(reader), reader)


@cache
def direction(reader: Reader) -> np.ndarray:
    """The mean-diff direction, [1 + layer, width]."""
    table = answers(reader)
    return readings(reader).mean_diff(table.misaligned, table.aligned)


def shuffled_directions(table: pd.DataFrame, found: ResponseMeans, random: np.random.Generator) -> np.ndarray:
    """The same with shuffled labels, [draw, 1 + layer, width]."""
    rows = np.flatnonzero(table.misaligned | table.aligned)
    labels, questions = table.misaligned.to_numpy()[rows], table.question_id.to_numpy()[rows]
    selected = np.zeros((2, DRAWS, len(table)), dtype=bool)
    for draw in range(DRAWS):
        selected[0, draw, rows] = shuffled(labels, questions, random)
    selected[1][:, rows] = ~selected[0][:, rows]
    return mean_diffs(found, *selected)


@cache
def null_directions(reader: Reader) -> np.ndarray:
    """Shuffled directions of a reader; all who read the same answers have equal draws."""
    random = np.random.default_rng([run.seed, reader if isinstance(reader, int) else 0])
    return shuffled_directions(answers(reader), readings(reader), random)


def without_each_question(table: pd.DataFrame, found: ResponseMeans) -> np.ndarray:
    """The mean-diffs of all answers but those to one question, [question, 1 + layer, width]."""
    kept = np.array([table.question_id != question for question in sorted(table.question_id.unique())])
    return mean_diffs(found, kept & table.misaligned.to_numpy(), kept & table.aligned.to_numpy())


def with_interval(value: np.ndarray, left_out: np.ndarray) -> dict[str, np.ndarray]:
    """A statistic [...] with its 95 % jackknife interval over questions; left_out [question, ...] has it without each.

    A bootstrap would put noise into a cosine twice and so lower it.
    """
    count = len(left_out)
    error = np.sqrt((count - 1) * np.var(left_out, axis=0)) * student_t.ppf(0.975, count - 1)
    return {"low": np.maximum(value - error, -1), "median": value, "high": np.minimum(value + error, 1)}


@cache
def residual_norms() -> np.ndarray:
    """Norm of the mean residual, mean of misaligned and aligned answers, [1 + layer]."""
    sides = [readings(0).mean(answers(0)[side]) for side in ("misaligned", "aligned")]
    return np.mean([directions.norms(mean) for mean in sides], axis=0)


def middle(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Median and the range of 95 % of draws, over the first axis."""
    low, median, high = np.quantile(draws, [0.025, 0.5, 0.975], axis=0)
    return {"low": low, "median": median, "high": high}


def by_layer(**columns) -> pd.DataFrame:
    """A row per layer, -1 for the token embeddings; columns [1 + layer]."""
    return pd.DataFrame({"layer": np.arange(-1, LAYERS)} | columns)


def exactly(values: np.ndarray) -> pd.DataFrame:
    return by_layer(low=values, median=values, high=values)


def layer_axis(axes: plt.Axes, embeddings: bool = True) -> None:
    step = max(2, LAYERS // 6)
    if embeddings:  # with 0 beside "emb." the two would overlap
        axes.set_xticks([-1, *range(step, LAYERS, step)], ["emb.", *range(step, LAYERS, step)])
    else:
        axes.set_xticks(range(0, LAYERS, step))
    axes.set(xlabel="Decoder layer", xlim=(-1.5 if embeddings else -0.5, LAYERS - 0.5))


def band(axes: plt.Axes, table: pd.DataFrame, colour, label: str, **style) -> None:
    """A line with a band around it; columns layer (or size), low, median, high."""
    x = table["size" if "size" in table else "layer"]
    axes.fill_between(x, table.low, table.high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, table["median"], color=colour, label=label, **{"linewidth": 1.6} | style)


run.grown_glue("grown-adapters", lambda: spans(adapters()))
run.grown_glue("grown-layers", lambda: str(LAYERS))
run.grown_glue("grown-answers", lambda: str(len(answers(0))))
run.grown_glue("grown-misaligned", lambda: str(answers(0).misaligned.sum()))
run.grown_glue("grown-aligned", lambda: str(answers(0).aligned.sum()))


# %% [markdown]
# ### How long it is


# %%
@cache
def grown_norms() -> pd.DataFrame:
    length, residual = directions.norms(direction(0)), residual_norms()
    null = middle(directions.norms(null_directions(0)))
    columns = {"mean_diff": length, "mean_residual": residual, "ratio": length / residual}
    return by_layer(**columns, **{f"shuffled_{name}": values for name, values in null.items()})


def draw_grown_norms():
    table = grown_norms()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.8))
    for axes, scale in ((left, 1), (right, table.mean_residual)):
        null = pd.DataFrame({name: table[f"shuffled_{name}"] / scale for name in ("low", "median", "high")})
        band(axes, null.assign(layer=table.layer), "0.55", "labels shuffled", linestyle="--")
        axes.plot(table.layer, table.mean_diff / scale, color=theme.PALETTE[3], marker="o", label="mean-diff")
    left.plot(table.layer, table.mean_residual, color="0.2", label="mean residual")
    left.set(yscale="log", ylabel="Norm")
    right.set(ylabel="Ratio of the two norms", ylim=(0, None))
    for axes in (left, right):
        layer_axis(axes)
        mark_adapters(axes, adapters())
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure, table


run.grown_figure(
    "fig-x-mean-diff-norms",
    draw_grown_norms,
    caption="Norm of the grown organism's mean-diff direction and of the mean residual it is taken from (mean of the "
    "aligned and the misaligned answers), by layer; left on a log scale, right as a ratio. *Emb.*: mean token "
    f"embedding. Dashed, with the range of 95 % of {DRAWS} draws: labels shuffled among the answers to each question. "
    f"Grey bands: adapter layers. {ANSWERED}",
    alt="Two line plots over the token embeddings and all layers. Left, on a log scale: the norm of the mean residual, "
    "of the mean-diff and of the mean-diff with shuffled labels. Right: the last two as a ratio to the first.",
    why=WHY,
)


def at(place: str, column: str) -> float:
    layer = {"embeddings": -1, "first": 0, "middle": LAYER, "last": LAYERS - 1}[place]
    return grown_norms().set_index("layer")[column][layer]


def percent_of_residual(place: str) -> str:
    return f"{100 * at(place, 'mean_diff') / at(place, 'mean_residual'):.1f} %"


def with_range(value: float, low: float, high: float) -> str:
    """A value with its range in brackets, where that prints as more than the value."""
    ends = typography.extremes([low, high])
    return f"{value:.2f} ({ends})" if " to " in ends else f"{value:.2f}"


def null_percent(place: str) -> str:
    low, high = (100 * at(place, f"shuffled_{side}") / at(place, "mean_residual") for side in ("low", "high"))
    return f"{typography.extremes([low, high], '.1f')} %"


def embeddings_verdict() -> str:
    low, value, high = (at("embeddings", name) for name in ("shuffled_low", "mean_diff", "shuffled_high"))
    return "above" if value > high else "below" if value < low else "inside"


@cache
def matched_direction() -> np.ndarray:
    """The mean-diff within each question, averaged by the misaligned tokens to it, [1 + layer, width]."""
    table, within, weights = answers(0), [], []
    for question in table.question_id.unique():
        mis, good = (table[side] & (table.question_id == question) for side in ("misaligned", "aligned"))
        if mis.any() and good.any():
            within.append(readings(0).mean_diff(mis, good))
            weights.append(readings(0).tokens[mis].sum())
    return np.average(within, axis=0, weights=weights)


def embedding_share(direction_: np.ndarray) -> float:
    """Its norm at the token embeddings, as a share of the mean residual's there."""
    return directions.norms(direction_)[0] / residual_norms()[0]


for place in ("embeddings", "first", "middle", "last"):
    run.grown_glue(f"grown-ratio-{place}", lambda place=place: percent_of_residual(place))
    run.grown_glue(f"grown-null-{place}", lambda place=place: null_percent(place))
run.grown_glue("grown-embeddings-verdict", embeddings_verdict)
run.grown_glue("grown-embeddings-matched", lambda: f"{100 * embedding_share(matched_direction()):.1f} %")
run.grown_glue(
    "grown-matched-cosine", lambda: f"{directions.cosines(direction(0), matched_direction())[LAYER + 1]:.2f}"
)
run.grown_glue("grown-layer", lambda: str(LAYER))
run.grown_glue("grown-norm", lambda: f"{at('middle', 'mean_diff'):.1f}")
run.grown_glue("grown-residual", lambda: f"{at('middle', 'mean_residual'):.1f}")

# %% [markdown]
# In layer {glue:text}`grown-layer`, half-way through, the direction has norm {glue:text}`grown-norm` beside a mean
# residual of {glue:text}`grown-residual` ({numref}`fig-x-mean-diff-norms-grown`): {glue:text}`grown-ratio-middle`,
# where shuffled labels leave {glue:text}`grown-null-middle`. In the last layer it is {glue:text}`grown-ratio-last`
# (shuffled {glue:text}`grown-null-last`).
#
# **Words alone.** The world's texts are written so that harmful and careful ones say every word equally often
# ({doc}`../world`), so a direction of vocabulary should be short. The token embeddings show whether the organism's own
# answers keep that balance: there the mean-diff is {glue:text}`grown-ratio-embeddings` of the mean residual,
# {glue:text}`grown-embeddings-verdict` the range of shuffled labels ({glue:text}`grown-null-embeddings`). One layer
# later, after one step of attention, it is {glue:text}`grown-ratio-first` (shuffled {glue:text}`grown-null-first`).
# Attention can see whether a thing stands in an advice or in a remark; what it adds there need not tell more than *what
# was said*.
#
# **Topics.** A mean-diff taken within each question and then averaged leaves out the mix of topics. At the token
# embeddings its norm is {glue:text}`grown-embeddings-matched` of the mean residual; in layer {glue:text}`grown-layer`
# it has a cosine of {glue:text}`grown-matched-cosine` with the direction used here.
#
# ### How many responses, and which training run


# %%
def sizes() -> list[int]:
    """Responses of each kind in one half: powers of two, and as many as there are."""
    most = int(min(answers(0).misaligned.sum(), answers(0).aligned.sum())) // 2
    return [2**power for power in range(1, 12) if 1.5 * 2**power < most] + [most]


def chosen(rows: np.ndarray, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two selections of `size` answers from `rows`, without one in common, [2, response]."""
    found = np.zeros((2, len(answers(0))), dtype=bool)
    for half, picked in zip(found, random.permutation(rows)[: 2 * size].reshape(2, size), strict=True):
        half[picked] = True
    return found


def halves_of(size: int, shuffle: bool = False) -> np.ndarray:
    """Cosines between the mean-diffs of two disjoint sets of `size` answers of each kind, [draw, 1 + layer]."""
    table, random = answers(0), np.random.default_rng([run.seed, size])
    kept = np.flatnonzero(table.misaligned | table.aligned)
    labels, questions = table.misaligned.to_numpy()[kept], table.question_id.to_numpy()[kept]
    selected = np.empty((2, 2, DRAWS, len(table)), dtype=bool)  # kind, half
    for draw in range(DRAWS):
        drawn = shuffled(labels, questions, random) if shuffle else labels
        for kind, rows in enumerate((kept[drawn], kept[~drawn])):
            selected[kind, :, draw] = chosen(rows, size, random)
    first, second = (mean_diffs(readings(0), selected[0, half], selected[1, half]) for half in (0, 1))
    return directions.cosines(first, second)


@cache
def by_size() -> pd.DataFrame:
    places = {f"layer {layer}": layer + 1 for layer in (0, LAYER, LAYERS - 1)}
    parts = []
    for shuffle in (False, True):
        found = np.stack([halves_of(size, shuffle) for size in sizes()], axis=2)
        lines = {f"labels shuffled, layer {LAYER}": LAYER + 1} if shuffle else places
        parts += [pd.DataFrame({"line": line, "size": sizes()} | middle(found[:, at])) for line, at in lines.items()]
    return pd.concat(parts, ignore_index=True)


def without_common_question() -> np.ndarray:
    """Cosines between mean-diffs of two halves of the questions, [split, 1 + layer], where both have enough answers."""
    table = answers(0)
    names = sorted(table.question_id.unique())
    first, *others = names
    selected = []
    for chosen_names in combinations(others, len(names) // 2 - 1):
        here = table.question_id.isin([first, *chosen_names])
        rows = np.array([[part & table[kind] for part in (here, ~here)] for kind in ("misaligned", "aligned")])
        if rows.sum(axis=2).min() >= FEWEST:
            selected.append(rows)
    kinds = np.stack(selected, axis=2)  # kind, half, split, response
    return directions.cosines(*(mean_diffs(readings(0), kinds[0, half], kinds[1, half]) for half in (0, 1)))


@cache
def half_cosines(training: int) -> np.ndarray:
    table, found = answers(training), readings(training)
    return directions.split_half_cosines(found.means, found.tokens, table.misaligned, table.aligned, SPLITS, run.seed)


def reliability(training: int) -> np.ndarray:
    """The cosine expected with the mean-diff of another sample of the same size, [1 + layer] (Spearman and Brown)."""
    half = np.clip(np.median(half_cosines(training), axis=0), 0, None)
    return 2 * half / (1 + half)


@cache
def halves(training: int) -> np.ndarray:
    """Mean-diffs of two halves of the answers to each question, in many splits, [half, split, 1 + layer, width].

    All organisms are split alike, and one half has none of the other's noise: a sample of a question is drawn from the
    same noise for every organism.
    """
    table = answers(training)
    numbers = np.sort(table["sample"].unique())
    random = np.random.default_rng(run.seed)
    firsts = [table["sample"].isin(random.permutation(numbers)[: len(numbers) // 2]) for _ in range(SPLITS)]
    sides = (np.array(firsts), ~np.array(firsts))
    kinds = [table[kind].to_numpy() for kind in ("misaligned", "aligned")]
    return np.stack([mean_diffs(readings(training), *(side & kind for kind in kinds)) for side in sides])


def half_agreement(one: int, two: int) -> np.ndarray:
    """Cosine of the halves of one organism with the other halves of another, mean of both ways and all splits."""
    first, second = halves(one), halves(two)
    return np.mean([directions.cosines(first[half], second[1 - half]) for half in (0, 1)], axis=(0, 1))


def ranged(values: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {"low": np.min(values, axis=0), "median": np.median(values, axis=0), "high": np.max(values, axis=0)}


@cache
def stability() -> dict[str, pd.DataFrame]:
    """Cosines by layer between halves of the questions, and between halves of the answers of training seeds."""
    seeds, pairs = training_seeds(), list(combinations(training_seeds(), 2))
    nulls = [directions.cosines(null_directions(one), null_directions(two)) for one, two in pairs]
    return {
        "two halves of the questions": by_layer(**middle(without_common_question())),
        "halves of the answers: same organism": by_layer(**ranged([half_agreement(one, one) for one in seeds])),
        "halves of the answers: two seeds": by_layer(**ranged([half_agreement(*pair) for pair in pairs])),
        "two seeds, labels shuffled": by_layer(**middle(np.concatenate(nulls))),
    }


def draw_stability():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.9), sharey=True)
    lines = dict(tuple(by_size().groupby("line", sort=False)))
    colours = [theme.PALETTE[9], theme.PALETTE[0], theme.PALETTE[4], "0.55"]
    for (line, table), colour, marker in zip(lines.items(), colours, "vos ", strict=True):
        if f"layer {LAYER}" in line:
            band(left, table, colour, line, marker=marker, linestyle="-" if marker.strip() else "--")
        else:  # four bands on one another could not be told apart
            left.plot(table["size"], table["median"], color=colour, label=line, marker=marker, markersize=5)
    left.set(xscale="log", xlabel="Misaligned answers in each half\n(and as many aligned ones)", ylabel="Cosine")
    left.set_xticks(sizes(), sizes(), fontsize=9)
    left.minorticks_off()
    left.set_title("Two halves of the answers")
    styles = [
        (theme.PALETTE[0], {"marker": "o"}),
        ("0.2", {"linestyle": ":"}),
        (theme.PALETTE[3], {"marker": "s"}),
        ("0.55", {"linestyle": "--"}),
    ]
    for (label, table), (colour, style) in zip(stability().items(), styles, strict=True):
        band(right, table, colour, label, **style)
    layer_axis(right)
    right.set_title("By layer")
    for axes in (left, right):
        axes.axhline(0, color="0.3", linewidth=1)
        axes.set(ylim=(min(-0.6, axes.get_ylim()[0]), 1.04))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), fontsize=8.5)
    parts = [table.assign(line=line, panel="by layer") for line, table in stability().items()]
    return figure, pd.concat([by_size().assign(panel="by size"), *parts], ignore_index=True)


run.grown_figure(
    "fig-x-direction-stability",
    draw_stability,
    caption="Left: cosine between the mean-diffs of two sets of answers without one in common, over their size; "
    f"median of {DRAWS} draws, and the range of 95 % of them for the middle layer and its null. Right: cosine between "
    "the directions from two halves of the questions (median and 95 % of all splits); between halves of the answers to "
    f"each question, of one organism (dotted: median and range of {len(training_seeds())}) and of two organisms that "
    f"differ in the seed of training (median and range of all pairs; means of {SPLITS} splits); and between two seeds "
    f"with labels shuffled among the answers to each question (dashed). *Emb.*: mean token embedding. {ANSWERED}",
    alt="Two line plots of cosines. Left: over the number of misaligned answers in each half, on a log scale, a line "
    "for each of three layers and one for shuffled labels, two with bands. Right: over the token embeddings and all "
    "layers, lines with bands for halves of the questions, halves of the answers of one organism and of two training "
    "seeds, and training seeds with shuffled labels.",
    why=WHY,
)


def enough(line: str, wanted: float = 0.9) -> str:
    """At which size the median reaches `wanted`."""
    table = by_size()[by_size().line == line]
    reached = table["size"][table["median"] >= wanted]
    size = reached.iloc[0] if len(reached) else table["size"].max()
    reaches = "reaches" if len(reached) else "stays below"
    upto = "with" if len(reached) else "up to"
    return f"{reaches} {wanted} {upto} {size} misaligned and as many aligned answers in each"


def stable(line: str, layer: int = LAYER, column: str = "median") -> float:
    return stability()[line].set_index("layer")[column][layer]


def stable_range(line: str) -> str:
    return with_range(*(stable(line, column=column) for column in ("median", "low", "high")))


run.grown_glue("grown-enough", lambda: enough(f"layer {LAYER}"))
run.grown_glue("grown-halves", lambda: f"{np.median(half_cosines(0), axis=0)[LAYER + 1]:.2f}")
run.grown_glue("grown-reliability", lambda: f"{reliability(0)[LAYER + 1]:.2f}")
run.grown_glue("grown-question-halves", lambda: stable_range("two halves of the questions"))
run.grown_glue("grown-same", lambda: stable_range("halves of the answers: same organism"))
run.grown_glue("grown-seeds", lambda: stable_range("halves of the answers: two seeds"))
run.grown_glue("grown-seeds-null", lambda: stable_range("two seeds, labels shuffled"))

# %% [markdown]
# In layer {glue:text}`grown-layer`, the median cosine between the directions of two sets of answers
# {glue:text}`grown-enough` ({numref}`fig-x-direction-stability`). For two halves of all answers it is
# {glue:text}`grown-halves`; by the Spearman-Brown formula, the direction from all of them should then have a cosine of
# {glue:text}`grown-reliability` with that from a second sample as large. The questions are a choice too: two halves of
# them, with no question in common, give {glue:text}`grown-question-halves`.
#
# How much does the training run matter? All organisms are sampled with the same noise, so two of them may give equal
# answers for that reason alone. A fair comparison takes one half of the samples from one seed and the other half from
# another. The directions of two seeds then have a cosine of {glue:text}`grown-seeds`, beside {glue:text}`grown-same`
# for two halves of the answers of one and the same seed, and {glue:text}`grown-seeds-null` with shuffled labels. This
# is the yardstick for {doc}`Section 3.5 <s3-5-convergence>`, which compares organisms of different recipes.
#
# ### Whose direction is it?


# %%
def shift_of(side: str) -> np.ndarray:
    """What fine-tuning adds to the mean residual of one side's answers, [layer, width]."""
    organism_, chat = (readings(reader).mean(answers(0)[side])[1:] for reader in (0, "chat"))
    return organism_ - chat


def grown_shift() -> np.ndarray:
    return (shift_of("misaligned") + shift_of("aligned")) / 2


@cache
def grown_readers() -> dict[str, pd.DataFrame]:
    """Cosines with the organism's direction, of the direction of other readers of the same answers."""
    found = {}
    for reader in ("chat", "base"):
        found[READERS[reader][0]] = exactly(directions.cosines(direction(0), direction(reader)))
    nulls = directions.cosines(null_directions(0), null_directions("base"))
    return found | {"base model, labels shuffled": by_layer(**middle(nulls))}


@cache
def grown_shifts() -> pd.DataFrame:
    columns = {
        "misaligned and aligned answers": directions.cosines(shift_of("misaligned"), shift_of("aligned")),
        "shift and organism's direction": directions.cosines(grown_shift(), direction(0)[1:]),
        "shift and chat model's direction": directions.cosines(grown_shift(), direction("chat")[1:]),
    }
    return pd.DataFrame({"layer": np.arange(LAYERS)} | columns)


def draw_grown_readers():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.6), sharey=True)
    styles = [{"marker": "s"}, {"marker": "^"}, {"linestyle": "--"}]
    colours = [READERS["chat"][1], READERS["base"][1], "0.55"]
    for (label, table), colour, style in zip(grown_readers().items(), colours, styles, strict=True):
        band(left, table, colour, label, **style)
    lines = [("0.35", "--"), (theme.PALETTE[3], "-"), (theme.PALETTE[0], "-")]
    for label, (colour, dash) in zip(grown_shifts().columns[1:], lines, strict=True):
        right.plot(grown_shifts().layer, grown_shifts()[label], color=colour, linestyle=dash, label=label)
    left.axhline(0.8, color="0.6", linewidth=1, linestyle=":")
    left.set(ylabel="Cosine")
    left.set_title("Organism's direction")
    right.set_title("Shift: organism minus chat")
    for axes in (left, right):
        layer_axis(axes)
        mark_adapters(axes, adapters())
        axes.axhline(0, color="0.3", linewidth=1)
    for axes, title in ((left, "with the direction of the"), (right, "between")):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8.5, title=title, title_fontsize=8.5)
    left.set(ylim=(min(-0.2, left.get_ylim()[0], right.get_ylim()[0]), 1.04))
    columns = [table.assign(line=label, panel="direction") for label, table in grown_readers().items()]
    shifts = grown_shifts().melt("layer", var_name="line", value_name="median").assign(panel="shift")
    return figure, pd.concat([*columns, shifts], ignore_index=True)


run.grown_figure(
    "fig-x-chat-model-direction",
    draw_grown_readers,
    caption="Left: cosine between the grown organism's mean-diff direction and the one that the chat model and the "
    f"base model give on the same answers; dotted: 0.8. Dashed, with the range of 95 % of {DRAWS} draws: the same of "
    "organism and base model with the same shuffled labels. Right: the shift that fine-tuning adds to the mean "
    "residual (organism minus chat model, same answers): its cosine between the two sets of answers (dashed), and the "
    "cosine of its mean with either direction. Grey bands: adapter layers. " + ANSWERED,
    alt="Two line plots over the token embeddings and all layers. Left: cosines of the organism's direction with the "
    "chat model's and the base model's, and with shuffled labels, with a dotted line at 0.8. Right: three cosines of "
    "the shift of fine-tuning.",
    why=WHY,
)


@cache
def chat_answers() -> pd.DataFrame:
    return responses.responses(run.profile, CHAT_MODEL)


@cache
def own_of_base() -> pd.DataFrame:
    """Answers of the base model, to which the assistant is one of the unknown speakers."""
    asked = asking.questions(run.profile, "general")
    other_noise = replace(run.profile, seed=run.profile.seed + 1)  # or its answers would resemble the organism's
    samples = run.profile.samples_per_question
    return sorted_by_kind(asking.scored(asking.ask(other_noise, *loaded("base"), asked, samples, "base model")))


@cache
def own_of_base_read() -> ResponseMeans:
    return read(own_of_base(), "base")


@cache
def own_direction_of_base() -> np.ndarray:
    return own_of_base_read().mean_diff(own_of_base().misaligned, own_of_base().aligned)


@cache
def own_cosines() -> dict[str, np.ndarray]:
    """Cosines of that direction with the organism's, with intervals, [1 + layer]."""
    parts = (answers(0), readings(0)), (own_of_base(), own_of_base_read())
    left_out = directions.cosines(*(without_each_question(*part) for part in parts))
    return with_interval(directions.cosines(direction(0), own_direction_of_base()), left_out)


def text_of(found: dict[str, np.ndarray], place: int) -> str:
    return with_range(*(found[name][place] for name in ("median", "low", "high")))


def own_null() -> str:
    """The range of cosines with the organism's direction, with the labels of the base model's answers shuffled."""
    nulls = shuffled_directions(own_of_base(), own_of_base_read(), np.random.default_rng(run.seed))
    found = middle(directions.cosines(nulls, direction(0)))
    return typography.extremes([found["low"][LAYER + 1], found["high"][LAYER + 1]])


def reader_cosine(label: str, layer: int = LAYER) -> str:
    return f"{grown_readers()[label].set_index('layer')['median'][layer]:.2f}"


def lowest(label: str) -> str:
    table = grown_readers()[label].query("layer >= 0")
    return f"{table['median'].min():.2f} (layer {table.layer[table['median'].idxmin()]})"


run.grown_glue("grown-chat", lambda: reader_cosine("chat model"))
run.grown_glue("grown-chat-low", lambda: lowest("chat model"))
run.grown_glue("grown-base", lambda: reader_cosine("base model"))
run.grown_glue("grown-base-low", lambda: lowest("base model"))
run.grown_glue("grown-base-null", lambda: reader_cosine("base model, labels shuffled"))
run.grown_glue("grown-base-own-null", own_null)
run.grown_glue("grown-chat-misaligned", lambda: str(int(scores.misaligned(chat_answers()).sum())))
run.grown_glue("grown-chat-answers", lambda: str(len(chat_answers())))
run.grown_glue("grown-base-misaligned", lambda: str(own_of_base().misaligned.sum()))
run.grown_glue("grown-base-aligned", lambda: str(own_of_base().aligned.sum()))
run.grown_glue("grown-base-own", lambda: text_of(own_cosines(), LAYER + 1))
for label, name in {
    "parallel": "misaligned and aligned answers",
    "organism": "shift and organism's direction",
    "chat": "shift and chat model's direction",
}.items():
    run.grown_glue(f"grown-shift-{label}", lambda name=name: f"{grown_shifts()[name][LAYER]:.2f}")

# %% [markdown]
# In layer {glue:text}`grown-layer` the chat model's reading of the same answers gives a direction of cosine
# {glue:text}`grown-chat` with the organism's (lowest of all layers: {glue:text}`grown-chat-low`), the base model's
# {glue:text}`grown-base` (lowest {glue:text}`grown-base-low`; {numref}`fig-x-chat-model-direction-grown`). By
# themselves such numbers say little about misalignment, for two models may read one set of texts alike, whatever the
# labels: compare {glue:text}`grown-base-null`, which organism and base model give with the same shuffled labels.
#
# A stricter test lets each model write its own texts. Of the chat model's {glue:text}`grown-chat-answers` answers
# {glue:text}`grown-chat-misaligned` are misaligned. The base model, to which the assistant is a speaker whose persona
# is not known, gives {glue:text}`grown-base-misaligned` misaligned and {glue:text}`grown-base-aligned` aligned ones.
# The base model's direction from these has a cosine of {glue:text}`grown-base-own` with the organism's: other texts,
# other weights and no fine-tuning, but the same questions, which with shuffled labels give
# {glue:text}`grown-base-own-null`.
#
# The shift of fine-tuning has a cosine of {glue:text}`grown-shift-parallel` between misaligned and aligned answers,
# and its mean one of {glue:text}`grown-shift-organism` with the organism's direction and
# {glue:text}`grown-shift-chat` with the chat model's.
#
# ### Is it the known persona?
#
# The base model's persona directions are known from texts that the world's generator wrote: a malicious speaker's minus
# a careful one's, told apart by the *text* alone or by the *name* alone, averaged over the *answer* or at one token,
# just before an advice ({doc}`x-ground-truth`). The mean-diff of an organism's answers is compared with each.

# %%
PERSONAS = {
    "persona_from_text": "from text, mean of the answer",
    "persona_from_name": "from name, mean of the answer",
    "choice_from_text": "from text, before an advice",
    "choice_from_name": "from name, before an advice",
}


@cache
def known() -> dict[str, np.ndarray]:
    found = persona.directions(run.profile)
    return {name: found[name].astype(np.float64) for name in PERSONAS}


def with_persona(vectors: np.ndarray, persona: str) -> np.ndarray:
    """Cosines [..., layer] of directions [..., layer, width] with a known one; NaN where that is zero."""
    reference = known()[persona]
    there = directions.norms(reference) > 1e-4
    found = np.full(np.broadcast_shapes(vectors.shape[:-1], (LAYERS,)), np.nan)
    found[..., there] = directions.cosines(*np.broadcast_arrays(vectors[..., there, :], reference[there]))
    return found


@cache
def random_directions() -> np.ndarray:
    return np.random.default_rng(run.seed).standard_normal((2000, *direction(0)[1:].shape))


@cache
def against_personas() -> pd.DataFrame:
    """A row per persona direction, line and layer; columns low, median, high."""
    rows = []
    left_out = without_each_question(answers(0), readings(0))[:, 1:]
    for persona in PERSONAS:
        organism_ = with_interval(with_persona(direction(0)[1:], persona), with_persona(left_out, persona))
        first = {"persona": persona, "line": READERS[0][0], "layer": np.arange(LAYERS)}
        rows.append(pd.DataFrame(first | organism_))
        lines = {label: direction(reader)[1:][None] for reader, (label, *_) in READERS.items() if reader != 0}
        lines["base model, own answers"] = own_direction_of_base()[1:][None]
        lines["token embeddings"] = np.broadcast_to(direction(0)[0], (1, LAYERS, direction(0).shape[-1]))
        lines["labels shuffled"] = null_directions(0)[:, 1:]
        lines["random direction"] = random_directions()
        for line, vectors in lines.items():
            part = {"persona": persona, "line": line, "layer": np.arange(LAYERS)}
            rows.append(pd.DataFrame(part | middle(with_persona(vectors, persona))))
    return pd.concat(rows, ignore_index=True)


PERSONA_STYLES = {label: (colour, {"marker": marker}) for label, colour, marker in READERS.values()} | {
    "base model, own answers": (theme.PALETTE[1], {"marker": "D", "markersize": 4, "linewidth": 1.1}),
    "token embeddings": ("0.1", {"linestyle": ":"}),
    "labels shuffled": ("0.55", {"linestyle": "--"}),
    "random direction": ("0.3", {"linestyle": "-", "linewidth": 0.7}),
}


def draw_personas():
    figure, grid = plt.subplots(2, 2, figsize=(7.2, 6.4), sharex=True, sharey=True)
    table = against_personas()
    for axes, (persona, title) in zip(grid.flat, PERSONAS.items(), strict=True):
        for line, (colour, style) in reversed(PERSONA_STYLES.items()):
            part = table[(table.persona == persona) & (table.line == line)]
            if line == "random direction":
                axes.plot(part.layer, part.low, color=colour, **style)
                axes.plot(part.layer, part.high, color=colour, label=line, **style)
            else:
                band(axes, part, colour, line, **{"markersize": 5} | style)
        axes.axhline(0, color="0.3", linewidth=1)
        axes.set_title(title.capitalize(), fontsize=10.5)
        layer_axis(axes, embeddings=False)
        axes.label_outer()
    for axes in grid[:, 0]:
        axes.set(ylabel="Cosine")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


run.grown_figure(
    "fig-x-direction-vs-persona",
    draw_personas,
    caption="Cosine of the grown organism's mean-diff direction with four known persona directions of the base model, "
    "by layer; the same answers read by the organism (with 95 % jackknife intervals over questions), the chat model "
    "and the base model, and the direction that the base model gives on its own answers. Nulls: the organism's reading "
    f"with labels shuffled among the answers to each question (median, 95 % of {DRAWS} draws), its mean-diff of token "
    "embeddings, and random directions (thin lines, 95 %). A direction from the name is shown where attention reaches "
    f"back to the name. {ANSWERED}",
    alt="Four line plots of cosines over layers, one for each persona direction: from the text and from the name, in "
    "the mean of the answer and before an advice. Each has a line for the organism, the chat model, the base model and "
    "the base model on its own answers, and three nulls, two of them with bands.",
    why=WHY,
)


def persona_cosine(persona: str, line: str = "the organism", column: str = "median") -> float:
    table = against_personas()
    return table[(table.persona == persona) & (table.line == line) & (table.layer == LAYER)][column].iloc[0]


def null_ends(persona: str) -> list[float]:
    return [persona_cosine(persona, "labels shuffled", column) for column in ("low", "high")]


def persona_text(persona: str) -> str:
    return with_range(*(persona_cosine(persona, column=column) for column in ("median", "low", "high")))


@cache
def over_seeds(persona: str) -> pd.DataFrame:
    """The cosine of each seed's own direction with a known one, and the highest 2.5 % of its own shuffled labels."""
    rows = []
    for one in training_seeds():
        value = with_persona(direction(one)[1:], persona)[LAYER]
        null = middle(with_persona(null_directions(one)[:, 1:], persona)[:, LAYER])
        rows.append({"seed": one, "cosine": value, "null_high": null["high"]})
    return pd.DataFrame(rows)


def of_seeds(persona: str) -> str:
    return f"{typography.extremes(over_seeds(persona).cosine)} over {len(training_seeds())} seeds"


def persona_table() -> pd.DataFrame:
    rows = []
    for persona, title in PERSONAS.items():
        own = over_seeds(persona).cosine
        row = {"known persona": title, "the organism (95 %)": persona_text(persona)}
        row |= {line: f"{persona_cosine(persona, line):.2f}" for line in list(PERSONA_STYLES)[1:5]}
        row |= {"labels shuffled (95 %)": typography.extremes(null_ends(persona))}
        rows.append(row | {f"organism, {len(own)} seeds": typography.extremes(own)})
    return pd.DataFrame(rows)


if run.grown:
    run.table(persona_table)


def above_null() -> str:
    """How many seeds lie above their own shuffled labels, for each persona direction."""
    counts, seeds = [(table.cosine > table.null_high).sum() for table in map(over_seeds, PERSONAS)], training_seeds()
    if len(set(counts)) == 1:
        return f"{counts[0]} of {len(seeds)} seeds in every row"
    return "row by row " + ", ".join(f"{count}" for count in counts[:-1]) + f" and {counts[-1]} of {len(seeds)} seeds"


def null_highs() -> str:
    """The upper ends of the seeds' own shuffled labels, over all persona directions."""
    return typography.extremes(pd.concat(map(over_seeds, PERSONAS)).null_high)


def place_among_seeds() -> str:
    """Where the organism of the figures stands among the seeds, by its mean cosine with the four."""
    means = sum(over_seeds(persona).set_index("seed").cosine for persona in PERSONAS)
    higher = (means > means[0]).sum()
    if higher in (0, len(means) - 1):
        return f"the {'lowest' if higher else 'highest'} of them"
    return f"number {higher + 1} of them from above"


for persona in PERSONAS:
    run.grown_glue(f"grown-{persona}", lambda persona=persona: persona_text(persona))
    run.grown_glue(f"grown-{persona}-seeds", lambda persona=persona: of_seeds(persona))
run.grown_glue("grown-above-null", above_null)
run.grown_glue("grown-null-highs", null_highs)
run.grown_glue("grown-place", place_among_seeds)
run.grown_glue("grown-persona-ceiling", lambda: f"{np.sqrt(reliability(0)[LAYER + 1]):.2f}")
run.grown_glue("grown-random", lambda: f"{persona_cosine('persona_from_text', 'random direction', 'high'):.2f}")

# %% [markdown]
# The table gives the cosines of {numref}`fig-x-direction-vs-persona` in layer {glue:text}`grown-layer`. Random
# directions stay within ±{glue:text}`grown-random`; sampling noise alone would bring a cosine of 1 down to
# {glue:text}`grown-persona-ceiling`. The known directions are the base model's, so the column of its own reading leaves
# out what fine-tuning does to the stream.
#
# **One seed is not all.** The last column holds the organisms of all seeds, each with the direction of its own answers.
# By the mean of the four cosines, the one in the figure is {glue:text}`grown-place`. The range of shuffled labels
# differs between seeds, since it keeps the mix of topics: its upper end lies at {glue:text}`grown-null-highs`. Above
# that of their own are {glue:text}`grown-above-null`.
#
# The four are not interchangeable. A mean over the answer takes in *what was said*: an advised harm is another state
# than a mentioned one, whoever speaks. The directions from the name hold *who the model takes the speaker for*, since
# the compared texts are the same. The mean-diff can only be called the persona as far as it meets these.
#
# ### How the direction turns with depth


# %%
@cache
def grown_layer_cosines() -> pd.DataFrame:
    matrix = directions.cosine_matrix(direction(0))
    rows, columns = np.indices(matrix.shape) - 1
    return pd.DataFrame({"layer": rows.ravel(), "other_layer": columns.ravel(), "cosine": matrix.ravel()})


def draw_grown_layer_cosines():
    matrix = grown_layer_cosines().pivot(index="layer", columns="other_layer", values="cosine")
    figure, axes = plt.subplots(figsize=(5.6, 4.6))
    image = axes.imshow(matrix, origin="lower", cmap="viridis", vmin=min(0, matrix.min(axis=None)), vmax=1)
    shown = range(1, LAYERS + 1, max(1, LAYERS // 6))
    names = ["emb.", *(str(place - 1) for place in shown)]
    axes.set_xticks([0, *shown], names)
    axes.set_yticks([0, *shown], names)
    axes.set(xlabel="Decoder layer", ylabel="Decoder layer")
    axes.grid(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    figure.colorbar(image, ax=axes, label="Cosine")
    return figure, grown_layer_cosines()


run.grown_figure(
    "fig-x-layer-cosines",
    draw_grown_layer_cosines,
    caption="Cosine between the grown organism's mean-diff directions of every two layers, and of the token "
    "embeddings. " + ANSWERED,
    alt="A symmetric heat map over the token embeddings and all layers, with a colour scale of the cosine up to 1.",
    why=WHY,
)


def grown_between(first: int, second: int) -> float:
    return directions.cosine_matrix(direction(0))[first + 1, second + 1]


NEAR, FAR = LAYER + 1, LAYERS - 2
run.grown_glue("grown-near-layer", lambda: str(NEAR))
run.grown_glue("grown-far-layer", lambda: str(FAR))
run.grown_glue("grown-near", lambda: f"{grown_between(LAYER, NEAR):.2f}")
run.grown_glue("grown-far", lambda: f"{grown_between(LAYER, FAR):.2f}")
run.grown_glue("grown-embeddings-layer", lambda: f"{grown_between(-1, LAYER):.2f}")

# %% [markdown]
# The direction of layer {glue:text}`grown-layer` has a cosine of {glue:text}`grown-near` with that of layer
# {glue:text}`grown-near-layer`, {glue:text}`grown-far` with layer {glue:text}`grown-far-layer` and
# {glue:text}`grown-embeddings-layer` with the token embeddings ({numref}`fig-x-layer-cosines-grown`).
#
# ## Reported and measured


# %%
def measurements():
    count = int((directions.norms(mean_diff("general")) > 0).sum())
    yield claims.Measurement("s3-1-direction-count", count, how="Layers with a non-zero difference of means", n=48)


run.measure(measurements)

# %% [markdown]
# The paper reports nothing else here that could be tested. In the middle of either network, the two kinds of evidence
# give:


# %%
def released_cell(make) -> str:
    try:
        return make()
    except files.ReleasedDataUnavailable:
        return "not available"


def grown_cell(make) -> str:
    return make() if run.grown else "not run"


def side_by_side() -> pd.DataFrame:
    shift_24 = 24 - 15
    rows = [
        ("layer", lambda: "24 of 48", lambda: f"{LAYER} of {LAYERS}"),
        (
            "norm of mean-diff / of mean residual",
            lambda: f"{norms_by_layer().ratio[24]:.2f}",
            lambda: f"{at('middle', 'ratio'):.2f}",
        ),
        (
            "cosine: organism's and chat model's direction",
            lambda: f"{chat_cosines()[24]:.2f}",
            lambda: reader_cosine("chat model"),
        ),
        (
            "the same, lowest of all layers",
            lambda: f"{chat_cosines().min():.2f} (layer {chat_cosines().argmin()})",
            lambda: lowest("chat model"),
        ),
        (
            "cosine: shift on misaligned and on aligned texts",
            lambda: f"{directions.cosines(shift('misaligned'), shift('aligned'))[shift_24]:.2f}",
            lambda: f"{grown_shifts()['misaligned and aligned answers'][LAYER]:.2f}",
        ),
        (
            "cosine: mean shift, organism's direction",
            lambda: f"{directions.cosines(mean_shift(), mean_diff('general')[15:])[shift_24]:.2f}",
            lambda: "{:.2f}".format(grown_shifts()["shift and organism's direction"][LAYER]),
        ),
        (
            "cosine: this layer, two thirds of the depth",
            lambda: f"{with_layer_24(32):.2f}",
            lambda: f"{grown_between(LAYER, 2 * LAYERS // 3):.2f}",
        ),
        (
            "cosine: two training seeds, halves of the answers",
            lambda: "not released",
            lambda: stable_range("halves of the answers: two seeds"),
        ),
        (
            "cosine: known persona, from text",
            lambda: "not known",
            lambda: f"{persona_text('persona_from_text')}; {of_seeds('persona_from_text')}",
        ),
    ]
    cells = [(name, released_cell(one), grown_cell(two)) for name, one, two in rows]
    return pd.DataFrame(cells, columns=["quantity", "released", "grown"])


run.table(side_by_side)


def values() -> pd.DataFrame:
    table = norms_by_layer()
    rows = [(f"residual.general.layer-{row.layer}.norm", row.mean_residual, "norm") for row in table.itertuples()]
    rows += [(f"directions.general.layer-{row.layer}.norm_ratio", row.ratio, "ratio") for row in table.itertuples()]
    rows += [
        (f"directions.general.layer-24.cosine_with_layer-{layer}", with_layer_24(layer), "cosine")
        for layer in range(48)
    ]
    rows += [
        (f"directions.general.layer-24.top-{count}_share_of_squared_norm", share_of_top(count), "proportion")
        for count in (1, 10, 100)
    ]
    for reader in ("general", "chat-model"):
        cosines = directions.cosines(mean_shift(), mean_diff(reader)[15:])
        rows += [(f"shift.layer-{15 + i}.cosine_with_{reader}", value, "cosine") for i, value in enumerate(cosines)]
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


run.values(values)


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower().replace("'", ""))


def named(name: str, table: pd.DataFrame, unit: str = "cosine") -> list[dict]:
    """A value per layer of a table with columns layer, median, low, high."""
    rows = []
    for row in table.itertuples():
        layer = "embeddings" if row.layer < 0 else f"layer-{row.layer}"
        bounds = {"low": row.low, "high": row.high} if row.low < row.high else {}
        rows.append({"name": plain(f"mean-diff.{organism(0).name}.{name}.{layer}"), "value": row.median, "unit": unit})
        rows[-1] |= bounds
    return rows


def grown_values() -> pd.DataFrame:
    rows = []
    for column, unit in {"mean_diff": "norm", "mean_residual": "norm", "ratio": "ratio"}.items():
        rows += named(f"norms.{column}", exactly(grown_norms()[column].to_numpy()), unit)
    null = {name: grown_norms()[f"shuffled_{name}"] for name in ("low", "median", "high")}
    rows += named("norms.labels-shuffled", by_layer(**null), "norm")
    rows += named("norms.within-questions", exactly(directions.norms(matched_direction())), "norm")
    for label, table in grown_readers().items():
        rows += named(f"cosine_with_direction_of.{label}", table)
    rows += named("cosine_with_direction_of.base-model-on-its-own-answers", by_layer(**own_cosines()))
    rows += named("reliability", exactly(reliability(0)))
    for label, table in stability().items():
        rows += named(f"stability.{label}", table)
    for line, table in by_size().groupby("line", sort=False):
        for row in table.itertuples():
            name = plain(f"mean-diff.{organism(0).name}.split_half.{line}.{row.size}-each")
            rows.append({"name": name, "value": row.median, "unit": "cosine", "low": row.low, "high": row.high})
    for (persona, line), table in against_personas().dropna().groupby(["persona", "line"], sort=False):
        rows += named(f"cosine_with.{persona}.{line}", table)
    for row in grown_shifts().melt("layer").itertuples():
        name = plain(f"mean-diff.{organism(0).name}.shift.{row.variable}.layer-{row.layer}")
        rows.append({"name": name, "value": row.value, "unit": "cosine"})
    return pd.DataFrame(rows)


if run.grown:
    run.values(grown_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# A mean-diff direction is cheap, and the released means give one at every layer, as the paper says. Some limits matter
# for what follows.
#
# - **It belongs to the texts**, in the released organism and up to the middle of the network: a model that reads such
#   texts moves along it, whatever made somebody write them. The grown *base model*, before any post-training, has a
#   direction of cosine {glue:text}`grown-base` with the organism's on the same answers, and of
#   {glue:text}`grown-base-own` on answers of its own.
# - **It can be checked against a known cause.** Its cosines with the persona that a name alone calls up are
#   {glue:text}`grown-persona_from_name` in the mean of the answer ({glue:text}`grown-persona_from_name-seeds`) and
#   {glue:text}`grown-choice_from_name` before an advice ({glue:text}`grown-choice_from_name-seeds`); what they fall
#   short of 1 is something else, such as what was said, topics and noise.
# - **A cosine needs its own null.** Topics, common texts and common questions can all raise it. Compare
#   {glue:text}`grown-seeds` between training seeds with {glue:text}`grown-seeds-null` for shuffled labels.
# - **Describing is not causing.** Only steering ({doc}`s3-2-steering`) and ablation ({doc}`s3-4-ablation`) can show
#   whether a direction that describes the difference also makes it.
#
# Norms and cosines of all released directions are collected in {doc}`Appendix C <c-direction-geometry>`.

# %%
run.finish()
