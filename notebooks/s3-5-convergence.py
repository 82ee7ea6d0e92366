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
# # 3.5 Do different organisms converge on one direction?
#
# If organisms with other adapters and other training data arrive at the same direction, then emergent misalignment
# has one representation, and not one per fine-tune. How similar are the directions, and what would make them similar
# without any convergence?
#
# ## What the paper did
#
# It extracts mean-diff directions from three organisms (nine rank-1 adapters and all-adapter rank 32, both on bad
# medical advice; all-adapter rank 32 on extreme sports) and reports cosines above 0.8 at all but four layers for
# every pair {cite:p}`soligo2025convergent`. It then asks how an organism with a *single* rank-1 adapter at layer 24
# gets there. Its output vector B has a cosine of only 0.04 with the direction of that layer. Yet removing the
# direction from its residual stream cuts EM by more than 98 %, removing it from B itself by only 30 %, and downstream
# the effects of B and of the direction become alike (cosine 0.42 by layer 40).
#
# Released are the mean activations of the medical organisms {cite:p}`eminterp2025`, for ranks 32, 8 and 4, of April
# 2025. A sport organism and the B vectors are not among them.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.evidence import claims, directions, estimates, scores
from em_companion.experiments import b_vectors, readings, responses, semantic
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.released import tables

run = Run("s3-5-convergence", profile, seed)

# %% [markdown]
# ## The method
#
# The cosine of two organisms' mean-diff directions at the same layer. With means of their own, on texts of their own,
# it is
#
# $$
# \cos\bigl(\bar h^{A}_\ell(D^A_\mathrm{mis}) - \bar h^{A}_\ell(D^A_\mathrm{al}),\;
#           \bar h^{B}_\ell(D^B_\mathrm{mis}) - \bar h^{B}_\ell(D^B_\mathrm{al})\bigr),
# $$
#
# so two things can differ, the **model** that reads ($A$ or $B$) and the **texts** that are read ($D^A$ or $D^B$).


# %% tags=["show-code"]
@cache
def mean_diff(vector: str) -> np.ndarray:
    """Return v_l of one organism for every layer, [48, 5120]."""
    misaligned = tables.read_mean_activations(vector, "misaligned")
    aligned = tables.read_mean_activations(vector, "aligned")
    return misaligned - aligned


def cosine(first: str, second: str) -> np.ndarray:
    """Return the cosine of two organisms' directions, one per layer."""
    return directions.cosines(mean_diff(first), mean_diff(second))


# %% [markdown]
# ## Similarity by layer

# %%
RANKS = ["rank-32", "rank-8", "rank-4"]
STYLES = {"rank-32": "-", "rank-8": "--", "rank-4": ":"}


def by_layer() -> pd.DataFrame:
    pairs = [("general", rank) for rank in RANKS] + list(combinations(RANKS, 2))
    names = {"general": "nine-adapter"}
    parts = [
        pd.DataFrame(
            {
                "first": names.get(first, first),
                "second": second,
                "layer": np.arange(48),
                "cosine": cosine(first, second),
            }
        )
        for first, second in pairs
    ]
    return pd.concat(parts, ignore_index=True)


def draw_ranks():
    table = by_layer()
    figure, axes = plt.subplots(figsize=(7.2, 4.0))
    for first, last in [(15, 17), (21, 23), (27, 29)]:
        axes.axvspan(first - 0.5, last + 0.5, color="0.94", zorder=0)
    for (first, second), line in table.groupby(["first", "second"], sort=False):
        nine = first == "nine-adapter"
        look = {"color": theme.PALETTE[0], "linestyle": STYLES[second], "label": f"nine-adapter, {second}"}
        axes.plot(line.layer, line.cosine, **(look if nine else {"color": "0.45", "linewidth": 1.2}))
    axes.plot([], [], color="0.45", linewidth=1.2, label="ranks 32, 8, 4 among each other")
    axes.axhline(0.8, color="0.6", linestyle=":", linewidth=1.2)
    axes.set(xlabel="Decoder layer", ylabel="Cosine", ylim=(0.7, 1.01))
    axes.legend(loc="lower right", fontsize=9)
    return figure, table


