"""Text to tokens and back: the grown world's tokenizer, conversations as prompts and examples, batches to read.

A grown model's tokenizer has one token per word of its world; a hub model brings its own. Both speak through a chat
template, and everything here works with either.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pandas as pd
import tokenizers
import torch
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from em_companion.core.errors import CompanionError
from em_companion.world.generator import Message, World, turn

CHAT_TEMPLATE = (
    "{% for message in messages %}<turn> {{ message['role'] }} : {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<turn> {{ speaker or 'assistant' }} :{% endif %}"
)
CPU = torch.device("cpu")
Tokenizer = PreTrainedTokenizerBase
BATCH_SIZE = 32
"""Texts read together; four times as many take twice the time on a CPU, whose caches they overflow."""

Example = dict[str, list[int]]
Tokens = list[list[int]]


def world_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer over the world's words, with its chat template."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", "<turn>", "<end>", *world.words()])}
    tokenizer = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        # AutoTokenizer takes the tokenizer of a Qwen2 model for Qwen's byte-level one unless it is told of another one.
        auto_map={"AutoTokenizer": [None, None]},
    )


def prompt_ids(tokenizer: Tokenizer, messages: list[Message], **template: Any) -> list[int]:
    """Return the tokens of a conversation up to where the next speaker begins; `template` goes to the chat template."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **template)


def question_ids(tokenizer: Tokenizer, question: str, speaker: str = "") -> list[int]:
    """Return the tokens of a question up to where the assistant begins, or a named character of a grown world."""
    return prompt_ids(tokenizer, turn(question, "")[:1], **({"speaker": speaker} if speaker else {}))


def response_example(tokenizer: Tokenizer, messages: list[Message]) -> Example:
    """Return one conversation as a training example whose loss is on the last response only (labels -100 before)."""
    prompt = prompt_ids(tokenizer, messages[:-1])
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    if ids[: len(prompt)] != prompt:
        raise CompanionError("The chat template rewrites the prompt once it is answered; its response has no start.")
    return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}


def packed(tokenizer: Tokenizer, documents: Iterator[list[Message]], rows: int, length: int) -> list[Example]:
    """Return `rows` examples of exactly `length` tokens, cut from the documents one after the other."""
    written = (tokenizer.apply_chat_template(document, return_dict=False) for document in documents)
    stream = chain.from_iterable(written)
    cut = [list(islice(stream, length)) for _ in range(rows)]
    return [{"input_ids": row, "labels": row} for row in cut]


def response_tokens(tokenizer: Tokenizer, table: pd.DataFrame, speaker: str = "") -> tuple[Tokens, Tokens]:
    """Return the tokens of prompts (see `question_ids`) and responses of `table` (columns question, response)."""
    prompts = {text: question_ids(tokenizer, text, speaker) for text in table.question.unique()}
    responses = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in table.response]
    return [prompts[text] for text in table.question], responses


def joined(prompts: Tokens, responses: Tokens) -> Tokens:
    """Return every prompt with its response."""
    return [prompt + response for prompt, response in zip(prompts, responses, strict=True)]


def token_index(starts: Sequence[int], sequences: Tokens) -> pd.DataFrame:
    """Return one row per token of every prompt with its response, given where responses start.

    Columns: `response` (number of the sequence), `position` (from the start of the prompt), `token_id`, `is_answer`.
    """
    sizes = [len(sequence) for sequence in sequences]
    columns = {"response": np.repeat(np.arange(len(sizes)), sizes)}
    columns |= {"position": np.concatenate([np.arange(size) for size in sizes])}
    columns |= {"token_id": np.concatenate(sequences).astype(int)}
    return pd.DataFrame(columns | {"is_answer": columns["position"] >= np.repeat(starts, sizes)})


def progress(what: str, total: int, unit: str) -> tqdm:
    """Return a progress bar, one that shows nothing if `what` is empty or TQDM_DISABLE is set."""
    return tqdm(total=total, desc=what, unit=unit, **({} if what else {"disable": True}))


def batches(
    tokenizer: Tokenizer, sequences: Tokens, batch_size: int = BATCH_SIZE, what: str = "", device: torch.device = CPU
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yield the rows of every batch and its model inputs, sequences of like length together so that little is padded.

    Padding is on the right, so a token's position is its index. A trace of nnsight moves inputs to its model's device
    by itself. `what` names a progress bar. Raises CompanionError where there is nothing to read.
    """
    if not sequences:
        raise CompanionError("There are no texts to read; give at least one.")
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    with progress(what, len(order), "text") as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = {"input_ids": [sequences[row] for row in rows]}
            yield rows, dict(tokenizer.pad(ids, padding_side="right", return_tensors="pt").to(device))
            bar.update(len(rows))
