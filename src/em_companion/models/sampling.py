"""Sample responses in large batches, each row under interventions of its own and from a seed of its own.

A row's response does not depend on its neighbours: what differs between rows, the interventions included, is looked up
row by row, and every row draws its noise from its own generator. So a whole sweep is one generation. Drawing from
softmax(logits / T) is the same as taking the largest of logits / T - log(e) with e exponential noise (the Gumbel
trick). All sampling settings are explicit: what a checkpoint's own generation config says does not leak in.

Three things make it fast. Rows with one prompt and equal interventions share the reading of the prompt. Rows that have
ended leave the batch, and rows that wait take their places. And noise is drawn for many steps at once.

What is left of the batch is rounding: its size moves the last digits of the logits. In float32 that changes no token
worth speaking of; in bfloat16 it can, where two tokens are all but equally likely to be drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import torch
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.models.hooks import RowInterventions
from em_companion.models.interventions import Intervention
from em_companion.models.tokens import Tokenizer

LIVE = 0.75
"""Share of rows still being written below which those that have ended leave the batch."""

NOISE_BLOCK, NOISE_STEPS = 2**19, 16
"""Numbers of noise that a row draws at once, at most, and for how many steps, at most."""

Conditions = Sequence[Sequence[Intervention] | None]


def row_seed(*parts: object) -> int:
    """Return a seed below 2**63 from anything that identifies a row (profile seed, question id, sample, ...)."""
    return int(sha256_of("/".join(map(str, parts)))[:15], 16)


@cache
def noise_fingerprint() -> str:
    """Return what tells this way of drawing noise from any other: responses that are kept depend on it."""
    noise = RowNoise([0, 1], 8, torch.device("cpu"))
    return sha256_of(torch.stack([noise.draw() for _ in range(2 * NOISE_STEPS)]).numpy().round(3).tobytes())


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
    interventions: Conditions | None = None,
) -> list[list[int]]:
    """Return the response tokens to each prompt, without the end token; greedy at temperature 0.

    `interventions` gives every row a sequence of its own, or None; rows share work where these are the same objects.
    `batch_size` rows are written at a time, fewer where memory does not suffice. `what` names a progress bar; none
    without it. Raises CompanionError, before anything is computed, for interventions that do not fit the model (see
    `interventions.RowInterventions`), for lists of unequal length and for an empty prompt.
    """
    rows, conditions = _rows(prompts, seeds, interventions if interventions is not None else [None] * len(prompts))
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    with (
        tqdm(total=len(prompts), desc=what, unit="response", disable=not what) as bar,
        RowInterventions(model, conditions) as hooks,
    ):
        writer = Writer(model, hooks, ends, temperature, max_new_tokens, bar)
        return writer.write(rows, batch_size)


def _rows(prompts, seeds, interventions) -> tuple[list["Row"], list[tuple[Intervention, ...]]]:
    """Return what is asked for, row by row, and the different interventions that rows number."""
    given = [tuple(one or ()) for one in interventions]
    if not len(prompts) == len(seeds) == len(given):
        lengths = f"{len(prompts)} prompts, {len(seeds)} seeds and {len(given)} interventions"
        raise CompanionError(f"Every row needs a prompt, a seed and its interventions; got {lengths}.")
    if not all(prompts):
        raise CompanionError("A prompt is empty; give it at least one token.")
    numbers = {condition: number for number, condition in enumerate(dict.fromkeys(given))}
    rows = enumerate(zip(prompts, seeds, given, strict=True))
    return [Row(index, tuple(ids), seed, numbers[one]) for index, (ids, seed, one) in rows], list(numbers)


@dataclass(frozen=True)
class Row:
    """What is asked for: `condition` numbers the row's interventions."""

    index: int
    prompt: tuple[int, ...]
    seed: int
    condition: int


class RowNoise:
    """Noise for the next token of every row, from a generator of its own, drawn for many steps at once."""

    def __init__(self, seeds: Sequence[int], vocabulary: int, device: torch.device) -> None:
        self.steps = min(NOISE_STEPS, math.ceil(NOISE_BLOCK / vocabulary))  # must not depend on the batch
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.used = torch.zeros(len(seeds), dtype=torch.long)
        self.block = torch.empty(len(seeds), self.steps, vocabulary, device=device)

    def draw(self) -> torch.Tensor:
        """Return the logarithm of exponential noise for one token, [row, vocabulary], float32."""
        at = self.used % self.steps
        for row in (at == 0).nonzero()[:, 0].tolist():
            self.block[row].uniform_(generator=self.generators[row]).log_().neg_().log_()
        self.used += 1
        return self.block[torch.arange(len(at)), at]

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        self.generators = [self.generators[row] for row in rows.tolist()]
        self.used, self.block = self.used[rows], self.block[rows.to(self.block.device)]

    def join(self, other: "RowNoise") -> None:
        """Put the rows of another one behind these."""
        self.generators += other.generators
        self.used, self.block = torch.cat([self.used, other.used]), torch.cat([self.block, other.block])


