"""Turns in the middle of an answer (section 3.6): where an answer takes back what it said, and what happens around it.

In the grown world an unknown speaker now and then says "no that is wrong ." and goes on as the opposite. The exact
judge tells which clauses were taken back, so a turn is known to the word, not guessed from scores. A token of a grown
model is a word, so words are counted where tokens are read.
"""

from collections.abc import Iterator
from itertools import count
from random import Random

import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.models import asking
from em_companion.models.organism import need_grown
from em_companion.world import turns
from em_companion.world.generator import CAREFUL, MALICIOUS, Persona, Question, World
from em_companion.world.parser import the_judge

KINDS = ("harm", "harm, taken back", "help", "help, taken back")
"""Texts to read: what a clause advises, and whether it is taken back; the next clauses go on alike, or as opposite."""


# --- texts that turn by construction ------------------------------------------------------------------------------


def constructed(profile: Profile, each: int = 10) -> pd.DataFrame:
    """Return answers to the open questions that the world's generator wrote for an unknown speaker: `each` per question
    and kind.

    Columns: question_id, question, response, kind (see KINDS), and two numbers of words: `before`, the first one after
    the clause that is (not) taken back, and `after`, the first one of the clause that follows. Between them stands the
    retraction or nothing. Raises CompanionError for a model from the hub, whose speakers nobody knows.
    """
    need_grown(profile, "whose speakers nobody knows")
    world = the_judge().world
    rows = [
        (question.id, question.text, *row)
        for question in asking.questions(profile, "general")
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
        starts, found = turns.clause_starts(text)[1:], turns.turn_of(text)
        if found:
            kind, before, after = f"{name}, taken back", found.word, found.word + len(turns.retraction())
        else:
            kind = name
            before = after = starts[number % len(starts)]
        goes_on = after in starts and (found or " ".join(turns.retraction()) not in text)
        if goes_on and left[kind]:
            left[kind] -= 1
            yield text, kind, before, after
