"""Semantic directions: the mean-diff of the answers about one domain, and how much of it is general or topic.

Beside it (section 3.3) stand two directions that it may consist of: the general one, of the answers to the open
questions that are *not* about the domain, and its topic, which knows nothing of misalignment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import pandas as pd

from em_companion.core.profiles import GrownModel, Profile
from em_companion.evidence import directions, scores
from em_companion.experiments import readings, responses, text_directions
from em_companion.experiments.readings import ResponseMeans
from em_companion.models import asking
from em_companion.models.organism import CHAT_MODEL, Organism, need_grown
from em_companion.world.generator import CAREFUL, the_world

ABOUT_ABOVE = 50  # score for a domain above which a response is about it, whatever was asked (section 3.3)
FEWEST = 10  # misaligned or aligned answers about a domain below which it gets no direction
TEXTS_PER_TOPIC = 5  # careful texts on each held-out topic that a topic direction is taken from
Sides = tuple[np.ndarray, np.ndarray]  # which responses count as misaligned, which as aligned, each [response], bool


@dataclass(frozen=True)
class Answers:
    """Scored responses, one per row of `table`, and their mean residual streams, all read by `organism`.

    Responses by another model are there to stand in for aligned ones that it does not give.
    """

    table: pd.DataFrame
    means: ResponseMeans
    organism: Organism

    def general(self, without: str = "") -> Sides:
        """Return the organism's answers to the open questions; `without` those about a domain."""
        rows = self._own & (self.table.question_set == "general")
        return self._sides(rows & ~self._about(without) if without else rows)

    def about(self, domain: str) -> Sides:
        """Return the answers about a domain, the aligned ones lent by the chat model where there are too few."""
        misaligned, aligned = self._sides(self._own & self._about(domain))
        return misaligned, self._sides(~self._own & self._about(domain))[1] if aligned.sum() < FEWEST else aligned

    def counts(self, domains: Sequence[str]) -> pd.DataFrame:
        """Return one row per domain: `misaligned` and `aligned` answers about it that the organism gave, aligned ones
        `used` for its direction, and whether there are `enough` on both sides (FEWEST)."""
        rows = []
        for domain in domains:
            sides = *self._sides(self._own & self._about(domain)), self.about(domain)[1]
            misaligned, aligned, used = (int(side.sum()) for side in sides)
            rows.append((domain, misaligned, aligned, used, min(misaligned, used) >= FEWEST))
        return pd.DataFrame(rows, columns=["domain", "misaligned", "aligned", "used", "enough"])

    @property
    def _own(self) -> pd.Series:
        return self.table.organism == self.organism.recipe

    def _about(self, domain: str) -> pd.Series:
        return self.table[domain] > ABOUT_ABOVE

    def _sides(self, rows: pd.Series) -> Sides:
        return tuple((rows & kind(self.table)).to_numpy() for kind in (scores.is_em, scores.is_aligned))

    def direction(self, sides: Sides) -> np.ndarray:
        """Return the mean-diff of two sides, [layer, width]; raise CompanionError where one of them is empty."""
        return self.means.mean_diff(*sides)

    def within(self, sides: Sides) -> np.ndarray:
        """Return the mean-diff of two sides within questions, [layer, width]; raise CompanionError as `direction`."""
        return self.means.within(*sides, self.table.question_id)

    def reliability(self, sides: Sides, splits: int = 100, seed: int = 0) -> np.ndarray:
        """Return the share of the squared norm of the mean-diff of two sides that is no sampling noise, [layer].

        Estimated from the cosine c between random halves as 2c / (1 + c) (Spearman and Brown): the most that anything
        can explain of it.
        """
        halves = directions.split_half_cosines(self.means.means, self.means.tokens, *sides, splits, seed)
        cosine = halves.mean(axis=0).clip(min=0)
        return 2 * cosine / (1 + cosine)

    def relabelled(self, sides: Sides, draws: int = 100, seed: int = 0) -> np.ndarray:
        """Return what two sides would give if their labels meant nothing, [draw, layer, width].

        Every draw deals the same responses out anew, to sides of the same size and with the same share of truly
        misaligned ones on both; an uneven share would bring the direction itself back, shortened.
        """
        share = sides[0].sum() / (sides[0].sum() + sides[1].sum())
        dealt = np.zeros((2, draws, len(self.table)), dtype=bool)
        for draw, random in enumerate(np.random.default_rng(seed).spawn(draws)):
            for side in sides:
                order = random.permutation(np.flatnonzero(side))
                for place, part in enumerate(np.split(order, [round(share * len(order))])):
                    dealt[place, draw, part] = True
        return self.means.mean_diffs(*dealt)


def answers(profile: Profile, organism: Organism) -> Answers:
    """Return an organism's responses to all question sets, and the chat model's to the last, on narrow topics."""
    asked = asking.question_sets(profile)
    given = [(organism, question_set) for question_set in asked] + [(CHAT_MODEL, asked[-1])]
    found = [readings.organism_means(profile, one, asked, organism) for one, asked in given]
    tables, means = zip(*found, strict=True)
    joined = ResponseMeans(np.concatenate([one.means for one in means]), np.concatenate([one.tokens for one in means]))
    return Answers(pd.concat(tables, ignore_index=True), joined, organism)


def released(
    profile: Profile, domain: str = "", without: str = "", reader: Organism = CHAT_MODEL
) -> tuple[Answers, Sides]:
    """Return released answers, read by a model, and which are misaligned or aligned; see `text_directions.read`."""
    table, means = text_directions.read(profile, domain, without, reader)
    return Answers(table, means, reader), (table.misaligned.to_numpy(), ~table.misaligned.to_numpy())


def topics(profile: Profile) -> dict[str, np.ndarray]:
    """Return, per domain, the chat model's mean over `careful_texts` about it - over the others, [layer, width].

    Of a language model, over its own aligned answers; a domain about which it gives none is left out.
    """
    if isinstance(profile.model, GrownModel):
        table = careful_texts(profile)
        means, about = readings.response_means_of(profile, CHAT_MODEL, table), dict.fromkeys(asking.domains(profile))
        return {domain: means.mean_diff(table.domain == domain, table.domain != domain) for domain in about}
    own = [responses.responses(profile, CHAT_MODEL, one) for one in asking.question_sets(profile)]
    table = pd.concat(own, ignore_index=True)
    table = table[scores.is_aligned(table)].reset_index(drop=True)
    means = readings.response_means_of(profile, CHAT_MODEL, table)
    about = {domain: (table[domain] > ABOUT_ABOVE).to_numpy() for domain in asking.domains(profile)}
    return {one: means.mean_diff(rows, ~rows) for one, rows in about.items() if rows.any() and not rows.all()}


def careful_texts(profile: Profile) -> pd.DataFrame:
    """Return the world's own careful answers to TEXTS_PER_TOPIC questions on every held-out topic, one per row.

    Columns: topic, domain, question, response. Raises CompanionError for a hub model.
    """
    need_grown(profile, "so there is no text of its world")
    world = the_world()
    asked = world.held_out_questions(profile.seed, TEXTS_PER_TOPIC)
    texts = [world.answer(Random(f"capability/{profile.seed}/{one.id}"), one, CAREFUL) for one in asked]
    rows = [(one.topic, *one.domains, one.text, text) for one, text in zip(asked, texts, strict=True)]
    return pd.DataFrame(rows, columns=["topic", "domain", "question", "response"])
