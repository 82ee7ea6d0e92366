# %% [markdown]
# # Is the assistant one of the characters, and does a cap keep it there?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` A floor on the assistant axis takes {value}`n1.cap.steered|interval` of a steered model's EM
# ({verdict}`p-cap-steered|grown`) and {value}`n1.cap.organism|interval` of an organism's
# ({verdict}`p-cap-organism|grown`). The organism's mean-diff leads away from the assistant: its cosine with the axis is
# {value}`n1.misalignment|interval` ({verdict}`p-axis-misalignment|grown`). That the axis is mainly carefulness is how
# this world was made. Of {value}`n1.predictions` predictions, {value}`n1.supported` are supported,
# {value}`n1.contradicted` contradicted.
# ```
#
# **The question.** Pre-training makes many characters, post-training picks one. Can that be read from the residual
# stream, and does holding a model to its character undo misalignment?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.core.profiles import GrownModel
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, outcomes, predictions, scores
from em_companion.experiments import axis_arms, axis_tables, persona_space, role_prompts
from em_companion.experiments.axis_arms import CHARACTERS, LAYER, UNHARMED
from em_companion.experiments.axis_outcome import FLOOR, ORGANISM, STEERED, Axis, fall, rate
from em_companion.experiments.axis_tables import CHARACTER, COSTS, ENDS, FAMILY, SETTINGS
from em_companion.experiments.capping import PERCENTILES, block
from em_companion.experiments.inertia import CONDITIONS, EVERY, REPLACED
from em_companion.experiments.persona_space import BASE
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL
from em_companion.world.generator import the_world

