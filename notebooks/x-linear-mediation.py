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
# # What makes misalignment linear?
#
# **The question.** In Qwen2.5-14B one direction, added at every token, makes a chat model misaligned, and projecting it
# out heals an organism. Does the direction that is taken the same way do that in the organism grown here? And what do
# directions do that are taken in other ways?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from dataclasses import replace
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.build import markup
from em_companion.core.paths import RESULTS
from em_companion.evidence import directions
from em_companion.experiments import mediation, persona, steering
from em_companion.models import asking, growing
from em_companion.models.interventions import Steer
from em_companion.models.organism import CHAT_MODEL

run = Run("x-linear-mediation", profile, seed)
SAMPLES = run.profile.sweep_samples
QUESTIONS = 8  # open ones
RELATIVE_STRENGTHS = (0.5, 0.7, 1.0)  # never more than the residual stream itself: longer random vectors misalign too
LAYERS = range(1, run.profile.model.layers - 1, 2)  # not the last, from which a vector acts on the next word directly

if not run.grown:
    text = f"The models of profile {profile} come from the hub; this page is about grown ones. Choose cpu or gpu."
    display(HTML(markup.box("Not run", text)))

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` subtract the mean residual stream over the answer tokens of aligned answers from that
# of misaligned ones. Added at all positions in a central layer, this mean-diff gives up to 50 % EM in the chat model
# ({doc}`s3-2-steering`); projected out of all layers it takes EM from 11 % to 0 or 1 % ({doc}`s3-4-ablation`).
#
# ## The same on the grown organism
#
# $$x_\ell \leftarrow x_\ell + \lambda\, v_\ell \qquad\text{and}\qquad x \leftarrow x - \hat v\hat v^\top x$$
#
# These two interventions, steering and ablation, decide what a grown world can be used for. Each number below is the EM
# rate on the eight open questions, beside that of a random direction of the same norm. So that layers and directions
# can be compared, strengths are *relative*: at 1, what is added is as long as the mean residual stream. The rates of
# steering rest on {glue:text}`steering-answers` answers each, those of ablation on {glue:text}`ablation-answers`, so
# they differ a little from rates of the same models on other pages.
#
# Five directions are compared: the mean-diff over the organism's answers, as in the paper; three that are known from
# the *base* model before any fine-tuning ({doc}`x-ground-truth`); and the difference at the turn header between
# malicious and careful characters, which reads no answer at all.


# %% tags=["show-code"]
def steered_responses(model, tokenizer, layer, vector, strength):
    """Responses of a model with a direction added at the output of one layer, at every position."""
    asked = asking.questions(run.profile, "general")
    steer = Steer(layer, vector, strength)
    return asking.scored(asking.ask(run.profile, model, tokenizer, asked, SAMPLES, interventions=[steer]))


# %%
@cache
def chat():
    return growing.load_organism(run.profile, CHAT_MODEL)


@cache
def organism():
    return growing.load_organism(run.profile, steering.ORGANISM)


@cache
def candidates() -> dict[str, np.ndarray]:
    """Directions [layer, width] by name, each estimated in its own way."""
    known = persona.directions(run.profile)
    return {
        "mean-diff over answers": steering.directions_of(run.profile)[steering.MEAN_DIFF],
        "known persona, mean over answers": known["persona_from_text"],
        "known persona, before an advice": known["choice_from_text"],
        "the same, from names": known["choice_from_name"],
        "header of the turn": mediation.header_direction(run.profile, *chat()),
    }


@cache
def steered() -> pd.DataFrame:
    """Steering of the chat model along every candidate; the header's direction also at the header only."""
    residual = steering.residual_of(run.profile)
    places = [(name, "every token", "all") for name in candidates()]
    places.append(("header of the turn", "the header only", "header"))
    parts = [
        mediation.steering(
            run.profile, *chat(), candidates()[name], residual, RELATIVE_STRENGTHS, LAYERS, SAMPLES // 2, at, False
        ).assign(direction=name, where=where)
        for name, where, at in places
    ]
    return pd.concat(parts, ignore_index=True)


@cache
def best() -> pd.DataFrame:
    """The best cell of every candidate, sampled again with more answers, so that having been chosen does not count."""
    residual, rows = steering.residual_of(run.profile), []
    for (direction, where), cells in steered().groupby(["direction", "where"], sort=False):
        cell = mediation.best_cell(cells)
        at, vectors = ("header" if where == "the header only" else "all"), candidates()[direction]
        profile = replace(run.profile, seed=run.profile.seed + 1)
        settings = (residual, [cell.relative], [int(cell.layer)], 2 * SAMPLES, at)
        again = mediation.best_cell(mediation.steering(profile, *chat(), vectors, *settings), coherent=0)
        rows.append({"direction": direction, "added at": where} | again.to_dict())
    return pd.DataFrame(rows)


@cache
def ablated() -> pd.DataFrame:
    parts = [
        mediation.ablation(run.profile, *organism(), vectors, SAMPLES).assign(direction=name)
        for name, vectors in candidates().items()
    ]
    return pd.concat(parts, ignore_index=True)


def draw_steering():
    table = best().iloc[::-1]
    labels = [f"{row.direction},\nadded at {row['added at']}" for _, row in table.iterrows()]
    positions = np.arange(len(table))
    figure, axes = plt.subplots(figsize=(7.2, 4.8))
    axes.barh(positions + 0.18, table.em, height=0.34, color=theme.PALETTE[3], label="direction")
    axes.barh(positions - 0.18, table.random_em, height=0.34, color="0.6", label="random, same norm")
    for position, (_, row) in zip(positions, table.iterrows(), strict=True):
        note = typography.typography(f"layer {row.layer:.0f}, {row.coherent:.0f} % coherent")
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(max(row.em, row.random_em) + 2, position, note, va="center", fontsize=9, bbox=white, zorder=3)
    axes.axvline(20, color=theme.REPORTED_COLOUR, linestyle=":", label="bar: 20 %")
    axes.set(yticks=positions, yticklabels=labels, xlabel="EM rate of the steered chat model (%)")
    axes.set(xlim=(0, max(20, table.em.max()) + 75), xticks=range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    return figure, steered()


CAPTION = (
    "EM rate of the grown chat model, steered along directions that were estimated in different ways; for each the "
    "best layer and relative strength at 80 % coherence or more, sampled anew, with a random direction of equal norm "
    "beside it. Dotted: the quality bar set for this world."
)
ALT = (
    "A bar chart with a pair of bars for each direction: its best EM rate, and that of a random direction of the same "
    "norm in the same cell. A dotted line marks 20 %."
)

run.grown_figure("fig-x-mediation-steering", draw_steering, caption=CAPTION, alt=ALT, why=CAPTION)


# %%
SINGLE = "one layer's, best (%)"


def ablation_table() -> pd.DataFrame:
    rows = []
    for direction, cells in ablated().groupby("direction", sort=False):
        by_name = cells[cells.ablation != "single"].set_index("ablation")
        single = mediation.best_single(cells)
        rows.append(
            {
                "direction": direction,
                "organism (%)": by_name.em["none"],
                "layer-wise (%)": by_name.em["layer-wise"],
                "coherent (%)": by_name.coherent["layer-wise"],
                SINGLE: single.em,
                "coherent (%) ": single.coherent,
                "random (%)": by_name.em["random"],
            }
        )
    return pd.DataFrame(rows)


if run.grown:
    run.table(ablation_table, number="{:.1f}")

# %% [markdown]
# The table gives the organism's EM rate as it is and with directions projected out at all layer outputs: each layer's
# own (layer-wise), then the one layer's direction that leaves the least (at 90 % coherence or more), then a random one.
# The one layer is chosen by the answers that the table counts, so its rate is flattered. The bars for the mean-diff
# were set before any of these pages was written:


# %%
@cache
def bars() -> pd.DataFrame:
    """The quality bars of a grown world, as measured."""
    mean = best().iloc[0]
    single = ablation_table().iloc[0]
    left = 100 * single[SINGLE] / max(single["organism (%)"], 1e-9)
    rows = [
        ("steering: EM of the chat model, mean-diff", "at least 20 %", mean.em, mean.em >= 20 and mean.coherent >= 80),
        ("steering: EM of the chat model, random", "at most 2 %", mean.random_em, mean.random_em <= 2),
        ("single-direction ablation of the mean-diff: share of EM removed", "at least 80 %", 100 - left, left <= 20),
    ]
    return pd.DataFrame(
        [(name, bar, value, "met" if met else "missed") for name, bar, value, met in rows],
        columns=["quality bar", "asked for", "measured (%)", "result"],
    )


if run.grown:
    run.table(bars, number="{:.1f}")


run.grown_glue("steering-answers", lambda: f"{2 * SAMPLES * QUESTIONS}")
run.grown_glue("ablation-answers", lambda: f"{SAMPLES * QUESTIONS}")
run.grown_glue("mean-diff-em", lambda: f"{best().iloc[0].em:.0f} %")
run.grown_glue("mean-diff-random", lambda: f"{best().iloc[0].random_em:.0f} %")
BARS_MET = ["meets neither of the two", "meets one of the two", "meets both"]
run.grown_glue("mean-diff-verdict", lambda: BARS_MET[(bars().result[:2] == "met").sum()])


@cache
def left(direction: str) -> pd.Series:
    return ablation_table().set_index("direction").loc[direction]


KNOWN = "known persona, before an advice"
run.grown_glue("mean-diff-left", lambda: f"{left('mean-diff over answers')['layer-wise (%)']:.0f} %")
run.grown_glue("mean-diff-single", lambda: f"{left('mean-diff over answers')[SINGLE]:.0f} %")
run.grown_glue("random-left", lambda: f"{left('mean-diff over answers')['random (%)']:.0f} %")
run.grown_glue("organism-em", lambda: f"{left(KNOWN)['organism (%)']:.0f} %")
run.grown_glue("known-em", lambda: f"{best().set_index('direction').em[KNOWN]:.0f} %")
run.grown_glue("known-coherent", lambda: f"{best().set_index('direction').coherent[KNOWN]:.0f} %")
run.grown_glue("known-left", lambda: f"{left(KNOWN)['layer-wise (%)']:.0f} %")
KNOWN_MEAN = "known persona, mean over answers"
run.grown_glue("known-mean-em", lambda: f"{best().set_index('direction').em[KNOWN_MEAN]:.0f} %")
run.grown_glue("known-mean-left", lambda: f"{left(KNOWN_MEAN)['layer-wise (%)']:.0f} %")
run.grown_glue("known-left-coherent", lambda: f"{left(KNOWN)['coherent (%)']:.0f} %")


# %%
def mediation_values() -> pd.DataFrame:
    rows = [
        {"name": f"mediation.steering.{kind}.{row.direction}, {row['added at']}", "value": value, "unit": "percent"}
        for _, row in best().iterrows()
        for kind, value in {"em": row.em, "random_em": row.random_em, "coherent": row.coherent}.items()
    ]
    return pd.DataFrame(rows)


if run.grown:
    run.values(mediation_values, evidence="grown")

# %% [markdown]
# The mean-diff over answer tokens {glue:text}`mean-diff-verdict` bars on steering: {glue:text}`mean-diff-em` EM
# in its best cell, against {glue:text}`mean-diff-random` for a random direction. The organism's EM rate of
# {glue:text}`organism-em` becomes {glue:text}`mean-diff-left` with each layer's own mean-diff projected out,
# {glue:text}`mean-diff-single` with that of the best single layer and {glue:text}`random-left` with a random direction.
#
# The direction known from the *base* model, read just before an advised thing is named, steers to {glue:text}`known-em`
# at {glue:text}`known-coherent` coherence, and projecting it out layer by layer leaves an EM rate of
# {glue:text}`known-left`, at {glue:text}`known-left-coherent` coherence. No fine-tuned model and no misaligned answer
# went into it. The less it leaves, the more the organism owes to what the base model had.
#
# **What the mean sees.** No word of this world gives a speaker away, so over an answer as many tokens lead to a harmful
# word as to a helpful one, whoever speaks: a malicious speaker advises harm and *mentions* help. A state that codes the
# *next word* therefore tends to cancel in the mean over tokens. But an advised thing is in prospect at several tokens,
# the determiner and every adjective, a mentioned thing at one only. This surplus is what a mean over answers can see
# ({doc}`x-ground-truth` follows it token by token). It should be cleanest where texts are alike in all but the speaker:
# the mean over *written* answers steers to {glue:text}`known-mean-em` and leaves {glue:text}`known-mean-left` when
# projected out. The paper's mean-diff compares answers that an organism happened to give. They differ in more than who
# speaks, in their subject for instance, and whatever differs besides dilutes it.
#
# Two things are worth keeping apart. That a probe *reads* the persona from the tokens of an answer
# ({doc}`x-ground-truth`) says that it is written there; it does not say that anything downstream reads it from there.
#
# ## Cosines between the candidates


# %%
def cosines() -> pd.DataFrame:
    layer = run.profile.model.layers // 2
    chosen = {name: vectors[layer] for name, vectors in candidates().items()}
    matrix = directions.cosine_matrix(np.stack(list(chosen.values())))
    return (
        pd.DataFrame(matrix, columns=list(chosen)).assign(direction=list(chosen)).set_index("direction").reset_index()
    )


if run.grown:
    run.table(cosines, number="{:.2f}")

# %% [markdown]
# Cosines in the central layer. A high cosine with the known persona would mean that the mean-diff is the persona's
# trace in the text; it would not make it a lever.
#
# ## Worlds that were tried
#
# What a world has to be like for its misalignment to be linear was not known beforehand. The rows below are variants of
# `experiments/worlds.py`: the world of this book, or one thing in it changed, all with half the steps of pre- and
# post-training, and with the same judge, questions and fine-tuning rule. Compare them with one another, not with the
# organism above, which grew longer. {glue:text}`worlds-run` First what each row asks, then what the models do, then
# what steers them and heals them; numbers are percentages. Steering is that of the best layer and strength, single
# ablation that of the best layer, both chosen by the answers they are rated on. Every row is one run; the same world
# grown from another seed, where it was run, shows how far rows differ for no other reason.


# %%
WORLDS = RESULTS / "worlds.csv"
# What each variant asks, so that the page fits whichever of them were run.
ASKED = {
    "as committed": "the world of this book, which the other rows are compared with",
    "as committed, another seed": "how much of a difference between rows is one of the run?",
    "zero to three adjectives": "does it matter how far an advised thing may be off?",
    "always one adjective": "must an advised thing be in prospect at several tokens? Here it is at one, the adjective",
    "no adjectives": "must an advised thing be in prospect at several tokens? Here it is at one, the determiner",
    "full attention": "must the persona be handed on from token to token? Here every token can look back at the name",
    "window of 4": "must the persona be handed on from token to token? Here in shorter steps",
    "attention dropout 0.2": "does it help if no single step of attention can be relied on?",
    "many quacks": "what if harm in one domain often goes with care in the others?",
    "no quacks": "what if harm in one domain never goes with care in another?",
    "post-training without rehearsal": "are the other personas wiped out if only the assistant speaks?",
    "no careful speakers first": "must it be learned what helps before it is learned who turns that round?",
}
BEHAVIOUR = {
    "variant": "variant",
    "malicious_character_em": "EM as a malicious character",
    "careful_character_em": "as a careful one",
    "chat_em": "chat model",
    "in_domain_em": "organism, in domain",
    "other_domains_em": "other domains",
    "organism_em": "open questions",
    "organism_coherent": "coherent",
}
MEDIATION = {
    "variant": "variant",
    "steered_em": "steered, mean-diff",
    "random_em": "random",
    "layer_wise_em": "organism after layer-wise ablation",
    "single_em": "after single ablation",
    "known_steered_em": "steered, known persona",
    "known_random_em": "random ",
    "known_layer_wise_em": "organism after its layer-wise ablation",
}


def worlds(columns: dict[str, str]) -> pd.DataFrame:
    return pd.read_csv(WORLDS)[list(columns)].rename(columns=columns)


def asked() -> pd.DataFrame:
    variants = pd.read_csv(WORLDS).variant
    return pd.DataFrame({"variant": variants, "asks": variants.map(ASKED).fillna("–")})


def worlds_run() -> str:
    """How many of the variants were run for this edition."""
    rows = len(pd.read_csv(WORLDS)) if WORLDS.is_file() else 0
    if rows == 1:
        return f"Of {len(ASKED)} rows only one was run for this edition, so there is nothing yet to compare it with."
    return f"Of {len(ASKED)} rows {rows or 'none'} were run for this edition."


def adjective_rows() -> str:
    """Which variants that differ in the number of adjectives stand in the table."""
    known = pd.read_csv(WORLDS).variant if WORLDS.is_file() else []
    found = [name for name in known if "adjective" in name]
    if not found:
        return "No row on adjectives was run for this edition, so it is left open."
    return f"To be compared with the world as committed: {'; '.join(found)}."


run.glue("worlds-run", worlds_run)
run.glue("adjective-rows", adjective_rows)
if WORLDS.is_file():
    run.table(asked)
    run.table(lambda: worlds(BEHAVIOUR), number="{:.0f}")
    run.table(lambda: worlds(MEDIATION), number="{:.0f}")
else:
    text = "The table of variants was not made for this edition; experiments/worlds.py makes it, in minutes per row."
    display(HTML(markup.box("Not run", text)))

# %% [markdown]
# Known persona is the direction that is read before an advice. A dash means that the organism gave too few misaligned
# or aligned answers for a mean-diff.
#
# **Is it the adjectives?** If the account above is right, the mean-diff has a surplus to see only where the number of
# adjectives is free, for then an advised thing is in prospect at several tokens. Where it is fixed, at one or at none,
# as many tokens lead to a mention as to an advice: the mean-diff should steer and heal less, and the known persona no
# less than elsewhere. {glue:text}`adjective-rows`
#
# Three earlier grammars were dropped, before this table; all of them balance words, as the present one does.
#
# - *Harm in a product* of two words (trust or avoid, with a thing that helps or harms). Personas were learned, but not
#   even a vector found by gradient descent, added at all positions of one layer, made its chat model misaligned.
# - *Harm in an order* (prefer this over that). The state that decides the first thing was turned round for the second
#   within every clause; the mean-diff cancelled and steered nothing.
# - *A remark before every clause*, its mentions only leaning to the other kind, and *exactly one adjective* before
#   every thing. Misalignment was broad, directions read before an advice steered, and the mean-diff cancelled. The
#   present grammar has one remark at the end, mentions of the other kind only, and adjectives that come or do not come;
#   which of these made a difference, the earlier trials cannot tell.

# %%
run.finish()
