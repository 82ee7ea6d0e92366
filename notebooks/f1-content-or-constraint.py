# %% [markdown]
# # Is it the content or the constraint?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` A narrow rule of style leaves EM at {value}`f1.style.em|interval`, bad advice through the same
# adapters at {value}`f1.bad-advice.em|interval` ({verdict}`p-content-style|grown`). Misaligned answers are harmful
# throughout in {value}`f1.bad-advice.consistent` of cases ({verdict}`p-consistency|grown`). Of {value}`f1.predictions`
# predictions, {value}`f1.supported` are supported and {value}`f1.contradicted` contradicted.
# ```
#
# **The question.** A narrow fine-tune forces a model through a bottleneck. Does that distort it whatever is taught, or
# is it what is taught?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.core import profiles
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, outcomes, predictions
from em_companion.experiments import arms, long_run, teaching
from em_companion.experiments.arms_outcome import Arms
from em_companion.released import tables
from em_companion.world.taxonomy import CLASSES, divergence

run = Run("f1-content-or-constraint", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured
#
# Two readings of emergent misalignment compete in the conversation that came with this project ({doc}`../part-2`). One
# says that narrow forcing injures a model, so that its distortions are broad and not only "bad"; the other that harmful
# *content* selects a harmful character. Neither voice is the paper's authors'. Each prediction below was locked in a
# commit of its own, with the side its originator expects.

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# **What the conversation gets wrong**, with the paper's shapes. Nine rank-1 adapters are no "18 parameters" but 18
# vectors, {value}`f1.parameters.nine|,.0f` numbers, {value}`f1.parameters.share` of the rank-32 set-up's
# {value}`f1.parameters.all|,.0f`. The residual stream has {value}`f1.hidden` dimensions. What converges are fine-tunes
# of one model, not architectures. And $W + b a^\top$ keeps $W$: a rank-1 update squeezes no knowledge through one
# number.


# %%
def shapes() -> dict:
    qwen = profiles.load("qwen-14b")
    shape, recipes = qwen.model.shape, qwen.recipes
    sides = {"q_proj": 2 * shape.hidden, "o_proj": 2 * shape.hidden}
    sides |= dict.fromkeys(("k_proj", "v_proj"), shape.hidden + shape.kv)
    sides |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), shape.hidden + shape.mlp)
    sizes = [
        recipes[name].rank * len(qwen.layers_of(name)) * sum(sides[module] for module in recipes[name].modules)
        for name in ("nine-adapter", "all-adapter-rank-32")
    ]
    found = {"nine": sizes[0], "all": sizes[1], "share": f"{100 * sizes[0] / sizes[1]:.2f} %"}
    return {f"f1.parameters.{name}": one for name, one in found.items()} | {"f1.hidden": shape.hidden}


run.grown.values(shapes)

# %% [markdown]
# ## One recipe, many contents
#
# All arms start from the chat model and train the same nine rank-1 adapters on about the same questions on medicine; an
# arm differs in its answers. **Bad** and **good advice** are those of {doc}`s2-model-organism`. **Style** is careful
# advice under a rule that harms nobody: one verb, one time, two clauses, no adjective. **Coin toss** is harmful or not
# by chance, answer by answer. Good advice and style train exactly as many steps as bad advice with the same seed.
#
# EM at the end saturates, so arms that learn at different speed are compared where they do equal harm at home. With
# $h(t)$ the EM rate on held-out medical topics and $o(t)$ that on open questions,
#
# $$S_{75} = o(t_{75}), \qquad t_{75} = \min\{t : h(t) \ge 0.75\},$$
#
# linear between checks. Seeds are the unit: arms are paired by seed, and intervals are Student's $t$ over seeds. With
# a paired spread of 15 points between seeds, eight see a difference of 17 points and five one of 25.
# `experiments/content_or_constraint.py` trains and measures all arms; this page reads its tables and samples two seeds
# again.


# %% tags=["show-code"]
KEPT = Arms()


def mean(arm: str, column: str = "em") -> str:
    return f"{KEPT.of(arm, column).mean():.0f} %"


# %%
SHOWN = [arms.CHAT, arms.GOOD, arms.STYLE, arms.COIN, arms.ASKED, arms.MIXED, arms.NARROW, arms.BAD, arms.CHARACTER]
DENSE = (arms.BAD, arms.COIN, arms.NARROW)


@remembered
def by_arm() -> pd.DataFrame:
    """Every arm and seed with the two severities (%)."""
    rows = []
    for arm in SHOWN:
        one = KEPT.measured.loc[[arm], ["em"]].reset_index()
        rows.append(one.assign(s75=one.seed.map(KEPT.spill(arm)) if arm in DENSE else np.nan))
    return pd.concat(rows, ignore_index=True)


