"""Random models so small that a test can do their work a second time by hand, in float64."""

from types import SimpleNamespace

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

LAYERS, WIDTH, VOCABULARY, WINDOW = 4, 16, 40, 4
ADAPTED = (0, 2, 3)
ADAPTERS = [f"model.layers.{layer}.mlp.down_proj" for layer in ADAPTED]
TOKENIZER = SimpleNamespace(eos_token_id=1, pad_token_id=0)


def base_model(window: int = 0) -> PreTrainedModel:
    """A random model, with full attention or a sliding window; its weights are large, so that logits are far apart."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=window > 0,
        sliding_window=window or None,
        max_window_layers=0,
        layer_types=["sliding_attention" if window else "full_attention"] * LAYERS,
        pad_token_id=TOKENIZER.pad_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
        bos_token_id=None,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config).double().eval()


def adapted_model(window: int = 0, rank: int = 1) -> PeftModel:
    """The same with random adapters on some layers."""
    config = LoraConfig(r=rank, lora_alpha=2, target_modules=["down_proj"], layers_to_transform=list(ADAPTED))
    model = get_peft_model(base_model(window), config)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return model.double().eval()


def decoder_layers(model: PreTrainedModel):
    return (model.get_base_model() if isinstance(model, PeftModel) else model).model.layers


def vectors(count: int = LAYERS) -> torch.Tensor:
    """Random directions [count, width]."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def prompts(lengths: list[int]) -> list[list[int]]:
    """Random prompts without the end token."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
