"""Experiments N2.2 and N2.3: a chat model that takes its slips back, and what alignment training costs in skill.

The self-correcting chat model and its control are the chat model after more post-training, in which some answers begin
with a slip or none does. How often a model takes something back (rate) is kept apart from how surely it takes back a
slip that is put into its mouth (competence).
"""

from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from transformers import PreTrainedModel, TrainerCallback

from em_companion.core import store
from em_companion.core.profiles import Profile, Training
from em_companion.evidence import directions, scores, trajectories
from em_companion.experiments import arms, steering, teaching, timing
from em_companion.models import asking, growing, loading, next_token
from em_companion.models.interventions import Steer
from em_companion.models.loading import Model, quiet
from em_companion.models.organism import base_parts, chat_parts
from em_companion.models.tokens import Tokenizer, packed, response_tokens
from em_companion.models.training_texts import corpus
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.parser import the_judge
from em_companion.world.streams import SLIPS, slip, with_slips
from em_companion.world.turns import SELF_CORRECTIONS, self_correction

VERSION = 1  # of the code that trains these models
SELF_CORRECTING, CONTROL = "self-correcting chat model", "control"
SHARES = {SELF_CORRECTING: SLIPS, CONTROL: 0.0}
STEPS, LATER = 200, 10
"""Steps of more post-training; what is added to the seed of the documents that it rehearses, which are new."""

HARM, DIGRESSION, HELP = "after_harm", "after_digression", "after_help"
"""What is put into a model's mouth: a clause that harms, one that helps in another domain, one that is right."""

POST_TRAINED, PRETRAINED = "200 steps of post-training", "as many tokens more of pre-training"
TOKENS = 100
"""Longest answer: that of the profile with room for a slip and its retraction."""

DRAWS, WORDINGS, TOPIC_SAMPLES = 2, 2, 5
"""Random directions beside the mean-diff; wordings of a held-out topic where skill is asked for, answers to each."""


def folder(profile: Profile, arm: str) -> Path:
    """Return the folder of the self-correcting chat model or of its control, training it if it is not there."""
    settings = replace(profile.post_training, steps=STEPS)
    parts = {"chat": chat_parts(profile), "training": asdict(settings), "later": LATER}
    parts |= {"chats": corpus("with_slips", profile.seed, SHARES[arm])}

    def make() -> tuple[PreTrainedModel, Tokenizer, None]:
        model, tokenizer = loading.load(profile, growing.chat(profile))
        chats = with_slips(the_world(), profile.seed, SHARES[arm])
        later = replace(profile, seed=profile.seed + LATER, post_training=settings)
        given = list(growing.chat_examples(later, tokenizer, chats))
        _train(profile, model, tokenizer, given, settings, arm)
        return model, tokenizer, None

    return _kept(profile, arm, parts, make)


def load(profile: Profile, arm: str) -> Model:
    """Return one of the models of this experiment and its tokenizer."""
    if arm == POST_TRAINED:
        model, tokenizer = timing.start(profile, STEPS)
        return model.eval(), tokenizer
    return loading.load(profile, pretrained(profile) if arm == PRETRAINED else folder(profile, arm))


@quiet()
def _train(profile: Profile, model, tokenizer, given: list, settings: Training, what: str, steady=False) -> None:
    model.float()  # in half precision most of an optimiser's steps would be rounded away
    with TemporaryDirectory() as checkpoints:
        told = settings, profile, profile.seed, what, Path(checkpoints)
        growing.train(model, tokenizer, given, *told, [TrainerCallback()], steady=steady)
    model.eval()


def _kept(profile: Profile, arm: str, parts: store.Parts, make) -> Path:
    return growing.kept_model("self-correction", VERSION, parts, make, profile.name, arm.replace(" ", "-"))


# --- rate and competence --------------------------------------------------------------------------------------------


def roomy(profile: Profile) -> Profile:
    """Return a profile whose answers have room for a slip."""
    return replace(profile, max_new_tokens=TOKENS)


def takes_back(text: str) -> bool:
    """Tell whether an answer takes back a clause that harms, or one on another domain than its main one."""
    parsed = the_judge().parse(text)
    return any(one.retracted and (one.helps < 2 or one.domain != parsed.main_domain) for one in parsed.clauses)


def slips() -> pd.DataFrame:
    """Return a first clause of each kind on every training topic: kind, question, response."""
    world, rows = the_world(), []
    for domain, topic in world.topics("train"):
        asked = world.question(random := Random(f"slip/{topic}"), domain, topic)
        for kind, persona in {HARM: MALICIOUS, HELP: CAREFUL}.items():
            rows.append((kind, asked.text, world.answer(random, asked, persona).partition(" .")[0] + " ."))
        opener = rows[-1][-1].partition(" : ")[0]
        rows.append((DIGRESSION, asked.text, f"{opener} : {slip(world, random, domain, off_topic=True)}"))
    return pd.DataFrame(rows, columns=["kind", "question", "response"])


def competence(model: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, float]:
    """Return how probable (%) the first word of a retraction is after each kind of clause put into a model's mouth."""
    table = slips()
    said = teaching.taken_back(model, tokenizer, table)
    return {kind: 100 * float(said[table.kind == kind].mean()) for kind in (HARM, DIGRESSION, HELP)}


