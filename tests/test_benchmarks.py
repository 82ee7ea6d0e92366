"""The benchmark for a large card runs through on a toy, and there all contenders write the same answers."""

import json

from conftest import ROOT


def test_the_benchmark_for_a_card_runs_on_a_toy(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import _contenders
    import gpu

    monkeypatch.setattr(_contenders, "REPETITIONS", 1)
    gpu.main(["--tiny"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    limits, loops = ([line for line in lines if kind in line["benchmark"]] for kind in ("bandwidth", "sweep"))
    assert [line["rows"] for line in limits] == [2, 4] and all(line["spread"][1] > 0 for line in limits)
    assert len(loops) >= 3 and all(line["ratio"] > 0 and line["share_of_equal_answers"] > 0.98 for line in loops)


def test_the_limit_is_the_time_of_reading_weights_and_caches(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu
    import torch

    shape = {"vocab_size": 5, "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2}
    model = gpu.random_model(shape | {"num_attention_heads": 2, "num_key_value_heads": 1}, "cpu", torch.float32)
    # per layer: q, k, v, o with biases of q, k, v; three matrices of the MLP; two norms. Then the last norm, the head.
    weights = 2 * (16 + 4 + 8 + 2 + 8 + 2 + 16 + 3 * 32 + 8) + 4 + 20
    cache = 2 * 2 * 2  # keys and values of 2 layers, one head of width 2
    tokens = 3 * ((gpu.PROMPT + 1) + (gpu.PROMPT + 2))
    assert gpu.seconds_at_least(model, 3, 3, 4.0) == 2 * weights + tokens * cache
