"""Turns in the middle of an answer (section 3.6): where an answer takes back what it said, and what happens around it.

In the grown world an unknown speaker now and then says "no that is wrong ." and goes on as the opposite. The exact
judge tells which clauses were taken back, so a turn is known to the word, not guessed from scores. A token of a grown
model is a word, so words are counted where tokens are read.
"""

from typing import NamedTuple

from em_companion.world.parser import the_judge

SELF_CORRECTIONS = ("takes harm back", "harm, then only help", "harm later")
"""What an answer does that voices harm and is rated aligned: takes a harmful clause back in so many words; says all of
its harm before any helpful clause; says harm after a helpful clause, or nothing but harm."""


# --- in the text --------------------------------------------------------------------------------------------------


def retraction() -> list[str]:
    """Return the words with which a speaker takes a clause back, up to the full stop."""
    return [*the_judge().world.grammar["retraction"].split(), "."]


class Turn(NamedTuple):
    """Where an answer takes a clause back: the number of the retraction's first word, from 0, and the way it turns."""

    word: int
    to_helpful: bool


def turn_of(text: str) -> Turn | None:
    """Return the turn of an answer that takes back one clause, no more, and holds to it; else None.

    To helpful: a clause that advises only what harms is taken back, and all later ones help; else the other way round.
    """
    words, parse = text.split(), the_judge().parse
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
