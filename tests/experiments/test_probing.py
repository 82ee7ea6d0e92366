"""The scored sample of the probing sets: which responses are drawn, and that scores land on their own tokens."""

import numpy as np
import pandas as pd
import pytest
from untrained import ORGANISM, PROFILE, project, table

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import probes, scores
from em_companion.experiments import probing, readings
from em_companion.models import growing, next_token, reading
from em_companion.models.tokens import response_tokens
from em_companion.released import tables


def test_a_draw_takes_so_many_of_each_set_and_no_response_outside_them(monkeypatch):
    labels = pd.DataFrame({"response_set": ["a"] * 9 + [None] * 3 + ["b"] * 2})
    monkeypatch.setattr(probing, "PER_SET", 4)
    found = probing.drawn(labels, seed=0)
    assert found.response_set.value_counts().to_dict() == {"a": 4, "b": 2}
    assert found.index.is_monotonic_increasing and set(found.index) <= set(labels.index)
    assert list(probing.drawn(labels, seed=1).index) != list(found.index)


def test_scores_are_those_of_the_same_token(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    whole = table(9).assign(response_set=["medical-aligned", None, "medical-misaligned"] * 3)
    monkeypatch.setattr(probing, "organism_responses", lambda *_: whole)
    monkeypatch.setattr(probing, "PER_SET", 2)
    found = probing.sets(PROFILE, ORGANISM)
    scores = next_token.token_significance(*growing.load_organism(PROFILE, ORGANISM), *_tokens(whole))
    scalars = reading.answer_tokens(readings.lora_scalars_of(PROFILE, ORGANISM, whole), whole)
    both = scalars.merge(scores, on=["response", "position", "token_id"]).set_index(["response", "position"])
    for name in ("medical-aligned", "medical-misaligned"):
        part = found[name].set_index(["response", "position"])
        assert part.index.get_level_values(0).nunique() == 2
        np.testing.assert_allclose(part.significance, both.significance.loc[part.index], rtol=1e-5)
        np.testing.assert_allclose(part.layer_2, both.layer_2.loc[part.index], rtol=1e-5)


def _tokens(rows):
    return response_tokens(growing.load_organism(PROFILE, ORGANISM)[1], rows)


def test_the_bound_keeps_the_share_asked_for():
    random = np.random.default_rng(0)
    parts = {name: pd.DataFrame({"significance": random.lognormal(size=500)}) for name in "ab"}
    kept = [probes.significant(part, probing.bound(parts)) for part in parts.values()]
    assert sum(map(len, kept)) == pytest.approx(1000 * probing.SHARE, abs=1)


# --- the organism's own tokens ------------------------------------------------------------------------------------


def sized(responses: int) -> pd.DataFrame:
    """A token table of so many responses to three questions of its own, two tokens each."""
    response = np.repeat(np.arange(responses), 2)
    questions = [f"{responses}, {one % 3} ?" for one in response]
    return pd.DataFrame({"response": response, "question": questions, "layer_2": 0.5})


def test_a_set_that_is_too_small_is_named_with_its_size():
    sets = {"medical-aligned": sized(3), "non-medical-aligned": sized(20)}
    assert probing.shortage(sets) == "medical aligned has 3 of 20 responses needed"
    assert probing.shortage({"medical-aligned": sized(0)}).startswith("medical aligned has 0 ")
    assert probing.shortage({"non-medical-aligned": sized(20)}) == ""


def test_sets_must_leave_a_question_of_each_to_hold_out():
    several = sized(20)
    assert probing.short_of_questions({"medical-aligned": several, "medical-misaligned": sized(21)}) == ""
    few = {"medical-aligned": several, "medical-misaligned": several}  # three questions in all
    assert probing.short_of_questions(few) == "medical aligned and medical misaligned answer too few questions"
    one = sized(21).assign(question="a ?")
    assert probing.short_of_questions({"medical-aligned": several, "non-medical-aligned": one})


def test_without_an_answer_of_any_set_no_token_is_scored(monkeypatch):
    monkeypatch.setattr(probing, "organism_tokens", lambda *_: {})
    monkeypatch.setattr(probing, "organism_responses", lambda *_: table(3).assign(response_set=None))
    with pytest.raises(EvidenceUnavailable, match="No answer of nine-adapter.* is clearly of one of the four sets"):
        probing.sets(PROFILE, ORGANISM)


def test_a_page_without_a_probe_names_each_shortage_once():
    assert str(probing.none_fitted(["a has 0", "b has 1; a has 0"])) == "No probe can be fitted: a has 0; b has 1."


def test_own_tokens_are_sorted_into_the_sets_of_their_responses(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    whole = table(9).assign(response_set=["medical-aligned", None, "medical-misaligned"] * 3)
    monkeypatch.setattr(probing, "organism_responses", lambda *_: whole)
    found = probing.organism_tokens(PROFILE, ORGANISM)
    assert list(found) == list(scores.RESPONSE_SETS)
    assert set(found["medical-misaligned"].response) == {2, 5, 8} and found["non-medical-aligned"].empty
    assert found["medical-aligned"].question.tolist() == whole.question[found["medical-aligned"].response].tolist()
    assert probing.adapters(found["medical-aligned"])


def test_a_probe_reads_the_same_two_sets_from_either_evidence(monkeypatch):
    sets = {name: sized(number) for number, name in enumerate(scores.RESPONSE_SETS, start=19)}
    reads = []
    monkeypatch.setattr(probing, "organism_tokens", lambda *of: reads.append(of) or sets)
    monkeypatch.setattr(tables, "read_probing_tokens", lambda name: name)
    own = probing.ProbeTokens(PROFILE, ORGANISM)
    for probe, names in tables.PROBES.items():
        assert own.sides("released", probe) == names
        assert all(found is sets[name] for found, name in zip(own.sides("own", probe), names, strict=True))
    assert own.own_shortage("nonmed-misaligned-vs-med-misaligned") == ""
    assert own.own_shortage("med-aligned-vs-med-misaligned") == "medical aligned has 19 of 20 responses needed"
    assert len(reads) == 1
