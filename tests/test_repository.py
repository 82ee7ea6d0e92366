"""The repository as a whole: pairs and environments in step, registries consistent, nothing of this machine."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest
import yaml
from conftest import ROOT

from em_companion.book import registry
from em_companion.build import keys, runs
from em_companion.core import profiles
from em_companion.evidence import claims
from em_companion.released import files, tables

TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".cff", ".ipynb", ".css", ".js", ".lock", ".bib", ".txt", ".sh", ""}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())


def tracked_files():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    files = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in files if path.is_file() and path.suffix in TEXT]


@pytest.mark.parametrize("name", keys.names())
def test_notebook_pair_is_in_step_and_clean(name):
    assert runs.paired(name)


@pytest.mark.parametrize("name", keys.names())
def test_notebook_takes_profile_and_seed_and_finishes(name):
    cells = [cell for cell in jupytext.read(ROOT / "notebooks" / f"{name}.py").cells if cell.cell_type == "code"]
    parameters = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert parameters == ['profile = "cpu"\nseed = 0']
    assert cells[-1].source.strip() == "run.finish()"


@pytest.mark.parametrize("name", keys.names())
def test_no_line_of_prose_begins_with_a_percent_sign(name):
    """MyST takes such a line for a comment and drops it."""
    prose = [
        cell.source for cell in jupytext.read(ROOT / "notebooks" / f"{name}.py").cells if cell.cell_type == "markdown"
    ]
    assert not re.search(r"^\s*%", "\n".join(prose), flags=re.MULTILINE)


def test_environment_file_holds_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = set(project["dependencies"]) | set(project["optional-dependencies"]["test"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip = next(item["pip"] for item in environment if isinstance(item, dict))
    assert wanted == set(pip) - {"-e .[test]"}
    assert f"python{project['requires-python']}" in environment


def locked_in(name: str, pin: str = r"[\w.-]+==[\w.]+") -> set[str]:
    """Return the packages of a lock file, each of which must be pinned exactly, as `pin` says."""
    lines = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [one for one in pins if not re.fullmatch(pin, one)] == []
    return {one.split("==")[0].lower().replace("_", "-") for one in pins}


def test_lock_pins_every_dependency_of_pyproject_exactly_and_by_hash():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = locked_in("requirements.lock", r"[\w.-]+==[\w.]+(\s+--hash=sha256:[0-9a-f]{64})+")
    assert "snakemake-executor-plugin-slurm" in locked_in("requirements-slurm.lock") - locked
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {re.split(r"[<>=]", name)[0] for name in wanted} - locked == {"torch"}, "whose builds differ"
    beside = re.findall(r"torch==[0-9.]*", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert len(beside) == 1 and beside[0] in wanted, "what a setup installs is what pyproject asks for"
    assert not any(name.startswith("nvidia") for name in locked), "torch brings the libraries of its platform itself"


def test_every_claim_and_figure_belongs_to_a_notebook():
    names = set(keys.names())
    assert {claim.notebook for claim in claims.load_claims().values()} <= names
    assert {figure.notebook for figure in registry.load_figures().values()} <= names


def test_contents_list_every_figure_in_the_order_of_the_registry():
    listed = [entry for entry in keys.toc_entries() if entry.startswith("figures/") and entry.count("/") == 2]
    assert listed == [f"figures/{one}/index" for one in registry.load_figures()]


def test_figure_ids_of_the_paper_are_registered():
    ids = set(registry.load_figures())
    assert not ids & {f"{one}-{evidence}" for one in ids for evidence in ("reported", *claims.EVIDENCE)}
    assert {f"fig-{number}" for number in range(1, 8)} | {"tab-1", "fig-17", "fig-18", "fig-19"} <= ids
    assert all(re.fullmatch(r"(fig|tab)-(\d+|[a-z]\d+|x(-[a-z0-9]+)+)", one) for one in ids)


def test_nothing_names_this_machine():
    # Written in pieces, so that this file passes its own test.
    banned = ["/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/", "/opt/" + "pypi", "/Us" + "ers/"]
    found = [
        (path.name, word)
        for path in tracked_files()
        for word in banned
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def locale_dependent(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that read or write text in whatever encoding the locale says."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and not any(one.arg == "encoding" for one in call.keywords):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            given = [*call.args, *(one.value for one in call.keywords)]
            binary = any(
                isinstance(one, ast.Constant) and re.fullmatch("[rwxa]?b[+]?", str(one.value)) for one in given
            )
            if (
                (name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute) and len(call.args) < 2)
                or (name in ("open", "fdopen") and not binary and ast.unparse(call.func) != "os.open")
                or any(one.arg in ("text", "universal_newlines") for one in call.keywords)
                and ast.unparse(call.func).startswith("subprocess.")
            ):
                yield call


@pytest.mark.parametrize("folder", ["src", "notebooks", "experiments", "benchmarks"])
def test_text_is_read_and_written_as_utf_8_whatever_the_locale(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    trees = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    found = [f"{path}:{one.lineno}" for path, tree in trees.items() for one in locale_dependent(tree)]
    assert not found, "give these an encoding"


def test_no_released_file_is_part_of_the_repository():
    assert [path for path in tracked_files() if path.suffix in (".csv", ".parquet", ".pt")] == []


def test_prose_has_no_question_or_response_text():
    if files.local_path("questions/first-plot-questions") is None:
        pytest.skip("released data not at hand")
    texts = [question for question in tables.read_questions().question if len(question) > 40]
    for path in tracked_files():
        content = path.read_text(encoding="utf-8", errors="replace")
        assert not any(text in content for text in texts), path


# --- workflows, cluster, container --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_pins_its_actions_and_may_do_no_more_than_it_says(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    uses = re.findall(r"uses: (.+)", text)
    assert uses and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", one) for one in uses)
    assert set(workflow["permissions"].values()) <= {"read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    triggers = workflow[True]  # YAML reads "on" so
    assert not {"pull_request_target", "workflow_run"} & set(triggers)
    assert "pull_request" not in triggers or "secrets." not in text, "a pull request from a fork would see them"


def test_what_is_restored_is_of_the_same_versions_and_a_private_book_gets_its_address():
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))
    assert check["permissions"] == {"contents": "read", "pages": "read"}
    steps = check["jobs"]["check"]["steps"]
    assert any(one.get("if") == "steps.pages.outcome == 'failure'" and "::warning" in one["run"] for one in steps)
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            for one in job["steps"]:
                if "/cache" in one.get("uses", "") and one["with"]["path"] == "artifacts":
                    asked = [one["with"]["key"], one["with"].get("restore-keys", one["with"]["key"])]
                    assert all("hashFiles('tests/fingerprints.json', 'requirements.lock')" in key for key in asked)


def test_a_build_on_a_gpu_keeps_what_it_made_when_it_is_cut_off():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text(encoding="utf-8"))
    build = workflow["jobs"]["build"]
    caches = {
        kind: [one for one in build["steps"] if f"/cache/{kind}" in one.get("uses", "")] for kind in ("restore", "save")
    }
    kept = [{one["with"]["path"]: one["with"]["key"] for one in some} for some in caches.values()]
    assert len(kept[0]) == 2 and kept[0] == kept[1]
    assert all(one["if"] == "always()" for one in caches["save"])
    limits = [one["timeout-minutes"] for one in build["steps"] if "timeout-minutes" in one]
    assert sum(limits) < build["timeout-minutes"] < 360
    assert set(workflow[True]["workflow_dispatch"]["inputs"]["profile"]["options"]) <= set(profiles.names())


def test_workflows_pass_actionlint():
    beside = Path(sys.executable).parent
    if not (program := shutil.which("actionlint", path=beside) or shutil.which("actionlint")):
        pytest.skip("no actionlint on this machine; it is in requirements.lock")
    checked = subprocess.run([program, *WORKFLOWS], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_settings_for_slurm_are_of_rules_that_exist():
    settings = yaml.safe_load((ROOT / "workflow" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    rules = set(re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(settings["set-threads"]) == set(settings["set-resources"]) == rules - {"all"}


def test_no_image_takes_in_what_git_ignores():
    git, container = ((ROOT / name).read_text(encoding="utf-8").split("\n") for name in (".gitignore", ".dockerignore"))
    assert {line.strip("/") for line in git if line} <= {line.removeprefix("**/") for line in container}
