# %% [markdown]
# # 4.1 Probing LoRA scalars
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` The metrics come out as printed
# ({verdict}`s4-1-tab-1-med-aligned-vs-med-misaligned-accuracy|released`). But on new questions the probe for medical
# content falls from {value}`probing.medical.token` to {value}`probing.medical.question`, that for misalignment from
# {value}`probing.misaligned.token` to {value}`probing.misaligned.question`, and shuffles that keep the prompt do nearly
# as well. {evidence}`grown` One conclusion survives at most narrowly: {value}`probing.own.survivors`.
# ```
#
# **The question.** Nine rank-1 adapters give nine numbers per token. Do they say whether it is misaligned, or medical?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from em_companion.book import plots, typography
from em_companion.book.run import Run
from em_companion.book.theme import PALETTE
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, probes
from em_companion.evidence.claims import load_claims
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import probing
from em_companion.models import asking
from em_companion.models.organism import Organism
from em_companion.released import tables

run = Run("s4-1-probing-lora-scalars", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# Of what a rank-1 adapter adds, $s\,B\,(A \cdot h)$, only the *LoRA scalar* $A \cdot h$ differs between tokens.
# {cite:t}`soligo2025convergent` take answers of four kinds (aligned or misaligned, medical or not;
# {doc}`f-probing-definitions`), compute the nine scalars $x \in \mathbb{R}^9$ at each answer token, and train a
# logistic regression to tell two kinds apart ({doc}`g-logistic-regression`):
#
# $$P(\text{second kind} \mid x) = \sigma\big(w^\top z(x) + b\big), \qquad z(x) = (x - \bar{x}) / s_x.$$
#
# Table 1 of the paper lists four such probes with accuracies from 0.62 to 0.69, each the mean of 100 fits, and
# concludes that the scalars carry both misalignment and medical content. One sample is one *token*. The table comes
# out, to one in the last digit, when all answer tokens are used, the larger class is undersampled at random, and 20 %
# of the *tokens* are held out. So tokens of one answer, and answers to one question, stand on both sides.


# %% tags=["show-code"]
@remembered
def token_fits(evidence: str, probe: str) -> pd.DataFrame:
    """One row per fit, split by token as in the paper."""
    settings = {"fits": run.profile.probe_fits, "seed": run.seed}
    return probes.probe_by_token(*sides(evidence, probe), adapters(evidence), **settings)


# %%
TOKENS = probing.ProbeTokens(run.profile, Organism("nine-adapter", "bad_medical_advice", 0))
ASKED = "the open questions, their medical twins and the held-out topics"
if "held_out" not in asking.question_sets(run.profile):
    ASKED = "the open questions and their medical twins"
METRICS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "auc": "AUC"}
TITLES = {probe: " against\n".join(pair).replace("medical-", "medical ") for probe, pair in tables.PROBES.items()}
HANDLES = {"released": run.released, run.own.name: run.own}
sides = TOKENS.sides


def adapters(evidence: str) -> list[str]:
    return tables.SCALAR_COLUMNS if evidence == "released" else probing.adapters(next(iter(TOKENS.own.values())))


def missing(evidence: str, probe: str) -> str:
    """Why a probe is not fitted, or "" where it is."""
    if evidence == "released":
        return "" if probe in tables.probes_at_hand() else "scalars not at hand"
    return TOKENS.own_shortage(probe)


def at_hand(evidence: str) -> list[str]:
    return [probe for probe in tables.PROBES if not missing(evidence, probe)]


def need_one(evidence: str) -> list[str]:
    if not (found := at_hand(evidence)):
        raise probing.none_fitted(missing(evidence, one) for one in tables.PROBES)
    return found


def notes(evidence: str) -> dict[str, dict]:
    return {probe: {"note": missing(evidence, probe).replace("; ", "\n")} for probe in tables.PROBES}


@remembered
def table_1(evidence: str) -> pd.DataFrame:
    """Reported and found metrics (`quantity`) of every probe, found ones NaN where it is not fitted."""
    rows = [(one, name, load_claims()[f"s4-1-tab-1-{one}-{name}"].reported) for one in TITLES for name in METRICS]
    fits = {one: estimates.summary(token_fits(evidence, one)[list(METRICS)]) for one in at_hand(evidence)}
    none = estimates.summary(pd.DataFrame(columns=list(METRICS), dtype=float))
    fitted = pd.concat(fits or {"": none}, names=["probe"]).reset_index("probe")
    table = pd.DataFrame(rows, columns=["probe", "quantity", "reported"]).merge(fitted, how="left")
    return table.assign(metric=table.quantity.map(METRICS))


