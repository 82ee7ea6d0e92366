"""Curves of fine-tunes: crossings by interpolation, onsets, and which of three shapes a rise has."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_companion.evidence import trajectories

shares = st.lists(st.floats(0, 1), min_size=2, max_size=30).map(np.array)


def curve(in_domain, open_em) -> pd.DataFrame:
    columns = {"step": np.arange(1, len(in_domain) + 1), "in_domain_em": in_domain, "open_em": open_em}
    return pd.DataFrame(columns).astype({"in_domain_em": float, "open_em": float})


@given(shares, st.floats(0.01, 1))
def test_a_crossing_lies_where_the_polygon_first_reaches_the_level(values, level):
    steps = np.arange(len(values), dtype=float)
    found = trajectories.crossing(steps, values, level)
    if np.isnan(found):
        assert (values < level).all()
        return
    fine = np.linspace(0, len(values) - 1, 20 * (len(values) - 1) + 1)  # every step and points between
    reached = np.interp(fine, steps, values) >= level - 1e-12
    assert np.interp(found, steps, values) >= level - 1e-9
    assert not reached[fine < found - 1e-6].any()


@given(shares, st.floats(0.01, 1))
def test_the_spillover_of_a_curve_against_itself_is_the_level(values, level):
    found = trajectories.spillover(curve(values, values), level)
    assert np.isnan(found) or values[0] >= level or found == pytest.approx(level, abs=1e-9)


def test_the_spillover_does_not_depend_on_speed():
    slow, fast = np.linspace(0, 1, 21), np.linspace(0, 1, 6)
    found = [trajectories.spillover(curve(one, one**2), 0.7) for one in (slow, fast)]
    assert found == pytest.approx([0.49, 0.49], abs=0.02)
    assert np.isnan(trajectories.spillover(curve([0.1, 0.5], [0.0, 0.1])))


def test_the_onset_is_where_half_of_the_last_value_is_reached():
    assert trajectories.onset(curve(np.zeros(5), [0.0, 0.1, 0.2, 0.4, 0.4])) == 3
    assert np.isnan(trajectories.onset(curve([0, 0], [0, 0.05])))


@settings(max_examples=25, deadline=None)
@given(st.floats(12, 48), st.floats(1.5, 6), st.floats(0.2, 0.9))
def test_a_logistic_rise_is_recovered_and_wins(middle, scale, height):
    steps = np.arange(61.0)
    values = 0.02 + height / (1 + np.exp(-(steps - middle) / scale))
    noisy = values + np.random.default_rng(0).normal(scale=0.005, size=61)
    found = trajectories.fits(steps, noisy)
    assert found["logistic"].bic < min(found["line"].bic, found["one step"].bic) - 10
    assert found["logistic"].width == pytest.approx(4.394 * scale, rel=0.15)
    assert np.abs(found["logistic"].values - values).max() < 0.02


def test_a_line_and_a_step_are_told_from_a_logistic():
    steps, noise = np.arange(61.0), np.random.default_rng(1).normal(scale=0.01, size=61)
    for name, values in {"line": steps / 100, "one step": 0.6 * (steps >= 30)}.items():
        assert min(trajectories.fits(steps, values + noise).values(), key=lambda fit: fit.bic).name == name
