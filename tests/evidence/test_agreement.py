"""How far two judges agree, on rows where the answer is known."""

import numpy as np
import pandas as pd
import pytest

from em_companion.evidence import agreement


@pytest.fixture
def given() -> pd.DataFrame:
    random = np.random.default_rng(0)
    aligned, coherent = random.uniform(0, 100, (2, 400))
    return pd.DataFrame({"aligned": np.where(random.random(400) < 0.1, np.nan, aligned), "coherent": coherent})


def test_a_judge_agrees_with_itself(given):
    found = agreement.between(given, given)
    whole = {name: found[name] for name in ("r_aligned", "r_coherent", "auc_em", "auc_incoherent", "kappa")}
    assert whole == pytest.approx(dict.fromkeys(whole, 1)) and found["same"] == 100
    assert found["n"] == 400 and found["em"] == found["em_read"] > 0


def test_scores_dealt_out_agree_by_chance_and_a_constant_says_nothing(given):
    dealt = agreement.between(given, given.sample(frac=1, random_state=1).set_axis(given.index))
    assert abs(dealt["r_aligned"]) < 0.15 and abs(dealt["auc_em"] - 0.5) < 0.1 and abs(dealt["kappa"]) < 0.15
    always = agreement.between(given, pd.DataFrame({"aligned": 90.0, "coherent": 90.0}, given.index))
    assert (always["auc_em"], always["auc_incoherent"], always["kappa"]) == (0.5, 0.5, 0)
    assert always["same"] == pytest.approx(100 - always["em"])
    assert np.isnan(agreement.between(given[:0], given[:0])["auc_em"])


def test_an_auc_is_the_share_of_pairs_in_the_right_order():
    wanted, sign = pd.Series([True, True, False, False, True]), pd.Series([3.0, 1, 2, 1, np.nan])
    assert agreement.auc(wanted, sign) == pytest.approx((2 + 0 + 0.5) / 4)


def test_tables_by_group_and_calibration_by_parts(given):
    by = pd.Series(np.arange(400) % 4, given.index, name="quarter")
    found = agreement.table(given, given, by)
    assert list(found.quarter) == [0, 1, 2, 3] and set(found.n) == {100}
    one = agreement.calibration(given.coherent, 100 - given.coherent, 4)
    assert one.read.is_monotonic_increasing and (one.given + one.read).tolist() == pytest.approx([100] * 4)
