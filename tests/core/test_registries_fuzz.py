"""Random edits of profiles and registries: what is read is all that stands there, or one sentence refuses it.

An edit renames, drops, doubles or retypes something somewhere, as a slip of the hand does.
"""

import datetime
import json
from dataclasses import asdict, is_dataclass
from random import Random
from typing import Any

import pytest
import yaml
from conftest import ROOT

from em_companion.book import registry
from em_companion.build import keys
from em_companion.core import paths, profiles
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_sealed, read_yaml, write_sealed
from em_companion.evidence import claims, predictions
from em_companion.released import files
from em_companion.world.lexicon import read_lexicon

ODD = [None, "", " ", 0, -1, 2.5, 1e400, float("nan"), True, [], {}, [None], {"a": 1}, "a: b", 10**30, "\x85", "é"]
ODD += [datetime.date(2026, 1, 1), [[]], {1: 2}, "2e-3", "none", [{}], "x" * 5000]


def edited(settings: Any, random: Random) -> Any:
    """Return settings with one slip somewhere in them."""
    if not settings or not isinstance(settings, dict | list) or random.random() < 0.1:
        return random.choice(ODD)
    at = random.choice(list(settings) if isinstance(settings, dict) else range(len(settings)))
    slip = random.choice(["deeper"] * 6 + ["drop", "rename", "double", "swap"])
    if isinstance(settings, list):
        rest = settings[:at] + settings[at + 1 :]
        doubled = [*settings, settings[at]]
        return {"drop": rest, "double": doubled, "swap": rest[::-1], "rename": rest}.get(
            slip, [*settings[:at], edited(settings[at], random), *settings[at + 1 :]]
        )
    rest = {name: value for name, value in settings.items() if name != at}
    other = random.choice(list(settings))
    return {
        "drop": rest,
        "rename": rest | {random.choice([f"{at}s", 1, None, True, str(at).upper()]): settings[at]},
        "double": settings | {f"{at}_": settings[at]},
        "swap": settings | {at: settings[other], other: settings[at]},
    }.get(slip, settings | {at: edited(settings[at], random)})


def mangled(text: str, random: Random) -> str:
    """Return a text with a slip of the keyboard in it."""
    lines = text.split("\n")
    at = random.randrange(len(lines))
    letter = random.randrange(len(text))
    return random.choice(
        [
            "\n".join([*lines[:at], lines[at], *lines[at:]]),
            "\n".join([*lines[:at], "\t" + lines[at], *lines[at + 1 :]]),
            "\n".join([*lines[:at], " " + lines[at], *lines[at + 1 :]]),
            text[:letter] + random.choice(":-{[&*!|>%@`'\"\x00#") + text[letter:],
            text[:letter],
        ]
    )


def read(name: str, folder) -> Any:
    """Return what the project makes of a file, in the shape in which it stands there."""
    if name.startswith("profiles/"):
        found = plain(profiles.load(name.split("/")[1].removesuffix(".yml")))
        return {key: value for key, value in found.items() if key != "name"}
    if name == "_toc.yml":
        return keys.toc_entries()
    if name.startswith("world/"):
        return read_lexicon(folder / "world")[name.split("/")[1].removesuffix(".yml")]
    load = {"claims.yml": claims.load_claims, "figures.yml": registry.load_figures, "sources.yml": files.sources}
    load = (load | {"predictions.yml": predictions.load_predictions})[name]
    load.cache_clear()
    return {name.removesuffix(".yml"): [plain(one) for one in load().values()]}


def plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) else value


def holds(found: Any, given: Any) -> bool:
    """Tell whether all that was given is found: every key and every value, of its own kind."""
    if isinstance(given, dict) and isinstance(found, dict):
        return all(name in found and holds(found[name], one) for name, one in given.items())
    if isinstance(given, list | tuple) and isinstance(found, list | tuple):
        return len(found) == len(given) and all(map(holds, found, given))
    return (found == given or found != found and given != given) and isinstance(found, bool) == isinstance(given, bool)


NAMES = [f"profiles/{path.name}" for path in sorted((ROOT / "data/profiles").glob("*.yml"))]
NAMES += [
    "claims.yml",
    "figures.yml",
    "predictions.yml",
    "sources.yml",
    "_toc.yml",
    *(f"world/{one}.yml" for one in ("domains", "grammar")),
]
NAMES += ["world/characters.yml", "world/questions.yml"]
FEW = 12  # entries of a registry, for time


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in NAMES:
        source = ROOT / name if name == "_toc.yml" else ROOT / "data" / name
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(source.read_bytes())
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(keys, "ROOT", tmp_path)
    registries = ((claims, "CLAIMS"), (registry, "FIGURES"), (files, "SOURCES"), (predictions, "PREDICTIONS"))
    for module, constant in registries:
        monkeypatch.setattr(module, constant, tmp_path / getattr(module, constant).name)
    yield tmp_path
    for load in (claims.load_claims, registry.load_figures, files.sources, predictions.load_predictions):
        load.cache_clear()


def problem(name: str, seed: int, folder) -> str:
    """Return what is wrong about an edit, "" if nothing."""
    random, path = Random(f"{name}/{seed}"), folder / name
    before = path.read_bytes()
    given = read_yaml(path)
    for key in ("claims", "figures", "files", "predictions"):
        if isinstance(given, dict) and key in given:
            given = {key: random.sample(given[key], min(FEW, len(given[key])))}
    given = edited(given, random)
    try:
        text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
    except (TypeError, yaml.YAMLError):  # keys of two kinds
        return ""
    if random.random() < 0.2:
        text = mangled(text, random)
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        found, given = read(name, folder), read_yaml(path)
        if name == "_toc.yml":
            return "" if all(isinstance(one, str) for one in found) else f"{name} {seed}: {found!r:.200}"
        key = name.removesuffix(".yml")
        found = {"files": found["sources"]} if key == "sources" else found
        return "" if holds(found, given) else f"{name} {seed}: not all that stands there was read: {text[:300]}"
    except CompanionError as error:
        said = str(error)
        return "" if "\n" not in said and said.endswith(".") and len(said) < 1500 else f"{name} {seed}: {said[:300]}"
    except Exception as error:
        return f"{name} {seed}: {type(error).__name__}: {error!s:.200}"
    finally:
        path.write_bytes(before)


def problems(name: str, start: int, count: int, folder) -> list[str]:
    return [said for seed in range(start, start + count) if (said := problem(name, seed, folder))]


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_is_read_whole_or_refused_in_one_sentence(name, folder):
    assert problems(name, 0, 40, folder) == []


def test_an_edited_record_is_refused_in_one_sentence_and_another_layout_is_read(tmp_path):
    path, random = tmp_path / "benchmarks.json", Random(0)
    record = read_sealed(paths.RESULTS / path.name, "")  # the one that is kept is whole
    for _ in range(100):
        write_sealed(path, record)
        given = json.loads(path.read_text())
        given = edited(given, random)
        text = json.dumps(given, default=str)
        path.write_text(mangled(text, random) if random.random() < 0.2 else text, encoding="utf-8", errors="replace")
        try:
            assert read_sealed(path, "mend it") == record
        except CompanionError as error:
            assert str(error) == f"{path.name} is damaged or was edited: mend it."


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_more_edits(name, folder):
    assert problems(name, 1000, 1000, folder) == []
