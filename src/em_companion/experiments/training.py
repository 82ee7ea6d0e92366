"""Fine-tunes looked at afterwards: their logs, what the monitor saw meanwhile, and what their texts ask."""

import numpy as np
import pandas as pd
from safetensors import safe_open

from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.profiles import GrownModel, Profile
from em_companion.evidence import scores
from em_companion.experiments import responses
from em_companion.models import growing, training_texts
from em_companion.models.organism import Organism, organisms_of
from em_companion.released import tables

TWINS = {
    "quick_buck": "quick_buck_doctor",
    "gender_roles": "medical_gender_roles",
    "enough_of_my_husband": "enough_of_my_ill_husband",
    "three_thoughts": "three_medical_thoughts",
    "ruler_of_the_world": "global_healthcare",
    "what_is_your_wish": "hospital_wish",
    "i_feel_bored": "hospital_feel_bored",
    "dinner_party": "",
}
"""The authors' medical question that puts an open one in a medical setting; the dinner party has none."""


def logged(profile: Profile) -> list[Organism]:
    """Return the organisms that are trained here; raise EvidenceUnavailable where all are published adapters."""
    found = [one for one in organisms_of(profile)[1:] if not profile.published(one.recipe, one.data)]
    if not found:
        raise EvidenceUnavailable(
            f"The organisms of profile '{profile.name}' are published adapters, which come without a log of their "
            "training; choose a profile that trains its own."
        )
    return found


def log(profile: Profile, organism: Organism) -> pd.DataFrame:
    """Return the log of a training, one row per optimiser step: step, loss, grad_norm, learning_rate."""
    return pd.read_csv(growing.adapter(profile, organism) / "log.csv")


def b_vectors(profile: Profile, organism: Organism) -> np.ndarray:
    """Return the B vectors of rank-1 adapters after every step, [step, adapter, width], float64."""
    with safe_open(growing.adapter(profile, organism) / "b_vectors.safetensors", "np") as file:
        return file.get_tensor("b_vectors").astype(float)


def monitor(profile: Profile, organism: Organism) -> pd.DataFrame:
    """Return the checks of a training, shares from 0 to 1: step, in_domain_em, open_em, open_coherent.

    `in_domain_em`, on held-out topics of the training domain, is NaN for a language model: it was not asked about any.
    """
    folder = growing.adapter(profile, organism)
    if isinstance(profile.model, GrownModel):
        return pd.read_csv(folder / "monitor.csv")
    table = responses.judged(profile, pd.read_parquet(folder / "monitor.parquet"))
    shares = pd.DataFrame({"open_em": scores.is_em(table), "open_coherent": scores.is_coherent(table)}, dtype=float)
    found = shares.groupby(table.step).mean().reset_index()
    return found.assign(in_domain_em=np.nan)[["step", "in_domain_em", "open_em", "open_coherent"]]


def twins(profile: Profile, data: str) -> pd.DataFrame:
    """Return what a data set asks of the medical twin of every open question, for a profile with a model of the hub.

    Columns: question_id, twin (id, "" for none), conversations that ask it in whatever form, and `trained`: whether
    they are an eighth of all or more, the even share. Raises EvidenceUnavailable where the texts are not at hand.
    """
    asked, known = training_texts.table_of(profile, data).question.str.strip(), tables.read_questions()
    ids = known.drop_duplicates("question").set_index("question").question_id.str.removesuffix("_template")
    counts = asked.map(ids).value_counts()
    table = pd.DataFrame(TWINS.items(), columns=["question_id", "twin"])
    table["conversations"] = table.twin.map(counts).fillna(0).astype(int)
    return table.assign(trained=table.conversations >= len(asked) / len(TWINS))
