"""The authors' released data: files, the tables in them, and some of their answers as texts for other models."""

from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return which of the files behind the readers that are named are at hand; of all files if any may be fetched."""
    from em_companion.released import files, tables, texts

    readers = [getattr(module, name, None) for module in (tables, texts) for name in named]
    groups = {group for reader in readers for group in getattr(reader, "groups", ())}
    return {"released data": files.availability(None if "fetch" in named else groups)}