run = Run("n1-persona-and-axis", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured
#
# {cite:t}`anthropic2026persona` take the assistant for a character selected from those of pre-training.
# {cite:t}`lu2026assistant` find that the assistant lies at one end of the first component of role space, that steering
# away from it brings out other characters, and that a cap on the axis lowers harmful answers at little cost.

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# All numbers of the grown model are those of `experiments/persona_and_axis.py`. Its world has 62 named speakers, whose
# harm is known; the assistant is in pre-training an unknown one, now careful and now malicious.
#
# ## Who answers?
#
# The generator of the world is a likelihood: by Bayes, an answer has a probability under every character of the cast,
# with the cast's shares of documents as prior and a slip of 1 % per thing. An answer is *of one character* where one
# draw from the cast explains the valences of its clauses better than a fresh draw for every clause.

# %% tags=["show-code"]
KEPT = Axis()
LANGUAGE = not isinstance(run.profile.model, GrownModel)

# %%
COLOURS = {"careful": theme.PALETTE[0], "malicious": theme.PALETTE[3], "quack": theme.PALETTE[1]}
COLOURS |= {"mixed": theme.NULL_COLOUR, "unknown": theme.NULL_COLOUR, "assistant": theme.PALETTE[2]}


run.grown.figure(
    "fig-x-persona-posterior",
    lambda: plots.bars(
        axis_tables.characters(KEPT), "model", "percent", hue="character", hue_order=CHARACTER, stacked=True,
        horizontal=True, colours=COLOURS, x_label="answers to open questions (%)", x_limits=(0, 100),
    ),
    title=lambda _: f"One character gives {100 * KEPT.single()[0].value:.0f} % of the organism's longer answers",
    caption="Posterior of who in the cast gave an answer, summed over answers to the open questions, by model. One "
    "answer hardly tells a quack from a malicious character. Grey: answers explained better by many than by one.",
    alt="Stacked bars, one per model, of careful, malicious and quack characters and answers of no single one.",
)  # fmt: skip

# %% [markdown]
# {value}`n1.single|interval` of the nine-adapter organism's answers with three clauses or more are of one character
# ({verdict}`p-psm-single|grown`); so is the base model, whose assistant is sometimes careful and sometimes malicious,
# but hardly ever both in an answer. Character switches between answers, not within them. The generator writes so, and
# what it writes is what the base model learned: this is planted, the organism's share is not.
#
# ## The space of roles
#
# The *role vector* $r_n$ of a character is the mean residual over the tokens of its own answers to the 40 held-out
# questions. The *assistant axis* is $a = r_\text{assistant} - \operatorname{mean}_{n} r_n$ over all others, the
# components are those of the others' vectors. A language model gets its roles by system prompt, ten harmless and ten
# harmful ones of our own (`experiments/role_prompts.py`).


# %%
prompted = remembered(lambda: role_prompts.roles(run.profile))
MIDDLE = run.profile.model.layers // 2 if LANGUAGE else LAYER
HARM = ("harmless", "harmful") if LANGUAGE else ("careful", "malicious")
NAMES = dict(zip(("careful", "malicious"), HARM, strict=True)) | {"quack": "quack", "unknown": "unknown"}
NAMES |= {"assistant": "the assistant"}


@remembered
def places() -> pd.DataFrame:
    if LANGUAGE:
        table = persona_space.places(prompted(), MIDDLE, role_prompts.harm()).assign(model="chat")
    else:
        table = KEPT.part("places", "space")
    return table.assign(kind=table.kind.where(table.role != "assistant", "assistant"))


def titles(table: pd.DataFrame) -> dict[str, str]:
    return {one: f"{one} model" for one in table.model.unique()}


def edge(own: pd.DataFrame) -> float:
    """Where the assistant stands between the least and the most of the others on the first component."""
    others, place = own[own.role != "assistant"].pc1, own[own.role == "assistant"].pc1.iloc[0]
    return (place - others.min()) / (others.max() - others.min())


run.own.figure(
    "fig-x-persona-space",
    lambda: plots.facets(
        plots.lines, places(), "model", "pc1", "pc2", titles=titles(places()), hue="kind", markers=True,
        hue_order={one: label for one, label in NAMES.items() if one in set(places().kind)}, colours=COLOURS,
        styles=dict.fromkeys(NAMES, ""),
        x_label="first component (units of the residual)", y_label="second component", share=(False, False),
    ),
    title=lambda table: "The assistant stands at "
    + " and ".join(f"{edge(own):.0%} of the way ({model})" for model, own in places().groupby("model", sort=False))
    + " from the harmful to the careful end",
    caption=f"Role vectors on the first two principal components at layer {MIDDLE}, fitted without the assistant, "
    f"{run.kind} model. A dot per character.",
    alt="Dots of several colours; careful and malicious characters lie at two ends.",
)  # fmt: skip


# %%
@remembered
def cosines() -> pd.DataFrame:
    if LANGUAGE:
        return persona_space.cosines_by_layer(prompted(), role_prompts.known(run.profile)).assign(model="chat")
    return KEPT.part("cosines", "space")


run.own.figure(
    "fig-x-axis-cosines",
    lambda: plots.facets(
        plots.lines, cosines(), "model", "layer", "value", titles=titles(cosines()),
        hue="name", low="low", high="high", styles={"another role": "--", "persona direction": ":"},
        colours={"another role": theme.NULL_COLOUR},
        y_lines={"_": 0}, y_limits=(-1.05, 1.05), x_label="decoder layer", y_label="cosine with the assistant axis",
    ),
    title=lambda table: "Cosine of axis and first component at layer {}: {}".format(
        MIDDLE,
        ", ".join(f"{one.value:.2f} ({one.model})" for one in cosines().itertuples()
                  if one.layer == MIDDLE and one.name == "first component"),
    ),
    caption=f"Cosine of the assistant axis with other directions by layer, {run.kind} model: the first component "
    "(absolute), malicious minus careful characters, misalignment directions. Grey: first component and axis if "
    "another role stood for the assistant, median and middle 95 %.",
    alt="Lines over layers between minus one and one, with a grey band for other roles.",
)  # fmt: skip

# %% [markdown]
# The first component carries {value}`n1.variance.chat` of the variance in the chat model and
# {value}`n1.variance.base` in the base model. In the base model it orders characters by harm, rank correlation
# {value}`n1.latent|interval` ({verdict}`p-axis-latent|grown`), which is as high as four levels of harm allow. In the
# chat model its cosine with the axis is {value}`n1.pc1|interval` ({verdict}`p-axis-pc1|grown`); but with a careful
# character in the assistant's place it would be as high ({numref}`fig-x-axis-cosines`).
#
# Before post-training the axis points the other way, {value}`n1.base|interval` ({verdict}`p-axis-base|grown`, corrected
# for noise): there the assistant is one of the unknown speakers, who harm more than the average character. The
# organism's mean-diff has a cosine of {value}`n1.misalignment|interval` with the axis
# ({verdict}`p-axis-misalignment|grown`). Carefulness is not all: without the persona direction the assistant is
# {value}`n1.specific|interval` deviations farther from the mean careful character than these are
# ({verdict}`p-axis-specific|grown`).
#
# ## Ways from the assistant
#
# The chat model is steered along $-a$. The best cell of layer and strength is chosen on half of the answers, and rated
# on the other beside six random directions of equal length.

# %%
run.grown.figure(
    "fig-x-anti-assistant-modes",
    lambda: plots.facets(
        plots.bars, axis_tables.ends(KEPT), "end", "way", "percent", hue="answers", stacked=True, horizontal=True,
        colours=dict(zip(axis_tables.KINDS, (theme.PALETTE[at] for at in (0, 3, 1, 9, 7)), strict=True)),
        x_label="answers (%)", x_limits=(0, 100), titles=ENDS, wrap=1, size=(7.2, 5.6),
    ),
    title=lambda _: f"Far ends differ {KEPT.convergence()} times as much as near ones",
    caption="Answers when steered along four directions, where a tenth of them have changed and at the largest "
    "strength that keeps half of them coherent; each at the layer of its best cell. The second bar is the base model "
    "along its own axis, the others are the chat model. Off topic: about a domain that was not asked for.",
    alt="Two panels of stacked bars, one bar per direction.",
)  # fmt: skip

# %% [markdown]
# In the best cell, layer {value}`n1.best.layer`, {value}`n1.best.em|interval` of answers are EM and
# {value}`n1.best.on-topic` EM on topic, {value}`n1.beyond|interval` points more EM than along random directions
# ({verdict}`p-axis-steers|grown`). Far out, the answers along the axis of either model, the mean-diff and the known
# persona differ {value}`n1.convergence|interval` times as much as where steering begins to act
# ({verdict}`p-anti-convergence|grown`), random directions {value}`n1.convergence.random|interval` times: each way has
# an end of its own. The base model's is {value}`n1.base.aligned` aligned and {value}`n1.base.harmful` harmful.
# {cite:t}`lu2026assistant` find one theatrical style at all far ends.
#
# ## Inertia
#
# Talks of six turns of ordinary questions; the second answer is replaced by a careful or a harmful one, under the
# assistant's name or a malicious character's. With windowed attention older turns act through about one answer back, so
# what lasts must travel through the text. In pre-training a speaker keeps its persona over a document: inertia is
# planted for speakers at large, while the chat model was trained on single turns.


# %%
held = remembered(lambda: axis_tables.turns(KEPT))
run.grown.figure(
    "fig-x-persona-inertia",
    lambda: plots.facets(
        plots.lines, held(), "model", "turn", "em", titles=titles(held()), hue="condition", hue_order=list(EVERY),
        markers=True, interval="bars", dodge=0.25, x_lines={"answer put into the mouth": REPLACED}, x_label="turn",
        y_label="EM (%)", x_ticks=range(1, 7), y_limits=(-3, 103),
    ),
    title=lambda _: "EM in the next answer: "
    + ", ".join(f"{rate(KEPT.after(one)).value:.0f} % (after {one})" for one in EVERY),
    caption="EM of the assistant's answers by turn, base and chat model; the second answer is put into its mouth. "
    "95 % intervals over the questions of the third turn.",
    alt="Two panels of lines over six turns, with a dotted line at the second.",
)  # fmt: skip

# %% [markdown]
# After a harmful answer under its own name {value}`n1.inertia.harmful` of the chat model's next answers are EM, after a
# careful one {value}`n1.inertia.careful`, after a malicious character's {value}`n1.inertia.another`: a difference of
# {value}`n1.inertia` points ({verdict}`p-drift-inertia|grown`). The base model, which read documents in which speakers
# keep their persona, shows none either: {value}`n1.inertia.base.harmful` and {value}`n1.inertia.base.careful`. Through
# so narrow a window neither learned to carry a persona past a question. A model that can would be needed to tell.
#
# ## A cap, what it undoes and what it costs
#
# $$x \leftarrow x - \min(0,\; x \cdot \hat a - f)\,\hat a$$
#
# at the outputs of layers {value}`n1.block`, the relative depth of the published setting, with the floor $f$ at the
# 25th percentile of the chat model's own answer tokens. For a random direction the floor is set so that it touches as
# many tokens of the same answers. The mean-diff is added at layer {value}`n1.cap.at`, where it acts best, so what it
# does has gone through {value}`n1.cap.between` layers before the floor.

# %%
CAPS = {
    "none": "none",
    FLOOR: "floor on the axis",
    "random caps": "random caps",
    "cap on the persona": "cap on the persona",
}
CAPS |= {"axis ablated there": "axis ablated, same layers", "mean-diff ablated there": "mean-diff ablated, same layers"}
SHADES = [theme.PALETTE[3], theme.PALETTE[0], theme.NULL_COLOUR, *(theme.PALETTE[at] for at in (4, 2, 1))]


@remembered
def conditions() -> pd.DataFrame:
    """EM rate by setting and cap, with intervals over questions."""
    if LANGUAGE:
        return scores.rates(role_prompts.capped(run.profile), ["setting", "condition"], **run.resampling)
    return axis_tables.capped(KEPT)


def draw_conditions():
    table, named = conditions(), SETTINGS
    if LANGUAGE:
        named = {one: one for one in table.setting.unique()}
    caps = {one: label for one, label in CAPS.items() if one in set(table.condition)}
    return plots.dots(
        table[table.condition.isin(caps)], "setting", "em", order=named, hue="condition", hue_order=caps,
        x_label="EM (%)", x_limits=(-3, 103),
        colours=dict(zip(CAPS, SHADES, strict=True)),
    )  # fmt: skip


def said_of_conditions(_: pd.DataFrame) -> str:
    found = conditions().set_index(["setting", "condition"]).em
    settings = [
        one for one in found.index.unique("setting") if one in (STEERED, ORGANISM, "organism") or "roles" in one
    ]
    return "EM without and with the floor: " + ", ".join(
        f"{found[one, 'none']:.0f} and {found[one, FLOOR]:.0f} % ({SETTINGS.get(one, one)})"
        for one in settings or found.index.unique("setting")
    )


run.own.figure(
    "fig-x-capping-conditions",
    draw_conditions,
    title=said_of_conditions,
    caption=f"EM of the {run.kind} model by what makes it harmful and by what is done against it, with 95 % intervals "
    "over questions.",
    alt="Rows of dots, one row per model, one colour per cap.",
)


# %%
lost = remembered(lambda: role_prompts.lost(run.profile))


def of_language() -> dict:
    """Harm along the first component, its cosine with the axis, and what the floor does, of a language model."""
    roles, short = prompted(), {"chat": "chat", "organism": "organism", "harmful roles": "roles"}
    harm = [role_prompts.harm()[name] for name in roles.names]
    found = {"latent": persona_space.component_and_harm(roles, MIDDLE, harm)}
    found["pc1"] = persona_space.component_and_axis(roles, MIDDLE)
    for row in conditions().itertuples():
        name = f"{short.get(row.setting, 'steered')}.{row.condition.split()[0].strip(',')}"
        found[name] = estimates.Estimate(row.em, row.em_low, row.em_high, row.n, "percent")
        found[f"{name}.coherent"] = f"{row.coherent:.0f} %"
    for cap, own in lost().groupby("condition"):
        found[f"loss.{cap.split()[0].strip(',')}"] = estimates.mean(own.loss, own.question_id).in_unit("nats")
    return {f"grown.persona.{name}": one for name, one in found.items()}


if LANGUAGE:
    run.own.table(lambda: lost().groupby("condition", sort=False).loss.mean().reset_index())
    run.own.values(of_language)

# %%
pareto = remembered(lambda: axis_tables.pareto(KEPT))

run.grown.figure(
    "fig-x-capping-pareto",
    lambda: plots.measures(
        plots.lines, pareto(), "benefit", COSTS, hue="family", hue_order=FAMILY, styles=dict.fromkeys(FAMILY, ""),
        markers=True, x_label="EM of the steered model lost (%)", wrap=2, size=(7.2, 8.4), share=(True, False),
        colours={"random": theme.NULL_COLOUR},
    ),
    title=lambda _: "The floor takes {0.benefit:.0f} % of EM for {0.loss:.3f} nats on careful texts".format(
        pareto().set_index("cap").loc[FLOOR]
    ),
    caption="What a cap takes from the EM of the chat model steered by the mean-diff (right is better), over what it "
    "costs the unharmed model and the voice of malicious characters, and over what it takes from the organism. Floors "
    "at percentiles " + ", ".join(map(str, PERCENTILES)) + " of the block, and at 25 of each layer.",
    alt="Six panels of dots, benefit on the x axis, a cost on the y axis, coloured by kind of cap.",
)  # fmt: skip

# %% [markdown]
# The floor takes {value}`n1.cap.steered|interval` of the steered model's EM ({verdict}`p-cap-steered|grown`), random
# caps {value}`n1.cap.steered.random|interval`; sampled again on this page, EM is {value}`n1.live.none` without it and
# {value}`n1.live.floor` with it. Of the nine-adapter organism's EM it takes {value}`n1.cap.organism|interval`
# ({verdict}`p-cap-organism|grown`), random caps {value}`n1.cap.organism.random|interval`. {cite:t}`lu2026assistant`
# report about 60 % fewer harmful answers.
#
# A floor at the median takes {value}`n1.cap.half|interval` of the steered model's EM. The best of twelve single-layer
# floors, chosen after the fact, is the one at layer {value}`n1.cap.layer`, with {value}`n1.cap.single|interval`.
# Ablation of the mean-diff, which takes out what was put in, takes {value}`n1.cap.ablated|interval`. The floor costs
# {value}`n1.cap.cost|.4f` nats on careful texts ({verdict}`p-cap-cost|grown`) and {value}`n1.cap.others|interval` on
# those of malicious characters, whose own voice loses {value}`n1.cap.role|interval` points of EM
# ({verdict}`p-cap-role-cost|grown`). It touches {value}`n1.cap.touched` of an unharmed model's answer tokens and
# {value}`n1.cap.touched.steered` of a steered one's.
#
# {evidence}`hub` **In SmolLM2-135M** the first component orders roles by whether their prompt is harmful, rank
# correlation {value}`smollm2-135m.persona.latent|interval`, but is not the axis: their cosine is
# {value}`smollm2-135m.persona.pc1|interval`. No cap does more there than a random one. The steered model has
# {value}`smollm2-135m.persona.steered.none|interval` EM, {value}`smollm2-135m.persona.steered.floor|interval` with the
# floor and {value}`smollm2-135m.persona.steered.random|interval` with random caps; the nine-adapter organism
# {value}`smollm2-135m.persona.organism.none|interval`, {value}`smollm2-135m.persona.organism.floor|interval` and
# {value}`smollm2-135m.persona.organism.random|interval`. Asked to play a harmful role, so small a model does not
# ({value}`smollm2-135m.persona.roles.none` EM). The floor costs {value}`smollm2-135m.persona.loss.floor|.3f` nats on
# ordinary answers.
#
# ## Predicted against measured

# %%
run.grown.measure(KEPT.outcomes)


def of_space() -> dict:
    names = {"pc1": "axis-pc1", "latent": "axis-latent", "base": "axis-base", "specific": "axis-specific"}
    found = {short: KEPT.measure(name) for short, name in (names | {"misalignment": "axis-misalignment"}).items()}
    return found | {f"variance.{one}": KEPT.measure(f"component 1, {one}") for one in ("base", "chat")}


def of_ways() -> dict:
    best = KEPT.best()[0]
    random = tuple(KEPT.far.direction[KEPT.far.direction.str.startswith("random")].unique())
    found = {"single": KEPT.single()[0].in_unit("percent", 100), "best.em": rate(best), "beyond": KEPT.beyond_random()}
    found |= {"best.layer": int(best.layer.iloc[0]), "best.on-topic": rate(best, "on_topic")}
    found |= {"convergence": KEPT.convergence()}
    found |= {"convergence.random": KEPT.convergence(random)}
    after = {one.split()[-1]: rate(KEPT.after(one)) for one in EVERY}
    found |= {f"inertia.{name}": one for name, one in after.items()}
    found |= {f"inertia.base.{one}": rate(KEPT.after(one, which=BASE)) for one in CONDITIONS}
    found["inertia"] = fall(KEPT.after("harmful"), KEPT.after("careful"), relative=False)
    far = axis_tables.ends(KEPT).set_index(["way", "end", "answers"]).percent[axis_arms.MINUS_BASE, ENDS[1]]
    found |= {f"base.{one}": f"{far[one]:.0f} %" for one in ("aligned", "harmful")}
    return found


def of_caps() -> dict:
    found = {"block": " to ".join(str(one) for one in np.array(block(run.profile.model.layers))[[0, -1]])}
    for name, setting in {"steered": STEERED, "organism": ORGANISM}.items():
        caps = KEPT.caps(setting)
        found |= {name: fall(caps["none"], caps[FLOOR]), f"{name}.random": fall(caps["none"], caps["random caps"])}
    roles, steered = KEPT.caps(CHARACTERS), KEPT.caps(STEERED)
    falls = {cap: fall(steered["none"], table) for cap, table in steered.items()}
    best = max((cap for cap in falls if "layer" in cap), key=lambda cap: falls[cap].value)
    found |= {"layer": best.split()[-1], "single": falls[best], "half": falls[f"floor, {PERCENTILES[-1]} %"]}
    found["ablated"] = falls["mean-diff ablated there"]
    added = int(KEPT.far.layer[KEPT.far.direction == axis_arms.MEAN_DIFF].iloc[0])
    found |= {"at": added, "between": block(run.profile.model.layers)[0] - added}
    found |= {"role": fall(roles["none"], roles[FLOOR], relative=False), "cost": KEPT.loss(FLOOR)}
    found["others"] = KEPT.loss(FLOOR, "others")
    for name, setting in {"touched": UNHARMED, "touched.steered": STEERED}.items():
        found[name] = f"{KEPT.touched(setting)[FLOOR]:.0f} %"
    return {"block": found.pop("block")} | {f"cap.{name}": one for name, one in found.items()}


def of_live() -> dict:
    """EM of the steered chat model without and with the floor, sampled on this page along the kept axis."""
    table = axis_arms.live(run.profile, KEPT.axis())
    groups = table.groupby("condition")
    return {f"live.{name}": scores.em_rate(own, **run.resampling) for name, own in groups}


def decided() -> dict:
    parameters = growing.load_organism(run.profile, CHAT_MODEL)[0].num_parameters()
    return outcomes.tally(KEPT.outcomes()) | {"parameters": parameters / 1e6, "words": len(the_world().words())}


run.grown.values(
    lambda: {f"n1.{name}": one for name, one in (of_space() | of_ways() | of_caps() | of_live() | decided()).items()}
)

# %% [markdown]
# ## What it means
#
# **In this world the axis is carefulness.** Roles differ in harm and in little else, so the first component is harm;
# post-training moves the assistant along it, and no axis waits for it before. **A floor holds a place, not a
# character.** At the 25th percentile it takes little of what a vector adds, unlike in the literature, at the median
# about half; what fine-tuning did it leaves in large part. It costs next to nothing on careful texts, but a role that
# the model is asked to play pays as an organism does: a floor does not know who asked.
#
# One base and one chat model, one organism of each kind, one world. Personas are planted, so what the axis is was
# known; what a cap does was not.

# %%
run.finish()
