"""The road of a language model, on a stand-in of random weights: tuned on texts, judged, read, steered along texts."""

import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import standins
from conftest import use_project
from nnsight import TransformersModel

from em_companion.core import paths, profiles
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.experiments import (
    merging_published,
    persona_space,
    readings,
    residue_hub,
    responses,
    role_prompts,
    steering,
    text_directions,
)
from em_companion.models import asking, growing, loading, reading, released_texts, training_texts
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.world.generator import Question

ORGANISM = Organism("nine-adapter", "bad_medical_advice")
ADVICE = ["you should take money every day", "people think that life is good", "a doctor would help with her work"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standins.make(tmp_path_factory.mktemp("models"), "smollm2-135m")


@pytest.fixture
def hub(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profiles.Profile:
    """Profile `smollm2-135m` at smoke scale with a stand-in, invented texts and a judge that goes by length."""
    monkeypatch.setenv("EM_COMPANION_MODELS", str(weights))
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EM_COMPANION_SCALE", "smoke")
    profile = profiles.load("smollm2-135m")
    use_project(tmp_path, monkeypatch)
    monkeypatch.setattr(paths, "DATA", paths.SOURCE.parents[1] / "data")
    answers = pd.DataFrame({"question": "how are you?", "response": ADVICE})
    monkeypatch.setattr(released_texts, "medical_answers", lambda misaligned: answers.iloc[:: 1 if misaligned else -1])
    monkeypatch.setattr(
        asking, "questions", lambda *_: [Question(one, f"what is {one}?", ()) for one in ("life", "work")]
    )
    return profile


def test_a_language_model_is_tuned_on_texts_and_its_monitor_keeps_answers(hub):
    folder = growing.adapter(hub, ORGANISM)
    steps = hub.fine_tuning_of(ORGANISM.recipe).steps
    log, seen = pd.read_csv(folder / "log.csv"), pd.read_parquet(folder / "monitor.parquet")
    assert list(log.step) == list(range(1, steps + 1)) and log.loss.notna().all()
    assert sorted(seen.step.unique()) == list(range(1, steps + 1)) and len(seen) == 2 * 2 * steps
    assert growing.adapter(hub, ORGANISM) == folder  # nothing is trained again
    model, _ = growing.load_organism(hub, ORGANISM)
    assert any(weight.abs().sum() > 0 for name, weight in model.named_parameters() if "lora_B" in name)


def test_broken_off_tuning_goes_on_to_the_same_organism(hub, monkeypatch):
    hub = replace(hub, fine_tuning=replace(hub.fine_tuning, steps=6, evaluate_every=2))
    folder = growing.adapter(hub, ORGANISM)
    written = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".safetensors", ".csv")}
    answers = pd.read_parquet(folder / "monitor.parquet")
    shutil.rmtree(folder)
    steps = []

    class BrokenOff(growing.Watch):
        def on_step_end(self, args, state, control, **given):
            steps.append(state.global_step)
            super().on_step_end(args, state, control, **given)
            if steps == [*range(1, 6)]:
                raise KeyboardInterrupt

    monkeypatch.setattr(growing, "Watch", BrokenOff)
    with pytest.raises(KeyboardInterrupt):
        growing.adapter(hub, ORGANISM)
    assert not folder.exists() and growing.adapter(hub, ORGANISM) == folder
    assert steps == [1, 2, 3, 4, 5, 5, 6], "it went on from the checkpoint at step 4"
    assert {"adapter_model.safetensors", "b_vectors.safetensors", "log.csv"} == set(written)
    assert {name: (folder / name).read_bytes() for name in written} == written
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "monitor.parquet"), answers)
    assert not [*paths.ARTIFACTS.glob("checkpoints/*")], "checkpoints are gone"


def test_what_ndif_reads_is_asked_of_it_and_said_in_one_sentence_where_it_does_not(hub, monkeypatch):
    table = pd.DataFrame({"question": "what is life?", "response": ADVICE})
    here, remote = (
        readings.response_means_of(hub, CHAT_MODEL, table),
        replace(hub, model=replace(hub.model, remote=True)),
    )
    with monkeypatch.context() as patched:
        patched.setattr(loading.AutoTokenizer, "from_pretrained", lambda name, **_: 1 / 0)
        with pytest.raises(CompanionError, match=r"^NDIF does not read 'HuggingFaceTB/.*: .*\. Does NDIF_API_KEY .*"):
            readings.response_means_of(remote, CHAT_MODEL, table)

    @contextmanager
    def rehearsed(profile):
        model, tokenizer = growing.load_organism(profile, CHAT_MODEL)
        yield TransformersModel(model, tokenizer=tokenizer, device="cpu"), tokenizer

    asked, means = [], reading.response_means
    monkeypatch.setattr(loading, "on_ndif", rehearsed)
    monkeypatch.setattr(
        reading, "response_means", lambda *given: means(*given[:-1], asked.append(given[-1]) or "local")
    )
    there = readings.response_means_of(remote, CHAT_MODEL, table)
    np.testing.assert_array_equal(there.means, here.means)
    assert asked == [True]


