"""Build frozen dataclasses from what a YAML file holds, by their type hints; what does not fit is one clear sentence.

A single value has the type `Annotated[kind, words, test]`: what it must be, in words and as a test. Members of a union
of dataclasses are told apart by their field `source`, a `Literal`.
"""

from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from em_companion.core.errors import CompanionError

T = TypeVar("T")

WORDS = {dict: "a mapping with at least one entry", tuple: "a list with at least one entry"}


def build(kind: type[T], given: Any, at: str = "", **known: Any) -> T:
    """Return a `kind` made from the mapping `given`, and from the fields `known`, which it must not hold.

    Raises CompanionError naming the key (dotted, below `at`) that is missing, unknown or of the wrong kind.
    """
    if not isinstance(given, dict):
        raise CompanionError(_must(at, "a mapping of keys to values", given))
    expected = {field.name: field for field in fields(kind) if field.name not in known}
    required = {key for key, field in expected.items() if field.default is MISSING}
    if wrong := sorted(map(str, (required - set(given)) | (set(given) - set(expected)))):
        where = f"'{at}' has a " if at else ""
        raise CompanionError(f"{where}missing or unknown key: {', '.join(wrong)}; the keys are {', '.join(expected)}")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**known, **{key: _value(hints[key], one, f"{at}.{key}".lstrip(".")) for key, one in given.items()})


def _value(kind: Any, given: Any, at: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return build(kind, given, at)
    if origin in (Union, UnionType):
        return _value(_member(arguments, given, at), given, at)
    if origin is Annotated:
        return _single(*arguments, given, at)
    if origin is dict and isinstance(given, dict) and given:
        return {_value(arguments[0], key, at): _value(arguments[1], one, f"{at}.{key}") for key, one in given.items()}
    if origin is tuple and isinstance(given, list) and given:
        return _list(arguments[0], given, at)
    if origin is Literal and given in arguments:
        return given
    raise CompanionError(_must(at, _words(kind), given))


def _single(kind: type, words: str, test: Any, given: Any, at: str) -> Any:
    value = float(given) if kind is float and type(given) is int and abs(given) < 2**53 else given
    if type(value) is not kind or (kind is float and not isfinite(value)) or not test(value):
        raise CompanionError(_must(at, words, given))
    return value


def _list(kind: Any, given: list, at: str) -> tuple:
    if twice := [one for index, one in enumerate(given) if one in given[:index]]:
        raise CompanionError(f"'{at}' names {shortened(twice[0])} twice; keep it once")
    return tuple(_value(kind, one, f"{at}[{index}]") for index, one in enumerate(given))


def _member(kinds: tuple, given: Any, at: str) -> Any:
    """Return the member of a union that a value is meant for; an optional type has one member."""
    options = [one for one in kinds if one is not NoneType]
    fit = options if len(options) == 1 else [one for one in options if _suits(one, given)]
    if not fit:
        raise CompanionError(_must(at, " or ".join(map(_words, options)), given))
    return fit[0]


def _suits(kind: Any, given: Any) -> bool:
    if is_dataclass(kind):
        return isinstance(given, dict) and given.get("source") in _sources(kind)
    return given in get_args(kind) if get_origin(kind) is Literal else isinstance(given, list)


def _sources(kind: type) -> tuple:
    return get_args(get_type_hints(kind)["source"])


def _words(kind: Any) -> str:
    if is_dataclass(kind):
        return f"a mapping with source: {_sources(kind)[0]}"
    if get_origin(kind) is not Literal:
        return WORDS[get_origin(kind)]
    choices = get_args(kind)
    return f"'{choices[0]}'" if len(choices) == 1 else f"one of {', '.join(choices)}"


def _must(at: str, words: str, given: Any) -> str:
    subject = f"'{at}'" if at else "the file"
    return f"{subject} must be {words}, not {shortened(given)}"
