"""The same sweep by the engine and by what one would otherwise write, each at its best batch size.

A sweep asks every prompt several times under every condition: nothing, an ablation, and steering at several layers and
strengths. All contenders get the same token ids and the same weights in the same precision, and draw a row's tokens at
temperature 1 from the noise of that row's seed. So they write the same answers, except where the last digits of two
logits decide. What each of them does:

- the engine: `sampling.generate`, where a condition is a property of a row; it computes interventions in float32.
- hooks: `generate` of transformers, condition by condition, with ordinary forward hooks in the model's precision.
- steering-vectors: the same with `SteeringVector.apply`, and with its `ablation_operator` for the ablation.
- nnsight: `generate` in a trace, condition by condition.
- nnsight, conditions together: the same with one invocation per condition, so that a batch holds rows of several.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from types import SimpleNamespace
from typing import Any

import torch
from nnsight import TransformersModel
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from em_companion.models import sampling
from em_companion.models.interventions import Ablate, Intervention, Steer
from em_companion.models.sampling import RowNoise
from em_companion.models.tokens import Tokenizer
from em_companion.models.tracing import save

try:
    import steering_vectors
except ImportError:  # it asks for an older transformers, so it cannot be part of the lock
    steering_vectors = None

Responses = list[list[int]]
Change = Callable[[torch.Tensor], torch.Tensor]

REPETITIONS = 3
INSTALL = "pip install --no-deps steering-vectors==0.12.2"


class Noise(LogitsProcessor):
    """What makes the greedy token of `generate` a draw at temperature 1, with the noise of each row."""

    def __init__(self, seeds: Iterable[int], model: PreTrainedModel) -> None:
        self.rows = [RowNoise(seed, model.config.vocab_size, model.device) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.float() - torch.stack([row.draw() for row in self.rows])


@dataclass
class Row:
    """One answer that is asked for; `condition` is one intervention, or None."""

    prompt: list[int]
    seed: int
    condition: Intervention | None


class Sweep:
    """A model and the rows of a sweep, condition by condition: `samples` of every prompt under each.

    `layers` times `strengths` are steered. An answer ends by itself or after `new_tokens`; if `endless`, only then.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        prompts: Sequence[list[int]],
        samples: int,
        layers: Sequence[int],
        strengths: Sequence[float],
        new_tokens: int,
        endless: bool,
    ) -> None:
        self.model, self.new_tokens, self.pad = model, new_tokens, tokenizer.pad_token_id
        self.ends = [] if endless else [tokenizer.eos_token_id, tokenizer.pad_token_id]
        # Whatever the checkpoint says of top_k and the like, all draw from the same distribution.
        model.generation_config = GenerationConfig(eos_token_id=self.ends or None, pad_token_id=self.pad)
        # nnsight changes the modules that it wraps; give it some of its own, around the same weights.
        shared = {id(one): one for one in chain(model.parameters(), model.buffers())}
        self.traced = TransformersModel(copy.deepcopy(model, shared), tokenizer=tokenizer)
        shape = len(model.model.layers), model.config.hidden_size
        directions = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        directions /= directions.norm(dim=1, keepdim=True)
        conditions: list[Intervention | None] = [None, Ablate(dict.fromkeys(range(shape[0]), directions[0]))]
        conditions += [Steer(layer, directions[layer], strength) for layer in layers for strength in strengths]
        asked = [(prompt, sampling.row_seed(*prompt, sample)) for prompt in prompts for sample in range(samples)]
        self.rows = [Row(*one, condition) for condition in conditions for one in asked]
        self.cell = len(asked)
        self.loops: dict[str, Callable[[Sequence[Row], int], torch.Tensor]] = {
            "hooks and generate": self._with_hooks,
            "nnsight": self._with_nnsight,
            "nnsight, conditions together": self._with_nnsight,
        }
        if steering_vectors:
            self.loops["steering-vectors"] = self._with_steering_vectors
        else:
            print(f"Nothing is compared with steering-vectors, which is not there: {INSTALL}", file=sys.stderr)

    # --- the contenders ---

    def engine(self, rows: Sequence[Row], batch_size: int) -> Responses:
        eos, pad = self.ends or (None, None)
        return sampling.generate(
            self.model,
            SimpleNamespace(eos_token_id=eos, pad_token_id=pad),
            [row.prompt for row in rows],
            [row.seed for row in rows],
            1.0,
            self.new_tokens,
            batch_size,
            interventions=[(row.condition,) if row.condition else () for row in rows],
        )

    def loop(self, name: str, rows: Sequence[Row], batch_size: int) -> Responses:
        found: Responses = []
        for batch in self._batches(rows, batch_size, "together" in name):
            width = max(len(row.prompt) for row in batch)
            written = self.loops[name](batch, width)[:, width:].tolist()
            found += [_until(row, self.ends) for row in written]
        return found

    def _batches(self, rows: Sequence[Row], size: int, together: bool) -> Iterator[Sequence[Row]]:
        for group in [rows] if together else [list(alike) for _, alike in _by_condition(rows)]:
            yield from (group[start : start + size] for start in range(0, len(group), size))

    def _inputs(self, rows: Sequence[Row], width: int) -> dict[str, torch.Tensor]:
        ids = [[self.pad] * (width - len(row.prompt)) + row.prompt for row in rows]
        mask = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        return {
            "input_ids": torch.tensor(ids, device=self.model.device),
            "attention_mask": torch.tensor(mask, device=self.model.device),
        }

    def _settings(self, rows: Sequence[Row]) -> dict[str, Any]:
        noise = LogitsProcessorList([Noise([row.seed for row in rows], self.model)])
        return {"max_new_tokens": self.new_tokens, "do_sample": False, "logits_processor": noise}

    def _vectors(self, condition: Intervention) -> dict[int, torch.Tensor]:
        vectors = {condition.layer: condition.vector} if isinstance(condition, Steer) else condition.vectors
        return {layer: one.to(self.model.device, self.model.dtype) for layer, one in vectors.items()}

    def _changes(self, condition: Intervention | None) -> dict[int, Change]:
        vectors = self._vectors(condition) if condition else {}
        if isinstance(condition, Steer):
            return {layer: partial(torch.add, condition.strength * one) for layer, one in vectors.items()}
        return {layer: partial(_without, one) for layer, one in vectors.items()}

    def _with_hooks(self, rows: Sequence[Row], width: int) -> torch.Tensor:
        with ExitStack() as stack:
            for layer, change in self._changes(rows[0].condition).items():
                hook = self.model.model.layers[layer].register_forward_hook(lambda _, __, x, change=change: change(x))
                stack.callback(hook.remove)
            return self.model.generate(**self._inputs(rows, width), **self._settings(rows))

    def _with_steering_vectors(self, rows: Sequence[Row], width: int) -> torch.Tensor:
        condition, given = rows[0].condition, {}
        if isinstance(condition, Steer):
            given = {"multiplier": condition.strength}
        elif condition:
            given = {"operator": steering_vectors.ablation_operator()}
        vector = steering_vectors.SteeringVector(self._vectors(condition) if condition else {})
        with vector.apply(self.model, **given):
            return self.model.generate(**self._inputs(rows, width), **self._settings(rows))

    def _with_nnsight(self, rows: Sequence[Row], width: int) -> torch.Tensor:
        layers = self.traced.model.layers
        with self.traced.generate(**self._settings(rows)) as tracer:
            for condition, alike in _by_condition(rows):
                changes = sorted(self._changes(condition).items())
                with tracer.invoke(self._inputs(list(alike), width)):
                    if changes:
                        for _ in tracer.iter[:]:
                            for layer, change in changes:
                                layers[layer].output = change(layers[layer].output)
            with tracer.invoke():
                written = save(tracer.result)
        return written