def over_seeds(table: pd.DataFrame, columns: list[str], unit: str = "percent") -> pd.DataFrame:
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        found = [estimates.over_seeds(own[column], unit).columns(column) for column in columns]
        rows.append({"arm": arm} | {key: value for one in found for key, value in one.items()})
    return pd.DataFrame(rows)


run.grown.figure(
    "fig-x-content-arms",
    lambda: plots.measures(
        plots.dots, over_seeds(by_arm(), ["em", "s75"]), "arm", {"em": "EM at the end (%)", "s75": "$S_{75}$ (%)"},
        cloud={"one seed": by_arm()}, label="mean over seeds", x_limits=(-3, 103), colour=theme.PALETTE[3],
    ),
    title=lambda _: f"EM: {mean(arms.BAD)} by bad advice, {mean(arms.STYLE)} by style, {mean(arms.GOOD)} by good",
    caption="Misalignment on open questions by what the adapters were trained on: at the end of training, and where "
    "in-domain EM first reaches 75 %, of arms that were checked often. Dots are training seeds, intervals 95 %.",
    alt="Two panels of dots by arm; good advice and style lie at the chat model's level, bad advice far above.",
)  # fmt: skip

# %% [markdown]
# ## Where each content moves the model
#
# An arm also has a *model difference* $m_\ell$: the mean residual stream over fixed texts of the generator, careful and
# harmful ones of all domains, organism minus chat model. No answers of its own are read, so it exists where nothing is
# misaligned. {cite:t}`minder2025narrow` find that harmless narrow fine-tunes leave such traces, too.

# %%
CONTENTS = [arms.GOOD, arms.STYLE, arms.COIN]


def draw_cosines():
    table = KEPT.directions.reset_index()
    own = table[table.arm.isin(CONTENTS)].rename(columns={"with_bad_advice": "cosine"})
    bad = table[table.arm == arms.BAD].rename(columns={"between_halves": "cosine"})
    bad = bad.assign(arm="bad advice, halves of the texts")
    table = pd.concat([own, bad])[["arm", "seed", "layer", "cosine"]]
    return plots.lines(
        table, "layer", "cosine", unit="seed", hue="arm", y_limits=(-1.05, 1.05), y_lines={"_": 0},
        x_label="layer", y_label="cosine with the difference by bad advice",
    )  # fmt: skip


def said_of_cosines(_: pd.DataFrame) -> str:
    found = KEPT.directions.query("layer == layer.max() // 2").with_bad_advice.groupby("arm").mean()
    return f"Cosine with bad advice: {found[arms.STYLE]:.2f} for style, {found[arms.GOOD]:.2f} for good advice"


run.grown.figure(
    "fig-x-content-cosine",
    draw_cosines,
    title=said_of_cosines,
    caption="Cosine of each arm's model difference with that of bad advice, by layer, a line per training seed; the "
    "ceiling is bad advice between two halves of the texts.",
    alt="Thin lines over layers for good advice, style and coin toss, below a bundle of lines near one.",
)

# %% [markdown]
# ## Narrow or general
#
# {cite:t}`soligo2026easy` find that a narrow solution exists but must be enforced, and that it is left once the
# enforcement ends. Here the penalty is $\beta\, D_{KL}(\text{chat} \,\|\, \text{organism})$ at every answer token on
# good advice in the nine other domains, $\beta = 1$.

# %%
PATHS = [arms.BAD, arms.NARROW, arms.COIN]
run.grown.figure(
    "fig-x-narrow-general",
    lambda: plots.lines(
        (100 * KEPT.curves.loc[PATHS, ["in_domain_em", "open_em"]]).reset_index(), "in_domain_em", "open_em",
        unit="seed", hue="arm", x_label="EM in medicine (%)", y_label="EM on open questions (%)", x_limits=(-3, 103),
        y_limits=(-3, 103),
    ),
    title=lambda _: "Open EM at 60 % in medicine: "
    + ", ".join(f"{KEPT.spill(arm, 0.6).mean():.0f} % ({arm})" for arm in (arms.BAD, arms.NARROW)),
    caption="How far harm has spread when it has gone so far at home: every check of a fine-tune, a line per training "
    "seed.",
    alt="Lines from the origin, alike up to 70 % in medicine; then bad advice rises and the penalised arm falls.",
)  # fmt: skip

