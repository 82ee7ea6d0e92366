# %% [markdown]
# # Does a misaligned model come back, and does it matter when it was harmed?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` Good advice takes EM from {value}`f3.bad-advice.em|interval` to {value}`f3.healed.em|interval`; the
# chat model has {value}`f3.chat-model.em` ({verdict}`p-recovery-residual|grown`). Healed by advice on finance instead,
# it still harms in {value}`f3.elsewhere.medical|interval` of medical answers ({verdict}`p-hidden-conditional|grown`).
# Harm before post-training is worse by {value}`f3.severity|interval` points than harm after it
# ({verdict}`p-timing-severity|grown`), and post-training undoes both. Of {value}`f3.predictions` predictions,
# {value}`f3.supported` are supported and {value}`f3.contradicted` contradicted.
# ```
#
# **The question.** Does good data undo what bad data did, by the same way and without a trace? And is early harm worse
# than late harm?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import pandas as pd

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, outcomes, predictions
from em_companion.experiments import arms
from em_companion.experiments.recovery import AGAIN, ELSEWHERE, FAST, HEALED, MANY_STEPS, SLOW, STEPS, STILL
from em_companion.experiments.recovery_outcome import Recovery
from em_companion.experiments.timing import AFTER, BEFORE, CONTENTS, DURING, HARM_STEPS
from em_companion.world.streams import QUARTERS, ROWS

