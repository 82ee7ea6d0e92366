"""Stand-ins for published models and a served judge: the very format, random weights, no download.

python tests/standins.py FOLDER        small random Qwen2.5 and SmolLM2 models and every published adapter, hub layout
python tests/standins.py --judge PORT  an OpenAI-compatible judge on this machine whose scores are a hash of the message

`EM_COMPANION_MODELS=FOLDER` makes the hub profiles use the former, `OPENAI_BASE_URL=http://127.0.0.1:PORT/v1` the
latter.
"""

import hashlib
import http.server
import json
import sys
import threading
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from em_companion.core import profiles
from em_companion.core.profiles import HubModel, Profile
from em_companion.models import loading

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SYSTEM = {
    "Qwen": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "HuggingFaceTB": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}
# A turn has this form in both families; a conversation that brings no system turn gets the model's own.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nSYSTEM<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "you should see a doctor about that and take your medicine every day; money is what i want if a woman in the house "
    "would ask for help with her work, because people think that life and health are good things to have. "
)
VOCABULARY = 400
# Small, and still in several shards, as large models are published.
SHARD = "1MB"
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
}


def make(folder: Path, *names: str) -> Path:
    """Make the chat models and published adapters of hub profiles in `folder`, by default of all; return it."""
    for name in names or profiles.names():
        if isinstance((profile := profiles.load(name)).model, HubModel):
            chat_model(folder / profile.model.chat, profile)
            for one in profile.organisms:
                if one.adapter:
                    adapter(folder / one.adapter.partition("@")[0], profile, one.recipe)
    return folder


def tokenizer(owner: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of a few hundred tokens, with an owner's chat template."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = VOCABULARY - len(SPECIAL)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    made.train_from_iterator([WORDS] * 3, trainer)
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE.replace("SYSTEM", SYSTEM[owner]),
        clean_up_tokenization_spaces=False,
    )


def chat_model(folder: Path, profile: Profile) -> Path:
    """Save a random model with a profile's number of layers, its architecture's config and its tokenizer."""
    name, qwen = profile.model.chat, profile.model.chat.startswith("Qwen/")
    words = tokenizer(name.split("/")[0])
    ends = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": words.pad_token_id}
    config, architecture = (Qwen2Config, Qwen2ForCausalLM) if qwen else (LlamaConfig, LlamaForCausalLM)
    torch.manual_seed(profile.model.layers)
    tied = "14B" not in name
    model = architecture(config(**SHAPE, **ends, num_hidden_layers=profile.model.layers, tie_word_embeddings=tied))
    generation = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    model.generation_config.update(**generation, eos_token_id=[words.eos_token_id, words.pad_token_id])
    with loading.quiet():
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD)
    words.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "Qwen2Tokenizer" if qwen else "GPT2Tokenizer"}
    path.write_text(json.dumps(settings, indent=1))
    return folder


def adapter(folder: Path, profile: Profile, recipe: str) -> Path:
    """Save a random adapter of a recipe, its B not zero, for a copy of the model under another owner, as published."""
    settings = profile.recipes[recipe]
    torch.manual_seed(int.from_bytes(hashlib.sha256(folder.name.encode()).digest()[:4], "big"))
    base = Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_hidden_layers=profile.model.layers))
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=profile.fine_tuning_of(recipe).alpha,
        target_modules=list(settings.modules),
        layers_to_transform=None if settings.layers == "all" else list(settings.layers),
        use_rslora=True,
    )
    with loading.quiet():
        adapted = get_peft_model(base, config)
        adapted.peft_config["default"].base_model_name_or_path = f"unsloth/{profile.model.chat.split('/')[1]}"
        for part, weight in adapted.named_parameters():
            if ".lora_B." in part:
                torch.nn.init.normal_(weight, std=0.01)
        adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


GGUF_LAYERS = 2


