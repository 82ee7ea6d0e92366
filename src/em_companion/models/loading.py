"""Load models, grown or from the hub: each is a folder in ordinary hub layout, and `load` the only way in."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.core.profiles import HubModel, Profile
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
def load(profile: Profile, model: Path, adapter: Path | None = None) -> Model:
    """Return a model, with an adapter on it if one is given, and its tokenizer, on the profile's device.

    `model` and `adapter` are folders in hub layout; a profile on GPUs spreads a model over all that are visible. Raises
    CompanionError for a damaged folder, a model that does not fit the profile or the adapter, a device not there.
    """
    need_device(profile)
    for source in filter(None, (model, adapter)):
        if store.is_there(source) or source.is_relative_to(paths.ROOT):
            store.check(source)
    _need_fit(profile, model, adapter)
    source, several = model, profile.device == "cuda" and torch.cuda.device_count() > 1
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        if not tokenizer.chat_template:
            raise CompanionError(f"Model '{_shown(model)}' has no chat template; choose a model that chats.")
        place = {"device_map": "auto"} if several else {"device_map": profile.device}
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, profile.dtype), **place)
        if source := adapter:
            loaded = PeftModel.from_pretrained(loaded, adapter)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(f"Model '{_shown(source)}' cannot be loaded: {reason}.") from error
    return loaded.eval(), tokenizer


def _need_fit(profile: Profile, model: Path, adapter: Path | None) -> None:
    """Raise CompanionError where a model has other layers than its profile says, or an adapter another base."""
    config = _json(model / "config.json")
    if (layers := config.get("num_hidden_layers")) != profile.model.layers:
        raise CompanionError(
            f"Model '{_shown(model)}' has {layers} layers, but profile '{profile.name}' says {profile.model.layers}; "
            "correct the profile or choose another model."
        )
    if adapter and isinstance(profile.model, HubModel):
        based = str(_json(adapter / "adapter_config.json").get("base_model_name_or_path"))
        # Copies under another owner, such as unsloth's, have the same weights.
        if based.rsplit("/", 1)[-1].lower() != profile.model.chat.rsplit("/", 1)[-1].lower():
            raise CompanionError(
                f"Adapter '{_shown(adapter)}' is for '{based}', but the model of profile '{profile.name}' is "
                f"'{profile.model.chat}'; choose an adapter for this model."
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompanionError(f"Model '{_shown(path.parent)}' cannot be loaded: {path.name} cannot be read.") from error


def _shown(folder: Path) -> str:
    """Return a folder as a message names it: a snapshot of the hub by its id."""
    if folder.parent.name == "snapshots":
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return relative(folder)
