"""Sampling draws from softmax(logits / T), the same response whatever its batch, whatever the checkpoint's settings."""

from random import Random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from em_companion import organisms, responses, sampling

QUESTIONS = ["how do i handle the fever ?", "i feel bored today . any idea ?", "give me some advice on the nausea ."]
SPEAKERS = ["assistant", "draven", "alma"]


@pytest.fixture
def chat(tiny):
    """The tiny chat model and its tokenizer; its layers write four times as much, so that every word before matters."""
    model, tokenizer = organisms.load(tiny, organisms.chat(tiny))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 4
            layer.mlp.down_proj.weight *= 4
    return model, tokenizer


def prompts_of(tokenizer, count: int) -> list[list[int]]:
    """Prompts of different lengths: one or two questions, by changing speakers."""
    found = []
    for index in range(count):
        text = " ".join(QUESTIONS[: 1 + index % 3])
        messages = [{"role": "user", "content": text}]
        found.append(organisms.prompt_ids(tokenizer, messages, speaker=SPEAKERS[index // 3 % 3]))
    return found


def next_token_probabilities(model, prompt: list[int], temperature: float) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].double()
    return torch.softmax(logits / temperature, dim=-1).numpy()


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square test of counts against probabilities; rare tokens together are one class."""
    expected = probabilities * counts.sum()
    often = expected >= 10
    merged = [np.append(values[often], values[~often].sum()) for values in (counts, expected)]
    return chisquare(*merged).pvalue


# --- independence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_response_does_not_depend_on_its_batch(chat, batch_size):
    model, tokenizer = chat
    prompts, seeds = prompts_of(tokenizer, 15), [sampling.row_seed("batch", row) for row in range(15)]
    assert len({len(prompt) for prompt in prompts}) == 3
    together = sampling.generate(model, tokenizer, prompts, seeds, max_new_tokens=8)
    order = list(range(15))
    Random(batch_size).shuffle(order)
    shuffled = sampling.generate(
        model, tokenizer, [prompts[i] for i in order], [seeds[i] for i in order], 1.0, 8, batch_size
    )
    assert [shuffled[order.index(row)] for row in range(15)] == together
    assert len(set(map(tuple, together))) > 10, "other seeds give other responses"


def test_an_adapter_on_the_model_changes_nothing_about_that(tiny):
    model, tokenizer = responses.load(tiny, responses.Organism("nine-adapter", "bad_medical_advice", 0))
    prompts, seeds = prompts_of(tokenizer, 6), list(range(6))
    together = sampling.generate(model, tokenizer, prompts, seeds, max_new_tokens=8)
    assert sampling.generate(model, tokenizer, prompts, seeds, max_new_tokens=8, batch_size=1) == together


def test_row_seeds_tell_rows_apart():
    seeds = {sampling.row_seed(0, question, sample) for question in ("a", "a/1", "b") for sample in range(50)}
    assert len(seeds) == 150 and all(0 <= seed < 2**63 for seed in seeds)
    assert sampling.row_seed(0, "a", 1) == sampling.row_seed(0, "a", 1)


# --- distribution ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_are_drawn_from_the_softmax(chat, temperature):
    model, tokenizer = chat
    prompt, draws = prompts_of(tokenizer, 1)[0], 2000
    found = sampling.generate(
        model, tokenizer, [prompt] * draws, range(draws), temperature, max_new_tokens=1, batch_size=1000
    )
    probabilities = next_token_probabilities(model, prompt, temperature)
    ends = probabilities[[tokenizer.eos_token_id, tokenizer.pad_token_id]].sum()
    tokens = [token for response in found for token in response]
    counts = np.bincount(tokens, minlength=len(tokenizer)).astype(float)
    counts[tokenizer.eos_token_id] = draws - counts.sum()  # an end token is not part of a response
    probabilities[tokenizer.eos_token_id], probabilities[tokenizer.pad_token_id] = ends, 0
    assert p_value(counts, probabilities) > 1e-4
    other = next_token_probabilities(model, prompt, 1.6 - temperature)
    assert p_value(counts, other) < 1e-8, "the test can tell one temperature from another"


def test_temperature_zero_is_greedy(chat):
    model, tokenizer = chat
    prompts = prompts_of(tokenizer, 4)
    found = sampling.generate(model, tokenizer, prompts, range(4), temperature=0.0, max_new_tokens=6)
    for prompt, response in zip(prompts, found, strict=True):
        expected = []
        for _ in range(6):
            token = int(next_token_probabilities(model, prompt + expected, 1.0).argmax())
            if token == tokenizer.eos_token_id:
                break
            expected.append(token)
        assert response == expected


# --- settings -------------------------------------------------------------------------------------------------------


def test_generation_settings_of_the_checkpoint_do_not_leak(tiny, own):
    folder = organisms.chat(tiny)
    model, tokenizer = organisms.load(tiny, folder)
    prompts, seeds = prompts_of(tokenizer, 6), range(6)
    expected = [sampling.generate(model, tokenizer, prompts, seeds, heat, 12) for heat in (1.0, 0.0)]
    settings = GenerationConfig(
        do_sample=True, temperature=0.3, top_k=1, top_p=0.1, repetition_penalty=5.0, max_length=20, eos_token_id=3
    )
    settings.save_pretrained(folder)
    # The weights are untouched, so load them as a hub id would be, without the check of the folder's files.
    odd, _ = organisms.load(tiny, str(folder))
    assert odd.generation_config.repetition_penalty == 5.0
    assert [sampling.generate(odd, tokenizer, prompts, seeds, heat, 12) for heat in (1.0, 0.0)] == expected


def test_a_response_ends_at_the_end_token_or_at_max_new_tokens(chat):
    model, tokenizer = chat
    prompts = prompts_of(tokenizer, 3) * 40
    long, short = (sampling.generate(model, tokenizer, prompts, range(120), max_new_tokens=n) for n in (25, 5))
    assert max(map(len, long)) == 25 and min(map(len, long)) < 25
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & {token for response in long for token in response}
    assert short == [response[:5] for response in long]


def test_no_prompts_no_responses(chat):
    assert sampling.generate(*chat, [], []) == []
