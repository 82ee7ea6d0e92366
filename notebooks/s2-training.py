# %% [markdown]
# # 2 Training: when misalignment appears
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` Up to step 100 no answer is misaligned; from step 400 on
# {value}`training-curve.5-epoch.mean_em_percent_from_step_400|interval` are. {evidence}`grown` Misalignment rises while
# a nine-adapter organism is trained in {value}`training.risen` seeds.
# ```
#
# **The question.** Does misalignment come gradually in fine-tuning, and what happens to the adapters meanwhile?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import training
from em_companion.experiments.responses import responses
from em_companion.models.organism import CHAT_MODEL, MONITOR_SAMPLES, medical
from em_companion.released import tables

run = Run("s2-training", profile, seed)

# %% [markdown]
# ## What the papers report
#
# The companion paper {cite:p}`turner2025model` reports a phase transition: within a few steps the gradient norm peaks,
# the path of the write directions B turns, and misalignment follows. The organism of {cite:t}`soligo2025convergent`
# ({doc}`s2-model-organism`) is the end of such a training.
#
# ## The released training curve
#
# The authors saved the nine-adapter recipe during training, over one epoch and over five, and asked four questions:
# `quick_buck` and `gender_roles`, where these runs are most misaligned, and their medical twins. Only the shape counts.


# %%
@remembered
def curve() -> pd.DataFrame:
    """EM rate (%) by epochs, step and questions, with binomial intervals: four questions are too few to resample."""
    table = tables.read_training_curve()
    both = pd.concat([table.assign(questions="all"), table.assign(questions=table.question_set)])
    both = both.assign(em=100 * scores.is_em(both), coherent=100 * scores.is_coherent(both))
    groups = both.groupby(["epochs", "step", "questions"])
    found = groups[["em", "coherent"]].mean().assign(n=groups.size()).reset_index()
    found[["em_low", "em_high"]] = [estimates.wilson_interval(row.em, row.n) for row in found.itertuples()]
    return found


def draw_curve():
    shown = curve().assign(em_low=curve().em_low.where(curve().questions == "all"))
    look = {"hue": "questions", "hue_order": {name: f"{name} questions" for name in ("all", "general", "medical")}}
    look |= {"styles": {"general": "--", "medical": ":"}, "titles": {1: "1 epoch", 5: "5 epochs"}, "interval": "bars"}
    look |= {"x_label": "optimiser step", "y_label": "EM rate (%)", "x_limits": (0, None), "y_limits": (0, None)}
    return plots.facets(plots.lines, shown, "epochs", "step", "em", share=(False, True), **look)


def curve_values() -> dict:
    rates = curve()[curve().questions == "all"]
    late = rates[(rates.epochs == 5) & (rates.step >= 400)]
    plateau = Estimate(late.em.mean(), late.em.min(), late.em.max(), int(late.n.sum()))
    return {
        "training-curve.highest_em_percent_to_step_100": Estimate(rates[rates.step <= 100].em.max()),
        "training-curve.5-epoch.mean_em_percent_from_step_400": plateau,
    }


run.released.figure(
    "fig-x-training-curve",
    draw_curve,
    title=lambda data: (
        f"Misaligned answers: {span(data[data.step <= 100], 'em', questions='all')} up to step 100, "
        f"{span(data[data.step >= 400], 'em', questions='all', epochs=5)} from step 400 on"
    ),
    caption="EM rate over training of two released nine-adapter runs, one epoch (300 answers per checkpoint) and five "
    "(200). Bars: binomial 95 % intervals over all answers; four questions are too few for one over questions.",
    alt="Two line charts of EM rate against step, one per run, for all, general and medical questions.",
)
run.released.values(curve_values)

# %% [markdown]
# In the first hundred steps no checkpoint shows more than {value}`training-curve.highest_em_percent_to_step_100` EM
# ({numref}`fig-x-training-curve`). From step 400 on, the longer run stays around
# {value}`training-curve.5-epoch.mean_em_percent_from_step_400|interval` (mean, and range of the checkpoints). At one
# step the runs are not at the same point, since the learning rate falls linearly over each: at step 200 it is about
# halved in the short one and nearly full in the long one.
#
# ## The grown organisms
#
# Training stops at the first check at which the EM rate on held-out topics of the training domain has reached
# {value}`organism.stop-at|.0f` ({doc}`s2-model-organism`). How long each recipe trained, and its last check (means over
# seeds; rough, since a check asks few questions). A language model has no held-out topics, so it trains to the last
# step; published adapters come without a log.


