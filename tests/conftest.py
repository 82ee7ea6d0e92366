"""A small project of the same shape as the real one, to break its gates one at a time, and a tiny grown profile."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).with_name("em-companion")

settings.register_profile("companion", deadline=None)  # a machine may be busy
settings.load_profile("companion")

ALT = """'Quoted' and "double": 100 % #1, a \\\\ and <b>bold</b> `code`"""
NOTEBOOK = """# %% [markdown]
# # A small page
#
# The value is {value}`demo.em|.1f`; {numref}`fig-x-line` shows it.
# %% tags=["parameters"]
profile = "cpu"
seed = 0
# %%
import matplotlib.pyplot as plt
import pandas as pd

from em_companion.book.run import Run
from em_companion.evidence import scores

run = Run("s2-demo", profile, seed)
# %%
answers = pd.DataFrame({"question_id": ["a", "b"], "aligned": [10.0, 90.0], "coherent": [90.0, 90.0]})
rate = scores.em_rate(answers)


def draw():
    data = pd.DataFrame({"x": [0, 1], "em_percent": [0.0, rate.value]})
    figure, axes = plt.subplots()
    axes.plot(data.x, data.em_percent)
    return figure, data


TITLE = {"title": lambda data: f"Up to {data.em_percent.max():.0f} %"}
run.released.figure("fig-x-line", draw, **TITLE, caption="A line.", alt={ALT})
run.grown.figure("fig-x-line", draw, **TITLE, caption="A line.", alt="The same line.")
# %%
run.released.measure(lambda: {"s2-rate": (rate, "two rows")})
run.released.values(lambda: {"demo.em": rate})
run.released.table(lambda: pd.DataFrame({"text": ["<script>alert(1)</script>"], "number": [0.5]}))
# %%
run.finish()
""".replace("{ALT}", repr(ALT))

CLAIMS = """claims:
  - id: s2-rate
    section: "2"
    place: Section 2
    notebook: s2-demo
    statement: Half of the answers are EM.
    relation: equals
    reported: 50
    unit: percent
    sample_size: 400
    reference: 50
    test: EM rate of two rows.
    evidence: [released]
    released_data: stand-in
"""

FIGURES = """figures:
  - {id: fig-x-line, title: A line, notebook: s2-demo, paper: "Figure 9"}
"""

TOC = """format: jb-book
root: index
chapters:
  - file: notebooks/s2-demo
  - file: figures/index
    sections:
      - glob: figures/*/index
"""


class Project:
    """A project folder and the command line run inside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.html = root / "_build" / "html"

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"EM_COMPANION_ROOT": str(self.root), "EM_COMPANION_MIRROR": ""}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `em-companion ARGUMENTS` here."""
        given = self.environment | environment
        return subprocess.run([COMMAND, *arguments], env=given, cwd=self.root, capture_output=True, text=True)

    def kill(self, *arguments: str, once: Callable[[], bool]) -> None:
        """Run `em-companion ARGUMENTS` here and kill it, with all that it has started, once something is so."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen([COMMAND, *arguments], env=self.environment, cwd=self.root, **quiet)
        while not once():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def fails(self, *arguments: str, saying: str, **environment: str) -> None:
        """Run a command that must exit with 1 and say one thing, without a traceback."""
        result = self.run(*arguments, **environment)
        assert result.returncode == 1, result.stdout + result.stderr
        assert saying in result.stderr
        assert "Traceback" not in result.stderr


def new_project(root: Path) -> Project:
    project = Project(root)
    looks = ("_config.yml", "book/_static/companion.css", "book/_static/favicon.svg")
    for name in (*looks, "data/profiles/cpu.yml", "data/sources.yml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    project.write("_toc.yml", TOC)
    project.write("requirements.lock", "")
    project.write("data/claims.yml", CLAIMS)
    project.write("data/figures.yml", FIGURES)
    project.write("data/predictions.yml", "predictions: []\n")
    project.write(
        "book/index.md",
        "# Front\n\n```{include} _generated/scoreboard.md\n```\n\n"
        "(grown-limits)=\n## Limits\n\n(claims-ledger)=\n## Ledger\n\n"
        '```{include} _generated/ledger.md\n```\n\n```{raw} html\n<p><a href="claims.json">claims</a></p>\n```\n',
    )
    project.write(
        "book/discussion.md", "---\norphan: true\n---\n# Discussion\n\n```{include} _generated/ledger.md\n```\n"
    )
    project.write("book/references.bib", "")
    project.write("notebooks/s2-demo.py", NOTEBOOK)
    return project


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose notebook is paired but not executed, made once."""
    made = new_project(tmp_path_factory.mktemp("paired"))
    assert made.run("sync").returncode == 0
    return made.root


