"""Probes: coefficients against an independent minimiser, splits that keep groups whole, and speed."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn import metrics

from em_companion.core.errors import CompanionError
from em_companion.evidence import estimates, probes

FEATURES = [f"layer_{layer}" for layer in range(9)]


def tokens(
    label: int, responses: int, questions: int, seed: int, shift: float = 0.8, per_response: int = 12
) -> pd.DataFrame:
    """Return synthetic token rows whose first feature is moved by `shift` when `label` is 1."""
    generator = np.random.default_rng(seed)
    rows = responses * per_response
    frame = pd.DataFrame(generator.normal(size=(rows, 9)), columns=FEATURES)
    frame["layer_0"] += shift * label
    frame["response"] = np.repeat(np.arange(responses), per_response)
    frame["question"] = [f"question {index % questions}" for index in frame.response]
    return frame.assign(significance=np.exp(generator.normal(size=rows)))


def l1_logistic(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    """Minimise liblinear's objective (its intercept is penalised too) in float64, by splitting weights into signs."""
    sign, design = 2 * y - 1, np.c_[x, np.ones(len(x))]
    size = design.shape[1]

    def objective(halves):
        margin = sign * (design @ (halves[:size] - halves[size:]))
        gradient = design.T @ (-c * sign / (1 + np.exp(margin)))
        return halves.sum() + c * np.logaddexp(0, -margin).sum(), np.r_[1 + gradient, 1 - gradient]

    best = minimize(
        objective,
        np.zeros(2 * size),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * 2 * size,
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
    )
    return (best.x[:size] - best.x[size:])[:-1]


def test_coefficients_equal_an_independent_minimiser():
    x, y, _ = probes.stack(tokens(0, 80, 8, 1), tokens(1, 80, 8, 2), FEATURES)
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    assert probes.fit(x, y).coef_[0] == pytest.approx(l1_logistic(x, y, 0.01), abs=1e-3)


def test_probe_finds_the_feature_that_differs_and_repeats_exactly():
    runs = probes.probe_by_token(tokens(0, 60, 6, 1), tokens(1, 40, 6, 2), FEATURES, fits=5)
    again = probes.probe_by_token(tokens(0, 60, 6, 1), tokens(1, 40, 6, 2), FEATURES, fits=5)
    pd.testing.assert_frame_equal(runs, again)
    coefficients = runs.filter(like="coefficient_").mean().abs()
    assert coefficients.idxmax() == "coefficient_layer_0" and runs.accuracy.mean() > 0.6


def test_holding_out_questions_removes_what_only_names_the_question():
    """Features that encode the question, and a label that depends on the question, fool a split by token."""
    generator = np.random.default_rng(0)
    codes = generator.normal(size=(20, 9)) * 3
    parts = []
    for label in (0, 1):
        frame = tokens(label, 100, 10, label, shift=0.0)
        frame["question"] = [f"{label}-{index % 10}" for index in frame.response]
        frame[FEATURES] += codes[[10 * label + index % 10 for index in frame.response]]
        parts.append(frame)
    by_token = probes.probe_by_token(*parts, FEATURES, fits=5).accuracy.mean()
    by_question = probes.probe_by_group(*parts, FEATURES, "question", fits=20).balanced_accuracy.mean()
    assert by_token > 0.65 and by_question < by_token - 0.1


@pytest.mark.parametrize("split", ["response", "question"])
def test_groups_are_never_on_both_sides(monkeypatch, split):
    seen = []
    original = probes.GroupShuffleSplit.split

    def spy(self, x, y, groups):
        for train, test in original(self, x, y, groups):
            seen.append(set(groups[train]) & set(groups[test]))
            yield train, test

    monkeypatch.setattr(probes.GroupShuffleSplit, "split", spy)
    probes.probe_by_group(tokens(0, 20, 10, 1), tokens(1, 20, 10, 2), FEATURES, split, fits=3)
    assert seen and not any(seen)


class NoFit:
    """Stands in for the regression where a test must not get as far as fitting."""

    def __init__(self, **_):
        raise AssertionError("a probe was fitted before its input was checked")


SOME = tokens(0, 10, 3, 1)
ONE_RESPONSE_EACH = tokens(0, 1, 1, 1), tokens(1, 1, 1, 2)


