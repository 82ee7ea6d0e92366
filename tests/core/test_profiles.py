"""Profiles: the shipped ones load and say what they promise; a broken one is refused in one sentence that helps."""

import dataclasses
import datetime
import json
import shutil

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, put

from em_companion import cli
from em_companion.core import paths, profiles
from em_companion.core.errors import CompanionError

PAPER_LAYERS = (15, 16, 17, 21, 22, 23, 27, 28, 29)
GROWN, HUB = ("cpu", "gpu"), ("qwen-0.5b", "qwen-14b", "smollm2-135m")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder of copied profiles that `profiles` reads instead of the shipped ones."""
    shutil.copytree(ROOT / "data" / "profiles", tmp_path / "data" / "profiles")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    return tmp_path / "data" / "profiles"


def refused(folder, name: str, key: str, value) -> str:
    """Return what is said about profile `name` once `value` stands under `key`."""
    path = folder / f"{name}.yml"
    settings = yaml.safe_load(path.read_text())
    put(settings, key, value)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    with pytest.raises(CompanionError) as caught:
        profiles.load(name)
    return str(caught.value)


# --- shipped --------------------------------------------------------------------------------------------------------


def test_shipped_profiles():
    assert profiles.names() == sorted(GROWN + HUB)


@pytest.mark.parametrize("name", GROWN + HUB)
def test_shipped_profile_names_itself_and_trains_what_the_paper_trains(name):
    profile = profiles.load(name)
    assert profile.name == name
    assert profile.samples_per_question == (20 if name == "smollm2-135m" else 50) and profile.temperature == 1.0
    assert (profile.judge == "exact") == (name in GROWN)
    assert {one.recipe for one in profile.organisms} <= set(profile.recipes)
    assert [len(profile.layers_of(recipe)) for recipe in ("nine-adapter", "single-adapter")] == [9, 1]
    for rank in (4, 8, 16, 32):
        recipe = f"all-adapter-rank-{rank}"
        assert profile.recipes[recipe].rank == rank
        assert profile.layers_of(recipe) == tuple(range(profile.model.layers))


@pytest.mark.parametrize("name", ["gpu", "qwen-14b"])
def test_deep_profiles_use_the_layers_of_the_paper(name):
    profile = profiles.load(name)
    assert profile.model.layers == 48
    assert profile.layers_of("nine-adapter") == PAPER_LAYERS
    assert profile.layers_of("single-adapter") == (24,)


@pytest.mark.parametrize("name", GROWN)
def test_grown_profiles_train_enough_seeds_to_show_their_spread(name):
    profile = profiles.load(name)
    assert profile.seeds_of("nine-adapter", "bad_medical_advice") == (0, 1, 2, 3, 4)
    assert profile.seeds_of("nine-adapter", "good_medical_advice") == (0, 1, 2)
    assert profile.seeds_of("single-adapter", "good_medical_advice") == ()
    rules = {(recipe.rank == 1, profile.fine_tuning_of(name)) for name, recipe in profile.recipes.items()}
    assert len(rules) <= 2, "one rule for rank-1 recipes, one for the others"


def test_a_recipe_may_have_its_own_learning_rate_and_alpha():
    profile = profiles.load("qwen-14b")
    assert profile.fine_tuning_of("nine-adapter") == profile.fine_tuning
    own = profile.fine_tuning_of("single-adapter")
    assert (own.alpha, own.learning_rate) == (256, 2e-5)
    assert own.steps == profile.fine_tuning.steps


def test_published_adapters_stand_in_for_seeds():
    hub, organism = profiles.load("qwen-14b"), ("nine-adapter", "bad_medical_advice")
    assert hub.published(*organism) == "ModelOrganismsForEM/Qwen2.5-14B-Instruct_R1_3_3_3_full_train"
    assert hub.seeds_of(*organism) == ()
    assert hub.published("nine-adapter", "good_medical_advice") is None
    assert profiles.load("cpu").published(*organism) is None


def test_a_profile_cannot_be_changed_once_loaded():
    with pytest.raises(dataclasses.FrozenInstanceError):
        profiles.load("cpu").fine_tuning.steps = 1


def test_command_line_prints_every_profile_as_json():
    printed = CliRunner().invoke(cli.main, ["profiles", "--json"])
    rows = {row["name"]: row for row in json.loads(printed.output)}
    assert sorted(rows) == profiles.names()
    assert rows["cpu"]["recipes"]["nine-adapter"]["modules"] == ["down_proj"]


def test_every_nested_setting_is_read(copied):
    path = copied / "cpu.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("stop_at: 0.9", "stop_at: 0.7"), encoding="utf-8")
    assert profiles.load("cpu").fine_tuning.stop_at == 0.7


def test_a_whole_number_will_do_where_a_fraction_is_asked_for(copied):
    path = copied / "cpu.yml"
    path.write_text(path.read_text().replace("stop_at: 0.9", "stop_at: 1"))
    stop_at = profiles.load("cpu").fine_tuning.stop_at
    assert stop_at == 1.0 and isinstance(stop_at, float)


# --- broken ---------------------------------------------------------------------------------------------------------

NINE = "recipes/nine-adapter"


@pytest.mark.parametrize(
    ("key", "value", "saying"),
    [
        (f"{NINE}/layers", [1, 52], "recipe 'nine-adapter' names layer 52, but the model has 12 layers (0 to 11)."),
        (f"{NINE}/layers", [-1], "'recipes.nine-adapter.layers[0]' must be greater than or equal to 0, not -1."),
        (f"{NINE}/layers", [3, 4, 3], "'recipes.nine-adapter.layers' names 3 twice; keep it once."),
        (f"{NINE}/layers", [], "'recipes.nine-adapter.layers' must have at least 1 item, not []."),
        (f"{NINE}/layers", "most", "'recipes.nine-adapter.layers' must be a list, not 'most'."),
        (f"{NINE}/rank", 0, "'recipes.nine-adapter.rank' must be greater than or equal to 1, not 0."),
        (
            f"{NINE}/modules",
            ["down"],
            "'recipes.nine-adapter.modules[0]' must be 'q_proj', 'k_proj', 'v_proj', 'o_proj',",
        ),
        (f"{NINE}/modules", "down_proj", "must be a list, not 'down_proj'."),
        (f"{NINE}/steps", 5, "'recipes.nine-adapter' has a missing or unknown key: steps."),
        (f"{NINE}/alpha", -1, "'recipes.nine-adapter.alpha' must be greater than 0, not -1."),
        ("recipes", {}, "'recipes' must have at least 1 item, not {}."),
        ("organisms/0/recipe", "ten-adapter", "has an unknown recipe; choose one of: nine-adapter, single-adapter,"),
        ("organisms/0/data", "poetry", "'organisms[0].data' must be 'bad_medical_advice', 'good_medical_advice',"),
        ("organisms/0/seeds", [0, -2], "'organisms[0].seeds[1]' must be greater than or equal to 0, not -2."),
        ("organisms/0/seeds", [4, 4], "'organisms[0].seeds' names 4 twice; keep it once."),
        ("organisms/0/seeds", ..., "needs either 'seeds' to train it with or a published 'adapter', one of the two."),
        ("organisms/0/adapter", "some/adapter", "needs either 'seeds' to train it with or a published 'adapter'"),
        (
            "organisms/0",
            {"recipe": "nine-adapter", "data": "extreme_sports", "adapter": "some/adapter"},
            "has a published 'adapter', which fits no grown model; give it 'seeds' instead.",
        ),
        (
            "organisms/0",
            {"recipe": "nine-adapter", "data": "extreme_sports", "seeds": [7]},
            "organism 'nine-adapter' on 'extreme_sports' stands twice; join the two entries.",
        ),
        ("sede", 1, "missing or unknown key: sede."),
        ("dtype", ..., "missing or unknown key: dtype."),
        ("model/depth", 3, "'model' has a missing or unknown key: depth."),
        ("model/source", "rented", "'model' has 'source': 'rented', not one of 'grown', 'hub'."),
        ("model/source", ..., "'model' lacks the key 'source'."),
        ("model", 12, "'model' must be a mapping of keys to values, not 12."),
        ("model/hidden", 100, "'model.hidden' must be a multiple of twice 'model.heads'"),
        ("model/kv_heads", 3, "'model.heads' one of 'model.kv_heads'."),
        ("model/attention_dropout", 1.5, "'model.attention_dropout' must be less than or equal to 1, not 1.5."),
        ("fine_tuning", 5, "'fine_tuning' must be a mapping of keys to values, not 5."),
        ("fine_tuning/stop_at", 75, "'fine_tuning.stop_at' must be less than or equal to 1, not 75."),
        ("fine_tuning/learning_rate", "2e-3", "must be a number such as 0.001, not '2e-3'."),
        ("fine_tuning/learning_rate", float("nan"), "must be a finite number, not nan."),
        ("fine_tuning/weight_decay", float("inf"), "must be a finite number, not inf."),
        ("fine_tuning/weight_decay", 10**400, "must be a number such as 0.001, not 1000"),
        ("fine_tuning/steps", 2.5, "'fine_tuning.steps' must be a whole number, not 2.5."),
        ("fine_tuning/steps", True, "'fine_tuning.steps' must be a whole number, not True."),
        ("post_training/rehearsal", -0.1, "'post_training.rehearsal' must be greater than or equal to 0, not -0.1."),
        ("pretraining", ..., "'pretraining' is missing; a grown model needs it."),
        ("judge", "gpt-4o", "'judge' must be 'exact' for a grown model, not 'gpt-4o'."),
        ("judge_parameters", {"seed": 1}, "'judge_parameters' are for a served judge, and 'exact' is none; remove"),
        ("device", "tpu", "'device' must be 'cpu' or 'cuda', not 'tpu'."),
        ("description", " ", "'description' must be text, not ' '."),
        ("seed", -1, "'seed' must be greater than or equal to 0, not -1."),
        ("temperature", -1.0, "'temperature' must be greater than or equal to 0, not -1.0."),
    ],
)
def test_broken_grown_profile(copied, key, value, saying):
    said = refused(copied, "cpu", key, value)
    assert said.startswith("data/profiles/cpu.yml: ") and saying in said
    assert said.endswith(".") and "\n" not in said


@pytest.mark.parametrize(
    ("key", "value", "saying"),
    [
        ("post_training", {"steps": 1}, "'post_training' has a missing or unknown key: batch, learning_rate,"),
        ("judge", "exact", "'judge' must be 'fitted' or the name of a served model for a hub model, not 'exact'."),
        ("judge_parameters", {"seed": datetime.date(2026, 1, 1)}, "'judge_parameters.seed' input was not a valid JSON"),
        ("model/layers", 20, "recipe 'nine-adapter' names layer 21, but the model has 20 layers (0 to 19)."),
        ("model/memory_gb", "much", "'model.memory_gb' must be a whole number, not 'much'."),
        ("organisms/0/adapter", "", "'organisms[0].adapter' must be text, not ''."),
    ],
)
def test_broken_hub_profile(copied, key, value, saying):
    assert saying in refused(copied, "qwen-14b", key, value)


def test_a_hub_model_is_not_trained_from_nothing(copied):
    training = yaml.safe_load((copied / "cpu.yml").read_text())["pretraining"]
    said = refused(copied, "qwen-14b", "pretraining", training)
    assert said == "data/profiles/qwen-14b.yml: 'pretraining' is for a grown model; remove it."


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_file_that_holds_no_mapping(copied, text):
    (copied / "cpu.yml").write_text(text)
    with pytest.raises(CompanionError, match="^data/profiles/cpu.yml: the file must be a mapping of keys to values"):
        profiles.load("cpu")


def test_unknown_profile():
    with pytest.raises(CompanionError, match="no profile 'huge'; choose one of: cpu, gpu, qwen-0.5b, qwen-14b,"):
        profiles.load("huge")


@pytest.mark.parametrize("ask", [profiles.Profile.layers_of, profiles.Profile.fine_tuning_of])
def test_unknown_recipe(ask):
    with pytest.raises(CompanionError, match="Profile 'cpu' has no recipe 'ten-adapter'; choose one of: nine-adapter"):
        ask(profiles.load("cpu"), "ten-adapter")
