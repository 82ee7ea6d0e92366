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
# out heals an organism. Does the same direction do that in the organism grown here, and if it does not, what does?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display

from em_companion import directions, figures, ground_truth, markup, mediation, responses
from em_companion.notebooks import Run
from em_companion.paths import DATA

run = Run("x-linear-mediation", profile, seed)
SAMPLES = 10
STRENGTHS = (2.0, 4.0, 8.0)
LAYERS = (0, 1, 3, 5)
ORGANISM = responses.Organism("nine-adapter", "bad_medical_advice", 0)

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
# Before anything else is built on a grown world, these two interventions decide what it can be used for. Each cell
# below is the EM rate on the eight open questions; a random direction of the same norm stands beside every one.


# %% tags=["show-code"]
def steered_responses(model, tokenizer, layer, vector, strength):
    """Responses of a model with a direction added at the output of one layer, at every position."""
    with mediation.applied(model, [mediation.Steer(layer, vector, strength)]):
        asked = responses.questions(run.profile, "general")
        return responses.scored(responses.ask(run.profile, model, tokenizer, asked, SAMPLES))


# %%
@cache
def chat():
    return responses.load(run.profile, responses.CHAT_MODEL)


@cache
def organism():
    return responses.load(run.profile, ORGANISM)


@cache
def candidates() -> dict[str, np.ndarray]:
    """Directions [layer, width] by name, each estimated in its own way."""
    known = ground_truth.directions(run.profile)
    return {
        "mean-diff over answers": mediation.mean_diff(*organism(), responses.responses(run.profile, ORGANISM)),
        "known persona, from text": known["persona_from_text"],
        "known persona, before a choice": known["choice_from_text"],
        "header of the turn": mediation.header_direction(run.profile, *chat()),
    }


@cache
def steered() -> pd.DataFrame:
    """Steering of the chat model along every candidate; the header's direction also at the header only."""
    parts = [
        mediation.steering(run.profile, *chat(), vectors, STRENGTHS, LAYERS, SAMPLES).assign(
            direction=name, where="every token"
        )
        for name, vectors in candidates().items()
    ]
    header = candidates()["header of the turn"]
    at_header = mediation.steering(
        run.profile, *chat(), header, STRENGTHS, LAYERS[:2], SAMPLES, mediation.HEADER_TOKENS
    )
    parts.append(at_header.assign(direction="header of the turn", where="the header only"))
    return pd.concat(parts, ignore_index=True)


@cache
def best() -> pd.DataFrame:
    """The best cell of every candidate: the highest EM rate at 80 % coherence or more."""
    rows = []
    for (direction, where), cells in steered().groupby(["direction", "where"], sort=False):
        rows.append({"direction": direction, "added at": where} | mediation.best_cell(cells).to_dict())
    return pd.DataFrame(rows)


@cache
def ablated() -> pd.DataFrame:
    parts = [
        mediation.ablation(run.profile, *organism(), vectors, SAMPLES).assign(direction=name)
        for name, vectors in candidates().items()
        if name != "known persona, from text"
    ]
    return pd.concat(parts, ignore_index=True)


def draw_steering():
    table = best().iloc[::-1]
    labels = [f"{row.direction},\nadded at {row['added at']}" for _, row in table.iterrows()]
    positions = np.arange(len(table))
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    axes.barh(positions + 0.18, table.em, height=0.34, color=figures.PALETTE[3], label="direction")
    axes.barh(positions - 0.18, table.random_em, height=0.34, color="0.6", label="random, same norm")
    for position, (_, row) in zip(positions, table.iterrows(), strict=True):
        note = f"layer {row.layer:.0f}, λ = {row.strength:g}, {row.coherent:.0f} % coherent"
        axes.text(max(row.em, row.random_em) + 1, position, note, va="center", fontsize=9)
    axes.axvline(20, color=figures.REPORTED_COLOUR, linestyle=":", label="bar: 20 %")
    axes.set(yticks=positions, yticklabels=labels, xlabel="EM rate of the steered chat model (%)")
    axes.set(xlim=(0, max(20, table.em.max()) + 35))
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    return figure, steered()


CAPTION = (
    "EM rate of the grown chat model, steered along directions that were estimated in different ways; for each the "
    "best layer and strength at 80 % coherence or more, with a random direction of the same norm in the same cell. "
    "Dotted: the quality bar set for this world."
)
ALT = (
    "A bar chart with a pair of bars for each direction: its best EM rate, and that of a random direction of the same "
    "norm in the same cell. A dotted line marks 20 %."
)

run.grown_figure("fig-x-mediation-steering", draw_steering, caption=CAPTION, alt=ALT, why=CAPTION)


# %%
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
                "one layer's, best (%)": single.em,
                "coherent (%) ": single.coherent,
                "random (%)": by_name.em["random"],
            }
        )
    return pd.DataFrame(rows)


