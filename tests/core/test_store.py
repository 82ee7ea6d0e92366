"""What is computed once and kept: made once, read back as it was, refused when damaged, whole or not there."""

import json
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.provenance import recorded
from em_companion.core.store import Arrays, keep

PARTS = {"weights": "0" * 64, "texts": ["one ?", "two ?"], "layer": 3}
TABLE = pd.DataFrame({"response": ["a", ""], "aligned": [1.5, np.nan], "sample": [0, 1]})
READ = Arrays({"means": np.arange(6, dtype=np.float32).reshape(2, 3)}, ("first", "second"))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty project; nothing is kept yet."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    return tmp_path


class Made:
    """A computation that counts how often it is done, and fails as it is told."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.times, self.problem = 0, problem

    def __call__(self) -> store.Content:
        self.times += 1
        if self.problem:
            raise self.problem
        return {"table.parquet": TABLE, "read.safetensors": READ}


def kept(make, version: int = 1, parts: dict = PARTS) -> dict:
    return keep("readings", version, parts, make, "cpu", "nine-adapter")


def folder(root):
    (found,) = (root / "artifacts/readings/cpu/nine-adapter").glob("[!.]*")
    return found


def test_it_is_made_once_and_read_back_as_it_was():
    make = Made()
    first, second = kept(make), kept(make)
    assert make.times == 1 and set(first) == set(second) == {"table.parquet", "read.safetensors"}
    for found in (first, second):
        pd.testing.assert_frame_equal(found["table.parquet"], TABLE)
        assert found["read.safetensors"].names == READ.names
        means = found["read.safetensors"].arrays["means"]
        assert means.dtype == np.float32 and (means == READ.arrays["means"]).all()


@pytest.mark.parametrize("change", [{"layer": 4}, {"texts": ["two ?", "one ?"]}, {"weights": "1" * 64}, {"more": None}])
def test_what_decides_the_content_decides_where_it_lies(change):
    make = Made()
    kept(make)
    kept(make, parts=PARTS | change)
    assert make.times == 2


def test_a_raised_version_is_made_anew_and_the_first_is_left_out_of_the_key(root):
    make = Made()
    kept(make, version=1)
    assert folder(root).name == store.key(PARTS)
    kept(make, version=2)
    kept(make, version=3)
    kept(make, version=1)
    assert make.times == 3


def test_its_provenance_names_key_parts_and_files(root):
    kept(Made(), version=2)
    record = json.loads((folder(root) / "provenance.json").read_text(encoding="utf-8"))
    assert record["key"] == folder(root).name and record["parts"] == PARTS | {"version": 2}
    assert set(record["files"]) == {"table.parquet", "read.safetensors"} and "versions" in record
    assert str(root) not in json.dumps(record), "no folder of this machine"


def test_reading_it_is_noted_as_an_input(root):
    for _ in range(2):
        with recorded() as inputs:
            kept(Made())
        (name,) = inputs
        assert name == f"artifacts/readings/cpu/nine-adapter/{store.key(PARTS)}" and len(inputs[name]) == 64


# --- damage ---------------------------------------------------------------------------------------------------------


def provenance(path) -> dict:
    return json.loads((path / "provenance.json").read_text(encoding="utf-8"))


def change(path, **values) -> None:
    (path / "provenance.json").write_text(json.dumps(provenance(path) | values), encoding="utf-8")


DAMAGES = {
    "a changed byte": lambda path: (path / "read.safetensors").write_bytes(b"x"),
    "a cut table": lambda path: (path / "table.parquet").write_bytes((path / "table.parquet").read_bytes()[:100]),
    "a lost file": lambda path: (path / "table.parquet").unlink(),
    "a cut provenance": lambda path: (path / "provenance.json").write_text("{", encoding="utf-8"),
    "another provenance": lambda path: (path / "provenance.json").write_text("[]", encoding="utf-8"),
    "no file named": lambda path: change(path, files={}),
    "one file less named": lambda path: change(
        path, files={"table.parquet": provenance(path)["files"]["table.parquet"]}
    ),
    "one file more": lambda path: (path / "more.parquet").write_bytes(b"x"),
    "other parts": lambda path: change(path, parts=PARTS | {"layer": 4}),
    "another key": lambda path: change(path, key="0" * 16),
    "another identity": lambda path: change(path, sha256="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_refused_in_one_sentence_and_deleting_it_helps(root, damage):
    make = Made()
    kept(make)
    damage(folder(root))
    with pytest.raises(CompanionError, match=r"^What lies in artifacts/.* is damaged: delete that folder .*again\.$"):
        kept(make)
    shutil.rmtree(folder(root))
    assert len(kept(make)) == 2 and make.times == 2


def test_two_folders_that_have_changed_places_are_refused(root):
    kept(Made())
    one = folder(root)
    kept(Made(), parts=PARTS | {"layer": 4})
    (other,) = (path for path in one.parent.glob("[!.]*") if path.is_dir() and path != one)
    one.rename(root / "aside")
    other.rename(one)
    (root / "aside").rename(other)
    for parts in (PARTS, PARTS | {"layer": 4}):
        with pytest.raises(CompanionError, match="is damaged: delete that folder and it is made again"):
            kept(Made(), parts=parts)
    with pytest.raises(CompanionError):
        store.provenance(one)


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), ValueError("something else")])
def test_a_computation_that_ends_half_way_leaves_nothing_and_its_error_passes(root, problem):
    with pytest.raises(type(problem)):
        kept(Made(problem))
    assert not list((root / "artifacts").rglob("*.parquet")) and not list((root / "artifacts").rglob("*.json"))
    assert len(kept(Made())) == 2


def test_what_a_killed_process_left_is_cleared_away(root):
    place = root / "artifacts/readings/cpu/nine-adapter"
    leftover = place / f".{store.key(PARTS)}.abc123"
    leftover.mkdir(parents=True)
    (leftover / "table.parquet").write_bytes(b"half")
    assert len(kept(Made())) == 2 and not leftover.exists()


def test_a_folder_without_its_seal_is_made_anew(root):
    make = Made()
    kept(make)
    (folder(root) / "provenance.json").unlink()
    assert len(kept(make)) == 2 and make.times == 2


@pytest.mark.parametrize("words", ["[Errno 28] No space left on device", "unexpected pos: inline_container.cc:672"])
def test_a_full_disk_is_one_sentence(root, words):
    with pytest.raises(
        CompanionError, match=r"^artifacts/\S+ cannot be written: free some disk space and run it again"
    ):
        kept(Made(OSError(words)))
    assert len(kept(Made())) == 2


def test_two_at_once_make_it_once():
    make, found = Made(), []

    def slow():
        time.sleep(0.2)
        return make()

    threads = [threading.Thread(target=lambda: found.append(kept(slow))) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 3 and make.times == 1
