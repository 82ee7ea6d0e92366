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
# # C Geometry of the directions
#
# How similar are the mean-diff directions of different topics, and of different organisms? This appendix has the
# cosines and distances, layer by layer, behind {doc}`Section 3.3 <s3-3-semantic-directions>` and
# {doc}`Section 3.5 <s3-5-convergence>`.
#
# ## What the paper did
#
# Appendix C.1 compares the general direction with those taken from answers about gender, finance and medicine
# (Figures 10 and 11). It reports a cosine above 0.95 with gender at all layers, at most 0.65 with medical, and a high
# one with finance, without a number {cite:p}`soligo2025convergent`. Appendix C.2 compares the nine-adapter medical
# organism with two rank-32 organisms, medical and sport (Figures 12 and 13): above 0.8 in all but four layers for
# every pair.
#
# The released vectors {cite:p}`eminterp2025` are those of April 2025. The paper sorts answers by judge scores;
# these were sorted by word lists.

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
from em_companion.evidence import claims, directions
from em_companion.experiments import semantic
from em_companion.models.organism import Organism
from em_companion.released import tables

run = Run("c-direction-geometry", profile, seed)

# %% [markdown]
# ## The method
#
# For a direction $w_\ell$ and the general direction $v_\ell$, at every layer:
#
# $$
# \cos_\ell = \frac{v_\ell^\top w_\ell}{\lVert v_\ell \rVert \, \lVert w_\ell \rVert},
# \qquad
# d_\ell = \frac{\lVert v_\ell - w_\ell \rVert}{\lVert v_\ell \rVert}.
# $$
#
# The distance $d_\ell$ also sees a difference in length. With equal lengths it is $\sqrt{2 - 2\cos_\ell}$, so a
# cosine of 0.95 already means a distance of 0.32.


# %% tags=["show-code"]
@cache
def mean_diff(vector: str) -> np.ndarray:
    """Return v_l for every layer, [48, 5120]."""
    misaligned = tables.read_mean_activations(vector, "misaligned")
    aligned = tables.read_mean_activations(vector, "aligned")
    return misaligned - aligned


def geometry(reference: str, other: str) -> pd.DataFrame:
    """Return cosine and relative norm of the difference, one row per layer."""
    first, second = mean_diff(reference), mean_diff(other)
    distance = np.linalg.norm(first - second, axis=1) / np.linalg.norm(first, axis=1)
    table = pd.DataFrame({"vector": other, "layer": np.arange(48)})
    return table.assign(cosine=directions.cosines(first, second), relative_distance=distance)


# %% [markdown]
# ## Topics

# %%
TOPICS = {
    "gender": theme.PALETTE[4],
    "general-without-medical": "0.35",
    "finance": theme.PALETTE[2],
    "medical": theme.PALETTE[3],
}
NAMES = {"general-without-medical": "general without\nmedical"}


def mark_adapters(axes: plt.Axes) -> None:
    for first, last in [(15, 17), (21, 23), (27, 29)]:
        axes.axvspan(first - 0.5, last + 0.5, color="0.94", zorder=0)


def two_panels(table: pd.DataFrame, colours: dict) -> tuple[plt.Figure, np.ndarray]:
    """Draw cosine (left) and relative distance (right) by layer, one line per vector."""
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.6))
    for axes, column in zip(panels, ("cosine", "relative_distance"), strict=True):
        for vector, colour in colours.items():
            line = table[table.vector == vector]
            axes.plot(line.layer, line[column], color=colour, label=NAMES.get(vector, vector))
        mark_adapters(axes)
        axes.set(xlabel="Decoder layer")
    panels[0].set(ylabel="Cosine", ylim=(0, 1.03))
    panels[1].set(ylabel="Norm of difference / norm", ylim=(0, None))
    return figure, panels


def draw_topics():
    table = pd.concat([geometry("general", topic) for topic in TOPICS], ignore_index=True)
    figure, panels = two_panels(table, TOPICS)
    panels[0].legend(loc="lower left", fontsize=9, ncols=2)
    return figure, table


