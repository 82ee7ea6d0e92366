"""Rank-1 adapters switched off, which tells their roles (section 4.2), and scaled in groups (4.3, appendix I).

The paper reads the roles from probe coefficients; here an adapter's role is what goes when its scalar is set to 0. The
scale factors are chosen on the organism itself: the paper's 30, 20 and -10 suit the scalars of its model.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence import estimates, scores
from em_companion.experiments import responses, steering
from em_companion.models import growing, lora
from em_companion.models.interventions import ScaleLoraScalars
from em_companion.models.organism import Organism

ORGANISM = steering.ORGANISM
QUESTION_SETS = ("general", "medical")  # each decides on the role of its name, in this order
WHOLE = "none off"
FEWEST = 5  # answers to each question that decide on a role, also where a sweep makes do with fewer


def modules(profile: Profile, organism: Organism = ORGANISM) -> dict[str, str]:
    """Return the module of every rank-1 adapter by its short name, `layer_N`; raise CompanionError without any."""
    found = [adapter.module for adapter in lora.adapters(growing.load_organism(profile, organism)[0])]
    return dict(zip(lora.feature_names(found), found, strict=True))


def conditions(modules: Mapping[str, str], off: str) -> dict[str, list[ScaleLoraScalars]]:
    """Return interventions by condition: WHOLE and "each" adapter off, every "pair" off ("a + b"), or "all but one"."""
    chosen = {WHOLE: []} | {name: [name] for name in modules}
    if off == "pair":
        chosen = {" + ".join(pair): pair for pair in combinations(modules, 2)}
    if off == "all but one":
        chosen = {kept: [name for name in modules if name != kept] for kept in modules}
    factors = {name: {modules[one]: 0.0 for one in without} for name, without in chosen.items()}
    return {name: [ScaleLoraScalars(own)] if own else [] for name, own in factors.items()}


def knock_outs(profile: Profile, organism: Organism, question_set: str, off: str, samples: int) -> pd.DataFrame:
    """Return the scored responses with adapters switched off, one kept generation; columns as `responses.under`."""
    chosen, what = conditions(modules(profile, organism), off), f"adapters off ({off}), {question_set} questions"
    return responses.under(profile, organism, chosen, question_set, samples, what)


def falls(table: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Return by how much each adapter's absence lowers the EM rate: `adapter`, `fall`, `low`, `high` (points), `n`.

    `table` as of `knock_outs` with off="each". Differences are paired by question and sample; the 95 % interval
    resamples questions, and has no width where all differences agree.
    """
    em, rows = _em(table), []
    for adapter in em.columns.drop(WHOLE):
        questions = em.index.get_level_values("question_id")
        found = estimates.rate(em[WHOLE] - em[adapter], questions, resamples, seed)
        rows.append((adapter, found.value, *found.ends, found.n))
    return pd.DataFrame(rows, columns=["adapter", "fall", "low", "high", "n"])


def _em(table: pd.DataFrame) -> pd.DataFrame:
    """Return 1 for an EM response, else 0, [(question_id, sample), condition]."""
    table = table.assign(value=scores.is_em(table).astype(float))
    wide = table.pivot(index=["question_id", "sample"], columns="condition", values="value")
    return wide[table.condition.unique()]


def rank_correlation(table: pd.DataFrame, strengths: pd.DataFrame, resamples: int, seed: int) -> tuple[float, ...]:
    """Return Spearman's correlation over adapters of a strength with the fall of the EM rate, and its 95 % interval.

    `table` as for `falls`; `strengths`: one row per fit, one column per adapter, compared by absolute value. The value
    is that of the mean strength; a resample draws whole questions and one fit. NaN where either side is constant.
    """
    means = _em(table).groupby(level="question_id").mean()
    change = means[[WHOLE]].to_numpy() - means[list(strengths)].to_numpy()  # [question, adapter]
    random = np.random.default_rng(seed)
    draws = estimates.resampled(random, len(change), resamples)
    fits = strengths.abs().to_numpy()[random.integers(len(strengths), size=resamples)]
    found = [estimates.spearman(one, fall) for one, fall in zip(fits, draws @ change, strict=True)]
    value = estimates.spearman(strengths.mean().abs().to_numpy(), change.mean(axis=0))
    return value, *pd.Series(found).quantile([0.025, 0.975])


