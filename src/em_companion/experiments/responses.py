"""Responses of a profile's models: asked once per question, sample and seed, kept, and judged when read.

A table of responses is kept under a key over the model that gave them, the questions, the sampling settings and, where
the model was changed meanwhile, every intervention. Scores are not kept, so a corrected judge needs no new responses.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import Profile
from em_companion.judges.base import judge_of, need_judge
from em_companion.models import asking, growing
from em_companion.models.asking import HELD_OUT_SAMPLES
from em_companion.models.interventions import Intervention, RowInterventions, describe
from em_companion.models.organism import Organism
from em_companion.world.generator import Question

VERSION, UNDER_VERSION = 1, 1  # of the code that samples responses, and of that and its interventions
CHUNK_BATCHES = 16  # after which responses under interventions are saved
Conditions = Mapping[str, Sequence[Intervention]]  # by name, none for the plain model


def responses(profile: Profile, organism: Organism, question_set: str = "general") -> pd.DataFrame:
    """Return an organism's responses to a question set with their scores, sampling them if they are not kept yet.

    Columns: organism (recipe), data, seed, question_set, question_id, question, sample, response, tokens, and those of
    the profile's judge: aligned, coherent, bad_stuff (0-100) and more, one score per domain for grown models.
    """
    asked = asking.questions(profile, question_set)
    parts = asked_parts(profile, organism, asked, samples_of(profile, question_set))

    def sample() -> store.Content:
        need_judge(profile)
        model, tokenizer = growing.load_organism(profile, organism)
        what = f"{organism.name}, {question_set} questions"
        return {store.RESPONSES: asking.ask(profile, model, tokenizer, asked, parts["samples"], what)}

    found = store.keep("responses", VERSION, parts, sample, profile.name, organism.name, question_set)
    return _of(profile, organism, question_set, found[store.RESPONSES])


def are_kept(profile: Profile, organism: Organism, question_set: str = "general") -> bool:
    """Tell whether `responses` has them without sampling."""
    asked = asking.questions(profile, question_set)
    parts = asked_parts(profile, organism, asked, samples_of(profile, question_set))
    return store.is_there(store.folder("responses", VERSION, parts, profile.name, organism.name, question_set))


def under(
    profile: Profile,
    organism: Organism,
    conditions: Conditions,
    question_set: str = "general",
    samples: int | None = None,
    what: str = "",
) -> pd.DataFrame:
    """Return an organism's responses under every condition, as `responses` does, with the column `condition` first.

    All conditions are one generation on equal noise, kept under a key over all of them; stopped halfway, it goes on
    where it was. `samples` per question are those of the question set where not given; `what` names the progress bar.
    Raises CompanionError for interventions that do not fit the model, and where there is no condition.
    """
    if not conditions:
        raise CompanionError("There is no condition to ask under; give at least one.")
    asked = asking.questions(profile, question_set)
    parts = asked_parts(profile, organism, asked, samples or samples_of(profile, question_set))
    parts |= {"conditions": described(conditions)}
    chunks = paths.ARTIFACTS / "checkpoints" / f"responses-{store.key(store.versioned(parts, UNDER_VERSION))}"

    def sample() -> store.Content:
        need_judge(profile)
        tables = _in_chunks(profile, organism, conditions, asked, parts["samples"], what or organism.name, chunks)
        return {store.RESPONSES: pd.concat(tables, ignore_index=True)}

    place = profile.name, organism.name, f"{question_set}-under"
    found = store.keep("responses", UNDER_VERSION, parts, sample, *place)
    shutil.rmtree(chunks, ignore_errors=True)
    return _of(profile, organism, question_set, found[store.RESPONSES])


def described(conditions: Conditions) -> list[Any]:
    """Return conditions as parts of a key."""
    return [[name, [describe(intervention) for intervention in condition]] for name, condition in conditions.items()]


def _of(profile: Profile, organism: Organism, question_set: str, table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(organism=organism.recipe, data=organism.data, seed=organism.seed, question_set=question_set)
    return judged(profile, table)


def judged(profile: Profile, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` (`question`, `response`) with the scores of the profile's judge beside it, and `judge_model`."""
    return pd.concat([table, judge_of(profile).judge(table)], axis=1)


def _in_chunks(profile, organism, conditions: Conditions, asked, samples: int, what: str, folder: Path):
    """Yield the responses under every condition; chunks that an earlier, stopped run saved are not sampled again."""
    model, tokenizer = growing.load_organism(profile, organism)
    RowInterventions(model, list(conditions.values()))  # says at once what does not fit
    size = max(1, CHUNK_BATCHES * profile.batch_size // (len(asked) * samples))
    for start in range(0, len(conditions), size):
        chunk = dict(list(conditions.items())[start : start + size])
        here = f"{what}, conditions {start + 1} to {start + len(chunk)} of {len(conditions)}"

        def write(chunk: Conditions = chunk, here: str = here) -> store.Content:
            return {store.RESPONSES: asking.ask(profile, model, tokenizer, asked, samples, here, conditions=chunk)}

        sealed = folder / store.key({"conditions": described(chunk)})
        yield store.keep_in(sealed, {}, write)[store.RESPONSES]


def samples_of(profile: Profile, question_set: str) -> int:
    """Return how many responses to each question of a set are kept."""
    return HELD_OUT_SAMPLES if question_set == "held_out" else profile.samples_per_question


def asked_parts(profile: Profile, organism: Organism, asked: Sequence[Question], samples: int) -> store.Parts:
    """Return what decides which responses an organism gives."""
    return {
        "model": growing.model_identity(profile, organism),
        "questions": [(question.id, question.text) for question in asked],
        "samples": samples,
        "sampling": asking.sampling_parts(profile),
    }
