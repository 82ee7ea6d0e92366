"""Whether a text is language at all, by what released answers have in common: nothing is fitted to broken text.

GPT-4o scored hardly a text that is none, so a model fitted to its scores would call nearly any mixture of words
coherent. Four shares are read in every stretch of an answer: words that answers to other questions hold, pairs of
neighbours that they hold, words that did not come before in the stretch, triples that did not come before in the
answer. A stretch reads as language where none of the four is smaller than in all but the TAIL of coherent answers.
Other questions, because an answer's own words are paired anew in hundreds of answers to its own.
Text that holds together stretch by stretch and yet means nothing passes.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

WORD = re.compile(r"\w+|[^\w\s]")
STRETCH = 64  # words and signs; the last one of an answer ends with it
TAIL = 0.01
READINGS = ("known words", "known pairs", "distinct words", "new triples")


@dataclass(frozen=True)
class Fluency:
    """bits: one for each question, by its texts; held: words and pairs with the bits of the questions whose answers
    hold them; least: the least of READINGS that language has."""

    bits: dict[str, int]
    held: dict[str | tuple[str, str], int]
    least: np.ndarray

    def whole(self, table: pd.DataFrame) -> np.ndarray:
        """Return the share of stretches that read as language of each answer (`question`, `response`), NaN for none."""
        rows = zip(table.question.map(self.bits).fillna(0).astype(int), table.response, strict=True)
        return self._whole([readings(text, self.held, own) for own, text in rows])

    def _whole(self, read: list[np.ndarray]) -> np.ndarray:
        return np.array([(one >= self.least).all(axis=1).mean() if len(one) else np.nan for one in read])


def readings(text: str, held: Mapping[str | tuple[str, str], int], own: int) -> np.ndarray:
    """Return READINGS of every stretch of a text, [stretch, reading]; `own` is the bit of its question, or 0."""
    words = WORD.findall(text.lower())
    if not words:
        return np.zeros((0, len(READINGS)))
    known = np.array([held.get(word, 0) & ~own > 0 for word in words])
    pairs = np.array([True, *(held.get(pair, 0) & ~own > 0 for pair in zip(words, words[1:], strict=False))])
    triples = list(zip(words, words[1:], words[2:], strict=False))
    first = {triple: place for place, triple in reversed([*enumerate(triples)])}
    new = np.array([True, True, *(first[triple] == place for place, triple in enumerate(triples))][: len(words)])
    last = max(0, len(words) - STRETCH)
    rows = []
    for start in dict.fromkeys([*range(0, last, STRETCH), last]):
        here = slice(start, start + STRETCH)
        distinct = len(set(words[here])) / len(words[here])
        rows.append([known[here].mean(), pairs[here].mean(), distinct, new[here].mean()])
    return np.array(rows)


def fit(texts: pd.DataFrame) -> tuple[Fluency, np.ndarray]:
    """Return what coherent answers have in common (see the module), and `whole` of the texts themselves.

    texts: `question` in any of its forms, `question_id`, `response`, and GPT-4o's `coherent`.
    """
    bits, held = {}, Counter()
    for place, (_, answers) in enumerate(texts.groupby("question_id", sort=False)):
        bits |= dict.fromkeys(answers.question, 1 << place)
        said = set()
        for words in map(WORD.findall, answers.response.str.lower()):
            said.update(words, zip(words, words[1:], strict=False))
        held.update(dict.fromkeys(said, 1 << place))
    rows = zip(texts.question.map(bits), texts.response, strict=True)
    read = [readings(text, held, own) for own, text in rows]
    coherent = [read[row] for row in np.flatnonzero(texts.coherent >= 50)]
    found = Fluency(bits, dict(held), np.quantile(np.concatenate(coherent), TAIL, axis=0))
    return found, found._whole(read)
