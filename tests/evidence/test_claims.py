"""The registry of the paper's claims: it loads, covers the paper, and a broken entry is one clear sentence."""

import math

import pytest
import yaml

from em_companion.core.errors import CompanionError
from em_companion.evidence import claims
from em_companion.evidence.claims import Claim

ENTRY = {
    "id": "s2-rate",
    "section": "2",
    "place": "Section 2",
    "notebook": "s2-demo",
    "statement": "Half of the answers are EM.",
    "relation": "equals",
    "reported": 50,
    "unit": "percent",
    "sample_size": 400,
    "reference": 0,
    "test": "EM rate of two rows.",
    "evidence": ["released"],
    "released_data": "stand-in",
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads claims from entries instead of `data/claims.yml`."""

    def read(*entries: dict) -> dict[str, Claim]:
        path = tmp_path / "claims.yml"
        path.write_text(yaml.safe_dump({"claims": list(entries)}), encoding="utf-8")
        monkeypatch.setattr(claims, "CLAIMS", path)
        claims.load_claims.cache_clear()
        return claims.load_claims()

    yield read
    claims.load_claims.cache_clear()


def test_registry_loads_and_covers_the_paper():
    registry = claims.load_claims()
    assert len(registry) >= 60
    assert {"2", "3.1", "3.2", "3.3", "3.4", "3.5", "4.1", "4.2", "4.3", "C", "D", "F", "H", "I", "J"} <= {
        c.section for c in registry.values()
    }
    assert all(c.evidence for c in registry.values())
    assert len([c for c in registry if c.startswith("s4-1-tab-1-")]) == 20


def test_an_entry_is_taken_as_it_stands(load):
    found = load(ENTRY)["s2-rate"]
    assert found == Claim(**ENTRY) and type(found.reported) is int
    assert claims.reported_text(found) == "50 %"


@pytest.mark.parametrize(
    "changes, saying",
    [
        ({"relation": "resembles"}, "'relation' must be 'equals', 'at_least', 'at_most',"),
        ({"unit": ...}, "it has a missing or unknown key: unit."),
        ({"units": "percent"}, "it has a missing or unknown key: units."),
        ({"unit": ["percent"]}, "'unit' must be 'percent', 'percent_change',"),
        ({"evidence": 5}, "'evidence' must be a list, not 5."),
        ({"evidence": ["rumour"]}, "'evidence[0]' must be 'released', 'grown' or 'hub', not 'rumour'."),
        ({"reported": "eleven"}, "'reported' must be a"),
        ({"reported": math.inf}, "'reported' must be a"),
        ({"reference": True}, "'reference' must be a"),
        ({"sample_size": "many"}, "'sample_size' must be a whole number, not 'many'."),
        ({"sample_size": 0}, "'sample_size' must be greater than or equal to 1, not 0."),
        ({"unit": "cosine"}, "it has a 'sample_size', which belongs to the unit 'percent'."),
        ({"section": ""}, "'section' must be text, not ''."),
        ({"reported": [1, 2]}, "it needs two reported values for 'between' and one for every other relation."),
        ({"relation": "between"}, "it needs two reported values for 'between'"),
        ({"released_data": ...}, "it needs 'released_data', one of own, stand-in, set-up, where released"),
        (
            {"evidence": ["grown"]},
            "it needs 'released_data', one of own, stand-in, set-up, where released",
        ),
    ],
)
def test_a_broken_entry_is_one_clear_sentence(load, changes, saying):
    entry = {key: value for key, value in (ENTRY | changes).items() if value is not ...}
    with pytest.raises(CompanionError) as raised:
        load(entry)
    said = str(raised.value)
    assert said.startswith(f"claims.yml, 's2-rate': {saying}") and said.endswith(".") and "\n" not in said


def test_a_claim_stands_once(load):
    with pytest.raises(CompanionError, match="^claims.yml: 's2-rate' stands twice.$"):
        load(ENTRY, ENTRY)
