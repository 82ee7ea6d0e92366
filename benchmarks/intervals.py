"""How much the vectorised clustered bootstrap saves over the loop a reader would otherwise write.

Both draw the same resamples of 400 answers to eight questions and give the same interval; the ratio of their times is
taken in one run, as the median of paired repetitions, and printed as one JSON line.
"""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from em_companion.evidence.estimates import mean

RESAMPLES, REPETITIONS = 10_000, 5


def loop_interval(values: np.ndarray, clusters: np.ndarray, resamples: int) -> tuple[float, float]:
    """Resample questions one resample at a time, gathering the answers of each drawn question."""
    labels = np.unique(clusters)
    groups = [values[clusters == label] for label in labels]
    draws = np.random.default_rng(0).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples)
    means = [
        np.concatenate([np.tile(group, count) for group, count in zip(groups, counts, strict=True)]).mean()
        for counts in draws
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the benchmark as one JSON line."""
    values = (np.random.default_rng(1).random(400) < 0.11).astype(float)
    questions = np.repeat(np.arange(8), 50)
    assert np.allclose(mean(values, questions, RESAMPLES).ends, loop_interval(values, questions, RESAMPLES))
    pairs = [
        (
            seconds(lambda: mean(values, questions, RESAMPLES)),
            seconds(lambda: loop_interval(values, questions, RESAMPLES)),
        )
        for _ in range(REPETITIONS)
    ]
    print(
        json.dumps(
            {
                "benchmark": "clustered bootstrap, 10,000 resamples of 400 answers",
                "seconds": statistics.median(fast for fast, _ in pairs),
                "seconds_of_a_loop": statistics.median(slow for _, slow in pairs),
                "ratio": statistics.median(slow / fast for fast, slow in pairs),
            }
        )
    )


if __name__ == "__main__":
    main()
