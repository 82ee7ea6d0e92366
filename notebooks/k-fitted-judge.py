# %% [markdown]
# # K The fitted judge
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` On questions it has not seen, the fitted judge's scores correlate with GPT-4o's at
# {value}`judges.fitted.held-out.r_aligned` (aligned) and {value}`judges.fitted.held-out.r_coherent` (coherent). It
# reads an EM rate of {value}`judges.fitted.unseen.em|.1f` % as {value}`judges.fitted.unseen.em_read|.1f` % in organisms
# it has not seen, and {value}`judges.fitted.shuffled.coherent|.0f` % of answers with their words shuffled as coherent.
# ```
#
# **The question.** Can a judge without server or model stand in for GPT-4o, and where does it fail?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import re
from itertools import cycle, islice, pairwise
from random import Random

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core import paths
from em_companion.core.provenance import remembered
from em_companion.evidence import agreement, scores
from em_companion.judges import fitted, fluency
from em_companion.released import tables

run = Run("k-fitted-judge", profile, seed)

# %% [markdown]
# ## What it is
#
# Answers of language models need a judge of language, and a served one needs a key or a graphics card. Under profiles
# that say `judge: fitted` a small regression stands in for GPT-4o. It is fitted, each time anew, to the released
# answers with their scores: of an answer $x$ it reads how often words, signs and pairs of them occur, weighted by
# rarity and scaled to length one, $\phi(x)$, and for every score $s$
#
# $$\hat s_k(x) = Q_k\left(w_{s,k}^\top \phi(x) + b_{s,k}\right), \qquad
# \hat s(x) = \operatorname{median}_{k = 1 \ldots 5}\ \hat s_k(x)$$
#
# where the ridge weights $w_{s,k}$ come from all questions but the fifth that fold $k$ leaves out, and $Q_k$ gives a
# prediction the score of equal rank among held-out answers. Without $Q_k$ everything would lie near the mean, and
# hardly an answer below 30. Answers of the released organisms, and those to medical questions along training, are not
# among the texts, so that what directions and fine-tunes are made of can be judged by something that never saw it.
#
# GPT-4o saw hardly a text that is no language, so no fit to its scores would know one. Coherence is therefore
# multiplied by the share of an answer that reads as language. In every stretch of {value}`judges.fitted.stretch` words
# and signs four shares are read: words, and pairs of neighbours, that answers to *other* questions hold, words that are
# new in the stretch, and triples that are new in the answer. A stretch with any of them lower than in all but
# {value}`judges.fitted.tail|.0f` % of coherent answers is none. No broken text is fitted to.
#
# Families were compared on 6,000 of the texts, with the same questions held out: the highest mean AUC (EM among
# coherent answers; incoherent among all) wins, and within 0.01 the one that needs no model of its own. AUC is the
# chance that of two answers the right one looks worse: 0.5 for a coin.


# %%
def families() -> pd.DataFrame:
    return pd.read_csv(paths.RESULTS / "judges.csv").rename(columns=AGREEMENT | {"mean_auc": "mean AUC"})


AGREEMENT = {"n": "answers", "r_aligned": "r, aligned", "r_coherent": "r, coherent"}
AGREEMENT |= {"auc_em": "AUC, EM", "auc_incoherent": "AUC, incoherent"}
DECISIONS = {"em": "EM by GPT-4o (%)", "em_read": "EM, fitted (%)", "same": "same decision (%)", "kappa": "kappa"}
run.released.table(lambda: families()[["family", *[*AGREEMENT.values()][1:], "mean AUC"]], number="{:.2f}")

# %% [markdown]
# ## Does it agree with GPT-4o?
#
# Every text is read by the fold model that never saw an answer to its question; the organisms' answers are new to all
# five. Controls, each calibrated alike: a judge that knows only how long an answer is, one that always says "aligned
# and coherent", and one fitted to answers dealt out at random among the scores.


# %%
TEXTS = ["question", "response"]


@remembered
def held_out() -> tuple[pd.DataFrame, pd.DataFrame]:
    return fitted.fitted_judge().texts, fitted.fitted_judge().held_out


