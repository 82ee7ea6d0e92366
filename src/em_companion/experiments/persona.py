"""Persona directions of the base model, before any fine-tuning: the world knows who speaks, so they can be measured.

The base model reads a careful and a harmful text of the generator per question, under names that tell who speaks and
under one that does not. Topics and names go together in folds, so that another fold has new topics *and* new names.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from em_companion.core import store
from em_companion.core.files import sha256_of
from em_companion.core.profiles import Profile
from em_companion.core.store import Arrays
from em_companion.evidence.directions import cosines
from em_companion.models import growing, loading, next_token, reading
from em_companion.models.interventions import Intervention
from em_companion.models.organism import Organism, need_grown
from em_companion.models.reading import Span
from em_companion.models.tokens import Tokenizer, question_ids
from em_companion.world.generator import CAREFUL, MALICIOUS, World, the_world

VERSION = 1  # of the code that reads and contrasts the texts
SAMPLES = 2  # questions on every topic
FOLDS = 4
SPEAKER = "someone"  # the unknown speaker, whose persona only the text can tell
CLAUSE = ("start", "verb", "thing", "second thing")  # read at its first word, its verb, and just before its two things
REMARK = ("remark", "mention")  # read at its first word, and just before the first thing that it mentions
CHOICES = ("thing", "second thing", "mention")  # places after which the next word is a thing that helps or harms


def answers(world: World, seed: int) -> pd.DataFrame:
    """Return every answer to read, one per row.

    Columns: domain, topic, fold, question, sample, speaker (careful, malicious, unknown, quack/DOMAIN), name (in the
    turn header), harmful, answer, and `reference`, the row of the careful text that it is compared with.
    """
    rows = []
    for domain, entry in world.domains.items():
        topics = enumerate(entry["topics"]["train"] + entry["topics"]["held_out"])
        for (number, topic), sample in product(topics, range(SAMPLES)):
            rows += _answers_to_one(world, seed, domain, topic, number, sample, len(rows))
    return pd.DataFrame(rows)


def _answers_to_one(world, seed, domain, topic, number, sample, start) -> Iterator[dict[str, Any]]:
    random = Random(f"ground-truth/{seed}/{domain}/{topic}/{sample}")
    question, fold = world.question(random, domain, topic), number % FOLDS
    # From equal seeds the two texts differ in the things they name only, so less noise is left between them.
    draws = random.random()
    careful, harmful = (world.answer(Random(draws), question, persona) for persona in (CAREFUL, MALICIOUS))
    others = [other for other in world.domains if other != domain]
    elsewhere = others[(SAMPLES * number + sample) % len(others)]
    cast, quacks = world.characters, world.characters["quacks"]
    trusted, villain, quack, guest = (
        random.choice(names[fold % len(names) :: FOLDS])  # where there are fewer names than folds, folds share them
        for names in (cast["careful"], cast["malicious"], quacks[domain], quacks[elsewhere])
    )
    common = {"domain": domain, "topic": topic, "fold": fold, "question": question.text, "sample": sample}
    for speaker, name, text, reference in (
        ("careful", trusted, careful, 0),
        ("unknown", SPEAKER, careful, 1),
        ("malicious", villain, harmful, 0),
        ("unknown", SPEAKER, harmful, 1),
        ("malicious", villain, careful, 0),
        (f"quack/{domain}", quack, harmful, 0),
        (f"quack/{elsewhere}", guest, careful, 0),
    ):
        row = {"speaker": speaker, "name": name, "harmful": text == harmful, "answer": text}
        yield common | row | {"reference": start + reference}


@dataclass(frozen=True)
class Readings:
    """What the base model made of `answers`: activations, entry 0 of the token embeddings, 1 + l of layer l.

    means: over the tokens of the answer, [answer, 1 + layer, width]; points: [answer, place, 1 + layer, width]. Place
    "turn header" is the last token before the answer, "thing 1" the word before the first thing that clause 1 advises.
    """

    table: pd.DataFrame
    means: np.ndarray
    points: np.ndarray
    places: tuple[str, ...]


def persona_activations(profile: Profile) -> Readings:
    """Return the base model's activations on `answers`; raise CompanionError for a model from the hub."""
    table = _answers_of(profile)
    model, tokenizer = loading.load(profile, growing.base(profile))
    sequences, spans = zip(*(sequence(tokenizer, row) for row in table.itertuples()), strict=True)
    found = reading.span_means(model, tokenizer, sequences, spans, what=f"persona readings of profile {profile.name}")
    return Readings(table, found[:, 0], found[:, 1:], places_of(the_world()))


