"""`em-companion grow`: everything a profile needs, once; a wrong name or a model from the hub in one sentence."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from em_companion import cli
from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.experiments import prepare
from em_companion.models import growing
from em_companion.models.organism import base_folder, chat_folder

NINE = "nine-adapter--bad_medical_advice--seed-0"


def grow(*arguments: str):
    return CliRunner().invoke(cli.main, ["grow", *arguments, "--profile", "tiny"])


def test_an_organism_brings_what_it_needs_and_the_rest_is_made_later(bare, tiny):
    result = grow(NINE)
    assert result.exit_code == 0 and result.stdout.startswith(f"made     {NINE}  artifacts/organisms/tiny/{NINE}/")
    assert store.is_there(base_folder(tiny)) and store.is_there(chat_folder(tiny))
    assert answered(bare) == {NINE: 3}
    rows = json.loads(grow("--json").stdout)
    assert [row["name"] for row in rows] == ["base", "chat", "chat-model", NINE]
    assert all((bare / row["folder"] / "provenance.json").is_file() for row in rows)
    assert answered(bare) == {NINE: 3, "chat-model": 3}
    before = modified(bare)
    assert {line.split()[0] for line in grow().stdout.splitlines()} == {"there"}
    assert modified(bare) == before, "nothing is made twice"


def answered(root) -> Counter:
    """Return how many question sets each model has answered."""
    return Counter(path.parts[-4] for path in root.glob("artifacts/responses/tiny/*/*/*/responses.parquet"))


def modified(root) -> dict:
    return {path: path.stat().st_mtime_ns for path in root.glob("artifacts/**/*.*") if path.is_file()}


def test_an_unknown_name_is_refused_before_anything_is_made(bare):
    result = grow("base", "nine-adapters")
    assert result.exit_code == 1
    known = f"base, chat, chat-model, {NINE}"
    assert result.stderr == f"Profile 'tiny' has no model 'nine-adapters'; choose one of: {known}.\n"
    assert not (bare / "artifacts").exists()


def test_from_nothing_replaces_the_committed_models(own, tiny):
    before = store.provenance(growing.chat(tiny))
    result = grow("--from-nothing")
    assert result.stdout == "made     base  data/organism/tiny/base\nmade     chat  data/organism/tiny/chat\n"
    committed = own / "data" / "organism" / "tiny"
    assert growing.base(tiny) == committed / "base" and growing.chat(tiny) == committed / "chat"
    assert store.provenance(committed / "chat")["sha256"] == before["sha256"], "the same seed, the same weights"
    assert [path.name for path in (own / "data" / "organism").iterdir()] == ["tiny"]
    assert sorted(path.name for path in committed.iterdir()) == ["base", "chat"], "and nothing else to commit"


def test_a_profile_from_the_hub(hub):
    rows = prepare.grow(hub, ["chat"])
    assert [(row["name"], row["status"], row["folder"]) for row in rows] == [("chat", "hub", "model")]
    with pytest.raises(CompanionError, match="from the hub, so there is nothing to grow"):
        prepare.from_nothing(hub)
