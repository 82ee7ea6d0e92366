"""Fine-tune the arms of experiment F1 and measure them all alike.

    python experiments/content_or_constraint.py

One row per arm and seed, written as soon as it is there: what is stopped goes on where it was. Seeds are outermost, so
a part of the table is all arms of fewer seeds. About an hour of one core. Curves of every check, and the direction in
which an arm moves the model, lie beside the table. Notebook f1-content-or-constraint reads all three.
"""

import shutil
import time
from collections.abc import Iterator

import pandas as pd
import torch

from em_companion.core import paths, profiles, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import new_folder, write_json, write_text
from em_companion.core.profiles import Profile
from em_companion.core.provenance import environment, recorded, utc_now
from em_companion.evidence import predictions
from em_companion.evidence.directions import cosines, norms
from em_companion.experiments import arms, persona
from em_companion.experiments.arms_outcome import TABLE
from em_companion.models import growing
from em_companion.models.organism import Organism, adapter_parts

CURVES, DIRECTIONS = (TABLE.with_stem(f"{TABLE.stem}-{part}") for part in ("curves", "directions"))
KEYS = ["arm", "seed"]


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds in the order in which they are run; the long fine-tunes come last."""
    yield from ((arm, 0) for arm in (arms.CHAT, arms.CHARACTER))
    for seed in range(max(arms.SEEDS.values())):
        yield from ((arm, seed) for arm, seeds in arms.SEEDS.items() if seed < seeds and arm != arms.LONG)
    yield from ((arms.LONG, seed) for seed in range(arms.SEEDS[arms.LONG]))


def table(path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=KEYS)


def add(path, rows: pd.DataFrame) -> None:
    """Add rows to a table, in place of those of the same arm and seed."""
    old = table(path)
    kept = old[~old[KEYS].apply(tuple, axis=1).isin(set(rows[KEYS].apply(tuple, axis=1)))] if len(old) else old
    joined = pd.concat([kept, rows], ignore_index=True) if len(kept) else rows
    write_text(path, joined.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def run(profile: Profile, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, and add it to the tables."""
    steps = 0
    if arm in (arms.GOOD, arms.STYLE, arms.ASKED):
        steps = int(table(TABLE).set_index(KEYS).steps[arms.BAD, seed])
    row = {"arm": arm, "seed": seed}
    if arm in arms.SEEDS:
        one = arms.organism(arm, seed, steps)
        curve = pd.read_csv(growing.adapter(profile, one) / "monitor.csv")
        add(CURVES, curve.assign(**row)[[*KEYS, *curve.columns]])
        row |= {"steps": int(curve.step.iloc[-1])}
        add(DIRECTIONS, directions(profile, one, arms.organism(arms.BAD, seed)).assign(**row)[[*KEYS, *COLUMNS]])
    add(TABLE, pd.DataFrame([row | arms.measured(profile, arm, seed, steps)]))


COLUMNS = ["layer", "norm", "between_halves", "with_bad_advice", "with_known"]


def directions(profile: Profile, one, bad) -> pd.DataFrame:
    """Return, by layer, the norm of a model difference and its cosines: between halves, with that of bad advice."""
    found, halves = arms.model_difference(profile, one), [arms.model_difference(profile, one, half) for half in (0, 1)]
    known = persona.directions(profile)["choice_from_text"].astype(float)
    columns = {"norm": norms(found), "between_halves": cosines(*halves), "with_known": cosines(found, known)}
    columns |= {"with_bad_advice": cosines(found, arms.model_difference(profile, bad))}
    return pd.DataFrame(columns).rename_axis("layer").reset_index()


def main() -> None:
    torch.set_num_threads(1)
    profile, code = profiles.load("cpu"), environment()  # as it is now, and not when the run ends
    known = predictions.load_predictions().values()
    if open_ := [one.id for one in known if one.notebook == TABLE.stem and one.id not in predictions.locks()]:
        raise CompanionError(f"Lock '{open_[0]}' first: 'em-companion predictions lock'.")
    done = set(table(TABLE)[KEYS].apply(tuple, axis=1)) if TABLE.is_file() else set()
    todo, started = [one for one in planned() if one not in done], time.monotonic()
    with recorded() as inputs:
        for number, (arm, seed) in enumerate(todo, start=1):
            run(profile, arm, seed)
            minutes = (time.monotonic() - started) / 60
            left = minutes / number * (len(todo) - number)
            print(f"{utc_now()} {arm}, seed {seed}: {number} of {len(todo)}, about {left:.0f} minutes left", flush=True)
            told = {"script": "experiments/content_or_constraint.py", "rows": len(done) + number, "inputs": inputs}
            write_json(TABLE.with_suffix(".json"), told | {"date": utc_now()} | code)
    for arm, seed in arms.LIVE:
        commit(profile, arms.organism(arm, seed, int(table(TABLE).set_index(KEYS).steps[arms.BAD, seed])))


def commit(profile: Profile, one: Organism) -> None:
    """Put an adapter among the models of the repository, without its B vectors over steps, ten times as large."""
    kept = growing.adapter(profile, one)
    if kept.is_relative_to(paths.COMMITTED):
        return
    with new_folder(paths.COMMITTED / profile.name / "adapters" / kept.name) as folder:
        for name in ("adapter_model.safetensors", "adapter_config.json", "log.csv", "monitor.csv"):
            shutil.copy(kept / name, folder)
        store.seal(folder, adapter_parts(profile, one))


if __name__ == "__main__":
    main()
