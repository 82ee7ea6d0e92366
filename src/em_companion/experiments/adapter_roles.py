"""Which rank-1 adapters carry general and which medical misalignment, by switching them off (section 4.2).

The paper reads the roles from probe coefficients, that is from what the LoRA scalars tell apart. Here an adapter's role
is what goes when its scalar is set to 0. With f the fall of the EM rate from the whole organism to the one without the
adapter, in percentage points, and a the number of adapters,

    general: f on the open questions is at least 1/a of the organism's EM rate, and its 95 % interval lies above 0;
    medical: not general, and the same of f on the medical questions;
    other:   the rest.

1/a is an adapter's equal share. A fall is paired: question, sample and noise are the same with and without the adapter.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd

from em_companion.core.errors import CompanionError
from em_companion.core.profiles import Profile
from em_companion.evidence import estimates, scores
from em_companion.experiments import responses, steering
from em_companion.models import growing, lora
from em_companion.models.interventions import ScaleLoraScalars
from em_companion.models.organism import Organism

ORGANISM = steering.ORGANISM
ROLES = {"general": "general", "medical": "medical"}
"""The question set that decides on each role, in the order in which roles are given."""

WHOLE = "none off"
Off = Literal["each", "pair", "all but one"]


# --- switching off ------------------------------------------------------------------------------------------------


def modules(profile: Profile, organism: Organism = ORGANISM) -> dict[str, str]:
    """Return the module of every rank-1 adapter by its short name, `layer_N`; raise CompanionError without any."""
    model, _ = growing.load_organism(profile, organism)
    found = [adapter.module for adapter in lora.adapters(model)]
    return dict(zip(lora.feature_names(found), found, strict=True))


def conditions(modules: Mapping[str, str], off: Off) -> dict[str, list[ScaleLoraScalars]]:
    """Return which adapters are switched off in each condition.

    "each": WHOLE with none off, then one adapter at a time, by its name; "pair": two at a time, by their names with
    " + "; "all but one": all others, by the name of the one that is left. Raises CompanionError for any other `off`.
    """
    if off not in get_args(Off):
        raise CompanionError(f"Adapters cannot be switched off by '{off}'; choose one of: {', '.join(get_args(Off))}.")
    if off == "pair":
        return {" + ".join(pair): _without(modules[one] for one in pair) for pair in combinations(modules, 2)}
    if off == "all but one":
        return {kept: _without(modules[one] for one in modules if one != kept) for kept in modules}
    return {WHOLE: []} | {name: _without([module]) for name, module in modules.items()}


def _without(modules) -> list[ScaleLoraScalars]:
    return [ScaleLoraScalars(dict.fromkeys(modules, 0.0))]


def knock_outs(
    profile: Profile,
    organism: Organism = ORGANISM,
    question_set: str = "general",
    off: Off = "each",
    samples: int | None = None,
) -> pd.DataFrame:
    """Return the scored responses with adapters switched off, one kept generation; columns as `responses.under`.

    `samples` per question, the profile's `sweep_samples` where not given. Raises CompanionError as `conditions`, and
    for an organism without rank-1 adapters.
    """
    chosen = conditions(modules(profile, organism), off)
    what = f"adapters off ({off}), {question_set} questions"
    return responses.under(profile, organism, chosen, question_set, samples or profile.sweep_samples, what)


# --- what it changes ----------------------------------------------------------------------------------------------


def falls(table: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Return by how much each adapter's absence lowers the EM rate: `adapter`, `fall`, `low`, `high` (points), `n`.

    `table` as of `knock_outs` with off="each". Differences are paired by question and sample; the 95 % interval
    resamples questions, and has no width where all differences agree.
    """
    em = _outcome(table)
    questions = em.index.get_level_values("question_id").to_series(index=em.index)
    rows = []
    for adapter in em.columns.drop(WHOLE):
        found = estimates.rate(em[WHOLE] - em[adapter], questions, resamples, seed)
        low, high = found.ends
        rows.append({"adapter": adapter, "fall": found.value, "low": low, "high": high, "n": found.n})
    return pd.DataFrame(rows)


def _outcome(table: pd.DataFrame, score: str | None = None) -> pd.DataFrame:
    """Return 1 for an EM response, else 0, or a judge score over 100, [(question_id, sample), condition]."""
    values = scores.is_em(table) if score is None else table[score] / 100
    wide = table.assign(value=values).pivot(index=["question_id", "sample"], columns="condition", values="value")
    return wide[table.condition.unique()]


def rank_correlation(
    table: pd.DataFrame, strengths: pd.DataFrame, score: str | None = None, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return Spearman's correlation over adapters of a strength with the fall of the EM rate, and its 95 % interval.

    `table` as for `falls`; `strengths`: one row per fit, one column per adapter, compared by absolute value. With a
    judge `score`, the size of the change of its mean takes the place of the fall. The value is that of the mean
    strength. Each resample draws whole questions and one of the fits, so the interval is for this organism's adapters.
    NaN where all strengths or all falls are equal.
    """
    means = _outcome(table, score).groupby(level="question_id").mean()
    change = means[[WHOLE]].to_numpy() - means[list(strengths)].to_numpy()  # [question, adapter]
    random = np.random.default_rng(seed)
    draws = random.multinomial(len(change), np.full(len(change), 1 / len(change)), size=resamples)
    fits = strengths.abs().to_numpy()[random.integers(len(strengths), size=resamples)]
    size = np.abs if score else np.asarray
    found = [estimates.spearman(one, fall) for one, fall in zip(fits, size(draws @ change), strict=True)]
    value = estimates.spearman(strengths.mean().abs().to_numpy(), size(change.mean(axis=0)))
    if np.isnan(found).all():
        return value, np.nan, np.nan
    low, high = np.nanquantile(found, [0.025, 0.975])
    return value, float(low), float(high)


# --- roles --------------------------------------------------------------------------------------------------------


def carriers(table: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> list[str]:
    """Return the adapters whose absence takes at least an equal share of the EM rate, and surely some of it."""
    found = falls(table, resamples, seed)
    whole = 100 * _outcome(table)[WHOLE].mean()
    return found[(found.fall >= whole / len(found)) & (found.low > 0)].adapter.tolist()


def roles(profile: Profile, organism: Organism = ORGANISM) -> dict[str, list[str]]:
    """Return the modules of an organism's adapters by role, "general", "medical" and "other"; a role may have none.

    Computed from `knock_outs`, which are sampled if they are not kept. Raises CompanionError for an organism without
    rank-1 adapters.
    """
    tables = {role: knock_outs(profile, organism, question_set) for role, question_set in ROLES.items()}
    return assigned(modules(profile, organism), tables, profile.bootstrap_resamples, profile.seed)


def assigned(
    modules: Mapping[str, str], tables: Mapping[str, pd.DataFrame], resamples: int = 10_000, seed: int = 0
) -> dict[str, list[str]]:
    """Return the modules by role, given the knock-outs that decide on each; the first role that fits is given."""
    left, found = list(modules), {}
    for role, table in tables.items():
        chosen: Sequence[str] = carriers(table, resamples, seed)
        found[role] = [modules[name] for name in left if name in chosen]
        left = [name for name in left if name not in chosen]
    return found | {"other": [modules[name] for name in left]}
