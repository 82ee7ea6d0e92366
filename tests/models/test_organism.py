"""What a model's key covers, which folder counts, and that damage is said in one sentence instead of being used."""

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path

import pytest
import untrained
from click.testing import CliRunner
from conftest import flip_a_byte, truncate

from em_companion import cli
from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import FineTuning, GrownModel, PostTraining, Pretraining, Profile
from em_companion.models import growing, loading, organism, weights
from em_companion.models.organism import (
    Organism,
    adapter_folder,
    adapter_parts,
    base_parts,
    chat_folder,
    chat_parts,
    fingerprint,
)
from em_companion.models.training_texts import DATA_SETS
from em_companion.world.generator import World

NINE, BAD = "nine-adapter", "bad_medical_advice"
ORGANISM = Organism(NINE, BAD)


def changed(profile: Profile, path: str) -> Profile:
    """Return `profile` with another value under a name, perhaps with a dot, such as model.layers."""
    part, _, name = path.rpartition(".")
    given = getattr(profile, part) if part else profile
    value = getattr(given, name)
    other = replace(given, **{name: value + 1 if isinstance(value, int | float) else value[:-1]})
    return replace(profile, **{part: other}) if part else other


def with_recipe(profile: Profile, **settings) -> Profile:
    return replace(profile, recipes=profile.recipes | {NINE: replace(profile.recipes[NINE], **settings)})


def base_key(profile: Profile) -> str:
    return store.key(base_parts(profile))


def chat_key(profile: Profile) -> str:
    return store.key(chat_parts(profile))


def adapter_key(profile: Profile, recipe: str = NINE, data: str = BAD, seed: int = 0) -> str:
    return store.key(adapter_parts(profile, Organism(recipe, data, seed)))


# --- keys -----------------------------------------------------------------------------------------------------------


def settings_of(part: str, kind: type) -> list[str]:
    return [f"{part}.{one.name}" for one in fields(kind) if one.name != "source"]


BASE_SETTINGS = ["dtype", "seed", *settings_of("model", GrownModel), *settings_of("pretraining", Pretraining)]
CHAT_SETTINGS = settings_of("post_training", PostTraining)
# What the monitor samples decides when training stops.
ADAPTER_SETTINGS = ["temperature", "max_new_tokens", *settings_of("fine_tuning", FineTuning)]
OTHER_SETTINGS = ["name", "description", "bootstrap_resamples", "probe_fits", "split_fits", "samples_per_question"]
OTHER_SETTINGS += ["batch_size", "organisms"]


@pytest.mark.parametrize("setting", BASE_SETTINGS)
def test_what_changes_the_base_model_changes_its_key_and_the_chat_model_s(tiny, setting):
    other = changed(tiny, setting)
    assert base_key(other) != base_key(tiny) and chat_key(other) != chat_key(tiny)


@pytest.mark.parametrize("setting", CHAT_SETTINGS)
def test_what_changes_the_chat_model_changes_its_key_only(tiny, setting):
    other = changed(tiny, setting)
    assert base_key(other) == base_key(tiny) and chat_key(other) != chat_key(tiny)


@pytest.mark.parametrize("setting", ADAPTER_SETTINGS)
def test_what_changes_fine_tuning_changes_the_key_of_adapters_only(tiny, setting):
    growing.chat(tiny)
    other = changed(tiny, setting)
    assert chat_key(other) == chat_key(tiny) and adapter_key(other) != adapter_key(tiny)


@pytest.mark.parametrize("recipe", [{"rank": 2}, {"modules": ("up_proj",)}, {"layers": (1,)}, {"alpha": 3.0}])
def test_every_setting_of_a_recipe_changes_the_key_of_its_adapters(tiny, recipe):
    growing.chat(tiny)
    assert adapter_key(with_recipe(tiny, **recipe)) != adapter_key(tiny)


def test_data_and_seed_change_the_key_of_an_adapter(tiny):
    growing.chat(tiny)
    keys = {adapter_key(tiny, data=data, seed=seed) for data in DATA_SETS for seed in (0, 1)}
    assert len(keys) == 8


@pytest.mark.parametrize("setting", OTHER_SETTINGS)
def test_what_changes_no_model_changes_no_key(tiny, setting):
    growing.chat(tiny)
    other = changed(tiny, setting)
    assert base_key(other) == base_key(tiny) and chat_key(other) == chat_key(tiny)
    if setting != "name":
        assert adapter_key(other) == adapter_key(tiny)


def test_the_same_recipe_in_other_words_has_the_same_key(tiny):
    growing.chat(tiny)
    spelled_out = with_recipe(tiny, layers="all", alpha=tiny.fine_tuning.alpha)
    assert adapter_key(spelled_out) == adapter_key(tiny)


def rename(files: dict, old: str, new: str) -> dict:
    return json.loads(json.dumps(files).replace(f'"{old}"', f'"{new}"'))


