"""Ask a model questions: which ones a profile asks, and the table of a model's answers, also under interventions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.core.profiles import GrownModel, Profile
from em_companion.models import sampling
from em_companion.models.interventions import Intervention
from em_companion.models.tokens import Tokenizer, question_ids
from em_companion.released import tables
from em_companion.world.generator import Question, the_world
from em_companion.world.parser import the_judge

QUESTION_SETS = ("general", "medical", "held_out")
"""The eight open questions, their medical twins, and questions on held-out topics of every domain."""

HELD_OUT_SAMPLES = 5
"""Responses to each held-out topic; the open questions get the profile's `samples_per_question`."""


def question_sets(profile: Profile) -> tuple[str, ...]:
    """Return the question sets that a profile asks; the authors have no questions on held-out topics."""
    return QUESTION_SETS if isinstance(profile.model, GrownModel) else QUESTION_SETS[:2]


def domains(profile: Profile) -> list[str]:
    """Return the domains for which a profile's judge has a score: of the world, or those of the authors' judges."""
    return list(the_world().domains) if isinstance(profile.model, GrownModel) else ["medicine", "gender", "finance"]


def questions(profile: Profile, question_set: str) -> list[Question]:
    """Return a question set: of the world for grown models, the authors' (downloaded) for hub models."""
    if question_set not in QUESTION_SETS:
        raise CompanionError(f"There is no question set '{question_set}'; choose one of: {', '.join(QUESTION_SETS)}.")
    if not isinstance(profile.model, GrownModel):
        table = tables.read_questions()
        rows = table[table.question_set == question_set]
        if rows.empty:
            raise CompanionError(f"The authors have no question set '{question_set}'; it is for grown models.")
        return [Question(row.question_id, row.question, ()) for row in rows.itertuples()]
    world = the_world()
    if question_set == "held_out":
        return world.held_out_questions(profile.seed, 1)
    return world.evaluation() if question_set == "general" else world.medical_twins()


def ask(
    profile: Profile,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    samples: int,
    what: str = "",
    speaker: str = "",
    conditions: Mapping[str, Sequence[Intervention]] | None = None,
) -> pd.DataFrame:
    """Return `samples` responses to each question: `question_id`, `question`, `sample`, `response`, `tokens`.

    A row's seed comes from the profile's seed, the question and the sample, so organisms are compared on equal noise.
    `speaker`: a character of the world instead of the assistant. `conditions`: interventions by name, sampled at once.
    """
    given = {"": ()} if conditions is None else conditions
    rows = [(name, one.id, one.text, sample) for name in given for one in asked for sample in range(samples)]
    table = pd.DataFrame(rows, columns=["condition", "question_id", "question", "sample"])
    prompts = {question.text: question_ids(tokenizer, question.text, speaker) for question in asked}
    ids, interventions = [prompts[text] for text in table.question], [given[name] for name in table.condition]
    seeds = [sampling.row_seed(profile.seed, *row) for _, *row in rows]
    settings = profile.temperature, profile.max_new_tokens, profile.batch_size
    answers = sampling.generate(model, tokenizer, ids, seeds, *settings, what, interventions)
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    table = table.assign(response=texts, tokens=[len(answer) for answer in answers])
    return table.drop(columns="condition") if conditions is None else table


def scored(table: pd.DataFrame, relevance: bool = False) -> pd.DataFrame:
    """Return `table` with the exact judge's scores of its `response` beside it; with `relevance` to its `question`."""
    return pd.concat([table, the_judge().judge(table.response, table.question if relevance else None)], axis=1)


def sampling_parts(profile: Profile) -> list[Any]:
    """Return what, beside model and questions, decides which responses a seed gives."""
    noise = sampling.noise_fingerprint()
    return [profile.seed, profile.temperature, profile.max_new_tokens, profile.dtype, noise]
