"""The files of a figure, below `figures/<id>/<evidence>/`: svg, png, pdf, `data.csv` (what is plotted) and
`provenance.json`. Citations are written by `build`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from em_companion.book import coverage
from em_companion.book.drawing import Drawn, wrapped
from em_companion.book.records import FigureRecord
from em_companion.book.registry import FigureEntry
from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of, write_json

IMAGE_METADATA = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None, "ModDate": None}}
MODELS = {
    "reported": "as reported by the authors; nothing was run",
    "released": "the authors' Qwen2.5-14B-Instruct organisms, through their released data",
    "grown": "a small Qwen2-architecture model grown from scratch by this project, on a synthetic world",
    "hub": "published models from the model hub",
}
LONGEST_LABEL = 120  # characters in plotted data; anything longer is a response text and must not be published


def save_figure(folder: Path, entry: FigureEntry, drawn: Drawn, record: FigureRecord, provenance: dict) -> None:
    """Write the files of one figure below `folder`; drawn: it and the plotted numbers, tidy.

    Raises CompanionError without title, caption or alt text, for empty data, for response texts in it and for a drawn
    number that it lacks.
    """
    for name in ("title", "caption", "alt"):
        if not getattr(record, name).strip():
            raise CompanionError(f"Figure '{record.id}' has no {name}.")
    figure, data = drawn
    texts = data.select_dtypes(exclude="number").to_numpy()
    if data.empty or any(len(str(one)) > LONGEST_LABEL for one in texts.flat):
        raise CompanionError(f"Figure '{entry.id}' needs plotted numbers, without response texts, as its data.")
    if missing := coverage.first_missing(figure, data):
        shown = ", ".join(f"{one:g}" for one in missing)
        raise CompanionError(f"Figure '{entry.id}' shows {shown}, which its data do not hold.")
    parts = ("em-companion", record.evidence, entry.id, provenance["commit"][:7], provenance["date"][:10])
    _frame(figure, record.title, " · ".join(parts))
    target = _save(folder, record, figure, entry.title, *IMAGE_METADATA)
    data.to_csv(target / "data.csv", index=False, lineterminator="\n")
    files = {f"figure.{kind}": sha256_of((target / f"figure.{kind}").read_bytes()) for kind in IMAGE_METADATA}
    about = {"figure": entry.id, "title": entry.title, "paper": entry.paper, "evidence": record.evidence}
    write_json(target / "provenance.json", about | provenance | {"model": MODELS[record.evidence], "files": files})


def _frame(figure: Figure, title: str, signature: str) -> None:
    """Write above a picture what it says and, along its right edge, what it is, so that a pasted one still says so."""
    text = wrapped(title, int(10 * figure.get_figwidth()))
    added = 0.21 * (text.count("\n") + 1) + 0.06
    figure.set_figheight(figure.get_figheight() + added)
    width, height = 0.14 / figure.get_figwidth(), added / figure.get_figheight()
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1 - width, 1 - height))
        figure.set_dpi(plt.rcParams["savefig.dpi"])  # letters are wider where there are fewer dots
        engine.execute(figure)
        figure.set_layout_engine("none")  # which would leave no room for a legend that is moved down
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1 - width, 1 - height), figure.transFigure)
    figure.text(0.01, 1 - 0.15 * height, text, va="top", fontsize=11.5, fontweight="bold")
    look = {"rotation": "vertical", "ha": "right", "va": "center", "fontsize": 6, "color": "0.45"}
    figure.text(1 - 0.1 * width, 0.5, signature, **look)


def lacking(evidence: str) -> str:
    """Return what a box says above the reason why there is nothing from a kind of evidence."""
    return "Released data not available" if evidence == "released" else "Not measured yet"


def placeholder(folder: Path, entry: FigureEntry, evidence: str, status: str, text: str) -> FigureRecord:
    """Draw a visible box in place of a figure that cannot be made now and return its record.

    status: "waiting" (for evidence that this build does not have) or "unavailable" (what it needs is not at hand).
    """
    figure, axes = plt.subplots(figsize=(7.2, 1.7))
    axes.set_axis_off()
    box = {"boxstyle": "round,pad=1.2", "facecolor": "0.97", "edgecolor": "0.6", "linestyle": (0, (5, 4))}
    headline = {"waiting": f"Waiting for the {evidence} evidence", "unavailable": lacking(evidence)}[status]
    axes.text(0.5, 0.5, f"{headline}\n{entry.title}", ha="center", va="center", color="0.25", bbox=box, wrap=True)
    record = FigureRecord(entry.id, evidence, status, text, f"An empty box: {headline.lower()} for this figure.")
    _save(folder, record, figure, entry.title, "svg")
    return record


def _save(folder: Path, record: FigureRecord, figure: Figure, title: str, *kinds: str) -> Path:
    """Save the picture in some formats, the same bytes each time; return its folder."""
    target = folder / "figures" / record.id / record.evidence
    target.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        figure.savefig(target / f"figure.{kind}", metadata=IMAGE_METADATA[kind] | {"Title": title})
    plt.close(figure)
    return target