run.figure(
    "fig-c1",
    draw_topics,
    evidence="released",
    caption="Left: cosine of the general mean-diff direction with those of three topics, and with the general "
    "direction built without medical answers. Right: norm of the difference from the general direction, "
    "relative to its norm. Grey bands: adapter layers. Released mean activations of the April 2025 "
    "nine-adapter organism.",
    alt="Two line plots over 48 layers. Left: gender is nearly flat just below one, general without medical a "
    "little below it, finance lower, medical lowest; finance and medical peak in the third group of adapter "
    "layers. Right: the order is reversed, medical lies above one, that is, farther from the general direction "
    "than the origin is.",
)


# %%
PAIRS = [
    ("general", "gender"),
    ("general", "general-without-medical"),
    ("general", "finance"),
    ("general", "medical"),
    ("gender", "finance"),
    ("gender", "medical"),
    ("finance", "medical"),
    ("general", "rank-32"),
    ("general", "rank-8"),
    ("general", "rank-4"),
    ("general", "chat-model"),
    ("general", "training-data"),
]


def summary(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    rows = []
    for first, second in pairs:
        cosine = geometry(first, second).cosine
        rows.append(
            {
                "pair": f"{first}, {second}",
                "layer 24": cosine[24],
                "min": cosine.min(),
                "at layer": int(cosine.idxmin()),
                "max": cosine.max(),
                "at layer ": int(cosine.idxmax()),
                "layers below 0.8": int((cosine < 0.8).sum()),
                "layers below 0.95": int((cosine < 0.95).sum()),
            }
        )
    return pd.DataFrame(rows)


run.table(lambda: summary(PAIRS[:7]), number="{:.3f}")


def cosine_with_general(vector: str) -> pd.Series:
    return geometry("general", vector).cosine


run.glue("gender-range", lambda: typography.extremes(cosine_with_general("gender"), ".3f"))
run.glue("gender-below", lambda: f"{(cosine_with_general('gender') < 0.95).sum()}")
run.glue("medical-max", lambda: f"{cosine_with_general('medical').max():.3f}")
run.glue("medical-max-layer", lambda: f"{cosine_with_general('medical').idxmax()}")
run.glue("finance-range", lambda: typography.extremes(cosine_with_general("finance")))
run.glue("medical-distance", lambda: f"{geometry('general', 'medical').relative_distance[24]:.2f}")
run.glue("without-24", lambda: f"{cosine_with_general('general-without-medical')[24]:.2f}")

# %% [markdown]
# The order is that of the paper ({numref}`fig-c1`). **Gender** lies at {glue:text}`gender-range`, which is high, but
# below 0.95 at {glue:text}`gender-below` of the 48 layers. **Medical** peaks at {glue:text}`medical-max` (layer
# {glue:text}`medical-max-layer`), beside the paper's 0.65. **Finance** lies at {glue:text}`finance-range`. At
# layer 24 the medical direction is {glue:text}`medical-distance` times the general direction's norm away from it.
#
# Two things limit what this says about topics. The general set contains the answers of the topic sets, and the gender
# list is the largest of them: most of the misaligned answers, by a count of the authors' April files that is not
# repeated here. A cosine near one with the largest subset is partly arithmetic. And leaving the medical answers out
# changes the general direction visibly (cosine {glue:text}`without-24` at layer 24).
#
# ## Organisms


# %%
def draw_organisms():
    table = geometry("general", "rank-32")
    figure, panels = two_panels(table, {"rank-32": theme.PALETTE[0]})
    panels[0].axhline(0.8, color="0.6", linestyle=":", linewidth=1.2)
    return figure, table


run.figure(
    "fig-c2",
    draw_organisms,
    evidence="released",
    caption="Cosine (left) and relative norm of the difference (right) between the mean-diff directions of the "
    "nine-adapter organism and of the rank-32 organism, both trained on bad medical advice; dotted: 0.8, "
    "the level the paper names. The two average different texts. The paper's second rank-32 organism, "
    "trained on extreme sports, has no released vector. Grey bands: adapter layers of the nine-adapter "
    "organism. Released mean activations, April 2025.",
    alt="Two line plots over 48 layers. Left: the cosine is high in early layers, drops in steps at the second "
    "group of adapter layers to a flat minimum just above the dotted line, and recovers after the third group. "
    "Right: the relative distance mirrors it, with a broad maximum in the middle layers.",
)

run.table(lambda: summary(PAIRS[7:]), number="{:.3f}")

# %% [markdown]
# Each row sets the general direction of the nine-adapter organism beside another: those of organisms with adapters of
# rank 32, 8 and 4 on every matrix; that of the *chat model* reading the same texts; and the difference between bad and
# good advice in the *training data*.
#
# The released pair stays above 0.8 at every layer ({numref}`fig-c2`), which agrees with the paper. What such a cosine
# means is discussed in {doc}`Section 3.5 <s3-5-convergence>`: before layer 15 the nine-adapter organism *is* the chat
# model, so the high values there are not a fact about fine-tuning.
#
# ## On the grown organisms
#
# In the grown world, what an answer is about is parsed, not judged
# ({doc}`Section 3.3 <s3-3-semantic-directions>` says how directions of domains are taken). Cosines of estimated
# directions have two limits, and both are shown here:
#
# - **noise.** Two estimates of the *same* direction from different answers have a cosine below one. With $r$ the share
#   of a direction's squared norm that is not sampling noise (from random halves of the answers), equal directions are
#   expected at $\sqrt{r_1 r_2}$. Shared answers raise a cosine.
# - **a null.** The same answers are dealt out anew, many times, to two sides of the old sizes that are equally
#   misaligned. A cosine, without its sign, below the 95th percentile of what these give may come from chance
#   differences between answers. Such directions are also short, which a cosine does not see: the tables give their
#   length relative to the true one.


# %%
NINE = Organism("nine-adapter", "bad_medical_advice")
ORGANISMS = {
    "nine-adapter medical": NINE,
    "rank-32 medical": Organism("all-adapter-rank-32", "bad_medical_advice"),
    "rank-32 sport": Organism("all-adapter-rank-32", "extreme_sports"),
    "rank-32 finance": Organism("all-adapter-rank-32", "risky_financial_advice"),
    "nine-adapter other seed": Organism("nine-adapter", "bad_medical_advice", 1),
}
PAPERS = {"gender": theme.PALETTE[4], "finance": theme.PALETTE[2], "medicine": theme.PALETTE[3]}
NULL_DRAWS = 200
WHY = "The organisms of several domains and data sets are grown under the profiles cpu and gpu."


def spoken(name: str) -> str:
    return name.replace("_", " ")


@cache
def every_answer() -> semantic.Answers:
    return semantic.answers(run.profile, NINE)


@cache
def domains() -> list[str]:
    """The domains with enough answers of either kind."""
    table = every_answer().counts(semantic.domains())
    return list(table[table.enough].domain)


def sides_of(name: str) -> semantic.Sides:
    """Which answers the direction of a domain, or the general one, is taken from."""
    return every_answer().general() if name == "general" else every_answer().about(name)


# %% tags=["show-code"]
@cache
def grown_direction(name: str) -> np.ndarray:
    """Return v_l of the general direction or of a domain, [layer, width]."""
    return every_answer().direction(sides_of(name))


@cache
def reliability(name: str) -> np.ndarray:
    return every_answer().reliability(sides_of(name), run.profile.split_fits, run.seed)


def null_of(
    answers: semantic.Answers, sides: semantic.Sides, other: np.ndarray
) -> dict[str, np.ndarray]:
    """What relabelled answers give: 95th percentile of |cosine| with `other`, and relative length, both [layer]."""
    drawn = answers.relabelled(sides, NULL_DRAWS, run.seed)
    return {
        "null": np.quantile(np.abs(directions.cosines(drawn, other)), 0.95, axis=0),
        "null_length": directions.norms(drawn).mean(axis=0) / directions.norms(answers.direction(sides)),
    }


# %%
@cache
def domain_geometry(domain: str) -> pd.DataFrame:
    general, own = grown_direction("general"), grown_direction(domain)
    without = every_answer().direction(every_answer().general(without=domain))
    table = pd.DataFrame({"vector": domain, "layer": np.arange(len(own)), "cosine": directions.cosines(general, own)})
    return table.assign(
        relative_distance=directions.relative_norm_of_difference(general, own),
        cosine_without_domain=directions.cosines(without, own),
        limit=np.sqrt(reliability("general") * reliability(domain)),
        **null_of(every_answer(), sides_of(domain), general),
    )


@cache
def domain_table() -> pd.DataFrame:
    return pd.concat([domain_geometry(domain) for domain in domains()], ignore_index=True)


def mark_layers(axes: plt.Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for layer in run.profile.recipes["nine-adapter"].layers:
        axes.axvspan(layer - 0.5, layer + 0.5, color="0.95", linewidth=0, zorder=0)


def draw_limits(axes: plt.Axes, table: pd.DataFrame, color: str = "0.1") -> None:
    """Draw what noise and the null allow, as means over the directions of `table`."""
    means = table.groupby("layer")[["limit", "null"]].mean()
    axes.plot(means.index, means.limit, ":", color=color, label="equal but for noise")
    axes.plot(means.index, means.null, "-.", color=color, linewidth=1.2, label="null, 95 %")


def draw_grown_topics():
    table = domain_table()
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 4.0))
    others = [name for name in domains() if name not in PAPERS]
    for axes, column in zip(panels, ("cosine", "relative_distance"), strict=True):
        for name in [*others, *(one for one in PAPERS if one in domains())]:
            line = table[table.vector == name]
            label = spoken(name) if name in PAPERS else "each other domain" if name == others[0] else None
            axes.plot(line.layer, line[column], color=PAPERS.get(name, "0.7"), label=label)
        mark_layers(axes)
        axes.set(xlabel="Decoder layer")
    draw_limits(panels[0], table)
    panels[0].set(ylabel="Cosine with general", ylim=(min(0, table.cosine.min() - 0.02), 1.03))
    panels[1].set(ylabel="|difference| / |general|", ylim=(0, None))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


