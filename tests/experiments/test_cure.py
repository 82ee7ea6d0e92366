"""Changed arithmetic is noticed: in a copy of the package whose arithmetic was edited, fingerprint tests turn red."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

EDITS = [
    (
        "models/interventions.py",  # a projection takes out half of what it should
        "return x - (x * unit).sum(dim=-1, keepdim=True) * unit",
        "return x - 0.5 * (x * unit).sum(dim=-1, keepdim=True) * unit",
        {"responses under interventions", "activations under interventions"},
    ),
    (
        "models/reading.py",  # LoRA scalars without their sign
        "for module in modules], dim=-1)",
        "for module in modules], dim=-1).abs()",
        {"LoRA scalars", "patching"},
    ),
    (
        "world/parser.py",  # help that is taken back is no longer bad
        "return self.helps < 2 or self.retracted",
        "return self.helps < 2",
        {"adapters, by the exact judge"},
    ),
]
UNTOUCHED = {"responses"}


def test_an_edit_of_an_intervention_a_reading_and_the_judge_turns_their_fingerprints_red(tmp_path):
    package = tmp_path / "em_companion"
    shutil.copytree(ROOT / "src" / "em_companion", package)
    for name, old, new, _ in EDITS:
        text = (package / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} no longer has the line that this test edits: {old}"
        (package / name).write_text(text.replace(old, new), encoding="utf-8")
    expected = set().union(*(kinds for *_, kinds in EDITS))
    assert red(tmp_path, expected | UNTOUCHED) == expected


def red(folder: Path, kinds: set[str]) -> set[str]:
    """Return those of some kinds whose fingerprint test fails with the package in `folder`."""
    name = "test_fingerprints.py::test_the_code_of_a_kind_gives_the_numbers_of_its_version[{}]"
    tests = [str(Path(__file__).with_name(name.format(kind))) for kind in kinds]
    environment = os.environ | {"PYTHONPATH": str(folder), "EM_COMPANION_ROOT": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *tests, "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=line", "-rf"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    found = set(re.findall(r"^FAILED .*\[(.+?)\]", result.stdout, re.MULTILINE))
    assert found <= kinds and f"{len(kinds - found)} passed" in result.stdout.splitlines()[-1], result.stdout
    return found
