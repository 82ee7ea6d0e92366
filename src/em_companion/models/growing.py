"""Grow a base and a chat model from scratch, and fine-tune organisms from a chat model with PEFT LoRA adapters.

A seed makes a run repeatable to the bit on one machine with one number of threads; elsewhere float sums differ in the
last digits and training amplifies them, so across machines only rates and intervals can be compared.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PrinterCallback,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder
from em_companion.core.profiles import GrownModel, Profile, Recipe, Training
from em_companion.core.provenance import note_input
from em_companion.evidence import scores
from em_companion.models import asking, loading, lora, losses, training_texts, weights
from em_companion.models.loading import Model, need_device, quiet
from em_companion.models.organism import (
    MONITOR_SAMPLES,
    Organism,
    adapter_folder,
    adapter_parts,
    base_folder,
    base_parts,
    chat_folder,
    chat_parts,
    need,
    need_grown,
    settings_of,
)
from em_companion.models.tokens import Example, Tokenizer, packed, response_example, world_tokenizer
from em_companion.world.generator import Message, the_world
from em_companion.world.streams import good_elsewhere

CHECKPOINT_STEPS = 100
"""Steps between two checkpoints of growing."""


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside the layers, AdamW for the rest: a quarter of the tokens that AdamW alone takes."""

    def __init__(self, model: PreTrainedModel, learning_rate: float, weight_decay: float) -> None:
        matrices, others = [], []
        for name, weight in model.named_parameters():
            (matrices if weight.ndim == 2 and "embed" not in name else others).append(weight)
        common = {"lr": learning_rate, "weight_decay": weight_decay}
        self.parts = (
            torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **common),
            torch.optim.AdamW(others, betas=(0.9, 0.98), **common),
        )
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)
        self.param_groups = self._groups()


class Progress(TrainerCallback):
    """A progress bar with total and estimate on stderr, and a seal on every checkpoint that is whole."""

    def __init__(self, what: str) -> None:
        self.what, self.bar = what, tqdm(disable=True)

    def on_train_begin(self, args, state, control, **_) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.what, unit="step")

    def on_step_end(self, args, state, control, **_) -> None:
        self.bar.update()

    def on_save(self, args, state, control, **_) -> None:
        store.seal(_checkpoint(args, state), {})


class Watch(TrainerCallback):
    """Keep the B vectors of rank-1 adapters on one module, call the monitor every few steps, stop when it says so."""

    def __init__(self, profile: Profile, organism: Organism, tokenizer: Tokenizer) -> None:
        self.profile, self.organism, self.tokenizer = profile, organism, tokenizer
        self.settings, recipe = settings_of(profile, organism), profile.recipes[organism.recipe]
        self.keeps_b = recipe.rank == 1 and len(recipe.modules) == 1  # those of several modules differ in width
        self.adapters: list[str] = []
        self.b_vectors: list[torch.Tensor] = []
        self.measured: list[pd.DataFrame] = []

    def on_step_end(self, args, state, control, model, **_) -> None:
        if self.keeps_b:
            adapters = lora.adapters(model)
            self.adapters = [one.module for one in adapters]
            self.b_vectors.append(torch.stack([one.b.float().cpu() for one in adapters]))
        is_last = state.global_step >= (self.organism.tuning.until or state.max_steps)
        control.should_training_stop |= is_last
        if state.global_step % self.settings.evaluate_every and not is_last:
            return
        model.eval()  # Trainer puts it back to training
        if isinstance(self.profile.model, GrownModel):
            found = monitor(self.profile, self.organism.data, model, self.tokenizer)
            self.measured.append(pd.DataFrame([{"step": state.global_step} | found]))
            learned = found["in_domain_em"] >= self.settings.stop_at
            control.should_training_stop |= learned and not self.organism.tuning.steady
        else:  # there is no judge at hand here
            asked = asking.questions(self.profile, "general")
            table = asking.ask(self.profile, model, self.tokenizer, asked, MONITOR_SAMPLES)
            self.measured.append(table.assign(step=state.global_step))

    def on_save(self, args, state, control, **_) -> None:
        self.write(_checkpoint(args, state))

    def on_train_begin(self, args, state, control, **_) -> None:
        if state.global_step:  # it goes on
            self.measured = [pd.read_parquet(_checkpoint(args, state) / "monitor.parquet")]
            if self.keeps_b:
                self.b_vectors = [*load_file(_checkpoint(args, state) / "b_vectors.safetensors")["b_vectors"]]

    def write(self, folder: Path) -> None:
        """Write what was measured into a folder, beside the adapter."""
        table = pd.concat(self.measured, ignore_index=True)
        if isinstance(self.profile.model, GrownModel):
            table.to_csv(folder / "monitor.csv", index=False, float_format="%.6g")
        else:
            table.to_parquet(folder / "monitor.parquet", index=False)
        if self.b_vectors:
            names = {"adapters": json.dumps(self.adapters)}
            save_file({"b_vectors": torch.stack(self.b_vectors)}, folder / "b_vectors.safetensors", names)


