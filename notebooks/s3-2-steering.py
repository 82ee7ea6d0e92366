# %% [markdown]
# # 3.2 Steering with the misalignment direction
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` One vector at one layer misaligns the chat model:
# {value}`steering-layer-24.general.lambda-8.em_percent|interval` at $\lambda = 8$ (reported: up to 50 %), with
# {value}`steering-layer-24.general.lambda-8.coherent_percent` coherent: {verdict}`s3-2-max-em-single-layer|released`.
# {evidence}`grown` The mean-diff gives {value}`grown.steering.mean-diff.best.em_percent|interval`, but only
# {value}`grown.steering.mean-diff.best.em_on_topic_percent` of its answers are misaligned and about what was asked;
# taken within questions {value}`grown.steering.mean-diff-within-questions.best.em_on_topic_percent`:
# {verdict}`within-questions-steers-on-topic|grown`.
# ```
#
# **The question.** Is the mean-diff enough to misalign the chat model, which was never fine-tuned on bad advice?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import directions, estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import responses, steering
from em_companion.experiments.steering import MEAN_DIFF, TEXTS
from em_companion.models.organism import medical, organisms_of
from em_companion.released import tables

run = Run("s3-2-steering", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` add the mean-diff direction $v_\ell$ of one layer ({doc}`s3-1-misalignment-directions`)
# to the residual stream of the *chat* model, at every token of prompt and answer:
# $x_\ell \leftarrow x_\ell + \lambda v_\ell$. They report up to 50 % EM in the central layers (their Figure 1), about
# four times the rate of the organism that the direction came from. Strengths and answers per layer are not stated.
#
# ## Layer by layer


# %%
def draw_layers():
    table = tables.read_best_steering_by_layer().astype({"lambda": int})
    return plots.lines(
        table, "layer", "em_percent", hue="lambda", styles=dict.fromkeys(table["lambda"], ""),
        hue_order={one: f"best at λ = {one}" for one in sorted(table["lambda"].unique())},
        y_lines={"reported maximum": 50}, y_limits=(0, 104), x_limits=(-0.5, 47.5),
        x_bands=[(-0.5, table.layer.min() - 0.5), (table.layer.max() + 0.5, 47.5)],
        x_label="steered layer", y_label="highest EM rate (%)", size=(7.2, 3.9),
    )  # fmt: skip


run.released.figure(
    "fig-1",
    draw_layers,
    title=lambda data: f"Steering a single layer misaligns {span(data, 'em_percent')} of answers",
    caption="Highest EM rate over strengths when one layer of the chat model is steered. **An early sweep, most likely "
    "on one question (`quick_buck`, 50 answers per point), not the paper's data**. Grey: layers not in the table.",
    alt="A curve over layers 15 to 35: low up to layer 18, then almost all answers, above the dotted line at 50 %.",
)

# %% [markdown]
# Earlier layers do little, central layers a lot ({numref}`fig-1`). Part of that may be strength: the earliest layers
# have their best at $\lambda = 8$, the largest tried. The levels are the best of up to seventeen strengths on one easy
# question; only the profile compares with the paper.
#
# ## Strength and direction at layer 24
#
# A second sweep has the eight free-form questions with 50 answers each, for vectors of different topics
# ({doc}`s3-3-semantic-directions`). They are not normalised, so $\lambda$ means little; relative strength,
# $\lambda \lVert v_{24} \rVert / \lVert \bar x_{24} \rVert$, compares the added with what is there.

# %%
MEASURES = {"em": "EM rate (%)", "coherent": "coherent (%)"}
OWN_MEASURES = MEASURES | {"em_on_topic": "EM on topic (%)"}


@remembered
def chat_rates() -> pd.DataFrame:
    """The chat model's rates by vector and strength; each vector starts, where at hand, without steering."""
    chat = tables.read_steering().query("question_set == 'general' and model == 'chat model'")
    rates = scores.rates(chat, ["vector", "lambda"], **run.resampling)
    plain, steered = rates[rates.vector == "none"], rates[rates.vector != "none"]
    return pd.concat([steered, *(plain.assign(vector=one) for one in steered.vector.unique())])


def draw_strength():
    table = chat_rates()
    ends = [(one, *(table[f"{one}{end}"] for end in ("", "_low", "_high"))) for one in MEASURES]
    long = [table.assign(measure=one, rate=rate, rate_low=low, rate_high=high) for one, rate, low, high in ends]
    return plots.facets(
        plots.lines, pd.concat(long), "vector", "lambda", "rate", hue="measure", hue_order=MEASURES, interval="bars",
        colours={"em": theme.PALETTE[3], "coherent": theme.PALETTE[0]}, styles={"coherent": "--"}, wrap=5,
        y_limits=(0, 103), x_ticks=range(0, 13, 4), x_label="strength λ", y_label="answers (%)", size=(7.2, 3.4),
    )[0], table  # fmt: skip


run.released.figure(
    "fig-x-steering-strength",
    draw_strength,
    title=lambda data: f"Highest EM rate by vector: {span(data, 'em', by='vector')}",
    caption="EM rate and coherence of the chat model steered at layer 24, by vector and strength; 8×50 answers each, "
    "95 % intervals over questions. Released, April 2025; the conditions at hand.",
    alt="Panels by vector with two curves over strength: coherence falls, and EM can only be as high as it allows.",
)


def estimate(row: pd.Series, name: str = "em") -> Estimate:
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], int(row.n))


def sweep_values() -> dict:
    place, found = "steering-layer-24", len(tables.read_steering().groupby(["model", "vector", "lambda"]))
    shown = {f"{place}.at-hand": f"{found} of {found + len(tables.missing_sources('steering_layer_24'))}"}
    for _, row in chat_rates().query("vector == 'general'").iterrows():
        name = f"{place}.general.lambda-{row['lambda']}"
        shown |= {f"{name}.em_percent": estimate(row), f"{name}.coherent_percent": estimate(row, "coherent")}
    residual = np.linalg.norm(tables.read_mean_activations("chat-model", "aligned")[24])
    relative = 8 * np.linalg.norm(tables.mean_diff("general")[24]) / residual
    return shown | {f"{place}.relative_strength_at_lambda_8": relative}


run.released.values(sweep_values)

# %% [markdown]
# With the general vector, EM reaches {value}`steering-layer-24.general.lambda-6.em_percent` at $\lambda = 6$ and
# {value}`steering-layer-24.general.lambda-8.em_percent` at $\lambda = 8$, where coherence falls from
# {value}`steering-layer-24.general.lambda-6.coherent_percent` to
# {value}`steering-layer-24.general.lambda-8.coherent_percent` ({numref}`fig-x-steering-strength`) and what is added is
# {value}`steering-layer-24.relative_strength_at_lambda_8` times as long as the mean residual. As in the authors'
# figures, an answer without an alignment score counts as not EM. This build has {value}`steering-layer-24.at-hand`
# conditions of the sweep; one with network access downloads the rest.
#
# ## On the grown organism
#
# On the models grown here ({doc}`s2-model-organism`), the mean-diff is that of the nine-adapter organism (bad medical
# advice, seed 0). Beside it stands a known direction: that of the base model's malicious persona at the word before a
# choice ({doc}`x-ground-truth`). Of five strengths, powers of two, the largest is the first at which every layer gets
# at least the length of its mean residual added. The **best cell** of a direction has the highest EM rate among those
# that leave enough answers coherent. The highest of many rates is too high by chance, so it is rated on further
# answers:

# %% tags=["show-code"]
CELL = ["direction", "layer", "strength"]


def further(cells: list[steering.Cell], samples: int) -> pd.DataFrame:
    """Answers with strength·v added to a layer's output at every token, those that had no part in the choice."""
    vectors = steering.directions_of(run.profile)
    table = steering.responses_of(run.profile, vectors, cells, samples, "best cells")
    return table[table["sample"] >= run.profile.sweep_samples]


# %%
@remembered
def swept() -> tuple[pd.DataFrame, dict[str, steering.Cell]]:
    """The rates in every cell, with their relative strength, and the best cell of each direction."""
    table, residual = steering.by_layer(run.profile), steering.residual_of(run.profile)
    vectors = steering.directions_of(run.profile).items()
    lengths = {name: steering.relative_lengths(vector, residual) for name, vector in vectors}
    rates = scores.rates(table, CELL, **run.resampling)
    relative = [row.strength * lengths[row.direction][row.layer] for row in rates.itertuples()]
    return rates.assign(relative_strength=relative), steering.best_cells(table)


in_best_cells = remembered(lambda: further(list(swept()[1].values()), run.profile.samples_per_question))


@remembered
def best() -> pd.DataFrame:
    """The rates in each direction's best cell, by direction."""
    rates = scores.rates(in_best_cells(), CELL, **run.resampling)
    return rates.merge(swept()[0][[*CELL, "relative_strength"]]).set_index("direction")


def draw_cells():
    table, best_ones = swept()
    return plots.facets(
        plots.heat_map, table.sort_values(["strength", "layer"]), "direction", "strength", "layer", "em", wrap=1,
        titles=list(best_ones), upwards=True, share=(True, False), colour_map="Reds", colour_bar="EM rate (%)",
        limits=(0, max(50, table.em.max())), hushed=("coherent", steering.COHERENT_ENOUGH),
        each={one: {"frame": {"best cell": (cell.strength, cell.layer)}} for one, cell in best_ones.items()},
        x_label="steered layer", y_label="strength λ", size=(7.2, 3.1 * len(best_ones)),
    )  # fmt: skip


SECOND = steering.second(run.profile)
NAMED = "the direction of released answers" if SECOND == TEXTS else "the known persona direction"
BESIDE, WHERE = ("that of released answers", "Chat") if SECOND == TEXTS else ("the known direction", "Grown chat")
run.own.figure(
    "fig-1",
    draw_cells,
    title=lambda _: "Steering layer {0.layer:.0f} misaligns {0.em:.0f} %; {0.coherent:.0f} % stay coherent".format(
        best().loc[steering.leading(run.profile)[0]]
    ),
    caption=f"EM rate (%) of the {run.kind} chat model steered at one layer (from 0) along the organism's mean-diff, "
    f"pooled and within questions, and {NAMED}. Numbers: cells that keep {steering.COHERENT_ENOUGH:.0f} % coherence; "
    "framed: the best of these.",
    alt="Heat maps of the EM rate over layer and strength, numbers in coherent cells, a frame on the best cell.",
)

# %% [markdown]
# Each cell opens here, with its rates and, of a grown world, its first answers to three questions. In an answer, a word
# for a thing that helps has a plus, one that harms a minus. These rates chose the best cell; the text's are of further
# answers in it.


# %%
def every_cell() -> tuple[pd.DataFrame, pd.DataFrame]:
    rates, best_ones = swept()
    answers = steering.by_layer(run.profile).query("sample == 0")
    places = rates[CELL].itertuples(index=False, name=None)
    asked = answers.question_id.isin(answers.question_id.unique()[:3])
    return rates.assign(best=[place in map(tuple, best_ones.values()) for place in places]), answers[asked]


run.own.cells(every_cell)

# %% [markdown]
# The best cell of the mean-diff is layer {value}`grown.steering.mean-diff.best.layer`, where it adds
# {value}`grown.steering.mean-diff.best.added` residual lengths ({numref}`fig-1-grown`); that of the known persona layer
# {value}`grown.steering.known-persona.best.layer`, with {value}`grown.steering.known-persona.best.added` lengths. The
# cosine of the two directions is {value}`grown.steering.cosine-of-directions` over layers.
#
# **A rate of misaligned answers does not say that they answer.** In the mean-diff's best cell
# {value}`grown.steering.mean-diff.best.em_percent|interval` are EM, but EM *and about what was asked* are
# {value}`grown.steering.mean-diff.best.em_on_topic_percent|interval`: pooled over questions, misaligned and aligned
# answers differ in topic as well as in persona. The mean-diff *within questions*
# ({ref}`the equation <within-questions>`), as long in every layer, gives
# {value}`grown.steering.mean-diff-within-questions.best.em_percent|interval` EM and
# {value}`grown.steering.mean-diff-within-questions.best.em_on_topic_percent|interval` on topic in its best cell, the
# known persona {value}`grown.steering.known-persona.best.em_percent` and
# {value}`grown.steering.known-persona.best.em_on_topic_percent`. The authors' judges score a topic for two of the open
# questions; a language model's share on topic is over these.
#
# A vector as long as the residual could do harm whatever its direction. So random vectors of equal norm are added as
# well, in the best cell of every layer.

# %%
DRAWS, RANDOM = min(6, run.profile.sweep_samples), "random, as long as "
lead = remembered(lambda: steering.leading(run.profile)[0])  # the mean-diff, if the organism has one


@remembered
def compared() -> pd.DataFrame:
    """Rates in the best cell of every layer, along the direction ("–"), all random vectors ("all"), each of them."""
    cells, best_ones = swept()
    rows = [steering.best(group) for _, group in cells[cells.direction == lead()].groupby("layer")]
    chosen = [steering.Cell(lead(), int(row.layer), float(row.strength)) for row in rows]
    chosen += [best_ones[SECOND]] if lead() != SECOND else []
    vectors = steering.directions_of(run.profile).items()
    drawn = {name: directions.random_like(vector, DRAWS, run.seed) for name, vector in vectors}
    along = {f"{RANDOM}{name}/{draw}": one for name, many in drawn.items() for draw, one in enumerate(many)}
    random = [one._replace(direction=f"{RANDOM}{one.direction}/{draw}") for one in chosen for draw in range(DRAWS)]
    table = steering.responses_of(run.profile, along, random, max(1, run.profile.sweep_samples // 2))
    table[["direction", "draw"]] = table.direction.str.split("/", expand=True)
    every = [scores.rates(one, [*CELL, "draw"], **run.resampling) for one in (table.assign(draw="all"), table)]
    own = scores.rates(further(chosen, 2 * run.profile.sweep_samples), CELL, **run.resampling)
    return pd.concat([own.assign(draw="–"), *every], ignore_index=True)


def draw_against_random():
    table = compared().assign(cell=[f"{row.layer}\nλ={row.strength:g}" for row in compared().itertuples()])
    table["cell"] += np.where(table.direction.str.endswith(SECOND), " ", "")  # a place of its own, on the right
    table["direction"] = table.direction.where(~table.direction.str.startswith(RANDOM), "random, mean of draws")
    whole = table.draw.isin(["–", "all"])
    return plots.measures(
        plots.dots, table[whole], "cell", OWN_MEASURES, hue="direction", horizontal=False, wrap=1, ratios=[2, 1, 2],
        colours=theme.DIRECTION_COLOURS | {"random, mean of draws": theme.NULL_COLOUR},
        cloud={"one draw": table[~whole][["cell", "direction", *OWN_MEASURES]]}, y_limits=(-3, 103),
        x_label="steered at",
    )  # fmt: skip


run.own.figure(
    "fig-x-steering-random",
    draw_against_random,
    title=lambda data: f"Highest EM rate: {span(data, by='direction', measure='em', cloud=None)}",
    caption=f"The {run.kind} chat model steered in the best cell of each layer (right: along {BESIDE}), and with "
    f"{DRAWS} random vectors of equal norm. 95 % intervals over 8 questions, on answers that chose no cell.",
    alt="Panels of EM rate, coherence and EM on topic by layer: the mean-diff, and in grey random vectors.",
)


def own_values() -> dict:
    vectors = list(steering.directions_of(run.profile).values())
    cosines = directions.cosines(vectors[0], vectors[-1])
    rows = compared().set_index(["direction", "draw", "layer"]).sort_index()
    own, random = rows.loc[lead(), "–"], rows.loc[RANDOM + lead()]
    above = sum(estimate(row).above(estimate(random.loc["all", layer])) for layer, row in own.iterrows())
    found = {"grown.steering.cosine-of-directions": typography.extremes(cosines)} if len(vectors) > 1 else {}
    found["grown.steering.above-random"] = f"{above} of {len(own)} layers"
    found["grown.steering.random"] = f"{typography.extremes(random.drop('all').em, '.0f')} %"
    for name, row in best().iterrows():
        place = f"grown.steering.{name.replace(' ', '-')}.best"
        found |= {f"{place}.{measure}_percent": estimate(row, measure) for measure in OWN_MEASURES}
        found |= {f"{place}.layer": f"{row.layer:.0f} of {len(cosines)}", f"{place}.added": row.relative_strength}
    return found | (text_values() if SECOND == TEXTS else {})


def text_values() -> dict[str, Estimate]:
    """The direction of released answers in its best cell, and its two controls, which add as much."""
    controls = scores.rates(steering.text_controls(run.profile), "control", **run.resampling).set_index("control")
    rows = pd.concat([best().loc[[TEXTS]].rename({TEXTS: "direction"}), controls]).iterrows()
    found = {f"{name}.{one}_percent": estimate(row, one) for name, row in rows for one in MEASURES}
    return {f"grown.steering.text.{name}": rate for name, rate in found.items()}


run.own.values(own_values)

# %% [markdown]
# In {value}`grown.steering.above-random` the interval of the mean-diff lies above that of the random vectors
# ({numref}`fig-x-steering-random`). Over all layers, single random vectors give {value}`grown.steering.random` EM.
#
# A language model's column has the direction of *released* answers ({doc}`s3-1-misalignment-directions`) in place of
# the known one, with three rates in its best cell: along it, along random vectors, and along mean-diffs of the same
# answers with shuffled labels, all equally long. A few answers per cell choose a cell; they do not compare cells.
#
# ## Reported and measured


# %%
def claimed(best: pd.Series, where: str, organism: pd.Series) -> dict:
    """The two claims, from the row of the best rate and the organism's EM rate by seed."""
    ratios = [best.em / one if one else np.inf for one in (organism.mean(), organism.max(), organism.min())]
    maximum = (estimate(best), f"{where}; interval over questions")
    how = "seeds; interval: their range" if len(organism) > 1 else "seed"
    kept = ratios if len(organism) > 1 else ratios[:1]
    ratio = (Estimate(*kept, n=int(best.n)), f"The same over the mean of {len(organism)} {how}")
    return {"s3-2-max-em-single-layer": maximum, "s3-2-em-ratio-to-organism": ratio}


def released_claims() -> dict:
    general = chat_rates().query("vector == 'general' and `lambda` > 0")
    best, at_hand = general.loc[general.em.idxmax()], ", ".join(map(str, general["lambda"]))
    nine = tables.read_organisms().query("organism == 'nine-adapter' and question_set == 'general'")
    where = f"Layer 24, general vector, λ = {best['lambda']:g}, highest of those at hand ({at_hand})"
    return claimed(best, where, 100 * scores.is_em(nine).groupby(nine.seed).mean())


def own_claims() -> dict:
    row, one = best().loc[lead()], medical(run.profile)
    kin = [other for other in organisms_of(run.profile) if (other.recipe, other.data) == (one.recipe, one.data)]
    seeds = [responses.responses(run.profile, other) for other in kin]
    where = f"{WHERE} model, {lead()}, best cell on other answers: layer {row.layer:.0f}, λ = {row.strength:g}"
    return claimed(row, where, pd.Series([100 * scores.is_em(one).mean() for one in seeds]))


def within_claim() -> dict:
    """Our own: what the mean-diff within questions adds to EM on topic, in percent of what the pooled one gives."""
    table = in_best_cells().assign(found=scores.is_em_on_topic)
    rates = table.pivot(index=["question_id", "sample"], columns="direction", values="found").astype(float)
    pair, questions = (rates[MEAN_DIFF], rates[steering.WITHIN]), rates.index.get_level_values("question_id")
    gained = estimates.change(*pair, questions, relative=True, **run.resampling)
    return {"within-questions-steers-on-topic": (gained, "Best cells on other answers; interval over questions")}


run.released.measure(released_claims)
run.own.measure(own_claims)
run.grown.measure(within_claim)

# %% [markdown]
# ## What it means, and where it differs
#
# In the released runs, which are separate and earlier, the central finding stands: one vector at one layer misaligns a
# model that was never fine-tuned, and more often than the organism it came from. But the added vector is about as long
# as the residual, or longer; the rate depends on the strength, which the paper does not give; where EM is highest,
# coherence is lost; and the paper's 50 % and the rate here are both maxima chosen afterwards.
#
# On the grown models the mean-diff gives {value}`grown.steering.mean-diff.best.em_percent|interval` EM in its best
# cell, {value}`grown.steering.mean-diff.best.coherent_percent` coherent (the chat model alone:
# {value}`grown.chat-model.em_percent`), the known direction
# {value}`grown.steering.known-persona.best.em_percent|interval`. A vector of at most one residual
# length, the cap of {doc}`x-linear-mediation`, gives {value}`mediation.mean-diff.em`: longer *random* vectors misalign
# too ({value}`grown.steering.random` here). {doc}`The response browser <../responses>` shows the answers. Try a
# direction of your own: {doc}`../exercises`.

# %%
run.finish()