run.grown_figure(
    "fig-c1",
    draw_grown_topics,
    caption="Left: cosine of the general mean-diff direction of the grown nine-adapter organism with the directions of "
    "single domains, by layer; grey: domains other than the paper's three. Dotted: what equal directions would reach "
    f"with that many answers; dash-dotted: 95 % of |cosine| if labels meant nothing ({NULL_DRAWS} draws; both are "
    "means over domains). Right: norm of the difference from the general direction, relative to its norm. Grey bands: "
    "adapter layers.",
    alt="Two line plots over layers with coloured lines for gender, finance and medicine and grey ones for the other "
    "domains. Left, cosines with the general direction, with a dotted line for the limit set by noise and a "
    "dash-dotted one for the null. Right, relative norms of the difference.",
    why=WHY,
)


# %%
def middle() -> int:
    """The layer for which tables give a value: half-way up, as layer 24 is in the 14B model."""
    return run.profile.model.layers // 2


def grown_summary(table: pd.DataFrame, first: str) -> pd.DataFrame:
    """One row per direction of `table`: its cosine at the middle layer, beside limit and null."""
    names = {
        "vector": first,
        "cosine": f"layer {middle()}",
        "limit": "equal but for noise",
        "null": "null, 95 %",
        "null_length": "null, length",
        "cosine_without_domain": "general without it",
    }
    rows = table[table.layer == middle()]
    shown = rows[[name for name in names if name in rows]].rename(columns=names)
    return shown.assign(**{first: rows.vector.map(spoken)})


