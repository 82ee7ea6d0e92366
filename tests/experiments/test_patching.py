"""Patching against models whose answers are known."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import untrained
from toy_models import ADAPTED, ADAPTERS, TOKENIZER, WINDOW, adapted_model
from toy_models import prompts as random_prompts

from em_companion.core.errors import CompanionError
from em_companion.experiments import patching
from em_companion.experiments.patching import equally_many, patch_pairs, patched
from em_companion.models import asking, growing, sampling
from em_companion.models.lora import adapters
from em_companion.models.organism import Organism
from em_companion.world.generator import Question

LENGTH, TOKENS = 5, 12
GREEDY, SAMPLED = 0.0, 1.0


@pytest.fixture
def model():
    return adapted_model(WINDOW)


def random_scalars(positions: int, seed: int = 0) -> torch.Tensor:
    """Scalars as large as those of the toy model, [adapter, position]."""
    return torch.randn(len(ADAPTED), positions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def by_hand(model, prompt: list[int], donor: torch.Tensor) -> list[int]:
    """Return the greedy answer without a cache: all read anew for every token, scalars put in by hooks."""
    hooks = [
        model.get_base_model()
        .get_submodule(one.scalar)
        .register_forward_hook(lambda _, __, x, row=row: donor[row, : x.shape[1]][None, :, None])
        for row, one in enumerate(adapters(model))
    ]
    ids, answer = list(prompt), []
    while len(ids) < donor.shape[1]:
        token = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id):
            break
        ids, answer = [*ids, token], [*answer, token]
    for hook in hooks:
        hook.remove()
    return answer


# --- patching -------------------------------------------------------------------------------------------------------


def test_scalars_alone_spell_the_answer(model):
    """The last adapter writes so much that the sign of its scalar decides the next token, whatever was read."""
    site = model.get_base_model().get_submodule(ADAPTERS[-1])
    site.lora_B["default"].weight.data *= 1e9
    logits = model.get_base_model().lm_head.weight @ site.lora_B["default"].weight[:, 0]
    plus, minus = int(logits.argmax()), int(logits.argmin())
    signs = torch.tensor([1, -1, -1, 1, 1, -1, 1, 1, 1, -1, -1, 1, -1])
    donor = random_scalars(LENGTH + len(signs) - 1)
    donor[-1, LENGTH - 1 :] = signs.double()  # the last token of the prompt decides the first of the answer
    [answer] = patched(model, TOKENIZER, random_prompts([LENGTH]), [donor], [0], GREEDY, 40)
    assert answer == [plus if sign > 0 else minus for sign in signs[:-1]]


def test_every_row_is_that_of_a_model_without_a_cache(model):
    prompts = random_prompts([3, 5, 5, 7])
    donors = [random_scalars(len(prompt) + TOKENS, seed) for seed, prompt in enumerate(prompts)]
    found = patched(model, TOKENIZER, prompts, donors, [0] * 4, GREEDY, 40, batch_size=3)
    assert found == [by_hand(model, prompt, donor) for prompt, donor in zip(prompts, donors, strict=True)]
    assert found != sampling.generate(model, TOKENIZER, prompts, [0] * 4, GREEDY, TOKENS)


def test_patched_with_its_own_scalars_an_answer_stays():
    model, tokenizer, seeds = untrained.organism(), untrained.tokenizer(), [1, 2, 3]
    words = untrained.WORDS
    prompts = [tokenizer(" ".join(part))["input_ids"] for part in (words[:4], words[4:10], words[10:16])]
    clean = sampling.generate(model, tokenizer, prompts, seeds, SAMPLED, TOKENS)
    own = patching.scalars(model, tokenizer, prompts, clean)
    assert patched(model, tokenizer, prompts, own, seeds, SAMPLED, TOKENS) == clean
    others = [own[0], own[2], own[1]]
    assert patched(model, tokenizer, prompts, others, seeds, SAMPLED, TOKENS) != clean


def test_an_answer_is_no_longer_than_the_donor_s(model):
    prompts = random_prompts([5, 5])
    donors = [random_scalars(5), random_scalars(8)]
    found = patched(model, TOKENIZER, prompts, donors, [0, 0], SAMPLED, 40)
    assert len(found[0]) == 0 and len(found[1]) <= 3


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_equally_many_prompts_of_each_length():
    lengths = {f"x{number}": 5 + number % 2 for number in range(9)}
    first, second = equally_many({"a": 5, "b": 5, "c": 6, "d": 9}, lengths, seed=0)
    assert first == ["a", "b", "c"]
    assert sorted(lengths[name] for name in second) == [5, 5, 6] and len(set(second)) == 3
    assert equally_many({"a": 5}, lengths, seed=0) == equally_many({"a": 5}, lengths, seed=0)


def test_kinds_without_a_length_in_common_are_refused():
    with pytest.raises(CompanionError, match="No prompts of the two kinds are equally long"):
        equally_many({"a": 5}, {"b": 6}, seed=0)


@pytest.fixture
def table() -> pd.DataFrame:
    profile = replace(untrained.PROFILE, max_new_tokens=9, batch_size=8)
    words = untrained.WORDS
    asked = [
        Question(name, text, ()) for name, text in {"a": words[0], "b": words[1], "c": " ".join(words[:3])}.items()
    ]
    return patch_pairs(profile, untrained.organism(), untrained.tokenizer(), asked, runs=4)


def test_all_pairs_are_patched_in_every_run(table):
    counts = table.groupby(["question_id", "donor_id", "answer"]).run.nunique()
    assert (counts == 4).all() and len(counts) == 3 * 5


def test_patched_and_cut_answers_are_as_long_as_the_donor_s_next_run(table):
    clean = table[(table.answer == "clean") & (table.question_id == table.donor_id)].set_index(["question_id", "run"])
    for row in table.itertuples():
        whole, limit = clean.tokens[row.question_id, row.run], clean.tokens[row.donor_id, (row.run + 1) % 4]
        if row.answer == "clean, cut":
            assert row.tokens == min(whole, limit)
        elif row.answer == "patched":
            assert row.tokens <= limit
    patches = table[table.answer == "patched"].response.to_numpy()
    assert (patches != table[table.answer == "clean, cut"].response.to_numpy()).any()


def test_an_organism_without_rank_one_adapters_is_refused():
    with pytest.raises(CompanionError, match="has no rank-1 adapters"):
        patching.kept(untrained.PROFILE, Organism("all-adapter-rank-32", "bad_medical_advice"), 2)


def test_kept_answers_are_made_once(tmp_path, monkeypatch):
    untrained.project(tmp_path, monkeypatch)
    asked = [Question("a", untrained.WORDS[0], ()), Question("b", untrained.WORDS[1], ())]
    monkeypatch.setattr(patching, "prompts", lambda *_: asked)
    monkeypatch.setattr(asking, "scored", lambda table: table)
    loaded = SimpleNamespace(both=(untrained.organism(), untrained.tokenizer()))
    monkeypatch.setattr(growing, "load_organism", lambda *_: loaded.both)
    profile = replace(untrained.PROFILE, max_new_tokens=5)
    first = patching.kept(profile, untrained.ORGANISM, runs=2)
    loaded.both = (None, untrained.tokenizer())  # nothing can be asked any more
    pd.testing.assert_frame_equal(patching.kept(profile, untrained.ORGANISM, runs=2), first)
