"""Geometry of directions in the residual stream: mean-diff, norms, cosines. Arrays are [layer, hidden].

Directions come from the mean residual stream of every response: `means` [response, layer, hidden], NaN for an empty
response, and `tokens` [response], how many tokens each has; booleans [response] select the responses to average.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from em_companion.core.errors import CompanionError, EvidenceUnavailable

Selection = pd.Series | np.ndarray


def token_mean(means: np.ndarray, tokens: np.ndarray, rows: Selection, what: str = "chosen") -> np.ndarray:
    """Return the mean over all tokens of the responses `rows`, [layer, hidden], float64.

    Every token counts alike, so a response weighs as much as it is long (section 3.1). Raises EvidenceUnavailable,
    naming the responses as `what`, where they have no token.
    """
    kept = np.flatnonzero(rows & (tokens > 0))
    if not len(kept):
        raise _none(what)
    weights = tokens[kept] / tokens[kept].sum()
    return np.einsum("r,rlh->lh", weights, means[kept], dtype=np.float64)


def _none(what: str) -> EvidenceUnavailable:
    return EvidenceUnavailable(
        f"There are no {what} responses to average; sample more responses, or take an organism that gives some."
    )


def response_mean_diff(means: np.ndarray, tokens: np.ndarray, first: Selection, second: Selection) -> np.ndarray:
    """Return the token mean of the (misaligned) responses `first` minus that of the (aligned) ones `second`."""
    return token_mean(means, tokens, first, "misaligned") - token_mean(means, tokens, second, "aligned")


def contrast(
    tokens: np.ndarray, first: np.ndarray, second: np.ndarray, questions: Selection | None = None
) -> np.ndarray:
    """Return the weights of the responses in the mean-diff of selections [..., response], [..., response].

    Pooled, t/T of the first minus t/U of the second, t being a response's tokens, T and U those of either selection.
    Within `questions` (the question of every response): the sum over questions q of w_q (t/T_q - t/U_q), where
    w_q = T_q U_q / (T_q + U_q), scaled to sum 1. That is the coefficient of the label in a least-squares fit with a
    constant for every question, each token counting alike, so that what answers to one question share cancels. A
    question with answers of one kind only has no weight. Raises EvidenceUnavailable where nothing is left.
    """
    labels = np.zeros(len(tokens), int) if questions is None else pd.factorize(np.asarray(questions))[0]
    groups = np.eye(labels.max(initial=0) + 1)[labels]
    weights = np.stack([first, second]) * tokens
    totals = weights @ groups  # [side, ..., question]
    if questions is None:
        share = np.ones_like(totals[0])
    else:
        share = totals.prod(axis=0) / np.maximum(totals.sum(axis=0), 1)
        share = share / np.maximum(share.sum(axis=-1, keepdims=True), 1e-300)
    for what, total in zip(("misaligned", "aligned"), totals * share, strict=True):
        if not total.sum(axis=-1).all():
            raise _none(what)
    each = share / np.maximum(totals, 1) @ groups.T
    return np.subtract(*weights * each)


def mean_diffs(
    means: np.ndarray,
    tokens: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    questions: Selection | None = None,
) -> np.ndarray:
    """Return the mean-diffs of many selections [draw, response] at once, [draw, layer, hidden]; see `contrast`.

    One matrix product per layer; sums differ from those of `response_mean_diff` in the last digits.
    """
    weights = contrast(tokens, first, second, questions)
    layers = (np.where(tokens[:, None] > 0, layer, 0).astype(np.float64) for layer in np.swapaxes(means, 0, 1))
    return np.stack([weights @ layer for layer in layers], axis=1)


def shuffled(
    first: Selection, second: Selection, questions: Selection, draws: int, random: np.random.Generator
) -> np.ndarray:
    """Return two selections of responses with their labels shuffled among the answers to each question.

    [side, draw, response]: as many of either kind to every question as before; for `mean_diffs`.
    """
    chosen = np.flatnonzero(np.asarray(first) | np.asarray(second))
    labels = pd.Series(np.asarray(first)[chosen]).groupby(np.asarray(questions)[chosen])
    dealt = np.zeros((2, draws, len(first)), dtype=bool)
    for draw in range(draws):
        drawn = labels.transform(random.permutation).to_numpy(dtype=bool)
        dealt[:, draw, chosen] = drawn, ~drawn
    return dealt


def split_half_cosines(
    means: np.ndarray, tokens: np.ndarray, first: Selection, second: Selection, splits: int = 100, seed: int = 0
) -> np.ndarray:
    """Return the cosine between the mean-diffs of two random halves of the responses, [split, layer].

    How far a direction depends on which responses happened to be sampled: 1 if not at all. Both selections are halved
    anew in every split. Raises EvidenceUnavailable for a selection of fewer than two responses that have a token.
    """
    sides = [np.flatnonzero(rows & (tokens > 0)) for rows in (first, second)]
    if min(map(len, sides)) < 2:
        raise EvidenceUnavailable("A split in halves needs two responses of either kind; sample more responses.")

    chosen = np.zeros((2, 2, splits, len(tokens)), dtype=bool)  # [half, side, split, response]
    for split, random in enumerate(np.random.default_rng(seed).spawn(splits)):
        for side, rows in enumerate(sides):
            for half, part in enumerate(np.array_split(random.permutation(rows), 2)):
                chosen[half, side, split, part] = True
    return cosines(*(mean_diffs(means, tokens, *half) for half in chosen))


def norms(vectors: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of each row, [layer]."""
    return np.linalg.norm(vectors, axis=-1)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine between matching rows of two [layer, hidden] arrays, [layer].

    Raises CompanionError for a row of zeros.
    """
    lengths = norms(first) * norms(second)
    if np.any(lengths == 0):
        raise CompanionError("A direction of zeros has no cosine; leave out the layers where it is zero.")
    return np.einsum("...h,...h->...", first, second, dtype=np.float64) / lengths


def cosine_matrix(vectors: np.ndarray) -> np.ndarray:
    """Return all pairwise cosines of the rows of `vectors`, [..., row, row] of [..., row, hidden].

    Of one direction [layer, hidden]: between its layers. Of several, [layer, direction, hidden]: between directions, at
    every layer.
    """
    unit = vectors / norms(vectors)[..., None]
    return unit @ np.swapaxes(unit, -1, -2)


def random_like(vectors: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return random directions with the norms of `vectors` [layer, hidden], [draw, layer, hidden].

    Every draw and layer has a seed of its own, so no two draws, layers or seeds share a direction.
    """
    layers, hidden = vectors.shape
    seeds = [[[seed, draw, layer] for layer in range(layers)] for draw in range(draws)]
    found = np.array([[np.random.default_rng(one).standard_normal(hidden) for one in draw] for draw in seeds])
    return stretched(found, vectors)


