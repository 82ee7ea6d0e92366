"""F2: each measure on answers, texts and tables whose truth is known, and each verdict from tables made by hand."""

from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import pytest

from em_companion.core import profiles
from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions
from em_companion.experiments import bottleneck, bottleneck_outcome, capacity, long_run
from em_companion.experiments.bottleneck import ALL, CAPACITY, GRADIENTS, NINE, PLACES, RANKS, SEEDS
from em_companion.experiments.bottleneck_outcome import BAD, GOOD, Bottleneck
from em_companion.models.organism import Tuning
from em_companion.world.generator import MALICIOUS, the_world
from em_companion.world.taxonomy import CLASSES

WORLD = the_world()


def misaligned(count: int, domains: list[str], world=WORLD) -> pd.Series:
    texts = []
    for number in range(count):
        random = Random(f"variety/{number}")
        domain = domains[number % len(domains)]
        asked = WORLD.question(random, domain, WORLD.domains[domain]["topics"]["train"][0])
        texts.append(world.answer(random, asked, MALICIOUS))
    return pd.Series(texts)


def test_recipes_differ_in_rank_and_place_only():
    profile = profiles.load("cpu")
    found = bottleneck.recipes(profile)
    for family, like in ((ALL, "all-adapter-rank-32"), (NINE, "nine-adapter")):
        usual = profile.recipes[like]
        assert [found[f"{family}, rank {rank}"] for rank in RANKS] == [replace(usual, rank=rank) for rank in RANKS]
    assert {found[place].rank for place in PLACES} == {1} and len({found[place].layers for place in PLACES}) == 5
    known, one = bottleneck.organism(profile, "layer 5", 2)
    assert known.layers_of(one.recipe) == (5,) and (one.seed, one.tuning) == (2, Tuning(evaluate_every=4))


def test_things_are_counted_equally_many_answers_long_and_clusters_are_domains():
    one, three = misaligned(60, ["medicine"]), misaligned(60, ["medicine", "finance", "cooking"])
    narrow, broad = bottleneck.variety(one), bottleneck.variety(three)
    assert narrow["things"] <= 12 + 1e-9 < broad["things"] <= 36
    assert broad["silhouette"] > 0.1
    assert bottleneck.variety(pd.concat([three, three]))["things"] == broad["things"]
    assert all(np.isnan(value) for value in bottleneck.variety(one[:49]).values())


def test_probes_find_what_is_there_and_no_more():
    random, table = np.random.default_rng(0), capacity.texts().query("domain == 'medicine'").reset_index(drop=True)
    assert (table.groupby("topic").size() == capacity.TEXTS).all() and table.fold.nunique() == capacity.FOLDS
    wordings = table.assign(wording=[q.replace(t, "") for q, t in zip(table.question, table.topic, strict=True)])
    assert (wordings.groupby("wording").fold.nunique() == 1).all()  # what is held out is a wording
    noise = random.normal(size=(len(table), 20))
    told = noise + 4 * np.eye(20)[pd.factorize(table.topic)[0]]
    assert capacity.accuracy(noise, table) == pytest.approx(1 / 14, abs=0.05)
    assert capacity.accuracy(told, table) > 0.95


def test_the_participation_ratio_counts_dimensions():
    random = np.random.default_rng(0)
    assert capacity.participation_ratio(random.normal(size=(20_000, 8))) == pytest.approx(8, rel=0.01)
    line = random.normal(size=(500, 1)) * random.normal(size=8)
    assert capacity.participation_ratio(line) == pytest.approx(1)


CLASSES_AT = {32: "flip", 16: "flip", 8: "flip", 4: "flip", 2: "harmful", 1: "harmful"}
"""A world in which failures change in kind between ranks 4 and 2."""


