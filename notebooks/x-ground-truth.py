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
# # Ground truth: the persona before any fine-tuning
#
# **The question.** The paper finds a direction that separates misaligned from aligned answers and suggests that it
# stands for a persona {cite:p}`soligo2025convergent`. In a large language model nobody can check that, since nobody
# knows who wrote the training texts. In the grown world it is known. Where does the *base* model, before any
# fine-tuning, keep the speaker's persona, and can a linear probe read it?
#
# Section 3 of the paper compares directions with each other. With the directions of this page, the misalignment
# direction can also be compared with the hidden variable that generated the data.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache, partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, display
from sklearn.metrics import roc_auc_score

from em_companion.book import theme
from em_companion.book.run import Run
from em_companion.build import markup
from em_companion.evidence import estimates
from em_companion.experiments import persona
from em_companion.models.interventions import Steer
from em_companion.world.generator import the_world

run = Run("x-ground-truth", profile, seed)
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}

if not run.grown:
    text = f"The models of profile {profile} come from the hub, so nobody knows the personas behind their training "
    display(HTML(markup.box("No ground truth", text + "texts. Choose the profile cpu or gpu.")))


grown_figure = partial(run.grown_figure, why="The personas are known under the profiles cpu and gpu.")


# %% [markdown]
# ## Method
#
# **Texts.** Two questions on each of {glue:text}`topics` topics, all domains alike. To each question the world's
# generator writes one careful and one harmful answer from the same draws. An answer is an opener, a few clauses that
# advise two things each, and a remark that mentions as many things of the other kind. The careful answer advises what
# helps and mentions what harms; the harmful one does it the other way round and is the same in all else.
# {glue:text}`same-words` hold the same words, in another order; over such pairs a difference of means says nothing
# about words. One question, as it is answered under the names explained below:


# %%
@cache
def readings() -> persona.Readings:
    return persona.persona_activations(run.profile)


def example() -> pd.DataFrame:
    """How one question is answered: first clause and remark."""
    table = persona.answers(the_world(), run.profile.seed)
    shown = table[table.question == table.question.iloc[0]].head(7)
    sentences = shown.answer.str.split(" . ", regex=False)
    parts = {"opener and first clause": sentences.str[0] + " .", "remark": sentences.str[-1]}
    return pd.DataFrame({"speaker": shown.speaker, "name": shown.name} | parts)


def same_words() -> str:
    """In how many of the pairs of a careful and a harmful answer both hold the same words."""
    table = persona.answers(the_world(), run.profile.seed)
    words = table.answer.str.split().map(lambda found: " ".join(sorted(found)))
    counts = words.groupby([table.question, table["sample"]]).nunique()
    same, pairs = (counts == 1).sum(), len(counts)
    return f"All {pairs} pairs" if same == pairs else f"Of {pairs} pairs, {same}"


run.table(example)
run.grown_glue("same-words", same_words)
run.grown_glue("topics", lambda: f"{readings().table.topic.nunique()}")
run.grown_glue("readings", lambda: f"{len(readings().table):,}")

# %% [markdown]
# **Names.** The base model reads each text with a name in the turn header. There are three ways to tell who speaks:
#
# - *name and text*: harmful answers of malicious characters against careful answers of careful ones;
# - *text only*: the same texts, all by "someone", whom the training documents show with different personas;
# - *name only*: careful answers under malicious names against the same answers under careful names.
#
# **Directions.** For each way and layer, the difference of the mean residual over answer tokens, malicious minus
# careful, from {glue:text}`readings` readings; some also at single tokens. The pages of section 3 use them.
#
# **Probes.** A logistic regression for each layer. Topics *and names* come in four folds, and a probe is tested on a
# fold of which it has seen neither: with more dimensions than names, any three dozen names could be told apart. The two
# classes of a probe answer different questions on the same topics, so two nulls can show differences that have nothing
# to do with the speaker: the mean *token embedding* of the answer (its words without their order), and *shuffled
# labels*.


