"""Importing the package leaves the process as it was, and loading or training takes back what it changed."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from conftest import ROOT
from transformers.utils import logging

from em_companion.models import loading

MODULES = sorted(
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
    for path in Path(ROOT / "src" / "em_companion").rglob("*.py")
    if path.name != "__init__.py"
)
FOREIGN = ("torch", "transformers", "peft", "sklearn.linear_model", "matplotlib.pyplot", "pandas", "IPython.display")
FOREIGN += ("sphinx.application",)
STATE = """
import importlib, json, logging, sys, warnings
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as theirs
from tqdm import tqdm

def state():
    bars = [theirs.is_progress_bar_enabled(), are_progress_bars_disabled(), theirs.get_verbosity()]
    loggers = [logging.root.level, len(logging.root.handlers), logging.root.manager.disable, tqdm.monitor_interval]
    return [*bars, *loggers, hasattr(object, "save"), *map(str, warnings.filters)]

foreign, modules = json.loads(sys.argv[1])
for name in foreign:
    importlib.import_module(name)
before, changed = state(), []
for name in modules:
    importlib.import_module(name)
    if state() != before:
        changed.append(name)
        before = state()
print(json.dumps(changed))
"""


@pytest.mark.parametrize("order", [1, -1])
def test_importing_the_modules_together_in_either_order_changes_nothing(order):
    given = json.dumps([FOREIGN, MODULES[::order]])
    result = subprocess.run([sys.executable, "-c", STATE, given], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_quiet_takes_back_what_it_changed():
    for before in (True, False):
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
        filters = list(warnings.filters)
        with loading.quiet():
            assert not logging.is_progress_bar_enabled() and warnings.filters != filters
        assert logging.is_progress_bar_enabled() == before and warnings.filters == filters
    logging.enable_progress_bar()