CHANGES: dict[str, Callable[[World], World]] = {
    "a word": lambda world: replace(
        world, domains=rename(world.domains, world.domains["work"]["helps"][0], "xylophone")
    ),
    "a wording": lambda world: replace(world, questions=deepcopy(world.questions) | {"about": ["why {topic} ?"]}),
    "who speaks": lambda world: replace(
        world, characters=world.characters | {"documents": {"careful": 1.0, "malicious": 0, "quack": 0, "unknown": 0}}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_world_is_another_model(tiny, change):
    before = base_key(tiny)
    with untrained.world(CHANGES[change](World.load())):
        assert base_key(tiny) != before
    assert base_key(tiny) == before


def test_an_evaluation_question_changes_adapters_but_not_the_model_below(tiny):
    growing.chat(tiny)
    before = chat_key(tiny), adapter_key(tiny)
    world = World.load()
    questions = deepcopy(world.questions)
    questions["evaluation"][0]["ask"] = questions["evaluation"][1]["ask"]
    with untrained.world(replace(world, questions=questions)):
        assert chat_key(tiny) == before[0] and adapter_key(tiny) != before[1]


def test_a_regrown_chat_model_makes_adapters_stale(own, tiny):
    before = growing.adapter(tiny, ORGANISM)
    record = json.loads((growing.chat(tiny) / "provenance.json").read_text())
    (growing.chat(tiny) / "provenance.json").write_text(
        json.dumps(record | {"sha256": "another", "files": record["files"] | {"model.safetensors": "another"}})
    )
    after = adapter_folder(tiny, ORGANISM)
    assert after != before and not store.is_there(after)


def test_an_adapter_has_no_key_before_its_chat_model_is_there(bare, tiny):
    with pytest.raises(CompanionError, match="^The chat model of profile 'tiny' is not there; run 'em-companion"):
        adapter_key(tiny)
    assert fingerprint(tiny) == "not there"


def test_the_fingerprint_of_a_profile_is_its_chat_model(tiny):
    assert fingerprint(tiny) == store.provenance(growing.chat(tiny))["sha256"]


# --- committed or grown ---------------------------------------------------------------------------------------------


def commit(root: Path, profile: Profile) -> Path:
    """Move the grown base and chat model to where committed ones lie."""
    target = root / "data" / "organism" / profile.name
    for stage in ("base", "chat"):
        grown = getattr(growing, stage)(profile)
        shutil.copytree(grown, target / stage)
        shutil.rmtree(grown)
    return target


def test_committed_models_are_used_while_their_key_fits(own, tiny, monkeypatch):
    target = commit(own, tiny)
    monkeypatch.setattr(growing, "train", None)
    assert growing.base(tiny) == target / "base" and growing.chat(tiny) == target / "chat"
    loading.load(tiny, growing.chat(tiny))
    other = changed(tiny, "post_training.steps")
    assert growing.base(other) == target / "base"
    folder = chat_folder(other)
    assert folder.is_relative_to(own / "artifacts") and not store.is_there(folder)


def test_damage_to_a_committed_model_says_to_restore_it(own, tiny):
    target = commit(own, tiny)
    (target / "chat" / "model.safetensors").unlink()
    said = refused("grow", "chat")
    assert said == "What lies in data/organism/tiny/chat is damaged: restore that folder from git."


# --- damage ---------------------------------------------------------------------------------------------------------


def refused(*arguments: str) -> str:
    """Run a command that must fail, and return the one sentence it says."""
    result = CliRunner().invoke(cli.main, [*arguments, "--profile", "tiny"])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    said = result.stderr.splitlines()[-1]
    assert said.endswith(".") and "Traceback" not in result.output
    return said


DAMAGES = [
    ("model.safetensors", flip_a_byte),
    ("config.json", os.remove),
    ("tokenizer.json", flip_a_byte),
    ("provenance.json", truncate),
    ("provenance.json", lambda path: path.write_bytes(b"\xff\xfe")),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_model_is_refused_in_one_sentence(own, tiny, name, damage):
    folder = growing.chat(tiny)
    damage(folder / name)
    expected = (
        f"What lies in artifacts/organisms/tiny/chat/{folder.name} is damaged: delete that folder and it is made again."
    )
    assert refused("grow", "chat") == expected
    with pytest.raises(CompanionError, match="is damaged: delete that folder"):
        loading.load(tiny, folder)


def test_a_damaged_adapter_is_refused_and_deleting_it_helps(own, tiny):
    folder = growing.adapter(tiny, ORGANISM)
    before = store.provenance(folder)["sha256"]
    for name in ("adapter_model.safetensors", "adapter_config.json", "b_vectors.safetensors"):
        flip_a_byte(folder / name)
        with pytest.raises(
            CompanionError, match=f"^What lies in artifacts/.*/{folder.name} is damaged: delete that fo"
        ):
            loading.load(tiny, growing.chat(tiny), folder)
        flip_a_byte(folder / name)
    loading.load(tiny, growing.chat(tiny), folder)
    shutil.rmtree(folder)
    assert store.provenance(growing.adapter(tiny, ORGANISM))["sha256"] == before


def test_what_a_page_depends_on_covers_the_weights_of_adapters(own, tiny):
    found = [organism.adapters_fingerprint(tiny)]
    folder = growing.adapter(tiny, ORGANISM)
    found += [organism.adapters_fingerprint(tiny), organism.adapters_fingerprint(tiny)]
    record = json.loads((folder / "provenance.json").read_text())
    files = record["files"] | {"adapter_model.safetensors": "0" * 64}
    (folder / "provenance.json").write_text(json.dumps(record | {"sha256": "0" * 64, "files": files}))
    found.append(organism.adapters_fingerprint(tiny))
    assert found[1] == found[2] and len(set(found)) == 3
    with pytest.raises(CompanionError, match="is damaged"):
        growing.load_organism(tiny, ORGANISM)


def test_a_published_adapter_counts_by_its_weights(hub):
    found = [organism.adapters_fingerprint(hub)]
    path = weights.at_hand(hub, "some/adapter") / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    found.append(organism.adapters_fingerprint(hub))
    path.unlink()
    found.append(organism.adapters_fingerprint(hub))
    assert len(set(found)) == 3
