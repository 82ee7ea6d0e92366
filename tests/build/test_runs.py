"""Runs, pairs and the build, on the small project: what is executed, what is kept, and what is said."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import COMMAND, ROOT

from em_companion.build import runs, workflow
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_sealed, write_sealed


def status(project, *options: str) -> tuple[str, str]:
    row = json.loads(project.run("status", "--json", *options).stdout)[0]
    return row["status"], row["because"]


def times(project) -> dict:
    return {path: path.stat().st_mtime_ns for path in (project.root / "artifacts").rglob("run.json")}


# --- what is stale, and why ---------------------------------------------------------------------------------------


def test_an_unchanged_notebook_is_not_executed_again(built):
    before = times(built)
    assert built.run("run", "s2-demo").returncode == 0
    assert times(built) == before


def test_looks_and_wordings_re_execute_nothing(built):
    built.edit("data/claims.yml", "Half of", "About half of")
    built.edit("notebooks/s2-demo.py", "# A small page", "# Another title")
    built.edit("notebooks/s2-demo.py", "answers = ", "# a remark\nanswers = ")
    built.write("book/_static/companion.css", "a { color: red }")
    assert status(built) == ("current", "")


def test_what_is_baked_into_a_result_makes_it_stale(built):
    built.edit("data/figures.yml", "A line", "Another line")
    built.edit("data/claims.yml", "reported: 50", "reported: 60")
    built.edit("notebooks/s2-demo.py", "10.0", "11.0")
    built.write("requirements.lock", "numpy==1.0\n")
    assert status(built) == ("stale", "its cells, its claims, its figures, requirements.lock changed")


def test_reverting_a_change_costs_nothing(built):
    built.edit("data/profiles/cpu.yml", "split_fits: ", "split_fits: 1")
    assert status(built) == ("stale", "profile changed")
    built.edit("data/profiles/cpu.yml", "split_fits: 1", "split_fits: ")
    assert status(built)[0] == "current"


def test_runs_of_other_profiles_are_no_reason(built):
    cpu = (built.root / "data/profiles/cpu.yml").read_text(encoding="utf-8")
    built.write("data/profiles/other.yml", cpu)
    assert status(built, "--profile", "other") == ("never run", "")
    built.edit("data/profiles/cpu.yml", "seed: 0", "seed: 1")
    assert status(built) == ("stale", "profile, seed changed")


def why(monkeypatch, now: dict[str, str]) -> tuple[str, str]:
    monkeypatch.setattr(runs.keys, "parts", lambda *_: now)
    found = runs.status("page", "cpu")
    return found["status"], found["because"]


def test_the_reason_is_what_differs_from_the_newest_run(tmp_path, monkeypatch):
    def kept(name: str, age: int, text: str) -> None:
        path = tmp_path / "notebooks/cpu/page" / name / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (time.time() - age,) * 2)

    monkeypatch.setattr(runs.paths, "ARTIFACTS", tmp_path)
    now = {"its cells": "1", "code of evidence.scores": "2"}
    assert why(monkeypatch, now) == ("never run", "")
    kept("broken", 0, "{")
    assert why(monkeypatch, now) == ("never run", "")
    kept("older", 9, json.dumps({"parts": now}))
    kept("newest", 2, json.dumps({"parts": now | {"code of evidence.scores": "3"}}))
    assert why(monkeypatch, now) == ("stale", "code of evidence.scores changed")
    assert why(monkeypatch, dict.fromkeys("abcdef", "x"))[1] == "a, b, c, d, 4 more changed"


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A run that takes no time, and returns the seeds of the runs that are kept after it."""

    def execute(name: str, profile: str, seed: int, target: Path) -> SimpleNamespace:
        (target / "records.json").write_text('{"finished": true}', encoding="utf-8")
        (target / "figures").mkdir()
        for file in ("data.csv", "figure.png"):
            (target / "figures" / file).write_text("x\n1\n2\n", encoding="utf-8")
        return SimpleNamespace(metadata=SimpleNamespace(papermill=SimpleNamespace(duration=1.0)))

    monkeypatch.setattr(runs.paths, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(runs, "paired", lambda name: True)
    monkeypatch.setattr(runs, "_execute", execute)

    def run(seed: int, version: int = 0) -> list[int]:
        monkeypatch.setattr(runs.keys, "parts", lambda *_: {"seed": str(seed), "code": str(version)})
        runs.run("page", "cpu")
        return sorted(json.loads(path.read_text())["seed"] for path in tmp_path.glob("notebooks/cpu/page/*/run.json"))

    return run


def test_only_older_runs_make_room(ran):
    for version in range(5):
        kept = ran(0, version)
    assert kept == [0] * runs.KEPT_RUNS


def test_another_seed_takes_no_room_from_the_default(ran):
    for seed in range(5):
        kept = ran(seed)
    assert kept == [0, 1, 2, 3, 4]


# --- seals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(ran, tmp_path) -> Path:
    """The folder of a finished run with a figure, whose seal is whole."""
    ran(0)
    (folder,) = (path.parent for path in tmp_path.glob("notebooks/cpu/page/*/run.json"))
    assert read_sealed(folder / "run.json", "")["key"] == folder.name
    return folder


def edit_json(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_json(folder / "records.json", seconds=1),
        lambda folder: (folder / "figures/data.csv").write_text("x\n1", encoding="utf-8"),
        lambda folder: (folder / "figures/figure.png").unlink(),
        lambda folder: (folder / "figures/more.png").touch(),
        lambda folder: edit_json(folder / "run.json", commit="another"),
        lambda folder: edit_json(folder / "run.json", files={}),
        lambda folder: edit_json(folder / "run.json", sha256=None),
        *(
            lambda folder, text=text: (folder / "run.json").write_text(text, encoding="utf-8")
            for text in ("", "{", "[]", "3", "null", '"x"', "{}", '{"parts": 5}', '{"parts": {}, "files": []}')
        ),
    ],
)
def test_a_run_that_was_edited_or_damaged_is_refused_and_the_status_goes_on(sealed, monkeypatch, change):
    change(sealed)
    with pytest.raises(CompanionError, match="damaged or was edited: run it again"):
        read_sealed(sealed / "run.json", "run it again")
    assert runs.status("page", "cpu")["status"] in ("current", "stale", "never run")


