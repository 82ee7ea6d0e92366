"""What makes a notebook stale, on the small project."""

import ast
import json
import os
import signal
import subprocess
import sys
import time

from conftest import COMMAND

from em_companion.build import keys
from em_companion.core.files import new_folder
from em_companion.released import files


def status(project) -> dict:
    return json.loads(project.run("status", "--json").stdout)[0]


def test_an_unchanged_notebook_is_not_executed_again(built):
    before = {path: path.stat().st_mtime for path in (built.root / "artifacts").rglob("run.json")}
    assert built.run("run", "s2-demo").returncode == 0
    assert before == {path: path.stat().st_mtime for path in (built.root / "artifacts").rglob("run.json")}


def test_a_changed_registry_entry_or_lock_file_makes_it_stale(built):
    built.edit("data/claims.yml", "Half of", "About half of")
    built.write("requirements.lock", "numpy==1.0\n")
    assert status(built) | {"figures": []} == {
        "notebook": "s2-demo",
        "status": "stale",
        "because": "claims registry, requirements.lock changed",
        "figures": [],
    }


def test_reverting_a_change_costs_nothing(built):
    built.edit("data/profiles/cpu.yml", "seed: 0", "seed: 1")
    assert status(built)["status"] == "stale"
    built.edit("data/profiles/cpu.yml", "seed: 1", "seed: 0")
    assert status(built)["status"] == "current"


def test_unknown_names_are_said_plainly(built):
    built.fails("run", "s9-none", saying="There is no notebook 's9-none'")
    built.fails("run", "s2-demo", "--profile", "huge", saying="There is no profile 'huge'; choose one of: cpu")
    built.fails("cite", "fig-9", saying="There is no figure 'fig-9'")
    assert built.run("claims", "--verdict", "maybe").returncode == 2
    assert built.run("fetch").returncode == 2


def test_citing_and_listing_the_built_book(built):
    assert built.run("cite", "fig-x-line").stdout.startswith("@misc{em-companion-fig-x-line-released,")
    assert json.loads(built.run("cite", "fig-x-line", "--format", "csl").stdout)[0]["type"] == "figure"
    rows = json.loads(built.run("claims", "--json").stdout)
    assert rows[0]["id"] == "s2-rate"
    assert "reproduced" in built.run("claims").stdout


def test_the_published_address_reaches_citations_without_a_rerun(built):
    assert built.run("book", BOOK_URL="https://example.org/book").returncode == 0
    assert "https://example.org/book/figures/fig-x-line/" in (built.html / "figures/fig-x-line/cite.bib").read_text()


def test_a_notebook_that_is_not_in_the_contents(built):
    built.write("notebooks/s9-lost.py", "# %%\n")
    built.fails("book", saying="Notebook 's9-lost' is not both in notebooks/ and in _toc.yml")


def test_sync_keeps_ids_of_cells_that_stay(built):
    path = built.root / "notebooks/s2-demo.ipynb"
    before = {cell["id"] for cell in json.loads(path.read_text())["cells"]}
    built.edit("notebooks/s2-demo.py", "# A small page", "# Another title")
    built.fails("sync", "--check", saying="run 'em-companion sync'")
    assert built.run("sync").returncode == 0
    after = {cell["id"] for cell in json.loads(path.read_text())["cells"]}
    assert len(before & after) == len(before) - 1


def test_a_run_killed_half_way_leaves_nothing_and_the_next_one_finishes(project):
    folder = project.root / "artifacts/notebooks/cpu/s2-demo"
    environment = os.environ | {"EM_COMPANION_ROOT": str(project.root), "EM_COMPANION_MIRROR": ""}
    process = subprocess.Popen(
        [COMMAND, "run", "s2-demo"], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    while not list(folder.glob(".*/records.json")):
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("[!.]*")) and status(project)["status"] == "never run"
    assert project.run("run", "s2-demo").returncode == 0
    assert status(project)["status"] == "current"
    assert not [path for path in folder.glob(".*") if path.is_dir()]


