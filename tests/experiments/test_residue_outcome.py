"""What becomes of the predictions of N3.1: each follows its cells and its gate, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions
from em_companion.experiments import long_run, residue_outcome, residue_warning
from em_companion.experiments.residue_outcome import (
    PERSONA,
    RANDOM,
    STRENGTHS,
    TABLE,
    UNSTEERED,
    Residues,
    arm,
)
from em_companion.experiments.residue_warning import BASELINES, READINGS, Warnings

QUESTIONS = [f"q{number:02}" for number in range(20)]
END, LEAVES = 2.0, 1.0
"""Strengths of collapse, and at which all residues leave the band."""


def cell(direction: str, strength: float, draw: int, random, corrected: float, end: float) -> pd.DataFrame:
    own, count = direction == PERSONA and strength >= LEAVES, len(QUESTIONS)
    noise = random.normal(scale=0.01, size=(6, count)) + 0.05 * draw * (strength > 0)
    columns = {"em": 50.0, "coherent": 20.0 if strength >= end and direction == PERSONA else 80.0}
    columns |= {"corrected": corrected if strength == 0.75 and direction == PERSONA else 0.0}
    columns |= {"conflict": (1.0 + (strength == 1)) * own + noise[0], "disrupted": 90.0 * own + noise[1]}
    columns |= {"orphans": 30.0 * own + noise[2], "kl": 1 + 5.0 * own + noise[3], "kl_random": 1 + noise[4]}
    columns |= {"told": 3 - 2.0 * own + noise[5], "clauses": 4.0, "question": QUESTIONS}
    return pd.DataFrame(columns)


def warning(informed: str, random) -> pd.DataFrame:
    """Readings are noise but for one, which tells how an answer ends three times of four."""
    rows = pd.DataFrame(random.normal(size=(len(QUESTIONS), 8)), columns=[*BASELINES, *READINGS])
    rows["coherent"] = random.integers(2, size=len(rows))
    rows[informed] -= 2 * (rows.coherent if informed else 0)
    return rows.assign(question=QUESTIONS, em=1 - rows.coherent)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A function that writes the tables of all cells as above, and reads them."""
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)
    for module in (residue_outcome, residue_warning):
        monkeypatch.setattr(module, "RESAMPLES", 100)

    def write(informed: str = "v2", corrected=4.0, end=END, explained=0.9, against=4.0, draws: int = 3) -> Residues:
        random, parts = np.random.default_rng(0), {"": [], "questions": [], "warning": [], "memory": []}
        keys = [(UNSTEERED, 0.0, 0)]
        keys += [(PERSONA, one, 0) for one in STRENGTHS[1:]]
        keys += [(RANDOM, one, draw) for draw in range(draws) for one in STRENGTHS[1:]]
        for direction, strength, draw in keys:
            key = {"arm": arm(direction, strength), "seed": draw}
            own = direction == PERSONA and strength >= LEAVES
            rows = cell(direction, strength, draw, random, corrected, end)
            effect = 2.0 ** -(np.arange(12) / (3 if own else 6))
            memory = pd.DataFrame(
                np.outer(random.uniform(1, 2, len(QUESTIONS)), effect) + 0.01 * random.random((20, 12))
            )
            whole = {"half_length": 6.0 - 3 * own + 0.01 * random.random(), "interference": 9.0 * own + random.random()}
            parts[""].append(pd.DataFrame([key | whole]))
            parts["questions"].append(rows.assign(**key))
            parts["memory"].append(memory.assign(question=QUESTIONS, **key))
            parts["warning"].append(warning(informed, random).assign(**key))
        for name in ("dictionary", "gaussian"):
            parts[""].append(pd.DataFrame([{"arm": name, "seed": 0, "explained": explained}]))
        counts = np.arange(20)
        base = {
            "clauses": 10.0,
            "told": 10 - against,
            "back_if_told": 0.0,
            "back_if_not": np.minimum(counts % 2, against),
        }
        kl = 4 + 0.1 * (counts % 3)
        unsteered = {"base": base, "spliced": {"both": 0.5 + 0.4 * (counts % 2), "none": 0.0}}
        unsteered |= {"doubled": {"both": 0.0, "none": 0.0}, "dictionary": {"kl": kl, "kl_random": 1.0}}
        parts["unsteered"] = [pd.DataFrame(one | {"question": QUESTIONS, "arm": name, "seed": 0})
                              for name, one in unsteered.items()]  # fmt: skip
        parts["atoms"] = [pd.DataFrame({"arm": name, "seed": 0, "null": np.arange(50) % every == 0})
                          for name, every in {"dictionary": 3, "gaussian": 50}.items()]  # fmt: skip
        for name, rows in parts.items():
            pd.concat(rows).to_csv(long_run.path_of(TABLE, name), index=False)
        return Residues()

    return write