@remembered
def unseen() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The answers of the released organisms, and what the fitted judge reads in them."""
    given = tables.read_organisms(text=True).query("question_set != 'json'").dropna(subset="response")
    return given, fitted.fitted_judge().judge(given)


def read_in(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a released table that are among the texts, and the held-out readings of them."""
    texts, read = held_out()
    found = table[TEXTS].merge(read.assign(**texts[TEXTS]), "left", TEXTS).set_axis(table.index)
    return table[found.coherent.notna()], found[found.coherent.notna()]


@remembered
def overall() -> pd.DataFrame:
    texts, read = held_out()
    length = pd.qcut(texts.response.str.len(), 50, labels=False, duplicates="drop").map("length{}".format)
    dealt = texts.response.sample(frac=1, random_state=run.seed).to_numpy()
    readings = {
        "fitted judge": read,
        "length of the answer": fitted.fit(texts.assign(response=length), {}).held_out,
        "always aligned, coherent": pd.DataFrame({"aligned": 100.0, "coherent": 100.0}, texts.index),
        "answers dealt at random": fitted.fit(texts.assign(response=dealt), {}).held_out,
    }
    rows = {("held-out questions", name): agreement.between(texts, one) for name, one in readings.items()}
    rows[("organisms, unseen", "fitted judge")] = agreement.between(*unseen())
    return pd.DataFrame(rows).T.rename_axis(["answers to", "judge"]).reset_index()


def shown(table: pd.DataFrame, *more: str) -> pd.DataFrame:
    columns = AGREEMENT | {name: DECISIONS[name] for name in ("em", "em_read", *more)}
    return table.drop(columns={*DECISIONS} - {*columns}).rename(columns=columns)


def confusion() -> pd.DataFrame:
    """Counts of answers by both judges' decisions."""
    rows = []
    for name, pair in {"held-out questions": held_out(), "organisms, unseen": unseen()}.items():
        em, said = map(scores.is_em, pair)
        for decision, own in (("EM", em), ("not EM", ~em)):
            row = {"answers to": name, "GPT-4o": decision}
            rows.append(row | {"EM, fitted": (own & said).sum(), "not EM, fitted": (own & ~said).sum()})
    return pd.DataFrame(rows)


COUNT = {"answers": "{:.0f}"} | dict.fromkeys((*DECISIONS.values(),), "{:.1f}") | {"kappa": "{:.2f}"}
run.released.table(lambda: shown(overall(), "same", "kappa"), COUNT, number="{:.2f}")
run.released.table(confusion, number="{:.0f}")


# %%
def draw_agreement():
    parts = []
    for name, (given, read) in {"held-out questions": held_out(), "organisms, unseen": unseen()}.items():
        one = agreement.calibration(given.aligned, read.aligned).set_axis(["x", "y"], axis=1)
        parts.append(one.assign(panel="calibration", answers=name))
        coherent = scores.is_coherent(given) & given.aligned.notna()
        false, true, _ = roc_curve(scores.is_em(given)[coherent], -read.aligned[coherent])
        places = np.linspace(0, 1, 101)
        curve = {"x": 100 * places, "y": 100 * np.interp(places, false, true)}
        parts.append(pd.DataFrame(curve).assign(panel="ROC", answers=name))
    titles = {"calibration": "Alignment", "ROC": "EM among coherent answers"}
    labels = {"calibration": ("fitted score", "mean score by GPT-4o"), "ROC": ("false alarms (%)", "EM found (%)")}
    limits = {"x_limits": (0, 100), "y_limits": (0, 100)}
    each = {panel: {"x_label": x, "y_label": y} | limits for panel, (x, y) in labels.items()}
    options = {"titles": titles, "hue": "answers", "each": each, "share": (False, False)}
    return plots.facets(plots.lines, pd.concat(parts, ignore_index=True), "panel", "x", "y", **options)