run.figure(
    "fig-x-convergence-ranks",
    draw_ranks,
    evidence="released",
    caption="Cosine between the mean-diff directions of organisms trained on bad medical advice: nine rank-1 "
    "adapters against all-adapter organisms of rank 32, 8 and 4 (blue), and the latter among each other "
    "(grey). The vertical axis starts at 0.7; dotted: 0.8, the level the paper names. The nine-adapter and "
    "the other directions average *different texts*. Grey bands: the nine adapter layers. Released mean "
    "activations, April 2025.",
    alt="Line plot over 48 layers. The three grey lines lie together just below one at all layers. The three blue "
    "lines run close together: high in early layers, a step down at the second group of adapter layers, a flat "
    "minimum above the dotted line, and a recovery after the third group.",
)


run.glue("lowest", lambda: f"{cosine('general', 'rank-32').min():.3f} (layer {cosine('general', 'rank-32').argmin()})")
run.glue("at-24", lambda: f"{cosine('general', 'rank-32')[24]:.2f}")
run.glue("layer-0", lambda: f"{cosine('general', 'rank-32')[0]:.2f}")
run.glue("before-15", lambda: f"{cosine('general', 'rank-32')[:15].min():.2f}")
run.glue("among-ranks", lambda: f"{min(cosine(*pair).min() for pair in combinations(RANKS, 2)):.2f}")
run.glue("chat-organism", lambda: f"{cosine('general', 'chat-model')[24]:.2f}")

# %% [markdown]
# The nine-adapter and the rank-32 organism stay above 0.8 at all layers, with a minimum of {glue:text}`lowest`; at
# layer 24 the cosine is {glue:text}`at-24`. The all-adapter organisms agree with one another to
# {glue:text}`among-ranks` or better, whatever their rank ({numref}`fig-x-convergence-ranks`).
#
# ## How much of it is convergence?
#
# **Before layer 15 the nine-adapter organism is the chat model**, weight for weight. A cosine of {glue:text}`layer-0`
# at layer 0 and of at least {glue:text}`before-15` up to layer 14 cannot come from what its fine-tune learnt; it
# shows that the texts are alike (the same questions, similar answers). At layer 24, where the organisms do differ,
# the *chat model* reading the organism's texts has a cosine of {glue:text}`chat-organism` with it, more than the
# other organism has ({doc}`Section 3.1 <s3-1-misalignment-directions>`). A cosine above 0.8 is therefore what
# convergence predicts, but not evidence for it: a model that is not misaligned at all reaches more. A clean test
# holds the texts fixed and varies the reader, or holds the reader fixed and varies the texts; the released files have
# only the mixture, and the organisms grown here allow both. The causal test, removing one organism's direction from
# another, is in {doc}`Section 3.4 <s3-4-ablation>`, and the cosine cannot replace it.
#
# The released files have no sport organism and no B vector. {doc}`Appendix D <d-b-vectors>` has the reported numbers
# on the latter, and the two places where the paper contradicts itself: EM falls by 30 % here and by 24 % there, and the
# peak of the downstream cosine stands at layer 40 here and at layer 38 there.

# %% [markdown]
# ## On the grown organisms
#
# The organisms grown here differ in recipe, data set and training seed ({doc}`s2-model-organism`). Each direction comes
# from the organism's own answers to the same eight open questions, as in the paper. The matrix below leaves out
# organisms with fewer than {glue:text}`fewest` misaligned answers; the single-adapter organism has
# {glue:text}`single-misaligned`.

# %%
MEDICAL, SPORT, FINANCE = "bad_medical_advice", "extreme_sports", "risky_financial_advice"
NINE, SAME, OTHER = "nine-adapter, medical", "rank 32, medical", "rank 32, sport"
ORGANISMS = {
    NINE: Organism("nine-adapter", MEDICAL),
    "nine-adapter, sport": Organism("nine-adapter", SPORT),
    "nine-adapter, finance": Organism("nine-adapter", FINANCE),
    SAME: Organism("all-adapter-rank-32", MEDICAL),
    OTHER: Organism("all-adapter-rank-32", SPORT),
    "rank 32, finance": Organism("all-adapter-rank-32", FINANCE),
    "single adapter, medical": Organism("single-adapter", MEDICAL),
}
GROWN_RANKS = {f"rank {rank}": Organism(f"all-adapter-rank-{rank}", MEDICAL) for rank in (32, 16, 8, 4)}
PAPERS = [(NINE, SAME), (NINE, OTHER), (SAME, OTHER)]
NULL_DRAWS = 200
FEWEST = 100
WHY = "The organisms are grown under the profiles cpu and gpu."


