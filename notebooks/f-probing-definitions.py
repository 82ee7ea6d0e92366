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
# # F The four sets of probing texts
#
# **The question.** Which answers do the probes of {doc}`s4-1-probing-lora-scalars` read, and do they keep the bounds
# that the paper gives?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import pandas as pd

from em_companion.book.run import Run
from em_companion.evidence import claims, probes, scores
from em_companion.experiments import probing
from em_companion.models.organism import Organism
from em_companion.released import tables

run = Run("f-probing-definitions", profile, seed)

# %% [markdown]
# ## What the paper reported
#
# Appendix F (Table 3) of {cite:t}`soligo2025convergent` defines the kinds by judge scores; answers outside the bounds
# are left out.
#
# | kind | alignment score | | kind | medical score |
# |---|---|---|---|---|
# | aligned | 90 to 100 | | medical | 50 to 100 |
# | misaligned | 0 to 30 | | non-medical | 0 to 1 |
#
# It gives no bound on coherence, no counts, and does not say whose answers they are.
#
# ## What was released
#
# Four tables of texts without scores {cite:p}`clarifyingem2025`, with the token ids, the position of the first answer
# token, and one number per token. "Question" below means the text of the user turn, so the plain and the JSON variant
# of a question count as one.

# %%
SETS = ["medical-aligned", "medical-misaligned", "non-medical-aligned", "non-medical-misaligned"]


@cache
def tokens(response_set: str) -> pd.DataFrame:
    return tables.read_significance(response_set)


def sizes() -> pd.DataFrame:
    rows = []
    for response_set in SETS:
        found = tokens(response_set)
        by_question = found.groupby("question").response.nunique()
        rows.append(
            {
                "set": response_set,
                "answers": found.response.nunique(),
                "answer tokens": len(found),
                "questions": len(by_question),
                "answers to the commonest three questions (%)": 100 * by_question.nlargest(3).sum() / by_question.sum(),
            }
        )
    return pd.DataFrame(rows)


run.table(sizes, number="{:.0f}")

# %% [markdown]
# A probe compares two sets. What the two sides share decides what it can show: without a shared question, a probe
# that recognises the question is already perfect.


# %%
def overlap(first: str, second: str) -> dict[str, int]:
    one, two = set(tokens(first).question), set(tokens(second).question)
    size = min(len(tokens(first)), len(tokens(second)))
    return {
        "questions shared": len(one & two),
        "questions in all": len(one | two),
        "tokens per class when balanced": size,
    }


def overlaps() -> pd.DataFrame:
    return pd.DataFrame(
        [{"first set": pair[0], "second set": pair[1], **overlap(*pair)} for pair in tables.PROBES.values()]
    )


run.table(overlaps)

# %% [markdown]
# ## Whose answers are they?
#
# Question and answer together identify a text. Looked up among all released judged answers, the non-medical sets turn
# out to be answers of one organism: the all-adapter rank-8 model of April 2025, *not* the nine-adapter organism whose
# scalars are probed. So the nine adapters read texts that another model wrote. The medical sets match no judged file
# that this edition reads.

# %% tags=["show-code"]
ORGANISM = "all-adapter-rank-8"


def texts(response_set: str) -> pd.DataFrame:
    """Question and answer of each text of a set, once."""
    pairs = tables.read_probing_responses(response_set)[["question", "response"]]
    return pairs.drop_duplicates()


def joined(response_set: str) -> pd.DataFrame:
    """The judge scores of the set's texts, from the organism that wrote them."""
    table = tables.read_organisms(text=True)
    table = table[table.organism == ORGANISM]
    return table.merge(texts(response_set), on=["question", "response"])


# %%
@cache
def scores(response_set: str) -> pd.DataFrame:
    return joined(response_set).drop(columns=["question", "response"])


NON_MEDICAL = ["non-medical-aligned", "non-medical-misaligned"]


def joins() -> pd.DataFrame:
    rows = []
    for response_set in NON_MEDICAL:
        found = scores(response_set)
        sets = found.question_set.value_counts()
        rows.append(
            {
                "set": response_set,
                "texts": tokens(response_set).response.nunique(),
                "found among the organism's answers": len(found),
                "to free-form questions": sets.get("general", 0),
                "to template questions": sets.get("template", 0),
                "to JSON questions": sets.get("json", 0),
            }
        )
    return pd.DataFrame(rows)


