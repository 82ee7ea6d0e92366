"""The estimate of what a profile costs, and the check that its memory is there."""

import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from em_companion import cli
from em_companion.build import plan
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.models import weights

LARGE = profiles.load("qwen-14b")


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    for name in ("EM_COMPANION_MODELS", "EM_COMPANION_SCALE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "memory", lambda profile: 85e9)


@pytest.mark.parametrize(("name", "millions"), [("qwen-14b", 14769.8), ("qwen-0.5b", 494.0), ("smollm2-135m", 134.5)])
def test_a_model_has_as_many_parameters_as_its_page_says(name, millions):
    assert plan.parameters(profiles.load(name)) / 1e6 == pytest.approx(millions, rel=2e-4)


def test_an_adapter_has_as_many_parameters_as_peft_counts():
    assert plan._lora_parameters(LARGE, "all-adapter-rank-16") == 68_812_800
    assert plan._lora_parameters(LARGE, "nine-adapter") == 9 * (5120 + 13824)


def test_answers_are_counted_from_the_profile():
    counts = {one.page: one.answers for one in plan.asked(profiles.load("cpu"))}
    # What the last build of the book asked for.
    expected = {"2, answers of every model": 17_600, "3.2, layers and strengths": 9_600, "3.6, strengths": 2_560}
    expected |= {"3.4, ablations of the nine-adapter organism": 8_640, "3.3, semantic directions": 3_840}
    assert {page: counts[page] for page in expected} == expected
    profile = profiles.load("cpu")
    more = {one.page: one.answers for one in plan.asked(replace(profile, sweep_samples=2 * profile.sweep_samples))}
    assert more["3.2, layers and strengths"] == 19_200 and more["2, answers of every model"] == 17_600
    assert not [page for page in map(str, plan.asked(profiles.load("qwen-0.5b"))) if "adapters off" in page]


def test_published_adapters_are_not_trained_and_only_a_served_judge_is_paid():
    large, small = (plan.plan(profiles.load(name), (2.0, 10.0)) for name in ("qwen-14b", "smollm2-135m"))
    assert large.training_tokens == 0 < small.training_tokens
    assert large.requests == 6 * large.answers and large.dollars == pytest.approx(
        (2.0 * large.tokens_in + 10.0 * large.tokens_out) / 1e6
    )
    assert small.requests == 0 == small.dollars
    assert plan.plan(LARGE).dollars is None


def test_hours_follow_the_bandwidth_of_a_card_and_its_memory_the_number():
    hours = {one["card"]: one for one in plan.plan(LARGE).hours}
    assert hours["H100 80 GB"]["cards"] == 1 and hours["L4 24 GB"]["cards"] == 3
    assert hours["L4 24 GB"]["hours"] / hours["H100 80 GB"]["hours"] == pytest.approx(3350 / 300, rel=0.01)


def test_the_command_tells_the_estimate_and_then_what_is_lacking(monkeypatch):
    run = lambda *more: CliRunner().invoke(cli.main, ["plan", "--profile", "qwen-14b", *more])  # noqa: E731
    result = run("--price", "2", "10")
    assert result.exit_code == 0 and "29.5 GB weights" in result.stdout and "dollars at these prices" in result.stdout
    monkeypatch.setattr(weights, "memory", lambda profile: 0)
    result = run("--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["memory"] == 60e9
    assert result.stderr == (
        "Profile 'qwen-14b' needs 60 GB of GPU memory and there is no GPU here; choose a larger machine or another "
        "profile.\n"
    )


@pytest.mark.parametrize("name", ["qwen-14b", "smollm2-135m"])
def test_too_little_memory_is_said_before_anything_is_made(name, monkeypatch):
    profile = profiles.load(name)
    plan.need_memory(profile)
    monkeypatch.setattr(weights, "memory", lambda profile: 5e9)
    needed, kind = (60, "GPU memory") if profile.device == "cuda" else (6, "memory")
    with pytest.raises(CompanionError, match=f"needs {needed} GB of {kind} and there are 5 GB here; choose a larger"):
        plan.need_memory(profile)
    result = CliRunner().invoke(cli.main, ["grow", "--profile", name])
    assert result.exit_code == 1 and "and there are 5 GB here" in result.stderr and not result.stdout


def test_a_judge_that_is_not_there_is_said_before_anything_is_made(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    result = CliRunner().invoke(cli.main, ["grow", "--profile", "qwen-14b"])
    assert result.exit_code == 1
    assert result.stderr == (
        "No judge answers at http://127.0.0.1:9/v1: start it, or correct OPENAI_BASE_URL; nothing was sampled.\n"
    )


def test_memory_at_smoke_scale_is_for_the_weights_that_are_here(tmp_path, monkeypatch):
    assert plan.memory_needed(LARGE) == 60e9
    monkeypatch.setenv("EM_COMPANION_SCALE", "smoke")
    assert plan.memory_needed(LARGE) == pytest.approx(35.4e9, rel=0.01)
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    monkeypatch.setattr(weights, "at_hand", lambda profile: tmp_path)
    assert plan.memory_needed(LARGE) == 1200


@pytest.mark.parametrize(("visible", "expected"), [(None, 3), ("0,2", 2), ("", 0), ("-1", 0)])
def test_memory_is_that_of_the_gpus_that_are_visible(tmp_path, monkeypatch, visible, expected):
    monkeypatch.undo()
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\nprintf '81559\\n81559\\n81559\\n'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert weights.memory(LARGE) == expected * 81559 * 2**20
