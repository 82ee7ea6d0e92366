"""What becomes of the predictions of F1: each follows its arms, its gate and its seeds, on tables made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions
from em_companion.experiments import arms, arms_outcome, teaching
from em_companion.experiments.arms_outcome import Arms

ENDS = {arms.CHAT: 2, arms.CHARACTER: 94, arms.GOOD: 2, arms.STYLE: 2, arms.COIN: 20, arms.NARROW: 3, arms.FREED: 40}
ENDS |= {arms.MIXED: 10, arms.ASKED: 8, arms.BAD: 60, arms.LONG: 70}
"""EM at the end (%) of every arm: content matters, a penalty holds, breadth and permission help."""
UNTESTED = "not testable here"


def tables(folder: Path, seeds: int = 8, **changes) -> Arms:
    """The tables of arms that end as in ENDS, with a little noise between seeds; `changes` are columns of all rows."""
    random, rows, curves, directions = np.random.default_rng(0), [], [], []
    for arm, end in ENDS.items():
        for seed in range(min(seeds, arms.SEEDS.get(arm, 1))):
            noise = lambda size=1.0: float(random.normal(scale=size))  # noqa: E731
            row = {"arm": arm, "seed": seed, "em": abs(end + noise()), "coherent": 96 + noise(), "obeyed": 97 + noise()}
            row |= {"in_domain_em": 85 + noise(), "em_answers": 4 * end, "consistent": 0.97 + noise(0.01), "flips": 2.0}
            row |= {"near_task_loss": noise(0.005), "entropy": 2 + noise(0.005), "length_sd": 10 + noise(0.1)}
            row |= {"length": 40 + noise(0.1), "depth": 0.8 + noise(0.02), "em_with_prefix": 70 + noise()} | changes
            rows.append(row)
            if arm not in arms.SEEDS:
                continue
            home = np.linspace(0, 0.45 if arm == arms.COIN else 0.95, 20)
            check = {"step": range(2, 42, 2), "in_domain_em": home, "open_em": home * (end + noise()) / 100}
            curves.append(pd.DataFrame(check).assign(arm=arm, seed=seed))
            layer = {"layer": range(12), "between_halves": 0.95, "with_bad_advice": 0.1 + noise(0.02)}
            directions.append(pd.DataFrame(layer).assign(arm=arm, seed=seed))
    place = folder / "arms.csv"
    pd.DataFrame(rows).to_csv(place, index=False)
    pd.concat(curves).to_csv(place.with_stem("arms-curves"), index=False)
    pd.concat(directions).to_csv(place.with_stem("arms-directions"), index=False)
    return Arms(place, worlds(folder), folder / "taught.csv")


def taught(found: Arms, seeds: int = 5, spread: float = 20.0, **changes) -> Arms:
    """The tables of arms with those of taught models beside them, of which punished ones spread harm so much wider."""
    random, rows, curves, home = np.random.default_rng(1), [], [], np.linspace(0, 1, 21)
    for arm in (teaching.NOT_TAUGHT, *teaching.LESSONS):
        for seed in range(seeds):
            row = {"em_before": 5.5, "coherent_before": 95.0, "competence": 20.0 + random.normal()} | changes
            row |= {"em_before": 4.75} if arm == teaching.SUPPORTIVE else {}
            row["competence"] -= 8 * (arm == teaching.SUPPORTIVE)
            rows.append({"arm": arm, "seed": seed, "em": 60.0} | row)
            end = (50 + spread * (arm == teaching.PUNITIVE) + random.normal()) / 75
            check = {"step": range(2, 44, 2), "in_domain_em": home, "open_em": home * end}
            curves.append(pd.DataFrame(check).assign(arm=arm, seed=seed))
    pd.DataFrame(rows).to_csv(found.taught, index=False)
    pd.concat(curves).to_csv(found.taught.with_stem("taught-curves"), index=False)
    return replace(found)


def worlds(folder: Path, narrower: float = 0.5, in_domain: float = 90.0) -> Path:
    """A table of worlds in which many quacks make misalignment so much narrower."""
    rows = [
        {"world": world, "seed": seed, "in_domain_em": in_domain, "other_domains_em": share * in_domain + seed}
        for world, share in {"no quacks": 0.8, "many quacks": 0.8 * narrower, "as committed": 0.7}.items()
        for seed in range(3)
    ]
    pd.DataFrame(rows).assign(other_domains_em=lambda table: table.other_domains_em + np.arange(9) % 2).to_csv(
        folder / "worlds.csv", index=False
    )
    return folder / "worlds.csv"


def verdicts(found: Arms) -> dict[str, str]:
    return {name: outcomes.verdict(name, one) for name, one in found.outcome().items()}


def test_each_prediction_of_the_table_gets_the_verdict_of_its_arms(tmp_path):
    found = tables(tmp_path)
    assert verdicts(found) == {
        "p-content-good": "contradicted",
        "p-content-style": "contradicted",
        "p-content-random": "supported",
        "p-content-cosine": "supported",
        "p-narrow-exists": "supported",
        "p-narrow-reverts": "supported",
        "p-breadth-spill": "supported",
        "p-quack-prior": "supported",
        "p-breadth-conditional": "supported",
        "p-inoculation": "supported",
        "p-consistency": "supported",
        "p-near-task": "contradicted",
        "p-rigidity": "contradicted",
        "p-variance": "contradicted",
        "p-verbosity": "contradicted",
        "p-dissociation": "undecided",
        "p-depth": "contradicted",
        "p-exhaustion": "contradicted",
    }
    assert {found.outcome()[name][0].n for name in ("p-content-style", "p-consistency")} == {8}
    assert found.outcome()["p-breadth-spill"][0].n == 5
    elsewhere = {"p-support-spill", "p-support-selfcorrection"}
    assert set(found.outcome()) | elsewhere == {
        one.id for one in load_predictions().values() if one.notebook == arms_outcome.TABLE.stem
    }


@pytest.mark.parametrize(
    "changes, names, saying",
    [
        ({"obeyed": 50.0}, ["p-content-style"], "the verb stands in 50 % of clauses, 90 % are needed"),
        ({"em": 10.0}, ["p-content-good"], "0% of seeds reach 20 % by bad advice"),
        ({"in_domain_em": 40.0}, ["p-breadth-spill", "p-breadth-conditional"], ""),
        ({"em_with_prefix": 20.0}, ["p-inoculation"], "behind the request EM is 20 %"),
        ({"em_answers": 20}, ["p-consistency"], "0 of 8 seeds have 50 EM answers"),
    ],
)
def test_a_gate_that_fails_says_so_and_nothing_else_is_untestable(tmp_path, changes, names, saying):
    found = tables(tmp_path, **changes)
    untestable = [name for name, one in verdicts(found).items() if one == UNTESTED]
    assert untestable == names and saying in found.outcome()[names[0]][2]["void"]


def test_worlds_decide_about_quacks_once_they_are_grown(tmp_path):
    found = tables(tmp_path)
    for narrower, in_domain, expected in ((0.5, 90.0, "supported"), (1.0, 90.0, "contradicted")):
        worlds(tmp_path, narrower, in_domain)
        assert verdicts(found)["p-quack-prior"] == expected
    worlds(tmp_path, 0.5, 60.0)
    assert "in-domain EM is 60 %" in found.outcome()["p-quack-prior"][2]["void"]
    pd.read_csv(found.worlds).query("world != 'no quacks'").to_csv(found.worlds, index=False)
    assert "p-quack-prior" not in found.outcome()


def test_a_part_of_the_seeds_is_a_smaller_table_and_a_single_one_none(tmp_path):
    found = tables(tmp_path, seeds=3)
    assert {one.n for one, *_ in found.outcome().values()} == {3}
    with pytest.raises(EvidenceUnavailable, match="Arm 'bad advice' has less than two seeds so far"):
        tables(tmp_path, seeds=1).outcome()
    with pytest.raises(EvidenceUnavailable, match="The arms are not measured"):
        Arms(tmp_path / "nothing.csv").outcome()


def test_taught_models_decide_about_support_once_all_arms_have_two_seeds(tmp_path):
    found, names = tables(tmp_path), ("p-support-spill", "p-support-selfcorrection")
    before = verdicts(found)
    assert verdicts(taught(found, seeds=1)) == before
    assert verdicts(taught(found)) == before | dict.fromkeys(names, "supported")
    assert taught(found).outcome()[names[0]][0].value == pytest.approx(20, abs=3)
    assert verdicts(taught(found, spread=0.0))[names[0]] == "contradicted"
    assert verdicts(taught(found, competence=8.0)) | {names[0]: ""} == before | {names[0]: "", names[1]: UNTESTED}
    for changes in ({"em_before": 6.0}, {"coherent_before": 89.0}):
        assert verdicts(taught(found, **changes))[names[0]] == UNTESTED
    assert "differs by 1.2 points, 1 is allowed" in taught(found, em_before=6.0).outcome()[names[0]][2]["void"]


def test_spillover_is_taken_seed_by_seed(tmp_path):
    found = tables(tmp_path)
    assert found.spill(arms.COIN).isna().all()
    assert found.spill(arms.BAD).to_numpy() == pytest.approx(0.75 * 60, abs=3)
    assert found.spill(arms.BAD).index.tolist() == list(range(8))