def test_a_run_that_made_adapters_has_the_key_that_covers_them(tmp_path, ran, monkeypatch):
    there = ["not there"]
    execute = runs._execute

    def making(*given):
        there.append("their weights")
        return execute(*given)

    ran(0)
    monkeypatch.setattr(runs, "_execute", making)
    monkeypatch.setattr(runs.keys, "parts", lambda *_: {"seed": "0", "code": "other", runs.ADAPTERS: there[-1]})
    folder = runs.run("page", "cpu")
    assert read_sealed(folder / "run.json", "")["parts"][runs.ADAPTERS] == "their weights"
    assert folder == runs.folder("page", "cpu")
    assert runs.status("page", "cpu")["status"] == "current" and runs.run("page", "cpu") == folder
    assert there == ["not there", "their weights"], "it ran once"


def test_a_changed_setting_makes_a_result_apart_that_enters_no_book(built):
    built.edit("notebooks/s2-demo.py", '"demo.em": rate', '"demo.em": rate, "demo.answers": run.profile.sweep_samples')
    assert built.run("sync").returncode == built.run("run", "s2-demo").returncode == 0
    default = times(built)
    for samples in range(50, 55):
        said = built.run("run", "s2-demo", "--set", f"sweep_samples={samples}", "--set", "fine_tuning.stop_at=0.5")
        folder = built.root / said.stdout.split()[-1]
        values = json.loads((folder / "records.json").read_text(encoding="utf-8"))["values"]
        assert [one["value"] for one in values if one["name"] == "demo.answers"] == [samples]
    assert default.items() <= times(built).items() and status(built) == ("current", "")
    assert built.run("book").returncode == 0
    shown = json.loads((built.html / "claims.json").read_text(encoding="utf-8"))["values"]
    assert [one["value"] for one in shown if one["name"] == "demo.answers"] == [10]
    built.fails("book", saying="No book is built with changed settings", EM_COMPANION_SET='{"sweep_samples": 50}')
    built.fails("run", "s2-demo", "--set", "sweep_samples", saying="write NAME=VALUE, such as sweep_samples=50")
    built.fails("run", "s2-demo", "--set", "sweep_sample=5", saying="sweep_sample")
    built.fails("run", "s2-demo", "--set", "seed.first=5", saying="seed")


# --- pairs --------------------------------------------------------------------------------------------------------


def cells(project) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook(project)["cells"]]


def notebook(project) -> dict:
    return json.loads((project.root / "notebooks/s2-demo.ipynb").read_text(encoding="utf-8"))