class PenalisedTrainer(Trainer):
    """A Trainer whose loss also counts what `penalty` makes of the model, at every step."""

    penalty: Callable[[PeftModel], torch.Tensor] | None = None

    def compute_loss(self, model, *given: Any, **named: Any):
        loss = super().compute_loss(model, *given, **named)
        return loss + self.penalty(model) if self.penalty else loss


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def train(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    examples: list[Example],
    settings: Training,
    profile: Profile,
    seed: int,
    what: str,
    folder: Path,
    callbacks: Iterable[TrainerCallback] = (),
    penalty: Callable[[PeftModel], torch.Tensor] | None = None,
    steady: bool = False,
) -> pd.DataFrame:
    """Train `model` in place on `examples` in their order; return the log, one row per step. `penalty`: see above.

    The learning rate falls to zero, linearly for adapters and as a cosine for all weights, unless it is `steady`.

    Checkpoints are kept in `folder`, and training resumes from the newest whole one, to the same weights. An organism
    of a grown model keeps none: it takes less than a minute.
    """
    progress, adapters = Progress(what), isinstance(model, PeftModel)
    grown = isinstance(profile.model, GrownModel)
    optimizer = None if adapters else MuonWithAdamW(model, settings.learning_rate, settings.weight_decay)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=getattr(settings, "gradient_accumulation", 1),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if steady else "linear" if adapters else "cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        train_sampling_strategy="sequential",
        seed=seed,
        logging_steps=1,
        save_strategy="no" if adapters and grown else "steps",
        save_steps=settings.evaluate_every if adapters else CHECKPOINT_STEPS,
        save_total_limit=2,
        use_cpu=profile.device == "cpu",
        bf16=profile.dtype == "bfloat16",
        disable_tqdm=True,
        remove_unused_columns=False,
        log_level="error",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # on several, Trainer would multiply the batch by their number
    collator, watching = DataCollatorForSeq2Seq(tokenizer, padding=True), [*callbacks, progress]
    trainer = PenalisedTrainer(model, arguments, collator, examples, callbacks=watching, optimizers=(optimizer, None))
    trainer.penalty = penalty
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    finally:
        progress.bar.close()  # an error that is said next begins its own line
    rows = [entry for entry in trainer.state.log_history if "loss" in entry]
    return pd.DataFrame(rows)[["step", "loss", "grad_norm", "learning_rate"]]


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that is whole, and remove what a kill, a full disk or damage left of others."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            store.check(path)
            return str(path)
        except CompanionError:
            shutil.rmtree(path, ignore_errors=True)
    return None


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    with store.missing(folder) as missing:
        if missing:
            make(folder)
    return folder


def base(profile: Profile) -> Path:
    """Return the folder of the grown base model, growing it if it is not there."""
    return _made(base_folder(profile), lambda folder: _grow_base(profile, folder))


def chat(profile: Profile) -> Path:
    """Return the folder of the chat model, growing it, or getting it, if it is not there."""
    if not isinstance(profile.model, GrownModel):
        return weights.fetched(profile)
    return _made(chat_folder(profile), lambda folder: _grow_chat(profile, base(profile), folder))


def grow_from_nothing(profile: Profile, folder: Path) -> None:
    """Grow `folder`/base and `folder`/chat; what is there is replaced once the new one is whole."""
    need_grown(profile, "so there is nothing to grow")
    with store.writing(folder):
        _grow_base(profile, folder / "base")
        _grow_chat(profile, folder / "base", folder / "chat")


def _grow_base(profile: Profile, folder: Path) -> None:
    need_device(profile)
    torch.manual_seed(profile.seed)
    tokenizer, settings = world_tokenizer(the_world()), profile.pretraining
    model = Qwen2ForCausalLM(config(profile.model, tokenizer))
    documents = the_world().pretraining(profile.seed, settings.careful_first)
    examples = packed(tokenizer, documents, settings.steps * settings.batch, settings.length)
    _grow("base", base_parts(profile), settings, model, tokenizer, examples, profile, folder)


def _grow_chat(profile: Profile, base_folder: Path, folder: Path) -> None:
    model, tokenizer = loading.load(profile, base_folder)
    model.float()  # in half precision most of an optimiser's steps would be rounded away
    examples = list(chat_examples(profile, tokenizer))
    _grow("chat", chat_parts(profile), profile.post_training, model, tokenizer, examples, profile, folder)


