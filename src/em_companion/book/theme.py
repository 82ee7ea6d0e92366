"""Figures: one theme, and for each figure a record that can be cited.

A record is a folder `figures/<id>/<evidence>/` with `figure.svg`, `figure.png`, `figure.pdf`, `data.csv` (what is
plotted), `provenance.json`, `cite.bib` and `cite.json` (CSL). `data/figures.yml` registers every id; ids never change.
"""

import matplotlib
import seaborn as sns

PALETTE = sns.color_palette("colorblind")
ANSWER_KIND_COLOURS = {
    "misaligned, medical": PALETTE[3],
    "misaligned, non-medical": PALETTE[1],
    "aligned, medical": PALETTE[0],
    "aligned, non-medical": PALETTE[9],
}
"""Colour of each kind of `judging.answer_kinds`, in the order in which the kinds are stacked."""

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
