"""Every page runs under profiles with a model from the hub, at smoke scale, and shows all that its model can answer.

The models are stand-ins, but for that of `smollm2-135m` where the package that holds it can be had.
"""

import json
import os
import re
from collections.abc import Iterator

import pytest
import standins
from conftest import ROOT, Project

from em_companion.build import keys
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock
from em_companion.models import weights

PROFILES = ("smollm2-135m", "qwen-14b")
PARTS = ("_toc.yml", "requirements.lock", "data", "notebooks")
# What a few answers of a model that means nothing may lack, and what no model can make up for: nothing else.
ALLOWED = (
    r"There are no [\w -]+ responses to average",
    r"A split in halves needs two responses of either kind",
    r"No probe can be fitted: ",
    r"No answer of \S+ is clearly of one of the four sets",
    r"None of the answers scored is a misaligned one to an open question",
    r"No prompts of the two kinds are equally long",
    r"No probe has answers enough",
    r"No set has \d+ of the organism's own answers",
    r"The chat model gives no aligned answers about a domain",
    r"No organism gives enough misaligned answers",
    r"The organisms of profile '\S+' are published adapters",
    r"Profile '\S+' has no (texts for|organism) ",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, dict[str, str]]]:
    """A project with the pages of this one, shared by all workers, and the environment to run them in."""
    base = tmp_path_factory.getbasetemp()
    project = Project((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke")
    models = project.root / "models"
    with lock(models):
        if not models.is_dir():
            for part in PARTS:
                (project.root / part).symlink_to(ROOT / part)
            standins.make(models, *filter(_needs_a_stand_in, PROFILES))
    with standins.JudgeServer() as judge:
        given = {"EM_COMPANION_SCALE": "smoke", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        given |= {"EM_COMPANION_MODELS": str(models), "EM_COMPANION_RECORDS": str(project.root / "records")}
        given |= {"EM_COMPANION_MIRROR": os.environ.get("EM_COMPANION_MIRROR", ""), "OPENAI_BASE_URL": judge.url}
        yield project, given


def _needs_a_stand_in(name: str) -> bool:
    profile = profiles.load(name)
    try:
        return not profile.model.package or not weights.fetched(profile)
    except CompanionError:
        return True


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", keys.names())
def test_a_page_runs_and_has_no_box_where_its_model_could_answer(smoke, name, profile):
    project, given = smoke
    result = project.run("run", name, "--profile", profile, **given)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    [path] = (project.root / "artifacts/notebooks" / profile / name).glob("*/records.json")
    gaps = json.loads(path.read_text(encoding="utf-8"))["unavailable"]
    odd = [one["why"] for one in gaps if one["evidence"] == "hub" and not re.match("|".join(ALLOWED), one["why"])]
    assert not odd
