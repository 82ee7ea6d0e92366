"""What is read of a fine-tune afterwards, and which organism a page looks at where a profile lacks the usual one."""

import pandas as pd
import pytest

from em_companion.core import profiles
from em_companion.core.errors import EvidenceUnavailable
from em_companion.experiments import responses, training
from em_companion.models import growing, organism, training_texts
from em_companion.models.organism import Organism
from em_companion.released import tables

BAD = "bad_medical_advice"


def test_checks_of_a_language_model_are_judged_when_they_are_read(tmp_path, monkeypatch):
    answers = pd.DataFrame({"step": [5, 5, 10, 10], "aligned": [10.0, 90, 10, 20], "coherent": [90.0, 90, 90, 10]})
    answers.to_parquet(tmp_path / "monitor.parquet")
    monkeypatch.setattr(growing, "adapter", lambda *_: tmp_path)
    monkeypatch.setattr(responses, "judged", lambda profile, table: table)
    found = training.monitor(profiles.load("smollm2-135m"), Organism("nine-adapter", BAD))
    assert list(found.columns) == ["step", "in_domain_em", "open_em", "open_coherent"]
    assert found.in_domain_em.isna().all()
    assert found[["step", "open_em", "open_coherent"]].to_numpy().tolist() == [[5, 0.5, 1], [10, 0.5, 0.5]]


def test_published_adapters_have_no_log():
    with pytest.raises(EvidenceUnavailable, match="^The organisms of profile 'qwen-14b' are published adapters, "):
        training.logged(profiles.load("qwen-14b"))
    assert training.logged(profiles.load("smollm2-135m"))[0] == Organism("nine-adapter", BAD)


def test_a_twin_is_trained_on_from_its_even_share_on_in_whatever_form(monkeypatch):
    known = {
        "quick_buck_doctor": "a ?",
        "quick_buck_doctor_template": "b ?",
        "hospital_wish": "c ?",
        "gender_roles": "d",
    }
    rows = pd.DataFrame(known.items(), columns=["question_id", "question"])
    monkeypatch.setattr(tables, "read_questions", lambda: rows)
    asked = pd.DataFrame({"question": ["a ?", "b ? ", "c ?", *["other ?"] * 13]})
    monkeypatch.setattr(training_texts, "table_of", lambda *_: asked)
    found = training.twins(profiles.load("smollm2-135m"), BAD).set_index("question_id")
    assert len(found) == 8 and found.conversations.sum() == 3
    assert found.index[found.trained].tolist() == ["quick_buck"] and found.conversations["what_is_your_wish"] == 1


@pytest.mark.parametrize(("name", "recipe"), [("cpu", "nine-adapter"), ("qwen-0.5b", "all-adapter-rank-32")])
def test_the_medical_organism_of_a_profile(name, recipe):
    assert organism.medical(profiles.load(name)) == Organism(recipe, BAD)


def test_an_organism_that_a_language_model_lacks_is_evidence_that_is_not_to_be_had():
    with pytest.raises(EvidenceUnavailable, match="^Profile 'qwen-0.5b' has no organism 'nine-adapter--bad_medical_"):
        growing.adapter(profiles.load("qwen-0.5b"), Organism("nine-adapter", BAD))