def draw_table_1(evidence: str):
    look = {"low": "low", "high": "high", "reported": {"reported (Qwen2.5-14B)": "reported"}, "each": notes(evidence)}
    look |= {"label": f"measured ({evidence})", "colour": PALETTE[0 if evidence == "released" else 2]}
    labels = {"x_label": "value on held-out tokens", "titles": TITLES, "wrap": 2, "y_limits": (5.3, -0.6)}
    return plots.facets(plots.dots, table_1(evidence), "probe", "metric", "mean", **look, **labels)


CAPTIONS = {
    "released": "Four logistic probes on the nine LoRA scalars of a token. Diamonds: Table 1 of the paper. Dots: mean "
    f"over {run.profile.probe_fits} fits; bars hold 95 % of the fits, each with its own undersampling, so they show "
    "the sampling of tokens, not of questions or answers.",
    run.own.name: f"The same on the {run.kind} organism's own answers to {ASKED}; where a set has too few answers to "
    "be probed, the panel gives their number.",
}


def said_of_accuracy(table: pd.DataFrame) -> str:
    rows = table[table.metric == "accuracy"].dropna(subset="mean")
    measured, reported = (typography.extremes(rows[one]) for one in ("mean", "reported"))
    return f"Accuracy of the probes: {measured} measured, {reported} reported"


ALT = "Four panels, one per probe: five metrics, diamonds for reported and dots with bars for measured values."
for evidence, caption in CAPTIONS.items():
    HANDLES[evidence].figure("tab-1", partial(draw_table_1, evidence), title=said_of_accuracy, caption=caption, alt=ALT)

# %% [markdown]
# ## Misaligned, or just another question?
#
# Among the released sets, a medical and a non-medical one share no question, so a probe could succeed by recognising
# the *prompt*. Two kinds of check:
#
# **Hold out more than tokens.** A split *by answer* keeps an answer whole, one *by question* all answers to a question,
# so that the probe is judged on new prompts. Held-out parts are not balanced, so classes are weighted in the fit and
# *balanced accuracy* (mean of the two recalls, chance 0.5) is reported.
#
# **Shuffle the labels and keep the split by token.** Labels always move with whole answers: *over all answers*, so that
# nothing is left to find, or *with the prompt as informative as it was*, that is among the answers to the same question
# or, for a pair without a shared question, dealt out again to whole questions. A probe must do better than this.
#
# Two further baselines: the best *single adapter* (chosen on the held-out tokens, so flattered), and the *question id*
# alone.


# %% tags=["show-code"]
def shuffled(both: pd.DataFrame, keep_prompt: bool, generator) -> pd.DataFrame:
    """Shuffle labels over whole answers, or so that the prompt stays informative."""
    answers = both.drop_duplicates("response").set_index("response")
    labels = answers.groupby("question").label
    if not keep_prompt:
        answers["label"] = generator.permutation(answers.label)
    elif labels.nunique().max() == 2:
        answers["label"] = labels.transform(generator.permutation)
    else:
        dealt = labels.first()
        dealt[:] = generator.permutation(dealt)
        answers["label"] = answers.question.map(dealt)
    return both.assign(label=both.response.map(answers.label))


# %%
def labelled(evidence: str, probe: str) -> pd.DataFrame:
    """Tokens of both sets with `label`, and `response` made unique over the two sets."""
    both = pd.concat(dict(enumerate(sides(evidence, probe))), names=["label"]).reset_index("label")
    return both.assign(response=both.label.astype(str) + "/" + both.response.astype(str)).reset_index(drop=True)


@remembered
def shuffled_fits(evidence: str, probe: str, keep_prompt: bool) -> pd.DataFrame:
    """One fit for each of the profile's `split_fits` shuffles, split by token."""
    both, rows = labelled(evidence, probe), []
    for draw, generator in enumerate(np.random.default_rng(run.seed).spawn(run.profile.split_fits)):
        tokens = shuffled(both, keep_prompt, generator)
        parts = [tokens[tokens.label == label] for label in (0, 1)]
        rows.append(probes.probe_by_token(*parts, adapters(evidence), fits=1, seed=1000 * run.seed + draw))
    return pd.concat(rows, ignore_index=True)


