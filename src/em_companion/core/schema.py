"""What the data files must hold, checked by pydantic; what does not fit is one clear sentence.

A shape is a frozen dataclass that is `Checked`, or a `mapping`. What is made in code, not read, is not checked.
"""

import re
from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml
from em_companion.core.paths import relative

T = TypeVar("T")
KEYS = ("missing", "unexpected_keyword_argument", "extra_forbidden")  # pydantic's names for a missing or unknown key
WORDS = {  # of YAML for pydantic's words of Python
    r"^\w+ should": "must",
    r"valid dictionary.*|dictionary or an instance of \w+": "mapping of keys to values",
    "valid (tuple|list)": "list",
    "a valid string": "text",
    "valid integer": "whole number",
    "valid number": "number such as 0.001",
    "^Input tag (.*) found using (.*) does not match any of the expected tags:": r"has \2: \1, not one of",
    "^Unable to extract tag using discriminator": "lacks the key",
}


class Checked:
    """A dataclass whose keys in a file are its fields, no others."""

    __pydantic_config__ = ConfigDict(extra="forbid")


def distinct(values: tuple) -> tuple:
    """Return `values`; raise ValueError where one of them stands twice."""
    if twice := [one for index, one in enumerate(values) if one in values[:index]]:
        raise ValueError(f"names {shortened(twice[0])} twice; keep it once")
    return values


def text(pattern: str, words: str) -> Any:
    """Return the type of a text that matches `pattern` from end to end; `words` say what it must be."""

    def matched(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {words}")
        return value

    return Annotated[str, AfterValidator(matched)]


def mapping(**keys: Any) -> Any:
    """Return the type of a mapping that has these keys and no others."""
    return with_config(ConfigDict(extra="forbid"))(TypedDict("mapping", keys))


Text = text(r"(?s).*\S.*", "text")
Natural = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[Number, Field(ge=0)]
Rate = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Several = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(distinct)]


def validated(kind: type[T] | Any, given: Any, where: str, whole: str = "the file") -> T:
    """Return `given` as a `kind`; raise CompanionError that begins with `where` and names the key that is wrong.

    whole: what `given` is called where no key of it is to blame.
    """
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        raise CompanionError(f"{where}: {_sentence(error.errors(), given, whole)}.") from None


def read_registry(path: Path, key: str, kind: type[T] | Any, **beside: Any) -> dict[str, T]:
    """Return the entries that a registry keeps under `key`, by id; raise CompanionError naming entry and key.

    beside: types of what else may stand in the file.
    """
    where, found = relative(path), {}
    for entry in validated(mapping(**{key: list[dict[str, Any]]}, **beside), read_yaml(path), where)[key]:
        name = entry.get("id", "(no id)")
        one = validated(kind, entry, f"{where}, '{name}'", "it")
        if name in found:
            raise CompanionError(f"{where}: '{name}' stands twice.")
        found[name] = one
    return found


def _sentence(errors: list[dict[str, Any]], given: Any, whole: str) -> str:
    """Return what is wrong first, a missing or unknown key before all else. Tags of unions are no part of a place."""
    first = next((one for one in errors if one["type"] in KEYS), errors[0])
    of_keys = first["type"] in KEYS
    at, here = "", given
    for part in first["loc"][: -1 if of_keys else None]:
        if isinstance(here, dict) and part in here or isinstance(here, list) and isinstance(part, int):
            at += f"[{part}]" if isinstance(here, list) else f".{part}"
            here = here[part]
    subject = f"'{at.lstrip('.')}'" if at else whole
    if of_keys:
        wrong = {str(one["loc"][-1]) for one in errors if one["type"] in KEYS and one["loc"][:-1] == first["loc"][:-1]}
        return f"{subject} has a missing or unknown key: {', '.join(sorted(wrong))}"
    said = first["msg"].removeprefix("Value error, ").removesuffix(" after validation, not 0")
    for pattern, words in WORDS.items():
        said = re.sub(pattern, words, said)
    found = f", not {shortened(first['input'])}" if said.startswith("must") else ""
    return f"{subject} {said}{found}"
