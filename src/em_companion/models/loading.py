"""Load models, grown or from the hub: each is a folder or hub id in ordinary hub layout, and `load` the only way in."""

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

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.core.profiles import Profile
from em_companion.models.tokens import Tokenizer

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
def load(profile: Profile, model: Path | str, adapter: Path | str | None = None) -> Model:
    """Return a model, with an adapter on it if one is given, and its tokenizer, on the profile's device.

    `model` and `adapter` are folders or hub ids. Raises CompanionError for a damaged folder, an id not to be had, or a
    device that is not there.
    """
    need_device(profile)
    for source in (model, adapter):
        if isinstance(source, Path):
            store.check(source)
    source = model
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, profile.dtype)).to(profile.device)
        if source := adapter:
            loaded = PeftModel.from_pretrained(loaded, adapter)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        shown = relative(source) if isinstance(source, Path) else source
        raise CompanionError(f"Model '{shown}' cannot be loaded: {reason}.") from error
    return loaded.eval(), tokenizer
