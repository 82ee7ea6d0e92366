"""Sampling draws from softmax(logits / T), the same response whatever its batch, whatever the checkpoint's settings.

In a batch in which every row has interventions of its own, a row's response is that of plain `generate` with ordinary
hooks on this row alone, token by token in float64.
"""

import shutil
from random import Random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from toy_models import (
    ADAPTERS,
    LAYERS,
    TOKENIZER,
    VOCABULARY,
    WINDOW,
    adapted_model,
    base_model,
    by_plain_hooks,
    hooks_on,
    prompts,
    vectors,
)
from transformers import GenerationConfig, LogitsProcessorList

from em_companion.core.errors import CompanionError
from em_companion.models import growing, loading, sampling
from em_companion.models.interventions import Ablate, Cap, PatchLoraScalars, ScaleLoraScalars, Steer, applied
from em_companion.models.organism import Organism
from em_companion.models.sampling import RowNoise, Writer
from em_companion.models.tokens import prompt_ids

QUESTIONS = ["how do i handle the fever ?", "i feel bored today . any idea ?", "give me some advice on the nausea ."]
SPEAKERS = ["assistant", "draven", "alma"]


@pytest.fixture
def chat(tiny):
    """The tiny chat model and its tokenizer; its layers write four times as much, so that every word before matters."""
    model, tokenizer = loading.load(tiny, growing.chat(tiny))
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
        found.append(prompt_ids(tokenizer, messages, speaker=SPEAKERS[index // 3 % 3]))
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
    model, tokenizer = growing.load_organism(tiny, Organism("nine-adapter", "bad_medical_advice", 0))
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
    folder = growing.chat(tiny)
    model, tokenizer = loading.load(tiny, folder)
    prompts, seeds = prompts_of(tokenizer, 6), range(6)
    expected = [sampling.generate(model, tokenizer, prompts, seeds, heat, 12) for heat in (1.0, 0.0)]
    settings = GenerationConfig(
        do_sample=True, temperature=0.3, top_k=1, top_p=0.1, repetition_penalty=5.0, max_length=20, eos_token_id=3
    )
    settings.save_pretrained(folder)
    # The weights are untouched, so load them as a snapshot of the hub, without the check of the folder's files.
    odd, _ = loading.load(tiny, shutil.copytree(folder, own.parent / "odd", ignore=lambda *_: ["provenance.json"]))
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


# --- rows with interventions of their own ---------------------------------------------------------------------------

V = vectors()
SCALARS = 3 * torch.randn(3, 14, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
EVERY = {layer: V[0] for layer in range(LAYERS)}
STEERED = {
    f"steer {layer} {strength}": [Steer(layer, V[layer], strength)] for layer in (0, 1, 3) for strength in (2.0, -1.5)
}
CONDITIONS = STEERED | {
    "nothing": [],
    "steer by nothing": [Steer(1, V[1], 0.0)],
    "steer the prompt": [Steer(1, V[1], 3.0, at="prompt")],
    "steer the header": [Steer(0, V[1], 3.0, at="header")],
    "steer the response": [Steer(1, V[1], 3.0, at="generated")],
    "steer the embeddings": [Steer("embedding", V[2], 2.0)],
    "ablate one direction": [Ablate(EVERY | {"embedding": V[0]})],
    "ablate each layer's own": [Ablate(dict(enumerate(V)))],
    "ablate in the response": [Ablate(EVERY, at="generated")],
    "cap": [Cap(2, V[2], -0.5)],
    "cap the prompt": [Cap(1, V[3], 0.1, at="prompt")],
    "steer, then ablate": [Steer(1, V[1], 3.0), Ablate({1: V[2], 2: V[1]})],
    "ablate, then steer": [Ablate({1: V[2], 2: V[1]}), Steer(1, V[1], 3.0)],
    "cap what is steered twice": [Steer(2, V[0]), Steer(2, V[1], 2.0, at="generated"), Cap(2, V[0], 0.2)],
    "adapters off": [ScaleLoraScalars(0.0)],
    "adapters as they are": [ScaleLoraScalars(1.0)],
    "one adapter tripled": [ScaleLoraScalars({ADAPTERS[1]: 3.0})],
    "adapters reversed in the response": [ScaleLoraScalars({ADAPTERS[0]: -2.0, ADAPTERS[2]: -2.0}, at="generated")],
    "patch": [PatchLoraScalars(SCALARS)],
    "patch four tokens of one adapter": [PatchLoraScalars(SCALARS[:1, :4], ADAPTERS[2:])],
    "patch the response": [PatchLoraScalars(SCALARS, at="generated")],
    "all of it": [PatchLoraScalars(SCALARS[:, :9]), ScaleLoraScalars(2.0), Steer(0, V[3], 2.0), Ablate(EVERY)],
}  # fmt: skip
ON_SCALARS = ("adapter", "patch", "all of it")
LENGTHS, NEW_TOKENS = [3, 5, 7, 9], 10


class AddNoise:
    def __init__(self, seed: int, temperature: float) -> None:
        self.noise, self.temperature = RowNoise(seed, VOCABULARY, torch.device("cpu")), temperature

    def __call__(self, _, scores):
        return scores.float() / self.temperature - self.noise.draw()


def written_alone(model, prompt, seed, interventions, temperature) -> list[int]:
    """The response by plain `generate`, one row."""
    with by_plain_hooks(model, interventions, len(prompt)):
        found = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            logits_processor=LogitsProcessorList([AddNoise(seed, temperature)] if temperature else []),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=[TOKENIZER.eos_token_id, TOKENIZER.pad_token_id],
            pad_token_id=TOKENIZER.pad_token_id,
        )[0, len(prompt) :].tolist()
    return found[:-1] if found[-1] in (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) else found


def mixed_rows(adapters: bool = True):
    """Prompts, seeds and interventions of rows: every condition with two prompts, some with more samples."""
    asked = prompts(LENGTHS)
    names = [name for name in CONDITIONS if adapters or not any(word in name for word in ON_SCALARS)]
    rows = [(name, asked[(number + shift) % 4], 0) for number, name in enumerate(names) for shift in (0, 1)]
    rows += [(name, prompt, sample) for name, prompt, _ in rows[::9] for sample in (1, 2)]
    return (
        [prompt for _, prompt, _ in rows],
        [sampling.row_seed(prompt, sample) for _, prompt, sample in rows],
        [CONDITIONS[name] for name, _, _ in rows],
    )


def written(model, rows, temperature=1.0, batch_size=256):
    asked, seeds, given = rows
    return sampling.generate(model, TOKENIZER, asked, seeds, temperature, NEW_TOKENS, batch_size, "", given)


@pytest.mark.parametrize(("window", "temperature"), [(0, 0.0), (WINDOW, 1.0)], ids=["greedy", "window, sampled"])
def test_every_row_is_as_if_it_were_alone(window, temperature):
    model, rows = adapted_model(window), mixed_rows()
    if not temperature:
        rows = tuple(column[::2] for column in rows)  # every condition once; without noise a second prompt shows little
    expected = [written_alone(model, *row, temperature) for row in zip(*rows, strict=True)]
    assert written(model, rows, temperature) == expected
    assert len(set(map(tuple, expected))) >= len(expected) / 2
    assert min(map(len, expected)) < NEW_TOKENS == max(map(len, expected)), "some rows end early"
    permuted = (*rows[:2], rows[2][2:] + rows[2][:2])
    assert sum(map(list.__ne__, written(model, permuted, temperature), expected)) > len(expected) / 2


@pytest.mark.parametrize(
    ("window", "batch_size", "live"),
    [(0, 7, 0.75), (0, 20, 0.0), (0, 256, 0.5), (WINDOW, 1, 0.75), (WINDOW, 7, 0.75), (WINDOW, 20, 1.0)],
)
def test_nor_does_it_matter_who_its_neighbours_are(monkeypatch, window, batch_size, live):
    """In batches of any size, rows in any order, ended rows replaced at once, later or never."""
    model, rows = adapted_model(window), mixed_rows()
    together = written(model, rows)
    monkeypatch.setattr(sampling, "LIVE", live)
    order = Random(batch_size).sample(range(len(together)), len(together))
    shuffled = written(model, [[column[row] for row in order] for column in rows], 1.0, batch_size)
    assert shuffled == [together[row] for row in order]


def test_equal_noise_pairs_conditions():
    """Rows with one seed differ by their interventions only."""
    model, (asked, *_) = base_model(), mixed_rows(adapters=False)
    given = [[], [Steer(1, V[0], 0.0)], [Steer(1, V[0], 1e-9)], [Steer(1, V[0], 5.0)]]
    none, zero, next_to_nothing, much = written(model, ([asked[0]] * 4, [7] * 4, given))
    assert none == zero == next_to_nothing != much


def test_a_single_run_agrees():
    """Interventions on the whole model do what they do to a row of a batch."""
    model, (asked, seeds, given) = adapted_model(WINDOW), mixed_rows()
    together = written(model, (asked, seeds, given))
    for condition in CONDITIONS.values():
        rows = [row for row, one in enumerate(given) if one is condition]
        with applied(model, condition):
            found = written(model, ([asked[row] for row in rows], [seeds[row] for row in rows], None))
        assert found == [together[row] for row in rows]


@pytest.mark.parametrize("name", ["patch", "steer the header", "steer the response", "all of it"])
def test_a_single_run_agrees_in_plain_generate_with_padding(name):
    model, asked = adapted_model(), prompts(LENGTHS)
    longest = max(LENGTHS)
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in asked])
    with applied(model, CONDITIONS[name]):
        settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        found = model.generate(input_ids=padded, attention_mask=(padded != 0).long(), **settings)[:, longest:].tolist()
    expected = sampling.generate(model, TOKENIZER, asked, range(4), 0.0, 6, interventions=[CONDITIONS[name]] * 4)
    assert [one[: len(other)] for one, other in zip(found, expected, strict=True)] == expected
    assert any(map(len, expected))


# --- what can go wrong ----------------------------------------------------------------------------------------------


def test_an_error_leaves_the_model_as_it_was(monkeypatch):
    model, rows = adapted_model(), mixed_rows()
    before, plain = hooks_on(model), written(model, (*rows[:2], None))
    monkeypatch.setattr(Writer, "_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        written(model, rows)
    monkeypatch.undo()
    assert hooks_on(model) == before and written(model, (*rows[:2], None)) == plain


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("[..] not enough memory: you tried")])
def test_smaller_batches_where_memory_runs_out(monkeypatch, error):
    model, rows = adapted_model(), mixed_rows()
    expected, forward, sizes = written(model, rows), type(model).forward, []

    def short_of_memory(self, input_ids, **given):
        sizes.append(len(input_ids))
        if len(input_ids) > 9:
            raise error
        return forward(self, input_ids, **given)

    monkeypatch.setattr(type(model), "forward", short_of_memory)
    assert written(model, rows) == expected
    assert 0 < sum(size > 9 for size in sizes) <= 3, "70 rows at once, 35, 17, 8"


