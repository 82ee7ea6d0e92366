"""Files are whole or not there, and a file that cannot be read is one clear sentence."""

import math

import pytest

from em_companion.core import files, paths
from em_companion.core.errors import CompanionError


def test_a_text_is_written_in_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = tmp_path / "folder" / "a.txt"
    assert files.write_text(path, "λ ≥ 3 – ü\n")
    assert path.read_bytes() == "λ ≥ 3 – ü\n".encode() and [one.name for one in path.parent.iterdir()] == ["a.txt"]


def test_an_unchanged_text_keeps_its_time_stamp(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "x")
    before = path.stat().st_mtime_ns
    assert not files.write_text(path, "x") and path.stat().st_mtime_ns == before
    assert files.write_text(path, "y")


def test_json_that_no_other_program_could_read_is_refused(tmp_path):
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"x": math.nan})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, saying",
    [
        (b"a: [1\n", "a.yml is malformed: line 2: "),
        (b"a: 1\nb: {c: 1, c: 2}\n", "a.yml is malformed: line 2: 'c' stands twice."),
        (b"a: 1\n'a': 2\n", "a.yml is malformed: line 2: 'a' stands twice."),
        (b"a: 2026-13-41\n", "a.yml is malformed: month must be in 1..12."),
        (b"[" * 9999, "a.yml is malformed: "),
        (b"a: \xff\n", "a.yml is malformed: it is not text in UTF-8."),
        (None, "a.yml cannot be read: No such file or directory."),
    ],
)
def test_yaml_that_cannot_be_read_is_one_clear_sentence(tmp_path, content, saying):
    path = tmp_path / "a.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CompanionError) as raised:
        files.read_yaml(path)
    assert str(raised.value).startswith(saying) and "\n" not in str(raised.value)


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "folder"
    for number in range(2):
        with files.new_folder(target) as new:
            (new / f"file-{number}").touch()
    assert [one.name for one in target.iterdir()] == ["file-1"] and len(list(tmp_path.iterdir())) == 1


def test_a_block_that_fails_leaves_the_old_folder(tmp_path):
    target = tmp_path / "folder"
    with files.new_folder(target) as new:
        (new / "old").touch()
    with pytest.raises(KeyboardInterrupt), files.new_folder(target) as new:
        (new / "half").touch()
        raise KeyboardInterrupt
    assert [one.name for one in target.iterdir()] == ["old"] and len(list(tmp_path.iterdir())) == 1


def test_a_folder_caught_between_two_names_is_brought_back(tmp_path):
    target, old = tmp_path / "folder", tmp_path / ".folder.old"
    old.mkdir()
    (old / "content").touch()
    (tmp_path / ".folder.abc").mkdir()
    files.recover(target)
    assert [one.name for one in target.iterdir()] == ["content"] and len(list(tmp_path.iterdir())) == 1


# --- places ---------------------------------------------------------------------------------------------------------


def test_a_message_names_no_folder_of_this_machine(tmp_path):
    assert paths.relative(paths.ROOT / "data" / "x.yml") == "data/x.yml"
    assert paths.relative(tmp_path / "x.yml") == "x.yml"


def test_git_that_fails_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert paths.git("log") == ""
    monkeypatch.setenv("PATH", "")
    assert paths.git("log") == ""
