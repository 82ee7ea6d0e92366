"""Sample responses in large batches, each row under interventions of its own and from a seed of its own.

Drawing from softmax(logits / T) is the same as taking the largest of logits / T - log(e) with e exponential noise (the
Gumbel trick). Rows with one prompt and equal interventions share its reading, and rows that wait replace those that
have ended. A row's response does not depend on its neighbours, but for the last digits of its logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby

import torch
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.models.interventions import Intervention, RowInterventions, checked
from em_companion.models.tokens import CPU, Tokenizer, progress

LIVE = 0.75
"""Share of rows still being written below which those that have ended leave the batch."""

NOISE_BLOCK, NOISE_STEPS = 2**19, 16
"""Numbers of noise that a row draws at once, at most, and for how many steps, at most."""


def row_seed(*parts: object) -> int:
    """Return a seed below 2**63 from anything that identifies a row (profile seed, question id, sample, ...)."""
    return int(sha256_of("/".join(map(str, parts)))[:15], 16)


@cache
def noise_fingerprint() -> str:
    """Return what tells this way of drawing noise from any other: responses that are kept depend on it."""
    rows = [RowNoise(seed, 8, CPU) for seed in (0, 1)]
    noise = torch.stack([row.draw().clone() for _ in range(2 * NOISE_STEPS) for row in rows])
    return sha256_of(noise.numpy().round(3).tobytes())


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    batch_size: int = 256,
    what: str = "",
    interventions: Sequence[Sequence[Intervention]] | None = None,
) -> list[list[int]]:
    """Return the response tokens to each prompt, without the end token; greedy at temperature 0.

    `interventions` gives every row a sequence of its own; rows share work where these are the same objects.
    `batch_size` rows are written at a time, fewer where memory does not suffice. `what` names a progress bar.
    """
    given = [()] * len(prompts) if interventions is None else list(map(checked, interventions))
    numbers = {condition: number for number, condition in enumerate(dict.fromkeys(given))}
    rows = [Row(tuple(prompt), seed, numbers[one]) for prompt, seed, one in zip(prompts, seeds, given, strict=True)]
    ends = end_tokens(model, tokenizer)
    with progress(what, len(rows), "response") as bar, RowInterventions(model, list(numbers)) as hooks:
        Writer(model, hooks, ends, temperature, max_new_tokens, bar).write(rows, batch_size)
    return [row.response for row in rows]


def end_tokens(model: PreTrainedModel, tokenizer: Tokenizer) -> set[int]:
    """Return the tokens that end a response: those by which transformers' `generate` ends it, and padding.

    They are the checkpoint's own, several maybe, or else the tokenizer's. The token with which a checkpoint pads is no
    part of any text.
    """
    said = model.generation_config
    ends = tokenizer.eos_token_id if said.eos_token_id is None else said.eos_token_id
    padding = {said.pad_token_id} & {tokenizer.pad_token_id}
    return ({*ends} if isinstance(ends, list) else {ends}) | padding


class RowNoise:
    """Noise for the next tokens of a row, from a generator of its own, drawn for many steps at once."""

    def __init__(self, seed: int, vocabulary: int, device: torch.device) -> None:
        steps = min(NOISE_STEPS, math.ceil(NOISE_BLOCK / vocabulary))  # must not depend on the batch
        self.generator = torch.Generator(device).manual_seed(seed)
        self.block, self.used = torch.empty(steps, vocabulary, device=device), 0

    def draw(self) -> torch.Tensor:
        """Return the logarithm of exponential noise for one token, [vocabulary], float32."""
        at = self.used % len(self.block)
        if at == 0:
            self.block.uniform_(generator=self.generator).log_().neg_().log_()
        self.used += 1
        return self.block[at]


@dataclass
class Row:
    """What is asked for, with the number of its interventions, and what is written."""

    prompt: tuple[int, ...]
    seed: int
    condition: int
    response: list[int] = field(default_factory=list)
    done: bool = False


@dataclass
class Batch:
    """Rows being written: the cache of all their tokens, its padding left of their prompts, and the next logits."""

    rows: list[Row]
    noise: list[RowNoise]
    cache: DynamicCache
    padding: torch.Tensor
    logits: torch.Tensor

    @property
    def conditions(self) -> torch.Tensor:
        return torch.tensor([row.condition for row in self.rows], device=self.logits.device)

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        self.rows, self.noise = ([those[row] for row in rows] for those in (self.rows, self.noise))
        kept = torch.tensor(rows, device=self.logits.device)
        _select(self.cache, kept)
        self.logits, self.padding = self.logits[kept], self.padding[kept]
        if unused := int(self.padding.min()):
            _resize(self.cache, -unused)
            self.padding = self.padding - unused

    def join(self, other: "Batch") -> None:
        """Put the rows of another batch behind these; the shorter cache is padded on its left."""
        longer = other.cache.get_seq_length() - self.cache.get_seq_length()
        for batch, missing in ((self, longer), (other, -longer)):
            if missing > 0:
                _resize(batch.cache, missing)
                batch.padding = batch.padding + missing
        for mine, others in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys, mine.values = torch.cat([mine.keys, others.keys]), torch.cat([mine.values, others.values])
        self.rows, self.noise = self.rows + other.rows, self.noise + other.noise
        self.padding = torch.cat([self.padding, other.padding])
        self.logits = torch.cat([self.logits, other.logits])


def _select(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Keep these rows of a cache, in this order; its layers may lie on several devices."""
    for layer in cache.layers:
        layer.batch_select_indices(rows.to(layer.keys.device))


