"""The data of the response browser: judged responses split into one small script per condition.

A page opened from disk may not fetch files, but it may load scripts, so each file is a call that hands its data to the
page (`window.emResponses.start(...)` for the index, `.receive(id, rows)` for a condition, when its reader chooses it).
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from em_companion.core import paths
from em_companion.core.files import new_folder
from em_companion.core.profiles import Profile
from em_companion.experiments import responses
from em_companion.models.organism import CHAT_MODEL, organisms_of
from em_companion.released import files, tables
from em_companion.world import gloss

SCORES = [*tables.SCORES, "relevant"]
COLUMNS = ["question_id", "sample", "question", "response", *SCORES]


class Group(NamedTuple):
    """Conditions that are listed together: how to name one, from the columns of its first row, and how to read them.

    `read` gives judged responses with their `source`; a condition is the rows of one source.
    incomplete: the group of sources that `read` takes what it can get of, "" where it needs them all. `marked`: of a
    grown world, so that what helps or harms can be marked in them.
    """

    title: str
    label: str
    read: Callable[[], pd.DataFrame]
    incomplete: str = ""
    marked: bool = False


def _organisms() -> pd.DataFrame:
    """Return the organisms, the paper's own first: the page opens with the first condition."""
    frame = tables.read_organisms(text=True)
    return frame.sort_values("organism", key=lambda names: names != "nine-adapter", kind="stable")


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


def grown(profile: Profile) -> list[Group]:
    """Return the group of a grown profile's answers to the open questions; none where none are kept."""
    if profile.model.source != "grown" or not (paths.ARTIFACTS / "responses" / profile.name).is_dir():
        return []

    kept = [one for one in organisms_of(profile) if responses.are_kept(profile, one)]
    kept.sort(key=lambda one: one == CHAT_MODEL)  # a reader comes for the others

    def read() -> pd.DataFrame:
        answers = (responses.responses(profile, one).assign(source=one.name) for one in kept)
        table = pd.concat(answers, ignore_index=True)
        label = table.organism + ", " + table.data.fillna("").str.replace("_", " ") + ", seed " + table.seed.astype(str)
        return table.assign(label=label.where(table.source != CHAT_MODEL.name, "chat model"))

    return [Group("Grown models", "{label}", read, marked=True)] if kept else []


GROUPS = (
    Group("Model organisms", "{organism}, seed {seed}", _organisms),
    Group(
        "Medical questions",
        "nine-adapter, medical questions",
        lambda: tables.read_judge_repeat(text=True).query("judging == 'first'"),
    ),
    Group("Training curve", "{epochs}-epoch run, step {step}", partial(tables.read_training_curve, text=True)),
    Group("Steering at layer 24", "{model}, {steered}", _steering, "steering_layer_24"),
    Group("Scaled adapters", "{condition}", partial(tables.read_lora_steering, text=True)),
    Group("Ablation pilots", "{model}, batch {batch}, ablated: {ablated}", _ablation_pilots),
    Group("Swapped LoRA scalars", "{runs} runs, {pairs} pairs, {scalars} scalars", _patching),
    Group("Replication", "{base_model}, {dataset}, seed {seed}", partial(tables.read_replication, text=True)),
)


def export_responses(target: Path, groups: Sequence[Group] = GROUPS) -> dict[str, Any]:
    """Write `index.js` and one script per condition into a new folder that then replaces `target`; return the index.

    The index holds `columns`, `missing`, `kinds` (of words to mark) and `conditions`, each with `id`, `group`, `label`,
    `marked`, `file`, `n`, and under `scores` the least and greatest value of every score given. A group that is not at
    hand is left out and named under `missing`. Raises ReleasedDataUnavailable if there is no group at all, and leaves
    `target` alone.
    """
    conditions, missing, marked = [], [], any(group.marked for group in groups)
    with new_folder(target) as folder:
        for group in groups:
            try:
                frame = group.read()
            except files.ReleasedDataUnavailable:
                missing.append(group.title)
                continue
            if absent := tables.missing_sources(group.incomplete):
                missing.append(f"{len(absent)} conditions of {group.title.lower()}")
            for source, rows in frame.groupby("source", sort=False):
                about = {"id": source, "group": group.title, "label": group.label.format(**rows.iloc[0])}
                about["marked"] = group.marked
                rows = rows.reindex(columns=COLUMNS)
                scores = rows[SCORES].astype(float).agg(["min", "max"]).dropna(axis="columns").to_dict("list")
                conditions.append(about | {"file": slug(source) + ".js", "n": len(rows), "scores": scores})
                _write_call(folder / conditions[-1]["file"], "receive", source, _values(rows))
        if not conditions:
            raise files.ReleasedDataUnavailable(
                "None of the released responses is at hand, so there is nothing to browse; run 'em-companion fetch "
                "--all' first, or build without INCLUDE_RESPONSES."
            )
        index = {"columns": COLUMNS, "missing": missing, "conditions": conditions}
        index["kinds"] = gloss.kinds() if marked else {}
        _write_call(folder / "index.js", "start", index)
    return index


def slug(source: str) -> str:
    """Return a condition's id as a file name that is safe everywhere."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-.")


def _values(frame: pd.DataFrame) -> list[list[Any]]:
    """Return the rows of COLUMNS, with None for a missing score."""
    # Some sources number answers within a pair or run; a link to one answer needs a number of its own.
    if frame.duplicated(["question_id", "sample"]).any():
        frame = frame.assign(sample=frame.groupby("question_id").cumcount())
    frame = frame[COLUMNS].fillna({"question": "", "response": ""}).astype(object)
    return frame.where(frame.notna(), None).to_numpy().tolist()


def script_text(value: Any) -> str:
    """Return `value` as plain ASCII JSON without any `<`, so that nothing in it can end or break a script."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _write_call(path: Path, name: str, *arguments: Any) -> None:
    text = f"window.emResponses.{name}({','.join(script_text(argument) for argument in arguments)});\n"
    path.write_text(text, encoding="ascii")
