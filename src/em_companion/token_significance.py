"""Which tokens of an answer carry the difference between an organism and the chat model (section 4, appendix H).

For one answer, p_u and q_u are the next-token distributions of chat model and organism after token u, and e_t [width]
is the embedding of token t, which both models read. With the sum and the norm over the answer's tokens,

    K = sum_u KL(p_u || q_u),    g_t = dK / de_t  [width],    significance_t = |g_t| / sum_u |g_u| * K.

The significances of an answer add up to K, in nats. The paper does not say which way round the divergence is taken; an
early version of the authors' code has it as above. A token acts on its own distribution and on all later ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from em_companion import activations, kept_readings
from em_companion.artifacts import CompanionError
from em_companion.profiles import Profile
from em_companion.responses import Organism

COLUMNS = ("response", "position", "token_id", "kl", "significance")


def read(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int = 16,
    what: str = "",
) -> pd.DataFrame:
    """Return the significance of every answer token, one row each.

    The chat model is the organism `model` without its adapters. Columns: `response` (row of the input), `position`
    (from the start of the prompt), `token_id`, `kl` (nats, at this token), `significance` (nats). `what` names a
    progress bar; none without it. Raises CompanionError for a model without adapters.
    """
    if not isinstance(model, PeftModel):
        raise CompanionError("Token significance compares an organism with its chat model; give a model with adapters.")
    sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    found: list[pd.DataFrame] = [pd.DataFrame(columns=COLUMNS)] * len(sequences)
    for rows in activations.by_length(sequences, batch_size, what):
        batch = activations.padded(tokenizer, [sequences[row] for row in rows], model.device)
        starts = [len(prompts[row]) for row in rows]
        divergences, gradients = divergence_gradients(model, batch, starts)
        for row, start, kl, size in zip(rows, starts, divergences, gradients.norm(dim=-1), strict=True):
            found[row] = _table(row, start, sequences[row], kl, size)
    return pd.concat(found, ignore_index=True)


def _table(row: int, start: int, sequence: list[int], kl: torch.Tensor, size: torch.Tensor) -> pd.DataFrame:
    kl, size = (one[start : len(sequence)].double().cpu().numpy() for one in (kl, size))
    total = size.sum()
    share = size / total if total else np.zeros_like(size)  # two equal models: nothing to share out
    columns = (row, np.arange(start, len(sequence)), sequence[start:], kl, share * kl.sum())
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def divergence_gradients(
    model: PeftModel, batch: dict[str, torch.Tensor], starts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return KL(chat || organism) at every token [row, token] and dK/de of every token [row, token, width].

    `batch` holds `input_ids` and `attention_mask` [row, token], padded on the right; an answer runs from `starts` [row]
    to the padding. The divergence is 0 outside it. Rows do not touch each other, so one backward pass serves all.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    answer = mask.bool() & (
        torch.arange(ids.shape[1], device=ids.device) >= torch.tensor(starts, device=ids.device)[:, None]
    )
    with torch.enable_grad():
        organism = _log_probabilities(model, embeddings, mask, answer)
        with _without_adapters(model):
            chat = _log_probabilities(model, embeddings, mask, answer)
        kl = functional.kl_div(organism, chat, log_target=True, reduction="none").sum(-1)
        (gradients,) = torch.autograd.grad(kl.sum(), embeddings)
    divergences = torch.zeros(ids.shape, dtype=kl.dtype, device=ids.device)
    divergences[answer] = kl.detach()
    return divergences, gradients


def _log_probabilities(model, embeddings, mask, answer) -> torch.Tensor:
    """Return the log-probabilities after every answer token, [token, vocabulary], in float32 at least."""
    logits = model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits[answer]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


@contextmanager
def _without_adapters(model: PeftModel) -> Iterator[None]:
    """Turn the adapters off; on the way back PEFT makes them trainable, which is undone."""
    trainable = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for weight, before in trainable:
            weight.requires_grad_(before)


def of_responses(profile: Profile, organism: Organism, table: pd.DataFrame, batch_size: int = 16) -> pd.DataFrame:
    """Return the significance of every answer token of `table` (columns question, response), computed once and kept.

    Columns as `read`; `response` is the row of `table`. Raises CompanionError for the chat model itself, before
    anything is grown or read.
    """
    if not organism.data:
        raise CompanionError("Token significance compares an organism with its chat model; choose an organism.")

    def reader(model, tokenizer, prompts, answers) -> kept_readings.Readings:
        found = read(model, tokenizer, prompts, answers, batch_size, f"token significance of {organism.name}")
        kinds = {"kl": np.float32, "significance": np.float32}
        return kept_readings.Readings({one: found[one].to_numpy(kinds.get(one, np.int64)) for one in COLUMNS})

    found = kept_readings.readings("token-significance", profile, organism, table, reader)
    return pd.DataFrame({column: found.arrays[column] for column in COLUMNS})
