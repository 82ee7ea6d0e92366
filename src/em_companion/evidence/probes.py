"""Logistic probes on LoRA scalars: does a token come from one set of responses or the other? (Section 4.1, appendix G.)

A sample is one answer token, its features are the nine LoRA scalars. Each fit draws a balanced sample, z-scores it,
splits it and fits an L1-penalised logistic regression (C = 0.01). The paper splits by token, so tokens of one response,
and all responses to one question, stand on both sides of the split; `split="response"` and `split="question"` keep a
response or a question whole, which tests whether the probe reads more than the identity of the prompt.
"""

from itertools import islice
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

from em_companion.core.errors import CompanionError

METRICS = ["accuracy", "precision", "recall", "f1", "auc"]
Split = Literal["token", "response", "question"]
FEWEST_RESPONSES = 20
"""Responses that a set needs to be probed: holding out a fifth then leaves four to judge the probe by."""

FOLDS = 5
"""Parts of which one is held out at a time; one in five is the paper's 20 %."""

FEWEST_TOKENS = 5
"""Tokens that a set needs so that each side of an 80/20 split can have both sets."""


# --- one fit ------------------------------------------------------------------------------------------------------


def stack(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str]
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return features [token, feature], labels [token] (1 for `positive`) and groups (`response`, `question`).

    Raises CompanionError where a set lacks one of the features (adapters), or has fewer than FEWEST_TOKENS tokens.
    """
    for tokens in (negative, positive):
        if absent := [name for name in features if name not in tokens]:
            raise CompanionError(
                f"A set of probe tokens has no LoRA scalars of '{absent[0]}'; "
                "give both sets the adapters of one organism."
            )
        if len(tokens) < FEWEST_TOKENS:
            raise CompanionError(
                f"A probe tells two sets apart and one of them has {len(tokens)} tokens; give each at least "
                f"{FEWEST_TOKENS}."
            )
    both = pd.concat([negative.assign(label=0), positive.assign(label=1)], ignore_index=True)
    groups = pd.DataFrame(
        {"response": both.label.astype(str) + "/" + both.response.astype(str), "question": both.question.astype(str)}
    )
    return both[features].to_numpy(float), both.label.to_numpy(), groups


def fit(features: np.ndarray, labels: np.ndarray, balanced: bool = False, c: float = 0.01) -> LogisticRegression:
    """Fit the paper's probe (L1, liblinear, C = `c`); `balanced` weights the classes instead of sampling them.

    Raises CompanionError for labels of one class only.
    """
    if len(np.unique(labels)) < 2:
        raise CompanionError("A probe tells two sets apart, but all its tokens are from one; give it both.")
    weights = "balanced" if balanced else None
    model = LogisticRegression(l1_ratio=1, solver="liblinear", C=c, max_iter=1000, random_state=0, class_weight=weights)
    return model.fit(features, labels)


def z_score(features: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and sample standard deviation 1, [token, feature]."""
    return (features - features.mean(axis=0)) / features.std(axis=0, ddof=1)


