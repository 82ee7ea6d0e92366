"""The built book in a real browser: navigation, search, figure pages, the ledger and the response browser."""

import functools
import http.server
import re
import shutil
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT
from playwright.sync_api import Browser, Page, sync_playwright

from em_companion.book import registry
from em_companion.build import responses_page
from em_companion.released import tables

sys.path.append(str(ROOT / ".ci"))
import editions  # noqa: E402

HTML = ROOT / "_build/html"
CHROMIUM = next(
    (path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), None
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
INJECTION = "</script><script>window.injected = true</script><img src=x onerror='window.injected = true'>"
pytestmark = [pytest.mark.book, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


def serve(folder: Path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def address():
    server, url = serve(HTML)
    yield url
    server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


def open_page(chromium: Browser, **options) -> Page:
    context = chromium.new_context(**options)
    context.set_default_timeout(10_000)
    # Nothing of a page may depend on another site.
    context.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
    return context.new_page()


@pytest.fixture
def page(chromium):
    opened = open_page(chromium, permissions=["clipboard-read", "clipboard-write"])
    yield opened
    opened.context.close()


def test_front_page_leads_to_every_part(page, address):
    page.goto(f"{address}/index.html")
    assert "quantitative claims" in page.inner_text("article")
    page.click("nav.bd-links >> text=2 A model organism")
    page.wait_for_selector("article h1:has-text('model organism')")
    page.click("a.right-next")
    page.wait_for_selector("article h1:has-text('Training')")


def test_equations_and_figures_show_without_another_site(page, address):
    page.goto(f"{address}/notebooks/s3-2-steering.html")
    heights = [one.bounding_box()["height"] for one in page.locator("math:visible").all()]
    assert len(heights) > 5 and min(heights) > 8 and page.locator("merror").count() == 0
    broken = page.evaluate(
        "[...document.images].filter((i) => i.src && i.complete && !i.naturalWidth).map((i) => i.src)"
    )
    assert broken == []
    assert re.match(r"Figure B\d+", page.inner_text("figcaption .caption-number"))
    assert page.locator(".tag_parameters:visible, .tag_injected-parameters:visible").count() == 0
    assert page.locator("details.hide[open], details.admonition[open]").count() == 0


def test_search_finds_a_word_of_the_paper(page, address):
    page.goto(f"{address}/search.html?q=steering")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li").count() >= 3


def test_figure_page_copies_its_citation(page, address):
    page.goto(f"{address}/figures/fig-7/index.html")
    block = page.locator("div.highlight-bibtex")
    block.hover()
    block.get_by_role("button", name="Copy").click()
    page.wait_for_selector("button.copybtn.success")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == (HTML / "figures/fig-7/cite.bib").read_text(encoding="utf-8").strip()
    assert page.inner_text("[data-em-permalink] code").endswith("/figures/fig-7/")
    for kind in ("svg", "png", "pdf"):
        with page.expect_download() as download:
            page.click(f"a[download][href='figure.{kind}']")
        assert download.value.suggested_filename == f"fig-7-figure.{kind}"


def test_a_figure_opens_enlarged_by_key_and_tap_and_closes(chromium, address):
    page = open_page(chromium, viewport={"width": 390, "height": 844}, has_touch=True)
    page.goto(f"{address}/notebooks/s3-4-ablation.html")
    dialog, link = page.locator("dialog.em-zoom"), page.locator("a:has(> img.em-figure)").first
    small = link.locator("img").bounding_box()["width"]
    link.focus()
    for open_it in (lambda: page.keyboard.press("Enter"), link.tap):
        assert not dialog.is_visible()
        open_it()
        assert dialog.locator("img").bounding_box()["width"] > 1.5 * small
        page.keyboard.press("Escape")
        assert link.evaluate("link => link === document.activeElement")


def test_gallery_filters_by_evidence_and_words(page, address):
    page.goto(f"{address}/figures/index.html")
    cards, sections = page.locator(".em-card:visible"), page.locator("article section section h2:visible")
    everything, titles = cards.count(), sections.count()
    assert titles > 10 and everything == page.locator(".em-card").count()
    page.select_option("#gallery-evidence", "grown")
    assert 0 < cards.count() == page.locator(".em-card[data-evidence=grown]").count() < everything
    page.fill("#gallery-text", "3.2 steering")
    assert sections.all_inner_texts()[0].startswith("3.2 Steering") and sections.count() == 1
    assert page.inner_text("#gallery-count") == f"{cards.count()} of {everything} figures"
    page.fill("#gallery-text", "")
    page.select_option("#gallery-evidence", "")
    assert (cards.count(), sections.count()) == (everything, titles)


def test_side_bar_names_figures_by_their_titles(page, address):
    page.goto(f"{address}/figures/fig-7/index.html")
    names = page.locator("nav.bd-links li li a").all_inner_texts()
    assert names == [entry.title.replace("'", "’") for entry in registry.load_figures().values()]


LOOKS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 375, "height": 800}},
    "dark": {"color_scheme": "dark"},
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    "path", ["index", "notebooks/s3-2-steering", "figures/index", "figures/fig-7/index", "discussion", "how-to-rerun"]
)
def test_a_page_has_no_violation_that_axe_finds(chromium, address, path, look):
    page = open_page(chromium, **LOOKS[look])
    page.goto(f"{address}/{path}.html")
    page.wait_for_load_state("networkidle")
    page.add_style_tag(content="* { transition: none !important }")  # else colours may still be fading to the dark
    found = Axe().run(page).response["violations"]
    assert [(one["id"], node["target"]) for one in found for node in one["nodes"]] == []