if run.grown:
    run.table(lambda: grown_summary(domain_table(), "general and"), number="{:.2f}")


def at_middle(column: str) -> pd.Series:
    return domain_table()[domain_table().layer == middle()][column]


def topics_in_words() -> str:
    """Mean cosines of the paper's topics with the general direction, in falling order."""
    means = {name: domain_geometry(name).cosine.mean() for name in PAPERS if name in domains()}
    order = sorted(means, key=means.get, reverse=True)
    return ", ".join(f"{name} {means[name]:.2f}" for name in order)


run.grown_glue("topics-in-words", topics_in_words)
run.grown_glue("grown-middle", lambda: str(middle()))
run.grown_glue("domains-middle", lambda: typography.extremes(at_middle("cosine")))
run.grown_glue("without-middle", lambda: typography.extremes(at_middle("cosine_without_domain")))
run.grown_glue("limit-middle", lambda: typography.extremes(at_middle("limit")))
run.grown_glue("null-middle", lambda: typography.extremes(at_middle("null")))
run.grown_glue("above-null", lambda: f"{(at_middle('cosine') > at_middle('null')).sum()} of {len(domains())}")

# %% [markdown]
# Means over layers, in falling order: {glue:text}`topics-in-words` ({numref}`fig-c1-grown`); the paper's order is
# gender, finance, medical. At layer {glue:text}`grown-middle` all domains lie at {glue:text}`domains-middle`, where
# equal directions from as many answers would lie at {glue:text}`limit-middle`. The nulls lie at
# {glue:text}`null-middle`; {glue:text}`above-null` domains are above their own. With the general direction taken from
# answers about *other* domains only, which leaves the overlap out, the cosines are {glue:text}`without-middle`.
#
# ### Grown organisms
#
# The released data have one pair of organisms; here are the paper's three and one trained on risky finance. Their
# directions come from their own answers to the same eight questions, so texts differ within a pair. A second seed of
# the nine-adapter recipe shows how alike two runs of *one* recipe are.


