"""Random mixes of interventions, sound and unsound, on models in every state: as a slow reference, or one sentence.

A case knows on its own what can be done to a model; plain hooks do it, one intervention at a time.
"""

from functools import cache
from random import Random

import numpy as np
import pytest
import torch
from toy_models import ADAPTERS, LAYERS, WIDTH, WINDOW, adapted_model, base_model, by_plain_hooks, vectors

from em_companion.core.errors import CompanionError
from em_companion.models.interventions import Ablate, Cap, PatchLoraScalars, ScaleLoraScalars, Steer, applied, describe

IDS = torch.arange(4, 16)[None]
VECTORS = vectors()
PLAIN = [Steer(0, VECTORS[0])]


class Case:
    """A model in some state and interventions; `sound`: whether they can be done to it and do something."""

    def __init__(self, seed: int) -> None:
        self.random, self.sound = Random(seed), True
        torch.manual_seed(seed)
        kind = self.pick(["base", "adapted", "adapted"], ["merged", "disabled", "two active", "rank 2", "scaled by 0"])
        self.sound, self.kind = True, kind  # an unusual state matters to LoRA scalars only
        self.model = _model(kind, self.random.choice([torch.float32, torch.float64]))
        self.given = [self.intervention() for _ in range(self.random.randint(1, 3))]
        self.given = self.pick([self.given], [None, "abc", PLAIN[0], [*self.given, None], [*self.given, {"layer": 1}]])

    def pick(self, usual: list, odd: list):
        """Return one of the usual values, or in one of ten cases an odd one, which makes the case unsound."""
        if self.random.random() < 0.1:
            self.sound = False
            return self.random.choice(odd)
        return self.random.choice(usual)

    def intervention(self):
        make = self.random.choice([self.steer, self.ablate, self.cap, self.scale, self.patch])
        return make()

    def at(self):
        return self.pick(["all", "all", "prompt", "header", "generated"], ["answer", None, ["all"], 0])

    def layer(self):
        odd = [-1, LAYERS, "logits", True, 1.5, None, ADAPTERS[0], (0,)]
        return self.pick([*range(LAYERS), "embedding", np.int64(2)], odd)

    def vector(self):
        one = VECTORS[self.random.randrange(LAYERS)]
        usual = [one, one.float(), one.numpy(), one.tolist(), torch.nn.Parameter(one), one.half()]
        zero, wide = torch.zeros(WIDTH), torch.ones(WIDTH + 1)
        odd = [
            zero,
            wide,
            one[None],
            one[:1],
            one * torch.nan,
            one * 1e300 * 1e8,
            "abc",
            None,
            1.0,
            one + 1j,
            ["a"] * 16,
        ]
        return self.pick(usual, odd)

    def steer(self):
        huge, tiny = (1e39, 1e-60) if self.model.dtype == torch.float32 else (1e310, 1e-330)
        odd = [float("nan"), float("-inf"), "2", None, [1.0, 2.0], VECTORS[1], 1j, huge, tiny]
        strength = self.pick([1.0, -2.5, 0.0, 3, np.float32(0.5), torch.tensor(2.0)], odd)
        return Steer(self.layer(), self.vector(), strength, self.at())

    def ablate(self):
        layers = self.random.sample(range(LAYERS), self.random.randint(1, LAYERS))
        odd = [{layer: VECTORS[0]} for layer in (-1, LAYERS, True, None, ADAPTERS[1])]
        odd += [{}, [VECTORS[0]], VECTORS, None, {0: VECTORS[0] * 1e-200}, {0: VECTORS[0] * 1e200}]
        given = self.pick([{}], odd)
        return Ablate({layer: self.vector() for layer in layers} if self.sound and given == {} else given, self.at())

    def cap(self):
        odd = [float("nan"), float("-inf"), "2", None, [1.0, 2.0], 1j]
        return Cap(self.layer(), self.vector(), self.pick([0.0, -0.5, 3, np.float32(0.25)], odd), self.at())

    def factor(self):
        return self.pick([0.0, 1.0, -2.0, 3, np.float64(0.5)], [float("nan"), None, "0", [1.0, 2.0], 1e310])

    def scale(self):
        self.need_adapters()
        some = self.random.sample(ADAPTERS, self.random.randint(1, 3))
        odd = [{}, {1: 0.0}, {"embedding": 0.0}, {"layer 0": 0.0}, [0.0, 1.0], {ADAPTERS[0] + ".lora_A.default": 0.0}]
        factors = self.pick(["one", "each"], odd)
        if factors in ("one", "each"):
            factors = self.factor() if factors == "one" else {name: self.factor() for name in some}
        return ScaleLoraScalars(factors, self.at())

    def patch(self):
        self.need_adapters()
        some = self.pick([None, ADAPTERS, ADAPTERS[:2], tuple(ADAPTERS[1:])], [[], ADAPTERS[0], [0], ["embedding"]])
        scalars = torch.randn(len(some or ADAPTERS), self.random.randint(1, 14), dtype=torch.float64)
        usual = [scalars, scalars.numpy(), scalars.tolist()]
        odd = [scalars[0], scalars[:, :0], scalars * torch.nan, None, "abc", [[1.0], [2.0, 3.0]], scalars[None]]
        return PatchLoraScalars(self.pick(usual, odd), some, self.at())

    def need_adapters(self) -> None:
        self.sound &= self.kind == "adapted"


@cache
def _model(kind: str, dtype: torch.dtype):
    """Return a model in a state, the same one each time: what a case leaves behind, the next one would meet."""
    if kind == "base":
        return base_model(WINDOW).to(dtype)
    model = adapted_model(WINDOW, rank=2 if kind == "rank 2" else 1)
    if kind == "merged":
        model.merge_adapter()
    if kind == "disabled":
        model.base_model.disable_adapter_layers()
    if kind == "two active":
        model.add_adapter("other", model.peft_config["default"])
        model.base_model.set_adapter(["default", "other"])
    if kind == "scaled by 0":
        for name in ADAPTERS:
            model.get_base_model().get_submodule(name).scaling["default"] = 0.0
    return model.eval().to(dtype)


def problem(seed: int) -> str:
    """Return what is wrong about a case, "" if nothing."""
    case = Case(seed)
    told = f"{seed} ({case.kind}, {'sound' if case.sound else 'unsound'}, {case.given!r:.200})"
    try:
        if isinstance(case.given, list):
            for one in case.given:
                describe(one)
        with torch.no_grad(), applied(case.model, case.given):
            found = case.model(IDS).logits
    except CompanionError as error:
        said = str(error)
        if case.sound or "\n" in said or not said.endswith("."):
            return f"{told}: {said}"
        return ""
    except Exception as error:
        return f"{told}: {type(error).__name__}: {error}"
    if not case.sound:
        return f"{told}: computed"
    tolerance = 1e-9 if case.model.dtype == torch.float64 else 1e-3
    with torch.no_grad(), by_plain_hooks(case.model, case.given, IDS.shape[1]):
        expected = case.model(IDS).logits
    return "" if torch.allclose(found, expected, rtol=tolerance, atol=tolerance) else told


def problems(start: int, count: int) -> list[str]:
    return [said for seed in range(start, start + count) if (said := problem(seed))]


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_any_mix_is_as_the_reference_or_one_sentence(start):
    assert problems(start, 100) == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 5000, 500))
def test_many_more_mixes(start):
    assert problems(start, 500) == []
