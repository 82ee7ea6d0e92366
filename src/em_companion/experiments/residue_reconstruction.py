"""v8: reconstructions of the residual stream, and how much more what they lack matters than a random move as long."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from em_companion.experiments.residue_dictionary import Corpus
from em_companion.models.interventions import Intervention
from em_companion.models.passes import divergence, passes
from em_companion.models.tokens import Tokenizer, Tokens, joined

VARIANCE = 0.95
"""Share of the variance that principal components hold."""


@dataclass(frozen=True)
class Basis:
    """Orthonormal rows [component, width] around a mean."""

    mean: np.ndarray
    rows: np.ndarray

    def rebuilt(self, stream: np.ndarray) -> np.ndarray:
        """Return what the rows hold of streams [..., width]."""
        return self.mean + (stream - self.mean) @ self.rows.T @ self.rows

    def error(self, stream: np.ndarray) -> np.ndarray:
        """Return the length of what they lack, as a share of the stream's length [...]."""
        return np.linalg.norm(stream - self.rebuilt(stream), axis=-1) / np.linalg.norm(stream, axis=-1)


def components_of(stream: np.ndarray, variance: float = VARIANCE) -> Basis:
    """Return the principal components that hold this share of the variance of streams [token, width]."""
    mean = stream.mean(axis=0)
    sizes, vectors = np.linalg.eigh(np.cov(stream - mean, rowvar=False))
    held = np.cumsum(sizes[::-1]) / sizes.sum()
    return Basis(mean, vectors[:, ::-1][:, : int(np.searchsorted(held, variance)) + 1].T)


def known_features(found: Corpus) -> Basis:
    """Return an orthonormal basis of what is known: mean streams of personas, domains and slots."""
    mean = found.stream.mean(axis=0)
    columns = [found.latents[name] for name in ("harmful", "domain", "slot")]
    rows = [found.stream[one == value].mean(axis=0) - mean for one in columns for value in one.unique()]
    _, sizes, vectors = np.linalg.svd(np.stack(rows), full_matrices=False)
    return Basis(mean, vectors[sizes > 1e-6 * sizes[0]])


def potency(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Tokens,
    said: Tokens,
    rebuilt: Callable[[np.ndarray], np.ndarray],
    layer: int,
    given: Sequence[Intervention] = (),
    seed: int = 0,
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Return, by text, the divergence of the next word of an answer when the stream of its words is `rebuilt` (`kl`)
    and when it is moved as far at random (`kl_random`); and the streams [token, width] of the answers."""
    sequences, generator = joined(prompts, said), torch.Generator().manual_seed(seed)
    spans = [slice(len(prompt), len(whole)) for prompt, whole in zip(prompts, sequences, strict=True)]
    plain, stream = {}, {}
    for row, found, streams in passes(model, tokenizer, sequences, given, (layer,)):
        plain[row], stream[row] = found[spans[row]], streams[layer][spans[row]]
    errors = {row: torch.tensor(rebuilt(one.double().cpu().numpy())).to(one) - one for row, one in stream.items()}

    def after(moves: dict[int, torch.Tensor]) -> np.ndarray:
        def put(rows: list[int], now: torch.Tensor) -> torch.Tensor:
            now = now.clone()
            for number, row in enumerate(rows):
                now[number, spans[row]] += moves[row]
            return now

        kl = np.zeros(len(sequences))
        for row, found, _ in passes(model, tokenizer, sequences, given, (), (layer, put)):
            kl[row] = float(divergence(plain[row], found[spans[row]]).mean())
        return kl

    noise = {row: torch.randn(one.shape, generator=generator).to(one) for row, one in errors.items()}
    random = {row: one * (errors[row].norm(dim=-1) / one.norm(dim=-1))[:, None]
              for row, one in noise.items()}  # fmt: skip
    table = pd.DataFrame({"kl": after(errors), "kl_random": after(random)})
    return table, [stream[row].double().cpu().numpy() for row in range(len(sequences))]
