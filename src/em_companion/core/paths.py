"""Where things are, as absolute paths, so that a notebook runs from any folder."""

import os
import subprocess
from pathlib import Path

ROOT = Path(os.environ.get("EM_COMPANION_ROOT") or Path(__file__).resolve().parents[3])
DATA = ROOT / "data"
COMMITTED = DATA / "organism"
NOTEBOOKS = ROOT / "notebooks"
SOURCE = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "artifacts"
RESULTS = DATA / "results"
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
HTML = BUILD / "html"


def relative(path: Path) -> str:
    """Return `path` relative to the project, for messages and records that must not name this machine."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def git(*arguments: str) -> str:
    """Return what `git ARGUMENTS` prints in the project, or "" where that fails (a downloaded archive, no git)."""
    try:
        result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
