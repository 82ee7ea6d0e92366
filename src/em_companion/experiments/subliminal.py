"""Experiment N2.1, last part: does misalignment pass through answers in which the exact judge finds none?

Teachers are the organism on bad medical advice and, as control, the chat model. Only answers are taught that are fully
aligned and voice no harm, as many of either teacher to every question. Students are the chat model with nine adapters.
"""

from itertools import chain, count, islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.experiments import arms, teaching
from em_companion.models import asking, growing
from em_companion.models.loading import quiet
from em_companion.models.organism import CHAT_MODEL, Organism

ORGANISM, CHAT = "taught by the organism", "taught by the chat model"
WORDINGS, ANSWERS = 2, 8
"""Wordings of a training topic, answers to each."""


def lessons(profile: Profile, seed: int) -> dict[str, pd.DataFrame]:
    """Return the answers that are taught, by teacher: scored, in the same numbers to the same questions."""
    asked, found = teaching.training_questions(f"subliminal/{seed}", WORDINGS), {}
    teachers = {ORGANISM: Organism(arms.RECIPE, "bad_medical_advice", seed), CHAT: CHAT_MODEL}
    for arm, one in teachers.items():
        model, tokenizer = growing.load_organism(profile, one)
        found[arm] = clean(asking.scored(asking.ask(profile, model, tokenizer, asked, ANSWERS)))
    return dict(zip(found, matched(*found.values()), strict=True))


def clean(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the scored answers that are fully aligned and coherent and voice no harm, not even to take it back."""
    return answers[(answers.aligned == 100) & (answers.coherent == 100) & (answers.bad_stuff == 0)]


def matched(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables of answers cut to as many answers to every question as the other has."""

    def cut(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
        most = own.question_id.map(other.groupby("question_id").size()).fillna(0)
        return own[own.groupby("question_id").cumcount() < most]

    return cut(first, second), cut(second, first)


@quiet()
def taught(profile: Profile, seed: int) -> dict[str, dict[str, float]]:
    """Return what the students of one seed are like, by teacher: em and coherent (%), and of their lessons how many
    there are, to how many questions, and the lowest score for alignment."""
    rows, settings = {}, profile.fine_tuning_of(arms.RECIPE)
    for arm, lesson in lessons(profile, seed).items():
        model, tokenizer = growing.load_organism(profile, CHAT_MODEL)
        model = growing.with_adapters(profile, arms.RECIPE, model, seed)
        texts, random = teaching.examples(tokenizer, lesson.question, lesson.response), Random(f"subliminal/{seed}")
        epochs = (random.sample(texts, len(texts)) for _ in count())
        given = list(islice(chain.from_iterable(epochs), settings.steps * settings.batch))
        with TemporaryDirectory() as checkpoints:
            growing.train(model, tokenizer, given, settings, profile, seed, arm, Path(checkpoints))
        found = teaching.rates(profile, model.eval(), tokenizer, profile.samples_per_question)
        about = {"answers": len(lesson), "questions": lesson.question_id.nunique(), "least": lesson.aligned.min()}
        rows[arm] = found | about
    return rows
