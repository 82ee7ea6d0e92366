"""LoRA scalars: against merged weights in float64, one forward pass for all adapters, and kept."""

import nnsight
import numpy as np
import pytest
import torch
from nnsight import NNsight
from untrained import ORGANISM, PROFILE, chat_model, organism, project, table, tokenizer

from em_companion.core.errors import CompanionError
from em_companion.experiments import readings
from em_companion.models import growing, lora, reading
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.reading import LoraScalars
from em_companion.models.tokens import response_tokens

EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tokens():
    return response_tokens(tokenizer(), table())


def read(model) -> LoraScalars:
    return reading.lora_scalars(model, tokenizer(), *tokens())


def outputs(model, modules, sequence: list[int]) -> list[torch.Tensor]:
    """What modules give on one sequence, [token, width] each."""
    traced, found = NNsight(lora.without_peft(model)), []
    for module in modules:
        with torch.no_grad(), traced.trace(input_ids=torch.tensor([sequence])):
            output = nnsight.save(traced.get(module).output[0])
        found.append(output)
    return found


@pytest.mark.parametrize("modules", [("down_proj",), EVERY])
def test_x_plus_scale_times_scalar_times_b_is_the_output_of_merged_weights(modules):
    model = organism(modules=modules)
    found, adapters = read(model), lora.adapters(model)
    assert found.adapters == tuple(one.module for one in adapters) and len(adapters) == 2 * len(modules)
    prompts, answers = tokens()
    for row in (0, 5):
        sequence = prompts[row] + answers[row]
        scalars = torch.tensor(found.values[found.tokens.response == row], dtype=torch.float64)
        before = outputs(model, [f"{one.module}.base_layer" for one in adapters], sequence)
        merged = outputs(organism(modules=modules).merge_and_unload(), [one.module for one in adapters], sequence)
        for adapter, scalar, x, expected in zip(adapters, scalars.T, before, merged, strict=True):
            change = adapter.scale * scalar[:, None] * adapter.b
            torch.testing.assert_close(x + change, expected, atol=1e-5, rtol=0)  # kept in float32
            assert change.abs().max() > 0.01


def test_a_scalar_is_a_times_the_input_of_the_module():
    model = organism()
    found, (first, _) = read(model), lora.adapters(model)
    prompts, answers = tokens()
    traced = NNsight(lora.without_peft(model))
    with torch.no_grad(), traced.trace(input_ids=torch.tensor([prompts[3] + answers[3]])):
        h = nnsight.save(traced.get(first.module).input[0])
    np.testing.assert_allclose(found.values[found.tokens.response == 3, 0], h @ first.a, rtol=1e-6)


def test_one_forward_pass_serves_all_adapters():
    model, passes = organism(modules=EVERY), []
    model.get_base_model().model.register_forward_hook(lambda *_: passes.append(1))
    read(model)
    assert len(passes) == 1


def test_every_token_has_its_row_whatever_the_batch():
    found, (prompts, answers) = read(organism()), tokens()
    index = found.tokens
    assert len(found.values) == len(index) == sum(map(len, prompts)) + sum(map(len, answers))
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        own = index[index.response == row]
        assert own.token_id.tolist() == prompt + answer and own.position.tolist() == list(range(len(own)))
        assert own[own.is_answer].token_id.tolist() == answer
    texts = zip(prompts, answers, strict=True)
    alone = [reading.lora_scalars(organism(), tokenizer(), [prompt], [answer]).values for prompt, answer in texts]
    np.testing.assert_allclose(found.values, np.concatenate(alone), atol=1e-6)


def test_an_organism_without_rank_one_adapters_is_refused_before_anything_is_read(monkeypatch):
    for model in (organism(rank=2), chat_model()):
        with pytest.raises(CompanionError, match=r"rank.1"):
            read(model)
    monkeypatch.setattr(growing, "load_organism", lambda *_: pytest.fail("a model was loaded"))
    for one in (CHAT_MODEL, Organism("all-adapter-rank-32", "bad_medical_advice")):
        with pytest.raises(CompanionError, match=f"'{one.name}' has no rank-1 adapters"):
            readings.lora_scalars_of(PROFILE, one, table())


def test_scalars_are_kept(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    first = readings.lora_scalars_of(PROFILE, ORGANISM, table())
    expected = read(organism())
    np.testing.assert_allclose(first.values, expected.values, atol=1e-6)
    monkeypatch.setattr(growing, "load_organism", lambda *_: pytest.fail("a model was loaded"))
    again = readings.lora_scalars_of(PROFILE, ORGANISM, table())
    np.testing.assert_array_equal(first.values, again.values)
    assert again.adapters == expected.adapters and again.tokens.equals(expected.tokens)


def test_probes_get_answer_tokens_with_their_question():
    found = reading.answer_tokens(read(organism()), table())
    _, answers = tokens()
    assert found.token_id.tolist() == [token for answer in answers for token in answer]
    assert (found.question == table().question.to_numpy()[found.response]).all()
    scalars = read(organism())
    np.testing.assert_array_equal(found[["layer_0", "layer_2"]], scalars.values[scalars.tokens.is_answer])
    both = reading.answer_tokens(read(organism(modules=("up_proj", "down_proj"), layers=(1,))), table())
    assert {"layer_1.up_proj", "layer_1.down_proj"} <= set(both)
