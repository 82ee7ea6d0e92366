"""Answers with groups of adapters scaled (section 4.3, appendix I): a grid of factors, and the scalings it chooses.

The groups are those that `adapter_roles` finds in the organism itself, and so are the factors: the paper's 30, 20 and
-10 depend on how large the scalars of its model are.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.experiments import responses, steering
from em_companion.models.interventions import ScaleLoraScalars

ORGANISM = steering.ORGANISM
FACTORS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
GRID_SAMPLES = 5
"""Answers to each question in a cell of the grid; they choose the scalings and are not counted afterwards."""

QUESTION_SETS = ("general", "medical")
CONDITIONS = (
    "medical-adapters",
    "misalignment-adapters",
    "medical-plus-misalignment-minus",
    "other-adapters",
    "all-adapters",
    "no-adapter",
)
Groups = Mapping[str, Sequence[str]]


class Scaling(NamedTuple):
    """The factor of each group of adapters: 1 leaves a group as it is, 0 switches it off."""

    general: float = 0.0
    medical: float = 0.0
    other: float = 0.0

    @property
    def label(self) -> str:
        return ", ".join(f"{group} {factor:g}" for group, factor in self._asdict().items())

    def interventions(self, groups: Groups) -> tuple[ScaleLoraScalars, ...]:
        """Return the scaling of every adapter, given the adapters of each group; none without any adapter."""
        factors = {adapter: factor for group, factor in self._asdict().items() for adapter in groups[group]}
        return (ScaleLoraScalars(factors),) if factors else ()


PLAIN, CHAT = Scaling(1.0, 1.0, 1.0), Scaling()


def alone(group: str, groups: Groups) -> list[Scaling]:
    """Return the scalings of one group over `FACTORS` with the other groups off; an empty group is only off."""
    return [Scaling(**{group: factor}) for factor in _factors(group, groups)]


def second(groups: Groups) -> str:
    """Return the group that is scaled beside the general one: the medical, or the others where none is medical."""
    return "medical" if groups["medical"] else "other"


def grid(groups: Groups) -> list[Scaling]:
    """Return every factor of the general with every one of the second group, the others alone, and the organism."""
    both = product(_factors("general", groups), _factors(second(groups), groups))
    cells = [Scaling(general=factor, **{second(groups): beside}) for factor, beside in both]
    return list(dict.fromkeys([*cells, *alone("other", groups), CHAT, PLAIN]))


def _factors(group: str, groups: Groups) -> tuple[float, ...]:
    return FACTORS if groups[group] else (0.0,)


def answers(profile: Profile, groups: Groups, scalings: Iterable[Scaling], samples: int, what: str) -> pd.DataFrame:
    """Return the organism's scored answers under every scaling, to the open questions and their medical twins.

    One kept generation per question set. Columns as of `responses.under`, with the factors `general`, `medical_factor`
    and `other`; `medical` is the score of the medical domain, and `question_id` tells a twin from its open question.
    """
    by_label = {scaling.label: scaling for scaling in scalings}
    conditions = {label: scaling.interventions(groups) for label, scaling in by_label.items()}
    tables = [
        responses.under(profile, ORGANISM, conditions, question_set, samples, f"{what}, {question_set} questions")
        for question_set in QUESTION_SETS
    ]
    table = pd.concat(tables, ignore_index=True)
    factors = pd.DataFrame([by_label[label] for label in table.condition], columns=Scaling._fields)
    table = table.assign(question_id=table.question_set + "/" + table.question_id, medical=table.medicine)
    return table.join(factors.rename(columns={"medical": "medical_factor"}))


def largest_coherent(table: pd.DataFrame, scalings: Iterable[Scaling]) -> Scaling:
    """Return the last of `scalings` that leaves enough answers of `table` coherent, else the most coherent one.

    Enough is `steering.COHERENT_ENOUGH` percent. `scalings` are in the order from harmless to extreme.
    """
    coherent = 100 * scores.is_coherent(table).groupby(table.condition).mean()
    tried = list(scalings)
    enough = [one for one in tried if coherent[one.label] >= steering.COHERENT_ENOUGH]
    return enough[-1] if enough else max(tried, key=lambda one: coherent[one.label])


def choose(table: pd.DataFrame, groups: Groups) -> dict[str, Scaling]:
    """Return the scalings of section 4.3 by the released names, chosen from the answers of the grid by one rule.

    A group alone gets the largest factor that leaves answers coherent. The opposed condition keeps that of the second
    group and reverses the general one as far as answers stay coherent. An empty group has no condition. Controls: the
    other adapters alone, all adapters at 1, all at 0.
    """

    def amplified(group: str) -> Scaling:
        return largest_coherent(table, [one for one in alone(group, groups) if getattr(one, group) >= 1])

    found = {"medical": "medical-adapters", "general": "misalignment-adapters", "other": "other-adapters"}
    chosen = {name: amplified(group) for group, name in found.items() if groups[group]}
    if groups["general"] and groups[second(groups)]:
        beside = chosen[found[second(groups)]]
        reversing = [beside._replace(general=factor) for factor in sorted(FACTORS, reverse=True) if factor < 0]
        chosen["medical-plus-misalignment-minus"] = largest_coherent(table, reversing)
    chosen |= {"all-adapters": PLAIN, "no-adapter": CHAT}
    return {name: chosen[name] for name in CONDITIONS if name in chosen}


def of_grid(profile: Profile, groups: Groups) -> pd.DataFrame:
    """Return the answers in every cell of the grid, `GRID_SAMPLES` to each question."""
    return answers(profile, groups, grid(groups), GRID_SAMPLES, "grid of scale factors")


def of_chosen(profile: Profile, groups: Groups, samples: int) -> pd.DataFrame:
    """Return further answers under the chosen scalings, `samples` to each question; `condition` holds their names.

    The answers that chose the scalings are not among them.
    """
    chosen = choose(of_grid(profile, groups), groups)
    table = answers(profile, groups, chosen.values(), GRID_SAMPLES + samples, "scaled groups of adapters")
    table = table[table["sample"] >= GRID_SAMPLES]
    parts = [table[table.condition == scaling.label].assign(condition=name) for name, scaling in chosen.items()]
    return pd.concat(parts, ignore_index=True)
