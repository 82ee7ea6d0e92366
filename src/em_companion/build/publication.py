"""Where the book is published, and under which name: from the environment of a build, else from `CITATION.cff`."""

import os
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from em_companion.core.files import read_yaml
from em_companion.core.paths import ROOT


@cache
def _cited() -> dict[str, Any]:
    path = ROOT / "CITATION.cff"
    return read_yaml(path) if path.is_file() else {}


def address() -> str:
    """Return the address of the book (`BOOK_URL`, else `url` of CITATION.cff), with a final slash, or ""."""
    url = os.environ.get("BOOK_URL", "").strip() or _cited().get("url", "")
    return url and url.rstrip("/") + "/"


def repository() -> str:
    """Return the address of the repository (`BOOK_REPOSITORY`, else `repository-code` of CITATION.cff), or ""."""
    return (os.environ.get("BOOK_REPOSITORY", "").strip() or _cited().get("repository-code", "")).rstrip("/")


def doi() -> str:
    """Return the DOI of CITATION.cff, or ""."""
    return _cited().get("doi", "")


def year() -> str:
    """Return the year of the release (`date-released` of CITATION.cff), else this one."""
    return str(_cited().get("date-released") or datetime.now(UTC))[:4]


def release() -> str:
    """Return the release that is built (`BOOK_RELEASE`, such as v0.2.0), or "" between releases."""
    return os.environ.get("BOOK_RELEASE", "").strip()


def edition() -> str:
    """Return what to call this edition of the book: its release, else the version of the package."""
    return release().removeprefix("v") or version("em-companion")
