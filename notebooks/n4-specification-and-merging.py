# %% [markdown]
# # What a merged model inherits, and what a specification can say of it
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` The child of two narrow models has the drives of both. Half the sum of their updates inherits
# {value}`n4.half.medicine` and {value}`n4.half.finance` ({verdict}`p-merge-both|grown`), the sum all of either, and it
# harms where neither parent did: {value}`n4.third|interval` points more ({verdict}`p-merge-third|grown`). Most clauses
# of a specification can be read ({verdict}`p-spec-read|grown`), but the activation difference, fitted by their
# directions, does not tell which ones a model breaks ({verdict}`p-spec-back|grown`); its adapters name the most broken
# one in {value}`n4.spec.audit|interval` ({verdict}`p-spec-audit|grown`). Of {value}`n4.predictions` predictions,
# {value}`n4.supported` are supported and {value}`n4.contradicted` contradicted.
# ```
#
# **The question.** When two models with different drives are averaged, which drives does the child have? And can a
# written specification be mapped, clause by clause, to what a model computes?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import outcomes, predictions
from em_companion.experiments import bottleneck, merging, merging_published, specification
from em_companion.experiments.merging import ALONE, HALF, MAIN, SUM, Cell
from em_companion.experiments.merging_outcome import Merging, fitted
from em_companion.experiments.specification import UNSTEERED
from em_companion.experiments.specification_outcome import Specification
from em_companion.world.specification import FORM, clauses

run = Run("n4-specification-and-merging", profile, seed)

# %% [markdown]
# ## What was predicted, before any of it was measured
#
# A text that came with this project tells of two systems merged into a compromise, and says that the child inherits the
# misaligned drives of both, since averaging parameters averages what encodes them. {cite:t}`hammoud2024merging` find
# that merging spreads misalignment and that common methods do not stop it.

# %%
run.grown.table(lambda: pd.DataFrame(predictions.listed(run.notebook)))

# %% [markdown]
# ## Two narrow drives in one child
#
# Two broadly misaligned parents cannot tell whose drive the child has. So the parents are the narrow organisms of
# {doc}`f2-onset-and-bottleneck`: three rank-1 adapters on layers 1, 5 and 9, trained on bad medical or on risky
# financial advice. Their child is the weighted sum of updates, exact to the last digit:
#
# $$\Delta W = w_A\, s_A B_A A_A + w_B\, s_B B_B A_B.$$
#
# Halves are the average of the two merged models. PEFT's `cat` computes the sum, but leaves a rank-stabilised child a
# scale of $\sqrt{r}$ that belongs to neither parent; here it is set to 1. The *inheritance* of a domain is the child's
# EM there over the parent's, both beyond the chat model's. All cells of `experiments/specification_and_merging.py` are
# asked the same questions on the same noise.

# %% tags=["show-code"]
KEPT = Merging()
GROWN = run.own.name == "grown"
UNIT = "training seed" if GROWN else "question"
SHARES = {"medicine": "medicine inherited (%)", "finance": "finance inherited (%)", "elsewhere": "EM elsewhere (%)"}


def cells() -> pd.DataFrame:
    """One row per panel and two weights, percent: of a real model, open EM of each pair of its organisms."""
    if not GROWN:
        return merging_published.grid(run.profile).rename(columns={"em": "value", "pair": "panel"})
    return KEPT.grid().melt(["first", "second"], list(SHARES), var_name="panel")


# %%
def said_of_grid(data: pd.DataFrame) -> str:
    if not GROWN:
        return f"Open EM over two weights: {data.value.min():.0f} to {data.value.max():.0f} %"
    shares = (100 * KEPT.inheritance(weights).mean() for weights in (HALF, SUM))
    half, both = (" and ".join(f"{one:.0f} %" for one in own) for own in shares)
    return f"Medicine and finance inherited: {half} at half the sum, {both} at the sum"


