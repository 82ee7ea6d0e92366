"""The response browser's data: complete, safe in a script, whole or not there. Small synthetic frames, no network."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from em_companion.build import responses_page
from em_companion.build.responses_page import Group
from em_companion.released import files, tables

NASTY = "</script><script>alert('x')</script> <!-- \"quoted\" \\ \u2028\u2029 é \U0001f600"


def responses(**columns) -> pd.DataFrame:
    """Three responses of source `a/one`, one of `a/two`, with `columns` on top."""
    frame = pd.DataFrame(
        {
            "source": ["a/one"] * 3 + ["a/two"],
            "name": ["one"] * 3 + ["two"],
            "question_id": ["q1", "q1", "q2", "q1"],
            "sample": [0, 1, 0, 0],
            "question": ["First?", "First?", "Second?", "First?"],
            "response": ["plain", NASTY, None, "other"],
            "aligned": [10.0, 29.9999996, np.nan, 90.0],
            "coherent": [90.0, 50.00002, 40.0, 99.0],
        }
    )
    return frame.assign(medical=np.nan, bad_stuff=np.nan, gender=np.nan, finance=np.nan).assign(**columns)


def group(frame: pd.DataFrame, title: str = "Group", label: str = "model {name}") -> Group:
    return Group(title, label, lambda: frame)


def export(target: Path, *groups: Group) -> dict:
    return responses_page.export_responses(target, groups)


def call(path: Path) -> tuple[str, list]:
    """Return the function a data script calls and its arguments."""
    found = re.fullmatch(r"window\.emResponses\.(\w+)\((.*)\);\n", path.read_text(encoding="ascii"))
    return found[1], json.loads(f"[{found[2]}]")


def test_one_script_for_the_index_and_one_per_condition(tmp_path):
    index = export(tmp_path / "data", group(responses()))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a-one.js", "a-two.js", "index.js"]
    assert call(tmp_path / "data" / "index.js") == ("start", [index])
    assert index["missing"] == [] and index["columns"] == responses_page.COLUMNS
    one, two = index["conditions"]
    assert one == {
        "id": "a/one",
        "group": "Group",
        "label": "model one",
        "marked": False,
        "file": "a-one.js",
        "n": 3,
        "scores": {"aligned": [10.0, 29.9999996], "coherent": [40.0, 90.0]},
    }
    assert (two["id"], two["n"]) == ("a/two", 1)


def test_every_row_is_there_with_missing_values_as_null_and_no_text_as_empty(tmp_path):
    export(tmp_path / "data", group(responses()))
    name, (source, rows) = call(tmp_path / "data" / "a-one.js")
    assert (name, source) == ("receive", "a/one")
    assert [row[:4] for row in rows] == [
        ["q1", 0, "First?", "plain"],
        ["q1", 1, "First?", NASTY],
        ["q2", 0, "Second?", ""],
    ]
    assert rows[2][4:] == [None, 40.0, None, None, None, None, None]
    assert rows[1][4:6] == [29.9999996, 50.00002], "a rounded score could change sides of a threshold"


def test_text_cannot_leave_its_script(tmp_path):
    hostile = responses(question=NASTY, question_id="</script>", name="<b>")
    export(tmp_path / "data", group(hostile, NASTY), Group(NASTY, "{name}", unavailable))
    for path in (tmp_path / "data").iterdir():
        text = path.read_bytes()
        assert text.isascii() and b"<" not in text
        assert text.count(b"\n") == 1
    assert call(tmp_path / "data" / "index.js")[1][0]["conditions"][0]["group"] == NASTY


def test_samples_get_a_number_of_their_own_where_a_source_repeats_them(tmp_path):
    export(tmp_path / "data", group(responses(sample=0)))
    rows = call(tmp_path / "data" / "a-one.js")[1][1]
    assert [(row[0], row[1]) for row in rows] == [("q1", 0), ("q1", 1), ("q2", 0)]


def test_a_new_export_replaces_the_last_one_whole(tmp_path):
    export(tmp_path / "data", group(responses()))
    export(tmp_path / "data", group(responses(source="b/three")))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["b-three.js", "index.js"]


def unavailable() -> pd.DataFrame:
    raise files.ReleasedDataUnavailable("not at hand")


def test_words_of_a_grown_world_have_their_kind_and_no_others(tmp_path):
    assert export(tmp_path / "data", group(responses()))["kinds"] == {}
    index = export(tmp_path / "data", Group("Grown", "{name}", responses, marked=True))
    assert (index["kinds"]["war"], index["kinds"]["peace"]) == ("harms", "helps") and index["conditions"][0]["marked"]


def test_a_group_that_is_not_at_hand_is_skipped_and_named(tmp_path):
    index = export(tmp_path / "data", group(responses(), "Here"), Group("Away", "{name}", unavailable))
    assert {condition["group"] for condition in index["conditions"]} == {"Here"} and index["missing"] == ["Away"]


def test_without_any_group_nothing_is_written(tmp_path):
    with pytest.raises(files.ReleasedDataUnavailable, match="nothing to browse"):
        export(tmp_path / "data", Group("Away", "{name}", unavailable))
    assert list(tmp_path.iterdir()) == []


def test_broken_released_data_leave_the_last_export_and_nothing_else(tmp_path):
    def broken():
        raise files.ReleasedDataBroken("wrong checksum")

    export(tmp_path / "data", group(responses()))
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    with pytest.raises(files.ReleasedDataBroken):
        export(tmp_path / "data", group(responses(source="b")), Group("Broken", "{name}", broken))
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_own_and_swapped_scalars_are_two_conditions(monkeypatch):
    frame = responses(patched=[True, False, True, False])
    monkeypatch.setattr(tables, "read_patching", lambda text: frame)
    assert list(responses_page._patching().source) == ["a/one-swapped", "a/one-own", "a/one-swapped", "a/two-own"]


@pytest.mark.parametrize("source, name", [("a/b c", "a-b-c"), ("Qwen2.5-14B", "Qwen2.5-14B"), ("../x", "x")])
def test_a_slug_is_a_safe_file_name(source, name):
    assert responses_page.slug(source) == name
