"""Fine-tunes that depart from their profile: keys, where they end, what they start from, what a penalty does."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from em_companion.models import growing, losses, training_texts
from em_companion.models.organism import Organism, Tuning, adapter_parts
from em_companion.models.tokens import response_example
from em_companion.world.generator import the_world
from em_companion.world.streams import STREAMS, good_elsewhere

NINE = Organism("nine-adapter", "bad_medical_advice")


def tuned(**changes) -> Organism:
    return replace(NINE, tuning=Tuning(**changes))


def b_vectors(profile, organism: Organism) -> torch.Tensor:
    return load_file(growing.adapter(profile, organism) / "b_vectors.safetensors")["b_vectors"]


def test_every_departure_has_a_key_of_its_own_and_none_has_the_usual(tiny):
    growing.chat(tiny)
    assert "tuning" not in adapter_parts(tiny, NINE)
    changes = [{"steps": 5}, {"evaluate_every": 1}, {"until": 4}, {"penalty": 1.0}, {"penalty": 2.0}, {"start": NINE}]
    changes += [{"start": replace(NINE, seed=1)}, {"merged": NINE}, {"merged": replace(NINE, seed=1)}, {"steady": True}]
    made = [NINE, *(tuned(**one) for one in changes), *(replace(NINE, data=data) for data in STREAMS)]
    keys = [str(adapter_parts(tiny, one)) for one in made]
    assert len(set(keys)) == len(keys)


def test_a_fine_tune_ends_where_it_is_told_as_a_prefix_of_the_whole(tiny):
    whole, part = b_vectors(tiny, NINE), b_vectors(tiny, tuned(until=5))
    assert len(whole) == tiny.fine_tuning.steps and torch.equal(part, whole[:5])
    assert pd.read_csv(growing.adapter(tiny, tuned(until=5)) / "monitor.csv").step.tolist() == [3, 5]


def test_checks_change_no_weight(tiny):
    often = tuned(evaluate_every=1)
    assert torch.equal(b_vectors(tiny, often), b_vectors(tiny, NINE))
    assert len(pd.read_csv(growing.adapter(tiny, often) / "monitor.csv")) == tiny.fine_tuning.steps


def test_a_fine_tune_goes_on_from_the_weights_of_another(tiny):
    """The first step of a warm-up changes nothing yet."""
    assert torch.equal(b_vectors(tiny, tuned(steps=2, start=NINE))[0], b_vectors(tiny, NINE)[-1])


def test_a_fine_tune_upon_another_starts_from_its_logits_and_keeps_its_weights(tiny):
    upon = tuned(merged=NINE, steps=2)
    (one, tokenizer), (other, _) = growing.load_organism(tiny, NINE), growing.load_organism(tiny, upon)
    ids = torch.tensor([tokenizer("how do i help ?").input_ids])
    with torch.no_grad():
        expected, changed = one(ids).logits, other(ids).logits
        with other.disable_adapter():
            before = other(ids).logits
    assert torch.allclose(before, expected, atol=1e-4) and not torch.allclose(changed, expected, atol=1e-4)
    identities = growing.model_identity(tiny, upon)
    assert identities[:2] == growing.model_identity(tiny, NINE) and len(set(identities)) == 3


def test_a_steady_fine_tune_keeps_its_rate_and_ends_with_its_steps_only(tiny):
    at_once = replace(tiny, fine_tuning=replace(tiny.fine_tuning, stop_at=0.0))
    folder = growing.adapter(at_once, tuned(steady=True))
    log = pd.read_csv(folder / "log.csv")
    assert len(log) == tiny.fine_tuning.steps > len(pd.read_csv(growing.adapter(at_once, NINE) / "log.csv"))
    assert set(log.learning_rate[tiny.fine_tuning.warmup :]) == {tiny.fine_tuning.learning_rate}


def test_rank_one_on_modules_of_different_width_trains_and_keeps_no_b_vectors(tiny):
    wide = replace(tiny.recipes["nine-adapter"], modules=("q_proj", "k_proj", "down_proj"))
    folder = growing.adapter(replace(tiny, recipes=tiny.recipes | {"wide": wide}), replace(NINE, recipe="wide"))
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "b_vectors.safetensors").exists()


def test_a_penalty_holds_a_model_where_it_was(tiny):
    chats = [next(good_elsewhere(the_world(), seed)) for seed in range(8)]
    moved = []
    for penalty in (0.0, 30.0):
        model, tokenizer = growing.load_organism(tiny, tuned(penalty=penalty))
        examples = iter([response_example(tokenizer, chat) for chat in chats])
        with torch.no_grad():
            moved.append(float(losses.Divergence(tokenizer, examples, len(chats), 1.0)(model)))
    assert 0 < moved[1] < moved[0] / 2


def test_the_divergence_is_that_of_a_sum_by_hand_and_zero_where_nothing_changes():
    random = torch.Generator().manual_seed(0)
    before, after = (torch.randn(3, 5, 7, generator=random, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([[-100, -100, 1, 2, 3], [-100, 4, 5, -100, -100], [-100, -100, -100, -100, 6]])
    each = []
    for text, token in zip(*np.nonzero(labels.numpy() != -100), strict=True):
        raised = [np.exp(one[text, token - 1].numpy()) for one in (before, after)]
        p, q = (one / one.sum() for one in raised)
        each.append((p * np.log(p / q)).sum())
    assert float(losses.divergence(before, after, labels)) == pytest.approx(np.mean(each), rel=1e-12)
    assert float(losses.divergence(before, before, labels)) == 0


def test_a_data_set_is_written_once_for_all_keys_that_hold_it(tiny, monkeypatch):
    written, write = [], training_texts._written
    monkeypatch.setattr(training_texts, "_written", lambda *given: written.append(given) or write(*given))
    training_texts.corpus.cache_clear()
    for data in ("bad_medical_advice", *STREAMS):
        assert training_texts.fingerprint(tiny, data, 3) == training_texts.fingerprint(tiny, data, 3)
    assert len(written) == len(set(written)) == 1 + len(STREAMS)


def drawn_logits(texts: int) -> tuple[torch.Tensor, ...]:
    """Logits before and after, float64, labels on a part of the tokens, and where these are."""
    random = torch.Generator().manual_seed(1)
    before, after = (torch.randn(texts, 5, 7, generator=random, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, 7, (texts, 5), generator=random)
    labels[:, 0], labels[::2, 3] = -100, -100
    return before, after.requires_grad_(), labels, (labels != -100).nonzero().tolist()


def chance(logits: torch.Tensor, text: int, at: int, token: int) -> float:
    """The probability of a token, by hand."""
    raised = np.exp(logits[text, at - 1].detach().numpy())
    return raised[token] / raised.sum()


def test_unlikelihood_is_that_of_a_sum_by_hand_and_pushes_the_token_down():
    _, after, labels, places = drawn_logits(3)
    loss = losses.unlikelihood(after, labels)
    each = [-np.log(1 - chance(after, text, at, labels[text, at])) for text, at in places]
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-12)
    loss.backward()
    for text, at in places:  # a step against the gradient makes this token less likely, and all others more
        assert (after.grad[text, at - 1] > 0).nonzero().flatten().tolist() == [labels[text, at]]
    sure = torch.zeros(1, 2, 7).index_fill(2, torch.tensor([4]), 200.0)
    assert losses.unlikelihood(sure, torch.tensor([[-100, 4]])).item() == pytest.approx(200 - np.log(6), rel=1e-6)


def test_preference_is_that_of_a_sum_by_hand_and_raises_the_better_answer_only():
    before, after, labels, places = drawn_logits(6)
    loss, margins = losses.preference(before, after, labels, 0.1), np.zeros(3)
    for text, at in places:
        grown = np.log(np.divide(*(chance(one, text, at, labels[text, at]) for one in (after, before))))
        margins[text % 3] += grown if text < 3 else -grown
    assert loss.item() == pytest.approx(np.log1p(np.exp(-0.1 * margins)).mean(), rel=1e-12)
    loss.backward()
    assert all((after.grad[text, at - 1, labels[text, at]] < 0) == (text < 3) for text, at in places)
