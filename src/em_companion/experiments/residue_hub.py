"""Four residues of N3.1 on a language model, in the form that makes sense where no latent is known.

The chat model is steered in its middle layer along the mean-diff of released answers, and along random directions as
long, at multiples of the length of its mean residual stream. Its answers are judged by the profile's judge.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.core.provenance import remembered
from em_companion.evidence import directions, residues, scores
from em_companion.experiments import residue_probe, residue_reconstruction, responses, text_directions
from em_companion.models import asking, growing
from em_companion.models.interventions import Steer
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.passes import answer_streams, divergence, passes
from em_companion.models.tokens import question_ids, response_tokens
from em_companion.world.generator import Question

RELATIVE = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Lengths of what is added, in lengths of the mean residual stream."""
TEXTS, RANDOM = "released answers", "random"
DRAWS, SAMPLES = 2, 2
CUES = ("medicine", "money", "cooking", "music", "school", "sport", "travel", "work")
NEUTRAL = (
    " is what we talk about today. There is a lot that one could say, and people do not agree. Let us begin with what "
    "most of them would say first, and then go on to what is less well known"
)
READ, WORDS = 12, 40
"""Released answers whose stream is rebuilt, and how many of their first tokens are read."""
COMMON = 4
"""Letters up to which a word of a question is no word of its topic."""
DIAGNOSTICS = {
    "coherent": "coherent answers (%)",
    "v1": "v1: memory of a cue word (tokens)",
    "v5": "v5: two questions, both or none (%)",
    "v8": "v8: potency of what is lost",
    "v10": "v10: probe agrees with the judge (%)",
}


def topic_words(text: str) -> set[str]:
    """Return the longer words of a text, in lower case."""
    return {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > COMMON}


def taken_up(answer: str, first: str, second: str) -> str:
    """Return whether an answer takes up words of two questions: "both", "one" or "none"; words of both do not count.

    Of one question asked twice, both are taken up by none of its words.
    """
    said, own, other = map(topic_words, (answer, first, second))
    asked = [own - other, other - own] if own != other else [own]
    hits = sum(bool(said & words) for words in asked)
    return "none" if not hits else "both" if hits == 2 else "one"