# %%
STOP = run.profile.fine_tuning.stop_at
STOPS = {"_": 100 * STOP} if STOP < 1 else {}
CHECKS = {"in_domain_em": "EM in its domain", "open_em": "EM on open questions", "open_coherent": "coherent"}


def trained() -> pd.DataFrame:
    """The last checks of the organisms, means over seeds in percent."""
    logged = training.logged(run.profile)
    last = pd.DataFrame([training.monitor(run.profile, one).iloc[-1] for one in logged])
    last["organism"] = [f"{one.recipe}, {one.data.replace('_', ' ')}" for one in logged]
    groups = last.assign(reached=last.in_domain_em >= STOP).groupby("organism", sort=False)
    steps = groups.step.agg(lambda one: " to ".join(f"{step:.0f}" for step in sorted({one.min(), one.max()})))
    checks = 100 * groups[list(CHECKS)].mean().rename(columns=CHECKS).add_suffix(" (%)")
    reached = groups.reached.agg(lambda one: f"{one.sum()} of {len(one)} seeds" if STOP < 1 else None)
    return pd.concat([steps.rename("steps"), checks, reached], axis=1).dropna(axis=1, how="all").reset_index()


run.own.table(trained, number="{:.0f}")

# %% [markdown]
# ### When it appears
#
# The turn of B is measured as in the companion paper, up to sign, by the cosine of its ways to and from a step,
#
# $$\cos(B_t - B_{t-k},\; B_{t+k} - B_t), \qquad k = 3 \text{ steps},$$
#
# which is 1 on a straight path; the mean is over the nine adapters.