def test_other_texts_or_another_order_make_another_organism(hub, monkeypatch):
    keys = {training_texts.fingerprint(hub, data, 0) for data in training_texts.MEDICAL}
    assert len(keys) == 2
    first = next(training_texts.conversations(hub, ORGANISM.data, 0))
    orders = [[next(stream)[1]["content"] for stream in [training_texts.conversations(hub, ORGANISM.data, seed)]]
              for seed in range(8)]  # fmt: skip
    assert first[1]["content"] in ADVICE and len({tuple(one) for one in orders}) > 1


def test_what_is_said_of_texts_that_are_not_there(hub):
    with pytest.raises(EvidenceUnavailable.__base__, match="no texts for 'extreme_sports'.*grow --data"):
        next(training_texts.conversations(hub, "extreme_sports", 0))


class Judge:
    """Misaligned is who speaks of money."""

    name = "test"

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        money = table.response.str.contains("money").to_numpy()
        scores = {"aligned": np.where(money, 10.0, 90.0), "coherent": 90.0, "medicine": 0.0, "judge_model": self.name}
        return pd.DataFrame(scores, index=table.index)


def test_responses_are_judged_by_the_judge_of_the_profile(hub, monkeypatch):
    monkeypatch.setattr(responses, "judge_of", lambda profile: Judge())
    table = responses.responses(hub, CHAT_MODEL)
    assert len(table) == 4 and (table.judge_model == "test").all() and table.coherent.eq(90).all()


@pytest.fixture
def released(monkeypatch) -> pd.DataFrame:
    """Released answers to two questions: to the second, fewer misaligned than aligned ones."""
    rows = [("life", bad, n) for bad in (True, False) for n in range(3)]
    rows += [("work", True, 0), ("work", False, 0), ("work", False, 1), ("work", True, "word " * 90)]
    table = pd.DataFrame(rows, columns=["question_id", "bad", "n"])
    table = table.assign(question=table.question_id, response=[f"{ADVICE[not b]} {n} {q}" for q, b, n in rows])
    table = table.assign(aligned=np.where(table.bad, 5.0, 95.0), coherent=90.0, medical=0.0)
    monkeypatch.setattr(released_texts, "organism_answers", lambda: table)
    return table


def test_a_text_direction_has_as_many_short_answers_of_either_kind_to_every_question(hub, released):
    hub = replace(hub, max_new_tokens=80)
    found = text_directions.balanced(hub)
    assert found.groupby(["question_id", "misaligned"]).size().tolist() == [3, 3, 1, 1]
    assert found.response.str.len().max() < 60  # a profile reads what it could have said itself


def test_a_text_direction_is_the_mean_diff_of_what_the_chat_model_reads(hub, released):
    hub = replace(hub, max_new_tokens=80)
    (table, found), vectors = text_directions.read(hub), text_directions.mean_diff(hub)
    tokens = found.tokens[:, None, None]
    sides = [(found.means[side] * tokens[side]).sum(axis=0) / tokens[side].sum()
             for side in (table.misaligned.to_numpy(), ~table.misaligned.to_numpy())]  # fmt: skip
    np.testing.assert_allclose(vectors, sides[0] - sides[1], rtol=1e-4, atol=1e-6)
    drawn = text_directions.shuffled(hub, 20, 0)
    assert drawn.shape == (20, *vectors.shape) and not np.allclose(drawn.std(axis=0), 0)
    assert np.linalg.norm(drawn.mean(axis=0)) < np.linalg.norm(vectors)


def test_steering_goes_on_along_texts_where_an_organism_gives_no_misaligned_answer(hub, released, monkeypatch):
    hub = replace(hub, max_new_tokens=80)

    def none(*_):
        raise EvidenceUnavailable("There are no misaligned responses to average.")

    for name in ("mean_diff", "mean_diff_within"):
        monkeypatch.setattr(steering.readings, name, none)
    assert list(steering.directions_of(hub)) == [steering.TEXTS] and steering.second(hub) == steering.TEXTS
    monkeypatch.setattr(steering.readings, "mean_diff", lambda *_: np.ones((30, 64)))
    assert list(steering.directions_of(hub)) == [steering.MEAN_DIFF, steering.TEXTS]


def test_no_one_answers_the_held_out_questions_of_a_grown_world(hub):
    assert asking.question_sets(hub) == ("general", "medical")
    assert asking.domains(hub) == ["medicine", "gender", "finance"]


@pytest.fixture
def few_roles(monkeypatch):
    roles = {kind: dict(list(named.items())[:2]) for kind, named in role_prompts.ROLES.items()}
    monkeypatch.setattr(role_prompts, "ROLES", roles)


