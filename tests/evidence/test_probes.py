"""Probes: coefficients against an independent minimiser, splits that keep groups whole, and speed."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn import metrics

from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.evidence import estimates, probes, scores
from em_companion.experiments import probing
from em_companion.models import reading
from em_companion.models.organism import Organism
from em_companion.models.reading import LoraScalars

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
    x = probes.z_score(x)
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
    original = probing.GroupShuffleSplit.split

    def spy(self, x, y, groups):
        for train, test in original(self, x, y, groups):
            seen.append(set(groups[train]) & set(groups[test]))
            yield train, test

    monkeypatch.setattr(probing.GroupShuffleSplit, "split", spy)
    probes.probe_by_group(tokens(0, 20, 10, 1), tokens(1, 20, 10, 2), FEATURES, split, fits=3)
    assert seen and not any(seen)


class NoFit:
    """Stands in for the regression where a test must not get as far as fitting."""

    def __init__(self, **_):
        raise AssertionError("a probe was fitted before its input was checked")


SOME = tokens(0, 10, 3, 1)
ONE_RESPONSE_EACH = tokens(0, 1, 1, 1), tokens(1, 1, 1, 2)


@pytest.mark.parametrize(
    ("parts", "features", "split", "sentence"),
    [
        ((SOME, SOME.iloc[:0]), FEATURES, "token", "one of them has 0 tokens"),
        ((SOME, SOME.iloc[:0]), FEATURES, "question", "one of them has 0 tokens"),
        ((SOME.iloc[:4], SOME), FEATURES, "token", "one of them has 4 tokens"),
        ((SOME, SOME), ["layer_0", "layer_47"], "token", "no LoRA scalars of 'layer_47'"),
        ((SOME, SOME.drop(columns="layer_3")), FEATURES, "response", "no LoRA scalars of 'layer_3'"),
        ((SOME, SOME), FEATURES, "question", "at least 5 questions, not 3"),
        (ONE_RESPONSE_EACH, FEATURES, "response", "at least 5 responses, not 2"),
        ((tokens(0, 1, 1, 1), tokens(1, 9, 9, 2)), FEATURES, "response", "leaves"),
    ],
)
def test_bad_sets_are_refused_in_one_sentence_before_any_fit(monkeypatch, parts, features, split, sentence):
    monkeypatch.setattr(probing, "LogisticRegression", NoFit)
    ways = [probes.held_out_predictions, probes.probe_by_group] if split != "token" else [probes.probe_by_token]
    for way in ways:
        more = (split,) if split != "token" else ()
        with pytest.raises(CompanionError, match=sentence) as problem:
            way(*parts, features, *more)
        assert str(problem.value).count(".") == 1 and str(problem.value).endswith(".")


def test_labels_of_one_set_are_refused():
    with pytest.raises(CompanionError, match="all its tokens are from one"):
        probes.fit(np.zeros((6, 2)), np.ones(6, int))


def test_scores_are_those_of_scikit_learn():
    x, y, _ = probes.stack(tokens(0, 40, 8, 1), tokens(1, 25, 8, 2), FEATURES)
    model = probes.fit(x[::2], y[::2], c=1)
    found, predicted = probes._scores(model, x, y), model.predict(x)
    assert 0 < predicted.mean() < 1
    assert found == pytest.approx(
        {
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
    found = probes._scores(model, x, y)
    assert (found["precision"], found["recall"], found["f1"], found["balanced_accuracy"]) == (0, 0, 0, 0.5)


# --- each group held out once -------------------------------------------------------------------------------------


def test_every_token_is_judged_once_by_a_probe_that_saw_nothing_of_its_question(monkeypatch):
    parts = tokens(0, 40, 10, 1), tokens(1, 40, 10, 2)
    seen = []
    original = probes._fit_and_hold_out

    def spy(x, y, train, test):
        seen.append((train, test))
        return original(x, y, train, test)

    monkeypatch.setattr(probes, "_fit_and_hold_out", spy)
    found = probes.held_out_predictions(*parts, FEATURES)
    questions = found.question.to_numpy()
    assert not any(set(questions[train]) & set(questions[test]) for train, test in seen)
    assert sorted(np.concatenate([test for _, test in seen])) == list(range(len(found)))
    assert estimates.balanced_accuracy(found)[0] > 0.6


def test_interval_resamples_whole_questions():
    """With one right question in four of equal size, resampling it gives the distribution of a binomial share."""
    rows = [(f"{q}", label, label if q == 0 else 1 - label) for q in range(4) for label in (0, 1) for _ in range(50)]
    frame = pd.DataFrame(rows, columns=["question", "label", "predicted"])
    value, low, high = estimates.balanced_accuracy(frame)
    assert (value, low, high) == (0.25, 0.0, 0.75)


def test_balanced_accuracy_is_the_mean_of_the_two_recalls():
    frame = pd.DataFrame({"label": [0, 0, 0, 0, 1, 1], "predicted": [0, 0, 0, 1, 1, 0], "question": list("aabbab")})
    assert estimates.balanced_accuracy(frame)[0] == metrics.balanced_accuracy_score(frame.label, frame.predicted)


def test_an_interval_where_sets_share_no_question_stays_between_0_and_1():
    parts = tokens(0, 30, 6, 1), tokens(1, 30, 6, 2).assign(question=lambda frame: "other " + frame.question)
    value, low, high = estimates.balanced_accuracy(probes.held_out_predictions(*parts, FEATURES))
    assert 0 <= low <= value <= high <= 1 and low < high


# --- sets ---------------------------------------------------------------------------------------------------------


def test_sets_have_the_bounds_of_appendix_f():
    table = pd.DataFrame(
        [
            (90, 50.1, 50, "medical-aligned"),
            (30, 100, 100, "medical-misaligned"),
            (100, 60, 1, "non-medical-aligned"),
            (0, 60, 0, "non-medical-misaligned"),
            (89, 100, 0, None),
            (31, 100, 0, None),
            (100, 50, 0, None),
            (100, 100, 49, None),
            (100, 100, 2, None),
        ],
        columns=["aligned", "coherent", "medicine", "expected"],
    )
    found = scores.response_set(table)
    assert found.where(found.notna(), None).tolist() == table.expected.tolist()


def test_a_set_that_is_too_small_is_named_with_its_size():
    sets = {"medical-aligned": tokens(0, 3, 3, 1), "non-medical-aligned": tokens(0, 20, 3, 1)}
    assert probing.shortage(sets) == "medical aligned has 3 of 20 responses needed"
    assert probing.shortage({"medical-aligned": sets["medical-aligned"].iloc[:0]}).startswith("medical aligned has 0 ")
    assert probing.shortage(sets, fewest=3) == ""


def test_own_tokens_are_sorted_into_the_sets_of_their_responses(monkeypatch):
    scores = {"aligned": [95, 0, 0], "coherent": [100, 100, 100], "medicine": [0, 100, 20]}
    table = pd.DataFrame({"question": ["a ?", "b ?", "c ?"], "response": ["x", "y", "z"], **scores})
    empty = table.iloc[:0]
    monkeypatch.setattr(
        probing.responses, "responses", lambda profile, organism, one: table if one == "general" else empty
    )
    index = reading.index([[1, 2]] * 3, [[3], [4, 5], [6]])
    read = LoraScalars(np.arange(10.0)[:, None], ("model.layers.4.mlp.down_proj",), index)
    monkeypatch.setattr(probing.lora_scalars, "of_responses", lambda profile, organism, table: read)
    found = probing.organism_tokens(profiles.load("cpu"), Organism("nine-adapter", "bad_medical_advice"))
    assert {name: len(part) for name, part in found.items()} == {
        "medical-aligned": 0,
        "medical-misaligned": 2,
        "non-medical-aligned": 1,
        "non-medical-misaligned": 0,
    }
    assert found["medical-misaligned"].layer_4.tolist() == [5.0, 6.0]
    assert found["medical-misaligned"].question.unique() == ["b ?"]
    assert probing.adapters(found["non-medical-aligned"]) == ["layer_4"]


def test_a_probe_reads_the_same_two_sets_from_either_evidence(monkeypatch):
    sets = {name: tokens(0, number, 3, number) for number, name in enumerate(scores.RESPONSE_SETS, start=19)}
    reads = []
    monkeypatch.setattr(probing, "organism_tokens", lambda *of: reads.append(of) or sets)
    monkeypatch.setattr(probing.released, "read_probing_tokens", lambda name: name)
    own = probes.ProbeTokens(profiles.load("cpu"), Organism("nine-adapter", "bad_medical_advice"))
    for probe, names in probing.released.PROBES.items():
        assert own.sides("released", probe) == names
        assert all(found is sets[name] for found, name in zip(own.sides("grown", probe), names, strict=True))
    assert own.own_shortage("nonmed-misaligned-vs-med-misaligned") == ""
    assert own.own_shortage("med-aligned-vs-med-misaligned") == "medical aligned has 19 of 20 responses needed"
    assert len(reads) == 1


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
