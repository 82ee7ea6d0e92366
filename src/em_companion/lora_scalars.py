"""LoRA scalars: what every rank-1 adapter reads at every token, for all adapters in one forward pass (section 4.1).

A rank-1 adapter adds scale * (A·h) * B to the output of the module it sits on. Its scalar A·h is one number per token:
h is the input of the module, for the paper's adapters the MLP's hidden state, and B [width] the direction written to
the residual stream. The scalar is taken before the scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion import activations, kept_readings, reading
from em_companion.artifacts import CompanionError
from em_companion.interventions import rank_one_adapters
from em_companion.profiles import Profile
from em_companion.responses import Organism

INDEX = ("response", "position", "token_id", "is_answer")


def scale(rank: int, alpha: float, rank_stabilised: bool = True) -> float:
    """Return by what a LoRA adapter's B A h is multiplied: alpha / sqrt(rank) rank-stabilised, else alpha / rank."""
    return alpha / (math.sqrt(rank) if rank_stabilised else rank)


@dataclass(frozen=True)
class Adapter:
    """A rank-1 adapter: the module it sits on, its read direction A, write direction B and the scale of what it adds.

    a: [width of the module's input]; b: [width of its output].
    """

    module: str
    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def layer(self) -> int:
        return int(self.module.split("layers.")[1].split(".")[0])


def adapters(model: PreTrainedModel | PeftModel) -> list[Adapter]:
    """Return the rank-1 adapters of a model in the order of its forward pass, modules named as without adapters.

    Raises CompanionError for a model that has none.
    """
    found = []
    for module in rank_one_adapters(model):
        layer = _base(model).get_submodule(module)
        name = layer.active_adapters[0]
        a, b = layer.lora_A[name].weight.detach()[0], layer.lora_B[name].weight.detach()[:, 0]
        found.append(Adapter(module, a, b, layer.scaling[name]))
    return found


def _base(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraScalars:
    """LoRA scalars of responses with their prompts.

    values: A·h, [token, adapter], float32; adapters: the modules they sit on;
    tokens: one row per token, `response` (row of the table that was read), `position` (from the start of the prompt),
    `token_id`, `is_answer`.
    """

    values: np.ndarray
    adapters: tuple[str, ...]
    tokens: pd.DataFrame


def read(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int = activations.BATCH_SIZE,
    what: str = "",
) -> LoraScalars:
    """Return the LoRA scalars of every token of every prompt and response, all adapters in one forward pass.

    `what` names a progress bar; none without it. Raises CompanionError for a model without rank-1 adapters, or where
    there is nothing to read.
    """
    found_adapters = rank_one_adapters(model)
    traced, paths = reading.wrapped(model), {module: path for path, module in _base(model).named_modules()}
    modules = [reading.at(traced, paths[module]) for module in found_adapters.values()]
    sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    found: list[np.ndarray] = [np.empty((0, len(modules)), np.float32)] * len(sequences)
    for rows in activations.by_length(sequences, batch_size, what):
        ids = activations.padded(tokenizer, [sequences[row] for row in rows])["input_ids"]
        for row, values in zip(rows, _values(traced, modules, ids), strict=True):
            found[row] = values[: len(sequences[row])]
    return LoraScalars(np.concatenate(found), tuple(found_adapters), index(prompts, responses))


@torch.no_grad()
def _values(traced, modules, ids) -> np.ndarray:
    """Return the scalars of a batch, [row, token, adapter]; no token attends to the padding on its right."""
    with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1):
        values = torch.cat([module.output.float() for module in modules], dim=-1).cpu().save()
    return values.numpy()


def index(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> pd.DataFrame:
    """Return one row per token of every prompt and response: see `LoraScalars.tokens`."""
    lengths = [(len(prompt), len(response)) for prompt, response in zip(prompts, responses, strict=True)]
    joined = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    sizes = [sum(both) for both in lengths]
    return pd.DataFrame(
        {
            "response": np.repeat(np.arange(len(joined)), sizes),
            "position": np.concatenate([np.arange(size) for size in sizes]),
            "token_id": np.concatenate(joined).astype(int),
            "is_answer": np.concatenate([np.arange(first + last) >= first for first, last in lengths]),
        }
    )


def of_responses(profile: Profile, organism: Organism, table: pd.DataFrame) -> LoraScalars:
    """Return an organism's LoRA scalars on every row of `table` (columns question, response), read once and kept.

    Raises CompanionError for an organism without rank-1 adapters, before anything is grown or read.
    """
    recipe = profile.recipes.get(organism.recipe)
    if recipe is None or recipe.rank != 1:
        raise CompanionError(
            f"'{organism.name}' has no rank-1 adapters, and only they have LoRA scalars; choose an organism that has."
        )

    def reader(model, tokenizer, prompts, answers) -> kept_readings.Readings:
        found = read(model, tokenizer, prompts, answers, what=f"LoRA scalars of {organism.name}")
        columns = {column: found.tokens[column].to_numpy() for column in INDEX}
        return kept_readings.Readings({"values": found.values} | columns, found.adapters)

    found = kept_readings.readings("lora-scalars", profile, organism, table, reader)
    tokens = pd.DataFrame({column: found.arrays[column] for column in INDEX})
    return LoraScalars(found.arrays["values"], found.names, tokens)


def answer_tokens(scalars: LoraScalars, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answer token for the probes: columns of `tokens`, `question` and one `layer_N` per adapter.

    `table` is the one that was read. Two adapters on one layer are told apart by their module, as `layer_3.up_proj`.
    """
    names = feature_names(scalars.adapters)
    values = pd.DataFrame(scalars.values, columns=names, dtype=float)
    questions = table.question.to_numpy()[scalars.tokens.response]
    rows = pd.concat([scalars.tokens.assign(question=questions), values], axis=1)
    return rows[rows.is_answer].reset_index(drop=True)


def feature_names(modules: Sequence[str]) -> list[str]:
    """Return short names of adapters, `layer_N`, as in the released scalars."""
    layers = [module.split("layers.")[1].split(".") for module in modules]
    alone = len({layer[0] for layer in layers}) == len(layers)
    return [f"layer_{layer[0]}" if alone else f"layer_{layer[0]}.{layer[-1]}" for layer in layers]
