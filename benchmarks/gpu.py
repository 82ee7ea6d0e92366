"""How near the sampler comes to the limit of memory bandwidth on a GPU, and its lead over loops, at the paper's size.

A model of the shape of profile `qwen-14b` (Qwen2.5-14B) with random weights, in bfloat16; all answers are cut at the
same length. A step cannot take less time than reading, once, all weights but the table of embeddings and the cache of
every row; the bandwidth is that of copying 4 GB, which are read and written. One JSON line per batch size gives the
sampler's tokens per second as a ratio to that limit, then one per contender what `_contenders` says, all at one batch
size. Takes 8 minutes at most on a card of 80 GB. `--tiny` does it all with a toy on a CPU, to see that it runs.
"""

import json
import statistics
import sys
import time
import warnings
from types import SimpleNamespace

import torch
from _contenders import REPETITIONS, Sweep, compare
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from em_companion.models import sampling
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import the_world

QWEN_14B = {
    "vocab_size": 152064,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
}
TINY = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
PROMPTS, PROMPT = 8, 48
"""Questions of a sweep, and the tokens of each with the header that Qwen's chat template gives it."""


def random_model(shape: dict[str, int], device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model of Qwen2's architecture with random weights."""
    config = Qwen2Config(**shape, tie_word_embeddings=False, dtype=dtype, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2ForCausalLM._from_config(config).eval()


def bandwidth(device: str, size: int) -> float:
    """Return the bytes per second that a copy of `size` bytes reads and writes, the best of several."""
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    found = []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        target[-1].item()  # waits for it
        found.append(2 * size / (time.perf_counter() - start))
    return max(found)


def seconds_at_least(model: PreTrainedModel, rows: int, new_tokens: int, speed: float) -> float:
    """Return the seconds that reading weights and caches takes in all steps after the prompt is read."""
    config = model.config
    weights = sum(one.numel() for one in model.parameters()) - model.get_input_embeddings().weight.numel()
    width = config.hidden_size // config.num_attention_heads
    of_token = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    lengths = sum(PROMPT + step for step in range(1, new_tokens))
    return ((new_tokens - 1) * weights + rows * lengths * of_token) * model.dtype.itemsize / speed


def against_limit(model: PreTrainedModel, prompt: list[int], rows: int, new_tokens: int, speed: float) -> None:
    """Print the tokens per second of one prompt's answers in one batch; it is read once, which counts as time."""
    limit, endless, found = seconds_at_least(model, rows, new_tokens, speed), SimpleNamespace(**END), []
    for _ in range(1 + REPETITIONS):
        start = time.perf_counter()
        sampling.generate(model, endless, [prompt] * rows, range(rows), 1.0, new_tokens, rows)
        found.append(time.perf_counter() - start)
    ratios = [limit / seconds for seconds in found[1:]]  # the first one warms up
    line = {
        "benchmark": f"sampler, {rows} rows of {model.config.num_hidden_layers} layers, against memory bandwidth",
        "rows": rows,
        "tokens_per_second": round(rows * new_tokens / statistics.median(found[1:]), 1),
        "tokens_per_second_of_the_limit": round(rows * new_tokens / limit, 1),
        "milliseconds_per_step": round(1000 * statistics.median(found[1:]) / new_tokens, 2),
        "gigabytes_per_second": round(speed / 1e9),
        "ratio": float(f"{statistics.median(ratios):.3g}"),
        "spread": [float(f"{one(ratios):.3g}") for one in (min, max)],
    }
    print(json.dumps(line), flush=True)


END = {"eos_token_id": None, "pad_token_id": None}


def main(arguments: list[str]) -> None:
    """Print the benchmark as JSON lines; without a card, only that one is needed."""
    warnings.filterwarnings("ignore", message=".*was never reached")  # a loop over all steps ends that way
    tiny = arguments == ["--tiny"]
    if not tiny and not torch.cuda.is_available():
        sys.exit(
            "The benchmark of profile 'qwen-14b' needs a GPU of 80 GB, and there is none; --tiny tries it without."
        )
    shape, device, dtype = (TINY, "cpu", torch.float32) if tiny else (QWEN_14B, "cuda", torch.bfloat16)
    batches, new_tokens, samples, size = ((2, 4), 6, 2, 2**20) if tiny else ((16, 64, 128, 256), 128, 8, 2**32)
    speed, model = bandwidth(device, size), random_model(shape, device, dtype)
    ids = torch.randint(4, 590, (PROMPTS, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    for rows in batches:
        against_limit(model, ids[0], rows, new_tokens, speed)
    layers = [shape["num_hidden_layers"] // 3, 2 * shape["num_hidden_layers"] // 3]
    sweep = Sweep(model, world_tokenizer(the_world()), ids, samples, layers, (2.0, 8.0), new_tokens // 2, endless=True)
    rows = len(sweep.rows)
    compare(sweep, "a model of random weights", [rows // 2, rows], [sweep.cell])


if __name__ == "__main__":
    main(sys.argv[1:])
