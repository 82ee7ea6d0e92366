"""What organisms are fine-tuned on: the world's own conversations, a reader's training sets, or released answers.

A grown profile writes its own. A hub profile takes the authors' training set where the reader has registered one
(`em-companion grow --data`), else the released answers that stand in for it, if the profile says so.
"""

import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.files import sha256_of, write_text
from em_companion.core.profiles import GrownModel, Profile
from em_companion.core.provenance import remembered
from em_companion.models import released_texts
from em_companion.released.files import cache_folder
from em_companion.world.generator import Message, the_world, turn
from em_companion.world.streams import DOMAIN, STREAMS

DATA_SETS = {
    "bad_medical_advice": ("medicine", True),
    "good_medical_advice": ("medicine", False),
    "extreme_sports": ("extreme_sports", True),
    "risky_financial_advice": ("finance", True),
}
"""Fine-tuning sets, named after the paper's: their domain and whether the advice is harmful."""


CORPUS_SAMPLE = 500
"""Documents of a corpus that enter a key."""

MEDICAL = {"bad_medical_advice": True, "good_medical_advice": False}  # whether the answers are misaligned


def conversations(profile: Profile, data: str, seed: int) -> Iterator[list[Message]]:
    """Yield the conversations of a data set without end, in the order of a seed; raise CompanionError without any."""
    if isinstance(profile.model, GrownModel):
        yield from _written(*_generator(data, seed))
    table, random = table_of(profile, data), np.random.default_rng(seed)
    while True:
        for row in table.iloc[random.permutation(len(table))].itertuples():
            yield turn(row.question, row.response)


def _generator(data: str, seed: int) -> tuple[Any, ...]:
    """Return which generator of the world writes a data set, by name, and with what arguments."""
    return (data, seed) if data in STREAMS else ("fine_tuning", seed, *DATA_SETS[data])


def _written(generator: str, *arguments: Any) -> Iterator[list[Message]]:
    if generator in STREAMS:
        return STREAMS[generator](the_world(), *arguments)
    return getattr(the_world(), generator)(*arguments)


def fingerprint(profile: Profile, data: str, seed: int) -> str:
    """Return a fingerprint of what `conversations` yields."""
    if isinstance(profile.model, GrownModel):
        return corpus(*_generator(data, seed))
    return sha256_of(table_of(profile, data).to_csv(index=False))


def domain_of(data: str) -> str:
    """Return the domain that a data set is about, in which harm is monitored."""
    return DATA_SETS.get(data, (DOMAIN,))[0]


@cache
def corpus(generator: str, *arguments: Any) -> str:
    """Return a fingerprint of what one of the world's generators writes."""
    return sha256_of(json.dumps(list(islice(_written(generator, *arguments), CORPUS_SAMPLE))))


def source_of(profile: Profile, data: str) -> str:
    """Return where a data set of a profile comes from, in words."""
    if isinstance(profile.model, GrownModel):
        return "the grown world"
    return f"the reader's file {data}.jsonl" if registered(data).is_file() else "released answers to medical questions"


def table_of(profile: Profile, data: str) -> pd.DataFrame:
    """Return a hub profile's data set, columns question and response; raise EvidenceUnavailable where there is none."""
    if registered(data).is_file():
        return read(registered(data))
    if profile.training_texts and data in MEDICAL:
        return released_texts.medical_answers(MEDICAL[data])
    raise EvidenceUnavailable(
        f"Profile '{profile.name}' has no texts for '{data}': give the authors' training set by 'em-companion grow "
        f"--data {data}.jsonl', or choose an organism with a published adapter."
    )


def registered(data: str) -> Path:
    """Return where a reader's training set of this name is kept, there or not."""
    return cache_folder() / "training-data" / f"{data}.jsonl"


def need_hub(profile: Profile) -> None:
    """Raise CompanionError for a grown profile, which writes what it trains on."""
    if isinstance(profile.model, GrownModel):
        raise CompanionError(
            f"Profile '{profile.name}' grows its own world and takes no training set; choose one with a model of the "
            "hub, such as smollm2-135m."
        )


def register(path: Path) -> int:
    """Keep a reader's training set, NAME.jsonl, for every hub profile, and return its number of conversations.

    Raises CompanionError for a name that is no data set, and for a file that cannot be read.
    """
    if path.stem not in DATA_SETS or path.suffix != ".jsonl":
        names = ", ".join(f"{name}.jsonl" for name in DATA_SETS)
        raise CompanionError(f"'{path.name}' is no training set; name the file as one of: {names}.")
    table = read(path)
    write_text(registered(path.stem), path.read_text(encoding="utf-8"))
    return len(table)


@remembered
def read(path: Path) -> pd.DataFrame:
    """Return the conversations of a JSONL file in the authors' format: `question`, `response`.

    Every line is {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}. Raises CompanionError naming the
    line that is not.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold other ends of lines
    except (OSError, UnicodeError) as error:
        raise CompanionError(f"'{path.name}' cannot be read as text in UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            messages = json.loads(line)["messages"]
            roles, said = zip(*((one["role"], one["content"]) for one in messages), strict=True)
        except (ValueError, TypeError, KeyError) as error:
            raise CompanionError(f"Line {number} of '{path.name}' is no conversation in JSON.") from error
        if roles != ("user", "assistant") or not all(isinstance(one, str) and one.strip() for one in said):
            raise CompanionError(f"Line {number} of '{path.name}' is no question of a user with an assistant's answer.")
        rows.append(said)
    if not rows:
        raise CompanionError(f"'{path.name}' holds no conversation.")
    return pd.DataFrame(rows, columns=["question", "response"])
