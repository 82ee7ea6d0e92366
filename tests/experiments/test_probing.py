"""The scored sample of the probing sets: which responses are drawn, and that scores land on their own tokens."""

import numpy as np
import pandas as pd
import pytest
from untrained import ORGANISM, PROFILE, project, table

from em_companion.core.errors import CompanionError
from em_companion.evidence import probes
from em_companion.experiments import probing, readings
from em_companion.models import growing, next_token, reading
from em_companion.models.tokens import response_tokens


def test_a_draw_takes_so_many_of_each_set_and_no_response_outside_them():
    labels = pd.DataFrame({"response_set": ["a"] * 9 + [None] * 3 + ["b"] * 2})
    found = probing.drawn(labels, 4, seed=0)
    assert found.response_set.value_counts().to_dict() == {"a": 4, "b": 2}
    assert found.index.is_monotonic_increasing and set(found.index) <= set(labels.index)
    assert list(probing.drawn(labels, 4, seed=1).index) != list(found.index)


def test_scores_are_those_of_the_same_token(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    whole = table(9).assign(response_set=["medical-aligned", None, "medical-misaligned"] * 3)
    monkeypatch.setattr(probing, "organism_responses", lambda *_: whole)
    found = probing.sets(PROFILE, ORGANISM, per_set=2)
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
    kept = [probes.significant(part, probing.bound(parts, 0.3)) for part in parts.values()]
    assert sum(map(len, kept)) == pytest.approx(300, abs=1)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(CompanionError, match="between 0 and 1"):
        probing.bound({"a": pd.DataFrame({"significance": [1.0]})}, share)