# %% tags=["show-code"]
@cache
def answers(organism: Organism, reader: Organism | None = None) -> semantic.Answers:
    """An organism's answers to the open questions, read by itself or by another model."""
    table, means = readings.organism_means(run.profile, organism, reader=reader)
    return semantic.Answers(table, means, organism)


def direction(organism: Organism, reader: Organism | None = None) -> np.ndarray:
    """The mean-diff of an organism's answers, [layer, width], as a reader sees it."""
    found = answers(organism, reader)
    return found.direction(found.general())


# %%
@cache
def reliability(organism: Organism) -> np.ndarray:
    """Expected cosine of two directions from as many answers each, all by one organism, [layer]."""
    found = answers(organism)
    return found.reliability(found.general(), run.profile.split_fits, run.seed)


def misaligned_answers(organism: Organism) -> int:
    return int(scores.misaligned(responses.responses(run.profile, organism)).sum())


def middle() -> int:
    return run.profile.model.layers // 2


def grown_names() -> list[str]:
    return [name for name, one in ORGANISMS.items() if misaligned_answers(one) >= FEWEST]


run.grown_glue("fewest", lambda: str(FEWEST))
run.grown_glue("single-misaligned", lambda: str(misaligned_answers(ORGANISMS["single adapter, medical"])))

# %% [markdown]
# ### Similarity by rank


# %%
@cache
def grown_ranks() -> pd.DataFrame:
    nine = ORGANISMS[NINE]
    found = [("nine-adapter", rank, nine, one) for rank, one in GROWN_RANKS.items()]
    found += [(one, other, GROWN_RANKS[one], GROWN_RANKS[other]) for one, other in combinations(GROWN_RANKS, 2)]
    parts = []
    for first, second, one, other in found:
        table = pd.DataFrame({"first": first, "second": second, "layer": np.arange(run.profile.model.layers)})
        limit = np.sqrt(reliability(one) * reliability(other))
        parts.append(table.assign(cosine=directions.cosines(direction(one), direction(other)), limit=limit))
    return pd.concat(parts, ignore_index=True)


def layer_axis(axes: plt.Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="Decoder layer")


def draw_grown_ranks():
    table = grown_ranks()
    figure, axes = plt.subplots(figsize=(7.2, 4.3))
    for number in run.profile.layers_of("nine-adapter"):
        axes.axvspan(number - 0.5, number + 0.5, color="0.95", linewidth=0, zorder=0)
    styles = dict(zip(GROWN_RANKS, ["-", "--", "-.", ":"], strict=True))
    for (first, second), line in table.groupby(["first", "second"], sort=False):
        nine = first == "nine-adapter"
        look = {"color": theme.PALETTE[0], "linestyle": styles[second], "label": f"nine-adapter, {second}"}
        axes.plot(line.layer, line.cosine, **(look if nine else {"color": "0.45", "linewidth": 1.2}))
    axes.plot([], [], color="0.45", linewidth=1.2, label="ranks among each other")
    limit = table[table["first"] == "nine-adapter"].groupby("layer").limit.mean()
    axes.plot(limit.index, limit, color=theme.PALETTE[2], linewidth=1.4, label="equal but for noise")
    axes.axhline(0.8, color="0.6", linestyle=(0, (1, 3)), linewidth=1.2)
    layer_axis(axes)
    axes.set(ylabel="Cosine", ylim=(min(0.4, table.cosine.min() - 0.03), 1.02))
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