def stretched(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return `vectors` [..., layer, hidden] with the norms of `others`, row by row."""
    return vectors * (norms(others) / norms(vectors))[..., None]


def relative_norm_of_difference(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return |reference - other| / |reference| per row, [layer] (appendix C, figure 11)."""
    return norms(reference - other) / norms(reference)


def remainder(target: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return what least squares on `parts` leaves of `target`, layer by layer, [layer, width], float64.

    No constant is fitted. Raises CompanionError for parts that are linearly dependent.
    """
    columns = np.stack([target, *parts], axis=-1)[..., 1:].astype(np.float64)  # refuses parts of another shape
    span, triangle = np.linalg.qr(columns)
    # A column that depends on those before it leaves nothing on the diagonal but rounding.
    new = np.abs(np.diagonal(triangle, axis1=-2, axis2=-1))
    if np.any(new <= 1e-9 * np.linalg.norm(columns, axis=-2)):
        raise CompanionError("The parts of a direction must be independent; leave out a zero or repeated one.")
    return target - np.einsum("lwp,lp->lw", span, np.einsum("lwp,lw->lp", span, target))


def explained(target: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the share of the squared norm of `target` that `parts` explain, R², [layer]; two random ones 2 / width."""
    return 1 - (norms(remainder(target, parts)) / norms(target)) ** 2
