"""Which inputs a result was made from, whether it is computed or recalled; and nothing that names this machine."""

import getpass
import json
import platform

import pytest

from em_companion.core.provenance import environment, note_input, recorded, remembered, utc_now


@pytest.fixture
def read():
    """A function that reads the input of a name, and is remembered."""
    calls = []

    @remembered
    def of(name: str, *, more: bool = False) -> list[str]:
        calls.append(name)
        note_input(name, f"checksum of {name}")
        return [name]

    of.calls = calls
    return of


def test_a_block_collects_what_is_read_within_it_and_in_blocks_inside(read):
    note_input("before", "0")
    with recorded() as outer:
        note_input("first", "1")
        with recorded() as inner:
            note_input("second", "2")
    note_input("after", "3")
    assert outer == {"first": "1", "second": "2"} and inner == {"second": "2"}


def test_a_block_that_fails_collects_no_more():
    with pytest.raises(ZeroDivisionError), recorded() as failed:
        raise ZeroDivisionError
    with recorded() as inputs:
        note_input("one", "1")
    assert failed == {} and inputs == {"one": "1"}


def test_a_recalled_result_notes_its_inputs_again(read):
    for _ in range(2):
        with recorded() as inputs:
            assert read("a") == ["a"]
        assert inputs == {"a": "checksum of a"}
    assert read.calls == ["a"]


def test_inputs_are_those_of_the_arguments_asked_for(read):
    read("a")
    with recorded() as inputs:
        read("b")
        read("b", more=True)
    assert inputs == {"b": "checksum of b"} and read.calls == ["a", "b", "b"]


def test_a_remembered_function_of_remembered_ones_has_all_their_inputs(read):
    @remembered
    def both() -> list[str]:
        return read("a") + read("b")

    read("a")
    for _ in range(2):
        with recorded() as inputs:
            assert both() == ["a", "b"]
        assert set(inputs) == {"a", "b"}
    assert read.calls == ["a", "b"]


def test_a_failure_is_not_remembered():
    calls = []

    @remembered
    def fails() -> None:
        calls.append(1)
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            fails()
    assert len(calls) == 2


def test_forgetting_computes_anew(read):
    read("a")
    read.cache_clear()
    read("a")
    assert read.calls == ["a", "a"]


def test_circumstances_name_versions_but_neither_user_nor_host():
    found = environment()
    assert {"em-companion", "numpy", "torch", "python"} <= set(found["versions"])
    assert not {"not installed"} & set(found["versions"].values())
    assert set(found["hardware"]) == {"machine", "processor", "cores", "gpu"}
    text = json.dumps(found)
    assert platform.node() not in text and f"/{getpass.getuser()}" not in text
    assert utc_now().endswith("+00:00") and "." not in utc_now()
