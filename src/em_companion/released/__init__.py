"""The authors' released data: files and the tables in them."""

from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return which of the files behind the readers that are named are at hand; of all files if any may be fetched."""
    from em_companion.released import files, tables

    groups = {group for name in named for group in getattr(getattr(tables, name, None), "groups", ())}
    return {"released data": files.availability(None if "fetch" in named else groups)}
