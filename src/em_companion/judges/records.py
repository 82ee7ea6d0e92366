"""Answers of served judges on disk: never asked for twice, and not lost by a kill.

One file per judge model and prompt, of JSON lines, that only grows; records hold the authors' prompts and models'
responses, neither of which is for the repository, so they lie elsewhere (`folder`).
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired

from filelock import FileLock, Timeout
from pydantic import Field, TypeAdapter
from tqdm.auto import tqdm
from typing_extensions import TypedDict

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.core.paths import relative
from em_companion.released.files import cache_folder


class Token(TypedDict):
    """A token of an answer, and in `top` what could have stood there: text and log-probability."""

    token: str
    top: list[tuple[str, Annotated[float, Field(le=1e-3, allow_inf_nan=False)]]]  # some servers round up


class Answer(TypedDict):
    """The text of an answer, its tokens where the server gave logprobs, why it ended, and the model that answered."""

    text: str
    tokens: list[Token] | None
    finish: str | None
    model: NotRequired[str | None]


ANSWER, LINE = TypeAdapter(Answer), TypeAdapter(TypedDict("Line", {"key": str, "answer": Answer}))


@dataclass
class Records:
    """The answers of one judge to one prompt, by key, as last read from the file at `path`.

    Every line is on the disk before the next is begun. A last line without its end was cut off by a kill: it is passed
    over when read, and cut away before the next is written.
    """

    path: Path
    answers: dict[str, Answer] = field(default_factory=dict)

    def read(self) -> "Records":
        """Read what the file holds now; raise CompanionError, with the line, where it is damaged."""
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = LINE.validate_json(line)
            except ValueError:  # which holds what was judged
                raise CompanionError(
                    f"Line {number} of the judge's record {relative(self.path)} is damaged; delete that line, and what "
                    "it held is asked for again."
                ) from None
            self.answers[record["key"]] = record["answer"]
        return self

    @contextmanager
    def writing(self) -> Iterator["Records"]:
        """Hold the file against other processes, waiting for them if need be, and read what they wrote."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            tqdm.write(f"Waiting for another process that asks for {self.path.stem}.", file=sys.stderr)
            held = lock.acquire()
        with held:
            if self.path.is_file():
                os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
            yield self.read()

    def append(self, key: str, answer: Answer, **rest: Any) -> None:
        """Write one answer, and what goes with it, to the disk."""
        line = json.dumps({"key": key, **rest, "answer": answer}, allow_nan=False)
        with self.path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.answers[key] = answer


def folder() -> Path:
    """Return where records lie: beside the downloaded data, or in the folder `EM_COMPANION_RECORDS`."""
    return Path(os.environ.get("EM_COMPANION_RECORDS", "").strip() or cache_folder() / "judge-records")


def slug(model: str) -> str:
    """Return a file name for a model: the end of its name, and a hash of the whole."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model)[-60:].strip('-.')}-{sha256_of(model)[:8]}"


def records_of(model: str, prompt: str) -> Records:
    """Return the records of a judge model for a prompt, read."""
    return Records(folder() / f"{slug(model)}--{prompt}.jsonl").read()