def _by_condition(rows: Sequence[Row]) -> Iterator[tuple[Intervention | None, Iterator[Row]]]:
    return groupby(rows, key=lambda row: row.condition)


def _without(unit: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x - (x @ unit)[..., None] * unit


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]


def _seconds(write: Callable[[], Responses]) -> tuple[float, Responses]:
    start = time.perf_counter()
    written = write()  # as Python lists, so a GPU is waited for
    return time.perf_counter() - start, written


def _rate(write: Callable[[], Responses]) -> float:
    seconds, written = _seconds(write)
    return sum(map(len, written)) / seconds


def compare(sweep: Sweep, what: str, sizes: Sequence[int], loop_sizes: Sequence[int]) -> None:
    """Print one JSON line per loop: how many times as fast the engine is, in paired repetitions of the whole sweep.

    Batch sizes are searched first: the engine's in `sizes`, on the whole sweep; a loop's in `loop_sizes`, on as many
    rows as a condition has; in a trace of several conditions, on some and on all of them.
    """
    size = max(sizes, key=lambda size: _rate(lambda: sweep.engine(sweep.rows, size)))
    best = {}
    for name in sweep.loops:
        tried, rows = (sizes, sweep.rows) if "together" in name else (loop_sizes, sweep.rows[-sweep.cell :])
        best[name] = max(tried, key=lambda size: _rate(lambda: sweep.loop(name, rows, size)))  # noqa: B023
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in sweep.loops}
    for _ in range(REPETITIONS):
        fast, expected = _seconds(lambda: sweep.engine(sweep.rows, size))
        equal = {}
        for name, found in pairs.items():
            slow, written = _seconds(lambda: sweep.loop(name, sweep.rows, best[name]))  # noqa: B023
            found.append((fast, slow))
            equal[name] = statistics.mean(map(list.__eq__, written, expected))
            # In half precision, noise of the last digits soon makes another answer; these have equal lengths.
            assert equal[name] > 0.98 or not sweep.ends and sweep.model.dtype == torch.bfloat16, equal
    tokens = sum(map(len, expected))
    for name, found in pairs.items():
        ratios = [slow / fast for fast, slow in found]
        line = {
            "benchmark": f"mixed sweep on {what}, against {name}",
            "rows": len(sweep.rows),
            "batch_size": size,
            "batch_size_of_the_loop": best[name],
            "tokens_per_second": round(tokens / statistics.median(fast for fast, _ in found), 1),
            "tokens_per_second_of_the_loop": round(tokens / statistics.median(slow for _, slow in found), 1),
            "share_of_equal_answers": round(equal[name], 3),
            "ratio": round(statistics.median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        }
        print(json.dumps(line), flush=True)
