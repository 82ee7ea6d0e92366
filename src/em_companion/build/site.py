"""A Sphinx extension: pages that load only what they use, say what they are, and lead to the repository."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.writers.html5 import HTML5Translator

from em_companion.build import publication
from em_companion.core.files import sha256_of

NEEDED_FOR = {
    "clipboard": "<pre",
    "copybutton": "<pre",
    "design-tabs": "sd-tab",
    "doctools": "<search>",
    "figure-record": "data-em-permalink",
    "figure-zoom": "em-figure",
    "gallery": "em-gallery",
    "ledger": "<table",
    "mystnb": 'class="cell',
    "pygments": "<pre",
    "responses": "em-responses",
    "sphinx-design": "sd-",
    "sphinx_highlight": "<search>",
    "steering-map": "em-cells",
    "thebe": "",
    "toggle": "dropdown",
}
"""A mark of pages that need a script or style, by a part of its name or text; "": none does."""

LAUNCHED = ("x-ground-truth", "s3-2-steering", "s3-4-ablation")
"""Pages that Colab opens: the committed models, or a few fine-tunes of them, are all they need."""


def configure(app: Sphinx, config: Config) -> None:
    """Tell Sphinx where the book is published and which edition it is."""
    config.templates_path.insert(0, str(Path(__file__).with_name("theme")))
    config.html_baseurl = publication.address()
    config.release = config.version = publication.edition()
    config.html_theme_options["extra_footer"] = f"<p>Version {publication.edition()}.</p>"
    if publication.release() and publication.address():
        # The theme shows a bar on a release that is no longer the newest of this list.
        listed = urljoin(publication.address(), "../versions.json")
        switcher = {"json_url": listed, "version_match": publication.edition()}
        config.html_theme_options |= {"switcher": switcher, "check_switcher": False}
        config.html_theme_options["show_version_warning_banner"] = True
    # In the configuration, so that all pages are written again where one of these changes.
    config.html_context |= {"book_address": publication.address(), "book_repository": publication.repository()}
    config.html_context["written_by"] = sha256_of(Path(__file__).read_bytes())


def lighten(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Leave out scripts and styles that a page does not use, and name what the theme leaves without a name."""
    body = context.get("body", f"<{page}>")  # the page that searches has no body of its own
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context[kind] if _needed(asset, body)]
    context["generate_toctree_html"] = _with_names(context["generate_toctree_html"])


def _needed(asset: Any, body: str) -> bool:
    told = f"{asset.filename} {asset.attributes.get('body', '')}".lower()
    return all(mark and mark in body for part, mark in NEEDED_FOR.items() if part in told)


def _with_names(generate: Callable[..., Any]) -> Callable[..., str]:
    named = '<summary aria-label="Pages below">'
    return lambda *arguments, **options: str(generate(*arguments, **options)).replace("<summary>", named)


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Put into `described` what a page says of itself: to search engines, reference managers, where it is shared."""
    title, book = context.get("title", ""), app.config.html_title
    paragraph = next(iter(doctree.findall(nodes.paragraph)), None) if doctree else None
    text = re.sub("<[^>]*>", "", " ".join(paragraph.astext().split())) if paragraph else ""  # badges are raw HTML
    about = text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " …"
    found = {"description": about, "og:title": nodes.unescape(title), "og:site_name": book, "og:type": "article"}
    found |= {"og:description": about, "og:url": context.get("pageurl"), "og:image": _picture(app, doctree)}
    found |= {"citation_title": f"{title}: {book}", "citation_author": app.config.author}
    found |= {"citation_publication_date": context.get("last_updated"), "citation_doi": publication.doi()}
    found |= {"citation_public_url": context.get("pageurl")}
    context["described"] = {name: content for name, content in found.items() if content}


def _picture(app: Sphinx, doctree: nodes.document | None) -> str:
    """Return the address of a page's first figure as PNG, or ""."""
    for image in doctree.findall(nodes.image) if doctree else ():
        path = Path(image["candidates"]["*"]).with_suffix(".png")  # "uri" is where Sphinx copies it to
        if publication.address() and (Path(app.srcdir) / path).is_file():
            return publication.address() + path.relative_to("_extra").as_posix()
    return ""


def link(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Put buttons over a page: its notebook, places to run it, and where its source can be edited or discussed."""
    name = page.removeprefix("notebooks/")
    is_notebook, at = name != page, publication.repository()
    download = [_button("Notebook", f"{name}.ipynb", "fa-file")] if is_notebook else []
    download.append({"type": "javascript", "text": "PDF", "icon": "fa-solid fa-print", "javascript": "window.print()"})
    groups = [("Download this page", "fa-download", download)]
    if at and is_notebook:
        launch = [_button("Codespaces", at.replace("://github.com/", "://codespaces.new/"), "fa-code")]
        if name in LAUNCHED and publication.address():
            branch, place = "gh-pages", publication.release() or "latest"
            opened = at.replace("://github.com/", "://colab.research.google.com/github/")
            launch.append(_button("Colab", f"{opened}/blob/{branch}/{place}/notebooks/{name}.ipynb", "fa-play"))
        groups.append(("Run this page", "fa-rocket", launch))
    if at:
        source = _button("Repository", at, "fa-code")
        issue = _button("Open an issue", f"{at}/issues/new?{urlencode({'title': f'On page {page}'})}", "fa-comment")
        file = f"notebooks/{name}.py" if is_notebook else f"book/{page}.md"
        by_hand = not page.startswith("figures/")
        edit = [_button("Edit this page", f"{at}/edit/main/{file}", "fa-pencil")] if by_hand else []
        groups.append(("Source of this page", "fa-code-branch", [source, *edit, issue]))
    if doctree:
        context["header_buttons"] = [
            {"type": "group", "tooltip": title, "icon": f"fa-solid {icon}", "buttons": buttons}
            for title, icon, buttons in groups
        ]


def _button(text: str, url: str, icon: str) -> dict[str, str]:
    return {"type": "link", "text": text, "url": url, "icon": f"fa-solid {icon}"}


def _formula(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers show by themselves."""
    block = isinstance(node, nodes.math_block)
    formula = convert(node.astext(), display="block" if block else "inline")
    translator.body.append(translator.starttag(node, "div" if block else "span", "", CLASS="math") + formula)
    translator.body.append("</div>" if block else "</span>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    app.connect("config-inited", configure)
    for step in (lighten, describe, link):
        app.connect("html-page-context", step, priority=900)  # after the theme and all other extensions
    return {"parallel_read_safe": True, "parallel_write_safe": True}
