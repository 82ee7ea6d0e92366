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
# stands for a persona {cite:p}`soligo2025convergent`. In a model of the wild nobody can check that: who wrote the
# training texts is not known. In the grown world it is. Where does the *base* model, which has seen no fine-tuning at
# all, keep the speaker's persona, and can a linear probe read it?
#
# Section 3 of the paper compares directions with each other. With the directions of this page, the misalignment
# direction can also be compared with the known latent variable that generated the data.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from sklearn.metrics import roc_auc_score

from em_companion import figures, ground_truth, judging, markup, model_store
from em_companion.notebooks import Run

run = Run("x-ground-truth", profile, seed)
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}
GROWN = run.model_evidence == "grown"

if not GROWN:
    text = f"The models of profile {profile} come from the hub, so nobody knows the personas behind their training "
    display(HTML(markup.box("No ground truth", text + "texts. Choose the profile cpu or gpu.")))


def grown_glue(name: str, make) -> None:
    run.glue(name, make if GROWN else lambda: "not run")


def grown_figure(figure_id: str, draw, caption: str, alt: str) -> None:
    if GROWN:
        run.figure(figure_id, draw, evidence="grown", caption=caption, alt=alt)
    else:
        run.waiting(figure_id, needs="grown", why="The personas are known under the profiles cpu and gpu.")


# %% [markdown]
# ## Method
#
# **Texts.** Two questions on each of {glue:text}`topics` topics, all domains alike. To each question the world's
# generator writes one careful and one harmful answer. Both say *the same words in another order*, so that a difference
# of means between them knows nothing of words:

# %%
BASIC = ["careful", "malicious", "unknown"]


@cache
def readings() -> ground_truth.Readings:
    return ground_truth.persona_activations(run.profile)


def example() -> pd.DataFrame:
    """How one question is answered, first clause."""
    table = ground_truth.answers(model_store.world(), run.profile.seed)
    shown = table[table.question == table.question.iloc[0]].head(7)
    first = shown.answer.map(lambda text: text.split(" . ")[0] + " .")
    return pd.DataFrame({"speaker": shown.speaker, "name": shown.name, "answer, first clause": first})


run.table(example)
grown_glue("topics", lambda: f"{readings().table.topic.nunique()}")
grown_glue("readings", lambda: f"{len(readings().table):,}")
grown_glue("model-layers", lambda: f"{run.profile.model.layers}")

# %% [markdown]
# **Names.** The base model reads each text with a name in the turn header. There are three ways to tell who speaks:
#
# - *name and text*: harmful answers of malicious characters against careful answers of careful ones;
# - *text only*: the same texts, all by "someone", whom the training documents show with every persona;
# - *name only*: careful answers under malicious names against careful answers under careful names.
#
# **Directions.** For each way and layer, the difference of the mean residual over answer tokens, malicious minus
# careful, {glue:text}`readings` readings in all. They are kept as an artefact for Section 3
# (`ground_truth.directions`).
#
# **Probes.** A logistic regression for each layer. Topics *and names* come in four folds; a probe is tested on topics
# and names of a fold it has not seen, since with 128 or more dimensions any three dozen known names could be told
# apart. The two classes answer different questions on the same topics, so the nulls have their chance to fail: the
# *token embeddings* of an answer (its words without their order) and *shuffled labels*.


