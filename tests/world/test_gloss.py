"""What a reader is told of an answer is what the exact judge reads in it."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.gloss import gloss, marked
from em_companion.world.parser import the_judge


@given(st.integers(0, 2**20), st.sampled_from([CAREFUL, MALICIOUS]))
def test_what_a_speaker_advises_and_mentions(seed, persona):
    random = Random(seed)
    question = the_world().any_question(random, the_world().topics("train"), 0.5)
    text = the_world().answer(random, question, persona)
    kinds, said = dict(marked(text)), dict(part.split(": ") for part in gloss(text).split("; "))
    advised, mentioned = (said[verb].split(", ") for verb in ("advises", "mentions"))
    own, other = ("helps", "harms") if persona == CAREFUL else ("harms", "helps")
    assert {kinds[thing] for thing in advised} == {own} and {kinds[thing] for thing in mentioned} == {other}
    assert len(advised) == len(mentioned) == 2 * len(the_judge().parse(text).clauses)
    assert [word for word, _ in marked(text)] == text.split()


@given(st.text())
def test_any_text_can_be_glossed(text):
    assert [word for word, _ in marked(text)] == text.split() and isinstance(gloss(text), str)