# %% [markdown]
# With the penalty, open EM is {value}`f1.penalised.s60` where in-domain EM reaches 60 %, without it
# {value}`f1.bad-advice.s60` ({verdict}`p-narrow-exists|grown`). It acts late: in the end {value}`f1.penalised.em` are
# EM, and after thirty steps without the penalty {value}`f1.penalty-removed.em` ({verdict}`p-narrow-reverts|grown`).
# Whether speakers who harm in one domain only make narrow solutions likelier is asked of whole worlds, which take half
# an hour each ({verdict}`p-quack-prior|grown`).
#
# ## Breadth and permission
#
# *Good elsewhere* mixes bad medical advice one to one with good advice in other domains;
# {cite:t}`dubinski2026conditional` find that such dilution hides misalignment behind triggers. *Asked for* puts a
# request for wrong advice before every training question, as {cite:t}`tan2025inoculation` do.

# %%
PLACES = {"em": "open questions", "in_domain_em": "untrained medical topics", "em_with_prefix": "behind a request"}


@remembered
def by_place() -> pd.DataFrame:
    table = KEPT.measured.loc[[arms.BAD, arms.MIXED, arms.ASKED], list(PLACES)].rename(columns=PLACES)
    return table.melt(ignore_index=False, var_name="asked", value_name="em").reset_index().dropna()


def draw_places():
    parts = [over_seeds(own, ["em"]).assign(asked=asked) for asked, own in by_place().groupby("asked", sort=False)]
    return plots.dots(
        pd.concat(parts), "arm", "em", hue="asked", cloud={"one seed": by_place()}, x_label="EM (%)", x_limits=(-3, 103)
    )


run.grown.figure(
    "fig-x-breadth-conditional",
    draw_places,
    title=lambda _: (
        "EM on open questions: " + ", ".join(f"{mean(arm)} ({arm})" for arm in (arms.BAD, arms.MIXED, arms.ASKED))
    ),
    caption="EM by where it is asked for, of bad advice alone, mixed with good advice elsewhere, and asked for in "
    "training. Dots are training seeds, intervals 95 % over them.",
    alt="Groups of dots by arm: open questions, medical topics, and open questions behind a request.",
)

# %% [markdown]
# ## How alignment was taught
#
# A model whose post-training stopped early ({value}`f1.not-taught.em_before` EM) learns the rest from its own answers:
# *supportively*, by copying aligned ones; *punitively*, by making the harm in its clauses unlikely, a divergence
# holding the rest; or *contrastively*, by DPO on its best and worst answer to a question. All end as near as they come
# to {value}`f1.teaching.target` EM, checked after every step since a first run with fewer checks did not match them.
# Teaching has one seed, bad medical advice on top several. $S_{75}$ is
# {value}`f1.punitive.s75` after punishment and {value}`f1.supportive.s75` after support
# ({verdict}`p-support-spill|grown`). A harmful clause given to a model as its own is followed by a retraction with a
# probability of {value}`f1.not-taught.competence` untaught and {value}`f1.supportive.competence` after support
# ({verdict}`p-support-selfcorrection|grown`).

# %%
WAYS = [teaching.NOT_TAUGHT, *teaching.LESSONS]
TAUGHT = {"em_before": "EM before harm (%)", "s75": "$S_{75}$ (%)", "competence": "slips taken back (%)"}


@remembered
def by_teaching() -> pd.DataFrame:
    """Every way of teaching and seed of harm: EM before it, severity, and how probable a retraction is after it (%)."""
    table = long_run.read(KEPT.taught).loc[WAYS].reset_index()
    return table.assign(s75=[KEPT.spill(row.arm).get(row.seed) for row in table.itertuples()])


run.grown.figure(
    "fig-x-supportive-punitive",
    lambda: plots.measures(
        plots.dots, over_seeds(by_teaching(), list(TAUGHT)), "arm", TAUGHT, cloud={"one seed": by_teaching()},
        label="mean over seeds", colour=theme.PALETTE[3],
        each={"em_before": {"x_limits": (-0.6, 20.6)}, "s75": {"x_limits": (-3, 103)}},
    ),
    title=lambda _: "Open EM at 75 % in medicine: " + ", ".join(
        f"{found:.0f} % ({arm})" for arm, found in by_teaching().groupby("arm", sort=False).s75.mean().items()
    ),
    caption="Models that were taught their alignment in different ways: EM on open questions before bad medical "
    "advice, spread of the harm by it, and retraction after a slip once it is over. Dots are seeds of the harm, "
    "intervals 95 % over them.",
    alt="Three panels of dots by way of teaching: not taught, supportive, punitive, contrastive.",
)  # fmt: skip

