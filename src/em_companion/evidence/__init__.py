"""From tables to numbers: scores, estimates, directions, probes, claims and their verdicts."""
