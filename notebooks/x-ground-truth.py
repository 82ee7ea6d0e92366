# %% [markdown]
# # Ground truth: the persona before any fine-tuning
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` The base model codes the speaker's persona: probes tell it on new topics and names from text alone
# in up to {value}`ground-truth.probe.text-only.thing-2|.0f`. The directions from text and from the name agree just
# before an advice (cosine {value}`ground-truth.cosine.text-name-before-advice`), not at the start of a clause
# ({value}`ground-truth.cosine.text-name-clause-start`).
# ```
#
# **The question.** {cite:t}`soligo2025convergent` suggest that a direction which separates misaligned from aligned
# answers stands for a persona. In the grown world it is known who wrote every text. Where does the *base* model, before
# any fine-tuning, keep the speaker's persona, and does it use it? Of a published model nobody can tell.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import directions, estimates
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import persona
from em_companion.models.interventions import Steer

run = Run("x-ground-truth", profile, seed)

# %% [markdown]
# ## The method
#
# **Texts.** To two questions on each topic the world's generator writes a careful and a harmful answer from the same
# draws: clauses that advise two things each, and a remark that mentions as many. The careful answer advises what helps
# and mentions what harms, the harmful one does the reverse and is the same in all else: a mean difference over many
# pairs says nothing about words.
#
# **Names.** The base model reads each text with a name in the turn header. *Name and text*: harmful answers of
# malicious against careful answers of careful characters. *Text only*: the same texts, all by "someone", whose persona
# varies in training. *Name only*: careful answers under malicious against careful names. A **direction** is the mean
# residual of malicious minus careful, over the answer or at single tokens. A **probe** is a logistic regression, tested
# on topics and names that it has not seen. Nulls: mean *token embedding*, *shuffled labels*.

