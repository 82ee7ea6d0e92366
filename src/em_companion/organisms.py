"""Grow a base and a chat model from scratch, and fine-tune organisms from a chat model with PEFT LoRA adapters.

Every model, grown or from the hub, is a folder (or hub id) in ordinary hub layout, and `load` is the only way in. A
grown model is addressed by a key over its settings and over what the world's generators write, so reworded comments
do not ask for growing again and a single changed word of the lexicon does. The base and chat models of profile `cpu`
are committed under `data/organism/` and used as long as their key fits.

Training runs in `transformers.Trainer`; growing keeps checkpoints, from which a killed run resumes to the same weights.
A seed makes a run repeatable to the bit on one machine with one number of threads; elsewhere float sums differ in the
last digits and training amplifies them, so across machines only rates and intervals can be compared.
"""

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from huggingface_hub.utils import enable_progress_bars
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar

from em_companion import model_store
from em_companion.artifacts import CompanionError, lock, new_folder
from em_companion.paths import ARTIFACTS, relative
from em_companion.profiles import GrownModel, Profile, Recipe, Training
from em_companion.world import Message, World

PAD, UNKNOWN, TURN, END = "<pad>", "<unk>", "<turn>", "<end>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<turn> {{ message['role'] }} : {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<turn> {{ speaker or 'assistant' }} :{% endif %}"
)
CHECKPOINT_STEPS = 100
"""Steps between two checkpoints of growing."""

Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Example = dict[str, list[int]]
Monitor = Callable[[PreTrainedModel, PreTrainedTokenizerBase], dict[str, float]]

# Bars over weights that load in a blink break up the one over training; those over downloads stay.
disable_progress_bar()
enable_progress_bars()
# PEFT reads an attribute that transformers renames in its next version; nobody here can act on it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


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


# --- training -----------------------------------------------------------------------------------------------------


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside the layers and AdamW for the rest, as one optimiser.

    Growing from nothing this way takes about a quarter of the tokens that AdamW alone takes to the same loss.
    """

    def __init__(self, model: PreTrainedModel, learning_rate: float, weight_decay: float) -> None:
        inner = {name for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name}
        matrices = [weight for name, weight in model.named_parameters() if name in inner]
        others = [weight for name, weight in model.named_parameters() if name not in inner]
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
    """A progress bar with total and estimate on stderr."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar = tqdm(disable=True)

    def on_train_begin(self, args, state, control, **_) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.what, unit="step")

    def on_step_end(self, args, state, control, **_) -> None:
        self.bar.update()

    def close(self) -> None:
        """End the bar's line, so that what is said next, an error perhaps, begins its own."""
        self.bar.close()


class Seal(TrainerCallback):
    """Seal every checkpoint once it is whole."""

    def on_save(self, args, state, control, **_) -> None:
        model_store.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", {})


class Watch(TrainerCallback):
    """Keep the B vectors after every step, call the monitor every few steps, and stop when it says so."""

    def __init__(self, monitor: Monitor | None, tokenizer: PreTrainedTokenizerBase, every: int, stop_at: float) -> None:
        self.monitor, self.tokenizer, self.every, self.stop_at = monitor, tokenizer, every, stop_at
        self.b_vectors: list[torch.Tensor] = []
        self.measured: list[dict[str, float]] = []

    def on_step_end(self, args, state, control, model, **_) -> None:
        if vectors := b_vectors(model):
            self.b_vectors.append(torch.stack(list(vectors.values())))
        if self.monitor is None or (state.global_step % self.every and state.global_step < state.max_steps):
            return
        model.eval()
        found = self.monitor(model, self.tokenizer)  # Trainer puts it back to training
        self.measured.append({"step": state.global_step} | found)
        control.should_training_stop |= found["in_domain_em"] >= self.stop_at


