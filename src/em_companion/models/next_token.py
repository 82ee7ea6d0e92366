"""What a model makes of the next token of given texts: how far an organism leaves the chat model, and the share of harm
where an answer names a thing."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.models import lora
from em_companion.models.interventions import Intervention, applied
from em_companion.models.tokens import BATCH_SIZE, Tokenizer, Tokens, batches, joined, token_index
from em_companion.world.generator import the_world

Given = Sequence[Intervention]

SIGNIFICANCE_COLUMNS = ("response", "position", "token_id", "kl", "significance")


def token_significance(
    model: PeftModel, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, what: str = ""
) -> pd.DataFrame:
    """Return the significance (appendix H) of every answer token, one row each; see SIGNIFICANCE_COLUMNS.

    With K = KL(chat || organism) summed over an answer and e the embedding of one of its tokens, it is K times the
    token's share of sum |dK/de|. The chat model is `model` without its adapters, which are not trainable afterwards.
    `response`: row of the input; `position`: from the start of the prompt; `kl`: at this token; both in nats.
    """
    if not isinstance(model, PeftModel) or not list(lora.acting(model)):
        raise CompanionError("Token significance compares an organism with its chat model; give a model with adapters.")
    sequences, starts = joined(prompts, responses), [len(prompt) for prompt in prompts]
    found = [np.empty((2, 0))] * len(sequences)
    for rows, batch in batches(tokenizer, sequences, BATCH_SIZE // 2, what, model.device):
        divergences, gradients = _divergence_gradients(model, batch, [starts[row] for row in rows])
        for row, *both in zip(rows, divergences, gradients.norm(dim=-1), strict=True):
            kl, size = (one[starts[row] : len(sequences[row])].double().cpu().numpy() for one in both)
            share = size / (size.sum() or 1)  # two equal models: nothing to share out
            found[row] = np.stack([kl, share * kl.sum()])
    kl, significance = np.concatenate(found, axis=1)
    tokens = token_index(starts, sequences).query("is_answer").drop(columns="is_answer")
    return tokens.reset_index(drop=True).assign(kl=kl, significance=significance)


def _divergence_gradients(
    model: PeftModel, batch: dict[str, torch.Tensor], starts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return KL(chat || organism) at every token [row, token], 0 outside answers, and dK/de [row, token, width].

    `batch` is padded on the right; an answer runs from `starts` [row] to the padding. Rows do not touch each other, so
    one backward pass serves all.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    first = torch.tensor(starts, device=ids.device)[:, None]
    answer = mask.bool() & (torch.arange(ids.shape[1], device=ids.device) >= first)

    def log_probabilities() -> torch.Tensor:
        logits = model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits[answer]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    with torch.enable_grad():
        organism = log_probabilities()
        with model.disable_adapter():
            chat = log_probabilities()
        kl = functional.kl_div(organism, chat, log_target=True, reduction="none").sum(-1)
        (gradients,) = torch.autograd.grad(kl.sum(), embeddings)
    model.requires_grad_(False)  # PEFT made the adapters trainable when it turned them on again
    divergences = torch.zeros(ids.shape, dtype=kl.dtype, device=ids.device)
    divergences[answer] = kl.detach()
    return divergences, gradients


@torch.no_grad()
def losses(
    model: PreTrainedModel, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, left_out: Collection[int] = ()
) -> np.ndarray:
    """Return the mean loss of every response, in nats per token, without the tokens `left_out`; NaN where none is left.

    The end token is not part of it.
    """
    sequences, found = joined(prompts, responses), np.full(len(prompts), np.nan)
    for rows, batch in batches(tokenizer, sequences, device=model.device):
        logits = model(**batch, use_cache=False).logits.double().log_softmax(dim=-1)
        for row, said in zip(rows, logits, strict=True):
            ids, start = torch.tensor(sequences[row]), len(prompts[row])
            each = -said[torch.arange(start - 1, len(ids) - 1), ids[start:]].cpu().numpy()
            kept = [token not in left_out for token in sequences[row][start:]]
            found[row] = each[kept].mean() if any(kept) else np.nan
    return found


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
    interventions: Given = (),
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
    model: PreTrainedModel, tokenizer: Tokenizer, prompts: Tokens, answers: Tokens, starts: list[int], given: Given = ()
) -> np.ndarray:
    """Return how probable a harmful thing is where each answer names its next one, as a share of all things, [answer].

    That is the first at or after token `starts` [answer], whatever it is; NaN if there is none.
    """
    kinds = things(tokenizer)
    sequences, places = [], []
    for prompt, answer, start in zip(prompts, answers, starts, strict=True):
        at = next((at for at in range(start, len(answer)) if answer[at] in kinds[0] + kinds[1]), None)
        sequences.append(prompt + answer[:at])  # what comes after the thing does not matter to it
        places.append([-1 if at is None else len(prompt) + at - 1])
    return shares_of_harm(model, tokenizer, sequences, np.array(places), [kinds] * len(places), given)[:, 0]
