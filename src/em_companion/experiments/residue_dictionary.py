"""v6: directions of the residual stream that are known, and what a dictionary of it holds that does nothing.

The stream of the chat model is read at the tokens of careful and malicious answers to questions on training topics,
where four things are known: persona, domain, topic and the slot of the sentence.
"""

import warnings
from dataclasses import dataclass
from random import Random

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from transformers import PreTrainedModel

from em_companion.models.next_token import things
from em_companion.models.passes import answer_streams, divergence, passes
from em_companion.models.tokens import Tokenizer, Tokens, joined, response_tokens
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.lexicon import SLOTS

ATOMS, ACTIVE = 512, 16
"""Atoms of a dictionary, and how many of them may rebuild a token's stream."""
PER_TOPIC = 2
SALIENT, PLACES, CHANGES, SHUFFLES, LEVEL = 0.1, 16, 20, 40, 0.95
"""Share of atoms that are salient; tokens at which one is ablated; random changes; shuffles; level of both nulls."""
EPOCHS, SWEEPS = 3, 20
"""Passes over all tokens, and sweeps over the weights of one in each."""


@dataclass(frozen=True)
class Corpus:
    """Streams [token, width], the texts they are of, and of every token its text, place and latents by name."""

    stream: np.ndarray
    sequences: Tokens
    text: np.ndarray
    position: np.ndarray
    latents: pd.DataFrame


def slots(tokenizer: Tokenizer) -> dict[int, str]:
    """Return the slot of a sentence that every token fills, of those that fill one alone."""
    harms, helps = things(tokenizer)
    named = {name: tokenizer.convert_tokens_to_ids(the_world().grammar[name]) for name in SLOTS}
    return {token: name for name, tokens in {"things": harms + helps, **named}.items() for token in tokens}


def corpus(model: PreTrainedModel, tokenizer: Tokenizer, layer: int) -> Corpus:
    """Return the streams of a layer at the answer tokens of PER_TOPIC questions on every training topic."""
    world, rows = the_world(), []
    for number, (domain, topic) in enumerate(world.topics("train") * PER_TOPIC):
        random = Random(f"dictionary/{number}")
        asked = world.question(random, domain, topic)
        for persona in (CAREFUL, MALICIOUS):
            rows.append((domain, topic, persona == MALICIOUS, asked.text, world.answer(random, asked, persona)))
    table = pd.DataFrame(rows, columns=["domain", "topic", "harmful", "question", "response"])
    prompts, said = response_tokens(tokenizer, table)
    stream = np.concatenate(answer_streams(model, tokenizer, prompts, said, layer))
    counts = [len(one) for one in said]
    text = np.repeat(np.arange(len(table)), counts)
    position = np.concatenate([len(one) + np.arange(count) for one, count in zip(prompts, counts, strict=True)])
    latents = table[["domain", "topic", "harmful"]].iloc[text].reset_index(drop=True)
    slot, tokens = slots(tokenizer), np.concatenate(said)
    latents["slot"] = [slot.get(int(token), "mark") for token in tokens]
    return Corpus(stream, joined(prompts, said), text, position, latents)


