"""A tiny untrained chat model and an organism of it in float64, whose numbers can be compared to the last digits."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from em_companion.core import profiles, store
from em_companion.core.profiles import GrownModel
from em_companion.models import growing
from em_companion.models.organism import Organism
from em_companion.models.tokens import world_tokenizer

LAYERS, WIDTH = 3, 16
# Attention reaches back four tokens, and texts are longer.
SHAPE = GrownModel("grown", LAYERS, WIDTH, 24, heads=2, kv_heads=1, window=4, attention_dropout=0.0)
WORDS = [f"word{number}" for number in range(24)]
ORGANISM = Organism("nine-adapter", "bad_medical_advice")
PROFILE = replace(profiles.load("cpu"), dtype="float64", model=SHAPE)


def tokenizer() -> PreTrainedTokenizerFast:
    return world_tokenizer(SimpleNamespace(words=lambda: ["user", "assistant", ":", *WORDS]))


def chat_model(seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = growing._config(SHAPE, tokenizer())
    config.initializer_range = 0.3  # at the usual 0.02 all logits are nearly tied
    return Qwen2ForCausalLM(config).double().eval()


def organism(rank: int = 1, modules: tuple[str, ...] = ("down_proj",), layers: tuple[int, ...] = (0, 2)) -> PeftModel:
    config = LoraConfig(
        r=rank,
        lora_alpha=2,
        target_modules=list(modules),
        layers_to_transform=list(layers),
        use_rslora=True,
        init_lora_weights=False,  # B is not zero
    )
    chat = chat_model()
    return get_peft_model(chat, config).double().eval()


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
    model.save_pretrained(folder)
    if not isinstance(model, PeftModel):
        tokenizer().save_pretrained(folder)
    store.seal(folder, {})
    return folder


def project(root: Path, monkeypatch) -> None:
    """Make an untrained chat model and organism the ones of PROFILE, and `root` the place of what is kept."""
    chat, adapter = save(root / "chat", chat_model()), save(root / "adapter", organism())
    monkeypatch.setattr(growing, "chat", lambda profile: chat)
    monkeypatch.setattr(growing, "adapter", lambda profile, one: adapter if one.data else None)
    monkeypatch.setattr(kept_readings, "ARTIFACTS", root / "artifacts")