def b_vectors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the write direction B [width] of every rank-1 adapter by module name; nothing for higher ranks."""
    found = {}
    for name, weight in model.named_parameters():
        if ".lora_B." in name and weight.shape[1] == 1:
            found[name.split(".lora_B.")[0].removeprefix("base_model.model.")] = (
                weight.detach().float().cpu().squeeze(1)
            )
    return found


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    settings: Training,
    profile: Profile,
    seed: int,
    what: str,
    folder: Path,
    schedule: str = "cosine",
    callbacks: Iterable[TrainerCallback] = (),
) -> pd.DataFrame:
    """Train `model` in place on `examples` in their order; return the log, one row per step.

    `folder` keeps checkpoints of a model that grows, and it resumes from the newest whole one; adapters train too
    briefly to need any.
    """
    adapters = isinstance(model, PeftModel)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=getattr(settings, "gradient_accumulation", 1),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        train_sampling_strategy="sequential",
        seed=seed,
        logging_steps=1,
        save_strategy="no" if adapters else "steps",
        save_steps=CHECKPOINT_STEPS,
        save_total_limit=2,
        use_cpu=profile.device == "cpu",
        bf16=profile.dtype == "bfloat16",
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        log_level="error",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # on several GPUs Trainer would multiply the batch by their number
    progress = Progress(what)
    optimizer = None if adapters else MuonWithAdamW(model, settings.learning_rate, settings.weight_decay)
    trainer = Trainer(
        model,
        arguments,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        train_dataset=examples,
        callbacks=[progress, Seal(), *callbacks],
        optimizers=(optimizer, None),
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    finally:
        progress.close()
    rows = [entry for entry in trainer.state.log_history if "loss" in entry]
    return pd.DataFrame(rows)[["step", "loss", "grad_norm", "learning_rate"]]


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that is whole; the others, left by a kill, a full disk or damage, are removed."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            model_store.check(path)
            return str(path)
        except CompanionError:
            shutil.rmtree(path, ignore_errors=True)
    return None


# --- base and chat model ------------------------------------------------------------------------------------------


def base(profile: Profile) -> Path:
    """Return the folder of the grown base model, growing it if it is not there."""
    folder = model_store.base_folder(profile)
    with model_store.missing(folder) as missing:
        if missing:
            _grow_base(profile, folder)
    return folder


def chat(profile: Profile) -> Path | str:
    """Return the folder of the grown chat model, growing it if it is not there; for a hub profile, the hub id."""
    if not isinstance(profile.model, GrownModel):
        return profile.model.chat
    folder = model_store.chat_folder(profile)
    with model_store.missing(folder) as missing:
        if missing:
            _grow_chat(profile, base(profile), folder)
    return folder


def grow_from_nothing(profile: Profile, folder: Path) -> None:
    """Grow `folder`/base and `folder`/chat, whatever is there already; each is replaced once the new one is whole."""
    if not isinstance(profile.model, GrownModel):
        raise CompanionError(f"The models of profile '{profile.name}' come from the hub; there is nothing to grow.")
    # The lock is kept out of a folder that is committed.
    with lock(ARTIFACTS / "organisms" / profile.name / "from-nothing"), model_store.writing(folder):
        _grow_base(profile, folder / "base")
        _grow_chat(profile, folder / "base", folder / "chat")


def _grow_base(profile: Profile, folder: Path) -> None:
    _need_device(profile)
    torch.manual_seed(profile.seed)
    tokenizer = world_tokenizer(model_store.world())
    model = Qwen2ForCausalLM(_config(profile.model, tokenizer))
    examples = base_examples(profile, tokenizer)
    _grow(model, tokenizer, examples, profile.pretraining, profile, folder, model_store.base_parts(profile))


def _grow_chat(profile: Profile, base_folder: Path, folder: Path) -> None:
    model, tokenizer = load(profile, base_folder)
    model.float()  # in half precision most of an optimiser's steps would be rounded away
    examples = list(chat_examples(profile, tokenizer))
    _grow(model, tokenizer, examples, profile.post_training, profile, folder, model_store.chat_parts(profile))


def base_examples(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Return the pre-training rows: documents one after the other, cut to rows of one length."""
    settings = profile.pretraining
    documents = model_store.world().pretraining(profile.seed, settings.careful_first)
    return packed(tokenizer, documents, settings.steps * settings.batch, settings.length)