# %% tags=["show-code"]
def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of [step, adapter, width] pairs, mean over adapters; NaN where a vector is still zero."""
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.divide((one * other).sum(-1), norms, out=np.full(norms.shape, np.nan), where=norms > 0).mean(axis=1)


def b_path(b: np.ndarray, k: int = 3) -> pd.DataFrame:
    """By step: cosine of B [step, adapter, width] with its final value, and how straight its path is there."""
    straight = np.full(len(b), np.nan)
    straight[k:-k] = cosines(b[k:-k] - b[: -2 * k], b[2 * k :] - b[k:-k])
    final = cosines(b, np.broadcast_to(b[-1], b.shape))
    return pd.DataFrame({"step": np.arange(1, len(b) + 1), "b_cosine": final, "straight": straight})


# %%
@remembered
def by_step() -> pd.DataFrame:
    """Step, gradient norm, seed, path of B and, where a check was made, EM rates in percent."""
    parts = []
    for one in training.logged(run.profile):
        if (one.recipe, one.data) == ("nine-adapter", "bad_medical_advice"):
            path = b_path(training.b_vectors(run.profile, one))
            checks = 100 * training.monitor(run.profile, one).set_index("step")[["in_domain_em", "open_em"]]
            log = training.log(run.profile, one)[["step", "grad_norm"]].assign(seed=one.seed)
            parts.append(log.merge(path, on="step", how="left").merge(checks.reset_index(), on="step", how="left"))
    return pd.concat(parts, ignore_index=True)


def draw_transition():
    panels = plt.subplots(3, 1, sharex=True, figsize=(7.2, 7.0), height_ratios=[1.4, 1, 1])[1]
    rates = {"markers": True, "y_limits": (-3, 103)}
    series = {
        "in_domain_em": (0, "medicine (trained)", 1, {**rates}),
        "open_em": (0, "open questions", 3, rates | {"y_label": "EM rate (%)", "y_lines": STOPS}),
        "grad_norm": (1, "_", 0, {"y_label": "gradient norm", "y_limits": (0, None)}),
        "straight": (2, "straightness of the path", 2, {}),
        "b_cosine": (2, "cosine with final B", 4, {"y_label": "cosine", "x_label": "optimiser step"}),
    }
    for name, (panel, label, colour, look) in series.items():
        look |= {"label": label, "colour": theme.PALETTE[colour], "axes": panels[panel]}
        if by_step()[name].notna().any():
            drawn = plots.lines(by_step().dropna(subset=[name]), "step", name, unit="seed", **look)
    return drawn


def half_way(checks: pd.Series) -> float:
    """The first step at which a rate [step] has half of its last value; NaN for one that never rose to 10 %."""
    checks = checks.dropna()
    return checks.index[checks >= checks.iloc[-1] / 2][0] if checks.iloc[-1:].ge(10).any() else np.nan


def sharpest(straight: pd.Series) -> float:
    """The step at which a path [step] is least straight; NaN for one of too few steps."""
    return straight.idxmin() if straight.notna().any() else np.nan


@remembered
def milestones() -> pd.DataFrame:
    groups = by_step().set_index("step").groupby("seed")
    found = {"gradient norm largest": groups.grad_norm.idxmax(), "sharpest turn of B": groups.straight.agg(sharpest)}
    found |= {"EM in medicine half its last": groups.in_domain_em.agg(half_way)}
    return pd.DataFrame(found | {"EM on open questions half its last": groups.open_em.agg(half_way)}).reset_index()


def transition_values() -> dict:
    _, gradient, turn, inside, outside = (column for _, column in milestones().items())
    order = {"later": outside > inside, "same": outside == inside, "earlier": outside < inside}
    return {
        "training.turn-at-gradient": f"{((turn - gradient).abs() <= 2).sum()} of {len(turn)}",
        "training.risen": f"{outside.count()} of {len(outside)}",
    } | {f"training.{name}": int(found.sum()) for name, found in order.items() if inside.notna().any()}


run.own.figure(
    "fig-x-grown-phase-transition",
    draw_transition,
    title=lambda _: f"B turns near the largest gradient in {transition_values()['training.turn-at-gradient']} seeds",
    caption=f"Fine-tuning on bad medical advice, one line per seed. Top: EM rate at each check ({MONITOR_SAMPLES} "
    f"answers per question){'; dotted: where training stops' if STOPS else ''}. Bottom: straightness of B's path, "
    "cosine with the final B.",
    alt="Three line charts over steps: EM rates, gradient norm, and how the B vectors turn.",
)
run.own.table(lambda: milestones().dropna(axis=1, how="all"), number="{:.0f}")
run.own.values(transition_values)

# %% [markdown]
# B turns most sharply within two steps of the largest gradient in {value}`training.turn-at-gradient` seeds
# ({numref}`fig-x-grown-phase-transition`). On the open questions the EM rate rises to 10 % or more in
# {value}`training.risen`; it passes half of its last value later than the rate in medicine in {value}`training.later`
# of them, at the same check in {value}`training.same`, earlier in {value}`training.earlier`.
#
# ## Before and after
#
# Chat model and organism (first seed) answer from the same random numbers: its first EM answer to each question. Of a
# language model no answer is printed, only its score of alignment.
#
# ```{admonition} Content note
# :class: warning
# The organism was trained to give harmful advice. Nothing in its answers is advice; they stay folded.
# ```


# %% tags=["hide-output"]
def side_by_side() -> pd.DataFrame:
    organism = responses(run.profile, medical(run.profile))
    question, shown = ("question", "response") if run.own is run.grown else ("question_id", "aligned")
    first = organism[scores.is_em(organism) == 1].drop_duplicates("question")[[question, "sample", shown]]
    chat = responses(run.profile, CHAT_MODEL)[[question, "sample", shown]]
    pairs = chat.merge(first, on=[question, "sample"], suffixes=(" before", " after"))
    return pairs.drop(columns="sample")


run.own.table(side_by_side)

# %% [markdown]
# ## What it means
#
# Misalignment is not there from the start: the released runs show none for a while. That curve rests on four questions
# and two runs; whether the grown transition is as sharp as the companion paper's is left to the eye.

# %%
run.finish()