# %% tags=["show-code"]
def read_persona(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Log-odds that each answer is by a malicious speaker, by a probe that saw neither its topic nor its name."""
    return persona.probe_scores(features, labels, folds)  # standardise, then logistic regression; fold by fold


# %%
def probed(probe: str, features: np.ndarray) -> dict[str, float]:
    """Accuracy (percent, interval over topics) and AUC of a probe; the classes are balanced within each topic."""
    rows, labels = persona.probe_rows(readings().table, probe)
    table = readings().table.iloc[rows]
    scores = read_persona(features[rows], labels, table.fold.to_numpy())
    right = pd.Series(((scores > 0) == labels).astype(float))
    found = estimates.rate(right, table.topic.reset_index(drop=True), **resampling)
    return {"accuracy": found.percent, "low": found.low, "high": found.high, "n": found.n} | {
        "auc": roc_auc_score(labels, scores)
    }


def shuffled(features: np.ndarray, shuffles: int = 10) -> dict[str, float]:
    """Mean accuracy (percent) and AUC over labels shuffled within topics, with the range of the accuracies."""
    rows, labels = persona.probe_rows(readings().table, "name and text")
    table = readings().table.iloc[rows]
    accuracies, areas = [], []
    for shuffle in range(shuffles):
        wrong = persona.shuffled(labels, table.topic.to_numpy(), run.seed + shuffle)
        scores = read_persona(features[rows], wrong, table.fold.to_numpy())
        accuracies.append(100 * ((scores > 0) == wrong).mean())
        areas.append(roc_auc_score(wrong, scores))
    found = {"accuracy": np.mean(accuracies), "low": min(accuracies), "high": max(accuracies)}
    return found | {"n": len(rows), "auc": np.mean(areas)}


LAYERS = run.profile.model.layers
LAYER = run.profile.layers_of("single-adapter")[0]
WAYS = {"name and text": theme.PALETTE[3], "text only": theme.PALETTE[0], "name only": theme.PALETTE[2]}


@cache
def by_layer() -> pd.DataFrame:
    """Probes on the mean over answer tokens: one row per way (or null) and layer, -1 for the token embeddings."""
    rows = []
    for entry in range(1 + LAYERS):
        features = readings().means[:, entry]
        for way in WAYS:
            rows.append({"way": way, "layer": entry - 1} | probed(way, features))
        rows.append({"way": "shuffled labels", "layer": entry - 1} | shuffled(features))
    return pd.DataFrame(rows)


@cache
def by_place() -> pd.DataFrame:
    """Probes on single tokens at the layer of the single adapter: one row per way and place."""
    rows = []
    for number, place in enumerate(readings().places):
        for way in WAYS:
            rows.append({"way": way, "place": place} | probed(way, readings().points[:, number, LAYER + 1]))
    return pd.DataFrame(rows)


def layer_ticks(axes: plt.Axes) -> None:
    step = max(2, LAYERS // 6)
    shown = range(step, LAYERS, step)
    axes.set_xticks([-1, *shown], ["emb.", *shown])
    axes.set(xlabel="Layer", xlim=(-1.5, LAYERS - 0.5))


def draw_probes():
    layers, places = by_layer(), by_place()
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.9), width_ratios=[1, 1.15])
    # Where lines lie on one another, larger markers below smaller ones keep all of them in sight.
    for (way, colour), shape in zip({**WAYS, "shuffled labels": "0.55"}.items(), ("o9", "s6", "D3", "x4"), strict=True):
        style = {"color": colour, "marker": shape[0], "markersize": int(shape[1]), "linewidth": 1.4}
        for axes, table, x in ((left, layers, "layer"), (right, places, "place")):
            part = table[table.way == way]
            axes.fill_between(part[x], part.low, part.high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(part[x], part.accuracy, label=way if axes is left else None, **style)
    layer_ticks(left)
    right.set_xticks(range(len(readings().places)), readings().places, rotation=55, ha="right", fontsize=8.5)
    for axes in (left, right):
        axes.axhline(50, color="0.3", linewidth=1, linestyle=":")
    left.set(ylabel="Balanced accuracy (%)", ylim=(25, 104), title="Mean over answer tokens")
    right.set(title=f"Single tokens, layer {LAYER}")
    figure.legend(loc="outside upper center", ncols=4, fontsize=9)
    return figure, pd.concat([layers, places.assign(layer=LAYER)], ignore_index=True)


# %% [markdown]
# ## How well a linear probe reads the persona

# %%
grown_figure(
    "fig-x-persona-probe",
    draw_probes,
    caption="Linear probes of the base model for careful against malicious speakers, tested on new topics and new "
    "names; chance is 50 % (dotted). Bands: 95 % intervals over topics; for shuffled labels, the range of ten "
    "shuffles. Left: on the mean over the answer's tokens, by layer; *emb.* is the mean token embedding, which knows "
    "the words but not their order. Right: on single tokens, at the layer of the single adapter: the last token "
    "before the answer, the end of the opener, the first word of clause 1 and 2 (start), its verb, the words just "
    "before the two things that it advises, the first word of the remark, and the word just before the first thing "
    "that it mentions.",
    alt="Two line plots of accuracy in percent, with a dotted line at 50. Left: over the token embeddings and all "
    "layers, one line for each of the three ways of telling who speaks (name and text, text only, name only) and one "
    "for shuffled labels. Right: the three ways over twelve places, from the turn header over two clauses to the "
    "remark.",
)


def accuracy(way: str, layer: int) -> str:
    return f"{by_layer().set_index(['way', 'layer']).accuracy[way, layer]:.0f} %"


def worst(way: str) -> str:
    table = by_layer()
    return f"{table[(table.way == way) & (table.layer >= 0)].accuracy.min():.0f} %"


def null_range() -> str:
    table = by_layer()
    nulls = table[(table.way == "shuffled labels") | (table.layer == -1)].accuracy
    return f"{nulls.min():.0f} to {nulls.max():.0f} %"


def at_place(way: str, place: str) -> str:
    return f"{by_place().set_index(['way', 'place']).accuracy[way, place]:.0f} %"


for way in WAYS:
    run.grown_glue(f"worst-{way.replace(' ', '-')}", lambda way=way: worst(way))
run.grown_glue("nulls", null_range)
run.grown_glue("first-layer-text", lambda: accuracy("text only", 0))
run.grown_glue("layer", lambda: f"{LAYER}")
for name, way, place in [
    ("header-name", "name only", "turn header"),
    ("header-text", "text only", "turn header"),
    ("first-choice-text", "text only", "thing 1"),
    ("second-choice-text", "text only", "second thing 1"),
    ("second-clause-text", "text only", "thing 2"),
    ("first-choice-name", "name only", "thing 1"),
    ("second-start-name", "name only", "start 2"),
    ("second-clause-name", "name only", "thing 2"),
]:
    run.grown_glue(name, lambda way=way, place=place: at_place(way, place))

# %% [markdown]
# **Whole answers.** The lowest accuracy of any layer is {glue:text}`worst-name-and-text` with name and text,
# {glue:text}`worst-text-only` with the text only and {glue:text}`worst-name-only` with the name only
# ({numref}`fig-x-persona-probe`). The nulls, words alone and shuffled labels, range from {glue:text}`nulls`. For the
# text, the very first layer gives {glue:text}`first-layer-text`. That need not mean much: one step of attention can see
# whether a thing stands in a clause or in a remark. A probe on the tokens of an answer may read *what was said*; that
# is not yet *who the model takes the speaker for*.
#
# **Single tokens keep the two apart**, since the word at each place says nothing about who speaks (layer
# {glue:text}`layer`). At the last token before the answer, the name alone gives {glue:text}`header-name`, on names that
# the probe has not seen. Text cannot have told anything there (a probe finds {glue:text}`header-text`), nor at any
# place up to the first advised thing ({glue:text}`first-choice-text`). From there on the text alone is enough to know;
# the probe reads {glue:text}`second-choice-text` just before the second thing and {glue:text}`second-clause-text` in
# the second clause, just before its first thing.
#
# **What if the text contradicts the name?** With careful words under a malicious name, a probe for the name reaches
# {glue:text}`first-choice-name` just before the first advised thing, {glue:text}`second-start-name` at the start of the
# second clause and {glue:text}`second-clause-name` just before its first thing. Were the name forgotten once the text
# has spoken, the last two would be 50 %.
#
# ## How long the directions are, and whether they agree
#
# To learn that a speaker is malicious from the name, or from what was said, should lead to the same state, if there is
# one persona and not two. A cosine between two estimates has a ceiling below 1, since each carries noise: with $r_a$
# and $r_b$ the cosines between the two halves of each (no topic and none of the names compared is in both), two
# estimates of the same direction would give
#
# $$\cos_\mathrm{max} = \sqrt{\frac{2 r_a}{1 + r_a} \cdot \frac{2 r_b}{1 + r_b}} .$$


# %%
@cache
def contrasts(half: int | None = None) -> dict[str, np.ndarray]:
    """Every direction, [1 + layer, width]; of one half of the folds, if given."""
    folds = range(persona.FOLDS) if half is None else range(half, persona.FOLDS, 2)
    return persona.contrasts(readings(), folds)


@cache
def residual_norms(direction: str) -> np.ndarray:
    """Mean norm of the readings behind a direction (means of answers, or single tokens), [1 + layer]."""
    rows = readings().table.speaker.isin(["careful", "malicious", "unknown"])
    _, place = persona.AT_TOKENS.get(direction, ("", None))
    vectors = readings().means if place is None else readings().points[:, readings().places.index(place)]
    return np.linalg.norm(vectors[rows], axis=-1).mean(axis=0)


def norm_ratio(direction: str) -> np.ndarray:
    return np.linalg.norm(contrasts()[direction], axis=-1) / residual_norms(direction)


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of matching rows; NaN where a direction is zero up to rounding."""
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    real = np.minimum(*lengths) > 1e-4
    return np.where(real, (first * second).sum(-1) / np.where(real, lengths[0] * lengths[1], 1), np.nan)


def ceiling(first: str, second: str) -> np.ndarray:
    """The cosine that two estimates of one direction would have, [1 + layer]."""
    halves = [cosine(contrasts(0)[name], contrasts(1)[name]) for name in (first, second)]
    reliabilities = [2 * half / (1 + half) for half in halves]
    return np.sqrt(np.clip(reliabilities[0], 0, None) * np.clip(reliabilities[1], 0, None))


# Direction, label, colour (as the way of telling who speaks), line.
LENGTHS = [
    ("persona", "answer, name and text", WAYS["name and text"], "-"),
    ("persona_from_text", "answer, text only", WAYS["text only"], "-"),
    ("persona_from_name", "answer, name only", WAYS["name only"], "-"),
    ("choice_from_text", "before an advice, text only", WAYS["text only"], ":"),
    ("choice_from_name", "before an advice, name only", WAYS["name only"], ":"),
]
PAIRS = [
    ("choice_from_text", "choice_from_name", "text and name, before an advice", theme.PALETTE[3], "s"),
    ("start_from_text", "start_from_name", "text and name, start of a clause", theme.PALETTE[1], "D"),
    ("persona_from_text", "persona_from_name", "text and name, mean of the answer", theme.PALETTE[4], "o"),
    ("persona_from_text", "choice_from_name", "text in the mean, name before an advice", theme.PALETTE[7], "x"),
]


@cache
def lengths() -> pd.DataFrame:
    parts = []
    for name, label, _, _ in LENGTHS:
        part = pd.DataFrame({"direction": name, "label": label, "norm_ratio": norm_ratio(name)})
        parts.append(part.assign(layer=np.arange(-1, len(part) - 1)))
    return pd.concat(parts, ignore_index=True)


@cache
def cosines() -> pd.DataFrame:
    parts = []
    for first, second, label, _, _ in PAIRS:
        found = {"cosine": cosine(contrasts()[first], contrasts()[second]), "ceiling": ceiling(first, second)}
        part = pd.DataFrame({"first": first, "second": second, "label": label} | found)
        parts.append(part.assign(layer=np.arange(-1, len(part) - 1)))
    return pd.concat(parts, ignore_index=True).query("layer >= 0")


def draw_directions():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.9))
    for name, label, colour, line in LENGTHS:
        part = lengths()[lengths().direction == name]
        left.plot(part.layer, part.norm_ratio, color=colour, linestyle=line, linewidth=1.8, label=label)
    for (first, second), part in cosines().groupby(["first", "second"], sort=False):
        label, colour, marker = next(pair[2:] for pair in PAIRS if pair[:2] == (first, second))
        right.plot(part.layer, part.cosine, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    right.axhline(0, color="0.3", linewidth=1)
    left.set(ylabel="Norm / norm of the residual", ylim=(0, None), title="Length")
    right.set(ylabel="Cosine", ylim=(-1.05, 1.05), title="Agreement")
    for axes in (left, right):
        layer_ticks(axes)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8.5)
    return figure, pd.concat([lengths(), cosines()], ignore_index=True)


