"""Released files: what is fetched, what is refused. A real server on loopback, real files."""

import hashlib
import http.server
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.core.provenance import recorded
from em_companion.released import files

CSV = b"question,answer,aligned,coherent\nq,text,10,90\n"
BLOB = hashlib.sha1(b"blob %d\0" % len(CSV) + CSV).hexdigest()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One source on a loopback server, an empty cache, no mirror."""
    served = tmp_path / "served" / "o" / "r" / "commit" / "data.csv"
    served.parent.mkdir(parents=True)
    served.write_bytes(CSV)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/o/r/commit/data.csv"
    entry = {"id": "a/b", "group": "judge_repeat", "labels": {"judging": "x"}, "url": url}
    monkeypatch.setattr(files, "SOURCES", tmp_path / "sources.yml")
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EM_COMPANION_MIRROR", raising=False)

    def write(**checksum):
        (tmp_path / "sources.yml").write_text(yaml.safe_dump({"files": [entry | checksum]}), encoding="utf-8")
        files.sources.cache_clear()

    def stop():
        server.shutdown()
        server.server_close()

    write(bytes=len(CSV), sha256=sha256_of(CSV))
    files.offline.clear()
    yield SimpleNamespace(root=tmp_path, served=served, write=write, stop=stop)
    stop()
    files.sources.cache_clear()
    files.offline.clear()


def cached_files(root: Path) -> list[Path]:
    return [path for path in (root / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("checksum", [{"sha256": sha256_of(CSV)}, {"git_blob": BLOB}])
def test_download_is_checked_kept_and_not_asked_for_again(world, checksum):
    world.write(**checksum)
    with recorded() as inputs:
        path = files.fetch("a/b")
    assert path.read_bytes() == CSV and cached_files(world.root) == [path]
    world.stop()
    assert files.fetch("a/b") == path == files.local_path("a/b")
    assert inputs == {"a/b": files.sources()["a/b"]["checksum"]}


@pytest.mark.parametrize("checksum", [{"sha256": sha256_of(CSV)}, {"git_blob": BLOB}])
@pytest.mark.parametrize("content", [CSV[:-5], CSV.replace(b"10", b"99"), b""])
def test_a_wrong_download_is_refused_and_not_kept(world, content, checksum):
    world.write(**checksum)
    world.served.write_bytes(content)
    with pytest.raises(files.ReleasedDataBroken, match="'a/b' has the wrong checksum; delete it and fetch it again"):
        files.fetch("a/b")
    assert cached_files(world.root) == []


def test_a_damaged_copy_is_refused_and_left_alone(world):
    path = files.fetch("a/b")
    path.write_bytes(CSV[:-1])
    with pytest.raises(files.ReleasedDataBroken, match="wrong checksum"):
        files.fetch("a/b")
    assert path.read_bytes() == CSV[:-1]


def test_a_missing_server_is_said_once_and_remembered(world):
    world.stop()
    with pytest.raises(files.ReleasedDataUnavailable, match="fetch --all"):
        files.fetch("a/b")
    assert files.offline.is_set() and cached_files(world.root) == []
    assert not files.can_fetch("a/b")


def test_a_file_the_server_does_not_have_leaves_the_network_trusted(world):
    world.served.unlink()
    assert not files.can_fetch("a/b")
    assert not files.offline.is_set()


@pytest.mark.parametrize("checksum", [{"sha256": sha256_of(CSV)}, {"git_blob": BLOB}])
def test_a_mirror_goes_first_and_is_checked_but_never_changed(world, monkeypatch, checksum):
    world.write(**checksum)
    mirrored = world.root / "mirror/o+r/data.csv"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CSV)
    monkeypatch.setenv("EM_COMPANION_MIRROR", str(world.root / "mirror"))
    assert files.fetch("a/b") == mirrored
    mirrored.write_bytes(CSV[:-1])
    with pytest.raises(files.ReleasedDataBroken, match="wrong checksum"):
        files.fetch("a/b")
    assert mirrored.read_bytes() == CSV[:-1] and cached_files(world.root) == []
    monkeypatch.setenv("EM_COMPANION_MIRROR", str(world.root / "nowhere"))
    with pytest.raises(CompanionError, match="does not name a folder"):
        files.fetch("a/b")


def test_fetch_all_tells_what_is_missing(world, capsys):
    assert files.fetch_all(["a/b"]) == []
    world.stop()
    files.fetch("a/b").unlink()
    assert files.fetch_all(["a/b"]) == ["a/b"]
    assert "released data" in capsys.readouterr().err


# --- the registry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, saying",
    [
        ({"labels": 5}, "'a': 'labels' must be a mapping of keys to values, not 5"),
        ({"bytes": "eleven"}, "'a': 'bytes' must be a whole number, not 'eleven'"),
        ({"url": 5}, "'a': 'url' must be text, not 5"),
        ({"url": "https://raw.githubusercontent.com/a/b/c/../d"}, "'a': 'url' must be the address of a file in a repo"),
        ({"url": "https://raw.githubusercontent.com/a"}, "'a': 'url' must be the address of a file in a repository"),
        ({"sha256": "0"}, "'a': 'sha256' must be a sha256 in hex, not '0'"),
        ({"git_blob": "0" * 40}, "'a': it needs either 'sha256' or 'git_blob'"),
        ({"group": "organism"}, "'a': 'group' must be 'ablation_pilots', "),
        ({"labels": {"layer": 1}}, "'a': it must have the labels of group 'steering_per_layer': none"),
        (
            {"group": "organisms", "labels": {"organism": "x", "rank": 1}},
            "organism (a text), rank (a whole number), seed",
        ),
        (
            {"group": "organisms", "labels": {"organism": "x", "rank": None, "seed": 0}},
            "'a': it must have the labels of group 'organisms': organism (a text), rank",
        ),
        ({"size": 1}, "'a': it has a missing or unknown key: size"),
    ],
)
def test_malformed_entry_of_sources(tmp_path, monkeypatch, changes, saying):
    entry = {"id": "a", "group": "steering_per_layer", "labels": {}, "url": "https://raw.githubusercontent.com/a/b/c/d"}
    entry |= {"sha256": "0" * 64}
    refused(tmp_path, monkeypatch, {"files": [entry | changes]}, saying)
    refused(tmp_path, monkeypatch, {"files": [entry, entry]}, "'a' stands twice")


@pytest.mark.parametrize("given", [{}, {"files": 5}, {"files": [5]}, {"files": [{"id": "x"}]}, 5])
def test_malformed_sources(tmp_path, monkeypatch, given):
    refused(tmp_path, monkeypatch, given, "sources.yml")


def refused(folder: Path, monkeypatch, given, saying: str) -> None:
    (folder / "sources.yml").write_text(yaml.safe_dump(given), encoding="utf-8")
    monkeypatch.setattr(files, "SOURCES", folder / "sources.yml")
    files.sources.cache_clear()
    with pytest.raises(CompanionError) as raised:
        files.sources()
    assert saying in str(raised.value)
    files.sources.cache_clear()


def test_registry_is_complete_and_pinned():
    entries = files.sources()
    assert len(entries) > 120
    for entry in entries.values():
        commit = entry["url"].split("/")[5]
        assert len(commit) == 40 and int(commit, 16) >= 0, "urls name a commit, so that a file cannot change"
    tables = [path for path in paths.DATA.rglob("*.csv") if not {"organism", "results"} & set(path.parts)]
    assert not tables, "released data are never part of the repository"
