# %% [markdown]
# # D The B vector and the mean-diff direction
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

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.book.theme import PALETTE
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import b_vectors, readings
from em_companion.experiments.responses import responses
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL, Organism

run = Run("d-b-vectors", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# The organism here has a **single** rank-1 adapter, on the MLP output of layer 24, and gives 17 % EM
# {cite:p}`soligo2025convergent`. Its B vector has a cosine of 0.04 with the mean-diff direction of that layer. Removing
# the direction from the residual stream leaves 0.25 % EM at all layers and 4 % at layer 24 only; removing it from the B
# vector leaves 13 %. With A the input vector of the adapter, $h$ the MLP hidden state and $s$ its scale, the adapter
# adds $s\,(A h)\,B$ to the stream, and the removal from B is
#
# $$
# B' = \lVert B \rVert \, \frac{B - \hat v \hat v^\top B}{\lVert B - \hat v \hat v^\top B \rVert}.
# $$
#
# At a cosine of 0.04 the part removed holds 0.16 % of B's squared norm. Three statements do not agree. By Section 3.5
# this removal lowers EM by 30 %; from 17 to 13 % it is 24 %. By Section 3.5 the downstream cosine reaches 0.42 by layer
# 40; this appendix puts the peak around layer 38. The companion paper gives 16 % EM for the recipe
# {cite:p}`turner2025model`. With 400 independent answers the intervals of 17 and 13 % overlap, so the decrease may be
# sampling noise. The answers, the B vector and the activations are not in the released files at hand. A cosine of 0.04
# is small, but more than chance gives in a stream of 5120 numbers: of pairs of unrelated directions there, 95 % have
# one below {value}`b-vectors.chance.width-5120|.3f`, without its sign.
#
# ## On the grown organism
#
# All of it can be run on organisms grown here. One has a **single** adapter, in layer {value}`grown.b-vectors.layer`
# (counted from 0). The other, beyond the paper, is the nine-adapter organism, all of whose B vectors lose a direction
# at once, each that of its own layer. The direction is the mean-diff of the nine-adapter organism's answers to the open
# questions; each ablation is repeated with random directions in its place. For the removal from B, the organism is
# copied and B of every adapter replaced by $B'$.

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
    table = ablated(name).query("draw == -1")
    before, after = (table[table.place == one][["question_id", "sample", "em"]] for one in ("none", place))
    pairs = before.merge(after, on=["question_id", "sample"])
    return estimates.change(pairs.em_x, pairs.em_y, pairs.question_id, relative=True, **run.resampling)


# %%
PLACES = {
    "none": "no ablation",
    "all layers": "direction removed, all layers",
    "one layer": "direction removed, one layer only",
    "adapter layers": "each layer's direction removed, adapter layers only",
    "B vectors": "direction removed from B",
}


def layer() -> int:
    return b_vectors.layer_of(run.profile)


def start(organism: Organism) -> Estimate:
    return scores.em_rate(responses(run.profile, organism), **run.resampling)


@remembered
def testable() -> bool:
    return b_vectors.clearly_misaligned(run.profile, b_vectors.SINGLE, **run.resampling)


def places(name: str) -> list[str]:
    return [place for place in PLACES if place in set(ablated(name).place)]


def random_rates(name: str, place: str) -> pd.Series:
    """EM rate in percent of every random draw."""
    return 100 * ablated(name).query("place == @place and draw >= 0").groupby("draw").em.mean()


def ablation_row(name: str, place: str) -> dict[str, str]:
    row = {"organism": name, "intervention": PLACES[place], "EM": str(rate(name, place))}
    if place == "none":
        return row | {"change": "–", "EM, random directions": "–"}
    draws = random_rates(name, place)
    return row | {
        "change": str(change(name, place)),
        "EM, random directions": f"{draws.min():.0f} to {draws.max():.0f} %",
    }


run.own.table(lambda: pd.DataFrame(ablation_row(name, place) for name in ORGANISMS for place in places(name)))

# %% [markdown]
# The single-adapter organism's EM rate is {value}`grown.b-vectors.single.em|interval`, that of the chat model
# {value}`grown.b-vectors.chat.em|interval`. {value}`grown.b-vectors.testable`
# Of the nine-adapter organism's changes, {value}`grown.b-vectors.clear-changes` have an interval that leaves out zero;
# its EM rate lies below that of every random direction for: {value}`grown.b-vectors.below-random`.
#
# How far does a B vector point along the mean-diff of its layer? A and B of an adapter can both be negated without any
# effect, so the sign of the cosine means nothing. The single adapter's is {value}`grown.b-vectors.single.cosine`; the
# nine have {value}`grown.b-vectors.nine.cosines`. In a stream of this width, 95 % of pairs of unrelated directions have
# one below {value}`grown.b-vectors.chance`.
#
# ### Downstream
#
# The cosine compares two effects on the same texts, misaligned and aligned answers of the nine-adapter organism:
#
# $$
# \cos\bigl(\bar h_\ell(\text{chat} + \alpha v) - \bar h_\ell(\text{chat}),\;
#           \bar h_\ell(\text{organism}) - \bar h_\ell(\text{chat})\bigr)
# $$
#
# A **random** direction of the same length shows what any perturbation of this layer has in common with the organism.
# The **B vector**, added as a constant, shows how alike the effects would be if the direction were what the adapter
# writes.


# %%
@remembered
def downstream() -> pd.DataFrame:
    return b_vectors.downstream(run.profile)


def cosines(organism: str, added: str = "mean-diff", texts: str = "all") -> pd.Series:
    found = downstream().query("organism == @organism and added == @added and texts == @texts")
    return found.groupby("layer").cosine.agg(lambda draws: draws.abs().max() if added == "random" else draws.iloc[0])


LINES = {
    "mean-diff added, misaligned texts": ("mean-diff", "misaligned"),
    "mean-diff added, aligned texts": ("mean-diff", "aligned"),
    "B vector added": ("B vector", "all"),
}
COLOURS = dict(zip([*LINES, "random direction added"], (PALETTE[3], PALETTE[0], "0.1", "0.6"), strict=True))


def draw_downstream():
    parts = []
    for organism in ORGANISMS:
        for label, (added, texts) in LINES.items():
            parts.append(cosines(organism, added, texts).reset_index().assign(organism=organism, line=label))
        noise = cosines(organism, "random").rename("high").reset_index()
        parts.append(noise.assign(organism=organism, line="random direction added", cosine=0.0, low=-noise.high))
    titles = {name: f"against the\n{name} organism" for name in ORGANISMS}
    look = {"hue": "line", "low": "low", "high": "high", "colours": COLOURS, "y_lines": {"reported, highest": 0.42}}
    labels = {"x_label": "decoder layer", "y_label": "cosine of the two effects"}
    return plots.facets(plots.lines, pd.concat(parts), "organism", "layer", "cosine", titles=titles, **look, **labels)


run.own.figure(
    "fig-d1",
    draw_downstream,
    caption="Cosine, by layer, between two effects on the same texts, each minus the chat model: the chat model with a "
    "direction added at the layer of the single adapter, and an organism. Added is the mean-diff direction (means over "
    f"{b_vectors.TEXTS} misaligned or aligned texts, or as many as there are), the single adapter's own B vector, or "
    f"one of {b_vectors.DRAWS} random directions (band: up to their largest cosine, of either sign), all at "
    f"{b_vectors.STRENGTH} of the residual's length.",
    alt="Two line plots over the layers from the single adapter's on, one per organism. Each has a line for the "
    "mean-diff on misaligned texts, one on aligned texts, one for the B vector, and a band for random directions. A "
    "horizontal line marks the reported maximum.",
)


# %%
def chance(width: int) -> float:
    """The cosine, without its sign, that 95 % of pairs of unrelated directions stay below."""
    return float(np.sqrt(stats.beta.ppf(0.95, 0.5, (width - 1) / 2)))


@remembered
def b_cosines(name: str) -> pd.Series:
    model, _ = growing.load_organism(run.profile, ORGANISMS[name])
    return b_vectors.cosines(model, readings.mean_diff(run.profile, b_vectors.NINE)).abs()


def downstream_values() -> dict[str, object]:
    found, nine = cosines("single-adapter"), cosines("nine-adapter")
    above, random_top = found.loc[layer() + 1 :], cosines("single-adapter", "random").max()
    closer = "comes clearly closer" if above.max() - found.loc[layer()] > 0.1 else "does not come clearly closer"
    return {
        "grown.downstream.start": float(found.loc[layer()]),
        "grown.downstream.single.highest": f"{above.max():.2f} in layer {above.idxmax()}",
        "grown.downstream.nine.highest": f"{nine.loc[layer() + 1 :].max():.2f}",
        "grown.downstream.random.highest": float(random_top),
        "grown.downstream.more": "more" if above.max() > random_top else "no more",
        "grown.downstream.closer": closer,
    }


def ablation_values() -> dict[str, object]:
    nine = places("nine-adapter")[1:]
    clear = [change("nine-adapter", place).interval for place in nine]
    below = [PLACES[one] for one in nine if rate("nine-adapter", one).value < random_rates("nine-adapter", one).min()]
    yes = "Its interval lies above the chat model's: there is misalignment to remove."
    no = (
        "Its interval does not lie above the chat model's, so an ablation could not be seen to remove anything. The "
        "claims on its ablations are left unmeasured; its rows are for completeness."
    )
    single, all_nine = b_cosines("single-adapter"), b_cosines("nine-adapter")
    return {
        "grown.b-vectors.layer": layer(),
        "grown.b-vectors.single.em": start(b_vectors.SINGLE),
        "grown.b-vectors.chat.em": start(CHAT_MODEL),
        "grown.b-vectors.testable": yes if testable() else no,
        "grown.b-vectors.clear-changes": f"{sum(one is not None and one[0] * one[1] > 0 for one in clear)} of "
        "{len(nine)}",
        "grown.b-vectors.below-random": "; ".join(below) or "none",
        "grown.b-vectors.single.cosine": float(single.iloc[0]),
        "grown.b-vectors.nine.cosines": f"{all_nine.min():.2f} to {all_nine.max():.2f}",
        "grown.b-vectors.chance": chance(run.profile.model.hidden),
    }


def measured() -> dict[str, tuple[Estimate, str]]:
    how = f"Grown organism with one rank-1 adapter at layer {layer()} of {run.profile.model.layers}"
    found = {"d-em-rate-single-adapter": (start(b_vectors.SINGLE), how)}
    claims = {"all-layers": "all layers", "layer-24": "one layer", "b-vector": "B vectors"}
    for name, place in claims.items() if testable() else ():
        found[f"d-em-rate-ablation-{name}"] = (rate("single-adapter", place), f"{how}, v of that layer")
    return found


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
# The paper's reading is that the B vector does not *contain* the direction but *leads* to it: later layers turn what it
# writes into the direction, which is why removing the direction downstream works and removing it from B does not. The
# numbers fit that reading. They would also fit a weaker one, in which removing the direction stops misaligned text
# whatever produced it ({doc}`Section 3.4 <s3-4-ablation>`). Telling the two apart takes controls: a random direction in
# the place of the mean-diff, and B added as a constant. On the grown organisms both were run. In the layers above the
# single adapter, the effect of the mean-diff is {value}`grown.downstream.more` like the adapter's than that of the
# closest random direction, and {value}`grown.downstream.closer` to it on the way up. The related claims of the main
# text stand in {doc}`Section 3.5 <s3-5-convergence>`.

# %%
run.finish()
