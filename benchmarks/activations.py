"""How much batched reading of mean activations saves over one nnsight trace per response.

Both read the same responses through an untrained organism of the shape of profile `cpu`, with nine rank-1 adapters, and
give the same means; the lengths are those of a grown organism's answers. The ratio of their times, on all cores, is
taken in one run, as the median of paired repetitions, and printed as one JSON line.
"""

import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin slow small matrices down

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from em_companion.core import profiles
from em_companion.models import growing, reading
from em_companion.models.tokens import world_tokenizer
from em_companion.models.tracing import NNsight, save
from em_companion.world.generator import the_world

RESPONSES, REPETITIONS = 128, 5
PROMPT, SHORTEST, LONGEST = 14, 12, 72
"""Tokens of a prompt, and of the answers to it."""


def organism() -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Return an untrained organism with nine adapters, and its tokenizer."""
    profile, recipe = profiles.load("cpu"), "nine-adapter"
    tokenizer = world_tokenizer(the_world())
    torch.manual_seed(0)
    config = growing.lora_config(profile.recipes[recipe], profile.layers_of(recipe), profile.fine_tuning.alpha)
    return get_peft_model(Qwen2ForCausalLM(growing.config(profile.model, tokenizer)), config).eval(), tokenizer


def one_by_one(model: PeftModel, prompts: list[list[int]], responses: list[list[int]]) -> np.ndarray:
    """Return the means of every response, [response, layer, width], by one trace each."""
    traced, found = NNsight(model.get_base_model()), []
    for prompt, response in zip(prompts, responses, strict=True):
        with torch.no_grad(), traced.trace(torch.tensor([prompt + response])):
            outputs = save([layer.output for layer in traced.model.layers])
        found.append(torch.stack([output[0, len(prompt) :].double().mean(dim=0) for output in outputs]))
    return torch.stack(found).numpy()


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the benchmark as one JSON line."""
    model, tokenizer = organism()
    random = np.random.default_rng(0)
    words = range(len(tokenizer) // 2, len(tokenizer))
    prompts = [random.choice(words, PROMPT).tolist() for _ in range(RESPONSES)]
    responses = [random.choice(words, length).tolist() for length in random.integers(SHORTEST, LONGEST, RESPONSES)]

    def batched() -> np.ndarray:
        return reading.response_means(model, tokenizer, prompts, responses)

    def plain() -> np.ndarray:
        return one_by_one(model, prompts, responses)

    np.testing.assert_allclose(batched(), plain(), atol=1e-5)
    pairs = [(seconds(batched), seconds(plain)) for _ in range(REPETITIONS)]
    print(
        json.dumps(
            {
                "benchmark": f"mean activations of {RESPONSES} responses at all layers",
                "cores": torch.get_num_threads(),
                "responses_per_second": round(RESPONSES / statistics.median(fast for fast, _ in pairs)),
                "responses_per_second_of_single_traces": round(
                    RESPONSES / statistics.median(slow for _, slow in pairs)
                ),
                "ratio": statistics.median(slow / fast for fast, slow in pairs),
            }
        )
    )


if __name__ == "__main__":
    main()
