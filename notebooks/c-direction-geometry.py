# %% [markdown]
# # C Geometry of the directions
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` General and gender directions have a cosine of {value}`directions.gender.range` (reported: above
# 0.95 at all layers): {verdict}`c-cosine-general-gender|released`. {evidence}`grown` Domains lie at
# {value}`grown.directions.domains.cosine`, and {value}`grown.directions.domains.above-null` exceed what relabelled
# answers give.
# ```
#
# **The question.** How alike are mean-diff directions: of topics, of organisms, of layers, of two samples of answers?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import directions
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import readings, semantic
from em_companion.models import asking
from em_companion.models.organism import Organism, has, medical
from em_companion.released.tables import mean_diff

run = Run("c-direction-geometry", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# Appendix C of {cite:t}`soligo2025convergent` compares the general direction $v_\ell$
# ({doc}`s3-1-misalignment-directions`) with others, $w_\ell$, at every layer: by their cosine, and by
# $\lVert v_\ell - w_\ell \rVert / \lVert v_\ell \rVert$, which also sees a difference in length. It reports a cosine
# above 0.95 with gender at all layers, at most 0.65 with medical, and a high one with finance; and above 0.8 in all but
# four layers for each pair of three organisms. The released vectors {cite:p}`eminterp2025`, of April 2025, were sorted
# into topics by word lists.
#
# ## Topics and organisms


# %% tags=["show-code"]
def geometry(name: str, first: np.ndarray, second: np.ndarray) -> pd.DataFrame:
    """Cosine and relative norm of the difference of two directions [layer, width], a row per layer."""
    found = {"cosine": directions.cosines(first, second)}
    found |= {"relative_distance": directions.relative_norm_of_difference(first, second)}
    return pd.DataFrame({"vector": name, "layer": range(len(first))} | found)


# %%
ADAPTERS = [(14.5, 17.5), (20.5, 23.5), (26.5, 29.5)]
LIMITS = {"limit": "equal but for noise", "null": "null, 95 %"}
COLOURS = dict.fromkeys(LIMITS.values(), "0.3") | {"general-without-medical": theme.PALETTE[5]}


def with_general(*vectors: str) -> pd.DataFrame:
    return pd.concat([geometry(one, mean_diff("general"), mean_diff(one)) for one in vectors], ignore_index=True)


def label(vector: str) -> str:
    return vector.replace("rank-", "rank ").replace("-without-", " without ")


def said_of_means(data: pd.DataFrame) -> str:
    rows = data[(data.measure == "cosine") & ~data.vector.isin(LIMITS.values())].dropna(subset="vector")
    return f"Highest cosine: {span(rows.assign(vector=rows.vector.map(label)), pattern='.2f', by='vector')}"


def draw_geometry(table: pd.DataFrame, rest: str = "", shown: Sequence[str] = (), **options):
    """The vectors of the table, those not shown in grey, and, where it has them, the means of limit and null."""
    means = table.groupby("layer").mean(numeric_only=True).reset_index().assign(relative_distance=np.nan)
    rows = [means.assign(vector=LIMITS[one], cosine=means[one]) for one in LIMITS if one in table]
    hushed = table[~table.vector.isin(shown)].assign(run=table.vector) if rest else table[:0]
    table = table.drop(hushed.index)
    names = [*table.vector.unique(), *(LIMITS[one] for one in LIMITS if one in table)]
    return plots.measures(
        plots.lines, pd.concat([table, *rows]), "layer", {"cosine": "cosine", "relative_distance": "|v − w| / |v|"},
        hue="vector", x_label="decoder layer", styles=dict(zip(LIMITS.values(), (":", "-."), strict=True)),
        hue_order={one: label(one) for one in names},
        cloud={rest: hushed} if len(hushed) else {}, each={"cosine": {"y_limits": (-0.02, 1.03)}},
        colours=theme.TOPIC_COLOURS | COLOURS,
        **options,
    )  # fmt: skip


run.released.figure(
    "fig-c1", lambda: draw_geometry(with_general("gender", "general-without-medical", "finance", "medical"),
                                    x_bands=ADAPTERS),
    title=said_of_means,
    caption="The general mean-diff beside others of the nine-adapter organism, April 2025. Grey: adapter layers.",
    alt="Two line plots over 48 layers. Left: gender just below one, then finance, medical lowest. Right: the reverse.",
)  # fmt: skip
run.released.figure(
    "fig-c2", lambda: draw_geometry(with_general("rank-32"), x_bands=ADAPTERS),
    title=said_of_means,
    caption="The nine-adapter and the rank-32 organism, both on bad medical advice, with means over different texts.",
    alt="Two line plots over 48 layers: the cosine has a flat minimum just above 0.8; the distance mirrors it.",
)  # fmt: skip


def measured(gender: pd.DataFrame, medical: pd.DataFrame) -> dict:
    low, high = gender.loc[gender.cosine.idxmin()], medical.loc[medical.cosine.idxmax()]
    rows = {"c-cosine-general-gender": ("smallest", low), "c-cosine-general-medical-max": ("largest", high)}
    found = {}
    for claim, (word, row) in rows.items():
        how = f"{word} over {len(gender)} layers (layer {row.layer})"
        how += f"; 95 % of relabelled answers give at most {row.null:.2f} there" if "null" in row else ""
        one = Estimate(row.cosine, n=int(row.get("n", 0)), unit="cosine")
        found[claim] = one, how, row.filter(["null"]).to_dict()
    return found


def released_values() -> dict:
    others = with_general("gender", "finance", "medical", "general-without-medical", "rank-32").groupby("vector").cosine
    found = {f"directions.{one}.range": typography.extremes(cosine) for one, cosine in others}
    found["directions.gender.layers_below_0.95"] = int((with_general("gender").cosine < 0.95).sum())
    turned = directions.cosine_matrix(mean_diff("general"))[24]
    return found | {f"directions.general.layer-24.cosine_with_layer-{one}": turned[one] for one in (20, 28, 40)}


run.released.values(released_values)
run.released.measure(lambda: measured(with_general("gender"), with_general("medical")))

# %% [markdown]
# Over layers, gender lies at {value}`directions.gender.range`, finance at {value}`directions.finance.range`, medical at
# {value}`directions.medical.range` ({numref}`fig-c1`). Two limits: the general set contains the answers of the topic
# sets, gender the largest of them, so a high cosine is partly arithmetic; and without medical answers the general
# direction is another one ({value}`directions.general-without-medical.range`). The two organisms have
# {value}`directions.rank-32.range` ({numref}`fig-c2`), but below layer 15 the nine-adapter one *is* the chat model
# ({doc}`s3-5-convergence`).
#
# ## The same, grown
#
# The paper's three organisms are all there, read on their own answers. Two limits are drawn. **Noise**: with $r$ the
# share of a direction's squared norm that is no sampling noise (from random halves), equal directions are expected at
# $\sqrt{r_1 r_2}$. **A null**: the same answers are dealt out anew to two sides that are equally misaligned; a cosine
# below 95 % of what these give may be chance.


# %% tags=["show-code"]
Taken = tuple[semantic.Answers, semantic.Sides]  # answers, and which of them a direction is taken from


def compared(name: str, first: Taken, second: Taken) -> pd.DataFrame:
    """`geometry`, with the cosine of equal directions (limit) and 95 % of |cosine| of relabelled answers (null)."""
    (answers, sides), found = second, [one.direction(rows) for one, rows in (first, second)]
    reliable = [one.reliability(rows, run.profile.split_fits, run.seed) for one, rows in (first, second)]
    null = np.abs(directions.cosines(answers.relabelled(sides, 200, run.seed), found[0]))
    limits = {"limit": np.sqrt(np.prod(reliable, axis=0)), "null": np.quantile(null, 0.95, axis=0)}
    return geometry(name, *found).assign(**limits, n=int(np.sum(sides)))


# %%
LAYER, DRAWS, NINE = run.profile.model.layers // 2, 200, medical(run.profile)
LANGUAGE = run.own.name == "hub"
BANDS = [(one - 0.5, one + 0.5) for one in run.profile.layers_of("nine-adapter")]
RANK_32 = {
    "rank 32, medical": "bad_medical_advice",
    "rank 32, sport": "extreme_sports",
    "rank 32, finance": "risky_financial_advice",
}
ORGANISMS = {"nine-adapter": NINE} | {name: Organism("all-adapter-rank-32", data) for name, data in RANK_32.items()}
THREE = "gender", "finance", "medicine"  # the paper's domains
SEED = "two seeds", NINE, Organism(NINE.recipe, NINE.data, 1)
if LANGUAGE:
    ORGANISMS = {name: one for name, one in ORGANISMS.items() if has(run.profile, one)}
PAPERS = [*map(" / ".join, combinations(list(ORGANISMS)[:3], 2)), SEED[0]]


@remembered
def opened(organism: Organism) -> Taken:
    found = semantic.Answers(*readings.organism_means(run.profile, organism), organism)
    return found, found.general()


def enough(taken: Taken) -> bool:
    """Whether there are answers of either kind for two halves; a language model's organism may give none."""
    return not LANGUAGE or min(side.sum() for side in taken[1]) > 1


@remembered
def main() -> Taken:
    """What the organism's direction is taken from, or released answers where it gives too few."""
    return opened(NINE) if enough(opened(NINE)) else semantic.released(run.profile)


@remembered
def topics() -> pd.DataFrame:
    found, domains, told = semantic.answers(run.profile, NINE), asking.domains(run.profile), []
    general, counts = (found, found.general()), found.counts(domains)
    sides = {one: (found, found.about(one)) for one in counts.domain[counts.enough] if enough(general)}
    if LANGUAGE:  # the answers themselves are the authors', in three domains
        both = semantic.released(run.profile)
        told = [compared(f"{one}, released", both, semantic.released(run.profile, one)) for one in domains]
    rows = [compared(one.replace("_", " "), general, two) for one, two in sides.items()]
    return pd.concat([*rows, *told], ignore_index=True)


@remembered
def pairs() -> pd.DataFrame:
    named = [(f"{one} / {two}", *(opened(ORGANISMS[name]) for name in (one, two)))
             for one, two in combinations(ORGANISMS, 2)]  # fmt: skip
    if not LANGUAGE or has(run.profile, *SEED[1:]):
        named += [(SEED[0], *map(opened, SEED[1:]))]
    if LANGUAGE:
        told, both = semantic.released(run.profile), ORGANISMS.items()
        named += [(f"{name}, released", opened(one), told) for name, one in both]
        named += [(f"released, {name} reads", semantic.released(run.profile, reader=one), told) for name, one in both]
    rows = [compared(name, one, two) for name, one, two in named if enough(one) and enough(two)]
    return pd.concat(rows, ignore_index=True)


run.own.figure(
    "fig-c1", lambda: draw_geometry(topics(), "" if LANGUAGE else "each other domain", THREE, x_bands=BANDS),
    title=said_of_means,
    caption=f"The {run.kind} nine-adapter organism's general direction beside those of single domains; limits are "
    "means." + LANGUAGE * " *Released*: both of the authors' answers, read by the chat model.",
    alt="Two line plots over layers, a line per domain. Left: cosines, with a limit and a null. Right: distances.",
)  # fmt: skip
run.own.figure(
    "fig-c2", lambda: draw_geometry(pairs(), "" if LANGUAGE else "each other pair", PAPERS, x_bands=BANDS),
    title=said_of_means,
    caption=f"Pairs of {run.kind} organisms (nine adapters, or rank 32), and two seeds of nine adapters; limits are "
    "means." + LANGUAGE * " *Released*: of the authors' answers, read by the chat model, or by that and an organism.",
    alt="Two line plots over layers, a line per pair of organisms. Left: cosines, limit and null. Right: distances.",
)  # fmt: skip


def own_claims() -> dict:
    names = topics().vector.unique()
    return measured(*(topics()[topics().vector == (one if one in names else f"{one}, released")]
                      for one in ("gender", "medicine")))  # fmt: skip


run.own.measure(own_claims)

# %% [markdown]
# In layer {value}`grown.directions.middle` the domains lie at {value}`grown.directions.domains.cosine`, where equal
# directions would lie at {value}`grown.directions.domains.limit` and the nulls at
# {value}`grown.directions.domains.null` ({numref}`fig-c1-grown`); {value}`grown.directions.domains.above-null` are
# above their own null. Pairs of organisms lie at {value}`grown.directions.pairs.cosine` (limits
# {value}`grown.directions.pairs.limit`, nulls {value}`grown.directions.pairs.null`), two seeds of one recipe at
# {value}`grown.directions.two-seeds.cosine` (limit {value}`grown.directions.two-seeds.limit`, {numref}`fig-c2-grown`).
# Within questions ({ref}`why <within-questions>`) the pairs lie at {value}`grown.directions.pairs.within`, the two
# seeds at {value}`grown.directions.two-seeds.within`. What domains share: {doc}`s3-3-semantic-directions`.
#
# ## How the direction turns with depth, and how many answers it needs


# %%
def said_of_layers(table: pd.DataFrame) -> str:
    apart = (table.column - table.row).astype(int)
    near, far = table.value[apart == 1].mean(), table.value[apart == apart.max()].item()
    return f"Cosine {near:.2f} between neighbouring layers, {far:.2f} between the first and the last"


def draw_layers(vectors: np.ndarray):
    matrix = pd.DataFrame(directions.cosine_matrix(vectors))
    look = {"numbers": None, "upwards": True, "colour_bar": "cosine", "size": (5.6, 4.6)}
    ticks = {layer + 0.5: str(layer) for layer in range(0, len(matrix), -(-len(matrix) // 16))}
    labels = {"x_label": "decoder layer", "y_label": "decoder layer", "x_ticks": ticks}
    labels |= {"y_ticks": list(ticks), "y_ticklabels": ticks.values()}
    return plots.heat_map(matrix, limits=(min(0, matrix.min(axis=None)), 1), **look, **labels)


run.released.figure(
    "fig-x-layer-cosines", lambda: draw_layers(mean_diff("general")),
    title=said_of_layers,
    caption="Cosine between the mean-diffs of every two layers. Released, nine-adapter organism of April 2025.",
    alt="A symmetric heat map, strong on the diagonal, fading quickly around the middle and slowly in late layers.",
)  # fmt: skip
run.own.figure(
    "fig-x-layer-cosines", lambda: draw_layers(main()[0].direction(main()[1])),
    title=said_of_layers,
    caption=f"As from released data, for the {run.kind} nine-adapter organism on bad medical advice.",
    alt="A symmetric heat map over all layers.",
)  # fmt: skip


def halves(size: int, shuffle: bool) -> np.ndarray:
    """Cosines between the mean-diffs of two disjoint sets of `size` answers of each kind, [draw, layer]."""
    (answers, sides), random = main(), np.random.default_rng([run.seed, size])
    chosen = np.zeros((2, 2, DRAWS, len(sides[0])), dtype=bool)
    dealt = np.repeat(np.stack(sides)[:, None], DRAWS, axis=1)
    if shuffle:  # among the answers to each question
        dealt = directions.shuffled(*sides, answers.table.question_id, DRAWS, random)
    for draw in range(DRAWS):
        for side, rows in enumerate(map(np.flatnonzero, dealt[:, draw])):
            for half, picked in enumerate(random.permutation(rows)[: 2 * size].reshape(2, size)):
                chosen[half, side, draw, picked] = True
    return directions.cosines(*(answers.means.mean_diffs(*half) for half in chosen))


@remembered
def by_size() -> pd.DataFrame:
    most, rows = min(side.sum() for side in main()[1]) // 2, []
    for size in [2**power for power in range(1, 12) if 1.5 * 2**power < most] + [most]:
        for shuffle, layers in ((False, (0, LAYER, 2 * LAYER - 1)), (True, (LAYER,))):
            ends, name = np.quantile(halves(size, shuffle), [0.025, 0.5, 0.975], axis=0), "labels shuffled, " * shuffle
            rows += [(f"{name}layer {one}", size, np.log2(size), *ends[:, one]) for one in layers]
    return pd.DataFrame(rows, columns=["line", "size", "doublings", "low", "median", "high"])


def said_of_halves(_) -> str:
    most = by_size()[by_size()["size"] == by_size()["size"].max()].set_index("line")
    own, shuffled = (most["median"][f"{one}layer {LAYER}"] for one in ("", "labels shuffled, "))
    return f"Two sets of {most['size'].iloc[0]} answers: cosine {own:.2f} in layer {LAYER}; shuffled {shuffled:.2f}"


run.own.figure(
    "fig-x-direction-stability",
    lambda: plots.lines(by_size(), "doublings", "median", hue="line", low="low", high="high", interval="bars",
                        dodge=0.1, x_ticks={np.log2(one): str(one) for one in by_size()["size"]}, y_lines={"_": 0},
                        x_label="misaligned answers in each set (and as many aligned ones)", y_label="cosine",
                        colours={f"labels shuffled, layer {LAYER}": theme.NULL_COLOUR}),
    title=said_of_halves,
    caption=f"Cosine between the mean-diffs of two disjoint sets of answers, over their size: 95 % of {DRAWS} draws.",
    alt="Four lines over the number of answers on a log scale: three layers, and shuffled labels.",
)  # fmt: skip


def grown_values() -> dict:
    (answers, sides), found = main(), {"grown.directions.middle": LAYER}
    rows = pd.concat([topics().assign(kind="domains"), pairs().assign(kind="pairs")]).query(f"layer == {LAYER}")
    kinds = rows.kind.mask(rows.vector == "two seeds", "two-seeds").mask(rows.vector.str.contains("released"), "text")
    for kind, part in rows.groupby(kinds):
        found |= {f"grown.directions.{kind}.{one}": typography.extremes(part[one]) for one in ("cosine", *LIMITS)}
        found[f"grown.directions.{kind}.above-null"] = f"{(part.cosine > part.null).sum()} of {len(part)}"
    found["grown.mean-diff.noise-limit"] = np.sqrt(answers.reliability(sides, 100, run.seed)[LAYER])
    return found | {"grown.mean-diff.halves": by_size()[by_size().line == f"layer {LAYER}"]["median"].iloc[-1]}


def within_questions() -> dict[str, str]:
    """Cosines of the same pairs in the same layer, of mean-diffs within questions."""
    vectors = [found.within(sides)[LAYER] for found, sides in map(opened, [SEED[2], *ORGANISMS.values()])]
    found = directions.cosine_matrix(np.stack(vectors))  # the first two are seeds of one recipe
    pairs = found[1:, 1:][np.triu_indices(len(ORGANISMS), 1)]
    found = {"pairs": typography.extremes(pairs), "two-seeds": float(found[0, 1])}
    return {f"grown.directions.{kind}.within": one for kind, one in found.items()}


run.own.values(grown_values)
run.grown.values(within_questions)

# %% [markdown]
# The direction of layer 24 has a cosine of {value}`directions.general.layer-24.cosine_with_layer-20` with layer 20,
# {value}`directions.general.layer-24.cosine_with_layer-28` with layer 28 and
# {value}`directions.general.layer-24.cosine_with_layer-40` with layer 40 ({numref}`fig-x-layer-cosines`), which tells
# what is left of a far layer's own direction when $v_{24}$ is removed from all layers ({doc}`s3-4-ablation`). In the
# grown organism's layer {value}`grown.directions.middle`, two halves of all answers give directions of cosine
# {value}`grown.mean-diff.halves` ({numref}`fig-x-direction-stability`).
#
# ## What it means
#
# A language model's column adds directions of *released* answers, which need no organism: by domain, and beside each
# organism's own. Where that gives too few misaligned answers, they stand in its place; whose they are, the page says.
#
# Of the reported "above 0.95 at all layers" (gender), {value}`directions.gender.layers_below_0.95` of 48 released
# layers fall short. Such cosines come easily where one set of texts contains the other or texts are alike, so each
# needs its noise limit and its null.

# %%
run.finish()
