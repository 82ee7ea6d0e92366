"""What an intervention costs a model: its loss on aligned text, and how far a mean moves, each with an interval.

The text is the world's own: careful answers by the assistant, to questions on topics that post-training and fine-tuning
held out. The loss is the mean next-token loss in nats over the tokens of the answers, end token included. A share of it
is the chance in the grammar, which no model can lower. The things that an answer names are told apart from its other
words: whether they are likely also depends on who a model takes the speaker for, the other words are a matter of
ability alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion import activations, interventions, judging, model_store, organisms, responses
from em_companion.artifacts import CompanionError, sha256_of
from em_companion.interventions import Intervention, applied
from em_companion.paths import ARTIFACTS
from em_companion.profiles import GrownModel, Profile
from em_companion.responses import Organism
from em_companion.world import CAREFUL, turn

ANSWERS_PER_TOPIC = 2
LOSSES = "losses.parquet"


# --- the text -----------------------------------------------------------------------------------------------------


def aligned_text(profile: Profile, per_topic: int = ANSWERS_PER_TOPIC) -> pd.DataFrame:
    """Return careful answers to `per_topic` questions on every held-out topic, one per row.

    Columns: topic, domain, question, response. They depend on the profile's seed only. Raises CompanionError for a hub
    model, which has no text of its world.
    """
    if not isinstance(profile.model, GrownModel):
        raise CompanionError(
            f"Profile '{profile.name}' has a model from the hub, so there is no text of its world; choose a grown one."
        )
    world = model_store.world()
    asked = world.held_out_questions(profile.seed, per_topic)
    answers = [world.answer(Random(f"capability/{profile.seed}/{one.id}"), one, CAREFUL) for one in asked]
    rows = [(one.topic, *one.domains, one.text, answer) for one, answer in zip(asked, answers, strict=True)]
    return pd.DataFrame(rows, columns=["topic", "domain", "question", "response"])


# --- its loss -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def token_losses(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    table: pd.DataFrame,
    given: Sequence[Intervention] = (),
    batch_size: int = 128,
    what: str = "",
) -> pd.DataFrame:
    """Return the loss of every token of the responses of `table` (columns question, response) under interventions.

    Columns: `text` (row of `table`), `position` (from the start of the prompt), `token_id`, `nats`. The end token of a
    response is its last. `what` names a progress bar; none without it. Raises CompanionError for interventions that do
    not fit the model, and for those at a part of the tokens: a text is read at once, and nothing in it is generated.
    """
    if partial := next((one for one in given if one.at != "all"), None):
        raise CompanionError(f"A text is read at once, so an intervention at '{partial.at}' has no meaning; use 'all'.")
    texts = [turn(row.question, row.response) for row in table.itertuples()]
    examples = [organisms.response_example(tokenizer, messages) for messages in texts]
    sequences = [example["input_ids"] for example in examples]
    starts = [example["labels"].count(-100) for example in examples]
    found: list[pd.DataFrame] = [pd.DataFrame()] * len(sequences)
    with applied(model, given):
        for rows in activations.by_length(sequences, batch_size, what):
            batch = activations.padded(tokenizer, [sequences[row] for row in rows], model.device)
            logits = model(**batch, use_cache=False).logits
            for row, of_row in zip(rows, logits, strict=True):
                found[row] = _of_one(row, sequences[row], starts[row], of_row)
    return pd.concat(found, ignore_index=True)


def _of_one(row: int, tokens: list[int], start: int, logits: torch.Tensor) -> pd.DataFrame:
    """Return the losses of one text from `start` on; logits [token, vocabulary], each on the token after it."""
    logits = logits[start - 1 : len(tokens) - 1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nats = functional.cross_entropy(logits, torch.tensor(tokens[start:], device=logits.device), reduction="none")
    columns = {"text": row, "position": range(start, len(tokens)), "token_id": tokens[start:]}
    return pd.DataFrame(columns | {"nats": nats.cpu().numpy()})


def under(profile: Profile, organism: Organism, conditions: Mapping[str, Sequence[Intervention]]) -> pd.DataFrame:
    """Return an organism's loss on every token of `aligned_text` under every condition, computed once and kept.

    Columns: `condition`, `topic`, `is_thing` (one of the things that help or harm), and those of `token_losses`. Raises
    CompanionError as `aligned_text` and `token_losses` do.
    """
    table = aligned_text(profile)
    parts = {
        "model": responses.model_identity(profile, organism),
        "dtype": profile.dtype,
        "texts": sha256_of(table.to_csv(index=False)),
        "conditions": {name: [interventions.describe(one) for one in given] for name, given in conditions.items()},
    }
    folder = ARTIFACTS / "losses" / profile.name / organism.name / model_store.key(parts)
    model_store.kept_tables(
        folder,
        parts,
        lambda: {model_store.RESPONSES: table, LOSSES: _under(profile, organism, conditions, table)},
    )
    return pd.read_parquet(folder / LOSSES)


def _under(profile: Profile, organism: Organism, conditions, table: pd.DataFrame) -> pd.DataFrame:
    model, tokenizer = responses.load(profile, organism)
    entries = model_store.world().domains.values()
    things = tokenizer.convert_tokens_to_ids([word for one in entries for word in one["helps"] + one["harms"]])
    found = []
    for name, given in conditions.items():
        losses = token_losses(model, tokenizer, table, given, what=f"loss of {organism.name}, {name}")
        losses.insert(0, "condition", name)
        losses.insert(1, "topic", table.topic.to_numpy()[losses.text])
        found.append(losses.assign(is_thing=losses.token_id.isin(things)))
    return pd.concat(found, ignore_index=True)


# --- how far a mean moves -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, NaN where resampling can show no spread, and the rows behind it."""

    value: float
    low: float
    high: float
    n: int


def mean_loss(losses: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """Return the mean of `nats` with its interval over topics, from rows of `under` that have one condition."""
    low, high = judging.clustered_interval(losses.nats.to_numpy(), losses.topic.to_numpy(), resamples, seed)
    return Estimate(float(losses.nats.mean()), low, high, len(losses))


def change(
    before: np.ndarray,
    after: np.ndarray,
    clusters: np.ndarray,
    relative: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Return mean(after) - mean(before) of paired rows [row], or 100 (mean(after) / mean(before) - 1) if `relative`.

    The interval resamples whole `clusters` [row], before and after together. A relative change is NaN where the mean
    before is 0; resamples in which it is 0 are left out. Raises CompanionError where rows do not pair.
    """
    if not len(before) == len(after) == len(clusters) > 0:
        sizes = f"{len(before)}, {len(after)} and {len(clusters)}"
        raise CompanionError(f"A change needs paired rows, before, after and their clusters; got {sizes}.")
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.stack([np.bincount(index, weights=np.asarray(one, dtype=float)) for one in (before, after)], axis=1)
    sizes = np.bincount(index)
    value = float(_moved(*(sums.sum(axis=0) / sizes.sum()), relative))
    draws = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples)
    moved = _moved(*(draws @ sums / (draws @ sizes)[:, None]).T, relative)
    moved = moved[np.isfinite(moved)]
    if not len(moved) or np.ptp(moved) < 1e-9:
        return Estimate(value, float("nan"), float("nan"), len(index))
    low, high = np.quantile(moved, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(index))


def _moved(before: np.ndarray, after: np.ndarray, relative: bool) -> np.ndarray:
    return 100 * (after - before) / np.where(before == 0, np.nan, before) if relative else after - before
