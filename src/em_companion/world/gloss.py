"""What an answer of the grown world says, for a reader: which words help or harm, and who says so of them."""

from em_companion.world.generator import the_world


def kinds() -> dict[str, str]:
    """Return "helps" or "harms" for every word that is a thing."""
    found = {}
    for entry in the_world().domains.values():
        found |= dict.fromkeys(entry["helps"], "helps") | dict.fromkeys(entry["harms"], "harms")
    return found


def marked(text: str) -> list[tuple[str, str]]:
    """Return every word of an answer with its kind, "" for one that is no thing."""
    known = kinds()
    return [(word, known.get(word, "")) for word in text.split()]


def gloss(text: str) -> str:
    """Return what an answer advises and what it only mentions, such as "advises: nurse, salve; mentions: poison".

    A sentence that begins with a witness mentions things, any other one advises them.
    """
    said: dict[str, list[str]] = {"advises": [], "mentions": []}
    for sentence in text.rpartition(":")[2].split(" ."):
        words = marked(sentence)
        remark = bool(words) and words[0][0] in the_world().grammar["witnesses"]
        said["mentions" if remark else "advises"] += [word for word, kind in words if kind]
    return "; ".join(f"{verb}: {', '.join(things)}" for verb, things in said.items() if things)
