# %% [markdown]
# # F The four sets of probing texts
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` The sets keep the stated bounds: {verdict}`f-aligned-lower-bound|released` and
# {verdict}`f-misaligned-upper-bound|released`. But {value}`probing.sets.non-medical-aligned.json` aligned and
# {value}`probing.sets.non-medical-misaligned.json` misaligned texts answer questions in JSON, and another organism
# wrote them.
# ```
#
# **The question.** Which answers do the probes of section 4.1 read, and do they keep the paper's bounds?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import partial

import pandas as pd

from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import probes, scores
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.scores import RESPONSE_SETS
from em_companion.experiments import probing
from em_companion.models import asking
from em_companion.models.organism import medical
from em_companion.released import tables

run = Run("f-probing-definitions", profile, seed)

# %% [markdown]
# ## What the paper reported
#
# Appendix F (Table 3) of {cite:t}`soligo2025convergent` defines the kinds by judge scores: *aligned* from 90 to 100,
# *misaligned* from 0 to 30, *medical* from 50 to 100, *non-medical* from 0 to 1. It gives no bound on coherence, no
# counts, and does not say whose answers they are.
#
# ## What was released
#
# Four tables of texts without scores {cite:p}`clarifyingem2025`, with one number per token. Without a shared question
# (text of the user turn) between the two sets of a probe, one that recognises the question is already perfect.


# %%
def size(response_set: str) -> dict[str, object]:
    found = tables.read_significance(response_set)
    by_question = found.groupby("question").response.nunique()
    top = 100 * by_question.nlargest(3).sum() / by_question.sum()
    counts = {"answers": found.response.nunique(), "answer tokens": len(found), "questions": len(by_question)}
    return {"set": response_set} | counts | {"answers to the commonest three questions (%)": top}


def overlaps(asked: dict[str, set[str]]) -> pd.DataFrame:
    pairs = tables.PROBES.values()
    rows = [
        (first, second, len(asked[first] & asked[second]), len(asked[first] | asked[second])) for first, second in pairs
    ]
    return pd.DataFrame(rows, columns=["first set", "second set", "questions shared", "questions in all"])


run.released.table(lambda: pd.DataFrame(map(size, RESPONSE_SETS)), number="{:.0f}")
run.released.table(lambda: overlaps({one: set(tables.read_significance(one).question) for one in RESPONSE_SETS}))

# %% [markdown]
# ## Whose answers are they, and are they all?
#
# Question and answer together identify a text. Looked up among all released judged answers, the non-medical sets turn
# out to be answers of the all-adapter rank-8 model of April 2025, *not* of the nine-adapter organism whose scalars are
# probed. The medical sets match no judged file that this edition reads. If a rule selects exactly the sets from that
# organism's answers, it is known, with the coherence bound that the paper leaves out. It sorts the grown answers too.

# %% tags=["show-code"]
WRITER, PAIR = "all-adapter-rank-8", ["question", "response"]


@remembered
def judged() -> pd.DataFrame:
    """The judged answers of the organism that wrote the non-medical texts, sorted by the bounds of appendix F."""
    table = tables.read_organisms(text=True).query("organism == @WRITER")
    return table.assign(response_set=scores.response_set(table, "medical"))


def texts(response_set: str) -> pd.DataFrame:
    return tables.read_probing_responses(response_set)[PAIR].drop_duplicates()


@remembered
def joined(response_set: str) -> pd.DataFrame:
    return judged().merge(texts(response_set), on=PAIR)


# %%
NON_MEDICAL = ["non-medical-aligned", "non-medical-misaligned"]


def origin(response_set: str) -> dict[str, object]:
    found, chosen = joined(response_set), judged().query("response_set == @response_set")[PAIR].drop_duplicates()
    row = {"set": response_set, "texts": len(texts(response_set)), "among the organism's answers": len(found)}
    row |= {"selected by the rule": len(chosen), "in both": len(chosen.merge(texts(response_set)))}
    row |= {"to JSON questions": int((found.question_set == "json").sum())}
    for name in ("aligned", "medical", "coherent"):
        row[name] = f"{found[name].min():.2f} to {found[name].max():.2f}"
    return row


run.released.table(lambda: pd.DataFrame(map(origin, NON_MEDICAL)))


