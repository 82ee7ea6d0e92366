"""What becomes of the predictions of N2: each follows its rows, its gate and its seeds, on tables made by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.experiments import long_run, recursion_outcome, subliminal
from em_companion.experiments.recursion_outcome import HARMED, NAME, STEERED, Recursion, correlation
from em_companion.experiments.self_correction import (
    CONTROL,
    DIGRESSION,
    HARM,
    HELP,
    POST_TRAINED,
    PRETRAINED,
    SELF_CORRECTING,
)
from em_companion.experiments.self_training import ACCUMULATES, CAPABILITY, CHAINS, CONTAMINATED, JUDGE, OWN, ROUNDS

SLOPES = {f"{CONTAMINATED}: {OWN}": -1.5, f"{CONTAMINATED}: {JUDGE}": -1.8, f"{CONTAMINATED}: {CAPABILITY}": -0.7}
"""Points of open EM per round; of other chains none."""
KEYS = ["arm", "seed"]


def rounds(arm: str, seed: int, start: float) -> pd.DataFrame:
    """The rounds of a chain: straight lines, whose change is what selection does to harm, and a little noise."""
    number, wobble = np.arange(ROUNDS + 1), np.random.default_rng([seed, len(arm)]).normal(size=ROUNDS + 1)
    table = pd.DataFrame({"arm": arm, "seed": seed, "round": number, "em": start + SLOPES.get(arm, 0) * number})
    table["em"] += wobble / 50
    slips = arm.startswith(SELF_CORRECTING)
    table["coherent"], table["rate"], table[HARM] = (
        96.0,
        10 - 0.5 * number + wobble / 50,
        80.0 + wobble if slips else np.nan,
    )
    table["entropy"] = 2.0 + (0.01 if arm.endswith(ACCUMULATES) else -0.01) * number + wobble / 500
    table["distinct"], table["harm"] = 100.0, 20.0
    table["selection"] = np.where(number < ROUNDS, wobble, np.nan)
    return table.assign(transmission=0.1 + wobble**2 / 20, change=table.selection + 0.1 + wobble**2 / 20)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A function that writes tables as above, with other starts or without arms, and reads them."""
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)

    def write(seeds: int = 3, start: float = 15.0, least: float = 100, competent: float = 76, without=()) -> Recursion:
        chains = [(arm, seed) for arm in CHAINS for seed in range(seeds)]
        rows = [{"arm": arm, "seed": seed, "em": 1.0} for arm, seed in chains]
        rows += [{"arm": arm, "seed": 0, HARM: competent, DIGRESSION: 8, HELP: 7} for arm in (SELF_CORRECTING, CONTROL)]
        for seed in range(5):
            rows += [{"arm": subliminal.ORGANISM, "seed": seed, "em": 9.0 + seed, "least": least, "answers": 280}]
            rows += [{"arm": subliminal.CHAT, "seed": seed, "em": 1.0 + 0.9 * seed, "least": 100}]
            harmed = {SELF_CORRECTING: 20.0, CONTROL: 40.0 + seed}
            rows += [{"arm": HARMED.format(arm), "seed": seed, "s75": value} for arm, value in harmed.items()]
        rows += [{"arm": STEERED.format(arm), "seed": 0, "answers": 400} for arm in (SELF_CORRECTING, CONTROL)]
        rows += [{"arm": arm, "seed": 0, "good": 1, "tokens": 1_000} for arm in (PRETRAINED, POST_TRAINED)]
        steering, skill = [], []
        for question in range(20):
            for strength in (0.0, 0.5, 1.0):
                counts = {"strength": strength, "question_id": question, "n": 10, "harm": int(10 * strength)}
                for arm, back in ((SELF_CORRECTING, 3 + question % 2), (CONTROL, 0)):
                    key = {"arm": STEERED.format(arm), "seed": 0, "direction": "mean-diff"}
                    steering.append(key | counts | {"back": back if strength else 0})
            for arm, good in ((PRETRAINED, 8), (POST_TRAINED, 9 - question % 2)):
                skill.append({"arm": arm, "seed": 0, "question_id": question, "n": 10, "good": good})
        parts = {"": pd.DataFrame(rows), "rounds": pd.concat(rounds(*one, start) for one in chains)}
        parts |= {"steering": pd.DataFrame(steering), "skill": pd.DataFrame(skill)}
        for part, table in parts.items():
            kept = table[~table.arm.isin(without)]
            kept.to_csv(long_run.path_of(NAME, part), index=False)
        return Recursion()

    return write


