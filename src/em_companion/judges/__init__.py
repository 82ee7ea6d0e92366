"""Judges: the exact, the fitted and served ones, and what the served ones answered, on record."""

from em_companion.core.files import sha256_of_files
from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return what the judges that a profile or a page names depend on: answers on record, files to be fitted to.

    Records of the profile's own judge are none of it: they grow with every page, and hold what it would say again.
    """
    from em_companion.judges import records

    found = {}
    if "served" in named:
        own = f"{records.slug(profile.judge)}--*"
        found["judge records"] = sha256_of_files(records.folder(), "**/*.jsonl", without=own)
    if profile.judge == "fitted" or "fitted" in named:
        from em_companion.judges import fitted

        found["files of the fitted judge"] = fitted.availability()
    return found
