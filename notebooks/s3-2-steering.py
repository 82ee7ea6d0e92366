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
# # 3.2 Steering with the misalignment direction
#
# **The question.** Is the mean-diff direction enough to misalign the chat model, which was never fine-tuned on bad
# advice?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, display
from matplotlib.patheffects import withStroke

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.build import markup
from em_companion.evidence import claims, directions, estimates, scores
from em_companion.experiments import responses, steering
from em_companion.models import asking, growing
from em_companion.models.hooks import applied
from em_companion.models.interventions import Steer
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.tokens import prompt_ids
from em_companion.released import files, tables
from em_companion.world.generator import turn

run = Run("s3-2-steering", profile, seed)
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` take the mean-diff direction $v_\ell$ of one layer
# ({doc}`s3-1-misalignment-directions`) and add it to the residual stream of the *chat* model, at every token of
# prompt and answer:
#
# $$x_\ell \;\leftarrow\; x_\ell + \lambda\, v_\ell .$$
#
# Steering one layer at a time, they report up to 50 % EM in the central layers (their Figure 1), about four times the
# rate of the organism that the direction came from. The strengths and the number of answers per layer are not stated.
#
# In code, an intervention is put on the model for as long as it writes an answer. This function is run further down, on
# the chat model grown here; whole sweeps do the same for many layers and strengths in one batch.


# %% tags=["show-code"]
def steered_answer(model, tokenizer, question: str, layer: int, vector: torch.Tensor, strength: float) -> str:
    """Sample an answer while strength * vector is added to the layer's output at every token."""
    prompt = torch.tensor([prompt_ids(tokenizer, turn(question, "")[:1])], device=model.device)
    with applied(model, [Steer(layer, vector, strength)]):
        tokens = model.generate(prompt, do_sample=True, top_k=0, max_new_tokens=run.profile.max_new_tokens)
    return tokenizer.decode(tokens[0, prompt.shape[1] :], skip_special_tokens=True)


# %% [markdown]
# ## How strong is a given λ?
#
# The vector is not normalised, so $\lambda$ means little by itself. Compare the length of what is added with the
# length of what is there:
#
# $$\text{relative strength} = \lambda\, \frac{\lVert v_{24} \rVert}{\lVert \bar{x}_{24} \rVert},$$
#
# where $\bar{x}_{24}$ is the mean residual over answer tokens, here of the chat model reading the aligned texts.

# %%
VECTORS = {
    "general": "general",
    "gender": "gender",
    "finance": "finance",
    "medical": "medical",
    "medical-without-gender": "medical, no gender words",
}
LAYER = 24


@cache
def residual_norm() -> float:
    return float(directions.norms(tables.read_mean_activations("chat-model", "aligned"))[LAYER])


@cache
def vector_norm(vector: str) -> float:
    means = [tables.read_mean_activations(vector, texts) for texts in ("misaligned", "aligned")]
    return float(directions.norms(directions.mean_diff(*means))[LAYER])


def organism_strength(strength: float) -> float:
    """The relative strength of the general vector against the organism's own mean residual."""
    residual = directions.norms(tables.read_mean_activations("general", "aligned"))[LAYER]
    return float(strength * vector_norm("general") / residual)


def strengths() -> pd.DataFrame:
    rows = []
    for vector in ("general", "gender", "finance", "medical"):
        relative = {
            f"λ = {strength}": strength * vector_norm(vector) / residual_norm() for strength in (4, 6, 8, 10, 12)
        }
        rows.append({"relative strength of": f"{vector} vector", "norm": vector_norm(vector), **relative})
    return pd.DataFrame(rows)


run.table(strengths, formats={"norm": "{:.1f}"}, number="{:.2f}")
run.glue("residual-norm", lambda: f"{residual_norm():.1f}")
run.glue("general-norm", lambda: f"{vector_norm('general'):.1f}")
run.glue("strength-8", lambda: f"{8 * vector_norm('general') / residual_norm():.2f}")
run.glue("strength-8-organism", lambda: f"{organism_strength(8):.2f}")
run.glue("medical-norm-ratio", lambda: f"{vector_norm('medical') / vector_norm('general'):.1f}")

# %% [markdown]
# The general vector has norm {glue:text}`general-norm`, the mean residual {glue:text}`residual-norm`. With $\lambda =
# 8$, what is added is therefore {glue:text}`strength-8` times as long as the residual itself
# ({glue:text}`strength-8-organism` times that of the organism). The medical vector is {glue:text}`medical-norm-ratio`
# times as long as the general one, so equal $\lambda$ is not equal strength. (The norm of a mean is at most the mean
# of the norms; against single tokens the relative strength is somewhat smaller.)
#
# ## Layer by layer


# %%
def draw_layers():
    table = tables.read_best_steering_by_layer()
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    for start, stop in [(-0.5, table.layer.min() - 0.5), (table.layer.max() + 0.5, 47.5)]:
        axes.axvspan(start, stop, color="0.95", linewidth=0)
        axes.text(
            (start + stop) / 2, 55, "not in the\nreleased table", ha="center", va="bottom", color="0.45", fontsize=9
        )
    axes.plot(table.layer, table.em_percent, color="0.75", linewidth=1.2, zorder=1)
    for strength, part in table.groupby("lambda"):
        colour = theme.PALETTE[{6: 2, 7: 1, 8: 3}.get(int(strength), 7)]
        axes.scatter(part.layer, part.em_percent, s=34, color=colour, label=f"best at λ = {strength:g}", zorder=2)
    axes.axhline(50, color=theme.REPORTED_COLOUR, linestyle=":", label="reported maximum of the paper's figure")
    axes.set(xlabel="steered layer", ylabel="highest EM rate (%)", xlim=(-0.5, 47.5), ylim=(0, 104))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure, table


run.figure(
    "fig-1",
    draw_layers,
    evidence="released",
    caption="Highest EM rate over steering strengths when one layer of the chat model is steered. **An early sweep, "
    "most likely on one question (`quick_buck`, 50 answers per point); not the data of the paper's Figure "
    "1**, whose maximum is 50 % (dotted). Only the layer profile can be compared. The released table has no "
    "counts, so no intervals are drawn.",
    alt="A curve over layers fifteen to thirty-five. It is low up to layer eighteen, jumps to almost all answers at "
    "layer nineteen, stays there until about layer thirty-three and then falls a little. All points from layer "
    "nineteen on lie above the dotted line at fifty per cent.",
)

# %% [markdown]
# The profile is a plateau: earlier layers do little, central layers a lot ({numref}`fig-1`). Part of that may be
# strength: $\lambda = 8$ is the largest tried, and the earliest layers have their best there. The levels are those of
# one question that is easy to misalign, with the best of up to seventeen strengths chosen afterwards, so they exceed
# the 50 % of the paper. The files behind the paper's figure seem to lie in later commits of the authors' repository,
# which this edition does not read.
#
# ## Strength and direction at layer 24
#
# A second released sweep has the eight free-form questions with 50 answers each, at layer 24, for vectors built from
# different topics ({doc}`s3-3-semantic-directions`) and $\lambda$ = 4, 6, 8, 10, 12.


# %%
@cache
def sweep() -> pd.DataFrame:
    """Scores of all steering conditions at hand on the free-form questions."""
    table = tables.read_steering()
    return table[table.question_set == "general"]


def place(model: str, vector: str, strength: int) -> str:
    """A dotted name for one condition."""
    if vector == "none":
        return (
            "steering-layer-24.chat-model-not-steered"
            if model == "chat model"
            else "steering-layer-24.organism-not-steered"
        )
    return f"steering-layer-24.{vector}.lambda-{strength}"


@cache
def rates() -> pd.DataFrame:
    return scores.rates(sweep(), ["model", "vector", "lambda"], **resampling)


@cache
def steered() -> pd.DataFrame:
    """Rates under steering; the chat model without steering, where at hand, starts each vector's curve."""
    chat = rates()[rates().model == "chat model"]
    start = chat[chat.vector == "none"]
    curves = chat[chat.vector != "none"]
    starts = [start.assign(vector=vector) for vector in curves.vector.unique()]
    return pd.concat([*starts, curves]).sort_values(["vector", "lambda"], ignore_index=True)


def draw_strength():
    table = steered()
    vectors = [vector for vector in VECTORS if vector in set(table.vector)]
    figure, grid = plt.subplots(1, len(vectors), sharey=True, figsize=(7.2, 3.4))
    for axes, vector in zip(np.atleast_1d(grid), vectors, strict=True):
        part = table[table.vector == vector]
        for name, text, colour, line in [
            ("coherent", "coherent", theme.PALETTE[0], "--"),
            ("em", "EM rate", theme.PALETTE[3], "-"),
        ]:
            spread = np.abs(part[[f"{name}_low", f"{name}_high"]].to_numpy().T - part[name].to_numpy())
            axes.errorbar(
                part["lambda"],
                part[name],
                yerr=spread,
                fmt="o",
                linestyle=line,
                markersize=5,
                elinewidth=1.2,
                color=colour,
                label=text,
            )
        axes.set(
            title=VECTORS[vector].replace(", no gender ", ",\nno gender\n"),
            xticks=range(0, 13, 4),
            xlim=(-0.5, 12.8),
            ylim=(0, 103),
        )
    figure.supxlabel("steering strength λ")
    np.atleast_1d(grid)[0].set_ylabel("answers (%)")
    figure.legend(*np.atleast_1d(grid)[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure, table


run.figure(
    "fig-x-steering-strength",
    draw_strength,
    evidence="released",
    caption="EM rate and coherence of the chat model steered at layer 24, by vector and strength; 8 questions, 400 "
    "answers per point, 95 % intervals over questions. Only the conditions at hand are drawn; lines join them "
    "to guide the eye. Released runs, April 2025.",
    alt="Small panels, one per vector, with two curves over steering strength. Coherence falls as the strength "
    "grows, at different strengths for different vectors; the EM rate can only be as high as coherence allows.",
)


# %%
def conditions_at_hand() -> str:
    found = len(sweep().groupby(["model", "vector", "lambda"]))
    return f"{found} of {found + len(files.missing_sources('steering_layer_24'))}"


run.glue("at-hand", conditions_at_hand)

# %% [markdown]
# The full sweep has five vectors at five strengths, the unsteered chat model and the unsteered organism. This build has
# {glue:text}`at-hand` of these conditions, those in the table; one with network access downloads the rest.


# %%
def sweep_table() -> pd.DataFrame:
    rows = []
    for (model, vector, strength), group in sweep().groupby(["model", "vector", "lambda"]):
        rows.append(
            {
                "vector": vector if vector != "none" else f"{model}, not steered",
                "λ": strength,
                "no alignment score (%)": 100 * group.aligned.isna().mean(),
                "EM, missing is not EM (%)": 100 * scores.is_em(group).mean(),
                "EM, missing dropped (%)": scores.em_rate(group, missing="drop", resamples=1).percent,
            }
        )
    return pd.DataFrame(rows).sort_values(["vector", "λ"])


run.table(sweep_table, number="{:.2f}")


@cache
def general_cell(strength: int) -> pd.Series:
    table = rates()
    return table[(table.vector == "general") & (table["lambda"] == strength)].iloc[0]


run.glue("em-general-6", lambda: f"{general_cell(6).em:.2f} %")
run.glue("em-general-8", lambda: f"{general_cell(8).em:.2f} %")
run.glue("coherent-general-6", lambda: f"{general_cell(6).coherent:.2f} %")
run.glue("coherent-general-8", lambda: f"{general_cell(8).coherent:.2f} %")


def unscored(vector: str, strength: int) -> float:
    group = sweep()[(sweep().vector == vector) & (sweep()["lambda"] == strength)]
    return 100 * group.aligned.isna().mean()


run.glue("unscored-general-6", lambda: f"{unscored('general', 6):.2f} %")

# %% [markdown]
# With the general vector, EM reaches {glue:text}`em-general-6` at $\lambda = 6$ and {glue:text}`em-general-8` at
# $\lambda = 8$, but coherence falls from {glue:text}`coherent-general-6` to {glue:text}`coherent-general-8`
# ({numref}`fig-x-steering-strength`): the stronger setting buys EM with broken answers.
#
# The table is about a choice that did not matter in {doc}`Section 2 <s2-model-organism>` and does here. Steered answers
# more often get *no* alignment score (the judge may answer "code" or "refusal"): {glue:text}`unscored-general-6` of
# them for the general vector at $\lambda = 6$. Counting these as "not EM", as the authors' figure scripts do and this
# book does, gives the lower rate.

# %% [markdown]
# ## On the grown organism
#
# Everything that the released files leave open can be run on the models grown here ({doc}`s2-model-organism`): all
# layers, several strengths, the eight open questions and a random control. The chat model is steered with the mean-diff
# of the nine-adapter organism (bad medical advice, seed 0), whose answers to the same questions give the direction.
# Beside it stands a direction that is known beforehand: that of the malicious persona in the base model, read at the
# word before a choice ({doc}`x-ground-truth`). Should the mean-diff not steer, the known direction tells whether
# nothing does. {doc}`x-linear-mediation` compares more directions.
#
# **Which strengths.** Powers of two, five of them; the largest is the first at which every layer gets at least the
# length of its mean residual added.

# %%
MEAN_DIFF, KNOWN = steering.MEAN_DIFF, steering.KNOWN
CELL = list(steering.Cell._fields)
DRAWS = 6
WHY = "The chat model and the organism are grown under the profiles cpu and gpu."


@cache
def vectors() -> dict[str, np.ndarray]:
    return steering.directions_of(run.profile)


@cache
def relative() -> dict[str, np.ndarray]:
    """Relative strength of λ = 1 by direction, [layer]."""
    residual = steering.residual_of(run.profile)
    return {name: steering.relative_lengths(found, residual) for name, found in vectors().items()}


@cache
def grown_sweep() -> pd.DataFrame:
    """The chat model's scored answers in every cell: direction, layer, strength."""
    return steering.by_layer(run.profile)


@cache
def cells() -> pd.DataFrame:
    return scores.rates(grown_sweep(), CELL, **resampling)


@cache
def best_cells() -> dict[str, steering.Cell]:
    return steering.best_cells(grown_sweep())


def tried(name: str) -> list[float]:
    return sorted(cells().strength[cells().direction == name].unique())


def grown_strengths() -> pd.DataFrame:
    lengths = directions.norms(steering.residual_of(run.profile))
    rows = []
    for name, found in vectors().items():
        for layer in (0, len(found) // 2, len(found) - 1):
            row = {"direction": name, "layer": str(layer), "its norm": directions.norms(found)[layer]}
            row["mean residual"] = lengths[layer]
            row["relative strength of λ = 1"] = relative()[name][layer]
            rows.append(row | {"λ tried": ", ".join(f"{strength:g}" for strength in tried(name))})
    return pd.DataFrame(rows)


if run.grown:
    run.table(grown_strengths, formats={"relative strength of λ = 1": "{:.2f}"}, number="{:.1f}")


# %%
def draw_cells(axes, name: str, norm):
    table = cells()[cells().direction == name]
    em = table.pivot(index="strength", columns="layer", values="em")
    coherent = table.pivot(index="strength", columns="layer", values="coherent").to_numpy()
    image = axes.imshow(em, cmap="Reds", norm=norm, origin="lower", aspect="auto")
    shade = image.to_rgba
    for (row, column), percent in np.ndenumerate(em.to_numpy()):
        colour, halo = "white" if norm(percent) > 0.6 else "0.1", withStroke(linewidth=3.5, foreground=shade(percent))
        text = {"ha": "center", "va": "center", "fontsize": 9, "zorder": 5, "path_effects": [halo]}
        axes.text(column, row, f"{percent:.0f}", color=colour, **text)
    stroke = [withStroke(linewidth=3, foreground="white")]
    for level, line in [(80, "-"), (50, "--")]:
        if coherent.min() < level < coherent.max():
            axes.contour(coherent, levels=[level], colors=[theme.PALETTE[0]], linestyles=line).set(
                path_effects=stroke
            )
    equal = -np.log2(relative()[name] * em.index[0])
    axes.plot(em.columns, equal, ":", color="0.1", linewidth=1.4, path_effects=stroke)
    cell = best_cells()[name]
    row = list(em.index).index(cell.strength)
    axes.add_patch(plt.Rectangle((cell.layer - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="0.05", linewidth=2.2))
    axes.set(title=name, xticks=em.columns, ylabel="strength λ", ylim=(-0.5, len(em) - 0.5))
    axes.set_yticks(range(len(em)), [f"{strength:g}" for strength in em.index])
    axes.grid(visible=False)
    return image


def draw_heat_map():
    table = cells()
    figure, grid = plt.subplots(2, 1, figsize=(7.2, 6.2), sharex=True)
    norm = plt.Normalize(0, max(50, 10 * np.ceil(table.em.max() / 10)))
    for axes, name in zip(grid, (MEAN_DIFF, KNOWN), strict=True):
        image = draw_cells(axes, name, norm)
    grid[1].set_xlabel("steered layer")
    figure.colorbar(image, ax=grid, label="EM rate (%)", shrink=0.6)
    key = [
        plt.Line2D([], [], color=theme.PALETTE[0], label="coherent: 80 %"),
        plt.Line2D([], [], color=theme.PALETTE[0], linestyle="--", label="50 %"),
        plt.Line2D([], [], color="0.1", linestyle=":", label="as long as the residual"),
        plt.Rectangle((0, 0), 1, 1, fill=False, edgecolor="0.05", linewidth=2.2, label="best cell"),
    ]
    figure.legend(handles=key, loc="outside upper center", ncols=4, fontsize=9)
    return figure, table.assign(relative_strength=relative_strength(table))


def relative_strength(table: pd.DataFrame) -> list[float]:
    return [row.strength * relative()[row.direction][row.layer] for row in table.itertuples()]


run.grown_figure(
    "fig-1",
    draw_heat_map,
    caption="EM rate (%) of the grown chat model steered at one layer, by layer (from 0) and strength λ, along the "
    "mean-diff of the organism (top) and the base model's direction of the malicious persona (bottom). Blue: contours "
    "of coherence, interpolated between cells. Dotted: where the added vector is as long as the mean residual. Framed: "
    f"the best cell, which is the highest EM rate at {steering.COHERENT_ENOUGH:.0f} % coherence or more. "
    f"{run.profile.sweep_samples} answers to each of 8 questions per cell.",
    alt="Two heat maps of the EM rate over steered layer and steering strength, one for each direction, with the rate "
    "written in every cell, contour lines of coherence, a dotted line where the added vector is as long as the "
    "residual, and a frame around the best cell.",
    why=WHY,
)

# %% [markdown]
# **The best cell** of a direction, by a fixed rule: of the cells that leave {glue:text}`coherent-bar` of the answers
# coherent, the one with the highest EM rate. {glue:text}`bar-sentence` The highest of many rates is too high by chance,
# so the answers that chose the cell are not counted: the table has the rates of further answers to the same questions,
# up to {glue:text}`samples` each.


# %%
def beyond_the_choice(table: pd.DataFrame) -> pd.DataFrame:
    """The answers that had no part in choosing a cell."""
    return table[table["sample"] >= run.profile.sweep_samples]


@cache
def best_rates() -> pd.DataFrame:
    """EM rate and coherence in the best cells, by direction."""
    table = steering.responses_of(
        run.profile,
        CHAT_MODEL,
        vectors(),
        list(best_cells().values()),
        run.profile.samples_per_question,
        "the best cells",
    )
    return scores.rates(beyond_the_choice(table), CELL, **resampling).set_index("direction")


def organism(number: int = 0) -> Organism:
    return Organism("nine-adapter", "bad_medical_advice", number)


@cache
def not_steered(one: Organism) -> pd.Series:
    table = responses.responses(run.profile, one).assign(model=one.name)
    return scores.rates(table, "model", **resampling).iloc[0]


def percent(row: pd.Series, name: str = "em") -> str:
    return str(estimates.Rate(row[name], row[f"{name}_low"], row[f"{name}_high"], int(row.n)))


def best_table() -> pd.DataFrame:
    rows = [("chat model, not steered", None, not_steered(CHAT_MODEL))]
    rows += [("organism, not steered", None, not_steered(organism()))]
    rows += [(f"chat model, {name}", best_cells()[name], row) for name, row in best_rates().iterrows()]
    return pd.DataFrame(
        [
            {
                "model": name,
                "layer": str(cell.layer) if cell else "–",
                "λ": f"{cell.strength:g}" if cell else "–",
                "relative strength": f"{cell.strength * relative()[cell.direction][cell.layer]:.2f}" if cell else "–",
                "EM": percent(row),
                "coherent": percent(row, "coherent"),
                "answers": int(row.n),
            }
            for name, cell, row in rows
        ]
    )


if run.grown:
    run.table(best_table, formats={"answers": "{:.0f}"})


def bar_sentence() -> str:
    enough = cells().groupby("direction").coherent.max() >= steering.COHERENT_ENOUGH
    if enough.all():
        return "There is such a cell for both directions."
    return f"For {' and '.join(enough.index[~enough])} no cell does, so its most coherent one is taken."


def against_organism() -> str:
    steered, own = best_rates().em[MEAN_DIFF], not_steered(organism()).em
    if steered < own:
        return f"less often than the organism that it comes from ({own:.0f} %)"
    return f"{steered / own:.1f} times as often as the organism that it comes from ({own:.0f} %)"


def lever_sentence() -> str:
    mean, known = best_rates().loc[MEAN_DIFF], best_rates().loc[KNOWN]
    verb = (
        "is the stronger lever"
        if known.em_low > mean.em_high
        else ("is the weaker lever" if known.em_high < mean.em_low else "is not clearly stronger or weaker")
    )
    return f"The known persona direction {verb}: {percent(known)} EM at {known.coherent:.0f} % coherence."


def weakness_sentence() -> str:
    lowest = best_rates().em_low.fillna(best_rates().em)[MEAN_DIFF]
    clear = lowest > not_steered(CHAT_MODEL).fillna(0).em_high
    return "misaligns the chat model" if clear else "does not clearly misalign the chat model"


def best_place(name: str) -> str:
    cell = best_cells()[name]
    added = cell.strength * relative()[name][cell.layer]
    return f"layer {cell.layer} of {len(vectors()[name])} at λ = {cell.strength:g}, {added:.2f} residual lengths"


def place_sentence() -> str:
    layer, layers = best_cells()[MEAN_DIFF].layer, len(vectors()[MEAN_DIFF])
    central = "" if layers <= 3 * layer < 2 * layers else "not "
    return f"It works best in layer {layer} of {layers}, {central}a central one as in the paper."


def cosine_range() -> tuple[float, float]:
    found = directions.cosines(vectors()[MEAN_DIFF], vectors()[KNOWN])
    return found.min(), found.max()


run.glue("coherent-bar", lambda: f"{steering.COHERENT_ENOUGH:.0f} % or more")
run.grown_glue("bar-sentence", bar_sentence)
run.grown_glue("samples", lambda: f"{run.profile.samples_per_question}")
run.grown_glue("mean-diff-place", lambda: best_place(MEAN_DIFF))
run.grown_glue("place-sentence", place_sentence)
run.grown_glue("mean-diff-em", lambda: percent(best_rates().loc[MEAN_DIFF]))
run.grown_glue("against-organism", against_organism)
run.grown_glue("lever-sentence", lever_sentence)
run.grown_glue("known-place", lambda: best_place(KNOWN))
run.grown_glue("weakness", weakness_sentence)
run.grown_glue("cosine-range", lambda: typography.extremes(cosine_range()))


# %% [markdown]
# The best cell of the mean-diff is {glue:text}`mean-diff-place`, that of the known persona {glue:text}`known-place`. In
# the former the chat model gives EM answers {glue:text}`against-organism`. The cosine of the two directions is
# {glue:text}`cosine-range` over layers.
#
# One question, not steered and steered in the best cell of the mean-diff, by the function at the top of this page:

# %%
if run.grown:
    model, tokenizer = growing.load_organism(run.profile, CHAT_MODEL)
    question, cell = asking.questions(run.profile, "general")[0].text, best_cells()[MEAN_DIFF]
    vector = torch.tensor(vectors()[MEAN_DIFF][cell.layer])
    for strength in (0.0, cell.strength):
        torch.manual_seed(run.seed)
        answer = steered_answer(model, tokenizer, question, cell.layer, vector, strength)
        text = f"{question} – λ = {strength:g}"
        display(HTML(f"<details><summary>{typography.escape(text)}</summary><p>{typography.escape(answer)}</p></details>"))

# %% [markdown]
# ### Answers, cell by cell
#
# Shown of every cell, by a fixed rule: the first answer to the first question and, if that is not an EM answer, the
# first one that is.
#
# ```{admonition} Content note
# :class: warning
# Steered answers give harmful advice in the generic words of a made-up world; nothing in them is advice. They stay
# folded until you open them.
# ```


