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
# # D The B vector and the mean-diff direction
#
# A rank-1 adapter writes one fixed vector, its B vector, into the residual stream, scaled by a number per token. If
# the organism is misaligned through the mean-diff direction, why does the B vector hardly point along it?
#
# ## What the paper did
#
# The organism here has a **single** rank-1 adapter, on the MLP output of layer 24, and gives 17 % EM
# {cite:p}`soligo2025convergent`. Its B vector has a cosine of 0.04 with the mean-diff direction of that layer. Three
# ablations follow: the direction is removed from the residual stream at all layers, at layer 24 only, or from the B
# vector itself. Then the downstream effects are compared: the chat model with the direction added at layer 24,
# against the organism, each minus the plain chat model on the same texts.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy import stats

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.evidence import claims, estimates, scores
from em_companion.experiments import b_vectors, responses
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL, Organism

run = Run("d-b-vectors", profile, seed)

# %% [markdown]
# ## The method
#
# With A the input vector of the adapter, $h$ the MLP hidden state and $s$ its scale, the adapter adds $s\,(A h)\,B$
# to the residual stream. Projecting the direction out of B gives
#
# $$
# B' = \lVert B \rVert \, \frac{B - \hat v \hat v^\top B}{\lVert B - \hat v \hat v^\top B \rVert},
# $$
#
# where the authors' code restores the old norm. At a cosine of 0.04 the part removed holds $0.04^2 = 0.16\,\%$ of B's
# squared norm: the new vector has a cosine of $\sqrt{1 - 0.04^2} > 0.999$ with the old one.


