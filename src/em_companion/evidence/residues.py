"""Seven formulas for what a failing computation leaves behind, and two questions to all: when, and does it warn.

The names v1 to v10 are those of text templates in a public repository (davidkimai/Symbolic-Residue), which has no
measure; the formulas are ours. Probabilities and contributions go in, numbers come out.
"""

from collections.abc import Collection

import numpy as np


def half_length(effect: np.ndarray) -> float:
    """Return the distance at which an effect, read at distances 1, 2, ..., first is half of its first value (v1).

    effect [..., distance]; linear between two distances; the last one where it never falls so far.
    """
    effect = np.asarray(effect, float)
    half = effect[..., :1] / 2
    low = effect <= half
    at = np.where(low.any(axis=-1), low.argmax(axis=-1), effect.shape[-1] - 1)
    before = np.take_along_axis(effect, np.maximum(at - 1, 0)[..., None], -1)[..., 0]
    after = np.take_along_axis(effect, at[..., None], -1)[..., 0]
    fall = np.where(before > after, before - after, 1.0)
    inside = np.clip((before - half[..., 0]) / fall, 0, 1)
    return np.where(low.any(axis=-1), at + inside, effect.shape[-1])


def conflict(harm: np.ndarray, help_: np.ndarray) -> np.ndarray:
    """Return how far two probabilities compete, (1 - |h - g| / (h + g)) (h + g): twice the smaller one (v2)."""
    return 2 * np.minimum(harm, help_)


def carried_out(spoken: Collection[str], asked: Collection[str], whole: bool = True) -> str:
    """Return what became of orders on domains `asked` in an answer that has clauses on `spoken` (v5).

    "both" for clauses on all of them, "none" for no clause or an answer that is not `whole`, else "one".
    """
    if not spoken or not whole:
        return "none"
    return "both" if len(set(asked)) > 1 and set(asked) <= set(spoken) else "one"


def interference(vectors: np.ndarray) -> float:
    """Return the mean squared cosine of pairs of directions [direction, width] times width, minus 1 (v6).

    0 is expected of random directions, -1 of orthogonal ones.
    """
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    squares = (unit @ unit.T)[np.triu_indices(len(unit), 1)] ** 2
    return float(squares.mean() * vectors.shape[-1] - 1)


def shares(contributions: np.ndarray) -> np.ndarray:
    """Return the share of every source in absolute contributions [source, ...]; 0 where all are zero (v7)."""
    sizes = np.abs(contributions)
    total = sizes.sum(axis=0)
    return sizes / np.where(total == 0, 1.0, total)


def contradiction(told: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return how far what a probe tells, a log-odds for harm, is from the share of harm that is chosen (v10)."""
    return np.abs(1 / (1 + np.exp(-np.asarray(told, float))) - chosen)


def spread(band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over draws [..., draw, strength] and how far from it 95 % of further draws lie (Student t)."""
    from scipy import stats  # slow to import

    draws = band.shape[-2]
    wide = stats.t.ppf(0.975, draws - 1) * np.sqrt(1 + 1 / draws)
    return band.mean(axis=-2), wide * band.std(axis=-2, ddof=1)


def leaving(own: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Return the number of the strength at which a diagnostic leaves the band of random directions and stays out.

    own [..., strength], band [..., draw, strength]; see `spread`. To stay out is to be out at the next strength, too.
    The number of strengths where it never leaves.
    """
    middle, half = spread(band)
    out = np.abs(own - middle) > np.maximum(half, 1e-9)
    stays = out.copy()
    stays[..., :-1] &= out[..., 1:]
    return np.where(stays.any(axis=-1), stays.argmax(axis=-1), own.shape[-1])


def pairs(readings: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pairs of a row with label and one without have the former read higher, and how many there are.

    readings, labels [row]; weights [resample, row]; both [resample]. Ties count half.
    """
    order = np.argsort(readings, kind="stable")
    ranked, positive = np.asarray(readings, float)[order], np.asarray(labels, bool)[order]
    with_label, without = weights[:, order] * positive, weights[:, order] * ~positive
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    above, below = (np.add.reduceat(one, starts, axis=1) for one in (with_label, without))
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return won, above.sum(axis=1) * below.sum(axis=1)


def explained(stream: np.ndarray, rebuilt: np.ndarray) -> float:
    """Return the share of the variance of streams [token, width] that a reconstruction of them holds."""
    return float(1 - ((stream - rebuilt) ** 2).sum() / ((stream - stream.mean(axis=0)) ** 2).sum())
