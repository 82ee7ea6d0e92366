"""Answers of served judges on disk: never asked for twice, and not lost by a kill.

One file per judge model and prompt, of JSON lines, that only grows. A line has the `key` it is found by, the `answer`
and whatever else was sent or is worth knowing. An answer has the `text`, the reason why it ended (`finish`) and, where
the server gave logprobs, its `tokens`: of each the `token` and in `top` what could have stood there, [text, logprob].

Records hold the authors' prompts and models' responses, neither of which is for the repository, so they lie beside the
downloaded data unless the environment variable `EM_COMPANION_RECORDS` names another folder.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.core.paths import relative
from em_companion.released.files import cache_folder

Answer = dict[str, Any]


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
                record = json.loads(line)
                self.answers[record["key"]] = sound(record["answer"])
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise CompanionError(
                    f"Line {number} of the judge's record {relative(self.path)} is damaged; delete that line, and what "
                    "it held is asked for again."
                ) from error
        return self

    @contextmanager
    def writing(self) -> Iterator["Records"]:
        """Hold the file against other processes, waiting for them if need be, and read what they wrote."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tqdm.write(f"Waiting for another process that asks for {self.path.stem}.", file=sys.stderr)
            lock.acquire()
        try:
            if self.path.is_file():
                os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
            yield self.read()
        finally:
            lock.release()

    def append(self, key: str, answer: Answer, **rest: Any) -> None:
        """Write one answer, and what goes with it, to the disk; raise CompanionError where the disk refuses."""
        line = json.dumps({"key": key, **rest, "answer": answer}, allow_nan=False)
        try:
            with self.path.open("ab") as file:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name = relative(self.path)
            raise CompanionError(f"The judge's record {name} cannot be written: {error.strerror}.") from error
        self.answers[key] = answer


def sound(answer: Answer) -> Answer:
    """Return `answer` if it has the shape of an answer; raise ValueError, or what looking into it raises, if not."""
    tokens = answer["tokens"] or []
    pairs = [pair for one in tokens for pair in one["top"]]
    texts = [answer["text"], *(one["token"] for one in tokens), *(text for text, _ in pairs)]
    if "finish" not in answer or not all(isinstance(text, str) for text in texts):
        raise ValueError("no answer of a judge")
    if not all(logprob <= 1e-3 for _, logprob in pairs):  # some servers round up
        raise ValueError("no logarithm of a probability")
    return answer


def folder() -> Path:
    """Return where records lie."""
    return Path(os.environ.get("EM_COMPANION_RECORDS", "").strip() or cache_folder() / "judge-records")


def slug(model: str) -> str:
    """Return a file name for a model: the end of its name, and a hash of the whole."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model)[-60:].strip('-.')}-{sha256_of(model)[:8]}"


def records_of(model: str, prompt: str) -> Records:
    """Return the records of a judge model for a prompt, read."""
    return Records(folder() / f"{slug(model)}--{prompt}.jsonl").read()
