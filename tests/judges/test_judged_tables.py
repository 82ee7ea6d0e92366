"""Tables of responses on disk: what is written reads back, and no file is a traceback."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from em_companion.core.errors import CompanionError
from em_companion.judges import judged_tables

MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["None", "NA", "nan", "007", "1e3", "a\rb", "a\r\nb", '"', "a,b", "", " ", "\ufeff", "=1", "\0"]),
)


def judged(table: pa.Table) -> pd.DataFrame:
    """The texts of a table as a judge hands them back, every second one without a score."""
    rows = judged_tables.to_judge(table)
    score = [float("nan") if row % 2 else row / 3 for row in range(len(rows))]
    missing = ["refusal" if row % 2 else "" for row in range(len(rows))]
    return rows.assign(judge_model="m", judge_scoring="logprobs", aligned=score, aligned_missing=missing)


def written(path: Path) -> Path:
    table = judged_tables.read(path)
    return judged_tables.write(judged(table), table, path)


@MANY
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6), st.booleans())
def test_a_csv_reads_back_as_it_is(tmp_path, rows, quoted):
    path = tmp_path / "r.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_NONNUMERIC)
        writer.writerows([("id", "question", "response"), *rows])
    (tmp_path / "r.judged-by-m-62c66a7a.csv").unlink(missing_ok=True)
    target = written(path)
    again = judged_tables.read(target)
    assert [*zip(*(again[name].to_pylist() for name in ("id", "question", "response")), strict=True)] == rows
    table = pd.read_csv(target, usecols=["aligned"])
    assert table.aligned.isna().tolist() == [row % 2 == 1 for row in range(len(rows))]
    target.unlink()


def test_the_words_of_a_csv_stay_what_they_are(tmp_path):
    (tmp_path / "r.csv").write_bytes(b'id,question,response\n007,q?,"a\rb"\n008,q?,None\n')
    table = judged_tables.read(written(tmp_path / "r.csv"))
    assert table.select(["id", "question", "response"]).to_pylist() == [
        {"id": "007", "question": "q?", "response": "a\rb"},
        {"id": "008", "question": "q?", "response": "None"},
    ]
    other = pd.read_csv(written(tmp_path / "r.csv"), dtype=str, keep_default_na=False, lineterminator="\n")
    assert other.response.tolist() == ["a\rb", "None"] and other.id.tolist() == ["007", "008"]


COLUMNS = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int8(), st.integers(-128, 127)),
    "large": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "number": (pa.float64(), st.floats(allow_nan=False)),
    "single": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "flag": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates()),
    "time": (pa.timestamp("us", "UTC"), st.integers(-(2**40), 2**40)),
    "price": (pa.decimal128(20, 2), st.decimals(-999, 999, places=2)),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "list": (pa.list_(pa.int32()), st.lists(st.integers(-9, 9), max_size=3)),
    "struct": (pa.struct({"a": pa.int64()}), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    "words": (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(st.text("ab"), st.integers(0, 9)), max_size=2)),
    "id": (pa.string(), TEXT),
    "kind": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "NA"])),
}


@MANY
@given(st.data())
def test_a_parquet_reads_back_as_it_is(tmp_path, data):
    count = data.draw(st.integers(1, 4))
    columns = {
        name: pa.array(data.draw(st.lists(TEXT, min_size=count, max_size=count))) for name in judged_tables.TEXTS
    }
    for name in data.draw(st.lists(st.sampled_from([*COLUMNS]), unique=True)):
        kind, values = COLUMNS[name]
        drawn = data.draw(st.lists(st.one_of(st.none(), values), min_size=count, max_size=count))
        columns[name] = pa.array(drawn, kind)
    path = tmp_path / "r.parquet"
    parquet.write_table(pa.table(columns), path)
    target = written(path)
    assert parquet.read_table(target).select([*columns]).equals(parquet.read_table(path))
    target.unlink()


@pytest.mark.parametrize("index", [pd.Index(["x", "y"], name="id"), pd.RangeIndex(5, 7), pd.Index([2**53 + 1, 3])])
def test_the_index_of_a_parquet_stays(tmp_path, index):
    rows = pd.DataFrame({"question": ["q", "q"], "response": ["NA", "None"], "n": [1, None]}, index=index)
    rows["kind"] = rows.response.astype("category")
    rows["count"] = pd.array([2**53 + 1, None], dtype="Int64")
    rows.to_parquet(tmp_path / "r.parquet")
    found = pd.read_parquet(written(tmp_path / "r.parquet"))
    pd.testing.assert_frame_equal(found[[*rows]], pd.read_parquet(tmp_path / "r.parquet"))
    assert found.aligned.isna().tolist() == [False, True] and found.aligned_missing.tolist() == ["", "refusal"]


@pytest.mark.parametrize(
    "content, saying",
    [
        ("question,response\na,q,r\nb,q,r\n", "Row 1 of r.csv has 3 cells, but its header names 2 columns"),
        ("question,response\nq,r\nq\n", "Row 2 of r.csv has 1 cells, but its header names 2"),
        ("question,response,question\nq,r,q\n", "two columns 'question'"),
        ('question,response\nq,"r\n', "not a readable csv"),
        ('question,response\nq,"r"x\n', "not a readable csv"),
    ],
)
def test_a_header_that_does_not_fit_its_rows_is_one_sentence(tmp_path, content, saying):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(CompanionError, match=saying):
        judged_tables.read(tmp_path / "r.csv")


def test_an_empty_csv_has_no_rows_and_a_long_text_is_read(tmp_path):
    (tmp_path / "r.csv").write_text("")
    assert judged_tables.to_judge(judged_tables.read(tmp_path / "r.csv")).empty
    (tmp_path / "r.csv").write_text(f"question,response\nq,{'r' * 200_000}\n")
    assert len(judged_tables.to_judge(judged_tables.read(tmp_path / "r.csv")).response[0]) == 200_000


def bomb(rows: int) -> bytes:
    """A small file of one text in `rows` rows."""
    file = io.BytesIO()
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, dtype=np.int32)), ["x" * 1000])
    with parquet.ParquetWriter(file, pa.schema({"question": texts.type, "response": texts.type})) as writer:
        for _ in range(rows // 1_000_000):
            writer.write_table(pa.table({"question": texts, "response": texts}))
    return file.getvalue()


def test_a_file_that_is_much_larger_when_unpacked_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "r.parquet").write_bytes(bomb(2_000_000))
    assert (tmp_path / "r.parquet").stat().st_size < 2**20
    monkeypatch.setattr(judged_tables, "LARGEST", 2**20)
    with pytest.raises(CompanionError, match="unpacked; judge it in parts"):
        judged_tables.read(tmp_path / "r.parquet")


@MANY
@given(
    st.binary(max_size=80), st.sampled_from([b"", b"question,response\n", b"PAR1"]), st.sampled_from(["csv", "parquet"])
)
def test_any_bytes_are_a_table_or_one_sentence(tmp_path, content, start, suffix):
    path = tmp_path / f"b.{suffix}"
    path.write_bytes(start + content)
    try:
        judged_tables.to_judge(judged_tables.read(path))
    except CompanionError as problem:
        assert "\n" not in str(problem) and problem.__cause__ is None


@MANY
@given(st.data())
def test_a_damaged_parquet_is_a_table_or_one_sentence(tmp_path, data):
    path = tmp_path / "b.parquet"
    parquet.write_table(pa.table({"question": ["q"] * 9, "response": ["r"] * 9}), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        judged_tables.to_judge(judged_tables.read(path))
    except CompanionError as problem:
        assert "\n" not in str(problem) and problem.__cause__ is None
