"""Released data: what is fetched, what is refused, and what readers return. A real server on loopback, real files."""

import http.server
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.released import files, tables

CSV = b"question,answer,aligned,coherent\nq,text,10,90\n"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One source, a served folder, an empty cache, no mirror; the network is the loopback server."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/data.csv"
    (served / "data.csv").write_bytes(CSV)
    entry = {
        "id": "a/b",
        "group": "g",
        "labels": {"kind": "x"},
        "url": url,
        "bytes": len(CSV),
        "sha256": sha256_of(CSV),
    }
    monkeypatch.setattr(files, "SOURCES", tmp_path / "sources.yml")
    monkeypatch.setattr(files, "network_refused", False)
    monkeypatch.setattr(files, "_place", lambda url: {"repository": "o/r", "path": "data.csv"})
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EM_COMPANION_MIRROR", raising=False)

    def write(**changes):
        (tmp_path / "sources.yml").write_text(yaml.safe_dump({"files": [entry | changes]}))
        files.sources.cache_clear()
        tables._csv.cache_clear()

    write()
    yield tmp_path, served, server, write
    server.shutdown()
    server.server_close()
    files.sources.cache_clear()
    tables._csv.cache_clear()


def cached_files(root: Path) -> list[Path]:
    return [path for path in (root / "cache").rglob("*") if path.is_file()]


def test_download_is_checked_kept_and_not_asked_for_again(world):
    root, _, server, _ = world
    path = files.fetch("a/b")
    assert path.read_bytes() == CSV and cached_files(root) == [path]
    server.shutdown()
    assert files.fetch("a/b") == path
    assert files.opened["a/b"] == sha256_of(CSV)


@pytest.mark.parametrize(
    "content, saying",
    [
        (CSV[:-5], "has 41 bytes instead of 46"),
        (CSV.replace(b"10", b"99"), "has the wrong checksum"),
    ],
)
def test_a_wrong_download_is_refused_and_not_kept(world, content, saying):
    root, served, _, _ = world
    (served / "data.csv").write_bytes(content)
    with pytest.raises(files.ReleasedDataBroken, match=saying):
        files.fetch("a/b")
    assert cached_files(root) == []


def test_a_missing_server_is_said_once_and_remembered(world):
    root, _, server, write = world
    write(url=f"http://127.0.0.1:{server.server_port + 1 if server.server_port < 65535 else 1}/data.csv")
    server.shutdown()
    server.server_close()
    with pytest.raises(files.ReleasedDataUnavailable, match="fetch --all"):
        files.fetch("a/b")
    assert files.network_refused and cached_files(root) == []


def test_a_file_the_server_does_not_have_leaves_the_network_trusted(world):
    _, served, _, _ = world
    (served / "data.csv").unlink()
    with pytest.raises(files.ReleasedDataUnavailable):
        files.fetch("a/b")
    assert not files.network_refused


def test_a_mirror_goes_first_and_is_checked_too(world, monkeypatch):
    root, _, server, _ = world
    server.shutdown()
    mirrored = root / "mirror/o+r/data.csv"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CSV)
    monkeypatch.setenv("EM_COMPANION_MIRROR", str(root / "mirror"))
    assert files.fetch("a/b") == mirrored
    mirrored.write_bytes(CSV[:-1])
    with pytest.raises(files.ReleasedDataBroken, match="bytes instead of"):
        files.fetch("a/b")
    monkeypatch.setenv("EM_COMPANION_MIRROR", str(root / "nowhere"))
    with pytest.raises(CompanionError, match="does not name a folder"):
        files.fetch("a/b")


def test_a_file_known_by_its_git_blob_only(world):
    root, _, _, write = world
    import hashlib

    blob = hashlib.sha1(b"blob %d\0" % len(CSV) + CSV).hexdigest()
    (root / "sources.yml").write_text(
        yaml.safe_dump(
            {
                "files": [
                    {"id": "a/b", "group": "g", "labels": {}, "url": files.sources()["a/b"]["url"], "git_blob": blob}
                ]
            }
        )
    )
    files.sources.cache_clear()
    assert files.fetch("a/b").read_bytes() == CSV


@pytest.mark.parametrize(
    "content, saying",
    [
        (b"question,answer,aligned\nq,text,10\n", "has no column 'coherent'"),
        (b"", "is not a readable csv"),
        (b'question,answer,aligned,coherent\n"q,text,10,90\n', "is not a readable csv"),
    ],
)
def test_a_table_that_is_not_as_expected(world, content, saying):
    root, served, _, write = world
    (served / "data.csv").write_bytes(content)
    write(bytes=len(content), sha256=sha256_of(content))
    with pytest.raises(files.ReleasedDataBroken, match=saying):
        tables._csv("a/b")