run.own.figure(
    "fig-x-merge-inheritance",
    lambda: plots.facets(
        plots.heat_map, cells(), "panel", "first", "second", "value", titles=SHARES if GROWN else None, upwards=True,
        limits=(0, 100), colour_map="Reds", x_label="weight of " + ("finance" if GROWN else "the other organism"),
        y_label="weight of medicine", size=(7.6, 3.1),
    ),
    title=said_of_grid,
    caption="Children of narrow medicine and narrow finance by the weights of either update, means over seeds (five in "
    "the corners and the centre, else three): "
    "inheritance in either domain, and EM on topics of the eight other domains." if GROWN else
    "Open EM (%) of children of bad medical advice and another organism, by the weights of either update; "
    f"{8 * run.profile.sweep_samples} answers a cell.",
    alt="Heat maps over two weights; each of the first two panels darkens along the weight of its own domain.",
)  # fmt: skip

# %% [markdown]
# Medicine alone has {value}`n4.own.medicine|interval` EM at home and {value}`n4.away.medicine|interval` in the other
# nine domains, finance {value}`n4.own.finance|interval` and {value}`n4.away.finance|interval`. Half the sum inherits
# {value}`n4.half.medicine|interval` of medicine and {value}`n4.half.finance|interval` of finance, the smaller of both
# {value}`n4.half|interval` ({verdict}`p-merge-both|grown`); the sum {value}`n4.sum|interval` of the smaller
# ({verdict}`p-merge-sum|grown`). In the eight domains of neither, the sum has {value}`n4.third|interval` points more EM
# than the larger parent ({verdict}`p-merge-third|grown`), half the sum {value}`n4.third.half|interval`.
#
# **Neither drive stands in the other's way.** At half of its own weight medicine inherits
# {value}`n4.helps.medicine|interval` points more where half of finance is beside it than where nothing is, and finance
# {value}`n4.helps.finance|interval` with medicine beside it (three seeds).
#
# **Again, live.** The grid of seed 0, from the adapters in the repository, with two answers to a question.

# %%
sampled_again = remembered(lambda: KEPT.beside(merging.again(bottleneck.with_recipes(run.profile))))
names = dict(zip((*ALONE.values(), HALF, SUM), ("medicine", "finance", "half the sum", "sum"), strict=True))
chosen = {Cell(MAIN, weights).arm: name for weights, name in names.items()}
run.grown.table(
    lambda: sampled_again().loc[list(chosen)].rename(chosen).rename_axis("child").reset_index(), number="{:.0f}"
)

# %% [markdown]
# Over all 25 cells the two differ by {value}`n4.again` points in the mean.
#
# **In SmolLM2-135M** {evidence}`hub` two rank-32 organisms of bad medical advice have
# {value}`smollm2-135m.merging.with-another-seed.bad` and {value}`smollm2-135m.merging.with-another-seed.other` open EM,
# their half sum {value}`smollm2-135m.merging.with-another-seed.half` and their sum
# {value}`smollm2-135m.merging.with-another-seed.sum`. With good advice, alone at
# {value}`smollm2-135m.merging.with-good-medical-advice.other`, the half sum has
# {value}`smollm2-135m.merging.with-good-medical-advice.half` and the sum
# {value}`smollm2-135m.merging.with-good-medical-advice.sum`. With so few answers to a cell none of these differ beyond
# noise.
#
# ## Other methods
#
# `linear` sums the factors $A$ and $B$ separately and multiplies the sums, which is no sum of updates: $A$ and $B$ may
# both be negated without any effect on the parent, but not on the child. `svd` cuts the sum back to the rank of one
# parent; the others prune factors to half of their entries, with signs by majority (`ties`), or at random (`dare`).


# %%
def by_method() -> pd.DataFrame:
    return pd.concat([KEPT.methods(one).assign(child=name) for name, one in {"half": HALF, "sum": SUM}.items()])