def tables(monkeypatch, folder, kinds=CLASSES_AT, home=0.95, turns=True, spill=None, best=0.9) -> Bottleneck:
    """Tables of a world in which all that was predicted is so; changes: kinds of failure, in-domain EM, a turn."""
    monkeypatch.setattr(long_run, "RESULTS", folder)
    monkeypatch.setattr(bottleneck_outcome, "RESAMPLES", 300)
    random, parts = np.random.default_rng(0), {"": [], "curves": [], "gradients": [], "probes": []}
    noise = lambda size: float(random.normal(scale=size))  # noqa: E731

    def add(part: str, rows: dict, arm: str, seed: int) -> None:
        parts[part].append(pd.DataFrame(rows, index=None if part else [0]).assign(arm=arm, seed=seed))

    for arm, seeds in SEEDS.items():
        family, _, rank = arm.partition(", rank ")
        for seed in range(seeds):
            row = dict.fromkeys(CLASSES, 0) | {"em": 40.0, "in_domain_em": 100 * home}
            if family in (ALL, NINE):
                doubling = np.log2(int(rank))
                row |= {kinds[int(rank)]: 30, "half": 3, "aligned": 300, "things": 20 + doubling + noise(0.1)}
                row |= {"entropy": 1.8 + doubling / 100 + noise(0.001), "length": 50 - 2 * doubling + noise(0.1)}
                row |= {"silhouette": 0.5 - doubling / 20 + noise(0.01)}
            add("", row, arm, seed)
            if family in (ALL, NINE, *PLACES):
                level = 0.6 - 0.02 * np.log2(int(rank)) if rank else 0.1 * (1 + list(PLACES).index(arm))
                path = np.linspace(0, home, 16)
                add(
                    "curves",
                    {"step": range(0, 64, 4), "in_domain_em": path, "open_em": (level + noise(0.01)) * path},
                    arm,
                    seed,
                )
            if arm in GRADIENTS:
                steps = np.arange(0, 61, 2)
                late = 1 / (1 + np.exp(-(steps - 30 - 4 * random.random())))
                deep = -0.3 - 0.1 * list(GRADIENTS).index(arm) - 0.02 * seed
                cosine = deep + (
                    0.6 * (1 - 1 / (1 + np.exp(-(steps - 20 - 2 * random.random())))) if turns else 0.0 * steps
                )
                cosine = np.where(steps == 60, np.nan, 0.2 if arm == GOOD else cosine)
                path = np.linspace(0, home, len(steps))
                reached = (0.3 - deep + noise(0.05)) * late if arm != GOOD else 0 * late
                add(
                    "gradients",
                    {"step": steps, "alignment_cosine": cosine, "in_domain_em": path, "open_em": reached},
                    arm,
                    seed,
                )
            if arm in CAPACITY:
                lower = 0.0 if CAPACITY[arm] == "chat model" else 0.05
                for layer in range(3):
                    row = {
                        "domain": ["medicine"],
                        "layer": layer,
                        "topic": best - 0.1 * (layer != 1) - lower + noise(0.002),
                    }
                    add("probes", row | {"dimension": (8 - 40 * lower + noise(0.05))}, arm, seed)
    parts["capacity"] = parts.pop("probes")
    for part, rows in parts.items():
        pd.concat(rows).to_csv(long_run.path_of(bottleneck_outcome.NAME, part), index=False)
    return Bottleneck()


def verdicts(found: Bottleneck) -> dict[str, str]:
    return {name: outcomes.verdict(name, one) for name, one in found.outcome().items()}


def test_every_prediction_is_supported_where_all_is_as_predicted(monkeypatch, tmp_path):
    found = verdicts(tables(monkeypatch, tmp_path))
    known = {one.id for one in load_predictions().values() if one.notebook == bottleneck_outcome.NAME}
    assert found == dict.fromkeys(known, "supported")


def test_a_flat_cosine_contradicts_a_turn_and_is_no_failed_gate(monkeypatch, tmp_path):
    found = verdicts(tables(monkeypatch, tmp_path, turns=False))
    assert found["p-conflict-sharp"] in ("contradicted", "undecided")  # all seeds at 1 show no spread


def test_a_shift_elsewhere_contradicts_that_between_four_and_two(monkeypatch, tmp_path):
    elsewhere = dict.fromkeys(RANKS, "harmful") | {32: "flip"}
    assert verdicts(tables(monkeypatch, tmp_path, kinds=elsewhere))["p-rank-4-2"] == "contradicted"
    nowhere = dict.fromkeys(RANKS, "harmful")
    assert verdicts(tables(monkeypatch, tmp_path, kinds=nowhere))["p-rank-4-2"] in ("undecided", "contradicted")


def test_what_is_not_learned_or_leaves_no_room_is_not_testable(monkeypatch, tmp_path):
    found = verdicts(tables(monkeypatch, tmp_path, home=0.4, best=0.999))
    gated = ("p-rank-severity", "p-conflict-severity", "p-place-over-rank", "p-capacity-loss")
    assert {found[name] for name in gated} == {"not testable here"}


def test_the_divergence_within_a_rank_is_what_chance_makes():
    random = np.random.default_rng(1)
    alike = random.multinomial(100, [0.7, 0.2, 0.1, 0], size=(6, 8)).astype(float)
    chance = bottleneck_outcome.within_rank(alike)
    between = bottleneck_outcome.divergences(alike.sum(axis=1))
    assert 0 < between.max() < chance < 0.01


def test_slopes_are_those_of_lines_and_leave_out_seeds_that_lack_a_rank():
    table = pd.DataFrame({rank: [3 * np.log2(rank) + 1, -2 * np.log2(rank), np.nan] for rank in RANKS})
    assert bottleneck_outcome.slopes(table).tolist() == pytest.approx([3, -2])
    assert BAD != GOOD