@pytest.mark.parametrize(
    "changes", [{"labels": 5}, {"bytes": "eleven"}, {"url": 5}, {"url": "https://raw.githubusercontent.com/a/b/c/../d"}]
)
def test_malformed_entry_of_sources(tmp_path, monkeypatch, changes):
    entry = {"id": "a", "group": "g", "labels": {}, "url": "https://raw.githubusercontent.com/a/b/c/d"}
    monkeypatch.setattr(files, "SOURCES", tmp_path / "sources.yml")
    for entries in ([entry | {"bytes": 1, "sha256": "0"} | changes], [entry | {"git_blob": "0"}] * 2):
        (tmp_path / "sources.yml").write_text(yaml.safe_dump({"files": entries}))
        files.sources.cache_clear()
        with pytest.raises(CompanionError, match=r"malformed: .*'a' (lacks|is no|stands)"):
            files.sources()
    files.sources.cache_clear()


def test_malformed_sources(world):
    root, *_ = world
    (root / "sources.yml").write_text("files:\n- id: x\n")
    files.sources.cache_clear()
    with pytest.raises(CompanionError, match="malformed"):
        files.sources()


def test_fetch_all_tells_what_is_missing(world, capsys):
    _, served, _, _ = world
    assert files.fetch_all() == {"fetched": ["a/b"], "unavailable": []}
    assert "released data" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_tensor_files_never_run_code(world, monkeypatch, capsys):
    root, *_ = world
    torch.save({"x": Evil()}, root / "evil.pt")
    monkeypatch.setattr(files, "fetch", lambda source: root / "evil.pt")
    with pytest.raises(files.ReleasedDataBroken, match="not a readable tensor file"):
        tables._load_tensors("a/b")
    assert "code ran" not in capsys.readouterr().out


def test_a_truncated_tensor_file(world, monkeypatch):
    root, *_ = world
    torch.save({"x": torch.zeros(3)}, root / "whole.pt")
    (root / "cut.pt").write_bytes((root / "whole.pt").read_bytes()[:200])
    monkeypatch.setattr(files, "fetch", lambda source: root / "cut.pt")
    with pytest.raises(files.ReleasedDataBroken, match="not a readable tensor file"):
        tables._load_tensors("a/b")


# --- the real registry ------------------------------------------------------------------------------------------------


def test_registry_is_complete_and_pinned():
    entries = files.sources()
    assert len(entries) > 120
    for entry in entries.values():
        commit = entry["url"].split("/")[5]
        assert len(commit) == 40 and int(commit, 16) >= 0, "urls name a commit, so that a file cannot change"
    tables = [path for path in Path(released.DATA).rglob("*.csv") if not {"organism", "results"} & set(path.parts)]
    assert not tables, "released data are never part of the repository"


have_data = pytest.mark.skipif(files.local_path("organisms/chat-model") is None, reason="released data not at hand")


@have_data
def test_tables_of_real_responses():
    frame = tables.read_organisms()
    assert set(frame.question_set) == {"general", "json", "template"} and "response" not in frame
    general = frame[frame.question_set == "general"]
    assert set(general.groupby(["organism", "seed", "question_id"]).size()) == {50}
    assert general["sample"].max() == 49
    assert pd.api.types.is_float_dtype(frame.aligned) and frame.aligned.max() <= 100
    assert "response" in tables.read_organisms(text=True)


@have_data
def test_rows_of_an_interrupted_write_are_dropped():
    frame = tables.read_steering()
    sizes = frame.groupby("source").size()
    assert set(sizes) == {800}


@have_data
def test_lora_scalars_line_up_with_answers():
    tokens = tables.read_probing_tokens("medical-misaligned")
    assert len(tokens) == 8122 and tokens.response.nunique() == 149
    assert np.isfinite(tokens.filter(like="layer_").to_numpy()).all()
    assert tables.read_mean_activations("general", "misaligned").shape == (48, 5120)


@have_data
def test_a_changed_file_in_the_mirror_stops_a_notebook(tmp_path):
    path = files.local_path("steering-per-layer/best")
    entry = files.sources()["steering-per-layer/best"]
    copy = tmp_path / entry["repository"].replace("/", "+") / entry["path"]
    copy.parent.mkdir(parents=True)
    shutil.copyfile(path, copy)
    files.check("steering-per-layer/best", copy)
    copy.write_bytes(copy.read_bytes().replace(b"0.9", b"0.8", 1))
    with pytest.raises(files.ReleasedDataBroken, match="wrong checksum"):
        files.check("steering-per-layer/best", copy)
