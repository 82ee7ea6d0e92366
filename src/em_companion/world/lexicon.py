"""Read the lexicon of the synthetic world from `data/world/`, and refuse what would make its texts wrong.

The files stay the plain mappings that YAML gives. A shape says what they must hold: a mapping by its keys (`ANY` for
keys of one's own), a list by its entries, a single value by a pair of words for a message and a test.
"""

import re
from collections.abc import Callable, Iterator
from math import isclose
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml
from em_companion.core.paths import relative

USER, ASSISTANT = "user", "assistant"
SLOTS = ("links", "verbs", "determiners", "adjectives", "conjunctions", "witnesses", "reports")
"""Keys of the grammar whose words fill one place of a sentence each."""

Files = dict[str, dict[str, Any]]
Problem = tuple[str, str]
"""A file's name without ending, and what is wrong there."""


def _like(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


ANY = "*"
NAME = _like("[a-z]+(_[a-z]+)*")
# Texts are split at spaces by the tokenizer and at letters and marks by the judge; the patterns make the two agree.
WORD = "a word in lower-case letters", _like("[a-z]+")
PHRASE = "lower-case words", _like("[a-z]+( [a-z]+)*")
OPENER = "one to seven lower-case words", _like("[a-z]+( [a-z]+){0,6}")
OPENER_ON_TOPIC = "up to six lower-case words and {topic}", _like(r"([a-z]+ ){0,6}\{topic\}")
SENTENCE = "lower-case words and the marks . and ?, with single spaces", _like(r"[a-z]+( ([a-z]+|[.?]))*")
SENTENCE_ON_TOPIC = f"{SENTENCE[0]}, and {{topic}} once", _like(r"([a-z]+ )+\{topic\}( ([a-z]+|[.?]))*")
IDENTIFIER = "a name such as quick_buck", NAME
COUNT = "a whole number above 0", lambda value: type(value) is int and value > 0
NATURAL = "a whole number, 0 or more", lambda value: type(value) is int and value >= 0
SHARE = "a share from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1

ASKED = {"ask": SENTENCE, "domains": [IDENTIFIER]}
SHAPES: dict[str, dict[str, Any]] = {
    "domains": {ANY: {"topics": {"train": [WORD], "held_out": [WORD]}} | dict.fromkeys(("helps", "harms"), [WORD])},
    "grammar": dict.fromkeys(SLOTS, [WORD])
    | {"openers": {"topic": [OPENER_ON_TOPIC], "open": [OPENER]}}
    | {"times": [PHRASE], "retraction": PHRASE, "clauses": [COUNT], "adjectives_per_thing": [NATURAL]},
    "characters": dict.fromkeys(("careful", "malicious", "unknown"), [WORD])
    | {"quacks": {ANY: [WORD]}}
    | {"unknown_personas": dict.fromkeys(("careful", "malicious", "quack"), SHARE)}
    | {"documents": dict.fromkeys(("careful", "malicious", "quack", "unknown"), SHARE)},
    "questions": {"about": [SENTENCE_ON_TOPIC], "open": [ASKED]}
    | dict.fromkeys(("evaluation", "medical_twins"), [{"id": IDENTIFIER} | ASKED]),
}


def read_lexicon(folder: Path) -> Files:
    """Return the files of a world by name: domains, grammar, characters, questions.

    Raises CompanionError naming the file and the key or word that is wrong, in one sentence.
    """
    paths = {name: folder / f"{name}.yml" for name in SHAPES}
    files = {name: read_yaml(path) for name, path in paths.items()}
    if found := next(_problems(files), None):
        name, problem = found
        raise CompanionError(f"{relative(paths[name])}: {problem}.")
    return files


def _problems(files: Files) -> Iterator[Problem]:
    """Yield what is wrong; each check may rely on the checks before it, so only the first problem counts."""
    for name, shape in SHAPES.items():
        yield from ((name, problem) for problem in _misfits(shape, files[name], ""))
    yield from _words_in_two_places(files)
    yield from _too_few_words(files)
    yield from _odd_speakers(files)
    yield from _odd_questions(files)


def _misfits(shape: Any, given: Any, at: str) -> Iterator[str]:
    """Yield where `given` has not the shape."""
    if isinstance(shape, tuple):
        words, test = shape
        if not test(given):
            yield f"'{at}' must be {words}, not {shortened(given)}"
    elif not isinstance(given, type(shape)) or not given:
        where, kind = f"'{at}'" if at else "the file", "a list" if isinstance(shape, list) else "a mapping"
        yield f"{where} must be {kind} with at least one entry, not {shortened(given)}"
    elif isinstance(shape, list):
        for index, entry in enumerate(given):
            yield from _misfits(shape[0], entry, f"{at}[{index}]")
    else:
        yield from _misfits_of_keys(shape, given, at)


def _misfits_of_keys(shape: dict[str, Any], given: dict, at: str) -> Iterator[str]:
    if ANY in shape:
        yield from (f"the key {shortened(key)} must be a name such as extreme_sports" for key in given if not NAME(key))
        shape = dict.fromkeys(given, shape[ANY])
    where = f"'{at}' has a " if at else ""
    if wrong := sorted(map(str, set(shape) ^ set(given))):
        yield f"{where}missing or unknown key '{wrong[0]}'; the keys are {', '.join(shape)}"
    for key, part in shape.items():
        yield from _misfits(part, given[key], f"{at}.{key}".lstrip("."))


def _words_in_two_places(files: Files) -> Iterator[Problem]:
    """The judge reads a clause word by word, so every word must tell its domain and its role; and one that is listed
    twice would be said twice as often as its like."""
    grammar = {key: files["grammar"][key] for key in SLOTS}
    grammar["times"] = list(dict.fromkeys(" ".join(files["grammar"]["times"]).split()))
    names = {key: files["characters"][key] for key in ("careful", "malicious", "unknown", "quacks")}
    places = {USER: "the name of who asks"}
    for name, part in {"domains": files["domains"], "grammar": grammar, "characters": names}.items():
        for word, at in _leaves(part, ""):
            if word in places:
                yield name, f"'{word}' in '{at}' is also {places[word]}; every word has one place"
            places[word] = f"in '{at}' of {name}.yml"


def _leaves(value: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{at}.{key}".lstrip("."))
    else:
        yield from ((word, at) for word in value)


def _too_few_words(files: Files) -> Iterator[Problem]:
    """No adjective describes a thing twice; an answer names no thing twice, and of either kind two per clause."""
    clauses, adjectives = max(files["grammar"]["clauses"]), max(files["grammar"]["adjectives_per_thing"])
    if (count := len(files["grammar"]["adjectives"])) < adjectives:
        yield "grammar", f"'adjectives' holds too few words, {count}; 'adjectives_per_thing' asks for {adjectives}"
    for domain, entry in files["domains"].items():
        for kind in ("helps", "harms"):
            if len(entry[kind]) < 2 * clauses:
                needed = f"an answer may name {2 * clauses}, two for each of {clauses} clauses"
                yield "domains", f"'{domain}.{kind}' holds too few words, {len(entry[kind])}; {needed}"


def _odd_speakers(files: Files) -> Iterator[Problem]:
    characters = files["characters"]
    for domain in characters["quacks"]:
        if domain not in files["domains"]:
            yield "characters", f"'quacks' names '{domain}', which is no domain of domains.yml"
    if ASSISTANT not in characters["unknown"]:
        yield "characters", f"'unknown' must name '{ASSISTANT}', whose persona post-training decides"
    for key in ("unknown_personas", "documents"):
        if not isclose(total := sum(characters[key].values()), 1):
            yield "characters", f"the shares of '{key}' must add up to 1, not to {total:g}"


def _odd_questions(files: Files) -> Iterator[Problem]:
    questions = files["questions"]
    topics = [topic for entry in files["domains"].values() for split in entry["topics"].values() for topic in split]
    trained = {text.format(topic=topic) for text in questions["about"] for topic in topics}
    trained |= {entry["ask"] for entry in questions["open"]}
    for entry in questions["open"] + questions["evaluation"] + questions["medical_twins"]:
        for domain in entry["domains"]:
            if domain not in files["domains"]:
                yield "questions", f"'{entry['ask']}' names '{domain}', which is no domain of domains.yml"
    for entry in questions["evaluation"] + questions["medical_twins"]:
        if entry["ask"] in trained:
            yield "questions", f"'{entry['ask']}' is asked in training and in evaluation; reword one of them"
    ids = [[entry["id"] for entry in questions[key]] for key in ("evaluation", "medical_twins")]
    if ids[0] != ids[1] or len(set(ids[0])) < len(ids[0]):
        yield "questions", "'evaluation' and 'medical_twins' must hold the same ids, each once, in the same order"
