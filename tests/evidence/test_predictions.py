"""Predictions: one rule from the interval alone, a registry that refuses slips, a lock that nothing passes unseen."""

import json
import subprocess
from dataclasses import asdict, replace
from math import nan

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from em_companion import cli
from em_companion.build import locks
from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import write_sealed
from em_companion.evidence import predictions, verdicts
from em_companion.evidence.claims import Measurement
from em_companion.evidence.predictions import DECIDED, VERDICTS, Prediction

ENTRY = {
    "id": "p-demo",
    "experiment": "F1.1",
    "notebook": "f1-demo",
    "tier": "primary",
    "origin": "ours",
    "known": "no",
    "statement": "Something rises.",
    "quantity": "after minus before",
    "unit": "points",
    "relation": "more_than",
    "threshold": 2,
    "no_effect": 0,
    "by": "seeds",
    "gate": "none",
    "failure": "none",
}
MORE = Prediction(**ENTRY)
NUMBER = st.floats(-100, 100).map(lambda number: round(number, 2))
INTERVAL = st.tuples(NUMBER, NUMBER).map(lambda ends: tuple(sorted(ends)))


def judge(one: Prediction, interval, void: str = "", value: float = 0.0) -> str:
    return predictions.verdict(one, Measurement(one.id, value, "how", "grown", interval, void=void))


@st.composite
def any_prediction(draw) -> Prediction:
    relation = draw(st.sampled_from(["more_than", "less_than", "between"]))
    threshold = sorted(draw(st.tuples(NUMBER, NUMBER))) if relation == "between" else draw(NUMBER)
    return replace(MORE, relation=relation, threshold=threshold)


# --- the rule -------------------------------------------------------------------------------------------------------


@given(any_prediction(), INTERVAL)
def test_the_verdict_is_that_of_the_table_in_the_plan(one, interval):
    low, high = interval
    supported, contradicted = {
        "more_than": lambda c: (low > c, high <= c),
        "less_than": lambda c: (high < c, low >= c),
        "between": lambda c: (c[0] <= low and high <= c[1], high < c[0] or low > c[1]),
    }[one.relation](one.threshold)
    assert judge(one, interval) == ("supported" if supported else "contradicted" if contradicted else "undecided")


@given(any_prediction(), INTERVAL | st.none())
def test_a_gate_comes_before_the_interval_and_a_missing_value_before_the_gate(one, interval):
    assert judge(one, interval, void="too few answers") == "not testable here"
    assert predictions.verdict(one, None) == judge(one, interval, "too few answers", nan) == "not run"
    assert judge(one, None) == "undecided"


@given(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=4))
def test_a_composite_is_supported_by_all_and_contradicted_by_any(parts):
    found = predictions.of_parts(parts)
    assert (found == "supported") == (set(parts) == {"supported"})
    assert (found == "contradicted") == ("contradicted" in parts)
    assert (found == "not run") == ("not run" in parts and set(parts) <= {"not run", "supported"})


# --- registry, ledger and lock ----------------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads predictions from entries, in a repository of their own, instead of the real registry."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(predictions, "PREDICTIONS", tmp_path / "predictions.yml")
    monkeypatch.setattr(predictions, "LOCK", tmp_path / "lock.json")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def read(*entries: dict, commit: bool = True) -> dict[str, Prediction]:
        text = yaml.safe_dump({"predictions": list(entries)})
        predictions.PREDICTIONS.write_text(text, encoding="utf-8")
        if commit:
            who = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", "add", "predictions.yml"], cwd=tmp_path, check=True)
            subprocess.run(["git", *who, "commit", "-qm", "some", "--allow-empty"], cwd=tmp_path, check=True)
        predictions.load_predictions.cache_clear()
        return predictions.load_predictions()

    yield read
    predictions.load_predictions.cache_clear()


PARTS = {key: ENTRY[key] for key in ("experiment", "notebook", "tier", "origin", "known", "statement")}


@pytest.mark.parametrize(
    "changes, saying",
    [
        ({"relation": "at_least"}, "'relation' must be 'more_than', 'less_than', 'between' or ''"),
        ({"threshold": [1, 2]}, "needs two thresholds for 'between' and one for every other relation"),
        ({"gate": ""}, "needs either 'parts' or quantity, unit, relation, threshold, by, gate and failure"),
        ({"parts": ["p-other"]}, "needs either 'parts' or quantity"),
        ({"origin": "the authors"}, "'origin' must be 'exchange', 'simulated-author',"),
        ({"amended": [{"date": "2026-12-01"}]}, "missing or unknown key: reason"),
    ],
)
def test_a_slip_in_an_entry_is_one_sentence(load, changes, saying):
    with pytest.raises(CompanionError, match=saying):
        load(ENTRY | changes)


def test_a_part_that_is_not_there_is_refused(load):
    with pytest.raises(CompanionError, match="has no prediction 'p-lost', which another names as its part"):
        load(ENTRY, PARTS | {"id": "p-both", "parts": ["p-demo", "p-lost"]})


