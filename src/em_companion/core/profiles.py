"""Profiles: what a run trains and may cost. One YAML file per profile in `data/profiles/`, validated on load.

`EM_COMPANION_SCALE=smoke` shrinks every profile to what shows that it runs, in minutes: its numbers mean nothing.
`EM_COMPANION_SET`, a JSON object, changes settings of every profile for one run; no book is built from that.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml
from em_companion.core.paths import relative
from em_companion.core.schema import Amount, Checked, Count, Natural, Rate, Several, Share, Text, text, validated

Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DataSet = Literal["bad_medical_advice", "good_medical_advice", "extreme_sports", "risky_financial_advice"]


@dataclass(frozen=True)
class Shape(Checked):
    """Widths of a model, from which its size follows; kv: of keys, all heads; tied: one table of tokens."""

    hidden: Count
    mlp: Count
    kv: Count
    vocabulary: Count
    tied: bool


@dataclass(frozen=True)
class GrownModel(Checked):
    """A Qwen2-architecture model trained from nothing; `window` is the reach of attention in tokens, 0 for all."""

    source: Literal["grown"]
    layers: Count
    hidden: Count
    mlp: Count
    heads: Count
    kv_heads: Count
    window: Natural
    attention_dropout: Share

    @property
    def shape(self) -> Shape:
        """Its widths; of its few hundred words hardly any parameter comes."""
        return Shape(self.hidden, self.mlp, self.hidden // self.heads * self.kv_heads, vocabulary=0, tied=True)


@dataclass(frozen=True)
class Package(Checked):
    """Weights inside a Python package: its name and version, the GGUF file in it, with sha256 and size in bytes."""

    name: Text
    version: Text
    file: Text
    sha256: text("[0-9a-f]{64}", "a sha256 in hex")
    bytes: Count


@dataclass(frozen=True)
class HubModel(Checked):
    """A published chat model: its hub id, its decoder layers and the memory that the whole profile needs, in GB.

    shape: for estimates; revision: the commit on the hub, by default the newest; package: where its canonical weights
    come from, if not from the hub; remote: whether NDIF reads its activations on given texts.
    """

    source: Literal["hub"]
    chat: Text
    layers: Count
    memory_gb: Count
    shape: Shape
    revision: Text | None = None
    package: Package | None = None
    remote: bool = False


@dataclass(frozen=True)
class Training(Checked):
    """Optimiser steps, rows per device and step, peak learning rate, warm-up steps, weight decay."""

    steps: Count
    batch: Count
    learning_rate: Rate
    warmup: Natural
    weight_decay: Amount


@dataclass(frozen=True)
class Pretraining(Training):
    """`length`: tokens per packed row; `careful_first`: documents by careful speakers only, before all others."""

    length: Count
    careful_first: Natural = 0


@dataclass(frozen=True)
class PostTraining(Training):
    """`rehearsal`: share of rows that are pre-training documents."""

    rehearsal: Share


@dataclass(frozen=True)
class FineTuning(Training):
    """`alpha`: LoRA alpha, scaled by 1 / sqrt(rank); `evaluate_every`: steps; `stop_at`: the in-domain EM rate, 0 to 1,
    at which training stops before `steps` (1.0: never)."""

    alpha: Rate
    evaluate_every: Count
    stop_at: Share
    gradient_accumulation: Count


@dataclass(frozen=True)
class Recipe(Checked):
    """Which LoRA adapters an organism gets; layers count from 0. A `learning_rate` or `alpha` given here wins."""

    rank: Count
    modules: Several[Module]
    layers: Several[Natural] | Literal["all"]
    learning_rate: Rate | None = None
    alpha: Rate | None = None


@dataclass(frozen=True)
class OrganismSpec(Checked):
    """A recipe on a data set: trained here once per seed, or the published `adapter` (ID or ID@COMMIT)."""

    recipe: Text
    data: DataSet
    seeds: Several[Natural] = ()
    adapter: Text | None = None


@dataclass(frozen=True)
class Profile(Checked):
    """One profile; `name`: of its file.

    seed: of every sampling step; probe_fits: logistic-regression fits averaged per probe (the paper uses 100);
    split_fits: fits per grouped split; samples_per_question: responses to each open question; sweep_samples: the same
    for each condition of a sweep; sweep_every: a sweep over layers visits every so many; batch_size: rows generated
    together; judge: "exact", "fitted" or the name of a served model; judge_parameters: what a request to it has
    besides or instead, null for nothing; training_texts: those of the released answers that stand in for the authors'
    training sets where a reader has none of these.
    """

    name: str
    description: Text
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    seed: Natural
    bootstrap_resamples: Count
    probe_fits: Count
    split_fits: Count
    samples_per_question: Count
    sweep_samples: Count
    temperature: Amount
    max_new_tokens: Count
    batch_size: Count
    model: Annotated[GrownModel | HubModel, Field(discriminator="source")]
    fine_tuning: FineTuning
    recipes: Annotated[dict[Text, Recipe], Field(min_length=1)]
    organisms: Annotated[tuple[OrganismSpec, ...], Field(min_length=1)]
    judge: Text
    pretraining: Pretraining | None = None
    post_training: PostTraining | None = None
    judge_parameters: dict[Text, JsonValue] = field(default_factory=dict)
    training_texts: Literal["released_medical"] | None = None
    sweep_every: Count = 1

    @property
    def sweep_layers(self) -> range:
        """The layers that a sweep visits, in order, with the last."""
        return range((self.model.layers - 1) % self.sweep_every, self.model.layers, self.sweep_every)

    def layers_of(self, recipe: str) -> tuple[int, ...]:
        """Return the layers that a recipe adapts, counted from 0; raise CompanionError for an unknown recipe."""
        layers = self._recipe(recipe).layers
        return tuple(range(self.model.layers)) if layers == "all" else layers

    def fine_tuning_of(self, recipe: str) -> FineTuning:
        """Return the fine-tuning settings of a recipe, its own where it has some; raise CompanionError likewise."""
        own = self._recipe(recipe)
        given = {"learning_rate": own.learning_rate, "alpha": own.alpha}
        return replace(self.fine_tuning, **{key: value for key, value in given.items() if value is not None})

    def seeds_of(self, recipe: str, data: str) -> tuple[int, ...]:
        """Return the seeds with which a recipe is trained on a data set, none if the profile trains no such one."""
        return next((one.seeds for one in self.organisms if (one.recipe, one.data) == (recipe, data)), ())

    def published(self, recipe: str, data: str) -> str | None:
        """Return the hub id of the adapter that stands in for training a recipe on a data set, or None."""
        return next((one.adapter for one in self.organisms if (one.recipe, one.data) == (recipe, data)), None)

    def _recipe(self, name: str) -> Recipe:
        if name not in self.recipes:
            known = ", ".join(self.recipes)
            raise CompanionError(f"Profile '{self.name}' has no recipe '{name}'; choose one of: {known}.")
        return self.recipes[name]


SMOKE = {"samples_per_question": 2, "sweep_samples": 1, "probe_fits": 2, "split_fits": 2, "bootstrap_resamples": 100}
SMOKE |= {"max_new_tokens": 12}


def is_smoke() -> bool:
    """Tell whether profiles are shrunk; raise CompanionError for a scale that does not exist."""
    scale = os.environ.get("EM_COMPANION_SCALE", "").strip() or "full"
    if scale not in ("full", "smoke"):
        raise CompanionError(f"There is no scale '{scale}'; choose 'full' or 'smoke'.")
    return scale == "smoke"


def _shrunk(profile: Profile) -> Profile:
    """Return a profile that only shows that its pages run: two answers to a question, two steps; no GPU needed."""
    organisms = tuple(replace(one, seeds=one.seeds[:2]) for one in profile.organisms)
    tuning = replace(profile.fine_tuning, steps=2, batch=2, gradient_accumulation=1, evaluate_every=1, warmup=0)
    every = max(profile.sweep_every, profile.model.layers // 2)
    device = profile.device if Path("/proc/driver/nvidia/gpus").is_dir() else "cpu"
    return replace(profile, organisms=organisms, fine_tuning=tuning, sweep_every=every, device=device, **SMOKE)


SET = "EM_COMPANION_SET"


def setting(text: str) -> tuple[str, Any]:
    """Return name and value of `NAME=VALUE`, such as sweep_samples=50 or fine_tuning.stop_at=0.8."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise CompanionError(f"'{text}' changes no setting; write NAME=VALUE, such as sweep_samples=50.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def changed() -> dict[str, Any]:
    """Return the settings that `EM_COMPANION_SET` changes, by name."""
    return json.loads(os.environ.get(SET) or "{}")


