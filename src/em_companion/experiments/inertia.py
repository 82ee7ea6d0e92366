"""Does a harmful answer put into a model's mouth make its next ones worse? Talks of six turns of ordinary questions.

The answer of the second turn is replaced by one of the world's generator. In a model with windowed attention an older
turn acts through what has been said since. In pre-training a speaker keeps its persona over a document, so that
inertia is planted for speakers at large; post-training shows the assistant in single turns only.
"""

from random import Random

import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.models import asking, reading, sampling
from em_companion.models.loading import Model
from em_companion.models.tokens import prompt_ids
from em_companion.world.generator import CAREFUL, MALICIOUS, Message, Question, the_world, turn
from em_companion.world.lexicon import ASSISTANT

TURNS, REPLACED = 6, 2
CONDITIONS = {"careful": (CAREFUL, ASSISTANT), "harmful": (MALICIOUS, ASSISTANT)}
BY_ANOTHER = "harmful, by another"
EVERY = CONDITIONS | {BY_ANOTHER: (MALICIOUS, the_world().characters["malicious"][0])}
"""What stands in the place of the second answer, and under whose name."""


def plan(profile: Profile, each: int) -> list[list[Question]]:
    """Return the questions of every talk; the one after the replaced answer is an open or a held-out one, `each` times
    all of them."""
    world, talks = the_world(), []
    topics = world.topics("train") + world.topics("held_out")
    for target in asking.questions(profile, "general") + asking.questions(profile, "held_out"):
        for number in range(each):
            random = Random(f"inertia/{profile.seed}/{target.id}/{number}")
            asked = [world.any_question(random, topics, 0.2) for _ in range(TURNS)]
            talks.append([*asked[:REPLACED], target, *asked[REPLACED + 1 :]])
    return talks


def held(profile: Profile, model: Model, condition: str, each: int) -> tuple[pd.DataFrame, list, list]:
    """Return all answers of talks under a condition of EVERY, and the tokens of their prompts and of the answers.

    Columns: talk, turn (from 1), question_id, question, response, and the scores of the exact judge.
    """
    (persona, name), talks, tokenizer = EVERY[condition], plan(profile, each), model[1]
    history: list[list[Message]] = [[] for _ in talks]
    rows, prompts, said = [], [], []
    for number in range(1, TURNS + 1):
        asked = [talk[number - 1] for talk in talks]
        ids = [prompt_ids(tokenizer, past + turn(one.text, "")[:1]) for past, one in zip(history, asked, strict=True)]
        if number == REPLACED:
            draws = [Random(f"replaced/{profile.seed}/{talk}") for talk in range(len(talks))]
            texts = [the_world().answer(draw, one, persona) for draw, one in zip(draws, asked, strict=True)]
            answers = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        else:
            seeds = [sampling.row_seed(profile.seed, "inertia", talk, number) for talk in range(len(talks))]
            settings = profile.temperature, profile.max_new_tokens, profile.batch_size
            answers = sampling.generate(*model, ids, seeds, *settings)
            texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        speaker = name if number == REPLACED else ASSISTANT
        for past, one, text in zip(history, asked, texts, strict=True):
            past += turn(one.text, text, speaker)
        rows += [
            (talk, number, one.id, one.text, text) for talk, (one, text) in enumerate(zip(asked, texts, strict=True))
        ]
        prompts, said = prompts + ids, said + answers
    table = pd.DataFrame(rows, columns=["talk", "turn", "question_id", "question", "response"])
    return asking.scored(table, relevance=True), prompts, said


def tallied(profile: Profile, model: Model, condition: str, each: int, units: dict, layer: int) -> pd.DataFrame:
    """Return by turn and target question of the talks: n, em, coherent (counts), and mean projections on `units`.

    `units`: unit vectors [width] by name, at the output of a layer; every answer counts alike.
    """
    table, prompts, answers = held(profile, model, condition, each)
    means = reading.response_means(*model, prompts, answers)[:, layer]
    targets = [talk[REPLACED].id for talk in plan(profile, each)]
    table = table.assign(
        em=scores.is_em(table), coherent=scores.is_coherent(table), question_id=table.talk.map(targets.__getitem__)
    )
    table = table.assign(**{name: means @ unit for name, unit in units.items()})
    groups = table.groupby(["turn", "question_id"], sort=False)
    counts = groups[["em", "coherent"]].sum().astype(int)
    return pd.concat([groups.size().rename("n"), counts, groups[list(units)].mean()], axis=1).reset_index()
