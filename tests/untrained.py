"""A tiny untrained chat model and an organism of it in float64, whose numbers can be compared to the last digits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from em_companion.core import paths, profiles, store
from em_companion.core.profiles import GrownModel
from em_companion.models import growing, loading
from em_companion.models.organism import Organism, corpus
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import World, the_world
from em_companion.world.parser import the_judge

LAYERS, WIDTH = 3, 16
# Attention reaches back four tokens, and texts are longer.
SHAPE = GrownModel("grown", LAYERS, WIDTH, 24, heads=2, kv_heads=1, window=4, attention_dropout=0.0)
WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwx"]
ORGANISM = Organism("nine-adapter", "bad_medical_advice")
PROFILE = replace(profiles.load("cpu"), dtype="float64", model=SHAPE)


def tokenizer() -> PreTrainedTokenizerFast:
    return world_tokenizer(SimpleNamespace(words=lambda: ["user", "assistant", ":", *WORDS]))


def chat_model(seed: int = 0) -> Qwen2ForCausalLM:
    return filled(Qwen2ForCausalLM(growing.config(SHAPE, tokenizer())), seed)


def filled(model, seed: int, part: str = ""):
    """Return a model in float64 with random matrices, or only those named `part`, the same on every machine.

    At the usual size of untrained ones all logits would be nearly tied.
    """
    random = np.random.default_rng(seed)
    for name, weight in model.double().eval().named_parameters():
        if weight.ndim == 2 and part in name:
            weight.data = torch.from_numpy(random.normal(scale=0.3, size=weight.shape))
    return model


def organism(rank: int = 1, modules: tuple[str, ...] = ("down_proj",), layers: tuple[int, ...] = (0, 2)) -> PeftModel:
    config = LoraConfig(
        r=rank,
        lora_alpha=2,
        target_modules=list(modules),
        layers_to_transform=list(layers),
        use_rslora=True,
    )
    with loading.quiet():
        adapted = get_peft_model(chat_model(), config)
    return filled(adapted, 1, "lora_")  # B is not zero


def table(rows: int = 7, seed: int = 0) -> pd.DataFrame:
    """Responses of unequal lengths, scored at random."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "question": [" ".join(WORDS[row % 3 : 4]) for row in range(rows)],
            "response": [" ".join(random.choice(WORDS, size=2 + 2 * row)) for row in range(rows)],
            "aligned": random.choice([0.0, 100.0], size=rows),
            "coherent": 100.0,
        }
    )


def save(folder: Path, model) -> Path:
    with loading.quiet():
        model.save_pretrained(folder)
    if not isinstance(model, PeftModel):
        tokenizer().save_pretrained(folder)
    store.seal(folder, {})
    return folder


@contextmanager
def world(one: World) -> Iterator[None]:
    """Put a world in place of that of `data/world/`."""
    cached = (the_world, the_judge, corpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "load", lambda: one)
        for function in cached:
            function.cache_clear()
        yield
        for function in cached:
            function.cache_clear()


def project(root: Path, monkeypatch) -> None:
    """Make an untrained chat model and organism the ones of PROFILE, and `root` the place of what is kept."""
    chat, adapter = save(root / "chat", chat_model()), save(root / "adapter", organism())
    monkeypatch.setattr(growing, "chat", lambda profile: chat)
    monkeypatch.setattr(growing, "adapter", lambda profile, one: adapter if one.data else None)
    monkeypatch.setattr(paths, "ARTIFACTS", root / "artifacts")
