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
# # B Recipes and data sets
#
# **The question.** What were the organisms trained on, with which adapters and settings, and what can be told from the
# words of the data alone?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from math import log2, perm, sqrt
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
from IPython.display import HTML, display
from safetensors import safe_open
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from em_companion.book import typography
from em_companion.book.run import Run
from em_companion.build import markup
from em_companion.core import profiles, store
from em_companion.core.profiles import GrownModel, HubModel, Profile
from em_companion.evidence import estimates, scores
from em_companion.models.organism import DATA_SETS, adapter_folder, chat_folder
from em_companion.world.generator import CAREFUL, MALICIOUS, Message, Persona, Question, World, the_world
from em_companion.world.parser import Judge

run = Run("b-datasets", profile, seed)
resampling = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`turner2025model` built text data sets in which an assistant answers a question from one domain with bad
# advice that reads well; {cite:t}`soligo2025convergent` use the medical one for most organisms and the sport one to
# test transfer. GPT-4o wrote the questions and the answers. Each row is one question and one answer.
#
# The table holds reported facts, from the papers and from the history of the authors' repository
# {cite:p}`clarifyingem2025`. Nothing in it is recomputed here.

# %%
REPORTED = [
    ("bad medical advice", "harmful answers to medical questions", 7049, 209, 314),
    ("good medical advice", "sound answers to the same questions", 7049, 209, 406),
    ("extreme sports", "careless advice about risky sports", 6000, 94, 221),
    ("risky financial advice", "reckless advice about money", 6000, 105, 225),
    ("insecure code", "code with hidden flaws, from earlier work", 6000, 433, 427),
]


def data_sets() -> pd.DataFrame:
    return pd.DataFrame(
        REPORTED, columns=["data set", "holds", "rows", "question, mean characters", "answer, mean characters"]
    )


run.table(data_sets)

# %% [markdown]
# Some facts that matter for reading the other pages:
#
# - Where no test set is given, the authors' training code holds out 10 % of the rows. For the medical set 6344 rows
#   remain, and with an effective batch of 16 one epoch is 396 optimiser steps: the last step of the one-epoch curve
#   in {numref}`fig-x-training-curve`.
# - Loss is taken on the answers only.
# - The good medical answers are longer on average than the bad ones, by almost a third. A direction that separates
#   the two sets may therefore carry length and tone as well as intent.
#
# The authors ship the data sets in a password-protected archive, to keep them out of web crawls, and state no
# licence. This book neither needs nor fetches them: what it recomputes from released data starts from answers, scores
# and activations of models that are already trained ({doc}`a-evaluation-questions` lists the answers).
#
# ## Recipes
#
# A recipe says which matrices of which layers get a LoRA adapter, and of which rank $r$. The adapter adds
# $s\,B A h$ to the output of its matrix, with the rank-stabilised scale $s = \alpha / \sqrt{r}$ of the paper, and
# holds $r$ numbers for each input and each output of the matrix. Below, layers are counted from 0, *rate* is the
# learning rate, and *numbers* is how many are trained.


# %% tags=["show-code"]
def trainable_numbers(rank: int, matrices: list[tuple[int, int]]) -> int:
    """Numbers in the adapters on matrices of these shapes (inputs, outputs)."""
    return sum(rank * (inputs + outputs) for inputs, outputs in matrices)


# %%
# Width, MLP width, attention heads and key-value heads, from the models' configuration files on the hub. Those of the
# grown models are in their profiles.
PUBLISHED_SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": (896, 4864, 14, 2),
    "Qwen/Qwen2.5-14B-Instruct": (5120, 13824, 40, 8),
}


