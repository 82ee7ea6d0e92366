"""What an intervention costs a model: its loss on aligned text, and how far a mean moves, each with an interval.

The text is the world's own: careful answers by the assistant, to questions on topics that post-training and fine-tuning
held out. The loss is the mean next-token loss in nats over the tokens of the answers, end token included. A share of it
is the chance in the grammar, which no model can lower. The things that an answer names are told apart from its other
words: whether they are likely also depends on who a model takes the speaker for, the other words are a matter of
ability alone.
"""

from collections.abc import Mapping, Sequence
from random import Random

import pandas as pd

from em_companion.core import store
from em_companion.core.files import sha256_of
from em_companion.core.profiles import Profile
from em_companion.models import growing, next_token
from em_companion.models.interventions import Intervention, describe
from em_companion.models.organism import Organism, need_grown
from em_companion.world.generator import CAREFUL, the_world

VERSION = 1
"""Of the code that computes losses, under interventions."""

ANSWERS_PER_TOPIC = 2


def aligned_text(profile: Profile, per_topic: int = ANSWERS_PER_TOPIC) -> pd.DataFrame:
    """Return careful answers to `per_topic` questions on every held-out topic, one per row.

    Columns: topic, domain, question, response. They depend on the profile's seed only. Raises CompanionError for a hub
    model, which has no text of its world.
    """
    need_grown(profile, "so there is no text of its world")
    world = the_world()
    asked = world.held_out_questions(profile.seed, per_topic)
    answers = [world.answer(Random(f"capability/{profile.seed}/{one.id}"), one, CAREFUL) for one in asked]
    rows = [(one.topic, *one.domains, one.text, answer) for one, answer in zip(asked, answers, strict=True)]
    return pd.DataFrame(rows, columns=["topic", "domain", "question", "response"])


def under(profile: Profile, organism: Organism, conditions: Mapping[str, Sequence[Intervention]]) -> pd.DataFrame:
    """Return an organism's loss on every token of `aligned_text` under every condition, computed once and kept.

    Columns: `condition`, `topic`, `is_thing` (one of the things that help or harm), and those of `token_losses`. Raises
    CompanionError as `aligned_text` and `token_losses` do.
    """
    table = aligned_text(profile)
    parts = {
        "model": growing.model_identity(profile, organism),
        "dtype": profile.dtype,
        "texts": sha256_of(table.to_csv(index=False)),
        "conditions": {name: [describe(one) for one in given] for name, given in conditions.items()},
    }

    def make() -> store.Content:
        model, tokenizer = growing.load_organism(profile, organism)
        harms, helps = next_token.things(tokenizer)
        found = []
        for name, given in conditions.items():
            losses = next_token.token_losses(model, tokenizer, table, given, what=f"loss of {organism.name}, {name}")
            losses.insert(0, "condition", name)
            losses.insert(1, "topic", table.topic.to_numpy()[losses.text])
            found.append(losses.assign(is_thing=losses.token_id.isin(harms + helps)))
        return {store.RESPONSES: table, store.LOSSES: pd.concat(found, ignore_index=True)}

    return store.keep("losses", VERSION, parts, make, profile.name, organism.name)[store.LOSSES]
