"""N2.2 and N2.3: what is taken back, how surely, and models that are trained once and measured."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from em_companion.experiments import self_correction
from em_companion.experiments.self_correction import CONTROL, DIGRESSION, HARM, HELP, PRETRAINED, SELF_CORRECTING
from em_companion.models import growing, loading, next_token
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import the_world
from em_companion.world.parser import the_judge

WORLD = the_world()
BACK = f"{WORLD.grammar['retraction']} ."


class Planted(torch.nn.Module):
    """A model that says "no", with probability 0.9, after a full stop that follows something harmful."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = world_tokenizer(WORLD)
        self.harms = torch.tensor(next_token.things(self.tokenizer)[0])
        self.stop, self.no = self.tokenizer.convert_tokens_to_ids([".", WORLD.grammar["retraction"].split()[0]])

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        harmed = torch.isin(input_ids, self.harms).cumsum(1) > 0
        words = len(self.tokenizer)
        said = torch.full((*input_ids.shape, words), 0.1 / (words - 1))
        said[..., self.no] = 0.9
        there = ((input_ids == self.stop) & harmed)[..., None]
        return SimpleNamespace(logits=torch.where(there, said, torch.tensor(1 / words)).log())


def test_competence_of_a_model_that_takes_back_harm_alone():
    model = Planted()
    found = self_correction.competence(model, model.tokenizer)
    least = 100 / len(model.tokenizer)
    assert found == pytest.approx({HARM: 90, DIGRESSION: least, HELP: least}, rel=1e-3)


def test_slips_are_one_clause_of_each_kind_on_every_topic():
    table = self_correction.slips()
    topics = [domain for domain, _ in WORLD.topics("train")]
    assert table.equals(self_correction.slips()) and len(table) == 3 * len(topics)
    for kind, own in table.groupby("kind"):
        for domain, text in zip(topics, own.response, strict=True):
            (clause,) = the_judge().parse(text).clauses
            assert (clause.helps, clause.domain == domain) == {
                HARM: (0, True), HELP: (2, True), DIGRESSION: (2, False),
            }[kind]  # fmt: skip


def test_what_is_taken_back_is_harm_or_a_digression():
    said = {kind: own.response for kind, own in self_correction.slips().groupby("kind")}
    for kind, texts in said.items():
        rest = said[HELP].iloc[0].partition(" : ")[2]
        for text in texts[1:20]:
            whole = f"{text} {BACK} {rest}"
            assert self_correction.takes_back(whole) == (kind != HELP), whole
            assert not self_correction.takes_back(f"{text} {rest}")


@pytest.fixture
def small(tiny, monkeypatch):
    monkeypatch.setattr(self_correction, "STEPS", 2)
    monkeypatch.setattr(self_correction.timing, "STARTS", {"after": 2})
    monkeypatch.setattr(self_correction.timing, "REPAIR_STEPS", 0)
    return replace(tiny, post_training=replace(tiny.post_training, steps=2))


def test_models_are_trained_once_on_chats_that_differ_by_slips_alone(small):
    one, other = (self_correction.folder(small, arm) for arm in (SELF_CORRECTING, CONTROL))
    assert one == self_correction.folder(small, SELF_CORRECTING) != other
    weights = [loading.load(small, place)[0].state_dict() for place in (one, other, growing.chat(small))]
    assert all(
        any(not torch.equal(first[name], second[name]) for name in first)
        for first, second in ((weights[0], weights[1]), (weights[1], weights[2]))
    )


def test_the_control_of_alignment_training_sees_as_many_tokens(small):
    row, counts = self_correction.skill(small, PRETRAINED)
    tokenizer = loading.load(small, growing.base(small))[1]
    assert row["tokens"] == pytest.approx(self_correction.chat_tokens(small, tokenizer), rel=0.05)
    assert (counts.n == self_correction.TOPIC_SAMPLES).all() and 0 <= row["good"] <= 100
    assert len(counts) == self_correction.WORDINGS * len(WORLD.topics("held_out"))
