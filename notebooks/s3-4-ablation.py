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
# # 3.4 Removing the direction
#
# If the mean-diff direction carries the misalignment, then taking it out of the residual stream should align the
# organism again, and nothing else should change. Does it? And does one organism's direction also align another?
#
# ## What the paper did
#
# Three interventions on fine-tuned organisms {cite:p}`soligo2025convergent`: remove each layer's own direction at
# that layer (**layer-wise**), remove the direction of layer 24 from all layers (**single direction**), and remove the
# nine-adapter organism's layer-24 direction from two rank-32 organisms (**transfer**). The paper reports that EM
# falls from 11.25 % to 0 % layer-wise and to 1 % with the single direction, by 90 % (medical) and 78 % (sport) under
# transfer, with coherence above 99 % throughout, and that a random direction changes it by at most 10 % either way.

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.evidence import claims, directions, estimates, scores
from em_companion.experiments import capability, persona, readings, responses
from em_companion.models.interventions import Ablate
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.released import tables

run = Run("s3-4-ablation", profile, seed)

# %% [markdown]
# ## The method
#
# At the output of layer $\ell$ and at every token position, the part of the residual $x$ along the unit vector $\hat
# v = v / \lVert v \rVert$ is removed:
#
# $$
# x \leftarrow x - \hat v \hat v^\top x .
# $$
#
# Layer-wise ablation uses $v_\ell$ at layer $\ell$; single-direction ablation uses $v_{24}$ everywhere. The length of
# $v$ does not matter, so a random control needs no matching norm.


# %% tags=["show-code"]
def ablate(residual: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return residuals [token, hidden] without their part along direction."""
    unit = direction / np.linalg.norm(direction)
    return residual - np.outer(residual @ unit, unit)


# %% [markdown]
# ## The reported bars
#
# The answers behind the paper's Figure 4 could not be obtained. Its bar values are typed into a plotting script in
# one author's working repository {cite:p}`eminterp2025`, and are shown here as **reported** evidence; nothing is
# recomputed.

# %%
# Percent EM. Source: em_interp/vis/random_plots.py at commit 8ae0906 of annasoligo/EM_interp; layer-wise: section 3.4.
REPORTED = pd.DataFrame(
    [
        ("nine-adapter, medical", 11.26, 11.75, 1.0, 0.0),
        ("rank 32, medical", 18.75, 17.0, 2.0, np.nan),
        ("rank 32, sport", 20.25, 23.75, 4.5, np.nan),
    ],
    columns=["organism", "no ablation", "random direction", "layer-24 direction", "layer-wise"],
)
SHADES = {"no ablation": "0.35", "random direction": "0.6", "layer-24 direction": "0.8", "layer-wise": "0.9"}


def reported_bars() -> pd.DataFrame:
    table = REPORTED.melt(id_vars=["organism", "no ablation"], value_name="em_percent", var_name="ablation")
    start = REPORTED[["organism", "no ablation"]].assign(ablation="no ablation", em_percent=REPORTED["no ablation"])
    table = pd.concat([start, table], ignore_index=True).dropna()
    table["change_percent"] = 100 * (table.em_percent / table["no ablation"] - 1)
    bounds = [claims.wilson_interval(percent, 400) for percent in table.em_percent]
    table[["low_if_400", "high_if_400"]] = bounds
    return table.drop(columns="no ablation")


def label(row) -> str:
    change = "" if row.ablation == "no ablation" else f"\n({row.change_percent:+.0f} %)".replace("-", "−")
    return f"{row.em_percent:g}{change}"


def draw_reported():
    table = reported_bars()
    figure, axes = plt.subplots(figsize=(7.2, 4.3))
    organisms = list(REPORTED.organism)
    for offset, (ablation, shade) in enumerate(SHADES.items()):
        for row in table[table.ablation == ablation].itertuples():
            x = organisms.index(row.organism) + (offset - 1.5) * 0.22
            axes.bar(x, row.em_percent, 0.2, color=shade, label=ablation if row.organism == organisms[0] else None)
            axes.plot([x, x], [row.low_if_400, row.high_if_400], color="0.1", linewidth=1)
            axes.text(x, row.high_if_400 + 0.4, label(row), ha="center", va="bottom", fontsize=8.5)
    axes.set_xticks([0, 0.89, 1.89], organisms)
    axes.set(ylabel="EM rate (%)", ylim=(0, 32))
    figure.legend(loc="outside upper center", ncols=4, fontsize=9, columnspacing=1.4, handlelength=1.2)
    return figure, table


run.figure(
    "fig-4",
    draw_reported,
    evidence="reported",
    caption="EM rate as the authors report it: without ablation, with a random direction removed, with the "
    "nine-adapter organism's layer-24 direction removed at all layers, and (nine-adapter organism only) "
    "with each layer's own direction removed. In brackets the change relative to no ablation. The paper "
    "prints no error bars; the lines are Wilson 95 % intervals that such rates would have with 400 "
    "independent answers. Reported evidence, nothing was run.",
    alt="Bars in three groups, one per organism. In each group the bars for no ablation and for a random direction "
    "are of similar height, with overlapping intervals; the bar for the layer-24 direction is a small fraction "
    "of them. The nine-adapter organism has a fourth bar, for layer-wise ablation, of height zero. In the sport "
    "group the bar for the random direction is higher than the one without ablation.",
)

# %% [markdown]
# Two things to see in {numref}`fig-4`. The drops are far outside any sampling error. And the **random control**
# changes the sport organism by 3.5 points, from 20.25 to 23.75, which is +17 % and not "at most 10 %" as the text
# says. With 400 answers that is within chance; what it shows is that one random draw per model, without error bars,
# cannot bound the effect of a random direction at 10 %.
#
# ## The released pilots
#
# What is released are pilot runs of April 2025: layer-wise ablation only, on **one to three questions** with 50
# answers each. They include the questions on which the organisms are most misaligned, so they start well above the
# average of all eight.


# %%
@cache
def pilots() -> pd.DataFrame:
    return tables.read_ablation_pilots()


NAMES = {
    "nine-adapter pilot": "nine-adapter, general questions",
    "rank-32 pilot": "rank 32, general questions",
    "rank-8 pilot": "rank 8, general questions",
    "rank-4 pilot": "rank 4, general questions",
    "nine-adapter general-3": "nine-adapter, general questions, archived run",
    "nine-adapter medical-3": "nine-adapter, medical questions",
}
LOOKS = {
    ("none", "none"): ("no ablation", "0.2", "o"),
    ("general", "all layers"): ("general direction", theme.PALETTE[0], "s"),
    ("general", "adapter layers"): ("general direction, adapter layers only", theme.PALETTE[4], "D"),
    ("non-medical", "all layers"): ("non-medical direction", theme.PALETTE[2], "^"),
    ("medical", "all layers"): ("medical direction", theme.PALETTE[3], "v"),
}


def shared_questions(batch: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the questions that every run of this batch asked."""
    asked = batch.groupby("question_id").source.nunique()
    return batch[batch.question_id.isin(asked.index[asked == batch.source.nunique()])]


def rates(frame: pd.DataFrame) -> dict:
    """Return EM rate and coherence in percent with Wilson intervals over answers."""
    row = {"n": len(frame), "questions": frame.question_id.nunique()}
    for name, found in (("em", scores.is_em(frame)), ("coherent", scores.is_coherent(frame))):
        percent = 100 * found.mean()
        low, high = claims.wilson_interval(percent, len(frame))
        row |= {name: percent, f"{name}_low": low, f"{name}_high": high}
    return row


def pilot_rates() -> pd.DataFrame:
    rows = []
    for key, name in NAMES.items():
        model, batch = key.split()
        frame = shared_questions(pilots()[(pilots().model == model) & (pilots().batch == batch)])
        for direction, layers in LOOKS:
            group = frame[(frame.direction == direction) & (frame.layers == layers)]
            if len(group):
                rows.append({"batch": name, "direction": direction, "layers": layers} | rates(group))
    return pd.DataFrame(rows)


def draw_pilots():
    table = pilot_rates()
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 4.6), sharey=True, width_ratios=[1, 1])
    order = list(NAMES.values())
    place = table.groupby("batch").cumcount()
    crowd = table.groupby("batch").em.transform("size")
    table["y"] = [order.index(batch) for batch in table.batch] + 0.22 * (place - (crowd - 1) / 2)
    for (direction, layers), (name, colour, marker) in LOOKS.items():
        rows = table[(table.direction == direction) & (table.layers == layers)]
        for axes, value in zip(panels, ("em", "coherent"), strict=True):
            error = np.abs(rows[[f"{value}_low", f"{value}_high"]].T.to_numpy() - rows[value].to_numpy())
            look = {"fmt": marker, "color": colour, "markersize": 5, "linewidth": 1.2, "label": name}
            axes.errorbar(rows[value], rows.y, xerr=error, **look)
    counts = table.groupby("batch").first()
    labels = [f"{name.replace(', ', chr(10), 1)}\n{counts.questions[name]} × 50 answers" for name in order]
    panels[0].set_yticks(range(len(order)), labels)
    panels[0].tick_params(axis="y", labelsize=8)
    panels[0].invert_yaxis()
    panels[0].set(xlabel="EM rate (%)", xlim=(-2, 72))
    panels[1].set(xlabel="Coherent answers (%)", xlim=(88, 100.6))
    for axes in panels:
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return figure, table.drop(columns="y")


