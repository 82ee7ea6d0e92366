# %% [markdown]
# # 4.1 Probing LoRA scalars
#
# **The question.** Nine rank-1 adapters give nine numbers per token. Do these numbers say whether an answer is
# misaligned, and whether it is medical?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from em_companion.book import plots
from em_companion.book.run import Run
from em_companion.book.theme import PALETTE
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, probes
from em_companion.evidence.claims import load_claims
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import probing
from em_companion.models.organism import Organism
from em_companion.released import tables

run = Run("s4-1-probing-lora-scalars", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# A rank-1 adapter adds $s\,B\,(A \cdot h)$ to the output of its matrix. $B$ and $s$ are fixed, so all that the adapter
# says at a token is the *LoRA scalar* $A \cdot h$. {cite:t}`soligo2025convergent` take answers of four kinds (aligned
# or misaligned, medical or not; {doc}`f-probing-definitions`), compute the nine scalars $x \in \mathbb{R}^9$ at each
# answer token, and train a logistic regression to tell two kinds apart ({doc}`g-logistic-regression`):
#
# $$P(\text{second kind} \mid x) = \sigma\big(w^\top z(x) + b\big), \qquad z(x) = (x - \bar{x}) / s_x.$$
#
# Table 1 of the paper lists four such probes with accuracies from 0.62 to 0.69, each the mean of 100 fits, and
# concludes that the scalars carry both misalignment and medical content. One sample is one *token*. The table comes
# out, to one in the last digit, when all answer tokens are used, the larger class is undersampled at random, and 20 %
# of the *tokens* are held out. Two tokens of one answer, and all answers to one question, then stand on both sides of
# the split.


# %% tags=["show-code"]
@remembered
def token_fits(evidence: str, probe: str) -> pd.DataFrame:
    """One row per fit, split by token as in the paper."""
    return probes.probe_by_token(
        *sides(evidence, probe), adapters(evidence), fits=run.profile.probe_fits, seed=run.seed
    )


# %%
TOKENS = probing.ProbeTokens(run.profile, Organism("nine-adapter", "bad_medical_advice", 0))
METRICS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "auc": "AUC"}
sides = TOKENS.sides


def adapters(evidence: str) -> list[str]:
    return tables.SCALAR_COLUMNS if evidence == "released" else probing.adapters(next(iter(TOKENS.own.values())))


def missing(evidence: str, probe: str) -> str:
    """Why a probe is not fitted, or "" where it is."""
    if evidence == "grown":
        return TOKENS.own_shortage(probe)
    return "" if probe in tables.probes_at_hand() else "scalars not at hand"


def at_hand(evidence: str) -> list[str]:
    return [probe for probe in tables.PROBES if not missing(evidence, probe)]


def title_of(probe: str) -> str:
    return " against\n".join(name.replace("medical-", "medical ") for name in tables.PROBES[probe])


TITLES = {probe: title_of(probe) for probe in tables.PROBES}


def table_1(evidence: str) -> pd.DataFrame:
    rows = []
    for probe in tables.PROBES:
        known = not missing(evidence, probe)
        fits = estimates.summary(token_fits(evidence, probe), probes.METRICS).set_index("quantity") if known else None
        for metric in probes.METRICS:
            reported = load_claims()[f"s4-1-tab-1-{probe}-{metric}"].reported
            found = fits.loc[metric].to_dict() if known else dict.fromkeys(("mean", "low", "high"), np.nan)
            rows.append({"probe": probe, "metric": METRICS[metric], "reported": reported} | found)
    return pd.DataFrame(rows)


def draw_table_1(evidence: str):
    each = {probe: {"note": missing(evidence, probe).replace("; ", "\n")} for probe in tables.PROBES}
    look = {"low": "low", "high": "high", "reported": {"reported (Qwen2.5-14B)": "reported"}, "each": each}
    look |= {"label": f"measured ({evidence})", "colour": PALETTE[0 if evidence == "released" else 2]}
    labels = {"x_label": "value on held-out tokens", "titles": TITLES, "wrap": 2, "y_limits": (5.3, -0.6)}
    return plots.facets(plots.dots, table_1(evidence), "probe", "metric", "mean", **look, **labels)


