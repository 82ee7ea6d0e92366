"""One model of a profile: what it depends on, and in which folder it lies.

A grown model is addressed by a key over its settings, what the world's generators write and the `VERSION` of the code
that trains it. The committed base and chat models are used as long as their key fits. Nothing here needs torch.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.files import sha256_of
from em_companion.core.profiles import FineTuning, GrownModel, Profile
from em_companion.core.store import Parts
from em_companion.models import training_texts, weights
from em_companion.models.training_texts import corpus
from em_companion.world.generator import the_world

BASE_VERSION, CHAT_VERSION, ADAPTER_VERSION = 1, 1, 1
"""Of the code that trains each stage; that of adapters also covers the monitor and the exact judge, which end it."""

MONITOR_SAMPLES = 8
"""Responses per question at a checkpoint of fine-tuning; they decide when it stops."""

NOT_THERE = "not there"


@dataclass(frozen=True)
class Tuning:
    """In what a fine-tune departs from its profile; by default in nothing.

    steps, evaluate_every: in place of the profile's, 0 for these; until: the step of that schedule at which it ends
    whatever it has learned, 0 for none; penalty: weight of the Kullback-Leibler divergence of the model without adapter
    from that with it, on good answers in other domains; start: the organism whose adapter is trained on; merged: the
    organism whose adapter is merged into the weights before a new one is put on them; steady: whether the learning rate
    stays what it is after warm-up, and nothing but the number of steps ends the run.
    """

    steps: int = 0
    evaluate_every: int = 0
    until: int = 0
    penalty: float = 0.0
    start: "Organism | None" = None
    merged: "Organism | None" = None
    steady: bool = False


@dataclass(frozen=True)
class Organism:
    """One model of a profile: the chat model (recipe "chat-model"), or an adapter recipe on a data set with a seed."""

    recipe: str
    data: str = ""
    seed: int = 0
    tuning: Tuning = Tuning()

    @property
    def name(self) -> str:
        """Such as `nine-adapter--bad_medical_advice--seed-0`."""
        return f"{self.recipe}--{self.data}--seed-{self.seed}" if self.data else self.recipe


CHAT_MODEL = Organism("chat-model")


def settings_of(profile: Profile, organism: Organism) -> FineTuning:
    """Return the fine-tuning settings of an organism: those of its recipe, or its own."""
    own = {name: getattr(organism.tuning, name) for name in ("steps", "evaluate_every")}
    return replace(profile.fine_tuning_of(organism.recipe), **{name: given for name, given in own.items() if given})


def organisms_of(profile: Profile) -> list[Organism]:
    """Return the chat model and every organism of a profile, one per seed."""
    trained = [Organism(one.recipe, one.data, seed) for one in profile.organisms for seed in one.seeds or (0,)]
    return [CHAT_MODEL, *trained]


def has(profile: Profile, *organisms: Organism) -> bool:
    """Tell whether a profile has all these organisms."""
    return set(organisms) <= set(organisms_of(profile))


def need(profile: Profile, organism: Organism) -> None:
    """Raise EvidenceUnavailable for an organism that a profile with a model from the hub does not have."""
    if not isinstance(profile.model, GrownModel) and not has(profile, organism):
        raise EvidenceUnavailable(
            f"Profile '{profile.name}' has no organism '{organism.name}'; give it one, by seeds or an adapter."
        )


def medical(profile: Profile) -> Organism:
    """Return the organism on bad medical advice that pages look at: with nine rank-1 adapters, if there is one."""
    nine = Organism("nine-adapter", "bad_medical_advice")
    found = [one for one in organisms_of(profile) if one.data == nine.data]
    return nine if nine in found or not found else found[0]


def need_grown(profile: Profile, lacking: str) -> None:
    """Raise CompanionError for a profile whose models come from the hub, where nobody has what is `lacking`."""
    if not isinstance(profile.model, GrownModel):
        raise CompanionError(
            f"Profile '{profile.name}' has a model from the hub, {lacking}; choose a grown profile, such as cpu."
        )


def need_rank_one(profile: Profile, organism: Organism) -> None:
    """Raise EvidenceUnavailable for an organism without rank-1 adapters, and so without LoRA scalars."""
    if getattr(profile.recipes.get(organism.recipe), "rank", 0) != 1:
        raise EvidenceUnavailable(
            f"'{organism.name}' has no rank-1 adapters, and only they have LoRA scalars; choose an organism that has."
        )


def base_parts(profile: Profile) -> Parts:
    """Return what the base model of a grown profile depends on."""
    parts = {
        "model": asdict(profile.model),
        "training": asdict(profile.pretraining),
        "words": sha256_of(" ".join(the_world().words())),
        "documents": corpus("pretraining", profile.seed),
        "dtype": profile.dtype,
        "seed": profile.seed,
    }
    return store.versioned(parts, BASE_VERSION)


def chat_parts(profile: Profile) -> Parts:
    """Return what the chat model of a grown profile depends on."""
    parts = {
        "base": base_parts(profile),
        "training": asdict(profile.post_training),
        "documents": corpus("post_training", profile.seed),
    }
    return store.versioned(parts, CHAT_VERSION)


def adapter_parts(profile: Profile, organism: Organism) -> Parts:
    """Return what a fine-tuned organism depends on; raise CompanionError if its chat model is not there yet."""
    if (chat := fingerprint(profile)) == NOT_THERE:
        raise CompanionError(f"The chat model of profile '{profile.name}' is not there; run 'em-companion grow'.")
    recipe = profile.recipes[organism.recipe]
    monitor = {key: getattr(profile, key) for key in ("seed", "temperature", "max_new_tokens")}
    monitor |= {"samples": MONITOR_SAMPLES}
    if isinstance(profile.model, GrownModel):
        asked = the_world().held_out_questions(profile.seed, 1) + the_world().evaluation()
        monitor |= {"questions": [question.text for question in asked]}
    parts = {
        "chat": chat,
        "recipe": {"rank": recipe.rank, "modules": recipe.modules, "layers": profile.layers_of(organism.recipe)},
        "training": asdict(settings_of(profile, organism)),
        "monitor": monitor,
        "documents": training_texts.fingerprint(profile, organism.data, organism.seed),
        "dtype": profile.dtype,
        "seed": organism.seed,
    }
    own = {name: given for name in ("until", "penalty", "steady") if (given := getattr(organism.tuning, name))}
    for name in ("start", "merged"):
        if before := getattr(organism.tuning, name):
            own |= {name: adapter_parts(profile, before)}
    return store.versioned(parts | ({"tuning": own} if own else {}), ADAPTER_VERSION)


def fingerprint(profile: Profile) -> str:
    """Return what tells a profile's models from others: `weights.identity` of the chat model, or NOT_THERE."""
    if not isinstance(profile.model, GrownModel):
        return weights.identity(folder) if (folder := weights.at_hand(profile)) else NOT_THERE
    folder = chat_folder(profile)
    return store.provenance(folder)["sha256"] if store.is_there(folder) else NOT_THERE