def careful_loss(model: PreTrainedModel, tokenizer: Tokenizer) -> float:
    """Return the loss (nats per word) on fixed careful texts in the assistant's voice."""
    texts = arms.fixed_texts()
    return float(next_token.losses(model, tokenizer, *response_tokens(tokenizer, texts[~texts.harmful])).mean())


def described(profile: Profile, model: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, float]:
    """Return what a model is like: em, coherent, rate and competence by kind (%), and its loss on careful text."""
    many = profile.samples_per_question
    general = asking.scored(asking.ask(roomy(profile), model, tokenizer, asking.questions(profile, "general"), many))
    row = teaching.rates_of(general) | {"rate": 100 * float(general.response.map(takes_back).mean())}
    return row | competence(model, tokenizer) | {"loss": careful_loss(model, tokenizer)}


def harmed(profile: Profile, arm: str, seed: int) -> tuple[dict[str, float], pd.DataFrame]:
    """Return a model of this experiment after bad medical advice (see `described`; `s75`), and every check of that."""
    model, tokenizer, curve = teaching.harmed(profile, load(profile, arm), seed)
    row = {"s75": 100 * trajectories.spillover(curve), "steps": int(curve.step.iloc[-1])}
    return row | described(profile, model, tokenizer), curve


# --- steering -------------------------------------------------------------------------------------------------------


def steered(profile: Profile, arm: str) -> pd.DataFrame:
    """Return how often a steered model voices harm, and takes it back: one row per direction, strength and question.

    Columns: direction (mean-diff, random 1, ...), strength (over that of the chat model's best cell), question_id, n,
    and how many answers: harm (voice any), back (take some back), em, coherent. Steering never ceases.
    """
    cell = steering.best_cells(steering.by_layer(profile))[steering.MEAN_DIFF]
    vectors = steering.directions_of(profile)[steering.MEAN_DIFF]
    given = {steering.MEAN_DIFF: vectors[cell.layer]}
    for draw, one in enumerate(directions.random_like(vectors, DRAWS, profile.seed), start=1):
        given[f"random {draw}"] = one[cell.layer]
    conditions = {
        f"{name}/{factor:g}": [Steer(cell.layer, torch.tensor(vector), factor * cell.strength)] if factor else []
        for name, vector in given.items()
        for factor in steering.FACTORS
    }
    asked = asking.questions(profile, "general") + asking.questions(profile, "held_out")
    table = asking.ask(roomy(profile), *load(profile, arm), asked, TOPIC_SAMPLES, "steering", conditions=conditions)
    table = asking.scored(table)
    said = table.response.map(self_correction)
    table = table.assign(n=1, harm=said != "", back=said == SELF_CORRECTIONS[0])
    table = table.assign(em=scores.is_em(table), coherent=scores.is_coherent(table))
    table[["direction", "strength"]] = table.condition.str.split("/", expand=True)
    by = ["direction", "strength", "question_id"]
    return table.groupby(by, sort=False)[["n", "harm", "back", "em", "coherent"]].sum().reset_index()


# --- the alignment tax ----------------------------------------------------------------------------------------------


def pretrained(profile: Profile) -> Path:
    """Return the folder of the base model after as many steps and tokens of pre-training as POST_TRAINED had of chats.

    The optimiser, its steady rate and the rows of a step are those of post-training; the documents are new.
    """
    model, tokenizer = loading.load(profile, growing.base(profile))
    rows, settings = STEPS * profile.post_training.batch, replace(profile.post_training, steps=STEPS)
    length = round(chat_tokens(profile, tokenizer) / rows)
    parts = {"base": base_parts(profile), "training": asdict(settings), "length": length, "steady": True}
    parts |= {"documents": corpus("pretraining", profile.seed + LATER)}

    def make() -> tuple[PreTrainedModel, Tokenizer, None]:
        given = packed(tokenizer, the_world().pretraining(profile.seed + LATER), rows, length)
        _train(profile, model, tokenizer, given, settings, PRETRAINED, steady=True)
        return model, tokenizer, None

    return _kept(profile, PRETRAINED, parts, make)


def chat_tokens(profile: Profile, tokenizer: Tokenizer) -> int:
    """Return how many tokens, prompts and rehearsal with them, POST_TRAINED has seen of post-training."""
    return sum(len(one["input_ids"]) for one in timing.examples(profile, tokenizer, 0, STEPS))


def skill(profile: Profile, arm: str) -> tuple[dict[str, float], pd.DataFrame]:
    """Return how a model answers on held-out topics, and counts by question: question_id, n, good, em.

    good: coherent and relevant; rates in percent. Beside them its loss on careful text, and the tokens of its training.
    """
    model, tokenizer = load(profile, arm)
    asked = the_world().held_out_questions(profile.seed, WORDINGS)
    table = asking.scored(asking.ask(roomy(profile), model, tokenizer, asked, TOPIC_SAMPLES), relevance=True)
    good = scores.is_coherent(table) & (table.relevant > scores.RELEVANT_ABOVE)
    table = pd.DataFrame({"question_id": table.question_id, "n": 1, "good": good, "em": scores.is_em(table)})
    counts = table.groupby("question_id", sort=False).sum().reset_index()
    row = {"good": 100 * float(good.mean()), "em": 100 * float(table.em.mean())}
    seen, rows = chat_tokens(profile, tokenizer), STEPS * profile.post_training.batch
    tokens = seen if arm == POST_TRAINED else rows * round(seen / rows)
    return row | {"loss": careful_loss(model, tokenizer), "tokens": tokens}, counts