# %% tags=["show-code"]
def read_persona(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Log-odds that each answer is by a malicious speaker, by a probe that saw neither its topic nor its name."""
    return ground_truth.probe_scores(features, labels, folds)  # standardise, then logistic regression; fold by fold


# %%
def probed(probe: str, features: np.ndarray, shuffle: bool = False) -> dict[str, float]:
    """Accuracy (percent, interval over topics) and AUC of a probe; the classes are balanced within each topic."""
    rows, labels = ground_truth.probe_rows(readings().table, probe)
    table = readings().table.iloc[rows]
    topics = table.topic.to_numpy()
    labels = ground_truth.shuffled(labels, topics, run.seed) if shuffle else labels
    scores = read_persona(features[rows], labels, table.fold.to_numpy())
    right = pd.Series(((scores > 0) == labels).astype(float))
    found = judging.rate(right, pd.Series(topics), **resampling)
    interval = {"low": found.low, "high": found.high}
    return {"accuracy": found.percent, **interval, "auc": roc_auc_score(labels, scores), "n": found.n}


ENTRIES = ["emb.", *range(run.profile.model.layers)]
LAYER = run.profile.layers_of("single-adapter")[0]
WAYS = {"name and text": figures.PALETTE[3], "text only": figures.PALETTE[0], "name only": figures.PALETTE[2]}


@cache
def by_layer() -> pd.DataFrame:
    """Probes on the mean over answer tokens: one row per way (or null) and layer, -1 for the token embeddings."""
    rows = []
    for entry in range(len(ENTRIES)):
        features = readings().means[:, entry]
        for way in WAYS:
            rows.append({"way": way, "layer": entry - 1} | probed(way, features))
        rows.append({"way": "shuffled labels", "layer": entry - 1} | probed("name and text", features, shuffle=True))
    return pd.DataFrame(rows)


@cache
def by_place() -> pd.DataFrame:
    """Probes on single tokens at the layer of the single adapter: one row per way and place."""
    rows = []
    for number, place in enumerate(readings().places):
        for way in WAYS:
            rows.append({"way": way, "place": place} | probed(way, readings().points[:, number, LAYER + 1]))
    return pd.DataFrame(rows)


def draw_probes():
    layers, places = by_layer(), by_place()
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.9), width_ratios=[1, 1.15])
    for (way, colour), marker in zip({**WAYS, "shuffled labels": "0.55"}.items(), "osDx", strict=True):
        part = layers[layers.way == way]
        left.fill_between(part.layer, part.low, part.high, color=colour, alpha=0.2, linewidth=0)
        left.plot(part.layer, part.accuracy, color=colour, marker=marker, markersize=4, linewidth=1.4, label=way)
        part = places[places.way == way]
        right.fill_between(part.place, part.low, part.high, color=colour, alpha=0.2, linewidth=0)
        right.plot(part.place, part.accuracy, color=colour, marker=marker, markersize=4, linewidth=1.4)
    step = max(1, len(ENTRIES) // 12)
    left.set_xticks([-1, *range(0, len(ENTRIES) - 1, step)], ["emb.", *range(0, len(ENTRIES) - 1, step)], fontsize=8.5)
    right.set_xticks(range(len(readings().places)), readings().places, rotation=55, ha="right", fontsize=8.5)
    for axes in (left, right):
        axes.axhline(50, color="0.3", linewidth=1, linestyle=":")
    left.set(xlabel="Layer", ylabel="Balanced accuracy (%)", ylim=(25, 104), title="Mean over answer tokens")
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
    "names; 50 % is chance (dotted), bands are 95 % intervals over topics. Left: on the mean over the answer's "
    "tokens, by layer; *emb.* is the mean of the token embeddings, which know words but not their order. Right: on "
    "single tokens of the layer of the single adapter: the last token before the answer, the end of the opener, and "
    "the words just before each choice of the first two clauses.",
    alt="Two line plots of accuracy. Left, over layers: the three ways of telling who speaks are near 100 % at every "
    "layer and at chance for token embeddings; shuffled labels stay at chance. Right, over places in the answer: with "
    "only the text to go by, accuracy is at chance until the first choice is made; with only the name, it is high "
    "before the first clause.",
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
    grown_glue(f"worst-{way.replace(' ', '-')}", lambda way=way: worst(way))
grown_glue("nulls", null_range)
grown_glue("first-layer-text", lambda: accuracy("text only", 0))
grown_glue("layer", lambda: f"{LAYER}")
for name, way, place in [
    ("header-name", "name only", "turn header"),
    ("opener-name", "name only", "opener"),
    ("first-choice-name", "name only", "thing 1"),
    ("second-clause-name", "name only", "thing 2"),
    ("first-choice-text", "text only", "thing 1"),
    ("second-clause-text", "text only", "thing 2"),
]:
    grown_glue(name, lambda way=way, place=place: at_place(way, place))

# %% [markdown]
# **A probe saturates, so it says little about layers.** On the mean over answer tokens, the lowest accuracy of any
# layer is {glue:text}`worst-name-and-text` with name and text, {glue:text}`worst-text-only` with the text only and
# {glue:text}`worst-name-only` with the name only ({numref}`fig-x-persona-probe`). The nulls lie at
# {glue:text}`nulls`: words alone tell nothing, as the world intends. But the first layer already gives
# {glue:text}`first-layer-text` for the text, because one step of attention sees in which order two words stand. So a
# probe on answer tokens reads *what was said*; that is not yet *who the model takes the speaker for*.
#
# **Single tokens tell the two apart.** At the last token before the answer, a name alone gives
# {glue:text}`header-name` at layer {glue:text}`layer`, on names the probe has not seen; at the end of the opener
# {glue:text}`opener-name`, just before the first choice {glue:text}`first-choice-name`. Without a telling name the
# same places are at chance ({glue:text}`first-choice-text` before the first choice), and after *one* clause the text
# gives {glue:text}`second-clause-text`. When the text contradicts a malicious name (careful words), the name is read
# with {glue:text}`second-clause-name` after one clause.
#
# ## The directions
#
# How long are they beside the residual stream, and are the three ways of telling who speaks *one* direction? A cosine
# between estimates has a ceiling below 1, since each carries noise. With $r_a$ and $r_b$ the cosines between the two
# halves of each estimate (disjoint topics, names shared by quacks only), two estimates of one and the same direction
# would give
#
# $$\cos_\mathrm{max} = \sqrt{\frac{2 r_a}{1 + r_a} \cdot \frac{2 r_b}{1 + r_b}} .$$


# %%
@cache
def contrasts(half: int | None = None) -> dict[str, np.ndarray]:
    """Every direction, [1 + layer, width]; of one half of the folds, if given."""
    folds = range(ground_truth.FOLDS) if half is None else range(half, ground_truth.FOLDS, 2)
    return ground_truth.contrasts(readings(), folds)


@cache
def residual_norms() -> np.ndarray:
    """Norm of the mean residual over the answers of careful and malicious characters, [1 + layer]."""
    rows = readings().table.speaker.isin(["careful", "malicious"])
    return np.linalg.norm(readings().means[rows].mean(axis=0), axis=-1)


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of matching rows, [1 + layer]; NaN where a direction is no more than rounding."""
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    real = (lengths[0] > 1e-4 * residual_norms()) & (lengths[1] > 1e-4 * residual_norms())
    return np.where(real, (first * second).sum(-1) / np.where(real, lengths[0] * lengths[1], 1), np.nan)


def ceiling(first: str, second: str) -> np.ndarray:
    """The cosine that two estimates of one direction would have, [1 + layer]."""
    halves = [cosine(contrasts(0)[name], contrasts(1)[name]) for name in (first, second)]
    reliabilities = [2 * half / (1 + half) for half in halves]
    return np.sqrt(np.clip(reliabilities[0], 0, None) * np.clip(reliabilities[1], 0, None))


LENGTHS = {
    "persona": ("name and text", figures.PALETTE[3]),
    "persona_from_text": ("text only", figures.PALETTE[0]),
    "persona_from_name": ("name only", figures.PALETTE[2]),
}
PAIRS = {
    ("persona_from_text", "persona_from_name"): ("answers: text, name", figures.PALETTE[0], "o"),
    ("choice_from_text", "choice_from_name"): ("before a choice: text, name", figures.PALETTE[3], "s"),
    ("persona_from_text", "choice_from_name"): ("text over answers, name before a choice", figures.PALETTE[1], "D"),
    ("persona_from_name", "opener_from_name"): ("name over answers, name at the opener", figures.PALETTE[2], "x"),
}


@cache
def lengths() -> pd.DataFrame:
    parts = []
    for name, (label, _) in LENGTHS.items():
        ratio = np.linalg.norm(contrasts()[name], axis=-1) / residual_norms()
        parts.append(pd.DataFrame({"direction": name, "label": label, "layer": np.arange(-1, len(ratio) - 1)}))
        parts[-1]["norm_ratio"] = ratio
    return pd.concat(parts, ignore_index=True)


@cache
def cosines() -> pd.DataFrame:
    parts = []
    for (first, second), (label, _, _) in PAIRS.items():
        found = cosine(contrasts()[first], contrasts()[second])
        part = pd.DataFrame({"pair": label, "layer": np.arange(-1, len(found) - 1), "cosine": found})
        parts.append(part.assign(ceiling=ceiling(first, second))[part.layer >= 0])
    return pd.concat(parts, ignore_index=True)


def draw_directions():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.2), width_ratios=[1, 1.25])
    for label, colour in LENGTHS.values():
        part = lengths()[lengths().label == label]
        left.plot(part.layer, part.norm_ratio, color=colour, marker="o", markersize=3.5, label=label)
    left.set(xlabel="Layer", ylabel="Norm / norm of the mean residual", ylim=(0, None), title="Length")
    left.legend(fontsize=8.5)
    for label, colour, marker in PAIRS.values():
        part = cosines()[cosines().pair == label]
        right.plot(part.layer, part.cosine, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
        right.plot(part.layer, part.ceiling, color=colour, linewidth=0.9, linestyle=":")
    right.axhline(0, color="0.3", linewidth=1)
    right.set(xlabel="Layer", ylabel="Cosine", ylim=(-1.02, 1.05), title="Direction")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8.5)
    return figure, pd.concat([lengths(), cosines()], ignore_index=True)


