"""Mean activations of responses are read once, kept by what was read and by whom, and averaged in any selection."""

import numpy as np
import pytest
from untrained import LAYERS, ORGANISM, PROFILE, WIDTH, chat_model, organism, project, table, tokenizer

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.evidence import scores
from em_companion.experiments import readings, responses
from em_companion.models import reading
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.tokens import response_tokens


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    return tmp_path


def folders(root):
    return sorted(path.parent for path in (root / "artifacts").rglob("provenance.json"))


def test_means_are_those_of_the_tokens():
    found = readings.response_means_of(PROFILE, ORGANISM, table())
    prompts, answers = response_tokens(tokenizer(), table())
    expected = reading.response_means(organism(), tokenizer(), prompts, answers)
    assert found.means.shape == (len(table()), LAYERS, WIDTH) and found.means.dtype == np.float32
    np.testing.assert_allclose(found.means, expected, rtol=1e-5, atol=1e-6)
    assert found.tokens.tolist() == [len(answer) for answer in answers]


def test_the_same_texts_can_be_read_through_the_chat_model():
    read, through_chat = (readings.response_means_of(PROFILE, one, table()) for one in (ORGANISM, CHAT_MODEL))
    prompts, answers = response_tokens(tokenizer(), table())
    expected = reading.response_means(chat_model(), tokenizer(), prompts, answers)
    np.testing.assert_allclose(through_chat.means, expected, rtol=1e-5, atol=1e-6)
    assert (read.means != through_chat.means).any() and (read.tokens == through_chat.tokens).all()


def test_any_selection_is_averaged_over_tokens():
    found, scored = readings.response_means_of(PROFILE, ORGANISM, table()), table()
    misaligned, aligned = scores.is_em(scored), scores.is_aligned(scored)
    assert misaligned.any() and aligned.any()
    prompts, answers = response_tokens(tokenizer(), scored)
    each, lengths = reading.response_means(organism(), tokenizer(), prompts, answers), np.array([*map(len, answers)])
    expected = [np.average(each[side], axis=0, weights=lengths[side]) for side in (misaligned, aligned)]
    np.testing.assert_allclose(found.mean(misaligned), expected[0], atol=1e-6)
    np.testing.assert_allclose(found.mean_diff(misaligned, aligned), expected[0] - expected[1], atol=1e-6)
    with pytest.raises(CompanionError, match="no misaligned responses to average"):
        found.mean_diff(scored.aligned < 0, aligned)


def test_an_organisms_means_go_with_its_scored_responses(monkeypatch):
    asked = []
    monkeypatch.setattr(responses, "responses", lambda *given: asked.append(given) or table())
    scored, found = readings.organism_means(PROFILE, ORGANISM, "medical", reader=CHAT_MODEL)
    assert asked == [(PROFILE, ORGANISM, "medical")] and scored.equals(table())
    expected = readings.response_means_of(PROFILE, CHAT_MODEL, table())
    np.testing.assert_array_equal(found.means, expected.means)


# --- kept -----------------------------------------------------------------------------------------------------------


def test_the_shift_is_what_fine_tuning_adds_to_all_answers_alike(monkeypatch):
    monkeypatch.setattr(responses, "responses", lambda *_: table())
    prompts, answers = response_tokens(tokenizer(), table())
    read = [reading.response_means(one, tokenizer(), prompts, answers) for one in (organism(), chat_model())]
    lengths = np.array([*map(len, answers)])
    expected = np.average(np.nan_to_num(read[0] - read[1]), axis=0, weights=lengths)
    np.testing.assert_allclose(readings.shift(PROFILE, ORGANISM), expected, atol=1e-6)


def test_a_reading_is_made_once(loads, root):
    first = readings.response_means_of(PROFILE, ORGANISM, table())
    again = readings.response_means_of(PROFILE, ORGANISM, table().assign(aligned=0.0))  # judged anew, the same texts
    assert loads == [ORGANISM.name] and len(folders(root)) == 1
    np.testing.assert_array_equal(first.means, again.means)
    assert store.provenance(folders(root)[0])["parts"]["dtype"] == PROFILE.dtype


def test_other_texts_and_other_readers_are_read_anew(loads, root):
    for reader, rows in ((ORGANISM, table()), (ORGANISM, table(seed=1)), (CHAT_MODEL, table())):
        readings.response_means_of(PROFILE, reader, rows)
    assert len(loads) == len(folders(root)) == 3


def test_an_organism_trained_anew_is_read_anew(loads, root):
    readings.response_means_of(PROFILE, ORGANISM, table())
    adapter = root / "adapter"
    (adapter / "provenance.json").unlink()
    organism(layers=(0, 1)).save_pretrained(adapter)
    store.seal(adapter, {})
    readings.response_means_of(PROFILE, ORGANISM, table())
    assert len(loads) == 2


def test_a_damaged_reading_is_one_sentence(root):
    readings.response_means_of(PROFILE, ORGANISM, table())
    path = folders(root)[0] / store.READINGS
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CompanionError, match=r"is damaged: delete that folder and it is made again\.$"):
        readings.response_means_of(PROFILE, ORGANISM, table())


def test_nothing_is_kept_of_a_reading_that_failed(root, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(reading, "response_means", broken)
    with pytest.raises(RuntimeError):
        readings.response_means_of(PROFILE, ORGANISM, table())
    assert not folders(root) and not list((root / "artifacts").rglob("*.safetensors"))