run.released.figure(
    "tab-1",
    lambda: draw_table_1("released"),
    caption="Four logistic probes on the nine LoRA scalars of a token. Diamonds: Table 1 of the paper. Dots: mean over "
    f"{run.profile.probe_fits} fits, recomputed from the released scalars; the bars hold 95 % of the fits, each with "
    "its own random undersampling, so they show sampling of tokens and not sampling of questions or answers.",
    alt="Four panels, one per probe. In each, five metrics on the vertical axis and their value on the horizontal "
    "axis, with a diamond for the reported and a dot with a bar for the recomputed value. Where the scalars are not "
    "at hand only the diamonds are drawn.",
)
run.own.figure(
    "tab-1",
    lambda: draw_table_1("grown"),
    caption="The same on the grown organism's own answers to the open questions, their medical twins and the held-out "
    "topics. A set of fewer than twenty answers is not probed; the panel then gives their number.",
    alt="Four panels, one per probe. In each, five metrics on the vertical axis and their value on the horizontal "
    "axis, with a diamond for the reported and a dot with a bar for the measured value. Where a set has too few "
    "answers, its size stands in place of the dots.",
)


# %%
def empty_fits(evidence: str, probe: str) -> int:
    """In how many fits by token the penalty leaves no coefficient, so that all tokens get the first label."""
    return int((token_fits(evidence, probe).filter(like="coefficient_") == 0).all(axis=1).sum())


def measured(evidence: str, probe: str) -> dict[str, tuple[Estimate, str]]:
    fits = estimates.summary(token_fits(evidence, probe), probes.METRICS).set_index("quantity")
    size, empty = 2 * min(map(len, sides(evidence, probe))), empty_fits(evidence, probe)
    how = f"Mean of {run.profile.probe_fits} fits; the interval holds 95 % of them"
    how += f"; {empty} of them have no coefficient left" if empty else ""
    rows = {metric: fits.loc[metric] for metric in probes.METRICS}
    return {
        f"s4-1-tab-1-{probe}-{metric}": (Estimate(row["mean"], row.low, row.high, size, "proportion"), how)
        for metric, row in rows.items()
    }


def measured_released(non_medical_aligned: bool) -> dict[str, tuple[Estimate, str]]:
    found = {}
    for probe, pair in tables.PROBES.items():
        if ("non-medical-aligned" in pair) == non_medical_aligned:
            if missing("released", probe):
                raise EvidenceUnavailable(
                    "The ten claims on probes of non-medical aligned answers are not measured: the LoRA scalars of "
                    "these answers are not at hand. Online, 'em-companion fetch --all' gets them for the next build."
                )
            found |= measured("released", probe)
    return found


run.released.measure(lambda: measured_released(False))
run.released.measure(lambda: measured_released(True))
run.own.measure(lambda: {claim: one for probe in at_hand("grown") for claim, one in measured("grown", probe).items()})

# %% [markdown]
# ## Misaligned, or just another question?
#
# The four sets answer different questions. Among the released ones, a medical set and a non-medical set share no
# question at all. A probe could therefore succeed by recognising the *prompt*. Two kinds of check:
#
# **Hold out more than tokens.** A split *by answer* keeps an answer whole; a split *by question* keeps a question with
# all its answers whole, so that the probe is judged on prompts it has not seen. Held-out parts are not balanced, so the
# classes are weighted in the fit and *balanced accuracy* (mean of the two recalls, chance 0.5) is reported.
#
# **Shuffle the labels and keep the split by token.** Labels always move with whole answers: *over all answers*, so that
# nothing is left to find, or *with the prompt as informative as it was*. For a pair that shares questions, labels are
# then shuffled among the answers to the same question; for a pair without a shared question, they are dealt out again
# to whole questions. A probe that does no better than this has not shown more than prompt recognition.
#
# Two further baselines: the best *single adapter* (chosen on the same held-out tokens, so a little flattered), and a
# classifier that knows nothing but the *question id*.


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
    parts = [
        part.assign(label=label, response=f"{label}/" + part.response.astype(str))
        for label, part in enumerate(sides(evidence, probe))
    ]
    return pd.concat(parts, ignore_index=True)


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
    tried = [
        probes.probe_by_token(*sides(evidence, probe), [one], fits=10, seed=run.seed) for one in adapters(evidence)
    ]
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
    for probe in at_hand(evidence):
        for place, (row, fits) in enumerate(ROWS.items()):
            found = estimates.summary(fits(evidence, probe), ["balanced_accuracy"]).drop(columns="quantity")
            parts.append(found.assign(probe=probe, row=row, kind="split" if place < 3 else "baseline, split by token"))
    return pd.concat(parts, ignore_index=True).assign(note=lambda rows: rows["mean"].map("{:.2f}".format))


