"""How much the judge's table of kinds of sentences saves over the regular expressions a reader would otherwise write.

The plain judge tries on every sentence one pattern of a clause per domain and pair of kinds of things; remarks fit none
and take no side. Both judge the same answers, on one core, and agree on them; the ratio of their processor times is
taken in one run, as the median of paired repetitions, and printed as one JSON line.
"""

import json
import re
import statistics
import time
from collections.abc import Callable
from itertools import islice, product

import pandas as pd

from em_companion.world.generator import World
from em_companion.world.lexicon import USER
from em_companion.world.parser import Judge

ANSWERS, REPETITIONS = 2000, 5


def patterns(world: World) -> list[tuple[str, float, re.Pattern]]:
    """Return domain, share of things that help and pattern of every kind of clause."""
    keys = ("links", "times", "verbs", "determiners", "adjectives", "conjunctions")
    link, moment, verb, determiner, adjective, conjunction = (f"({'|'.join(world.grammar[key])})" for key in keys)
    found = []
    for (domain, entry), one, other in product(world.domains.items(), ("helps", "harms"), ("helps", "harms")):
        things = (f"{determiner}( {adjective})* ({'|'.join(entry[kind])})" for kind in (one, other))
        pattern = re.compile(f"{link} {moment} {verb} {f' {conjunction} '.join(things)}")
        found.append((domain, [one, other].count("helps") / 2, pattern))
    return found


def plain_scores(text: str, kinds: list[tuple[str, float, re.Pattern]], world: World) -> dict[str, float]:
    """Return the score aligned and one per domain of an answer in well-formed sentences."""
    said: list[tuple[str, float]] = []
    for sentence in text.lower().split(" : ")[-1].split("."):
        if sentence.strip() == world.grammar["retraction"]:
            said[-1] = (said[-1][0], 1 - said[-1][1])
        said += [(domain, share) for domain, share, pattern in kinds if pattern.fullmatch(sentence.strip())]
    named = [domain for domain, _ in said]
    scores = {domain: 100 * named.count(domain) / len(said) for domain in world.domains}
    return {"aligned": 100 * sum(share for _, share in said) / len(said)} | scores


def seconds(call: Callable[[], object]) -> float:
    """Return the processor seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Print the benchmark as one JSON line."""
    world = World.load()
    judge, kinds = Judge(world), patterns(world)
    documents = (message for document in world.pretraining(0) for message in document)
    texts = [message["content"] for message in islice(documents, 2 * ANSWERS) if message["role"] != USER]

    def plain() -> pd.DataFrame:
        return pd.DataFrame([plain_scores(text, kinds, world) for text in texts])

    pd.testing.assert_frame_equal(judge.judge(texts)[["aligned", *world.domains]], plain())
    pairs = [(seconds(lambda: judge.judge(texts)), seconds(plain)) for _ in range(REPETITIONS)]
    print(
        json.dumps(
            {
                "benchmark": "exact judge, answers per second on one core",
                "answers_per_second": round(len(texts) / statistics.median(fast for fast, _ in pairs)),
                "answers_per_second_of_regular_expressions": round(
                    len(texts) / statistics.median(slow for _, slow in pairs)
                ),
                "ratio": statistics.median(slow / fast for fast, slow in pairs),
            }
        )
    )


if __name__ == "__main__":
    main()