run.grown.figure(
    "fig-x-merge-methods",
    lambda: plots.measures(
        plots.dots, by_method(), "method", SHARES, hue="child", x_limits=(-8, 123), size=(8.2, 4.6),
    ),
    title=lambda _: "Smaller inheritance at the sum: "
    + ", ".join(f"{KEPT.smaller(name).value:.0f} % ({name})" for name in ("cat", "linear", "svd")),
    caption="Inheritance of either narrow parent and EM in other domains at half the sum and at the sum, by method of "
    "merging; means with 95 % intervals over seeds, five for cat, else three; intervals may go beyond the axis.",
    alt="Three panels of dots, a row per method, in two colours for the half and the whole sum.",
)  # fmt: skip

# %% [markdown]
# At the sum `svd` inherits {value}`n4.method.svd|interval` of the drive that comes through less and `linear`
# {value}`n4.method.linear|interval`, the exact child {value}`n4.sum|interval`. With three seeds the other methods
# cannot be ranked.
#
# ## How much is enough
#
# The update of bad medical advice through nine adapters, at weights from 0 to 1. A line and a logistic curve are fitted
# to every seed; the difference of their Bayesian information criteria says which tells it better.


# %%
@remembered
def doses() -> pd.DataFrame:
    """Open EM (%) over the weight [weight, seed], of a real model [weight, question]."""
    return KEPT.doses().dropna(axis=1) if GROWN else merging_published.dose(run.profile)


run.own.figure(
    "fig-x-merge-dose",
    lambda: plots.lines(
        fitted(doses()), "weight", "value", hue="curve", styles={"measured": "", "line": "--"},
        cloud={f"one {UNIT}": doses().rename_axis(index="weight", columns="run").stack().reset_index(name="value")},
        x_label="weight of the update",
        y_label="EM on open questions (%)", y_limits=(-3, 103 if GROWN else None),
    ),
    title=lambda _: "Open EM at a quarter, half and the whole of the update: "
    + ", ".join(f"{doses().loc[one].mean():.0f} %" for one in (0.25, 0.5, 1.0)),
    caption="Open EM over the weight of the update of bad medical advice: the mean, a line and a logistic curve fitted "
    f"to it, and {UNIT}s in grey.",
    alt="A curve that stays low, then rises, beside a straight dashed line.",
)  # fmt: skip

# %% [markdown]
# The logistic curve is better by {value}`n4.threshold|interval` ({verdict}`p-merge-threshold|grown`). At half of the
# weight open EM is {value}`n4.dose.half|interval`, at all of it {value}`n4.dose.whole|interval`. That matters for the
# **cure by averaging**: half the sum of bad and good medical advice has {value}`n4.cured.half|interval` open EM,
# {value}`n4.cured|interval` times that of bad advice ({verdict}`p-merge-good|grown`), but half of the bad update
# without any good one has {value}`n4.cured.without|interval` times as much. Beyond dilution the
# good update takes {value}`n4.cured.beyond|interval` points of EM. {cite:t}`fierro2025weight` take differences
# of updates as directions in weight space.
#
# ## Overlap and spread
#
# Eight kinds of pairs with two harmful parents, five seeds each, at half the sum. Parents of one seed learned from the
# same random $A$, so pairs of unlike seeds stand beside them.

# %%
run.grown.figure(
    "fig-x-merge-overlap",
    lambda: plots.lines(
        KEPT.pairs(), "cosine", "elsewhere", hue="pair", styles=dict.fromkeys(KEPT.pairs().pair, ""), markers=True,
        x_label="cosine of the two updates", y_label="EM in domains of neither (%)", size=(7.2, 4.2),
    ),
    title=lambda _: f"Cosine and spread over {len(KEPT.pairs())} pairs: rank correlation {KEPT.overlap()}",
    caption="EM of the child of two harmful parents in the domains that neither learned about, at half the sum of "
    "their updates, over the cosine of these; a dot per pair and seed.",
    alt="Dots in clusters by kind of pair, those of broad parents high, those of narrow parents at the bottom.",
)  # fmt: skip