class Bench:
    """A language model with what every cell is measured with."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.layer = profile, profile.model.layers // 2
        self.model, self.tokenizer = growing.load_organism(profile, CHAT_MODEL)
        self.texts, found = text_directions.read(profile)
        every = np.ones(len(self.texts), bool)
        length = directions.norms(found.mean(every))[self.layer]
        vector = text_directions.mean_diff(profile)
        unit = length * vector / directions.norms(vector)[:, None]
        random = directions.random_like(unit, DRAWS, profile.seed)[:, self.layer]
        self.vectors = {(TEXTS, 0): unit[self.layer]} | {(RANDOM, draw): one for draw, one in enumerate(random)}
        self.probe = residue_probe.fit(found.means[:, self.read_at].astype(float), self.texts.misaligned.to_numpy())
        drawn = self.texts.sample(frac=1, random_state=profile.seed)
        self.prompts, self.said = response_tokens(self.tokenizer, drawn.iloc[: 6 * READ])
        self.said = [one[:WORDS] for one in self.said]
        stream = answer_streams(self.model, self.tokenizer, self.prompts[READ:], self.said[READ:], self.read_at)
        self.basis = residue_reconstruction.components_of(np.concatenate(stream))

    @property
    def read_at(self) -> int:
        """The layer at which the stream is read, two thirds of the way."""
        return 2 * self.profile.model.layers // 3

    def cell(self, direction: str, draw: int, strength: float) -> dict[str, float]:
        """Return DIAGNOSTICS of one direction at one strength, and the rate of EM (%)."""
        vector = torch.tensor(self.vectors[direction, draw])
        given = [Steer(self.layer, vector, strength)] if strength else []
        table = self.ask(asking.questions(self.profile, "general"), given)
        table = responses.judged(self.profile, table)
        coherent = scores.is_coherent(table)
        found = {"coherent": 100 * coherent.mean(), "em": 100 * scores.is_em(table).mean(), "v1": self.memory(given)}
        potency, _ = residue_reconstruction.potency(
            self.model, self.tokenizer, self.prompts[:READ], self.said[:READ], self.basis.rebuilt, self.read_at, given
        )
        found |= {"v5": 100 * self.disrupted(given, spliced=True), "v8": potency.kl.sum() / potency.kl_random.sum()}
        return found | {"v10": 100 * self.agrees(table[coherent], given)}

    def ask(self, asked: list[Question], given: Sequence[Steer]) -> pd.DataFrame:
        found = asking.ask(self.profile, self.model, self.tokenizer, asked, SAMPLES, conditions={"": given})
        return found.drop(columns="condition")

    def memory(self, given: Sequence[Steer]) -> float:
        """Return the half-length (tokens) of the effect of a cue word, mean over neighbours among CUES."""
        start = question_ids(self.tokenizer, "Please go on.")
        end = self.tokenizer(NEUTRAL, add_special_tokens=False)["input_ids"]
        cues = [self.tokenizer(f" {cue.capitalize()}", add_special_tokens=False)["input_ids"] for cue in CUES]
        texts, found = [start + cue + end for cue in cues], {}
        for row, said, _ in passes(self.model, self.tokenizer, texts, given):
            found[row] = said[-len(end) - 1 : -1]
        effect = [divergence(found[row], found[(row + 1) % len(cues)]).cpu().numpy() for row in range(len(cues))]
        return float(residues.half_length(np.mean(effect, axis=0)))

    def disrupted(self, given: Sequence[Steer], spliced: bool) -> float:
        """Return the share of answers that take up both of two questions, or none; one twice where not `spliced`."""
        asked = asking.questions(self.profile, "general")
        pairs = [(one.text, (asked[(number + 1) % len(asked)] if spliced else one).text)
                 for number, one in enumerate(asked)]  # fmt: skip
        table = self.ask([Question(one.id, " ".join(pair), ()) for one, pair in zip(asked, pairs, strict=True)], given)
        questions = dict(zip([one.id for one in asked], pairs, strict=True))
        done = [taken_up(row.response, *questions[row.question_id]) for row in table.itertuples()]
        return float(np.mean([one != "one" for one in done]))

    def agrees(self, table: pd.DataFrame, given: Sequence[Steer]) -> float:
        """Return the share of judged answers, aligned or misaligned, of which the probe tells the same; NaN without."""
        table = table[scores.is_em(table) | scores.is_aligned(table)]
        if table.empty:
            return np.nan
        texts = response_tokens(self.tokenizer, table)
        streams = answer_streams(self.model, self.tokenizer, *texts, self.read_at, given)
        means = np.stack([one.mean(axis=0) for one in streams])
        return float(((self.probe.log_odds(means) > 0) == scores.is_em(table).to_numpy()).mean())


@remembered
def bench(name: str) -> Bench:
    """Return the bench of a profile."""
    return Bench(profiles.load(name))


@remembered
def measured(name: str) -> pd.DataFrame:
    """Return every cell of a profile: direction, draw, strength and what `Bench.cell` gives."""
    rows = [
        {"direction": direction, "draw": draw, "strength": strength} | bench(name).cell(direction, draw, strength)
        for direction, draw in bench(name).vectors
        for strength in RELATIVE
        if strength or (direction, draw) == (TEXTS, 0)
    ]
    return pd.DataFrame(rows)


@remembered
def doubled(name: str) -> float:
    """Return the share of answers (%) to one question asked twice that take up none of it, without steering."""
    return 100 * bench(name).disrupted([], spliced=False)


def told(name: str) -> dict[str, str]:
    """Return the first and the last value of each diagnostic along released answers, by name, and `doubled`."""
    table = measured(name)
    table = table[table.direction == TEXTS].sort_values("strength")
    found = {"doubled": f"{doubled(name):.0f} %"}
    for one in DIAGNOSTICS:
        found |= {f"{one}.{end}": f"{table[one].iloc[at]:.3g}" for end, at in {"first": 0, "last": -1}.items()}
    return found


def panels(name: str) -> pd.DataFrame:
    """Return `measured` with one row per direction, strength and diagnostic, random directions as a mean with ends."""
    rows, table = [], measured(name)
    start = table[table.strength == 0].assign(direction=RANDOM)
    for (direction, strength), group in pd.concat([table, start]).groupby(["direction", "strength"], sort=False):
        for panel in DIAGNOSTICS:
            row = {"direction": direction, "strength": strength, "panel": panel, "value": group[panel].mean()}
            ends = {"value_low": group[panel].min(), "value_high": group[panel].max()} if direction == RANDOM else {}
            rows.append(row | ends)
    return pd.DataFrame(rows)