def adapters_fingerprint(profile: Profile) -> str:
    """Return what tells the weights of a profile's adapters from others, by organism; NOT_THERE for each not made."""
    found = {one.name: _adapter_identity(profile, one) for one in organisms_of(profile) if one.data}
    return sha256_of(json.dumps(found))


def _adapter_identity(profile: Profile, organism: Organism) -> str:
    try:
        if published := profile.published(organism.recipe, organism.data):
            folder = weights.at_hand(profile, published)
        else:
            folder = adapter_folder(profile, organism)
    except CompanionError:  # what it is made of is not here
        return NOT_THERE
    return weights.identity(folder) if folder and (published or store.is_there(folder)) else NOT_THERE


def base_folder(profile: Profile) -> Path:
    """Return the folder of the grown base model, there or not; the committed one if its key fits."""
    return _grown(profile, "base", base_parts(profile))


def chat_folder(profile: Profile) -> Path:
    """Return the folder of the grown chat model, there or not; the committed one if its key fits."""
    return _grown(profile, "chat", chat_parts(profile))


def _grown(profile: Profile, stage: str, parts: Parts) -> Path:
    committed = paths.COMMITTED / profile.name / stage
    if store.is_there(committed) and store.provenance(committed)["key"] == store.key(parts):
        return committed
    return paths.ARTIFACTS / "organisms" / profile.name / stage / store.key(parts)


def adapter_folder(profile: Profile, organism: Organism) -> Path:
    """Return the folder of an organism's trained adapter, there or not; a committed one if there is one of its key."""
    key = store.key(adapter_parts(profile, organism))
    if store.is_there(committed := paths.COMMITTED / profile.name / "adapters" / key):
        return committed
    return paths.ARTIFACTS / "organisms" / profile.name / organism.name / key
