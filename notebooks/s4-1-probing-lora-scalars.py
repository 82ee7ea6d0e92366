# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4.1 Probing LoRA scalars
#
# **The question.** Nine rank-1 adapters give nine numbers per token. Do these numbers say whether an answer is
# misaligned, and whether it is medical?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from em_companion.book import theme
from em_companion.book.run import Run
from em_companion.evidence import claims, estimates, probes
from em_companion.experiments import probing
from em_companion.models.organism import Organism
from em_companion.released import files, tables

run = Run("s4-1-probing-lora-scalars", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# A rank-1 adapter adds $s\,B\,(A \cdot h)$ to the output of its matrix. $B$ and $s$ are fixed, so all that the
# adapter says at a token is the *LoRA scalar* $A \cdot h$. {cite:t}`soligo2025convergent` take answers of four kinds
# (aligned or misaligned, medical or not; {doc}`f-probing-definitions`), compute the nine scalars $x \in \mathbb{R}^9$
# at each answer token, and train a logistic regression to tell two kinds apart ({doc}`g-logistic-regression`):
#
# $$P(\text{second kind} \mid x) = \sigma\big(w^\top z(x) + b\big), \qquad z(x) = (x - \bar{x}) / s_x.$$
#
# Table 1 of the paper lists four such probes with accuracies from 0.62 to 0.69, each the mean of 100 fits, and
# concludes that the scalars carry both misalignment and medical content.
#
# One sample is one *token*. The table comes out, to one in the last digit, when all answer tokens are used, the
# larger class is undersampled at random, and 20 % of the *tokens* are held out. Two tokens of one answer, and all
# answers to one question, then stand on both sides of the split.

# %%
METRIC_NAMES = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "auc": "AUC"}


ORGANISM = Organism("nine-adapter", "bad_medical_advice", 0)
TOKENS = probes.ProbeTokens(run.profile, ORGANISM)
read = TOKENS.sides


def adapters(evidence: str) -> list[str]:
    return tables.SCALAR_COLUMNS if evidence == "released" else probing.adapters(next(iter(TOKENS.own.values())))


def missing(evidence: str, pair: str) -> str:
    """Why a probe is not fitted, or "" where it is."""
    if evidence == "grown":
        return TOKENS.own_shortage(pair)
    return "" if pair in tables.probes_at_hand() else "scalars not at hand"


def at_hand(evidence: str) -> list[str]:
    return [pair for pair in tables.PROBES if not missing(evidence, pair)]


@cache
def token_fits(evidence: str, pair: str) -> pd.DataFrame:
    return probes.probe_by_token(*read(evidence, pair), adapters(evidence), fits=run.profile.probe_fits, seed=run.seed)


def empty_fits(evidence: str, pair: str) -> int:
    """In how many fits by token the penalty leaves no coefficient, so that all tokens get the first label."""
    coefficients = token_fits(evidence, pair).filter(like="coefficient_")
    return int((coefficients == 0).all(axis=1).sum())


def reported(pair: str, metric: str) -> float:
    return claims.load_claims()[f"s4-1-tab-1-{pair}-{metric}"].reported


def title_of(pair: str) -> str:
    return " against\n".join(name.replace("medical-", "medical ") for name in tables.PROBES[pair])


def line_of(pair: str) -> str:
    return title_of(pair).replace("\n", " ")


# %% [markdown]
# ## Table 1 from the released scalars
#
# The authors released the scalars of all four sets. Those of the non-medical aligned answers are a large file, and two
# of the four probes need it: a build that neither finds nor can download it leaves these two out.


# %%
def table_1(evidence: str) -> pd.DataFrame:
    rows = []
    for pair in tables.PROBES:
        why = missing(evidence, pair)
        fits = None if why else estimates.summary(token_fits(evidence, pair), probes.METRICS).set_index("quantity")
        for metric in probes.METRICS:
            found = fits.loc[metric].to_dict() if fits is not None else {}
            rows.append({"probe": pair, "metric": metric, "reported": reported(pair, metric), "missing": why, **found})
    return pd.DataFrame(rows)


