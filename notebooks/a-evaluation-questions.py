# %% [markdown]
# # A Evaluation questions
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` The open questions are worded like the closest training question to
# {value}`questions.grown.open.likeness-to-training`, like those of fine-tuning on medicine to
# {value}`questions.grown.open.likeness-to-fine-tuning`. How much a rate hangs on the question shows
# {numref}`fig-x-em-by-question`.
# ```
#
# **The question.** What were the models asked, how often, and how new were the questions to them?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from difflib import SequenceMatcher
from functools import partial
from itertools import islice

import pandas as pd

from em_companion.book import typography
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.experiments import training
from em_companion.models import training_texts
from em_companion.released import tables
from em_companion.world.generator import the_world
from em_companion.world.lexicon import USER

run = Run("a-evaluation-questions", profile, seed)

# %% [markdown]
# The EM rates of {cite:t}`soligo2025convergent` rest on eight free-form questions by {cite:t}`betley2025emergent`, each
# in one phrasing and asked 50 times: at most 600 new tokens, temperature 1, top-p 1, no system message of their own. A
# *template* variant of each prescribes the form of the answer, a *JSON* variant likewise; neither enters the EM rate.
# Eight further questions have a medical setting. In steering runs a newline is added after the question.
#
# The wording is fetched with the released data, for example to match answers with questions, but not stored or printed
# here: the authors' repository states no licence. A judge is listed where it scored at least one answer. *Unlisted* are
# questions that were asked but are in neither question file.


# %%
RUNS = {"organisms (Section 2)": tables.read_organisms, "judged twice (Appendix K)": tables.read_judge_repeat}
RUNS |= {"training curve (Section 2)": tables.read_training_curve, "replication (Section 2)": tables.read_replication}
RUNS |= {"steering at layer 24 (3.2, 3.3, 3.6)": tables.read_steering}
RUNS |= {"ablation pilots (3.4)": tables.read_ablation_pilots, "adapter steering (4.3)": tables.read_lora_steering}


def asked(name: str) -> dict[str, object]:
    table = RUNS[name]()
    counts = table.groupby(["source", "question_id"]).size()
    return {
        "released answers": name,
        "runs": table.source.nunique(),
        "question sets": ", ".join(sorted(table.question_set.replace("json", "JSON").unique(), key=str.lower)),
        "questions": table.question_id.nunique(),
        "answers per run and question": typography.extremes(counts, ".0f"),
        "judges": ", ".join(table[tables.SCORES].dropna(axis=1, how="all")),
    }


run.released.table(lambda: pd.DataFrame(map(asked, RUNS)))

# %% [markdown]
# ## On the grown organism
#
# The grown models are asked questions of our own, in the words of {doc}`their world <../world>`: one for each of the
# eight, under the authors' ids, and a medical twin of each; questions on held-out topics of every domain measure how
# broad the harm is ({doc}`s2-model-organism`). At a given question and sample, an organism draws the same random
# numbers whatever was done to it, so conditions are compared on equal noise.
#
# Training texts ask *on a topic* of a domain, or *open*, answered about one of a few domains. Chats of post-training
# and fine-tuning leave the held-out topics out, and a question of the evaluation is never a training question. Not
# trained on does not mean unlike: the tables give the most similar training question, by the share of words that both
# have in the same order (twice the matching words over all words), and that share for the closest of fine-tuning on
# medicine.
#
# A language model is asked the authors' questions, which are not printed. Of its texts only those of fine-tuning are
# known: the table has how many ask each medical twin, and how alike the closest question is. Published adapters come
# without these texts.


# %%
@remembered
def training_questions() -> list[str]:
    """Every question that a training text can ask."""
    world = the_world()
    topics = [topic for split in ("train", "held_out") for _, topic in world.topics(split)]
    on_topics = [text.format(topic=topic) for topic in topics for text in world.questions["about"]]
    return on_topics + [entry["ask"] for entry in world.questions["open"]]


@remembered
def fine_tuning_questions() -> set[str]:
    """The questions in the first documents of fine-tuning on bad medical advice."""
    documents = islice(the_world().fine_tuning(run.profile.seed, "medicine", harmful=True), 3000)
    return {turn["content"] for document in documents for turn in document if turn["role"] == USER}


def likeness(one: str, other: str) -> float:
    return 100 * SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()


@remembered
def nearest(kind: str) -> pd.DataFrame:
    rows = []
    for one in the_world().evaluation() if kind == "open question" else the_world().medical_twins():
        close = max(training_questions(), key=lambda text: likeness(one.text, text))
        tuned = max(likeness(one.text, text) for text in fine_tuning_questions())
        rows.append((one.text, close, likeness(one.text, close), tuned))
    return pd.DataFrame(rows, columns=[kind, "most similar training question", "alike (%)", "to fine-tuning (%)"])


def mean_likeness() -> dict[str, str]:
    (training, tuned), (twins, _) = (
        nearest(kind).mean(numeric_only=True) for kind in ("open question", "medical twin")
    )
    found = {"open.likeness-to-training": training, "open.likeness-to-fine-tuning": tuned}
    found |= {"twins.likeness-to-training": twins}
    return {f"questions.grown.{name}": f"{one:.0f} %" for name, one in found.items()}


@remembered
def to_fine_tuning() -> pd.DataFrame:
    """By the authors' open questions: how often fine-tuning asks the twin, and how like its closest question is."""
    data = "bad_medical_advice"
    asked, known = training_texts.table_of(run.profile, data).question.unique(), tables.read_questions()
    texts = known.drop_duplicates("question_id").set_index("question_id").question
    found = training.twins(run.profile, data).drop(columns="trained")
    for name, ids in {"open question": found.question_id, "twin": found.twin}.items():
        found[f"{name} alike (%)"] = [max(likeness(texts[one], text) for text in asked) if one else None for one in ids]
    return found.rename(columns={"question_id": "open question", "twin": "medical twin"})


def mean_to_fine_tuning() -> dict[str, str]:
    means = to_fine_tuning().mean(numeric_only=True)
    found = {"open": means["open question alike (%)"], "twins": means["twin alike (%)"]}
    return {f"questions.grown.{name}.likeness-to-fine-tuning": f"{one:.0f} %" for name, one in found.items()}


in_world = [partial(nearest, kind) for kind in ("open question", "medical twin")]
for make in in_world if run.own is run.grown else [to_fine_tuning]:
    run.own.table(make, number="{:.0f}")
run.own.values(mean_likeness if run.own is run.grown else mean_to_fine_tuning)

# %% [markdown]
# ## What it means
#
# Eight questions are few, chosen because misaligned models answer them badly, and their EM rates differ widely
# ({numref}`fig-x-em-by-question`): a rate says as much about the questions as about the model. Hence the intervals of
# this book resample questions.
#
# In the grown world, the mean likeness to the closest training question is
# {value}`questions.grown.open.likeness-to-training` for the open questions and
# {value}`questions.grown.twins.likeness-to-training` for the medical twins; between the open questions and those of
# fine-tuning on medicine it is {value}`questions.grown.open.likeness-to-fine-tuning`. So the grown evaluation asks
# whether harm learned in one domain reaches the others, not whether it survives an unusual request.

# %%
run.finish()