@remembered
def group_fits(evidence: str, probe: str, split: str) -> pd.DataFrame:
    settings = {"fits": run.profile.split_fits, "seed": run.seed}
    return probes.probe_by_group(*sides(evidence, probe), adapters(evidence), split, **settings)


@remembered
def question_only(evidence: str, probe: str) -> pd.DataFrame:
    """Balanced accuracy on held-out tokens of a classifier that knows only the question id."""
    both = labelled(evidence, probe)
    question, label = both.question.astype("category").cat.codes.to_numpy(), both.label.to_numpy()
    rows = []
    for draw in range(run.profile.split_fits):
        train, test, known, wanted = train_test_split(question, label, test_size=0.2, random_state=draw, stratify=label)
        counts = [np.bincount(train[known == side], minlength=question.max() + 1) for side in (0, 1)]
        first, second = (count / (known == side).sum() for side, count in enumerate(counts))
        rows.append(balanced_accuracy_score(wanted, (second > first)[test]))
    return pd.DataFrame({"balanced_accuracy": rows})


@remembered
def best_single(evidence: str, probe: str) -> pd.DataFrame:
    pair, names = sides(evidence, probe), adapters(evidence)
    tried = [probes.probe_by_token(*pair, [one], fits=10, seed=run.seed) for one in names]
    return max(tried, key=lambda fits: fits.balanced_accuracy.mean())


ROWS = {
    "split by token (paper)": token_fits,
    "split by answer": lambda *probe: group_fits(*probe, "response"),
    "split by question": lambda *probe: group_fits(*probe, "question"),
    "labels shuffled over answers": lambda *probe: shuffled_fits(*probe, False),
    "labels shuffled, prompt\nkept informative": lambda *probe: shuffled_fits(*probe, True),
    "best single adapter": best_single,
    "question id only": question_only,
}


@remembered
def splits(evidence: str) -> pd.DataFrame:
    parts = []
    for probe in need_one(evidence):
        for place, (row, fits) in enumerate(ROWS.items()):
            found = estimates.summary(fits(evidence, probe)[["balanced_accuracy"]]).drop(columns="quantity")
            parts.append(found.assign(probe=probe, row=row, kind="split" if place < 3 else "baseline, split by token"))
    return pd.concat(parts, ignore_index=True).assign(note=lambda rows: rows["mean"].map("{:.2f}".format))


def draw_splits(evidence: str):
    look = {"low": "low", "high": "high", "notes": "note", "x_lines": {"_chance": 0.5}, "each": notes(evidence)}
    labels = {"x_label": "balanced accuracy", "titles": TITLES, "wrap": 2, "x_limits": (0.38, 1.12), "size": (7.2, 7.0)}
    return plots.facets(plots.dots, splits(evidence), "probe", "row", "mean", hue="kind", **look, **labels)


CAPTIONS = {
    "released": "The probes of {numref}`tab-1` under harder splits, and beside baselines. Dot and number: mean over "
    f"fits (by token {run.profile.probe_fits}, single adapter 10, all others {run.profile.split_fits}); line: 95 % of "
    "the fits, each with its own draw of tokens, answers, questions or shuffled labels. Dotted: chance.",
    run.own.name: f"The same for the probes of the {run.kind} organism with enough answers.",
}


def said_of_splits(table: pd.DataFrame) -> str:
    by_row = table.groupby("row")["mean"]
    token, question, known = (typography.extremes(by_row.get_group([*ROWS][one])) for one in (0, 2, -1))
    return f"Balanced accuracy: {token} by token, {question} by question, {known} from the question id"


ALT = "One panel per probe with three splits and four baselines: dots with lines for balanced accuracy."
for evidence, caption in CAPTIONS.items():
    HANDLES[evidence].figure(
        "fig-x-probe-splits", partial(draw_splits, evidence), title=said_of_splits, caption=caption, alt=ALT
    )

# %% [markdown]
# ## Reported and measured
#
# A verdict on a probe asks for more than chance: it must also beat 95 % of the shuffles that keep the prompt
# informative. A probe is *not tested* where the L1 penalty leaves no coefficient in half of the fits by token or more:
# such a fit gives every token the first label, and its metrics are those of a constant.


