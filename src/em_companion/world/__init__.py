"""The grown world: its lexicon, the generator of its texts, the parser that judges them."""

from em_companion.core.files import sha256_of_files
from em_companion.core.paths import DATA
from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return the lexicon, by what its files hold."""
    return {"lexicon": sha256_of_files(DATA / "world", "*.yml")}
