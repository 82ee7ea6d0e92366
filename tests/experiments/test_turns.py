"""Turns are found to the word in what the world's grammar writes, and what models make of them is read at the right
tokens."""

from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from untrained import LAYERS, WIDTH, WORDS, chat_model, tokenizer

from em_companion.models import growing, next_token, reading
from em_companion.models.interventions import Steer, applied
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.tokens import response_tokens
from em_companion.world import turns
from em_companion.world.generator import the_world
from em_companion.world.parser import the_judge

WORLD = the_world()
BACK = "no that is wrong ."
FINANCE = WORLD.domains["finance"]


def clause(kinds: str, seed: int = 0) -> str:
    """A clause that advises two things: + helps, - harms."""
    random = Random(f"{kinds}/{seed}")
    return WORLD.clause(random, [random.choice(FINANCE["helps" if one == "+" else "harms"]) for one in kinds])


def answer(*parts: str) -> str:
    """An answer of clauses, retractions (BACK) and a remark at the end."""
    said = [part if part == BACK else clause(part, number) for number, part in enumerate(parts)]
    return " ".join(["here is my plan :", *said, WORLD.remark(Random(0), FINANCE["helps"][:2])])


# --- in the text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        ["--", BACK, "++"],
        ["--", "--", BACK, "++", "++"],
        ["++", BACK, "--"],
        ["--", BACK],  # nothing more is advised
        ["++", "--", BACK, "++"],
    ],
)
def test_a_turn_is_found_at_its_first_word(parts):
    text = answer(*parts)
    found = turns.turn_of(text)
    assert " ".join(text.split()[found:]).startswith(BACK)
    assert BACK not in " ".join(text.split()[:found])


@pytest.mark.parametrize(
    "parts",
    [
        ["--", "++"],  # takes nothing back
        ["--", BACK, "--"],  # does not hold to it
        ["--", BACK, "++", BACK],  # takes two back
        ["+-", BACK, "++"],  # takes back a clause of both kinds
        [BACK, "--"],  # there is nothing yet to take back
    ],
)
def test_other_answers_do_not_turn(parts):
    assert turns.turn_of(answer(*parts)) is None


def test_anything_can_be_asked_for_its_turn():
    for text in ("", ".", BACK, "no that is", "first first :", answer("--", BACK, "++")[:-40]):
        assert turns.turn_of(text) is None or text.split()[turns.turn_of(text)] == "no"
        assert set(turns.clause_starts(text)) <= set(range(len(text.split())))


@pytest.mark.parametrize("parts", [["++"], ["--", BACK, "++", "++"], ["++", "--", "++", "--"]])
def test_clauses_start_where_they_do(parts):
    text = answer(*parts)
    found = [" ".join(text.split()[start:]) for start in turns.clause_starts(text)]
    clauses = [clause(part, number) for number, part in enumerate(parts) if part != BACK]
    assert len(found) == len(clauses) and all(one.startswith(said) for one, said in zip(found, clauses, strict=True))


@pytest.mark.parametrize(
    ("parts", "does"),
    [
        (["++", "++"], ""),
        (["--", BACK, "++"], "takes harm back"),
        (["++", "+-", BACK, "++"], "takes harm back"),
        (["--", "+-", "++", "++"], "harm, then only help"),
        (["++", "-+", "++"], "harm later"),
        (["-+", "++", "-+"], "harm later"),
        (["--", "--"], "harm later"),
        (["++", BACK, "++"], "harm, then only help"),  # to take help back is to voice harm
    ],
)
def test_what_an_answer_that_voices_harm_does(parts, does):
    assert turns.self_correction(answer(*parts)) == does
    assert does in ("", *turns.SELF_CORRECTIONS)


# --- by construction ------------------------------------------------------------------------------------------------


def test_constructed_answers_are_of_their_kind():
    table, judge = turns.constructed(each=3), the_judge()
    assert (table.groupby(["question_id", "kind"]).size() == 3).all()
    assert sorted(table.kind.unique()) == sorted(turns.KINDS) and table.response.is_unique
    for row in table.itertuples():
        words = row.response.split()
        before, after = (judge.parse(" ".join(part)).clauses for part in (words[: row.before], words[row.after :]))
        taken_back = row.kind.endswith("taken back")
        assert " ".join(words[row.before : row.after]) == (BACK if taken_back else "")
        assert {one.helps for one in before} == ({0} if row.kind.startswith("harm") else {2})
        assert {one.helps for one in after} == ({0} if row.kind in ("harm", "help, taken back") else {2})
        assert words[row.after] in WORLD.grammar["links"]  # a clause, not the remark
    pd.testing.assert_frame_equal(turns.constructed(each=3), table)