@dataclass
class Batch:
    """Rows being written: their responses so far, the cache of all their tokens, and the logits of the next ones.

    padding: entries of the cache on the left of a row's prompt that are not looked at, [row].
    """

    rows: list[Row]
    responses: list[list[int]]
    cache: DynamicCache
    padding: torch.Tensor
    logits: torch.Tensor
    noise: RowNoise | None

    @property
    def conditions(self) -> torch.Tensor:
        return torch.tensor([row.condition for row in self.rows], device=self.logits.device)

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        self.rows, self.responses = [self.rows[row] for row in rows], [self.responses[row] for row in rows]
        kept = torch.tensor(rows, device=self.logits.device)
        self.cache.batch_select_indices(kept)
        self.logits, self.padding = self.logits[kept], self.padding[kept]
        if unused := int(self.padding.min()):
            _resize(self.cache, -unused)
            self.padding = self.padding - unused
        if self.noise is not None:
            self.noise.select(kept.cpu())

    def join(self, other: "Batch") -> None:
        """Put the rows of another batch behind these; the shorter cache is padded on its left."""
        longer = other.cache.get_seq_length() - self.cache.get_seq_length()
        for batch, missing in ((self, longer), (other, -longer)):
            if missing > 0:
                _resize(batch.cache, missing)
                batch.padding = batch.padding + missing
        for mine, others in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys, mine.values = torch.cat([mine.keys, others.keys]), torch.cat([mine.values, others.values])
        self.rows, self.responses = self.rows + other.rows, self.responses + other.responses
        self.padding = torch.cat([self.padding, other.padding])
        self.logits = torch.cat([self.logits, other.logits])
        if self.noise is not None and other.noise is not None:
            self.noise.join(other.noise)


def _resize(cache: DynamicCache, by: int) -> None:
    """Add entries on the left of a cache, or drop them; a sliding layer holds the last of them only."""
    for layer in cache.layers:
        held = layer.keys.shape[-2]
        wanted = layer.get_seq_length() + by
        if layer.is_sliding:
            layer.cumulative_length = wanted
            wanted = min(wanted, layer.sliding_window - 1)
        layer.keys, layer.values = (pad(one, (0, 0, wanted - held, 0)) for one in (layer.keys, layer.values))


class Writer:
    """Write the responses to rows:

    1. fill the batch with rows that wait, reading every different prompt under equal interventions once;
    2. draw a token for every row, each from its own noise;
    3. take out the rows that have ended, once they are many;
    4. run the model on the new tokens, and so on while there are rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        hooks: RowInterventions,
        ends: set[int],
        temperature: float,
        max_new_tokens: int,
        bar: tqdm,
    ) -> None:
        self.model, self.hooks, self.ends, self.bar = model, hooks, ends, bar
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.written: dict[int, list[int]] = {}

    def write(self, rows: Sequence[Row], batch_size: int) -> list[list[int]]:
        """Return the responses in the order of `rows`; where memory runs out, batches are halved."""
        # Rows that can share the reading of a prompt stand together, and so do prompts of one length.
        order = sorted(rows, key=lambda row: (len(row.prompt), row.prompt, row.condition))
        while waiting := [row for row in order if row.index not in self.written]:
            batch_size = min(batch_size, len(waiting))
            try:
                self._write(waiting, batch_size)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                if batch_size == 1:
                    raise CompanionError("Memory does not suffice for a single response; shorten it.") from error
                batch_size //= 2
        return [self.written[row.index] for row in rows]

    def _write(self, waiting: list[Row], batch_size: int) -> None:
        batch = None
        while waiting or batch:
            size = len(batch.rows) if batch else 0
            if waiting and size <= LIVE * batch_size:
                new, waiting = waiting[: batch_size - size], waiting[batch_size - size :]
                batch = self._filled(batch, new)
            batch = self._step(batch)

    def _filled(self, batch: Batch | None, rows: list[Row]) -> Batch:
        for _, alike in groupby(rows, key=lambda row: len(row.prompt)):
            new = self._read(list(alike))
            if batch is None:
                batch = new
            else:
                batch.join(new)
        self.hooks.select(batch.conditions)
        return batch

    def _read(self, rows: list[Row]) -> Batch:
        """Return a batch of rows with prompts of one length, every different one read once."""
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys((row.prompt, row.condition) for row in rows))}
        prompts, conditions = zip(*kinds, strict=True)
        device = self.model.device
        self.hooks.select(torch.tensor(conditions, device=device))
        cache = DynamicCache(config=self.model.config)
        prompt_ids = torch.tensor(prompts, device=device)
        logits = self.model(prompt_ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        which = torch.tensor([kinds[row.prompt, row.condition] for row in rows], device=device)
        cache.batch_select_indices(which)
        noise = RowNoise([row.seed for row in rows], logits.shape[1], device) if self.temperature > 0 else None
        return Batch(rows, [[] for _ in rows], cache, torch.zeros_like(which), logits[which], noise)

    def _step(self, batch: Batch) -> Batch | None:
        """Return the batch after one more token of every row, without rows that have ended once these are many."""
        tokens = self._next_tokens(batch)
        live = self._record(batch, tokens.tolist())
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

    def _next_tokens(self, batch: Batch) -> torch.Tensor:
        scores = batch.logits.float()
        if batch.noise is not None:
            scores = scores / self.temperature - batch.noise.draw()
        return scores.argmax(dim=-1)

    def _record(self, batch: Batch, tokens: list[int]) -> list[int]:
        """Add every row's token to its response and return the rows that go on."""
        live = []
        for number, (row, response, token) in enumerate(zip(batch.rows, batch.responses, tokens, strict=True)):
            if row.index in self.written:
                continue
            if token not in self.ends:
                response.append(token)
            if token in self.ends or len(response) >= self.max_new_tokens:
                self.written[row.index] = response
                self.bar.update()
            else:
                live.append(number)
        return live


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
