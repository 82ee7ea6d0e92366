"""What a page records, as data that survives a file."""

import numpy as np
import pandas as pd
import pytest

from em_companion.book import records
from em_companion.book.records import FigureRecord, Gap, RunRecord, ValueRecord
from em_companion.core.errors import CompanionError
from em_companion.evidence.claims import Measurement
from em_companion.evidence.estimates import Estimate


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = RunRecord("b-datasets", "cpu", 1, finished=True, seconds=2.5)
    run.figures.append(FigureRecord("fig-7", "grown", "made", "λ", "a"))
    run.measurements.append(Measurement("claim", 9, "how", "released", n=3))
    run.values.append(ValueRecord("name", "grown", 0.5, "cosine", 0.25, 0.75, 4))
    run.unavailable.append(Gap("released", "no network"))
    run.write(tmp_path)
    assert RunRecord.read(tmp_path) == run


def test_a_damaged_run_is_told(tmp_path):
    (tmp_path / "records.json").write_text('{"notebook": "x", "figures": [{"id": 1}]}', encoding="utf-8")
    with pytest.raises(ValueError):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "given, record",
    [
        ("text", ValueRecord("n", "grown", text="text")),
        (3, ValueRecord("n", "grown", 3, "count")),
        (np.int64(3), ValueRecord("n", "grown", 3, "count")),
        (np.float64(0.5), ValueRecord("n", "grown", 0.5)),
        (float("nan"), ValueRecord("n", "grown", None)),
        (Estimate(5.0, 1.0, 9.0, 400), ValueRecord("n", "grown", 5.0, "percent", 1.0, 9.0, 400)),
        (Estimate(5.0, unit="score"), ValueRecord("n", "grown", 5.0, "score")),
    ],
)
def test_a_value_is_a_number_an_estimate_or_a_text(given, record):
    assert records.value_of("n", "grown", given) == record


@pytest.mark.parametrize("given", [None, True, [1.0], pd.Series([1.0, 2.0])])
def test_anything_else_is_no_value(given):
    with pytest.raises(CompanionError, match="Value 'n' must be a number, an Estimate or a text"):
        records.value_of("n", "grown", given)


def test_a_value_with_an_interval_is_an_estimate_again():
    given = Estimate(5.0, 0.0, 9.0, 400)
    assert records.value_of("n", "grown", given).estimate() == given
    assert ValueRecord("n", "grown", 5.0, "score").estimate().interval is None


def test_a_frame_becomes_a_table_of_texts():
    rates = [Estimate(10.4, 8.2, 15.5), Estimate(0.5)]
    frame = pd.DataFrame(
        {"name": ["a", None], "share": [0.12345, np.nan], "n": [1, 2], "rate": rates, "in": [True, False]}
    )
    table = records.table_of(frame, {"share": "{:.2f}"})
    assert table["heads"] == ["name", "share", "n", "rate", "in"]
    assert table["numeric"] == [False, True, True, False, False]
    assert table["rows"][0] == ["a", "0.12", "1", "10.4 % (8.2 to 15.5)", "True"]
    assert table["rows"][1] == ["–", "–", "2", "0.5 %", "False"]
