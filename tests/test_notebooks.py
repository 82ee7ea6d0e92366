"""A notebook is a page, not a program: what is shown is what ran, and no page outgrows its reader."""

import ast

import jupytext
import pytest
from conftest import ROOT

PAGES = sorted((ROOT / "notebooks").glob("*.py"))
CELLS = {path.stem: jupytext.read(path).cells for path in PAGES}
MOST_LINES, MEAN_LINES, MEAN_CODE, LONGEST_FUNCTION = 490, 340, 225, 25


def code(page: str, tag: str | None = None) -> str:
    """The code cells of a page, all or those with a tag."""
    cells = (cell for cell in CELLS[page] if cell.cell_type == "code")
    return "\n".join(cell.source for cell in cells if tag is None or tag in cell.metadata.get("tags", []))


def functions(source: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def uncalled(shown: str, page: str) -> set[str]:
    """Functions that are shown but that nothing else on the page uses."""
    used = set()
    for node in ast.parse(page).body:
        own = node.name if isinstance(node, ast.FunctionDef) else None
        used |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and one.id != own}
    return {function.name for function in functions(shown)} - used


@pytest.mark.parametrize("page", CELLS)
def test_every_function_that_is_shown_is_called_on_its_page(page):
    assert not uncalled(code(page, "show-code"), code(page))


def test_a_shown_function_that_is_not_called_is_found():
    shown = "def taught(x):\n    return taught(x)\n\ndef used(x):\n    return x\n"
    assert uncalled(shown, shown + "print(used(1))\n") == {"taught"}


@pytest.mark.parametrize("page", CELLS)
def test_a_page_is_short_and_so_are_its_functions(page):
    lines = (ROOT / "notebooks" / f"{page}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    long = [one.name for one in functions(code(page)) if one.end_lineno - one.lineno + 1 > LONGEST_FUNCTION]
    assert not long


def test_all_pages_together_are_thin():
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in PAGES) <= MEAN_LINES * len(PAGES)
    assert sum(len(code(page).splitlines()) for page in CELLS) <= MEAN_CODE * len(PAGES)


@pytest.mark.parametrize("page", CELLS)
def test_every_page_says_in_short_what_it_found_then_asks_and_says_at_its_end_what_it_means(page):
    first = next(cell.source for cell in CELLS[page] if cell.cell_type == "markdown")
    short, _, rest = first.partition("```{admonition} In short\n:class: em-short\n")[2].partition("```")
    assert "{evidence}`" in short and "{value}`" in short and len(short.split()) < 90
    assert rest.strip().startswith("**The question.**")
    headings = [line for cell in CELLS[page] if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert any(line.startswith("## What it means") for line in headings)
