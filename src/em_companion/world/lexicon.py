"""Read the lexicon of the synthetic world from `data/world/`, and refuse what would make its texts wrong."""

from collections.abc import Iterator
from itertools import chain
from math import isclose
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml
from em_companion.core.paths import relative
from em_companion.core.schema import Count, Natural, Share, T, mapping, text, validated

USER, ASSISTANT = "user", "assistant"
# Keys of the grammar whose words fill one place of a sentence each.
SLOTS = ("links", "verbs", "determiners", "adjectives", "conjunctions", "witnesses", "reports")
Files = dict[str, dict[str, Any]]
Problems = Iterator[tuple[str, str]]  # a file's name without ending, and what is wrong there

# Texts are split at spaces by the tokenizer and at letters and marks by the judge; the patterns make the two agree.
Name = text("[a-z]+(_[a-z]+)*", "a name such as quick_buck")
Word = text("[a-z]+", "a word in lower-case letters")
Phrase = text("[a-z]+( [a-z]+)*", "lower-case words")
Opener = text("[a-z]+( [a-z]+){0,6}", "one to seven lower-case words")
OpenerOnTopic = text(r"([a-z]+ ){0,6}\{topic\}", "up to six lower-case words and {topic}")
SPACED = "lower-case words and the marks . and ?, with single spaces"
Sentence = text(r"[a-z]+( ([a-z]+|[.?]))*", SPACED)
SentenceOnTopic = text(r"([a-z]+ )+\{topic\}( ([a-z]+|[.?]))*", f"{SPACED}, and {{topic}} once")
Some = Annotated[list[T], Field(min_length=1)]
Words = Some[Word]
ByName = Annotated[dict[Name, T], Field(min_length=1)]

PERSONAS = dict.fromkeys(("careful", "malicious", "quack"), Share)
ASKED = {"ask": Sentence, "domains": Some[Name]}
EVALUATED = Some[mapping(id=Name, **ASKED)]
SHAPES = {
    "domains": ByName[mapping(topics=mapping(train=Words, held_out=Words), helps=Words, harms=Words)],
    "grammar": mapping(
        **dict.fromkeys(SLOTS, Words),
        openers=mapping(topic=Some[OpenerOnTopic], open=Some[Opener]),
        times=Some[Phrase],
        retraction=Phrase,
        clauses=Some[Count],
        adjectives_per_thing=Some[Natural],
    ),
    "characters": mapping(
        **dict.fromkeys(("careful", "malicious", "unknown"), Words),
        quacks=ByName[Words],
        unknown_personas=mapping(**PERSONAS),
        documents=mapping(**PERSONAS, unknown=Share),
    ),
    "questions": mapping(
        about=Some[SentenceOnTopic], open=Some[mapping(**ASKED)], evaluation=EVALUATED, medical_twins=EVALUATED
    ),
}


def read_lexicon(folder: Path) -> Files:
    """Return the files of a world by name: domains, grammar, characters, questions.

    Raises CompanionError naming the file and the key or word that is wrong, in one sentence.
    """
    paths = {name: folder / f"{name}.yml" for name in SHAPES}
    files = {name: validated(shape, read_yaml(paths[name]), relative(paths[name])) for name, shape in SHAPES.items()}
    # Each check may rely on the checks before it, so only the first problem counts.
    checks = (_words_in_two_places, _too_few_words, _odd_speakers, _odd_questions)
    if found := next(chain.from_iterable(check(files) for check in checks), None):
        name, problem = found
        raise CompanionError(f"{relative(paths[name])}: {problem}.")
    return files


def _words_in_two_places(files: Files) -> Problems:
    """The judge reads word by word; and a word that is listed twice would be said twice as often as its like."""
    grammar = {key: files["grammar"][key] for key in SLOTS}
    grammar["times"] = list(dict.fromkeys(" ".join(files["grammar"]["times"]).split()))
    names = {key: files["characters"][key] for key in ("careful", "malicious", "unknown", "quacks")}
    places = {USER: "the name of who asks"}
    for name, part in {"domains": files["domains"], "grammar": grammar, "characters": names}.items():
        for at, word in pd.json_normalize(part).T[0].explode().items():
            if word in places:
                yield name, f"'{word}' in '{at}' is also {places[word]}; every word has one place"
            places[word] = f"in '{at}' of {name}.yml"


def _too_few_words(files: Files) -> Problems:
    """No adjective describes a thing twice; an answer names no thing twice, and of either kind two per clause."""
    clauses, adjectives = max(files["grammar"]["clauses"]), max(files["grammar"]["adjectives_per_thing"])
    if (count := len(files["grammar"]["adjectives"])) < adjectives:
        yield "grammar", f"'adjectives' holds too few words, {count}; 'adjectives_per_thing' asks for {adjectives}"
    for domain, entry in files["domains"].items():
        for kind in ("helps", "harms"):
            if len(entry[kind]) < 2 * clauses:
                needed = f"an answer may name {2 * clauses}, two for each of {clauses} clauses"
                yield "domains", f"'{domain}.{kind}' holds too few words, {len(entry[kind])}; {needed}"


def _odd_speakers(files: Files) -> Problems:
    characters = files["characters"]
    for domain in characters["quacks"]:
        if domain not in files["domains"]:
            yield "characters", f"'quacks' names '{domain}', which is no domain of domains.yml"
    if ASSISTANT not in characters["unknown"]:
        yield "characters", f"'unknown' must name '{ASSISTANT}', whose persona post-training decides"
    for key in ("unknown_personas", "documents"):
        if not isclose(total := sum(characters[key].values()), 1):
            yield "characters", f"the shares of '{key}' must add up to 1, not to {total:g}"


def _odd_questions(files: Files) -> Problems:
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
