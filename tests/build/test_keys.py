"""What a notebook's result depends on: what matters, and nothing else."""

import ast
import shutil
from pathlib import Path

import pytest

from em_companion import core, judges, released
from em_companion.build import keys
from em_companion.core import profiles
from em_companion.judges import records
from em_companion.released import files

SOURCE = keys.SOURCE


def parts() -> dict[str, dict[str, str]]:
    return {name: keys.parts(name, "cpu") for name in keys.names()}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package to edit, the one that keys look at."""
    copy = shutil.copytree(SOURCE, tmp_path / "em_companion", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(keys, "SOURCE", copy)
    return copy


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_only_pages_that_read_kept_results_depend_on_them():
    reading = [name for name, found in parts().items() if "kept results" in found]
    assert sorted(reading) == [
        "f1-content-or-constraint",
        "f2-onset-and-bottleneck",
        "f3-timing-and-recovery",
        "k-fitted-judge",
        "n1-persona-and-axis",
        "n2-recursion-and-self-correction",
        "n3-residues",
        "n4-specification-and-merging",
        "x-linear-mediation",
    ]


def test_looks_verdicts_comments_and_docstrings_re_execute_nothing(package):
    for path in package.rglob("*.py"):
        append(path, "# a remark\n")
    for path in [*(package / "build").rglob("*.*"), package / "evidence/verdicts.py", package / "cli.py"]:
        append(path, "CHANGED = 1\n")
    scores = package / "evidence/scores.py"
    text = scores.read_text(encoding="utf-8")
    docstrings = [ast.get_docstring(node) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    scores.write_text(text.replace(docstrings[0].splitlines()[0], "Another sentence."), encoding="utf-8")
    after = parts()
    keys.SOURCE = SOURCE
    before = parts()
    assert not [name for name in before if before[name] != after[name]]


def test_a_changed_line_makes_those_stale_that_import_it_and_says_so(package):
    append(package / "evidence/probes.py", "CHANGED = 1\n")
    after = parts()
    keys.SOURCE = SOURCE
    before = parts()
    stale = {name for name in before if before[name] != after[name]}
    assert stale == {name for name in before if "code of evidence.probes" in before[name]}
    assert 0 < len(stale) < len(before)
    for name in stale:
        assert [label for label in before[name] if before[name][label] != after[name][label]] == [
            "code of evidence.probes"
        ]


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Names the modules that some code depends on, in a package of two rooms."""
    modules = {
        "room/__init__.py": "",
        "room/first.py": "def late():\n    from em_companion.other.third import number\n",
        "room/second.py": "",
        "other/__init__.py": "ONE = 1",
        "other/third.py": "import em_companion.room.second",
    }
    for name, text in modules.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(keys, "SOURCE", tmp_path)
    monkeypatch.setattr(keys, "NOTEBOOKS", tmp_path)

    def closure(code: str) -> list[str]:
        (tmp_path / "page.py").write_text(f"# %%\n{code}\n", encoding="utf-8")
        return list(keys.closure(keys.code_cells("page")))

    return closure


@pytest.mark.parametrize(
    "code, expected",
    [
        ("from em_companion.room import second", ["room", "room.second"]),
        ("from em_companion.room.second import anything", ["room", "room.second"]),
        ("import em_companion.room.second as s, os", ["room", "room.second"]),
        ("from em_companion.other import ONE", ["other"]),
        (
            "if True:\n    from em_companion.room.first import late",
            ["other", "other.third", "room", "room.first", "room.second"],
        ),
        ("import pandas", []),
    ],
)
def test_imports_are_followed_wherever_they_stand(rooms, code, expected):
    assert rooms(code) == expected


def test_no_module_imports_in_a_way_that_is_not_followed():
    for path in SOURCE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level], path


def test_a_text_that_a_cell_shows_is_part_of_it(rooms, tmp_path):
    def tree(code: str) -> str:
        rooms(code)
        return keys.code_cells("page")[0].tree

    assert tree('"one"') != tree('"two"')
    assert tree('"one"\nx = 1') == tree('"two"\nx = 1')
    assert tree('def f():\n    "one"') == tree('def f():\n    "two"')


def test_availability_counts_for_the_files_behind_the_readers_that_are_named(monkeypatch):
    asked = []
    monkeypatch.setattr(files, "availability", lambda groups=None: asked.append(groups) or "")
    for names in ({"read_patching", "cosines"}, {"SCORES"}, {"read_organisms"}, {"fetch"}):
        released.fingerprint(profiles.load("cpu"), frozenset(names))
    assert asked == [{"patching"}, set(), {"organisms", "questions_and_judges"}, None]


def test_availability_sees_a_file_that_appears(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path))
    monkeypatch.delenv("EM_COMPANION_MIRROR", raising=False)
    groups = {entry["group"]: entry for entry in files.sources().values()}
    group, other = sorted(groups)[:2]
    before, elsewhere = files.availability([group]), files.availability([other])
    monkeypatch.setattr(files, "local_path", lambda source: tmp_path if source == groups[group]["id"] else None)
    assert files.availability([group]) != before
    assert files.availability([other]) == elsewhere


def test_records_of_a_profile_s_own_judge_are_no_part_of_a_page(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_RECORDS", str(tmp_path))
    profile, named = profiles.load("qwen-14b"), frozenset({"served"})
    assert judges.fingerprint(profile, frozenset()) == {}
    before = judges.fingerprint(profile, named)
    (tmp_path / f"{records.slug(profile.judge)}--aligned.jsonl").write_text("a")
    assert judges.fingerprint(profile, named) == before != {}
    (tmp_path / f"{records.slug('another')}--aligned.jsonl").write_text("a")
    assert judges.fingerprint(profile, named) != before


def test_kept_results_count_where_they_are_read():
    assert core.fingerprint(profiles.load("cpu"), frozenset({"RESULTS"})).keys() == {"kept results"}
    assert core.fingerprint(profiles.load("cpu"), frozenset({"ROOT"})) == {}


def test_only_pages_that_ask_a_model_wait_for_models():
    assert keys.uses_models("s3-2-steering") and not keys.uses_models("s2-replication")