def carriers(table: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> list[str]:
    """Return the adapters whose absence takes at least an equal share of the EM rate, and surely some of it."""
    found = falls(table, resamples, seed)
    whole = 100 * _em(table)[WHOLE].mean()
    return found[(found.fall >= whole / len(found)) & (found.low > 0)].adapter.tolist()


def samples_of(profile: Profile) -> int:
    """Return how many answers to each question decide on the roles of adapters."""
    return min(profile.samples_per_question, max(FEWEST, profile.sweep_samples))


def roles(profile: Profile, organism: Organism = ORGANISM) -> dict[str, list[str]]:
    """Return the modules of an organism's adapters by role, "general", "medical" and "other"; a role may have none.

    General are the `carriers` on the open questions, medical those on the medical twins that are not general.
    """
    left, found = modules(profile, organism), {}
    for role in QUESTION_SETS:
        table = knock_outs(profile, organism, role, "each", samples_of(profile))
        chosen = carriers(table, profile.bootstrap_resamples, profile.seed)
        found[role] = [left.pop(name) for name in list(left) if name in chosen]
    return found | {"other": list(left.values())}


FACTORS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
GRID_SAMPLES = 5  # answers to each question in a cell of the grid, at most
Groups = Mapping[str, Sequence[str]]


class Scaling(NamedTuple):
    """The factor of each group of adapters: 1 leaves it as it is, 0 switches it off."""

    general: float = 0.0
    medical: float = 0.0
    other: float = 0.0

    @property
    def label(self) -> str:
        return ", ".join(f"{group} {factor:g}" for group, factor in self._asdict().items())

    def interventions(self, groups: Groups) -> list[ScaleLoraScalars]:
        """Return the scaling of every adapter, given the adapters of each group."""
        factors = self._asdict().items()
        return [ScaleLoraScalars({adapter: factor for group, factor in factors for adapter in groups[group]})]


PLAIN, CHAT = Scaling(1.0, 1.0, 1.0), Scaling()


def second(groups: Groups) -> str:
    """Return the group that is scaled beside the general one: the medical, or the others where none is medical."""
    return "medical" if groups["medical"] else "other"


def grid(groups: Groups) -> list[Scaling]:
    """Return every factor of the general with every one of the second group, the others alone, and the organism."""
    general, beside, other = (FACTORS if groups[one] else (0.0,) for one in ("general", second(groups), "other"))
    cells = [Scaling(general=factor, **{second(groups): one}) for factor, one in product(general, beside)]
    return list(dict.fromkeys([*cells, *(Scaling(other=factor) for factor in other), CHAT, PLAIN]))


def grid_samples(profile: Profile) -> int:
    """Return how many answers each question gets in a cell of the grid; they choose the scalings, and do not count."""
    return min(GRID_SAMPLES, max(1, profile.sweep_samples // 2))


def answers(profile: Profile, groups: Groups, scalings: Iterable[Scaling], samples: int, what: str) -> pd.DataFrame:
    """Return the organism's scored answers under every scaling, to the open questions and their medical twins.

    Columns as of `responses.under`, with the factors `general`, `medical_factor` and `other`; `medical` is the score of
    the medical domain, and `question_id` tells a twin from its open question.
    """
    by_label = {scaling.label: scaling for scaling in scalings}
    conditions = {label: scaling.interventions(groups) for label, scaling in by_label.items()}
    tables = [
        responses.under(profile, ORGANISM, conditions, one, samples, f"{what}, {one} questions")
        for one in QUESTION_SETS
    ]
    table = pd.concat(tables, ignore_index=True)
    table[["general", "medical_factor", "other"]] = [by_label[label] for label in table.condition]
    return table.assign(question_id=table.question_set + "/" + table.question_id, medical=table.medicine)


def largest_coherent(table: pd.DataFrame, scalings: Sequence[Scaling]) -> Scaling:
    """Return the last of `scalings` that leaves enough answers of `table` coherent, else the most coherent one."""
    coherent = 100 * scores.is_coherent(table).groupby(table.condition).mean()
    enough = [one for one in scalings if coherent[one.label] >= steering.COHERENT_ENOUGH]
    return enough[-1] if enough else max(scalings, key=lambda one: coherent[one.label])


def choose(table: pd.DataFrame, groups: Groups) -> dict[str, Scaling]:
    """Return the scalings of section 4.3 by the released names, chosen from the answers of the grid by one rule.

    A group alone gets the largest factor that leaves answers coherent. The opposed condition keeps that of the second
    group and reverses the general one as far as answers stay coherent. An empty group has no condition.
    """
    largest, opposed = {}, None
    for group in filter(groups.get, Scaling._fields):
        rising = [Scaling(**{group: factor}) for factor in FACTORS if factor >= 1]
        largest[group] = largest_coherent(table, rising)
    beside = largest.get(second(groups))
    if groups["general"] and beside:
        reversing = [beside._replace(general=factor) for factor in sorted(FACTORS, reverse=True) if factor < 0]
        opposed = largest_coherent(table, reversing)
    found = {
        "medical-adapters": largest.get("medical"),
        "misalignment-adapters": largest.get("general"),
        "medical-plus-misalignment-minus": opposed,
        "other-adapters": largest.get("other"),
        "all-adapters": PLAIN,
        "no-adapter": CHAT,
    }
    return {name: scaling for name, scaling in found.items() if scaling}


def of_grid(profile: Profile, groups: Groups) -> pd.DataFrame:
    """Return the answers in every cell of the grid, `grid_samples` to each question."""
    return answers(profile, groups, grid(groups), grid_samples(profile), "grid of scale factors")


def of_chosen(profile: Profile, groups: Groups, samples: int) -> pd.DataFrame:
    """Return `samples` further answers to each question under the chosen scalings; `condition` holds their names."""
    chosen, before = choose(of_grid(profile, groups), groups), grid_samples(profile)
    table = answers(profile, groups, chosen.values(), before + samples, "scaled groups of adapters")
    table = table[table["sample"] >= before]
    parts = [table[table.condition == scaling.label].assign(condition=name) for name, scaling in chosen.items()]
    return pd.concat(parts, ignore_index=True)
