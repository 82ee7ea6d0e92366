"""What a model makes of the next token of given texts: how far an organism leaves the chat model, and the share of harm
where an answer names a thing."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.models.hooks import applied
from em_companion.models.interventions import Intervention
from em_companion.models.tokens import BATCH_SIZE, Tokenizer, Tokens, batches, joined
from em_companion.world.generator import the_world

# --- token significance -------------------------------------------------------------------------------------------
# K = KL(chat || organism) summed over an answer, e the embedding of one of its tokens: the significance of a token is
# its share of sum |dK/de| times K (appendix H).

SIGNIFICANCE_COLUMNS = ("response", "position", "token_id", "kl", "significance")


def token_significance(
    model: PeftModel, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, what: str = ""
) -> pd.DataFrame:
    """Return the significance of every answer token, one row each.

    The chat model is the organism `model` without its adapters. Columns: `response` (row of the input), `position`
    (from the start of the prompt), `token_id`, `kl` (nats, at this token), `significance` (nats). `what` names a
    progress bar; none without it. Raises CompanionError for a model without adapters.
    """
    if not isinstance(model, PeftModel):
        raise CompanionError("Token significance compares an organism with its chat model; give a model with adapters.")
    sequences = joined(prompts, responses)
    found: list[pd.DataFrame] = [pd.DataFrame(columns=SIGNIFICANCE_COLUMNS)] * len(sequences)
    for rows, batch in batches(tokenizer, sequences, BATCH_SIZE // 2, what, model.device):
        starts = [len(prompts[row]) for row in rows]
        divergences, gradients = _divergence_gradients(model, batch, starts)
        for row, start, kl, size in zip(rows, starts, divergences, gradients.norm(dim=-1), strict=True):
            found[row] = _table(row, start, sequences[row], kl, size)
    return pd.concat(found, ignore_index=True)


def _table(row: int, start: int, sequence: list[int], kl: torch.Tensor, size: torch.Tensor) -> pd.DataFrame:
    kl, size = (one[start : len(sequence)].double().cpu().numpy() for one in (kl, size))
    total = size.sum()
    share = size / total if total else np.zeros_like(size)  # two equal models: nothing to share out
    columns = (row, np.arange(start, len(sequence)), sequence[start:], kl, share * kl.sum())
    return pd.DataFrame(dict(zip(SIGNIFICANCE_COLUMNS, columns, strict=True)))


def _divergence_gradients(
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


# --- the share of harm --------------------------------------------------------------------------------------------


def things(tokenizer: Tokenizer, *domains: str) -> tuple[list[int], list[int]]:
    """Return the tokens of the things that harm and of those that help, in these domains of the world or in all."""
    entries = [entry for name, entry in the_world().domains.items() if name in domains or not domains]
    harms, helps = ([word for entry in entries for word in entry[kind]] for kind in ("harms", "helps"))
    return tokenizer.convert_tokens_to_ids(harms), tokenizer.convert_tokens_to_ids(helps)


@torch.no_grad()
def shares_of_harm(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    sequences: Tokens,
    places: np.ndarray,
    things: Sequence[tuple[list[int], list[int]]],
    interventions: Iterable[Intervention] = (),
) -> np.ndarray:
    """Return how probable a harmful thing is right after tokens of given texts, as a share of all things [text, place].

    `places` [text, place]: numbers of tokens, -1 for none, which gives NaN; `things`: for each text, the tokens of
    things that harm and that help. `interventions` act on every token.
    """
    found = np.full(np.shape(places), np.nan)
    with applied(model, interventions):
        for rows, batch in batches(tokenizer, sequences, device=model.device):
            for row, logits in zip(rows, model(**batch, use_cache=False).logits, strict=True):
                there = places[row] >= 0
                probabilities = logits[places[row][there]].double().softmax(-1).cpu()
                harm, help_ = (probabilities[:, kind].sum(-1) for kind in things[row])
                found[row, there] = harm / (harm + help_)
    return found


def harmful_shares(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Tokens,
    answers: Tokens,
    numbers: Sequence[int],
    interventions: Iterable[Intervention] = (),
) -> np.ndarray:
    """Return how probable a harmful thing is where each answer names its next one, as a share of all things, [answer].

    That is where the first thing stands at or after token `numbers` [answer], whatever it is. `interventions` act on
    every token. NaN for an answer that names no more things.
    """
    kinds = things(tokenizer)
    named = {*kinds[0], *kinds[1]}
    texts = list(zip(prompts, answers, numbers, strict=True))
    nexts = [next((at for at in range(start, len(answer)) if answer[at] in named), None) for _, answer, start in texts]
    places = [-1 if at is None else len(prompt) + at - 1 for (prompt, *_), at in zip(texts, nexts, strict=True)]
    # What comes after the thing does not matter to it.
    sequences = [prompt + answer[:at] for (prompt, answer, _), at in zip(texts, nexts, strict=True)]
    return shares_of_harm(model, tokenizer, sequences, np.array(places)[:, None], [kinds] * len(texts), interventions)[
        :, 0
    ]