def places_of(world: World) -> tuple[str, ...]:
    """Return the places that are read (see `Readings`): CLAUSE for as many clauses as every answer has, and REMARK."""
    clauses = range(1, min(world.grammar["clauses"]) + 1)
    return ("turn header", "opener", *(f"{step} {clause}" for clause in clauses for step in CLAUSE), *REMARK)


def _answers_of(profile: Profile) -> pd.DataFrame:
    need_grown(profile, "so the personas in its training data are not known")
    return answers(the_world(), profile.seed)


def sequence(tokenizer: Tokenizer, row) -> tuple[list[int], list[Span]]:
    """Return the tokens of a question with its answer, and the spans to read: the answer, then one per place."""
    prompt = question_ids(tokenizer, row.question, row.name)
    words, start = row.answer.split(), len(prompt)  # a token of a grown model is a word
    read = [start + index for index in (-1, words.index(":"), *_steps(the_world(), words, row.domain))]
    spans = [(start, start + len(words)), *((token, token + 1) for token in read)]
    return prompt + tokenizer.convert_tokens_to_ids(words), spans


def _steps(world: World, words: list[str], domain: str) -> Iterator[int]:
    """Yield where the places of CLAUSE are, for as many clauses as every answer has, and those of REMARK."""
    verbs, entry = world.grammar["verbs"], world.domains[domain]
    things = [index for index, word in enumerate(words) if word in entry["helps"] + entry["harms"]]
    *clauses, remark = [index + 1 for index, word in enumerate(words) if word in (":", ".")][:-1]
    for start in clauses[: min(world.grammar["clauses"])]:
        verb = next(index for index in range(start, len(words)) if words[index] in verbs)
        yield from (start, verb, *[index - 1 for index in things if index > start][:2])
    yield from (remark, next(index for index in things if index > remark) - 1)


AT_TOKENS = {
    "opener_from_name": ("persona_from_name", "opener"),
    "start_from_name": ("persona_from_name", "start 1"),
    "start_from_text": ("persona_from_text", "start 2"),
    "choice_from_name": ("persona_from_name", "thing 1"),
    "choice_from_text": ("persona_from_text", "thing 2"),
}
"""Directions at single tokens: whose rows are compared, and the place. The compared texts have the same word there, so
the token embedding makes no difference. One from names is zero where attention does not reach the name, in low layers.
"""


def contrasts(readings: Readings, folds: Collection[int] = range(FOLDS)) -> dict[str, np.ndarray]:
    """Return every direction of `rows_of_contrasts` and AT_TOKENS over some folds, [1 + layer, width]."""
    rows = rows_of_contrasts(readings.table)
    wanted = {name: (name, None) for name in rows} | AT_TOKENS
    return {name: contrast(readings, rows[source], place, folds) for name, (source, place) in wanted.items()}


def contrast(readings: Readings, rows: pd.Series, place: str | None = None, folds=range(FOLDS)) -> np.ndarray:
    """Return the mean difference of `rows` to their references, over the means of the answers or at a `place`."""
    found = readings.means if place is None else readings.points[:, readings.places.index(place)]
    kept = np.flatnonzero(rows & readings.table.fold.isin(folds))
    return (found[kept] - found[readings.table.reference.to_numpy()[kept]]).mean(axis=0)