# %% tags=["show-code"]
def without_direction(b_vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return B without its part along a direction, at its old norm."""
    unit = direction / np.linalg.norm(direction)
    rest = b_vector - unit * (unit @ b_vector)
    return rest * np.linalg.norm(b_vector) / np.linalg.norm(rest)


# %% [markdown]
# ## The reported numbers

# %%
REPORTED = {
    "no ablation": 17.0,
    "direction removed, all layers": 0.25,
    "direction removed, layer 24 only": 4.0,
    "direction removed from B": 13.0,
}


def reported() -> pd.DataFrame:
    rows = []
    for name, percent in REPORTED.items():
        low, high = claims.wilson_interval(percent, 400)
        change = 100 * (percent / REPORTED["no ablation"] - 1) if name != "no ablation" else float("nan")
        rows.append(
            {
                "intervention": name,
                "EM, reported (%)": percent,
                "change (%)": change,
                "interval if 400 answers (%)": f"{low:.1f} to {high:.1f}",
            }
        )
    return pd.DataFrame(rows)


run.table(reported, formats={"EM, reported (%)": "{:g}", "change (%)": "{:.0f}"})

# %% [markdown]
# All values are **reported**; the interval is the Wilson 95 % interval that such a rate would have with 400
# independent answers. The answers, the B vector and the downstream activations are not in the released files at hand.
#
# Three statements do not agree:
#
# - By Section 3.5, projecting the direction out of B lowers EM by 30 %; by these numbers, from 17 to 13 %, by 24 %.
# - By Section 3.5, the downstream cosine reaches 0.42 by layer 40; this appendix puts the peak around layer 38, and
#   adds that the similarity is higher on misaligned texts.
# - The companion paper gives 16 % EM for the same recipe {cite:p}`turner2025model`, which is within sampling error.
#
# The intervals of 17 and 13 % overlap, and the projection hardly changes B. So the decrease may be sampling noise; the
# appendix prints no interval.
#
# A cosine of 0.04 is small, but more than chance gives in a stream of 5120 numbers: of pairs of unrelated directions
# there, 95 % have a cosine below {glue:text}`chance-5120`, without its sign.

# %% [markdown]
# ## On the grown organism
#
# All three ablations and the downstream test can be run on organisms grown here ({doc}`s2-model-organism`). One has a
# **single** adapter, in layer {glue:text}`layer` (of {glue:text}`layers`, counted from 0). The other, beyond the paper,
# is the nine-adapter organism, all of whose B vectors lose a direction at once, each that of its own layer. The
# direction is the mean-diff of the nine-adapter organism's answers to the eight open questions; each ablation is
# repeated with random directions in its place.
#
# ### How misaligned is the single-adapter organism?

# %%
NINE, SINGLE = b_vectors.NINE, b_vectors.SINGLE
ORGANISMS = {"single-adapter": SINGLE, "nine-adapter": NINE}
SAMPLES = {"single-adapter": 2 * run.profile.sweep_samples, "nine-adapter": run.profile.sweep_samples}
DRAWS = {"single-adapter": 2, "nine-adapter": 4}
PLACES = {
    "none": "no ablation",
    "all layers": "direction removed, all layers",
    "one layer": "direction removed, one layer only",
    "adapter layers": "each layer's direction removed, adapter layers only",
    "B vectors": "direction removed from B",
}
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}


def layer() -> int:
    return b_vectors.layer_of(run.profile)


@cache
def start(organism: Organism) -> estimates.Rate:
    """EM rate over all answers to the open questions."""
    return scores.em_rate(responses.responses(run.profile, organism), **resampling)


@cache
def testable() -> bool:
    return b_vectors.clearly_misaligned(run.profile, SINGLE, **resampling)


def text(found, sign: str = "", digits: int = 0) -> str:
    """A value in percent with its interval, where that prints as more than the value."""
    value = found.percent if isinstance(found, estimates.Rate) else found.value
    pattern = f"{sign}.{digits}f"
    interval = typography.extremes([found.low, found.high], pattern)
    return f"{value:{pattern}} %" + (f" ({interval})" if " to " in interval else "")


def testable_sentence() -> str:
    if testable():
        return "The single-adapter organism's interval lies above the chat model's: there is misalignment to remove."
    return (
        "The single-adapter organism's interval does not lie above the chat model's, so an ablation could not be seen "
        "to remove anything. The claims on its ablations are left unmeasured; its rows below are for completeness."
    )


def chance(width: int) -> float:
    """The cosine, without its sign, that 95 % of pairs of unrelated directions stay below."""
    return float(np.sqrt(stats.beta.ppf(0.95, 0.5, (width - 1) / 2)))


run.glue("chance-5120", lambda: f"{chance(5120):.3f}")
run.grown_glue("layer", lambda: str(layer()))
run.grown_glue("layers", lambda: str(run.profile.model.layers))
run.grown_glue("single-em", lambda: text(start(SINGLE), digits=1))
run.grown_glue("chat-em", lambda: text(start(CHAT_MODEL), digits=1))
run.grown_glue("nine-em", lambda: text(start(NINE), digits=1))
run.grown_glue("testable", testable_sentence)

# %% [markdown]
# Its EM rate is {glue:text}`single-em`, that of the chat model {glue:text}`chat-em` and that of the nine-adapter
# organism {glue:text}`nine-em` (95 % intervals over questions). {glue:text}`testable`
#
# ### What the adapters write
#
# How far does a B vector point along the mean-diff of its layer? A and B of an adapter can both be negated without any
# effect, so the sign of their cosine means nothing by itself.


# %% tags=["show-code"]
@cache
def geometry(name: str) -> pd.DataFrame:
    """Norm of scale * B and cosine of B with the mean-diff of its layer, per adapter."""
    model, _ = growing.load_organism(run.profile, ORGANISMS[name])
    return b_vectors.geometry(model, b_vectors.direction(run.profile)).assign(organism=name)


# %%
def geometry_table() -> pd.DataFrame:
    table = pd.concat([geometry(name) for name in ORGANISMS], ignore_index=True)
    return pd.DataFrame(
        {
            "organism": table.organism,
            "layer": table.layer.astype(str),
            "norm of s B": table.norm,
            "|cosine| of B and mean-diff": table.cosine.abs(),
            "chance, 95 %": chance(run.profile.model.hidden),
        }
    )


if run.grown:
    run.table(geometry_table, number="{:.2f}")


def single_cosine() -> float:
    return abs(geometry("single-adapter").cosine.iloc[0])


run.grown_glue("chance", lambda: f"{chance(run.profile.model.hidden):.2f}")
run.grown_glue("single-cosine", lambda: f"{single_cosine():.2f}")
run.grown_glue("single-removed", lambda: f"{100 * single_cosine() ** 2:.1f} %")
run.grown_glue("nine-cosines", lambda: typography.extremes(geometry("nine-adapter").cosine.abs()))
run.grown_glue(
    "nine-above", lambda: f"{(geometry('nine-adapter').cosine.abs() > chance(run.profile.model.hidden)).sum()}"
)

# %% [markdown]
# The single adapter's B vector has a cosine of {glue:text}`single-cosine` with the mean-diff of its layer; projecting
# that out removes {glue:text}`single-removed` of its squared norm. The nine B vectors have cosines of
# {glue:text}`nine-cosines`. In a stream of this width, 95 % of pairs of unrelated directions have one below
# {glue:text}`chance`; B vectors of the nine that are above it: {glue:text}`nine-above`.
#
# ### Removing the direction from the stream and from B
#
# For the removal from B, the organism is copied and B of every adapter replaced by $B'$.


# %% tags=["show-code"]
@cache
def ablated(name: str) -> pd.DataFrame:
    """Answers with the mean-diff (draw -1) or a random direction removed at every place; see `b_vectors.ablated`."""
    table = b_vectors.ablated(run.profile, ORGANISMS[name], SAMPLES[name], DRAWS[name])
    return table.assign(em=scores.is_em(table), coherent_too=scores.is_coherent(table))


@cache
def rate(name: str, place: str, column: str = "em") -> estimates.Rate:
    rows = ablated(name).query("place == @place and draw == -1")
    return estimates.rate(rows[column], rows.question_id, **resampling)


@cache
def change(name: str, place: str) -> estimates.Estimate:
    """Relative change of the EM rate in percent, on the same questions and noise."""
    table = ablated(name).query("draw == -1")
    before, after = (table[table.place == one][["question_id", "sample", "em"]] for one in ("none", place))
    pairs = before.merge(after, on=["question_id", "sample"])
    return estimates.change(pairs.em_x, pairs.em_y, pairs.question_id, relative=True, **resampling)


# %%
def random_rates(name: str, place: str) -> pd.Series:
    """EM rate in percent of every random draw."""
    return 100 * ablated(name).query("place == @place and draw >= 0").groupby("draw").em.mean()


def places(name: str) -> list[str]:
    found = set(ablated(name).place)
    return [place for place in PLACES if place in found]


def ablation_table() -> pd.DataFrame:
    rows = []
    for name in ORGANISMS:
        for place in places(name):
            plain = place == "none"
            draws = random_rates(name, place)
            rows.append(
                {
                    "organism": name,
                    "intervention": PLACES[place],
                    "EM": text(rate(name, place)),
                    "change": "–" if plain else text(change(name, place), "+"),
                    "coherent": text(rate(name, place, "coherent_too")),
                    "EM, random directions": "–" if plain else f"{typography.extremes(draws, '.0f')} %",
                }
            )
    return pd.DataFrame(rows)


if run.grown:
    run.table(ablation_table)


def against_random(name: str, place: str) -> str:
    """Where the EM rate lies among those of random directions."""
    draws, found = random_rates(name, place), rate(name, place).percent
    return "below all" if found < draws.min() else "above all" if found > draws.max() else "in the range"


def nine_sentence() -> str:
    """The ablations of the nine-adapter organism, by where they lie among random directions."""
    named: dict[str, list[str]] = {}
    for place in places("nine-adapter")[1:]:
        named.setdefault(against_random("nine-adapter", place), []).append(PLACES[place])
    if len(named) == 1:
        return f"{next(iter(named))} for every intervention"
    return "; ".join(f"{where} for " + ", ".join(f'"{one}"' for one in found) for where, found in named.items())


def clear_changes() -> str:
    """How many of the nine-adapter organism's changes have an interval that leaves out zero."""
    found = [change("nine-adapter", place) for place in places("nine-adapter")[1:]]
    return f"{sum(one.low > 0 or one.high < 0 for one in found)} of {len(found)}"


run.grown_glue("nine-start", lambda: text(rate("nine-adapter", "none")))
run.grown_glue("nine-sentence", nine_sentence)
run.grown_glue("clear-changes", clear_changes)
run.grown_glue("answers", lambda: "{} (single adapter) and {} (nine)".format(*SAMPLES.values()))
run.grown_glue("random-draws", lambda: "{} and {}".format(*DRAWS.values()))

# %% [markdown]
# EM rate and its relative change with 95 % intervals over questions, from {glue:text}`answers` answers to each of the
# eight questions, part of those that the rates above count. The last column is the range over {glue:text}`random-draws`
# random directions removed at the same place. "All layers" and "one layer" are about the direction of layer
# {glue:text}`layer`, the other two about that of each adapter's own layer.
#
# The nine-adapter organism starts at {glue:text}`nine-start` in this sample. Its EM rate with the direction removed,
# among those with random directions removed at the same place, is {glue:text}`nine-sentence`. Changes whose interval
# leaves out zero: {glue:text}`clear-changes`. The layer is the single adapter's, as in the paper;
# {doc}`Section 3.4 <s3-4-ablation>` asks which layer's direction does most when it is removed everywhere.
#
# ### Downstream
#
# $$
# \cos\bigl(\bar h_\ell(\text{chat} + \alpha v) - \bar h_\ell(\text{chat}),\;
#           \bar h_\ell(\text{organism}) - \bar h_\ell(\text{chat})\bigr)
# $$
#
# All means are over the same texts, misaligned and aligned answers of the nine-adapter organism. What is added has
# {glue:text}`strength` times the length of the mean residual stream at that layer, as in the authors' working code.
# Two controls say how much a cosine means. A **random** direction of that length shows what any perturbation of this
# layer has in common with the organism. The **B vector** itself, added at that length, shows how alike the effects
# would be if the direction were what the adapter writes.


# %%
@cache
def downstream() -> pd.DataFrame:
    return b_vectors.downstream(run.profile)


def line(organism: str, added: str, texts: str) -> pd.DataFrame:
    return downstream().query("organism == @organism and added == @added and texts == @texts")


def draw_downstream():
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 4.2), sharey=True)
    for axes, organism in zip(panels, ORGANISMS, strict=True):
        noise = line(organism, "random", "all").set_index("layer").cosine.abs().groupby("layer").max()
        axes.fill_between(noise.index, -noise, noise, color="0.88", linewidth=0, label="random direction added")
        for texts, colour, style in [("misaligned", theme.PALETTE[3], "-"), ("aligned", theme.PALETTE[0], "--")]:
            found = line(organism, "mean-diff", texts)
            axes.plot(found.layer, found.cosine, style, color=colour, label=f"mean-diff added, {texts} texts")
        found = line(organism, "B vector", "all")
        axes.plot(found.layer, found.cosine, ":", color="0.1", label="B vector added")
        axes.axhline(
            0.42, color=theme.REPORTED_COLOUR, linestyle=(0, (1, 4)), linewidth=1.2, label="reported, highest"
        )
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set_title(f"against the\n{organism} organism")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Decoder layer", ylim=(min(-0.3, downstream().cosine.min() - 0.05), 1.05))
    panels[0].set(ylabel="Cosine of the two effects")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, downstream()