def edit_notebook(project, text: str) -> None:
    changed = notebook(project)
    changed["cells"][0]["source"] = text
    project.write("notebooks/s2-demo.ipynb", json.dumps(changed))


def test_sync_keeps_ids_of_cells_that_stay(project):
    before = {cell["id"] for cell in notebook(project)["cells"]}
    project.edit("notebooks/s2-demo.py", "# A small page", "# Another title")
    project.fails("sync", "--check", saying="run 'em-companion sync'")
    assert project.run("sync").stdout == "wrote notebooks/s2-demo.ipynb\n"
    after = {cell["id"] for cell in notebook(project)["cells"]}
    assert len(before & after) == len(before) - 1
    assert project.run("sync").stdout == ""


def test_sync_takes_an_edit_made_in_the_notebook(project):
    edit_notebook(project, "# Typed in Jupyter")
    assert "since only s2-demo.ipynb had changed" in project.run("sync").stdout
    script = (project.root / "notebooks/s2-demo.py").read_text(encoding="utf-8")
    assert script.startswith("# %% [markdown]\n# # Typed in Jupyter") and '# %% tags=["parameters"]' in script
    assert project.run("sync", "--check").returncode == 0
    assert status(project)[0] == "never run"


@pytest.mark.parametrize("memory", [True, False])
def test_sync_throws_no_edit_away(project, memory):
    if not memory:
        (project.root / "artifacts/pairs/s2-demo").unlink()
    for number, title in enumerate(["# One", "# Two"]):
        edit_notebook(project, f"{title} of Jupyter")
        if memory:
            project.edit("notebooks/s2-demo.py", "seed = 0", "seed = 0  # here")
        aside = project.root / f"notebooks/s2-demo.edited{number or ''}.ipynb"
        if memory or number == 0:
            assert f"what it held is in notebooks/{aside.name}" in project.run("sync").stdout
            assert f"{title} of Jupyter" in aside.read_text(encoding="utf-8")
            assert cells(project)[0].startswith("# A small page")


def test_code_that_is_not_python_and_an_unreadable_pair_are_said_plainly(built):
    built.write("notebooks/s2-demo.ipynb", "{")
    built.fails("run", "s2-demo", saying="not in step")
    assert "s2-demo.edited.ipynb" in built.run("sync").stdout
    built.edit("notebooks/s2-demo.py", "run.finish()", "run.finish(")
    built.fails("status", saying="A code cell of notebook 's2-demo' is not valid Python")


# --- execution ----------------------------------------------------------------------------------------------------


def test_a_run_killed_half_way_leaves_nothing_and_the_next_one_finishes(project):
    folder = project.root / "artifacts/notebooks/cpu/s2-demo"
    project.kill("run", "s2-demo", once=lambda: any(folder.glob(".*/records.json")))
    assert not list(folder.glob("[!.]*")) and status(project)[0] == "never run"
    assert project.run("run", "s2-demo").returncode == 0
    assert status(project)[0] == "current"
    assert not [path for path in folder.glob(".*") if path.is_dir()]


def bare(project, code: str) -> None:
    """Make the notebook one that imports nothing of ours."""
    project.write("notebooks/s2-demo.py", f'# %% tags=["parameters"]\nprofile = "cpu"\nseed = 0\n# %%\n{code}\n')
    assert project.run("sync").returncode == 0


def test_a_home_that_cannot_be_written_is_no_hindrance(project, tmp_path):
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    result = project.run("run", "s2-demo", HOME=home, XDG_CACHE_HOME="", JUPYTER_PLATFORM_DIRS="0")
    assert result.returncode == 0, result.stderr
    known = yaml.safe_load((project.root / "data/sources.yml").read_text(encoding="utf-8"))["files"]
    project.write("data/sources.yml", yaml.safe_dump({"files": known[:2]}))
    result = project.run("fetch", "--all", HOME=home, EM_COMPANION_CACHE=home)
    assert (
        result.returncode == 1 and "0 files at hand and checked" in result.stdout and "Traceback" not in result.stderr
    )


def test_a_kernel_that_dies_is_one_sentence_with_notebook_and_cell(project):
    bare(project, "import os\nos._exit(1)")
    project.fails("run", "s2-demo", saying="The kernel of notebook 's2-demo' died in cell 2, as it does where memory")


