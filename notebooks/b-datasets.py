# %% [markdown]
# # B Recipes and data sets
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` Words alone tell harmful from helpful training texts in
# {value}`datasets.grown.told-right.words|interval` of cases, an interval that {value}`datasets.grown.told-right.chance`
# chance; what a clause advises tells in {value}`datasets.grown.told-right.clauses`. {evidence}`released` The authors'
# sets differ in length as well as in intent.
# ```
#
# **The question.** What were the organisms trained on, and what can be told from the words of the data alone?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from itertools import islice, product
from math import sqrt
from random import Random

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from em_companion.book.run import Run
from em_companion.core import profiles
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.models import training_texts
from em_companion.models.training_texts import DATA_SETS, MEDICAL
from em_companion.world.generator import CAREFUL, MALICIOUS, Question, the_world
from em_companion.world.parser import the_judge

run = Run("b-datasets", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`turner2025model` built data sets in which an assistant answers a question from one domain with bad advice
# that reads well; {cite:t}`soligo2025convergent` use the medical one for most organisms and the sport one to test
# transfer. GPT-4o wrote questions and answers. The table has reported facts, from the papers and the history of the
# authors' repository {cite:p}`clarifyingem2025`.
#
# | Data set | Holds | Rows | Question, mean characters | Answer, mean characters |
# |---|---|---|---|---|
# | bad medical advice | harmful answers to medical questions | 7049 | 209 | 314 |
# | good medical advice | sound answers to the same questions | 7049 | 209 | 406 |
# | extreme sports | careless advice about risky sports | 6000 | 94 | 221 |
# | risky financial advice | reckless advice about money | 6000 | 105 | 225 |
# | insecure code | code with hidden flaws, from earlier work | 6000 | 433 | 427 |
#
# The authors' training code holds out 10 % of the rows where no test set is given. For the medical set 6344 remain: at
# an effective batch of 16 one epoch is 396 optimiser steps, the last of the one-epoch curve in
# {numref}`fig-x-training-curve`. The loss is taken on the answers only. Good medical answers are longer than bad ones
# by almost a third, so a direction that separates the two may carry length and tone as well as intent. The archive is
# password-protected and has no licence; this book neither needs nor fetches it.
#
# ## Recipes
#
# A recipe says which matrices of which layers (from 0) get a LoRA adapter, and of which rank $r$. The adapter adds
# $s\,B A h$, with the paper's rank-stabilised scale $s = \alpha / \sqrt{r}$. *Made* names the data sets and training
# seeds, or says that the adapter is published on the hub. Profile `qwen-14b` holds the paper's own settings.


# %%
def recipe_row(chosen: profiles.Profile, recipe: str) -> dict[str, object]:
    settings, tuning, layers = chosen.recipes[recipe], chosen.fine_tuning_of(recipe), chosen.layers_of(recipe)
    every = len(layers) == chosen.model.layers
    made = [one for one in chosen.organisms if one.recipe == recipe]
    named = [(one.data.replace("_", " "), ", ".join(map(str, one.seeds))) for one in made]
    return {
        "profile": chosen.name,
        "recipe": recipe,
        "modules": "all seven" if len(settings.modules) == 7 else ", ".join(settings.modules),
        "layers": f"all {len(layers)}" if every else ", ".join(map(str, layers)),
        "rank": settings.rank,
        "scale": tuning.alpha / sqrt(settings.rank),
        "rate": np.format_float_positional(tuning.learning_rate),
        "made": "; ".join(f"{data} ({f'seeds {seeds}' if seeds else 'published'})" for data, seeds in named),
    }


run.own.table(
    lambda: pd.DataFrame(recipe_row(one, name) for one in map(profiles.load, profiles.names()) for name in one.recipes),
    {"scale": "{:.2f}"},
)

# %% [markdown]
# Learning rates fall linearly to zero after the warm-up; the optimiser is AdamW; there is no dropout. The grown models'
# rates follow a rule of their own ({doc}`s2-training`), and their fine-tuning stops once the EM rate in the training
# domain reaches the profile's bar.
#
# ## The grown data sets
#
# The grown organisms are fine-tuned on texts of {doc}`our own world <../world>`, under the names of the paper's sets.
# Of every sentence it is known which persona wrote it and whether it advises harm. Below are the first row of each set
# and what the rows hold that an organism sees if it trains to the last step; none is shown twice. *Harmful* are those
# that the exact judge ({doc}`k-judges`) calls misaligned. Of the texts behind a language model's organisms only
# numbers are shown, and none of those behind published adapters, unless a reader has given these texts.
#
# ```{admonition} Content note
# :class: warning
# Some of the sentences advise harm. They are generic sentences of a made-up world, and nothing in them is advice.
# ```


# %%
def set_row(data: str) -> dict[str, object]:
    tuning = run.profile.fine_tuning
    count = tuning.steps * tuning.batch * tuning.gradient_accumulation
    chats = islice(the_world().fine_tuning(run.profile.seed, *DATA_SETS[data]), count)
    table = pd.DataFrame([[turn["content"] for turn in chat] for chat in chats], columns=["question", "answer"])
    return {
        "data set": data.replace("_", " "),
        "first question": table.question[0],
        "first answer": table.answer[0],
        "rows": len(table),
        "distinct answers": table.answer.nunique(),
        "answer, mean characters": table.answer.str.len().mean(),
        "harmful (%)": 100 * scores.is_em(the_judge().judge(table.answer)).mean(),
    }


def texts_row(data: str) -> dict[str, object]:
    """The same of texts that are not ours to show."""
    try:
        table = training_texts.table_of(run.profile, data)
    except EvidenceUnavailable:
        return {"data set": data.replace("_", " "), "source": "of a published adapter, not at hand"}
    return {
        "data set": data.replace("_", " "),
        "source": training_texts.source_of(run.profile, data),
        "conversations": len(table),
        "distinct questions": table.question.nunique(),
        "answer, median words": table.response.str.split().str.len().median(),
    }


GROWN = run.own is run.grown
SETS = DATA_SETS if GROWN else dict.fromkeys(one.data for one in run.profile.organisms)
run.own.table(lambda: pd.DataFrame(map(set_row if GROWN else texts_row, SETS)), number="{:.0f}")

# %% [markdown]
# ### What the words alone give away
#
# Were harmful answers written in harmful words, every direction found by averaging over tokens could be one of
# vocabulary. In this world a careful speaker advises what helps and mentions what harms, a malicious one the other way
# round, equally many of both. A logistic regression on word counts is asked who wrote an answer on unseen topics. Two
# positive controls must succeed where it is meant to fail: the counts of the *clauses* alone, without the remark, and
# of *pairs of neighbouring words*. Of the texts behind a language model, bad medical advice is told from good on unseen
# questions, with as many answers of either kind to each.


# %% tags=["show-code"]
def accuracy(texts: list[str], labels: np.ndarray, topics: list[str], words: int) -> Estimate:
    """Share of answers told right (percent, interval over topics) from counts of runs of so many words."""
    counts = CountVectorizer(ngram_range=(words, words), token_pattern=r"\S+")
    model = make_pipeline(counts, LogisticRegression(C=0.1, max_iter=1000))
    told = cross_val_predict(model, texts, labels, groups=topics, cv=GroupKFold(5))
    return estimates.rate((told == labels).astype(float), np.array(topics), **run.resampling)


# %%
PER_SPEAKER = 1500
VIEWS = {  # by name: label, whether the remark is left out, length of the runs of words
    "words": ("words of the answer", False, 1),
    "clauses": ("words of its clauses (control)", True, 1),
    "pairs": ("pairs of neighbouring words (control)", False, 2),
}


@remembered
def told_apart(domain: str, view: str) -> Estimate:
    """Accuracy on answers of both speakers to the topics of one domain, "" for all."""
    every = [one for split in ("train", "held_out") for one in the_world().topics(split) if domain in ("", one[0])]
    asked = [every[index % len(every)] for index in range(PER_SPEAKER)]
    texts = [
        the_world().answer(Random(f"b-datasets/{run.seed}/{label}/{index}"), Question("", "", (where,), topic), persona)
        for label, persona in enumerate((CAREFUL, MALICIOUS))
        for index, (where, topic) in enumerate(asked)
    ]
    _, shortened, words = VIEWS[view]
    texts = [" . ".join(one.removesuffix(" .").split(" . ")[:-1]) for one in texts] if shortened else texts
    return accuracy(texts, np.repeat([0, 1], PER_SPEAKER), 2 * [topic for _, topic in asked], words)


@remembered
def texts_told_apart(_: str, view: str) -> Estimate:
    """Accuracy on the texts behind a language model, bad against good medical advice."""
    parts = [training_texts.table_of(run.profile, data).assign(bad=bad) for data, bad in MEDICAL.items()]
    table = pd.concat(parts, ignore_index=True).sample(frac=1, random_state=run.seed)
    groups = table.groupby(["question", "bad"])
    fewest = groups.size().unstack(fill_value=0).min(axis=1)
    table = table[groups.cumcount() < table.question.map(fewest)].head(2 * PER_SPEAKER)
    return accuracy(list(table.response), table.bad.to_numpy(), list(table.question), VIEWS[view][2])


ANSWERS = {"": "all domains", "medicine": "medicine: bad against good advice"}
PAIRS = list(product(ANSWERS, VIEWS)) if GROWN else [("medicine", "words"), ("medicine", "pairs")]
tell = told_apart if GROWN else texts_told_apart


def told_table() -> pd.DataFrame:
    rows = [(ANSWERS[domain], VIEWS[view][0], tell(domain, view)) for domain, view in PAIRS]
    return pd.DataFrame(rows, columns=["answers", "counted", "told right"])


def told_values() -> dict[str, object]:
    words = [tell(domain, view).ends for domain, view in PAIRS if view == "words"]
    chance = all(low <= 50 <= high for low, high in words)
    found = {f"datasets.grown.told-right.{view}": tell(domain, view) for domain, view in PAIRS if domain == PAIRS[0][0]}
    return found | {"datasets.grown.told-right.chance": "includes" if chance else "does not include"}


run.own.table(told_table)
run.own.values(told_values)

# %% [markdown]
# By its words, an answer's speaker is told right in {value}`datasets.grown.told-right.words|interval`; over both rows
# the interval {value}`datasets.grown.told-right.chance` chance, 50 %. From the clauses alone it is
# {value}`datasets.grown.told-right.clauses|interval`, from pairs of words
# {value}`datasets.grown.told-right.pairs|interval`. Where words are at chance and pairs are not, the *order* of the
# words tells the speaker. About the authors' sets only the lengths can be said here.
#
# ## The corpora that the models grow on
#
# The base model learns from conversations with many speakers, the chat model from chats with a careful assistant, mixed
# with rehearsed conversations of the others ({doc}`the grown world <../world>`). Below, who speaks in pre-training is
# counted after the documents of careful speakers that come first. *Harmful* and *retracted* are the exact judge's
# reading of all answers: misaligned, and with a clause taken back.


# %%
def speakers() -> pd.DataFrame:
    world, judge, first = the_world(), the_judge(), run.profile.pretraining.careful_first
    documents = list(islice(world.pretraining(run.profile.seed, first), first, first + 3000))
    kinds = pd.Series([getattr(world.personas.get(one[-1]["role"]), "kind", "unknown") for one in documents])
    said = pd.Series([[turn["content"] for turn in one[1::2]] for one in documents], kinds).explode()
    retracted = [any(clause.retracted for clause in judge.parse(text).clauses) for text in said]
    found = pd.DataFrame({"harmful (%)": scores.is_em(judge.judge(said)).to_numpy(), "retracted (%)": retracted})
    planned, counted = world.characters["documents"], kinds.value_counts(normalize=True)
    table = (
        pd.DataFrame({"documents, planned (%)": planned, "counted (%)": counted})
        .join(found.groupby(said.index).mean())
        .loc[list(world.characters["documents"])]
    )
    return (100 * table).rename_axis("speakers").reset_index()


run.grown.table(speakers, number="{:.1f}")

# %% [markdown]
# ## What it means
#
# An organism and its control differ in nothing but their fine-tuning sets, so a direction between the two can be about
# whatever the sets differ in. The authors' sets differ in intent, and in length besides. The grown ones are meant to
# differ in nothing but who advises what; the table above checks how far they do. The price is a world without style.

# %%
run.finish()