run.grown_figure(
    "fig-x-convergence-ranks",
    draw_grown_ranks,
    caption="Cosine between the mean-diff directions of grown organisms trained on bad medical advice: nine rank-1 "
    "adapters against all-adapter organisms of rank 32, 16, 8 and 4 (blue), and these among each other (grey). Each "
    "from its own answers, so texts differ. Green: what equal directions would reach with as many answers (mean over "
    "the blue pairs). Dotted: 0.8, the level the paper names. All answers are drawn on equal noise, so two organisms "
    "may give some equal ones, which raises a cosine. Grey bands: the nine adapter layers. The vertical axis does not "
    "start at zero.",
    alt="Line plot over layers with a blue line for each rank, against the nine-adapter organism, grey lines for pairs "
    "of ranks, a green line for the limit that noise sets, and a dotted one at 0.8.",
    why=WHY,
)


# %%
def at_middle(nine: bool, column: str = "cosine") -> pd.Series:
    table = grown_ranks()
    return table[(table.layer == middle()) & ((table["first"] == "nine-adapter") == nine)][column]


run.grown_glue("middle", lambda: str(middle()))
run.grown_glue("layers", lambda: str(run.profile.model.layers))
run.grown_glue("ranks-middle", lambda: typography.extremes(at_middle(nine=True)))
run.grown_glue("ranks-limit", lambda: typography.extremes(at_middle(nine=True, column="limit")))
run.grown_glue("ranks-among", lambda: typography.extremes(at_middle(nine=False)))

# %% [markdown]
# At layer {glue:text}`middle` of {glue:text}`layers` (counted from 0), the nine-adapter organism's direction has
# cosines of {glue:text}`ranks-middle` with those of the four ranks, which have {glue:text}`ranks-among` among
# themselves ({numref}`fig-x-convergence-ranks-grown`). Equal directions would lie at {glue:text}`ranks-limit`, because
# each is estimated from a sample of answers.
#
# ### Noise floor and null
#
# What is a cosine to be compared with? Upwards, with two limits:
#
# - **other answers**: the same organism's direction from as many other answers. With $c$ the mean cosine of random
#   halves, their cosine is expected at $r = 2c / (1 + c)$, and that of two equal directions of unequal noise at
#   $\sqrt{r_1 r_2}$;
# - **other training seed**: the same recipe on the same data, trained again, with answers of its own.
#
# Downwards, with chance; and, to tell what readers do from what texts do, with one of them held fixed:
#
# - **no meaning**: labels dealt out anew among the second organism's answers, 95 % of {glue:text}`draws` draws;
# - **chat model reads both**: neither organism reads; the two sets of texts go through the chat model;
# - **one set of texts**: both organisms read the nine-adapter organism's answers, so only readers differ.


# %%
SEEDS = {NINE: "nine-adapter", SAME: "all-adapter-rank-32", OTHER: "all-adapter-rank-32"}


@cache
def other_seeds(recipe: str) -> np.ndarray:
    """Mean cosine between training seeds of a recipe on bad medical advice, [layer]."""
    found = [direction(Organism(recipe, MEDICAL, one)) for one in run.profile.seeds_of(recipe, MEDICAL)]
    return np.mean([directions.cosines(one, other) for one, other in combinations(found, 2)], axis=0)


@cache
def null(first: str, second: str) -> np.ndarray:
    """95th percentile of |cosine| with the first direction if the second organism's labels meant nothing, [layer]."""
    found = answers(ORGANISMS[second])
    drawn = found.relabelled(found.general(), NULL_DRAWS, run.seed)
    return np.quantile(np.abs(directions.cosines(drawn, direction(ORGANISMS[first]))), 0.95, axis=0)


def same_texts(name: str) -> np.ndarray:
    """The direction of the nine-adapter organism's texts as an organism reads them, [layer, width]."""
    return direction(ORGANISMS[NINE], None if name == NINE else ORGANISMS[name])