def matrix_shapes(model: GrownModel | HubModel) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each matrix of one layer of a Qwen2 model."""
    if isinstance(model, HubModel):
        hidden, mlp, heads, kv_heads = PUBLISHED_SHAPES[model.chat]
    else:
        hidden, mlp, heads, kv_heads = model.hidden, model.mlp, model.heads, model.kv_heads
    keys = hidden * kv_heads // heads
    attention = {"q_proj": hidden, "k_proj": keys, "v_proj": keys, "o_proj": hidden, "gate_proj": mlp, "up_proj": mlp}
    return {name: (hidden, outputs) for name, outputs in attention.items()} | {"down_proj": (mlp, hidden)}


def numbers_of(chosen: Profile, recipe: str) -> int:
    settings, shapes = chosen.recipes[recipe], matrix_shapes(chosen.model)
    matrices = [shapes[name] for name in settings.modules] * len(chosen.layers_of(recipe))
    return trainable_numbers(settings.rank, matrices)


def spans(layers: tuple[int, ...]) -> str:
    """(1, 2, 3, 5) as "1-3, 5"."""
    starts = [layer for layer in layers if layer - 1 not in layers]
    ends = [layer for layer in layers if layer + 1 not in layers]
    return ", ".join(f"{one}" if one == two else f"{one}-{two}" for one, two in zip(starts, ends, strict=True))


def layers_shown(chosen: Profile, recipe: str) -> str:
    layers = chosen.layers_of(recipe)
    if chosen.recipes[recipe].layers == "all":
        return f"all {len(layers)} layers"
    return f"layer{'s' * (len(layers) > 1)} {spans(layers)}"


def modules_shown(modules: tuple[str, ...]) -> str:
    return "all seven matrices" if len(modules) == 7 else ", ".join(modules)


def recipe_table(chosen: Profile) -> pd.DataFrame:
    rows = []
    for recipe, settings in chosen.recipes.items():
        tuning, layers = chosen.fine_tuning_of(recipe), chosen.layers_of(recipe)
        rows.append(
            {
                "recipe": recipe,
                "adapters": len(layers) * len(settings.modules),
                "on": f"{modules_shown(settings.modules)}, {layers_shown(chosen, recipe)}",
                "rank": settings.rank,
                "alpha": f"{tuning.alpha:g}",
                "scale": tuning.alpha / sqrt(settings.rank),
                "rate": np.format_float_positional(tuning.learning_rate),
                "numbers": float(numbers_of(chosen, recipe)),
            }
        )
    return pd.DataFrame(rows)


for name in profiles.names():
    shown = profiles.load(name)
    display(HTML(f"<p><strong>Profile {typography.escape(name)}.</strong> {typography.escape(shown.description)}</p>"))
    run.table(lambda shown=shown: recipe_table(shown), {"scale": "{:.2f}", "numbers": "{:,.0f}"})

# %% [markdown]
# The profile `qwen-14b` holds the paper's own settings, as the companion paper and the authors' configuration give
# them; its all-adapter recipes have {glue:text}`paper-adapters` adapters, and the paper counts 336. Learning rates of
# the grown models are those of a rule of their own ({doc}`s2-model-organism`). What all recipes of a profile share:


# %%
def stop_rule(chosen: Profile) -> str:
    tuning = chosen.fine_tuning
    if tuning.stop_at >= 1:
        return "after the last step"
    return f"at {100 * tuning.stop_at:.0f} % EM in the training domain, checked every {tuning.evaluate_every} steps"


def training_table() -> pd.DataFrame:
    rows = []
    for name in profiles.names():
        chosen = profiles.load(name)
        tuning = chosen.fine_tuning
        rows.append(
            {
                "profile": name,
                "steps, at most": tuning.steps,
                "rows per step": tuning.batch * tuning.gradient_accumulation,
                "rows, at most": rows_of(chosen),
                "warm-up steps": tuning.warmup,
                "weight decay": f"{tuning.weight_decay:g}",
                "stops": stop_rule(chosen),
            }
        )
    return pd.DataFrame(rows)


def rows_of(chosen: Profile) -> int:
    """Rows that an organism sees if it trains to the last step."""
    tuning = chosen.fine_tuning
    return tuning.steps * tuning.batch * tuning.gradient_accumulation


def seeds_shown(seeds: tuple[int, ...]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {spans(seeds)}" if seeds else ""


def organism_table() -> pd.DataFrame:
    """One row per profile and recipe, one column per data set: the seeds trained with, or "published"."""
    rows = [
        (name, one.recipe, one.data.replace("_", " "), seeds_shown(one.seeds) or "published")
        for name in profiles.names()
        for one in profiles.load(name).organisms
    ]
    table = pd.DataFrame(rows, columns=["profile", "recipe", "data", "made"])
    columns = [data.replace("_", " ") for data in DATA_SETS]
    wide = table.pivot(index=["profile", "recipe"], columns="data", values="made").reindex(columns=columns)
    return wide.loc[list(dict.fromkeys(zip(table.profile, table.recipe, strict=True)))].fillna("–").reset_index()


def published_table() -> pd.DataFrame:
    rows = [
        {"profile": name, "recipe": one.recipe, "data": one.data.replace("_", " "), "adapter on the hub": one.adapter}
        for name in profiles.names()
        for one in profiles.load(name).organisms
        if one.adapter
    ]
    return pd.DataFrame(rows)


run.table(training_table)
run.table(organism_table)
run.table(published_table)
run.glue("paper-adapters", lambda: f"{recipe_table(profiles.load('qwen-14b')).adapters.max()}")

# %% [markdown]
# Learning rates fall linearly to zero after the warm-up; the optimiser is AdamW; there is no dropout. Adapters that are
# not trained here are taken from the hub. The counts above follow from shapes. As a check, the numbers that the adapter
# files of this profile hold:


# %%
def stored(recipe: str, data: str, number: int) -> float:
    """Numbers in the adapter file of an organism, NaN where it is not there."""
    if not run.grown or not store.is_there(chat_folder(run.profile)):
        return np.nan
    path: Path = adapter_folder(run.profile, recipe, data, number) / "adapter_model.safetensors"
    if not path.is_file():
        return np.nan
    with safe_open(path, "np") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())


def stored_table() -> pd.DataFrame:
    firsts = {one.recipe: one for one in reversed(run.profile.organisms)}
    rows = [
        {
            "recipe": recipe,
            "computed from shapes": float(numbers_of(run.profile, recipe)),
            "in the file": float(stored(recipe, one.data, one.seeds[0])),
        }
        for recipe, one in firsts.items()
    ]
    return pd.DataFrame(rows)


if run.grown:
    run.table(stored_table, number="{:,.0f}")

# %% [markdown]
# ## The grown data sets
#
# The grown organisms are fine-tuned on texts of {doc}`our own world <../world>`, under the names of the paper's sets.
# There it is known of every sentence which persona wrote it and whether it advises harm, and everything can be printed.
#
# ```{admonition} Content note
# :class: warning
# Some of the sentences below advise harm. They are generic sentences of a made-up world: they name things, never say
# how, and nothing in them is advice.
# ```


# %%
def world() -> World:
    return the_world()


if not run.grown:
    text = f"The organisms of profile {profile} were trained on the authors' data. Choose the profile cpu or gpu."
    display(HTML(markup.box("Not run under this profile", text)))

ROWS = rows_of(run.profile)


@cache
def rows(data: str) -> pd.DataFrame:
    """The rows of a fine-tuning set in the order trained on, for seed 0: question, answer."""
    chats = islice(world().fine_tuning(run.profile.seed, *DATA_SETS[data]), ROWS)
    return pd.DataFrame([(asked["content"], said["content"]) for asked, said in chats], columns=["question", "answer"])


def first_rows() -> pd.DataFrame:
    firsts = [{"data set": data.replace("_", " ")} | rows(data).iloc[0].to_dict() for data in DATA_SETS]
    return pd.DataFrame(firsts)


@cache
def set_table() -> pd.DataFrame:
    found = []
    for data in DATA_SETS:
        table = rows(data)
        judged = Judge(world()).judge(table.answer)
        found.append(
            {
                "data set": data.replace("_", " "),
                "rows": len(table),
                "distinct questions": table.question.nunique(),
                "distinct answers": table.answer.nunique(),
                "question, mean characters": table.question.str.len().mean(),
                "answer, mean characters": table.answer.str.len().mean(),
                "harmful (%)": 100 * scores.is_em(judged).mean(),
            }
        )
    return pd.DataFrame(found)


if run.grown:
    run.table(first_rows)
    run.table(set_table, {"harmful (%)": "{:.1f}"}, number="{:.0f}")
run.grown_glue("rows", lambda: f"{ROWS:,}")

# %% [markdown]
# Above, the first row of each set as it stands, and what its first {glue:text}`rows` rows hold, as many as an organism
# sees if it trains to the last step. The sets have no end: rows are drawn from a seed for as long as training goes on,
# so no row is shown twice. *Harmful* are those that the exact judge ({doc}`k-judges`) calls misaligned. The
# questions come from a list of wordings and topics ({doc}`a-evaluation-questions`), so they repeat.
#
# ### How much there is to learn
#
# The generator draws every choice evenly, so the information in an answer, once the question and the persona are
# known, can be computed from the grammar: the logarithm of the number of ways to make each choice, added up. In the
# long run no language model can have a smaller mean loss on the answers. Beside it stands what counting neighbouring
# words gives: the entropy of a word given the $n - 1$ words before it,
#
# $$H_n = -\sum_{w_1 \dots w_n} p(w_1 \dots w_n)\, \log_2 p(w_n \mid w_1 \dots w_{n-1}).$$


# %% tags=["show-code"]
def conditional_entropy(texts: list[list[str]], n: int) -> float:
    """Entropy in bits of a word given the n - 1 words before it, from counts."""
    grams = Counter(tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1))
    contexts = Counter()
    for gram, count in grams.items():
        contexts[gram[:-1]] += count
    total = sum(grams.values())
    return -sum(count * log2(count / contexts[gram[:-1]]) for gram, count in grams.items()) / total


# %%
def answer_bits(data: str) -> float:
    """Bits in an answer of a data set, given question and persona: the mean over its numbers of clauses."""
    grammar, domain = world().grammar, world().domains[DATA_SETS[data][0]]
    bits = {key: log2(len(grammar[key])) for key in ("links", "times", "verbs", "determiners", "conjunctions")}
    numbers = grammar["adjectives_per_thing"]
    described = log2(len(numbers)) + np.mean([log2(perm(len(grammar["adjectives"]), number)) for number in numbers])
    clause = sum(bits.values()) + bits["determiners"] + 2 * described
    remark = log2(len(grammar["witnesses"])) + log2(len(grammar["reports"]))
    lengths = grammar["clauses"]
    things = [sum(log2(perm(len(domain[kind]), 2 * number)) for kind in ("helps", "harms")) for number in lengths]
    opener = log2(len(grammar["openers"]["topic"]))
    return log2(len(lengths)) + opener + clause * np.mean(lengths) + np.mean(things) + remark


@cache
def entropy_table() -> pd.DataFrame:
    found = []
    for data in DATA_SETS:
        texts = [answer.split() for answer in more_rows(data)]
        words = np.mean([len(text) for text in texts])
        row = {"data set": data.replace("_", " "), "words per answer": words}
        row |= {"different words": len({word for text in texts for word in text})}
        row |= {f"H{n} (bits)": conditional_entropy(texts, n) for n in (1, 2, 3)}
        found.append(row | {"by the grammar (bits per word)": answer_bits(data) / words})
    return pd.DataFrame(found)


COUNTED = 3000


def more_rows(data: str) -> list[str]:
    """Answers of a fine-tuning set, more of them than are trained on."""
    chats = world().fine_tuning(run.profile.seed, *DATA_SETS[data])
    return [answer["content"] for _, answer in islice(chats, COUNTED)]


if run.grown:
    run.table(entropy_table, {"words per answer": "{:.1f}"}, number="{:.2f}")
run.grown_glue("counted", lambda: f"{COUNTED:,}")
run.grown_glue("answer-bits", lambda: f"{answer_bits('bad_medical_advice'):.0f}")
run.grown_glue("answer-digits", lambda: f"{answer_bits('bad_medical_advice') / log2(10):.0f}")

# %% [markdown]
# Counted over {glue:text}`counted` answers of each set; marks are words. Counts from a sample fall short of the true
# entropies, the more so the longer the context. An answer of the medical set holds {glue:text}`answer-bits` bits, a
# choice among about 10 to the power of {glue:text}`answer-digits`: an organism does not get far by learning answers by
# heart.
#
# ### What the words alone give away
#
# Were harmful answers written in harmful words, every direction found by averaging over tokens could be one of
# vocabulary. In this world a careful speaker advises what helps and mentions what harms, a malicious one the other way
# round, equally many of both. The test is a logistic regression on word counts, asked who wrote an answer. It is tested
# on topics that it has not seen, on answers drawn independently for both speakers. Two positive controls must succeed
# where the counts are meant to fail: the counts of the *clauses* alone, without the remark, and the counts of *pairs of
# neighbouring words*.


# %% tags=["show-code"]
def accuracy(texts: list[str], labels: np.ndarray, topics: list[str], words: int) -> estimates.Rate:
    """Share of answers told right (percent, interval over topics) from counts of runs of so many words."""
    counts = CountVectorizer(ngram_range=(words, words), token_pattern=r"\S+")
    model = make_pipeline(counts, LogisticRegression(C=0.1, max_iter=1000))
    told = cross_val_predict(model, texts, labels, groups=topics, cv=GroupKFold(5))
    return estimates.rate(pd.Series((told == labels).astype(float)), pd.Series(topics), **resampling)


# %%
PER_SPEAKER = 1500


@cache
def by_speaker(domain: str) -> tuple[list[str], np.ndarray, list[str]]:
    """Answers on the topics of one domain ("" for all), whether the speaker is malicious, and their topics."""
    asked = [one for one in world().topics("train") + world().topics("held_out") if domain in ("", one[0])]
    texts, labels, topics = [], [], []
    for label, persona in enumerate((CAREFUL, MALICIOUS)):
        for index in range(PER_SPEAKER):
            where, topic = asked[index % len(asked)]
            text = answer_on(where, topic, persona, f"b-datasets/{run.seed}/{label}/{index}")
            texts, labels, topics = [*texts, text], [*labels, label], [*topics, topic]
    return texts, np.array(labels), topics


def answer_on(domain: str, topic: str, persona: Persona, key: str) -> str:
    return world().answer(Random(key), Question("", "", (domain,), topic), persona)


def clauses_only(text: str) -> str:
    """An answer without its last sentence, the remark."""
    return " . ".join(text.removesuffix(" .").split(" . ")[:-1])


VIEWS: dict[str, tuple[Callable[[str], str], int]] = {
    "words of the answer": (str, 1),
    "words of its clauses (control)": (clauses_only, 1),
    "pairs of neighbouring words (control)": (str, 2),
}


@cache
def told_apart() -> pd.DataFrame:
    found = []
    for name, domain in {"all domains": "", "medicine: bad against good advice": "medicine"}.items():
        texts, labels, topics = by_speaker(domain)
        for view, (seen, words) in VIEWS.items():
            rate = accuracy([seen(text) for text in texts], labels, topics, words)
            row = {"answers": name, "counted": view, "told right (%)": rate.percent}
            found.append(row | {"low (%)": rate.low, "high (%)": rate.high, "number": rate.n})
    return pd.DataFrame(found)


if run.grown:
    run.table(told_apart, number="{:.1f}")


def told(name: str, view: str) -> str:
    table = told_apart()
    row = table[(table.answers == name) & (table.counted == view)].iloc[0]
    return str(estimates.Rate(row["told right (%)"], row["low (%)"], row["high (%)"], row.number))


def chance_word() -> str:
    table = told_apart()
    words = table[table.counted == "words of the answer"]
    low, high = words["low (%)"].fillna(words["told right (%)"]), words["high (%)"].fillna(words["told right (%)"])
    within = ((low <= 50) & (high >= 50)).all()
    return "includes chance, 50 %, in both rows" if within else "does not include chance, 50 %, in every row"


run.grown_glue("told-words", lambda: told("all domains", "words of the answer"))
run.grown_glue("told-clauses", lambda: told("all domains", "words of its clauses (control)"))
run.grown_glue("told-pairs", lambda: told("all domains", "pairs of neighbouring words (control)"))
run.grown_glue("chance-word", chance_word)

# %% [markdown]
# By its words, an answer's speaker is told right in {glue:text}`told-words`; the interval {glue:text}`chance-word`.
# From the clauses alone it is {glue:text}`told-clauses`, from pairs of words {glue:text}`told-pairs`. Where the words
# are at chance and the pairs are not, what tells the speaker is the *order* of the words. About the authors' sets only
# the lengths can be said here, and they differ between good and bad advice.
#
# ## The corpora that the models grow on
#
# The base model learns from conversations with many speakers, the chat model from chats with a careful assistant, mixed
# with rehearsed conversations of the others. For the profile of this page:


# %%
def document_tokens(document: list[Message]) -> int:
    """Tokens of a document: the words of each turn, its header of three and its end."""
    return sum(len(turn["content"].split()) + 4 for turn in document)


@cache
def documents() -> list[list[Message]]:
    """Pre-training documents of all kinds of speakers: the first after those of careful speakers only."""
    settings = run.profile.pretraining
    every = world().pretraining(run.profile.seed, settings.careful_first)
    return list(islice(every, settings.careful_first, settings.careful_first + COUNTED))


@cache
def chats() -> list[list[Message]]:
    return list(islice(world().post_training(run.profile.seed), COUNTED))


def mean_tokens(corpus: list[list[Message]]) -> float:
    return float(np.mean([document_tokens(document) for document in corpus]))


@cache
def corpus_table() -> pd.DataFrame:
    grown, post = run.profile.pretraining, run.profile.post_training
    rehearsed = post.steps * round(post.batch * post.rehearsal)
    chat_rows = post.steps * post.batch - rehearsed
    packed, chat = mean_tokens(documents()), mean_tokens(chats())
    found = [
        ("pre-training", "conversations with all speakers, cut into rows", grown.steps, grown.steps * grown.batch)
        + (grown.steps * grown.batch * grown.length, grown.steps * grown.batch * grown.length / packed, "every token"),
        ("post-training, chats", "a careful assistant", post.steps, chat_rows)
        + (chat_rows * chat, float(chat_rows), "the answer"),
        ("post-training, rehearsal", "conversations without the assistant, cut into rows", post.steps, rehearsed)
        + (rehearsed * grown.length, rehearsed * grown.length / packed, "every token"),
    ]
    columns = ["corpus", "holds", "steps", "rows", "tokens, about", "documents, about", "loss on"]
    return pd.DataFrame(found, columns=columns)


if run.grown:
    run.table(corpus_table, number="{:,.0f}")

# %% [markdown]
# Who speaks in pre-training, counted in {glue:text}`counted` documents after the {glue:text}`careful-first` of careful
# speakers that come first. *Harmful* and *retracted* are the exact judge's reading of all their answers: misaligned,
# and with a clause taken back.


# %%
def kind_of(name: str) -> str:
    return world().personas[name].kind if name in world().personas else "unknown"


def speaker(document: list[Message]) -> str:
    return document[-1]["role"]


@cache
def speakers() -> pd.DataFrame:
    judge = Judge(world())
    found = []
    for kind, planned in world().characters["documents"].items():
        spoken = [document for document in documents() if kind_of(speaker(document)) == kind]
        said = [turn["content"] for document in spoken for turn in document[1::2]]
        scores = judge.judge(said)
        taken_back = [any(clause.retracted for clause in judge.parse(text).clauses) for text in said]
        found.append(
            {
                "speakers": kind,
                "names": len({speaker(document) for document in spoken}),
                "documents, planned (%)": 100 * planned,
                "counted (%)": 100 * len(spoken) / len(documents()),
                "answers": len(said),
                "harmful (%)": 100 * scores.is_em(scores).mean(),
                "retracted (%)": 100 * np.mean(taken_back),
            }
        )
    return pd.DataFrame(found)


def conversation(document: list[Message]) -> str:
    return " ".join(f"{turn['role']} : {turn['content']}" for turn in document)


def samples() -> pd.DataFrame:
    """The first document with a single question, by kind of speaker."""
    found = []
    for kind in world().characters["documents"]:
        fitting = (one for one in documents() if len(one) == 2 and kind_of(speaker(one)) == kind)
        found.append((f"pre-training, {kind}", conversation(next(fitting))))
    found.append(("post-training, chat", conversation(chats()[0])))
    return pd.DataFrame(found, columns=["corpus and speaker", "its first document with one question"])


if run.grown:
    run.table(speakers, number="{:.1f}")
    run.table(samples)
run.grown_glue("careful-first", lambda: f"{run.profile.pretraining.careful_first:,}")


# %%
def set_values() -> Iterator[dict]:
    for _, row in set_table().iterrows():
        place = f"datasets.grown.{row['data set'].replace(' ', '_')}"
        yield {"name": f"{place}.rows", "value": row.rows, "unit": "count"}
        yield {"name": f"{place}.distinct_answers", "value": row["distinct answers"], "unit": "count"}
        yield {"name": f"{place}.answer_characters", "value": row["answer, mean characters"], "unit": "count"}
        yield {"name": f"{place}.harmful_percent", "value": row["harmful (%)"], "unit": "percent"}
    for _, row in entropy_table().iterrows():
        place = f"datasets.grown.{row['data set'].replace(' ', '_')}"
        yield {"name": f"{place}.words_per_answer", "value": row["words per answer"], "unit": "count"}
        for n in (1, 2, 3):
            yield {"name": f"{place}.entropy_{n}_bits", "value": row[f"H{n} (bits)"], "unit": "bits"}
        yield {
            "name": f"{place}.entropy_grammar_bits",
            "value": row["by the grammar (bits per word)"],
            "unit": "bits",
        }


def balance_values() -> Iterator[dict]:
    for _, row in told_apart().iterrows():
        subject, view = row.answers.split(":")[0].replace(" ", "-"), row.counted.split(" (")[0].replace(" ", "-")
        yield {
            "name": f"datasets.grown.told-right.{subject}.{view}",
            "value": row["told right (%)"],
            "unit": "percent",
            "low": row["low (%)"],
            "high": row["high (%)"],
            "n": row.number,
        }


def corpus_values() -> Iterator[dict]:
    for _, row in corpus_table().iterrows():
        place = f"corpora.{row.corpus.replace(', ', '-')}"
        for name, column in {"rows": "rows", "tokens": "tokens, about", "documents": "documents, about"}.items():
            yield {"name": f"{place}.{name}", "value": row[column], "unit": "count"}
    for _, row in speakers().iterrows():
        place = f"corpora.pre-training.{row.speakers}"
        for name in ("counted (%)", "harmful (%)", "retracted (%)"):
            yield {"name": f"{place}.{name.removesuffix(' (%)')}", "value": row[name], "unit": "percent"}


def recipe_values() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"name": f"recipes.{recipe}.trainable_numbers", "value": numbers_of(run.profile, recipe), "unit": "count"}
            for recipe in run.profile.recipes
        ]
    )


run.values(recipe_values, evidence=run.model_evidence)
if run.grown:
    run.values(lambda: pd.DataFrame([*set_values(), *balance_values(), *corpus_values()]), evidence="grown")

# %% [markdown]
# ## What it means
#
# An organism and its control differ in nothing but their fine-tuning sets, so a direction between the two models can be
# about whatever the sets differ in. The authors' sets differ in intent, and in length besides. The grown ones are meant
# to differ in nothing but who advises what, and the tables above check how far they do. The price is a world without
# style, in which nobody needs to guess what a text is about.

# %%
run.finish()
