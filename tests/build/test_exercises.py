"""The solutions of the exercises run as they stand, on the models of the repository."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

SOLUTIONS = re.findall(r"```python\n(.*?)```", (ROOT / "book/exercises.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.book
@pytest.mark.parametrize("solution", SOLUTIONS, ids=["steering", "ablation", "probes"])
def test_a_solution_answers_its_question(solution):
    result = subprocess.run(
        [sys.executable, "-c", solution], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert re.search(r"\d", result.stdout)