run.grown_figure(
    "fig-d1",
    draw_downstream,
    caption="Cosine, by layer, between two effects on the same texts, each minus the chat model: the chat model with a "
    "direction added at the layer of the single adapter, and an organism. Left, it is the single-adapter organism; "
    "right, the nine-adapter one, whose adapters also act in lower layers. Added is the mean-diff direction (means "
    f"over {b_vectors.TEXTS} misaligned or aligned texts, or as many as there are), the single adapter's own B vector, "
    f"or one of {b_vectors.DRAWS} random directions (band: up to their largest cosine, of either sign), all at "
    f"{b_vectors.STRENGTH} of the residual's length. Dotted horizontally: the highest cosine that the paper reports.",
    alt="Two line plots over the layers from the single adapter's on, one per organism. Each has a line for the "
    "mean-diff on misaligned texts, one on aligned texts, a dotted one for the B vector, and a grey band for random "
    "directions. A faint horizontal line marks the reported maximum.",
    why="Cosine by layer between two downstream effects: the chat model steered with the mean-diff direction, and "
    "the organism with a single rank-1 adapter, each minus the chat model. It needs the adapter's B vector and "
    "activations of both models; neither is in the released data.",
)


# %%
def at(organism: str, texts: str = "all") -> pd.Series:
    """Cosine with the mean-diff's effect by layer."""
    return line(organism, "mean-diff", texts).set_index("layer").cosine