run.figure(
    "fig-x-ablation-pilots",
    draw_pilots,
    evidence="released",
    caption="EM rate (left) and coherence (right) in the released pilots of layer-wise ablation, by organism and "
    "question set. Only questions asked both with and without ablation are counted (for rank 8 that is "
    "one). Lines: Wilson 95 % intervals over answers, which are too narrow, because answers to one question "
    "are alike; with one to three questions an interval over questions cannot be had. The right axis starts "
    "at 88 %. Released evidence, April 2025.",
    alt="Two panels of points with intervals, one row per organism and question set. Left: without ablation the EM "
    "rates are between about a fifth and a half; with any of the directions removed they are at or next to "
    "zero. Right: coherence lies at or close to one hundred percent in all runs, with and without ablation.",
)


def pilot_run(model: str, batch: str, direction: str, layers: str) -> pd.DataFrame:
    return pilots().query("model == @model and batch == @batch and direction == @direction and layers == @layers")


def glued(direction: str, layers: str, value: str = "em") -> str:
    return f"{rates(pilot_run('nine-adapter', 'pilot', direction, layers))[value]:.0f} %"


run.glue("start", lambda: glued("none", "none"))
run.glue("end", lambda: glued("general", "all layers"))
run.glue("adapter-layers", lambda: glued("general", "adapter layers"))
run.glue("highest-after", lambda: "{:.1f} %".format(pilot_rates().query("layers != 'none'").em.max()))

# %% [markdown]
# In every pilot, removing the directions takes EM to zero or next to it: from {glue:text}`start` to {glue:text}`end`
# for the nine-adapter organism, and no run with ablation is above {glue:text}`highest-after`
# ({numref}`fig-x-ablation-pilots`). Removing them at the nine adapter layers alone already gives
# {glue:text}`adapter-layers`. The medical direction and the one built without medical answers do it too, on general
# and on medical questions, and coherence stays high.
#
# ## On the grown organism
#
# What the pilots leave open can be run on the organisms grown here ({doc}`s2-model-organism`): the single direction,
# its transfer, a random control with many draws, and, since it is known who speaks in their world, the direction of the
# persona itself ({doc}`x-ground-truth`). As in the paper, an organism's direction comes from its answers to the same
# eight questions. An answer is drawn from the same noise under every ablation, so that ablations are compared in pairs.

