"""Publishing on a disk that fills up."""

import shutil

import pytest

from em_companion.build import assemble
from em_companion.core.errors import CompanionError


def test_a_disk_that_fills_up_is_one_sentence_and_the_last_good_book_stays(tmp_path, monkeypatch):
    html = tmp_path / "html"
    html.mkdir()
    (html / "index.html").write_text("last good build", encoding="utf-8")
    for name, place in {"HTML": html, "BUILD": tmp_path, "STAGING": tmp_path / "no", "PASSED": tmp_path / "p"}.items():
        monkeypatch.setattr(assemble, name, place)
    for name in ("collect", "assemble", "fingerprint"):
        monkeypatch.setattr(assemble, name, lambda *_: "now")
    monkeypatch.setattr(assemble, "render", lambda: html)
    monkeypatch.setattr(assemble.gates, "check_html", lambda site: [])

    def full(*_, **__):
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(CompanionError, match=r"^html cannot be written: free some disk space and run it again\.$"):
        assemble.build("cpu")
    assert (html / "index.html").read_text(encoding="utf-8") == "last good build"
