"""What every room stands on: errors, paths, files, the store, profiles, provenance."""

from em_companion.core.files import sha256_of_files
from em_companion.core.paths import RESULTS
from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return the tables kept in `data/results/`, if they are read; packs are read by no page, but put beside it."""
    return {"kept results": sha256_of_files(RESULTS, "*.csv")} if "RESULTS" in named else {}
