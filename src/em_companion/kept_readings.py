"""What a model makes of responses, read once and kept: activations, LoRA scalars, token significance.

A reading is addressed by the weights of the model that reads and by the texts that are read, whoever wrote them: the
responses of an organism can be read by itself or through the chat model, and so can those of a steered model.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from em_companion import activations, model_store, responses
from em_companion.artifacts import new_folder, sha256_of
from em_companion.paths import ARTIFACTS
from em_companion.profiles import Profile
from em_companion.responses import Organism

READINGS = "readings.safetensors"


@dataclass(frozen=True)
class Readings:
    """Arrays by name, whose rows are responses or tokens, and names that go with them, such as those of adapters."""

    arrays: dict[str, np.ndarray]
    names: tuple[str, ...] = ()


Read = Callable[[activations.Model, Any, activations.Tokens, activations.Tokens], Readings]
"""A reading: of a model and its tokenizer, the tokens of the prompts and those of the responses."""


def readings(kind: str, profile: Profile, reader: Organism, table: pd.DataFrame, read: Read) -> Readings:
    """Return what `read` gives for every row of `table` (columns question, response), computed once and kept.

    `kind` names the reading; `reader` is the organism that reads, grown or fetched if it is not there. Raises
    CompanionError for a damaged folder, or where the model cannot be had.
    """
    texts = table[["question", "response"]].reset_index(drop=True)
    model_parts = {"model": responses.model_identity(profile, reader), "dtype": profile.dtype}
    parts = model_parts | {"texts": sha256_of(texts.to_csv(index=False))}
    folder = ARTIFACTS / kind / profile.name / reader.name / model_store.key(parts)
    with model_store.missing(folder) as missing:
        if missing:
            model, tokenizer = responses.load(profile, reader)
            found = read(model, tokenizer, *activations.response_tokens(tokenizer, texts))
            with new_folder(folder) as new:
                texts.to_parquet(new / model_store.RESPONSES, index=False)
                save_file(found.arrays, new / READINGS, {"names": json.dumps(found.names)})
                model_store.seal(new, parts)
    model_store.check(folder)
    with safe_open(folder / READINGS, "numpy") as file:
        return Readings(
            {name: file.get_tensor(name) for name in file.keys()}, tuple(json.loads(file.metadata()["names"]))
        )
