"""The registry of figures, `data/figures.yml`: ids never change. Nothing here loads a plotting library."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.core.schema import Checked, Text, read_registry, text
from em_companion.evidence.claims import CLAIMS, Claim, load_claims
from em_companion.evidence.predictions import PREDICTIONS, Prediction, load_predictions

FIGURES = paths.DATA / "figures.yml"


@dataclass(frozen=True)
class FigureEntry(Checked):
    """A registered figure: `id`, `title`, the `notebook` that makes it, its counterpart in the `paper` ("" if ours).

    shows_an_answer: it shows words of an answer, and so travels in no pack.
    """

    id: text("[a-z0-9]+(-[a-z0-9]+)*", "small letters, digits and hyphens, as in fig-x-loss")
    title: Text
    notebook: Text
    paper: str
    shows_an_answer: bool = False


@cache
def load_figures() -> dict[str, FigureEntry]:
    """Return every registered figure by id; raise CompanionError for a malformed `data/figures.yml`."""
    return read_registry(FIGURES, "figures", FigureEntry)


def registered(kind: Literal["Figure", "Claim"], name: str, notebook: str) -> FigureEntry | Claim | Prediction:
    """Return the entry of a figure, claim or prediction; raise CompanionError unless registered for `notebook`.

    A claim whose name begins with "p-" is a prediction: it is measured in the same way.
    """
    kind = "Prediction" if kind == "Claim" and name.startswith("p-") else kind
    known = {"Figure": (load_figures, FIGURES), "Claim": (load_claims, CLAIMS)}
    load, registry = (known | {"Prediction": (load_predictions, PREDICTIONS)})[kind]
    entry = load().get(name)
    if entry is None or entry.notebook != notebook:
        raise CompanionError(f"{kind} '{name}' is not registered for notebook '{notebook}' in {relative(registry)}.")
    return entry