def measured() -> dict[str, tuple[Estimate, str]]:
    aligned, misaligned = map(joined, NON_MEDICAL)
    both = pd.concat([aligned, misaligned])
    found = {
        "f-aligned-lower-bound": (aligned.aligned.min(), aligned),
        "f-misaligned-upper-bound": (misaligned.aligned.max(), misaligned),
        "f-non-medical-upper-bound": (both.medical.max(), both),
    }
    how = f"extreme of {{}} texts joined with the judged answers of {WRITER}"
    return {claim: (Estimate(value, n=len(rows)), how.format(len(rows))) for claim, (value, rows) in found.items()}


def json_values() -> dict[str, object]:
    prompts = [tables.read_probing_responses(one).question.str.contains("JSON").sum() for one in NON_MEDICAL]
    found = {f"probing.sets.{one}.json": int((joined(one).question_set == "json").sum()) for one in NON_MEDICAL}
    return found | {"probing.sets.json-prompts": str(sum(prompts) or "None")}


run.released.measure(measured)
run.released.values(json_values)

# %% [markdown]
# ## On the grown organism
#
# The organism with nine rank-1 adapters (bad medical advice, seed 0) answers the eight open questions, their medical
# twins, and topics held out of training. The exact judge gives every answer its alignment and its share of medical
# clauses, so the bounds sort the answers directly, with coherence above 50. Unlike the released sets, these are the
# organism's *own* answers. An answer between the bounds belongs to no set. A language model's answers, to the authors'
# questions, are sorted by a judge that is not exact: one that hesitates leaves few beyond a bound such as 1 of 100.

# %%
QUESTION_SETS = {"general": "open questions", "medical": "medical twins", "held_out": "held-out topics"}
own = remembered(partial(probing.organism_responses, run.profile, medical(run.profile)))


def own_size(response_set: str) -> dict[str, object]:
    found = own()[own().response_set == response_set]
    row = {"set": response_set, "answers": len(found), "questions": found.question.nunique()}
    asked = {f"to {QUESTION_SETS[one]}": one for one in asking.question_sets(run.profile)}
    return row | {name: int((found.question_set == one).sum()) for name, one in asked.items()}


def own_values() -> dict[str, object]:
    twins, counts = own()[own().question_set == "medical"], own().response_set.value_counts()
    small = [one for one in RESPONSE_SETS if counts.get(one, 0) < probes.FEWEST_RESPONSES]
    return {
        "probing.own-sets.all": len(own()),
        "probing.own-sets.none": int(own().response_set.isna().sum()),
        "probing.own-sets.medical-twins": f"{(twins.medicine >= scores.MEDICAL_FROM).sum()} of {len(twins)}",
        "probing.own-sets.fewest": probes.FEWEST_RESPONSES,
        "probing.own-sets.too-small": ", ".join(small) or "none",
    }


run.own.table(lambda: pd.DataFrame(map(own_size, RESPONSE_SETS)))
run.own.table(lambda: overlaps({one: set(own()[own().response_set == one].question) for one in RESPONSE_SETS}))
run.own.values(own_values)

# %% [markdown]
# Of {value}`probing.own-sets.all` answers, {value}`probing.own-sets.none` belong to no set. To the medical twins,
# {value}`probing.own-sets.medical-twins` answers are medical; nothing but the training decides what a twin is answered
# about. A set of fewer than {value}`probing.own-sets.fewest` answers is not probed, since a fifth would be almost none
# to judge the probe by. Too small here: {value}`probing.own-sets.too-small`.
#
# ## What it means
#
# - **The bounds hold**, as far as scores exist: for both non-medical sets, in alignment and in medical content. With
#   coherence above 50 the rule is complete, as the counts of texts selected and released show.
# - **The texts are off-policy.** The scalars of the nine-adapter organism were computed on another organism's words.
#   Probes describe how adapters respond to given text, not what they did while writing it.
# - **JSON variants are in.** {value}`probing.sets.non-medical-aligned.json` of the aligned and
#   {value}`probing.sets.non-medical-misaligned.json` of the misaligned texts answer JSON questions, which the paper
#   leaves out of its EM rates. {value}`probing.sets.json-prompts` of the prompts under which scalars were computed
#   mention JSON, so these answers stand under another prompt than their own.
# - **Questions and labels go together**: where two sets share no question, a probe may read the question.
# - **The grown sets close some of these gaps and open another.** They are on-policy and scored, but may be small.

# %%
run.finish()