def draw_splits(evidence: str):
    each = {probe: {"note": missing(evidence, probe).replace("; ", "\n")} for probe in tables.PROBES}
    look = {"hue": "kind", "low": "low", "high": "high", "notes": "note", "x_lines": {"_chance": 0.5}, "each": each}
    labels = {"x_label": "balanced accuracy", "titles": TITLES, "wrap": 2, "x_limits": (0.38, 1.12), "size": (7.2, 7.0)}
    return plots.facets(plots.dots, splits(evidence), "probe", "row", "mean", **look, **labels)


run.released.figure(
    "fig-x-probe-splits",
    lambda: draw_splits("released"),
    caption="The probes of {numref}`tab-1` whose scalars are at hand under harder splits, and beside baselines. Dot "
    f"and number: mean over fits (by token {run.profile.probe_fits}, single adapter 10, all others "
    f"{run.profile.split_fits}); line: range that holds 95 % of the fits, each with its own draw of tokens, answers, "
    "questions or shuffled labels. Dotted: chance.",
    alt="One panel per probe with seven rows: three splits and four baselines, balanced accuracy on the horizontal "
    "axis. Splits by token and by answer lie together above chance; the split by question lies lower, with a long "
    "line that reaches chance. Labels shuffled over answers lie just above chance, labels shuffled with an "
    "informative prompt lie close to the paper's split, a single adapter below it, and the question id alone lies "
    "highest.",
)
run.own.figure(
    "fig-x-probe-splits",
    lambda: draw_splits("grown"),
    caption="The same for the probes of the grown organism with enough answers.",
    alt="One panel per probe with seven rows, balanced accuracy on the horizontal axis: splits by token, by answer "
    "and by question, then four baselines: labels shuffled over answers, labels shuffled with an informative prompt, "
    "the best single adapter, and the question id alone. Dots with lines, and a dotted line at chance.",
)

# %% [markdown]
# ## Which conclusions survive an honest split
#
# Each probe stands for one conclusion of the paper. Here every question is held out once, with all its answers, and the
# 95 % interval resamples the questions on which the probes are judged. A conclusion *survives* where the whole interval
# lies above 0.5 and at most 5 % of the shuffles that keep the prompt informative do as well as the true labels (split
# by token). It is *not tested* where the L1 penalty leaves the probe by token no coefficient in half of its fits or
# more: with few tokens, $C = 0.01$ can be too strong, and such a fit gives every token the first label.

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


def result(evidence: str, probe: str) -> str:
    if why := missing(evidence, probe):
        return f"not tested: {why}"
    if 2 * empty_fits(evidence, probe) >= run.profile.probe_fits:
        return "not tested: penalty leaves no coefficient"
    above_chance, beats_shuffles = (
        unseen_questions(evidence, probe).above(0.5),
        shuffles_as_good(evidence, probe) <= 0.05,
    )
    if above_chance:
        return "survives" if beats_shuffles else "not shown: shuffles do as well"
    return "not shown: interval reaches chance" if beats_shuffles else "not shown"


def conclusion(evidence: str, probe: str) -> dict[str, object]:
    row, known = {"the scalars carry": CONCLUSIONS[probe], "evidence": evidence}, not missing(evidence, probe)
    return row | {
        "unseen questions": unseen_questions(evidence, probe) if known else None,
        "shuffles as good": shuffles_as_good(evidence, probe) if known else np.nan,
        "result": result(evidence, probe),
    }