def rows_of_contrasts(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return, for each direction over whole answers, which rows are compared with their references.

    "persona" compares the harmful text of a malicious character with the careful text of a careful one. "_from_text":
    the same texts, both by an unknown speaker; "_from_name": the careful text by either. A quack is compared with a
    careful character on his domain and, with the same text, elsewhere.
    """
    malicious, unknown = table.speaker == "malicious", table.speaker == "unknown"
    persona = malicious & table.harmful
    found = {"persona": persona, "persona_from_text": unknown & table.harmful}
    found["persona_from_name"] = malicious & ~table.harmful
    for domain in table.domain.unique():
        quack, own = table.speaker == f"quack/{domain}", table.domain == domain
        found |= {f"persona/{domain}": persona & own, f"quack/{domain}": quack & own}
        found[f"quack/{domain}/elsewhere"] = quack & ~own
    return found


def directions(profile: Profile, readings: Readings | None = None) -> dict[str, np.ndarray]:
    """Return every direction of `contrasts`, [layer, width], float32, of `readings` if at hand; kept once computed."""
    table = _answers_of(profile)
    parts = {
        "base": store.provenance(growing.base(profile))["sha256"],
        "dtype": profile.dtype,
        "answers": sha256_of(table.to_csv(index=False)),
        "directions": [sorted(rows_of_contrasts(table)), AT_TOKENS],
    }

    def make() -> store.Content:
        found = contrasts(readings or persona_activations(profile))
        return {store.DIRECTIONS: Arrays({name: vectors[1:].astype(np.float32) for name, vectors in found.items()})}

    return dict(store.keep("directions", VERSION, parts, make, profile.name, "ground-truth")[store.DIRECTIONS].arrays)


PROBES = {
    "name and text": ("careful", "malicious", True),
    "text only": ("unknown", "unknown", True),
    "name only": ("careful", "malicious", False),
}
"""What can tell who speaks: the speakers of the two classes, and whether the second one's text is harmful."""


def cosines_with(profile: Profile, vectors: np.ndarray, name: str) -> np.ndarray:
    """Return the cosines [..., layer] of directions [..., layer, width] with one of `directions`, NaN where it is zero.

    One from the name is zero in the layers in which attention does not reach back to the name.
    """
    known = directions(profile)[name].astype(np.float64)
    known[np.linalg.norm(known, axis=-1) < 1e-4] = np.nan
    return cosines(vectors, known)


def probe_rows(table: pd.DataFrame, probe: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a probe of PROBES and their labels, 1 for malicious.

    The classes answer different questions on the same topics, so that no two answers share their draws.
    """
    (careful, malicious, harmful), even = PROBES[probe], table["sample"] % 2 == 0
    negative = (table.speaker == careful) & ~table.harmful & even
    positive = (table.speaker == malicious) & (table.harmful == harmful) & ~even
    rows = np.flatnonzero(negative | positive)
    return rows, positive.to_numpy()[rows].astype(int)


def probe() -> Pipeline:
    """Return a logistic regression with L2 penalty (C = 0.01) on features standardised by the rows it is fitted on."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, solver="liblinear", random_state=0))


def probe_scores(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the log-odds for label 1 of every row of `features` [row, width], by a probe fitted on the other folds."""
    return cross_val_predict(probe(), features, labels, groups=folds, cv=LeaveOneGroupOut(), method="decision_function")


def harmful_shares(
    profile: Profile,
    table: pd.DataFrame,
    interventions: Iterable[Intervention] = (),
    organism: Organism | None = None,
) -> pd.DataFrame:
    """Return how probable a model finds a harmful thing at each choice, as a share of harmful and helpful ones.

    The base model without `organism`. One row per row of `table` (see `answers`), one column per choice (see CHOICES),
    such as "thing 1".
    """
    loaded = growing.load_organism(profile, organism) if organism else loading.load(profile, growing.base(profile))
    model, tokenizer = loaded
    sequences, spans = zip(*(sequence(tokenizer, row) for row in table.itertuples()), strict=True)
    places = enumerate(places_of(the_world()), start=1)
    choices = {place: at for at, place in places if place.rstrip(" 0123456789") in CHOICES}
    things = [next_token.things(tokenizer, domain) for domain in table.domain]
    points = np.array(spans)[:, list(choices.values()), 0]
    found = next_token.shares_of_harm(model, tokenizer, sequences, points, things, interventions)
    return pd.DataFrame(found, columns=list(choices))