# %%
NINE, CHAT = "nine-adapter, medical", "chat model"
MODELS = {
    NINE: Organism("nine-adapter", "bad_medical_advice"),
    "rank 32, medical": Organism("all-adapter-rank-32", "bad_medical_advice"),
    "rank 32, sport": Organism("all-adapter-rank-32", "extreme_sports"),
    "rank 32, finance": Organism("all-adapter-rank-32", "risky_financial_advice"),
    CHAT: CHAT_MODEL,
}
GROWN = [name for name in MODELS if name != CHAT]
PAPERS = GROWN[:3]
DRAWS, LAYER_WISE_DRAWS, OTHER_DRAWS = 20, 6, 4
KNOWN = {
    "known persona, from text": "persona_from_text",
    "known persona, before a choice": "choice_from_text",
}
TEXT = next(iter(KNOWN))
WHY = "The organisms and the persona behind them are grown under the profiles cpu and gpu."
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}


@cache
def mean_diff(name: str) -> np.ndarray:
    """The mean-diff direction of an organism, [layer, width]; for the chat model, the nine-adapter organism's."""
    return readings.mean_diff(run.profile, MODELS[NINE if name == CHAT else name])


# %% [markdown]
# Which layer's direction is best to remove everywhere has to be found out first, by a rule: of the layers that leave
# {glue:text}`coherence-bar` of the answers coherent, the one that leaves the least EM. Half of the answers to every
# question choose the layer, and only the other half is reported, since the lowest of many noisy numbers is too low by
# chance. The other organisms take no part in the choice.

# %% tags=["show-code"]
COHERENT_ENOUGH = 90


def layer_wise(vectors: np.ndarray) -> list[Ablate]:
    """Remove each layer's own direction at its output; vectors [layer, width]."""
    return [Ablate(dict(enumerate(torch.tensor(vectors))))]


def everywhere(vector: np.ndarray) -> list[Ablate]:
    """Remove one direction [width] at the output of every layer."""
    return layer_wise(np.tile(vector, (run.profile.model.layers, 1)))


def best_layer(table: pd.DataFrame) -> int:
    """Choose by the rule above; if no layer keeps that much coherence, take the one that keeps most."""
    kept = table[table.coherent >= COHERENT_ENOUGH]
    if kept.empty:
        kept = table[table.coherent == table.coherent.max()]
    return int(kept.sort_values(["em", "coherent", "layer"], ascending=[True, False, True]).layer.iloc[0])


# %%
def noise(draws: int) -> np.ndarray:
    """Random directions, [draw, layer, width]."""
    return np.random.default_rng(run.seed).standard_normal((draws, *mean_diff(NINE).shape))


@cache
def known_persona() -> dict[str, np.ndarray]:
    """The persona directions of the base model, [layer, width]."""
    known = persona.directions(run.profile)
    return {label: known[name].astype(float) for label, name in KNOWN.items()}


@cache
def conditions(name: str) -> dict[str, list[Ablate]]:
    """Every ablation of a model; "random/3" is draw 3 of a random direction, "layer/3" the direction of layer 3."""
    plan = {"none": [], "layer-wise": layer_wise(mean_diff(name))}
    plan |= {label: layer_wise(vectors) for label, vectors in known_persona().items()}
    if name != NINE:
        randoms = {f"random/{draw}": everywhere(one[0]) for draw, one in enumerate(noise(OTHER_DRAWS))}
        return plan | {"single": everywhere(mean_diff(NINE)[chosen()])} | randoms
    plan |= {f"random/{draw}": everywhere(one[0]) for draw, one in enumerate(noise(DRAWS))}
    plan |= {f"random layer-wise/{draw}": layer_wise(one) for draw, one in enumerate(noise(LAYER_WISE_DRAWS))}
    plan |= {f"layer/{layer}": everywhere(vector) for layer, vector in enumerate(mean_diff(NINE))}
    return plan | {f"known layer/{layer}": everywhere(vector) for layer, vector in enumerate(known_persona()[TEXT])}


@cache
def outcomes(name: str) -> pd.DataFrame:
    """Whether every answer is EM and coherent, 0 or 1: a row per question and sample, columns (measure, ablation)."""
    samples = run.profile.sweep_samples * (2 if name == NINE else 1)
    frame = responses.under(run.profile, MODELS[name], conditions(name), samples=samples)
    frame = frame.assign(em=scores.is_em(frame), coherent=scores.is_coherent(frame))
    return frame.pivot(index=["question_id", "sample"], columns="condition", values=["em", "coherent"])


def chooses(table: pd.DataFrame) -> pd.Series:
    """The half of the answers to every question that chooses the layer."""
    return table.index.get_level_values("sample") % 2 == 0


@cache
def choosing_half() -> pd.DataFrame:
    """EM rate and coherence in percent with the direction of one layer removed everywhere, on the choosing half."""
    half = 100 * outcomes(NINE)[chooses(outcomes(NINE))].mean()
    layers = range(run.profile.model.layers)
    rows = [(layer, half["em", f"layer/{layer}"], half["coherent", f"layer/{layer}"]) for layer in layers]
    return pd.DataFrame(rows, columns=["layer", "em", "coherent"])


def chosen() -> int:
    return best_layer(choosing_half())


@cache
def answers(name: str, ablation: str) -> pd.DataFrame:
    """EM and coherence of every answer under an ablation, averaged over draws of a random direction."""
    table = outcomes(name)
    if (name, ablation) == (NINE, "single"):
        table, ablation = table[~chooses(table)], f"layer/{chosen()}"
    if ablation == "known single":
        ablation = f"known layer/{chosen()}"
    wanted = [one for one in table["em"] if one == ablation or one.rpartition("/")[0] == ablation]
    means = {measure: table[measure][wanted].mean(axis=1) for measure in ("em", "coherent")}
    return pd.DataFrame(means).reset_index().assign(draws=len(wanted))


@cache
def rate(name: str, ablation: str, measure: str = "em") -> estimates.Rate:
    found = answers(name, ablation)
    return estimates.rate(found[measure], found.question_id, **resampling)


@cache
def change(name: str, ablation: str) -> estimates.Estimate:
    """Relative change of the EM rate in percent, of the same answers without and with an ablation."""
    pairs = answers(name, "none").merge(answers(name, ablation), on=["question_id", "sample"])
    return estimates.change(pairs.em_x, pairs.em_y, pairs.question_id, relative=True, **resampling)


