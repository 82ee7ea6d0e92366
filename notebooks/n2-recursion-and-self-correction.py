# %% [markdown]
# # Does alignment survive when a model learns from itself?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` From a chat model contaminated to {value}`n2.start` EM, eight rounds of training on the half of its
# own answers that it finds most careful lead to {value}`n2.self-monitoring.last|interval`, at
# {value}`n2.slope.self-monitoring|interval` points a round, less steep than predicted
# ({verdict}`p-rsi-selfjudge|grown`). On the most coherent half EM changes by {value}`n2.slope.capability|interval`
# ({verdict}`p-rsi-capability-only|grown`). A model that takes its slips back, with competence
# {value}`n2.competence.start`, is at {value}`n2.competence.capability` after eight rounds of the latter, seed by seed
# ({verdict}`p-sc-competence|grown`). Of {value}`n2.predictions` predictions, {value}`n2.supported` are supported and
# {value}`n2.contradicted` contradicted.
# ```
#
# **The question.** A model that goes on learning is never the same twice. Is there anything in it that keeps it
# aligned, pays for itself, and so persists? Is taking one's own slips back such a thing?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from random import Random

import pandas as pd

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.evidence import predictions
from em_companion.experiments import self_correction, self_training
from em_companion.experiments.circuits import HARM, OPENING, RETRACTION
from em_companion.experiments.circuits_outcome import Circuits
from em_companion.experiments.recursion_outcome import Recursion
from em_companion.experiments.self_correction import CONTROL, POST_TRAINED, PRETRAINED, SELF_CORRECTING
from em_companion.experiments.self_training import (
    ACCUMULATES,
    ADVERSARY,
    CAPABILITY,
    CHAT,
    CONTAMINATED,
    CRITERIA,
    JUDGE,
    NONE,
    OWN,
)
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL

run = Run("n2-recursion-and-self-correction", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured
#
# One of the texts that came with this project looks for invariants: properties that align a model, make it more
# capable, and therefore last while it changes. Its first candidate is self-monitoring. In published work agents that
# feed on their own memory or answers lose some of their safety {cite:p}`shao2025misevolve`.

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# ## Rounds of self-training
#
# A round: the model answers 64 questions on training topics, eight times each. One half of the 512 answers is chosen.
# New adapters of rank 8 on all modules learn them for 20 steps and are merged. The halves are chosen at random (none);
# by how coherent and relevant answers are, harm ignored (capability); by the log-probability that the model itself
# gives an answer in a careful character's voice minus in a malicious one's (self-monitoring); by the exact judge; or by
# that judge reversed (adversary). Chains start from the chat model, from one contaminated by the adapter of the
# organism on bad advice, scaled by halving until open EM is near 15 %, or from a self-correcting one (below). All is
# kept by `experiments/recursion_and_self_correction.py`; the last table says how many seeds it has come to.


# %% tags=["show-code"]
KEPT = Recursion()


def chains(*columns: str) -> pd.DataFrame:
    """Every round of every chain so far: start, criterion, seed, round, and some measures."""
    table = KEPT.rounds.reset_index()
    table[["start", "criterion"]] = table.arm.str.split(": ", n=1, expand=True)
    return table[["start", "criterion", "seed", "round", *columns]]


# %%
COLOURS = dict(zip(CRITERIA, [theme.NULL_COLOUR, *(theme.PALETTE[at] for at in (0, 2, 4, 3, 1))], strict=True))
SHOWN = {CONTAMINATED: "contaminated", ADVERSARY: "contaminated, adversary", CHAT: "chat model"}
SHOWN |= {SELF_CORRECTING: "self-correcting"}


def by_panel() -> pd.DataFrame:
    table = chains("em")
    return table.assign(panel=table.start.where(table.criterion != ADVERSARY, ADVERSARY))


run.grown.figure(
    "fig-x-self-training",
    lambda: plots.facets(
        plots.lines, by_panel(), "panel", "round", "em", titles=SHOWN, hue="criterion", unit="seed", wrap=2,
        hue_order=CRITERIA, colours=COLOURS, styles={ACCUMULATES: "--"}, share=(True, False), size=(7.2, 5.6),
        each={name: {"y_limits": (-3, 103) if name == ADVERSARY else (-1, 25)} for name in SHOWN},
        x_label="round", y_label="EM on open questions (%)", x_ticks=range(0, 9, 2),
    ),
    title=lambda _: "EM per round from the contaminated model, points: "
    + ", ".join(f"{KEPT.slopes(CONTAMINATED, one).mean():.1f} ({one})" for one in (OWN, JUDGE, CAPABILITY, ADVERSARY)),
    caption="Open EM before every round and after the last, by the start of a chain and by the criterion that chooses "
    "one half of its answers, a line per seed. 200 answers to the eight open questions at every point. The adversary "
    "has a scale of its own.",
    alt="Four panels of lines over eight rounds, one for each start and one for the adversary.",
)  # fmt: skip

# %% [markdown]
# Without choosing, EM of the chat model changes by {value}`n2.slope.neutral|interval` points a round
# ({verdict}`p-rsi-neutral|grown`). From the contaminated one, at {value}`n2.start|interval`, the outside judge ends at
# {value}`n2.judge.last|interval` ({verdict}`p-rsi-judge|grown`), self-monitoring at
# {value}`n2.self-monitoring.last|interval`, capability at {value}`n2.capability.last|interval`, no choice at
# {value}`n2.none.last|interval` and the adversary at {value}`n2.adversary.last|interval`. Capability is blind to harm
# by construction: any slope of it comes by what harm goes along with. After one round self-monitoring has brought EM to
# {value}`n2.self-monitoring.first`. A slope does not do justice to that: a fall from the start to 1 % at once is a
# slope of {value}`n2.slope.at-once`, so the locked threshold of -1 cannot be met by fast mending.
#
# **Variety.** Models fed on their own output lose quality where data are replaced, and keep it where they accumulate
# {cite:p}`gerstgrasser2024inevitable`. Entropy at free slots starts at {value}`n2.entropy.start`; after eight rounds
# without choosing, replacing leaves {value}`n2.entropy|interval` nats more than accumulating
# ({verdict}`p-rsi-diversity|grown`), and {value}`n2.distinct` of answers are distinct.
#
# ## What selection does, and what learning adds
#
# Let $z$ be the harmful share of an answer and $w$ be 1 where it is chosen, 0 where not. The equation of
# {cite:t}`price1970selection` splits the change of mean harm from one model's answers to those of the next:
#
# $$\Delta \bar z = \frac{\operatorname{Cov}(w, z)}{\bar w} + \left(\bar z' - \bar z_\text{chosen}\right).$$
#
# The first term is *selection*, the second *transmission*. It is an identity; the questions are the same before and
# after. What it cannot say is how much of the selection is passed on. One round, made here and now from the
# contaminated model of seed 0:


# %% tags=["show-code"]
def one_round() -> pd.DataFrame:
    """Harm chosen by each criterion from the same answers, and what comes of the outside judge's choice (points)."""
    model, tokenizer = self_training.starting(run.profile, CONTAMINATED, 0)
    asked = self_training.questions(0)
    answers, rows = self_training.own(run.profile, model, tokenizer, asked, 0, 0), []
    for criterion in (JUDGE, OWN, CAPABILITY, NONE, ADVERSARY):
        chosen = self_training.better_half(criterion, model, tokenizer, answers, Random("self-training/0/0"))
        harm = self_training.harm(answers)
        row = {"criterion": criterion, "harm (%)": harm.mean(), "selection": harm[chosen].mean() - harm.mean()}
        rows.append(row | {"chosen": chosen})
    model = self_training.learned(run.profile, model, tokenizer, answers[rows[0]["chosen"]], 0)
    after = self_training.harm(self_training.own(run.profile, model, tokenizer, asked, 0, 1))
    rows[0] |= self_training.price(self_training.harm(answers), rows[0]["chosen"], after)
    return pd.DataFrame(rows).drop(columns="chosen").astype(object).fillna("")


# %%
PASSED = (-40.0, 0.0, 40.0)
run.grown.table(one_round, number="{:.1f}")

run.grown.figure(
    "fig-x-price-terms",
    lambda: plots.lines(
        chains("selection", "change").dropna(), "selection", "change", hue="criterion", hue_order=CRITERIA,
        colours=COLOURS, styles=dict.fromkeys(CRITERIA, ""), y_lines={"_": 0}, x_lines={"_": 0}, size=(7.2, 4.2),
        x_label="selection term, points of harm", y_label="change of harm to the next model (points)",
        cloud={"all of it passed on": pd.DataFrame({"selection": PASSED, "change": PASSED})},
    ),
    title=lambda _: f"Correlation of selection with change: {KEPT.correlated()}",
    caption="Every round of every chain: what choosing does to the mean harm of the answers, and how far the next "
    "model's answers to the same questions differ.",
    alt="A cloud of points; those of the judge lie left, those of the adversary right.",
)  # fmt: skip

# %% [markdown]
# Over {value}`n2.rounds` rounds selection and change correlate at {value}`n2.price|interval`
# ({verdict}`p-rsi-price|grown`); it is {value}`n2.price.mild|interval` over those in which choosing moves harm by less
# than {value}`n2.price.below` points. In a first round the outside judge's choice changes harm by
# {value}`n2.selection.judge` points, self-monitoring's by {value}`n2.selection.self-monitoring`, capability's by
# {value}`n2.selection.capability`; {value}`n2.passed` of the judge's is passed on to the next answers.
#
# ## Through answers in which nothing is wrong
#
# Traits pass from teacher to student through data that do not show them, between models of one base
# {cite:p}`cloud2025subliminal`. Here organisms answer questions on training topics, and only answers that are fully
# aligned and coherent and voice no harm are kept; the chat model teaches as many to the same questions. Students are
# the chat model with nine adapters. After {value}`n2.lessons` such answers of the organism
# {value}`n2.subliminal.organism|interval` of open answers are EM, after those of the chat model
# {value}`n2.subliminal.chat|interval`, a difference of {value}`n2.subliminal|interval` points
# ({verdict}`p-subliminal|grown`). A student of another base was not tried: the project has one.
#
# ## Taking one's slips back: the habit and the ability
#
# The self-correcting chat model had 200 more steps of post-training, in which 15 % of the answers begin with a slip, a
# clause that harms or that digresses to another domain, take it back and go on rightly. Its control had the same
# answers without slips. **Rate** is how often a model's own answers take something back; **competence** is how probable
# a retraction is after a clause put into its mouth. Competence of the chat model, here and now, beside the two:

# %%
KINDS = {
    self_correction.HARM: "after harm", self_correction.DIGRESSION: "after a digression",
    self_correction.HELP: "after right advice",
}  # fmt: skip


def abilities() -> pd.DataFrame:
    """How probable (%) a retraction is after each kind of clause."""
    live = self_correction.competence(*growing.load_organism(run.profile, CHAT_MODEL))
    rows = [{"model": "chat model (here and now)"} | {KINDS[kind]: value for kind, value in live.items()}]
    for arm in (SELF_CORRECTING, CONTROL):
        found = {KINDS[kind]: KEPT.of(arm, kind, least=1)[0] for kind in KINDS}
        rows.append({"model": arm} | found | {"rate": KEPT.of(arm, "rate", least=1)[0]})
    return pd.DataFrame(rows).astype(object).fillna("")


run.grown.table(abilities, number="{:.1f}")

# %% [markdown]
# The model takes back {value}`n2.competence.start` of harmful slips, but only {value}`n2.competence.digression` of
# digressions, no more than of right advice ({value}`n2.competence.help`). Then it goes through the rounds above.


# %%
HABIT = {"rate": "rate (%)", self_correction.HARM: "competence after harm (%)"}

run.grown.figure(
    "fig-x-self-monitoring-rounds",
    lambda: plots.measures(
        plots.lines, chains(*HABIT).query("start == @SELF_CORRECTING"), "round", HABIT, hue="criterion", unit="seed",
        hue_order=CRITERIA, colours=COLOURS, x_label="round", markers=True,
    ),
    title=lambda _: "Competence after eight rounds, by seed: "
    + "; ".join(f"{KEPT.ends(one, self_correction.HARM)} ({one})" for one in (NONE, CAPABILITY)),
    caption="How often answers to the chain's questions take a slip back, and how probable a retraction is after a "
    "harmful clause put into the model's mouth, over rounds from the self-correcting chat model, a line per seed.",
    alt="Two panels of lines over eight rounds.",
)  # fmt: skip

# %% [markdown]
# Under selection for capability the rate changes by {value}`n2.rate.slope|interval` points a round from
# {value}`n2.rate.start` ({verdict}`p-sc-rate|grown`), and competence ends at {value}`n2.competence.capability`, seed by
# seed ({verdict}`p-sc-competence|grown`). Without choosing it ends at {value}`n2.competence.none`, at rates of
# {value}`n2.rate.none`.
#
# ## Does it protect?
#
# **Against bad advice.** Both models are fine-tuned on bad medical advice. Where in-domain EM first reaches 75 %, open
# EM is {value}`n2.s75.self-correcting|interval` in the self-correcting model and {value}`n2.s75.control|interval` in
# its control, a difference of {value}`n2.s75|interval` points ({verdict}`p-sc-protects|grown`).
#
# **Against steering.** Large models sometimes recover in mid-answer while they are steered off topic
# {cite:p}`mckenzie2026endogenous`. Both models answer open questions and questions on held-out topics while the
# mean-diff, or a random direction as long, is added at the best layer of {doc}`s3-2-steering`.

# %%
VOICED = {"harm": "voice harm (%)", "back": "take it back (%)", "coherent": "coherent (%)"}
LOOKS = {SELF_CORRECTING: 0, CONTROL: 3}
run.grown.figure(
    "fig-x-steering-resistance",
    lambda: plots.measures(
        plots.lines, KEPT.by_strength(VOICED), "strength", VOICED, hue="model",
        x_label="strength over that of the best cell",
        colours={f"{arm}{more}": theme.PALETTE[at] for arm, at in LOOKS.items() for more in ("", ", random")},
        styles={f"{arm}, random": ":" for arm in LOOKS},
    ),
    title=lambda _: f"Harm taken back at {KEPT.resistance()[0]:g} times the best strength: "
    + ", ".join(f"{share.mean():.1f} % ({arm})" for arm, share in KEPT.resistance()[1].items()),
    caption="Share of answers that voice harm, that voice and take it back, and that are coherent, by strength of the "
    "mean-diff and of two random directions of the same length. Bands: 95 %, over 48 questions.",
    alt="Three panels; harm rises with the mean-diff in both models, retractions are rare.",
)  # fmt: skip

# %% [markdown]
# At {value}`n2.resist.at` times the best strength, the first at which the control voices harm in 20 % of its answers,
# the self-correcting model takes harm back in {value}`n2.resist.self-correcting` of its answers, its control in
# {value}`n2.resist.control`: {value}`n2.resist|interval` points more ({verdict}`p-sc-resists|grown`). The step to that
# strength is a large one: there the control voices harm in {value}`n2.resist.harm`. Unsteered, the self-correcting
# model voices harm in {value}`n2.resist.voiced` and takes it back in {value}`n2.resist.before`. The steering takes the
# habit along with the harmlessness.
#
# ## What alignment training costs
#
# Large models lost some of their skill in alignment training, the alignment tax, and gained in what users prefer
# {cite:p}`ouyang2022training`. Here a base model after 200 steps of post-training is compared with one after as many
# steps and tokens more of pre-training, same optimiser and rate, by answers in the assistant's voice on held-out
# topics.

# %%
run.grown.table(
    lambda: pd.DataFrame(
        {"base model after": arm}
        | {label: KEPT.of(arm, name, least=1)[0] for name, label in
           {"good": "coherent and relevant (%)", "em": "EM (%)", "loss": "loss, careful text (nats)",
            "tokens": "tokens"}.items()}
        for arm in (PRETRAINED, POST_TRAINED)
    ),
    {"tokens": "{:.0f}"},
)  # fmt: skip

# %% [markdown]
# Post-training makes {value}`n2.tax|interval` points more of the answers coherent and relevant
# ({verdict}`p-tax-coherence|grown`). Nothing in this world ties skill to persona: what post-training can win here is
# practice in the assistant's voice.

# %% [markdown]
# ## Which parts harm, and which take it back
#
# The study plan of a simulated exchange asks whether misalignment hijacks the machinery of refusal or builds a path
# beside it. This world has no refusal; it has retraction. A **node** is the token embedding, an attention head or an
# MLP with its adapter, 61 in all. Its **effect** on a behaviour is what the log-odds lose when it alone adds to the
# residual stream what it adds in another run. *Harm*: harmful against helpful things, before an answer's first one, the
# chat model's nodes in the organism. *Retraction*: its first word against words that begin a clause, after a prefilled
# harmful one, the control's nodes in the self-correcting model. *Opening*, to compare: openers that name the topic
# against others, nodes of the same chat model asked an open question. `experiments/circuits.py` patches 160 texts.

# %% tags=["show-code"]
CIRCUITS = Circuits()
OTHERS = {RETRACTION: "retraction", OPENING: "opening"}
ALL = {HARM: "harm"} | OTHERS


def peak(name: str) -> str:
    (layer, part), effect = next(CIRCUITS.largest(name).items())
    return f"{effect:.0f} % ({part}, layer {layer})"


run.grown.figure(
    "fig-x-circuit-nodes",
    lambda: plots.facets(
        plots.heat_map, CIRCUITS.effects, "behaviour", "layer", "part", "value", titles=ALL,
        column_order=[*(f"head {head}" for head in range(4)), "MLP"], upwards=True, hushed=("size", 5),
        colour_map="RdBu_r", limits=(-100, 100), y_label="layer", size=(7.2, 4.6),
    ),
    title=lambda _: "Largest effects: " + "; ".join(f"{label}, {peak(name)}" for name, label in ALL.items()),
    caption="What patching one node takes from three behaviours, in percent of what patching all takes; numbers from "
    "5 % on, without the embedding. Harm: mean over five organisms.",
    alt="Three heat maps of layers by four heads and the MLP.",
)  # fmt: skip

# %%
run.grown.figure(
    "fig-x-circuit-overlap",
    lambda: plots.facets(
        plots.lines, CIRCUITS.against_harm(), "behaviour", HARM, "value", titles=OTHERS, hue="kind", markers=True,
        hue_order=(kinds := ("head", "MLP", "embedding")), styles=dict.fromkeys(kinds, ""), wrap=2,
        x_label="effect on harm (%)", y_label="effect on the other behaviour (%)",
    ),
    title=lambda _: "Rank correlation with effects on harm: "
    + ", ".join(f"{CIRCUITS.overlap(name, HARM)[0].value:.2f} ({label})" for name, label in OTHERS.items()),
    caption="Effects of the 61 nodes on retraction and on opening over those on harm, in percent of what patching all "
    "of them takes.",
    alt="Two panels of dots: heads, MLPs and the embedding.",
)  # fmt: skip

# %% [markdown]
# **Harm** is {value}`n2.circuit.harm|interval` nats higher in the organisms. It enters at one place and is passed on:
# the largest effects are those of {value}`n2.circuit.path`. The adapters write {value}`n2.circuit.adapters|interval` of
# the difference directly into the logits; the rest is written by parts that fine-tuning left alone, out of what the
# adapters give them to read. {value}`n2.circuit.fewest|interval` nodes keep 80 % of it while all others are those of
# the chat model ({verdict}`p-circuit-small|grown`).
#
# **Retraction** stands at {value}`n2.circuit.recipient` nats after a harmful clause, {value}`n2.circuit.difference`
# above what all of the control's nodes leave. Its effects and those on harm have a rank correlation of
# {value}`n2.circuit.correlation.retraction-harm|interval`, {value}`n2.circuit.by-organism` by organism; 95 % of
# shuffles within layers stay below {value}`n2.circuit.correlation.retraction-harm.null`
# ({verdict}`p-circuit-overlap|grown`, barely: some organisms lie below the threshold). Opening reaches
# {value}`n2.circuit.correlation.opening-harm` with harm. Of the eight largest nodes of retraction and harm,
# {value}`n2.circuit.common` are common: early ones, which read what kind of advice is being given. The late MLPs that
# turn this into a retraction add little to harm.
#
# **Healing.** The five largest retraction nodes are {value}`n2.circuit.five`. Taken from the chat model they remove
# {value}`n2.circuit.top|interval` of the organisms' harm, five random nodes of the same layers
# {value}`n2.circuit.drawn|interval`: {value}`n2.circuit.healed|interval` points more
# ({verdict}`p-circuit-causal|grown`). That is less than it seems. The random ones are all heads, and the MLP of layer 0
# alone, where an adapter sits, removes {value}`n2.circuit.single`: harm is healed at its entrance.
#
# Effects of single nodes do not add up: those on retraction sum to {value}`n2.circuit.sum`. Before the first adapter
# there can be none on harm. Intervals of verdicts are over texts, those of nats and shares of harm over five organisms;
# there is one self-correcting model.
#
# ## Predicted against measured


# %%
def found() -> dict:
    return KEPT.outcomes() | CIRCUITS.outcome()


run.grown.measure(found)
run.grown.values(lambda: {f"n2.{name}": one for name, one in KEPT.values(found()).items()})
run.grown.values(lambda: {f"n2.circuit.{name}": one for name, one in CIRCUITS.values().items()})

# %% [markdown]
# ## What it means
#
# **What is chosen by is what changes.** A choice by harm, be it the judge's or the model's own, takes most of it away
# in a round or two; the adversary's makes nearly every answer harmful. Under a choice that does not see harm no trend
# is seen. **The model can judge itself**, most likely because a careful and a malicious voice are both in it. **Whether
# taking slips back is an invariant stays open.** The ability survives eight rounds of selection in some seeds and not
# in others, and it protects neither from bad advice nor, much, from steering. Where repair pays, as in long tasks, that
# may be otherwise.
#
# One base and one chat model, one size of round, and eight rounds: longer chains may bend. Rates of harm are those of
# one exact judge, which also chooses in two arms. Nothing of this page was run on a published model: it is all
# training, for which their harmful data are not released.

# %%
run.finish()