# %%
LAYERS, LAYER = run.profile.model.layers, run.profile.layers_of("single-adapter")[0]
COLOURS = dict(
    zip([*persona.PROBES, "shuffled labels"], [theme.PALETTE[n] for n in (3, 0, 2)] + [theme.NULL_COLOUR], strict=True)
)
TICKS = {
    "x_ticks": {-1: "emb."} | {one: str(one) for one in range(2, LAYERS, max(2, LAYERS // 6))},
    "x_label": "decoder layer",
}


@remembered
def readings() -> persona.Readings:
    found = persona.persona_activations(run.profile)
    persona.directions(run.profile, found)  # kept for the pages of section 3
    return found


# %% tags=["show-code"]
def probed(way: str, features: np.ndarray) -> dict:
    """Balanced accuracy (percent, 95 % over topics) of a probe on features [answer, width]."""
    rows, labels = persona.probe_rows(readings().table, way)
    table = readings().table.iloc[rows].reset_index(drop=True)
    scores = persona.probe_scores(features[rows], labels, table.fold.to_numpy())  # log-odds, fitted on other folds
    right = estimates.rate(pd.Series((scores > 0) == labels).astype(float), table.topic, **run.resampling)
    return {"way": way, "accuracy": right.value, "low": right.low, "high": right.high, "n": right.n}


# %%
def shuffled(features: np.ndarray) -> dict:
    """Mean accuracy over ten shuffles of the labels within topics, and its range."""
    rows, labels = persona.probe_rows(readings().table, "name and text")
    table, found = readings().table.iloc[rows], []
    for shuffle in range(10):
        generator = np.random.default_rng(run.seed + shuffle)
        wrong = pd.Series(labels).groupby(table.topic.to_numpy()).transform(generator.permutation).to_numpy()
        right = (persona.probe_scores(features[rows], wrong, table.fold.to_numpy()) > 0) == wrong
        found.append(100 * right.mean())
    return {"way": "shuffled labels", "accuracy": np.mean(found), "low": min(found), "high": max(found), "n": len(rows)}


@remembered
def probes() -> pd.DataFrame:
    """A row per way and layer over the answer (-1: token embeddings), and per way and place in the layer LAYER."""
    rows = []
    for layer in range(-1, LAYERS):
        features = readings().means[:, layer + 1]
        found = [*(probed(way, features) for way in persona.PROBES), shuffled(features)]
        rows += [row | {"layer": layer} for row in found]
    for number, place in enumerate(readings().places):
        found = [probed(way, readings().points[:, number, LAYER + 1]) for way in persona.PROBES]
        rows += [row | {"layer": LAYER, "place": place, "number": number} for row in found]
    return pd.DataFrame(rows)


def draw_probes():
    table, places = probes(), dict(enumerate(readings().places))
    look = {"hue": "way", "low": "low", "high": "high", "colours": COLOURS, "markers": True, "y_lines": {"_": 50}}
    left, right = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.2))[1]
    plots.lines(table[table.place.isna()], "layer", "accuracy", axes=left, title="accuracy (%)", **TICKS, **look)
    single = table.dropna(subset="place").astype({"number": int})
    look |= {"title": f"single tokens, layer {LAYER}", "x_ticks": places}
    return plots.lines(single, "number", "accuracy", axes=right, **look)


run.grown.figure(
    "fig-x-persona-probe", draw_probes,
    title=lambda data: f"Accuracy in layer {LAYER}: {span(data, 'accuracy', by='way', layer=LAYER, number=None)}",
    caption="Probes for careful against malicious speakers, on new topics and names. Bands: 95 % over topics, or the "
    "range of ten shuffles. *Emb.*: token embeddings. *Thing*, *mention*: before a thing is advised, or mentioned.",
    alt="Two line plots of accuracy in percent, over layers and over twelve places from the header to the remark.",
)  # fmt: skip

# %% [markdown]
# **Whole answers.** The lowest accuracy of any layer is {value}`ground-truth.probe.name-and-text.lowest` with name and
# text, {value}`ground-truth.probe.text-only.lowest` with the text only, {value}`ground-truth.probe.name-only.lowest`
# with the name only; nulls: {value}`ground-truth.probe.nulls` ({numref}`fig-x-persona-probe`). One step of attention
# tells advice from mention: a probe may read *what was said*, not *who speaks*.
#
# **Single tokens keep the two apart** (layer {value}`ground-truth.layer`). Before the answer, the name alone gives
# {value}`ground-truth.probe.name-only.turn-header`. The text gives {value}`ground-truth.probe.text-only.thing-1` before
# the first advised thing and {value}`ground-truth.probe.text-only.second-thing-1` before the second. With careful words
# under a malicious name, the name gives {value}`ground-truth.probe.name-only.start-2` at the start of the second clause
# and {value}`ground-truth.probe.name-only.thing-2` before its first thing, where 50 % means that the text replaced it.
#
# ## Whether the directions agree
#
# Name and text should lead to the same state, if there is one persona. A cosine of noisy estimates has a ceiling, with
# $r_a$, $r_b$ the cosines between halves of each: $\sqrt{2 r_a / (1 + r_a) \cdot 2 r_b / (1 + r_b)}$.

# %%
LENGTHS = {"persona": "answer: name and text", "persona_from_text": "answer: text", "persona_from_name": "answer: name"}
LENGTHS |= {"choice_from_text": "before advice: text", "choice_from_name": "before advice: name"}
PAIRS = {f"text, name: {one}": (f"{place}_from_text", f"{place}_from_name") for place, one in
         {"choice": "before advice", "start": "clause start", "persona": "answer"}.items()}  # fmt: skip
PAIRS |= {"text: answer, name: before advice": ("persona_from_text", "choice_from_name")}
LINE_COLOURS = dict(
    zip([*LENGTHS.values(), *PAIRS], [theme.PALETTE[n] for n in (3, 0, 2, 0, 2, 1, 4, 5, 9)], strict=True)
)


@remembered
def contrasts(half: int | None = None) -> dict[str, np.ndarray]:
    """Every direction, [1 + layer, width], NaN where it is zero; of one half of topics and names, if given."""
    folds = range(persona.FOLDS) if half is None else range(half, persona.FOLDS, 2)
    found = persona.contrasts(readings(), folds).items()
    return {name: np.where(directions.norms(one)[:, None] > 1e-4, one, np.nan) for name, one in found}


def length(name: str) -> np.ndarray:
    """Length of a direction in mean norms of the readings behind it, [1 + layer]."""
    _, place = persona.AT_TOKENS.get(name, ("", None))
    vectors = readings().means if place is None else readings().points[:, readings().places.index(place)]
    rows = readings().table.speaker.isin(["careful", "malicious", "unknown"])
    return np.nan_to_num(directions.norms(contrasts()[name])) / directions.norms(vectors[rows]).mean(axis=0)


@remembered
def compared() -> pd.DataFrame:
    """Lengths and cosines, the latter with what noise alone would leave of a cosine of 1."""
    parts = [{"panel": "length", "line": label, "value": length(name)} for name, label in LENGTHS.items()]
    for label, pair in PAIRS.items():
        halves = np.array([directions.cosines(contrasts(0)[name], contrasts(1)[name]) for name in pair])
        part = {"panel": "cosine", "line": label, "value": directions.cosines(*(contrasts()[name] for name in pair))}
        parts.append(part | {"ceiling": np.sqrt(np.clip(2 * halves / (1 + halves), 0, None).prod(axis=0))})
    return pd.concat([pd.DataFrame(one | {"layer": np.arange(-1, LAYERS)}) for one in parts], ignore_index=True)


run.grown.figure(
    "fig-x-persona-directions",
    lambda: plots.facets(plots.lines, compared(), "panel", "layer", "value", hue="line", share=(True, False), **TICKS,
                         titles={"length": "norm / norm of the residual", "cosine": "cosine"}, y_lines={"_": 0},
                         styles={one: ":" for one in LENGTHS.values() if "advice" in one}, colours=LINE_COLOURS),
    title=lambda data: f"Cosine, layer {LAYER}: {span(data, pattern='.2f', by='line', panel='cosine', layer=LAYER)}",
    caption="Persona directions of the base model by layer, over the answer, at the first word of a clause (start) and "
    "before the first thing it advises: clause 1 for the name, 2 for the text. No cosine where no direction.",
    alt="Two line plots over layers: the length of five directions in norms of the residual, and four cosines.",
)  # fmt: skip


# %% tags=["show-code"]
@remembered
def along_clause() -> pd.DataFrame:
    """Each contrast at each place, projected on the direction before the first advice, in lengths of that one."""
    rows, axis = persona.rows_of_contrasts(readings().table), contrasts()["choice_from_name"][LAYER + 1]
    found, every = [], (range(persona.FOLDS), (0, 2), (1, 3))
    for name, way in zip(list(LENGTHS)[:3], persona.PROBES, strict=True):
        for place in readings().places:
            vectors = [persona.contrast(readings(), rows[name], place, folds)[LAYER + 1] for folds in every]
            whole, *halves = (float(vector @ axis / (axis @ axis)) for vector in vectors)
            found.append((way, place, whole, min(halves), max(halves)))
    return pd.DataFrame(found, columns=["contrast", "place", "projection", "low", "high"])


# %%
run.grown.figure(
    "fig-x-persona-along-clause",
    lambda: plots.bars(along_clause(), "place", "projection", hue="contrast", low="low", high="high", colours=COLOURS,
                       y_lines={"_": 0}, y_label="projection on the direction\nbefore the first advice"),
    title=lambda data: "Text alone: projection {:.2f} at the first thing advised, {:.2f} after it".format(
        *data[data.contrast == "text only"].set_index("place").projection[["thing 1", "second thing 1"]]
    ),
    caption=f"Malicious minus careful at single tokens, layer {LAYER}, projected on the direction before the first "
    "advice (name only: 1 there by definition). Black lines: the two halves of topics and names.",
    alt="Bars over twelve places, from the turn header over two clauses to the remark.",
)  # fmt: skip


def levers() -> pd.DataFrame:
    """Harmful words (percent) at three places, with strength * direction [width] added at every token."""
    table = readings().table.query("speaker == 'unknown' and sample == 0").reset_index(drop=True)
    direction, rows = contrasts()["choice_from_name"][LAYER + 1], []
    random = np.random.default_rng(run.seed).normal(size=direction.shape)
    random *= np.linalg.norm(direction) / np.linalg.norm(random)
    cells = [("before an advice", direction, strength) for strength in (0.0, 0.5, 0.75, 1.0)]
    for name, one, strength in [*cells, ("random", random, 1.0)]:
        steered = 100 * persona.harmful_shares(run.profile, table, [Steer(LAYER, torch.tensor(one), strength)])
        careful = steered[~table.harmful].mean()
        rows.append((name, strength, steered["thing 1"].mean(), careful["thing 2"], careful["mention"]))
    return pd.DataFrame(rows, columns=["direction", "strength", "first advice", "second", "mention"])


run.grown.table(levers, formats={"strength": "{:g}"}, number="{:.0f}")


def values() -> dict:
    table, name = probes(), "ground-truth"
    layers = table[table.place.isna() & (table.layer >= 0)].groupby("way").accuracy.min()
    nulls = table[(table.way == "shuffled labels") | (table.layer == -1)].accuracy
    found = {f"{name}.layer": LAYER, f"{name}.probe.nulls": f"{nulls.min():.0f} to {nulls.max():.0f} %"}
    found |= {f"{name}.probe.{way.replace(' ', '-')}.lowest": Estimate(lowest) for way, lowest in layers.items()}
    for row in table.dropna(subset="place").itertuples():
        found[f"{name}.probe.{row.way}.{row.place}".replace(" ", "-")] = Estimate(row.accuracy, row.low, row.high)
    for row in compared()[compared().layer == LAYER].dropna(subset="ceiling").itertuples():
        found[f"{name}.cosine.{re.sub('[^a-z]+', '-', row.line)}"] = row.value
    for row in along_clause()[along_clause().contrast == "text only"].itertuples():
        found[f"{name}.along.{row.place.replace(' ', '-')}"] = Estimate(row.projection, row.low, row.high, unit="ratio")
    return found | {f"{name}.ceiling": compared().ceiling[compared().layer == LAYER].min()}


run.grown.values(values)

# %% [markdown]
# In layer {value}`ground-truth.layer` text and name have a cosine of
# {value}`ground-truth.cosine.text-name-before-advice` before an advice,
# {value}`ground-truth.cosine.text-name-clause-start` at the start of a clause and
# {value}`ground-truth.cosine.text-name-answer` over the answer (ceiling {value}`ground-truth.ceiling`).
#
# **Does the code keep its sign?** The state before a word may hold who speaks and which word comes next. Before an
# advice these go together; before a *mention* they part, for there a malicious speaker names what helps. Along the
# direction before the first advice, malicious minus careful (text only) is {value}`ground-truth.along.start-2` at the
# start of clause 2, {value}`ground-truth.along.thing-2` before its first thing and
# {value}`ground-truth.along.mention|interval` before a mention ({numref}`fig-x-persona-along-clause`). A code for who
# speaks stays positive there, one for the next word turns negative; in a mean, they cancel.
#
# **Read, and also used?** In the table the direction is added at *every* token while the base model reads texts of the
# unknown speaker; cells are the percentage of harmful words (*second*, *mention*: after careful clauses). A push
# towards harmful words gives harm everywhere, a malicious speaker mentions help; but a cell at 100 % cannot rise.
#
# ## What it means
#
# **A high accuracy identifies nothing by itself**; where a direction is taken, and what it agrees with, does. A mean
# direction, as in section 3, stands for the persona as far as name and text agree and it keeps its sign.

# %%
run.finish()
