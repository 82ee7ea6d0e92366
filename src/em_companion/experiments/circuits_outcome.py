"""What became of the predictions of N2.4: the kept tables of `experiments/circuits.py`, and a measurement of each."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from em_companion.evidence import estimates, outcomes
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import long_run
from em_companion.experiments.circuits import HARM, MOST, OPENING, RETRACTION, SEEDS, TOP
from em_companion.models.components import MLP

NOTEBOOK = "n2-recursion-and-self-correction"
NAME = f"{NOTEBOOK}-circuits"
TOGETHER = "together"
LEAST = 1.0
"""Log-odds (nats) by which retraction must differ between its two models, and stand in the self-correcting one."""


@dataclass(frozen=True)
class Circuits:
    """The tables of all behaviours and seeds: log-odds, nodes, curves, and measures of all together."""

    measured = long_run.table(NAME)
    """One row per behaviour and seed, in nats: recipient, donor, difference; of harm the falls top and drawn."""

    nodes = long_run.table(NAME, "nodes")
    """One row per behaviour, seed and node; see `circuits.Measured.table`."""

    measures = long_run.table(NAME, "measures")
    """One row per measure of all behaviours together; see `circuits.together`."""

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row per behaviour and node, mean over seeds: `value` (%) of the two runs' difference, and its `size`."""
        whole = self.measured.difference.reindex(self.nodes.index)
        table = self.nodes.assign(value=100 * self.nodes.effect / whole).reset_index()
        table = table.groupby(["arm", "layer", "part"], sort=False).value.mean().reset_index()
        return table.rename(columns={"arm": "behaviour"}).assign(size=lambda one: one.value.abs())

    def largest(self, name: str) -> pd.Series:
        """Return the effects (%) on a behaviour, by layer and part, largest first."""
        own = self.effects[self.effects.behaviour == name].set_index(["layer", "part"])
        return own.value.sort_values(ascending=False, kind="stable")

    def against_harm(self) -> pd.DataFrame:
        """Return the effects on the other behaviours (`value`) beside those on harm: behaviour, layer, part, kind."""
        harm = self.largest(HARM).rename(HARM)
        table = self.effects[self.effects.behaviour != HARM].join(harm, on=["layer", "part"])
        return table.assign(kind=table.part.str.split().str[0])

    def measure(self, name: str, unit: str = "") -> tuple[Estimate, float]:
        """Return a measure of all behaviours together and what chance stays short of."""
        row, texts = self.measures.set_index("measure").loc[name], int(self.measured.loc[TOGETHER, "texts"].iloc[0])
        return Estimate(row.value, row.value_low, row.value_high, texts, unit), float(row.null)

    def overlap(self, *pair: str) -> tuple[Estimate, float]:
        """Return the rank correlation of two behaviours' effects, and what chance stays short of."""
        order = [one for one in SEEDS if one in pair]
        return self.measure(" ".join(["correlation", *order]), "correlation")

    def values(self) -> dict[str, object]:
        """Return what the page says of circuits, by name."""
        organisms, retraction = self.measured.loc[HARM], self.measured.loc[RETRACTION].iloc[0]
        direct = self.nodes.loc[HARM].groupby("seed")[["direct", "by_adapter"]].sum()
        found = {"adapters": estimates.over_seeds(100 * direct.by_adapter / direct.direct, "percent")}
        found |= {name: f"{retraction[name]:.1f}" for name in ("recipient", "difference")}
        found["harm"] = estimates.over_seeds(organisms.difference, "nats")
        single = self.nodes.loc[RETRACTION].effect.to_numpy()
        own = self.nodes.loc[HARM].groupby("seed").effect.agg(lambda one: estimates.spearman(one.to_numpy(), single))
        found["by-organism"] = f"{own.min():.2f} to {own.max():.2f}"
        for name in ("top", "drawn"):
            found[name] = estimates.over_seeds(100 * organisms[name] / organisms.difference, "percent")
        five = self.largest(RETRACTION).index[:TOP]
        common = {*self.largest(HARM).index[:MOST]} & {*self.largest(RETRACTION).index[:MOST]}
        found |= {"common": len(common), "five": _listed(five), "path": _listed(self.largest(HARM).index[:3])}
        found["single"] = f"{self.largest(HARM)[five].max():.0f} %"
        found["sum"] = f"{self.largest(RETRACTION).sum():.0f} %"
        for pair in ((RETRACTION, HARM), (OPENING, HARM)):
            one, null = self.overlap(*pair)
            found |= {f"correlation.{'-'.join(pair)}": one, f"correlation.{'-'.join(pair)}.null": f"{null:.2f}"}
        return found | {"healed": self.measure("healed", "percent")[0], "fewest": self.measure("fewest", "nodes")[0]}

    def outcome(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction, by id."""
        row = self.measured.loc[RETRACTION].iloc[0]
        holds = min(row.recipient, row.difference) > LEAST
        failed = (
            f"retraction is at {row.recipient:.1f} nats, {row.difference:.1f} above the control; {LEAST:g} is needed"
        )
        correlation, null = self.overlap(RETRACTION, HARM)
        healed, fewest = self.measure("healed", "percent")[0], self.measure("fewest", "nodes")[0]
        found, how, held = outcomes.gated(correlation, "61 nodes, five organisms", holds, failed, "texts")
        return {
            "p-circuit-overlap": (found, how, held | {"null": null}),
            "p-circuit-causal": outcomes.gated(healed, "five nodes minus random ones", holds, failed, "texts"),
            "p-circuit-small": outcomes.gated(fewest, "mean over five organisms", of="texts"),
        }


def _listed(nodes: pd.MultiIndex) -> str:
    """Return nodes as prose names them, in the order of layers."""
    named = [
        f"the MLP of layer {layer}" if part == MLP else f"{part} of layer {layer}" for layer, part in sorted(nodes)
    ]
    return ", ".join(named[:-1]) + f" and {named[-1]}"