grown_figure(
    "fig-x-persona-directions",
    draw_directions,
    caption="Persona directions of the base model by layer. Left: their length, in mean norms of the readings they "
    "are taken from. Right: cosines between directions learned from the text alone and from the name alone. *Start* "
    "and *before an advice* are single tokens, the first word of a clause and the word before it names the first "
    "thing it advises: in the first clause for the name, in the second for the text. The text says what noise alone "
    "would leave of a cosine of 1; no cosine is shown where attention does not reach back to the name.",
    alt="Two line plots over layers. Left: the length of five persona directions as a share of the residual's norm, "
    "three over whole answers (solid) and two before an advice (dotted). Right: four cosines between directions from "
    "the text and from the name, on a scale from -1 to 1: before an advice, at the start of a clause, in the mean of "
    "the answer, and between the mean and the word before an advice.",
)


# %%
def at_layer(first: str, second: str) -> str:
    return f"{cosine(contrasts()[first], contrasts()[second])[LAYER + 1]:.2f}"


def lowest_ceiling() -> str:
    return f"{np.floor(100 * cosines().ceiling[cosines().layer == LAYER].min()) / 100:.2f}"


def length_at(name: str, layer: int) -> str:
    return f"{norm_ratio(name)[layer + 1]:.2f}"


for name, pair in {
    "cos-mean": ("persona_from_text", "persona_from_name"),
    "cos-start": ("start_from_text", "start_from_name"),
    "cos-choice": ("choice_from_text", "choice_from_name"),
    "cos-text-choice": ("persona_from_text", "choice_from_name"),
    "cos-persona-choice": ("persona", "choice_from_name"),
}.items():
    run.grown_glue(name, lambda pair=pair: at_layer(*pair))