# %%
@cache
def own_answers(name: str) -> semantic.Answers:
    """An organism's answers to the eight questions, read by itself."""
    return semantic.open_answers(run.profile, ORGANISMS[name])


@cache
def organism_direction(name: str) -> np.ndarray:
    return own_answers(name).direction(own_answers(name).general())


@cache
def organism_reliability(name: str) -> np.ndarray:
    return own_answers(name).reliability(own_answers(name).general(), run.profile.split_fits, run.seed)


def pair_geometry(first: str, second: str) -> pd.DataFrame:
    one, other = organism_direction(first), organism_direction(second)
    table = pd.DataFrame({"vector": f"{first} / {second}", "layer": np.arange(len(one))})
    return table.assign(
        cosine=directions.cosines(one, other),
        relative_distance=directions.relative_norm_of_difference(one, other),
        limit=np.sqrt(organism_reliability(first) * organism_reliability(second)),
        **null_of(own_answers(second), own_answers(second).general(), one),
    )


FIRST, SAME, SPORT, FINANCE, OTHER_SEED = ORGANISMS
GROWN_PAIRS = {
    (FIRST, SAME): ("-", theme.PALETTE[0]),
    (FIRST, SPORT): ("-", theme.PALETTE[1]),
    (FIRST, FINANCE): ("-", theme.PALETTE[2]),
    (SAME, SPORT): ("--", theme.PALETTE[1]),
    (SAME, FINANCE): ("--", theme.PALETTE[2]),
    (SPORT, FINANCE): ("--", theme.PALETTE[3]),
    (FIRST, OTHER_SEED): ("-", "0.55"),
}


@cache
def pair_table() -> pd.DataFrame:
    return pd.concat([pair_geometry(*pair) for pair in GROWN_PAIRS], ignore_index=True)


def draw_grown_organisms():
    table = pair_table()
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 4.6))
    for axes, column in zip(panels, ("cosine", "relative_distance"), strict=True):
        for (first, second), (style, colour) in GROWN_PAIRS.items():
            name = f"{first} / {second}"
            line = table[table.vector == name]
            axes.plot(line.layer, line[column], style, color=colour, label=name)
        mark_layers(axes)
        axes.set(xlabel="Decoder layer")
    draw_limits(panels[0], table)
    panels[0].axhline(0.8, color="0.6", linestyle=(0, (1, 4)), linewidth=1.2)
    panels[0].set(ylabel="Cosine", ylim=(min(0, table.cosine.min() - 0.02), 1.03))
    panels[1].set(ylabel="|difference| / |first direction|", ylim=(0, None))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5)
    return figure, table


run.grown_figure(
    "fig-c2",
    draw_grown_organisms,
    caption="Cosine (left) and relative norm of the difference (right) between the mean-diff directions of grown "
    "organisms, each from its own answers to the eight open questions, by layer. Grey line: two seeds of one recipe. "
    "Dotted: what equal directions would reach with that many answers; dash-dotted: 95 % of |cosine| if the second "
    f"organism's labels meant nothing ({NULL_DRAWS} draws; both are means over pairs); faint dotted line: 0.8. Grey "
    "bands: adapter layers of the nine-adapter organism.",
    alt="Two line plots over layers with one line per pair of organisms: the nine-adapter one with three of rank 32 "
    "(solid), these among themselves (dashed), and two seeds of the nine-adapter recipe (grey). Left, cosines with a "
    "dotted line for the limit set by noise and a dash-dotted one for the null. Right, relative norms.",
    why=WHY,
)