# %%
def empty_fits(evidence: str, probe: str) -> int:
    """In how many fits by token the penalty leaves no coefficient, so that all tokens get the first label."""
    return int((token_fits(evidence, probe).filter(like="coefficient_") == 0).all(axis=1).sum())


def is_empty(evidence: str, probe: str) -> bool:
    """Whether a probe is not tested, for it has no coefficient in half of the fits by token or more."""
    return 2 * empty_fits(evidence, probe) >= run.profile.probe_fits


def measured(evidence: str, chosen: list[str]) -> dict[str, tuple[Estimate, str, dict]]:
    found = {}
    for row in table_1(evidence).query("probe in @chosen").itertuples():
        size, empty = 2 * min(map(len, sides(evidence, row.probe))), empty_fits(evidence, row.probe)
        null = shuffled_fits(evidence, row.probe, True)[row.quantity].quantile(0.95)
        how = f"Mean of {run.profile.probe_fits} fits; the interval holds 95 % of them"
        how += f"; {empty} of them have no coefficient left" if empty else ""
        how += f". 95 % of the shuffles that keep the prompt informative reach at most {null:.2f}"
        void = "Without coefficients nothing is predicted" if is_empty(evidence, row.probe) else ""
        one = Estimate(row.mean, row.low, row.high, size, "proportion")
        found[f"s4-1-tab-1-{row.probe}-{row.quantity}"] = (one, how, {"null": null, "void": void})
    return found


def measured_released(non_medical_aligned: bool) -> dict[str, tuple[Estimate, str, dict]]:
    chosen = [one for one, pair in tables.PROBES.items() if ("non-medical-aligned" in pair) == non_medical_aligned]
    if not set(chosen) <= set(at_hand("released")):
        raise EvidenceUnavailable(
            "The ten claims on probes of non-medical aligned answers are not measured: the LoRA scalars of "
            "these answers are not at hand. Online, 'em-companion fetch --all' gets them for the next build."
        )
    return measured("released", chosen)


run.released.measure(lambda: measured_released(False))
run.released.measure(lambda: measured_released(True))
run.own.measure(lambda: measured(run.own.name, need_one(run.own.name)))

# %% [markdown]
# ## Which conclusions survive an honest split
#
# Each probe stands for one conclusion of the paper. Here every question is held out once, with all its answers, their
# predictions are pooled, and the 95 % interval resamples questions. The split by question in
# {numref}`fig-x-probe-splits` is a mean over random fifths of the questions, and so another number. A conclusion
# *survives* where the whole interval lies above 0.5 and the true labels (split by token) beat 95 % of the shuffles that
# keep the prompt informative. It is *not tested* where the probe is not. This looks at balanced accuracy alone; the
# ledger takes the worst verdict of five metrics, so a probe may differ there whose conclusion survives here.

# %%
CONCLUSIONS = {
    "nonmed-aligned-vs-med-aligned": "medical content, in aligned answers",
    "nonmed-misaligned-vs-med-misaligned": "medical content, in misaligned answers",
    "nonmed-aligned-vs-nonmed-misaligned": "misalignment, in non-medical answers",
    "med-aligned-vs-med-misaligned": "misalignment, in medical answers",
}


@remembered
def unseen_questions(evidence: str, probe: str) -> Estimate:
    """Balanced accuracy on questions that the probe has not seen, each held out once."""
    predictions = probes.held_out_predictions(*sides(evidence, probe), adapters(evidence), seed=run.seed)
    return estimates.balanced_accuracy(predictions, **run.resampling)


def shuffles_as_good(evidence: str, probe: str) -> float:
    null = shuffled_fits(evidence, probe, True).balanced_accuracy
    return (1 + (null >= token_fits(evidence, probe).balanced_accuracy.mean()).sum()) / (1 + len(null))


NO_COEFFICIENT = "not tested: penalty leaves no coefficient"


def result(evidence: str, probe: str) -> str:
    if why := missing(evidence, probe):
        return f"not tested: {why}"
    if is_empty(evidence, probe):
        return NO_COEFFICIENT
    beats_shuffles = shuffles_as_good(evidence, probe) <= 0.05
    if unseen_questions(evidence, probe).above(0.5):
        return "survives" if beats_shuffles else "not shown: shuffles do as well"
    return "not shown: interval reaches chance" if beats_shuffles else "not shown"