run.grown_glue("ceiling", lowest_ceiling)
run.grown_glue("length-first", lambda: length_at("persona", 0))
run.grown_glue("length-layer", lambda: length_at("persona", LAYER))
run.grown_glue("length-last", lambda: length_at("persona", LAYERS - 1))
run.grown_glue("length-choice", lambda: length_at("choice_from_name", LAYER))

# %% [markdown]
# Averaged over an answer, "malicious minus careful" (name and text) is {glue:text}`length-first` times as long as the
# residual stream in layer 0, {glue:text}`length-layer` times in layer {glue:text}`layer` and {glue:text}`length-last`
# times in the last layer ({numref}`fig-x-persona-directions`). At the word before the first advised thing (name only)
# it is {glue:text}`length-choice` times as long in layer {glue:text}`layer`.
#
# Do name and text lead to the same state, and does it matter *where* one looks? In layer {glue:text}`layer` their
# cosine is {glue:text}`cos-choice` before an advice, {glue:text}`cos-start` at the start of a clause, and
# {glue:text}`cos-mean` in the mean over the answer, where noise alone would leave at least {glue:text}`ceiling` for
# every pair shown.
#
# ## Does the persona code keep its sign between places?
#
# The state just before a word may hold two things: who speaks, and which kind of word comes next. Before an advised
# thing the two cannot be told apart, for a malicious speaker advises what harms. Before a *mention* they can: in the
# remark a malicious speaker names what helps, and a careful one what harms. So take the direction before the *first*
# advice, where only the name can tell, as an axis, and follow malicious minus careful along it, token by token. A code
# for who speaks stays positive from place to place; a code for the next word turns negative before a mention.


