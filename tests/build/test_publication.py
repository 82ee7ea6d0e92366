"""What a book says of itself where it is published, where its pages lead, and how editions stand side by side."""

import json
import sys
import tomllib

import nbformat
import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html

from em_companion.build import keys, publication, site

PUBLISHED = {
    "BOOK_URL": "https://example.org/book/v0.2.0",
    "BOOK_REPOSITORY": "https://github.com/someone/companion",
    "BOOK_RELEASE": "v0.2.0",
}
sys.path.append(str(ROOT / ".ci"))
import editions  # noqa: E402


def told(page: html.HtmlElement) -> dict[str, str]:
    """What a page says of itself, by name."""
    return {meta.get("name") or meta.get("property"): meta.get("content") for meta in page.xpath("//meta[@content]")}


def buttons(page: html.HtmlElement) -> set[str]:
    return set(page.xpath("//div[@class='article-header-buttons']//li/a/@href"))


def first_cell(project) -> str:
    notebook = nbformat.read(project.html / "notebooks/s2-demo.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    return notebook.cells[0].source


def test_a_published_book_names_its_address_and_leads_to_its_source_and_a_local_one_does_not(built):
    built.write("book/404.md", "---\norphan: true\n---\n# There is no such page\n")
    built.write("CITATION.cff", "doi: 10.1234/zenodo.5\n")
    assert built.run("book", **PUBLISHED).returncode == 0
    figure, page = (html.parse(built.html / f"{name}.html").getroot() for name in PAGES)
    address = PUBLISHED["BOOK_URL"]
    assert figure.xpath("//link[@rel='canonical']/@href") == [f"{address}/figures/fig-x-line/index.html"]
    assert told(figure)["og:image"] == f"{address}/figures/fig-x-line/figure.png"
    assert told(figure)["citation_doi"] == "10.1234/zenodo.5"
    assert told(figure)["description"] == "released · Figure 9 of the paper. A line."
    assert "Version 0.2.0." in page.xpath("//footer")[-2].text_content() + page.xpath("//footer")[-1].text_content()
    at = PUBLISHED["BOOK_REPOSITORY"]
    assert f"{at}/edit/main/notebooks/s2-demo.py" in buttons(page)
    assert "https://codespaces.new/someone/companion" in buttons(page)
    assert not any("/edit/" in one for one in buttons(figure)) and at in buttons(figure)
    assert f"git clone --quiet {at} companion" in first_cell(built)
    missing = html.parse(built.html / "404.html").getroot()
    assert missing.xpath("//base/@href") == [f"{address}/"] and not page.xpath("//base")
    places = html.parse(built.html / "sitemap.xml").getroot().xpath("//loc/text()")
    assert all((built.html / one.removeprefix(f"{address}/")).is_file() for one in places)
    assert f"{address}/figures/fig-x-line/index.html" in places and f"{address}/404.html" not in places
    for name in ("cite.bib", "cite.json", "credit.txt"):
        text = (built.html / "figures/fig-x-line" / name).read_text(encoding="utf-8")
        assert f"{address}/figures/fig-x-line/" in text and "10.1234/zenodo.5" in text
    assert "'https://example.org/book/versions.json'" in (built.html / "index.html").read_text(encoding="utf-8")

    assert built.run("book").returncode == 0
    figure, page = (html.parse(built.html / f"{name}.html").getroot() for name in PAGES)
    assert not figure.xpath("//link[@rel='canonical']") and "og:image" not in told(figure)
    assert {*buttons(page), *buttons(figure)} == {"s2-demo.ipynb"} and "git clone" not in first_cell(built)
    assert not (built.html / "sitemap.xml").exists()


PAGES = ("figures/fig-x-line/index", "notebooks/s2-demo")


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=1, max_size=4, unique=True), st.booleans())
def test_each_release_stays_and_the_newest_is_preferred(tmp_path_factory, releases, has_latest):
    site, book = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("book")
    tags = [f"v{'.'.join(map(str, release))}" for release in releases]
    for name in [*tags, *["latest"] * has_latest, tags[0]]:
        for page in ("index", "404"):
            (book / f"{page}.html").write_text(f"{page} of {name}", encoding="utf-8")
        editions.add(book, site, name, "https://example.org/book")
    for name in tags:
        assert (site / name / "index.html").read_text(encoding="utf-8") == f"index of {name}"
    listed = json.loads((site / "versions.json").read_text(encoding="utf-8"))
    newest = "v" + ".".join(map(str, max(releases)))
    assert {one["version"] for one in listed} == {tag[1:] for tag in tags}
    assert [one["url"] for one in listed if one["preferred"]] == [f"https://example.org/book/{newest}/"]
    first = "latest" if has_latest else newest
    assert f"url={first}/" in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "404.html").read_text(encoding="utf-8") == f"404 of {first}"


@pytest.mark.parametrize(
    "given, url", [("", ""), (" https://a.b/c ", "https://a.b/c/"), ("https://a.b/", "https://a.b/")]
)
def test_the_address_of_the_book(monkeypatch, given, url):
    monkeypatch.setattr(publication, "_cited", dict)
    monkeypatch.setenv("BOOK_URL", given)
    assert publication.address() == url


def test_the_files_that_name_a_release_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    archived = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["title"] == archived["title"] and cited["license"] == archived["license"] == project["license"]
    assert [one["name"] for one in archived["creators"]] == [one["name"] for one in cited["authors"]]
    assert cited["keywords"] == archived["keywords"] and cited["version"] == project["version"]
    assert f"\n## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pages_to_launch_are_there():
    assert len(site.LAUNCHED) == 3 and {*site.LAUNCHED} <= {*keys.names()}