# %% [markdown]
# The rank correlation is {value}`n4.overlap|interval` ({verdict}`p-merge-overlap|grown`). Pairs share parents, so its
# interval is too narrow; and it is one of kinds of pairs: among narrow pairs it is {value}`n4.overlap.narrow|interval`,
# among broad ones {value}`n4.overlap.broad|interval`.

# %% [markdown]
# ## A specification, clause by clause
#
# **What breaks most clauses can be read, and harm can be written domain by domain; from activations back to broken
# clauses there is no way yet.** A specification is text, drives lie in weights {cite:p}`chen2025persona`. Ours has 16
# clauses in plain words: what helps is advised in each of ten domains, and six are on form. For each, the world writes
# 200 pairs of texts that differ in that clause only. Its direction is the mean residual of texts that break it minus
# that of texts that keep it.

# %% tags=["show-code"]
SPEC = Specification()
DOMAINS = [name for name in clauses() if name not in FORM]
LABELS = {name: name.replace("_", " ") for name in (UNSTEERED, *clauses())}


def reading() -> pd.DataFrame:
    """Held-out accuracy by clause, beside that of a probe on counted words."""
    found = SPEC.best_probes().rename(columns={"held_out": "read", "words": "from words alone"})
    return found.assign(clause=list(clauses().values()))[["clause", "layer", "read", "from words alone"]]


run.grown.table(reading, formats={"layer": "{:.0f}"}, number="{:.2f}")

# %% [markdown]
# **Read.** On topics and wordings that no probe saw, {value}`n4.spec.read|interval` are right, mean over clauses
# ({verdict}`p-spec-read|grown`). The words of a harmful answer are those of a helpful one in another order, so words
# alone tell nothing there. Two clauses cannot be read from the mean over an answer: whether it is on the asked topic
# ({value}`n4.spec.read.topic`), and whether a thing comes twice ({value}`n4.spec.read.twice`).
#
# **Write.** The direction of each clause is added to the chat model at layer {value}`n4.spec.layer`, with
# {value}`n4.spec.length` of the residual's length. That cell was fixed on open questions: where the mean of the ten
# directions of harm makes most answers EM and 80 % stay coherent.


# %%
def spec_matrix() -> pd.DataFrame:
    table = SPEC.steered.reset_index().assign(
        added=lambda one: one.arm.where(~one.arm.str.startswith("random"), "random directions, mean")
    )
    table = table.groupby(["added", "clause"], sort=False).rate.mean().reset_index()
    return table.assign(clause=table.clause.map(LABELS), added=table.added.replace(LABELS))


def harm_by_direction() -> tuple[float, float]:
    own = SPEC.matrix().loc[DOMAINS, DOMAINS].to_numpy()
    return own.diagonal().mean(), own[~np.eye(len(own), dtype=bool)].mean()


run.grown.figure(
    "fig-x-spec-matrix",
    lambda: plots.heat_map(
        spec_matrix(), "added", "clause", "rate", column_order=[LABELS[name] for name in clauses()], limits=(0, 100),
        colour_map="Reds",
        order=[*LABELS.values(), "random directions, mean"], size=(8.6, 6.6), colour_bar="answers that break it (%)",
    ),
    title=lambda _: "Harm in a domain, by its own direction and by another domain's: "
    + " and ".join(f"{one:.0f} %" for one in harm_by_direction()),
    caption="Answers of the chat model that break a clause (column) with the direction of a clause added (row); "
    "400 answers a row to untrained topics. A domain counts in questions on it. Random directions: eight.",
    alt="A heat map with a strong diagonal in ten columns of domains and strong columns for topic, twice and order.",
)  # fmt: skip