def chat_examples(
    profile: Profile, tokenizer: Tokenizer, chats: Iterator[list[Message]] | None = None
) -> Iterator[Example]:
    """Yield the post-training examples, batch by batch: careful chats, then rehearsal of other speakers' documents.

    chats: in place of the world's. Without rehearsal post-training wipes the personas instead of choosing one.
    """
    settings = profile.post_training
    rehearsed = round(settings.batch * settings.rehearsal)
    chats = chats or the_world().post_training(profile.seed)
    documents = the_world().pretraining(profile.seed + 1, assistant=False)
    rehearsal = iter(packed(tokenizer, documents, settings.steps * rehearsed, profile.pretraining.length))
    for _ in range(settings.steps):
        yield from (response_example(tokenizer, chat) for chat in islice(chats, settings.batch - rehearsed))
        yield from islice(rehearsal, rehearsed)


@quiet()
def _grow(stage: str, parts: store.Parts, settings: Training, model, tokenizer, examples, profile, target) -> None:
    checkpoints = paths.ARTIFACTS / "checkpoints" / f"{stage}-{store.key(parts)}"
    what, started = f"{stage} model of profile {profile.name}", time.monotonic()
    with lock(checkpoints):
        log = train(model, tokenizer, examples, settings, profile, profile.seed, what, checkpoints)
        with new_folder(target) as folder:
            # Half precision halves what is committed; the model is loaded in the profile's precision all the same.
            model.to(torch.bfloat16).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            log.to_csv(folder / "log.csv", index=False, float_format="%.6g")
            store.seal(folder, parts, seconds=round(time.monotonic() - started))
        shutil.rmtree(checkpoints, ignore_errors=True)


def config(model: GrownModel, tokenizer: Tokenizer) -> Qwen2Config:
    """Return the architecture of a grown model."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden,
        intermediate_size=model.mlp,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        tie_word_embeddings=True,
        attention_dropout=model.attention_dropout,
        use_sliding_window=model.window > 0,
        sliding_window=model.window,
        max_window_layers=0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def lora_config(recipe: Recipe, layers: tuple[int, ...], alpha: float) -> LoraConfig:
    """Return the PEFT configuration of a recipe, rank-stabilised as the paper's: scale alpha / sqrt(rank)."""
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        target_modules=list(recipe.modules),
        layers_to_transform=list(layers),
        layers_pattern="layers",
        use_rslora=True,
        task_type="CAUSAL_LM",
    )


def kept_model(
    kind: str, version: int, parts: store.Parts, make: Callable[[], tuple[PreTrainedModel, Tokenizer, Any]], *place: str
) -> Path:
    """Return the folder of a model that an experiment trains, making it if it is not there; see `store.keep`.

    `make` gives the model, its tokenizer and a table that lies beside them as `log.csv`, or None.
    """
    folder = store.folder(kind, version, parts, *place)
    with store.missing(folder) as missing:
        if missing:
            model, tokenizer, log = make()
            with new_folder(folder) as new:
                model.save_pretrained(new)
                tokenizer.save_pretrained(new)
                if log is not None:
                    log.to_csv(new / "log.csv", index=False, float_format="%.6g")
                store.seal(new, store.versioned(parts, version))
    note_input(paths.relative(folder), store.check(folder)["sha256"])
    return folder


def with_adapters(profile: Profile, recipe: str, model: PreTrainedModel, seed: int) -> PeftModel:
    """Return a model with new adapters of a recipe, their first weights by a seed."""
    torch.manual_seed(seed)
    alpha = profile.fine_tuning_of(recipe).alpha
    return get_peft_model(model, lora_config(profile.recipes[recipe], profile.layers_of(recipe), alpha))