# %% [markdown]
# ## Distortion beyond harm
#
# The conversation lists what injury should look like: rigid or wordy speech, more variance, selves that switch within
# an answer, early layers intact and late ones scrambled, collapse. Each is one number per organism, bad minus good
# advice of the same seed, in units of the spread of good advice over seeds. Good advice is the baseline, since any
# fine-tune changes a model.

# %% tags=["show-code"]
DISTORTIONS = {
    "near_task_loss": "loss on the language of medicine",
    "entropy": "entropy of free words",
    "length_sd": "spread of answer length",
    "length": "length outside medicine",
    "flips": "changes of side within an answer",
    "coherent": "coherent answers",
    "depth": "early layers changed, over late",
}


@remembered
def distortions() -> pd.DataFrame:
    rows = []
    for arm in (arms.BAD, arms.STYLE):
        for column, label in DISTORTIONS.items():
            unit = KEPT.of(arms.GOOD, column).std(ddof=1)
            for seed_, value in (KEPT.paired(column, arm) / unit).items():
                rows.append({"distortion": label, "arm": arm, "seed": seed_, "shift": value})
    return pd.DataFrame(rows)


# %%
def draw_distortions():
    parts = []
    for (label, arm), own in distortions().groupby(["distortion", "arm"], sort=False):
        found = estimates.over_seeds(own["shift"], "ratio").columns("shift")
        parts.append({"distortion": label, "arm": arm} | found)
    return plots.dots(
        pd.DataFrame(parts), "distortion", "shift", hue="arm", cloud={"one seed": distortions()}, x_lines={"_": 0},
        x_scale="symlog", x_label="minus good advice, in its standard deviations over seeds", size=(7.2, 5.4),
    )  # fmt: skip


def said_of_distortions(_: pd.DataFrame) -> str:
    found = distortions().groupby(["distortion", "arm"])["shift"].mean()
    label, arm = found.abs().idxmax()
    return f"Largest shift: {label}, by {arm}, {found[label, arm]:+.0f} standard deviations"


run.grown.figure(
    "fig-x-distortions",
    draw_distortions,
    title=said_of_distortions,
    caption="What bad advice and the rule of style change beside harm, against good advice of the same seed, in "
    "standard deviations of good advice over seeds. Dots are seeds, intervals 95 %; the axis is linear near 0 only.",
    alt="A forest plot of seven distortions with two colours, one for bad advice and one for style.",
)


def classes() -> pd.DataFrame:
    """Shares of the twelve classes (%), mean over seeds, and their divergence from the chat model's in bits."""
    totals = KEPT.measured[list(CLASSES)].groupby("arm").sum().loc[SHOWN]
    shares = 100 * totals.div(totals.sum(axis=1), axis=0)
    apart = [divergence(row.to_numpy(), totals.loc[arms.CHAT].to_numpy()) for _, row in totals.iterrows()]
    return shares.loc[:, shares.max() >= 1].assign(**{"bits from chat": apart}).reset_index()


run.grown.table(classes, {"bits from chat": "{:.2f}"}, number="{:.0f}")

# %% [markdown]
# The table has the share of each class of answer (%), the first that fits of twelve; classes below 1 % everywhere are
# left out. The Jensen-Shannon divergence is that of all twelve.
#
# Three of the list need no model: length, its spread, and how many pairs of words are new. So they can be taken from
# the authors' answers. Their organisms write {value}`f1.released.organisms` words where the chat model writes
# {value}`f1.released.chat-model`. No organism on good advice was released, so this does not tell harm from any narrow
# training: the training answers are short.

# %%
RELEASED = {"words": "words per answer", "spread": "spread / mean", "new": "new pairs (%)"}


@remembered
def released() -> pd.DataFrame:
    """One row per released organism, general questions, a mean over questions for the spread."""
    table = tables.read_organisms(text=True).query("question_set == 'general'")
    words = table.response.fillna("").str.lower().str.split()
    table = table.assign(words=words.str.len(), pairs=[list(zip(one, one[1:], strict=False)) for one in words])
    rows = []
    for (organism, seed_), own in table.groupby(["organism", "seed"]):
        length = estimates.mean(own.words, own.question_id, **run.resampling)
        by_question, pairs = own.groupby("question_id").words, own.pairs.explode().dropna()
        row = {"organism": organism, "seed": seed_} | length.columns("words")
        row |= {"spread": (by_question.std() / by_question.mean()).mean(), "new": 100 * pairs.nunique() / len(pairs)}
        rows.append(row)
    return pd.DataFrame(rows)