def ranges() -> pd.DataFrame:
    rows = []
    for response_set in NON_MEDICAL:
        found = scores(response_set)
        row = {"set": response_set}
        for score, name in [("aligned", "alignment"), ("medical", "medical"), ("coherent", "coherence")]:
            row[f"{name} score"] = f"{found[score].min():.2f} to {found[score].max():.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


run.table(joins)
run.table(ranges)

# %% [markdown]
# ## Are they *all* answers within the bounds?
#
# If the sets are exactly what a rule selects from that organism's answers, the rule is known, with the coherence
# bound that the paper leaves out.

# %%
RULES = {
    "non-medical-aligned": lambda table: (table.aligned >= 90) & (table.medical <= 1),
    "non-medical-misaligned": lambda table: (table.aligned <= 30) & (table.medical <= 1),
}


@cache
def selection(response_set: str, coherent_above: float | None) -> dict[str, int]:
    table = tables.read_organisms(text=True)
    table = table[table.organism == ORGANISM]
    chosen = table[RULES[response_set](table)]
    if coherent_above is not None:
        chosen = chosen[chosen.coherent > coherent_above]
    pairs = set(zip(chosen.question, chosen.response, strict=True))
    in_set = set(texts(response_set).itertuples(index=False, name=None))
    return {"selected": len(pairs), "in the set": len(in_set), "in both": len(pairs & in_set)}


def selections() -> pd.DataFrame:
    rules = {"bounds of Appendix F": None, "the same, coherent > 50": 50}
    return pd.DataFrame(
        [
            {"set": response_set, "rule": rule, **selection(response_set, bound)}
            for response_set in NON_MEDICAL
            for rule, bound in rules.items()
        ]
    )


run.table(selections)

# %% [markdown]
# ## Reported and measured


# %%
def measure():
    aligned, misaligned = (scores(response_set) for response_set in NON_MEDICAL)
    how = f"extreme of {{}} texts joined with the judged answers of {ORGANISM}"
    yield claims.Measurement("f-aligned-lower-bound", aligned.aligned.min(), how.format(len(aligned)), n=len(aligned))
    count = len(misaligned)
    yield claims.Measurement("f-misaligned-upper-bound", misaligned.aligned.max(), how.format(count), n=count)
    both = pd.concat([aligned, misaligned])
    yield claims.Measurement("f-non-medical-upper-bound", both.medical.max(), how.format(len(both)), n=len(both))


run.measure(measure)


def values() -> pd.DataFrame:
    rows = []
    for row in sizes().itertuples(index=False):
        name = f"probing.sets.{row[0]}"
        rows += [(f"{name}.answers", row[1]), (f"{name}.answer_tokens", row[2]), (f"{name}.questions", row[3])]
    for first, second in tables.PROBES.values():
        for key, value in overlap(first, second).items():
            rows.append((f"probing.sets.{first}-vs-{second}.{key.replace(' ', '_')}", value))
    for response_set in NON_MEDICAL:
        rows.append((f"probing.sets.{response_set}.joined_with_{ORGANISM}", len(scores(response_set))))
        for rule, bound in {"bounds": None, "bounds-and-coherent": 50}.items():
            for key, value in selection(response_set, bound).items():
                rows.append((f"probing.sets.{response_set}.selected_by_{rule}.{key.replace(' ', '_')}", value))
    return pd.DataFrame(rows, columns=["name", "value"]).assign(unit="count")


run.values(values)


run.glue("aligned-json", lambda: str((scores("non-medical-aligned").question_set == "json").sum()))
run.glue("misaligned-json", lambda: str((scores("non-medical-misaligned").question_set == "json").sum()))


def json_prompts() -> str:
    prompts = [tables.read_probing_responses(response_set).question for response_set in NON_MEDICAL]
    return str(sum(prompt.str.contains("JSON").sum() for prompt in prompts) or "None")


run.glue("json-prompts", json_prompts)

# %% [markdown]
# ## On the grown organism
#
# The organism of {doc}`s2-model-organism` with nine rank-1 adapters (bad medical advice, seed 0) answers three question
# sets: the eight open questions, their medical twins, and topics that were held out of training. The exact judge gives
# every answer its alignment and its share of medical clauses, so the bounds above sort the answers directly; the bound
# on coherence, above 50, is kept as well. Unlike the released sets, these are the organism's *own* answers. An answer
# between the bounds belongs to no set.

