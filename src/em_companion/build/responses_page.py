"""The data of the response browser: judged responses split into one small script per condition.

A page opened from disk may not fetch files, but it may load scripts, so each file is a call that hands its data to the
page (`window.emResponses.start(...)` for the index, `.receive(id, rows)` for a condition). The rule: nothing is left
out and nothing is capped; the page loads the index first and a condition when its reader chooses it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from em_companion.core.errors import CompanionError
from em_companion.core.files import new_folder
from em_companion.released import files, tables

COLUMNS = ["question_id", "sample", "question", "response", *tables.SCORES]


@dataclass(frozen=True)
class Group:
    """Conditions that are listed together: how to read them and how to name one, from the columns of its first row.

    incomplete: the group of sources that `read` takes what it can get of, "" where it needs them all.
    """

    title: str
    read: Callable[[], pd.DataFrame]
    label: str
    incomplete: str = ""


@dataclass(frozen=True)
class Condition:
    """A condition in the index: its data file, its number of responses, the least and greatest of each score given."""

    id: str
    group: str
    label: str
    file: str
    n: int
    scores: dict[str, list[float | None]]


def _organisms() -> pd.DataFrame:
    """Return the organisms, the paper's own first: the page opens with the first condition."""
    frame = tables.read_organisms(text=True)
    return frame.sort_values("organism", key=lambda names: names != "nine-adapter", kind="stable")


def _first_judging() -> pd.DataFrame:
    frame = tables.read_judge_repeat(text=True)
    return frame[frame.judging == "first"]


def _patching() -> pd.DataFrame:
    """Return the patching runs with answers under own and under swapped scalars as two conditions of each source."""
    frame = tables.read_patching(text=True)
    scalars = frame.patched.map({True: "swapped", False: "own"})
    return frame.assign(source=frame.source + "-" + scalars, scalars=scalars)


def _steering() -> pd.DataFrame:
    frame = tables.read_steering(text=True)
    steered = frame.vector + " vector, λ = " + frame["lambda"].astype(str)
    return frame.assign(steered=steered.where(frame.vector != "none", "not steered"))


def _ablation_pilots() -> pd.DataFrame:
    frame = tables.read_ablation_pilots(text=True)
    ablated = frame.direction + " direction, " + frame.layers
    return frame.assign(ablated=ablated.where(frame.direction != "none", "nothing"))


GROUPS = (
    Group("Model organisms", _organisms, "{organism}, seed {seed}"),
    Group("Medical questions", _first_judging, "nine-adapter, medical questions"),
    Group("Training curve", partial(tables.read_training_curve, text=True), "{epochs}-epoch run, step {step}"),
    Group("Steering at layer 24", _steering, "{model}, {steered}", "steering_layer_24"),
    Group("Scaled adapters", partial(tables.read_lora_steering, text=True), "{condition}"),
    Group("Ablation pilots", _ablation_pilots, "{model}, batch {batch}, ablated: {ablated}"),
    Group("Swapped LoRA scalars", _patching, "{runs} runs, {pairs} pairs, {scalars} scalars"),
    Group("Replication", partial(tables.read_replication, text=True), "{base_model}, {dataset}, seed {seed}"),
)


def export_responses(target: Path) -> dict[str, Any]:
    """Write all responses at hand below `target` and return the index, as `export_frames` does.

    A group whose released data are not at hand is left out and named under `missing` in the index. Raises
    ReleasedDataUnavailable if there is no group at all, and leaves `target` as it was.
    """
    frames, missing = [], []
    for group in GROUPS:
        try:
            frames.append((group.title, group.label, group.read()))
        except files.ReleasedDataUnavailable:
            missing.append(group.title)
            continue
        if absent := tables.missing_sources(group.incomplete):
            missing.append(f"{len(absent)} conditions of {group.title.lower()}")
    if not frames:
        raise files.ReleasedDataUnavailable(
            "None of the released responses is at hand, so there is nothing to browse; run 'em-companion fetch --all' "
            "first, or build without INCLUDE_RESPONSES."
        )
    return export_frames(target, frames, missing)


def export_frames(
    target: Path, frames: Iterable[tuple[str, str, pd.DataFrame]], missing: Iterable[str] = ()
) -> dict[str, Any]:
    """Write `index.js` and one script per condition into a new folder that then replaces `target`; return the index.

    frames: (group title, label pattern, responses) with the columns `source`, COLUMNS and those the pattern names; a
    condition is the rows of one `source`. The index holds `columns`, `missing` and `conditions`, each with `id`,
    `group`, `label`, `file`, `n`, and under `scores` the least and greatest value of every score given.
    """
    conditions: list[Condition] = []
    taken = {"index.js"}
    with new_folder(target) as folder:
        for group, pattern, frame in frames:
            for condition, rows in _conditions(group, pattern, frame):
                if condition.file.lower() in taken:
                    raise CompanionError(f"Two conditions of the response browser are named '{condition.id}'.")
                _write_call(folder / condition.file, "receive", condition.id, rows)
                taken.add(condition.file.lower())
                conditions.append(condition)
        index = {"columns": COLUMNS, "missing": list(missing), "conditions": [asdict(one) for one in conditions]}
        _write_call(folder / "index.js", "start", index)
    return index


def _conditions(group: str, pattern: str, frame: pd.DataFrame) -> Iterator[tuple[Condition, list[list[Any]]]]:
    for source, part in frame.groupby("source", sort=False):
        label = pattern.format(**part.iloc[0].to_dict())
        yield Condition(source, group, label, slug(source) + ".js", len(part), _extremes(part)), _rows(part)


def slug(source: str) -> str:
    """Return a condition's id as a file name that is safe everywhere."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-.")


def _extremes(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    given = [score for score in tables.SCORES if frame[score].notna().any()]
    return {score: [_score(frame[score].min()), _score(frame[score].max())] for score in given}


def _rows(frame: pd.DataFrame) -> list[list[Any]]:
    # Some sources number answers within a pair or run; a link to one answer needs a number of its own.
    if frame.duplicated(["question_id", "sample"]).any():
        frame = frame.assign(sample=frame.groupby("question_id").cumcount())
    texts = frame[["question", "response"]].fillna("").astype(str)
    columns = [frame.question_id.tolist(), frame["sample"].tolist(), texts.question.tolist(), texts.response.tolist()]
    columns += [[_score(value) for value in frame[score]] for score in tables.SCORES]
    return [list(row) for row in zip(*columns, strict=True)]


def _score(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def script_text(value: Any) -> str:
    """Return `value` as plain ASCII JSON without any `<`, so that nothing in it can end or break a script."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _write_call(path: Path, name: str, *arguments: Any) -> None:
    text = f"window.emResponses.{name}({','.join(script_text(argument) for argument in arguments)});\n"
    path.write_text(text, encoding="ascii")