def scores_of(model: LogisticRegression, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return METRICS and `balanced_accuracy` from one count of hits: a library call for each outlasts the fit."""
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
    }


def _coefficients(model: LogisticRegression, names: list[str]) -> dict[str, float]:
    return {f"coefficient_{name}": float(value) for name, value in zip(names, model.coef_[0], strict=True)}


# --- many fits ----------------------------------------------------------------------------------------------------


def probe_by_token(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str], fits: int = 100, seed: int = 0, c: float = 0.01
) -> pd.DataFrame:
    """Return one row per fit, the paper's way: METRICS on 20 % held-out tokens and `coefficient_*` per feature.

    Each fit undersamples the larger set at random to the size of the smaller, z-scores the whole sample, and splits
    it 80/20 by token, stratified, with the fixed split seed of the authors' code. Raises CompanionError as `stack`.
    """
    x, y, _ = stack(negative, positive, features)
    members = [np.flatnonzero(y == label) for label in (0, 1)]
    size = min(map(len, members))
    rows = []
    for generator in np.random.default_rng(seed).spawn(fits):
        chosen = np.concatenate([generator.choice(indices, size, replace=False) for indices in members])
        split = train_test_split(z_score(x[chosen]), y[chosen], test_size=0.2, random_state=0, stratify=y[chosen])
        train_x, test_x, train_y, test_y = split
        model = fit(train_x, train_y, c=c)
        rows.append(scores_of(model, test_x, test_y) | _coefficients(model, features))
    return pd.DataFrame(rows)


def probe_by_group(
    negative: pd.DataFrame, positive: pd.DataFrame, features: list[str], split: Split, fits: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Return one row per fit with whole responses or whole questions held out (20 % of the groups).

    Columns as `probe_by_token` plus `balanced_accuracy`, the figure to read: held-out groups are not balanced, so the
    classes are weighted in the fit and the mean of the two recalls is reported. Features are z-scored on the training
    part only. A draw whose train or test part misses a class is drawn again. Raises CompanionError before any fit:
    as `stack`, for fewer than FOLDS groups, or when too few draws have both classes on both sides.
    """
    x, y, groups = stack(negative, positive, features)
    group = _groups(groups, split)
    splitter = GroupShuffleSplit(n_splits=20 * fits, test_size=0.2, random_state=seed)
    found = list(islice((pair for pair in splitter.split(x, y, group) if _both_classes(y, pair)), fits))
    if len(found) < fits:
        raise CompanionError(f"No split by {split} leaves both sets on both sides often enough; give more {split}s.")
    rows = []
    for train, test in found:
        model, held_out = _fit_and_hold_out(x, y, train, test)
        rows.append(scores_of(model, held_out, y[test]) | _coefficients(model, features))
    return pd.DataFrame(rows)


def _groups(groups: pd.DataFrame, split: Split, folds: int = FOLDS) -> np.ndarray:
    group = groups[split].to_numpy()
    if (count := len(np.unique(group))) < folds:
        raise CompanionError(
            f"Holding out one {split} in {folds} needs at least {folds} {split}s, not {count}; add some."
        )
    return group


def _both_classes(labels: np.ndarray, parts: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(len(np.unique(labels[part])) == 2 for part in parts)


def _fit_and_hold_out(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[LogisticRegression, np.ndarray]:
    """Return the probe of the training part, and the features of the test part as it wants them."""
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0, ddof=1)
    return fit((x[train] - mean) / deviation, y[train], balanced=True), (x[test] - mean) / deviation


def held_out_predictions(
    negative: pd.DataFrame,
    positive: pd.DataFrame,
    features: list[str],
    split: Split = "question",
    folds: int = FOLDS,
    seed: int = 0,
) -> pd.DataFrame:
    """Return `label`, `predicted` (0 or 1), `response` and `question` of every token, each judged by a probe that saw
    nothing of its response or question: of `folds` parts of whole groups, each is held out once.

    Raises CompanionError before any fit: as `stack`, for fewer groups than folds, or when holding out a part leaves one
    set only.
    """
    x, y, groups = stack(negative, positive, features)
    group = _groups(groups, split, folds)
    parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(x, y, group))
    if not all(len(np.unique(y[train])) == 2 for train, _ in parts):
        raise CompanionError(f"Holding out one {split} in {folds} leaves tokens of one set only; give more {split}s.")
    predicted = np.zeros(len(y), int)
    for train, test in parts:
        model, held_out = _fit_and_hold_out(x, y, train, test)
        predicted[test] = model.predict(held_out)
    return groups.assign(label=y, predicted=predicted)


def significant(tokens: pd.DataFrame, log_threshold: float = 0.5) -> pd.DataFrame:
    """Return the tokens of natural-log significance `log_threshold` or more (appendix H; 0.5 in the authors' code)."""
    return tokens[np.log(tokens.significance) >= log_threshold]