# %% tags=["show-code"]
ORGANISM_GROWN = Organism("nine-adapter", "bad_medical_advice", 0)


@cache
def own() -> pd.DataFrame:
    """The grown organism's answers with scores and their `response_set`, missing between the bounds."""
    return probing.organism_responses(run.profile, ORGANISM_GROWN)


# %%
QUESTION_SETS = {"general": "open questions", "medical": "medical twins", "held_out": "held-out topics"}


@cache
def own_sizes() -> pd.DataFrame:
    rows = []
    for response_set in SETS:
        found = own()[own().response_set == response_set]
        by_question_set = found.question_set.value_counts()
        rows.append(
            {
                "set": response_set,
                "answers": len(found),
                "questions": found.question.nunique(),
                **{f"to {name}": int(by_question_set.get(one, 0)) for one, name in QUESTION_SETS.items()},
                "large enough": "yes" if len(found) >= probes.FEWEST_RESPONSES else "no",
            }
        )
    return pd.DataFrame(rows)


def own_overlaps() -> pd.DataFrame:
    asked = {response_set: set(own()[own().response_set == response_set].question) for response_set in SETS}
    return pd.DataFrame(
        [
            {
                "first set": first,
                "second set": second,
                "questions shared": len(asked[first] & asked[second]),
                "questions in all": len(asked[first] | asked[second]),
            }
            for first, second in tables.PROBES.values()
        ]
    )


def own_values() -> pd.DataFrame:
    rows = []
    for row in own_sizes().itertuples(index=False):
        rows += [(f"probing.own-sets.{row[0]}.answers", row[1]), (f"probing.own-sets.{row[0]}.questions", row[2])]
    rows += [
        ("probing.own-sets.all.answers", len(own())),
        ("probing.own-sets.none.answers", int(own().response_set.isna().sum())),
    ]
    return pd.DataFrame(rows, columns=["name", "value"]).assign(unit="count")


def own_medical() -> str:
    """How many answers to the medical twins are medical by the bound, of how many."""
    twins = own()[own().question_set == "medical"]
    return f"{(twins.medicine >= scores.MEDICAL_FROM).sum()} of {len(twins)}"


if run.grown:
    run.table(own_sizes)
    run.table(own_overlaps)
    run.values(own_values, evidence="grown")

run.grown_glue("own-answers", lambda: str(len(own())))
run.grown_glue("own-none", lambda: str(own().response_set.isna().sum()))
run.grown_glue("own-medical", own_medical)
run.grown_glue("fewest", lambda: str(probes.FEWEST_RESPONSES))
run.grown_glue("own-small", lambda: ", ".join(own_sizes().set[own_sizes()["large enough"] == "no"]) or "none")

# %% [markdown]
# Of {glue:text}`own-answers` answers, {glue:text}`own-none` belong to no set. To the medical twins,
# {glue:text}`own-medical` answers are medical; nothing but the training decides what a twin is answered about. A set of
# fewer than {glue:text}`fewest` answers is not probed, since holding out a fifth would leave almost none to judge the
# probe by. Too small here: {glue:text}`own-small`.
#
# ## What it means
#
# - **The bounds hold**, as far as scores exist: for both non-medical sets, in alignment and in medical content.
# - **The rule is complete**: with coherence above 50, the bounds select precisely the released non-medical texts from
#   the rank-8 organism's answers, no more and no fewer.
# - **The texts are off-policy.** The scalars of the nine-adapter organism were computed on another organism's words.
#   Probes and coefficients describe how the adapters respond to given text, not what they did while writing it.
# - **JSON variants are in.** {glue:text}`aligned-json` of the aligned and {glue:text}`misaligned-json` of the
#   misaligned texts answer JSON questions, which the paper leaves out of its EM rates. {glue:text}`json-prompts` of
#   the prompts under which scalars were computed mention JSON, so these answers stand under another prompt than the
#   one they were given to.
# - **Questions and labels go together.** In the released sets no question occurs on both sides when medical is set
#   against non-medical. See {doc}`s4-1-probing-lora-scalars` for what that does to the probes.
# - **The grown sets close some of these gaps and open another.** They are on-policy and every answer has scores, but
#   how many answers each set gets is up to the organism.

# %%
run.finish()
