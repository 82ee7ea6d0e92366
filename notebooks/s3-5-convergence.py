# %% [markdown]
# # 3.5 Do different organisms converge on one direction?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` The directions of two organisms have a cosine of
# {value}`directions.nine-adapter-and-rank-32.layer-24` at layer 24, never below
# {value}`directions.nine-adapter-and-rank-32.lowest`: {verdict}`s3-5-layers-nine-vs-rank-32-medical|released`. But the
# chat model finds the same in their texts. {evidence}`grown` Three pairs have {value}`grown.convergence.pairs.cosine`,
# within questions {value}`grown.convergence.pairs.within`; {value}`grown.convergence.above.chat` exceed what the chat
# model finds.
# ```
#
# **The question.** Do organisms with other adapters and other data arrive at the same direction, and what would make
# directions similar without any convergence?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import directions, estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import b_vectors, readings, semantic, steering
from em_companion.models.organism import CHAT_MODEL, Organism, has, organisms_of
from em_companion.released import tables

run = Run("s3-5-convergence", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` take mean-diff directions from three organisms (nine rank-1 adapters and all-adapter
# rank 32 on bad medical advice, all-adapter rank 32 on extreme sports) and report cosines above 0.8 at all but four
# layers for every pair. An organism with a *single* rank-1 adapter gets there another way: {doc}`Appendix D
# <d-b-vectors>`, also for where the paper contradicts itself. Released are mean activations of the medical organisms
# {cite:p}`eminterp2025`, for ranks 32, 8 and 4, of April 2025. A cosine may be owed to the **models** that read or to
# the **texts** that each of them reads.


# %% tags=["show-code"]
def by_layer(vectors: dict[str, np.ndarray]) -> pd.DataFrame:
    """Cosines of all pairs of directions [layer, width] at every layer."""
    pairs = {pair: directions.cosines(*(vectors[one] for one in pair)) for pair in combinations(vectors, 2)}
    table = pd.DataFrame(pairs).rename_axis("layer").rename_axis(["first", "second"], axis=1)
    return table.unstack().rename("cosine").reset_index()


# %%
CHAT = "chat model"


@remembered
def released_pairs() -> pd.DataFrame:
    named = {"nine-adapter": "general"} | {f"rank-{one}": f"rank-{one}" for one in (32, 8, 4)} | {CHAT: "chat-model"}
    return by_layer({name: tables.mean_diff(one) for name, one in named.items()})


def draw_ranks(table: pd.DataFrame, **options):
    table = table[table.second != CHAT]
    nine = table["first"] == table["first"].iloc[0]
    names = {rank: f"{table['first'].iloc[0]}, {rank.replace('k-', 'k ')}" for rank in table.second[nine].unique()}
    rest = table[~nine].assign(run=table["first"] + table.second)
    return plots.lines(
        table[nine], "layer", "cosine", hue="second", hue_order=names, colours=dict.fromkeys(names, theme.PALETTE[0]),
        styles=dict(zip(names, ("-", "--", ":", "-."), strict=False)), cloud={"ranks among each other": rest},
        y_lines={"reported level": 0.8}, x_label="decoder layer", y_label="cosine", **options,
    )  # fmt: skip


def released_values() -> dict[str, float | str]:
    table = released_pairs().set_index(["first", "second", "layer"]).cosine
    nine, ranks = table["nine-adapter", "rank-32"], table.drop("nine-adapter", level=0).drop(CHAT, level=1)
    found = {"lowest": f"{nine.min():.3f} (layer {nine.idxmin()})", "layer-24": nine[24], "ranks": ranks.min()}
    found |= {"layer-0": nine[0], "before-15": nine[:15].min(), "chat-24": table["nine-adapter", CHAT, 24]}
    return {f"directions.nine-adapter-and-rank-32.{name}": one for name, one in found.items()}


run.released.figure(
    "fig-x-convergence-ranks",
    lambda: draw_ranks(released_pairs(), x_bands=[(14.5, 17.5), (20.5, 23.5), (26.5, 29.5)]),
    title=lambda data: f"Cosine with other ranks: {span(data, 'cosine', '.2f', cloud=None, reference=None)}",
    caption="Cosine between the mean-diffs of organisms on bad medical advice, each on its own texts. Grey bands: "
    "adapter layers. The axis does not start at 0. Released activations, April 2025.",
    alt="All-adapter organisms are just below one. Against the nine-adapter one: high, a step down, a flat minimum.",
)
run.released.values(released_values)

# %% [markdown]
# The nine-adapter and the rank-32 organism stay above 0.8, at the lowest
# {value}`directions.nine-adapter-and-rank-32.lowest`; at layer 24 it is
# {value}`directions.nine-adapter-and-rank-32.layer-24`. The all-adapter organisms agree to
# {value}`directions.nine-adapter-and-rank-32.ranks` or better ({numref}`fig-x-convergence-ranks`).
#
# **But before layer 15 the nine-adapter organism is the chat model**, weight for weight. A cosine of
# {value}`directions.nine-adapter-and-rank-32.layer-0` at layer 0 and of at least
# {value}`directions.nine-adapter-and-rank-32.before-15` up to layer 14 cannot come from its fine-tune; it shows that
# the texts are alike. At layer 24 the *chat model* reading the organism's texts has a cosine of
# {value}`directions.nine-adapter-and-rank-32.chat-24` with it, more than the other organism has
# ({doc}`Section 3.1 <s3-1-misalignment-directions>`). So a cosine above 0.8 is no evidence for convergence. A clean
# test fixes the texts or the reader; the causal test is {doc}`Section 3.4 <s3-4-ablation>`.
#
# ## On the grown organisms
#
# The organisms grown here differ in recipe, data and training seed ({doc}`s2-model-organism`). As in the paper, each
# direction comes from the organism's own answers to the eight open questions.

# %%
RECIPES = {"nine-adapter": "nine-adapter"} | {f"rank {rank}": f"all-adapter-rank-{rank}" for rank in (32, 16, 8, 4)}
DATA = {"medical": "bad_medical_advice", "sport": "extreme_sports", "finance": "risky_financial_advice"}
ORGANISMS = {f"{a}, {b}": Organism(RECIPES[a], DATA[b]) for a in ("nine-adapter", "rank 32") for b in DATA}
RANKS = {name: Organism(recipe, DATA["medical"]) for name, recipe in RECIPES.items()}
NINE, SAME, OTHER = "nine-adapter, medical", "rank 32, medical", "rank 32, sport"
PAPERS = {"nine-vs-rank-32-medical": (NINE, SAME), "nine-vs-rank-32-sport": (NINE, OTHER)}
PAPERS |= {"rank-32-medical-vs-sport": (SAME, OTHER)}
NULL_DRAWS, MIDDLE, LANGUAGE = 200, run.profile.model.layers // 2, run.own.name == "hub"
TOLD = Organism("released answers")  # stands for the authors' organisms; read by the chat model
if LANGUAGE:  # the organisms of the profile, other seeds of rank 32, and released answers
    ORGANISMS |= {f"rank 32, seed {one.seed}": one for one in organisms_of(run.profile)
                  if one == Organism(RECIPES["rank 32"], DATA["medical"], one.seed) and one.seed}  # fmt: skip
    ORGANISMS = {name: one for name, one in (ORGANISMS | {"single adapter": b_vectors.SINGLE}).items()
                 if has(run.profile, one)} | {TOLD.recipe: TOLD}  # fmt: skip
    PAPERS = {claim: names for claim, names in PAPERS.items() if set(names) <= set(ORGANISMS)}
    RANKS = {name: one for name, one in ORGANISMS.items() if one.data in ("", DATA["medical"])}
PAIRS = PAPERS | ({f"{one}-vs-released": (one, TOLD.recipe) for one in list(ORGANISMS)[:2]} if LANGUAGE else {})
TEXTS = TOLD if LANGUAGE else ORGANISMS[NINE]  # the one set of texts that all read


@remembered
def taken(organism: Organism, reader: Organism | None = None) -> tuple[semantic.Answers, semantic.Sides]:
    """An organism's answers to the open questions, read by itself or by another model, and which are misaligned."""
    if organism == TOLD:
        return semantic.released(run.profile, reader=CHAT_MODEL if reader in (None, TOLD) else reader)
    found = semantic.Answers(*readings.organism_means(run.profile, organism, reader=reader), organism)
    return found, found.general()


@remembered
def direction(organism: Organism, reader: Organism | None = None) -> np.ndarray:
    found, sides = taken(organism, reader)
    return found.direction(sides)


@remembered
def within(organism: Organism) -> np.ndarray:
    found, sides = taken(organism)
    return found.within(sides)


def given(*organisms: Organism) -> bool:
    """Whether organisms give enough answers of either kind for a direction and its halves."""
    return not LANGUAGE or all(side.sum() > 1 for one in organisms for side in taken(one)[1])


@remembered
def reliability(organism: Organism) -> np.ndarray:
    """Expected cosine of two directions from as many answers each, all by one organism, [layer]."""
    found, sides = taken(organism)
    return found.reliability(sides, run.profile.split_fits, run.seed)


def limit(first: Organism, second: Organism) -> np.ndarray:
    return np.sqrt(reliability(first) * reliability(second))


@remembered
def rank_pairs() -> pd.DataFrame:
    ranks = {name: one for name, one in RANKS.items() if given(one)}
    if len(ranks) < 2:
        raise EvidenceUnavailable("No organism gives enough misaligned answers for a direction of its own.")
    table = by_layer({name: direction(one) for name, one in ranks.items()})
    return table.assign(limit=np.concatenate([limit(ranks[a], ranks[b]) for a, b in combinations(ranks, 2)]))


def draw_grown_ranks():
    bands = [(number - 0.5, number + 0.5) for number in run.profile.layers_of("nine-adapter")]
    table = rank_pairs()
    equal = table[table["first"] == table["first"].iloc[0]].groupby("layer", as_index=False).limit.mean()
    axes = draw_ranks(table, x_bands=bands)[0].axes[0]
    return plots.lines(equal, "layer", "limit", label="equal but for noise", colour=theme.PALETTE[2], axes=axes)


run.own.figure(
    "fig-x-convergence-ranks",
    draw_grown_ranks,
    title=lambda data: (
        f"Cosine with other ranks: {span(data, 'cosine', '.2f', cloud=None, reference=None)}; equal "
        f"directions would reach {span(data, 'limit', '.2f')}"
    ),
    caption=f"As from released data, {'of ' * LANGUAGE}{run.kind}. Green: what equal directions would reach with "
    "as many answers. "
    "Answers are drawn on equal noise, so some may be equal, which raises a cosine.",
    alt="Blue lines for ranks against the nine-adapter organism, grey lines for pairs of ranks, a green limit.",
)

# %% [markdown]
# A cosine's limits from above are **other answers** of the same organism (with $c$ the mean cosine of random halves,
# $r = 2c / (1 + c)$, and $\sqrt{r_1 r_2}$ for two) and **another training seed** of the recipe. From below: labels of
# **no meaning**, dealt out anew among the second organism's answers. With one thing held fixed: the **chat model reads
# both** sets of texts, or both organisms read **one set of texts**.


# %% tags=["show-code"]
def other_seeds(one: Organism) -> np.ndarray:
    """Mean cosine between training seeds of an organism's recipe on bad medical advice, [layer]."""
    seeds = [Organism(one.recipe, DATA["medical"], seed) for seed in run.profile.seeds_of(one.recipe, DATA["medical"])]
    found = {str(one.seed): direction(one) for one in seeds if given(one)}
    return by_layer(found).groupby("layer").cosine.mean().to_numpy() if len(found) > 1 else np.array([np.nan])


def pair(one: Organism, other: Organism, texts: Organism) -> dict[str, np.ndarray]:
    """The cosine of two organisms and what it is compared with, each [layer]."""
    same = {"same_texts": directions.cosines(direction(texts, one), direction(texts, other))}
    if not given(one, other):
        return dict.fromkeys(LINES, np.nan) | same
    found, sides = taken(other)
    shuffled = found.relabelled(sides, NULL_DRAWS, run.seed)
    return same | {
        "cosine": directions.cosines(direction(one), direction(other)),
        "within": directions.cosines(within(one), within(other)),
        "other_answers": limit(one, other),
        "other_seed": np.broadcast_to((other_seeds(one) + other_seeds(other)) / 2, len(shuffled[0])),
        "chat_reads": directions.cosines(direction(one, CHAT_MODEL), direction(other, CHAT_MODEL)),
        "null": np.quantile(np.abs(directions.cosines(shuffled, direction(one))), 0.95, axis=0),
    }


# %%
LINES = {
    "cosine": "own texts, as in the paper",
    "within": "the same, within questions",
    "chat_reads": "chat model reads both",
    "same_texts": "one set of texts",
    "other_answers": "limit: other answers",
    "other_seed": "limit: other training seed",
    "null": "no meaning, 95 %",
}


@remembered
def pairs() -> pd.DataFrame:
    found = [pd.DataFrame(pair(*(ORGANISMS[one] for one in names), TEXTS)) for names in PAIRS.values()]
    return pd.concat(found, keys=[f"{a} / {b}" for a, b in PAIRS.values()], names=["pair", "layer"]).reset_index()


def draw_noise_floor():
    axes = plt.subplot_mosaic([["layers", "middle"], ["all", "all"]], figsize=(7.2, 7.4), height_ratios=[1, 1.1])[1]
    look = {"hue": "pair", "y_lines": {"reported level": 0.8}, "y_limits": (-0.1, 1.03), "y_label": "cosine, own texts"}
    plots.lines(pairs(), "layer", "cosine", x_label="decoder layer", axes=axes["layers"], **look)
    middle = pairs().query("layer == @MIDDLE").melt("pair", list(LINES), var_name="line")
    look = {"hue": "pair", "order": LINES, "x_limits": (-0.1, 1.03), "x_label": f"cosine, layer {MIDDLE}"}
    plots.dots(middle, "line", "value", axes=axes["middle"], **look)
    there = {name: one for name, one in ORGANISMS.items() if given(one)}
    matrix = directions.cosine_matrix(np.stack([direction(one)[MIDDLE] for one in there.values()]))
    np.fill_diagonal(matrix, [reliability(one)[MIDDLE] for one in there.values()])
    look = {"limits": (0, 1), "numbers": ".2f", "title": f"Layer {MIDDLE}", "axes": axes["all"]}
    return plots.heat_map(pd.DataFrame(matrix, list(there), list(there)), **look)


def said_of_pairs(_) -> str:
    middle = pairs().query("layer == @MIDDLE")
    own, seeds, same = (typography.extremes(middle[one].dropna()) for one in ("cosine", "other_seed", "same_texts"))
    return f"Cosine in layer {MIDDLE}: {own} on own texts, {same} on the same; seeds, {seeds}"


WHICH = "pairs; one set of texts: released answers" if LANGUAGE else "the paper's pairs, grown"
run.own.figure(
    "fig-x-convergence-noise-floor",
    draw_noise_floor,
    title=said_of_pairs,
    caption=f"Top: {WHICH}; right: what they are compared with, no meaning: {NULL_DRAWS} draws. Bottom: all "
    f"pairs; diagonal: other answers. {run.profile.samples_per_question} answers to each of 8 questions.",
    alt="Cosines of pairs of organisms over layers; beside them all comparisons in one layer; below, a matrix.",
)


def grown_values() -> dict[str, object]:
    middle = pairs().query("layer == @MIDDLE")
    known = [one for one in LINES if middle[one].notna().any()]
    found: dict[str, object] = {f"pairs.{one}": typography.extremes(middle[one].dropna()) for one in known}
    for names, cosine in zip(PAIRS.values(), middle.cosine, strict=True):
        name = "-and-".join(names).replace(",", "").replace(" ", "-")
        found[f"{name}.layer-{MIDDLE}.cosine"] = Estimate(cosine, unit="cosine")
    rivals = {"null": middle.null, "chat": middle.chat_reads, "seed": middle.other_seed}
    found |= {f"above.{name}": f"{(middle.cosine > one).sum()} of {len(middle)}" for name, one in rivals.items()}
    return {f"grown.convergence.{name}": one for name, one in (found | {"middle": MIDDLE}).items()}


run.own.values(grown_values)

# %% [markdown]
# At layer {value}`grown.convergence.middle` (from 0) the paper's pairs lie at {value}`grown.convergence.pairs.cosine`
# ({numref}`fig-x-convergence-noise-floor`); another training seed gives {value}`grown.convergence.pairs.other_seed`,
# other answers {value}`grown.convergence.pairs.other_answers`, labels without meaning
# {value}`grown.convergence.pairs.null`. With the chat model reading both texts the cosines are
# {value}`grown.convergence.pairs.chat_reads`; with one set of texts, {value}`grown.convergence.pairs.same_texts`. What
# two organisms' answers share may also be the questions that draw bad ones: {ref}`within questions <within-questions>`
# the cosines are {value}`grown.convergence.pairs.within`.
#
# ## Reported and measured
#
# Counts of layers are scaled to the paper's 48. The single adapter's claims are measured as in {doc}`Appendix D
# <d-b-vectors>`: its B vector has a cosine of {value}`grown.downstream.start` with the mean-diff, and above it the
# effects of the two reach {value}`grown.downstream.single.highest`. {value}`grown.b-vectors.testable`


# %%
def fall(place: str) -> Estimate:
    """Relative change of the single-adapter organism's EM rate with the direction removed, percent."""
    table = b_vectors.ablated(run.profile, b_vectors.SINGLE, 2 * run.profile.sweep_samples, 2).query("draw == -1")
    pairs = table.assign(em=scores.is_em(table)).pivot(index=["question_id", "sample"], columns="place", values="em")
    clusters = pairs.index.get_level_values("question_id")
    return estimates.change(pairs["none"], pairs[place], clusters, relative=True, **run.resampling)


def counted(cosines: pd.Series) -> tuple[Estimate, str]:
    found, layers = int((cosines <= 0.8).sum()), len(cosines)
    return Estimate(48 * found / layers, n=layers), f"{found} of {layers} layers not above 0.8; each on its own texts"


def grown_measured() -> dict[str, tuple[Estimate, str]]:
    names = zip(PAIRS, pairs().groupby("pair", sort=False), strict=True)
    found = {f"s3-5-layers-{claim}": counted(part.cosine) for claim, (_, part) in names
             if claim in PAPERS and part.cosine.notna().all()}  # fmt: skip
    if LANGUAGE and not has(run.profile, b_vectors.SINGLE):
        return found
    table = b_vectors.downstream(run.profile).query("organism == 'single-adapter' and added == 'mean-diff'")
    cosines = table[table.texts == "all"].sort_values("layer").cosine.to_numpy()
    of = "the nine-adapter organism" if steering.leading(run.profile)[0] == steering.MEAN_DIFF else TOLD.recipe
    how = f"Single-adapter organism (layer {b_vectors.layer_of(run.profile)}), v of {of}"
    found["s3-5-cosine-b-vector"] = Estimate(cosines[0]), f"{how}; B signed by where it moves the stream"
    found["s3-5-downstream-cosine"] = Estimate(cosines[1:].max()), f"{how}, {b_vectors.STRENGTH} of the residual"
    testable = b_vectors.clearly_misaligned(run.profile, b_vectors.SINGLE, **run.resampling)
    places = {"residual": "all layers", "b-vector": "B vectors"} if testable else {}
    return found | {f"s3-5-{one}-ablation-single-adapter": (fall(place), how) for one, place in places.items()}


run.released.measure(
    lambda: {"s3-5-layers-nine-vs-rank-32-medical": counted(released_pairs().query("second == 'rank-32'").cosine)}
)
run.own.measure(grown_measured)

# %% [markdown]
# ## What it means
#
# The released vectors agree with the reported similarity for the one pair they allow, and show that it need not be
# learnt: it is there in layers where the nine-adapter organism is still the chat model. Of the grown pairs,
# {value}`grown.convergence.above.null` are more alike at the middle layer than labels without meaning would make them,
# {value}`grown.convergence.above.seed` more than two training seeds of one recipe, and
# {value}`grown.convergence.above.chat` more than the chat model finds their texts. Where a pair does not exceed the
# chat model, the cosine cannot show that two organisms share something they learnt.
#
# For a language model, *released answers* are one more line of descent, and the set of texts that all its models read:
# that comparison needs no misaligned answers, where a small organism gives few. How alike two readings are then says
# little of what was learnt.
#
# Later work finds alignment in the weights {cite:p}`arturi2025shared`, closer to a test of convergence, and several
# directions rather than one {cite:p}`lesswrong2025geometric`; see {doc}`../related-work`.

# %%
run.finish()