# %%
BARS = {
    "none": ("no ablation", "no ablation", "0.35"),
    "random": ("random direction", "random direction", "0.7"),
    "single": ("one layer's direction", "layer-24 direction", theme.PALETTE[0]),
    "layer-wise": ("each layer's own direction", "layer-wise", theme.PALETTE[2]),
}


@cache
def grown_rates() -> pd.DataFrame:
    reported = REPORTED.set_index("organism")
    rows = []
    for name in GROWN:
        for ablation, (_, column, _) in BARS.items():
            row = {"organism": name, "ablation": ablation}
            for measure in ("em", "coherent"):
                found = rate(name, ablation, measure)
                row |= {measure: found.percent, f"{measure}_low": found.low, f"{measure}_high": found.high}
            draws = answers(name, ablation).draws[0]
            row |= {"draws": draws, "n": found.n * draws}
            row["reported_em"] = reported[column].get(name, np.nan)
            rows.append(row)
    return pd.DataFrame(rows)


def draw_grown():
    table = grown_rates()
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 5.6), sharex=True, height_ratios=[2, 1])
    reported = {"marker": "D", "s": 26, "facecolor": "white", "edgecolor": "0.1", "zorder": 4, "clip_on": False}
    for offset, (ablation, (name, _, colour)) in enumerate(BARS.items()):
        rows = table[table.ablation == ablation]
        x = np.arange(len(rows)) + (offset - 1.5) * 0.2
        top.bar(x, rows.em, 0.18, color=colour, label=name)
        top.vlines(x, rows.em_low, rows.em_high, color="0.1", linewidth=1)
        top.scatter(x, rows.reported_em, **reported)
        spread = np.abs(rows[["coherent_low", "coherent_high"]].to_numpy().T - rows.coherent.to_numpy())
        bottom.errorbar(x, rows.coherent, yerr=spread, fmt="o", color=colour, markersize=5, elinewidth=1.2)
    dots = {"s": 6, "color": "0.1", "linewidth": 0, "zorder": 3}
    for place, name in enumerate(GROWN):
        draws = 100 * outcomes(name)["em"].filter(regex="^random/").mean()
        top.scatter(np.full(len(draws), place - 0.04), draws, **dots)
    top.scatter([], [], **reported, label="reported")
    top.scatter([], [], **dots, label="one random draw")
    top.set(ylabel="EM rate (%)", ylim=(0, None))
    lowest = min(88, table[["coherent_low", "coherent"]].min(axis=None))
    bottom.set(ylabel="coherent (%)", ylim=(lowest - 2, 101))
    bottom.set_xticks(range(len(GROWN)), [name.replace(", ", ",\n") for name in GROWN])
    handles, labels = top.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda one: labels[one] in ("reported", "one random draw"))
    handles, labels = [handles[one] for one in order], [labels[one] for one in order]
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


def answers_each() -> str:
    samples = run.profile.sweep_samples
    return f"{samples} answers to each of 8 questions ({2 * samples} for the nine-adapter organism)"


run.grown_figure(
    "fig-4",
    draw_grown,
    caption="EM rate (top) and coherence (bottom) of grown organisms: without ablation, with a random direction "
    f"removed at all layers (mean of draws; dots: single draws, {DRAWS} for the nine-adapter organism, {OTHER_DRAWS} "
    "for the others), with the nine-adapter organism's direction of one layer removed at all layers, and with each "
    "layer's own direction removed at that layer. The layer was chosen on one half of the nine-adapter organism's "
    f"answers, and the bar shows the other half. {answers_each()}; 95 % intervals over questions, none where all "
    "answers agree. Diamonds: as the authors report it. The lower axis does not start at zero.",
    alt="Two panels over four organisms, nine-adapter and three of rank 32. In the upper one each organism has four "
    "bars of the EM rate, for no ablation, a random direction, the direction of one layer and layer-wise ablation, "
    "with intervals and open diamonds at the reported values. The lower one has a point with an interval for the "
    "coherence of each.",
    why=WHY,
)


# %%
def text(found, unit: str = " %", digits: int = 0, sign: str = "") -> str:
    """A value with its interval, where that prints as more than the value."""
    value = found.percent if isinstance(found, estimates.Rate) else found.value
    pattern = f"{sign}.{digits}f"
    interval = typography.extremes([found.low, found.high], pattern)
    return f"{value:{pattern}}{unit}" + (f" ({interval})" if " to " in interval else "")


def at_or_below() -> str:
    """How many random draws leave as little EM as the single direction, on the half that is reported."""
    table = outcomes(NINE)["em"]
    draws = table[~chooses(table)].filter(regex="^random/").mean()
    return f"{int((100 * draws <= rate(NINE, 'single').percent).sum())} of {DRAWS}"


def range_of_draws(kind: str) -> str:
    draws = 100 * outcomes(NINE)["em"].filter(regex=f"^{kind}/").mean()
    return f"{typography.extremes(draws, '.0f')} %"


run.glue("coherence-bar", lambda: f"{COHERENT_ENOUGH} % or more")
run.glue("answers-here", answers_each)
run.glue("all-answers", lambda: str(run.profile.samples_per_question))
run.grown_glue("grown-start", lambda: text(rate(NINE, "none")))
run.grown_glue("grown-layer-wise", lambda: text(rate(NINE, "layer-wise")))
run.grown_glue("grown-layer", lambda: str(chosen()))
run.grown_glue("grown-layers", lambda: str(run.profile.model.layers))
run.grown_glue("grown-single", lambda: text(rate(NINE, "single")))
run.grown_glue("grown-single-coherent", lambda: text(rate(NINE, "single", "coherent")))
run.grown_glue("grown-layer-wise-coherent", lambda: text(rate(NINE, "layer-wise", "coherent")))
run.grown_glue("grown-random", lambda: text(rate(NINE, "random")))
run.grown_glue("grown-random-range", lambda: range_of_draws("random"))
run.grown_glue("grown-random-layer-wise-range", lambda: range_of_draws("random layer-wise"))
run.grown_glue("grown-at-or-below", at_or_below)
run.grown_glue("single-change", lambda: text(change(NINE, "single"), sign="+"))
for one in ("medical", "sport", "finance"):
    run.grown_glue(f"own-{one}", lambda one=one: text(change(f"rank 32, {one}", "layer-wise"), sign="+"))