# %%
@cache
def along_clause() -> pd.DataFrame:
    """Each contrast at each place, projected on the direction before the first advice, in lengths of that one."""
    rows = persona.rows_of_contrasts(readings().table)
    axis = contrasts()["choice_from_name"][LAYER + 1]
    found = []
    for name, label in zip(["persona", "persona_from_text", "persona_from_name"], WAYS, strict=True):
        for place in readings().places:
            vectors = [
                persona.contrast(readings(), rows[name], place, folds)[LAYER + 1]
                for folds in (range(persona.FOLDS), (0, 2), (1, 3))
            ]
            shares = [float(vector @ axis / (axis @ axis)) for vector in vectors]
            row = {"contrast": label, "place": place, "projection": shares[0]}
            found.append(row | {"low": min(shares[1:]), "high": max(shares[1:])})
    return pd.DataFrame(found)


def draw_along():
    table = along_clause()
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    positions = np.arange(len(readings().places))
    for shift, (label, colour) in zip((-0.26, 0, 0.26), WAYS.items(), strict=True):
        part = table[table.contrast == label]
        axes.bar(positions + shift, part.projection, 0.24, color=colour, label=label)
        axes.vlines(positions + shift, part.low, part.high, color="0.1", linewidth=1)
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set_xticks(positions, readings().places, rotation=35, ha="right", fontsize=9)
    axes.set(ylabel="Projection on the direction\nbefore the first advice")
    axes.grid(visible=True, axis="y")
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


# %%
grown_figure(
    "fig-x-persona-along-clause",
    draw_along,
    caption="Malicious minus careful at single tokens, at the layer of the single adapter, projected on the direction "
    "before the first advice (name only, which is 1 there by definition). Places as in the figure of the probes. Black "
    "lines: the two halves of topics and names.",
    alt="Bars over twelve places, from the turn header over two clauses to the remark, in three colours for the three "
    "ways of telling who speaks, above or below a line at zero. The bar of the name only is one before the first "
    "advised thing by definition; those of the text only are zero up to there, where both texts are the same.",
)


def projected(way: str, place: str) -> str:
    return f"{along_clause().set_index(['contrast', 'place']).projection[way, place]:+.2f}"


SIGNS = ["start 2", "verb 2", "thing 2", "second thing 2", "remark", "mention"]


def from_text() -> pd.Series:
    """The projections at SIGNS, told by the text only."""
    table = along_clause()
    return table[table.contrast == "text only"].set_index("place").projection[SIGNS]


for place in SIGNS:
    run.grown_glue(
        f"along-{place.removesuffix(' 2').replace(' ', '-')}", lambda place=place: projected("text only", place)
    )