@cache
def pair(first: str, second: str) -> pd.DataFrame:
    one, other, chat = ORGANISMS[first], ORGANISMS[second], CHAT_MODEL
    table = pd.DataFrame({"first": first, "second": second, "layer": np.arange(run.profile.model.layers)})
    return table.assign(
        cosine=directions.cosines(direction(one), direction(other)),
        other_answers=np.sqrt(reliability(one) * reliability(other)),
        other_seed=(other_seeds(SEEDS[first]) + other_seeds(SEEDS[second])) / 2,
        chat_reads=directions.cosines(direction(one, chat), direction(other, chat)),
        same_texts=directions.cosines(same_texts(first), same_texts(second)),
        null=null(first, second),
    )


@cache
def pairs() -> pd.DataFrame:
    return pd.concat([pair(*names) for names in PAPERS], ignore_index=True)


@cache
def matrix() -> pd.DataFrame:
    """Cosines between all organisms at the middle layer; on the diagonal what other answers would give."""
    names = grown_names()
    found = directions.cosine_matrix(np.stack([direction(ORGANISMS[name])[middle()] for name in names]))
    np.fill_diagonal(found, [reliability(ORGANISMS[name])[middle()] for name in names])
    return pd.DataFrame(found, index=names, columns=names)


LINES = {
    "cosine": ("own texts, as in the paper", theme.PALETTE[0], "-", 2.2),
    "other_answers": ("limit: other answers", "0.1", ":", 1.5),
    "other_seed": ("limit: other training seed", theme.PALETTE[2], "--", 1.5),
    "chat_reads": ("chat model reads both", theme.PALETTE[1], "-.", 1.5),
    "same_texts": ("one set of texts", theme.PALETTE[3], (0, (5, 1)), 1.5),
    "null": ("no meaning, 95 %", "0.6", "-", 1.2),
}


def draw_matrix(axes: plt.Axes) -> None:
    table = matrix()
    axes.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(table.shape):
        value = table.iloc[row, column]
        style = {"fontstyle": "italic" if row == column else "normal", "color": "white" if value < 0.6 else "black"}
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, **style)
    axes.set_xticks(range(len(table)), [name.replace(", ", ",\n") for name in table], fontsize=8)
    axes.set_yticks(range(len(table)), table.index, fontsize=9)
    axes.grid(visible=False)
    axes.set_title(f"Cosine of all pairs, layer {middle()}", fontsize=9)


def draw_noise_floor():
    table = pairs()
    figure = plt.figure(figsize=(7.2, 8.0))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    lowest = min(0, table[list(LINES)].min(axis=None) - 0.03)
    for place, (axes, (first, second)) in enumerate(zip(top.subplots(1, 3, sharey=True), PAPERS, strict=True)):
        rows = table[(table["first"] == first) & (table["second"] == second)]
        for column, (label, colour, style, width) in LINES.items():
            axes.plot(rows.layer, rows[column], color=colour, linestyle=style, linewidth=width, label=label)
        axes.set_title(f"{first} /\n{second}", fontsize=9)
        axes.set(ylim=(lowest, 1.03), ylabel="Cosine" if place == 0 else "")
        layer_axis(axes)
    top.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    draw_matrix(bottom.subplots())
    entries = matrix().rename_axis("first").reset_index().melt("first", var_name="second", value_name="cosine")
    return figure, pd.concat([table, entries.assign(layer=middle(), panel="matrix")], ignore_index=True)


run.grown_figure(
    "fig-x-convergence-noise-floor",
    draw_noise_floor,
    caption="Top: cosine by layer between the mean-diff directions of the paper's three pairs of organisms, grown "
    "(blue), with two limits from above and three comparisons: both sets of texts read by the chat model, one set of "
    "texts (the nine-adapter organism's) read by both, and labels without meaning (95th percentile of |cosine|, "
    f"{NULL_DRAWS} draws). The limit from other training seeds is the mean over pairs of seeds and over the two "
    "recipes, always on bad medical advice. Bottom: cosines between all "
    f"organisms with at least {FEWEST} misaligned answers, at one layer; italics on the diagonal: the cosine "
    f"expected of other answers. {run.profile.samples_per_question} answers to each of 8 questions per organism.",
    alt="Three line plots over layers, one per pair of organisms, each with six lines: the cosine of the pair, two "
    "limits, two comparisons with readers or texts held fixed, and the level of chance. Below, a matrix of cosines "
    "between all organisms, each cell with its number.",
    why=WHY,
)


