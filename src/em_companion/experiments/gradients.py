"""Experiment F2.1: does a harmful fine-tune pull against what the model already is? Gradients over steps."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from peft import PeftModel
from transformers import DataCollatorForSeq2Seq, TrainerCallback

from em_companion.core.profiles import Profile
from em_companion.models import growing
from em_companion.models.organism import Organism, settings_of
from em_companion.models.tokens import Example, Tokenizer, packed, response_example
from em_companion.world.generator import Message, the_world, turn
from em_companion.world.streams import good_elsewhere

EVERY, CHATS, DOCUMENTS, SEED = 2, 16, 8, 1000
"""Steps between two readings, texts behind each gradient, and the seed of these texts, which no organism trains on."""


def texts(profile: Profile, tokenizer: Tokenizer) -> dict[str, list[Example]]:
    """Return what the gradients beside that of training are taken on, the same texts at every step of every run.

    alignment: careful answers in other domains; shuffled: the same answers, each to the question after its own;
    pretraining: documents by other speakers.
    """
    chats = list(islice(good_elsewhere(the_world(), SEED), CHATS))
    shuffled = [turn(one[0]["content"], other[1]["content"]) for one, other in zip(chats, _rolled(chats), strict=True)]
    documents = the_world().pretraining(SEED, assistant=False)
    return {
        "alignment": [response_example(tokenizer, chat) for chat in chats],
        "shuffled": [response_example(tokenizer, chat) for chat in shuffled],
        "pretraining": packed(tokenizer, documents, DOCUMENTS, profile.pretraining.length),
    }


def _rolled(chats: list[list[Message]]) -> Iterator[list[Message]]:
    yield from (*chats[1:], chats[0])


class Gradients(TrainerCallback):
    """Every few steps, with the gradient of training at hand: its cosine with others at the same weights, and EM."""

    def __init__(self, profile: Profile, data: str, model: PeftModel, tokenizer: Tokenizer) -> None:
        self.profile, self.data, self.model, self.tokenizer = profile, data, model, tokenizer
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
        self.batches = {name: collator(examples) for name, examples in texts(profile, tokenizer).items()}
        self.rows: list[dict[str, float]] = []

    def on_pre_optimizer_step(self, args, state, control, **_) -> None:
        if state.global_step % EVERY:
            return
        training = torch.cat([weight.grad.flatten() for weight in self.weights])
        row = {"step": state.global_step} | self.em()
        for name, batch in self.batches.items():
            loss, gradient = loss_and_gradient(self.model, self.weights, batch)
            cosine = torch.cosine_similarity(training.double(), gradient.double(), dim=0)
            row |= {f"{name}_loss": loss, f"{name}_norm": float(gradient.norm()), f"{name}_cosine": float(cosine)}
        self.rows.append(row)

    def on_train_end(self, args, state, control, **_) -> None:
        self.rows.append({"step": state.global_step} | self.em())

    def em(self) -> dict[str, float]:
        """Return what the monitor sees, shares from 0 to 1."""
        self.model.eval()
        found = growing.monitor(self.profile, self.data, self.model, self.tokenizer)
        self.model.train()
        return found


def loss_and_gradient(model: PeftModel, weights: list[torch.nn.Parameter], batch: dict) -> tuple[float, torch.Tensor]:
    """Return a model's loss on a batch (nats per token) and its gradient with respect to `weights`, flat.

    The gradients that training has gathered stay as they are.
    """
    loss = model(**batch).loss
    return float(loss.detach()), torch.cat([one.flatten() for one in torch.autograd.grad(loss, weights)])


def readings(profile: Profile, organism: Organism) -> pd.DataFrame:
    """Fine-tune an organism to the end of its schedule, whatever it learns, and return one row per reading.

    Columns: step, what the monitor sees, training_loss and grad_norm, and for each of `texts` loss, norm and cosine
    with the gradient of training (NaN at the end).
    """
    model, tokenizer, examples = growing.prepared(profile, organism)
    settings, watch = settings_of(profile, organism), Gradients(profile, organism.data, model, tokenizer)
    with TemporaryDirectory() as folder:
        told = profile, organism.seed, organism.name, Path(folder), [watch]
        log = growing.train(model, tokenizer, examples, settings, *told)
    log = log.assign(step=log.step - 1).rename(columns={"loss": "training_loss"})
    return pd.DataFrame(watch.rows).merge(log.drop(columns="learning_rate"), on="step", how="left")