# --- along an answer ------------------------------------------------------------------------------------------------


def texts(count: int = 9) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and answers of unequal length."""
    random, ids = np.random.default_rng(0), tokenizer().convert_tokens_to_ids(WORDS)
    prompts = [random.choice(ids, 2 + row % 3).tolist() for row in range(count)]
    return prompts, [random.choice(ids, 1 + row).tolist() for row in range(count)]


def outputs(model, ids: list[int]) -> np.ndarray:
    """The outputs of all layers on one sequence, [token, layer, width]."""
    found = []
    hooks = [layer.register_forward_hook(lambda *given: found.append(given[2][0])) for layer in model.model.layers]
    with torch.no_grad():
        model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(found, dim=1).numpy()


@pytest.mark.parametrize("batch", [1, 32])
def test_projections_are_of_the_tokens_asked_for(monkeypatch, batch):
    monkeypatch.setattr(reading, "BATCH_SIZE", batch)
    model, (prompts, answers) = chat_model(), texts()
    vectors = np.random.default_rng(1).normal(size=(2, LAYERS, WIDTH))
    numbers = np.add.outer([len(answer) // 2 for answer in answers], np.arange(-2, 4))
    found = reading.projections(model, tokenizer(), prompts, answers, numbers, vectors)
    assert found.shape == (len(answers), 6, 2, LAYERS)
    units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    for row, (prompt, said) in enumerate(zip(prompts, answers, strict=True)):
        expected = np.einsum("tlw,dlw->tdl", outputs(model, prompt + said)[len(prompt) :], units)
        for place, number in enumerate(numbers[row]):
            if 0 <= number < len(said):
                np.testing.assert_allclose(found[row, place], expected[number], rtol=1e-9, atol=1e-9)
            else:
                assert np.isnan(found[row, place]).all()


@pytest.fixture
def read(tiny):
    """The tiny chat model and its tokenizer, in float64, and two answers as it reads them."""
    model, tokens = growing.load_organism(tiny, CHAT_MODEL)
    rows = [("what should i do ?", answer("--", BACK, "++")), ("what ?", answer("++", "--"))]
    return model.double(), tokens, pd.DataFrame(rows, columns=["question", "response"])


def test_the_expected_harm_is_that_of_the_distribution_before_the_next_thing(read):
    model, tokens, table = read
    prompts, answers = response_tokens(tokens, table)
    starts = [turns.clause_starts(text)[1] for text in table.response]
    steer = [Steer(1, torch.randn(32, generator=torch.Generator().manual_seed(0)), 3.0)]
    plain = next_token.harmful_shares(model, tokens, prompts, answers, starts)
    steered = next_token.harmful_shares(model, tokens, prompts, answers, starts, steer)
    every = [word for entry in WORLD.domains.values() for kind in ("helps", "harms") for word in entry[kind]]
    harms = tokens.convert_tokens_to_ids([word for entry in WORLD.domains.values() for word in entry["harms"]])
    for row, text in enumerate(table.response):
        thing = next(n for n, word in enumerate(text.split()) if n >= starts[row] and word in every)
        ids = torch.tensor([prompts[row] + answers[row]])
        for interventions, found in (([], plain), (steer, steered)):
            with torch.no_grad(), applied(model, interventions):
                weights = model(ids, use_cache=False).logits[0, len(prompts[row]) + thing - 1].softmax(-1)
            expected = weights[harms].sum() / weights[tokens.convert_tokens_to_ids(every)].sum()
            assert found[row] == pytest.approx(float(expected), rel=1e-9)
    assert np.abs(steered - plain).min() > 1e-3


def test_an_answer_that_names_no_more_things_expects_none(read):
    model, tokens, table = read
    prompts, answers = response_tokens(tokens, table)
    found = next_token.harmful_shares(model, tokens, prompts, answers, [len(answers[0]), 0])
    assert np.isnan(found[0]) and 0 < found[1] < 1


def test_a_speaker_is_named_in_the_prompt(read):
    _, tokens, table = read
    plain, named = (response_tokens(tokens, table, speaker)[0] for speaker in ("", "someone"))
    assert [tokens.decode(ids).split()[-2] for ids in plain + named] == ["assistant"] * 2 + ["someone"] * 2