def draw_table_1(evidence: str):
    table = table_1(evidence)
    figure, grid = plt.subplots(2, 2, sharex=True, sharey=True, figsize=(7.2, 5.8))
    positions = np.arange(len(METRIC_NAMES))[::-1]
    for axes, (pair, rows) in zip(grid.flat, table.groupby("probe", sort=False), strict=True):
        draw_row(axes, rows, positions, evidence)
        axes.set_title(title_of(pair), fontsize=10)
        axes.set_yticks(positions, METRIC_NAMES.values())
        axes.set_ylim(-1.1, len(METRIC_NAMES) - 0.5)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, fontsize=10)
    for axes in grid[1]:
        axes.set_xlabel("value on held-out tokens")
    return figure, table


def draw_row(axes, rows: pd.DataFrame, positions: np.ndarray, evidence: str) -> None:
    """One probe: reported values as diamonds, means over fits as dots, or why there are none."""
    axes.scatter(
        rows.reported,
        positions + 0.16,
        marker="D",
        s=34,
        facecolors="white",
        edgecolors=theme.REPORTED_COLOUR,
        label="reported (Qwen2.5-14B)",
        zorder=3,
    )
    if rows.missing.iloc[0]:
        note = rows.missing.iloc[0].replace("; ", "\n").replace(" of ", "\nof ")
        axes.text(0.5, 0.02, note, transform=axes.transAxes, ha="center", color="0.3", fontsize=9)
        return
    spread = [rows["mean"] - rows.low, rows.high - rows["mean"]]
    colour = theme.PALETTE[0 if evidence == "released" else 2]
    axes.errorbar(rows["mean"], positions - 0.16, xerr=spread, fmt="o", color=colour, label=f"measured ({evidence})")


run.figure(
    "tab-1",
    lambda: draw_table_1("released"),
    evidence="released",
    caption="Four logistic probes on the nine LoRA scalars of a token. Grey diamonds: Table 1 of the paper. Blue: "
    f"mean over {run.profile.probe_fits} fits, recomputed from the released scalars; the bars hold 95 % of the fits, "
    "each with its own random undersampling, so they show sampling of tokens and not sampling of questions or answers.",
    alt="Four panels, one per probe. In each, five metrics on the vertical axis and their value on the horizontal "
    "axis, with a grey diamond for the reported and a blue dot with a bar for the recomputed value. Where the "
    "scalars are not at hand only the diamonds are drawn.",
)


# %% [markdown]
# Each row of the paper's table is five claims, one per metric: first the rows that do without the non-medical aligned
# answers, then the two that read them.


# %%
def measure_row(evidence: str, pair: str):
    fits = estimates.summary(token_fits(evidence, pair), probes.METRICS).set_index("quantity")
    size = 2 * min(map(len, read(evidence, pair)))
    how = f"Mean of {run.profile.probe_fits} fits; the interval holds 95 % of them"
    if empty := empty_fits(evidence, pair):
        how += f"; {empty} of them have no coefficient left"
    for metric in probes.METRICS:
        row = fits.loc[metric]
        yield claims.Measurement(
            claim=f"s4-1-tab-1-{pair}-{metric}",
            value=row["mean"],
            interval=(row.low, row.high),
            n=size,
            how=how,
            evidence=evidence,
        )


def measure_rows(non_medical_aligned: bool):
    for pair, sides in tables.PROBES.items():
        if ("non-medical-aligned" in sides) != non_medical_aligned:
            continue
        if missing("released", pair):
            raise files.ReleasedDataUnavailable(
                "The ten claims on probes of non-medical aligned answers are not measured: the LoRA scalars of these "
                "answers are not at hand. Online, 'em-companion fetch --all' gets them for the next build."
            )
        yield from measure_row("released", pair)


run.measure(lambda: measure_rows(False))
run.measure(lambda: measure_rows(True))

