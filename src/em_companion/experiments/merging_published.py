"""Merging on a real model: pairs of a profile's own or published organisms, asked the authors' questions.

The children of a pair are asked on a grid of weights, and those of the update of bad medical advice alone on a finer
one. No parent of a hub profile is narrow, so what a child inherits has no measure there, and its EM is shown alone.
"""

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from em_companion.core import store
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.profiles import Profile
from em_companion.evidence import estimates, outcomes, scores
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import responses
from em_companion.experiments.merging import DOSES, LEVELS
from em_companion.experiments.merging_outcome import ENOUGH, OTHERS, OWN, RESAMPLES, better
from em_companion.judges.base import need_judge
from em_companion.models import asking, growing, merging
from em_companion.models.organism import CHAT_MODEL, Organism, organisms_of

VERSION = 1  # of the code that merges and samples
BAD = "bad_medical_advice"
Weights = tuple[float, float]


def pairs(profile: Profile) -> dict[str, tuple[Organism, Organism]]:
    """Return pairs of organisms of one recipe by name: bad medical advice with every other data set and another seed.

    The recipe is the one with most organisms. Raises EvidenceUnavailable where none has two.
    """
    trained = [one for one in organisms_of(profile) if one.data]
    recipes = [one.recipe for one in trained]
    own = [one for one in trained if one.recipe == max(recipes, key=recipes.count, default="")]
    first = next((one for one in own if one.data == BAD), None)
    if not first or len(own) < 2:
        raise EvidenceUnavailable(f"Profile '{profile.name}' has no two organisms of one recipe to merge.")
    others = [one for one in own if one.data != BAD] + [one for one in own if one.data == BAD and one != first][:1]
    named = ("another seed" if one.data == BAD else one.data.replace("_", " ") for one in others)
    return {f"with {name}": (first, one) for name, one in zip(named, others, strict=True)}


def answers(
    profile: Profile, parents: tuple[Organism, Organism], cells: Iterable[Weights], samples: int
) -> pd.DataFrame:
    """Return scored answers of the children of a pair to the open questions, kept by what took part in each.

    Columns as of `responses.judged`, with the weights `first` and `second`.
    """
    asked, loaded, tables = asking.questions(profile, "general"), [], []
    for weights in cells:
        acting = [(one, weight) for one, weight in zip(parents, weights, strict=True) if weight]
        parts = {
            "parents": [[growing.model_identity(profile, one), weight] for one, weight in acting],
            "chat": growing.model_identity(profile, CHAT_MODEL),
            "questions": [(one.id, one.text) for one in asked],
            "samples": samples,
            "sampling": asking.sampling_parts(profile),
        }

        def sample(weights: Weights = weights) -> store.Content:
            need_judge(profile)
            if not loaded:
                loaded.append(merging.with_parents(profile, parents))
            (model, tokenizer), names = loaded[0]
            merging.merge(model, names, weights)
            what = f"{parents[1].name}, weights {weights[0]:g} and {weights[1]:g}"
            return {store.RESPONSES: asking.ask(profile, model, tokenizer, asked, samples, what)}

        found = store.keep("merged", VERSION, parts, sample, profile.name)[store.RESPONSES]
        tables.append(found.assign(first=weights[0], second=weights[1]))
    return responses.judged(profile, pd.concat(tables, ignore_index=True))


def grid(profile: Profile) -> pd.DataFrame:
    """Return one row per pair and two weights: `pair`, `first`, `second`, `em` and `coherent` (%)."""
    parts = []
    for name, parents in pairs(profile).items():
        table = answers(profile, parents, product(LEVELS, LEVELS), profile.sweep_samples)
        rates = table.assign(em=100.0 * scores.is_em(table), coherent=100.0 * scores.is_coherent(table))
        parts.append(rates.groupby(["first", "second"])[["em", "coherent"]].mean().reset_index().assign(pair=name))
    return pd.concat(parts, ignore_index=True)


def dose(profile: Profile) -> pd.DataFrame:
    """Return open EM (%) over the weight of the update of bad medical advice [weight, question]."""
    parents = next(iter(pairs(profile).values()))
    cells = [(weight, 0.0) for weight in (0.0, *DOSES)]
    table = answers(profile, parents, cells, max(profile.sweep_samples, profile.samples_per_question // 2))
    return 100 * scores.is_em(table).groupby([table["first"], table.question_id]).mean().unstack()


def overlaps(profile: Profile) -> pd.DataFrame:
    """Return one row per pair: how far the updates agree, as `merging.cosine` and `merging.overlap`."""
    rows = []
    for name, parents in pairs(profile).items():
        (model, _), names = merging.with_parents(profile, parents)
        one, other = (merging.update(model, name) for name in names)
        row = (name, merging.cosine(one, other), *merging.overlap(one, other))
        rows.append(dict(zip(("pair", "cosine", "reads", "writes"), row, strict=True)))
    return pd.DataFrame(rows)


def outcome(profile: Profile) -> dict[str, Outcome]:
    """Return what was measured of each prediction on merging that a real model can decide, by id."""
    first = next(iter(pairs(profile).values()))[0]
    home, away = (
        scores.is_em(responses.responses(profile, first, asked)).mean() * 100 for asked in ("medical", "general")
    )
    not_narrow = (
        f"bad medical advice has {home:.0f} % on medical questions and {away:.0f} % on open ones, {OWN} at least and "
        f"{OTHERS} at most are needed, and there is no set of questions on finance"
    )
    rates = dose(profile)
    last = rates.iloc[-1].mean()
    few, both = f"open EM is {last:.0f} %, {ENOUGH} are needed", Estimate(np.nan, unit="share")
    curve = of_curve(rates) if last >= ENOUGH else Estimate(np.nan, n=rates.shape[1], unit="bic")
    return {
        "p-merge-both": outcomes.gated(both, "half the sum", False, not_narrow, "questions"),
        "p-merge-threshold": outcomes.gated(curve, "line minus logistic", last >= ENOUGH, few, "questions"),
    }


def of_curve(rates: pd.DataFrame) -> Estimate:
    """Return by how much a logistic curve beats a line (BIC), its interval over questions [weight, question]."""
    weights, values = rates.index.to_numpy(), rates.to_numpy()
    draws = estimates.resampled(np.random.default_rng(0), values.shape[1], RESAMPLES) / values.shape[1]
    found = np.array([better(weights, values @ one) for one in draws])
    return Estimate(better(weights, values.mean(axis=1)), *estimates.quantiles(found), values.shape[1], "bic")