def verdicts(kept: Recursion) -> dict[str, str]:
    return {name: outcomes.verdict(name, one) for name, one in kept.outcomes().items()}


def test_every_prediction_gets_the_verdict_that_its_tables_give(tables):
    assert verdicts(tables()) == {
        "p-rsi-neutral": "supported",
        "p-rsi-capability-only": "supported",
        "p-rsi-selfjudge": "supported",
        "p-rsi-judge": "supported",
        "p-rsi-diversity": "supported",
        "p-rsi-price": "supported",
        "p-subliminal": "supported",
        "p-sc-rate": "contradicted",
        "p-sc-competence": "supported",
        "p-sc-protects": "supported",
        "p-sc-resists": "supported",
        "p-tax-coherence": "supported",
    }


def test_values_are_those_of_the_tables(tables):
    kept = tables()
    found = {name: one[0].value for name, one in kept.outcomes().items()}
    assert found["p-rsi-selfjudge"] == pytest.approx(-1.5, abs=0.02) and 0.9 < found["p-rsi-price"] < 1
    assert found["p-rsi-diversity"] == pytest.approx(-0.16, abs=0.01) and found["p-sc-rate"] == pytest.approx(
        -0.5, abs=0.02
    )
    assert found["p-sc-protects"] == pytest.approx(-22) and found["p-subliminal"] == pytest.approx(8.2)
    assert found["p-sc-resists"] == pytest.approx(35) and found["p-tax-coherence"] == pytest.approx(5)
    assert kept.resistance()[0] == 0.5
    table = kept.by_strength(["harm", "back"]).set_index(["model", "strength"])
    assert table.harm[CONTROL].tolist() == [0, 50, 100] and table.back[SELF_CORRECTING].tolist() == [0, 35, 35]


@pytest.mark.parametrize(
    ("changed", "closed"),
    [
        ({"start": 30.0}, {"p-rsi-capability-only", "p-rsi-selfjudge", "p-rsi-judge"}),
        ({"least": 66.0}, {"p-subliminal"}),
        ({"competent": 40.0}, {"p-sc-protects"}),
    ],
)
def test_a_gate_that_fails_closes_its_predictions(tables, changed, closed):
    found = verdicts(tables(**changed))
    assert {name for name, verdict in found.items() if verdict == "not testable here"} == closed


def test_what_has_no_rows_is_not_measured_and_one_seed_leaves_it_undecided(tables):
    few = tables(seeds=1)
    assert verdicts(few)["p-rsi-selfjudge"] == "undecided"
    without = (f"{CONTAMINATED}: {OWN}", subliminal.CHAT, STEERED.format(CONTROL), PRETRAINED)
    left = {"p-rsi-selfjudge", "p-subliminal", "p-sc-resists", "p-tax-coherence"}
    assert set(tables().outcomes()) - set(tables(without=without).outcomes()) == left
    with pytest.raises(EvidenceUnavailable, match="0 of 1 seeds"):
        tables(without=without).chain(CONTAMINATED, OWN)


@given(st.integers(0, 1_000))
def test_the_correlation_is_pearson_s_and_its_interval_holds_it(seed):
    random = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(12), 8)
    first = random.normal(size=96)
    second = first + random.normal(size=96)
    found = correlation(*map(pd.Series, (first, second, clusters)))
    assert found.value == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert found.low < found.value < found.high and found.n == 96


def test_no_strength_that_harms_means_not_testable(tables, monkeypatch):
    monkeypatch.setattr(recursion_outcome, "ENOUGH_HARM", 101)
    assert verdicts(tables())["p-sc-resists"] == "not testable here"


def test_the_page_names_no_value_that_full_tables_do_not_have(tables):
    kept = tables()
    found = kept.values(kept.outcomes())
    page = (ROOT / "notebooks" / f"{NAME}.py").read_text(encoding="utf-8")
    named = {one for one in re.findall(r"\{value\}`n2\.([\w.-]+)", page) if not one.startswith("circuit.")}
    assert named <= found.keys() and found["supported"] == 11 and found["predictions"] == 12
