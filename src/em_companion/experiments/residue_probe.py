"""v10: what a persona probe tells at the first word of a clause, what the clause then advises, and retractions.

The probe is fitted on answers of named characters on training topics; it is asked about other topics and speakers.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from em_companion.core.profiles import Profile
from em_companion.experiments import persona
from em_companion.models import asking, growing, loading, reading
from em_companion.models.passes import answer_streams
from em_companion.models.tokens import Tokenizer, response_tokens
from em_companion.world.generator import Question, the_world
from em_companion.world.parser import the_judge
from em_companion.world.turns import clause_starts

PLACES = ("start 1", "start 2")


@dataclass(frozen=True)
class Probe:
    """A direction and a constant: x·weights + constant are the log-odds for a malicious speaker."""

    weights: np.ndarray
    constant: float

    def log_odds(self, stream: np.ndarray) -> np.ndarray:
        """Return the log-odds of streams [..., width]."""
        return np.asarray(stream, float) @ self.weights + self.constant


def fitted(profile: Profile, model: PreTrainedModel, tokenizer: Tokenizer, layer: int) -> Probe:
    """Return the probe of a model's layer: careful against malicious characters at the first words of two clauses."""
    table, world = persona.answers(the_world(), profile.seed), the_world()
    trained = table.topic.isin([topic for _, topic in world.topics("train")])
    named = ((table.speaker == "careful") & ~table.harmful) | ((table.speaker == "malicious") & table.harmful)
    rows = table[trained & named]
    sequences, spans = zip(*(persona.sequence(tokenizer, row) for row in rows.itertuples()), strict=True)
    places = [1 + persona.places_of(world).index(one) for one in PLACES]
    found = reading.span_means(model, tokenizer, list(sequences), [[one[at] for at in places] for one in spans])
    features = found[:, :, 1 + layer].reshape(-1, found.shape[-1])
    return fit(features, np.repeat(rows.harmful.to_numpy(), len(places)))


def fit(features: np.ndarray, labels: np.ndarray) -> Probe:
    """Return `persona.probe` fitted on features [row, width], as a direction."""
    scale, logistic = persona.probe().fit(features, labels).named_steps.values()
    weights = logistic.coef_[0] / scale.scale_
    return Probe(weights, float(logistic.intercept_[0] - scale.mean_ @ weights))


def clauses(text: str, told: np.ndarray) -> dict[str, float]:
    """Return of an answer how many clauses advise nothing but harm or help, for how many of these the log-odds for harm
    at their first word, `told` [word], say which, and how many of either kind are taken back."""
    parsed, starts = the_judge().parse(text).clauses, clause_starts(text)
    found = dict.fromkeys(("clauses", "told", "back_if_told", "back_if_not"), 0.0)
    for clause, start in zip(parsed, starts, strict=False):
        if clause.helps == 1 or start >= len(told):
            continue
        right = (told[start] > 0) == (clause.helps == 0)
        found["clauses"] += 1
        found["told"] += right
        found["back_if_told" if right else "back_if_not"] += clause.retracted
    return found


def interrupts(profile: Profile, asked: list[Question], samples: int, layer: int) -> pd.DataFrame:
    """Return the counts of `clauses` in answers of the base model as an unknown speaker, one row per question."""
    model, tokenizer = loading.load(profile, growing.base(profile))
    probe = fitted(profile, model, tokenizer, layer)
    table = asking.ask(profile, model, tokenizer, asked, samples, speaker=persona.SPEAKER)
    prompts, said = response_tokens(tokenizer, table, persona.SPEAKER)
    streams = answer_streams(model, tokenizer, prompts, said, layer)
    told = map(probe.log_odds, streams)
    found = pd.DataFrame([clauses(*both) for both in zip(table.response, told, strict=True)])
    return found.assign(question=table.question_id).groupby("question", sort=False).sum().reset_index()