def _resize(cache: DynamicCache, by: int) -> None:
    """Add entries on the left of a cache, or drop them; a sliding layer holds the last of them only."""
    for layer in cache.layers:
        held = layer.keys.shape[-2]
        wanted = layer.get_seq_length() + by
        if layer.is_sliding:
            layer.cumulative_length = wanted
            wanted = min(wanted, layer.sliding_window - 1)
        layer.keys, layer.values = (pad(one, (0, 0, wanted - held, 0)) for one in (layer.keys, layer.values))


@dataclass
class Writer:
    """Fill the batch with rows that wait, draw a token for each, drop many that ended, run the model, and so on."""

    model: PreTrainedModel
    hooks: RowInterventions
    ends: set[int]
    temperature: float
    max_new_tokens: int
    bar: tqdm

    def write(self, rows: list[Row], batch_size: int) -> None:
        """Write the responses; where memory runs out, batches are halved."""
        # Rows that can share the reading of a prompt stand together, and so do prompts of one length.
        order = sorted(rows, key=lambda row: (len(row.prompt), row.prompt, row.condition))
        while waiting := [row for row in order if not row.done]:
            batch_size = min(batch_size, len(waiting))
            try:
                self._write(waiting, batch_size)
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                    raise
                if batch_size == 1:
                    raise CompanionError("Memory does not suffice for a single response; shorten it.") from error
                batch_size //= 2

    def _write(self, waiting: list[Row], batch_size: int) -> None:
        batch = None
        while waiting or batch:
            size = len(batch.rows) if batch else 0
            if waiting and size <= LIVE * batch_size:
                new, waiting = waiting[: batch_size - size], waiting[batch_size - size :]
                for _, alike in groupby(new, key=lambda row: len(row.prompt)):
                    read = self._read(list(alike))
                    if batch:
                        batch.join(read)
                    batch = batch or read
                self.hooks.select(batch.conditions)
            batch = self._step(batch)

    def _read(self, rows: list[Row]) -> Batch:
        """Return a batch of rows with prompts of one length, every different one read once."""
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys((row.prompt, row.condition) for row in rows))}
        prompts, conditions = zip(*kinds, strict=True)
        device = self.model.device
        self.hooks.select(torch.tensor(conditions, device=device))
        cache, ids = DynamicCache(config=self.model.config), torch.tensor(prompts, device=device)
        logits = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        which = torch.tensor([kinds[row.prompt, row.condition] for row in rows], device=device)
        _select(cache, which)
        for row in rows:
            row.response = []  # memory may have run out while it was written
        noise = [RowNoise(row.seed, logits.shape[1], device) for row in rows]
        return Batch(rows, noise, cache, torch.zeros_like(which), logits[which])

    def _step(self, batch: Batch) -> Batch | None:
        """Return the batch after one more token of every row, without rows that have ended once these are many."""
        scores = batch.logits.float()
        if self.temperature > 0:
            scores = scores / self.temperature - torch.stack([noise.draw() for noise in batch.noise])
        tokens = scores.argmax(dim=-1)
        if not scores.gather(1, tokens[:, None]).isfinite().all():
            raise CompanionError(
                "The model gives no numbers for the next token, as under a strength that is too large."
            )
        for row, token in zip(batch.rows, tokens.tolist(), strict=True):
            if row.done:
                continue
            if token not in self.ends:
                row.response.append(token)
            row.done = token in self.ends or len(row.response) >= self.max_new_tokens
            self.bar.update(row.done)
        live = [number for number, row in enumerate(batch.rows) if not row.done]
        if not live:
            return None
        if len(live) <= LIVE * len(batch.rows):
            batch.select(live)
            tokens = tokens[torch.tensor(live, device=tokens.device)]
            self.hooks.select(batch.conditions)
        length = batch.cache.get_seq_length()
        places = torch.arange(length + 1, device=tokens.device)
        batch.logits = self.model(
            tokens[:, None],
            attention_mask=places >= batch.padding[:, None] if batch.padding.any() else None,
            position_ids=(length - batch.padding)[:, None],
            past_key_values=batch.cache,
            use_cache=True,
        ).logits[:, -1]
        return batch
