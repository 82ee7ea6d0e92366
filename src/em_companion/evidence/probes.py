"""Logistic probes on LoRA scalars: does a token come from one set of responses or the other? (Section 4.1, appendix G.)

A sample is one answer token, its features are the LoRA scalars. The paper splits by token, so tokens of one response
stand on both sides of the split; to keep a response or a question whole tests whether more than the prompt is read.
"""

from itertools import islice

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

from em_companion.core.errors import CompanionError

FEWEST_RESPONSES = 20
"""Responses that a set needs to be probed: holding out a fifth then leaves four to judge the probe by."""

FOLDS = 5
"""Parts of which one is held out at a time; one in five is the paper's 20 %."""

FEWEST_QUESTIONS = FOLDS + 1
"""Questions that two sets need together, each two: a fifth of them, rounded up, is two, one with each set."""

FEWEST_TOKENS = 5
"""Tokens that a set needs so that each side of an 80/20 split can have both sets."""


def stack(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str]
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return features [token, feature], labels [token] (1 for `positive`) and groups (`response`, `question`).

    Raises CompanionError where a set has fewer than FEWEST_TOKENS tokens.
    """
    if (fewest := min(len(negative), len(positive))) < FEWEST_TOKENS:
        raise CompanionError(
            f"A probe tells two sets apart and one of them has {fewest} tokens; give each at least {FEWEST_TOKENS}."
        )
    both = pd.concat([negative.assign(label=0), positive.assign(label=1)], ignore_index=True)
    responses = both.label.astype(str) + "/" + both.response.astype(str)
    groups = pd.DataFrame({"response": responses, "question": both.question.astype(str)})
    return both[features].to_numpy(float), both.label.to_numpy(), groups


def fit(features: np.ndarray, labels: np.ndarray, balanced: bool = False, c: float = 0.01) -> LogisticRegression:
    """Fit the paper's probe (L1, liblinear, C = `c`); `balanced` weights the classes instead of sampling them."""
    weights = "balanced" if balanced else None
    model = LogisticRegression(l1_ratio=1, solver="liblinear", C=c, max_iter=1000, random_state=0, class_weight=weights)
    return model.fit(features, labels)


def scores_of(
    model: LogisticRegression, features: np.ndarray, labels: np.ndarray, names: list[str]
) -> dict[str, float]:
    """Return the metrics of table 1, `balanced_accuracy` and `coefficient_*` by feature name.

    All but one are from one count of hits: a library call for each outlasts the fit.
    """
    predicted = model.predict(features)
    hits, said = np.sum(predicted * labels), predicted.sum()
    recall, precision = hits / labels.sum(), hits / max(said, 1)
    specificity = np.sum((1 - predicted) * (1 - labels)) / np.sum(1 - labels)
    return {
        "accuracy": float((predicted == labels).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(2 * hits / (said + labels.sum())),
        "auc": float(roc_auc_score(labels, model.decision_function(features))),
        "balanced_accuracy": float((recall + specificity) / 2),
    } | {f"coefficient_{name}": float(value) for name, value in zip(names, model.coef_[0], strict=True)}


def probe_by_token(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str], fits: int = 100, seed: int = 0, c: float = 0.01
) -> pd.DataFrame:
    """Return one row per fit, the paper's way: `scores_of` 20 % held-out tokens.

    Each fit undersamples the larger set at random to the size of the smaller, z-scores the whole sample, and splits
    it 80/20 by token, stratified, with the fixed split seed of the authors' code. Raises CompanionError as `stack`.
    """
    x, y, _ = stack(negative, positive, features)
    members = [np.flatnonzero(y == label) for label in (0, 1)]
    size = min(map(len, members))
    rows = []
    for generator in np.random.default_rng(seed).spawn(fits):
        chosen = np.concatenate([generator.choice(indices, size, replace=False) for indices in members])
        sample, labels = x[chosen], y[chosen]
        scored = (sample - sample.mean(axis=0)) / sample.std(axis=0, ddof=1)
        split = train_test_split(scored, labels, test_size=0.2, random_state=0, stratify=labels)
        train_x, test_x, train_y, test_y = split
        rows.append(scores_of(fit(train_x, train_y, c=c), test_x, test_y, features))
    return pd.DataFrame(rows)


def probe_by_group(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str], split: str, fits: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Return one row per fit, `scores_of` 20 % held-out groups; `split` is "response" or "question".

    Held-out groups are not balanced, so the fit weights the classes; read `balanced_accuracy`. Features are z-scored on
    the training part only. A draw whose train or test part misses a class is drawn again. Raises CompanionError.
    """
    x, y, groups = stack(negative, positive, features)
    splitter = GroupShuffleSplit(n_splits=20 * fits, test_size=0.2, random_state=seed)
    draws = splitter.split(x, y, _group(groups, split))
    found = list(islice((pair for pair in draws if all(len(np.unique(y[part])) == 2 for part in pair)), fits))
    if len(found) < fits:
        raise CompanionError(f"No split by {split} leaves both sets on both sides often enough; give more {split}s.")
    rows = []
    for train, test in found:
        model, held_out = _fit_and_hold_out(x, y, train, test)
        rows.append(scores_of(model, held_out, y[test], features))
    return pd.DataFrame(rows)


def _group(groups: pd.DataFrame, split: str) -> np.ndarray:
    if (count := groups[split].nunique()) < FOLDS:
        raise CompanionError(
            f"Holding out one {split} in {FOLDS} needs at least {FOLDS} {split}s, not {count}; add some."
        )
    return groups[split].to_numpy()


def _fit_and_hold_out(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[LogisticRegression, np.ndarray]:
    """Return the probe of the training part, and the features of the test part as it wants them."""
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0, ddof=1)
    return fit((x[train] - mean) / deviation, y[train], balanced=True), (x[test] - mean) / deviation


def held_out_predictions(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str], seed: int = 0
) -> pd.DataFrame:
    """Return `label`, `predicted` (0 or 1), `response` and `question` of every token.

    Of FOLDS parts of whole questions each is held out once, so a probe that judges a token saw nothing of its question.
    Raises CompanionError before any fit: as `stack`, or for too few questions.
    """
    x, y, groups = stack(negative, positive, features)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    parts = list(folds.split(x, y, _group(groups, "question")))
    if not all(len(np.unique(y[train])) == 2 for train, _ in parts):
        raise CompanionError("Holding out a part of the questions leaves tokens of one set only; give more questions.")
    predicted = np.zeros(len(y), int)
    for train, test in parts:
        model, held_out = _fit_and_hold_out(x, y, train, test)
        predicted[test] = model.predict(held_out)
    return groups.assign(label=y, predicted=predicted)


def significant(tokens: pd.DataFrame, log_threshold: float = 0.5) -> pd.DataFrame:
    """Return the tokens of natural-log significance `log_threshold` or more (appendix H; 0.5 in the authors' code)."""
    return tokens[np.log(tokens.significance) >= log_threshold]