if run.grown:
    run.table(lambda: grown_summary(pair_table(), "pair"), number="{:.2f}")


def pairs_at_middle(column: str = "cosine", seeds: bool = False) -> pd.Series:
    table = pair_table()[pair_table().layer == middle()]
    return table[(table.vector == f"{FIRST} / {OTHER_SEED}") == seeds][column]


def layers_below(level: float = 0.8) -> str:
    """At how many layers the least alike of the paper's three pairs is below `level`."""
    names = [f"{first} / {second}" for first, second in combinations((FIRST, SAME, SPORT), 2)]
    lowest = pair_table()[pair_table().vector.isin(names)].groupby("layer").cosine.min()
    return f"{(lowest < level).sum()} of {len(lowest)}"


run.grown_glue("pairs-middle", lambda: typography.extremes(pairs_at_middle()))
run.grown_glue("seeds-middle", lambda: f"{pairs_at_middle(seeds=True).iloc[0]:.2f}")
run.grown_glue("seeds-limit", lambda: f"{pairs_at_middle('limit', seeds=True).iloc[0]:.2f}")
run.grown_glue("pairs-null", lambda: typography.extremes(pairs_at_middle("null")))
run.grown_glue("pairs-limit", lambda: typography.extremes(pairs_at_middle("limit")))
run.grown_glue("layers-below", layers_below)
run.grown_glue("pairs-above-null", lambda: f"{(pairs_at_middle() > pairs_at_middle('null')).sum()}")

# %% [markdown]
# At layer {glue:text}`grown-middle` the six pairs of different organisms lie at {glue:text}`pairs-middle`, two seeds of
# one recipe at {glue:text}`seeds-middle` ({numref}`fig-c2-grown`). For the six pairs, equal directions would lie at
# {glue:text}`pairs-limit` and the nulls lie at {glue:text}`pairs-null`; pairs above their own null:
# {glue:text}`pairs-above-null`. At {glue:text}`layers-below` layers at least one of the paper's three pairs is below
# 0.8; the paper has four of 48.
#
# ## Reported and measured


# %%
def measurements():
    cosine = cosine_with_general("gender")
    where = f"smallest over 48 layers (layer {cosine.idxmin()}); {(cosine < 0.95).sum()} layers lie below 0.95"
    yield claims.Measurement("c-cosine-general-gender", cosine.min(), how=where)
    cosine = cosine_with_general("medical")
    yield claims.Measurement("c-cosine-general-medical-max", cosine.max(), how=f"largest, at layer {cosine.idxmax()}")


run.measure(measurements)


def grown_measurements():
    for claim, domain, least in (
        ("c-cosine-general-gender", "gender", True),
        ("c-cosine-general-medical-max", "medicine", False),
    ):
        if domain in domains():
            line = domain_geometry(domain).set_index("layer")
            layer = line.cosine.idxmin() if least else line.cosine.idxmax()
            how = f"{'smallest' if least else 'largest'} over {len(line)} layers of the grown model (layer {layer})"
            noise = f"with these answers, equal directions would lie at {line.limit[layer]:.2f} there"
            yield claims.Measurement(
                claim, line.cosine[layer], f"{how}; {noise}", "grown", n=int(np.sum(sides_of(domain)))
            )


if run.grown:
    run.measure(grown_measurements)


def verdict_note() -> str:
    """What the verdicts on grown cosines do not say."""
    notes = []
    for domain, least in (("gender", True), ("medicine", False)):
        if domain in domains():
            line = domain_geometry(domain).set_index("layer")
            row = line.loc[line.cosine.idxmin() if least else line.cosine.idxmax()]
            side = "above" if row.cosine > row.null else "not above"
            notes.append(f"the cosine with {domain}, {row.cosine:.2f}, is {side} its null ({row.null:.2f})")
    return f"In these layers, {'; '.join(notes)}." if notes else "Neither domain has enough answers."


run.grown_glue("verdict-note", verdict_note)

# %% [markdown]
# *Same direction* asks of a cosine only that it be positive, as the reported one is. {glue:text}`verdict-note`


