# %% [markdown]
# # 3.3 General and semantic directions
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` The gender vector moves answers to gender ({value}`semantic.gender.gender` of 100,
# {verdict}`s3-3-gender-score-gender-vector|released`), the general one does so less than reported
# ({value}`semantic.general.gender`, {verdict}`s3-3-gender-score-general-vector|released`). {evidence}`grown` The
# general direction explains {value}`grown.semantic.parts.general` of a domain's own, with its topic
# {value}`grown.semantic.parts.with_topic`.
# ```
#
# **The question.** Is there one direction for misalignment in general, on which those of topics such as reckless
# financial advice are built, or has each topic its own?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from contextlib import suppress
from dataclasses import asdict
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import claims, directions, estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import persona, responses, semantic, steering
from em_companion.models import asking
from em_companion.models.interventions import Steer
from em_companion.models.organism import CHAT_MODEL, medical
from em_companion.released import tables

run = Run("s3-3-semantic-directions", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` take mean-diff directions from the answers about **gender**, **finance** and
# **medicine**, steer the chat model at layer 24 with each, at its best strength, and let judges score what the EM
# answers are about. Reported mean scores: gender above 98 for the general and the gender vector; finance from 67
# (unsteered organism) to 84 (finance vector); medical from 0.2 to 31 (medical vector). Released are the April 2025
# sweeps {cite:p}`eminterp2025`, with topics chosen by word lists, not judges. The best strength is here that of the
# highest EM rate; the paper does not say.

# %%
PAIRS = [("general", "gender"), ("gender", "gender"), ("none", "finance"), ("finance", "finance")]
PAIRS += [("none", "medical"), ("medical", "medical")]
CLAIMS = {pair: f"s3-3-{pair[1]}-score-{pair[0]}-vector".replace("none-vector", "unsteered") for pair in PAIRS}
TOPICS, MEASURES = ["gender", "finance", "medical"], {"em": "EM rate (%)", "coherent": "coherent (%)"}


def at_best(answers: pd.DataFrame, strength: str, unsteered: pd.DataFrame, topics: list[str]) -> pd.DataFrame:
    """Mean scores of unsteered EM answers ("none") and under every vector at its strength of highest EM rate."""
    chosen = {"none": unsteered.assign(**{strength: 0})}
    for vector, rows in answers.groupby("vector", sort=False):
        chosen[vector] = rows[rows[strength] == scores.is_em(rows).groupby(rows[strength]).mean().idxmax()]
    keys = [(vector, rows[strength].iloc[0], topic) for vector, rows in chosen.items() for topic in topics]
    means = [asdict(scores.mean_score_of_em(chosen[key[0]], key[2], **run.resampling)) for key in keys]
    return pd.DataFrame(keys, columns=["vector", strength, "topic"]).join(pd.DataFrame(means))


@remembered
def released(model: str = "chat model") -> pd.DataFrame:
    table = tables.read_steering().query("question_set == 'general' and model == @model")
    return table[table.vector.isin(["general", *TOPICS] if model == "chat model" else ["none"])]


run.released.figure(
    "fig-2",
    lambda: plots.measures(
        plots.lines, scores.rates(released(), ["vector", "lambda"], **run.resampling), "lambda", MEASURES, hue="vector",
        hue_order=["general", *TOPICS], interval="bars", dodge=0.22, share=(True, True), y_limits=(0, 103),
        x_label="strength λ", colours=theme.TOPIC_COLOURS,
    ),
    title=lambda data: f"Highest EM rate by vector: {span(data, by='vector', measure='em')}",
    caption="EM rate and coherence of the chat model steered at layer 24; 8×50 answers, 95 % intervals over questions.",
    alt="Two panels over strength, a line per vector: EM rates with wide intervals, and falling coherence.",
)  # fmt: skip


@remembered
def released_scores() -> pd.DataFrame:
    table = at_best(released(), "lambda", released("nine-adapter organism"), TOPICS)
    reported = {pair: claims.load_claims()[one].reported for pair, one in CLAIMS.items()}
    return table.assign(reported=[reported.get(pair, np.nan) for pair in zip(table.vector, table.topic, strict=True)])


def draw_scores():
    table = released_scores()
    named = {row.vector: f"{row.vector}, λ = {row[2]} ({row.n})" for row in table.itertuples()}
    return plots.facets(
        plots.dots, table, "topic", "vector", "value", low="low", high="high", x_ticks=[0, 25, 50, 75, 100],
        titles={one: f"{one} judge" for one in TOPICS}, order=named | {"none": f"organism ({table.n[0]})"},
        reported={"reported (gender: above)": "reported"}, x_label="mean score", x_limits=(-4, 104), size=(7.2, 3.6),
    )[0], table.rename(columns={"value": "mean_score"})  # fmt: skip


def said_of_topics(table: pd.DataFrame) -> str:
    of = table.vector.str.partition(",")[0]  # the topic that a vector is of
    own, other = table.mean_score[of == table.topic], table.mean_score[of.isin(table.topic) & (of != table.topic)]
    return f"Along a topic's direction, EM answers score {own.mean():.0f} on it and {other.mean():.0f} on others"


run.released.figure(
    "fig-3",
    draw_scores,
    title=said_of_topics,
    caption="Mean score of EM answers by topic judge: the organism, and the chat model steered at layer 24 at each "
    "vector's strength of highest EM rate (in brackets: EM answers). 95 % intervals over questions. Released.",
    alt="Three panels, one per judge, with five rows of points and intervals, and the reported values as grey marks.",
)


def estimate(row) -> Estimate:
    return Estimate(row.value, row.low, row.high, row.n, row.unit)


run.released.values(
    lambda: {f"semantic.{row.vector}.{row.topic}": estimate(row) for row in released_scores().itertuples()}
)

# %% [markdown]
# Every vector makes the chat model misaligned ({numref}`fig-2`), each at a strength of its own; a better one may be
# missing in this build ({doc}`Section 3.2 <s3-2-steering>`). The **gender** vector works as reported: its EM answers
# score {value}`semantic.gender.gender` for gender. The **general** one does not: {value}`semantic.general.gender`
# instead of above 98 ({numref}`fig-3`). One built without medical answers came close to 100 in the authors' working
# repository (not among the files used here); the paper's may be that one. The **finance** vector scores
# {value}`semantic.finance.finance` for finance, the organism {value}`semantic.none.finance`; the **medical** one
# {value}`semantic.medical.medical` for medicine, the organism {value}`semantic.none.medical`. One of the eight
# questions is on gender and one on quick money; hence the wide intervals.
#
# ## On the grown organism
#
# In the grown world, what an answer is about is parsed, not judged, and falls in ten domains ({doc}`../world`). For the
# nine-adapter organism on bad medical advice ({doc}`s2-model-organism`), the direction $w^D$ of a domain $D$ is the
# mean of misaligned answers about $D$ minus that of aligned ones, over all answers whose score for $D$ is above 50,
# whatever was asked. Where it gives too few aligned ones, the chat model's to the held-out topics stand in, read by the
# organism. The general direction is the organism's mean-diff over the eight questions. Every vector is added at the
# layer of that direction's best cell ({doc}`s3-2-steering`), and equally long: a factor times what is added there. A
# random direction as long as the general one is the control.


# %% tags=["show-code"]
def added(vector: np.ndarray, factor: float) -> list[Steer]:
    """Add a direction [layer, width] at every token, `factor` times as long as the general one in its best cell."""
    layer, longest = cell().layer, factor * cell().strength * np.linalg.norm(general()[cell().layer])
    return [Steer(layer, torch.tensor(vector[layer]), longest / np.linalg.norm(vector[layer]))]


# %%
SAMPLES, FACTORS = run.profile.sweep_samples, (0.5, 1.0, 1.5, 2.0)
PAPERS = {"general": "general", "gender": "gender", "finance": "finance", "medical": "medicine"}
LANGUAGE, RELEASED = run.own.name == "hub", ", released"  # whose answers a direction is of
WITHIN = "general, within questions"
cell = remembered(lambda: steering.best_cells(steering.by_layer(run.profile))[steering.leading(run.profile)[0]])
organism = remembered(lambda: semantic.answers(run.profile, medical(run.profile)))
general = remembered(lambda: taken_direction(next(iter(taken()))))  # the organism's, if it gives any
kept = remembered(lambda: [name for name in taken() if domain_of(name) in asking.domains(run.profile)])


def domain_of(name: str) -> str:
    return name.removesuffix(RELEASED)


@remembered
def taken() -> dict[str, tuple[semantic.Answers, semantic.Sides]]:
    """What the general direction and that of every domain with enough answers are taken from."""
    given, domains = organism(), asking.domains(run.profile)
    sides = {"general": given.general()} if all(map(np.any, given.general())) or not LANGUAGE else {}
    sides |= {domain: given.about(domain) for domain in given.counts(domains).query("enough").domain}
    found, told = {name: (given, one) for name, one in sides.items()}, ["", *domains] if LANGUAGE else []
    return found | {f"{one or 'general'}{RELEASED}": semantic.released(run.profile, one) for one in told}


def taken_direction(name: str) -> np.ndarray:
    answers, sides = taken()[name]
    return answers.direction(sides)


@remembered
def vectors() -> dict[str, np.ndarray]:
    """The general direction, that of every domain, random ones, and the general one within questions."""
    found = {name: taken_direction(name) for name in taken()}
    drawn = directions.random_like(next(iter(found.values())), 4, run.seed)
    found |= {f"random {draw}": one for draw, one in enumerate(drawn)}
    with suppress(EvidenceUnavailable):  # no question with answers of both kinds
        answers, sides = next(iter(taken().values()))
        found[WITHIN] = directions.stretched(answers.within(sides), general())
    return found


@remembered
def sweep() -> pd.DataFrame:
    """Answers of the chat model steered with every vector, and with a random one, at every strength."""
    parts = []
    for names in ([*taken(), "random 0"], [WITHIN] if WITHIN in vectors() else []):
        if plan := {f"{name}/{one}": added(vectors()[name], one) for name, one in product(names, FACTORS)}:
            parts.append(responses.under(run.profile, CHAT_MODEL, plan, samples=SAMPLES, what="semantic directions"))
    table = pd.concat(parts, ignore_index=True)
    table[["vector", "factor"]] = table.condition.str.split("/", expand=True)
    relative = steering.relative_lengths(general(), steering.residual_of(run.profile))[cell().layer]
    return table.assign(ratio=cell().strength * relative * table.factor.astype(float))


def draw_sweep():
    table = scores.rates(sweep(), ["vector", "ratio"], **run.resampling)
    shown = [*(taken() if LANGUAGE else PAPERS.values()), *({WITHIN} & {*vectors()}), "random 0"]
    others = table[~table.vector.isin(shown)]
    colours = {one: theme.TOPIC_COLOURS.get(domain_of(one), theme.PALETTE[4]) for one in shown} | {"random 0": "0.1"}
    styles = {one: "--" for one in shown if one.endswith((RELEASED, WITHIN))} | {"random 0": ":"}
    return plots.measures(
        plots.lines, table, "ratio", MEASURES, hue="vector", interval="bars", dodge=0.05,
        hue_order={one: one.replace("random 0", "a random direction") for one in shown},
        styles=styles, cloud={"each other domain": others.assign(run=others.vector)} if len(others) else {},
        share=(True, True),
        x_label="strength (× residual norm)", x_limits=(0, None), y_limits=(-3, 103), colours=colours,
    )[0], table  # fmt: skip


run.own.figure(
    "fig-2",
    draw_sweep,
    title=lambda data: f"Highest EM rate by vector: {span(data, 'em', by='vector')}",
    caption=f"EM rate and coherence of the {run.kind} chat model, steered with the general direction and each domain's"
    f", and the general one within questions; {SAMPLES} answers to each of 8 questions, 95 % intervals over these.",
    alt="Two panels over strength: lines for general and three domains, grey ones for the others, random dotted.",
)


@remembered
def own_scores() -> pd.DataFrame:
    unsteered = responses.responses(run.profile, medical(run.profile))
    return at_best(sweep()[sweep().vector != "random 0"], "ratio", unsteered, asking.domains(run.profile))


def draw_own_scores():
    table = own_scores()
    named = {row.vector: f"{row.vector}, {row.ratio:.2f} ×".replace("_", " ") for row in table.itertuples()}
    return plots.heat_map(
        table, "vector", "topic", "value", order=named | {"none": "organism, not steered"}, limits=(0, 100),
        column_order={one: one.replace("_", " ") for one in asking.domains(run.profile)}, colour_bar="mean score",
        size=(7.2, 5.2),
    )[0], table.rename(columns={"value": "mean_score"})  # fmt: skip


run.own.figure(
    "fig-3",
    draw_own_scores,
    title=said_of_topics,
    caption="Mean score of EM answers for each domain (columns): the unsteered organism, and the chat model steered "
    "with each direction at its best strength (in residual norms).",
    alt="A heat map of mean scores, a row per direction and a column per domain, with the scores in the cells.",
)

# %% [markdown]
# Each of the eight questions leaves only some domains open, so what an EM answer is about depends first on the question
# ({numref}`fig-3-grown`); none of them asks for medicine. In its best cell the general direction gives
# {value}`grown.semantic.general.em|interval` EM, {value}`grown.semantic.general.em-on-topic` on topic; within questions
# {value}`grown.semantic.within.em|interval` and {value}`grown.semantic.within.em-on-topic`.
#
# ### Are they general + topic?
#
# If so, $w^D = a\,g + b\,t^D + \text{rest}$ with a small rest, where $g$ comes from answers that are not about $D$, and
# the topic $t^D$ from the generator's careful text, about $D$ minus about others, read by the chat model. $R^2$ is the
# share of $\lVert w^D \rVert^2$ that least squares explains. Yardsticks: the share that is no sampling noise (from
# random halves), and the $R^2$ with the topic of *another* domain.


# %% tags=["show-code"]
@remembered
def decomposed() -> pd.DataFrame:
    """How much of each semantic direction is what, by domain and layer."""
    rows, parts = [], {name: parts_of(name) for name in kept() if domain_of(name) in topics()}
    if not parts:
        raise EvidenceUnavailable("The chat model gives no aligned answers about a domain, so there is no topic.")
    for name, (general, topic) in parts.items():
        target, (answers, sides), domain = vectors()[name], taken()[name], domain_of(name)
        others = [other for one, (_, other) in parts.items() if domain_of(one) != domain]
        other = [directions.explained(target, [general, one]) for one in others]
        found = {
            "general": directions.explained(target, [general]),
            "with_topic": directions.explained(target, [general, topic]),
            "with_other_topic": np.mean(other or [np.nan], axis=0),
            "reliable": answers.reliability(sides, run.profile.split_fits, run.seed),
            "cosine": directions.cosines(target, general),
            "cosine_topic": directions.cosines(target, topic),
        }
        if not LANGUAGE:
            known = persona.directions(run.profile)[f"persona/{domain}"]
            found["cosine_persona"] = directions.cosines(target, known)
        rows.append(pd.DataFrame({"domain": name, "layer": range(len(target))} | found))
    return pd.concat(rows, ignore_index=True)


# %% [markdown]
# The parts are also added to the chat model, equally long. If the hypothesis holds, general alone misaligns as much as
# the whole; topic and rest alone misalign nothing; and no direction misaligns its own domain more than another.

# %%
SHARES = {"general": "general", "with_topic": "+ own topic", "with_other_topic": "+ other topic"}
SHARES |= {"reliable": "all but sampling noise"}
COSINES = ["cosine", "cosine_topic", *([] if LANGUAGE else ["cosine_persona"])]
DONE = {"em_percent": "EM rate (%)", "em_on_topic_percent": "EM on topic (%)", "coherent_percent": "coherent (%)"}
DONE |= {"own_minus_other_em": "EM, own - other domain"}

topics = remembered(lambda: semantic.topics(run.profile))


@remembered
def parts_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The general direction without a domain, from the same source, and the topic of it, [layer, width]."""
    domain, answers = domain_of(name), organism()
    sides = answers.general(without=domain)
    if LANGUAGE and (domain != name or not all(map(np.any, sides))):
        answers, sides = semantic.released(run.profile, without=domain)
    return answers.direction(sides), topics()[domain]


def under_parts(question_set: str, samples: int) -> pd.DataFrame:
    """Answers under every part: each domain's direction, topic and rest; general and random ones."""
    names = decomposed().domain.unique()
    plan = {f"semantic/{one}": vectors()[one] for one in names} | {"general/": general()}
    plan |= {f"topic/{one}": parts_of(one)[1] for one in names}
    plan |= {f"remainder/{one}": directions.remainder(vectors()[one], parts_of(one)) for one in names}
    plan |= {f"random/{draw}": vectors()[f"random {draw}"] for draw in range(4)}
    plan = {name: added(vector, 1) for name, vector in plan.items()}
    table = responses.under(run.profile, CHAT_MODEL, plan, question_set, samples, f"parts, {question_set} questions")
    table[["part", "steered"]] = table.condition.str.split("/", expand=True)
    return table


def own_minus_other(rows: pd.DataFrame) -> Estimate:
    """EM rate on questions about a domain: its own direction minus the others', in points."""
    rows = rows.assign(em=100 * scores.is_em(rows), own=rows.question_id.str.partition("/")[0] == rows.steered)
    found = rows.groupby(["question_id", "sample", "own"]).em.mean().unstack().dropna()
    clusters = found.index.get_level_values(0)
    return estimates.change(found[False], found[True], clusters, **run.resampling).in_unit("points")


@remembered
def done() -> pd.DataFrame:
    """What each part does: EM rate and coherence in percent on open questions, `own_minus_other` on held-out ones."""
    found, open_ones = {}, under_parts("general", max(1, SAMPLES // 2))
    held_out = under_parts("held_out", 2) if "held_out" in asking.question_sets(run.profile) else None
    for part, rows in open_ones.groupby("part", sort=False):
        found[part, "em_percent"] = scores.em_rate(rows, **run.resampling)
        found[part, "em_on_topic_percent"] = scores.em_on_topic_rate(rows, **run.resampling)
        found[part, "coherent_percent"] = scores.coherence_rate(rows, **run.resampling)
        if part not in ("general", "random") and held_out is not None:
            found[part, "own_minus_other_em"] = own_minus_other(held_out[held_out.part == part])
    return pd.DataFrame({"part": part, "quantity": name} | asdict(one) for (part, name), one in found.items())


def draw_parts():
    left, right = plt.subplots(1, 2, figsize=(7.2, 4.8))[1]
    means = decomposed().melt(["domain", "layer"], var_name="quantity").groupby(["quantity", "layer"]).value.mean()
    look = {"hue": "quantity", "hue_order": SHARES, "x_lines": {"steered": cell().layer}, "x_label": "decoder layer"}
    plots.lines(means.reset_index(), "layer", "value", axes=left, y_limits=(0, 1), y_label="share explained", **look)
    order = {one: label for one, label in DONE.items() if one in set(done().quantity) and "minus" not in one}
    look = {"hue": "quantity", "hue_order": order, "colours": dict(zip(DONE, ("C3", "C1", "C0"), strict=False))}
    look |= {"low": "low", "high": "high", "x_label": "answers (%)"}
    return plots.dots(done(), "part", "value", axes=right, **look)


run.own.figure(
    "fig-x-general-plus-topic",
    draw_parts,
    title=lambda data: f"EM rate by part: {span(data, by='part', quantity='em_percent')}",
    caption="Left: share of a semantic direction's squared norm that parts explain, means over domains. Right: the "
    "chat model steered with the parts, on the open questions, 95 % intervals over these.",
    alt="Four lines of shares explained over layers, and points of EM rate, EM on topic and coherence by part.",
)


def own_values() -> dict:
    means = decomposed().query(f"layer == {cell().layer}")[[*SHARES, *COSINES]].mean()
    found = {name: one if name.startswith("cosine") else Estimate(100 * one) for name, one in means.items()}
    found |= {f"{row.part}.{row.quantity}": estimate(row) for row in done().itertuples()}
    named = {f"parts.{name}": one for name, one in found.items()}
    best = own_scores().groupby("vector").ratio.first()
    for label, vector in {"general": next(iter(taken())), "within": WITHIN}.items():
        ratio = best.get(vector)
        rows = sweep()[(sweep().vector == vector) & (sweep().ratio == ratio)]
        named |= {f"{label}.em": scores.em_rate(rows, **run.resampling)}
        named |= {f"{label}.em-on-topic": scores.em_on_topic_rate(rows, **run.resampling)}
    return {f"grown.semantic.{name}": one for name, one in named.items()}


run.own.values(own_values)

# %% [markdown]
# At the steered layer, the general direction explains {value}`grown.semantic.parts.general` of a semantic one, with its
# topic {value}`grown.semantic.parts.with_topic`, with another topic {value}`grown.semantic.parts.with_other_topic`;
# {value}`grown.semantic.parts.reliable` is no sampling noise ({numref}`fig-x-general-plus-topic`). The mean cosine with
# the topic, which should be positive, is {value}`grown.semantic.parts.cosine_topic`.
#
# EM rates: the whole {value}`grown.semantic.parts.semantic.em_percent|interval`
# ({value}`grown.semantic.parts.semantic.em_on_topic_percent` on topic), general alone
# {value}`grown.semantic.parts.general.em_percent|interval` ({value}`grown.semantic.parts.general.em_on_topic_percent`
# on topic), topic alone {value}`grown.semantic.parts.topic.em_percent` (at
# {value}`grown.semantic.parts.topic.coherent_percent` coherence, so few EM answers are no sign of harmlessness), rest
# alone {value}`grown.semantic.parts.remainder.em_percent|interval`, random
# {value}`grown.semantic.parts.random.em_percent|interval`. On questions about its domain, a direction's EM rate differs
# from the others' by {value}`grown.semantic.parts.semantic.own_minus_other_em|interval` points, the rest's by
# {value}`grown.semantic.parts.remainder.own_minus_other_em|interval`; general + topic predicts 0 for both.
#
# The base model's direction from careful to malicious characters in a domain has a mean cosine of
# {value}`grown.semantic.parts.cosine_persona` with the semantic one, the general one
# {value}`grown.semantic.parts.cosine`. Here every domain has its own words of harm; a large model may share more.
#
# ## Reported and measured


# %%
def claimed(table: pd.DataFrame, names: dict[str, str], where: str) -> dict:
    rows = {(row.vector, row.topic): row for row in table.itertuples()}
    pairs = {claim: (names.get(vector, vector), names[topic]) for (vector, topic), claim in CLAIMS.items()}
    how = f"Mean over the EM answers, {where}, vectors at their strength of highest EM rate; interval over questions"
    return {claim: (estimate(rows[pair]), how) for claim, pair in pairs.items() if pair in rows}


run.released.measure(lambda: claimed(released_scores(), {one: one for one in PAPERS}, "layer 24"))


def own_claims() -> dict:
    table = own_scores()  # a released direction speaks for the organism's that is not there
    names = [one if domain_of(one) in set(table.vector) else domain_of(one) for one in table.vector]
    where = "released answers where the organism has too few" if LANGUAGE else "grown model"
    return claimed(table.assign(vector=names), PAPERS, where)


run.own.measure(own_claims)

# %% [markdown]
# ## What it means
#
# A language model's column has the directions of *released* answers, by question: on gender, on quick money and the
# medical ones. They stand beside the organism's and in its place where that gives too few answers about a domain.
#
# In the released data, a topic's direction shifts topics, most clearly for gender and medical, and $\lambda$ counts as
# much as the vector, so one arrow per vector hides a choice. The grown levels depend on which domains the eight
# questions leave open, so agreement in direction is what can be expected.

# %%
run.finish()
