"""Locking predictions. Apart from `evidence.predictions`, which every page reads, since it looks at kept results."""

from collections.abc import Collection

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import write_json
from em_companion.core.paths import relative
from em_companion.core.provenance import utc_now
from em_companion.evidence import predictions


def lock(names: Collection[str] = ()) -> list[str]:
    """Lock predictions (default: all that are not) as the last commit has them, and return their ids.

    Raises CompanionError for an unknown or locked one, where the registry is not committed, and where a result table
    of its notebook exists: then it is too late.
    """
    known, there = predictions.load_predictions(), predictions.locks()
    chosen = list(names) or [name for name in known if name not in there]
    for name in chosen:
        if name not in known or name in there:
            state = "locked already" if name in there else f"not in {relative(predictions.PREDICTIONS)}"
            raise CompanionError(f"Prediction '{name}' is {state}.")
        if found := sorted(paths.RESULTS.glob(f"{known[name].notebook}*")):
            raise CompanionError(f"It is too late to lock '{name}': {relative(found[0])} holds results.")
    commit = paths.git("rev-parse", "HEAD")
    if not commit or paths.git("status", "--porcelain", str(predictions.PREDICTIONS)):
        raise CompanionError(
            f"Commit {relative(predictions.PREDICTIONS)} first; a lock names the commit that holds it."
        )
    new = {name: {"commit": commit, "date": utc_now(), "sha256": predictions.digest(known[name])} for name in chosen}
    write_json(predictions.LOCK, there | new)
    return chosen
