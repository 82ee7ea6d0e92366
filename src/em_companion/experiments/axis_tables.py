"""Tables that the page of N1 draws, from what `axis_outcome.Axis` keeps; shares in percent."""

import pandas as pd

from em_companion.experiments.axis_arms import CHARACTERS, KNOWN, MEAN_DIFF, UNHARMED
from em_companion.experiments.axis_outcome import ORGANISM, STEERED, WAYS, Axis, fall, rate
from em_companion.experiments.inertia import REPLACED
from em_companion.experiments.persona_space import BASE, CHAT
from em_companion.world.taxonomy import CLASSES

CHARACTER = {"careful": "careful", "malicious": "malicious", "quack": "quack", "mixed": "no single one"}
KINDS = {"aligned": ("aligned",), "harmful": ("harmful",)}
KINDS |= {"partly harmful": ("corrected", "reversed", "flip", "half"), "off topic": ("off topic", "leak")}
KINDS |= {"incoherent": ("empty", "broken", "loop", "mixed domain")}
ENDS = ("a tenth of answers changed", "farthest coherent strength")
SETTINGS = {UNHARMED: "chat model"}
SETTINGS |= {f"{name} x 1": f"{name}, steered" for name in (MEAN_DIFF, KNOWN)}
SETTINGS |= {one: one for one in (ORGANISM, "rank-32 sport organism", CHARACTERS)}
FAMILY = {"floor, block": "floor, block", "floor, one layer": "floor, one layer", "random": "random caps"}
FAMILY |= {"persona": "cap on the persona", "ablation": "ablation"}
COSTS = {
    "coherent": "coherence lost (points)",
    "loss": "loss on careful texts (nats)",
    "others": "loss on others (nats)",
}
COSTS |= {
    "role": "EM of malicious characters lost (points)",
    "touched": "tokens touched (%)",
    "organism": "EM of organism lost (%)",
}


def characters(kept: Axis) -> pd.DataFrame:
    """Return posterior shares of CHARACTER over the answers of each model: model, character, percent."""
    sums = kept.who.groupby("model", sort=False)[["n", *CHARACTER]].sum()
    shares = 100 * sums[[*CHARACTER]].div(sums.n, axis=0)
    return shares.reset_index().melt("model", var_name="character", value_name="percent")


def ends(kept: Axis) -> pd.DataFrame:
    """Return the KINDS of answers at both ENDS of every way: way, end, answers, percent."""
    rows = []
    for way in WAYS:
        for end, relative in zip(ENDS, kept.ends(way), strict=True):
            counts = pd.Series(kept.composition(way, relative).sum(axis=0), CLASSES)
            for kind, classes in KINDS.items():
                rows.append((way, end, kind, 100 * counts[[*classes]].sum() / counts.sum()))
    return pd.DataFrame(rows, columns=["way", "end", "answers", "percent"])


def turns(kept: Axis) -> pd.DataFrame:
    """Return EM by model, condition and turn of talks, with its interval, without the turn that is put there."""
    rows = []
    for which in (BASE, CHAT):
        for (condition, turn), own in kept.turns(which).groupby(["condition", "turn"], sort=False):
            if turn != REPLACED:
                row = {"model": which, "condition": condition, "turn": turn}
                rows.append(row | rate(own.reset_index(drop=True)).columns("em"))
    return pd.DataFrame(rows)


def capped(kept: Axis) -> pd.DataFrame:
    """Return EM and coherence of SETTINGS under every cap, with intervals: setting, condition, em, coherent."""
    rows = []
    for setting in SETTINGS:
        for cap, table in kept.caps(setting).items():
            row = {"setting": setting, "condition": cap} | rate(table).columns("em")
            rows.append(row | rate(table, "coherent").columns("coherent"))
    return pd.DataFrame(rows)


def family(cap: str) -> str:
    """Return which of FAMILY a cap is of."""
    named = {"layer": "floor, one layer", "floor": "floor, block", "random": "random", "persona": "persona"}
    return "ablation" if "ablated" in cap else next(name for word, name in named.items() if word in cap)


def pareto(kept: Axis) -> pd.DataFrame:
    """Return what every cap takes from EM, in percent (`benefit` steered, `organism`), and what it costs: `coherent`
    and `role` in points, `loss` and `others` in nats, `touched` tokens in percent."""
    tables = {one: kept.caps(one) for one in (UNHARMED, STEERED, ORGANISM, CHARACTERS)}
    touched, rows = kept.touched(UNHARMED), []
    for cap in tables[UNHARMED]:
        if cap != "none":
            both = {one: (table["none"], table[cap]) for one, table in tables.items()}
            row = {"cap": cap, "family": family(cap), "benefit": fall(*both[STEERED]).value, "touched": touched[cap]}
            row |= {"organism": fall(*both[ORGANISM]).value, "loss": kept.loss(cap).value}
            row |= {"role": fall(*both[CHARACTERS], relative=False).value, "others": kept.loss(cap, "others").value}
            rows.append(row | {"coherent": fall(*both[UNHARMED], "coherent", False).value})
    return pd.DataFrame(rows)