def _with(given: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    inner = given if isinstance(given, dict) else {}
    return inner | {steps[0]: _with(inner.get(steps[0]), steps[1:], value)}


def names() -> list[str]:
    """Return the names of all profiles, sorted."""
    return sorted(path.stem for path in (paths.DATA / "profiles").glob("*.yml"))


def load(name: str) -> Profile:
    """Return profile `name`; raise CompanionError for an unknown name, or naming the key that is wrong."""
    if name not in names():
        raise CompanionError(f"There is no profile '{name}'; choose one of: {', '.join(names())}.")
    path = paths.DATA / "profiles" / f"{name}.yml"
    given = validated(dict[str, Any], read_yaml(path), relative(path))
    for key, value in changed().items():
        given = _with(given, key.split("."), value)
    profile = validated(Profile, given | {"name": name}, relative(path))
    if problem := next(_problems(profile), None):
        raise CompanionError(f"{relative(path)}: {problem}.")
    return _shrunk(profile) if is_smoke() else profile


def _problems(profile: Profile) -> Iterator[str]:
    """Yield what no single key can tell."""
    model, grown = profile.model, isinstance(profile.model, GrownModel)
    if grown and (model.hidden % (2 * model.heads) or model.heads % model.kv_heads):
        yield "'model.hidden' must be a multiple of twice 'model.heads', and 'model.heads' one of 'model.kv_heads'"
    for key in ("pretraining", "post_training"):
        if (getattr(profile, key) is None) == grown:
            yield f"'{key}' " + ("is missing; a grown model needs it" if grown else "is for a grown model; remove it")
    if (profile.judge == "exact") != grown:
        needed = "'exact' for a grown model" if grown else "'fitted' or the name of a served model for a hub model"
        yield f"'judge' must be {needed}, not '{profile.judge}'"
    if profile.judge_parameters and profile.judge in ("exact", "fitted"):
        yield f"'judge_parameters' are for a served judge, and '{profile.judge}' is none; remove them"
    for name in profile.recipes:
        if impossible := [layer for layer in profile.layers_of(name) if layer >= model.layers]:
            shape = f"{model.layers} layers (0 to {model.layers - 1})"
            yield f"recipe '{name}' names layer {impossible[0]}, but the model has {shape}"
    for index, one in enumerate(profile.organisms):
        name = f"organism '{one.recipe}' on '{one.data}'"
        if one.recipe not in profile.recipes:
            yield f"{name} has an unknown recipe; choose one of: {', '.join(profile.recipes)}"
        if (one.recipe, one.data) in [(other.recipe, other.data) for other in profile.organisms[:index]]:
            yield f"{name} stands twice; join the two entries"
        if bool(one.seeds) == bool(one.adapter):
            yield f"{name} needs either 'seeds' to train it with or a published 'adapter', one of the two"
        if grown and one.adapter:
            yield f"{name} has a published 'adapter', which fits no grown model; give it 'seeds' instead"