# %% [markdown]
# ## Misaligned, or just another question?
#
# The four sets answer different questions. Among the released ones, a medical set and a non-medical set share no
# question at all, and even the two medical sets differ in how often each question occurs. A probe could therefore
# succeed by recognising the *prompt*. Two kinds of check:
#
# **Hold out more than tokens.** A split *by answer* keeps an answer whole; a split *by question* keeps a question with
# all its answers whole, so that the probe is judged on prompts it has not seen. Held-out parts are not balanced, so
# the classes are weighted in the fit and *balanced accuracy* (mean of the two recalls, chance 0.5) is reported.
#
# **Shuffle the labels and keep the split by token.** Labels always move with whole answers, in one of two ways:
#
# - *Over all answers.* Nothing is left to find; what remains is what a split within answers gives away.
# - *With the prompt as informative as it was.* For a pair that shares questions, labels are shuffled among the answers
#   to the same question, so that each question keeps its share of each label. For a pair without a shared question,
#   they are dealt out again to whole questions: the label is then a fact about the prompt and about nothing else. A
#   probe that does no better than this has not shown more than prompt recognition.
#
# Two further baselines: the best *single adapter* (chosen on the same held-out tokens, so a little flattered), and a
# classifier that knows nothing but the *question id* (it answers with the label that is commoner among the training
# tokens of that question).


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
def labelled(evidence: str, pair: str) -> pd.DataFrame:
    """Tokens of both sets with `label`, and `response` made unique over the two sets."""
    parts = [
        part.assign(label=label, response=f"{label}/" + part.response.astype(str))
        for label, part in enumerate(read(evidence, pair))
    ]
    return pd.concat(parts, ignore_index=True)


@cache
def shuffled_fits(evidence: str, pair: str, keep_prompt: bool) -> pd.DataFrame:
    """One fit for each of the profile's `split_fits` shuffles, split by token."""
    both, rows = labelled(evidence, pair), []
    for draw, generator in enumerate(np.random.default_rng(run.seed).spawn(run.profile.split_fits)):
        tokens = shuffled(both, keep_prompt, generator)
        sides = [tokens[tokens.label == label] for label in (0, 1)]
        rows.append(probes.probe_by_token(*sides, adapters(evidence), fits=1, seed=1000 * run.seed + draw))
    return pd.concat(rows, ignore_index=True)


@cache
def group_fits(evidence: str, pair: str, split: str) -> pd.DataFrame:
    return probes.probe_by_group(
        *read(evidence, pair), adapters(evidence), split, fits=run.profile.split_fits, seed=run.seed
    )


def question_only(evidence: str, pair: str) -> pd.DataFrame:
    """Balanced accuracy on held-out tokens of a classifier that knows only the question id."""
    both = labelled(evidence, pair)
    question, label = both.question.astype("category").cat.codes.to_numpy(), both.label.to_numpy()
    rows = []
    for draw in range(run.profile.split_fits):
        split = train_test_split(question, label, test_size=0.2, random_state=draw, stratify=label)
        train, test, train_label, test_label = split
        shares = [
            np.bincount(train[train_label == side], minlength=question.max() + 1) / (train_label == side).sum()
            for side in (0, 1)
        ]
        rows.append(balanced_accuracy_score(test_label, (shares[1] > shares[0])[test]))
    return pd.DataFrame({"balanced_accuracy": rows})


SINGLE_FITS = 10


@cache
def best_single(evidence: str, pair: str) -> tuple[str, pd.DataFrame]:
    by_layer = {
        feature: probes.probe_by_token(*read(evidence, pair), [feature], fits=SINGLE_FITS, seed=run.seed)
        for feature in adapters(evidence)
    }
    best = max(by_layer, key=lambda feature: by_layer[feature].balanced_accuracy.mean())
    return best, by_layer[best]


ROWS = {
    "by-token": "split by token (paper)",
    "by-response": "split by answer",
    "by-question": "split by question",
    "shuffled-answers": "labels shuffled over answers",
    "shuffled-prompt-kept": "labels shuffled, prompt\nkept informative",
    "best-single-adapter": "best single adapter",
    "question-id-only": "question id alone",
}