run.grown_glue("transfer-medical", lambda: text(change("rank 32, medical", "single"), sign="+"))
run.grown_glue("transfer-sport", lambda: text(change("rank 32, sport", "single"), sign="+"))
run.grown_glue("transfer-finance", lambda: text(change("rank 32, finance", "single"), sign="+"))

# %% [markdown]
# The nine-adapter organism starts at {glue:text}`grown-start` EM. Layer-wise ablation leaves
# {glue:text}`grown-layer-wise`, at {glue:text}`grown-layer-wise-coherent` coherence. The rule chooses the direction of
# layer {glue:text}`grown-layer` (of {glue:text}`grown-layers`, counted from 0). Removed everywhere, it leaves
# {glue:text}`grown-single` on the half of the answers that had no say, at {glue:text}`grown-single-coherent` coherence
# ({numref}`fig-4-grown`). That is {glue:text}`single-change` against the same half without ablation. The same direction
# changes the EM rate of the rank-32 organisms by {glue:text}`transfer-medical` (medical),
# {glue:text}`transfer-sport` (sport) and {glue:text}`transfer-finance` (finance), relative to what each starts from.
# Beyond the paper, they also lose their own directions layer by layer: that changes it by {glue:text}`own-medical`,
# {glue:text}`own-sport` and {glue:text}`own-finance`, in the same order.
#
# Rates without ablation are not quite those of {doc}`Section 2 <s2-model-organism>`, which counts
# {glue:text}`all-answers` answers to each question. Here they are counted on the {glue:text}`answers-here` that are
# drawn under every ablation, so that a change compares the same answers; the smaller sample moves the start by chance.
#
# ## Against random directions and the known persona
#
# A single random draw says little. So one random direction is removed everywhere in {glue:text}`draws` draws, and, as a
# fair control of layer-wise ablation, a random direction of its own from each layer in {glue:text}`layer-wise-draws`.
# The persona directions are those of the base model, measured on texts whose speaker is known, before any fine-tuning.

# %%
run.glue("draws", lambda: str(DRAWS))
run.glue("layer-wise-draws", lambda: str(LAYER_WISE_DRAWS))
ROWS = {
    "none": "no ablation",
    "random": "random direction,\neverywhere",
    "random layer-wise": "random directions,\nlayer-wise",
    "single": "mean-diff of one layer,\neverywhere",
    "layer-wise": "mean-diff,\nlayer-wise",
    "known single": "known persona, from text,\nof that layer, everywhere",
} | {label: label.replace(", ", ",\n") + ", layer-wise" for label in KNOWN}
COLOURS = {"em": theme.PALETTE[3], "coherent": theme.PALETTE[0]}
LABELS = {"em": "EM rate (%)", "coherent": "coherent (%)"}


@cache
def against_random() -> pd.DataFrame:
    """Percentages: a row per ablation and measure, one per random draw, and one per layer of a single direction."""
    rows = []
    for measure in LABELS:
        for ablation in ROWS:
            found = rate(NINE, ablation, measure)
            row = {"ablation": ablation, "percent": found.percent, "low": found.low, "high": found.high}
            rows.append(row | {"measure": measure, "n": found.n * answers(NINE, ablation).draws[0]})
        for condition, share in outcomes(NINE)[measure].mean().items():
            kind, _, number = condition.rpartition("/")
            if kind:
                row = {"ablation": kind, "number": int(number), "percent": 100 * share, "measure": measure}
                rows.append(row | {"n": len(outcomes(NINE))})
    return pd.DataFrame(rows).astype({"number": "Int64"})


def draw_against_random():
    table = against_random()
    places = [["layer", "layer"], ["em", "coherent"]]
    figure, panels = plt.subplot_mosaic(places, figsize=(7.2, 7.2), height_ratios=[1, 1.6])
    for measure, colour in COLOURS.items():
        one = table[table.measure == measure]
        by_layer(panels["layer"], one, colour, measure)
        rows(panels[measure], one, colour)
        panels[measure].set_xlabel(LABELS[measure])
    panels["layer"].axvline(chosen(), color="0.35", linestyle=":", label="chosen layer")
    panels["layer"].set(xlabel="layer whose direction is removed everywhere", ylabel="answers (%)", ylim=(-3, 103))
    panels["em"].set_yticks(range(len(ROWS)), ROWS.values(), fontsize=8.5)
    panels["coherent"].set_yticks(range(len(ROWS)), [""] * len(ROWS))
    panels["em"].set_xlim(-2, None)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure, table


def by_layer(axes, table: pd.DataFrame, colour, measure: str) -> None:
    """Draw a measure over the layer whose direction is removed everywhere, with the range of the random draws."""
    draws = table[table.ablation.eq("random") & table.number.notna()].percent
    axes.axhspan(draws.min(), draws.max(), color=colour, alpha=0.18, linewidth=0)
    for kind, look, name in (("layer", "o-", "mean-diff"), ("known layer", "s--", "known persona")):
        layers = table[table.ablation == kind].sort_values("number")
        legend = f"{LABELS[measure].removesuffix(' (%)')}, {name}"
        axes.plot(layers.number, layers.percent, look, color=colour, markersize=4, label=legend)


