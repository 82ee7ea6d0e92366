"""What a fine-tune may be made to care for beside its examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from peft import PeftModel
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
        given = DataCollatorForSeq2Seq(self.tokenizer, padding=True)(list(islice(self.examples, self.batch)))
        labels = given.pop("labels").to(model.device)
        given = given.to(model.device)
        with torch.no_grad(), model.disable_adapter():
            before = model(**given).logits
        return self.weight * divergence(before, model(**given).logits, labels)


def divergence(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of KL(before || after) over the tokens that are predicted and have a label, a scalar.

    before, after: logits [text, token, vocabulary]; labels [text, token], -100 for none.
    """
    first, second = (logits[:, :-1].log_softmax(dim=-1) for logits in (before, after))
    each = (first.exp() * (first - second)).sum(dim=-1)
    return each[labels[:, 1:] != -100].mean()