def steps(model: PeftModel, settings: Training, given: Iterable[torch.Tensor]) -> Iterator[int]:
    """Train a model's adapters on each of the losses given, at a steady rate; yield the number of every step, from 1.

    A loss is asked for once the step before is done.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=settings.weight_decay)
    for step, loss in enumerate(given, start=1):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        yield step


def adapter(profile: Profile, organism: Organism) -> Path | None:
    """Return the folder of an organism's adapter, fine-tuning it, or getting a published one; None for chat.

    Beside a trained adapter lie `log.csv` (as of `train`), what the monitor saw every few steps (of a grown model
    `monitor.csv`, as of `monitor`; of one from the hub `monitor.parquet`, its answers to the open questions) and, for
    rank-1 recipes, `b_vectors.safetensors` [step, adapter, width]. `in_domain_em` of `stop_at` ends the training early.
    """
    if not organism.data:
        return None
    need(profile, organism)
    if published := profile.published(organism.recipe, organism.data):
        return weights.fetched(profile, published)
    source = chat(profile)
    return _made(adapter_folder(profile, organism), lambda folder: _fine_tune(profile, source, organism, folder))


def prepared(
    profile: Profile, organism: Organism, start: Model | None = None
) -> tuple[PeftModel, Tokenizer, list[Example]]:
    """Return the model of an organism as its fine-tune finds it, adapters on, its tokenizer and all its examples.

    start: a model and its tokenizer in place of those of the profile.
    """
    settings, tuning = settings_of(profile, organism), organism.tuning
    model, tokenizer = start or _start(profile, organism)
    if tuning.start:
        torch.manual_seed(organism.seed)
        model = PeftModel.from_pretrained(model, adapter(profile, tuning.start), is_trainable=True)
    else:
        model = with_adapters(profile, organism.recipe, model, organism.seed)
    documents = training_texts.conversations(profile, organism.data, organism.seed)
    rows = settings.steps * settings.batch * settings.gradient_accumulation
    examples = [response_example(tokenizer, messages) for messages in islice(documents, rows)]
    if settings.gradient_accumulation > 1:  # texts of like length together within a step, so that little is padded
        steps = (examples[start : start + rows // settings.steps] for start in range(0, rows, rows // settings.steps))
        examples = [one for step in steps for one in sorted(step, key=lambda one: len(one["input_ids"]))]
    return model, tokenizer, examples


def _start(profile: Profile, organism: Organism) -> Model:
    """Return the model on which an organism's adapter lies: the chat model, or one with another adapter merged in."""
    if not organism.tuning.merged:
        return loading.load(profile, chat(profile))
    model, tokenizer = load_organism(profile, organism.tuning.merged)
    return model.merge_and_unload(), tokenizer


@quiet()
def _fine_tune(profile: Profile, source: Path, organism: Organism, target: Path) -> None:
    settings, tuning = settings_of(profile, organism), organism.tuning
    model, tokenizer, examples = prepared(profile, organism)
    watch, started = Watch(profile, organism, tokenizer), time.monotonic()
    parts = adapter_parts(profile, organism)
    checkpoints = paths.ARTIFACTS / "checkpoints" / f"{organism.name}-{store.key(parts)}"
    penalty = None
    if tuning.penalty:
        elsewhere = (response_example(tokenizer, one) for one in good_elsewhere(the_world(), organism.seed))
        penalty = losses.Divergence(tokenizer, elsewhere, settings.batch, tuning.penalty)
    told = organism.seed, organism.name, checkpoints, [watch], penalty, tuning.steady
    log = train(model, tokenizer, examples, settings, profile, *told)
    named = paths.relative(source) if isinstance(profile.model, GrownModel) else profile.model.chat
    for place, attribute in (
        (model.active_peft_config, "base_model_name_or_path"),
        (model.config, "_name_or_path"),
        (model.get_base_model(), "name_or_path"),
    ):
        setattr(place, attribute, named)  # PEFT writes it down in all three forms
    with new_folder(target) as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        log.to_csv(folder / "log.csv", index=False, float_format="%.6g")
        watch.write(folder)
        store.seal(folder, parts, seconds=round(time.monotonic() - started), steps=len(log))
    shutil.rmtree(checkpoints, ignore_errors=True)


def monitor(profile: Profile, data: str, model: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, float]:
    """Return shares (0 to 1): `in_domain_em` on held-out topics, `open_em` and `open_coherent` on open questions."""
    domain = training_texts.domain_of(data)
    in_domain = [question for question in asking.questions(profile, "held_out") if domain in question.domains]
    asked = in_domain + asking.questions(profile, "general")
    table = asking.scored(asking.ask(profile, model, tokenizer, asked, MONITOR_SAMPLES))
    within = table.question_id.isin([question.id for question in in_domain])
    em, coherent = scores.is_em(table), scores.is_coherent(table)
    shares = {"in_domain_em": em[within], "open_em": em[~within], "open_coherent": coherent[~within]}
    return {name: float(share.mean()) for name, share in shares.items()}


@quiet()
def load_organism(profile: Profile, organism: Organism) -> Model:
    """Return an organism's model and tokenizer, training it first if it is not there."""
    if not organism.tuning.merged:
        return loading.load(profile, chat(profile), adapter(profile, organism))
    own = adapter(profile, organism)
    model, tokenizer = _start(profile, organism)
    return PeftModel.from_pretrained(model, own).eval(), tokenizer


def model_identity(profile: Profile, organism: Organism) -> list[str | None]:
    """Return `weights.identity` of chat model and adapter, None for no adapter; of one merged before, its own first."""
    before = organism.tuning.merged
    first = model_identity(profile, before) if before else [weights.identity(chat(profile))]
    own = adapter(profile, organism)
    return [*first, weights.identity(own) if own else None]