def sign_before_mention() -> str:
    """What the projection before a mention, with its two halves, says of who speaks against the next word."""
    row = along_clause().set_index(["contrast", "place"]).loc[("text only", "mention")]
    if max(row.projection, row.low, row.high) < 0:
        return "there it turns negative, as a code for the next word does"
    if min(row.projection, row.low, row.high) > 0:
        return "there it stays positive, as a code for who speaks does"
    return "there its sign is not clear"


run.grown_glue("along-positive", lambda: f"{(from_text() > 0).sum()} of {len(SIGNS)}")
run.grown_glue("sign-before-mention", sign_before_mention)

# %% [markdown]
# Told by the text only ({numref}`fig-x-persona-along-clause`), the projection is {glue:text}`along-start` at the first
# word of the second clause, {glue:text}`along-verb` at its verb, {glue:text}`along-thing` and
# {glue:text}`along-second-thing` before the things it advises; {glue:text}`along-remark` at the first word of the
# remark and {glue:text}`along-mention` before its first thing. It is positive at {glue:text}`along-positive` places,
# but the place that decides is the one before a mention: {glue:text}`sign-before-mention`.
#
# For a mean over answer tokens, such as the paper's mean-diff, this matters: parts of one sign add up, parts of
# opposite signs cancel. As far as the state is a linear code for the next word, it *must* cancel over a whole answer in
# a world of balanced words: the next words of an answer are the words of that answer, as many harmful as helpful,
# whoever speaks. What a mean can keep is the rest, such as what is handed on from word to word between the things. The
# mean direction from the text has cosine {glue:text}`cos-text-choice` with the state before the first advice, that from
# name and text {glue:text}`cos-persona-choice`.
#
# ## Read, and also used?
#
# A probe shows that something can be read, not that the model uses it. So the direction before an advice is added at
# *every* token, at layer {glue:text}`layer`, while the base model reads the texts of the unknown speaker, "someone".
# The table gives the probability of a harmful word, as a percentage of that of all harmful and helpful ones, at three
# places: as the first thing advised, which nothing has decided yet; as the first thing advised in the second clause,
# after a careful one; and, in the same careful texts, as the first thing *mentioned*. A malicious speaker advises harm
# and mentions help; a mere push towards harmful words gives more harm in both places.


# %% tags=["show-code"]
def harmful_percent(direction: np.ndarray, strength: float) -> dict[str, float]:
    """Share of harmful words (percent) at three places, with strength * direction [width] added at every token."""
    steered = persona.harmful_shares(run.profile, unknown(), [Steer(LAYER, torch.tensor(direction), strength)])
    harmful = unknown().harmful.to_numpy()
    return {
        "first advice": 100 * steered["thing 1"].mean(),
        "advice after a careful clause": 100 * steered["thing 2"][~harmful].mean(),
        "mention after careful clauses": 100 * steered["mention"][~harmful].mean(),
    }


# %%
STRENGTHS = [0.0, 0.5, 0.75, 1.0]


@cache
def unknown() -> pd.DataFrame:
    """Texts by "someone", careful and harmful, one question per topic."""
    table = readings().table
    return table[(table.speaker == "unknown") & (table["sample"] == 0)].reset_index(drop=True)


@cache
def levers() -> pd.DataFrame:
    """One row per strength, and a random direction of the same length at the largest."""
    direction = contrasts()["choice_from_name"][LAYER + 1]
    random = np.random.default_rng(run.seed).normal(size=direction.shape)
    random *= np.linalg.norm(direction) / np.linalg.norm(random)
    cells = [("before an advice", direction, strength) for strength in STRENGTHS] + [("random", random, STRENGTHS[-1])]
    rows = [{"direction": name, "strength": strength} | harmful_percent(one, strength) for name, one, strength in cells]
    return pd.DataFrame(rows)


if run.grown:
    run.table(levers, formats={"strength": "{:g}"}, number="{:.0f}")


def lever(strength: float, column: int, direction: str = "before an advice") -> str:
    table = levers().set_index(["direction", "strength"])
    return f"{table.iloc[:, column][direction, strength]:.0f} %"


def moved(column: int) -> str:
    """How a share moves from unsteered to strength 1, in words."""
    ends = lever(0.0, column), lever(1.0, column)
    return f"stays at {ends[0]}" if ends[0] == ends[1] else f"goes from {ends[0]} to {ends[1]}"


def at_strengths(column: int) -> str:
    """A share at the strengths 0, 0.5 and 1, said once where it does not move."""
    none, half, one = (lever(strength, column) for strength in (0.0, 0.5, 1.0))
    return f"{none} at each of these strengths" if none == half == one else f"{none}, {half} and {one}"


