"""What becomes of the predictions of F3: each follows its arms, its gate and its seeds, on tables made by hand."""

from math import log2

import numpy as np
import pandas as pd
import pytest

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions, of_parts
from em_companion.experiments import arms, long_run, recovery, recovery_outcome, timing
from em_companion.experiments.recovery import AGAIN, ELSEWHERE, FAST, HEALED, SLOW, STILL
from em_companion.experiments.recovery_outcome import Recovery
from em_companion.experiments.timing import AFTER, BEFORE
from em_companion.world.streams import QUARTERS

ENDS = {arms.CHAT: (2, 1), arms.BAD: (60, 85), HEALED[32]: (1.5, 1), HEALED[4]: (1.5, 1), HEALED[1]: (2, 1)}
ENDS |= {ELSEWHERE: (1.5, 30), AGAIN: (60, 85), SLOW: (5, 5), FAST: (5, 5), STILL: (30, 50)}
"""EM on open questions and on medical topics (%) where an arm ends: all is healed, but not elsewhere in medicine."""
HALVING = {HEALED[rank]: 20 - 2 * log2(rank) for rank in HEALED} | {ELSEWHERE: 10}
"""Steps that halve open EM: two fewer for every doubling of the rank."""
UP, DOWN = (2, 10, 30, 50, 60), (60, 40, 20, 10)
"""Open EM (%) of a loop, level by level: on the way down 10 points more than there, at three shares of four (0: 8)."""
HALF_TIMES = {BEFORE: 30, AFTER: 10, timing.DURING: 20}


def curve(arm: str, noise: float) -> pd.DataFrame:
    """The checks of an arm, in percent, all straight lines, so that a crossing between checks is exact."""
    if arm in timing.ARMS:
        content, when = timing.ARMS[arm]
        steps = np.array((-timing.HARM_STEPS, *timing.CHECKS))
        fall = (1 - steps / (2 * HALF_TIMES[when] + noise)).clip(0)
        return pd.DataFrame({"step": steps, "open_em": (80 + noise) * fall if content == "bad advice" else 0})
    if arm in (SLOW, FAST, STILL):
        levels = [30] * len(QUARTERS) if arm == STILL else [*UP, *(one + noise for one in DOWN)]
        return pd.DataFrame({"step": range(0, 300, 30), "open_em": [2, *levels]})
    if arm in HALVING:
        steps = np.arange(0, 183 if arm == HEALED[32] else 63, 3)
        return pd.DataFrame({"step": steps, "open_em": (60 * (1 - steps / (2 * HALVING[arm] + noise))).clip(0)})
    steps = np.arange(0, 62, 2)
    rise = (3 if arm == AGAIN else 1.5) * steps * (1 + noise / 20)
    return pd.DataFrame({"step": steps, "open_em": np.minimum(rise, 60 if arm == AGAIN else 54)})


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A function that writes the tables of arms as above, some arms' columns changed, and reads them."""
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)
    name = recovery_outcome.TABLE

    def write(seeds: int = 8, changes: dict | None = None, curves=curve, without: tuple[str, ...] = ()) -> Recovery:
        random, rows, checks = np.random.default_rng(0), [], []
        counts = {arms.CHAT: 1} | recovery.SEEDS | dict.fromkeys(timing.ARMS, timing.SEEDS)
        for arm in (one for one in counts if one not in without):
            for seed in range(min(seeds, counts[arm])):
                em, home = ENDS.get(arm, (0, 0))
                own = curves(arm, random.normal(scale=0.5))
                row = {"arm": arm, "seed": seed, "em": em + random.uniform(0, 0.2), "steps": own.step.iloc[-1] + seed}
                rows.append(row | {"in_domain_em": home + random.normal(scale=0.5)} | (changes or {}).get(arm, {}))
                checks.append(own.assign(arm=arm, seed=seed, open_em=own.open_em / 100))
        pd.DataFrame(rows).to_csv(long_run.path_of(name), index=False)
        pd.concat(checks).to_csv(long_run.path_of(name, "curves"), index=False)
        return Recovery()

    return write


def verdicts(found: Recovery) -> dict[str, str]:
    return {name: outcomes.verdict(name, one) for name, one in (found.of_recovery() | found.of_timing()).items()}


