"""Responses of a profile's models: asked once per question, sample and seed, kept, and judged when read.

A table of responses is kept under a key over the model that gave them, the questions, the sampling settings and, where
the model was changed meanwhile, every intervention. Scores are not kept: the exact judge is fast, so a corrected judge
needs no new responses.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion import judging, model_store, organisms, released, sampling
from em_companion.artifacts import CompanionError
from em_companion.exact_judge import Judge
from em_companion.interventions import Intervention, RowInterventions, describe
from em_companion.paths import ARTIFACTS
from em_companion.profiles import GrownModel, Profile
from em_companion.world import Question, turn

QUESTION_SETS = ("general", "medical", "held_out")
"""The eight open questions, their medical twins, and questions on held-out topics of every domain."""

HELD_OUT_SAMPLES = 5
"""Responses to each held-out topic; the open questions get the profile's `samples_per_question`."""


@dataclass(frozen=True)
class Organism:
    """One model of a profile: the chat model (recipe "chat-model"), or an adapter recipe on a data set with a seed."""

    recipe: str
    data: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        return model_store.organism_name(self.recipe, self.data, self.seed) if self.data else self.recipe


CHAT_MODEL = Organism("chat-model")


def organisms_of(profile: Profile) -> list[Organism]:
    """Return the chat model and every organism of a profile, one per seed."""
    found = [CHAT_MODEL]
    for entry in profile.organisms:
        found += [Organism(entry.recipe, entry.data, seed) for seed in entry.seeds or (0,)]
    return found


@cache
def judge() -> Judge:
    """Return the exact judge of the world."""
    return Judge(model_store.world())


# --- questions ----------------------------------------------------------------------------------------------------


def questions(profile: Profile, question_set: str) -> list[Question]:
    """Return a question set: of the world for grown models, the authors' (downloaded) for hub models."""
    if question_set not in QUESTION_SETS:
        raise CompanionError(f"There is no question set '{question_set}'; choose one of: {', '.join(QUESTION_SETS)}.")
    if not isinstance(profile.model, GrownModel):
        table = released.read_questions()
        rows = table[table.question_set == question_set]
        if rows.empty:
            raise CompanionError(f"The authors have no question set '{question_set}'; it is for grown models.")
        return [Question(row.question_id, row.question, ()) for row in rows.itertuples()]
    world = model_store.world()
    if question_set == "held_out":
        return world.held_out_questions(profile.seed, 1)
    return world.evaluation() if question_set == "general" else world.medical_twins()


# --- asking -------------------------------------------------------------------------------------------------------


def ask(
    profile: Profile,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Question],
    samples: int,
    what: str = "",
    speaker: str | None = None,
    interventions: Sequence[Intervention] = (),
) -> pd.DataFrame:
    """Return `samples` responses to each question: `question_id`, `question`, `sample`, `response`, `tokens`.

    A row's seed comes from the profile's seed, the question and the sample, so organisms are compared on equal noise.
    `speaker` names a character of the world instead of the assistant; `interventions` act on every row.
    """
    table = ask_under(profile, model, tokenizer, asked, samples, {"": interventions}, what, speaker)
    return table.drop(columns="condition")


def ask_under(
    profile: Profile,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Question],
    samples: int,
    conditions: Mapping[str, Sequence[Intervention]],
    what: str = "",
    speaker: str | None = None,
) -> pd.DataFrame:
    """Return what `ask` does under every condition, in one generation; column `condition` holds their names.

    A condition is a sequence of interventions, none for the plain model. All are sampled with equal noise.
    """
    rows = [(name, question, sample) for name in conditions for question in asked for sample in range(samples)]
    template = {"speaker": speaker} if speaker else {}
    prompts = {q.text: organisms.prompt_ids(tokenizer, turn(q.text, "")[:1], **template) for q in asked}
    answers = sampling.generate(
        model,
        tokenizer,
        [prompts[question.text] for _, question, _ in rows],
        [sampling.row_seed(profile.seed, question.id, question.text, sample) for _, question, sample in rows],
        profile.temperature,
        profile.max_new_tokens,
        profile.batch_size,
        what,
        [conditions[name] for name, _, _ in rows],
    )
    columns = ["condition", "question_id", "question", "sample"]
    table = pd.DataFrame([(name, q.id, q.text, sample) for name, q, sample in rows], columns=columns)
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return table.assign(response=texts, tokens=[len(answer) for answer in answers])