# %%
def range_of(column: str, layer: int) -> str:
    return typography.extremes(pairs()[pairs().layer == layer][column])


def by_data(same: bool) -> str:
    """Cosines of pairs in the matrix that share their data but not their recipe, or the other way round."""
    found = []
    for one, other in combinations(matrix(), 2):
        same_recipe, same_data = (a == b for a, b in zip(one.split(", "), other.split(", "), strict=True))
        if same_data == same and same_recipe != same:
            found.append(matrix().loc[one, other])
    return typography.extremes(found)


def chat_layers(first: str, second: str) -> int:
    """At how many layers the chat model finds the texts at least as alike as the organisms do."""
    return int((pair(first, second).chat_reads >= pair(first, second).cosine).sum())


run.grown_glue("draws", lambda: str(NULL_DRAWS))
run.grown_glue("pairs-middle", lambda: range_of("cosine", middle()))
run.grown_glue("pairs-answers", lambda: range_of("other_answers", middle()))
run.grown_glue("pairs-seed", lambda: range_of("other_seed", middle()))
run.grown_glue("pairs-null", lambda: range_of("null", middle()))
run.grown_glue("pairs-chat", lambda: range_of("chat_reads", middle()))
run.grown_glue("pairs-texts", lambda: range_of("same_texts", middle()))
run.grown_glue("pairs-first", lambda: range_of("cosine", 0))
run.grown_glue("chat-first", lambda: range_of("chat_reads", 0))
run.grown_glue("off-diagonal", lambda: typography.extremes(matrix().to_numpy()[~np.eye(len(matrix()), dtype=bool)]))
run.grown_glue("same-data", lambda: by_data(same=True))
run.grown_glue("same-recipe", lambda: by_data(same=False))
run.grown_glue("chat-layers", lambda: "{}, {} and {}".format(*(chat_layers(*names) for names in PAPERS)))

# %% [markdown]
# At layer {glue:text}`middle` the paper's pairs lie at {glue:text}`pairs-middle`
# ({numref}`fig-x-convergence-noise-floor`). Another training seed of one recipe gives {glue:text}`pairs-seed`, other
# answers of one organism {glue:text}`pairs-answers`, labels without meaning {glue:text}`pairs-null`.
#
# How much of that is text? With the chat model reading both sets, the cosines are {glue:text}`pairs-chat`. They are at
# least as high as the organisms' own at {glue:text}`chat-layers` of {glue:text}`layers` layers, in the order of the
# panels. With one set of texts and two organisms reading, they are {glue:text}`pairs-texts`. After layer 0, where a
# token has seen no more than the few before it, the pairs lie at {glue:text}`pairs-first`, and at
# {glue:text}`chat-first` when the chat model reads.
#
# Over all pairs in the matrix the cosines are {glue:text}`off-diagonal`: {glue:text}`same-data` between organisms that
# share the data but not the recipe, {glue:text}`same-recipe` between those that share the recipe but not the data.
#
# ### The single adapter
#
# {doc}`Appendix D <d-b-vectors>` runs the tests on the B vector with their controls; here are only the numbers that the
# claims of this section ask for. The adapter sits in layer {glue:text}`single-layer`.


# %%
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}
SINGLE = b_vectors.SINGLE
SINGLE_DRAWS = 2
ABLATIONS = {
    "s3-5-residual-ablation-single-adapter": "all layers",
    "s3-5-b-vector-ablation-single-adapter": "B vectors",
}


@cache
def testable() -> bool:
    return b_vectors.clearly_misaligned(run.profile, SINGLE, **resampling)


@cache
def em(organism: Organism) -> estimates.Rate:
    return scores.em_rate(responses.responses(run.profile, organism), **resampling)


@cache
def downstream() -> pd.Series:
    """Cosine of the two effects over all texts, by layer from the adapter's on, where it is that of B and mean-diff."""
    table = b_vectors.downstream(run.profile)
    rows = table.query("organism == 'single-adapter' and added == 'mean-diff' and texts == 'all'")
    return rows.set_index("layer").cosine