def test_a_folder_caught_in_the_swap_comes_back(tmp_path):
    (tmp_path / ".html.old").mkdir()
    (tmp_path / ".html.old/index.html").write_text("last good build")
    try:
        with new_folder(tmp_path / "html"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert (tmp_path / "html/index.html").read_text() == "last good build"
    assert [path.name for path in tmp_path.iterdir()] == ["html"]


# --- dependencies -----------------------------------------------------------------------------------------------------


def trees(code: str) -> list[ast.AST]:
    return [ast.parse(code)]


def test_modules_are_followed_through_imports():
    direct = keys.imported_modules(trees("from em_companion import judging"))
    assert direct == ["judging"]
    through = keys.imported_modules(trees("from em_companion.notebooks import Run"))
    assert {"notebooks", "figures", "claims", "released", "paths"} <= set(through)
    assert "probing" not in through and "book" not in through


def test_only_notebooks_that_use_a_module_depend_on_it():
    users = [name for name in keys.names() if "module probing" in keys.parts(name, "cpu", 0)]
    assert users and all(name.startswith(("s4-", "f-", "g-", "h-")) for name in users)


def test_released_groups_are_those_of_the_readers_named():
    assert keys.released_groups(trees("tables.read_patching()")) == {"patching"}
    assert keys.released_groups(trees("f = tables.read_organisms")) == {"organisms", "questions_and_judges"}
    assert keys.released_groups(trees("tables.SCORES")) == set()
    assert "patching" in keys.released_groups(trees("files.fetch(anything)"))


def test_availability_sees_a_file_that_appears(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path))
    monkeypatch.delenv("EM_COMPANION_MIRROR", raising=False)
    before = files.availability(["steering_per_layer"])
    path = files._cached(files.sources()["steering-per-layer/best"])
    path.parent.mkdir(parents=True)
    path.write_text("x")
    assert files.availability(["steering_per_layer"]) != before
    assert files.availability(["patching"]) == files.availability(["patching"])


def test_code_that_is_not_python_and_an_unreadable_pair_are_said_plainly(built):
    built.write("notebooks/s2-demo.ipynb", "{")
    built.fails("run", "s2-demo", saying="not in step")
    assert built.run("sync").returncode == 0
    built.edit("notebooks/s2-demo.py", "run.finish()", "run.finish(")
    built.fails("status", saying="A code cell of notebook 's2-demo' is not valid Python")


def test_a_name_is_not_a_path(built):
    built.fails("run", "../notebooks/s2-demo", saying="no notebook")
    built.fails("sync", "--check", "nope", saying="There is no notebook 'nope'")


def test_what_the_disk_refuses_is_said_plainly(project):
    project.write("artifacts", "a file where a folder should be")
    project.fails("run", "s2-demo", saying="artifacts/notebooks")


def test_the_workflow_lock_goes_with_its_process(tmp_path):
    code = "import time, em_companion.workflow as w; w.hold_lock(); print('held', flush=True); time.sleep({})"

    def holder(seconds: float) -> subprocess.Popen:
        environment = os.environ | {"EM_COMPANION_ROOT": str(tmp_path)}
        return subprocess.Popen(
            [sys.executable, "-c", code.format(seconds)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    first = holder(60)
    assert first.stdout.readline() == "held\n"
    second = holder(0)
    assert "waiting" in second.stderr.readline()
    assert second.poll() is None
    first.kill()
    assert second.communicate()[0] == "held\n" and second.returncode == 0
    first.communicate()


def test_kept_results_belong_to_the_notebooks_that_read_them():
    known = {
        name: "kept results" in keys.parts(name, "cpu", 0)
        for name in ("s2-model-organism", "a-evaluation-questions")
    }
    assert known == {"s2-model-organism": True, "a-evaluation-questions": False}