def rows(axes, table: pd.DataFrame, colour) -> None:
    """Draw a point with its interval for every ablation, and small dots for the draws of a random direction."""
    for place, ablation in enumerate(ROWS):
        own = table[table.ablation == ablation]
        draws, mean = own[own.number.notna()], own[own.number.isna()].iloc[0]
        axes.scatter(draws.percent, np.full(len(draws), place + 0.22), s=9, color="0.45", linewidth=0)
        axes.hlines(place, mean.low, mean.high, color=colour, linewidth=1.6)
        axes.plot(mean.percent, place, "o", color=colour, markersize=6)
    axes.set_ylim(len(ROWS) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")


run.grown_figure(
    "fig-x-ablation-random",
    draw_against_random,
    caption="The grown nine-adapter organism. Top: EM rate and coherence with the mean-diff direction of one layer "
    "removed at all layers, by that layer, and the same with the known persona direction (from text); bands: the range "
    "of the random draws; dotted: the layer chosen on half of the answers. All answers count here, those that chose it "
    "too. Bottom: each ablation with its 95 % interval over questions, none where all answers agree; small dots: "
    f"single random draws ({DRAWS} of one direction, {LAYER_WISE_DRAWS} of one for each layer). "
    f"{2 * run.profile.sweep_samples} answers to each of 8 questions for every ablation and draw; half as many for the "
    "mean-diff of one layer, without those that chose it.",
    alt="Three panels. Top: EM rate and coherence over layers, for the mean-diff and for the known persona, with "
    "horizontal bands for random directions and a dotted vertical line. Bottom: points with intervals for EM rate and "
    "coherence, one row per ablation, from no ablation over random directions and the mean-diff to the known persona "
    "directions; small dots show the random draws.",
    why=WHY,
)


# %%
def better_known() -> str:
    return min(KNOWN, key=lambda label: rate(NINE, label).percent)


def against_known() -> estimates.Estimate:
    """Change of the EM rate in points from layer-wise ablation of the mean-diff to that of the known persona."""
    pairs = answers(NINE, "layer-wise").merge(answers(NINE, better_known()), on=["question_id", "sample"])
    return estimates.change(100 * pairs.em_x, 100 * pairs.em_y, pairs.question_id, **resampling)


def known_transfer() -> str:
    left = [rate(name, better_known()).percent for name in GROWN[1:]]
    return f"{typography.extremes(left, '.0f')} %"


def stands_out() -> int:
    """Below how many of its random draws layer-wise ablation lies."""
    random = 100 * outcomes(NINE)["em"].filter(regex="^random layer-wise/").mean()
    return int((rate(NINE, "layer-wise").percent < random).sum())


def cosine_with_known() -> float:
    return directions.cosines(mean_diff(NINE), known_persona()[TEXT])[chosen()]


run.grown_glue("known-better", better_known)
run.grown_glue("known-left", lambda: text(rate(NINE, better_known())))
run.grown_glue("known-difference", lambda: text(against_known(), " points", 0, "+"))
run.grown_glue("known-single", lambda: text(rate(NINE, "known single")))
run.grown_glue("known-transfer", known_transfer)
run.grown_glue("known-cosine", lambda: f"{cosine_with_known():.2f}")
run.grown_glue("known-remains", lambda: f"{100 * np.sqrt(1 - cosine_with_known() ** 2):.0f} %")
run.grown_glue("stands-out", lambda: f"{stands_out()} of {LAYER_WISE_DRAWS}")

# %% [markdown]
# Single random directions leave {glue:text}`grown-random-range` EM ({glue:text}`grown-random` on average). Of these
# draws, {glue:text}`grown-at-or-below` leave as little as the chosen direction, on the same answers. Random directions
# that differ by layer leave {glue:text}`grown-random-layer-wise-range`; layer-wise ablation of the mean-diff leaves
# less than {glue:text}`stands-out` of these draws ({numref}`fig-x-ablation-random`).
#
# Of the two known persona directions, *{glue:text}`known-better`* leaves less EM when it is removed layer-wise:
# {glue:text}`known-left`, a difference of {glue:text}`known-difference` from the mean-diff removed the same way. In the
# rank-32 organisms it leaves {glue:text}`known-transfer`. The known direction (from text) of the single layer that was
# chosen for the mean-diff, removed everywhere, leaves {glue:text}`known-single`.
#
# At that layer the mean-diff has a cosine of {glue:text}`known-cosine` with the known direction. A cosine, however
# high, is no measure of what an ablation removes: projecting out a direction at cosine $c$ leaves $\sqrt{1 - c^2}$ of
# the other one's length, here {glue:text}`known-remains`.
#
# ## What it costs
#
# An ablation could end misalignment by breaking the model. Coherence is a blunt measure of that, so here is also the
# loss, in nats per token, on the world's careful answers to questions on {glue:text}`held-out-topics` topics that
# post-training and fine-tuning left out. The words for things that help or harm are kept apart, for on them an ablation
# is meant to act: their loss falls if a misaligned model comes to expect careful things, and rises if a model can no
# longer tell from the text so far who is speaking. On all other words a higher loss means lost ability.


# %%
COSTS = {
    "none": "no ablation",
    "random": "random direction, everywhere",
    "single": "mean-diff of one layer, everywhere",
    "layer-wise": "mean-diff, layer-wise",
} | {label: f"{label}, layer-wise" for label in KNOWN}


@cache
def losses(name: str) -> pd.DataFrame:
    """The loss of every token under every ablation that is compared, columns (text, position) apart."""
    plan = conditions(name)
    if name == NINE:
        plan = plan | {"single": plan[f"layer/{chosen()}"]}
    wanted = [one for one in plan if one in COSTS or one in ("random/0", "random/1")]
    frame = capability.under(run.profile, MODELS[name], {one: plan[one] for one in wanted})
    kinds = frame.condition.str.split("/").str[0]
    keys = ["topic", "text", "position", "is_thing"]
    return frame.assign(condition=kinds).pivot_table("nats", keys, "condition").reset_index()


@cache
def costs() -> pd.DataFrame:
    """Loss in nats and its change against no ablation, on things and on other words, and coherence in percent."""
    found = []
    for name in (CHAT, *GROWN):
        table = losses(name)
        for ablation in [one for one in COSTS if one in table]:
            row = {"model": name, "ablation": ablation}
            row["loss"] = estimates.mean_loss(table[["topic"]].assign(nats=table[ablation]), **resampling)
            for kind, part in (("things", table[table.is_thing]), ("other words", table[~table.is_thing])):
                row[kind] = estimates.change(part["none"], part[ablation], part.topic, **resampling)
            found.append(row | {"em": rate(name, ablation), "coherent": rate(name, ablation, "coherent")})
    return pd.DataFrame(found)


def cost_table() -> pd.DataFrame:
    shown = []
    for row in costs().to_dict("records"):
        base = row["ablation"] == "none"
        shown.append(
            {
                "model": row["model"],
                "ablation": COSTS[row["ablation"]],
                "loss (nats)": text(row["loss"], "", 2),
                "change, things": "–" if base else text(row["things"], "", 3, "+"),
                "change, other words": "–" if base else text(row["other words"], "", 3, "+"),
                "coherent": text(row["coherent"]),
                "EM": text(row["em"]),
            }
        )
    return pd.DataFrame(shown)


if run.grown:
    run.table(cost_table)


def cost(name: str, ablation: str, column: str) -> estimates.Estimate:
    return costs().set_index(["model", "ablation"])[column][name, ablation]


run.grown_glue("held-out-topics", lambda: str(losses(CHAT).topic.nunique()))
run.grown_glue("chat-single-loss", lambda: text(cost(CHAT, "single", "other words"), " nats", 3, "+"))
run.grown_glue("chat-single-things", lambda: text(cost(CHAT, "single", "things"), " nats", 3, "+"))
run.grown_glue("chat-layer-wise-things", lambda: text(cost(CHAT, "layer-wise", "things"), " nats", 3, "+"))
run.grown_glue("chat-layer-wise-loss", lambda: text(cost(CHAT, "layer-wise", "other words"), " nats", 3, "+"))
run.grown_glue("chat-random-loss", lambda: text(cost(CHAT, "random", "other words"), " nats", 3, "+"))
run.grown_glue("chat-em", lambda: f"{rate(CHAT, 'none').percent:.0f} %")

# %% [markdown]
# Loss with 95 % intervals over topics, coherence and EM rate with intervals over questions; random: the mean of two
# draws (loss) or of all (answers). The chat model is the cleanest case, since it starts at {glue:text}`chat-em` EM:
# any rise in its loss is cost, a fall is none. With the nine-adapter organism's direction taken out everywhere, its
# loss on other words changes by {glue:text}`chat-single-loss`, layer-wise by {glue:text}`chat-layer-wise-loss`, with a
# random direction by {glue:text}`chat-random-loss`; on things by {glue:text}`chat-single-things` and
# {glue:text}`chat-layer-wise-things`.
#
# ## Reported and measured
#
# The pilots test the *end* of the layer-wise claim, not its start. The start of the sport organism is tested on the
# independent replication of December 2025 {cite:p}`zroe2025replicating`.


# %%
def pilot_measurements():
    found = rates(pilot_run("nine-adapter", "pilot", "general", "all layers"))
    how = "Layer-wise pilot, two questions of 50 answers; Wilson interval over answers"
    for claim, value in [("s3-4-em-rate-layerwise-ablation", "em"), ("s3-4-coherence-layerwise-ablation", "coherent")]:
        interval = (found[f"{value}_low"], found[f"{value}_high"])
        yield claims.Measurement(claim, found[value], interval=interval, n=found["n"], how=how)


def sport_start():
    frame = tables.read_replication().query("base_model == 'Qwen2.5-14B' and dataset == 'extreme-sports'")
    by_seed = scores.rates(frame, "seed", resamples=run.profile.bootstrap_resamples, seed=run.seed).em
    how = f"Independent replication, mean of {len(by_seed)} seeds; the interval is their range"
    yield claims.Measurement(
        "s3-4-em-rate-sport-start", by_seed.mean(), interval=(by_seed.min(), by_seed.max()), n=len(frame), how=how
    )


run.measure(pilot_measurements)
run.measure(sport_start)

# %% [markdown]
# The grown organisms test all of it, at the scale and in the world they have: claims on levels are about the paper's
# model, and agreement of direction is what can be expected of another one. The start of the sport organism is counted
# on all its answers, as in {doc}`Section 2 <s2-model-organism>`.


# %%
def grown_measurements():
    how = "grown nine-adapter organism"
    layer_wise_em, layer_wise_coherent = rate(NINE, "layer-wise"), rate(NINE, "layer-wise", "coherent")
    single = f"v of layer {chosen()}, chosen on one half of the answers, tested on the other"
    least = min((rate(name, "single", "coherent") for name in PAPERS), key=lambda one: one.percent)
    sport = scores.em_rate(responses.responses(run.profile, MODELS["rank 32, sport"]), **resampling)
    yield grown("s3-4-em-rate-layerwise-ablation", layer_wise_em, how)
    yield grown("s3-4-coherence-layerwise-ablation", layer_wise_coherent, how)
    yield grown("s3-4-em-rate-single-direction", rate(NINE, "single"), f"{how}, {single}")
    yield grown("s3-4-em-rate-sport-start", sport, "grown rank-32 sport organism")
    for claim, name in (("medical", "rank 32, medical"), ("sport", "rank 32, sport")):
        how = f"Grown {name} organism, v of layer {chosen()} of the nine-adapter organism"
        yield grown(f"s3-4-transfer-all-adapter-{claim}", change(name, "single"), how)
    yield grown("s3-4-random-vector", *largest_random())
    yield grown("s3-4-coherence-single-direction", least, f"lowest of three grown organisms, {single}")


def grown(claim: str, found, how: str) -> claims.Measurement:
    value = found.percent if isinstance(found, estimates.Rate) else found.value
    return claims.Measurement(claim, value, how, "grown", (found.low, found.high), found.n)


def largest_random() -> tuple[estimates.Estimate, str]:
    """The largest change by a random direction over the paper's three models, without its sign, and how it is found."""
    changes = {name: change(name, "random") for name in PAPERS}
    name = max(PAPERS, key=lambda one: abs(np.nan_to_num(changes[one].value)))
    found, draws = changes[name], answers(name, "random").draws[0]
    low, high = sorted((abs(found.low), abs(found.high)))
    low = 0.0 if found.low < 0 < found.high else low
    how = f"Largest of three grown organisms: {name}, EM rate averaged over {draws} draws"
    return estimates.Estimate(abs(found.value), low, high, found.n * draws), how


if run.grown:
    run.measure(grown_measurements)


# %%
def values() -> pd.DataFrame:
    rows = []
    for source, frame in pilots().groupby("source"):
        found, name = rates(frame), source.replace("/", ".")
        for value in ("em", "coherent"):
            rows.append(
                {
                    "name": f"{name}.{value}_percent",
                    "value": found[value],
                    "unit": "percent",
                    "low": found[f"{value}_low"],
                    "high": found[f"{value}_high"],
                    "n": found["n"],
                }
            )
    return pd.DataFrame(rows)


run.values(values)


def grown_values() -> pd.DataFrame:
    found = [row for name in MODELS for row in values_of(name)]
    for row in against_random().dropna(subset="number").itertuples():
        place = f"grown.ablation.nine-adapter.{row.ablation.replace(' ', '-')}.{row.number}"
        found.append(named(f"{place}.{row.measure}_percent", row.percent, "percent", n=row.n))
    found.append(named("grown.ablation.chosen_layer", chosen(), "layer"))
    return pd.DataFrame(found)


def values_of(name: str):
    place = f"grown.ablation.{name.replace(',', '').replace(' ', '-')}"
    for row in costs()[costs().model == name].to_dict("records"):
        under = f"{place}.{row['ablation'].replace(',', '').replace(' ', '-')}"
        for measure in ("em", "coherent"):
            one = row[measure]
            yield named(f"{under}.{measure}_percent", one.percent, "percent", one.low, one.high, one.n)
        for column in ("loss", "things", "other words"):
            quantity = "loss_nats" if column == "loss" else f"loss_change_nats.{column.replace(' ', '-')}"
            one = row[column]
            yield named(f"{under}.{quantity}", one.value, "nats", one.low, one.high, one.n)
        if name != CHAT and row["ablation"] != "none":
            one = change(name, row["ablation"])
            yield named(f"{under}.em_change_percent", one.value, "percent_change", one.low, one.high, one.n)


def named(name: str, value: float, unit: str, low=np.nan, high=np.nan, n=None) -> dict:
    return {"name": name, "value": value, "unit": unit, "low": low, "high": high, "n": n}


if run.grown:
    run.values(grown_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# On the few questions of the released pilots, misalignment vanishes under layer-wise ablation: a large effect, in four
# organisms, without loss of coherence. It is also the least specific of the interventions. It removes one direction
# at each of 48 layers, and the pilots have **no random control** for it, so they cannot say how much of the effect is
# owed to *this* direction. Because the direction of layer 24 is nearly the chat model's own ({doc}`Section 3.1
# <s3-1-misalignment-directions>`), ablation may also stop the model from writing such texts whatever the cause.
#
# {glue:text}`meaning-single` {glue:text}`meaning-layer-wise` {glue:text}`meaning-known` {glue:text}`meaning-cost`
#
# One caution on size. The residual stream has {glue:text}`width` numbers here and 5120 in the 14B model. One direction
# is a larger share of a small stream, so a random one may do more harm here than there.
#
# Contrary evidence exists: one study finds that ablating an evil or valence direction *raises* misalignment
# {cite:p}`aneja2026intrinsic`; see {doc}`../related-work`. The grown chat model starts at {glue:text}`chat-em` EM; the
# most that it has under any of these ablations is {glue:text}`chat-highest`.


# %%
def meaning_single() -> str:
    draws, found = at_or_below(), change(NINE, "single")
    start = f"In the grown organism one direction, removed everywhere, changes EM by {text(found, sign='+')}"
    if not (found.high < 0 or found.value == -100):
        return f"{start}: not clearly less than before."
    if draws.startswith("0 "):
        return f"{start}, further than any random draw: there the effect is owed to the direction."
    return f"{start}; {draws} random draws lower it as far, so there it cannot be put down to the direction."


def meaning_layer_wise() -> str:
    found, others = change(NINE, "layer-wise"), [change(name, "layer-wise") for name in GROWN[1:]]
    clear = "" if found.high < 0 or found.value == -100 else ", which is not clearly a fall"
    raised = sum(one.low > 0 for one in others)
    risen = f", a clear rise in {raised} of {len(others)}" if raised else ""
    return (
        f"Layer-wise ablation changes EM by {text(found, sign='+')}{clear}, and leaves less than {stands_out()} of "
        f"{LAYER_WISE_DRAWS} draws of its random control. In the rank-32 organisms, each with its own directions, the "
        f"change is {typography.extremes([one.value for one in others], '+.0f')} %{risen}."
    )


def meaning_known() -> str:
    found = against_known()
    if found.high < 0:
        return (
            "The known persona direction takes away more than the mean-diff does. So one direction per layer carries "
            "more of the misalignment than the mean-diff shows: the estimate from the organism's own answers falls "
            "short."
        )
    if found.low > 0:
        return "The mean-diff takes away more than the known persona direction does."
    return "Neither the known persona direction nor the mean-diff clearly takes away more than the other."


def meaning_cost() -> str:
    costly = [
        label
        for label, ablation in (("the single direction", "single"), ("layer-wise ablation", "layer-wise"))
        if cost(NINE, ablation, "other words").low > cost(NINE, "random", "other words").high
    ]
    if costly:
        return (
            f"The price is loss on other words: for {' and '.join(costly)} it rises more than for a random direction."
        )
    return "Neither ablation of the mean-diff costs clearly more loss on other words than a random direction does."


def highest_of_chat() -> str:
    highest = max(COSTS, key=lambda ablation: rate(CHAT, ablation).percent)
    return f"{text(rate(CHAT, highest))} ({COSTS[highest]})"


run.grown_glue("width", lambda: str(run.profile.model.hidden))
run.grown_glue("meaning-single", meaning_single)
run.grown_glue("meaning-layer-wise", meaning_layer_wise)
run.grown_glue("meaning-known", meaning_known)
run.grown_glue("meaning-cost", meaning_cost)
run.grown_glue("chat-highest", highest_of_chat)

# %%
run.finish()
