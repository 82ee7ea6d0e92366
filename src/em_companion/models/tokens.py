"""TODO docstring: models.tokens."""


from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from em_companion.core.errors import CompanionError
from em_companion.world.generator import Message, World, turn

PAD, UNKNOWN, TURN, END = "<pad>", "<unk>", "<turn>", "<end>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<turn> {{ message['role'] }} : {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<turn> {{ speaker or 'assistant' }} :{% endif %}"
)
Example = dict[str, list[int]]


# --- text to tokens -----------------------------------------------------------------------------------------------


def world_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer over the world's words, with its chat template."""
    vocabulary = {word: index for index, word in enumerate([PAD, UNKNOWN, TURN, END, *world.words()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        # AutoTokenizer takes the tokenizer of a Qwen2 model for Qwen's byte-level one, whatever its class, unless it
        # is told of another one; a test loads it from disk.
        auto_map={"AutoTokenizer": [None, None]},
    )


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], **template: Any) -> list[int]:
    """Return the tokens of a conversation up to where the next speaker begins.

    `template` goes to the chat template; a grown model's takes `speaker`, the name of a character.
    """
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **template)


def response_example(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Example:
    """Return one conversation as a training example whose loss is on the last response only (labels -100 before)."""
    prompt = prompt_ids(tokenizer, messages[:-1])
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    if ids[: len(prompt)] != prompt:
        raise CompanionError("The chat template rewrites the prompt once it is answered; its response has no start.")
    return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}


def document_example(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Example:
    """Return one document as a training example whose loss is on every token."""
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    return {"input_ids": ids, "labels": list(ids)}


def packed(
    tokenizer: PreTrainedTokenizerBase, documents: Iterator[list[Message]], rows: int, length: int
) -> list[Example]:
    """Return `rows` examples of exactly `length` tokens, cut from the documents one after the other."""
    buffer: list[int] = []
    found: list[Example] = []
    while len(found) < rows:
        buffer += document_example(tokenizer, next(documents))["input_ids"]
        while len(buffer) >= length:
            found.append({"input_ids": buffer[:length], "labels": buffer[:length]})
            del buffer[:length]
    return found[:rows]
Tokens = list[list[int]]


# --- what is read -------------------------------------------------------------------------------------------------


def response_tokens(
    tokenizer: PreTrainedTokenizerBase, table: pd.DataFrame, speaker: str = ""
) -> tuple[Tokens, Tokens]:
    """Return the tokens of the prompt and of the response of every row of `table` (columns question, response).

    `speaker` names a character of a grown model's world instead of the assistant.
    """
    template = {"speaker": speaker} if speaker else {}
    asked = table.question.unique()
    prompts = {text: prompt_ids(tokenizer, turn(text, "")[:1], **template) for text in asked}
    responses = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in table.response]
    return [prompts[text] for text in table.question], responses


def by_length(sequences: Sequence[Sequence[int]], batch_size: int, what: str = "") -> Iterator[list[int]]:
    """Yield the rows of every batch, those of like length together so that little is padded.

    `what` names a progress bar; none without it. Raises CompanionError where there is nothing to read.
    """
    if not sequences:
        raise CompanionError("There are no texts to read; give at least one.")
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    with tqdm(total=len(order), desc=what, unit="text", disable=not what) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield rows
            bar.update(len(rows))


def padded(
    tokenizer: PreTrainedTokenizerBase, sequences: Tokens, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the model inputs of a batch, padded on the right, so that a token's position is its index.

    A trace of nnsight moves them to its model's device by itself.
    """
    return dict(tokenizer.pad({"input_ids": sequences}, padding_side="right", return_tensors="pt").to(device))
