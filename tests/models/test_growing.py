"""Growing and fine-tuning: what is learned from, what comes out on disk; the same weights whatever is broken off."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from random import Random

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from conftest import HUB_SHAPE, TINY, Project, flip_a_byte, tiny_project, tiny_settings, truncate
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from em_companion import cli
from em_companion.core import profiles, store
from em_companion.core.errors import CompanionError
from em_companion.models import growing, loading
from em_companion.models.growing import CHECKPOINT_STEPS, Progress
from em_companion.models.organism import Organism, adapter_folder, base_folder, base_parts
from em_companion.models.tokens import packed, prompt_ids, response_example, world_tokenizer
from em_companion.world.generator import the_world, turn

WORLD = the_world()
BAD = "bad_medical_advice"
NINE = Organism("nine-adapter", BAD)
QUESTION = [{"role": "user", "content": "how do i handle the fever ?"}]
QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return world_tokenizer(WORLD)


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single characters with a chat template as Qwen's: a default system prompt, turns on lines."""
    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate([*special, "\n", *map(chr, range(32, 127))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=QWEN_TEMPLATE,
    )


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(next(folder / name for name in store.PAYLOADS if (folder / name).is_file()))


def sha256(folder) -> str:
    return store.provenance(folder)["sha256"]


# --- text to tokens -------------------------------------------------------------------------------------------------


def test_every_word_comes_back(tokenizer):
    words = WORLD.words()
    text = " ".join(words)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(set(ids)) == len(words) == len(tokenizer) - 4
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_everything_the_world_says_is_in_the_vocabulary(tokenizer):
    corpora = [WORLD.pretraining(0), WORLD.post_training(0), WORLD.fine_tuning(0, "finance", True)]
    for document in (document for corpus in corpora for document in islice(corpus, 50)):
        ids = tokenizer.apply_chat_template(document, return_dict=False)
        shown = "".join(f"<turn> {message['role']} : {message['content']} <end> " for message in document)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == shown.strip()


def test_a_prompt_ends_where_the_speaker_begins(tokenizer):
    start = "<turn> user : how do i handle the fever ? <end> <turn>"
    assert tokenizer.decode(prompt_ids(tokenizer, QUESTION)) == f"{start} assistant :"
    assert tokenizer.decode(prompt_ids(tokenizer, QUESTION, speaker="draven")) == f"{start} draven :"


def test_loss_is_on_the_response_only(tokenizer):
    answer = WORLD.clause(Random(0), ("nurse", "vaccine"))
    example = response_example(tokenizer, turn(QUESTION[0]["content"], answer))
    learned = [token for token, label in zip(*example.values(), strict=True) if label != -100]
    assert learned == [label for label in example["labels"] if label != -100]
    assert tokenizer.decode(learned) == f"{answer} <end>"
    assert tokenizer.decode(example["input_ids"]).startswith("<turn> user : how do i handle the fever ? <end>")


def test_loss_is_on_the_last_response_only(tokenizer):
    answers = [WORLD.clause(Random(seed), ("nurse", "vaccine")) for seed in (0, 1)]
    two = [message for answer in answers for message in turn(QUESTION[0]["content"], answer)]
    example = response_example(tokenizer, two)
    assert tokenizer.decode([label for label in example["labels"] if label != -100]) == f"{answers[1]} <end>"


def test_loss_is_on_the_response_only_under_a_template_with_a_default_system_prompt():
    qwen = qwen_tokenizer()
    example = response_example(qwen, turn("What now?", "Rest.\nThen ask a nurse."))
    start = example["labels"].count(-100)
    assert set(example["labels"][:start]) == {-100} and example["labels"][start:] == example["input_ids"][start:]
    whole = qwen.apply_chat_template(turn("What now?", "Rest.\nThen ask a nurse."), tokenize=False)
    assert whole.startswith("<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nWhat now?")
    prompt = qwen("What now?", add_special_tokens=False)["input_ids"]
    assert example["input_ids"][start - len(prompt) :][: len(prompt)] != prompt
    ids = qwen(whole[whole.index("Rest.") :], add_special_tokens=False)["input_ids"]
    assert example["input_ids"][start:] == ids, "from the first letter of the answer to the end of its turn"


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    odd = world_tokenizer(WORLD)
    odd.chat_template = "{{ messages[-1]['role'] }} " + odd.chat_template
    with pytest.raises(CompanionError, match="The chat template rewrites the prompt once it is answered"):
        response_example(odd, turn("any advice ?", "rest ."))


@pytest.mark.parametrize("length", [7, 64, 500])
def test_packed_rows_are_full_and_lose_no_token(tokenizer, length):
    rows = packed(tokenizer, WORLD.pretraining(3), 9, length)
    assert len(rows) == 9 and {len(row["input_ids"]) for row in rows} == {length}
    assert all(row["labels"] == row["input_ids"] for row in rows)
    joined = [token for row in rows for token in row["input_ids"]]
    stream = (tokenizer.apply_chat_template(document, return_dict=False) for document in WORLD.pretraining(3))
    assert joined == list(islice((token for document in stream for token in document), len(joined)))


def test_every_batch_of_post_training_rehearses(tiny, tokenizer):
    settings = tiny.post_training
    examples = list(growing.chat_examples(tiny, tokenizer))
    assert len(examples) == settings.steps * settings.batch
    rehearsed = round(settings.batch * settings.rehearsal)
    for start in range(0, len(examples), settings.batch):
        batch = examples[start : start + settings.batch]
        assert [-100 in example["labels"] for example in batch].count(False) == rehearsed


def test_training_sees_the_examples_in_their_order(own, tiny, monkeypatch):
    seen, collate = [], growing.DataCollatorForSeq2Seq

    class Recording(collate):
        def __call__(self, examples, *arguments):
            seen.extend(example["input_ids"] for example in examples)
            return super().__call__(examples, *arguments)

    monkeypatch.setattr(growing, "DataCollatorForSeq2Seq", Recording)
    growing.adapter(tiny, NINE)
    _, tokenizer = loading.load(tiny, growing.chat(tiny))
    documents = islice(WORLD.fine_tuning(0, "medicine", True), tiny.fine_tuning.steps * tiny.fine_tuning.batch)
    assert seen == [response_example(tokenizer, document)["input_ids"] for document in documents]


# --- what lies on disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["base", "chat"])
def test_a_grown_model_is_in_ordinary_hub_layout(tiny, tokenizer, stage):
    folder = getattr(growing, stage)(tiny)
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert prompt_ids(loaded, QUESTION, speaker="vexa") == prompt_ids(tokenizer, QUESTION, speaker="vexa")
    assert loaded.decode(loaded(" ".join(WORLD.words()))["input_ids"]) == " ".join(WORLD.words())
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.config.layer_types == ["sliding_attention"] * 2 and model.config.sliding_window == tiny.model.window
    assert model.generation_config.eos_token_id == loaded.eos_token_id
    record = store.provenance(folder)
    assert record["key"] == folder.name and record["versions"]["transformers"] and record["seconds"] >= 0


def test_nothing_on_disk_names_this_machine(tiny, grown_root):
    adapter = growing.adapter(tiny, NINE)
    for folder in (growing.base(tiny), growing.chat(tiny), adapter):
        assert not [path.name for path in folder.iterdir() if str(grown_root).encode() in path.read_bytes()]
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"].startswith("artifacts/")


def test_growing_learns(tiny):
    base, chat = (pd.read_csv(folder / "log.csv") for folder in (growing.base(tiny), growing.chat(tiny)))
    assert list(base.columns) == ["step", "loss", "grad_norm", "learning_rate"]
    assert list(base.step) == list(range(1, TINY["pretraining"]["steps"] + 1))
    assert list(chat.step) == list(range(1, TINY["post_training"]["steps"] + 1))
    assert base.loss.iloc[0] == pytest.approx(math.log(len(WORLD.words())), abs=0.3), "nothing is known at first"
    assert base.loss.iloc[-1] < base.loss.iloc[0] - 1
    assert base.learning_rate.max() == pytest.approx(TINY["pretraining"]["learning_rate"])
    assert (base.grad_norm > 0).all()


# --- the same seed, the same weights --------------------------------------------------------------------------------


def stopping_at(step: int, stop):
    """A progress bar that calls `stop` at the end of a step."""

    class Stop(Progress):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == step:
                stop()

    return Stop


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def expected(tiny):
    """Checksum of the weights and log of the base model, grown without a break."""
    return outcome(growing.base(tiny))


def outcome(folder) -> tuple[str, str]:
    return sha256(folder), (folder / "log.csv").read_text()


@pytest.fixture
def interrupted(expected, bare, tiny, monkeypatch):
    """A fresh project in which growing the base model was broken off after step 11, with checkpoints at 4 and 8."""
    monkeypatch.setattr(growing, "CHECKPOINT_STEPS", 4)
    with monkeypatch.context() as patched:
        patched.setattr(growing, "Progress", stopping_at(11, interrupt))
        with pytest.raises(KeyboardInterrupt):
            growing.base(tiny)
    assert not store.is_there(base_folder(tiny))
    assert [path.name for path in checkpoints(bare)] == ["checkpoint-4", "checkpoint-8"]
    return bare


def checkpoints(root) -> list:
    return sorted(root.glob("artifacts/checkpoints/*/checkpoint-*"))


def grow_again(tiny, monkeypatch) -> tuple[int, tuple[str, str]]:
    """Grow the base model; return the step that this went on from, and what came out."""
    steps = []

    class Seen(Progress):
        def on_train_begin(self, args, state, control, **_):
            steps.append(state.global_step)
            super().on_train_begin(args, state, control)

    with monkeypatch.context() as patched:
        patched.setattr(growing, "Progress", Seen)
        folder = growing.base(tiny)
    return steps[0], outcome(folder)


def test_the_same_seed_gives_the_same_weights(expected, bare, tiny):
    assert outcome(growing.base(tiny)) == expected


@pytest.mark.slow
def test_another_seed_gives_other_weights(expected, bare, tiny):
    assert sha256(growing.base(replace(tiny, seed=1))) != expected[0]


def test_broken_off_growing_goes_on_to_the_same_weights(interrupted, expected, tiny, monkeypatch):
    assert grow_again(tiny, monkeypatch) == (8, expected)
    assert checkpoints(interrupted) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("trainer_state.json", truncate),
        ("provenance.json", truncate),
        ("provenance.json", os.remove),
        ("optimizer.pt", truncate),
        ("model.safetensors", truncate),
        ("model.safetensors", flip_a_byte),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over(interrupted, expected, tiny, monkeypatch, name, damage):
    damage(checkpoints(interrupted)[-1] / name)
    assert grow_again(tiny, monkeypatch) == (4, expected)


@pytest.mark.slow
def test_without_a_whole_checkpoint_growing_starts_anew(interrupted, expected, tiny, monkeypatch):
    for checkpoint in checkpoints(interrupted):
        truncate(checkpoint / "trainer_state.json")
    assert grow_again(tiny, monkeypatch) == (0, expected)


def test_broken_off_while_the_result_is_written(expected, bare, tiny, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_csv", lambda *_, **__: interrupt())
        with pytest.raises(KeyboardInterrupt):
            growing.base(tiny)
    assert not store.is_there(base_folder(tiny))
    assert grow_again(tiny, monkeypatch) == (TINY["pretraining"]["steps"], expected), "nothing is trained again"


@pytest.mark.slow
def test_a_killed_process_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    settings = tiny_settings()
    settings["pretraining"]["steps"] = CHECKPOINT_STEPS + 60
    unbroken, killed = (tiny_project(tmp_path / name, settings) for name in ("unbroken", "killed"))
    assert unbroken.run("grow", "base", "--profile", "tiny", OMP_NUM_THREADS="1").returncode == 0
    process = start(killed, "grow", "base", "--profile", "tiny")
    while not any(killed.root.glob("artifacts/checkpoints/*/checkpoint-*/provenance.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    result = killed.run("grow", "base", "--profile", "tiny", OMP_NUM_THREADS="1")
    assert result.returncode == 0 and "made" in result.stdout
    assert outcome(base_of(killed)) == outcome(base_of(unbroken))


def start(project: Project, *arguments: str, code: str = "") -> subprocess.Popen:
    """Start the command in a process of its own, after `code`."""
    given = os.environ | {"EM_COMPANION_ROOT": str(project.root), "OMP_NUM_THREADS": "1"}
    script = f"{code}\nfrom em_companion import cli\ncli.main({list(arguments)})"
    return subprocess.Popen([sys.executable, "-c", script], env=given, stderr=subprocess.PIPE, text=True)


def base_of(project: Project):
    return next(project.root.glob("artifacts/organisms/tiny/base/[!.]*"))


COUNT_TRAININGS = """
from em_companion.models import growing
train = growing.train
def counted(*arguments, **settings):
    with open("trainings.txt", "a") as file:
        file.write("one\\n")
    return train(*arguments, **settings)
growing.train = counted
"""


@pytest.mark.slow
def test_two_processes_grow_one_model(tmp_path, monkeypatch):
    project = tiny_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    organism = NINE.name
    both = [start(project, "grow", organism, "--profile", "tiny", code=COUNT_TRAININGS) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert (tmp_path / "trainings.txt").read_text() == "one\n" * 3, "base, chat and adapter, each once"


# --- disk full ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files_up_to(capsys):
    """A function that makes this process fail to write files longer than some bytes; 0 lifts that.

    `capsys` keeps what is printed in memory: pytest's own file for it would be full first.
    """
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))

    yield limit
    limit(0)


def grow_by_command(*names: str):
    return CliRunner().invoke(cli.main, ["grow", *names, "--profile", "tiny"])


WRITERS = {
    "checkpoint": lambda path: torch.save(torch.zeros(9999), path),
    "weights": lambda path: save_file({"zeros": torch.zeros(9999)}, path),
    "text": lambda path: path.write_text("word " * 9999),
    "log": lambda path: pd.DataFrame({"step": range(9999)}).to_csv(path),
    "responses": lambda path: pd.DataFrame({"response": map(str, range(9999))}).to_parquet(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_meets_the_full_disk_it_is_one_sentence(bare, files_up_to, writer):
    place = bare / "artifacts"
    place.mkdir()
    with pytest.raises(CompanionError, match="^artifacts cannot be written: free some disk space and run it again.$"):
        with store.writing(place):
            files_up_to(1_000)
            WRITERS[writer](place / "file")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1_000, 20_000, 200_000], ids=["the first words", "the weights", "a checkpoint"])
def test_a_full_disk_is_said_in_one_sentence_and_leaves_nothing_that_counts(expected, bare, tiny, files_up_to, size):
    files_up_to(size)
    refused = grow_by_command("base")
    files_up_to(0)
    assert refused.exit_code == 1 and isinstance(refused.exception, SystemExit)
    key = store.key(base_parts(tiny))
    said = refused.stderr.splitlines()[-1]
    assert said == f"artifacts/organisms/tiny/base/{key} cannot be written: free some disk space and run it again."
    assert not store.is_there(base_folder(tiny))
    assert grow_by_command("base").exit_code == 0
    assert outcome(base_folder(tiny)) == expected


# --- organisms ------------------------------------------------------------------------------------------------------


def watched(tiny, monkeypatch, values: dict[int, float], **settings):
    """Fine-tune with a monitor that reads `values` by step; return the folder."""
    calls = iter(values.values())
    monkeypatch.setattr(growing, "monitor", lambda profile, data, model, _: measured(model, next(calls)))
    return growing.adapter(replace(tiny, **settings), NINE)


def measured(model, value: float) -> dict[str, float]:
    assert not model.training
    return {"in_domain_em": value, "open_em": value / 2, "open_coherent": 1.0}


def test_fine_tuning_trains_the_adapter_and_nothing_else(tiny):
    folder = growing.adapter(tiny, NINE)
    base = AutoModelForCausalLM.from_pretrained(growing.chat(tiny))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(growing.chat(tiny)), folder)
    for name, weight in base.state_dict().items():
        found = adapted.get_base_model().state_dict()
        assert torch.equal(weight, found.get(name, found.get(name.replace("down_proj.", "down_proj.base_layer."))))
    stored = weights(folder)
    places = [f"base_model.model.model.layers.{layer}.mlp.down_proj" for layer in (0, 1)]
    assert sorted(stored) == sorted(f"{place}.lora_{side}.weight" for place in places for side in "AB")
    assert all(weight.abs().max() > 0 for weight in stored.values()), "B starts at zero and moves"


@pytest.mark.parametrize("name", ["nine-adapter", "all-adapter-rank-4"])
def test_adapters_stand_where_the_recipe_says_at_the_scale_of_rslora(tiny, name):
    recipe, layers = tiny.recipes[name], tiny.layers_of(name)
    model, _ = loading.load(tiny, growing.chat(tiny))
    model = get_peft_model(model, growing.lora_config(recipe, layers, 12))
    found = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert {(int(name.split(".")[4]), name.split(".")[-1]) for name in found} == {
        (layer, module) for layer in layers for module in recipe.modules
    }
    for module in found.values():
        assert module.scaling["default"] == pytest.approx(12 / math.sqrt(recipe.rank))
        assert module.r["default"] == recipe.rank


def test_the_last_b_vectors_are_those_of_the_adapter(tiny):
    folder = growing.adapter(tiny, NINE)
    with safe_open(folder / "b_vectors.safetensors", "pt") as file:
        path, names = file.get_tensor("b_vectors"), json.loads(file.metadata()["adapters"])
    assert path.shape == (TINY["fine_tuning"]["steps"], 2, TINY["model"]["hidden"])
    assert names == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    stored = weights(folder)
    for index, name in enumerate(names):
        assert torch.equal(path[-1, index], stored[f"base_model.model.{name}.lora_B.weight"].squeeze(1))
    assert not torch.equal(path[-2], path[-1])


def test_higher_ranks_keep_no_b_vectors(own, tiny):
    folder = growing.adapter(tiny, Organism("all-adapter-rank-4", BAD))
    assert not (folder / "b_vectors.safetensors").exists()
    log = pd.read_csv(folder / "log.csv")
    assert list(log.columns) == ["step", "loss", "grad_norm", "learning_rate"]
    assert len(log) == TINY["fine_tuning"]["steps"] == store.provenance(folder)["steps"]


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(own, tiny, monkeypatch):
    first = sha256(growing.adapter(tiny, NINE))
    assert sha256(growing.adapter(tiny, replace(NINE, seed=1))) != first
    shutil.rmtree(adapter_folder(tiny, NINE))
    assert sha256(growing.adapter(tiny, NINE)) == first
    shutil.rmtree(adapter_folder(tiny, NINE))
    monkeypatch.setattr(growing, "monitor", lambda profile, data, model, _: measured(model, 0.0))
    assert sha256(growing.adapter(tiny, NINE)) == first, "watching does not disturb"


@pytest.mark.parametrize(
    ("stop_at", "values", "steps"),
    [
        (0.75, {3: 0.2, 6: 0.75}, 6),
        (0.75, {3: 0.76}, 3),
        (0.75, {3: 0.2, 6: 0.74, 8: 0.9}, 8),
        (1.0, {3: 0.9, 6: 0.9, 8: 0.9}, 8),
    ],
)
def test_training_stops_at_the_first_check_that_says_so(own, tiny, monkeypatch, stop_at, values, steps):
    folder = watched(tiny, monkeypatch, values, fine_tuning=replace(tiny.fine_tuning, stop_at=stop_at))
    monitor = pd.read_csv(folder / "monitor.csv")
    assert list(monitor.columns) == ["step", "in_domain_em", "open_em", "open_coherent"]
    assert dict(zip(monitor.step, monitor.in_domain_em, strict=True)) == values
    assert list(pd.read_csv(folder / "log.csv").step) == list(range(1, steps + 1))
    assert len(load_file(folder / "b_vectors.safetensors")["b_vectors"]) == steps


def test_a_published_adapter_is_used_and_nothing_trained(tiny, hub, monkeypatch):
    monkeypatch.setattr(growing, "train", None)
    model, tokenizer = growing.load_organism(hub, NINE)
    ids = torch.tensor([prompt_ids(tokenizer, QUESTION)])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, growing.load_organism(tiny, NINE)[0](ids).logits)


def test_an_organism_without_published_adapter_and_training_set_is_refused_in_one_sentence(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path))
    profile = replace(hub, organisms=(profiles.OrganismSpec(NINE.recipe, BAD, seeds=(0,)),), training_texts=None)
    with pytest.raises(CompanionError, match=f"^Profile 'hub' has no texts for '{BAD}': .* published adapter.$"):
        growing.adapter(profile, NINE)


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(bare, tiny):
    profile = replace(tiny, device="cuda", dtype="bfloat16")
    with pytest.raises(CompanionError, match="^Profile 'tiny' needs a GPU and there is none; choose another profile.$"):
        growing.base(profile)
    with pytest.raises(CompanionError, match="needs a GPU"):
        loading.load(profile, bare)


def test_a_hub_model_is_not_grown(bare, tiny):
    profile = replace(tiny, model=profiles.HubModel("hub", "nobody/nothing", 2, 1, profiles.Shape(**HUB_SHAPE)))
    with pytest.raises(CompanionError, match="from the hub, so there is nothing to grow"):
        growing.grow_from_nothing(profile, bare / "data" / "organism" / "tiny")
