"""Judges: the exact, the fitted and served ones, and what the served ones answered, on record."""

from em_companion.core.files import sha256_of_files
from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return what the judges that a profile or a page names depend on: answers on record, files to be fitted to."""
    from em_companion.judges import records

    found = {}
    if profile.judge not in ("exact", "fitted") or "served" in named:
        found["judge records"] = sha256_of_files(records.folder(), "**/*.jsonl")
    if profile.judge == "fitted" or "fitted" in named:
        from em_companion.judges import fitted

        found["files of the fitted judge"] = fitted.availability()
    return found
