"""Models: how they are grown, loaded, intervened on, sampled and read."""

from em_companion.core.profiles import Profile

ADAPTERS = "adapters"  # a run may make those that are missing


def fingerprint(profile: Profile, named: frozenset[str]) -> dict[str, str]:
    """Return the chat model, and the adapters that lie here."""
    from em_companion.models import organism

    return {"chat model": organism.fingerprint(profile), ADAPTERS: organism.adapters_fingerprint(profile)}
