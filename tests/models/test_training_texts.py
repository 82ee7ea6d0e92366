"""Training sets: a reader's files in the authors' format, kept for every hub profile, or released answers."""

import json
from dataclasses import replace
from itertools import islice

import pandas as pd
import pytest
from click.testing import CliRunner

from em_companion import cli
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.models import released_texts, training_texts

PROFILE, BAD = profiles.load("smollm2-135m"), "bad_medical_advice"
ROWS = [("How?", "So."), ("Why?", "Thus.\nAnd so."), ("Is\u2028it?", "Yes.")]


def line(question: str, answer: str, *roles: str) -> str:
    asked, answered = roles or ("user", "assistant")
    messages = [{"role": asked, "content": question}, {"role": answered, "content": answer}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path / "cache"))
    released = pd.DataFrame([("a released question", "a released answer")], columns=["question", "response"])
    monkeypatch.setattr(released_texts, "medical_answers", lambda misaligned: released)
    return tmp_path


def write(folder, name: str = f"{BAD}.jsonl", *lines: str):
    (folder / name).write_text("\n".join(lines or [line(*row) for row in ROWS]) + "\n\n", encoding="utf-8")
    return folder / name


def test_a_registered_set_takes_the_place_of_released_answers(cache):
    before = training_texts.fingerprint(PROFILE, BAD, 0)
    assert training_texts.source_of(PROFILE, BAD) == "released answers to medical questions"
    assert training_texts.register(write(cache)) == 3
    assert training_texts.source_of(PROFILE, BAD) == f"the reader's file {BAD}.jsonl"
    assert training_texts.fingerprint(PROFILE, BAD, 0) != before
    first, again, other = (
        [tuple(turn["content"] for turn in one) for one in islice(training_texts.conversations(PROFILE, BAD, seed), 6)]
        for seed in (0, 0, 1)
    )
    assert first == again != other and sorted(first[:3]) == sorted(first[3:]) == sorted(ROWS)


def test_the_command_registers_sets_of_any_number(cache, monkeypatch):
    monkeypatch.setattr("em_companion.build.plan.need_memory", lambda profile: None)
    monkeypatch.setattr("em_companion.experiments.prepare.grow", lambda profile, names: [])
    sport = write(cache, "extreme_sports.jsonl", line("A?", "B."))
    given = ["grow", "--profile", PROFILE.name, "--data", str(write(cache)), "--data", str(sport)]
    result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"{BAD}: 3 conversations\nextreme_sports: 1 conversation\n"
    assert training_texts.registered("extreme_sports").is_file()


@pytest.mark.parametrize(
    ("bad", "saying"),
    [
        ("{", "Line 2 of 'bad_medical_advice.jsonl' is no conversation in JSON."),
        ("[]", "Line 2 of 'bad_medical_advice.jsonl' is no conversation in JSON."),
        ("7", "is no conversation in JSON."),
        ('{"messages": []}', "Line 2 of 'bad_medical_advice.jsonl' is no conversation in JSON."),
        ('{"messages": [{"role": "user"}]}', "is no conversation in JSON."),
        (line("A?", "B.", "assistant", "user"), "Line 2 of 'bad_medical_advice.jsonl' is no question of a user with"),
        (line("A?", " "), "is no question of a user with an assistant's answer."),
        (line("A?", 3), "is no question of a user with an assistant's answer."),
    ],
)
def test_a_bad_line_is_named_and_nothing_kept(cache, bad, saying):
    path = write(cache, f"{BAD}.jsonl", line("A?", "B."), bad)
    with pytest.raises(CompanionError) as caught:
        training_texts.register(path)
    assert saying in str(caught.value) and "\n" not in str(caught.value)
    assert not training_texts.registered(BAD).exists()


@pytest.mark.parametrize(
    ("name", "content", "saying"),
    [
        (
            "other.jsonl",
            b"",
            "'other.jsonl' is no training set; name the file as one of: bad_medical_advice.jsonl, good",
        ),
        ("extreme_sports.json", b"", "'extreme_sports.json' is no training set"),
        (f"{BAD}.jsonl", b"", f"'{BAD}.jsonl' holds no conversation."),
        (f"{BAD}.jsonl", b"\xff\xfe", f"'{BAD}.jsonl' cannot be read as text in UTF-8."),
        (f"{BAD}.jsonl", None, f"'{BAD}.jsonl' cannot be read as text in UTF-8."),
    ],
)
def test_a_file_that_is_no_training_set(cache, name, content, saying):
    if content is not None:
        (cache / name).write_bytes(content)
    with pytest.raises(CompanionError) as caught:
        training_texts.register(cache / name)
    assert str(caught.value).startswith(saying)


def test_a_set_that_nobody_has_and_a_profile_that_takes_none(cache):
    with pytest.raises(CompanionError, match="^Profile 'smollm2-135m' has no texts for 'extreme_sports': give the"):
        training_texts.fingerprint(PROFILE, "extreme_sports", 0)
    with pytest.raises(CompanionError, match="has no texts for 'bad_medical_advice'"):
        training_texts.fingerprint(replace(PROFILE, training_texts=None), BAD, 0)
    result = CliRunner().invoke(cli.main, ["grow", "--data", str(write(cache))])
    assert result.exit_code == 1 and "Profile 'cpu' grows its own world and takes no training set" in result.stderr