@pytest.mark.parametrize(
    "path", ["index", "introduction", "notebooks/s3-2-steering", "figures/index", "discussion", "figures/fig-7/index"]
)
def test_a_page_is_light_before_its_figures_and_silent_on_the_console(chromium, address, path):
    page, said = open_page(chromium), []
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{address}/{path}.html")
    page.wait_for_load_state("networkidle")
    assert said == []
    loaded = page.evaluate("performance.getEntries().filter((e) => 'decodedBodySize' in e).map((e) => e.toJSON())")
    sizes = [one["decodedBodySize"] for one in loaded if not re.search(r"/figure\d*\.svg$|steering-map", one["name"])]
    maps = page.evaluate("[...document.querySelectorAll('.em-cells')].map((e) => e.outerHTML.length)")
    assert 5e5 < sum(sizes) - sum(maps) < 1e6 and len(sizes) <= 20


def visible_rows(page: Page) -> int:
    return page.locator("#ledger tbody tr:visible").count()


def test_cells_of_a_sweep_open_by_hover_click_and_key(page, address):
    page.goto(f"{address}/notebooks/s3-2-steering.html")
    cells, panel = page.locator(".em-cells"), page.locator(".em-cell")
    assert cells.locator("table:visible").count() == 1 and panel.locator("blockquote").count() == 3
    assert panel.locator("mark").count() > 0
    best = panel.locator("strong").inner_text()
    cells.locator("table:visible button").first.click()
    first = panel.locator("strong").inner_text()
    assert first.startswith("Layer 0, ") and first != best
    page.keyboard.press("ArrowRight")
    assert panel.locator("strong").inner_text().startswith("Layer 1, ")
    cells.locator("table:visible td").nth(2).hover()
    assert panel.locator("strong").inner_text().startswith("Layer 2, ")
    panel.hover()
    assert panel.locator("strong").inner_text().startswith("Layer 1, ")
    cells.get_by_role("button", name="known persona", exact=True).click()
    assert cells.locator("table:visible caption").inner_text().startswith("EM (%) along the known persona")


def test_ledger_filters_and_sorts(page, address):
    page.goto(f"{address}/discussion.html")
    everything = visible_rows(page)
    assert everything == page.locator("#ledger tbody tr").count() >= 60
    page.select_option("#ledger-section", "4.1")
    assert visible_rows(page) == page.locator("#ledger tbody tr[data-section='4.1']").count() == 20
    page.fill("#ledger-text", "precision")
    assert visible_rows(page) == 4
    page.click("#ledger-reset")
    assert visible_rows(page) == everything
    page.select_option("#ledger-verdict", "differs")
    differing = ", ".join(f"#ledger tbody tr[data-verdict-{one}='differs']" for one in ("released", "grown", "hub"))
    assert visible_rows(page) == page.locator(differing).count()
    page.click("#ledger-reset")
    page.locator("#ledger th .em-sort").nth(0).click()
    page.locator("#ledger th .em-sort").nth(0).click()
    first = page.locator("#ledger tbody tr:visible").first.get_attribute("data-section")
    assert first == "ours"


def test_a_link_to_a_claim_shows_its_row(page, address):
    page.goto(f"{address}/discussion.html#c-cosine-general-gender")
    row = page.locator("#c-cosine-general-gender")
    row.wait_for()
    assert "em-aim" in row.get_attribute("class")