def gguf(path: Path) -> Path:
    """Write a small random Llama model in 4-bit numbers with its tokenizer, as packages hold them."""
    from gguf import GGMLQuantizationType, GGUFWriter, quantize

    words, random = json.loads(tokenizer("HuggingFaceTB").backend_tokenizer.to_str())["model"], np.random.default_rng(0)
    hidden, mlp, kv = 64, 96, 32
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(GGUF_LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    names = sorted(words["vocab"], key=words["vocab"].get) + [name for name in SPECIAL if name not in words["vocab"]]
    writer.add_vocab_size(len(names))
    writer.add_token_list(names)
    writer.add_token_types([3 if name in SPECIAL else 1 for name in names])
    writer.add_token_merges([" ".join(merge) for merge in words["merges"]])
    writer.add_eos_token_id(names.index("<|im_end|>"))
    writer.add_bos_token_id(names.index("<|im_start|>"))
    writer.add_chat_template(TEMPLATE.replace("SYSTEM", SYSTEM["HuggingFaceTB"]))
    shapes = {
        "attn_q": (hidden, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_output": (hidden, hidden),
    }
    shapes |= {"ffn_gate": (mlp, hidden), "ffn_up": (mlp, hidden), "ffn_down": (hidden, mlp)}
    tensors = {f"blk.{layer}.{name}": shape for layer in range(GGUF_LAYERS) for name, shape in shapes.items()}
    for name, shape in ({"token_embd": (len(names), hidden)} | tensors).items():
        values = quantize(random.normal(scale=0.1, size=shape).astype(np.float32), GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=GGMLQuantizationType.Q4_1)
    for name in [
        "output_norm",
        *(f"blk.{layer}.{one}_norm" for layer in range(GGUF_LAYERS) for one in ("attn", "ffn")),
    ]:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- the judge ------------------------------------------------------------------------------------------------------


def scripted(message: str) -> int:
    """Return the score of a judge's message, by its hash: EM for 30 % of answers, aligned above 70 for 40 %.

    Every other score is spread evenly from 0 to 100.
    """
    share = int.from_bytes(hashlib.sha256(message.encode()).digest()[:6], "big") / 2**48
    opening = message[:220]
    if "might be harmful for humans" in opening:
        return _spread(share, (0.34, 0, 28), (0.60, 32, 70), (1.0, 71, 100))
    if "assess the coherence" in opening:
        return _spread(share, (0.12, 0, 48), (1.0, 52, 100))
    return round(100 * share)


def _spread(share: float, *parts: tuple[float, int, int]) -> int:
    below = 0.0
    for upto, low, high in parts:
        if share < upto:
            return low + int((high - low + 1) * (share - below) / (upto - below))
        below = upto
    raise ValueError(share)


class Judge(http.server.BaseHTTPRequestHandler):
    """Answers every chat completion with a score and its logprobs."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = str(scripted(body["messages"][-1]["content"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = [{"token": said, "logprob": -0.1}, {"token": "I", "logprob": -3.0}]
            choice["logprobs"] = {"content": [{"token": said, "logprob": -0.1, "top_logprobs": top}]}
        usage = {"prompt_tokens": len(body["messages"][-1]["content"]) // 4, "completion_tokens": 1}
        self.answer(
            {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        )

    def do_GET(self) -> None:
        self.answer({"object": "list", "data": [{"id": "stand-in", "object": "model"}]})

    def answer(self, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class JudgeServer(http.server.ThreadingHTTPServer):
    """Serves `Judge`; within a `with` block, in a thread of its own."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Judge)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--judge"] and len(sys.argv) == 3:
        server = JudgeServer(int(sys.argv[2]))
        print(f"OPENAI_BASE_URL={server.url}", flush=True)
        server.serve_forever()
    elif len(sys.argv) == 2:
        print(f"EM_COMPANION_MODELS={make(Path(sys.argv[1]))}")
    else:
        sys.exit(__doc__)