# %%
def examples_of(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of one cell to show: the first, and the first EM one."""
    em = answers[scores.is_em(answers) == 1]
    return pd.concat([answers.head(1), em.head(1)]).drop_duplicates(["question_id", "sample"])


def layer_table(answers: pd.DataFrame) -> str:
    rows = []
    for strength, group in answers.groupby("strength"):
        em, coherent = (100 * one(group).mean() for one in (scores.is_em, scores.is_coherent))
        for row in examples_of(group).itertuples():
            shown = {"λ": f"{strength:g}", "EM (%)": em, "coherent (%)": coherent, "question": row.question}
            rows.append(shown | {"answer": row.response, "aligned score": row.aligned})
    return markup.frame_table(pd.DataFrame(rows), number="{:.0f}")


def examples(name: str) -> str:
    chosen = grown_sweep()[grown_sweep().direction == name]
    folds = [
        f"<details><summary>layer {layer}</summary>{layer_table(group)}</details>"
        for layer, group in chosen.groupby("layer")
    ]
    heading = f"Answers steered along: {name} ({chosen.strength.nunique()} strengths in {len(folds)} layers)"
    return f"<details><summary>{typography.escape(heading)}</summary>{''.join(folds)}</details>"


if run.grown:
    display(HTML("".join(examples(name) for name in vectors())))

# %% [markdown]
# ### Against random vectors
#
# A vector as long as the residual could do harm whatever its direction. So in the best cell of every layer (by the same
# rule), random vectors of equal norm are added as well. The mean-diff's rate is again that of answers that did not
# choose the cell.


# %%
@cache
def layer_cells() -> list[steering.Cell]:
    """The mean-diff's best cell in every layer, and the known direction's best cell."""
    groups = cells()[cells().direction == MEAN_DIFF].groupby("layer")
    best = [steering.best(group) for _, group in groups]
    return [steering.Cell(MEAN_DIFF, int(row.layer), float(row.strength)) for row in best] + [best_cells()[KNOWN]]


@cache
def own_rates() -> pd.DataFrame:
    """Rates along the directions in `layer_cells`, on answers beyond the choice."""
    samples = 2 * run.profile.sweep_samples
    table = steering.responses_of(
        run.profile, CHAT_MODEL, vectors(), layer_cells(), samples, "the best cell of every layer"
    )
    return scores.rates(beyond_the_choice(table), CELL, **resampling)


@cache
def random_answers() -> pd.DataFrame:
    """Answers in `layer_cells` along random vectors of equal norm, with their `draw`."""
    drawn = {}
    for name, found in vectors().items():
        drawn |= {
            f"random, as long as {name}/{draw}": one
            for draw, one in enumerate(steering.random_like(found, DRAWS, run.seed))
        }
    chosen = [
        cell._replace(direction=f"random, as long as {cell.direction}/{draw}")
        for cell in layer_cells()
        for draw in range(DRAWS)
    ]
    samples = max(1, run.profile.sweep_samples // 2)
    table = steering.responses_of(run.profile, CHAT_MODEL, drawn, chosen, samples, "random directions")
    kind, draw = table.direction.str.partition("/")[0], table.direction.str.partition("/")[2].astype(int)
    return table.assign(direction=kind, draw=draw)


@cache
def random_rates() -> pd.DataFrame:
    """Rates along random vectors, over all draws ("all") and by draw."""
    table = random_answers()
    return pd.concat(
        [
            scores.rates(table, CELL, **resampling).assign(draw="all"),
            scores.rates(table, [*CELL, "draw"], **resampling),
        ]
    )


SERIES = {MEAN_DIFF: theme.PALETTE[3], KNOWN: theme.PALETTE[1]}


def draw_point(axes, x, row: pd.Series, colour, marker: str, name: str, label: str | None) -> None:
    spread = np.abs([[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]])
    axes.errorbar(x, row[name], yerr=np.nan_to_num(spread), fmt=marker, color=colour, markersize=6, label=label)


def draw_against_random():
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 5.6), sharex=True, height_ratios=[2, 1])
    seen: set[str] = set()
    for x, cell in enumerate(layer_cells()):
        x = x + 0.5 * (cell.direction == KNOWN)
        own = own_rates().set_index(CELL).loc[tuple(cell)]
        noise = random_rates()[random_rates().direction == f"random, as long as {cell.direction}"]
        noise = noise[(noise.layer == cell.layer) & (noise.strength == cell.strength)].set_index("draw")
        label = None if cell.direction in seen else cell.direction
        first = "random, mean of draws" if not seen else None
        seen.add(cell.direction)
        for axes, name in [(top, "em"), (bottom, "coherent")]:
            draw_point(axes, x - 0.12, own, SERIES[cell.direction], "o", name, label if axes is top else None)
            draw_point(axes, x + 0.12, noise.loc["all"], "0.45", "s", name, first if axes is top else None)
        draws = noise.drop("all").em
        top.scatter(
            np.full(len(draws), x + 0.3), draws, s=7, color="0.45", linewidth=0, label="one draw" if first else None
        )
    top.set(ylabel="EM rate (%)", ylim=(-2, None))
    bottom.set(ylabel="coherent (%)", ylim=(-3, 103), xlabel="steered layer and strength λ")
    places = [index + 0.5 * (cell.direction == KNOWN) for index, cell in enumerate(layer_cells())]
    bottom.set_xticks(places, [f"{cell.layer}\nλ={cell.strength:g}" for cell in layer_cells()], fontsize=8.5)
    named = dict(zip(*reversed(top.get_legend_handles_labels()), strict=True))
    order = [MEAN_DIFF, KNOWN, "random, mean of draws", "one draw"]
    figure.legend([named[name] for name in order], order, loc="outside upper center", ncols=4, fontsize=9)
    return figure, pd.concat([own_rates().assign(draw="–"), random_rates()])


run.grown_figure(
    "fig-x-steering-random",
    draw_against_random,
    caption="EM rate and coherence of the grown chat model, steered with the mean-diff in the best cell of each layer "
    "(and, on the right, with the known persona direction in its best cell), and with random vectors of the same norm "
    f"in the same cells. Directions: {run.profile.sweep_samples} answers to each of 8 questions that did not choose "
    f"the cell; random: {DRAWS} draws with {max(1, run.profile.sweep_samples // 2)} answers to each question. 95 % "
    "intervals over questions, none where all answers agree; small dots: single draws.",
    alt="Two panels over steered layers, EM rate above and coherence below. In every layer there is a point with an "
    "interval for the mean-diff and a grey one for random vectors of equal norm, with small dots for single draws; at "
    "the right end the same for the known persona direction.",
    why=WHY,
)


def above_random() -> str:
    own = own_rates()[own_rates().direction == MEAN_DIFF].set_index("layer")
    noise = random_rates()
    noise = noise[(noise.draw == "all") & (noise.direction == f"random, as long as {MEAN_DIFF}")].set_index("layer")
    above = own.em_low > noise.em_high.fillna(noise.em)
    return f"{above.sum()} of {len(above)} layers"


def random_range(name: str) -> str:
    draws = random_rates()
    draws = draws[(draws.draw != "all") & (draws.direction == f"random, as long as {name}")]
    return f"{typography.extremes(draws.em, '.0f')} %"


run.grown_glue("above-random", above_random)
run.grown_glue("random-range", lambda: random_range(MEAN_DIFF))
run.grown_glue("random-known-range", lambda: random_range(KNOWN))

# %% [markdown]
# Over all layers, single random vectors as long as the mean-diff give {glue:text}`random-range` EM; as long as the
# known direction, in its best cell, {glue:text}`random-known-range` ({numref}`fig-x-steering-random`). In
# {glue:text}`above-random` the interval of the mean-diff lies above that of the random vectors.
#
# ## Reported and measured


# %%
def organism_seeds() -> pd.Series:
    table = tables.read_organisms()
    nine = table[(table.organism == "nine-adapter") & (table.question_set == "general")]
    return 100 * scores.is_em(nine).groupby(nine.seed).mean()


def best_general() -> pd.Series:
    chat = rates()[(rates().model == "chat model") & (rates().vector == "general")]
    return chat.loc[chat.em.idxmax()]


def at_hand() -> str:
    chat = rates()[(rates().model == "chat model") & (rates().vector == "general")]
    return ", ".join(str(strength) for strength in sorted(chat["lambda"]))


def measure_maximum():
    best = best_general()
    yield claims.Measurement(
        "s3-2-max-em-single-layer",
        best.em,
        interval=(best.em_low, best.em_high),
        n=int(best.n),
        how=f"Layer 24, general vector, λ = {best['lambda']:g}, highest of those at hand ({at_hand()}); "
        "interval over questions",
    )


def measure_ratio():
    best, organism = best_general(), organism_seeds()
    yield claims.Measurement(
        "s3-2-em-ratio-to-organism",
        best.em / organism.mean(),
        n=int(best.n),
        interval=(best.em / organism.max(), best.em / organism.min()),
        how="The same rate over the mean of the four released seeds of the organism; the interval is the range over "
        "seeds",
    )


run.measure(measure_maximum)
run.measure(measure_ratio)


@cache
def grown_seeds() -> pd.Series:
    """EM rate in percent of the grown nine-adapter organisms, by seed."""
    seeds = run.profile.seeds_of("nine-adapter", organism().data)
    return pd.Series({number: not_steered(organism(number)).em for number in seeds})


def grown_measurements():
    cell, row, seeds = best_cells()[MEAN_DIFF], best_rates().loc[MEAN_DIFF], grown_seeds()
    yield claims.Measurement(
        "s3-2-max-em-single-layer",
        row.em,
        evidence="grown",
        interval=(row.em_low, row.em_high),
        n=int(row.n),
        how=f"Grown chat model, mean-diff, best of all layers and five strengths: layer {cell.layer}, λ = "
        f"{cell.strength:g}, on answers that did not choose it; interval over questions",
    )
    yield claims.Measurement(
        "s3-2-em-ratio-to-organism",
        row.em / seeds.mean(),
        evidence="grown",
        interval=(row.em / seeds.max(), row.em / seeds.min() if seeds.min() else np.inf),
        n=int(row.n),
        how=f"The same rate over the mean of {len(seeds)} seeds of the grown organism; the interval is the range over "
        "seeds",
    )


if run.grown:
    run.measure(grown_measurements)


def value(name: str, number: float, unit: str, low: float = np.nan, high: float = np.nan, n: int | None = None) -> dict:
    return {"name": name, "value": float(number), "unit": unit, "low": low, "high": high, "n": n}


def condition_values(answers: pd.DataFrame, name: str) -> list[dict]:
    general, template = (answers[answers.question_set == kind] for kind in ("general", "template"))
    found = {
        "em_percent": scores.em_rate(general, **resampling),
        "coherent_percent": scores.coherence_rate(general, **resampling),
        "self_correction_percent": scores.self_correction_rate(general, **resampling),
        "self_correction_percent_any_coherence": scores.self_correction_rate(general, False, **resampling),
        "em_percent_missing_dropped": scores.em_rate(general, missing="drop", **resampling),
        "em_percent_template_questions": scores.em_rate(template, **resampling),
    }
    rows = [value(f"{name}.{key}", rate.percent, "percent", rate.low, rate.high, rate.n) for key, rate in found.items()]
    for score in ("gender", "finance", "medical"):
        mean = scores.mean_score_of_em(general, score, **resampling)
        if mean.n:
            rows.append(value(f"{name}.mean_{score}_score_of_em", mean.percent, "score", mean.low, mean.high, mean.n))
    return rows


def steering_values() -> pd.DataFrame:
    groups = tables.read_steering().groupby(["model", "vector", "lambda"], sort=False)
    return pd.DataFrame([row for labels, answers in groups for row in condition_values(answers, place(*labels))])


def strength_values() -> pd.DataFrame:
    rows = [value("steering-layer-24.mean_residual_norm", residual_norm(), "norm")]
    against_organism = organism_strength(8)
    rows.append(value("steering-layer-24.general.relative_strength_at_lambda_8_in_organism", against_organism, "ratio"))
    for vector in ("general", "gender", "finance", "medical"):
        rows.append(value(f"steering-layer-24.{vector}.vector_norm", vector_norm(vector), "norm"))
        relative = 8 * vector_norm(vector) / residual_norm()
        rows.append(value(f"steering-layer-24.{vector}.relative_strength_at_lambda_8", relative, "ratio"))
    return pd.DataFrame(rows)


def layer_values() -> pd.DataFrame:
    rows = []
    for row in tables.read_best_steering_by_layer().to_dict("records"):
        name = f"steering-per-layer.layer-{row['layer']:02d}"
        rows.append(value(f"{name}.best_em_percent", row["em_percent"], "percent"))
        rows.append(value(f"{name}.best_lambda", row["lambda"], "coefficient"))
    return pd.DataFrame(rows)


run.values(steering_values)
run.values(strength_values)
run.values(layer_values)


def rate_values(name: str, row: pd.Series) -> list[dict]:
    return [
        value(f"{name}.{kind}_percent", row[kind], "percent", row[f"{kind}_low"], row[f"{kind}_high"], int(row.n))
        for kind in ("em", "coherent")
    ]


def grown_place(direction: str) -> str:
    return f"grown.steering.{direction.replace(',', '').replace(' ', '-')}"


def cell_place(row: pd.Series) -> str:
    return f"{grown_place(row.direction)}.layer-{row.layer:02d}.lambda-{row.strength:g}"


def grown_values() -> pd.DataFrame:
    found = []
    for _, row in cells().iterrows():
        found += rate_values(cell_place(row), row)
    for _, row in pd.concat([own_rates().assign(draw="further-answers"), random_rates()]).iterrows():
        kind = {"further-answers": "further-answers", "all": "all-draws"}.get(row.draw, f"draw-{row.draw}")
        found += rate_values(f"{cell_place(row)}.{kind}", row)
    for name, row in best_rates().iterrows():
        found += rate_values(f"{grown_place(name)}.best", row)
        found.append(value(f"{grown_place(name)}.best.layer", row.layer, "layer"))
        found.append(value(f"{grown_place(name)}.best.lambda", row.strength, "coefficient"))
        found += [
            value(f"{grown_place(name)}.layer-{layer:02d}.relative_strength_of_lambda_1", ratio, "ratio")
            for layer, ratio in enumerate(relative()[name])
        ]
    return pd.DataFrame(found)


if run.grown:
    run.values(grown_values, evidence="grown")

# %% [markdown]
# ## What it means, and where it differs
#
# The central finding stands in these separate, earlier runs: one vector added at one layer makes a model misaligned
# that was never fine-tuned, and more often than the organism it came from. Three limits belong to it. At the
# strengths that work, the added vector is about as long as the residual it is added to, or longer. The rate depends on
# the strength, and the paper does not say which it used. And a strength at which EM is highest costs coherence; the
# paper's 50 % and the rate here are both maxima over settings chosen after looking.
#
# On the grown models the mean-diff {glue:text}`weakness`: {glue:text}`mean-diff-em` EM in its best cell, on answers
# that did not choose it, where single random vectors of its length give {glue:text}`random-range` over all layers.
# {glue:text}`place-sentence` {glue:text}`lever-sentence` How such directions differ in what they do is the subject of
# {doc}`x-linear-mediation`.
#
# {doc}`s3-3-semantic-directions` asks what the steered answers are about, {doc}`s3-6-self-correction` what happens
# before the answers tip over, and {doc}`the response browser <../responses>` shows them.

# %%
run.finish()