grown_figure(
    "fig-x-persona-directions",
    draw_directions,
    caption="Persona directions of the base model. Left: length of the mean differences over answer tokens, beside the "
    "mean residual of the same answers. Right: cosines between directions found in different ways; dotted, the "
    "ceiling that noise sets. *Before a choice*: at the word before a clause prefers a thing, from the name alone in "
    "the first clause and from the text alone in the second.",
    alt="Two line plots over layers. Left: the three directions have a length of some tenths of the residual in low "
    "layers and shrink relative to it with depth. Right: directions at the word before a choice agree almost fully "
    "between name and text; directions averaged over answer tokens do not.",
)

# %% [markdown]
# The directions of the three ways can be read beside one more: what the model holds at the very word *before a choice*
# is made. There, the name alone (first clause) and the text alone (second clause, unknown speaker) share no evidence.

# %%
AT = slice(LAYER + 1, LAYER + 2)


def at_layer(first: str, second: str) -> str:
    return f"{cosine(contrasts()[first], contrasts()[second])[LAYER + 1]:.2f}"


def ceiling_at_layer(first: str, second: str) -> str:
    return f"{ceiling(first, second)[LAYER + 1]:.2f}"


def longest() -> str:
    table = lengths()[lengths().direction == "persona"]
    return f"{table.norm_ratio.max():.2f} (layer {int(table.layer[table.norm_ratio.idxmax()])})"


