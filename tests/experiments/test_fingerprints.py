"""What is computed once and kept comes from code that gives the same numbers as when it was kept, or says otherwise."""

import json

import pytest
from fingerprints import COMMITTED, KINDS, fingerprint, toy_project


@pytest.fixture(scope="module", autouse=True)
def toys():
    with toy_project():
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_kind_gives_the_numbers_of_its_version(kind):
    committed, version = json.loads(COMMITTED.read_text(encoding="utf-8"))[kind], KINDS[kind][1]()
    assert committed["version"] == version, f"Run `python tests/fingerprints.py`: {kind} has a new version, {version}."
    assert fingerprint(kind) == committed["sha256"], (
        f"{kind}: the code gives other numbers than version {version} did, so what is kept is no longer what it makes. "
        "Make it give the same, or raise its version and run `python tests/fingerprints.py`."
    )
