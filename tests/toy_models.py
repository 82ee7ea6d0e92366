"""Random models so small that a test can do their work a second time by hand, in float64, and interventions by hand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from em_companion.models.interventions import Ablate, Cap, Intervention, PatchLoraScalars, ScaleLoraScalars, Steer

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


def hooks_on(model: PreTrainedModel) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


def vectors(count: int = LAYERS) -> torch.Tensor:
    """Random directions [count, width]."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def prompts(lengths: list[int]) -> list[list[int]]:
    """Random prompts without the end token."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def numbers(values: Any) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach()


def effects(one: Intervention) -> dict[Any, Callable[[torch.Tensor, int], torch.Tensor]]:
    """What a sound intervention does to one activation [width] at a position, by module, in plain equations."""
    if isinstance(one, Steer):
        added = float(one.strength) * numbers(one.vector)
        return {one.layer: lambda x, _: x + added}
    if isinstance(one, ScaleLoraScalars):
        factors = one.factors if isinstance(one.factors, Mapping) else dict.fromkeys(ADAPTERS, one.factors)
        return {name: lambda x, _, factor=float(factor): factor * x for name, factor in factors.items()}
    if isinstance(one, PatchLoraScalars):
        rows = zip(one.adapters or ADAPTERS, numbers(one.scalars), strict=True)
        return {name: lambda x, at, row=row: row[at : at + 1] if at < len(row) else x for name, row in rows}
    given = one.vectors if isinstance(one, Ablate) else {one.layer: one.vector}
    units = {site: numbers(vector) / numbers(vector).norm() for site, vector in given.items()}
    if isinstance(one, Cap):
        return {site: lambda x, _, v=v: x - max(v.dot(x) - float(one.ceiling), 0) * v for site, v in units.items()}
    return {site: lambda x, _, v=v: x - v.dot(x) * v for site, v in units.items()}


@contextmanager
def by_plain_hooks(model: PreTrainedModel, given: Sequence[Intervention], length: int) -> Iterator[None]:
    """Intervene on a single row, whose prompt has `length` tokens, by an ordinary hook per intervention and module."""
    spans = {"all": (0, 999), "prompt": (0, length), "header": (length - 2, length), "generated": (length, 999)}

    def module(site: Any) -> torch.nn.Module:
        if site == "embedding":
            return model.get_input_embeddings()
        plain = model.get_base_model() if isinstance(model, PeftModel) else model
        return plain.get_submodule(f"{site}.lora_A.default") if isinstance(site, str) else plain.model.layers[int(site)]

    def hook(effect: Callable, first: int, last: int) -> Callable:
        seen = 0

        def act(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            x = output.double().clone()
            for token in range(x.shape[1]):
                if first <= seen + token < last:
                    x[0, token] = effect(x[0, token], seen + token)
            seen += x.shape[1]
            return x.to(output.dtype)

        return act

    with ExitStack() as stack:
        for one in given:
            for site, effect in effects(one).items():
                stack.callback(module(site).register_forward_hook(hook(effect, *spans[one.at])).remove)
        yield
