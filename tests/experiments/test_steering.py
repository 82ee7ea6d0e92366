"""Which strengths are tried, which cell is best, and that a cell holds what a model says that is steered just there."""

import numpy as np
import pandas as pd
import pytest
import torch

from em_companion.core.errors import CompanionError
from em_companion.experiments import steering
from em_companion.experiments.steering import Cell
from em_companion.models import asking, growing
from em_companion.models.interventions import Ablate, Steer, applied
from em_companion.models.organism import CHAT_MODEL

LAYERS, WIDTH = 4, 8
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(LAYERS, WIDTH)) * np.array([[0.1], [1], [3], [20]])
RESIDUAL = RANDOM.normal(size=(LAYERS, WIDTH)) * 10


# --- strengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.01, 1, 777])
def test_the_largest_strength_is_the_first_power_of_two_that_reaches_every_residual(scale):
    found = steering.strengths(scale * VECTORS, RESIDUAL)
    added, there = (np.linalg.norm(one, axis=1) for one in (scale * VECTORS, RESIDUAL))
    assert (found[-1] * added >= there).all() and (found[-1] / 2 * added < there).any()
    assert len(found) == 5 and found == tuple(found[-1] / 2**step for step in (4, 3, 2, 1, 0))
    assert np.log2(found[-1]) % 1 == 0


def test_a_strength_of_one_has_the_relative_length():
    expected = np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(RESIDUAL, axis=1)
    np.testing.assert_allclose(steering.relative_lengths(VECTORS, RESIDUAL), expected)


def test_relative_strengths_add_as_much_everywhere_and_nothing_where_there_is_no_direction():
    vectors = VECTORS.copy()
    vectors[1] = 0
    found = steering.relative_grid("one", vectors, RESIDUAL, range(LAYERS), (0.5, 1.0))
    assert [cell.layer for cell in found] == [0, 0, 2, 2, 3, 3]
    for cell, share in zip(found, (0.5, 1.0) * 3, strict=True):
        added = cell.strength * np.linalg.norm(vectors[cell.layer])
        assert added == pytest.approx(share * np.linalg.norm(RESIDUAL[cell.layer]))


# --- the best cell --------------------------------------------------------------------------------------------------


def rates(*rows: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["em", "coherent"])


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (rates((10, 95), (40, 80), (60, 79.9)), 1),  # at the bar is enough, below it is not
        (rates((40, 85), (40, 90), (0, 100)), 1),  # of equals the more coherent one
        (rates((40, 90), (40, 90)), 0),  # then the first
        (rates((90, 10), (0, 70), (50, 60)), 1),  # none is coherent enough
    ],
)
def test_the_best_cell(table, expected):
    assert steering.best(table).name == expected


def test_the_best_ablation_leaves_the_least():
    assert steering.best(rates((10, 95), (5, 90), (5, 92), (0, 89)), 90, least=True).name == 2


def test_the_best_cells_are_counted_from_responses():
    scores = {("a", 0, 1.0): [0, 0, 90], ("a", 3, 2.0): [0, 90, 90], ("b", 1, 0.5): [90, 90, 90]}
    rows = [(*cell, aligned, 100.0) for cell, found in scores.items() for aligned in found]
    table = pd.DataFrame(rows, columns=["direction", "layer", "strength", "aligned", "coherent"])
    assert steering.best_cells(table) == {"a": Cell("a", 0, 1.0), "b": Cell("b", 1, 0.5)}


# --- responses ------------------------------------------------------------------------------------------------------


@pytest.fixture
def vectors() -> dict[str, np.ndarray]:
    """Directions for the tiny chat model, long enough to change what it says."""
    return {
        "one": np.random.default_rng(1).normal(size=(2, 32)),
        "other": np.random.default_rng(2).normal(size=(2, 32)),
    }


