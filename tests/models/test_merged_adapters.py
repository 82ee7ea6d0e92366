"""Merged adapters: their updates against full weights in float64, and PEFT's own scale where it is off."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from toy_models import ADAPTED, base_model

from em_companion.core.errors import CompanionError
from em_companion.models import lora, merging

SCALED = {"r": 4, "lora_alpha": 3, "use_rslora": True}
MODULES = ["down_proj", "q_proj"]


def model(other_layers=ADAPTED, first: dict = SCALED, second: dict = SCALED):
    """A random model in float64 with two random adapters, "default" and "other"."""
    config = LoraConfig(**first, target_modules=MODULES, layers_to_transform=list(ADAPTED))
    found = get_peft_model(base_model(), config)
    found.add_adapter("other", LoraConfig(**second, target_modules=MODULES, layers_to_transform=list(other_layers)))
    torch.manual_seed(1)
    for name, weight in found.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return found.double().eval()


def dense(found, name: str) -> dict[str, torch.Tensor]:
    return {path: b @ a for path, (a, b) in merging.update(found, name).items()}


def weights(found) -> dict[str, torch.Tensor]:
    """Weights with the active adapter merged in, by module."""
    whole = found.merge_and_unload()
    return {path: one.weight for path, one in whole.named_modules() if path.endswith(("down_proj", "q_proj"))}


@pytest.mark.parametrize("given", [(0.5, 0.5), (1.0, 1.0), (0.25, 0.75), (0.0, 1.0), (1.0, -0.5), (-1.0, -1.0)])
@pytest.mark.parametrize("second", [SCALED, {"r": 2, "lora_alpha": 5}])
def test_cat_is_the_weighted_sum_of_updates_to_the_last_digits(given, second):
    found = model(second=second)
    parents = [dense(found, name) for name in ("default", "other")]
    merging.merge(found, ["default", "other"], given)
    for path, child in dense(found, merging.CHILD).items():
        torch.testing.assert_close(child, given[0] * parents[0][path] + given[1] * parents[1][path], rtol=1e-12, atol=0)


def test_halves_are_the_average_of_the_merged_models_and_compute_what_it_computes():
    found, ids = model(), torch.arange(10)[None]
    before = weights(model())
    alone = []
    for name in ("default", "other"):
        one = model()
        one.set_adapter(name)
        alone.append(weights(one))
    merging.merge(found, ["default", "other"], (0.5, 0.5))
    with torch.no_grad():
        said = found(ids).logits
    child = weights(found)
    for path in before:
        torch.testing.assert_close(child[path], (alone[0][path] + alone[1][path]) / 2, rtol=1e-12, atol=1e-13)
    average = base_model()
    for path in before:
        average.get_submodule(path).weight.data = (alone[0][path] + alone[1][path]) / 2
    with torch.no_grad():
        torch.testing.assert_close(said, average(ids).logits)


def test_the_scale_that_peft_leaves_behind_is_off_by_the_root_of_the_rank():
    found = model()
    found.add_weighted_adapter(["default", "other"], [0.5, 0.5], "raw", "cat")
    merging.merge(found, ["default", "other"], (0.5, 0.5))
    raw, child = dense(found, "raw"), dense(found, merging.CHILD)
    for path in child:
        torch.testing.assert_close(raw[path], 8**0.5 * child[path])


def test_linear_is_another_merge_and_svd_the_closest_of_its_rank():
    found = model()
    merging.merge(found, ["default", "other"], (0.5, 0.5))
    exact = dense(found, merging.CHILD)
    merging.merge(found, ["default", "other"], (0.5, 0.5), "linear")
    linear = dense(found, merging.CHILD)
    merging.merge(found, ["default", "other"], (0.5, 0.5), "svd")
    short = dense(found, merging.CHILD)
    for path, whole in exact.items():
        cut = torch.linalg.svd(whole)
        best = cut.U[:, :4] * cut.S[:4] @ cut.Vh[:4]
        torch.testing.assert_close(short[path], best)
        assert (linear[path] - whole).norm() > 0.5 * whole.norm()


@pytest.mark.parametrize("method", merging.METHODS)
def test_every_method_gives_one_adapter_that_acts_and_is_the_same_each_time(method):
    found, made = model(), []
    for _ in range(2):
        merging.merge(found, ["default", "other"], (1.0, 1.0), method)
        assert {name for _, name, _ in lora.acting(found)} == {merging.CHILD}
        made.append(dense(found, merging.CHILD))
    assert all(torch.equal(made[0][path], made[1][path]) and made[0][path].any() for path in made[0])


def test_modules_of_one_parent_only_are_kept_or_the_order_is_refused():
    found = model(other_layers=(0, 2))
    alone = dense(found, "default")
    merging.merge(found, ["default", "other"], (0.5, 0.5))
    child = dense(found, merging.CHILD)
    for path in child.keys() - dense(found, "other").keys():
        torch.testing.assert_close(child[path], alone[path] / 2)
    with pytest.raises(CompanionError, match="name the one that has most first"):
        merging.merge(model(other_layers=(0, 1)), ["default", "other"], (0.5, 0.5))


def test_cosines_and_overlaps_are_those_of_whole_matrices():
    found = model()
    one, other = (merging.update(found, name) for name in ("default", "other"))
    whole = [torch.cat([(b @ a).flatten() for a, b in update.values()]) for update in (one, other)]
    expected = torch.nn.functional.cosine_similarity(*whole, dim=0)
    assert merging.cosine(one, other) == pytest.approx(float(expected))
    assert merging.cosine(one, one) == pytest.approx(1) and merging.overlap(one, one) == pytest.approx((1, 1))
    thin = model(first={"r": 1, "lora_alpha": 1}, second={"r": 1, "lora_alpha": 1})
    one, other = (merging.update(thin, name) for name in ("default", "other"))
    by_hand = [torch.nn.functional.cosine_similarity(one[path][0], other[path][0]).abs() for path in one]
    assert merging.overlap(one, other)[0] == pytest.approx(float(sum(by_hand)) / len(by_hand))
