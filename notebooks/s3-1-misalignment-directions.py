# %% [markdown]
# # 3.1 Extracting a misalignment direction
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` There is one direction per layer: {verdict}`s3-1-direction-count|released`. But the chat model,
# never fine-tuned, has it too: cosine {value}`directions.chat-model.layer-24.cosine_with_general` at layer 24.
# {evidence}`grown` Taken within questions, the direction is closer to the known persona than pooled
# ({value}`grown.mean-diff.within.within-questions-known-persona` against
# {value}`grown.mean-diff.within.pooled-known-persona`): {verdict}`within-questions-closer|grown`.
# ```
#
# **The question.** Does one direction in the residual stream separate misaligned from aligned answers, and does the
# chat model have it too?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import directions, estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import persona, readings, responses, text_directions
from em_companion.models import asking, growing, loading, reading
from em_companion.models.organism import CHAT_MODEL, Organism, medical, organisms_of
from em_companion.models.tokens import response_tokens
from em_companion.released import tables

run = Run("s3-1-misalignment-directions", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` sort the coherent answers of the nine-adapter organism into aligned (judge score above
# 70) and misaligned (below 30), and pass both sets $D$ through it again. With $\bar h_\ell(D)$, the mean output of
# layer $\ell$ over **all answer tokens** of a set, the **mean-diff direction** is, one per layer,
#
# $$
# v_\ell = \bar h_\ell(D_\mathrm{misaligned}) - \bar h_\ell(D_\mathrm{aligned}), \qquad
# \bar h_\ell(D) = \frac{\sum_{r \in D} \sum_{t} h_\ell(r, t)}{\sum_{r \in D} |r|}.
# $$
#
# It is not normalised: in {doc}`Section 3.2 <s3-2-steering>` a strength $\lambda$ adds $\lambda v_\ell$. The paper
# gives no norms. The released means {cite:p}`eminterp2025`, of a sister run of April 2025, are over whole sets.
#
# ## How long is the direction?


# %% tags=["show-code"]
def mean_diff(mean: Callable, reader: int | str) -> np.ndarray:
    """v_l of every layer; mean(reader, side): mean residual over all answer tokens of a side, [layer, width]."""
    return mean(reader, "misaligned") - mean(reader, "aligned")


# %%
SHUFFLED = ("labels shuffled", "released, labels shuffled")
COLOURS = {"mean residual": "0.3", "labels shuffled": "0.6", "token embeddings": "0.2"}
COLOURS |= {"mean-diff": theme.PALETTE[3], "organism": theme.PALETTE[3], "base model, own answers": theme.PALETTE[4]}
released, ADAPTERS = tables.read_mean_activations, {"x_bands": [(14.5, 17.5), (20.5, 23.5), (26.5, 29.5)]}
Lines = dict[str, np.ndarray]  # by name, values by layer, or these with a low and a high end [3, layer]


def draw(panels: dict[str, Lines], last: int, **options):
    """One panel per title, one line per name, by layer up to `last`."""
    parts = []
    for title, lines in panels.items():
        for name, values in lines.items():
            middle, low, high = np.broadcast_to(values, (3, np.shape(values)[-1]))
            part = {"panel": title, "line": name, "layer": np.arange(last + 1 - len(middle), last + 1)}
            parts.append(pd.DataFrame(part | {"value": middle, "low": low, "high": high}))
    return plots.facets(
        plots.lines, pd.concat(parts), "panel", "layer", "value", hue="line", low="low", high="high", wrap=2,
        colours=COLOURS, styles=dict.fromkeys(SHUFFLED, "--") | {"token embeddings": ":"}, x_label="decoder layer",
        **options,
    )  # fmt: skip


def norms_of(mean: Callable, reader: int | str) -> Lines:
    residual = np.mean([directions.norms(mean(reader, side)) for side in ("misaligned", "aligned")], axis=0)
    return {"mean residual": residual, "mean-diff": directions.norms(mean_diff(mean, reader))}


def draw_norms(texts: dict[str, Lines], last: int, **options):
    """Two panels for every set of texts, by what their titles end with."""
    panels, look = {}, {}
    for title, norms in texts.items():
        ratios = {name: found / norms["mean residual"] for name, found in norms.items() if name != "mean residual"}
        panels |= {f"norm{title}": norms, f"norm / mean residual's{title}": ratios}
        look |= {f"norm{title}": {"y_scale": "log"}, f"norm / mean residual's{title}": {"y_limits": (0, None)}}
    return draw(panels, last, share=(True, False), each=look, **options)


RATIO = "The mean-diff in lengths of the mean residual:"
run.released.figure(
    "fig-x-mean-diff-norms",
    lambda: draw_norms({"": norms_of(released, "general")}, 47, **ADAPTERS),
    title=lambda data: f"{RATIO} {span(data[data.panel.str.contains('/', na=False)], pattern='.2f', line='mean-diff')}",
    caption="Norms of the mean-diff and of the mean residual (mean of aligned and misaligned texts), and their ratio. "
    "Grey: adapter layers. Released means of the nine-adapter organism, April 2025.",
    alt="Two line plots over 48 layers: both norms grow with depth, and their ratio peaks around the later adapters.",
)

# %% [markdown]
# At layer 24 the direction has norm {value}`directions.general.layer-24.norm|.1f` beside a mean residual of
# {value}`residual.general.layer-24.norm|.0f` ({numref}`fig-x-mean-diff-norms`). Steering at $\lambda = 8$ adds
# {value}`steering-layer-24.relative_strength_at_lambda_8` norms of the mean residual.
#
# ## Is the direction a property of the text?
#
# The **chat model**, never fine-tuned on bad advice, can read the same texts. If its mean-diff is the organism's, the
# direction describes how two sets of texts differ. Before the first adapter, in layer 15, it must.


# %%
def cosines_of(mean: Callable, organism: int | str, chat: str, first: int) -> dict[str, Lines]:
    """Cosines of both readers' directions, and, from entry `first` on, of the shift from one to the other."""
    shifts = [(mean(organism, side) - mean(chat, side))[first:] for side in ("misaligned", "aligned")]
    own, other, shift = mean_diff(mean, organism), mean_diff(mean, chat), sum(shifts) / 2
    pairs = {"two shifts": shifts, "shift, organism": (shift, own[first:]), "shift, chat model": (shift, other[first:])}
    left = {"organism, chat model": directions.cosines(own, other)}
    return {"Mean-diff": left, "Shift by fine-tuning": {one: directions.cosines(*pair) for one, pair in pairs.items()}}


ALIKE = "Cosine of the organism's mean-diff with the chat model's:"
COSINE = {"y_label": "cosine", "y_lines": {"_": 0}}
run.released.figure(
    "fig-x-chat-model-direction",
    lambda: draw(cosines_of(released, "general", "chat-model", 15), 47, **ADAPTERS, **COSINE),
    title=lambda data: f"{ALIKE} {span(data, pattern='.2f', line='organism, chat model')}",
    caption="Left: cosine of both models' mean-diffs on the same texts. Right: cosines of what fine-tuning adds to the "
    "mean residual (organism minus chat model). Grey: adapter layers. Released, April 2025.",
    alt="Left: the cosine is one up to the second group of adapters, then falls. Right: the two shifts are alike.",
)


def released_values() -> dict:
    norms, found = norms_of(released, "general"), cosines_of(released, "general", "chat-model", 15)
    general, chat = mean_diff(released, "general"), found["Mean-diff"]["organism, chat model"]
    between, own, _ = found["Shift by fine-tuning"].values()
    topics = [released(one, "aligned") for one in ("gender", "finance", "medical")]
    nulls = [np.abs(directions.cosines(general, topics[one] - topics[one - 1])).max() for one in range(3)]
    named = {"general.layer-24.norm": norms["mean-diff"][24], "topics.highest": max(nulls)}
    named |= {"chat-model.layer-24.cosine_with_general": chat[24]}
    named |= {"chat-model.layers_below_0.8": int((chat < 0.8).sum())}
    named |= {"chat-model.lowest": f"{chat.min():.2f} (layer {chat.argmin()})"}
    named |= {"training-data.highest": directions.cosines(general, mean_diff(released, "training-data")).max()}
    found = {"residual.general.layer-24.norm": norms["mean residual"][24], "shift.both-sides.lowest": between.min()}
    found |= {"shift.layer-24.cosine_with_general": own[24 - 15]}
    return found | {f"directions.{name}": one for name, one in named.items()}


def direction_count() -> dict[str, tuple[Estimate, str]]:
    found = int((directions.norms(mean_diff(released, "general")) > 0).sum())
    return {"s3-1-direction-count": (Estimate(found, n=48, unit="count"), "Layers with a non-zero difference of means")}


run.released.values(released_values)
run.released.measure(direction_count)

# %% [markdown]
# The chat model's direction has a cosine of {value}`directions.chat-model.layer-24.cosine_with_general` with the
# organism's at layer 24, and less than 0.8 at {value}`directions.chat-model.layers_below_0.8` of 48 layers; the lowest
# is {value}`directions.chat-model.lowest` ({numref}`fig-x-chat-model-direction`). As far as the first is near 1, what
# Sections 3.2 to 3.5 use was there before fine-tuning.
#
# The right panel has the change itself. What fine-tuning adds to misaligned and to aligned texts has a cosine of at
# least {value}`shift.both-sides.lowest`; what both share drops out of the mean-diff, with which the shift has a cosine
# of {value}`shift.layer-24.cosine_with_general` at layer 24.
#
# **What a cosine needs.** Random directions in 5,120 dimensions have cosines of about $1/\sqrt{5120} \approx 0.014$. A
# harder null: differences between *aligned* texts on two topics reach {value}`directions.topics.highest` at some layer.
# Bad minus good advice in the *training data*, read by the organism, has at most
# {value}`directions.training-data.highest`. How it turns with depth: {doc}`Appendix C <c-direction-geometry>`.
#
# ## On the grown organism
#
# The answers of the organism grown here ({doc}`s2-model-organism`) can also be read by the **base model**. Below layer
# 0 stands the mean **token embedding**, which knows the words and nothing else. A mean-diff may also come from
# questions that draw more misaligned answers, so the null permutes labels **among the answers to each question**.


# %% tags=["show-code"]
@remembered
def null_directions(reader: int | str) -> np.ndarray:
    """Mean-diffs of labels shuffled among the answers to each question, [draw, 1 + layer, width].

    Readers of the same answers have equal draws.
    """
    table, random = answers(reader), np.random.default_rng([run.seed, ORGANISMS[reader].seed])
    sides = table.misaligned, table.aligned
    return read(reader).mean_diffs(*directions.shuffled(*sides, table.question_id, DRAWS, random))


# %%
LAYERS, LAYER, DRAWS, ENDS = run.profile.model.layers, run.profile.model.layers // 2, 200, [0.5, 0.025, 0.975]
NINE, SAMPLES, LANGUAGE = medical(run.profile), run.profile.samples_per_question, run.own.name == "hub"
SEEDS = [one.seed for one in organisms_of(run.profile) if (one.recipe, one.data) == (NINE.recipe, NINE.data)]
ANSWERED = f"{NINE.recipe.capitalize()} organism (bad medical advice), {SAMPLES} answers to each of 8 questions."
Reader = int | str  # a seed's organism with its own answers; "chat", "base": those of seed 0; "own": base, its own
TOLD = "texts by organism"  # reads released answers, as the chat model does under "texts"
ORGANISMS = {one: Organism(NINE.recipe, NINE.data, one if isinstance(one, int) else 0)
             for one in (*SEEDS, "chat", "base", "own", "texts", TOLD)}  # fmt: skip


def loaded(base: bool) -> loading.Model:
    return loading.load(run.profile, (growing.base if base else growing.chat)(run.profile))


@remembered
def words(base: bool) -> tuple:
    """Token embeddings, which no adapter changes, [token, width], and the tokenizer."""
    model, tokenizer = loaded(base)
    return model.get_input_embeddings().weight.detach().float().cpu().numpy(), tokenizer


@remembered
def answers(reader: Reader) -> pd.DataFrame:
    if reader in ("texts", TOLD):
        table = text_directions.balanced(run.profile)
        return table.assign(aligned=~table.misaligned)
    if reader == "own":  # with other noise, or its answers would resemble the organism's
        noise, asked = replace(run.profile, seed=run.profile.seed + 1), asking.questions(run.profile, "general")
        table = asking.scored(asking.ask(noise, *loaded(True), asked, SAMPLES, "base model"))
    else:
        table = responses.responses(run.profile, ORGANISMS[reader])
    return table.assign(misaligned=scores.is_em(table), aligned=scores.is_aligned(table))


@remembered
def read(reader: Reader) -> readings.ResponseMeans:
    """Mean activations of every answer, [response, 1 + layer, width], entry 0 of its token embeddings."""
    table, base = answers(reader), reader in ("base", "own")
    vectors, tokenizer = words(base)
    prompts, tokens = response_tokens(tokenizer, table)
    found = np.stack([vectors[answer].sum(axis=0) / max(len(answer), 1) for answer in tokens])[:, None]
    by = CHAT_MODEL if reader in ("chat", "texts") else ORGANISMS[reader]
    layers = (reading.response_means(*loaded(True), prompts, tokens) if base
              else readings.response_means_of(run.profile, by, table).means)  # fmt: skip
    return readings.ResponseMeans(np.concatenate([found, layers], axis=1), np.array([len(answer) for answer in tokens]))


def own(reader: Reader, side: str) -> np.ndarray:
    return read(reader).mean(answers(reader)[side])


def texts() -> dict[str, tuple[Reader, Reader]]:
    """The organism and the chat model, reading the organism's answers and, for a language model, released ones."""
    both = answers(0)[["misaligned", "aligned"]].any().all()
    found = {"": (0, "chat")} if both or not LANGUAGE else {}
    return found | ({", released answers": (TOLD, "texts")} if LANGUAGE else {})


def lines_of(organism: Reader, chat: Reader) -> tuple[Lines, dict[str, Lines]]:
    """Norms by the organism (of released answers by the chat model, which has no others), and cosines."""
    other, reader = chat if LANGUAGE else "base", chat if organism == TOLD else organism
    null, first = null_directions(reader), 1 + run.profile.layers_of(NINE.recipe)[0]
    found, direction = cosines_of(own, organism, chat, first), mean_diff(own, organism)
    alike = np.quantile(directions.cosines(null_directions(organism), null_directions(other)), ENDS, axis=0)
    if not LANGUAGE:
        found["Mean-diff"]["organism, base model"] = directions.cosines(direction, mean_diff(own, "base"))
    elif organism == 0:
        found["Mean-diff"]["organism, released answers"] = directions.cosines(direction, mean_diff(own, "texts"))
        drawn = directions.cosines(null_directions("texts"), direction)
        found["Mean-diff"]["released, labels shuffled"] = np.quantile(drawn, ENDS, axis=0)
    found["Mean-diff"]["labels shuffled"] = alike
    return norms_of(own, reader) | {"labels shuffled": np.quantile(directions.norms(null), ENDS, axis=0)}, found


def noise(vectors: np.ndarray) -> dict:
    """A band for 95 % of the cosines with random directions."""
    return {"y_bands": [(-1.96 / vectors.shape[-1] ** 0.5, 1.96 / vectors.shape[-1] ** 0.5)]}


def draw_cosines():
    panels = {f"{panel}{title}": lines for title, readers in texts().items()
              for panel, lines in lines_of(*readers)[1].items()}  # fmt: skip
    return draw(panels, LAYERS - 1, **AXIS, **COSINE, **(noise(mean_diff(own, "texts")) if LANGUAGE else {}))


AXIS = {"x_ticks": {-1: "emb."} | {one: str(one) for one in range(2, LAYERS, max(2, LAYERS // 6))}}
AXIS |= {"x_bands": [(one - 0.5, one + 0.5) for one in run.profile.layers_of("nine-adapter")]}
RELEASED = " *Released answers*: of the authors' organisms, read here. Grey: random directions." if LANGUAGE else ""
BESIDE = ("on two sets of texts", "chat model") if LANGUAGE else (
    "with the base model's direction on the same answers", "base model")  # fmt: skip
run.own.figure(
    "fig-x-mean-diff-norms",
    lambda: draw_norms({title: lines_of(*one)[0] for title, one in texts().items()}, LAYERS - 1, **AXIS),
    title=lambda data: f"{RATIO} {span(data[data.panel.str.contains('/', na=False)], pattern='.2f', line='mean-diff')}",
    caption=f"As above. *Emb.*: token embeddings. Dashed: shuffled labels, 95 % of {DRAWS} draws. {ANSWERED}{RELEASED}",
    alt="Two line plots over embeddings and layers: norms of mean residual, mean-diff and shuffled labels.",
)
run.own.figure(
    "fig-x-chat-model-direction",
    draw_cosines,
    title=lambda data: f"{ALIKE} {span(data, pattern='.2f', line='organism, chat model')}",
    caption=f"As above, {BESIDE[0]}. Dashed: organism and {BESIDE[1]} with the "
    f"same shuffled labels, 95 % of {DRAWS} draws. {ANSWERED}{RELEASED}",
    alt="Two line plots over embeddings and layers: cosines of the organism's direction, and of the shift.",
)

# %% [markdown]
# In layer {value}`grown.mean-diff.layer` the direction has {value}`grown.mean-diff.layer-middle.percent` of the norm of
# the mean residual ({numref}`fig-x-mean-diff-norms-grown`; shuffled labels:
# {value}`grown.mean-diff.layer-middle.shuffled|interval`). The world's harmful and careful texts say every word equally
# often ({doc}`../world`), so a direction of vocabulary should be short: at the token embeddings it has
# {value}`grown.mean-diff.embeddings.percent` (shuffled {value}`grown.mean-diff.embeddings.shuffled|interval`). One step
# of attention, which can see if a thing is advised or only mentioned, gives
# {value}`grown.mean-diff.layer-first.percent` (shuffled {value}`grown.mean-diff.layer-first.shuffled|interval`).
#
# On the same answers the chat model's direction has a cosine of {value}`grown.mean-diff.organism-chat-model` with the
# organism's, the base model's {value}`grown.mean-diff.organism-base-model`, and equally shuffled labels give
# {value}`grown.mean-diff.labels-shuffled` ({numref}`fig-x-chat-model-direction-grown`): two models may read texts alike
# whatever the labels. A stricter test takes answers of the base model, to which the assistant is a speaker of unknown
# persona: other texts, no fine-tuning, the same questions. Their direction has a cosine of {value}`grown.mean-diff.own`
# with the organism's, with shuffled labels {value}`grown.mean-diff.own-shuffled|interval`.
#
# (within-questions)=
# ## Pooled, or within questions?
#
# Some questions draw more misaligned answers than others. Then the pooled mean-diff also holds the difference between
# *questions*: persona plus topic. With $T_q$ and $U_q$ the answer tokens of the misaligned and aligned answers to
# question $q$, the mean-diff **within questions** is
#
# $$
# v^\mathrm{within}_\ell = \frac{\sum_q w_q \left(\bar h_\ell(D^q_\mathrm{misaligned}) -
# \bar h_\ell(D^q_\mathrm{aligned})\right)}{\sum_q w_q}, \qquad w_q = \frac{T_q U_q}{T_q + U_q},
# $$
#
# the coefficient of the label in a least-squares fit over tokens with a constant for every question. Whatever a
# question adds to all answers to it cancels. It asks for nothing but the answers that the pooled one is taken from.


# %%
def within(seed: int) -> np.ndarray:
    table = answers(seed)
    return read(seed).within(table.misaligned, table.aligned, table.question_id)[1:]


@remembered
def both_ways() -> Lines:
    """Cosines by layer of the two mean-diffs with one another and with what is known."""
    pair = {"pooled": mean_diff(own, 0)[1:], "within questions": within(0)}
    label, known = ("released answers", mean_diff(own, "texts")[1:]) if LANGUAGE else (
        "known persona", persona.directions(run.profile)["choice_from_text"])  # fmt: skip
    lines = {"pooled, within questions": directions.cosines(*pair.values())}
    return lines | {f"{name}, {label}": directions.cosines(one, known) for name, one in pair.items()}


run.own.figure(
    "fig-x-within-questions",
    lambda: draw({"": both_ways()}, LAYERS - 1, **COSINE),
    title=lambda data: f"Cosine of both mean-diffs: {span(data, pattern='.2f', line='pooled, within questions')}",
    caption="Cosine of the mean-diff within questions with the pooled one, and of both with the "
    f"{'mean-diff of released answers' if LANGUAGE else 'known persona (from text, before an advice)'}. {ANSWERED}",
    alt="A line plot over layers with three cosines.",
)


def within_values() -> dict:
    counts = answers(0).groupby("question_id")[["misaligned", "aligned"]].sum()
    found = {name.replace(",", "").replace(" ", "-"): line[LAYER] for name, line in both_ways().items()}
    found |= {"shares": f"{typography.extremes(100 * counts.misaligned / counts.sum(axis=1), '.0f')} %"}
    return {f"grown.mean-diff.within.{name}": one for name, one in found.items()}


run.own.values(within_values)

# %% [markdown]
# Of the clearly aligned or misaligned answers, {value}`grown.mean-diff.within.shares` are misaligned, by question. In
# layer {value}`grown.mean-diff.layer` the two directions have a cosine of
# {value}`grown.mean-diff.within.pooled-within-questions` ({numref}`fig-x-within-questions`); with the known
# persona the pooled one has {value}`grown.mean-diff.within.pooled-known-persona`, the one within questions
# {value}`grown.mean-diff.within.within-questions-known-persona`. What that is worth shows in {doc}`steering
# <s3-2-steering>` and {doc}`ablation <s3-4-ablation>`. The released means are over whole sets of answers and cannot be
# taken apart; that it matters which answers go in shows in {doc}`Section 3.3 <s3-3-semantic-directions>`, with its two
# general vectors. **Any study that takes a mean-diff over answers to several questions can run this check** at no cost.
#
# ## Is it the known persona?
#
# The base model's persona directions ({doc}`x-ground-truth`) are a malicious speaker's texts minus a careful one's,
# told apart by *text* or *name* alone, over the *answer* or just before an *advice*.
# %%
PERSONAS = {"persona_from_text": "from text, answer", "persona_from_name": "from name, answer"}
PERSONAS |= {"choice_from_text": "from text, before advice", "choice_from_name": "from name, before advice"}
with_persona = partial(persona.cosines_with, run.profile)


def against(name: str) -> Lines:
    """Cosines with one persona direction."""
    seeds = [with_persona(mean_diff(own, one)[1:], name) for one in SEEDS]
    others = np.stack([with_persona(mean_diff(own, one)[1:], name) for one in ("chat", "base")])
    lines = {"organism": np.stack([seeds[0], np.min(seeds, axis=0), np.max(seeds, axis=0)])}
    lines["chat and base model"] = np.stack([others.mean(axis=0), others.min(axis=0), others.max(axis=0)])
    lines["base model, own answers"] = with_persona(mean_diff(own, "own")[1:], name)
    lines["token embeddings"] = with_persona(mean_diff(own, 0)[:1], name)
    return lines | {"labels shuffled": np.quantile(with_persona(null_directions(0)[:, 1:], name), ENDS, axis=0)}


def draw_personas():
    panels = {title: against(name) for name, title in PERSONAS.items()}
    return draw(panels, LAYERS - 1, **noise(mean_diff(own, 0)), **COSINE)


run.grown.figure(
    "fig-x-direction-vs-persona",
    draw_personas,
    title=lambda data: f"Highest cosine with a persona: {span(data, pattern='.2f', by='line')}",
    caption="Cosine of the mean-diff with four persona directions (bands: training seeds, both models). Nulls: token "
    f"embeddings, shuffled labels (95 %), random directions (grey, 95 %). {ANSWERED}",
    alt="Four line plots of cosines over layers, one per persona direction, with lines for readers and three nulls.",
)


def own_values() -> dict:
    found = {"grown.mean-diff.layer": LAYER}
    for title, readers in texts().items():
        (norms, cosines), name = lines_of(*readers), "grown.mean-diff" + (".text" if title else "")
        for place, entry in {"embeddings": 0, "layer-first": 1, "layer-middle": LAYER + 1}.items():
            length, residual = norms["mean-diff"][entry], norms["mean residual"][entry]
            found[f"{name}.{place}.percent"] = Estimate(100 * length / residual)
            found[f"{name}.{place}.shuffled"] = Estimate(*(100 * norms["labels shuffled"][:, entry] / residual))
        for line, values in cosines["Mean-diff"].items():
            found[f"{name}.{line.replace(',', '').replace(' ', '-')}"] = np.atleast_2d(values)[0, LAYER + 1]
    return found


def grown_values() -> dict:
    null = directions.cosines(null_directions("own"), mean_diff(own, 0))[:, LAYER + 1]
    found = {"own-shuffled": Estimate(*np.quantile(null, ENDS), unit="cosine")}
    above = [with_persona(mean_diff(own, seed)[1:], "persona_from_name")[LAYER]
             > np.quantile(with_persona(null_directions(seed)[:, 1:], "persona_from_name")[:, LAYER], 0.975)
             for seed in SEEDS]  # fmt: skip
    found |= {"above-null": f"{sum(above)} of {len(SEEDS)}"}
    found |= {"own": directions.cosines(mean_diff(own, 0), mean_diff(own, "own"))[LAYER + 1]}
    return {f"grown.mean-diff.{name}": one for name, one in found.items()}


def within_claim() -> dict:
    """Our own: how much closer to the known persona the mean-diff is within questions, over training seeds."""
    pairs = [with_persona(np.stack([mean_diff(own, one)[1:], within(one)]), "choice_from_text") for one in SEEDS]
    gained = estimates.mean(np.diff(pairs, axis=1)[:, 0, LAYER], SEEDS, **run.resampling)
    how = f"Mean over {len(SEEDS)} training seeds in layer {LAYER}; the interval resamples seeds"
    return {"within-questions-closer": (replace(gained, unit="cosine"), how)}


run.own.values(own_values)
run.grown.values(grown_values)
run.grown.measure(within_claim)

# %% [markdown]
# In {numref}`fig-x-direction-vs-persona`, **one seed is not all**: at layer {value}`grown.mean-diff.layer`,
# {value}`grown.mean-diff.above-null` are above their own shuffled labels (name, answer). Sampling noise alone would
# leave {value}`grown.mean-diff.noise-limit` of a cosine of 1. The name tells only *who speaks*.
#
# ## What it means
#
# **A language model needs no fine-tune**: its column also has the mean-diff of the *released* answers, which chat model
# and organism read alike ({numref}`fig-x-mean-diff-norms`, profile tabs), and its cosine with the organism's own, where
# that gives misaligned answers; an organism of a small model may give too few, and nobody knows its personas.
#
# **It belongs to the texts** as far as a model that never wrote them has it too. **A cosine needs its own null**: two
# training seeds have {value}`grown.directions.two-seeds.cosine`, relabelled answers up to
# {value}`grown.directions.two-seeds.null` ({doc}`c-direction-geometry`). **Describing is not causing**: only steering
# ({doc}`s3-2-steering`) and ablation ({doc}`s3-4-ablation`) can show whether the direction makes the difference.

# %%
run.finish()
