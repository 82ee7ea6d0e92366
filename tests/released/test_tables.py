"""Readers of the released data: what they refuse, and what they return. Real files where they are at hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from em_companion.released import files, tables


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A function that puts bytes in the place of every released file, and returns the folder they lie in."""

    def put(content: bytes):
        (tmp_path / "file").write_bytes(content)
        monkeypatch.setattr(files, "fetch", lambda source: tmp_path / "file")

    return put


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_tensor_files_never_run_code(given, tmp_path, capsys):
    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    given((tmp_path / "evil.pt").read_bytes())
    with pytest.raises(files.ReleasedDataBroken, match="not a readable tensor file"):
        tables.read_adapter_layers()
    assert "code ran" not in capsys.readouterr().out


def test_a_truncated_tensor_file(given, tmp_path):
    torch.save({"x": torch.zeros(3)}, tmp_path / "whole.pt")
    given((tmp_path / "whole.pt").read_bytes()[:200])
    with pytest.raises(files.ReleasedDataBroken, match="not a readable tensor file"):
        tables.read_adapter_layers()


# --- real files -------------------------------------------------------------------------------------------------------

have_data = pytest.mark.skipif(files.local_path("organisms/chat-model") is None, reason="released data not at hand")


@have_data
def test_tables_of_real_responses():
    frame = tables.read_organisms()
    assert set(frame.question_set) == {"general", "json", "template"} and "response" not in frame
    general = frame[frame.question_set == "general"]
    assert set(general.groupby(["organism", "seed", "question_id"]).size()) == {50}
    assert general["sample"].max() == 49
    assert pd.api.types.is_float_dtype(frame.aligned) and frame.aligned.max() <= 100
    assert "response" in tables.read_organisms(text=True)


@have_data
def test_rows_of_an_interrupted_write_are_dropped():
    frame = tables.read_steering()
    sizes = frame.groupby("source").size()
    assert set(sizes) == {800}


@have_data
def test_lora_scalars_line_up_with_answers():
    tokens = tables.read_probing_tokens("medical-misaligned")
    assert len(tokens) == 8122 and tokens.response.nunique() == 149
    assert np.isfinite(tokens.filter(like="layer_").to_numpy()).all()
    assert tables.read_mean_activations("general", "misaligned").shape == (48, 5120)
    general = [tables.read_mean_activations("general", texts) for texts in ("misaligned", "aligned")]
    np.testing.assert_array_equal(tables.mean_diff("general"), general[0] - general[1])


@have_data
def test_a_group_of_which_nothing_can_be_had_is_said_so(monkeypatch):
    monkeypatch.setattr(tables, "can_fetch", lambda source: False)
    with pytest.raises(files.ReleasedDataUnavailable, match="fetch --all"):
        tables.read_steering()
    assert len(tables.missing_sources("patching")) == 7