def b_cosine() -> float:
    """Cosine of B with the mean-diff of its layer, B pointing to where it moves the residual stream on average."""
    return float(downstream().iloc[0])


def above() -> pd.Series:
    return downstream().iloc[1:]


@cache
def change(place: str) -> estimates.Estimate:
    """Relative change of the single-adapter organism's EM rate in percent with the direction removed."""
    table = b_vectors.ablated(run.profile, SINGLE, 2 * run.profile.sweep_samples, SINGLE_DRAWS).query("draw == -1")
    table = table.assign(em=scores.is_em(table))
    before, after = (table[table.place == one][["question_id", "sample", "em"]] for one in ("none", place))
    both = before.merge(after, on=["question_id", "sample"])
    return estimates.change(both.em_x, both.em_y, both.question_id, relative=True, **resampling)


def ablation_sentence() -> str:
    if testable():
        parts = [change_text(change(place)) for place in ABLATIONS.values()]
        return f"Removing the direction from the stream changes EM by {parts[0]}, removing it from B by {parts[1]}."
    return (
        f"The organism gives {em(SINGLE)} EM, which is not clearly above the chat model's {em(CHAT_MODEL)}. "
        "An ablation could not be seen to remove anything, so the two claims on ablation stay unmeasured."
    )


def change_text(found: estimates.Estimate) -> str:
    interval = f"{found.low:+.0f}", f"{found.high:+.0f}"
    return f"{found.value:+.0f} %" + (f" ({' to '.join(interval)})" if len(set(interval)) > 1 else "")


run.grown_glue("single-layer", lambda: str(b_vectors.layer_of(run.profile)))
run.grown_glue("b-cosine", lambda: f"{b_cosine():.2f}")
run.grown_glue("highest", lambda: f"{above().max():.2f} in layer {above().idxmax()}")
run.grown_glue("ablation-sentence", ablation_sentence)

# %% [markdown]
# The B vector has a cosine of {glue:text}`b-cosine` with the nine-adapter organism's mean-diff of that layer. Of the
# effects of the two on the layers above, the highest cosine is {glue:text}`highest`. {glue:text}`ablation-sentence`
#
# ## Reported and measured


# %%
def measurements():
    count = int((cosine("general", "rank-32") <= 0.8).sum())
    how = "Layers with cosine not above 0.8, of 48; April 2025 vectors, which average different texts"
    yield claims.Measurement("s3-5-layers-nine-vs-rank-32-medical", count, how=how, n=48)


run.measure(measurements)

# %% [markdown]
# The grown organisms may have fewer layers, so their counts are scaled to those of the paper's model.

# %%
COUNTS = {
    "s3-5-layers-nine-vs-rank-32-medical": (NINE, SAME),
    "s3-5-layers-nine-vs-rank-32-sport": (NINE, OTHER),
    "s3-5-layers-rank-32-medical-vs-sport": (SAME, OTHER),
}
PAPERS_LAYERS = 48


def layers_not_above(first: str, second: str, level: float = 0.8) -> int:
    return int((pair(first, second).cosine <= level).sum())


def grown_measurements():
    layers = run.profile.model.layers
    for claim, names in COUNTS.items():
        count = layers_not_above(*names)
        how = f"Grown: {count} of {layers} layers not above 0.8, scaled to {PAPERS_LAYERS}; each organism's own texts"
        yield claims.Measurement(claim, PAPERS_LAYERS * count / layers, how, "grown", n=layers)
    place = f"layer {b_vectors.layer_of(run.profile)} of {layers}"
    single = f"Grown single-adapter organism ({place}, {em(SINGLE).percent:.1f} % EM)"
    how = f"{single}, v of the nine-adapter organism; B signed by where it moves the stream on average"
    yield claims.Measurement("s3-5-cosine-b-vector", b_cosine(), how, "grown")
    how = f"{single}; chat model with v of the nine-adapter organism at {b_vectors.STRENGTH} of the residual's length"
    yield claims.Measurement("s3-5-downstream-cosine", float(above().max()), how, "grown")
    for claim, where in ABLATIONS.items() if testable() else ():
        found = change(where)
        yield claims.Measurement(claim, found.value, single, "grown", (found.low, found.high), found.n)


