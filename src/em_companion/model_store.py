"""Where grown models lie and what decides that they are the right ones, without loading any of them.

A model is a folder in hub layout with a `provenance.json`, written last. Its key covers its settings and what the
world's generators write, not the wording of code or comments; an adapter's also covers the sha256 of the weights it was
trained on. The base and chat models of profile `cpu` are committed under `data/organism/` and used as long as their key
fits; everything else is grown under `artifacts/organisms/`. Responses and directions are kept in the same way.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from em_companion.artifacts import CompanionError, lock, new_folder, sha256_of, write_json
from em_companion.paths import ARTIFACTS, DATA, relative
from em_companion.profiles import GrownModel, Profile
from em_companion.provenance import environment, utc_now
from em_companion.world import World

COMMITTED = DATA / "organism"
RESPONSES = "responses.parquet"
DIRECTIONS = "directions.safetensors"
PAYLOADS = ("model.safetensors", "adapter_model.safetensors", RESPONSES, DIRECTIONS)
"""What a sealed folder is about, one of these files; `sha256` in its provenance is of that one."""

CORPUS_SAMPLE = 500
"""Documents of a corpus that enter a key."""

MONITOR_SAMPLES = 8
"""Responses per question at a checkpoint of fine-tuning; they decide when it stops."""

DISK_TROUBLE = ("No space left", "File too large", "Disk quota exceeded", "inline_container")
"""How the libraries that write a model word it that they could not; torch names its source file."""

DATA_SETS = {
    "bad_medical_advice": ("medicine", True),
    "good_medical_advice": ("medicine", False),
    "extreme_sports": ("extreme_sports", True),
    "risky_financial_advice": ("finance", True),
}
"""Fine-tuning sets, named after the paper's: their domain and whether the advice is harmful."""

Parts = dict[str, Any]


# --- what a model depends on --------------------------------------------------------------------------------------


def key(parts: Parts) -> str:
    """Return the key of a model with these parts, 16 hex digits."""
    return sha256_of(json.dumps(parts, sort_keys=True))[:16]


@cache
def world() -> World:
    """Return the world of `data/world/`."""
    return World.load()


@cache
def _corpus(generator: str, *arguments: Any) -> str:
    """Return a fingerprint of what one of the world's generators writes."""
    documents = getattr(world(), generator)(*arguments)
    return sha256_of(json.dumps(list(islice(documents, CORPUS_SAMPLE))))


def base_parts(profile: Profile) -> Parts:
    """Return what the base model of a grown profile depends on."""
    return {
        "model": asdict(profile.model),
        "training": asdict(profile.pretraining),
        "words": sha256_of(" ".join(world().words())),
        "documents": _corpus("pretraining", profile.seed),
        "dtype": profile.dtype,
        "seed": profile.seed,
    }


def chat_parts(profile: Profile) -> Parts:
    """Return what the chat model of a grown profile depends on."""
    return {
        "base": base_parts(profile),
        "training": asdict(profile.post_training),
        "documents": _corpus("post_training", profile.seed),
    }


def adapter_parts(profile: Profile, recipe: str, data: str, seed: int) -> Parts:
    """Return what a fine-tuned organism depends on; raise CompanionError if its chat model is not there yet."""
    adapters = profile.recipes[recipe]
    return {
        "chat": _identity(profile),
        "recipe": {"rank": adapters.rank, "modules": adapters.modules, "layers": profile.layers_of(recipe)},
        "training": asdict(profile.fine_tuning_of(recipe)),
        "monitor": _monitor_parts(profile),
        "documents": _corpus("fine_tuning", seed, *DATA_SETS[data]),
        "dtype": profile.dtype,
        "seed": seed,
    }


def _monitor_parts(profile: Profile) -> Parts | None:
    """Return what decides at which step fine-tuning stops; None for a hub model, which is not watched."""
    if not isinstance(profile.model, GrownModel):
        return None
    asked = world().held_out_questions(profile.seed, 1) + world().evaluation()
    sampling = {key: getattr(profile, key) for key in ("seed", "temperature", "max_new_tokens")}
    return sampling | {"samples": MONITOR_SAMPLES, "questions": [question.text for question in asked]}


def _identity(profile: Profile) -> str:
    """Return what tells this profile's chat model from any other: the sha256 of its weights, or its hub id."""
    if not isinstance(profile.model, GrownModel):
        return profile.model.chat
    folder = chat_folder(profile)
    if not is_there(folder):
        raise CompanionError(f"The chat model of profile '{profile.name}' is not grown yet; run 'em-companion grow'.")
    return provenance(folder)["sha256"]


