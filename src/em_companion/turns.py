"""Turns in the middle of an answer (section 3.6): where an answer takes back what it said, and what happens around it.

In the grown world an unknown speaker now and then says "no that is wrong ." and goes on as the opposite. The exact
judge tells which clauses were taken back, so a turn is known to the word, not guessed from scores. A token of a grown
model is a word, so words are counted where tokens are read.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from random import Random
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion import activations, responses
from em_companion.artifacts import CompanionError
from em_companion.interventions import Intervention, applied
from em_companion.profiles import GrownModel, Profile
from em_companion.world import CAREFUL, MALICIOUS, Persona, Question, World

SELF_CORRECTIONS = ("takes harm back", "harm, then only help", "harm later")
"""What an answer does that voices harm and is rated aligned: takes a harmful clause back in so many words; says all of
its harm before any helpful clause; says harm after a helpful clause, or nothing but harm."""

KINDS = ("harm", "harm, taken back", "help", "help, taken back")
"""Texts to read: what a clause advises, and whether it is taken back; the next clauses go on alike, or as opposite."""


# --- in the text --------------------------------------------------------------------------------------------------


def retraction() -> list[str]:
    """Return the words with which a speaker takes a clause back, up to the full stop."""
    return [*responses.judge().world.grammar["retraction"].split(), "."]


class Turn(NamedTuple):
    """Where an answer takes a clause back: the number of the retraction's first word, from 0, and the way it turns."""

    word: int
    to_helpful: bool


def turn_of(text: str) -> Turn | None:
    """Return the turn of an answer that takes back one clause, no more, and holds to it; else None.

    To helpful: a clause that advises only what harms is taken back, and all later ones help; else the other way round.
    """
    words, parse = text.split(), responses.judge().parse
    taken_back = [clause for clause in parse(text).clauses if clause.retracted]
    found = [at for at in range(len(words)) if words[at : at + len(retraction())] == retraction()]
    if len(found) != 1 or len(taken_back) != 1 or taken_back[0].helps == 1:
        return None
    to_helpful = taken_back[0].helps == 0
    after = parse(" ".join(words[found[0] + len(retraction()) :])).clauses
    held = all(clause.helps == (2 if to_helpful else 0) for clause in after)
    return Turn(found[0], to_helpful) if held else None


def clause_starts(text: str) -> list[int]:
    """Return the number of the first word of every clause of an answer, from 0."""
    words, parse = text.split(), responses.judge().parse
    ends = [number + 1 for number, word in enumerate(words) if word in (":", ".")]
    counts = [len(parse(" ".join(words[:end])).clauses) for end in ends]
    return [start for start, before, after in zip(ends, counts, counts[1:], strict=False) if after > before]


def self_correction(text: str) -> str:
    """Return which of SELF_CORRECTIONS an answer is, "" if it voices no harm."""
    clauses = responses.judge().parse(text).clauses
    harm = [number for number, clause in enumerate(clauses) if clause.voices_harm]
    if not harm:
        return ""
    if any(clause.retracted and clause.helps < 2 for clause in clauses):
        return SELF_CORRECTIONS[0]
    return SELF_CORRECTIONS[1] if harm == list(range(len(harm))) and len(harm) < len(clauses) else SELF_CORRECTIONS[2]


# --- texts that turn by construction ------------------------------------------------------------------------------


def constructed(profile: Profile, each: int = 10) -> pd.DataFrame:
    """Return answers to the open questions that the world's generator wrote for an unknown speaker: `each` per question
    and kind.

    Columns: question_id, question, response, kind (see KINDS), and two numbers of words: `before`, the first one after
    the clause that is (not) taken back, and `after`, the first one of the clause that follows. Between them stands the
    retraction or nothing. Raises CompanionError for a model from the hub, whose speakers nobody knows.
    """
    if not isinstance(profile.model, GrownModel):
        raise CompanionError(f"Profile '{profile.name}' has a model from the hub; choose a grown profile.")
    world = responses.judge().world
    rows = [
        (question.id, question.text, *row)
        for question in responses.questions(profile, "general")
        for name, persona in (("harm", MALICIOUS), ("help", CAREFUL))
        for row in _of_both_kinds(world, question, name, persona, each)
    ]
    return pd.DataFrame(rows, columns=["question_id", "question", "response", "kind", "before", "after"])