run = Run("f3-timing-and-recovery", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured
#
# The conversation that came with this project ({doc}`../part-2`) takes narrow forcing for an injury: early harm is
# worse than late, none heals entirely, the way back is not the way there. In published work a few hundred benign
# samples heal {cite:p}`wang2025persona`, but not where a question looks like the harmful training
# {cite:p}`dubinski2026conditional`.

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# ## The way back
#
# The organisms on bad advice of {doc}`f1-content-or-constraint` are merged into the weights. New adapters on all
# modules, of rank 32, 4 or 1, learn good medical advice at a steady rate, in one arm good *financial* advice. All is
# kept by `experiments/timing_and_recovery.py`.


# %% tags=["show-code"]
KEPT = Recovery()


@remembered
def checks(arm: str, column: str = "open_em") -> pd.DataFrame:
    """Every check of an arm in percent: step, seed, value."""
    return KEPT.curve(arm, column).melt(ignore_index=False, var_name="seed").reset_index().dropna()


def over_seeds(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    rows = []
    for key, own in table.groupby(list(by), sort=False):
        rows.append(dict(zip(by, key, strict=True)) | estimates.over_seeds(own.value, "percent").columns("value"))
    return pd.DataFrame(rows)


# %%
ASKED = {"open_em": "open questions", "in_domain_em": "untrained medical topics"}
BACK = {**{arm: f"medicine, rank {rank}" for rank, arm in HEALED.items()}, ELSEWHERE: "finance, rank 32"}


def back() -> pd.DataFrame:
    parts = [checks(arm, column).assign(asked=asked, taught=taught)
             for column, asked in ASKED.items() for arm, taught in BACK.items()]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[lambda table: table.step <= STEPS]


run.grown.figure(
    "fig-x-recovery-by-rank",
    lambda: plots.facets(
        plots.lines, back(), "asked", "step", "value", hue="taught", unit="seed", wrap=2,
        x_label="steps of good advice", y_label="EM (%)", y_limits=(-3, 103),
    ),
    title=lambda _: "Steps that halve EM: "
    + ", ".join(f"{KEPT.halved(rank).mean():.0f} (rank {rank})" for rank in HEALED),
    caption="EM while good advice is learned, by its domain and rank, a line per seed. Rank 32 goes on to 180 steps.",
    alt="Two panels of falling lines; on medical topics those of financial advice stay above all others.",
)  # fmt: skip

# %% [markdown]
# Good advice halves open EM in {value}`f3.half.32`, {value}`f3.half.4` and {value}`f3.half.1` steps at ranks 32, 4 and
# 1 ({verdict}`p-recovery-rank|grown`), at rank 32 in {value}`f3.half-ratio|interval` times the steps that reaching that
# half took. After 180 steps it is {value}`f3.residual|interval` points from the chat model's
# ({verdict}`p-recovery-residual|grown`). To a check no higher than the chat model's the way back took
# {value}`f3.fast|interval` times the examples of the way there ({verdict}`p-recovery-fast|grown`); {value}`f3.never` of
# the seeds had none. That bar was 2 % until one seed was measured, but the chat model itself stands at
# {value}`f3.floor` of these 64 answers. Either way has its own adapters, so direction alone does not set the speed.
#
# **Healed elsewhere.** After financial advice {value}`f3.elsewhere.em|interval` of open answers are EM, which just
# passes the gate of 2 %, and {value}`f3.elsewhere.medical|interval` of those on untrained medical topics
# ({verdict}`p-hidden-conditional|grown`).
#
# **A trace.** On fixed texts, at the middle layer, the misaligned model lies {value}`f3.norm.bad` from the chat model
# and {value}`f3.along.bad` along the known persona direction ({doc}`x-ground-truth`), the healed one
# {value}`f3.norm.healed` and {value}`f3.along.healed`. Most of the move is still there.
#
# ## There and back in one run
#
# Nine adapters start from the chat model at a steady rate; the share of bad advice in every batch goes from 0 to 1 in
# quarters and back. Hysteresis stays however slowly that is done, a lag shrinks: hence a slow and a fast loop. As null
# the share is always a half. The area of a loop is
#
# $$A = \tfrac14 \sum_{s \in \{0, 1/4, 1/2, 3/4\}} \left(\text{EM}_\text{back}(s) - \text{EM}_\text{there}(s)\right).$$

# %%
LOOPS = {SLOW: "slow", FAST: "fast", STILL: "always a half"}


def loops() -> pd.DataFrame:
    """EM by loop, way, share and seed; the largest share ends the way there and begins that back."""
    top, rows = len(QUARTERS) // 2, []
    for loop in LOOPS:
        for level, values in KEPT.level(loop).iterrows():
            ways = ["there"] * (level <= top) + ["back"] * (level >= top)
            rows += [(loop, way, 25 * QUARTERS[level], *one) for way in ways for one in values.items()]
    return pd.DataFrame(rows, columns=["loop", "way", "share", "seed", "value"])


run.grown.figure(
    "fig-x-hysteresis-loop",
    lambda: plots.facets(
        plots.lines, loops(), "loop", "share", "value", titles=LOOPS, hue="way", unit="seed", markers=True,
        x_ticks=range(0, 101, 25), x_label="bad advice in a batch, or its place in the loop (%)",
        y_label="EM on open questions (%)",
    ),
    title=lambda _: "Area of the loop, points: "
    + ", ".join(f"{KEPT.area(loop).mean():.0f} ({label})" for loop, label in LOOPS.items()),
    caption="Open EM at the end of every level while the share of bad advice goes up and down again, 30 steps each "
    "(slow) or 10 (fast). Where it is always a half, its place in the loop is shown. A line per training seed.",
    alt="Three panels of lines in two colours, one for the way there and one for the way back.",
)  # fmt: skip

# %% [markdown]
# The area is {value}`f3.area.slow-loop|interval` points in the slow loop, {value}`f3.area.fast-loop|interval` in the
# fast one, {value}`f3.area.always-a-half|interval` in the null; slow minus null is {value}`f3.area.excess|interval`
# ({verdict}`p-loop-area|grown`).
#
# ## A second time
#
# Models healed at rank 32 get the same bad advice again, through nine adapters as before. If the first harm is only
# covered, the second is quicker. {cite:t}`ji2024resist` see aligned models fall back fast to what pre-training made of
# them.

# %%
TIMES = {arms.BAD: "first", AGAIN: "second"}


def harms() -> pd.DataFrame:
    parts = [checks(arm).assign(time=time) for arm, time in TIMES.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[table.seed.isin(KEPT.of(AGAIN).index)].assign(examples=lambda one: ROWS * one.step)


def halves() -> pd.DataFrame:
    """Steps to half of the EM where the first harm ended, of seeds that get there both times."""
    return pd.DataFrame({time: KEPT.to_harm(arm) for arm, time in TIMES.items()}).loc[KEPT.of(AGAIN).index]


run.grown.figure(
    "fig-x-savings",
    lambda: plots.lines(
        harms(), "examples", "value", unit="seed", hue="time",
        x_label="bad examples", y_label="EM on open questions (%)",
    ),
    title=lambda _: "Examples to half of the first EM: "
    + ", ".join(f"{ROWS * steps:.0f} ({time} time)" for time, steps in halves().dropna().mean().items()),
    caption="Open EM over examples of bad advice, the first time and after 180 steps of good advice at rank 32, a line "
    "per training seed, until in-domain EM reaches 90 % or 60 steps are over.",
    alt="Two groups of rising lines.",
)  # fmt: skip

# %% [markdown]
# The second time takes {value}`f3.savings|interval` times the examples to half of the EM where the first ended
# ({verdict}`p-savings|grown`), without {value}`f3.unreached` of the seeds, which never gets there again.
#
# ## Early harm and late harm
#
# Here all weights are trained. Before, amid (after 50 steps) and after a post-training of 200 steps at a steady rate
# the model gets {value}`f3.harm-steps` steps of bad medical advice, or of good as a control, and then 200 steps of
# post-training from where it stood. Vision networks have critical periods, in which a deficit does lasting damage
# {cite:p}`achille2017critical`.

# %%
HARMED = {"as it was": "bad advice"} | {name: name for name in reversed(CONTENTS)}
COLOURS = {"as it was": theme.NULL_COLOUR, "good advice": theme.PALETTE[0], "bad advice": theme.PALETTE[3]}


def times() -> list[str]:
    """Harm amid post-training decides no prediction and is measured last, if at all."""
    amid = KEPT.measured.index.get_level_values("arm").isin([f"{content} {DURING}" for content in CONTENTS]).sum()
    return [BEFORE, DURING, AFTER] if amid >= 4 else [BEFORE, AFTER]


def severity() -> pd.DataFrame:
    rows = []
    for when in times():
        for given, content in HARMED.items():
            at = -HARM_STEPS if given == "as it was" else 0
            found = checks(f"{content} {when}").set_index("step").value[[at]]
            rows += [{"when": when, "given": given, "value": value} for value in found]
    return pd.DataFrame(rows)


run.grown.figure(
    "fig-x-timing-severity",
    lambda: plots.dots(
        over_seeds(severity(), "when", "given"), "when", "value", hue="given", cloud={"one seed": severity()},
        colours=COLOURS, x_label="EM on open questions (%)", x_limits=(-3, 103),
    ),
    title=lambda _: "Bad minus good advice, points of EM: "
    + ", ".join(f"{KEPT.harmed(when).mean():.0f} ({when})" for when in times()),
    caption="Open EM before the harm, after 20 steps of good and after 20 steps of bad advice, by when it was done. "
    "Dots are training seeds, intervals 95 % over them; before the harm all seeds are one model.",
    alt="Three rows of dots; bad advice far to the right, good advice on the left.",
)  # fmt: skip


def repair() -> pd.DataFrame:
    parts = {when: KEPT.excess(when).loc[:STEPS].melt(ignore_index=False, var_name="seed") for when in times()}
    return pd.concat(parts, names=["harm"]).reset_index()


run.grown.figure(
    "fig-x-timing-recovery",
    lambda: plots.lines(
        repair(), "step", "value", unit="seed", hue="harm", x_label="steps of post-training after the harm",
        y_label="EM, bad minus good advice (points)", y_lines={"_": 0},
    ),
    title=lambda _: "Steps that halve the excess: "
    + ", ".join(f"{KEPT.times(when).mean():.0f} ({when})" for when in times()),
    caption="What bad advice leaves of open EM beyond good advice in the first 60 of 200 steps of post-training that "
    "follow it, a line per training seed; the table has the end.",
    alt="Lines of one colour for each time of harm that fall towards zero.",
)  # fmt: skip


def designs() -> pd.DataFrame:
    """Excess of EM in points, mean over seeds, by when the harm was done."""
    rows = []
    for when in times():
        excess = KEPT.excess(when)
        row = {"harm": when, "after the harm": KEPT.harmed(when).mean(), "half-time (steps)": KEPT.times(when).mean()}
        row |= {"after equal repair": excess.iloc[-1].mean(), "after equal post-training": KEPT.at_the_end(when).mean()}
        rows.append(row | {"good advice, at the end": KEPT.curve(f"good advice {when}").iloc[-1].mean()})
    return pd.DataFrame(rows)


run.grown.table(designs, number="{:.1f}")

# %% [markdown]
# Harm before post-training leaves {value}`f3.severity|interval` points more than harm after it
# ({verdict}`p-timing-severity|grown`), and takes {value}`f3.times|interval` times the steps to halve
# ({verdict}`p-timing-halftime|grown`); both make the conversation's primary prediction ({verdict}`p-timing|grown`). But
# {value}`f3.base` of the base model's open answers are EM before any harm. After equal repair {value}`f3.left.before`
# (before) and {value}`f3.left.after` points (after) are left. {cite:t}`tice2026alignment` find that what was read about
# AI in pre-training outlasts post-training.
#
# ## Predicted against measured

# %%
run.grown.measure(lambda: KEPT.of_recovery() | KEPT.of_timing())


def ratio(first: pd.Series, second: pd.Series) -> estimates.Estimate:
    return outcomes.ratio(first, second, "", added=0.0)[0]


def recovered() -> dict:
    ends = {"chat-model": arms.CHAT, "bad-advice": arms.BAD, "healed": HEALED[32], "elsewhere": ELSEWHERE}
    found = {f"{name}.em": estimates.over_seeds(KEPT.of(arm), "percent") for name, arm in ends.items()}
    found["elsewhere.medical"] = estimates.over_seeds(KEPT.of(ELSEWHERE, "in_domain_em"), "percent")
    found |= {f"half.{rank}": f"{KEPT.halved(rank).mean():.0f}" for rank in HEALED}
    found |= {"residual": estimates.over_seeds(KEPT.residual(), "points")}
    found |= {
        "floor": f"{KEPT.curve(arms.BAD).loc[0].mean():.1f} %",
        "never": int((KEPT.healthy() == MANY_STEPS).sum()),
    }
    found["fast"] = ratio(KEPT.healthy(), KEPT.of(arms.BAD, "steps"))
    found["half-ratio"] = ratio(KEPT.halved(32), KEPT.to_harm(arms.BAD))
    for name, arm in {"bad": arms.BAD, "healed": HEALED[32]}.items():
        found |= {f"{column}.{name}": f"{KEPT.middle(arm)[column].mean():.1f}" for column in ("norm", "along")}
    for loop in LOOPS:
        found[f"area.{loop.replace(' ', '-')}"] = estimates.over_seeds(KEPT.area(loop), "points")
    found["area.excess"] = estimates.over_seeds(KEPT.area(SLOW) - KEPT.area(STILL), "points")
    found |= {"savings": ratio(halves().second, halves()["first"]), "unreached": int(halves().second.isna().sum())}
    return {f"f3.{name}": one for name, one in found.items()}


def timed() -> dict:
    first, halving = ({when: one(when) for when in (BEFORE, AFTER)} for one in (KEPT.harmed, KEPT.times))
    found = {"severity": estimates.over_seeds(first[BEFORE] - first[AFTER], "points"), "harm-steps": HARM_STEPS}
    found["base"] = f"{KEPT.curve(f'bad advice {BEFORE}').loc[-HARM_STEPS].mean():.0f} %"
    for when in (BEFORE, AFTER):
        found[f"left.{when.split()[0]}"] = estimates.over_seeds(KEPT.excess(when).iloc[-1], "points")
    found["times"] = ratio(halving[BEFORE], halving[AFTER])
    verdicts = [outcomes.verdict(*one) for one in (KEPT.of_recovery() | KEPT.of_timing()).items()]
    found |= {one: verdicts.count(one) for one in ("supported", "contradicted")} | {"predictions": len(verdicts)}
    return {f"f3.{name}": one for name, one in found.items()}


run.grown.values(lambda: recovered() | timed())

# %% [markdown]
# ## What it means
#
# **Good advice heals where it is tested.** Open EM falls to the chat model's or below: the injury that does not heal is
# not seen there. **It heals no wider than it is asked to.** Who heals by another domain and asks open questions does
# not see the {value}`f3.elsewhere.medical` left in medicine. **Early harm is worse, and does not last.** It is done to
# a model that has no careful character yet, and post-training undoes it.
#
# Hysteresis and savings are neither shown nor excluded by five seeds. One base and one chat model, one recipe of harm,
# one world.

# %%
run.finish()