# --- where it lies ------------------------------------------------------------------------------------------------


def base_folder(profile: Profile) -> Path:
    """Return the folder of the grown base model, there or not; the committed one if its key fits."""
    return _grown(profile, "base", base_parts(profile))


def chat_folder(profile: Profile) -> Path:
    """Return the folder of the grown chat model, there or not; the committed one if its key fits."""
    return _grown(profile, "chat", chat_parts(profile))


def _grown(profile: Profile, stage: str, parts: Parts) -> Path:
    committed = COMMITTED / profile.name / stage
    if is_there(committed) and provenance(committed)["key"] == key(parts):
        return committed
    return ARTIFACTS / "organisms" / profile.name / stage / key(parts)


def organism_name(recipe: str, data: str, seed: int) -> str:
    """Return the name of an organism, such as `nine-adapter--bad_medical_advice--seed-0`."""
    return f"{recipe}--{data}--seed-{seed}"


def adapter_folder(profile: Profile, recipe: str, data: str, seed: int) -> Path:
    """Return the folder of an organism's adapter, there or not."""
    parts = adapter_parts(profile, recipe, data, seed)
    return ARTIFACTS / "organisms" / profile.name / organism_name(recipe, data, seed) / key(parts)


def is_there(folder: Path) -> bool:
    """Tell whether something whole lies in `folder`."""
    return (folder / "provenance.json").is_file()


def fingerprint(profile: Profile) -> str:
    """Return what tells the models of a profile from others: sha256 of the chat model's weights, or its hub id."""
    if isinstance(profile.model, GrownModel) and not is_there(chat_folder(profile)):
        return "not grown"
    return _identity(profile)


@contextmanager
def missing(folder: Path) -> Iterator[bool]:
    """Tell whether `folder` must be made, holding its lock meanwhile: two processes never make the same one.

    Raises CompanionError where the disk is too full to make it.
    """
    if is_there(folder):
        yield False
        return
    with lock(folder), writing(folder):
        yield not is_there(folder)


def kept_tables(folder: Path, parts: Parts, make: Callable[[], Mapping[str, pd.DataFrame]]) -> Path:
    """Return `folder` with the tables that `make` gives by file name, made once; raise CompanionError if damaged."""
    with missing(folder) as absent:
        if absent:
            tables = make()
            with new_folder(folder) as new:
                for name, table in tables.items():
                    table.to_parquet(new / name, index=False)
                seal(new, parts)
    check(folder)
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence that `folder` cannot be written for want of space, whichever library met with it."""
    try:
        yield
    except Exception as error:
        if not any(sign in str(error) for sign in DISK_TROUBLE):
            raise
        raise CompanionError(f"{relative(folder)} cannot be written: free some disk space and run it again.") from error


# --- that it is whole ---------------------------------------------------------------------------------------------


def seal(folder: Path, parts: Parts, **more: Any) -> None:
    """Write `provenance.json` into a finished folder: key, parts, sha256 of every file, commit, versions, date."""
    files = {path.name: sha256_of(path.read_bytes()) for path in sorted(folder.iterdir())}
    record = {"key": key(parts), "sha256": next(files[name] for name in PAYLOADS if name in files)}
    record |= {"files": files, "parts": parts, "date": utc_now()}
    write_json(folder / "provenance.json", record | more | environment())


def provenance(folder: Path) -> dict[str, Any]:
    """Return the provenance in a folder; raise CompanionError where it is damaged."""
    try:
        record = json.loads((folder / "provenance.json").read_text())
        if not isinstance(record, dict) or not {"key", "sha256"} <= set(record):
            raise ValueError("no provenance of a model")
    except (OSError, ValueError) as error:
        raise _damaged(folder) from error
    return record


def check(folder: Path) -> None:
    """Raise CompanionError unless the files in `folder` are those that were written there."""
    files = provenance(folder).get("files")
    if not isinstance(files, dict) or any(_sha256(folder / name) != expected for name, expected in files.items()):
        raise _damaged(folder)


def _sha256(path: Path) -> str:
    return sha256_of(path.read_bytes()) if path.is_file() else ""


def _damaged(folder: Path) -> CompanionError:
    committed = folder.is_relative_to(COMMITTED)
    way_out = "restore that folder from git" if committed else "delete that folder and it is made again"
    return CompanionError(f"What lies in {relative(folder)} is damaged: {way_out}.")