def test_each_prediction_gets_the_verdict_of_its_arms(tables):
    found = tables()
    expected = {
        "p-recovery-residual": "contradicted",
        "p-recovery-fast": "supported",
        "p-recovery-rank": "supported",
        "p-loop-area": "supported",
        "p-savings": "supported",
        "p-hidden-conditional": "supported",
        "p-timing-severity": "contradicted",
        "p-timing-halftime": "supported",
    }
    seen = verdicts(found)
    assert seen == expected
    page = {one.id for one in load_predictions().values() if one.notebook == recovery_outcome.TABLE}
    assert page == set(expected) | {"p-timing"}
    parts = load_predictions()["p-timing"].parts
    assert of_parts([seen[part] for part in parts]) == "contradicted"
    counts = {name: one[0].n for name, one in (found.of_recovery() | found.of_timing()).items()}
    assert counts["p-recovery-residual"] == 8 and counts["p-recovery-rank"] == 5 and counts["p-timing-severity"] == 3


def test_quantities_are_those_of_the_curves_they_were_made_from(tables):
    found = tables()
    value = {name: one[0].value for name, one in (found.of_recovery() | found.of_timing()).items()}
    assert value["p-recovery-rank"] == pytest.approx(-2, abs=0.1)
    assert value["p-loop-area"] == pytest.approx((8 + 10 + 10 + 10) / 4, abs=1)
    assert value["p-savings"] == pytest.approx(0.5, abs=0.02)
    assert value["p-timing-halftime"] == pytest.approx(3, abs=0.2)
    assert value["p-timing-severity"] == pytest.approx(0, abs=1.5)
    assert set(found.healthy()) <= {18, 21}  # all is gone after 20 steps, more or less; seen at the next check
    assert value["p-recovery-fast"] == pytest.approx(np.exp(np.log(found.healthy() / (60 + np.arange(8))).mean()))
    early = found.at_the_end(BEFORE), found.at_the_end(AFTER)
    assert early[0].max() == 0 and early[1].equals(found.excess(AFTER).loc[0])


def test_a_model_that_never_heals_took_all_examples(tables):
    def ill(arm: str, noise: float) -> pd.DataFrame:
        found = curve(arm, noise)
        return found.assign(open_em=found.open_em.clip(lower=3))

    found = tables(curves=ill)
    assert found.healthy().unique().tolist() == [recovery.MANY_STEPS]


@pytest.mark.parametrize(
    "changes, names, saying",
    [
        ({arms.BAD: {"em": 10.0}}, ["p-recovery-residual", "p-recovery-fast"], "0% of seeds have 20 % EM before"),
        ({HEALED[32]: {"em": 4.0}}, ["p-savings"], "open EM is 4.0 % before, 2 % are allowed"),
        ({ELSEWHERE: {"em": 9.0}}, ["p-hidden-conditional"], "open EM is 9.0 % before"),
    ],
)
def test_a_gate_that_fails_says_so_and_nothing_else_is_untestable(tables, changes, names, saying):
    found = tables(changes=changes)
    assert [name for name, one in verdicts(found).items() if one == "not testable here"] == names
    assert saying in found.of_recovery()[names[0]][2]["void"]


@pytest.mark.parametrize(
    "arm, factor, names",
    [
        (SLOW, 0.2, ["p-loop-area"]),
        (f"bad advice {AFTER}", 0.1, ["p-timing-halftime"]),
        (HEALED[1], 0.0, ["p-recovery-rank"]),
    ],
)
def test_a_curve_decides_about_a_gate(tables, arm, factor, names):
    def changed(name: str, noise: float) -> pd.DataFrame:
        found = curve(name, noise)
        start = 60 * (name == HEALED[1])  # stays where it was
        return found.assign(open_em=start + factor * found.open_em) if name == arm else found

    assert [name for name, one in verdicts(tables(curves=changed)).items() if one == "not testable here"] == names


def test_post_training_that_does_not_align_decides_nothing_about_severity(tables):
    def ill(arm: str, noise: float) -> pd.DataFrame:
        found = curve(arm, noise)
        return found.assign(open_em=found.open_em + 9) if arm in timing.ARMS else found

    found = tables(curves=ill)
    assert verdicts(found)["p-timing-severity"] == "not testable here"
    assert "after good advice open EM is 9.0 %" in found.of_timing()["p-timing-severity"][2]["void"]


def test_a_part_of_the_arms_or_seeds_is_told_by_name(tables):
    found = tables(without=(*timing.ARMS,))
    assert len(found.of_recovery()) == 6
    with pytest.raises(EvidenceUnavailable, match="^Arm 'bad advice before post-training' has 0 seeds so far"):
        found.of_timing()
    assert {one.n for one, *_ in tables(seeds=2).of_recovery().values()} == {2}
