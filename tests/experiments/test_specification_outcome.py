"""What becomes of the predictions of N3.3: each follows its table and its gate, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions
from em_companion.experiments import long_run
from em_companion.experiments.specification import SEEDS, UNSTEERED, WORDS
from em_companion.experiments.specification_outcome import (
    DIRECTIONS,
    NOTEBOOK,
    PROBES,
    PROFILES,
    TABLE,
    Specification,
    correlation,
    name_of,
)
from em_companion.world.specification import FORM, clauses

NAMES = list(clauses())
OWN = {"good_medical_advice": "length", "extreme_sports": "extreme_sports", "risky_financial_advice": "finance"}
"""The clause that organisms of a data set break, by default medicine."""


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A function that writes tables in which all is as predicted, but for what it is told, and reads them.

    stray: clauses that another direction breaks more; least: what the last clause rises by; organisms: how many; lost:
    clauses that no probe reads; noise: of the weights; misled: organisms whose weights name another clause.
    """
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)

    def write(stray=0, least=60.0, organisms=99, lost=0, noise=0.1, misled=0) -> Specification:
        random, rows = np.random.default_rng(0), {table: [] for table in (TABLE, PROBES, DIRECTIONS, PROFILES)}
        for number, name in enumerate(NAMES):
            rows[DIRECTIONS].append({"arm": name, "layer": 3, "strength": 2.0, "x0": 0.0, "x1": 1.0 + number})
            for layer, (training, held_out) in {WORDS: (0.99, 0.5), 0: (0.6, 0.99), 1: (0.9, 0.95)}.items():
                found = 0.5 + 0.01 * number if number < lost else held_out + 0.001 * number
                rows[PROBES].append({"arm": name, "layer": layer, "training": training, "held_out": found})
        for arm in (UNSTEERED, *NAMES):
            rises = {arm: least if arm == NAMES[-1] else 60.0}
            rises |= {name: 70.0 for name, other in zip(NAMES[:stray], NAMES[1:], strict=False) if other == arm}
            rows[TABLE] += [{"arm": arm, "clause": name, "rate": 5 + rises.get(name, 0)} for name in NAMES]
        every = [(one, seed) for one, seeds in SEEDS.items() for seed in range(seeds)][:organisms]
        for place, (one, seed) in enumerate(every):
            own = OWN.get(one[1], "medicine")
            for name in NAMES:
                written = random.uniform(0, 1) + 2 * (name == ("twice" if place < misled else own))
                row = {"arm": name_of(*one), "seed": seed, "clause": name, "rate": 5 + 60 * (name == own)}
                row |= {"weight": 2 * (name == own) + noise * random.normal()}
                row |= {"written": np.nan if one[0].startswith("all") else written}
                rows[PROFILES].append(row)
        for table, own in rows.items():
            pd.DataFrame(own).assign(**{} if table == PROFILES else {"seed": 0}).to_csv(
                long_run.path_of(table), index=False
            )
        return Specification()

    return write


VERDICTS = {
    "p-spec-read": [({}, "supported"), ({"lost": 12}, "contradicted")],
    "p-spec-write": [
        ({"stray": 1}, "supported"),
        ({"stray": 12}, "contradicted"),
        ({"stray": 1, "least": 9.0}, "not testable here"),
    ],
    "p-spec-back": [({}, "supported"), ({"noise": 20}, "contradicted"), ({"organisms": 11}, "not testable here")],
    "p-spec-audit": [
        ({"misled": 3}, "supported"),
        ({"misled": 99}, "undecided"),  # none is named, and so there is no spread
        ({"misled": 13}, "undecided"),
        ({"misled": 18}, "contradicted"),
        ({"organisms": 11}, "not testable here"),
    ],
}


@pytest.mark.parametrize("name, given, verdict", [(name, *one) for name, all_ in VERDICTS.items() for one in all_])
def test_a_prediction_follows_what_was_measured(tables, name, given, verdict):
    assert outcomes.verdict(name, tables(**given).outcome()[name]) == verdict


def test_every_prediction_of_the_experiment_is_decided(tables):
    known = [one.id for one in load_predictions().values() if one.notebook == NOTEBOOK and one.experiment == "N3.3"]
    assert list(tables().outcome()) == known


def test_the_layer_of_a_probe_is_chosen_on_training_topics(tables):
    found = tables().best_probes()
    assert (found.layer == 1).all() and found.held_out.iloc[0] == 0.95 and found.words.iloc[0] == 0.5


def test_what_is_added_and_what_it_breaks_are_told_by_name(tables):
    kept = tables(stray=1)
    assert kept.layer == 3 and kept.added(NAMES[4]).tolist() == [0, 10]
    assert kept.matrix().loc[NAMES[1], NAMES[:3]].tolist() == [75, 65, 5]
    assert kept.unsteered().tolist() == [5.0] * 16


def test_the_matrix_turns_weights_into_violations_and_more_than_all_is_all(tables):
    kept = tables(noise=0)
    found, seen = kept.through_matrix(), kept.of_organisms("rate")
    pd.testing.assert_frame_equal(found, seen.astype(float))  # a weight of 2 is one time what was added
    assert kept.correlation(found).value == pytest.approx(1)
    kept.profiles["weight"] *= 10
    assert kept.through_matrix().max(axis=None) == 100


def test_the_audit_tells_what_was_trained_and_leaves_other_ranks_out(tables):
    found = tables().named()
    ranks = {name_of(*one): one[0] for one in SEEDS}
    assert len(found) == sum(seeds for one, seeds in SEEDS.items() if not one[0].startswith("all"))
    assert not any(ranks[arm].startswith("all") for arm, _ in found.index)
    harmful = found[found.trained != ""]
    assert (harmful.named == harmful.trained).all() and set(found[found.trained == ""].broken) == {"length"}


def test_a_correlation_over_organisms_counts_each_as_often_as_it_is_drawn():
    first, second = np.random.default_rng(1).normal(size=(2, 5, 4))
    drawn = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2]])
    for by, found in zip(drawn, correlation(first, second, drawn), strict=True):
        rows = np.repeat(np.arange(5), by)
        assert found == pytest.approx(np.corrcoef(first[rows].ravel(), second[rows].ravel())[0, 1])
    assert FORM[-1] == NAMES[-1]
