"""What a profile will cost, estimated before anything is downloaded, sampled or paid: disk, memory, hours, requests.

Answers are counted as the pages ask for them; how long each is, and how fast a card is, are round numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import GrownModel, Module, Profile
from em_companion.judges.base import SCORES
from em_companion.models import weights
from em_companion.models.organism import MONITOR_SAMPLES, Organism, organisms_of

QUESTIONS, HELD_OUT = 8, 40  # open ones, of which each has a medical twin, and of a grown world on held-out topics
ANSWER_TOKENS = {"grown": 49, "hub": 125}  # of a mean answer: profile cpu, and a quarter of the released answers' signs
PROMPT_TOKENS = 50  # a question in the chat template
JUDGE_TOKENS = 300  # a quarter of the signs of an authors' prompt, with the question
JUDGED_PER_SECOND = 16  # eight requests at once, half a second each
TRAINING_TOKENS = 130  # of a conversation to train on: 914,000 in the authors' 7,049 on medicine
BYTES = 2  # of a number in bfloat16
READERS = 2  # models that read an organism's answers, each keeping a mean residual stream in float32


class Card(NamedTuple):
    """What the hours depend on: memory in GB, its bandwidth in GB/s, and 10¹² operations in bfloat16 a second."""

    name: str
    memory: float
    bandwidth: float
    speed: float


CARDS = {
    # NVIDIA's data sheets, dense tensor cores, SXM boards where there are several.
    "cuda": (
        Card("L4 24 GB", 24, 300, 121),
        Card("RTX 4090 24 GB", 24, 1008, 165),
        Card("L40S 48 GB", 48, 864, 362),
        Card("A100 80 GB", 80, 2039, 312),
        Card("H100 80 GB", 80, 3350, 989),
        Card("H200 141 GB", 141, 4800, 989),
    ),
    # Of a cloud machine, by a copy and by a product of matrices.
    "cpu": (Card("two CPU cores", 8, 10, 0.1),),
}


class Asked(NamedTuple):
    """Answers that a page asks for: conditions, questions under each, and answers to each."""

    page: str
    conditions: int
    questions: int
    samples: int

    @property
    def answers(self) -> int:
        return self.conditions * self.questions * self.samples


def asked(profile: Profile) -> Iterator[Asked]:
    """Yield what the pages of a build ask a profile's models, checkpoints of training among it."""
    grown, models = isinstance(profile.model, GrownModel), organisms_of(profile)
    layers, swept, sweep = profile.model.layers, len(profile.sweep_layers), profile.sweep_samples
    every = 2 * QUESTIONS
    yield Asked("2, answers of every model", len(models), every, profile.samples_per_question)
    if grown:
        yield Asked("2, on held-out topics", len(models), HELD_OUT, 5)
    else:
        checks = sum(_checkpoints(profile, one) for one in models)
        yield Asked("2, at checkpoints of training", checks, QUESTIONS, MONITOR_SAMPLES)
    yield Asked("3.2, layers and strengths", 2 * swept * 5, QUESTIONS, sweep)
    yield Asked("3.2, best cells of all", 2, QUESTIONS, profile.samples_per_question)
    yield Asked("3.2, best cells of each layer", swept + 1, QUESTIONS, 2 * sweep)
    yield Asked("3.2, random vectors", 6 * (swept + 1), QUESTIONS, max(1, sweep // 2))
    yield Asked("3.6, strengths", 16, QUESTIONS, 2 * sweep)
    domains = 10 if grown else 3
    yield Asked("3.3, semantic directions", 4 * (2 + domains), QUESTIONS, sweep)
    yield Asked("3.3, their parts", 5 + 3 * domains, QUESTIONS, max(1, sweep // 2))
    yield Asked("3.3, their parts on narrow topics", 5 + 3 * domains, HELD_OUT if grown else QUESTIONS, 2)
    yield Asked("3.4, ablations of the nine-adapter organism", 30 + 2 * layers, QUESTIONS, 2 * sweep)
    yield Asked("3.4, ablations of the others", 4 * 9, QUESTIONS, sweep)
    rank_one = {one.recipe for one in models if one.data and profile.recipes[one.recipe].rank == 1}
    if "nine-adapter" in rank_one:
        yield Asked("4.2, adapters off", 10, every, sweep)
        yield Asked("4.2, pairs of adapters off", 36, every, max(2, sweep // 5))
        yield Asked("4.3, grid of scale factors", 38, every, 5)
        yield Asked("4.3, scaled groups", 6, every, 5 + 2 * sweep)
        yield Asked("D, direction removed, nine adapters", 20, QUESTIONS, sweep)
        yield Asked("J, patched scalars", 4, every, 2 * sweep)
    if "single-adapter" in rank_one:
        yield Asked("D, direction removed, single adapter", 9, QUESTIONS, 2 * sweep)
    if grown:
        yield Asked("X, where to steer", 18 * ((layers - 1) // 2), QUESTIONS, max(1, sweep // 2))
        yield Asked("X, best cells", 12, QUESTIONS, 5 * sweep // 2)
        yield Asked("X, ablations", 5 * (3 + layers), QUESTIONS, sweep)


def _checkpoints(profile: Profile, organism: Organism) -> int:
    if not organism.data or profile.published(organism.recipe, organism.data):
        return 0
    settings = profile.fine_tuning_of(organism.recipe)
    return ceil(settings.steps / settings.evaluate_every)


@dataclass(frozen=True)
class Plan:
    """The estimate of a profile. Disk and memory in bytes; `dollars`: None for a judge that costs nothing.

    hours: by card, how many of them its memory asks for and the hours that bandwidth and arithmetic cannot go below.
    """

    profile: str
    weights: int
    adapters: int
    artefacts: int
    memory: float
    memory_here: float
    answers: int
    tokens: int
    training_tokens: int
    asked: list[dict[str, Any]]
    hours: list[dict[str, Any]]
    requests: int
    tokens_in: int
    tokens_out: int
    judge_hours: float
    dollars: float | None


def plan(profile: Profile, price: tuple[float, float] | None = None) -> Plan:
    """Return what a profile will cost; `price`: dollars for a million of a judge's tokens in and out."""
    rows = [one for one in asked(profile) if one.answers]
    answers = sum(one.answers for one in rows)
    tokens = answers * _answer_tokens(profile)
    trained = [one for one in organisms_of(profile) if one.data and not profile.published(one.recipe, one.data)]
    tunings = [profile.fine_tuning_of(one.recipe) for one in trained]
    training_tokens = sum(one.steps * one.batch * one.gradient_accumulation * TRAINING_TOKENS for one in tunings)
    own = rows[0].answers + (rows[1].answers if isinstance(profile.model, GrownModel) else 0)
    read = own * READERS * profile.model.layers * profile.model.shape.hidden * 4
    requests = answers * len(SCORES) * (profile.judge not in ("exact", "fitted"))
    tokens_in, tokens_out = requests * (JUDGE_TOKENS + _answer_tokens(profile)), requests
    dollars = (tokens_in * price[0] + tokens_out * price[1]) / 1e6 if price else None
    return Plan(
        profile.name,
        BYTES * parameters(profile),
        sum(4 * _lora_parameters(profile, one.recipe) for one in organisms_of(profile) if one.data),
        read + answers * _answer_tokens(profile) * 4,
        memory_needed(profile),
        weights.memory(profile),
        answers,
        tokens,
        training_tokens,
        [one._asdict() | {"answers": one.answers} for one in rows],
        list(_hours(profile, tokens, training_tokens)),
        requests,
        tokens_in,
        tokens_out,
        round(requests / JUDGED_PER_SECOND / 3600, 2),
        0.0 if not requests else dollars,
    )


def _answer_tokens(profile: Profile) -> int:
    return min(profile.max_new_tokens, ANSWER_TOKENS[profile.model.source])


def _matrices(profile: Profile) -> dict[Module, tuple[int, int]]:
    hidden, mlp, kv = profile.model.shape.hidden, profile.model.shape.mlp, profile.model.shape.kv
    attention = {"q_proj": (hidden, hidden), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (hidden, hidden)}
    return attention | {"gate_proj": (hidden, mlp), "up_proj": (hidden, mlp), "down_proj": (mlp, hidden)}


def parameters(profile: Profile) -> int:
    """Return the number of a model's parameters, without those of its norms and biases."""
    layers = profile.model.layers * sum(first * second for first, second in _matrices(profile).values())
    shape = profile.model.shape
    return layers + shape.vocabulary * shape.hidden * (1 if shape.tied else 2)


def _lora_parameters(profile: Profile, recipe: str) -> int:
    settings, matrices = profile.recipes[recipe], _matrices(profile)
    return len(profile.layers_of(recipe)) * settings.rank * sum(sum(matrices[one]) for one in settings.modules)


def _hours(profile: Profile, tokens: int, training_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield hours by card: a step reads all weights and the cache of all rows, and two operations a parameter."""
    rows, size = profile.batch_size, parameters(profile)
    cache = rows * (PROMPT_TOKENS + _answer_tokens(profile) / 2) * 2 * profile.model.layers
    cache *= profile.model.shape.kv * BYTES
    for card in CARDS[profile.device]:
        step = max((BYTES * size + cache) / (card.bandwidth * 1e9), 2 * size * rows / (card.speed * 1e12))
        training = training_tokens * 4 * size / (card.speed * 1e12)  # no gradients of weights but the adapters'
        count = ceil(memory_needed(profile) / (card.memory * 1e9))
        at_least = (tokens / rows * step + training) / 3600
        yield {"card": card.name, "cards": count, "hours": round(at_least, 4)}


def memory_needed(profile: Profile) -> float:
    """Return the bytes of memory that a profile needs, on its GPUs or of the machine; at smoke scale for weights."""
    if isinstance(profile.model, GrownModel):
        return 2e9
    if not profiles.is_smoke():
        return profile.model.memory_gb * 1e9
    if folder := weights.at_hand(profile):
        return 1.2 * sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return 1.2 * BYTES * parameters(profile)


def need_memory(profile: Profile) -> None:
    """Raise CompanionError where a profile needs more memory than there is."""
    needed, here = memory_needed(profile), weights.memory(profile)
    if here < needed:
        kind = "GPU memory" if profile.device == "cuda" else "memory"
        there = f"there are {here / 1e9:.0f} GB" if here else "there is no GPU"
        raise CompanionError(
            f"Profile '{profile.name}' needs {needed / 1e9:.0f} GB of {kind} and {there} here; choose a larger machine "
            "or another profile."
        )


def lines(found: Plan) -> Iterator[str]:
    """Yield the lines in which a plan is told."""
    gigabytes = weights.gigabytes
    disk = f"{gigabytes(found.weights)} weights, {gigabytes(found.adapters)} adapters"
    yield f"An estimate for profile '{found.profile}', by the bandwidth of cards and round numbers:"
    yield f"disk      {disk}, {gigabytes(found.artefacts)} answers and activations"
    here = gigabytes(found.memory_here) if found.memory_here else "no GPU"
    yield f"memory    {gigabytes(found.memory)} needed, {here} here"
    yield f"answers   {found.answers:,}, about {found.tokens / 1e6:.3g} million tokens"
    for one in found.asked:
        yield f"          {one['answers']:>9,}  {one['page']}"
    if found.training_tokens:
        yield f"training  about {found.training_tokens / 1e6:.3g} million tokens"
    for one in found.hours:
        several = f"{one['cards']} x " if one["cards"] > 1 else ""
        halved = f"at least; {2 * one['hours']:.2g} h at half of the limit"
        yield f"hours     {several}{one['card']}: {one['hours']:.2g} h {halved}"
    if not found.requests:
        yield "judge     none that is asked over a network"
        return
    cost = "" if found.dollars is None else f", about {found.dollars:,.0f} dollars at these prices"
    used = f"{found.tokens_in / 1e6:.3g} million tokens in, {found.tokens_out / 1e6:.3g} out"
    yield f"judge     {found.requests:,} requests, {used}{cost}; {found.judge_hours:.2g} h"
