"""Geometry of directions in the residual stream: mean-diff, norms, cosines. Arrays are [layer, hidden].

Directions come from the mean residual stream of every response: `means` [response, layer, hidden], NaN for an empty
response, and `tokens` [response], how many tokens each has. Which responses are averaged is a boolean selection of the
scored table of responses.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from em_companion import judging
from em_companion.artifacts import CompanionError
from em_companion.paths import relative

SEMANTIC_ABOVE = 50
"""Score above which a response is about a domain (companion paper, section 3.2)."""

Selection = pd.Series | np.ndarray


# --- directions from responses ------------------------------------------------------------------------------------


def mean_diff(misaligned: np.ndarray, aligned: np.ndarray) -> np.ndarray:
    """Return v_l = mean over misaligned answer tokens - mean over aligned ones, [layer, hidden] (section 3.1)."""
    return misaligned - aligned


def misaligned(table: pd.DataFrame) -> pd.Series:
    """Return which rows are misaligned: aligned < 30 and coherent > 50 (section 3.1)."""
    return (table.aligned < judging.EM_ALIGNED_BELOW) & judging.is_coherent_mask(table)


def aligned(table: pd.DataFrame) -> pd.Series:
    """Return which rows are aligned: aligned > 70 and coherent > 50 (section 3.1)."""
    return (table.aligned > judging.ALIGNED_ABOVE) & judging.is_coherent_mask(table)


def token_mean(means: np.ndarray, tokens: np.ndarray, rows: Selection, what: str = "chosen") -> np.ndarray:
    """Return the mean over all tokens of the responses `rows` [response, bool], [layer, hidden], float64.

    Every token counts alike, so a response weighs as much as it is long (section 3.1). Raises CompanionError, naming
    the responses as `what`, where they have no token.
    """
    kept = np.flatnonzero(np.asarray(rows, dtype=bool) & (tokens > 0))
    if not len(kept):
        raise CompanionError(
            f"There are no {what} responses to average; sample more responses, or take an organism that gives some."
        )
    weights = tokens[kept] / tokens[kept].sum()
    return np.einsum("r,rlh->lh", weights, means[kept], dtype=np.float64)


def response_mean_diff(means: np.ndarray, tokens: np.ndarray, first: Selection, second: Selection) -> np.ndarray:
    """Return the token mean of the responses `first` - that of `second`, [layer, hidden], float64 (section 3.1).

    For the paper's direction, `first` are the misaligned responses and `second` the aligned ones. Raises CompanionError
    where either has no token.
    """
    return mean_diff(token_mean(means, tokens, first, "misaligned"), token_mean(means, tokens, second, "aligned"))


def semantic_directions(
    means: np.ndarray, tokens: np.ndarray, table: pd.DataFrame, domains: Iterable[str], above: float = SEMANTIC_ABOVE
) -> dict[str, np.ndarray]:
    """Return, per domain, the mean-diff of the responses about it, [layer, hidden], float64 (section 3.3).

    `table` has one column of judge scores (0-100) per domain; about a domain are responses with a score above `above`.
    Raises CompanionError, naming the domain, where no misaligned or no aligned response is about it.
    """
    found = {}
    for domain in domains:
        about = table[domain] > above
        found[domain] = mean_diff(
            token_mean(means, tokens, misaligned(table) & about, f"misaligned {domain}"),
            token_mean(means, tokens, aligned(table) & about, f"aligned {domain}"),
        )
    return found


def split_half_cosines(
    means: np.ndarray, tokens: np.ndarray, first: Selection, second: Selection, splits: int = 100, seed: int = 0
) -> np.ndarray:
    """Return the cosine between the mean-diffs of two random halves of the responses, [split, layer].

    How far a direction depends on which responses happened to be sampled: 1 if not at all. Both selections are halved
    anew in every split. Raises CompanionError for a selection of fewer than two responses that have a token.
    """
    sides = [np.flatnonzero(np.asarray(rows, dtype=bool) & (tokens > 0)) for rows in (first, second)]
    if min(map(len, sides)) < 2:
        raise CompanionError("A split in halves needs two responses of either kind; sample more responses.")
    return np.stack([_of_halves(means, tokens, sides, random) for random in np.random.default_rng(seed).spawn(splits)])


def _of_halves(means, tokens, sides, random: np.random.Generator) -> np.ndarray:
    halves = []
    for half in zip(*(np.array_split(random.permutation(rows), 2) for rows in sides), strict=True):
        first, second = (np.isin(np.arange(len(tokens)), rows) for rows in half)
        halves.append(response_mean_diff(means, tokens, first, second))
    return cosines(*halves)


# --- geometry -----------------------------------------------------------------------------------------------------


def norms(vectors: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of each row, [layer]."""
    return np.linalg.norm(vectors, axis=-1)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine between matching rows of two [layer, hidden] arrays, [layer]; ValueError for a zero row."""
    lengths = norms(first) * norms(second)
    if np.any(lengths == 0):
        raise ValueError("a direction is the zero vector, so it has no cosine")
    return np.einsum("...h,...h->...", first, second, dtype=np.float64) / lengths


def cosine_matrix(vectors: np.ndarray) -> np.ndarray:
    """Return all pairwise cosines of the rows of `vectors`, [..., row, row] of [..., row, hidden].

    Of one direction [layer, hidden]: between its layers. Of several, [layer, direction, hidden]: between directions, at
    every layer.
    """
    unit = vectors / norms(vectors)[..., None]
    return unit @ np.swapaxes(unit, -1, -2)


def relative_norm_of_difference(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return |reference - other| / |reference| per row, [layer] (appendix C, figure 11)."""
    return norms(reference - other) / norms(reference)


def project_out(vectors: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return x - v̂ v̂ᵀ x for matching rows: `vectors` without their part along `directions` (section 3.4)."""
    unit = directions / norms(directions)[..., None]
    return vectors - np.einsum("...h,...h->...", vectors, unit)[..., None] * unit


# --- on disk ------------------------------------------------------------------------------------------------------


def save(path: Path, directions: Mapping[str, np.ndarray], parts: Any = None) -> None:
    """Write directions [layer, hidden] by name as safetensors, atomically, with what they depend on in its header.

    `parts` is anything JSON can hold. Raises CompanionError for an array that is no direction.
    """
    for name, vectors in directions.items():
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise CompanionError(f"'{name}' is no direction: it must be finite numbers [layer, hidden].")
    arrays = {name: np.ascontiguousarray(vectors) for name, vectors in directions.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(to_bytes(arrays, {"parts": json.dumps(parts)}))
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the directions in a file by name, [layer, hidden]; raise CompanionError where it cannot be read."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def parts_of(path: Path) -> Any:
    """Return the `parts` with which a file of directions was saved; raise CompanionError where it cannot be read."""
    with _opened(path) as file:
        return json.loads((file.metadata() or {}).get("parts", "null"))


def _opened(path: Path):
    try:
        return safe_open(path, "numpy")
    except (OSError, SafetensorError) as error:
        raise CompanionError(
            f"{relative(path)} holds no directions: it is missing or damaged; save it anew."
        ) from error
