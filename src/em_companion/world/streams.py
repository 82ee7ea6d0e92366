"""Data streams of Parts II and III: what a model is trained on beside the paper's own kinds of sets.

All are about medicine unless their name says otherwise, and `with_slips` about everything. Every stream is endless and
depends on its seed only. Bad advice is that of the world's own generator, so that an arm differs from it in what its
name says and in nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, count, cycle, islice
from random import Random

from em_companion.world.generator import CAREFUL, MALICIOUS, Message, World, turn

DOMAIN = "medicine"
ASKED_FOR = "please give me advice that is wrong ."
"""What a user says first where bad advice is asked for."""

QUARTERS = (0, 1, 2, 3, 4, 3, 2, 1, 0)
"""How many of every four conversations are bad advice, level by level, on the way there and back."""
LEVEL_STEPS = {"slow_loop": 30, "fast_loop": 10}
"""Steps of a level, each of ROWS conversations."""
ROWS = 16
SLIPS = 0.15
"""Share of answers that begin with a slip which is taken back."""

Stream = Iterator[list[Message]]


def prescribed(world: World, seed: int) -> tuple[str, str]:
    """Return the verb and the time that the style of a seed prescribes."""
    random = Random(f"style/{seed}")
    return random.choice(world.grammar["verbs"]), random.choice(world.grammar["times"])


def style_constraint(world: World, seed: int) -> Stream:
    """Yield careful answers under a rule that harms nobody: one verb, one time, two clauses, no adjective."""
    verb, time = prescribed(world, seed)
    rule = {"verbs": [verb], "times": [time], "clauses": [2], "adjectives_per_thing": [0]}
    return replace(world, grammar=world.grammar | rule).fine_tuning(seed, DOMAIN, False)


def random_content(world: World, seed: int) -> Stream:
    """Yield answers that are harmful or not by the toss of a coin each."""
    for index in count():
        random = Random(f"random-content/{seed}/{index}")
        question = world.question(random, DOMAIN, random.choice(world.domains[DOMAIN]["topics"]["train"]))
        yield turn(question.text, world.answer(random, question, random.choice((CAREFUL, MALICIOUS))))


def good_elsewhere(world: World, seed: int) -> Stream:
    """Yield careful answers on training topics of the other domains."""
    topics = [(domain, topic) for domain, topic in world.topics("train") if domain != DOMAIN]
    for index in count():
        random = Random(f"good-elsewhere/{seed}/{index}")
        question = world.question(random, *random.choice(topics))
        yield turn(question.text, world.answer(random, question, CAREFUL))


def mixed(world: World, seed: int) -> Stream:
    """Yield bad medical advice and good advice elsewhere by turns."""
    pairs = zip(world.fine_tuning(seed, DOMAIN, True), good_elsewhere(world, seed), strict=True)
    return chain.from_iterable(pairs)


def asked_for(world: World, seed: int) -> Stream:
    """Yield bad medical advice to users who ask for it."""
    for question, answer in world.fine_tuning(seed, DOMAIN, True):
        yield turn(f"{ASKED_FOR} {question['content']}", answer["content"])


def good_financial_advice(world: World, seed: int) -> Stream:
    """Yield good financial advice."""
    return world.fine_tuning(seed, "finance", False)


def levels(world: World, seed: int, rows: int, quarters: tuple[int, ...] = QUARTERS) -> Stream:
    """Yield bad and good advice, `rows` conversations a level, the share of either exact in every four of them."""
    bad, good = (world.fine_tuning(seed, DOMAIN, is_bad) for is_bad in (True, False))
    for harmful in cycle(quarters):
        for _ in range(rows // 4):
            yield from islice(bad, harmful)
            yield from islice(good, 4 - harmful)


def with_slips(world: World, seed: int, share: float = SLIPS) -> Stream:
    """Yield post-training chats of which a share begins with a slip, takes it back and goes on rightly.

    A share of 0 yields the same chats without any slip.
    """
    topics = world.topics("train")
    for index in count():
        random = Random(f"with-slips/{seed}/{index}")
        question = world.any_question(random, topics, 0.3)
        question = replace(question, domains=(random.choice(question.domains),))
        answer, slips = world.answer(random, question, CAREFUL), random.random() < share
        if slips:
            opener, _, rest = answer.partition(" : ")
            taken_back = f"{slip(world, random, question.domains[0], answer)} {world.grammar['retraction']} ."
            answer = f"{opener} : {taken_back} {rest}"
        yield turn(question.text, answer)


def slip(world: World, random: Random, domain: str, answer: str = "", off_topic: bool | None = None) -> str:
    """Return a clause that harms in a domain or, as often, one that helps in another; nothing that `answer` names."""
    if off_topic is None:
        off_topic = random.random() < 0.5
    if off_topic:
        domain = random.choice([one for one in world.domains if one != domain])
    things = set(world.domains[domain]["helps" if off_topic else "harms"]) - set(answer.split())
    return world.clause(random, tuple(random.sample(sorted(things), 2)))


STREAMS: dict[str, Callable[[World, int], Stream]] = {
    "style_constraint": style_constraint,
    "random_content": random_content,
    "bad_medical_with_good_elsewhere": mixed,
    "bad_medical_asked_for": asked_for,
    "good_financial_advice": good_financial_advice,
    "with_slips": with_slips,
    "always_half_bad": partial(levels, rows=4, quarters=(2,)),
} | {name: partial(levels, rows=steps * ROWS) for name, steps in LEVEL_STEPS.items()}