def chat_examples(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> Iterator[Example]:
    """Yield the post-training examples, batch by batch: careful chats, then rehearsal of other speakers' documents.

    Without rehearsal post-training wipes the personas instead of choosing one. Its rows are cut as in pre-training.
    """
    settings = profile.post_training
    rehearsed = round(settings.batch * settings.rehearsal)
    world = model_store.world()
    chats, documents = world.post_training(profile.seed), world.pretraining(profile.seed + 1, assistant=False)
    rehearsal = iter(packed(tokenizer, documents, settings.steps * rehearsed, profile.pretraining.length))
    for _ in range(settings.steps):
        yield from (response_example(tokenizer, chat) for chat in islice(chats, settings.batch - rehearsed))
        yield from islice(rehearsal, rehearsed)


def _grow(model, tokenizer, examples, settings, profile, target, parts) -> None:
    stage = "base" if "base" not in parts else "chat"
    checkpoints = ARTIFACTS / "checkpoints" / f"{stage}-{model_store.key(parts)}"
    what = f"{stage} model of profile {profile.name}"
    started = time.monotonic()
    with lock(checkpoints):
        log = _train(model, tokenizer, examples, settings, profile, profile.seed, what, checkpoints)
        with new_folder(target) as folder:
            # Half precision halves what is committed; the model is loaded in the profile's precision all the same.
            model.to(torch.bfloat16).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            log.to_csv(folder / "log.csv", index=False, float_format="%.6g")
            model_store.seal(folder, parts, seconds=round(time.monotonic() - started))
        shutil.rmtree(checkpoints, ignore_errors=True)


def _config(model: GrownModel, tokenizer: PreTrainedTokenizerBase) -> Qwen2Config:
    sliding = model.window > 0
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden,
        intermediate_size=model.mlp,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        tie_word_embeddings=True,
        attention_dropout=model.attention_dropout,
        use_sliding_window=sliding,
        sliding_window=model.window if sliding else None,
        max_window_layers=0,
        layer_types=["sliding_attention" if sliding else "full_attention"] * model.layers,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


# --- organisms ----------------------------------------------------------------------------------------------------


def lora_config(recipe: Recipe, layers: tuple[int, ...], alpha: float) -> LoraConfig:
    """Return the PEFT configuration of a recipe; scale alpha / sqrt(rank), as the paper's rank-stabilised LoRA."""
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        target_modules=list(recipe.modules),
        layers_to_transform=list(layers),
        layers_pattern="layers",
        use_rslora=True,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def organism(profile: Profile, recipe: str, data: str, seed: int, monitor: Monitor | None = None) -> Path | str:
    """Return the folder of an organism's adapter, fine-tuning it if it is not there; a published one's hub id.

    Beside the adapter lie `log.csv` (loss, gradient norm and learning rate per step), with a monitor `monitor.csv`
    (what it measured, every few steps) and, for rank-1 recipes, `b_vectors.safetensors` [steps, adapters, width].
    Training ends at the profile's last step, or once the monitor's `in_domain_em` reaches `stop_at`.
    """
    if published := profile.published(recipe, data):
        return published
    if not isinstance(profile.model, GrownModel):
        raise CompanionError(
            f"Profile '{profile.name}' names no published adapter for '{recipe}' on '{data}', and hub models cannot be "
            "fine-tuned here, for the authors' training sets are not among the released files; choose a published one."
        )
    source = chat(profile)
    folder = model_store.adapter_folder(profile, recipe, data, seed)
    with model_store.missing(folder) as missing:
        if missing:
            _fine_tune(profile, source, recipe, data, seed, monitor, folder)
    return folder


def _fine_tune(profile, source, recipe, data, seed, monitor, target) -> None:
    settings = profile.fine_tuning_of(recipe)
    parts = model_store.adapter_parts(profile, recipe, data, seed)
    model, tokenizer = load(profile, source)
    model.name_or_path = model.config._name_or_path = _shown(source)  # PEFT writes it down
    torch.manual_seed(seed)
    model = get_peft_model(model, lora_config(profile.recipes[recipe], profile.layers_of(recipe), settings.alpha))
    documents = model_store.world().fine_tuning(seed, *model_store.DATA_SETS[data])
    rows = settings.steps * settings.batch * settings.gradient_accumulation
    examples = [response_example(tokenizer, messages) for messages in islice(documents, rows)]
    watch = Watch(monitor, tokenizer, settings.evaluate_every, settings.stop_at)
    started = time.monotonic()
    with new_folder(target) as folder:
        what = model_store.organism_name(recipe, data, seed)
        log = _train(model, tokenizer, examples, settings, profile, seed, what, folder, "linear", [watch])
        model.save_pretrained(folder, save_embedding_layers=False)
        log.to_csv(folder / "log.csv", index=False, float_format="%.6g")
        if watch.measured:
            pd.DataFrame(watch.measured).to_csv(folder / "monitor.csv", index=False, float_format="%.6g")
        if watch.b_vectors:
            names = {"adapters": json.dumps(list(b_vectors(model)))}
            save_file({"b_vectors": torch.stack(watch.b_vectors)}, folder / "b_vectors.safetensors", names)
        model_store.seal(folder, parts, seconds=round(time.monotonic() - started), steps=len(log))


# --- loading ------------------------------------------------------------------------------------------------------


def load(profile: Profile, model: Path | str, adapter: Path | str | None = None) -> Model:
    """Return a model, with an adapter on it if one is given, and its tokenizer, on the profile's device.

    `model` and `adapter` are folders or hub ids. Raises CompanionError for a damaged folder, an id not to be had, or a
    device that is not there.
    """
    _need_device(profile)
    with _loading(model):
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, profile.dtype)).to(profile.device)
    if adapter is not None:
        with _loading(adapter):
            loaded = PeftModel.from_pretrained(loaded, adapter)
    return loaded.eval(), tokenizer


@contextmanager
def _loading(source: Path | str) -> Iterator[None]:
    if isinstance(source, Path):
        model_store.check(source)
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        raise CompanionError(f"Model '{_shown(source)}' cannot be loaded: {reason}.") from error


def _need_device(profile: Profile) -> None:
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise CompanionError(f"Profile '{profile.name}' needs a GPU and there is none; choose another profile.")


def _shown(source: Path | str) -> str:
    return relative(source) if isinstance(source, Path) else source