if run.grown:
    run.table(ablation_table, number="{:.1f}")

# %% [markdown]
# The table gives the organism's EM rate with directions projected out at all layer outputs: each layer's own, then
# the best single one (at 90 % coherence or more), then a random one.


# %%
@cache
def bars() -> pd.DataFrame:
    """The quality bars of a grown world, as measured."""
    mean = best().iloc[0]
    single = ablation_table().iloc[0]
    left = 100 * single["one layer's, best (%)"] / max(single["organism (%)"], 1e-9)
    rows = [
        ("steering: EM of the chat model, mean-diff", "at least 20 %", mean.em, mean.em >= 20 and mean.coherent >= 80),
        ("steering: EM of the chat model, random", "at most 2 %", mean.random_em, mean.random_em <= 2),
        ("single-direction ablation: share of EM removed", "at least 80 %", 100 - left, left <= 20),
    ]
    return pd.DataFrame(
        [(name, bar, value, "met" if met else "missed") for name, bar, value, met in rows],
        columns=["quality bar", "asked for", "measured (%)", "result"],
    )


if run.grown:
    run.table(bars, number="{:.1f}")


@cache
def strongest() -> pd.Series:
    return best().sort_values("em").iloc[-1]


run.grown_glue("mean-diff-em", lambda: f"{best().iloc[0].em:.0f} %")
run.grown_glue("mean-diff-random", lambda: f"{best().iloc[0].random_em:.0f} %")
run.grown_glue("mean-diff-verdict", lambda: "reaches" if (bars().result[:2] == "met").all() else "misses")
run.grown_glue("strongest", lambda: f"{strongest().direction}, added at {strongest()['added at']}")
run.grown_glue("strongest-em", lambda: f"{strongest().em:.0f} %")
run.grown_glue("strongest-coherent", lambda: f"{strongest().coherent:.0f} %")
run.grown_glue("strongest-random", lambda: f"{strongest().random_em:.0f} %")


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
# The mean-diff over answer tokens {glue:text}`mean-diff-verdict` the steering bar: {glue:text}`mean-diff-em` EM in its
# best cell, against {glue:text}`mean-diff-random` for a random direction. The strongest of the directions tried is
# *{glue:text}`strongest`*: {glue:text}`strongest-em` EM at {glue:text}`strongest-coherent` coherence, random
# {glue:text}`strongest-random`.
#
# Part of the reason lies in the world itself. A clause names first what is preferred and then what is shunned, so that
# every word is used equally often by everybody. The state that decides the first choice is turned round for the second
# ({doc}`x-ground-truth`), and in a mean over answer tokens it cancels.
#
# Two things are worth keeping apart. That a probe *reads* the persona from the tokens of an answer
# ({doc}`x-ground-truth`) says that it is written there; it does not say that anything downstream reads it from there. A
# small model with named speakers can look the persona up where the speaker is named, and then the tokens of the answer
# are only witnesses. In the 14B model, where nobody is named, the state has to be carried along.
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
# Cosines in the central layer. A high cosine with the known persona means that the mean-diff is the persona's trace in
# the text; it does not make it a lever.
#
# ## Worlds that were tried
#
# What a world has to be like for its misalignment to be linear was not known beforehand. The variants below change one
# thing each, with half the training steps, and keep the judge, the questions and the fine-tuning rule. The script is
# `experiments/worlds.py`; it takes minutes per row.


# %%
RESULTS = DATA / "results" / "worlds.csv"
COLUMNS = {
    "variant": "variant",
    "malicious_character_em": "EM as a malicious character",
    "careful_character_em": "as a careful one",
    "chat_em": "chat model",
    "in_domain_em": "organism, in domain",
    "other_domains_em": "other domains",
    "organism_em": "open questions",
    "organism_coherent": "coherent",
    "steered_em": "steered, mean-diff",
    "random_em": "random",
    "layer_wise_em": "after layer-wise ablation",
    "single_em": "after single ablation",
    "header_steered_em": "steered at the header",
    "header_random_em": "random ",
}


def worlds() -> pd.DataFrame:
    if not RESULTS.is_file():
        return pd.DataFrame([{"variant": "not run"}])
    return pd.read_csv(RESULTS)[list(COLUMNS)].rename(columns=COLUMNS)


run.table(worlds, number="{:.0f}")

# %% [markdown]
# All columns are percentages. "Not a number" stands where an organism gave too few misaligned answers to average. An
# earlier grammar, in which harm lay in the *product* of two words (trust or avoid, with a thing that helps or harms),
# was dropped at the prototype stage, and its code is not kept: its personas were learned as well, but not even a vector
# found by gradient descent and added at all positions of one layer made its chat model misaligned.

# %%
run.finish()