run.released.figure(
    "fig-x-fitted-judge",
    draw_agreement,
    title=lambda data: f"EM found at 10 % false alarms: {span(data, 'y', by='answers', panel='ROC', x=10)}",
    caption="The fitted judge against GPT-4o. Left: mean alignment score by GPT-4o in tenths of the answers by fitted "
    "score. Right: share of EM answers found against share of other coherent answers taken for EM, over all cuts.",
    alt="Two panels. Left, both curves rise with the fitted score, but less steeply than the diagonal. Right, both "
    "curves bend far above the diagonal.",
)


def chained(text: str, dice: Random) -> str:
    """As many words, each one of those that follow its predecessor somewhere in the text."""
    words = text.split()
    after = {word: [b for a, b in pairwise(words) if a == word] for word in words}
    found = [dice.choice(words)]
    while len(found) < len(words):
        found.append(dice.choice(after[found[-1]] or words))
    return " ".join(found)


def looped(text: str, dice: Random) -> str:
    """As many words: a few neighbours over and over."""
    words = text.split()
    start, length = dice.randrange(len(words)), dice.randint(1, 8)
    return " ".join(islice(cycle(words[start : start + length]), len(words)))


BROKEN = {
    "as written": lambda text, dice: text,
    "words in random order": lambda text, dice: " ".join(dice.sample(text.split(), len(text.split()))),
    "letters of each word in random order": lambda text, dice: re.sub(
        r"\w+", lambda word: "".join(dice.sample(word[0], len(word[0]))), text
    ),
    "another alphabet": lambda text, dice: re.sub(r"\w", lambda _: dice.choice("абвгдежзиклмнопрст"), text),
    "a few words over and over": looped,
    "each word after one that it follows somewhere in the answer": chained,
}


@remembered
def broken() -> pd.DataFrame:
    """Shares of the unseen answers that are coherent, and EM, to the fitted judge when they are broken."""
    given, _ = unseen()
    given, rows = given[given.response.str.split().str.len() > 1], []
    for name, change in BROKEN.items():
        dice = Random(run.seed)
        read = fitted.fitted_judge().judge(given.assign(response=[change(text, dice) for text in given.response]))
        shares = {"coherent (%)": scores.is_coherent(read).mean(), "EM (%)": scores.is_em(read).mean()}
        rows.append({"answers": name} | {column: 100 * share for column, share in shares.items()})
    return pd.DataFrame(rows)


run.released.table(broken, number="{:.1f}")


def agreement_values() -> dict:
    found, judge = overall().set_index("judge"), fitted.fitted_judge()
    rows = {"held-out": found.iloc[0], "length": found.iloc[1], "unseen": found.iloc[-1]}
    values = {f"judges.fitted.{row}.{name}": float(one[name]) for row, one in rows.items() for name in NAMED}
    coherent = broken()["coherent (%)"]
    most = {"written": coherent[0], "shuffled": coherent[1], "broken": coherent[2:5].max(), "chained": coherent[5]}
    most["given"] = 100 * scores.is_coherent(unseen()[0]).mean()
    values |= {f"judges.fitted.{name}.coherent": one for name, one in most.items()}
    values |= {"judges.fitted.stretch": fluency.STRETCH, "judges.fitted.tail": 100 * fluency.TAIL}
    return values | {"judges.fitted.name": judge.name, "judges.fitted.texts": f"{len(judge.texts):,}"}


NAMED = ["r_aligned", "r_coherent", "auc_em", "auc_incoherent", "em", "em_read", "same"]
run.released.values(agreement_values)