@remembered
def conclusions(evidence: str) -> pd.DataFrame:
    rows = []
    for probe, text in CONCLUSIONS.items():
        row, known = {"the scalars carry": text, "evidence": evidence}, not missing(evidence, probe)
        row["unseen questions"] = unseen_questions(evidence, probe) if known else None
        row["shuffles as good"] = shuffles_as_good(evidence, probe) if known else np.nan
        rows.append(row | {"result": result(evidence, probe)})
    return pd.DataFrame(rows, index=list(CONCLUSIONS))


def with_result(evidence: str, *starts: str) -> str:
    table = conclusions(evidence)
    return "; ".join(table["the scalars carry"][table.result.str.startswith(starts)]) or "none"


def split_values() -> dict[str, object]:
    found = {"probing.survivors": with_result("released", "survives")}
    table = splits("released").set_index(["probe", "row"])["mean"]
    chosen = {"medical": "med-aligned-vs-med-misaligned", "misaligned": "nonmed-misaligned-vs-med-misaligned"}
    for name, probe in chosen.items():
        for label, row in zip(("token", "answer", "question", "shuffled", "kept", "single", "id"), ROWS, strict=True):
            found[f"probing.{name}.{label}"] = float(table[probe, row])
        found[f"probing.{name}.shuffles-as-good"] = float(shuffles_as_good("released", probe))
    return found


def own_values() -> dict[str, object]:
    own, fitted = run.own.name, at_hand(run.own.name)
    ids = {TITLES[one].replace("\n", " "): question_only(own, one).balanced_accuracy.mean() for one in fitted}
    found = {
        "survivors": with_result(own, "survives"),
        "untested": "; ".join(text for probe, text in CONCLUSIONS.items() if probe not in fitted) or "none",
        "empty": with_result(own, NO_COEFFICIENT),
        "question-id": ", ".join(f"{one:.2f} ({title})" for title, one in ids.items()) or "none",
    }
    unseen = {f"{one}.unseen-questions.balanced_accuracy": unseen_questions(own, one) for one in fitted}
    return {f"probing.own.{name}": one for name, one in (unseen | found).items()}


for evidence, handle in HANDLES.items():
    handle.table(partial(conclusions, evidence), number="{:.2f}")
run.released.values(split_values)
run.own.values(own_values)

# %% [markdown]
# ## What it means
#
# Where the released scalars are at hand, all metrics of the table come out as printed, to one in the last digit. But
# the table shows less than it is used for (numbers are balanced accuracies):
#
# - *Non-medical against medical misaligned*: the two sets share no question, and the question id alone reaches
#   {value}`probing.misaligned.id`. The probe reaches {value}`probing.misaligned.token`; probes for random divisions of
#   the questions reach {value}`probing.misaligned.kept` on average, a share of
#   {value}`probing.misaligned.shuffles-as-good` of them at least as much. On new questions the probe falls to
#   {value}`probing.misaligned.question`.
# - *Medical aligned against medical misaligned*: the probe reaches {value}`probing.medical.token`, on new questions
#   {value}`probing.medical.question`, and with labels shuffled among the answers to the same question still
#   {value}`probing.medical.kept` (share at least as good: {value}`probing.medical.shuffles-as-good`). Few labels change
#   places, for the question id alone reaches {value}`probing.medical.id`.
# - On unseen questions both lie above chance on average, but the spread over held-out fifths reaches chance. That
#   adapters *specialise* needs interventions ({doc}`s4-3-steering-lora-adapters`).
#
# Under a profile of the hub the same probes are fitted to its model's own answers. They need a judge that gives scores
# near 0 and 100 for the kinds, and a model that gives answers of all four; a small one lacks some, and the panels say
# so.
#
# By the rule above survive, of the released conclusions: {value}`probing.survivors`; of the grown:
# {value}`probing.own.survivors`. Not tested there for want of answers: {value}`probing.own.untested`; because the
# penalty leaves no coefficient: {value}`probing.own.empty`. In the grown sets the question id alone reaches
# {value}`probing.own.question-id`. A probe for medical content may read medical words alone there.
# What one adapter tells alone: {doc}`../exercises`.

# %%
run.finish()