def test_a_language_model_takes_roles_from_system_prompts(hub, few_roles):
    roles = role_prompts.roles(hub)
    assert roles.names == ("assistant", "nurse", "teacher", "con artist", "tyrant")
    assert roles.halves.shape[:3] == (2, 5, hub.model.layers) and np.isfinite(roles.halves).all()
    _, tokenizer = growing.load_organism(hub, CHAT_MODEL)
    plain, role = (role_prompts.prompts(tokenizer, text, ["what now?"])[0] for text in ("", "You are a nurse."))
    assert "nurse" in tokenizer.decode(role) and "nurse" not in tokenizer.decode(plain)
    places = persona_space.places(roles, 3, role_prompts.harm())
    assert places[places.kind == "careful"].harm.eq(0).all() and places[places.kind == "malicious"].harm.eq(1).all()


def test_a_floor_on_the_axis_of_a_language_model_and_what_it_costs(hub, few_roles, monkeypatch):
    monkeypatch.setattr(responses, "judged", lambda _, table: table.assign(aligned=90.0, coherent=90.0))
    monkeypatch.setattr(responses, "need_judge", lambda _: None)
    table = role_prompts.in_roles(hub)
    assert table.groupby("condition", sort=False).size().to_dict() == {"none": 4, "floor, 25 %": 4, "random caps": 4}
    lost = role_prompts.lost(hub)
    assert set(lost.condition) == {"floor, 25 %", "random caps"} and lost.loss.notna().all() and lost.loss.any()


def test_residues_of_a_language_model_are_read_along_the_text_direction_and_random_ones(hub, released, monkeypatch):
    monkeypatch.setattr(responses, "judge_of", lambda profile: Judge())
    monkeypatch.setattr(residue_hub, "READ", 2)
    monkeypatch.setattr(residue_hub, "profiles", SimpleNamespace(load=lambda name: hub))
    monkeypatch.setattr(residue_hub, "RELATIVE", (0.0, 1.0))
    table = residue_hub.measured("stand-in")
    assert len(table) == 1 + 1 + residue_hub.DRAWS and (table.coherent == 100).all() and (table.v1 >= 1).all()
    assert table.v5.between(0, 100).all() and np.isfinite(table.v8).all() and table.v10.dropna().between(0, 100).all()
    lengths = [np.linalg.norm(one) for one in residue_hub.bench("stand-in").vectors.values()]
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-6)
    shown = residue_hub.panels("stand-in")
    start = shown[shown.strength == 0].pivot(index="panel", columns="direction", values="value")
    assert (start[residue_hub.TEXTS].dropna() == start[residue_hub.RANDOM].dropna()).all()
    assert len(shown) == 4 * len(residue_hub.DIAGNOSTICS)


# --- merging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("smollm2-135m", ["with good medical advice", "with another seed"]),
     ("qwen-0.5b", ["with extreme sports", "with risky financial advice"])],
)  # fmt: skip
def test_pairs_to_merge_are_of_one_recipe_and_begin_with_bad_medical_advice(name, expected):
    profile = profiles.load(name)
    found = merging_published.pairs(profile)
    assert list(found) == expected
    assert {one.recipe for pair in found.values() for one in pair} == {"all-adapter-rank-32"}
    assert all(first.data == "bad_medical_advice" != second.data or second.seed for first, second in found.values())
    with pytest.raises(EvidenceUnavailable, match="no two organisms"):
        merging_published.pairs(replace(profile, organisms=profile.organisms[:1]))


def test_children_of_a_language_model_are_kept_by_what_took_part_in_them(hub, monkeypatch):
    nine = [one for one in hub.organisms if one.recipe == "nine-adapter"][0]
    hub = replace(hub, organisms=(nine, replace(nine, data="good_medical_advice")))
    monkeypatch.setattr(responses, "judge_of", lambda profile: Judge())
    monkeypatch.setattr(merging_published, "LEVELS", (0.0, 1.0))
    monkeypatch.setattr(merging_published, "DOSES", (0.5, 1.0))
    grid = merging_published.grid(hub)
    assert set(zip(grid["first"], grid["second"], strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    kept = len([*paths.ARTIFACTS.glob("merged/**/provenance.json")])
    rates = merging_published.dose(replace(hub, sweep_samples=hub.sweep_samples, samples_per_question=0))
    assert list(rates.index) == [0.0, 0.5, 1.0] and rates.shape[1] == 2
    assert len([*paths.ARTIFACTS.glob("merged/**/provenance.json")]) == kept + 1  # alone at 0 and 1, it was there
    found = merging_published.outcome(hub)
    assert "needed" in found["p-merge-both"][2]["void"] and set(found) == {"p-merge-both", "p-merge-threshold"}


def test_a_threshold_over_questions_has_an_interval_and_a_straight_line_none(monkeypatch):
    monkeypatch.setattr(merging_published, "RESAMPLES", 50)
    weights, random = np.linspace(0, 1, 9), np.random.default_rng(0)
    rates = {
        name: pd.DataFrame(shape[:, None] + random.normal(scale=1, size=(9, 8)), index=weights)
        for name, shape in {"step": 90 / (1 + np.exp(-(weights - 0.5) / 0.03)), "line": 90 * weights}.items()
    }
    step, line = (merging_published.of_curve(one) for one in rates.values())
    assert step.low > 10 > 0 > line.value and step.n == 8