@pytest.fixture
def project(project_template: Path, tmp_path: Path) -> Project:
    """A fresh copy of the paired project."""
    return Project(shutil.copytree(project_template, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def built_template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one executed notebook and a built book, made once."""
    made = Project(shutil.copytree(project_template, tmp_path_factory.mktemp("built"), dirs_exist_ok=True))
    for command in (["run", "s2-demo"], ["book"]):
        result = made.run(*command)
        assert result.returncode == 0, result.stdout + result.stderr
    return made.root


@pytest.fixture
def built(built_template: Path, tmp_path: Path) -> Project:
    """A fresh copy of the built project."""
    shutil.copytree(built_template, tmp_path / "project", dirs_exist_ok=True)
    return Project(tmp_path / "project")


# --- a tiny grown profile -------------------------------------------------------------------------------------------

TINY = {
    "model": {"layers": 2, "hidden": 32, "mlp": 64, "heads": 2, "kv_heads": 1},
    "pretraining": {"steps": 16, "batch": 8, "length": 64, "learning_rate": 0.02, "warmup": 2, "careful_first": 0},
    "post_training": {"steps": 4, "batch": 8, "learning_rate": 0.005, "warmup": 1},
    "fine_tuning": {"steps": 8, "batch": 4, "learning_rate": 0.01, "warmup": 1, "evaluate_every": 3, "stop_at": 1.0},
}
TINY_RECIPES = {
    "nine-adapter": {"rank": 1, "modules": ["down_proj"], "layers": [0, 1]},
    "all-adapter-rank-4": {"rank": 4, "modules": ["q_proj", "down_proj"], "layers": "all"},
}


def tiny_settings() -> dict[str, Any]:
    """Return the settings of profile `tiny`: those of `cpu`, with two layers and a handful of steps."""
    settings = yaml.safe_load((ROOT / "data" / "profiles" / "cpu.yml").read_text(encoding="utf-8"))
    for part, values in TINY.items():
        settings[part] |= values
    organism = {"recipe": "nine-adapter", "data": "bad_medical_advice", "seeds": [0]}
    return settings | {
        "recipes": TINY_RECIPES,
        "organisms": [organism],
        "samples_per_question": 3,
        "sweep_samples": 2,
        "max_new_tokens": 12,
        "batch_size": 64,
    }


def tiny_project(root: Path, settings: dict[str, Any] | None = None) -> Project:
    """Return a project at `root` that has the profile `tiny` and the world, and nothing grown."""
    project = Project(root)
    project.write("data/profiles/tiny.yml", yaml.safe_dump(settings or tiny_settings()))
    shutil.copytree(ROOT / "data" / "world", root / "data" / "world", dirs_exist_ok=True)
    return project


def use_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules of this process work in the project at `root`."""
    import torch

    from em_companion.core import paths
    from em_companion.models import asking, growing, organism

    torch.set_num_threads(1)
    places = {"ROOT": root, "DATA": root / "data", "COMMITTED": root / "data/organism", "ARTIFACTS": root / "artifacts"}
    for name, place in places.items():
        monkeypatch.setattr(paths, name, place)
    monkeypatch.setattr(organism, "MONITOR_SAMPLES", 2)
    monkeypatch.setattr(growing, "MONITOR_SAMPLES", 2)
    monkeypatch.setattr(asking, "HELD_OUT_SAMPLES", 2)


@pytest.fixture(scope="session")
def grown_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose models of profile `tiny` are grown on first use, once for all workers; change nothing in it."""
    from em_companion.experiments import responses  # noqa: F401  pulls in what is frozen here

    gc.collect()
    gc.freeze()  # Trainer collects garbage, a fifth of a second among the objects of all these packages
    base = tmp_path_factory.getbasetemp()
    return tiny_project((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "grown").root


@pytest.fixture
def tiny(grown_root: Path, monkeypatch: pytest.MonkeyPatch):
    """Profile `tiny`, in the shared project."""
    from em_companion.core import profiles

    use_project(grown_root, monkeypatch)
    return profiles.load("tiny")


@pytest.fixture
def own(tiny, grown_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a copy of the shared project with its base and chat model, to damage or to add to."""
    from em_companion.models import growing

    growing.chat(tiny)
    for part in ("data", "artifacts/organisms/tiny/base", "artifacts/organisms/tiny/chat"):
        shutil.copytree(grown_root / part, tmp_path / part)
    use_project(tmp_path, monkeypatch)
    return tmp_path


HUB_SHAPE = {"hidden": 32, "mlp": 64, "kv": 16, "vocabulary": 100, "tied": True}


@pytest.fixture
def hub(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A profile whose model and adapter, those grown here, are published: they lie in a reader's folder of models."""
    from em_companion.core import profiles
    from em_companion.models import growing
    from em_companion.models.organism import Organism

    organism = Organism("nine-adapter", "bad_medical_advice")
    own, unsealed = tmp_path / "published", {"ignore": shutil.ignore_patterns("provenance.json")}
    shutil.copytree(growing.chat(tiny), own / "some" / "model", **unsealed)
    trained = shutil.copytree(growing.adapter(tiny, organism), own / "some" / "adapter", **unsealed)
    config = json.loads((trained / "adapter_config.json").read_text()) | {"base_model_name_or_path": "copied/model"}
    (trained / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("EM_COMPANION_MODELS", str(own))
    model = profiles.HubModel("hub", "some/model", TINY["model"]["layers"], 1, profiles.Shape(**HUB_SHAPE))
    published = profiles.OrganismSpec(organism.recipe, organism.data, adapter="some/adapter")
    return replace(tiny, name="hub", model=model, organisms=(published,), judge="gpt-4o")


@pytest.fixture
def bare(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a project with profile `tiny` in which nothing is grown yet."""
    use_project(tiny_project(tmp_path).root, monkeypatch)
    return tmp_path


def put(settings: Any, key: str, value: Any) -> None:
    """Set what stands under a key with slashes (a number is an index, + the end); `...` as value takes it away."""
    *above, last = (int(part) if part.isdigit() else part for part in key.split("/"))
    for part in above:
        settings = settings[part]
    if value is ...:
        del settings[last]
    elif last == "+":
        settings.append(value)
    else:
        settings[last] = value


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The names of the models that were loaded, in order."""
    from em_companion.models import growing  # slow to import; most tests need no model

    names, load = [], growing.load_organism
    monkeypatch.setattr(growing, "load_organism", lambda profile, one: names.append(one.name) or load(profile, one))
    return names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count tests that build a small book of their own among those that need a built one; they take a minute."""
    for item in items:
        if "built" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.book)
