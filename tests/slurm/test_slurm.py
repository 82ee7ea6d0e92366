"""The workflow on a Slurm that is set up for it: from nothing to a book, with the head process killed midway."""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import COMMAND, ROOT, TOC, Project, new_project, tiny_settings

SETUP = Path(__file__).with_name("setup.sh")
CLUSTER = ["--workflow-profile", "workflow/slurm"]
# This Slurm keeps no accounts, and its jobs take seconds.
CLUSTER += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]
WAIT = 900  # seconds; a minute or two where no other program wants the cores
# A page that needs the organisms, says that it was begun, and goes on when it is let.
GATED = """# %% [markdown]
# # A page that waits
# %% tags=["parameters"]
profile = "cpu"
seed = 0
# %%
import time
from pathlib import Path

from em_companion.book.run import Run
from em_companion.core import profiles
from em_companion.models import organism

run = Run("s3-gated", profile, seed)
with open("../begun", "a", encoding="utf-8") as begun:
    print(organism.fingerprint(profiles.load(profile)), file=begun)
while not Path("../gate").exists():
    time.sleep(0.2)
# %%
run.finish()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="no slurmctld on this machine"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
        reason="no executor; see requirements-slurm.lock",
    ),
]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm of one node, whose address is in the environment."""
    folder = tmp_path / "slurm"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    subprocess.run([SETUP, "start", folder], check=True)
    yield
    subprocess.run(["scancel", "--partition=test"], check=True)
    subprocess.run([SETUP, "stop", folder], check=True)


@pytest.fixture
def cluster(tmp_path: Path, slurm: None) -> Project:
    """A project with nothing grown, a tiny model as its profile cpu, and two pages, one of which uses organisms."""
    project = new_project(tmp_path / "project")
    project.write("data/profiles/cpu.yml", yaml.safe_dump(tiny_settings()))
    project.write("data/sources.yml", "files: []\n")
    project.write("notebooks/s3-gated.py", GATED)
    project.write("_toc.yml", TOC.replace("s2-demo\n", "s2-demo\n  - file: notebooks/s3-gated\n"))
    for name in ("data/world", "workflow"):
        shutil.copytree(ROOT / name, project.root / name)
    shutil.copyfile(ROOT / "Snakefile", project.root / "Snakefile")
    assert project.run("sync").returncode == 0
    return project


def begin(project: Project, log: Path) -> subprocess.Popen:
    environment = os.environ | {"EM_COMPANION_ROOT": str(project.root), "EM_COMPANION_MIRROR": ""}
    with log.open("w", encoding="utf-8") as output:
        return subprocess.Popen(
            [COMMAND, "build", "--", *CLUSTER],
            cwd=project.root,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + WAIT
    while not happened():
        assert process.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
        time.sleep(0.2)


def queue(*options: str) -> list[str]:
    """Return what the jobs are about, such as "rule_model_wildcards_base_KEY"."""
    asked = ["squeue", "--noheader", "--format=%k", *options]
    return subprocess.run(asked, check=True, capture_output=True, encoding="utf-8").stdout.split()


def test_a_build_goes_on_where_its_head_was_killed(cluster, tmp_path):
    begun, log = cluster.root / "begun", tmp_path / "first.log"
    first = begin(cluster, log)
    wait_for(begun.exists, first, log)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    running = queue("--states=running")
    assert len(running) == 1 and "s3-gated" in running[0]
    organisms = list((cluster.root / "artifacts/organisms/cpu").glob("*/*/provenance.json"))
    assert {path.parts[-3] for path in organisms} == {"base", "chat", "nine-adapter--bad_medical_advice--seed-0"}
    made = {path: path.stat().st_mtime_ns for path in organisms}

    log = tmp_path / "second.log"
    second = begin(cluster, log)
    wait_for(lambda: sum("s3-gated" in job for job in queue("--states=running")) == 2, second, log)
    (cluster.root / "gate").touch()
    assert second.wait(WAIT) == 0, log.read_text(encoding="utf-8")
    assert len(begun.read_text(encoding="utf-8").split()) == 1, "the page was executed once"
    assert made == {path: path.stat().st_mtime_ns for path in organisms}
    assert (cluster.html / "notebooks/s3-gated.html").is_file()
    every = queue("--states=all")
    assert [sum(f"rule_{one}" in job for job in every) for one in ("model", "organism", "notebook")] == [2, 1, 3]
