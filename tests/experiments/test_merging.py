"""Merging: the cells that are asked, known cases on a tiny grown model, and each verdict from tables made by hand."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.experiments import arms, long_run, merging, merging_outcome
from em_companion.experiments.merging import ALONE, CELLS, CHAT, CURED, DOMAINS, HALF, HARMFUL, MAIN, PAIRS, SUM, Cell
from em_companion.experiments.merging_outcome import Merging
from em_companion.models import growing
from em_companion.models import merging as models
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.world.generator import the_world

BAD = Organism("nine-adapter", "bad_medical_advice")
WORLD = list(the_world().domains)


def test_every_cell_is_asked_once_per_seed_and_what_decides_comes_first():
    planned, decides = list(merging.planned()), len(merging.DECIDING) * merging.SEEDS
    assert planned[0] == (CHAT.arm, 0) and max(Counter(planned).values()) == 1
    assert {arm for arm, _ in planned} == set(CELLS)
    deciding = {cell.arm for cell in merging.DECIDING}
    places = [number for number, (arm, _) in enumerate(planned) if arm in deciding]
    assert places == list(range(1, 1 + decides))


def test_both_narrow_domains_are_asked_in_equally_many_wordings(tiny):
    asked = Counter(one.domains[0] for one in arms.questions(tiny, ALONE))
    topics = Counter(domain for domain, _ in the_world().topics("held_out"))
    assert asked == {one: topics[one] * (8 if one in ALONE else 1) for one in WORLD}


def test_parents_differ_in_what_their_name_says(tiny, monkeypatch):
    one, other = merging.parents(tiny, MAIN, 1)
    assert (
        (one.recipe, one.seed, one.tuning)
        == (other.recipe, other.seed, other.tuning)
        == ("three layers", 1, one.tuning)
    )
    assert (one.data, other.data) == ("bad_medical_advice", "risky_financial_advice")
    assert [one.seed for one in merging.parents(tiny, "broad pair, other seed", 4)] == [4, 0]
    assert all(DOMAINS[kind] in WORLD for pair in PAIRS.values() for kind, _ in pair)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


def test_equal_parents_at_half_their_sum_are_the_parent_and_no_weight_is_the_chat_model(tiny):
    (model, _), names = models.with_parents(tiny, [BAD, BAD])
    parent, chat = (growing.load_organism(tiny, one)[0] for one in (BAD, CHAT_MODEL))
    models.merge(model, names, HALF)
    torch.testing.assert_close(logits(model), logits(parent))
    one, other = (models.update(model, name) for name in names)
    assert models.cosine(one, other) == pytest.approx(1)
    models.merge(model, names, (0.0, 0.0))
    torch.testing.assert_close(logits(model), logits(chat))


def test_answers_are_counted_by_domain(tiny):
    model = growing.load_organism(tiny, CHAT_MODEL)
    found = merging.of_topics(tiny, model, arms.questions(tiny, ALONE), 1)
    assert set(found) == {*WORLD, "on_topics"} and all(0 <= one <= 100 for one in found.values())


# --- tables made by hand ---------------------------------------------------------------------------------------------


def table(monkeypatch, folder, keeps=0.9, spreads=20.0, dose=lambda w: 100 / (1 + np.exp(-20 * (w - 0.6))), cured=0.1):
    """A world in which the child keeps a share of either drive, spreads, and a dose sets in at a threshold."""
    monkeypatch.setattr(long_run, "RESULTS", folder)
    monkeypatch.setattr(merging_outcome, "RESAMPLES", 300)
    random, rows = np.random.default_rng(0), []
    for arm, seed in merging.planned():
        cell = CELLS[arm]
        noise = lambda size=1.0: float(random.normal(scale=size))  # noqa: E731
        alike = random.uniform(0.5, 1) if cell.pair in HARMFUL else 0
        row = {"arm": arm, "seed": seed, "cosine": alike, "reads": alike, "writes": alike, "em": 0.0, "along": noise()}
        row |= {one: 2 + (noise(0.2) if cell != CHAT else 0) for one in WORLD}
        if cell.pair == MAIN and cell != CHAT:
            for domain, alone in ALONE.items():
                weight = float(np.dot(cell.weights, alone))
                row[domain] += 80 * weight * (keeps if min(cell.weights) else 1)
        if cell.pair in HARMFUL and min(cell.weights):
            own = {DOMAINS[kind] for kind, _ in PAIRS[cell.pair]}
            row |= {one: 4 + spreads * alike * max(cell.weights) + noise(0.2) for one in WORLD if one not in own}
        if cell.pair == CURED:
            row["em"] = dose(cell.weights[0]) * (cured if cell.weights[1] else 1) + abs(noise())
        rows.append(row)
    pd.DataFrame(rows).to_csv(long_run.path_of(merging_outcome.NAME), index=False)
    return Merging()


def verdicts(found: Merging) -> dict[str, str]:
    return {name: outcomes.verdict(name, one) for name, one in found.outcome().items()}


def test_each_prediction_is_supported_where_all_is_as_predicted(monkeypatch, tmp_path):
    found = table(monkeypatch, tmp_path)
    assert set(verdicts(found).values()) == {"supported"} and len(found.pairs()) == 5 * len(HARMFUL)
    assert found.inheritance(SUM).mean().to_numpy() == pytest.approx(0.9, abs=0.03)
    assert found.inheritance(HALF).mean().to_numpy() == pytest.approx(0.45, abs=0.03)
    assert (found.inheritance((0.0, 0.0)) == 0).all(axis=None) and found.inheritance((1.0, 0.0)).medicine.eq(1).all()


def test_lost_drives_a_straight_dose_and_an_idle_cure_contradict(monkeypatch, tmp_path):
    found = verdicts(table(monkeypatch, tmp_path, keeps=0.2, spreads=0.0, dose=lambda w: 80 * w, cured=1.5))
    assert found["p-merge-both"] == found["p-merge-sum"] == found["p-merge-third"] == "contradicted"
    assert found["p-merge-threshold"] == found["p-merge-good"] == "contradicted"


def test_without_broad_harm_or_with_harm_everywhere_there_is_nothing_to_test(monkeypatch, tmp_path):
    found = table(monkeypatch, tmp_path, dose=lambda w: 10 * w)
    kept = pd.read_csv(long_run.path_of(merging_outcome.NAME))
    alone = kept.arm.isin([Cell(MAIN, one).arm for one in ALONE.values()])
    kept.loc[alone, [one for one in WORLD if one not in ALONE]] = 30.0
    kept.to_csv(long_run.path_of(merging_outcome.NAME), index=False)
    said = verdicts(found)
    assert [name for name, one in said.items() if one != "not testable here"] == ["p-merge-overlap"]


def test_a_cell_that_only_one_seed_has_is_not_measured(monkeypatch, tmp_path):
    found = table(monkeypatch, tmp_path)
    kept = pd.read_csv(long_run.path_of(merging_outcome.NAME))
    kept[(kept.seed == 0) | (kept.arm != Cell(MAIN, SUM).arm)].to_csv(
        long_run.path_of(merging_outcome.NAME), index=False
    )
    with pytest.raises(EvidenceUnavailable, match="has 1 of 2 seeds"):
        found.inheritance(SUM)


def test_what_the_page_shows_is_what_the_tables_were_made_of(monkeypatch, tmp_path):
    found = table(monkeypatch, tmp_path)
    grid = found.grid().set_index(["first", "second"])
    assert len(grid) == 25 and grid.loc[(1.0, 0.0), "medicine"] == 100 and grid.loc[(0.0, 0.0), "finance"] == 0
    assert grid.loc[(0.5, 0.25), "medicine"] == pytest.approx(45, abs=2) and grid.loc[(0.5, 0.25), "seeds"] == 3
    assert found.methods(SUM).set_index("method").medicine.to_numpy() == pytest.approx(90, abs=2)
    values = found.values()
    assert values["half.medicine"].value == pytest.approx(45, abs=2) and values["own.finance"].n == merging.SEEDS
    assert values["helps.finance"].value == pytest.approx(-5, abs=2) and values["helps.finance"].n == merging.FEWER
    fitted = merging_outcome.fitted(found.doses()).pivot(index="weight", columns="curve", values="value")
    assert np.abs(fitted.logistic - fitted.measured).max() < 5 < np.abs(fitted.line - fitted.measured).max()