def test_memory_may_not_suffice_at_all(monkeypatch):
    model = base_model()

    def fail(message):
        def forward(*_, **__):
            raise RuntimeError(message)

        monkeypatch.setattr(type(model), "forward", forward)
        written(model, mixed_rows(adapters=False))

    with pytest.raises(CompanionError, match=r"^Memory does not suffice for a single response; shorten it\.$"):
        fail("not enough memory")
    with pytest.raises(RuntimeError, match="something else"):
        fail("something else")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (([[3]], [0], [[], []]), r"zip\(\) argument 3 is longer"),
        (([[3], [4]], [0, 1], [[], [Steer(4, V[0])]]), r"There is no layer 4; the model has 4 \(from 0\)\."),
    ],
)
def test_bad_rows_are_refused_before_anything_is_computed(monkeypatch, rows, sentence):
    model = base_model()
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises((CompanionError, ValueError), match=f"^{sentence}"):
        written(model, rows)
    assert hooks_on(model) == 0


def test_another_way_of_drawing_noise_is_told_apart(monkeypatch):
    known = sampling.noise_fingerprint.__wrapped__()
    assert sampling.noise_fingerprint.__wrapped__() == known
    draw = RowNoise.draw
    monkeypatch.setattr(RowNoise, "draw", lambda self: 2 * draw(self))
    assert sampling.noise_fingerprint.__wrapped__() != known
