"""The registry of figures: what is registered, and a broken entry is one clear sentence."""

import pytest
import yaml

from em_companion.book import registry
from em_companion.core.errors import CompanionError

ENTRY = {"id": "fig-x-line", "title": "A line", "notebook": "s2-demo", "paper": ""}


@pytest.mark.parametrize(
    "changes, saying",
    [
        ({"title": 5}, "'fig-x-line': 'title' must be text, not 5."),
        ({"title": ""}, "'fig-x-line': 'title' must be text, not ''."),
        ({"heading": "A line"}, "'fig-x-line': it has a missing or unknown key: heading."),
        ({"notebook": ...}, "'fig-x-line': it has a missing or unknown key: notebook."),
        ({"id": "../fig"}, "'../fig': 'id' must be small letters, digits and hyphens, as in fig-x-loss, not '../fig'."),
    ],
)
def test_a_broken_entry_is_one_clear_sentence(tmp_path, monkeypatch, changes, saying):
    entry = {key: value for key, value in (ENTRY | changes).items() if value is not ...}
    (tmp_path / "figures.yml").write_text(yaml.safe_dump({"figures": [entry]}), encoding="utf-8")
    monkeypatch.setattr(registry, "FIGURES", tmp_path / "figures.yml")
    registry.load_figures.cache_clear()
    with pytest.raises(CompanionError) as raised:
        registry.load_figures()
    assert str(raised.value) == f"figures.yml, {saying}"
    registry.load_figures.cache_clear()


@pytest.mark.parametrize("kind", ["Figure", "Claim"])
def test_what_is_not_registered_for_a_notebook_is_refused(kind):
    with pytest.raises(CompanionError, match="'nothing' is not registered for notebook 's2-model-organism'"):
        registry.registered(kind, "nothing", "s2-model-organism")
    with pytest.raises(CompanionError, match="is not registered for notebook 'elsewhere'"):
        registry.registered(kind, next(iter(registry.load_figures())), "elsewhere")