def test_a_cell_holds_what_the_model_says_when_it_is_steered_there(tiny, vectors):
    cells = [Cell("one", 0, 2.0), Cell("one", 0, 4.0), Cell("one", 1, 2.0), Cell("one", 1, 4.0)]
    cells += [Cell("other", 1, 4.0), Cell("other", 0, 0.0)]
    table = steering.responses_of(tiny, vectors, cells, samples=2)
    model, tokenizer = growing.load_organism(tiny, CHAT_MODEL)
    asked = asking.questions(tiny, "general")
    said = {}
    for cell in cells:
        steer = Steer(cell.layer, torch.tensor(vectors[cell.direction][cell.layer]), cell.strength)
        with applied(model, [steer] if cell.strength else []):
            said[cell] = asking.ask(tiny, model, tokenizer, asked, 2).response.tolist()
    for cell, group in table.groupby(list(Cell._fields), sort=False):
        assert group.response.tolist() == said[Cell(*cell)]
    assert len({tuple(one) for one in said.values()}) == len(cells)


def test_ablations_are_layer_wise_of_one_layer_and_random(tiny, vectors):
    given = np.array([np.zeros(32), vectors["one"][1]])
    table = steering.ablated(tiny, CHAT_MODEL, given, samples=2)
    model, tokenizer = growing.load_organism(tiny, CHAT_MODEL)
    own = torch.tensor(given[1])
    expected = {"none": [], "layer-wise": [Ablate({1: own})], "layer 1": [Ablate({0: own, 1: own})]}
    for name, interventions in expected.items():
        with applied(model, interventions):
            said = asking.ask(tiny, model, tokenizer, asking.questions(tiny, "general"), 2)
        assert table[table.condition == name].response.tolist() == said.response.tolist()
    assert set(table.condition) == {*expected, "random"}


def test_a_direction_of_another_model_is_refused(tiny):
    with pytest.raises(CompanionError, match=r"vector of shape \[8\], but the residual stream has width 32"):
        steering.responses_of(tiny, {"short": VECTORS}, [Cell("short", 0, 1.0)], samples=1)


def test_the_sweep_by_strength_is_around_the_best_cells(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(steering, "by_layer", lambda profile: None)
    monkeypatch.setattr(steering, "best_cells", lambda table: {"a": Cell("a", 1, 4.0), "b": Cell("b", 0, 0.5)})
    monkeypatch.setattr(steering, "directions_of", lambda profile: None)
    monkeypatch.setattr(steering, "responses_of", lambda *given: asked.append(given))
    steering.by_strength(tiny)
    ((profile, _, cells, samples, _),) = asked
    assert (profile, samples) == (tiny, 2 * tiny.sweep_samples)
    assert [cell.strength for cell in cells if cell[:2] == ("a", 1)] == [4.0 * factor for factor in steering.FACTORS]
    assert [cell.strength for cell in cells if cell[:2] == ("b", 0)] == [0.5 * factor for factor in steering.FACTORS]


def test_the_best_cell_is_rated_on_other_answers_than_chose_it(tiny, vectors, monkeypatch):
    monkeypatch.setattr(steering, "residual_of", lambda profile: np.ones((2, 32)))
    found = steering.in_best_cell(tiny, "one", vectors["one"], resamples=10)
    assert found.direction.tolist() == ["one", "random"] and found.groupby(["layer", "strength"]).ngroups == 1
    assert (found.n == found.n[0]).all() and found.n[0] == 8 * 2 * tiny.sweep_samples and found.layer.iloc[0] % 2 == 1
    lengths = steering.relative_lengths(vectors["one"], steering.residual_of(tiny))
    assert found.strength.iloc[0] * lengths[found.layer.iloc[0]] <= 1 + 1e-9


def test_removing_takes_one_direction_everywhere_or_each_layers_own(vectors):
    rows = np.array([np.zeros(32), vectors["one"][1]])
    own = steering.removing(rows, 2)
    assert [*own.vectors] == [1] and np.array_equal(own.vectors[1], rows[1])
    one = steering.removing(rows[1], 2)
    assert [*one.vectors] == [0, 1] and all(np.array_equal(row, rows[1]) for row in one.vectors.values())
