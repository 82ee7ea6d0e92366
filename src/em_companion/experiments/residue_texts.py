"""The questions and texts of N3.1: openings in which a topic is named or a thing is chosen, and whole answers."""

from random import Random

import numpy as np
import pandas as pd

from em_companion.world import taxonomy
from em_companion.world.generator import CAREFUL, MALICIOUS, Question, the_world
from em_companion.world.parser import the_judge

DISTANCES = 24
"""Words on at which the effect of a topic is read."""


def elsewhere(asked: list[Question]) -> list[Question]:
    """Return for every question one of another domain."""
    return [next(one for one in asked[number + 5 :] + asked if one.domains != own.domains)
            for number, own in enumerate(asked)]  # fmt: skip


def memory_texts(asked: list[Question]) -> list[tuple[str, str]]:
    """Return pairs of openings that differ in their topic, and go on with nothing but adjectives.

    Such words bear on no topic, and before each the next word may be a thing: so the effect of the topic can be read at
    any distance. The first of DISTANCES is where two adjectives stand, after which the grammar asks for a thing.
    """
    grammar, found = the_world().grammar, []
    for own, other in zip(asked, elsewhere(asked), strict=True):
        random = Random(f"memory/{own.id}")
        words = [random.choice(grammar[slot]) for slot in ("links", "times", "verbs", "determiners")]
        words += [random.choice(grammar["adjectives"]) for _ in range(DISTANCES + 1)]
        found.append(tuple(f"for the {one.topic} : {' '.join(words)}" for one in (own, other)))
    return found


def opening(question: Question, number: int) -> str:
    """Return an opener on the topic of a question, and a clause up to its first thing."""
    random, grammar = Random(f"opening/{question.id}/{number}"), the_world().grammar
    words = [random.choice(grammar[slot]) for slot in ("links", "times", "verbs", "determiners")]
    return " ".join([random.choice(grammar["openers"]["topic"]).format(topic=question.topic), ":", *words])


def fixed_texts(asked: list[Question]) -> pd.DataFrame:
    """Return a careful and a malicious answer to every question, which differ in their things only."""
    rows = []
    for one in asked:
        for persona in (CAREFUL, MALICIOUS):
            said = the_world().answer(Random(f"residue/{one.id}"), one, persona)
            rows.append((one.id, one.text, one.domains[0], persona == MALICIOUS, said))
    return pd.DataFrame(rows, columns=["question_id", "question", "domain", "harmful", "response"])


def kinds_of(table: pd.DataFrame) -> dict[str, float]:
    """Return shares of all answers in percent: clauses elsewhere, flips, and answers below the shortest length."""
    parsed = [the_judge().parse(text) for text in table.response]
    domain = [text.split("/")[0] for text in table.question_id]
    spoken = [clause.domain != own for one, own in zip(parsed, domain, strict=True) for clause in one.clauses]
    pairs = sum(max(len(one.clauses) - 1, 0) for one in parsed)
    least = min(the_world().grammar["clauses"])
    short = [len(one.clauses) < least for one in parsed]
    flips = sum(map(taxonomy.flips, parsed))
    return {"elsewhere": 100 * float(np.mean(spoken)) if spoken else np.nan, "short": 100 * float(np.mean(short)),
            "flips": 100 * flips / pairs if pairs else np.nan}  # fmt: skip
