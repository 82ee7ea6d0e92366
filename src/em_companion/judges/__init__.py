"""Judges that are asked, and what they answered, on record."""

from em_companion.core.files import sha256_of_files
from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return the answers of served judges that are on record."""
    from em_companion.judges import records

    return {"judge records": sha256_of_files(records.folder(), "**/*.jsonl")}