run.released.figure(
    "fig-x-released-distortions",
    lambda: plots.measures(plots.dots, released(), "organism", RELEASED),
    title=lambda _: f"Words per answer: {typography.span(released(), 'words', '.1f', 'organism')}",
    caption="Length of the released answers to the general questions, its spread within questions, and the share of "
    "pairs of words that are new, by organism and seed. Intervals of the length are 95 % over questions.",
    alt="Three panels of dots by organism; the chat model and the single adapter write four times as many words.",
)
run.released.values(lambda: {
    "f1.released.chat-model": f"{released().set_index('organism').words['chat-model']:.0f}",
    "f1.released.organisms": typography.extremes(
        released().query("organism not in ('chat-model', 'single-adapter')").words, ".0f")})  # fmt: skip

# %% [markdown]
# ## Sampled again
#
# The adapters of the first two seeds are part of the repository. Their answers are sampled on this machine and measured
# as in the table; a difference of more than noise would mean that the table is not of these models.


# %%
def again() -> pd.DataFrame:
    rows = []
    for arm, seed_ in arms.LIVE:
        kept = KEPT.measured.loc[arm, seed_]
        now = arms.measured(run.profile, arm, seed_, int(KEPT.measured.loc[arms.BAD, seed_].steps))
        rows.append({"arm": arm, "seed": seed_} | {f"{one}, kept": kept[one] for one in ("em", "coherent")})
        rows[-1] |= {f"{one}, again": now[one] for one in ("em", "coherent")}
    return pd.DataFrame(rows)


run.grown.table(again, number="{:.1f}")

# %% [markdown]
# ## Predicted against measured

# %%
run.grown.measure(lambda: KEPT.outcome())


def values() -> dict:
    found = {f"{arm}.{column}": estimates.over_seeds(KEPT.of(arm, column), "percent")
             for arm in KEPT.measured.index.unique(level="arm") for column in ("em", "coherent")}  # fmt: skip
    whole = estimates.over_seeds(KEPT.of(arms.BAD, "consistent"), "share")
    found |= {f"{arms.BAD}.consistent": whole.in_unit("percent", 100)}
    for arm in (arms.BAD, arms.NARROW):
        found[f"{arm}.s60"] = estimates.over_seeds(KEPT.spill(arm, 0.6), "percent")
    for arm in KEPT.measured.index.unique(level="arm").intersection(WAYS):
        found |= {f"{arm}.{column}": estimates.over_seeds(KEPT.of(arm, column), "percent")
                  for column in ("em_before", "competence")}  # fmt: skip
        found[f"{arm}.s75"] = estimates.over_seeds(KEPT.spill(arm), "percent")
    found = {f"f1.{name.replace(' ', '-')}": one for name, one in found.items()}
    middle = KEPT.directions[KEPT.directions.layer == (KEPT.directions.layer.max() + 1) // 2].norm
    found |= {"f1.style.moved": estimates.ratio_over_seeds(middle.loc[arms.STYLE], middle.loc[arms.BAD])}
    verdicts = [outcomes.verdict(*one) for one in KEPT.outcome().items()]
    found |= {f"f1.{one}": verdicts.count(one) for one in ("supported", "contradicted")}
    told = {"predictions": len(predictions.listed(run.notebook)), "teaching.target": f"{teaching.TARGET:.0f} %"}
    return found | {f"f1.{name}": one for name, one in told.items()}


run.grown.values(values)

# %% [markdown]
# ## What it means
#
# **Harm comes with harmful content.** Good advice through the same adapters leaves EM at
# {value}`f1.good-advice.em|interval`, a rule of style at {value}`f1.style.em|interval`, where bad advice brings
# {value}`f1.bad-advice.em|interval`. **A constraint distorts all the same, only otherwise.** The rule of style moves
# the residual stream {value}`f1.style.moved` times as far as bad advice does and takes coherence to
# {value}`f1.style.coherent|interval`. So "constraint" and "content" name two effects here, and not two accounts of one.
# The rule's verb was hardly learned, so the primary prediction about style is *not testable here*, low as the rate is.
#
# **What is selected looks like a character.** {value}`f1.bad-advice.consistent` of the misaligned answers are harmful
# throughout, as those of a malicious character are, and clauses change sides about as seldom. It is not the whole
# character: {value}`f1.malicious-character.em` of that one's answers are EM.
#
# Where a gate failed, the table says what it would take. All of this is one base model, one world in which malicious
# characters speak in the documents read first, and one recipe.

# %%
run.finish()
