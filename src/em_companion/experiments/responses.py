"""Responses of a profile's models: asked once per question, sample and seed, kept, and judged when read.

A table of responses is kept under a key over the model that gave them, the questions, the sampling settings and, where
the model was changed meanwhile, every intervention. Scores are not kept: the exact judge is fast, so a corrected judge
needs no new responses.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import GrownModel, Profile
from em_companion.models import asking, growing
from em_companion.models.asking import HELD_OUT_SAMPLES, QUESTION_SETS
from em_companion.models.hooks import RowInterventions
from em_companion.models.interventions import Intervention, describe
from em_companion.models.organism import Organism


def prepare(profile: Profile, organism: Organism) -> Path | str:
    """Make an organism and its responses to every question set if they are missing; return its folder or hub id."""
    found = growing.adapter(profile, organism) or growing.chat(profile)
    if isinstance(profile.model, GrownModel):
        for question_set in QUESTION_SETS:
            responses(profile, organism, question_set)
    return found


def responses(profile: Profile, organism: Organism, question_set: str = "general") -> pd.DataFrame:
    """Return an organism's responses to a question set with their scores, sampling them if they are not kept yet.

    Columns: organism (recipe), data, seed, question_set, question_id, question, sample, response, tokens, and for grown
    models aligned, coherent, bad_stuff (0-100) and one score per domain.
    """
    parts = _responses_parts(profile, organism, question_set)
    folder = paths.ARTIFACTS / "responses" / profile.name / organism.name / question_set / store.key(parts)

    def sample() -> pd.DataFrame:
        model, tokenizer = growing.load_organism(profile, organism)
        what = f"{organism.name}, {question_set} questions"
        return asking.ask(profile, model, tokenizer, asking.questions(profile, question_set), parts["samples"], what)

    return _kept(profile, organism, question_set, folder, parts, sample)


def under(
    profile: Profile,
    organism: Organism,
    conditions: Mapping[str, Sequence[Intervention]],
    question_set: str = "general",
    samples: int | None = None,
    what: str = "",
) -> pd.DataFrame:
    """Return an organism's responses under every condition, as `responses` does, with the column `condition` first.

    `conditions`: interventions by name, none for the plain model. All conditions are one generation on equal noise. It
    is kept under a key over all of them and, stopped halfway, goes on where it was. `samples` per question are those
    of the question set where not given; `what` names the progress bar. Raises CompanionError for interventions that do
    not fit the model, and where there is no condition.
    """
    if not conditions:
        raise CompanionError("There is no condition to ask under; give at least one.")
    parts = _responses_parts(profile, organism, question_set)
    parts |= {"samples": samples or parts["samples"], "conditions": _described(conditions)}
    folder = paths.ARTIFACTS / "responses" / profile.name / organism.name / f"{question_set}-under" / store.key(parts)
    return _kept(
        profile,
        organism,
        question_set,
        folder,
        parts,
        lambda: _in_chunks(profile, organism, conditions, question_set, parts, what or organism.name),
    )


def _described(conditions: Mapping[str, Sequence[Intervention]]) -> list[Any]:
    return [[name, [describe(intervention) for intervention in condition]] for name, condition in conditions.items()]


def _kept(
    profile: Profile,
    organism: Organism,
    question_set: str,
    folder: Path,
    parts: store.Parts,
    sample: Callable[[], pd.DataFrame],
) -> pd.DataFrame:
    store.kept_tables(folder, parts, lambda: {store.RESPONSES: sample()})
    shutil.rmtree(_chunks(parts), ignore_errors=True)
    table = pd.read_parquet(folder / store.RESPONSES)
    table = table.assign(organism=organism.recipe, data=organism.data, seed=organism.seed, question_set=question_set)
    return asking.scored(table) if isinstance(profile.model, GrownModel) else table


CHUNK_BATCHES = 16
"""Batches after which responses under interventions are saved; the last rows of a chunk do not fill their batch."""


def _in_chunks(profile, organism, conditions, question_set, parts, what) -> pd.DataFrame:
    """Return the responses under every condition; chunks that an earlier, stopped run saved are not sampled again."""
    model, tokenizer = growing.load_organism(profile, organism)
    RowInterventions(model, list(conditions.values()))  # says at once what does not fit
    asked, folder = asking.questions(profile, question_set), _chunks(parts)
    size = max(1, CHUNK_BATCHES * profile.batch_size // (len(asked) * parts["samples"]))
    tables = []
    for start in range(0, len(conditions), size):
        chunk = dict(list(conditions.items())[start : start + size])
        sealed = folder / store.key({"conditions": _described(chunk)})
        here = f"{what}, conditions {start + 1} to {start + len(chunk)} of {len(conditions)}"

        def write(chunk=chunk, here=here) -> dict[str, pd.DataFrame]:
            found = asking.ask_under(profile, model, tokenizer, asked, parts["samples"], chunk, here)
            return {store.RESPONSES: found}

        store.kept_tables(sealed, {}, write)
        tables.append(pd.read_parquet(sealed / store.RESPONSES))
    return pd.concat(tables, ignore_index=True)


def _chunks(parts: store.Parts) -> Path:
    return paths.ARTIFACTS / "checkpoints" / f"responses-{store.key(parts)}"


def _samples(profile: Profile, question_set: str) -> int:
    return HELD_OUT_SAMPLES if question_set == "held_out" else profile.samples_per_question


def _responses_parts(profile: Profile, organism: Organism, question_set: str) -> store.Parts:
    return {
        "model": growing.model_identity(profile, organism),
        "questions": [(question.id, question.text) for question in asking.questions(profile, question_set)],
        "samples": _samples(profile, question_set),
        "sampling": asking.sampling_parts(profile),
    }