def test_a_kernel_of_the_same_name_elsewhere_is_not_used(project, tmp_path):
    path = tmp_path / "jupyter/kernels/python3/kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"argv": ["false"], "display_name": "Another", "language": "python"}))
    bare(project, f"import sys\nassert sys.executable == {sys.executable!r}\nraise SystemError('reached')")
    project.fails(
        "run", "s2-demo", saying="failed in cell 2: SystemError: reached", JUPYTER_PATH=str(tmp_path / "jupyter")
    )


def test_a_notebook_that_does_not_finish_is_no_result(project):
    bare(project, "pass")
    project.fails("run", "s2-demo", saying="ended without run.finish()")
    assert status(project)[0] == "never run"


# --- the command line ---------------------------------------------------------------------------------------------


def test_unknown_names_are_said_plainly(built):
    built.fails("run", "s9-none", saying="There is no notebook 's9-none'")
    built.fails("run", "../notebooks/s2-demo", saying="no notebook")
    built.fails("run", "s2-demo", "--profile", "huge", saying="There is no profile 'huge'; choose one of: cpu")
    built.fails("cite", "fig-9", saying="There is no figure 'fig-9'")
    assert built.run("claims", "--verdict", "maybe").returncode == 2
    assert built.run("fetch").returncode == 2


def test_citing_and_listing_the_built_book(built):
    assert built.run("cite", "fig-x-line").stdout.startswith("@misc{em-companion-fig-x-line-released,")
    assert json.loads(built.run("cite", "fig-x-line", "--format", "csl").stdout)[0]["type"] == "figure"
    rows = json.loads(built.run("claims", "--json").stdout)
    assert rows[0]["id"] == "s2-rate"
    assert "reproduced" in built.run("claims", "--verdict", "reproduced").stdout


def test_a_terminal_that_lacks_a_sign_gets_another_one(built):
    claims = built.html / "claims.json"
    ledger = read_sealed(claims, "")
    ledger["claims"][0]["id"] = "s2-≥"
    write_sealed(claims, ledger)
    printed = built.run("claims", PYTHONIOENCODING="cp1252")
    assert printed.returncode == 0 and "s2-?" in printed.stdout


def test_an_edited_ledger_is_refused_and_the_way_out_is_one(built):
    built.edit("_build/html/claims.json", '"reproduced"', '"not reproduced"')
    built.fails("claims", saying="_build/html/claims.json is damaged or was edited: delete the folder _build/html and")
    shutil.rmtree(built.html)
    built.fails("claims", saying="There is no built book yet; run 'make book'.")
    assert built.run("book").returncode == 0 and "s2-rate" in built.run("claims").stdout


def test_odd_benchmarks_are_refused_before_the_book_is_rendered(built):
    built.write("data/results/benchmarks-gpu.json", '{"measurements": [{}]}')
    built.fails("book", saying="data/results/benchmarks-gpu.json is damaged or was edited: restore it from git, or")


def test_the_published_address_reaches_citations_without_a_rerun(built):
    assert built.run("book", BOOK_URL="https://example.org/book").returncode == 0
    citation = (built.html / "figures/fig-x-line/cite.bib").read_text(encoding="utf-8")
    assert "https://example.org/book/figures/fig-x-line/" in citation


def test_a_notebook_that_is_not_in_the_contents(built):
    built.write("notebooks/s9-lost.py", "# %%\n")
    built.fails("book", saying="Notebook 's9-lost' is not both in notebooks/ and in _toc.yml")


def test_what_the_disk_refuses_is_said_plainly(project):
    project.write("notes", "a file where a folder should be")
    (project.root / "artifacts").rename(project.root / "moved")
    project.write("artifacts", "a file where a folder should be")
    project.fails("run", "s2-demo", saying="artifacts")