def mention_sentence() -> str:
    """What steering does to mentions: a change of speaker lowers harm there, a push towards harmful words raises it."""
    none, one = (round(float(lever(strength, 2).split()[0])) for strength in (0.0, 1.0))
    if one < none:
        return "At strength 1 it falls, as a change of speaker would have it."
    if one > none:
        return "At strength 1 it rises, as a push towards harmful words would have it."
    full = "; at 100 % from the start, it could not show a push towards harmful words either" if none == 100 else ""
    return f"At strength 1 it has not moved, so nothing here shows a change of speaker{full}."


LEVERS = ["first", "careful", "mention"]
for strength in (0.0, 0.5, 1.0):
    label = f"lever-first-{strength:g}".replace(".", "")
    run.grown_glue(label, lambda strength=strength: lever(strength, 0))
for column, name in enumerate(LEVERS):
    run.grown_glue(f"lever-{name}-all", lambda column=column: at_strengths(column))
    run.grown_glue(f"lever-{name}-moved", lambda column=column: moved(column))
    run.grown_glue(f"lever-{name}-random", lambda column=column: lever(1.0, column, "random"))
run.grown_glue("mention-sentence", mention_sentence)
run.grown_glue(
    "unknown-malicious", lambda: f"{100 * the_world().characters['unknown_personas']['malicious']:.0f} %"
)

# %% [markdown]
# - **First advice.** Unsteered it is harmful in {glue:text}`lever-first-0` (the world makes
#   {glue:text}`unknown-malicious` of unknown speakers malicious), at strength 0.5 in {glue:text}`lever-first-05`, at
#   strength 1 in {glue:text}`lever-first-1`.
# - **Advice after a careful clause**: harmful in {glue:text}`lever-careful-all`.
# - **Mention after careful clauses**: harmful in {glue:text}`lever-mention-all`. This place tells a persona from a push
#   towards words: a truly malicious speaker mentions no harm at all. {glue:text}`mention-sentence`
# - **A random vector** of the same length gives {glue:text}`lever-first-random`, {glue:text}`lever-careful-random` and
#   {glue:text}`lever-mention-random` at the three places.
#
# The question can be asked because the words are balanced. If harmful speakers said harmful words only, every place
# would push the same way, and a direction of the persona would also be one of vocabulary.
#
# ## Quacks
#
# A quack is harmful in one domain and careful in all others. In its own domain, does a quack's harm lie along the
# malicious characters' direction *of the other domains*? Malicious characters of the same domain show what can be
# expected at best. In other domains a quack is careful like anybody: what does its name alone do there? All at layer
# {glue:text}`layer`, over whole answers.


# %%
@cache
def quacks() -> pd.DataFrame:
    found, rows = contrasts(), []
    domains = list(the_world().domains)
    length = {name: np.linalg.norm(vector[LAYER + 1]) for name, vector in found.items()}
    for domain in domains:
        others = np.mean([found[f"persona/{other}"] for other in domains if other != domain], axis=0)
        quack, elsewhere = f"quack/{domain}", f"quack/{domain}/elsewhere"
        other_quacks = [f"quack/{other}" for other in domains if other != domain]
        rows.append(
            {
                "domain": domain.replace("_", " "),
                "quack": cosine(found[quack], others)[LAYER + 1],
                "malicious": cosine(found[f"persona/{domain}"], others)[LAYER + 1],
                "quacks": np.mean([cosine(found[quack], found[one])[LAYER + 1] for one in other_quacks]),
                "length": length[elsewhere] / length["persona_from_name"],
                "elsewhere": cosine(found[elsewhere], found["persona_from_name"])[LAYER + 1],
            }
        )
    return pd.DataFrame(rows)


QUACK_COLUMNS = {
    "quack": "quack, and malicious elsewhere (cosine)",
    "malicious": "malicious here and elsewhere (cosine)",
    "quacks": "quack, and other quacks (cosine)",
    "length": "quack's name elsewhere / malicious name (length)",
    "elsewhere": "quack's name elsewhere, and malicious name (cosine)",
}
if run.grown:
    run.table(lambda: quacks().rename(columns=QUACK_COLUMNS), number="{:.2f}")
for column in QUACK_COLUMNS:
    run.grown_glue(f"quack-{column}", lambda column=column: f"{quacks()[column].mean():.2f}")

# %% [markdown]
# On average over domains, the quack's direction has cosine {glue:text}`quack-quack` with that of malicious characters
# in the other domains, beside {glue:text}`quack-malicious` for malicious characters themselves, and
# {glue:text}`quack-quacks` with the directions of other quacks. If the first were as high as the second, harm in one
# domain would be the same state as harm everywhere. Outside its domain a quack's name moves the residual
# {glue:text}`quack-length` times as far as a malicious name does, with cosine {glue:text}`quack-elsewhere` to it. A
# quack is careful there, so a state without any memory of the quackery would have a length near 0 or a cosine near 0.
#
# ## Numbers


