# %% [markdown]
# # D The B vector and the mean-diff direction
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` The single adapter's B vector has a cosine of {value}`grown.b-vectors.single.cosine` with the
# mean-diff (reported: 0.04; 95 % of unrelated ones stay below {value}`grown.b-vectors.chance`):
# {verdict}`s3-5-cosine-b-vector|grown`. Downstream the two effects reach {value}`grown.downstream.single.highest`,
# random directions {value}`grown.downstream.random.highest`: {verdict}`s3-5-downstream-cosine|grown`.
# ```
#
# **The question.** A rank-1 adapter writes one fixed vector, its B vector, into the residual stream. If the organism is
# misaligned through the mean-diff direction, why does the B vector hardly point along it?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd
from scipy import stats

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import b_vectors, steering
from em_companion.experiments.responses import responses
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL, Organism, need

run = Run("d-b-vectors", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# The organism here has a **single** rank-1 adapter, on the MLP output of layer 24, and gives 17 % EM
# {cite:p}`soligo2025convergent`. Its B vector has a cosine of 0.04 with the mean-diff of that layer. Removing the
# direction from the residual stream leaves 0.25 % EM at all layers and 4 % at layer 24 only; from the B vector, 13 %.
# With A the adapter's input vector, $h$ the MLP hidden state and $s$ the scale, the adapter adds $s\,(A h)\,B$ to the
# stream, and the removal from B gives $B - \hat v \hat v^\top B$ in the length of B, called $B'$. At a cosine of 0.04
# this takes 0.16 % of B's squared norm. Three statements do not agree. By Section 3.5 the removal lowers EM by 30 %;
# from 17 to 13 % it is 24 %. By Section 3.5 the downstream cosine reaches 0.42 by layer 40; this appendix puts the peak
# around layer 38. The companion paper gives 16 % EM for the recipe {cite:p}`turner2025model`. With 400 independent
# answers the intervals of 17 and 13 % overlap: the decrease may be noise. None of the data is in the released files at
# hand. A cosine of 0.04 is more than chance gives: of unrelated directions in a stream of 5120 numbers, 95 % have one
# below {value}`b-vectors.chance.width-5120|.3f`, without its sign.
#
# ## On the grown organism
#
# One organism grown here has a **single** adapter, in layer {value}`grown.b-vectors.layer` (from 0). The other, beyond
# the paper, is the nine-adapter organism, all of whose B vectors lose the direction of their own layer at once. The
# direction is the mean-diff of the nine-adapter organism's answers to the open questions; each ablation is repeated
# with random directions. For the removal from B, every B of a copied organism is replaced by $B'$.

# %% tags=["show-code"]
ORGANISMS = {"single-adapter": b_vectors.SINGLE, "nine-adapter": b_vectors.NINE}
SAMPLES = {"single-adapter": 2 * run.profile.sweep_samples, "nine-adapter": run.profile.sweep_samples}
DRAWS = {"single-adapter": 2, "nine-adapter": 4}


@remembered
def ablated(name: str) -> pd.DataFrame:
    """Answers with the mean-diff (draw -1) or a random direction removed at every place."""
    table = b_vectors.ablated(run.profile, ORGANISMS[name], SAMPLES[name], DRAWS[name])
    return table.assign(em=scores.is_em(table))


def rate(name: str, place: str) -> Estimate:
    rows = ablated(name).query("place == @place and draw == -1")
    return estimates.rate(rows.em, rows.question_id, **run.resampling)


def change(name: str, place: str) -> Estimate:
    """Relative change of the EM rate in percent, on the same questions and noise."""
    pairs = ablated(name).query("draw == -1").pivot(index=["question_id", "sample"], columns="place", values="em")
    clusters = pairs.index.get_level_values("question_id")
    return estimates.change(pairs["none"], pairs[place], clusters, relative=True, **run.resampling)


# %%
PLACES = {
    "none": "no ablation",
    "all layers": "direction removed, all layers",
    "one layer": "direction removed, one layer only",
    "adapter layers": "each layer's direction removed, adapter layers only",
    "B vectors": "direction removed from B",
}
LAYER = b_vectors.layer_of(run.profile)


def start(organism: Organism) -> Estimate:
    return scores.em_rate(responses(run.profile, organism), **run.resampling)


def testable() -> bool:
    return start(b_vectors.SINGLE).above(start(CHAT_MODEL))


def random_rates(name: str, place: str) -> pd.Series:
    return 100 * ablated(name).query("place == @place and draw >= 0").groupby("draw").em.mean()


def ablation_row(name: str, place: str) -> dict[str, object]:
    row = {"organism": name, "intervention": PLACES[place], "EM": rate(name, place)}
    own = ablated(name).query("place == @place and draw == -1")
    row |= {"on topic": scores.em_on_topic_rate(own, **run.resampling)}
    drawn = f"{typography.extremes(random_rates(name, place), '.0f')} %"
    return row | ({"change": change(name, place), "EM, random directions": drawn} if place != "none" else {})


run.own.table(
    lambda: pd.DataFrame(ablation_row(name, place) for name in ORGANISMS for place in ablated(name).place.unique())
)

# %% [markdown]
# The single-adapter organism's EM rate is {value}`grown.b-vectors.single.em|interval`, that of the chat model
# {value}`grown.b-vectors.chat.em|interval`. {value}`grown.b-vectors.testable` Of the nine-adapter organism's changes,
# {value}`grown.b-vectors.clear-changes` have an interval that leaves out zero; its EM rate lies below that of every
# random direction for: {value}`grown.b-vectors.below-random`.
#
# A and B can both be negated without any effect, so the sign of the cosine of B and the mean-diff means nothing. The
# single adapter's is {value}`grown.b-vectors.single.cosine`; the nine have {value}`grown.b-vectors.nine.cosines`, with
# the mean-diff within questions {value}`grown.b-vectors.nine.cosines-within`. Here 95 % of unrelated directions have
# one below {value}`grown.b-vectors.chance`.
#
# ### Downstream
#
# The cosine compares two effects on the same texts, misaligned and aligned answers of the nine-adapter organism:
# $\bar h_\ell(\text{chat} + \alpha v) - \bar h_\ell(\text{chat})$ and
# $\bar h_\ell(\text{organism}) - \bar h_\ell(\text{chat})$. A **random** direction of the same length shows what any
# perturbation of this layer has in common with the organism; the **B vector**, added as a constant, how alike the
# effects would be if the direction were what the adapter writes.


# %%
downstream = remembered(lambda: b_vectors.downstream(run.profile))


def cosines(organism: str, added: str = "mean-diff", texts: str = "all") -> pd.Series:
    found = downstream().query("organism == @organism and added == @added and texts == @texts")
    return found.groupby("layer").cosine.agg(lambda draws: draws.abs().max() if added == "random" else draws.iloc[0])


LINES = {
    "mean-diff added, misaligned texts": ("mean-diff", "misaligned"),
    "mean-diff added, aligned texts": ("mean-diff", "aligned"),
    "within questions, all texts": ("mean-diff within questions", "all"),
    "B vector added": ("B vector", "all"),
}
COLOURS = dict(
    zip(
        [*LINES, "random direction added"],
        (theme.PALETTE[3], theme.PALETTE[0], theme.PALETTE[2], "0.1", "0.6"),
        strict=True,
    )
)


def draw_downstream():
    lines = [(organism, label, *given) for organism in ORGANISMS for label, given in LINES.items()]
    parts = [cosines(one, *given).reset_index().assign(organism=one, line=label) for one, label, *given in lines]
    for organism in ORGANISMS:
        noise = cosines(organism, "random").rename("high").reset_index()
        parts.append(noise.assign(organism=organism, line="random direction added", cosine=0.0, low=-noise.high))
    titles = {name: f"against the\n{name} organism" for name in ORGANISMS}
    look = {"hue": "line", "low": "low", "high": "high", "colours": COLOURS, "y_lines": {"reported maximum": 0.42}}
    labels = {"x_label": "decoder layer", "y_label": "cosine of the two effects"}
    return plots.facets(plots.lines, pd.concat(parts), "organism", "layer", "cosine", titles=titles, **look, **labels)


run.own.figure(
    "fig-d1",
    draw_downstream,
    title=lambda _: "Effects of mean-diff and single adapter: cosine up to {:.2f}; random, {:.2f}".format(
        cosines("single-adapter").iloc[1:].max(), cosines("single-adapter", "random").max()
    ),
    caption="Cosine of the effects of an organism and of a direction added to the chat model at the single adapter's "
    f"layer, with {b_vectors.STRENGTH} of the residual's length. Band: the largest of {b_vectors.DRAWS} random ones.",
    alt="Two line plots over layers, one per organism, with three lines, a band, and the reported maximum.",
)


def chance(width: int) -> float:
    """The cosine, without its sign, that 95 % of pairs of unrelated directions stay below."""
    return float(np.sqrt(stats.beta.ppf(0.95, 0.5, (width - 1) / 2)))


@remembered
def b_cosines(name: str, direction: str = "") -> pd.Series:
    model, _ = growing.load_organism(run.profile, ORGANISMS[name])
    vectors = steering.directions_of(run.profile)
    return b_vectors.cosines(model, vectors.get(direction, next(iter(vectors.values())))).abs()


def downstream_values() -> dict[str, object]:
    found, nine, noise = cosines("single-adapter"), cosines("nine-adapter"), cosines("single-adapter", "random")
    above, written = found.iloc[1:], found.iloc[0]
    closer = "comes clearly closer" if above.max() - written > 0.1 else "does not come clearly closer"
    named = {"start": written, "single.highest": f"{above.max():.2f} in layer {above.idxmax()}", "closer": closer}
    named |= {"nine.highest": f"{nine.iloc[1:].max():.2f}", "random.highest": noise.max()}
    named |= {"more": "more" if above.max() > noise.max() else "no more"}
    return {f"grown.downstream.{name}": one for name, one in named.items()}


def ablation_values() -> dict[str, object]:
    nine = ablated("nine-adapter").place.unique()[1:]
    clear = [change("nine-adapter", place).interval for place in nine]
    below = [PLACES[one] for one in nine if rate("nine-adapter", one).value < random_rates("nine-adapter", one).min()]
    yes = "Its interval lies above the chat model's: there is misalignment to remove."
    no = "Its interval does not lie above the chat model's, so no ablation could be seen to remove anything; the "
    no += "claims on its ablations are left unmeasured."
    named = {
        "layer": LAYER,
        "single.em": start(b_vectors.SINGLE),
        "chat.em": start(CHAT_MODEL),
        "testable": yes if testable() else no,
        "clear-changes": f"{sum(one is not None and one[0] * one[1] > 0 for one in clear)} of {len(nine)}",
        "below-random": "; ".join(below) or "none",
        "single.cosine": b_cosines("single-adapter").iloc[0],
        "nine.cosines": typography.extremes(b_cosines("nine-adapter")),
        "nine.cosines-within": typography.extremes(b_cosines("nine-adapter", steering.WITHIN)),
        "chance": chance(steering.leading(run.profile)[1].shape[1]),
    }
    return {f"grown.b-vectors.{name}": one for name, one in named.items()}


def measured() -> dict[str, tuple[Estimate, str]]:
    need(run.profile, b_vectors.SINGLE)
    kind = "Organism" if run.own.name == "hub" else "Grown organism"
    how = f"{kind} with one rank-1 adapter at layer {LAYER} of {run.profile.model.layers}"
    found = {"d-em-rate-single-adapter": (start(b_vectors.SINGLE), how)}
    v = "v" if steering.leading(run.profile)[0] == steering.MEAN_DIFF else "released answers' v"
    claims = {"all-layers": "all layers", "layer-24": "one layer", "b-vector": "B vectors"} if testable() else {}
    rates = {name: (rate("single-adapter", place), f"{how}, {v} of that layer") for name, place in claims.items()}
    return found | {f"d-em-rate-ablation-{name}": one for name, one in rates.items()}


run.reported.values(lambda: {"b-vectors.chance.width-5120": chance(5120)})
run.own.values(lambda: downstream_values() | ablation_values())
run.own.measure(measured)

# %% [markdown]
# Where it is added, the mean-diff has a cosine of {value}`grown.downstream.start` with what the single adapter writes.
# In the layers above, the cosine of the two effects is {value}`grown.downstream.single.highest` at most; random
# directions reach {value}`grown.downstream.random.highest`, without the sign. With the nine-adapter organism in its
# place, the highest is {value}`grown.downstream.nine.highest`.
#
# ## What it means
#
# For a language model whose nine-adapter organism gives no misaligned answers, the direction and the texts are those of
# *released* answers ({doc}`s3-1-misalignment-directions`). Profiles without rank-1 adapters have nothing to show here.
#
# The paper's reading is that the B vector does not *contain* the direction but *leads* to it: later layers turn what it
# writes into the direction, which is why removing the direction downstream works and removing it from B does not. The
# numbers fit that reading. They also fit a weaker one, in which removing the direction stops misaligned text whatever
# produced it ({doc}`Section 3.4 <s3-4-ablation>`). Two controls tell them apart: a random direction in the place of the
# mean-diff, and B added as a constant. In the grown layers above the single adapter, the effect of the mean-diff is
# {value}`grown.downstream.more` like the adapter's than that of the closest random direction, and
# {value}`grown.downstream.closer` to it on the way up. The main text's claims: {doc}`Section 3.5 <s3-5-convergence>`.

# %%
run.finish()