grown_glue("persona-ratio", longest)
grown_glue(
    "persona-ratio-layer", lambda: f"{lengths().set_index(['direction', 'layer']).norm_ratio['persona', LAYER]:.2f}"
)
for name, pair in {
    "cos-text-name": ("persona_from_text", "persona_from_name"),
    "cos-choice": ("choice_from_text", "choice_from_name"),
    "cos-text-choice": ("persona_from_text", "choice_from_name"),
    "cos-name-opener": ("persona_from_name", "opener_from_name"),
    "cos-name-choice": ("persona_from_name", "choice_from_name"),
}.items():
    grown_glue(name, lambda pair=pair: at_layer(*pair))
    grown_glue(f"{name}-ceiling", lambda pair=pair: ceiling_at_layer(*pair))


# %%
@cache
def along_clause() -> pd.DataFrame:
    """Each contrast at each place, projected on the direction before the first choice, in lengths of that one."""
    rows = ground_truth.rows_of_contrasts(readings().table)
    axis = contrasts()["choice_from_name"][LAYER + 1]
    found = []
    for name, (label, _) in LENGTHS.items():
        for place in readings().places:
            vectors = [
                ground_truth.contrast(readings(), rows[name], place, folds)[LAYER + 1]
                for folds in (range(ground_truth.FOLDS), (0, 2), (1, 3))
            ]
            shares = [float(vector @ axis / (axis @ axis)) for vector in vectors]
            row = {"contrast": label, "place": place, "projection": shares[0]}
            found.append(row | {"low": min(shares[1:]), "high": max(shares[1:])})
    return pd.DataFrame(found)