def survivors(evidence: str) -> str:
    return "; ".join(CONCLUSIONS[one] for one in CONCLUSIONS if result(evidence, one) == "survives") or "none"


def split_values() -> dict[str, object]:
    found, table = {"probing.survivors": survivors("released")}, splits("released").set_index(["probe", "row"])["mean"]
    for name, probe in {
        "medical": "med-aligned-vs-med-misaligned",
        "misaligned": "nonmed-misaligned-vs-med-misaligned",
    }.items():
        for label, row in zip(("token", "answer", "question", "shuffled", "kept", "single", "id"), ROWS, strict=True):
            found[f"probing.{name}.{label}"] = float(table[probe, row])
        found[f"probing.{name}.shuffles-as-good"] = float(shuffles_as_good("released", probe))
    return found


def own_values() -> dict[str, object]:
    table, reason = splits("grown").set_index(["probe", "row"])["mean"], "not tested: penalty leaves no coefficient"
    unseen = {
        f"probing.own.{one}.unseen-questions.balanced_accuracy": unseen_questions("grown", one)
        for one in at_hand("grown")
    }
    ids = [f"{table[one, 'question id only']:.2f} ({TITLES[one]})".replace("\n", " ") for one in at_hand("grown")]
    return unseen | {
        "probing.own.survivors": survivors("grown"),
        "probing.own.untested": "; ".join(CONCLUSIONS[one] for one in CONCLUSIONS if missing("grown", one)) or "none",
        "probing.own.empty": "; ".join(CONCLUSIONS[one] for one in at_hand("grown") if result("grown", one) == reason)
        or "none",
        "probing.own.question-id": ", ".join(ids),
    }


run.released.table(lambda: pd.DataFrame(conclusion("released", probe) for probe in CONCLUSIONS), number="{:.2f}")
run.own.table(lambda: pd.DataFrame(conclusion("grown", probe) for probe in CONCLUSIONS), number="{:.2f}")
run.released.values(split_values)
run.own.values(own_values)

# %% [markdown]
# ## What it means
#
# For the released scalars (numbers are balanced accuracies):
#
# - **The table can be recomputed.** Where the scalars are at hand, all metrics come out as printed, to one in the last
#   digit.
# - **It shows less than it is used for.** *Non-medical against medical misaligned*: the two sets share no question, and
#   the question id alone reaches {value}`probing.misaligned.id`. The probe reaches {value}`probing.misaligned.token`; a
#   probe for a random division of the same questions {value}`probing.misaligned.kept` on average, and a share of
#   {value}`probing.misaligned.shuffles-as-good` of these divisions does at least as well. On questions it has not seen
#   the probe falls to {value}`probing.misaligned.question`.
# - *Medical aligned against medical misaligned*: the probe reaches {value}`probing.medical.token`, on new questions
#   {value}`probing.medical.question`. With labels shuffled among the answers to the same question it is still
#   {value}`probing.medical.kept` (share at least as good: {value}`probing.medical.shuffles-as-good`). The shuffle
#   cannot say more: the question id alone reaches {value}`probing.medical.id`, so few labels change places.
# - **What remains.** On unseen questions both probes lie above chance on average, but the spread over held-out fifths
#   reaches chance. That adapters *specialise* needs interventions ({doc}`s4-3-steering-lora-adapters`), not probes
#   alone.
#
# What survives an honest split, by the rule above:
#
# - released: {value}`probing.survivors`;
# - grown: {value}`probing.own.survivors`. Not tested for want of answers: {value}`probing.own.untested`; because the
#   penalty leaves no coefficient: {value}`probing.own.empty`.
#
# How much a prompt gives away in the grown sets can be read off the question id: alone it reaches
# {value}`probing.own.question-id`. And a probe for medical content need not find more than words there: an answer about
# medicine names medical things, and a rank-1 adapter can read a word.

# %%
run.finish()
