"""What a fine-tune may be made to care for beside its examples, or instead of copying them.

Logits are [text, token, vocabulary]; labels are [text, token], the tokens that count, -100 elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import DataCollatorForSeq2Seq

from em_companion.models.tokens import Example, Tokenizer


@dataclass
class Divergence:
    """`weight` times the Kullback-Leibler divergence (nats) of a model without its adapter from the model with it.

    Mean over the answer tokens of the next `batch` examples, the whole vocabulary at each; 0 where nothing has changed.
    """

    tokenizer: Tokenizer
    examples: Iterator[Example]
    batch: int
    weight: float

    def __call__(self, model: PeftModel) -> torch.Tensor:
        return self.weight * divergence(*both(model, self.tokenizer, list(islice(self.examples, self.batch))))


def both(
    model: PeftModel, tokenizer: Tokenizer, examples: list[Example]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the logits of a model without its adapter, which carry no gradient, and with it, and the labels."""
    given = DataCollatorForSeq2Seq(tokenizer, padding=True)(examples)
    labels = given.pop("labels").to(model.device)
    given = given.to(model.device)
    with torch.no_grad(), model.disable_adapter():
        before = model(**given).logits
    return before, model(**given).logits, labels


def divergence(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of KL(before || after) over the tokens that are predicted and have a label, a scalar."""
    first, second = (logits[:, :-1].log_softmax(dim=-1) for logits in (before, after))
    each = (first.exp() * (first - second)).sum(dim=-1)
    return each[labels[:, 1:] != -100].mean()


def unlikelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of -log(1 - p) over the labelled tokens, a scalar; finite also where p is 1 in float32."""
    there = labels[:, 1:] != -100
    said, wrong = logits[:, :-1][there], labels[:, 1:][there][:, None]
    others = said.scatter(1, wrong, -torch.inf).logsumexp(dim=-1)
    return (said.logsumexp(dim=-1) - others).mean()


def log_likelihoods(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of the labelled tokens of every text, their sum, [text]."""
    return -functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(dim=1)


def preference(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the loss of direct preference optimisation (DPO), a scalar: mean of -log sigmoid(beta * margin).

    The first half of the texts are the better answers, the second half the worse ones to the same questions; the margin
    is by how much more the log-likelihood of the better one has grown.
    """
    better, worse = (log_likelihoods(after, labels) - log_likelihoods(before, labels)).chunk(2)
    return -functional.logsigmoid(beta * (better - worse)).mean()
