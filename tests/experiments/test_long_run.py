"""Long experiments keep what they have: rows one by one, in place of their own, resumed after a stop."""

import json

import pandas as pd
import pytest

from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.evidence import predictions
from em_companion.experiments import long_run

PLANNED = [(arm, seed) for seed in range(3) for arm in ("one", "other")]


def test_a_run_that_is_stopped_goes_on_where_it_was_and_ends_with_the_table_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)
    path, ran = long_run.path_of("kept"), []

    def run(arm: str, seed: int) -> None:
        if len(ran) == 4 and (arm, seed) not in ran:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append((arm, seed))
        long_run.add(long_run.path_of("kept", "curves"), pd.DataFrame({"arm": arm, "seed": seed, "step": [1, 2]}))
        long_run.add(path, pd.DataFrame({"arm": [arm], "seed": [seed], "em": [len(arm) + seed / 3]}))

    with pytest.raises(KeyboardInterrupt):
        long_run.carry_out("kept", "experiments/kept.py", PLANNED, run)
    assert len(long_run.read(path)) == 4
    long_run.carry_out("kept", "experiments/kept.py", PLANNED, run)
    assert [one for one in ran if one != "stopped"] == PLANNED
    found = long_run.read(path)
    assert [*found.index] == sorted(PLANNED) and len(long_run.read(long_run.path_of("kept", "curves"))) == 12
    assert json.loads(path.with_suffix(".json").read_text())["rows"] == 6
    long_run.add(path, pd.DataFrame({"arm": ["one"], "seed": [1], "em": [9.0]}))  # measured anew
    assert long_run.read(path).em["one", 1] == 9 and len(long_run.read(path)) == 6


def test_what_is_recorded_stands_under_its_arm_and_seed_first(monkeypatch, tmp_path):
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)
    for seed in (0, 1):
        long_run.record("kept", "one", seed, pd.DataFrame({"step": [1, 2], "seed": [9, 9]}), "curves")
        long_run.record("kept", "one", seed, pd.DataFrame([{"em": 5.0 + seed}]))
    assert [*pd.read_csv(tmp_path / "kept.csv").columns] == ["arm", "seed", "em"]
    assert long_run.read(tmp_path / "kept.csv").em.to_dict() == {("one", 0): 5.0, ("one", 1): 6.0}
    assert long_run.read(tmp_path / "kept-curves.csv").step["one", 1].tolist() == [1, 2]


def test_nothing_is_run_before_its_predictions_are_locked(monkeypatch, tmp_path):
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)
    monkeypatch.setattr(predictions, "locks", dict)
    with pytest.raises(CompanionError, match="Lock 'p-content-good' first"):
        long_run.carry_out("f1-content-or-constraint", "", PLANNED, lambda *_: pytest.fail("was run"))


def test_a_table_that_is_not_there_is_said_in_one_sentence(tmp_path):
    with pytest.raises(EvidenceUnavailable, match="not measured yet"):
        long_run.read(tmp_path / "none.csv")