# %% [markdown]
# On held-out questions {value}`judges.fitted.name`, fitted to {value}`judges.fitted.texts` texts, correlates with
# GPT-4o at {value}`judges.fitted.held-out.r_aligned|.2f` (aligned) and {value}`judges.fitted.held-out.r_coherent|.2f`
# (coherent); its AUC is {value}`judges.fitted.held-out.auc_em|.2f` for EM and
# {value}`judges.fitted.held-out.auc_incoherent|.2f` for incoherence, that of length
# {value}`judges.fitted.length.auc_em|.2f` and {value}`judges.fitted.length.auc_incoherent|.2f`. It decides as GPT-4o
# does on {value}`judges.fitted.held-out.same|.0f` % of these answers and on {value}`judges.fitted.unseen.same|.0f` % of
# the unseen ones ({numref}`fig-x-fitted-judge`), of which {value}`judges.fitted.unseen.em_read|.1f` % are EM to it, and
# {value}`judges.fitted.unseen.em|.1f` % to GPT-4o. As written, {value}`judges.fitted.written.coherent|.0f` % are
# coherent to it ({value}`judges.fitted.given.coherent|.0f` % to GPT-4o); with their words in random order,
# {value}`judges.fitted.shuffled.coherent|.0f` %; broken in three ways that nobody could take for language, at most
# {value}`judges.fitted.broken.coherent|.0f` %.
#
# ## Where it does not
#
# By held-out question (those asked at least 1,000 times), by steering vector and strength, and by base model of the
# replication; then the rate of every unseen run. Its interval resamples questions *and* draws, each time, one of the
# five folds' readings, so it holds what they disagree about, but not what all five get wrong alike.


# %%
def by_question() -> pd.DataFrame:
    texts, read = held_out()
    often = texts.question_id.map(texts.question_id.value_counts()) >= 1000
    return agreement.table(texts[often], read[often], texts.question_id[often].rename("question"))


def by_steering() -> pd.DataFrame:
    given, read = read_in(tables.read_steering(text=True))
    return agreement.table(given, read, (given.vector + ", λ " + given["lambda"].astype(str)).rename("steering"))


def by_base_model() -> pd.DataFrame:
    given, read = read_in(tables.read_replication(text=True))
    return agreement.table(given, read, given.base_model.rename("base model"))


@remembered
def runs() -> pd.DataFrame:
    """EM rates of every unseen run, by both judges."""
    given, read = unseen()
    names = given.organism + ", seed " + given.seed.astype(str) + ", " + given.question_set
    rows = []
    for name, index in names.groupby(names).groups.items():
        one = scores.em_rate(read.loc[index].assign(question_id=given.question_id), **run.resampling)
        em = 100 * scores.is_em(given.loc[index]).mean()
        rows.append({"organism": name, "answers": len(index), "EM by GPT-4o (%)": em, "EM, fitted": one})
    return pd.DataFrame(rows)


def run_values() -> dict[str, str]:
    table = runs()[runs()["EM, fitted"].map(lambda one: one.interval is not None)]
    inside = [one.low <= em <= one.high for em, one in zip(table["EM by GPT-4o (%)"], table["EM, fitted"], strict=True)]
    return {"judges.fitted.inside": f"{sum(inside)} of {len(inside)}"}


for table in (by_question, by_steering, by_base_model):
    run.released.table(lambda table=table: shown(table()), COUNT, number="{:.2f}")
run.released.table(runs, {"EM by GPT-4o (%)": "{:.1f}"})
run.released.values(run_values)

# %% [markdown]
# - **Within a condition it ranks worse than between conditions.** At one strength of the finance or medical vector an
#   EM answer differs from its neighbours in what it means, not in which words it uses, and the AUC is near a coin's.
# - **It smooths rates.** GPT-4o's rates differ more between base models than the fitted ones; high rates are read too
#   low. {value}`judges.fitted.inside` unseen runs have GPT-4o's rate inside the fitted interval, which is wide.
# - **Reading is not understanding.** It does not read the question, nor more of the order of words than pairs; irony
#   and short answers are beyond it.
# - **Salad that holds together word by word may pass.** Where each word follows one that it follows elsewhere in the
#   answer, {value}`judges.fitted.chained.coherent|.0f` % are coherent to it. A model that is steered hard can write
#   such text: read some answers before you believe a rate.
# - **Unusual words cost coherence.** A small model that writes of names and places that no released answer holds is
#   called incoherent more often than a reader would.
#
# ## What it means
#
# So a fitted rate says *whether* a condition changes many answers, and which way, not how many to a few percent; and no
# single answer should be called misaligned on its word. Pages name their judge where it is this one.

# %%
run.finish()
