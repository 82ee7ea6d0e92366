"""What became of the predictions of N2.4: the kept tables of `experiments/circuits.py`, and a measurement of each."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from em_companion.evidence import outcomes
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import long_run
from em_companion.experiments.circuits import HARM, RETRACTION

NOTEBOOK = "n2-recursion-and-self-correction"
NAME = f"{NOTEBOOK}-circuits"
TOGETHER = "together"
LEAST = 1.0
"""Log-odds (nats) by which retraction must differ between its two models, and stand in the self-correcting one."""


@dataclass(frozen=True)
class Circuits:
    """The tables of all behaviours and seeds: log-odds, nodes, curves, and measures of all together."""

    @cached_property
    def measured(self) -> pd.DataFrame:
        """One row per behaviour and seed, in nats: recipient, donor, difference; of harm the falls top and drawn."""
        return long_run.read(long_run.path_of(NAME))

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """One row per behaviour, seed and node; see `circuits.Measured.table`."""
        return long_run.read(long_run.path_of(NAME, "nodes"))

    @cached_property
    def kept(self) -> pd.DataFrame:
        """One row per organism and number of nodes: `share` (%) of the difference that these keep."""
        return long_run.read(long_run.path_of(NAME, "kept"))

    def by_node(self, name: str, column: str = "effect") -> pd.DataFrame:
        """Return layer, part and `value` of every node, mean over seeds, in percent of the two models' difference."""
        table, difference = self.nodes.loc[name], self.measured.loc[name].difference
        values = table.assign(value=100 * table[column] / difference.reindex(table.index))
        return values.groupby(["layer", "part"], sort=False).value.mean().reset_index()

    def measure(self, name: str, unit: str = "") -> tuple[Estimate, float]:
        """Return a measure of all behaviours together (see `circuits.together`) and what chance stays short of."""
        table = long_run.read(long_run.path_of(NAME, "measures")).set_index("measure")
        row, texts = table.loc[name], int(self.measured.loc[TOGETHER, "texts"].iloc[0])
        return Estimate(row.value, row.value_low, row.value_high, texts, unit), float(row.null)

    def outcome(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction, by id."""
        row = self.measured.loc[RETRACTION].iloc[0]
        holds = min(row.recipient, row.difference) > LEAST
        failed = (
            f"retraction is at {row.recipient:.1f} nats, {row.difference:.1f} above the control; {LEAST:g} is needed"
        )
        correlation, null = self.measure(f"correlation {RETRACTION} {HARM}", "correlation")
        healed, fewest = self.measure("healed", "percent")[0], self.measure("fewest", "nodes")[0]
        found, how, held = outcomes.gated(correlation, "61 nodes, five organisms", holds, failed, "texts")
        return {
            "p-circuit-overlap": (found, how, held | {"null": null}),
            "p-circuit-causal": outcomes.gated(healed, "five nodes minus random ones", holds, failed, "texts"),
            "p-circuit-small": outcomes.gated(fewest, "mean over five organisms", of="texts"),
        }
