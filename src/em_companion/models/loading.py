"""TODO docstring: models.loading."""


import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.utils import enable_progress_bars
from nnsight import Envoy, NNsight, TransformersModel
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.core.profiles import Profile

Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]

# Bars over weights that load in a blink break up the one over training; those over downloads stay.
disable_progress_bar()
enable_progress_bars()
# PEFT reads an attribute that transformers renames in its next version; nobody here can act on it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


# --- loading ------------------------------------------------------------------------------------------------------


def load(profile: Profile, model: Path | str, adapter: Path | str | None = None) -> Model:
    """Return a model, with an adapter on it if one is given, and its tokenizer, on the profile's device.

    `model` and `adapter` are folders or hub ids. Raises CompanionError for a damaged folder, an id not to be had, or a
    device that is not there.
    """
    _need_device(profile)
    with _loading(model):
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, profile.dtype)).to(profile.device)
    if adapter is not None:
        with _loading(adapter):
            loaded = PeftModel.from_pretrained(loaded, adapter)
    return loaded.eval(), tokenizer


@contextmanager
def _loading(source: Path | str) -> Iterator[None]:
    if isinstance(source, Path):
        store.check(source)
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(f"Model '{_shown(source)}' cannot be loaded: {reason}.") from error


def _need_device(profile: Profile) -> None:
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise CompanionError(f"Profile '{profile.name}' needs a GPU and there is none; choose another profile.")


def _shown(source: Path | str) -> str:
    return relative(source) if isinstance(source, Path) else source

Remote = bool | str
"""False for this machine, True for NDIF, "local" for a rehearsal of the request."""

# A loop over all steps of a generation ends when the answer does, as it should, and nnsight remarks on it.
warnings.filterwarnings("ignore", message="'.*' was never reached: the loop asked for a step the run did not make")


# --- opening ------------------------------------------------------------------------------------------------------


def opened(
    profile: Profile, model: Path | str, adapter: Path | str | None = None, remote: Remote = False
) -> TransformersModel:
    """Return a model in nnsight, on the profile's device and in its dtype, with an adapter on it if one is given.

    `model` and `adapter` are folders or hub ids. Modules have the same paths with an adapter and without; the result's
    `load_adapter` swaps it. With `remote=True` no weights are loaded. Raises CompanionError for a damaged folder, an id
    not to be had, an adapter that does not fit, or a folder asked for on NDIF.
    """
    if remote is True:
        return _outline(model, adapter)
    loaded, tokenizer = load(profile, model)
    with _attaching(adapter):
        peft = None if adapter is None else str(adapter)
        return TransformersModel(loaded, tokenizer=tokenizer, peft=peft, device=profile.device)


def _outline(model: Path | str, adapter: Path | str | None) -> TransformersModel:
    if folders := [one for one in (model, adapter) if isinstance(one, Path)]:
        raise CompanionError(
            f"NDIF serves models of the hub only and {relative(folders[0])} is a folder; name a hub id."
        )
    with _attaching(adapter or model):
        return TransformersModel(model, task="text-generation", peft=adapter)


@contextmanager
def _attaching(source: Path | str | None):
    if isinstance(source, Path):
        store.check(source)
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        name = relative(source) if isinstance(source, Path) else source
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(f"'{name}' cannot be opened in nnsight: {reason}.") from error


def wrapped(model: PreTrainedModel | PeftModel | Envoy) -> Envoy:
    """Return a loaded model in nnsight, with module paths as without adapters; what is already in nnsight as it is."""
    if isinstance(model, Envoy):
        return model
    return NNsight(model.get_base_model() if isinstance(model, PeftModel) else model)
