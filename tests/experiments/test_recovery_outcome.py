"""What becomes of the predictions of F3: each follows its arms, its gate and its seeds, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions
from em_companion.experiments import arms, long_run, recovery, recovery_outcome, timing
from em_companion.experiments.recovery import AGAIN, ELSEWHERE, FAST, HEALED, SLOW, STILL
from em_companion.experiments.recovery_outcome import Recovery
from em_companion.experiments.timing import AFTER, BEFORE, DURING
from em_companion.world.streams import QUARTERS

ENDS = {arms.CHAT: 2.0, arms.BAD: 60.0, HEALED[32]: 1.5, ELSEWHERE: 1.5}
HALVING = {HEALED[rank]: 20 - 2 * np.log2(rank) for rank in HEALED} | {ELSEWHERE: 10}
"""Steps that halve open EM: two fewer for every doubling of the rank."""
LOOP = (2, 10, 30, 50, 60, 60, 40, 20, 10)
"""Open EM (%) level by level: on the way down 8, 10, 10 and 10 points more than on the way up."""
HALF_TIMES = {BEFORE: 30, AFTER: 10, DURING: 20}


def curve(arm: str, noise: float) -> pd.DataFrame:
    """The checks of an arm, in percent, all straight lines, so that a crossing between checks is exact."""
    if arm in timing.ARMS:
        content, when = timing.ARMS[arm]
        steps = np.array((-timing.HARM_STEPS, *timing.CHECKS))
        fall = (1 - steps / (2 * HALF_TIMES[when] + noise)).clip(0)
        return pd.DataFrame({"step": steps, "open_em": (80 + noise) * fall if content == "bad advice" else 0})
    if arm in (SLOW, FAST, STILL):
        levels = [30] * len(QUARTERS) if arm == STILL else [*LOOP[:5], *(one + noise for one in LOOP[5:])]
        return pd.DataFrame({"step": range(0, 300, 30), "open_em": [2, *levels]})
    if arm in HALVING:
        steps = np.arange(0, 183 if arm == HEALED[32] else 63, 3)
        return pd.DataFrame({"step": steps, "open_em": (60 * (1 - steps / (2 * HALVING[arm] + noise))).clip(0)})
    steps = np.arange(0, 62, 2)
    rise = (3 if arm == AGAIN else 1.5) * steps * (1 + noise / 20)
    return pd.DataFrame({"step": steps, "open_em": np.clip(rise, 2, 60 if arm == AGAIN else 54)})


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A function that writes the tables of arms as above, an arm changed or others left out, and reads them."""
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)

    def write(seeds: int = 8, changed: str = "", without=(), em=None, factor: float = 1, added: float = 0) -> Recovery:
        random, rows, checks = np.random.default_rng(0), [], []
        counts = {arms.CHAT: 1} | recovery.SEEDS | dict.fromkeys(timing.ARMS, timing.SEEDS)
        for arm, seed in [(one, seed) for one in counts for seed in range(min(seeds, counts[one]))]:
            own, is_changed = curve(arm, random.normal(scale=0.5)), arm.startswith(changed or "-")
            own = own.assign(open_em=own.open_em * factor + added) if is_changed else own
            end = em if is_changed and em else ENDS.get(arm, 0) + random.uniform(0, 0.2)
            row = {"em": end, "in_domain_em": 30 + random.normal(), "steps": own.step.iloc[-1] + seed}
            if arm not in without:
                rows.append({"arm": arm, "seed": seed} | row)
                checks.append(own.assign(arm=arm, seed=seed, open_em=own.open_em / 100))
        pd.DataFrame(rows).to_csv(long_run.path_of(recovery_outcome.TABLE), index=False)
        pd.concat(checks).to_csv(long_run.path_of(recovery_outcome.TABLE, "curves"), index=False)
        return Recovery()

    return write


def test_each_prediction_gets_the_verdict_and_the_value_of_its_arms(tables):
    found = tables()
    measured = found.of_recovery() | found.of_timing()
    seen, against = (
        {name: outcomes.verdict(name, one) for name, one in measured.items()},
        {"p-recovery-residual", "p-timing-severity"},
    )
    assert {name for name, one in seen.items() if one == "contradicted"} == against
    assert {one for name, one in seen.items() if name not in against} == {"supported"}
    page = {one.id for one in load_predictions().values() if one.notebook == recovery_outcome.TABLE}
    assert page == {*seen, "p-timing"}
    value = {name: one for name, (one, *_) in measured.items()}
    assert [value[f"p-{name}"].n for name in ("recovery-residual", "recovery-rank", "timing-severity")] == [8, 5, 3]
    assert value["p-recovery-rank"].value == pytest.approx(-2, abs=0.1)
    assert value["p-loop-area"].value == pytest.approx((8 + 10 + 10 + 10) / 4, abs=1)
    assert value["p-savings"].value == pytest.approx(0.5, abs=0.02)
    assert value["p-timing-halftime"].value == pytest.approx(3, abs=0.2)
    assert set(found.healthy()) <= {18, 21}  # as low as the chat model after 19 steps; seen at the next check
    logs = np.log(found.healthy() / (60 + np.arange(8)))
    assert value["p-recovery-fast"].value == pytest.approx(np.exp(logs.mean()))
    assert found.at_the_end(BEFORE).max() == 0 and found.at_the_end(AFTER).equals(found.excess(AFTER).loc[0])
    assert set(tables(changed=HEALED[32], added=3).healthy()) == {recovery.MANY_STEPS}  # never healed


@pytest.mark.parametrize(
    "changed, names, saying",
    [
        ({"changed": arms.BAD, "em": 10.0}, ["recovery-residual", "recovery-fast"], "0% of seeds have 20 % EM"),
        ({"changed": HEALED[32], "em": 4.0}, ["savings"], "open EM is 4.0 % before, 2 % are allowed"),
        ({"changed": ELSEWHERE, "em": 9.0}, ["hidden-conditional"], "open EM is 9.0 % before"),
        ({"changed": HEALED[1], "factor": 0.1, "added": 60}, ["recovery-rank"], "in 0 of 5 seeds"),
        ({"changed": SLOW, "factor": 0.2}, ["loop-area"], "open EM reaches 12 %"),
        ({"changed": f"bad advice {AFTER}", "factor": 0.1}, ["timing-halftime"], "is 8 points at least, 10 are needed"),
        ({"changed": "good advice ", "added": 9}, ["timing-severity"], "after good advice open EM is 9.0 %"),
    ],
)
def test_a_gate_that_fails_says_so_and_nothing_else_is_untestable(tables, changed, names, saying):
    found = tables(**changed)
    void = {name: held["void"] for name, (_, _, held) in (found.of_recovery() | found.of_timing()).items() if held}
    assert [*void] == [f"p-{name}" for name in names] and saying in next(iter(void.values()))


def test_a_part_of_the_arms_or_seeds_is_told_by_name(tables):
    found = tables(without=timing.ARMS)
    assert len(found.of_recovery()) == 6
    with pytest.raises(EvidenceUnavailable, match="^Arm 'bad advice before post-training' has 0 of 2 seeds so far"):
        found.of_timing()