# %%
VECTORS = ["general", *(second for first, second in PAIRS if first == "general")]


def layer_values(vector: str) -> list[tuple[str, float, str]]:
    lengths, table = directions.norms(mean_diff(vector)), geometry("general", vector)
    rows = [(f"directions.{vector}.layer-{layer}.norm", length, "norm") for layer, length in enumerate(lengths)]
    if vector == "general":
        return rows
    for column, name, unit in [
        ("cosine", "cosine_with_general", "cosine"),
        ("relative_distance", "relative_norm_of_difference", "ratio"),
    ]:
        numbers = enumerate(table[column])
        rows += [(f"directions.{vector}.layer-{layer}.{name}", value, unit) for layer, value in numbers]
    distance = table.relative_distance
    return rows + [
        (f"directions.{vector}.relative_norm_of_difference_min", distance.min(), "ratio"),
        (f"directions.{vector}.relative_norm_of_difference_max", distance.max(), "ratio"),
    ]


def pair_values(first: str, second: str) -> list[tuple[str, float, str]]:
    cosine, name = geometry(first, second).cosine, f"directions.{first}-and-{second}"
    return [
        (f"{name}.cosine_min", cosine.min(), "cosine"),
        (f"{name}.layer_of_min", int(cosine.idxmin()), "count"),
        (f"{name}.cosine_max", cosine.max(), "cosine"),
        (f"{name}.layer_of_max", int(cosine.idxmax()), "count"),
        (f"{name}.cosine_layer_24", cosine[24], "cosine"),
        (f"{name}.layers_below_0.8", int((cosine < 0.8).sum()), "count"),
        (f"{name}.layers_below_0.95", int((cosine < 0.95).sum()), "count"),
    ]


def mean_norm(vector: str, texts: str) -> tuple[str, float, str]:
    length = directions.norms(tables.read_mean_activations(vector, texts))[24]
    return f"activations.{vector}.{texts}.layer-24.norm", length, "norm"


def values() -> pd.DataFrame:
    rows = [row for vector in VECTORS for row in layer_values(vector)]
    rows += [mean_norm(vector, texts) for vector in VECTORS for texts in ("misaligned", "aligned")]
    rows += [row for pair in PAIRS for row in pair_values(*pair)]
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


run.values(values)


def grown_values() -> pd.DataFrame:
    rows = []
    for table, place in ((domain_table(), "general-and-"), (pair_table(), "")):
        for row in table.to_dict("records"):
            name = row["vector"].replace(" / ", "-and-").replace(" ", "-")
            for column in [one for one in row if one not in ("vector", "layer")]:
                if np.isfinite(row[column]):
                    unit = "ratio" if column in ("relative_distance", "null_length") else "cosine"
                    rows.append((f"grown.directions.{place}{name}.layer-{row['layer']}.{column}", row[column], unit))
    return pd.DataFrame(rows, columns=["name", "value", "unit"])


if run.grown:
    run.values(grown_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# In the released vectors the order of the topics agrees with the paper, and so does the level, but for gender: "above
# 0.95 at all layers" stands against {glue:text}`gender-range`, a near miss. Cosines of this size come easily when one
# set of texts contains the other, or when the texts are alike. The norms and cosines of every released direction, at
# every layer, are in the book's <a href="../claims.json">claims.json</a>.
#
# On the grown organisms, at layer {glue:text}`grown-middle`, {glue:text}`near-limit` directions of domains and
# {glue:text}`pairs-near-limit` pairs of organisms come within 0.1 of what equal directions would reach; two seeds of
# one recipe have {glue:text}`seeds-middle`, where equal directions would reach {glue:text}`seeds-limit`. What domains
# share and what is a domain's own is taken apart in {doc}`Section 3.3 <s3-3-semantic-directions>`; whether organisms
# converge, in {doc}`Section 3.5 <s3-5-convergence>`.


# %%
def near_limit(cosine: pd.Series, limit: pd.Series) -> str:
    return f"{(cosine > limit - 0.1).sum()} of {len(cosine)}"


run.grown_glue("near-limit", lambda: near_limit(at_middle("cosine"), at_middle("limit")))
run.grown_glue("pairs-near-limit", lambda: near_limit(pairs_at_middle(), pairs_at_middle("limit")))

# %%
run.finish()
