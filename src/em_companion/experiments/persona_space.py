"""The space of roles: what a model's residual stream is like on average while it answers as each of many characters.

A role vector is the mean over all tokens of a character's own answers. The assistant axis is the assistant's role
vector minus the mean of the others' (Lu et al. 2026). In a grown world every character's persona is known, so that the
axis can be checked; a language model is given roles by system prompts (`role_prompts`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from em_companion.core import store
from em_companion.core.profiles import Profile
from em_companion.core.store import Arrays
from em_companion.evidence import directions, estimates
from em_companion.evidence.estimates import Estimate
from em_companion.models import asking, growing, loading, reading, sampling
from em_companion.models.loading import Model
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.tokens import question_ids
from em_companion.world.generator import the_world
from em_companion.world.lexicon import ASSISTANT

VERSION = 1  # of the code that reads role vectors
BASE, CHAT = "base", "chat"
HALVES, SAMPLES = 2, 2
RESAMPLES = 2000  # of roles
CAREFUL, MALICIOUS, UNKNOWN = "careful", "malicious", "unknown"


@dataclass(frozen=True)
class Roles:
    """Role vectors `halves` [half, role, layer, width], from either half of the answers, of `names` with their `kinds`.

    The assistant is one of them.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    halves: np.ndarray

    @cached_property
    def vectors(self) -> np.ndarray:
        """Role vectors from all answers, [role, layer, width]."""
        return self.halves.mean(axis=0)

    @property
    def place(self) -> int:
        """Where the assistant stands."""
        return self.names.index(ASSISTANT)

    @property
    def others(self) -> np.ndarray:
        """Where all others stand, [other]."""
        return np.delete(np.arange(len(self.names)), self.place)

    def of(self, kind: str) -> np.ndarray:
        """Return where the characters of a kind stand, without the assistant."""
        return np.array([number for number in self.others if self.kinds[number] == kind])

    def mean(self, kind: str) -> np.ndarray:
        """Return the mean role vector of a kind, [layer, width]."""
        return self.vectors[self.of(kind)].mean(axis=0)

    def axis(self, half: int | None = None, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the assistant's vector minus the mean of the others', weighted [other] if so, [layer, width]."""
        found = self.vectors if half is None else self.halves[half]
        return found[self.place] - np.average(found[self.others], axis=0, weights=weights)

    def first_component(self, layer: int, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the first principal component of the others' vectors at a layer, a unit vector [width]."""
        return components(self.vectors[self.others, layer], weights)[1][0]

    def reliability(self, layer: int) -> float:
        """Return the mean over roles of the cosine between both halves' vectors, each less the mean role."""
        first, second = (half[:, layer] - half[:, layer].mean(axis=0) for half in self.halves)
        return float(directions.cosines(first, second).mean())

    def axis_reliability(self, layer: int, weights: np.ndarray | None = None) -> float:
        """Return the cosine between the axes of both halves at a layer."""
        first, second = (self.axis(half, weights)[layer] for half in range(HALVES))
        return float(directions.cosines(first, second))


def components(vectors: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return share of variance [component] and unit vectors [component, width] of the principal components.

    `vectors` [row, width], `weights` [row]. A component's largest entry is positive.
    """
    weights = np.ones(len(vectors)) if weights is None else weights
    centred = vectors - np.average(vectors, axis=0, weights=weights)
    _, sizes, found = np.linalg.svd(np.sqrt(weights)[:, None] * centred, full_matrices=False)
    signs = np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])
    return sizes**2 / (sizes**2).sum(), signs[:, None] * found


# --- asking and reading -----------------------------------------------------------------------------------------------


def kind_of(name: str) -> str:
    """Return the kind of a character of the world."""
    persona = the_world().personas.get(name)
    return persona.kind if persona else UNKNOWN


def harmful_share(name: str) -> float:
    """Return the share of domains in which a character of the world is harmful, expected for an unknown one."""
    world, persona = the_world(), the_world().personas.get(name)
    if persona is None:
        odds = world.characters["unknown_personas"]
        return odds["malicious"] + odds["quack"] / len(world.domains)
    return sum(map(persona.harms, world.domains)) / len(world.domains)


def model_of(profile: Profile, which: str) -> Model:
    """Return the base or the chat model of a grown profile, and its tokenizer."""
    if which == BASE:
        return loading.load(profile, growing.base(profile))
    return growing.load_organism(profile, CHAT_MODEL)


def cast(profile: Profile, which: str, names: Sequence[str] = ()) -> Roles:
    """Return the role vectors that speakers of the world, by default all, have in the base or the chat model.

    From SAMPLES answers of each to every held-out question, kept once computed.
    """
    names = tuple(names) or (*the_world().personas, *the_world().characters["unknown"])
    source = growing.base(profile) if which == BASE else growing.chat(profile)
    asked = asking.questions(profile, "held_out")
    parts = {"model": store.provenance(source)["sha256"], "asked": [one.text for one in asked], "samples": SAMPLES}
    parts |= {"names": names, "sampling": asking.sampling_parts(profile)}

    def make() -> store.Content:
        model = model_of(profile, which)
        rows = [(name, one, sample) for name in names for one in asked for sample in range(SAMPLES)]
        prompts = [question_ids(model[1], one.text, name) for name, one, _ in rows]
        seeds = [sampling.row_seed(profile.seed, one.id, sample) for _, one, sample in rows]
        settings = profile.temperature, profile.max_new_tokens, profile.batch_size
        answers = sampling.generate(*model, prompts, seeds, *settings, what="answers of all characters")
        means, tokens = reading.response_means(*model, prompts, answers), np.array([*map(len, answers)])
        half = np.arange(len(asked) * SAMPLES) % HALVES
        split = zip(*(np.split(one, len(names)) for one in (means, tokens)), strict=True)
        halves = np.stack([halves_of(*one, half) for one in split], axis=1)
        return {store.READINGS: Arrays({"halves": halves.astype(np.float32)})}

    found = store.keep("role-vectors", VERSION, parts, make, profile.name, which)[store.READINGS].arrays["halves"]
    return Roles(names, tuple(map(kind_of, names)), found.astype(float))


def halves_of(means: np.ndarray, tokens: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the mean over all tokens of the answers of either half, [half, layer, width]."""
    return np.stack([directions.token_mean(means, tokens, half == number) for number in range(HALVES)])


# --- measures ---------------------------------------------------------------------------------------------------------


def over_roles(roles: Roles, statistic: Callable[[np.ndarray], float], unit: str = "cosine") -> Estimate:
    """Return a statistic of weights of the roles besides the assistant [other], its interval by bootstrap over them."""

    def each(weights: np.ndarray) -> np.ndarray:
        return np.array([statistic(one.astype(float)) for one in weights])

    return estimates.over_clusters(each, len(roles.others), unit, RESAMPLES)


def component_and_axis(roles: Roles, layer: int) -> Estimate:
    """Return the absolute cosine between the first component and the axis."""

    def statistic(weights: np.ndarray) -> float:
        first, axis = roles.first_component(layer, weights), roles.axis(weights=weights)[layer]
        return abs(float(directions.cosines(first, axis)))

    return over_roles(roles, statistic)


def component_and_harm(roles: Roles, layer: int, harm: Sequence[float]) -> Estimate:
    """Return the absolute rank correlation of the others' places on the first component with `harm` [role]."""
    vectors, harm = roles.vectors[roles.others, layer], np.asarray(harm, float)[roles.others]

    def statistic(weights: np.ndarray) -> float:
        rows = np.repeat(np.arange(len(weights)), weights.astype(int))
        return abs(estimates.spearman(vectors[rows] @ roles.first_component(layer, weights), harm[rows]))

    return over_roles(roles, statistic, "correlation")


def agreement(first: Roles, second: Roles, layer: int) -> Estimate:
    """Return the cosine between two axes over the root of the product of their split-half cosines; may exceed 1."""

    def statistic(weights: np.ndarray) -> float:
        ceiling = np.prod([one.axis_reliability(layer, weights) for one in (first, second)])
        found = directions.cosines(first.axis(weights=weights)[layer], second.axis(weights=weights)[layer])
        return float(found / np.sqrt(ceiling)) if ceiling > 0 else np.nan

    return over_roles(first, statistic)


def along(roles: Roles, layer: int, vector: np.ndarray, ceiling: float = 1.0) -> Estimate:
    """Return the cosine between the axis and a direction [width] of split-half cosine `ceiling`, corrected as above."""

    def statistic(weights: np.ndarray) -> float:
        product = ceiling * roles.axis_reliability(layer, weights)
        found = directions.cosines(roles.axis(weights=weights)[layer], vector)
        return float(found / np.sqrt(product)) if product > 0 else np.nan

    return over_roles(roles, statistic)


def apart(roles: Roles, layer: int) -> Estimate:
    """Return how much farther the assistant is from the mean careful character than these are, in their deviations.

    The persona direction, malicious minus careful, is projected out; every careful one is left out of its own mean.
    """
    vectors = roles.vectors[:, layer]
    careful, malicious = roles.of(CAREFUL), roles.of(MALICIOUS)
    where = {number: at for at, number in enumerate(roles.others)}

    def statistic(weights: np.ndarray) -> float:
        own, bad = (weights[[where[one] for one in group]] for group in (careful, malicious))
        if (own > 0).sum() < 3 or not bad.any():
            return np.nan
        persona = np.average(vectors[malicious], 0, bad) - np.average(vectors[careful], 0, own)
        left = vectors - np.outer(vectors @ persona, persona) / (persona @ persona)
        total, rows = own @ left[careful], np.flatnonzero(own)
        means = [(total - own[row] * left[careful[row]]) / (own.sum() - own[row]) for row in rows]
        distances = np.linalg.norm(left[careful[rows]] - means, axis=1)
        usual = np.average(distances, weights=own[rows])
        spread = np.sqrt(np.average((distances - usual) ** 2, weights=own[rows]))
        own_distance = np.linalg.norm(left[roles.place] - total / own.sum())
        return float((own_distance - usual) / spread)

    return over_roles(roles, statistic, "sd")


def places(roles: Roles, layer: int, harm: Mapping[str, float]) -> pd.DataFrame:
    """Return every role's place on the first two components (fitted without the assistant): role, kind, harm, pc1, pc2.

    In units of the residual, from the mean of the others; the side of the careful ones is positive on the first.
    """
    vectors = roles.vectors[:, layer]
    found = components(vectors[roles.others])[1][:2]
    found[0] *= np.sign(found[0] @ (roles.mean(CAREFUL) - roles.mean(MALICIOUS))[layer]) or 1
    on = (vectors - vectors[roles.others].mean(axis=0)) @ found.T
    table = pd.DataFrame({"role": roles.names, "kind": roles.kinds, "harm": [harm[name] for name in roles.names]})
    return table.assign(pc1=on[:, 0], pc2=on[:, 1])


def cosines_by_layer(roles: Roles, vectors: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return cosines with the axis at every layer: of the first component (absolute), of the persona direction of the
    role vectors, and of `vectors` [layer, width] by name. Beside the first, as null, what other roles in the place of
    the assistant have.

    Columns: name, layer, value, low, high (of "another role", the middle 95 %; else NaN).
    """
    rows = []
    axis, known = roles.axis(), {"persona direction": roles.mean(MALICIOUS) - roles.mean(CAREFUL)} | dict(vectors)
    for layer in range(roles.vectors.shape[1]):
        first, all_ = roles.first_component(layer), roles.vectors[:, layer]
        swapped = [vector - np.delete(all_, number, 0).mean(axis=0) for number, vector in enumerate(all_)]
        null = np.abs(directions.cosines(np.delete(swapped, roles.place, 0), first[None]))
        rows.append(("first component", layer, abs(float(directions.cosines(axis[layer], first))), np.nan, np.nan))
        rows.append(("another role", layer, np.median(null), *np.quantile(null, [0.025, 0.975])))
        for name, vector in known.items():
            if np.linalg.norm(vector[layer]) > 1e-4:
                rows.append((name, layer, float(directions.cosines(axis[layer], vector[layer])), np.nan, np.nan))
    return pd.DataFrame(rows, columns=["name", "layer", "value", "low", "high"])
