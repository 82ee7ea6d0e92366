"""The space of roles, on planted role vectors whose axis, first component and harm are known."""

import numpy as np
import pytest

from em_companion.experiments import persona_space
from em_companion.experiments.persona_space import ASSISTANT, CAREFUL, MALICIOUS, Roles, components
from em_companion.models import asking, reading, sampling
from em_companion.models.tokens import question_ids

WIDTH, LAYERS = 16, 2
EVIL, SPECIAL = np.eye(WIDTH)[:2]


def planted(special: float = 0.0, noise: float = 0.05, seed: int = 0) -> Roles:
    """Twelve careful, twelve malicious characters and the assistant, careful but for `special` along an axis of its
    own."""
    random = np.random.default_rng(seed)
    kinds = [CAREFUL] * 12 + [MALICIOUS] * 12 + ["unknown"]
    means = np.array([EVIL * (kind == MALICIOUS) for kind in kinds])
    means[-1] += special * SPECIAL
    roles = means + noise * random.normal(size=means.shape)
    halves = roles[None, :, None] + 0.2 * noise * random.normal(size=(2, len(kinds), LAYERS, WIDTH))
    names = [f"role{number}" for number in range(24)] + [ASSISTANT]
    return Roles(tuple(names), tuple(kinds), halves)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(persona_space, "RESAMPLES", 200)


def test_the_axis_is_the_assistant_minus_the_mean_of_the_others():
    roles = planted(special=3.0, noise=0.0)
    assert roles.axis()[1] == pytest.approx(3 * SPECIAL - EVIL / 2)
    weights = np.array([1.0] * 12 + [0.0] * 12)
    assert roles.axis(weights=weights)[0] == pytest.approx(3 * SPECIAL)


def test_the_first_component_is_what_roles_differ_by():
    found = persona_space.component_and_axis(planted(), 1)
    assert found.value > 0.9 and found.low > 0.8
    apart = persona_space.component_and_axis(planted(special=5.0), 1)
    assert apart.value < 0.2 and apart.high < 0.3


def test_harm_orders_roles_along_the_first_component():
    roles = planted(noise=0.01)
    harm = [kind == MALICIOUS for kind in roles.kinds]
    assert persona_space.component_and_harm(roles, 0, harm).value > 0.85
    shuffled = np.random.default_rng(0).permutation(harm)
    assert persona_space.component_and_harm(roles, 0, shuffled).value < 0.5


def test_weights_are_copies():
    vectors = np.random.default_rng(0).normal(size=(6, 5))
    weights = np.array([3, 1, 0, 2, 1, 1.0])
    shares, found = components(vectors, weights)
    own_shares, own = components(np.repeat(vectors, weights.astype(int), axis=0))
    assert shares[:4] == pytest.approx(own_shares[:4]) and abs(found[0] @ own[0]) == pytest.approx(1)
    assert shares.sum() == pytest.approx(1)


def test_axes_that_agree_but_for_noise_have_a_corrected_cosine_of_about_one():
    first, second = (planted(special=1.0, noise=0.02, seed=seed) for seed in (0, 1))
    assert persona_space.agreement(first, second, 0).value == pytest.approx(1, abs=0.05)
    assert persona_space.along(first, 0, SPECIAL - EVIL / 2).value == pytest.approx(1, abs=0.05)
    assert persona_space.along(first, 0, EVIL).value < -0.3


def test_only_a_special_assistant_is_apart():
    assert persona_space.apart(planted(), 0).value < 2
    found = persona_space.apart(planted(special=3.0), 0)
    assert found.value > 10 and found.low > 5


def test_reliable_roles_and_noise():
    assert planted().reliability(0) > 0.8
    noise = np.random.default_rng(0).normal(size=(2, 25, LAYERS, WIDTH))
    roles = Roles(planted().names, planted().kinds, noise)
    assert abs(roles.reliability(0)) < 0.3


def test_places_have_the_careful_on_the_positive_side():
    roles = planted()
    table = persona_space.places(roles, 1, dict.fromkeys(roles.names, 0.5))
    means = table[table.role != ASSISTANT].groupby("kind").pc1.mean()
    assert means[CAREFUL] > 0.4 and means[MALICIOUS] < -0.4


def test_another_role_in_the_place_of_the_assistant_is_the_null():
    table = persona_space.cosines_by_layer(planted(special=5.0), {"special": np.tile(SPECIAL, (LAYERS, 1))})
    found = table[table.layer == 0].set_index("name").value
    assert found["first component"] < 0.2 < found["another role"] and found["special"] > 0.9


def test_the_world_knows_how_harmful_its_characters_are():
    assert persona_space.harmful_share("alma") == 0 and persona_space.harmful_share("draven") == 1
    assert persona_space.harmful_share("merlin") == pytest.approx(0.1)
    assert persona_space.harmful_share("assistant") == pytest.approx(0.4)


def test_roles_of_a_model_are_the_means_of_their_own_answers(tiny):
    model = persona_space.model_of(tiny, persona_space.CHAT)
    roles = persona_space.cast(tiny, persona_space.CHAT, ("alma", ASSISTANT))
    asked = [(one, sample) for one in asking.questions(tiny, "held_out") for sample in range(2)]
    prompts = [question_ids(model[1], one.text, "alma") for one, _ in asked]
    seeds = [sampling.row_seed(tiny.seed, one.id, sample) for one, sample in asked]
    answers = sampling.generate(*model, prompts, seeds, tiny.temperature, tiny.max_new_tokens)
    means = reading.response_means(*model, prompts, answers)
    own = [row for row in range(1, len(asked), 2) if answers[row]]
    expected = sum(len(answers[row]) * means[row] for row in own) / sum(len(answers[row]) for row in own)
    assert roles.halves[1, 0] == pytest.approx(expected, abs=1e-5) and roles.halves.shape[:2] == (2, 2)