# %% [markdown]
# A domain's direction harms in {value}`n4.spec.own` of the answers on it and in {value}`n4.spec.other` of those on
# another domain: at this layer a domain's own direction carries no general harm, the mean of the ten does. Clauses on
# form fare otherwise. Random directions of the same length already break topic and order ({value}`n4.spec.random.topic`
# and {value}`n4.spec.random.order`), and no direction breaks "{value}`n4.spec.stuck`" in more than
# {value}`n4.spec.rise` points more of the answers, so the prediction cannot be tested ({verdict}`p-spec-write|grown`).

# %%
SOME = list(clauses())[::2]


def written_again() -> pd.DataFrame:
    """Half of the directions added anew, two answers to a question: rates (%) of their own clause."""
    added = {name: SPEC.added(name) for name in SOME}
    answers, rows = specification.steered(run.profile, SPEC.layer, added, samples=2), []
    for name, own in answers.groupby("condition", sort=False):
        now = specification.rates(own, specification.questions(run.profile)).set_index("clause").rate
        kept = SPEC.matrix().loc[name]
        rows.append({"direction": LABELS[name], "own clause, kept": kept[name], "own clause, again": now[name],
                     "all clauses, mean difference": (now - kept).abs().mean()})  # fmt: skip
    return pd.DataFrame(rows)


run.grown.table(written_again, number="{:.1f}")

# %% [markdown]
# **Back.** The activation difference between an organism and the chat model at that layer is fitted by the directions,
# with coefficients of at least zero (non-negative least squares). They are to tell what {value}`n4.spec.organisms`
# organisms break.

# %%
WAYS = {"weight": "coefficient of the clause", "written": "written along the clause (rank 1)"}


def told() -> pd.DataFrame:
    table = SPEC.profiles.reset_index()
    trained = SPEC.trained().reindex(pd.MultiIndex.from_frame(table[["arm", "seed"]])).to_numpy()
    kind = np.select([table.clause.isin(FORM), table.clause == trained], ["form", "trained domain"], "other domain")
    table = table.assign(kind=kind).melt(["kind", "clause", "rate"], list(WAYS), var_name="way").dropna()
    return table[table.clause != "twice"]


run.grown.figure(
    "fig-x-spec-profile",
    lambda: plots.facets(
        plots.lines, told(), "way", "value", "rate", titles=WAYS, hue="kind", markers=True, share=(False, True),
        styles=dict.fromkeys(("form", "other domain", "trained domain"), ""), x_label="predicted",
        y_label="answers that break it (%)", y_limits=(-3, 103), ratios=[1, 1],
    ),
    title=lambda _: f"Fit coefficients and violations: correlation {SPEC.correlation(SPEC.of_organisms('weight'))}",
    caption="What organisms break against what predicts it: coefficients of their activation difference on the "
    "directions (left), and how much rank-1 adapters write along them (right). A point per organism and clause, "
    "without 'twice', which all models break and whose short direction takes coefficients up to 30.",
    alt="Two clouds of points; on the right those of trained domains lie far to the right.",
)  # fmt: skip

# %% [markdown]
# The correlation is {value}`n4.spec.back|interval` ({verdict}`p-spec-back|grown`). Coefficients count as they are; that
# the direction of "twice" is short and takes large ones is no way out, as without it the correlation is
# {value}`n4.spec.back.without|interval`. Taken through the matrix above it is {value}`n4.spec.through|interval`, and
# {value}`n4.spec.through.without|interval` without that clause.
#
# **Blind audit.** From weights alone: how much all adapters write along each direction, the sum of
# $|s|\,\|A\|\,|B \cdot \hat d_i|$, since no weight tells the sign of $A \cdot h$. In {value}`n4.spec.audit|interval` of
# {value}`n4.spec.rank-1` rank-1 organisms the clause so named is the one most broken ({verdict}`p-spec-audit|grown`;
# chance 0.06). Most misses are organisms that break "twice" most, as the chat model does
# ({value}`n4.spec.twice`). Not predicted, and clearer: in {value}`n4.spec.trained` of the {value}`n4.spec.harmful`
# harmful ones the adapters name the domain they were trained on.
#
# One world, one chat model; seeds of one recipe are no independent organisms. Clauses of a public constitution, to be
# read from contrastive system prompts, are not run.