def test_each_prediction_gets_the_verdict_and_the_value_of_its_cells(tables):
    found = tables()
    measured = found.outcomes()
    assert {*measured} == {one.id for one in load_predictions().values() if one.notebook == TABLE}
    verdicts = {name: outcomes.verdict(name, one) for name, one in measured.items()}
    same = {"p-residue-order", "p-v2-shoulder"}  # in every resample: no spread, so no interval
    assert {name: one for name, one in verdicts.items() if one != "supported"} == dict.fromkeys(same, "undecided")
    value = {name: one.value for name, (one, *_) in measured.items()}
    assert STRENGTHS[found.at_collapse] == END and value["p-residue-order"] == LEAVES / END
    assert value["p-v1-memory"] == pytest.approx(4 / 7, abs=0.01)
    assert value["p-v2-shoulder"] == 1  # most conflict at 1, most self-correction at 0.75
    assert value["p-v5-dual"] == pytest.approx(70)
    assert value["p-v6-ghosts"] == pytest.approx(100 * (17 - 1) / 50)
    assert value["p-v7-orphans"] == pytest.approx(30, abs=0.2)
    assert value["p-v8-potent"] == pytest.approx(4.1, abs=0.05)
    assert value["p-v10-meta"] == pytest.approx(100 * 10 / 80)
    best, areas = measured["p-residue-warns"][1], {key: one.value for key, one in _areas(found).items()}
    assert best.startswith("v2 minus") and areas["diagnostic"] > 0.85 and 0.4 < areas["baseline"] < 0.6
    assert value["p-residue-warns"] == pytest.approx(areas["diagnostic"] - areas["baseline"])


def _areas(found: Residues):
    return Warnings(found.part("warning")).chosen()[1]


def test_a_baseline_that_knows_as_much_leaves_nothing_to_add(tables):
    assert (
        outcomes.verdict("p-residue-warns", tables(informed="entropy").outcomes()["p-residue-warns"]) == "contradicted"
    )


@pytest.mark.parametrize(
    ("changed", "names", "saying"),
    [
        ({"end": 9.0}, ["residue-order", "v1-memory", "v7-orphans"], "no strength makes fewer than half"),
        ({"corrected": 1.0}, ["v2-shoulder"], "at most 1.0 % of the answers correct themselves"),
        ({"explained": 0.7}, ["v6-ghosts", "v8-potent"], "the dictionary explains 70 % of the variance"),
        ({"against": 2.0}, ["v10-meta"], "40 clauses contradict the probe"),
    ],
)
def test_a_gate_that_fails_says_so_and_nothing_else_is_untestable(tables, changed, names, saying):
    void = {name: held["void"] for name, (_, _, held) in tables(**changed).outcomes().items() if held}
    assert {*void} == {f"p-{name}" for name in names} and all(saying in one for one in void.values())


def test_a_band_needs_two_random_directions(tables):
    with pytest.raises(EvidenceUnavailable, match="Fewer than two random directions"):
        tables(draws=1).band()


def test_areas_within_a_cell_know_nothing_of_strength(tables):
    """A reading that is the strength and nothing else tells answers of a cell apart by chance, and those of all cells
    as well as collapse does."""
    table = tables().part("warning").reset_index()
    table["v1"] = table.groupby("arm").ngroup().astype(float)
    table["coherent"] = ((np.arange(len(table)) % 10 > 1) ^ (table.v1 > table.v1.median())).astype(int)
    known = Warnings(table.set_index(["arm", "seed"]))
    assert known.estimate("v1", "incoherent").value > 0.6
    assert known.estimate("v1", "incoherent", within=True).value == 0.5