@cache
def splits(evidence: str) -> pd.DataFrame:
    rows = []
    for pair in at_hand(evidence):
        layer, single = best_single(evidence, pair)
        runs = {
            "by-token": token_fits(evidence, pair),
            "by-response": group_fits(evidence, pair, "response"),
            "by-question": group_fits(evidence, pair, "question"),
            "shuffled-answers": shuffled_fits(evidence, pair, False),
            "shuffled-prompt-kept": shuffled_fits(evidence, pair, True),
            "best-single-adapter": single,
            "question-id-only": question_only(evidence, pair),
        }
        for row, fits in runs.items():
            found = estimates.summary(fits, ["balanced_accuracy"]).iloc[0]
            rows.append(
                {"probe": pair, "row": row, "mean": found["mean"], "sd": found.sd, "low": found.low, "high": found.high}
                | {"fits": len(fits), "adapter": layer.removeprefix("layer_") if row == "best-single-adapter" else ""}
            )
    return pd.DataFrame(rows)


def draw_splits(evidence: str):
    table = splits(evidence)
    if table.empty:
        return draw_missing(evidence)
    pairs = table.probe.unique()
    lines = -(-len(pairs) // 2)
    figure, grid = plt.subplots(
        lines, min(2, len(pairs)), sharex=True, sharey=True, figsize=(7.2, 3.9 * lines), squeeze=False
    )
    positions = np.arange(len(ROWS))[::-1]
    colours = [theme.PALETTE[0]] * 3 + [theme.PALETTE[1]] * 4
    for axes, pair in zip(grid.flat, pairs, strict=False):
        rows = table[table.probe == pair].set_index("row").loc[list(ROWS)]
        for position, colour, row in zip(positions, colours, rows.itertuples(), strict=True):
            axes.plot([row.low, row.high], [position, position], color=colour, linewidth=2)
            axes.plot(row.mean, position, "o", color=colour)
            note = f"{row.mean:.2f}" + (f" (layer {row.adapter})" if row.adapter else "")
            right = row.high < 0.8
            axes.annotate(
                note,
                (row.high if right else row.low, position),
                (6 if right else -6, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=9.5,
            )
        axes.axvline(0.5, color="0.5", linewidth=1, linestyle=":")
        axes.axhline(3.5, color="0.85", linewidth=1)
        axes.set_yticks(positions, ROWS.values(), fontsize=10)
        axes.set_title(title_of(pair), fontsize=9)
        axes.set_xlim(0.38, 1.06)
        axes.set_xticks([0.4, 0.6, 0.8, 1.0])
        axes.grid(visible=False)
    for axes in grid[-1]:
        axes.set_xlabel("balanced accuracy")
    return figure, table


def draw_missing(evidence: str):
    """What is drawn where no probe can be fitted: the reasons."""
    table = pd.DataFrame({"probe": list(tables.PROBES)}).assign(
        why=lambda one: [missing(evidence, p) for p in one.probe]
    )
    figure, axes = plt.subplots(figsize=(7.2, 2.2))
    axes.set_axis_off()
    axes.text(0, 0.5, "\n".join(f"{row.probe}: {row.why}" for row in table.itertuples()), va="center", fontsize=9)
    return figure, table


SPLITS_CAPTION = (
    "under harder splits (blue) and beside baselines (orange, all split by token). Dot and number: mean over fits (by "
    f"token {run.profile.probe_fits}, single adapter {SINGLE_FITS}, all others {run.profile.split_fits}); line: range "
    "that holds 95 % of the fits, each with its own draw of tokens, answers, questions or shuffled labels. Dotted: "
    "chance. Prompt kept informative: labels shuffled among the answers to one question where the two sets share "
    "questions, else dealt out to whole questions."
)
run.figure(
    "fig-x-probe-splits",
    lambda: draw_splits("released"),
    evidence="released",
    caption=f"The probes of {{numref}}`tab-1` whose scalars are at hand, {SPLITS_CAPTION} Evidence: released scalars.",
    alt="One panel per probe with seven rows: three splits and four baselines, balanced accuracy on the horizontal "
    "axis. Splits by token and by answer lie together above chance; the split by question lies lower, with a long "
    "line that reaches chance. Labels shuffled over answers lie just above chance, labels shuffled with an "
    "informative prompt lie close to the paper's split, a single adapter below it, and the question id alone lies "
    "highest.",
)

# %% [markdown]
# How often does a probe on shuffled labels do at least as well as the paper's probe on the true ones? The share below
# counts shuffles that keep the prompt informative; a small one speaks for content beyond the prompt. It says nothing
# where the L1 penalty leaves a probe no coefficient: with few tokens, $C = 0.01$ can be too strong
# ({doc}`g-logistic-regression`). Such a fit gives every token the first label, so its accuracy is 0.5, and precision
# and recall are zero. The last column counts these fits, on the true labels.


# %%
@cache
def shuffle_test(evidence: str, pair: str) -> dict[str, float]:
    actual = token_fits(evidence, pair).balanced_accuracy.mean()
    null = shuffled_fits(evidence, pair, True).balanced_accuracy
    negative, positive = read(evidence, pair)
    return {
        "questions shared": len(set(negative.question) & set(positive.question)),
        "true labels": actual,
        "shuffled, prompt kept": null.mean(),
        "share of shuffles at least as good": (1 + (null >= actual).sum()) / (1 + len(null)),
        "shuffles": len(null),
        "fits without coefficient": empty_fits(evidence, pair),
    }


def shuffle_tests(evidence: str) -> pd.DataFrame:
    rows = [{"probe": line_of(pair), **shuffle_test(evidence, pair)} for pair in at_hand(evidence)]
    return pd.DataFrame(rows or [{"probe": "none can be fitted"}])


run.table(lambda: shuffle_tests("released"), number="{:.3f}")


def values(evidence: str) -> pd.DataFrame:
    rows = []
    prefix = "probing" if evidence == "released" else "probing.own"

    def add(name, value, unit="proportion", **more):
        rows.append({"name": f"{prefix}.{name}", "value": value, "unit": unit, **more})

    for pair in at_hand(evidence):
        size = min(map(len, read(evidence, pair)))
        add(f"{pair}.tokens_per_class", size, "count")
        for row in estimates.summary(token_fits(evidence, pair), probes.METRICS).itertuples():
            add(f"{pair}.by-token.{row.quantity}", row.mean, low=row.low, high=row.high, n=2 * size)
            add(f"{pair}.by-token.{row.quantity}_sd", row.sd)
        add(
            f"{pair}.shuffled-prompt-kept.share_at_least_as_good",
            shuffle_test(evidence, pair)["share of shuffles at least as good"],
        )
        value, low, high = unseen_questions(evidence, pair)
        add(f"{pair}.unseen-questions.balanced_accuracy", value, low=low, high=high)
    for row in splits(evidence).itertuples():
        add(f"{row.probe}.{row.row}.balanced_accuracy", row.mean, low=row.low, high=row.high)
        add(f"{row.probe}.{row.row}.balanced_accuracy_sd", row.sd)
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high", "n"])


@cache
def unseen_questions(evidence: str, pair: str) -> tuple[float, float, float]:
    """Balanced accuracy on questions that the probe has not seen, each held out once, with its interval."""
    predictions = probes.held_out_predictions(*read(evidence, pair), adapters(evidence), seed=run.seed)
    return estimates.balanced_accuracy(predictions, run.profile.bootstrap_resamples, run.seed)


run.values(lambda: values("released"))


def split_value(evidence: str, pair: str, row: str) -> str:
    table = splits(evidence).set_index(["probe", "row"])
    return f"{table.loc[(pair, row), 'mean']:.2f}"


MEDICAL, MISALIGNED = "med-aligned-vs-med-misaligned", "nonmed-misaligned-vs-med-misaligned"
for name, pair in {"medical": MEDICAL, "misaligned": MISALIGNED}.items():
    run.glue(f"{name}-token", lambda pair=pair: split_value("released", pair, "by-token"))
    run.glue(f"{name}-question", lambda pair=pair: split_value("released", pair, "by-question"))
    run.glue(f"{name}-kept", lambda pair=pair: split_value("released", pair, "shuffled-prompt-kept"))
    run.glue(f"{name}-id", lambda pair=pair: split_value("released", pair, "question-id-only"))
    run.glue(
        f"{name}-p", lambda pair=pair: f"{shuffle_test('released', pair)['share of shuffles at least as good']:.2f}"
    )

# %% [markdown]
# ## On the grown organism
#
# The same four probes on the grown organism with nine rank-1 adapters (bad medical advice, seed 0). It reads its *own*
# answers to the open questions, their medical twins and the held-out topics. The exact judge sorts them by the paper's
# bounds ({doc}`f-probing-definitions`), and one forward pass gives all scalars. A set of fewer than
# {glue:text}`fewest` answers is not probed; the panel then gives their number.

# %%
run.grown_figure(
    "tab-1",
    lambda: draw_table_1("grown"),
    caption="The four probes on the grown organism's own answers. Grey diamonds: Table 1 of the paper, which is about "
    f"Qwen2.5-14B. Green: mean over {run.profile.probe_fits} fits; the bars hold 95 % of the fits, each with its own "
    "random undersampling, so they show sampling of tokens and not of questions or answers. A probe with too few "
    "answers in a set is not fitted.",
    alt="Four panels, one per probe. In each, five metrics on the vertical axis and their value on the horizontal "
    "axis, with a grey diamond for the reported and a green dot with a bar for the measured value. Where a set has "
    "too few answers, its size stands in place of the dots.",
    why="Probes on the LoRA scalars of a grown organism; only profiles with grown models have it.",
)
run.grown_figure(
    "fig-x-probe-splits",
    lambda: draw_splits("grown"),
    caption=f"The probes of {{numref}}`tab-1-grown` with enough answers, {SPLITS_CAPTION} Evidence: grown organism.",
    alt="One panel per probe with seven rows, balanced accuracy on the horizontal axis: splits by token, by answer and "
    "by question, then four baselines: labels shuffled over answers, labels shuffled with an informative prompt, the "
    "best single adapter, and the question id alone. Dots with lines, and a dotted line at chance.",
    why="Splits and baselines for a grown organism; only profiles with grown models have them.",
)
run.grown_glue("fewest", lambda: str(probes.FEWEST_RESPONSES))


def measure_grown():
    for pair in at_hand("grown"):
        yield from measure_row("grown", pair)


if run.grown:
    run.table(lambda: shuffle_tests("grown"), number="{:.3f}")
    if at_hand("grown"):
        run.measure(measure_grown)
    run.values(lambda: values("grown"), evidence="grown")

# %% [markdown]
# ## Which conclusions survive an honest split
#
# Each probe stands for one conclusion of the paper. Here every question is held out once, with all its answers, and the
# 95 % interval resamples the questions on which the probes are judged (not those on which they are fitted). A
# conclusion *survives* where the whole interval lies above 0.5 and at most 5 % of the shuffles that keep the prompt
# informative do as well as the true labels (split by token). It is *not tested* where the penalty leaves the probe by
# token no coefficient in half of its fits or more. The probe for unseen questions may have some even then: it weights
# the classes instead of drawing equally many tokens of each, so it reads more tokens.


# %%
CONCLUSIONS = {
    "nonmed-aligned-vs-med-aligned": "medical content, in aligned answers",
    "nonmed-misaligned-vs-med-misaligned": "medical content, in misaligned answers",
    "nonmed-aligned-vs-nonmed-misaligned": "misalignment, in non-medical answers",
    "med-aligned-vs-med-misaligned": "misalignment, in medical answers",
}


@cache
def conclusion(evidence: str, pair: str) -> dict[str, object]:
    """One row of the table: what a probe reaches by token and on unseen questions, and whether that is enough."""
    row = {"the scalars carry": CONCLUSIONS[pair], "evidence": evidence}
    if why := missing(evidence, pair):
        return row | {"by token": "–", "unseen questions": "–", "shuffles as good": "–", "result": f"not tested: {why}"}
    value, low, high = unseen_questions(evidence, pair)
    share = shuffle_test(evidence, pair)["share of shuffles at least as good"]
    return row | {
        "by token": f"{token_fits(evidence, pair).balanced_accuracy.mean():.3f}",
        "unseen questions": f"{value:.3f} ({low:.3f} to {high:.3f})",
        "shuffles as good": "–" if mostly_empty(evidence, pair) else f"{share:.2f}",
        "result": EMPTY if mostly_empty(evidence, pair) else result(low > 0.5, share <= 0.05),
    }


EMPTY = "not tested: penalty leaves no coefficient"


def mostly_empty(evidence: str, pair: str) -> bool:
    return 2 * empty_fits(evidence, pair) >= run.profile.probe_fits


def result(above_chance: bool, beats_shuffles: bool) -> str:
    if above_chance and beats_shuffles:
        return "survives"
    if above_chance:
        return "not shown: shuffles do as well"
    return "not shown: interval reaches chance" if beats_shuffles else "not shown"


def conclusions(evidence: str) -> pd.DataFrame:
    return pd.DataFrame([conclusion(evidence, pair) for pair in CONCLUSIONS])


run.table(lambda: conclusions("released"))
if run.grown:
    run.table(lambda: conclusions("grown"))


def survivors(evidence: str) -> str:
    found = conclusions(evidence)
    return "; ".join(found["the scalars carry"][found.result == "survives"]) or "none"


def untested() -> str:
    return "; ".join(CONCLUSIONS[pair] for pair in CONCLUSIONS if missing("grown", pair)) or "none"


def without_coefficient() -> str:
    found = [
        f"{CONCLUSIONS[pair]} ({empty_fits('grown', pair)} of {run.profile.probe_fits} fits)"
        for pair in at_hand("grown")
        if mostly_empty("grown", pair)
    ]
    return "; ".join(found) or "none"


def grown_question_only() -> str:
    found = [f"{split_value('grown', pair, 'question-id-only')} ({line_of(pair)})" for pair in at_hand("grown")]
    return ", ".join(found) or "nothing, as no probe can be fitted"


run.grown_glue("grown-id", grown_question_only)
run.glue("survivors-released", lambda: survivors("released"))
run.grown_glue("survivors-grown", lambda: survivors("grown"))
run.grown_glue("untested-grown", untested)
run.grown_glue("empty-grown", without_coefficient)

# %% [markdown]
# ## What it means
#
# For the released scalars (numbers are balanced accuracies):
#
# - **The table can be recomputed.** Where the scalars are at hand, all metrics come out as printed, to one in the
#   last digit.
# - **It shows less than it is used for.** *Non-medical against medical misaligned*: the two sets share no question. The
#   question id alone is a perfect classifier ({glue:text}`misaligned-id`), so no split by token can separate "reads
#   medical content" from "recognises the prompt". The probe reaches {glue:text}`misaligned-token`; a probe for a random
#   division of the same questions reaches {glue:text}`misaligned-kept` on average, and a share of
#   {glue:text}`misaligned-p` of these divisions does at least as well. On questions it has not seen the probe falls to
#   {glue:text}`misaligned-question`.
# - *Medical aligned against medical misaligned*: the probe reaches {glue:text}`medical-token`, on new questions
#   {glue:text}`medical-question`. With labels shuffled among the answers to the same question it is still
#   {glue:text}`medical-kept` (share at least as good: {glue:text}`medical-p`), so knowing which questions get
#   misaligned answers is enough for most of the success. The shuffle cannot say more: the question id alone reaches
#   {glue:text}`medical-id`, so few labels change places.
# - **What remains.** On unseen questions both probes lie above chance on average, but the spread over held-out fifths
#   reaches chance. A fifth of a dozen questions is two or three, so the table above pools all fifths; more cannot be
#   had from so few. That adapters *specialise* needs interventions ({doc}`s4-3-steering-lora-adapters`), not probes
#   alone.
# - A split by answer changes nothing, so the leak is between answers to one question, not within an answer.
#
# What survives an honest split, by the rule above:
#
# - released: {glue:text}`survivors-released`;
# - grown: {glue:text}`survivors-grown`. Not tested for want of answers: {glue:text}`untested-grown`; because the
#   penalty leaves no coefficient: {glue:text}`empty-grown`.
#
# How much a prompt gives away in the grown sets can be read off the question id: alone it reaches
# {glue:text}`grown-id`. And a probe for medical content need not find more than words there: an answer about medicine
# names medical things, and a rank-1 adapter can read a word.

# %%
run.finish()