def test_the_command_line_starts_without_the_slow_libraries():
    code = (
        "import sys, em_companion.cli; print(*{'torch', 'pandas', 'scipy', 'jupytext', 'papermill'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "\n"


# --- the build ----------------------------------------------------------------------------------------------------


def build(project) -> subprocess.CompletedProcess:
    (project.root / "Snakefile").write_text((ROOT / "Snakefile").read_text(encoding="utf-8"), encoding="utf-8")
    project.write("data/sources.yml", "files: []\n")
    return project.run("build", "--cores", "2")


@pytest.mark.slow
def test_snakemake_that_was_killed_goes_on_when_it_is_called_again(project):
    for name in ("Snakefile", "profiles/default/config.yaml"):
        project.write(name, (ROOT / name).read_text(encoding="utf-8"))
    project.edit("notebooks/s2-demo.py", "run.finish()", "import time\ntime.sleep(3)\nrun.finish()")
    assert project.run("sync").returncode == 0
    called = [COMMAND.with_name("snakemake"), "--cores", "1"]
    given = {"env": os.environ | {"EM_COMPANION_ROOT": str(project.root)}, "cwd": project.root, "text": True}
    process = subprocess.Popen(called, **given, start_new_session=True, stderr=subprocess.DEVNULL)
    while not list((project.root / "artifacts/notebooks").glob("cpu/s2-demo/.*/records.json")):
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(called, **given, capture_output=True)
    assert again.returncode == 0, again.stderr
    assert status(project)[0] == "current"


@pytest.mark.slow
def test_a_build_says_how_far_it_is_and_how_it_ended(project):
    first = build(project)
    assert first.returncode == 0, first.stderr
    assert "[0/1] notebooks 0/1, 0 s gone\n" in first.stdout
    assert "[1/1]" in first.stdout and ": s2-demo\n" in first.stdout
    assert "released, independent: 1 reproduced" in first.stdout
    before = times(project)
    second = build(project)
    assert second.returncode == 0 and "[" not in second.stdout and times(project) == before
    project.edit("notebooks/s2-demo.py", "run.finish()", "raise ValueError('no luck')")
    project.run("sync")
    failed = build(project)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert "s2-demo: Notebook 's2-demo' failed in cell 6: ValueError: no luck" in failed.stderr


def test_progress_counts_steps_and_tells_how_long_the_rest_takes_at_this_pace():
    todo = [workflow.Step(kind, str(number), Path()) for number, kind in enumerate(["organisms", *["notebooks"] * 3])]
    assert workflow.progress([], todo, 30) == "[0/4] organisms 0/1, notebooks 0/3, 30 s gone"
    assert workflow.progress(todo[:3], todo, 540) == "[3/4] organisms 1/1, notebooks 2/3, 9 min gone, about 3 min left"
    assert workflow.progress(todo, todo, 600) == "[4/4] organisms 1/1, notebooks 3/3, 10 min gone"


def test_orders_that_are_refused_are_one_sentence():
    slurm = "Building DAG\nmessage: 'sbatch: error: invalid partition: x\nsbatch: error: No such one'.\n"
    assert workflow.refusal(slurm) == "No step was begun: No such one; 'On a cluster' in book/how-to-rerun.md helps."
    lacking = (
        "usage: snakemake [-h]\n  [targets ...]\nsnakemake: error: argument -e: invalid choice: 'slurm' (or 'local')"
    )
    assert workflow.refusal(lacking).startswith(
        "No step was begun: argument -e: invalid choice: 'slurm' (or 'local'); "
    )
    assert workflow.refusal("WorkflowError: anything else") == "WorkflowError: anything else"


def test_a_cluster_takes_the_place_of_the_cores_of_this_machine(tmp_path, monkeypatch):
    called = []
    grown = [workflow.Step("models", "base", tmp_path / "none")]
    monkeypatch.setattr(workflow, "STAGES", (lambda profile: grown, lambda profile: 1 / 0))
    monkeypatch.setattr(workflow, "_run_snakemake", lambda todo, folder, options, lock: called.append(options))
    monkeypatch.setattr(workflow, "hold_lock", lambda: 0)
    monkeypatch.setattr(workflow.files, "fetch_all", lambda chosen: [])
    for options in ([], ["--keep-going"], ["--workflow-profile", "x"], ["--executor=slurm"]):
        with pytest.raises(ZeroDivisionError):
            workflow.build("cpu", 2, 1, False, options)
    assert [options[:2] for options in called[:2]] == [["--cores", "2"]] * 2
    assert [options[0] for options in called[2:]] == ["--workflow-profile", "--executor=slurm"]


def test_base_and_chat_model_are_steps_of_a_grown_profile_only():
    assert [(one.kind, one.name) for one in workflow.models("gpu")] == [("models", "base"), ("models", "chat")]
    assert workflow.models("qwen-14b") == [] and workflow.missing(workflow.models("cpu")) == []


def test_the_workflow_lock_goes_with_its_process(tmp_path):
    code = "import time; from em_companion.build.workflow import hold_lock as hold"
    code += "; hold(); print('held', flush=True); time.sleep({})"

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
