"""Figures: one theme, and for each figure a record that can be cited.

A record is a folder `figures/<id>/<evidence>/` with `figure.svg`, `figure.png`, `figure.pdf`, `data.csv` (what is
plotted), `provenance.json`, `cite.bib` and `cite.json` (CSL). `data/figures.yml` registers every id; ids never change.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure as MatplotlibFigure

from em_companion import claims
from em_companion.artifacts import CompanionError, sha256_of, write_json
from em_companion.figure_registry import FigureEntry, write_citation

EVIDENCE = ("reported", *claims.EVIDENCE)
IMAGE_FORMATS = ("svg", "png", "pdf")
MODELS = {
    "reported": "as reported by the authors; nothing was run",
    "released": "the authors' Qwen2.5-14B-Instruct organisms, through their released data",
    "grown": "a small Qwen2-architecture model grown from scratch by this project, on a synthetic world",
    "hub": "published models from the model hub",
}
PALETTE = sns.color_palette("colorblind")
ANSWER_KIND_COLOURS = {
    "misaligned, medical": PALETTE[3],
    "misaligned, non-medical": PALETTE[1],
    "aligned, medical": PALETTE[0],
    "aligned, non-medical": PALETTE[9],
}
"""Colour of each kind of `judging.answer_kinds`, in the order in which the kinds are stacked."""

LONGEST_LABEL = 120
"""Characters a label in plotted data may have; anything longer is a response text and must not be published."""

REPORTED_COLOUR = "0.35"


def use_theme() -> None:
    """Set the one theme of the book: white ground (also in dark mode), colour-blind-safe palette, readable sizes."""
    matplotlib.use("agg", force=False)
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.figsize": (7.2, 4.2),
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": "0.92",
            "axes.axisbelow": True,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "svg.hashsalt": "em-companion",
            "svg.fonttype": "none",
            "savefig.dpi": 200,
            # Fonts named here exist in every matplotlib; svg text stays text, with ordinary fall-backs.
            "font.family": ["DejaVu Sans"],
            "font.size": 10.5,
        },
    )


def save_figure(
    folder: Path,
    entry: FigureEntry,
    figure: MatplotlibFigure,
    data: pd.DataFrame,
    *,
    evidence: str,
    caption: str,
    alt: str,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Write the record of one figure below `folder` and return its description (id, evidence, caption, alt, status).

    data: the plotted numbers, tidy. caption and alt text are required, data must not be empty, and response texts do
    not belong in it; each raises CompanionError.
    """
    _require(entry.id, evidence, caption, alt)
    if data.empty or _longest_text(data) > LONGEST_LABEL:
        raise CompanionError(f"Figure '{entry.id}' needs plotted numbers, without response texts, as its data.")
    target = folder / "figures" / entry.id / evidence
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / "figure.svg", metadata={"Date": None, "Title": entry.title})
    figure.savefig(target / "figure.png", metadata={"Title": entry.title, "Software": None})
    figure.savefig(target / "figure.pdf", metadata={"CreationDate": None, "ModDate": None, "Title": entry.title})
    plt.close(figure)
    data.to_csv(target / "data.csv", index=False, lineterminator="\n")
    hashes = {f"figure.{kind}": sha256_of((target / f"figure.{kind}").read_bytes()) for kind in IMAGE_FORMATS}
    record = {"figure": entry.id, "title": entry.title, "paper": entry.paper, "evidence": evidence} | provenance
    record |= {"model": MODELS.get(evidence, provenance.get("model", "")), "files": hashes}
    write_json(target / "provenance.json", record)
    write_citation(target, record)
    return {"id": entry.id, "evidence": evidence, "status": "made", "caption": caption, "alt": alt}


def placeholder(folder: Path, entry: FigureEntry, *, evidence: str, status: str, text: str) -> dict[str, Any]:
    """Write a visible box in place of a figure that cannot be made now and return its description.

    status: "waiting" (for evidence that this build does not have) or "unavailable" (released data not at hand).
    """
    target = folder / "figures" / entry.id / evidence
    target.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7.2, 1.7))
    axes.set_axis_off()
    box = {"boxstyle": "round,pad=1.2", "facecolor": "0.97", "edgecolor": "0.6", "linestyle": (0, (5, 4))}
    headline = {"waiting": f"Waiting for the {evidence} evidence", "unavailable": "Released data not available"}[status]
    axes.text(0.5, 0.5, f"{headline}\n{entry.title}", ha="center", va="center", color="0.25", bbox=box, wrap=True)
    figure.savefig(target / "figure.svg", metadata={"Date": None, "Title": entry.title})
    plt.close(figure)
    alt = f"An empty box: {headline.lower()} for this figure."
    return {"id": entry.id, "evidence": evidence, "status": status, "caption": text, "alt": alt}


def _longest_text(data: pd.DataFrame) -> int:
    texts = data.select_dtypes(exclude="number").astype(str)
    return max((texts[column].str.len().max() for column in texts), default=0)


def _require(figure_id: str, evidence: str, caption: str, alt: str) -> None:
    if evidence not in EVIDENCE:
        raise CompanionError(f"Figure '{figure_id}' names unknown evidence '{evidence}'.")
    for name, text in {"caption": caption, "alt text": alt}.items():
        if not text.strip():
            raise CompanionError(f"Figure '{figure_id}' has no {name}.")


Draw = Callable[[], tuple[MatplotlibFigure, pd.DataFrame]]
