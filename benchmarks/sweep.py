"""How much one generation for a whole steering sweep saves over a loop over its cells.

The sweep is every layer and strength below, on the eight open questions, for the committed chat model. In the engine a
cell is a property of a row, so all cells are written together. The loops go cell by cell: plain `generate` with an
ordinary forward hook, eight rows at a time and all rows of a cell at once, and the same through nnsight, eight at a
time. A loop takes so long that each repetition times one cell of it; what is compared is response tokens per second,
in pairs, and one JSON line per loop is printed. Before that, all four must agree on a cell's greedy responses.
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from nnsight import TransformersModel

from em_companion.core import paths, profiles
from em_companion.models import loading, sampling
from em_companion.models.interventions import Steer
from em_companion.models.tokens import question_ids
from em_companion.models.tracing import save
from em_companion.world.generator import the_world

LAYERS, STRENGTHS, SAMPLES, REPETITIONS = (0, 2, 4, 6, 8, 10), (1.0, 2.0, 4.0), 10, 3

Cell = tuple[int, float]
Responses = list[list[int]]


class Sweep:
    """The model, the prompts of one cell's rows, and a direction [width] per layer."""

    def __init__(self) -> None:
        self.profile = profiles.load("cpu")
        self.model, self.tokenizer = loading.load(self.profile, paths.COMMITTED / self.profile.name / "chat")
        self.traced = TransformersModel(self.model, tokenizer=self.tokenizer)
        questions = the_world().evaluation()
        self.prompts = [question_ids(self.tokenizer, question.text) for question in questions] * SAMPLES
        shape = len(self.model.model.layers), self.model.config.hidden_size
        directions = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        self.cells = [(layer, strength) for layer in LAYERS for strength in STRENGTHS]

    # --- the engine ---

    def at_once(self, cells: Sequence[Cell], temperature: float) -> Responses:
        steers = [[Steer(layer, self.directions[layer], strength)] for layer, strength in cells]
        rows = len(cells) * len(self.prompts)
        return sampling.generate(
            self.model,
            self.tokenizer,
            self.prompts * len(cells),
            range(rows),
            temperature,
            self.profile.max_new_tokens,
            rows,
            interventions=[steer for steer in steers for _ in self.prompts],
        )

    # --- the loops ---

    def in_loop(self, write: Callable, batch_size: int, cells: Sequence[Cell], temperature: float) -> Responses:
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        found = []
        for cell in cells:
            for start in range(0, len(self.prompts), batch_size):
                prompts = {"input_ids": self.prompts[start : start + batch_size]}
                batch = dict(self.tokenizer.pad(prompts, padding_side="left", return_tensors="pt"))
                written = write(cell, batch, self._settings(temperature))[:, batch["input_ids"].shape[1] :]
                found += [_until(row, ends) for row in written.tolist()]
        return found

    def _settings(self, temperature: float) -> dict:
        settings = {"max_new_tokens": self.profile.max_new_tokens, "pad_token_id": self.tokenizer.pad_token_id}
        if temperature == 0:
            return settings | {"do_sample": False}
        neutral = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        return settings | neutral | {"do_sample": True, "temperature": temperature}

    def with_hook(self, cell: Cell, batch: dict, settings: dict) -> torch.Tensor:
        layer, strength = cell
        change = strength * self.directions[layer]
        handle = self.model.model.layers[layer].register_forward_hook(lambda _, __, x: x + change)
        try:
            return self.model.generate(**batch, **settings)
        finally:
            handle.remove()

    def with_nnsight(self, cell: Cell, batch: dict, settings: dict) -> torch.Tensor:
        layer, strength = cell
        change = strength * self.directions[layer]
        with self.traced.generate(**settings) as tracer:
            with tracer.invoke(batch):
                for _ in tracer.iter[:]:
                    self.traced.model.layers[layer].output[:] += change
            with tracer.invoke():
                written = save(tracer.result)
        return written


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]


@contextmanager
def time_in(module: torch.nn.Module) -> Iterator[list[float]]:
    """Give a list that gets the seconds of every call of a module."""
    seconds: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: seconds.append(-time.perf_counter()))
    after = module.register_forward_hook(lambda *_: seconds.append(seconds.pop() + time.perf_counter()))
    yield seconds
    before.remove()
    after.remove()


def rates(write: Callable[[], Responses]) -> tuple[float, float]:
    """Return the tokens that a call writes, end tokens included, per second and per second of processor time."""
    start, processor = time.perf_counter(), time.process_time()
    tokens = sum(len(response) + 1 for response in write())
    return tokens / (time.perf_counter() - start), tokens / (time.process_time() - processor)


def main() -> None:
    """Print the benchmark, one JSON line per loop."""
    warnings.filterwarnings("ignore", message=".*was never reached")  # a loop over all steps ends that way
    sweep = Sweep()
    loops = {
        "hooks and generate, 8 rows at a time": (sweep.with_hook, 8),
        "hooks and generate, all rows of a cell": (sweep.with_hook, len(sweep.prompts)),
        "nnsight, 8 rows at a time": (sweep.with_nnsight, 8),
    }
    greedy = sweep.at_once(sweep.cells[:1], 0)
    assert all(sweep.in_loop(*loop, sweep.cells[:1], 0) == greedy for loop in loops.values())

    engine: list[tuple[float, float]] = []
    loop_rates: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    outside = []
    for repetition in range(REPETITIONS):
        cells = sweep.cells[repetition * len(sweep.cells) // REPETITIONS :][:1]
        with time_in(sweep.model) as inside:
            start = time.perf_counter()
            engine.append(rates(lambda: sweep.at_once(sweep.cells, 1)))
            outside.append(1 - sum(inside) / (time.perf_counter() - start))
        for name, loop in loops.items():
            loop_rates[name].append(rates(lambda loop=loop, cells=cells: sweep.in_loop(*loop, cells, 1)))
    for name, found in loop_rates.items():
        wall, processor = (
            statistics.median(fast[kind] / slow[kind] for fast, slow in zip(engine, found, strict=True))
            for kind in (0, 1)
        )
        print(
            json.dumps(
                {
                    "benchmark": f"steering sweep against a loop: {name}",
                    "rows": len(sweep.cells) * len(sweep.prompts),
                    "tokens_per_second": round(statistics.median(rate for rate, _ in engine)),
                    "tokens_per_second_of_the_loop": round(statistics.median(rate for rate, _ in found)),
                    "share_of_time_outside_the_model": round(statistics.median(outside), 3),
                    "ratio_of_processor_time": round(processor, 2),
                    "ratio": round(wall, 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