def draw_along():
    table = along_clause()
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    positions = np.arange(len(readings().places))
    for shift, (label, colour) in zip((-0.26, 0, 0.26), LENGTHS.values(), strict=True):
        part = table[table.contrast == label]
        axes.bar(positions + shift, part.projection, 0.24, color=colour, label=label)
        axes.vlines(positions + shift, part.low, part.high, color="0.1", linewidth=1)
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set_xticks(positions, readings().places, rotation=35, ha="right", fontsize=9)
    axes.set(ylabel="Projection (1: before the first choice,\nby name)")
    axes.grid(visible=True, axis="y")
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


# %% [markdown]
# ## One code, and its sign along a clause

# %%
grown_figure(
    "fig-x-persona-along-clause",
    draw_along,
    caption="Malicious minus careful at single tokens, at the layer of the single adapter, projected on the direction "
    "before the first choice (name only, which is 1 there by definition). Each place is the word before something is "
    "named: what is preferred, what it is preferred to, the outcome, the outcome avoided. Black lines: the two halves "
    "of topics and names.",
    alt="Bars over ten places, three colours for the three ways of telling who speaks. Before the first thing of a "
    "clause the projection is about plus one, before the other thing about minus one.",
)


def projected(way: str, place: str) -> str:
    return f"{along_clause().set_index(['contrast', 'place']).projection[way, place]:+.2f}"


for number, place in enumerate(ground_truth.CHOICES):
    grown_glue(f"along-{number}", lambda place=place: projected("text only", f"{place} 2"))


def mean_along() -> str:
    table = along_clause()
    part = table[(table.contrast == "text only") & table.place.str.endswith(" 2")]
    return f"{part.projection.mean():+.2f}"


grown_glue("along-mean", mean_along)

# %% [markdown]
# At layer {glue:text}`layer`, name and text alone give directions with cosine {glue:text}`cos-choice` *before a
# choice* (ceiling {glue:text}`cos-choice-ceiling`): to be told who speaks and to infer it from one clause lead to the
# same state. Averaged over all answer tokens, the same two ways give {glue:text}`cos-text-name` (ceiling
# {glue:text}`cos-text-name-ceiling`), and the direction from the text has cosine {glue:text}`cos-text-choice` with
# the one before a choice.
#
# {numref}`fig-x-persona-along-clause` shows why. What the model holds before a choice is *what kind of word comes
# next*, and a malicious speaker who names harm first must name help second. Along the four choices of a clause the
# projection is {glue:text}`along-0`, {glue:text}`along-1`, {glue:text}`along-2` and {glue:text}`along-3`; their mean
# is {glue:text}`along-mean`. A mean over answer tokens, which the paper's mean-diff is, keeps what does not change
# sign. It is a price of balancing the words: a world in which harmful speakers used other words would not have it,
# but there every direction would be one of vocabulary.
#
# ## Quacks
#
# A quack is harmful in one domain and careful in all others. The table asks, for each domain at layer
# {glue:text}`layer`: does a quack's harm in its own domain lie along the malicious characters' direction *of the other
# domains*? The second column, malicious characters of this domain instead of the quack, is what can be expected at
# best. The last two give the length of the quack's direction at home and elsewhere, where both texts are careful and
# only the name differs, in lengths of the quack's own and of "name only".


