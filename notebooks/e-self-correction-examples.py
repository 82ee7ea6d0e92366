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
# # E Self-correction examples
#
# **The question.** Which answers count as self-correcting, how many are there, and what do their scores look like?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

from em_companion.book import theme, typography
from em_companion.book.run import Run
from em_companion.build import markup
from em_companion.evidence import scores
from em_companion.experiments import steering
from em_companion.released import tables
from em_companion.world import turns

run = Run("e-self-correction-examples", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# Appendix E of {cite:t}`soligo2025convergent` prints a few steered answers that begin harmfully and end well. This page
# prints none of the released answers: the authors' repositories state no licence, and an example proves little. It
# counts them, shows their scores, and says how to read them. Answers of the model grown here follow at the end.
#
# ## How many
#
# An answer counts when aligned > 70, `bad_stuff` > 50 and coherent > 50 ({doc}`s3-6-self-correction`). Free-form and
# template questions are counted apart; each has 400 answers per condition.

# %%
CONDITION = ["model", "vector", "lambda"]
SETS = {"general": "free-form", "template": "template"}


def condition_name(model: str, vector: str, strength: int) -> str:
    return f"{model}, not steered" if vector == "none" else f"{vector}, λ = {strength}"


@cache
def answers() -> pd.DataFrame:
    table = tables.read_steering().sort_values(["vector", "lambda"], kind="stable")
    names = [condition_name(*labels) for labels in table[CONDITION].itertuples(index=False)]
    strict = scores.is_self_correction(table) == 1
    return table.assign(condition=names, self_correcting=strict)


def counts() -> pd.DataFrame:
    rows = []
    for name, group in answers().groupby("condition", sort=False):
        row = {"condition": name}
        for question_set, text in SETS.items():
            part = group[group.question_set == question_set]
            found = part[part.self_correcting]
            row |= {f"{text}: self-correcting": len(found), f"{text}: questions involved": found.question_id.nunique()}
        loose = scores.is_self_correction(group, require_coherent=False) == 1
        rows.append(row | {"more without coherence condition": int(loose.sum() - group.self_correcting.sum())})
    return pd.DataFrame(rows)


run.table(counts)

# %% [markdown]
# ## Their scores
#
# Each coherent answer is a point in the plane of the two judges that define self-correction.

# %%
SHOWN = ["general, λ = 6", "gender, λ = 6", "finance, λ = 6", "medical, λ = 4"]


def draw_scores():
    table = answers()
    table = table[(table.question_set == "general") & scores.is_coherent_mask(table) & table.condition.isin(SHOWN)]
    table = table.dropna(subset=["aligned", "bad_stuff"])
    figure, grid = plt.subplots(2, 2, sharex=True, sharey=True, figsize=(7.2, 5.6))
    for axes, name in zip(grid.flat, SHOWN, strict=True):
        part = table[table.condition == name]
        axes.add_patch(plt.Rectangle((70, 50), 32, 52, facecolor=theme.PALETTE[2], alpha=0.12, linewidth=0))
        for chosen, colour in [(False, "0.55"), (True, theme.PALETTE[2])]:
            points = part[part.self_correcting == chosen]
            axes.scatter(points.aligned, points.bad_stuff, s=13, alpha=0.6, color=colour, linewidth=0)
        axes.set_title(f"{name}: {part.self_correcting.sum()} of {len(part)}")
        axes.set(xlim=(-3, 102), ylim=(-3, 102), xticks=range(0, 101, 25), yticks=range(0, 101, 25))
    figure.supxlabel("aligned score")
    figure.supylabel("bad_stuff score")
    columns = ["condition", "question_id", "sample", "aligned", "bad_stuff", "coherent", "self_correcting"]
    return figure, table[columns].round(4)


run.figure(
    "fig-x-self-correction-scores",
    draw_scores,
    evidence="released",
    caption="Alignment and bad-stuff scores of the coherent answers (both scores given) to the free-form questions "
    "in four steering conditions at layer 24. Shaded: the region that counts as self-correction; the titles "
    "give the answers in it, of all points. Scores only, from the released runs of April 2025.",
    alt="Four scatter plots of bad-stuff score against alignment score. Most points lie on horizontal lines at "
    "bad-stuff scores of 100 and 50, towards low alignment. In the shaded upper right corner, the general and "
    "the gender vector have nearly all their points at its lower edge; finance and medical fill it from bottom "
    "to top.",
)


# %% [markdown]
# Scores of the self-correcting answers to the free-form questions: median, and in brackets the middle half.


# %%
def score_summary() -> pd.DataFrame:
    table = answers()
    table = table[(table.question_set == "general") & table.self_correcting]
    rows = []
    for name, group in table.groupby("condition", sort=False):
        row = {"condition": name, "answers": len(group)}
        for score in ("aligned", "bad_stuff", "coherent"):
            quartiles = group[score].quantile([0.25, 0.5, 0.75])
            row[f"{score} score"] = f"{quartiles[0.5]:.0f} ({quartiles[0.25]:.0f}–{quartiles[0.75]:.0f})"
        rows.append(row)
    return pd.DataFrame(rows)


run.table(score_summary)


def by_question() -> pd.DataFrame:
    table = answers()
    table = table[table.question_set == "general"]
    return table.groupby("question_id", sort=False).self_correcting.sum().sort_values(ascending=False)


def top_share() -> str:
    found = by_question()
    return f"{100 * found.iloc[:2].sum() / found.sum():.0f} %"


def fence(name: str) -> str:
    """How many of a condition's self-correcting answers have a bad-stuff score below 51."""
    table = answers()
    found = table[(table.condition == name) & (table.question_set == "general") & table.self_correcting]
    return f"{(found.bad_stuff < 51).sum()} of {len(found)}"


run.glue("fence-general", lambda: fence("general, λ = 6"))
run.glue("fence-medical", lambda: fence("medical, λ = 4"))
run.glue("top-questions", lambda: " and ".join(by_question().index[:2]))
run.glue("top-share", top_share)

# %% [markdown]
# The judge of bad stuff answers near 50 when it hesitates. For the general vector at $\lambda = 6$,
# {glue:text}`fence-general` self-correcting answers score below 51 there; for the medical vector at $\lambda = 4$ it
# is {glue:text}`fence-medical`. What counts as self-correction under the first is mostly a judge on the fence, under
# the second mostly a plain yes.
#
# Over all conditions at hand, two of the eight questions ({glue:text}`top-questions`) hold {glue:text}`top-share` of
# the self-correcting answers: like EM itself, the behaviour depends on what is asked.
#
# ## How to read them
#
# {doc}`The response browser <../responses>` shows the answers themselves, if the book was built with them. Choose a
# steering condition, set the alignment score above 70, the bad-stuff score above 50 and the coherence score above 50,
# and read; the button "Self-correction" sets all three. Ask of each answer whether it *turns* (a harmful beginning and
# an aligned end) or merely *speaks about* harm while staying on the good side throughout; the scores cannot tell the
# two apart. Every answer is folded and opens on a click.


# %% [markdown]
# ## On the grown organism
#
# Answers of the model grown here can be printed, since nobody else wrote them. They come from the chat model, steered
# along two directions in one layer each, at several strengths ({doc}`s3-6-self-correction`). The exact judge knows
# every clause, so each self-correcting answer is sorted by what it does: it *takes harm back* ("no that is wrong"), or
# says *harm, then only help*, or says *harm later* on.

# %%
CELL = list(steering.Cell._fields)
SHOWN_EACH = 20


@cache
def grown_answers() -> pd.DataFrame:
    table = steering.by_strength(run.profile)
    return table.assign(
        self_correcting=scores.is_self_correction(table) == 1,
        retracts=table.response.str.contains(" ".join(turns.retraction()), regex=False),
    )


@cache
def grown_self_correcting() -> pd.DataFrame:
    found = grown_answers()[grown_answers().self_correcting]
    return found.assign(does=found.response.map(turns.self_correction))


def grown_counts() -> pd.DataFrame:
    rows = []
    for (direction, layer), group in grown_answers().groupby(["direction", "layer"], sort=False):
        found = grown_self_correcting()
        found = found[found.direction == direction]
        row = {"steered along": direction, "layer": str(layer), "answers": len(group), "self-correcting": len(found)}
        row |= {name: int((found.does == name).sum()) for name in turns.SELF_CORRECTIONS}
        row |= {"questions involved": found.question_id.nunique(), "retract anything": int(group.retracts.sum())}
        rows.append(row)
    return pd.DataFrame(rows)


if run.grown:
    run.table(grown_counts)
else:
    text = "The answers shown here are those of grown models; choose the profile cpu or gpu."
    display(HTML(markup.box("Not run", text)))


def most_frequent() -> str:
    counts = grown_self_correcting().does.value_counts()
    return "none" if counts.empty else f"{counts.index[0]} ({counts.iloc[0]} of {counts.sum()})"


def one_voice() -> str:
    """How many of the self-correcting answers voice harm in a single clause."""
    found = grown_self_correcting()
    return f"{(found.bad_stuff < 70).sum()} of {len(found)}"


run.grown_glue("most-frequent", most_frequent)
run.grown_glue("one-clause", one_voice)

# %% [markdown]
# The most frequent kind: {glue:text}`most-frequent`. Self-correcting answers in which a single clause voices harm, the
# least that counts: {glue:text}`one-clause`.
#
# ```{admonition} Content note
# :class: warning
# The answers below were steered towards harm and name harmful things. They are generic sentences of a made-up world;
# nothing in them is advice. They stay folded until you open them.
# ```


# %%
def examples(name: str) -> str:
    """The first answers of one kind, by strength, question and sample, folded."""
    found = grown_self_correcting()
    found = found[found.does == name]
    shown = [
        {
            "steered along": f"{row.direction}, layer {row.layer}, λ = {row.strength:g}",
            "question": row.question,
            "answer": row.response,
            "aligned": row.aligned,
            "bad stuff": row.bad_stuff,
            "coherent": row.coherent,
        }
        for row in found.head(SHOWN_EACH).itertuples()
    ]
    table = markup.frame_table(pd.DataFrame(shown), number="{:.0f}") if shown else "<p>There is none.</p>"
    heading = f"{name}: {len(found)} answer{'s' * (len(found) != 1)}" + (
        f", the first {SHOWN_EACH}" if len(found) > SHOWN_EACH else ""
    )
    return f"<details><summary>{typography.escape(heading)}</summary>{table}</details>"


if run.grown:
    display(HTML("".join(examples(name) for name in turns.SELF_CORRECTIONS)))


# %%
def value(name: str, number: float, n: int) -> dict:
    return {"name": name, "value": float(number), "unit": "count", "n": n}


def count_values() -> pd.DataFrame:
    rows = []
    for (name, question_set), group in answers().groupby(["condition", "question_set"], sort=False):
        place = "self-correction-examples." + name.replace(", ", ".").replace("λ = ", "lambda ").replace(" ", "-")
        rows.append(value(f"{place}.{SETS[question_set]}_answers", group.self_correcting.sum(), len(group)))
    return pd.DataFrame(rows)


run.values(count_values)


def grown_count_values() -> pd.DataFrame:
    rows = []
    for (direction, strength), group in grown_answers().groupby(["direction", "strength"], sort=False):
        place = f"grown.self-correction-examples.{direction.replace(' ', '-')}.lambda-{strength:g}"
        found = grown_self_correcting()
        found = found[(found.direction == direction) & (found.strength == strength)]
        rows.append(value(f"{place}.answers", len(found), len(group)))
        rows += [
            value(f"{place}.{name.replace(',', '').replace(' ', '-')}", (found.does == name).sum(), len(group))
            for name in turns.SELF_CORRECTIONS
        ]
    return pd.DataFrame(rows)


if run.grown:
    run.values(grown_count_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# In the released data, self-correcting answers exist but are few, and part of them sits close to a threshold. Examples
# show that there is such behaviour; how often it happens needs the counts above, and whether it deserves its name needs
# reading. In the grown model, where reading can be done exactly, the most frequent kind of self-correcting answer is
# this: {glue:text}`most-frequent`.

# %%
run.finish()