def test_the_ledger_counts_each_prediction_once_and_what_chance_would_support(load):
    load(ENTRY, ENTRY | {"id": "p-two", "origin": "literature"}, PARTS | {"id": "p-both", "parts": ["p-demo", "p-two"]})
    measured = [Measurement("p-demo", 5.0, "how", "grown", (4.0, 6.0), 8)]
    rows = {row["id"]: row for row in predictions.ledger(measured)}
    assert [rows[name]["results"]["grown"]["verdict"] for name in rows] == ["supported", "not run", "not run"]
    assert rows["p-demo"]["results"]["grown"]["interval"] == (4.0, 6.0) and rows["p-demo"]["locked"] is None
    counts = predictions.counts(rows.values())
    assert counts["primary"]["supported"] == counts["ours"]["supported"] == 1
    assert sum(sum(counts[tier].values()) for tier in ("primary", "secondary")) == 2
    assert predictions.by_chance(rows.values()) == pytest.approx(0.025)
    load(ENTRY | {"evidence": ["grown", "hub"]})
    measured.append(replace(measured[0], evidence="hub", interval=(-6.0, -4.0)))
    counts = predictions.counts(predictions.ledger(measured))
    assert sum(predictions.total(counts).values()) == 1 and sum(counts["hub"].values()) == 1
    assert counts["primary"]["supported"] == counts["hub"]["contradicted"] == 1
    measured.pop()
    with pytest.raises(CompanionError, match="names a prediction that predictions.yml has not: p-nobody"):
        predictions.ledger([replace(measured[0], claim="p-nobody")])


def test_a_lock_holds_the_entry_and_sees_every_change_but_one_that_is_told(load):
    load(ENTRY)
    assert locks.lock() == ["p-demo"] and predictions.changed() == []
    assert predictions.locks()["p-demo"]["commit"] == paths.git("rev-parse", "HEAD")
    for key, other in {"threshold": 1, "gate": "some", "statement": "It falls.", "evidence": ["hub"]}.items():
        load(ENTRY | {key: other})
        assert predictions.changed() == ["p-demo"]
        load(ENTRY | {key: other, "amended": [{"date": "2026-12-01", "reason": "a slip"}]})
        assert predictions.changed() == []
    load(ENTRY | {"id": "p-other"})
    assert predictions.changed() == ["p-demo"], "one that was taken out"


def test_a_lock_is_refused_once_results_exist_and_before_the_entry_is_committed(load, tmp_path):
    load(ENTRY, commit=False)
    with pytest.raises(CompanionError, match="Commit predictions.yml first"):
        locks.lock()
    load(ENTRY)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "f1-demo-curves.csv").touch()
    with pytest.raises(CompanionError, match="too late to lock 'p-demo': results/f1-demo-curves.csv holds results"):
        locks.lock()
    with pytest.raises(CompanionError, match="'p-nobody' is not in"):
        locks.lock(["p-nobody"])
    load(ENTRY | {"notebook": "f2-demo"})
    assert locks.lock() == ["p-demo"]
    with pytest.raises(CompanionError, match="'p-demo' is locked already"):
        locks.lock(["p-demo"])


def test_the_commands_lock_and_print(load, tmp_path, monkeypatch):
    load(ENTRY)
    runner = CliRunner()
    assert runner.invoke(cli.main, ["predictions", "lock"]).output == "locked p-demo\n"
    monkeypatch.setattr(verdicts, "HTML", tmp_path)
    assert "There is no built book yet" in runner.invoke(cli.main, ["predictions"]).stderr
    rows = predictions.ledger([Measurement("p-demo", 5.0, "how", "grown", (4.0, 6.0), 8)])
    write_sealed(tmp_path / "predictions.json", {"predictions": rows})
    said = runner.invoke(cli.main, ["predictions"]).output.split()
    assert said == "F1.1 p-demo > 2 points supported 5.0 (4.0 to 6.0)".split()
    assert json.loads(runner.invoke(cli.main, ["predictions", "--json"]).output)[0]["locked"]["date"]


# --- the real registry ------------------------------------------------------------------------------------------------


def test_nothing_locked_has_changed_without_an_amendment():
    assert predictions.changed() == []


def test_a_locked_entry_is_the_one_of_its_commit():
    """The history says so, too, where it is at hand: an entry and its hash cannot be changed together."""
    locks, known = predictions.locks(), predictions.load_predictions()
    for commit in {lock["commit"] for lock in locks.values()}:
        text = paths.git("show", f"{commit}:data/predictions.yml")
        entries = yaml.safe_load(text)["predictions"] if text else ()
        for then in (entry for entry in entries if locks.get(entry["id"], {}).get("commit") == commit):
            now = asdict(known[then["id"]])
            for key, said in then.items():
                assert now["amended"] or (list(now[key]) if isinstance(now[key], tuple) else now[key]) == said


def test_every_prediction_says_what_it_expects_in_words():
    for one in predictions.load_predictions().values():
        text = predictions.expected_text(asdict(one))
        assert one.parts or (one.unit in text and one.statement.endswith("."))
    assert DECIDED == ("supported", "contradicted", "undecided")
