"""The one look of all figures."""

import matplotlib
import seaborn as sns

PALETTE = sns.color_palette("colorblind")
ANSWER_KIND_COLOURS = {  # in the order in which the kinds are stacked
    "misaligned, medical": PALETTE[3],
    "misaligned, non-medical": PALETTE[1],
    "aligned, medical": PALETTE[0],
    "aligned, non-medical": PALETTE[9],
}
TOPIC_COLOURS = {  # of data sets, domains and the directions of a topic
    "general": PALETTE[3],
    "gender": PALETTE[1],
    "finance": PALETTE[2],
    "medical": PALETTE[0],
    "medicine": PALETTE[0],
    "sport": PALETTE[9],
}
DIRECTION_COLOURS = {  # the other one of a model that is not grown is that of released answers
    "mean-diff": PALETTE[3],
    "mean-diff within questions": PALETTE[4],
    "known persona": PALETTE[2],
    "released answers": PALETTE[2],
}
REPORTED_COLOUR, NULL_COLOUR = "0.35", "0.6"


def use_theme() -> None:
    """Set the one theme: white ground (which a dark page inverts), colour-blind-safe palette, readable sizes."""
    matplotlib.use("agg", force=False)
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.figsize": (7.2, 4.2),
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": "0.92",
            "axes.titlesize": "medium",
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
