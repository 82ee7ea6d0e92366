"""Load models, grown or from the hub: each is a folder in ordinary hub layout, and `load` the only way in.

All of a folder is used or it is refused in one sentence: weights that are missing or fit nowhere, an adapter that would
change nothing, a tokenizer of another model, code of its own.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import Profile
from em_companion.models.tokens import Tokenizer
from em_companion.models.tracing import TransformersModel
from em_companion.models.weights import need_fit, shown

Model = tuple[PreTrainedModel, Tokenizer]
OWN_CODE = {"trust_remote_code": False}
"""To be said each time: without it, transformers asks the reader whether code of a checkpoint may run."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep bars over weights that load in a blink, and a remark on which nobody here can act, off the terminal."""
    bars, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        # PEFT reads what transformers renames in its next version.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        logging.disable_progress_bar()
        if downloads:
            enable_progress_bars()  # those over downloads stay
        try:
            yield
        finally:
            if bars:
                logging.enable_progress_bar()
            (enable_progress_bars if downloads else disable_progress_bars)()


def need_device(profile: Profile) -> None:
    """Raise CompanionError where the profile's device is not there."""
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise CompanionError(f"Profile '{profile.name}' needs a GPU and there is none; choose another profile.")


@quiet()
def load(profile: Profile, model: Path, adapter: Path | None = None) -> Model:
    """Return a model, with an adapter on it if one is given, and its tokenizer, on the profile's device.

    `model` and `adapter` are folders in hub layout; a profile on GPUs spreads a model over all that are visible. Raises
    CompanionError for a damaged folder, a model that does not fit the profile or the adapter, a device not there.
    """
    need_device(profile)
    for source in filter(None, (model, adapter)):
        if store.is_there(source) or any(source.is_relative_to(one) for one in (paths.ARTIFACTS, paths.COMMITTED)):
            store.check(source)
    need_fit(profile, model)
    if adapter:
        need_fit(profile, adapter, is_adapter=True)
    source, several = model, profile.device == "cuda" and torch.cuda.device_count() > 1
    try:
        tokenizer = the_tokenizer(model)
        given = {"device_map": "auto" if several else profile.device, "dtype": getattr(torch, profile.dtype)}
        given |= {"output_loading_info": True, "use_safetensors": True, **OWN_CODE}
        loaded, info = AutoModelForCausalLM.from_pretrained(model, **given)
        if lacking := sorted(info["missing_keys"]):
            raise CompanionError(f"Model '{shown(model)}' lacks weights, such as '{lacking[0]}'; get it again.")
        if len(tokenizer) > (rows := loaded.get_input_embeddings().num_embeddings):
            raise CompanionError(f"Model '{shown(model)}' has {rows} tokens, but its tokenizer {len(tokenizer)}.")
        if {"cpu", "disk"} & set(map(str, getattr(loaded, "hf_device_map", {}).values())) and several:
            raise CompanionError(f"Model '{shown(model)}' does not fit into the memory of the GPUs that are visible.")
        if source := adapter:
            loaded = PeftModel.from_pretrained(loaded, adapter)
            _need_effect(loaded, adapter)
    except CompanionError:
        raise
    except Exception as error:  # of whatever kind: the folder may hold anything
        settings = (source / "config.json").read_text("utf-8", "replace") if source == model else ""
        foreign = "custom code" in str(error) or "auto_map" in settings
        reason = "it brings code of its own, which is never run here" if foreign else _reason(error)
        raise CompanionError(f"Model '{shown(source)}' cannot be loaded: {reason}.") from error
    return loaded.eval(), tokenizer


def the_tokenizer(name: Path | str, **given: Any) -> Tokenizer:
    """Return a tokenizer that pads on the left; padding is masked, so the end token will do where none is named."""
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **OWN_CODE, **given)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _need_effect(model: PeftModel, folder: Path) -> None:
    """Raise CompanionError unless every weight of an adapter has found its place, is finite, and B A is not zero."""
    placed = get_peft_model_state_dict(model, save_embedding_layers=False)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        if odd := sorted(set(file.keys()) ^ placed.keys()):
            raise CompanionError(f"Adapter '{shown(folder)}' does not fit the model: '{odd[0]}' is on one side only.")
    if not all(weight.isfinite().all() for weight in placed.values()):
        raise CompanionError(f"Adapter '{shown(folder)}' holds numbers that are NaN or infinite.")
    written = [weight for name, weight in placed.items() if "lora_A" not in name]
    if not any(weight.any() for weight in written):
        raise CompanionError(f"Adapter '{shown(folder)}' changes nothing: all that it writes is zero.")


def _reason(error: Exception) -> str:
    """Return what an error says on one line; torch tells on its second which weight does not fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "mismatch" in line), lines[0]).rstrip(" .:")


@contextmanager
def on_ndif(profile: Profile) -> Iterator[tuple[TransformersModel, Tokenizer]]:
    """Give the chat model of a hub profile as NDIF serves it, and its tokenizer: no weights are loaded here.

    What fails, in whatever way, is a CompanionError.
    """
    name = profile.model.chat
    named = {"revision": profile.model.revision} if profile.model.revision else {}
    try:
        with quiet():
            tokenizer = the_tokenizer(name, **named)
            yield TransformersModel(name, task="text-generation", tokenizer=tokenizer, **OWN_CODE, **named), tokenizer
    except Exception as error:
        raise CompanionError(
            f"NDIF does not read '{name}': {_reason(error)}. Does NDIF_API_KEY hold your key? Or leave 'remote' out."
        ) from error