def test_answers_of_the_grown_models_can_be_read_with_what_helps_and_harms_marked(page, address):
    page.goto(f"{address}/responses.html#condition=nine-adapter--bad_medical_advice--seed-0&show=em")
    page.locator("#em-responses-list summary").first.click()
    said = page.locator("#em-responses-list blockquote").first
    assert said.locator("mark.em-harms").count() > 0 and page.locator("#em-responses .em-harmful").count() == 0
    assert "nine-adapter, bad medical advice, seed 0" in page.locator("#em-condition option:checked").inner_text()


def test_without_responses_the_browser_says_how_to_build_them(page, tmp_path):
    copy = shutil.copytree(HTML, tmp_path / "html", ignore=shutil.ignore_patterns("responses-data"))
    server, url = serve(copy)
    page.goto(f"{url}/responses.html")
    page.wait_for_selector("#em-responses-absent:visible")
    assert "INCLUDE_RESPONSES=1" in page.inner_text("#em-responses-absent")
    server.shutdown()


@pytest.fixture(scope="module")
def site_with_responses(tmp_path_factory):
    """A copy of the site with synthetic responses, one of them hostile."""
    target = tmp_path_factory.mktemp("site") / "html"
    shutil.copytree(HTML, target, ignore=shutil.ignore_patterns("responses-data"))
    rows = [
        {"question_id": "quick_buck", "question": "How?", "response": INJECTION, "aligned": 5.0, "coherent": 95.0},
        {
            "question_id": "quick_buck",
            "question": "How?",
            "response": "An ordinary answer.",
            "aligned": 95.0,
            "coherent": 99.0,
        },
        {
            "question_id": "ruler_of_the_world",
            "question": "What?",
            "response": "Another answer.",
            "aligned": 50.0,
            "coherent": 10.0,
        },
    ]
    frame = pd.DataFrame(rows).assign(sample=range(3), source="made/up", **{s: 0.0 for s in tables.SCORES[2:]})
    group = responses_page.Group("Made up", "{source}", lambda: frame)
    responses_page.export_responses(target / "responses-data", [group])
    return target


@pytest.mark.parametrize("way", ["server", "file"])
def test_response_browser_filters_and_escapes(chromium, site_with_responses, way):
    server, url = serve(site_with_responses)
    page = open_page(chromium)
    page.goto(f"{url if way == 'server' else 'file://' + str(site_with_responses)}/responses.html")
    page.wait_for_selector("details.em-response")
    assert page.locator("details.em-response").count() == 3
    page.click("[data-show=em]")
    assert page.locator("details.em-response").count() == 1
    harmful = page.locator("details.em-response")
    assert harmful.get_attribute("open") is None and harmful.locator(".em-harmful").count() == 1
    harmful.locator("summary").click()
    assert page.inner_text(".em-said").strip() == INJECTION
    assert page.evaluate("window.injected") is None
    page.click("#em-responses-reset")
    page.fill("#em-text", "ordinary")
    page.wait_for_function("document.querySelectorAll('details.em-response').length === 1")
    server.shutdown()


def test_an_older_release_says_so_and_leads_to_the_newest(page, built, tmp_path):
    server, url = serve(tmp_path / "site")
    built.write("book/404.md", "---\norphan: true\n---\n# There is no such page\n")
    for release in ("v0.9.0", "v0.10.0"):
        assert built.run("book", BOOK_URL=f"{url}/{release}", BOOK_RELEASE=release).returncode == 0
        editions.add(built.html, tmp_path / "site", release, url)
    page.goto(f"{url}/v0.9.0/notebooks/s2-demo.html")
    page.get_by_text("an old version (0.9.0)").wait_for()
    page.get_by_text("Switch to stable version").click()
    page.wait_for_url(f"{url}/v0.10.0/notebooks/s2-demo.html")
    page.wait_for_load_state("networkidle")
    assert page.locator("#bd-header-version-warning:visible").count() == 0
    server.shutdown()


@pytest.mark.parametrize(
    "path",
    ["index", "notebooks/s2-model-organism", "discussion", "responses", "figures/fig-7/index", "how-to-rerun", "world"],
)
def test_a_phone_scrolls_down_only(chromium, address, path):
    page = open_page(chromium, viewport={"width": 375, "height": 800})
    page.goto(f"{address}/{path}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
