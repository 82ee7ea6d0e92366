"""Load models, grown or from the hub: each is a folder in ordinary hub layout, and `load` the only way in."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import Profile
from em_companion.models.tokens import Tokenizer
from em_companion.models.tracing import TransformersModel
from em_companion.models.weights import need_fit, shown

Model = tuple[PreTrainedModel, Tokenizer]


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
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        place = {"device_map": "auto"} if several else {"device_map": profile.device}
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, profile.dtype), **place)
        if {"cpu", "disk"} & set(map(str, getattr(loaded, "hf_device_map", {}).values())) and several:
            raise CompanionError(f"Model '{shown(model)}' does not fit into the memory of the GPUs that are visible.")
        if source := adapter:
            loaded = PeftModel.from_pretrained(loaded, adapter)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(f"Model '{shown(source)}' cannot be loaded: {reason}.") from error
    return loaded.eval(), tokenizer


@contextmanager
def on_ndif(profile: Profile) -> Iterator[tuple[TransformersModel, Tokenizer]]:
    """Give the chat model of a hub profile as NDIF serves it, and its tokenizer: no weights are loaded here.

    What fails, in whatever way, is a CompanionError.
    """
    name = profile.model.chat
    named = {"revision": profile.model.revision} if profile.model.revision else {}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **named)
            yield TransformersModel(name, task="text-generation", tokenizer=tokenizer, **named), tokenizer
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(
            f"NDIF does not read '{name}': {reason}. Does NDIF_API_KEY hold your key? Or leave 'remote' out."
        ) from error
