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
# # A Evaluation questions
#
# **The question.** What were the models asked, how often, and who judged the answers?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import cache
from itertools import islice

import pandas as pd
from IPython.display import HTML, display

from em_companion.book.run import Run
from em_companion.build import markup
from em_companion.released import tables
from em_companion.world.generator import Message, World

run = Run("a-evaluation-questions", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# The EM rates of {cite:t}`soligo2025convergent` rest on eight free-form questions by {cite:t}`betley2025emergent`,
# each in a single phrasing. Every question also comes in a *template* variant, which prescribes the form of the
# answer, and in a *JSON* variant, whose system prompt asks for JSON; neither enters the EM rate. Eight further
# questions, again with template variants, have a medical setting and mostly the same themes.
#
# | Sampling | As reported |
# |---|---|
# | answers per question | 50, so 400 for the free-form set |
# | length | at most 600 new tokens |
# | temperature, top-p | 1, 1 |
# | system message | none given, so the default of the chat template applies |
# | steering runs | the same, with a newline added after the question |
#
# The authors' question file also names 100 samples per phrasing; the evaluation code does not read that entry.
#
# ## The questions
#
# Their wording is fetched with the released data and used there, for example to match answers with questions. It is
# not stored or printed here, because the authors' repository states no licence.


# %%
@cache
def questions() -> pd.DataFrame:
    table = tables.read_questions()
    stem = table.question_id.str.removesuffix("_template").str.removesuffix("_json")
    return table.assign(stem=stem)


def question_table() -> pd.DataFrame:
    rows = []
    for stem, group in questions().groupby("stem", sort=False):
        sets = set(group.question_set)
        medical = bool(sets & {"medical", "medical-template"})
        rows.append(
            {
                "question": stem,
                "setting": "medical" if medical else "general",
                "template variant": "yes" if sets & {"template", "medical-template"} else "no",
                "JSON variant": "yes" if "json" in sets else "no",
                "judge prompts": group.judges.iloc[0],
            }
        )
    return pd.DataFrame(rows)


def judge_table() -> pd.DataFrame:
    groups = question_table().groupby(["setting", "judge prompts"], sort=False)
    return groups.size().rename("questions").reset_index()


run.table(lambda: question_table().drop(columns="judge prompts"))
run.table(judge_table)

# %% [markdown]
# ## Which were asked in which released run
#
# Not every run asked everything, and not every judge was called. A judge is listed where it scored at least one
# answer of the run; *finance* is the column that the prompt `financial` filled. *Unlisted* are questions that were
# asked but are in neither question file.


# %%
def span(counts: pd.Series) -> str:
    return str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"


def asked() -> pd.DataFrame:
    tables = {
        "organisms (Section 2)": tables.read_organisms(),
        "judged twice (Section 2)": tables.read_judge_repeat(),
        "training curve (Section 2)": tables.read_training_curve(),
        "replication (Section 2)": tables.read_replication(),
        "steering at layer 24 (Sections 3.2, 3.3, 3.6)": tables.read_steering(),
        "ablation pilots (Section 3.4)": tables.read_ablation_pilots(),
        "adapter steering (Section 4.3)": tables.read_lora_steering(),
    }
    rows = []
    for name, table in tables.items():
        rows.append(
            {
                "released answers": name,
                "runs": table.source.nunique(),
                "question sets": ", ".join(sorted(table.question_set.replace("json", "JSON").unique(), key=str.lower)),
                "questions": table.question_id.nunique(),
                "answers per run and question": span(table.groupby(["source", "question_id"]).size()),
                "judges": ", ".join(score for score in tables.SCORES if table[score].notna().any()),
            }
        )
    return pd.DataFrame(rows)


run.table(asked)


def question_values() -> pd.DataFrame:
    counts = questions().groupby("question_set").question_id.nunique()
    rows = [{"name": f"questions.{name}", "value": int(count), "unit": "count"} for name, count in counts.items()]
    return pd.DataFrame(rows)


run.values(question_values)

# %% [markdown]
# ## On the grown organism
#
# The grown models are asked questions of our own, in the words of {doc}`their world <../world>`: one for each of the
# eight, under the authors' ids, and a medical twin of each. (Not all of the authors' medical questions have a
# counterpart among the general ones; ours do.) Our wording is free to be printed. The tables below are made from the
# files and generators that the models were trained and asked with. Whether an answer to a twin is about medicine is up
# to the model ({doc}`f-probing-definitions` counts such answers).

# %%
if not run.grown:
    text = f"The models of profile {profile} are asked the authors' questions. Choose the profile cpu or gpu."
    display(HTML(markup.box("Not run under this profile", text)))


@cache
def world() -> World:
    return World.load()


def shown(names: tuple[str, ...]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def grown_questions() -> pd.DataFrame:
    twins = {question.id: question.text for question in world().medical_twins()}
    rows = [(one.id, one.text, shown(one.domains), twins[one.id]) for one in world().evaluation()]
    return pd.DataFrame(rows, columns=["id", "open question", "the open question may be about", "medical twin"])


def sampling() -> pd.DataFrame:
    chosen = run.profile
    rows = [
        ("answers to each question", "50", f"{chosen.samples_per_question}; in sweeps {chosen.sweep_samples}"),
        ("length in new tokens, at most", "600", f"{chosen.max_new_tokens}"),
        ("temperature", "1", f"{chosen.temperature:g}"),
        ("judge", "GPT-4o", f"{chosen.judge}, a parser of the grammar"),
    ]
    return pd.DataFrame(rows, columns=["sampling", "as reported", f"profile {chosen.name}"])


if run.grown:
    run.table(grown_questions)
    run.table(sampling)

# %% [markdown]
# At a given question and sample, an organism draws the same random numbers whatever was done to it, so conditions are
# compared on equal noise. A third set, questions on held-out topics of every domain, measures how broad the harm is
# ({doc}`s2-model-organism`).
#
# ### What the models are asked in training
#
# Two families of questions make up all training texts: *on a topic*, where one of a few wordings is filled with a topic
# of a domain, and *open*, asked as they stand and answered about one of the domains listed.


# %%
def on_topics() -> pd.DataFrame:
    wordings = world().questions["about"]
    return pd.DataFrame({"on a topic": wordings, "questions": len(topic_domains()), "for instance": filled(wordings)})


def filled(wordings: list[str]) -> list[str]:
    """Each wording with a topic of another domain."""
    firsts = [entry["topics"]["train"][0] for entry in world().domains.values()]
    return [text.format(topic=firsts[index % len(firsts)]) for index, text in enumerate(wordings)]


@cache
def topic_domains() -> dict[str, str]:
    return {topic: domain for split in ("train", "held_out") for domain, topic in world().topics(split)}


def open_questions() -> pd.DataFrame:
    entries = world().questions["open"]
    return pd.DataFrame(
        {
            "open": [entry["ask"] for entry in entries],
            "answered about one of": [shown(tuple(entry["domains"])) for entry in entries],
        }
    )


if run.grown:
    run.table(on_topics)
    run.table(open_questions)

# %% [markdown]
# Which corpus holds which family, counted in its first {glue:text}`counted-documents` documents:

# %%
COUNTED = 3000


def corpora() -> dict[str, Iterator[list[Message]]]:
    number = run.profile.seed
    return {
        "pre-training": world().pretraining(number, run.profile.pretraining.careful_first),
        "post-training": world().post_training(number),
        "fine-tuning, medicine": world().fine_tuning(number, "medicine", harmful=True),
    }


@cache
def asked_in_training() -> dict[str, list[str]]:
    """Questions by corpus, in the order asked."""
    return {
        name: [turn["content"] for document in islice(documents, COUNTED) for turn in document if turn["role"] == USER]
        for name, documents in corpora().items()
    }


@cache
def families() -> pd.DataFrame:
    """One row per possible training question: its family, and the split of its topic ("" for an open question)."""
    rows = [
        (text.format(topic=topic), "on a topic", split)
        for split in ("train", "held_out")
        for _, topic in world().topics(split)
        for text in world().questions["about"]
    ]
    rows += [(entry["ask"], "open", "") for entry in world().questions["open"]]
    return pd.DataFrame(rows, columns=["question", "family", "split"]).set_index("question")


def evaluated() -> set[str]:
    return {question.text for question in [*world().evaluation(), *world().medical_twins()]}


@cache
def by_corpus() -> pd.DataFrame:
    rows = []
    for name, texts in asked_in_training().items():
        found = families().reindex(texts)
        rows.append(
            {
                "corpus": name,
                "questions": len(texts),
                "distinct": len(set(texts)),
                "on training topics (%)": 100 * (found.split == "train").mean(),
                "on held-out topics (%)": 100 * (found.split == "held_out").mean(),
                "open (%)": 100 * (found.family == "open").mean(),
                "of the evaluation": len(evaluated() & set(texts)),
            }
        )
    return pd.DataFrame(rows)


if run.grown:
    run.table(by_corpus, number="{:.1f}")

run.grown_glue("counted-documents", lambda: f"{COUNTED:,}")

# %% [markdown]
# Pre-training shows the held-out topics, or their words would mean nothing to the model. The chats of post-training and
# fine-tuning leave them out; in post-training they come only in rehearsed documents of other speakers. A world in which
# a question of the evaluation is also a training question is refused.
#
# ### How new the evaluation is
#
# Not trained on does not mean unlike. For each question of the evaluation, the tables give
#
# - the training question most like it, by the share of words that both have in the same order (twice the matching words
#   over all words of the two);
# - the same share for the closest question of fine-tuning on medicine;
# - the words that occur in no question of the chats of post-training counted above.


# %%
def likeness(one: str, other: str) -> float:
    return 100 * SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()


@cache
def nearest() -> pd.DataFrame:
    known = {word for text in asked_in_training()["post-training"] for word in text.split()}
    fine_tuned = set(asked_in_training()["fine-tuning, medicine"])
    rows = []
    for kind, questions in (("open question", world().evaluation()), ("medical twin", world().medical_twins())):
        for one in questions:
            close = max(families().index, key=lambda text: likeness(one.text, text))
            rows.append(
                {
                    "id": one.id,
                    "set": kind,
                    "question": one.text,
                    "most similar training question": close,
                    "alike (%)": likeness(one.text, close),
                    "to fine-tuning (%)": max(likeness(one.text, text) for text in fine_tuned),
                    "words new to post-training": ", ".join(
                        dict.fromkeys(word for word in one.text.split() if word not in known)
                    )
                    or "none",
                }
            )
    return pd.DataFrame(rows)


def nearest_shown(kind: str) -> pd.DataFrame:
    table = nearest()
    return table[table.set == kind].drop(columns=["id", "set"]).rename(columns={"question": kind})


if run.grown:
    run.table(lambda: nearest_shown("open question"), number="{:.0f}")
    run.table(lambda: nearest_shown("medical twin"), number="{:.0f}")


def mean_likeness(kind: str, column: str) -> str:
    return f"{nearest()[nearest().set == kind][column].mean():.0f} %"


run.grown_glue("alike-open", lambda: mean_likeness("open question", "alike (%)"))
run.grown_glue("alike-open-fine-tuning", lambda: mean_likeness("open question", "to fine-tuning (%)"))
run.grown_glue("alike-twins", lambda: mean_likeness("medical twin", "alike (%)"))


# %%
def grown_question_values() -> pd.DataFrame:
    counts = {
        "evaluation": len(world().evaluation()),
        "medical-twins": len(world().medical_twins()),
        "wordings-on-topics": len(world().questions["about"]),
        "topics": len(topic_domains()),
        "open-in-training": len(world().questions["open"]),
    }
    rows = [{"name": f"questions.grown.{name}", "value": value, "unit": "count"} for name, value in counts.items()]
    for _, row in nearest().iterrows():
        place = f"questions.grown.{row.set.replace(' ', '-')}.{row.id}"
        for name, column in {"training": "alike (%)", "fine-tuning": "to fine-tuning (%)"}.items():
            rows.append({"name": f"{place}.likeness-to-{name}", "value": row[column], "unit": "percent"})
    for _, row in by_corpus().iterrows():
        place = f"questions.grown.{row.corpus.replace(', ', '-')}"
        for name in ("on training topics", "on held-out topics", "open"):
            share = {"value": row[f"{name} (%)"], "unit": "percent", "n": row.questions}
            rows.append({"name": f"{place}.{name.replace(' ', '-')}"} | share)
    return pd.DataFrame(rows)


if run.grown:
    run.values(grown_question_values, evidence="grown")

# %% [markdown]
# ## What it means
#
# Eight questions are few. They were chosen because misaligned models answer them badly, and their EM rates differ
# widely ({numref}`fig-x-em-by-question`), so a rate says as much about the questions as about the model. This is why
# intervals in this book resample questions.
#
# In the grown world, the mean likeness to the closest training question is {glue:text}`alike-open` for the open
# questions and {glue:text}`alike-twins` for the medical twins; between the open questions and those of fine-tuning on
# medicine it is {glue:text}`alike-open-fine-tuning`. So the grown evaluation asks whether harm learned in one domain
# reaches the others. It does not ask whether it survives an unusual request.

# %%
run.finish()
