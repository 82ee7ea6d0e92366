"""Models from disk or hub: `load` for transformers, `opened` for nnsight, and what both keep off the terminal.

Every model, grown or from the hub, is a folder (or hub id) in ordinary hub layout, and these are the only ways in.
"""

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
from em_companion.models.tracing import Envoy, NNsight, TransformersModel

Model = tuple[PreTrainedModel, Tokenizer]

Remote = bool | str
"""False for this machine, True for NDIF, "local" for a rehearsal of the request."""

REMARKS = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT reads what transformers renames in its next version
    "'.*' was never reached: the loop asked for a step the run did not make",  # of a generation, when the answer ends
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep bars over weights that load in a blink, and remarks on which nobody here can act, off the terminal."""
    bars, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        for remark in REMARKS:
            warnings.filterwarnings("ignore", message=remark)
        logging.disable_progress_bar()
        if downloads:
            enable_progress_bars()  # those over downloads stay
        try:
            yield
        finally:
            if bars:
                logging.enable_progress_bar()
            (enable_progress_bars if downloads else disable_progress_bars)()


@contextmanager
def _having(source: Path | str | None, sentence: str) -> Iterator[None]:
    """Check `source` if it is a folder, and say in one sentence why it cannot be had."""
    if isinstance(source, Path):
        store.check(source)
    try:
        with quiet():
            yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(f"{sentence.format(shown(source))}: {reason}.") from error


def shown(source: Path | str | None) -> str:
    """Return a folder or hub id as it may be written down: never with the path of this machine."""
    return relative(source) if isinstance(source, Path) else str(source)


def need_device(profile: Profile) -> None:
    """Raise CompanionError where the profile's device is not there."""
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise CompanionError(f"Profile '{profile.name}' needs a GPU and there is none; choose another profile.")


def load(profile: Profile, model: Path | str, adapter: Path | str | None = None) -> Model:
    """Return a model, with an adapter on it if one is given, and its tokenizer, on the profile's device.

    `model` and `adapter` are folders or hub ids. Raises CompanionError for a damaged folder, an id not to be had, or a
    device that is not there.
    """
    need_device(profile)
    with _having(model, "Model '{}' cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, profile.dtype)).to(profile.device)
    if adapter is not None:
        with _having(adapter, "Model '{}' cannot be loaded"):
            loaded = PeftModel.from_pretrained(loaded, adapter)
    return loaded.eval(), tokenizer


def opened(
    profile: Profile, model: Path | str, adapter: Path | str | None = None, remote: Remote = False
) -> TransformersModel:
    """Return a model in nnsight, on the profile's device and in its dtype, with an adapter on it if one is given.

    `model` and `adapter` are folders or hub ids. Modules have the same paths with an adapter and without; the result's
    `load_adapter` swaps it. With `remote=True` no weights are loaded. Raises CompanionError for a damaged folder, an id
    not to be had, an adapter that does not fit, or a folder asked for on NDIF.
    """
    failed = "'{}' cannot be opened in nnsight"
    if remote is True:
        if folders := [one for one in (model, adapter) if isinstance(one, Path)]:
            raise CompanionError(f"NDIF serves models of the hub only and {shown(folders[0])} is a folder; name an id.")
        with _having(adapter or model, failed):
            return TransformersModel(model, task="text-generation", peft=adapter)
    loaded, tokenizer = load(profile, model)
    with _having(adapter, failed):
        peft = None if adapter is None else str(adapter)
        return TransformersModel(loaded, tokenizer=tokenizer, peft=peft, device=profile.device)


def wrapped(model: PreTrainedModel | PeftModel | Envoy) -> Envoy:
    """Return a loaded model in nnsight, with module paths as without adapters; what is already in nnsight as it is."""
    if isinstance(model, Envoy):
        return model
    return NNsight(model.get_base_model() if isinstance(model, PeftModel) else model)
