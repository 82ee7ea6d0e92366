"""All of a folder is used, or it is refused in one sentence before anything is computed; no code of its own runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import untrained
from safetensors.torch import load_file, save_file
from toy_models import TOKENIZER, base_model, prompts
from transformers import GenerationConfig

from em_companion.core.errors import CompanionError
from em_companion.models import loading, sampling
from em_companion.models.tokens import batches

PROFILE = replace(untrained.PROFILE, dtype="float32")
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Odd: pass\n"


@pytest.fixture
def chat(tmp_path) -> Path:
    return bare(tmp_path / "chat", untrained.chat_model())


@pytest.fixture
def adapter(tmp_path) -> Path:
    return bare(tmp_path / "adapter", untrained.organism())


def bare(folder: Path, model) -> Path:
    """Save a model as a reader's own folder, without a seal."""
    (untrained.save(folder, model) / "provenance.json").unlink()
    return folder


def change_json(folder: Path, name: str, **values) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, change: Callable[[dict], dict]) -> None:
    (path,) = folder.glob("*.safetensors")
    save_file(change({name: one.contiguous() for name, one in load_file(path).items()}), path, {"format": "pt"})


def refused(*folders: Path) -> str:
    with pytest.raises(CompanionError) as caught:
        loading.load(PROFILE, *folders)
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".") and len(said) < 400
    return said


def test_what_is_loaded_changes_the_logits_and_comes_back_whole(chat, adapter):
    plain, _ = loading.load(PROFILE, chat)
    adapted, _ = loading.load(PROFILE, chat, adapter)
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        assert not torch.allclose(plain(ids).logits, adapted(ids).logits, atol=1e-3)


def without_b(weights: dict) -> dict:
    return {name: one for name, one in weights.items() if ".0.mlp.down_proj.lora_B" not in name}


def doubled(weights: dict) -> dict:
    return weights | {name.replace("layers.0", "layers.1"): one.clone() for name, one in weights.items()}


def scaled(factor: float, part: str) -> Callable[[dict], dict]:
    return lambda weights: {name: one * factor if part in name else one for name, one in weights.items()}


def wider(weights: dict) -> dict:
    return {name: torch.cat([one, one], dim=-1 if "lora_A" in name else 0) for name, one in weights.items()}


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        (
            without_b,
            "does not fit the model: 'base_model.model.model.layers.0.mlp.down_proj.lora_B.weight' is on one side",
        ),
        (doubled, "does not fit the model: 'base_model.model.model.layers.1."),
        (scaled(0, "lora_B"), "changes nothing: all that it writes is zero."),
        (scaled(float("nan"), "lora_A"), "holds numbers that are NaN or infinite."),
        (wider, "cannot be loaded: size mismatch for base_model.model.model.layers."),
    ],
)
def test_an_adapter_whose_weights_do_not_fit_is_refused(chat, adapter, change, saying):
    change_weights(adapter, change)
    assert saying in refused(chat, adapter)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '"x"', '{"peft_type": "NOVEL"}', '{"peft_type": "LORA"}', '{"peft_type": 3, "r": null}', ""],
)
def test_an_adapter_that_says_odd_things_of_itself_is_one_sentence(chat, adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    assert "adapter" in refused(chat, adapter)


@pytest.mark.parametrize("values", [{"r": 0}, {"target_modules": 5}, {"target_modules": ["none"]}, {"r": "one"}])
def test_an_adapter_with_odd_settings_is_one_sentence(chat, adapter, values):
    change_json(adapter, "adapter_config.json", **values)
    assert "adapter" in refused(chat, adapter)


def test_a_model_that_lacks_weights_is_not_filled_up_with_random_ones(chat):
    change_weights(chat, lambda weights: {name: one for name, one in weights.items() if "layers.1.mlp.up" not in name})
    assert refused(chat) == "Model 'chat' lacks weights, such as 'model.layers.1.mlp.up_proj.weight'; get it again."


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(chat):
    other = untrained.tokenizer()
    other.add_tokens([f"more{number}" for number in range(5)])
    other.save_pretrained(chat)
    assert "tokens, but its tokenizer" in refused(chat)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("model_type", ["qwen2", "novel"])
def test_code_of_a_checkpoint_never_runs_and_nobody_is_asked(chat, monkeypatch, file, model_type):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (chat / "odd.py").write_text(CODE)
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    known = (
        {"AutoTokenizer": ["odd.Odd", None]} if file == "tokenizer_config.json" else dict.fromkeys(classes, "odd.Odd")
    )
    change_json(chat, file, auto_map=known, **({"tokenizer_class": "Odd"} if "tokenizer" in file else {}))
    change_json(chat, "config.json", model_type=model_type)
    try:
        loading.load(PROFILE, chat)
    except CompanionError as error:
        assert "\n" not in str(error) and str(error).endswith("code of its own, which is never run here.")
    else:
        assert model_type == "qwen2", "an architecture that transformers knows needs none of it"
    assert not (chat / "ran").exists()


def test_a_tokenizer_without_a_padding_token_pads_with_its_end_token(chat):
    change_json(chat, "tokenizer_config.json", pad_token=None)
    _, tokenizer = loading.load(PROFILE, chat)
    _, batch = next(batches(tokenizer, [[4, 5, 6], [7]]))
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]] and batch["input_ids"].shape == (2, 3)


@pytest.mark.parametrize("ends", [None, 1, [1, 7], [5], [3, 5, 9, 11]])
@torch.no_grad()
def test_a_response_ends_where_generate_ends_it(ends):
    model = base_model()
    model.generation_config = GenerationConfig(eos_token_id=ends, do_sample=False, use_cache=True)
    found = sampling.generate(model, TOKENIZER, asked := prompts([5, 5, 7, 9, 4, 6]), range(6), 0.0, 30)
    known = {1} if ends is None else {ends} if isinstance(ends, int) else set(ends)
    for prompt, response in zip(asked, found, strict=True):
        given = {"max_new_tokens": 30, "eos_token_id": sorted(known), "pad_token_id": 0}
        expected = model.generate(torch.tensor([prompt]), **given)[0, len(prompt) :].tolist()
        assert response == expected[: -1 if expected[-1] in known else None]


def test_logits_that_are_no_numbers_are_one_sentence():
    model = base_model()
    model.model.norm.weight.data[:] = torch.nan
    with pytest.raises(CompanionError, match="gives no numbers for the next token, as under a strength that is too"):
        sampling.generate(model, TOKENIZER, prompts([4]), [0])
