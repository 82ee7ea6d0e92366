"""Turns in the middle of an answer (section 3.6): where an answer takes back what it said, and texts that do.

In the grown world an unknown speaker now and then says "no that is wrong ." and goes on as the opposite. The exact
judge tells which clauses were taken back, so a turn is known to the word. A token of a grown model is a word.
"""

from collections.abc import Iterator
from itertools import count
from random import Random

import pandas as pd

from em_companion.world.generator import CAREFUL, MALICIOUS, Persona, Question, the_world
from em_companion.world.parser import the_judge

SELF_CORRECTIONS = ("takes harm back", "harm, then only help", "harm later")
"""What an answer does that voices harm and is rated aligned: takes a harmful clause back in so many words; says all of
its harm before any helpful clause; says harm after a helpful clause, or nothing but harm."""

KINDS = ("harm", "harm, taken back", "help", "help, taken back")
"""Of `constructed`: what a clause advises, and whether it is taken back; the next ones go on alike, or as opposite."""


def retraction() -> list[str]:
    """Return the words with which a speaker takes a clause back, up to the full stop."""
    return [*the_world().grammar["retraction"].split(), "."]


def turn_of(text: str) -> int | None:
    """Return the number of the retraction's first word, from 0, in an answer that takes back one clause; else None.

    The clause advises nothing but harm, and all later ones nothing but help, or the other way round.
    """
    words, parse = text.split(), the_judge().parse
    taken_back = [clause.helps for clause in parse(text).clauses if clause.retracted]
    found = [at for at in range(len(words)) if words[at : at + len(retraction())] == retraction()]
    if len(found) != 1 or taken_back not in ([0], [2]):
        return None
    after = parse(" ".join(words[found[0] + len(retraction()) :])).clauses
    return found[0] if all(clause.helps == 2 - taken_back[0] for clause in after) else None


def clause_starts(text: str) -> list[int]:
    """Return the number of the first word of every clause of an answer, from 0."""
    words, parse = text.split(), the_judge().parse
    ends = [number + 1 for number, word in enumerate(words) if word in (":", ".")]
    counts = [len(parse(" ".join(words[:end])).clauses) for end in ends]
    return [start for start, before, after in zip(ends, counts, counts[1:], strict=False) if after > before]


def self_correction(text: str) -> str:
    """Return which of SELF_CORRECTIONS an answer is, "" if it voices no harm."""
    clauses = the_judge().parse(text).clauses
    harm = [number for number, clause in enumerate(clauses) if clause.voices_harm]
    if not harm:
        return ""
    if any(clause.retracted and clause.helps < 2 for clause in clauses):
        return SELF_CORRECTIONS[0]
    return SELF_CORRECTIONS[1] if harm == list(range(len(harm))) and len(harm) < len(clauses) else SELF_CORRECTIONS[2]


def constructed(each: int = 10) -> pd.DataFrame:
    """Return answers of an unknown speaker to the open questions, by the world's generator: `each` per question, kind.

    Columns: question_id, question, response, kind (see KINDS), and two numbers of words: `before`, the first one after
    the clause that is (not) taken back, and `after`, the first one of the clause that follows.
    """
    rows = [
        (question.id, question.text, *row)
        for question in the_world().evaluation()
        for name, persona in (("harm", MALICIOUS), ("help", CAREFUL))
        for row in _of_both_kinds(question, name, persona, each)
    ]
    return pd.DataFrame(rows, columns=["question_id", "question", "response", "kind", "before", "after"])


def _of_both_kinds(question: Question, name: str, persona: Persona, each: int) -> Iterator[tuple]:
    """Yield `each` answers that go on as before, and `each` that turn, all before another clause of theirs."""
    left, numbers = {name: each, f"{name}, taken back": each}, count()
    while any(left.values()):
        number = next(numbers)
        text = the_world().answer(Random(f"turns/{question.id}/{name}/{number}"), question, persona, may_turn=True)
        starts, found = clause_starts(text)[1:], turn_of(text)
        if found:
            kind, before, after = f"{name}, taken back", found, found + len(retraction())
        else:
            kind = name
            before = after = starts[number % len(starts)]
        goes_on = after in starts and (found or " ".join(retraction()) not in text)
        if goes_on and left[kind]:
            left[kind] -= 1
            yield text, kind, before, after