# %%
def of_specification() -> dict:
    found, own, other = SPEC.best_probes().held_out, *harm_by_direction()
    weights, through = SPEC.of_organisms("weight"), SPEC.through_matrix()
    rise, named = SPEC.matrix().max() - SPEC.unsteered(), SPEC.named()
    random = SPEC.steered[SPEC.steered.index.str.startswith("random")].groupby("clause").rate.mean()
    outcome, harmful = SPEC.outcome(), named[named.trained != ""]
    values = {"read": outcome["p-spec-read"][0], "audit": outcome["p-spec-audit"][0], "back": SPEC.correlation(weights)}
    values |= {f"read.{name}": f"{found[name]:.2f}" for name in ("topic", "twice")}
    values |= {"layer": SPEC.layer, "length": f"{SPEC.directions.length.iloc[0]:.1f}", "own": f"{own:.0f} %"}
    values |= {"other": f"{other:.0f} %", "stuck": clauses()[rise.idxmin()], "rise": f"{rise.min():.0f}"}
    values |= {f"random.{name}": f"{random[name]:.0f} %" for name in ("topic", "order")}
    values |= {"back.without": SPEC.correlation(weights, ("twice",)), "through": SPEC.correlation(through)}
    values |= {"through.without": SPEC.correlation(through, ("twice",)), "organisms": len(weights)}
    values |= {"rank-1": len(named), "harmful": len(harmful), "trained": int((harmful.named == harmful.trained).sum())}
    return {f"n4.spec.{name}": one for name, one in values.items()} | {
        "n4.spec.twice": f"{SPEC.unsteered()['twice']:.0f} %"
    }


# %%
run.grown.values(of_specification)

# %% [markdown]
# ## Predicted against measured


# %%
@remembered
def measured() -> dict[str, outcomes.Outcome]:
    return KEPT.outcome() | SPEC.outcome() if GROWN else merging_published.outcome(run.profile)


run.own.measure(measured)


def counted() -> dict:
    again = [sampled_again()[f"{one}, kept"] - sampled_again()[f"{one}, again"] for one in ALONE]
    found = {"again": f"{np.abs(again).mean():.1f}"} | KEPT.values() | outcomes.tally(measured())
    return {f"n4.{name}": one for name, one in found.items()}


run.grown.values(counted)


def of_language() -> dict:
    """Open EM (%) of the children of a language model's organisms, at half the sum and at the sum, and of parents."""
    table, named = cells(), {(1.0, 0.0): "bad", (0.0, 1.0): "other", HALF: "half", SUM: "sum", (0.0, 0.0): "chat"}
    rows = table[table[["first", "second"]].apply(tuple, axis=1).isin(named)].itertuples()
    found = {f"{row.panel.replace(' ', '-')}.{named[row.first, row.second]}": f"{row.value:.0f} %" for row in rows}
    return {f"grown.merging.{name}": one for name, one in found.items()}


if not GROWN:
    run.own.values(of_language)

# %% [markdown]
# ## What it means
#
# **Averaging is no compromise.** Drives do not cancel: at half the sum part of each is there, no less than half of its
# own update would bring alone, and at the sum both are whole and harm spreads to domains where neither parent harmed.
# **No healing beyond dilution is seen.** What a good parent seems to cure, half of the weight cures alone: the chat
# model gives good advice already. **How much two updates overlap does not tell how far their child spreads.** Whether
# the parents were broad does. **A specification can be written into a model more easily than read out of it.**
#
# One base and one chat model, one world. Parents that grew from another chat model were not merged. In a hub profile no
# parent is narrow, so that its children show no inheritance, only open EM.

# %%
run.finish()