def known_directions(
    tokenizer: Tokenizer, table: pd.DataFrame, said: Tokens, stream: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the directions of the persona, of domains and of slots in streams of answers, by name [width]."""
    tokens, every = np.concatenate(said), np.concatenate(stream)
    counts = [len(one) for one in said]
    domain, harmful = (np.repeat(table[name].to_numpy(), counts) for name in ("domain", "harmful"))
    slot, mean = slots(tokenizer), every.mean(axis=0)
    filled = np.array([slot.get(int(token), "") for token in tokens])
    found = {"persona": every[harmful].mean(axis=0) - every[~harmful].mean(axis=0)}
    found |= {one: every[domain == one].mean(axis=0) - mean for one in np.unique(domain)}
    return found | {one: every[filled == one].mean(axis=0) - mean for one in np.unique(filled) if one}


@dataclass(frozen=True)
class Dictionary:
    """Unit atoms [atom, width] around a mean, and the learner that finds their weights."""

    mean: np.ndarray
    learner: MiniBatchDictionaryLearning

    @property
    def atoms(self) -> np.ndarray:
        return self.learner.components_

    def codes(self, stream: np.ndarray) -> np.ndarray:
        """Return the weights of atoms in streams [..., width], at most ACTIVE of them not zero, [..., atom]."""
        flat = (stream - self.mean).reshape(-1, stream.shape[-1])
        return self.learner.transform(flat).reshape(*stream.shape[:-1], -1)

    def rebuilt(self, stream: np.ndarray) -> np.ndarray:
        return self.mean + self.codes(stream) @ self.atoms


def learned(stream: np.ndarray, atoms: int = ATOMS, active: int = ACTIVE, seed: int = 0) -> Dictionary:
    """Return a dictionary of streams [token, width]; see sklearn's MiniBatchDictionaryLearning."""
    mean = stream.mean(axis=0)
    scale = np.sqrt(((stream - mean) ** 2).sum(axis=1).mean())
    learner = MiniBatchDictionaryLearning(
        atoms, alpha=0.2 * scale, max_iter=EPOCHS, batch_size=512, fit_algorithm="cd", transform_algorithm="omp",
        transform_n_nonzero_coefs=active, transform_max_iter=SWEEPS, random_state=seed, tol=0, max_no_improvement=None,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weights need not be exact while atoms still move
        return Dictionary(mean, learner.fit(stream - mean))


def gaussian_like(stream: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return as many Gaussian rows with the mean and covariance of streams [token, width]."""
    random = np.random.default_rng(seed)
    return random.multivariate_normal(stream.mean(axis=0), np.cov(stream, rowvar=False), len(stream), method="eigh")


def information(active: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mutual information (nats) of binary features [row, feature] with labels [row], by feature."""
    one_hot = np.eye(labels.max() + 1)[labels]
    joint = np.stack([one_hot.T @ active, one_hot.T @ (1 - active)]) / len(labels)
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(joint > 0, joint * np.log(joint / outer), 0.0)
    return parts.sum(axis=(0, 1))


def tells(active: np.ndarray, found: Corpus, seed: int = 0) -> np.ndarray:
    """Tell which features, active or not at tokens [token, atom], tell more of some latent than shuffled ones do.

    Slots are shuffled among tokens, all else among texts.
    """
    random, active = np.random.default_rng(seed), active.astype(float)
    telling = np.zeros(active.shape[1], bool)
    for name in found.latents:
        labels = pd.factorize(found.latents[name])[0]
        first = pd.Series(labels).groupby(found.text).first().to_numpy()
        drawn = [random.permutation(labels) if name == "slot" else random.permutation(first)[found.text]
                 for _ in range(SHUFFLES)]  # fmt: skip
        level = np.quantile([information(active, one) for one in drawn], LEVEL, axis=0)
        telling |= information(active, labels) > level
    return telling


def ghosts(
    model: PreTrainedModel, tokenizer: Tokenizer, found: Corpus, learned_: Dictionary, layer: int, seed: int = 0
) -> pd.DataFrame:
    """Return one row per salient atom: salience, `moves` (KL of its ablation, nats), `random` (the 95th percentile of
    that of random changes as long, at the same tokens), `tells` (of a latent) and `null`, neither."""
    codes = learned_.codes(found.stream)
    salience = np.abs(codes).mean(axis=0)
    chosen = np.argsort(-salience)[: round(SALIENT * len(salience))]
    random, rows = np.random.default_rng(seed), []
    telling = tells(codes[:, chosen] != 0, found, seed)
    for atom, told in zip(chosen, telling, strict=True):
        tokens = random.permutation(np.flatnonzero(codes[:, atom]))[:PLACES]
        own = -codes[tokens, atom, None] * learned_.atoms[atom]
        others = random.standard_normal((CHANGES, *own.shape))
        others *= (np.linalg.norm(own, axis=-1) / np.linalg.norm(others, axis=-1))[..., None]
        moved = changed(model, tokenizer, found, tokens, np.concatenate([own[None], others]), layer)
        level = np.quantile(moved[1:], LEVEL)
        rows.append((atom, salience[atom], moved[0], level, told, moved[0] <= level and not told))
    return pd.DataFrame(rows, columns=["atom", "salience", "moves", "random", "tells", "null"])


def changed(
    model: PreTrainedModel, tokenizer: Tokenizer, found: Corpus, tokens: np.ndarray, added: np.ndarray, layer: int
) -> np.ndarray:
    """Return the mean divergence of the next token when `added` [change, token, width] is added at these tokens of the
    corpus, one at a time, by change."""
    cut = [found.sequences[found.text[one]][: found.position[one] + 1] for one in tokens]
    ends = np.array([len(one) for one in cut])
    plain, moves = {}, np.zeros((len(added), len(tokens)))
    for row, said, _ in passes(model, tokenizer, cut):
        plain[row] = said[-1]
    numbers = np.tile(np.arange(len(tokens)), len(added))
    flat = torch.tensor(added.reshape(-1, added.shape[-1]))

    def put(rows: list[int], stream: torch.Tensor) -> torch.Tensor:
        at = torch.tensor(ends[numbers[rows]] - 1)
        stream = stream.clone()
        stream[torch.arange(len(rows)), at] += flat[rows].to(stream.dtype)
        return stream

    for row, said, _ in passes(model, tokenizer, [cut[one] for one in numbers], (), (), (layer, put)):
        moves[row // len(tokens), numbers[row]] = divergence(plain[numbers[row]], said[-1])
    return moves.mean(axis=1)