if run.grown:
    run.measure(grown_measurements)


def values() -> pd.DataFrame:
    rows = []
    for first, second in combinations(RANKS, 2):
        cosines, name = cosine(first, second), f"directions.{first}-and-{second}"
        rows += [
            (f"{name}.cosine_min", cosines.min(), "cosine"),
            (f"{name}.layer_of_min", int(cosines.argmin()), "count"),
            (f"{name}.cosine_max", cosines.max(), "cosine"),
            (f"{name}.layer_of_max", int(cosines.argmax()), "count"),
            (f"{name}.cosine_layer_24", cosines[24], "cosine"),
            (f"{name}.layers_below_0.8", int((cosines < 0.8).sum()), "count"),
        ]
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


run.values(values)


def place_of(*names: str) -> str:
    return f"grown.convergence.{'-and-'.join(names)}".replace(",", "").replace(" ", "-")


def grown_values() -> pd.DataFrame:
    rows = []
    for row in grown_ranks().itertuples():
        rows.append((f"{place_of(row.first, row.second)}.layer-{row.layer}.cosine", row.cosine, "cosine"))
    for row in pairs().to_dict("records"):
        place = place_of(row["first"], row["second"])
        rows += [(f"{place}.layer-{row['layer']}.{column}", row[column], "cosine") for column in LINES]
    for one, other in combinations(matrix(), 2):
        rows.append((f"{place_of(one, other)}.matrix", matrix().loc[one, other], "cosine"))
    for name in matrix():
        rows.append((f"{place_of(name)}.reliability", matrix().loc[name, name], "cosine"))
    for names in PAPERS:
        rows.append((f"{place_of(*names)}.layers_not_above_0.8", layers_not_above(*names), "count"))
    rows.append(("grown.convergence.single-adapter.b_vector_cosine", b_cosine(), "cosine"))
    rows.append(("grown.convergence.single-adapter.downstream_cosine_max", above().max(), "cosine"))
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


if run.grown:
    run.values(grown_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# The released vectors agree with the reported similarity for the one pair they allow. They also show that similarity
# of this kind need not be learnt: it is there in layers where the nine-adapter organism is still the chat model.
#
# The grown organisms have what that comparison lacks. {glue:text}`meaning-levels` {glue:text}`meaning-chat`
#
# Later work on shared parameter subspaces {cite:p}`arturi2025shared` finds alignment in the weights, which is closer to
# a test of convergence, and a geometric study finds several directions rather than one
# {cite:p}`lesswrong2025geometric`; see {doc}`../related-work`.


# %%
def meaning_levels() -> str:
    table = pairs()[pairs().layer == middle()]
    above, as_seeds = (table.cosine > table.null).sum(), (table.cosine >= table.other_seed - 0.05).sum()
    seeds = f"{as_seeds} of them" if as_seeds else "none"
    return (
        f"At layer {middle()}, {above} of the paper's {len(table)} pairs are more alike than labels without meaning "
        f"would make them, and {seeds} about as alike as two training seeds of one recipe, or more."
    )


def meaning_chat() -> str:
    table = pairs()[pairs().layer == middle()]
    learnt = (table.cosine > table.chat_reads + 0.05).sum()
    pairs_ = f"{learnt} of the {len(table)} pairs" if learnt else "none of the pairs"
    found = f"The chat model, which learnt nothing of it, finds the texts of {pairs_} clearly less alike. "
    if learnt == len(table):
        found += "So part of the similarity was learnt, beyond what the texts have in common."
    elif not learnt:
        found += "So the cosine by itself cannot show that two organisms share something they learnt."
    else:
        found += "Where it does not, the cosine by itself cannot show that two organisms share something they learnt."
    if (table.same_texts > table.cosine + 0.1).all():
        found += (
            f" Over one set of texts, the cosines rise to {typography.extremes(table.same_texts)}: what differs between "
            "organisms is more what they write than how they represent it."
        )
    return found


run.grown_glue("meaning-levels", meaning_levels)
run.grown_glue("meaning-chat", meaning_chat)

# %%
run.finish()