def scored(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with the exact judge's scores of its `response` column beside it."""
    return pd.concat([table, judge().judge(table.response)], axis=1)


def monitor(profile: Profile, data: str) -> organisms.Monitor | None:
    """Return what to measure at checkpoints of fine-tuning: EM rate in the domain trained on and on open questions.

    Rates are shares from 0 to 1: `in_domain_em` (held-out topics of the training domain), `open_em` and
    `open_coherent` (the eight open questions). None for hub models, which have no exact judge.
    """
    if not isinstance(profile.model, GrownModel):
        return None
    domain, _ = model_store.DATA_SETS[data]
    in_domain = [question for question in questions(profile, "held_out") if domain in question.domains]
    asked = in_domain + questions(profile, "general")

    def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        table = scored(ask(profile, model, tokenizer, asked, model_store.MONITOR_SAMPLES))
        within = table.question_id.isin([question.id for question in in_domain])
        em, coherent = judging.is_em(table), judging.is_coherent(table)
        return {
            "in_domain_em": float(em[within].mean()),
            "open_em": float(em[~within].mean()),
            "open_coherent": float(coherent[~within].mean()),
        }

    return measure


# --- kept ---------------------------------------------------------------------------------------------------------


def load(profile: Profile, organism: Organism) -> organisms.Model:
    """Return an organism's model and tokenizer, training it first if it is not there."""
    return organisms.load(profile, organisms.chat(profile), adapter(profile, organism))


def adapter(profile: Profile, organism: Organism) -> Path | str | None:
    """Return the adapter of an organism, trained if it is not there; None for the chat model."""
    if not organism.data:
        return None
    watch = monitor(profile, organism.data)
    return organisms.organism(profile, organism.recipe, organism.data, organism.seed, watch)


def prepare(profile: Profile, organism: Organism) -> Path | str:
    """Make an organism and its responses to every question set if they are missing; return its folder or hub id."""
    found = adapter(profile, organism) or organisms.chat(profile)
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
    folder = ARTIFACTS / "responses" / profile.name / organism.name / question_set / model_store.key(parts)

    def sample() -> pd.DataFrame:
        model, tokenizer = load(profile, organism)
        what = f"{organism.name}, {question_set} questions"
        return ask(profile, model, tokenizer, questions(profile, question_set), parts["samples"], what)

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
    folder = ARTIFACTS / "responses" / profile.name / organism.name / f"{question_set}-under" / model_store.key(parts)
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
    parts: model_store.Parts,
    sample: Callable[[], pd.DataFrame],
) -> pd.DataFrame:
    model_store.kept_tables(folder, parts, lambda: {model_store.RESPONSES: sample()})
    shutil.rmtree(_chunks(parts), ignore_errors=True)
    table = pd.read_parquet(folder / model_store.RESPONSES)
    table = table.assign(organism=organism.recipe, data=organism.data, seed=organism.seed, question_set=question_set)
    return scored(table) if isinstance(profile.model, GrownModel) else table


CHUNK_BATCHES = 16
"""Batches after which responses under interventions are saved; the last rows of a chunk do not fill their batch."""


def _in_chunks(profile, organism, conditions, question_set, parts, what) -> pd.DataFrame:
    """Return the responses under every condition; chunks that an earlier, stopped run saved are not sampled again."""
    model, tokenizer = load(profile, organism)
    RowInterventions(model, list(conditions.values()))  # says at once what does not fit
    asked, folder = questions(profile, question_set), _chunks(parts)
    size = max(1, CHUNK_BATCHES * profile.batch_size // (len(asked) * parts["samples"]))
    tables = []
    for start in range(0, len(conditions), size):
        chunk = dict(list(conditions.items())[start : start + size])
        sealed = folder / model_store.key({"conditions": _described(chunk)})
        here = f"{what}, conditions {start + 1} to {start + len(chunk)} of {len(conditions)}"

        def write(chunk=chunk, here=here) -> dict[str, pd.DataFrame]:
            found = ask_under(profile, model, tokenizer, asked, parts["samples"], chunk, here)
            return {model_store.RESPONSES: found}

        model_store.kept_tables(sealed, {}, write)
        tables.append(pd.read_parquet(sealed / model_store.RESPONSES))
    return pd.concat(tables, ignore_index=True)


def _chunks(parts: model_store.Parts) -> Path:
    return ARTIFACTS / "checkpoints" / f"responses-{model_store.key(parts)}"


def _samples(profile: Profile, question_set: str) -> int:
    return HELD_OUT_SAMPLES if question_set == "held_out" else profile.samples_per_question


def _responses_parts(profile: Profile, organism: Organism, question_set: str) -> model_store.Parts:
    return {
        "model": model_identity(profile, organism),
        "questions": [(question.id, question.text) for question in questions(profile, question_set)],
        "samples": _samples(profile, question_set),
        "sampling": sampling_parts(profile),
    }


def sampling_parts(profile: Profile) -> list[Any]:
    """Return what, beside model and questions, decides which responses a seed gives."""
    settings = [profile.seed, profile.temperature, profile.max_new_tokens, profile.dtype]
    return [*settings, sampling.noise_fingerprint()]


def model_identity(profile: Profile, organism: Organism) -> list[str | None]:
    """Return the sha256 of the weights of chat model and adapter, or their hub ids; None for no adapter.

    Two runs of one recipe are not the same model.
    """
    found = [organisms.chat(profile), adapter(profile, organism)]
    return [model_store.provenance(one)["sha256"] if isinstance(one, Path) else one for one in found]