def highest(organism: str, texts: str = "all") -> str:
    above = at(organism, texts).loc[layer() + 1 :]
    return f"{above.max():.2f} in layer {above.idxmax()}"


def random_top(organism: str) -> float:
    return line(organism, "random", "all").cosine.abs().max()


def rise() -> float:
    """By how much the cosine grows above the layer of the single adapter, at most."""
    found = at("single-adapter")
    return found.loc[layer() + 1 :].max() - found.loc[layer()]


def mean_on(texts: str) -> str:
    return f"{at('single-adapter', texts).loc[layer() + 1 :].mean():.2f}"


run.grown_glue("strength", lambda: f"{b_vectors.STRENGTH}")
run.grown_glue("at-start", lambda: f"{at('single-adapter').loc[layer()]:.2f}")
run.grown_glue("highest-single", lambda: highest("single-adapter"))
run.grown_glue("highest-nine", lambda: highest("nine-adapter"))
run.grown_glue("growth", lambda: f"{rise():+.2f}")
run.grown_glue("texts", lambda: f"{mean_on('misaligned')} on misaligned and {mean_on('aligned')} on aligned texts")
run.grown_glue("random-single", lambda: f"{random_top('single-adapter'):.2f}")

# %% [markdown]
# Where it is added, the mean-diff has a cosine of {glue:text}`at-start` with what the single adapter writes, which is
# their cosine as vectors. In the layers above, the cosine of the two effects is {glue:text}`highest-single` at most, a
# change of {glue:text}`growth` ({numref}`fig-d1`); random directions reach {glue:text}`random-single` at most, without
# the sign. The mean cosine of the two effects over these layers is {glue:text}`texts`. With the nine-adapter organism
# in place of the single-adapter one, the highest cosine is {glue:text}`highest-nine`.
#
# ## Reported and measured