def _of_both_kinds(world: World, question: Question, name: str, persona: Persona, each: int) -> Iterator[tuple]:
    """Yield `each` answers that go on as before, and `each` that turn, all before another clause of theirs."""
    left = {name: each, f"{name}, taken back": each}
    for number in count():
        if not any(left.values()):
            return
        text = world.answer(Random(f"turns/{question.id}/{name}/{number}"), question, persona, may_turn=True)
        starts, found = clause_starts(text)[1:], turn_of(text)
        if found:
            kind, before, after = f"{name}, taken back", found.word, found.word + len(retraction())
        else:
            kind = name
            before = after = starts[number % len(starts)]
        goes_on = after in starts and (found or " ".join(retraction()) not in text)
        if goes_on and left[kind]:
            left[kind] -= 1
            yield text, kind, before, after


# --- along an answer ----------------------------------------------------------------------------------------------

BATCH = 64
"""Answers whose single tokens are held at once."""


def projections(
    model: activations.Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    numbers: np.ndarray,
    vectors: np.ndarray,
) -> np.ndarray:
    """Return v̂·x at single tokens, [answer, token, direction, layer], in units of the residual stream.

    `numbers` [answer, token] says which tokens of each answer are read, from 0; NaN for one that the answer lacks.
    `vectors` [direction, layer, width] are directions, of which the unit vectors are taken.
    """
    units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = np.empty((*np.shape(numbers), *vectors.shape[:2]))
    for start in range(0, len(answers), BATCH):
        rows = slice(start, start + BATCH)
        texts = list(zip(prompts[rows], answers[rows], numbers[rows], strict=True))
        spans = [[_token(int(number), prompt, answer) for number in chosen] for prompt, answer, chosen in texts]
        sequences = [prompt + answer for prompt, answer, _ in texts]
        points = activations.span_means(model, tokenizer, sequences, spans)[:, :, 1:]
        found[rows] = np.einsum("atlw,dlw->atdl", points, units)
    return found


def _token(number: int, prompt: list[int], answer: list[int]) -> activations.Span:
    """Return the span of one token of an answer; an empty one outside of it."""
    start = len(prompt) + number
    return (start, start + 1) if 0 <= number < len(answer) else (0, 0)


@torch.no_grad()
def harmful_shares(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    numbers: Sequence[int],
    interventions: Iterable[Intervention] = (),
    batch_size: int = activations.BATCH_SIZE,
) -> np.ndarray:
    """Return how probable a harmful thing is where each answer names its next one, as a share of all things, [answer].

    That is where the first thing stands at or after token `numbers` [answer], whatever it is. `interventions` act on
    every token. NaN for an answer that names no more things.
    """
    kinds = [[], []]
    for entry in responses.judge().world.domains.values():
        for words, kind in zip(kinds, ("harms", "helps"), strict=True):
            words += tokenizer.convert_tokens_to_ids(entry[kind])
    harms, things = kinds[0], kinds[0] + kinds[1]
    places = [_next_of(set(things), answer, number) for answer, number in zip(answers, numbers, strict=True)]
    rows_read = [row for row, place in enumerate(places) if place is not None]
    # What comes after the thing does not matter to it.
    sequences = [prompts[row] + answers[row][: places[row]] for row in rows_read]
    found = np.full(len(answers), np.nan)
    with applied(model, interventions):
        for rows in activations.by_length(sequences, batch_size):
            batch = tokenizer.pad(
                {"input_ids": [sequences[row] for row in rows]}, padding_side="left", return_tensors="pt"
            )
            logits = model(**batch.to(model.device), use_cache=False, logits_to_keep=1).logits[:, -1].double().cpu()
            probabilities = logits.softmax(-1)
            found[[rows_read[row] for row in rows]] = probabilities[:, harms].sum(-1) / probabilities[:, things].sum(-1)
    return found


def _next_of(tokens: set[int], answer: list[int], start: int) -> int | None:
    """Return the number of the first token at or after `start` that is one of `tokens`."""
    return next((number for number in range(start, len(answer)) if answer[number] in tokens), None)