@pytest.mark.parametrize(
    "parts, way, split, sentence",
    [
        ((SOME, SOME.iloc[:0]), probes.probe_by_token, (), "one of them has 0 tokens"),
        ((SOME.iloc[:4], SOME), probes.probe_by_token, (), "one of them has 4 tokens"),
        ((SOME, SOME.iloc[:0]), probes.probe_by_group, ("question",), "one of them has 0 tokens"),
        ((SOME, SOME), probes.probe_by_group, ("question",), "at least 5 questions, not 3"),
        (ONE_RESPONSE_EACH, probes.probe_by_group, ("response",), "at least 5 responses, not 2"),
        ((tokens(0, 1, 1, 1), tokens(1, 9, 9, 2)), probes.probe_by_group, ("response",), "leaves"),
        ((SOME, SOME.iloc[:0]), probes.held_out_predictions, (), "one of them has 0 tokens"),
        ((SOME, SOME), probes.held_out_predictions, (), "at least 5 questions, not 3"),
        ((tokens(0, 1, 1, 1), tokens(1, 9, 9, 2)), probes.held_out_predictions, (), "leaves"),
    ],
)
def test_bad_sets_are_refused_in_one_sentence_before_any_fit(monkeypatch, parts, way, split, sentence):
    monkeypatch.setattr(probes, "LogisticRegression", NoFit)
    with pytest.raises(CompanionError, match=sentence) as problem:
        way(*parts, FEATURES, *split)
    assert str(problem.value).count(".") == 1 and str(problem.value).endswith(".")


def test_scores_are_those_of_scikit_learn():
    x, y, _ = probes.stack(tokens(0, 40, 8, 1), tokens(1, 25, 8, 2), FEATURES)
    model = probes.fit(x[::2], y[::2], c=1)
    found, predicted = probes.scores_of(model, x, y, FEATURES), model.predict(x)
    assert 0 < predicted.mean() < 1
    coefficients = dict(zip((f"coefficient_{name}" for name in FEATURES), model.coef_[0], strict=True))
    assert found == pytest.approx(
        coefficients
        | {
            "accuracy": metrics.accuracy_score(y, predicted),
            "precision": metrics.precision_score(y, predicted),
            "recall": metrics.recall_score(y, predicted),
            "f1": metrics.f1_score(y, predicted),
            "auc": metrics.roc_auc_score(y, model.decision_function(x)),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        }
    )


def test_a_probe_that_never_says_yes_has_no_precision_and_no_f1():
    x, y, _ = probes.stack(tokens(0, 40, 8, 1, shift=0), tokens(1, 40, 8, 2, shift=0), FEATURES)
    model = probes.fit(x, y)
    model.coef_[:], model.intercept_[:] = 0, -1
    found = probes.scores_of(model, x, y, FEATURES)
    assert (found["precision"], found["recall"], found["f1"], found["balanced_accuracy"]) == (0, 0, 0, 0.5)


# --- each group held out once -------------------------------------------------------------------------------------


def test_every_token_is_judged_once_by_a_probe_that_saw_nothing_of_its_question(monkeypatch):
    parts = tokens(0, 40, 10, 1), tokens(1, 40, 10, 2)
    seen = []
    original = probes.StratifiedGroupKFold.split

    def spy(self, x, y, groups):
        seen.extend(original(self, x, y, groups))
        return iter(seen)

    monkeypatch.setattr(probes.StratifiedGroupKFold, "split", spy)
    found = probes.held_out_predictions(*parts, FEATURES)
    questions = found.question.to_numpy()
    assert not any(set(questions[train]) & set(questions[test]) for train, test in seen)
    assert sorted(np.concatenate([test for _, test in seen])) == list(range(len(found)))
    assert estimates.balanced_accuracy(found).value > 0.6


def test_an_interval_where_sets_share_no_question_stays_between_0_and_1():
    parts = tokens(0, 30, 6, 1), tokens(1, 30, 6, 2).assign(question=lambda frame: "other " + frame.question)
    found = estimates.balanced_accuracy(probes.held_out_predictions(*parts, FEATURES))
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high


def test_significance_filter_is_a_natural_log():
    frame = tokens(0, 5, 2, 1).assign(significance=np.exp(np.linspace(0, 1, 60)))
    kept = probes.significant(frame, 0.5)
    assert kept.significance.min() >= np.exp(0.5) and len(kept) == 30


def test_four_hundred_fits_on_paper_sized_sets_take_less_than_twenty_seconds():
    """Processor time of fifty fits, so that other work on the machine does not count."""
    parts = tokens(0, 170, 11, 1, per_response=66), tokens(1, 150, 12, 2, per_response=54)
    start = time.process_time()
    probes.probe_by_token(*parts, FEATURES, fits=50)
    assert 8 * (time.process_time() - start) < 20