# %%
ABLATIONS = {
    "d-em-rate-ablation-all-layers": "all layers",
    "d-em-rate-ablation-layer-24": "one layer",
    "d-em-rate-ablation-b-vector": "B vectors",
}


def measurements():
    found = start(SINGLE)
    how = f"Grown organism with one rank-1 adapter at layer {layer()} of {run.profile.model.layers}"
    yield claims.Measurement("d-em-rate-single-adapter", found.percent, how, "grown", (found.low, found.high), found.n)
    for claim, place in ABLATIONS.items() if testable() else ():
        found = rate("single-adapter", place)
        yield claims.Measurement(
            claim, found.percent, f"{how}, v of that layer", "grown", (found.low, found.high), found.n
        )


if run.grown:
    run.measure(measurements)


# %%
def named(name: str, value: float, unit: str, low=np.nan, high=np.nan, n=None) -> dict:
    return {"name": name, "value": value, "unit": unit, "low": low, "high": high, "n": n}


def grown_values() -> pd.DataFrame:
    rows = []
    for name in ORGANISMS:
        place_of = f"grown.b-vectors.{name}"
        for one in geometry(name).itertuples():
            rows.append(named(f"{place_of}.layer-{one.layer}.absolute_cosine", abs(one.cosine), "cosine"))
            rows.append(named(f"{place_of}.layer-{one.layer}.norm", one.norm, "norm"))
        for place in places(name):
            under = f"{place_of}.{place.replace(' ', '-')}"
            for column, label in (("em", "em_percent"), ("coherent_too", "coherent_percent")):
                one = rate(name, place, column)
                rows.append(named(f"{under}.{label}", one.percent, "percent", one.low, one.high, one.n))
            if place != "none":
                one, draws = change(name, place), random_rates(name, place)
                rows.append(named(f"{under}.em_change_percent", one.value, "percent_change", one.low, one.high, one.n))
                rows.append(named(f"{under}.random_em_percent", draws.mean(), "percent", draws.min(), draws.max()))
        for texts in ("misaligned", "aligned", "all"):
            for number, cosine in at(name, texts).items():
                rows.append(named(f"grown.downstream.{name}.{texts}.layer-{number}.cosine", cosine, "cosine"))
    rows.append(named("grown.b-vectors.chance_absolute_cosine_95", chance(run.profile.model.hidden), "cosine"))
    return pd.DataFrame(rows)


if run.grown:
    run.values(grown_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# The paper's reading is that the B vector does not *contain* the direction but *leads* to it: later layers turn what
# it writes into the direction, which is why removing the direction downstream works and removing it from B does not.
# The numbers fit that reading. They would also fit a weaker one, in which removing the direction stops misaligned
# text whatever produced it ({doc}`Section 3.4 <s3-4-ablation>`). Telling the two apart takes controls: a random
# direction in the place of the mean-diff, and B added as a constant.
#
# On the grown organisms both were run. In the layers above the single adapter, the effect of the mean-diff is
# {glue:text}`meaning-downstream`. {glue:text}`meaning-removal` The related claims of the main text stand in
# {doc}`Section 3.5 <s3-5-convergence>`.


# %%
def meaning_downstream() -> str:
    more = "more" if at("single-adapter").loc[layer() + 1 :].max() > random_top("single-adapter") else "no more"
    closer = "comes clearly closer" if rise() > 0.1 else "does not come clearly closer"
    return f"{more} like the adapter's than that of the closest random direction, and {closer} to it on the way up"


def meaning_removal() -> str:
    if testable():
        found = {place: text(change("single-adapter", place), "+") for place in ("all layers", "B vectors")}
        stream, from_b = found["all layers"], found["B vectors"]
        return f"Removing the direction from its stream changes EM by {stream}, removing it from B by {from_b}."
    return (
        "Whether removing the direction downstream does more than removing it from B cannot be asked of an organism "
        "that is not clearly more misaligned than the chat model: it takes one that a single adapter misaligns, as it "
        "does the paper's."
    )


run.grown_glue("meaning-downstream", meaning_downstream)
run.grown_glue("meaning-removal", meaning_removal)

# %%
run.finish()
