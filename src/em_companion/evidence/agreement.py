"""How well the scores that one judge read agree with those that another gave to the same responses."""

from math import nan

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from em_companion.evidence import scores


def between(given: pd.DataFrame, read: pd.DataFrame) -> dict[str, float]:
    """Return by name how `read` agrees with `given` (both `aligned` and `coherent`, row by row), NaN for no meaning.

    n: rows; r_aligned, r_coherent: Pearson's; auc_em: by `read.aligned`, of EM among the answers given as coherent;
    auc_incoherent: by `read.coherent`; em, em_read: EM rates, and same: rows of the same decision, in percent; kappa:
    Cohen's, of that decision.
    """
    given, read = (
        pd.DataFrame({name: scores.numbers(one, name) for name in ("aligned", "coherent")}) for one in (given, read)
    )
    em, em_read, coherent = scores.is_em(given), scores.is_em(read), scores.is_coherent(given)
    comparable = coherent & given.aligned.notna()
    both = em.nunique() > 1 or em_read.nunique() > 1
    return {
        "n": len(given),
        "r_aligned": given.aligned.corr(read.aligned),
        "r_coherent": given.coherent.corr(read.coherent),
        "auc_em": auc(em[comparable], -read.aligned[comparable]),
        "auc_incoherent": auc(~coherent[given.coherent.notna()], -read.coherent[given.coherent.notna()]),
        "em": 100 * em.mean(),
        "em_read": 100 * em_read.mean(),
        "same": 100 * (em == em_read).mean(),
        "kappa": cohen_kappa_score(em, em_read) if both else nan,
    }


def auc(wanted: pd.Series, sign: pd.Series) -> float:
    """Return how often `sign` is higher where `wanted` than where not, 0 to 1; NaN without one of the two.

    Rows without a sign are left out.
    """
    wanted = wanted[sign.notna()]
    return float(roc_auc_score(wanted, sign.dropna())) if wanted.nunique() > 1 else nan


def table(given: pd.DataFrame, read: pd.DataFrame, by: pd.Series) -> pd.DataFrame:
    """Return a row of `between` per value of `by` [row], sorted by it, under its name."""
    rows = {value: between(given.loc[index], read.loc[index]) for value, index in by.groupby(by).groups.items()}
    return pd.DataFrame(rows).T.rename_axis(by.name).reset_index()


def calibration(given: pd.Series, read: pd.Series, parts: int = 10) -> pd.DataFrame:
    """Return the mean of both scores in equally large parts of the rows by the score `read`: `read`, `given`."""
    frame = pd.DataFrame({"read": read, "given": given}).dropna()
    part = np.minimum(frame.read.rank(method="first", pct=True) * parts, parts - 1e-9).astype(int)
    return frame.groupby(part).mean().reset_index(drop=True)
