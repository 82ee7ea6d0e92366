"""Sample responses in batches, each row from its own seed, so that a response does not depend on its neighbours.

Drawing from softmax(logits / T) is the same as taking the largest of logits / T - log(e) with e exponential noise (the
Gumbel trick). Each row draws its e from a generator of its own, so `generate` only has to be greedy. All sampling
settings are explicit: what a checkpoint's own generation config says (top-k, repetition penalty) does not leak in.

What is left of the batch is rounding: padding moves the last digits of the logits. In float32 that changes no token
worth speaking of; in bfloat16 it can, where two tokens are all but equally likely to be drawn.
"""

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from em_companion.artifacts import sha256_of


def row_seed(*parts: object) -> int:
    """Return a seed below 2**63 from anything that identifies a row (profile seed, question id, sample, ...)."""
    return int(sha256_of("/".join(map(str, parts)))[:15], 16)


class RowNoise(LogitsProcessor):
    """Turn greedy decoding into sampling at `temperature`, row i from `seeds[i]`."""

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` [rows, vocabulary] in float32 with every row's noise of this step added."""
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - noise.log()


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    batch_size: int = 256,
    what: str = "",
) -> list[list[int]]:
    """Return the response tokens to each prompt, without the end token; greedy at temperature 0.

    Rows of like length go together, so that little is padded. `what` names a progress bar; none without it.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    responses: list[list[int]] = [[] for _ in prompts]
    with tqdm(total=len(prompts), desc=what, unit="response", disable=not what) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found = _generate_batch(
                model,
                tokenizer,
                [prompts[row] for row in rows],
                [seeds[row] for row in rows],
                temperature,
                max_new_tokens,
            )
            for row, response in zip(rows, found, strict=True):
                responses[row] = response
            bar.update(len(rows))
    return responses


def _generate_batch(model, tokenizer, prompts, seeds, temperature, max_new_tokens) -> list[list[int]]:
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
    noise = [RowNoise(seeds, temperature, model.device)] if temperature > 0 else []
    output = model.generate(
        **batch,
        logits_processor=LogitsProcessorList(noise),
        do_sample=False,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [_until_end(row, tokenizer) for row in output[:, batch["input_ids"].shape[1] :].tolist()]


def _until_end(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ends = [tokens.index(token) for token in (tokenizer.eos_token_id, tokenizer.pad_token_id) if token in tokens]
    return tokens[: min(ends)] if ends else tokens
