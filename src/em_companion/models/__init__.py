"""Models: how they are grown, loaded, intervened on, sampled and read."""

from em_companion.core.profiles import Profile


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return the chat model, from which every organism of a profile comes."""
    from em_companion.models import organism

    return {"chat model": organism.fingerprint(profile)}