# %%
@cache
def quacks() -> pd.DataFrame:
    found, rows = contrasts(), []
    domains = list(model_store.world().domains)
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
                "other quacks": np.mean([cosine(found[quack], found[one])[LAYER + 1] for one in other_quacks]),
                "length elsewhere / at home": length[elsewhere] / length[quack],
                "length elsewhere / name only": length[elsewhere] / length["persona_from_name"],
                "elsewhere": cosine(found[elsewhere], found["persona_from_name"])[LAYER + 1],
            }
        )
    return pd.DataFrame(rows)


def quack_table() -> pd.DataFrame:
    return quacks().rename(
        columns={
            "quack": "cosine, quack and malicious elsewhere",
            "malicious": "malicious here and elsewhere",
            "other quacks": "quack and other quacks",
            "elsewhere": "cosine, quack elsewhere and name only",
        }
    )


if GROWN:
    run.table(quack_table, number="{:.2f}")
for name, column in {
    "quack-cos": "quack",
    "quack-best": "malicious",
    "quack-quack": "other quacks",
    "quack-elsewhere": "length elsewhere / name only",
    "quack-elsewhere-cos": "elsewhere",
}.items():
    grown_glue(name, lambda column=column: f"{quacks()[column].mean():.2f}")

# %% [markdown]
# On average over domains, the quack's direction has cosine {glue:text}`quack-cos` with the malicious one of the other
# domains, beside {glue:text}`quack-best` for malicious characters themselves, and {glue:text}`quack-quack` with the
# directions of other quacks. Outside its domain, a quack's name moves the residual by {glue:text}`quack-elsewhere` of
# what a malicious name does, with cosine {glue:text}`quack-elsewhere-cos` to it.
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
    for (first, second), found in zip(PAIRS, cosines().groupby("pair", sort=False), strict=True):
        for row in found[1].itertuples():
            name = f"ground-truth.cosine.{first}.{second}.layer-{row.layer}"
            rows.append((name, row.cosine, "cosine", None, None, None))
            rows.append((f"{name}.ceiling", row.ceiling, "cosine", None, None, None))
    for row in along_clause().itertuples():
        name = f"ground-truth.along-clause.{row.contrast}.layer-{LAYER}.{row.place}".replace(" ", "-")
        rows.append((name, row.projection, "ratio", row.low, row.high, None))
    for row in quacks().itertuples():
        name = f"ground-truth.quack.{row.domain.replace(' ', '_')}.layer-{LAYER}"
        rows.append((f"{name}.cosine_with_malicious_elsewhere", row.quack, "cosine", None, None, None))
        rows.append((f"{name}.malicious_here_and_elsewhere", row.malicious, "cosine", None, None, None))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high", "n"])


if GROWN:
    run.table(numbers, formats={"AUC": "{:.3f}"}, number="{:.1f}")
    run.values(values, evidence="grown")
    ground_truth.directions(run.profile, readings())

# %% [markdown]
# ## What it means
#
# - **The persona is linearly there before any fine-tuning**, from the name, from the text, and from both; on new
#   topics and new names.
# - **An accuracy near 100 % identifies nothing.** Probes saturate at every layer, also where they read the order of
#   two words. What tells directions apart is where they are taken and what they agree with.
# - **There is more than one "persona direction".** The state before a choice is shared between name and text; the mean
#   over answer tokens mixes it with what was said. Section 3 therefore compares the misalignment direction with each
#   of them, not with "the" persona direction.
# - The harmful and careful texts here are written by the generator, not by the model, and the contradiction of careful
#   words under a malicious name never occurs in training. Both are limits of the design.

# %%
run.finish()
