"""Which character of the cast gave an answer: exact Bayes with the world's generator as likelihood.

The exact judge reads the valence of every thing that an answer advises; a character says what it stands for but for a
slip of SLIP per thing, and goes on as the opposite where it takes a clause back. Words but things say nothing of who
speaks, and what an answer mentions follows from what it advises, so valences are all that there is to know.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from em_companion.world.generator import CAREFUL, MALICIOUS, Persona, the_world
from em_companion.world.parser import Clause, the_judge

SLIP = 0.01
"""Probability that a thing has the other valence; the generator never slips, models do."""


class Comparison(NamedTuple):
    """Clauses of an answer, and the log of how much better one character explains them than a draw for every clause."""

    clauses: int
    log_odds: float


@cache
def cast() -> dict[Persona, float]:
    """Return the personas of the world with the share of documents that each speaks in."""
    world = the_world()
    shares, unknown = world.characters["documents"], world.characters["unknown_personas"]
    kinds = {kind: shares[kind] + shares["unknown"] * unknown[kind] for kind in ("careful", "malicious", "quack")}
    quacks = {Persona("quack", domain): kinds["quack"] / len(world.domains) for domain in world.domains}
    return {CAREFUL: kinds["careful"], MALICIOUS: kinds["malicious"]} | quacks


def likelihoods(clauses: list[Clause]) -> np.ndarray:
    """Return how probable the valences of each clause are under each persona of the cast, [clause, persona].

    After every clause that is taken back, a persona is expected to go on as its opposite.
    """
    found, turned = np.ones((len(clauses), len(cast()))), False
    for number, clause in enumerate(clauses):
        for column, persona in enumerate(cast()):
            slips = clause.helps if persona.harms(clause.domain) != turned else 2 - clause.helps
            found[number, column] = SLIP**slips * (1 - SLIP) ** (2 - slips)
        turned ^= clause.retracted
    return found


def likelihood(text: str) -> np.ndarray:
    """Return how probable the valences of an answer are under each persona of the cast, [persona]."""
    return likelihoods(the_judge().parse(text).clauses).prod(axis=0)


def posterior(text: str) -> dict[Persona, float]:
    """Return the probability of each persona given an answer."""
    joint = np.array([*cast().values()]) * likelihood(text)
    return dict(zip(cast(), (joint / joint.sum()).tolist(), strict=True))


def one_or_many(text: str) -> Comparison:
    """Return whether one persona drawn from the cast explains an answer better than a fresh draw for every clause.

    Marginal likelihoods, equal odds.
    """
    found, prior = likelihoods(the_judge().parse(text).clauses), np.array([*cast().values()])
    single = np.log(prior @ found.prod(axis=0))
    return Comparison(len(found), float(single - np.log(found @ prior).sum()))