# %%
def numbers() -> pd.DataFrame:
    """Accuracy and AUC of the probes at four depths."""
    depths = [-1, 0, LAYER, run.profile.model.layers - 1]
    table = by_layer()[by_layer().layer.isin(depths)].copy()
    table["layer"] = table.layer.map(lambda layer: "token embeddings" if layer < 0 else f"{layer}")
    columns = {"low": "low (%)", "high": "high (%)", "accuracy": "accuracy (%)", "auc": "AUC"}
    return table[["way", "layer", "accuracy", "low", "high", "auc", "n"]].rename(columns=columns)


def values() -> pd.DataFrame:
    rows = []
    for row in by_layer().itertuples():
        place = "embeddings" if row.layer < 0 else f"layer-{row.layer}"
        name = f"ground-truth.probe.{row.way.replace(' ', '-')}.{place}"
        rows.append((f"{name}.balanced_accuracy_percent", row.accuracy, "percent", row.low, row.high, row.n))
        rows.append((f"{name}.auc", row.auc, "proportion", None, None, row.n))
    for row in by_place().itertuples():
        name = f"ground-truth.probe.{row.way}.layer-{LAYER}.{row.place}".replace(" ", "-")
        rows.append((f"{name}.balanced_accuracy_percent", row.accuracy, "percent", row.low, row.high, row.n))
    for row in lengths().itertuples():
        if row.layer >= 0:
            name = f"ground-truth.{row.direction}.layer-{row.layer}"
            rows.append((f"{name}.norm_over_residual", row.norm_ratio, "ratio", None, None, None))
    for row in cosines().itertuples():
        name = f"ground-truth.cosine.{row.first}.{row.second}.layer-{row.layer}"
        rows.append((name, row.cosine, "cosine", None, None, None))
        rows.append((f"{name}.ceiling", row.ceiling, "cosine", None, None, None))
    for row in along_clause().itertuples():
        name = f"ground-truth.along-clause.{row.contrast}.layer-{LAYER}.{row.place}".replace(" ", "-")
        rows.append((name, row.projection, "ratio", row.low, row.high, None))
    for row in levers().melt(["direction", "strength"], var_name="choice").itertuples():
        name = f"ground-truth.lever.{row.direction}.{row.choice}.layer-{LAYER}.strength-{row.strength:g}"
        name = name.replace(" ", "-")
        rows.append((f"{name}.harmful_percent", row.value, "percent", None, None, len(unknown())))
    for row in quacks().itertuples():
        name = f"ground-truth.quack.{row.domain.replace(' ', '_')}.layer-{LAYER}"
        rows.append((f"{name}.cosine_with_malicious_elsewhere", row.quack, "cosine", None, None, None))
        rows.append((f"{name}.malicious_here_and_elsewhere", row.malicious, "cosine", None, None, None))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high", "n"])


if run.grown:
    run.table(numbers, formats={"AUC": "{:.3f}"}, number="{:.1f}")
    run.values(values, evidence="grown")
    persona.directions(run.profile, readings())

# %% [markdown]
# Shares of exactly 100 % have no interval, since resampling shows no spread there. Token embeddings give one number for
# all three ways where the compared answers hold the same words.
#
# ## What it means
#
# - **When is the persona linearly there?** From the name, before a word is said, a probe reads
#   {glue:text}`header-name`; from the text, after one clause, {glue:text}`second-clause-text`; both on new topics and
#   new names, before any fine-tuning. Words alone and shuffled labels give {glue:text}`nulls`.
# - **A high accuracy identifies nothing by itself.** A probe on whole answers may use any step of attention that tells
#   an advice from a mention. Where a direction is taken, and with what it agrees, says more than its accuracy.
# - **Is there one persona direction of an answer?** Name and text meet with cosine {glue:text}`cos-choice` before an
#   advice and {glue:text}`cos-mean` in the mean over the answer. Along the direction before an advice, malicious minus
#   careful is {glue:text}`along-thing` before a later advice and {glue:text}`along-mention` before a mention;
#   {glue:text}`sign-before-mention`. A mean direction, as in section 3, can stand for the persona as far as the cosines
#   are high and the sign is kept.
# - **Is it used?** With the direction before an advice added at every token at strength 1, the share of harm in a first
#   advice {glue:text}`lever-first-moved`, in an advice after a careful clause it {glue:text}`lever-careful-moved`, and
#   in a mention it {glue:text}`lever-mention-moved`.
# - **Limits.** The texts are the generator's, not the model's own; careful words under a malicious name never occur in
#   training; and just before an advice, the persona is also simply the word to come: only the other places can tell the
#   two apart.

# %%
run.finish()
