"""Text of the generated pages: figure records, gallery, scoreboard, ledger. Everything from outside is escaped."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from em_companion.book import registry, typography
from em_companion.book.typography import escape
from em_companion.build import citation, markup
from em_companion.build.markup import number_cell, verdict_badge
from em_companion.evidence import claims, verdicts

APPENDICES = "Appendices"
PARTS = {
    "2": "2 Model organism",
    "3": "3 Directions, steering, ablation",
    "4": "4 LoRA adapters",
    APPENDICES: APPENDICES,
}


_VALUE = re.compile(r"\{value\}`([^`]+)`")


def filled(text: str, values: Iterable[dict[str, Any]]) -> str:
    """Return prose with every {value}`name` replaced by what was measured under that name, or "not run"."""
    known = {value["name"]: _measured(value) for value in values if value["value"] is not None}
    return _VALUE.sub(lambda found: known.get(found[1], "not run"), text)


def _measured(value: dict[str, Any]) -> str:
    number = value["value"]
    if value["unit"].startswith("percent"):
        return typography.typography(f"{number:.0f} %" if abs(number) >= 10 else f"{number:.1f} %")
    return typography.typography(f"{number:.2f}")


def raw(markup: str) -> str:
    """Return a MyST block that passes HTML through."""
    return f"```````{{raw}} html\n{markup}\n```````\n"


# --- figures ------------------------------------------------------------------------------------------------------


def figure_directive(record: dict[str, Any], image: str, label: str | None, record_page: str | None) -> str:
    """Return a numbered, captioned MyST figure; `label` makes it a target, `record_page` a link in the caption."""
    words = "Data, provenance, citation" if record["status"] == "made" else "The page of this figure"
    tail = f" {{doc}}`{words} <{record_page}>`." if record_page else ""
    options = [f":name: {label}"] if label else []
    options += [f":alt: {_quoted(record['alt'])}", ":class: em-figure"]
    caption = f"{_lead(record)} {_one_line(record['caption'])}{tail}"
    return "\n".join([f"``````{{figure}} {image}", *options, "", caption, "``````"]) + "\n"


def _lead(record: dict[str, Any]) -> str:
    paper = registry.load_figures()[record["id"]].paper
    evidence = f"{'' if record['status'] == 'made' else 'needs '}{record['evidence']} evidence"
    lead = " · ".join(filter(None, [paper and f"{paper} of the paper", evidence]))
    return f"**{lead[:1].upper()}{lead[1:]}.**"


def _picture(record: dict[str, Any]) -> str:
    """Return the picture of a record page, unnumbered: its number belongs to the page that argues with it."""
    image = f"/_extra/figures/{record['id']}/figure.svg"
    return f"```{{image}} {image}\n:alt: {_quoted(record['alt'])}\n:class: em-figure\n```\n"


def _quoted(text: str) -> str:
    """Return text as a quoted option value, in which "#", ":" and quotes are only characters."""
    return json.dumps(_one_line(text), ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def figure_page(
    record: dict[str, Any], provenance: dict[str, Any] | None, others: list[str], bibtex: str, csl: str
) -> str:
    """Return the record page of a figure: picture, downloads, permalink, provenance, citation."""
    entry = registry.load_figures()[record["id"]]
    lines = [f"# {entry.title}", "", _picture(record), f"{_lead(record)} {_one_line(record['caption'])}", ""]
    lines += [f"{'Made by' if provenance else 'It belongs to'} {{doc}}`/notebooks/{entry.notebook}`.", ""]
    if provenance is None:
        lines += ["There is nothing to cite yet. The picture will appear at this address.", ""]
        return "\n".join(lines)
    lines += [raw(_downloads(entry.id, others)), "## Cite this figure", ""]
    lines += [
        "BibTeX:",
        "",
        "``````bibtex",
        bibtex.rstrip(),
        "``````",
        "",
        "CSL-JSON:",
        "",
        "``````json",
        csl.rstrip(),
        "``````",
        "",
    ]
    return "\n".join(lines + ["## Where it comes from", "", raw(provenance_html(provenance))])


def _downloads(figure_id: str, others: list[str]) -> str:
    names = {
        "figure.svg": "SVG",
        "figure.png": "PNG",
        "figure.pdf": "PDF",
        "data.csv": "Data (CSV)",
        "provenance.json": "Provenance",
    }
    names |= {"cite.bib": "BibTeX", "cite.json": "CSL-JSON"}
    links = " ".join(f'<a href="{file}" download="{figure_id}-{file}">{name}</a>' for file, name in names.items())
    links += "".join(f' <a href="{other}/figure.svg">{escape(other)} evidence</a>' for other in others)
    address = escape(citation.permalink(figure_id))
    return (
        f'<p class="em-figure-links">{links}</p><p class="em-permalink">Permalink: '
        f'<a href="./index.html" data-em-permalink><code>{address}</code></a></p>'
    )


def provenance_html(provenance: dict[str, Any]) -> str:
    """Return provenance as a table, with inputs and versions folded."""
    changed = " with uncommitted changes" if provenance["dirty"] else ""
    rows = {
        "Evidence": provenance["evidence"],
        "Model": provenance["model"],
        "Notebook": f"notebooks/{provenance['notebook']}.py",
        "Commit": provenance["commit"] + changed,
        "Profile, seed": f"{provenance['profile']}, {provenance['seed']}",
        "Made": provenance["date"],
        "Seconds into the run": provenance["seconds"],
        "Hardware": _hardware(provenance["hardware"]),
    }
    table = markup.table(
        [], (markup.row([_row_head(name), f"<td>{escape(str(value))}</td>"]) for name, value in rows.items())
    )
    inputs = _folded("Input files and their checksums", provenance["inputs"])
    return table + _folded("Versions", provenance["versions"]) + inputs


def _hardware(hardware: dict[str, Any]) -> str:
    return f"{hardware['processor']}, {hardware['cores']} cores, {hardware['gpu'] or 'no GPU'}"


def _row_head(text: str) -> str:
    return f'<th scope="row">{escape(text)}</th>'


def _folded(title: str, values: dict[str, str]) -> str:
    if not values:
        return ""
    items = "".join(f"<li>{escape(key)} <code>{escape(value)}</code></li>" for key, value in values.items())
    return f"<details><summary>{escape(title)} ({len(values)})</summary><ul>{items}</ul></details>"


def gallery(records: Iterable[dict[str, Any]]) -> str:
    """Return the page that lists every figure as a card, in the order of the registry."""
    order = {figure_id: index for index, figure_id in enumerate(registry.load_figures())}
    cards = "".join(_card(record) for record in sorted(records, key=lambda record: order[record["id"]]))
    text = "Every figure has a page of its own that keeps its address: picture, plotted data, provenance and citation."
    return f"# Figures\n\n{text}\n\n" + raw(f'<div class="em-gallery">{cards}</div>')


def _card(record: dict[str, Any]) -> str:
    entry = registry.load_figures()[record["id"]]
    status = "" if record["status"] == "made" else record["status"]
    small = " · ".join(filter(None, [entry.id, entry.paper, record["evidence"], status]))
    picture = f'<img loading="lazy" src="{entry.id}/figure.svg" alt="{escape(_one_line(record["alt"]))}">'
    text = f"<span>{escape(entry.title)}</span><small>{escape(small)}</small>"
    return f'<a class="em-card" href="{entry.id}/index.html">{picture}{text}</a>'


# --- claims -------------------------------------------------------------------------------------------------------


def scoreboard(ledger: list[dict[str, Any]]) -> str:
    """Return the verdicts as a page fragment: released by part of the paper and kind of data, grown by part."""
    by_part = {name: Counter() for name in PARTS.values()}
    by_data = {text: Counter() for text in claims.RELEASED_DATA.values()}
    for claim in ledger:
        verdict = claim["results"]["released"]["verdict"]
        by_part[PARTS.get(claim["section"][0], APPENDICES)][verdict] += 1
        if claim["released_data"]:
            by_data[claims.RELEASED_DATA[claim["released_data"]]][verdict] += 1
    total = sum(by_part.values(), Counter())
    text = (
        f"{len(ledger)} quantitative claims of the paper are in the ledger. The released evidence of this build tests "
        f"{sum(total[verdict] for verdict in verdicts.TESTED)} of them: {total['reproduced']} reproduced, "
        f"{total['same direction']} in the same direction, {total['differs']} that differ."
    )
    why = "A recount of the paper's own data can hardly fail; a test on other runs can. They are counted apart:"
    link = "{ref}`Each claim, with its rule and its numbers <claims-ledger>`."
    tables = [
        _counts("Part", by_part | {"All": total}, verdicts.VERDICTS),
        _counts("Test", by_data, verdicts.VERDICTS[:-1]),
    ]
    grown = _grown_counts(ledger)
    tested = sum(grown["All"][verdict] for verdict in verdicts.TESTED)
    beside = (
        f"On the organisms grown here, {tested} claims were measured. Levels carry little weight there "
        "({ref}`what grown evidence shows <grown-limits>`); direction, order and breadth do. *Same direction* says "
        "only that a value lies on the claimed side of the ledger's reference, not that it is near the paper's."
    )
    parts = [text, raw(tables[0]), why, raw(tables[1]), beside, raw(_counts("Part", grown, verdicts.TESTED)), link]
    return "\n\n".join(parts) + "\n"


def _grown_counts(ledger: list[dict[str, Any]]) -> dict[str, Counter]:
    """Return the verdicts of grown evidence by part of the paper, and of all parts."""
    counts = {name: Counter() for name in PARTS.values()}
    for claim in ledger:
        counts[PARTS.get(claim["section"][0], APPENDICES)][claim["results"]["grown"]["verdict"]] += 1
    return counts | {"All": sum(counts.values(), Counter())}


def _counts(head: str, counts: dict[str, Counter], verdicts: Iterable[str]) -> str:
    rows = (
        markup.row([_row_head(name[:1].upper() + name[1:]), *(number_cell(str(count[v] or "–")) for v in verdicts)])
        for name, count in counts.items()
    )
    classes = "em-scoreboard" + (" em-with-total" if "All" in counts else "")
    return markup.table([head, *(f"{verdict}#" for verdict in verdicts)], rows, classes=classes)


def ledger_table(ledger: list[dict[str, Any]]) -> str:
    """Return the ledger as one sortable, filterable table, with a column for each evidence that measured something."""
    shown = [name for name in claims.EVIDENCE if any("value" in claim["results"][name] for claim in ledger)]
    shown = shown or list(claims.EVIDENCE[:1])
    heads = ["Section", "Claim", "Reported", *(name.capitalize() for name in shown)]
    rows = (_ledger_row(claim, shown) for claim in ledger)
    return raw(markup.table(heads, rows, table_id="ledger", outer="em-ledger"))


def _ledger_row(claim: dict[str, Any], shown: list[str]) -> str:
    data = "".join(f' data-verdict-{name}="{result["verdict"]}"' for name, result in claim["results"].items())
    note = f"<p><em>Note.</em> {escape(claim['note'])}</p>" if claim["note"] else ""
    details = f"<details><summary>How it is tested</summary><p>{escape(claim['test'])}</p>{note}</details>"
    statement = f'<a href="notebooks/{claim["notebook"]}.html">{typography.typeset(claim["statement"])}</a>'
    cells = [
        f"<td>{escape(claim['section'])}</td>",
        f"<td>{statement}<br><small>{escape(claim['place'])}</small>{details}</td>",
        number_cell(claims.reported_text(claim)),
        *(_result_cell(claim["results"][name], claim["unit"]) for name in shown),
    ]
    return markup.row(cells, f' id="{claim["id"]}" data-section="{escape(claim["section"])}"{data}')


def _result_cell(result: dict[str, Any], unit: str) -> str:
    measured = f"{markup.measured(result, unit)}<br>" if "value" in result else ""
    small = result.get("how") or result.get("reason", "")
    return f"<td>{measured}{verdict_badge(result['verdict'])}<br><small>{typography.sentence(small)}</small></td>"


def tolerances() -> str:
    """Return the tolerance of every unit as a Markdown table."""
    rows = ["| Unit | Tolerance | Why |", "|---|---|---|"]
    for unit, tolerance in verdicts.TOLERANCES.items():
        width = f"{tolerance.absolute:g}{' points' if unit.startswith('percent') else ''}"
        if tolerance.relative:
            width = f"{100 * tolerance.relative:g} % of the reported value"
        rows.append(f"| {unit.replace('_', ' ')} | {width} | {tolerance.why} |")
    return "\n".join(rows) + "\n"


def machine(runs: list[dict[str, Any]], environment: dict[str, Any]) -> str:
    """Return the table of executed notebooks and the versions of this build."""
    frame = pd.DataFrame(
        [{key: run[key] for key in ("notebook", "profile", "seed", "seconds", "commit")} for run in runs]
    )
    frame["commit"] = frame.commit.str[:12]
    table = markup.frame_table(frame, {"seconds": "{:.1f}"}) + _folded("Versions", environment["versions"])
    return f"The pages were put together on: {_hardware(environment['hardware'])}.\n\n{raw(table)}"


def benchmarks(path: Path) -> str:
    """Return the table of what `make bench` last measured and kept at `path`, or that it was not run."""
    if not path.is_file():
        return "Benchmarks: not run. `make bench` runs them.\n"
    kept = json.loads(path.read_text())
    shown = ("script", "benchmark", "ratio")
    rows = [
        {
            "benchmark": one["benchmark"],
            "times as fast": one["ratio"],
            "details": ", ".join(
                f"{key.replace('_', ' ')} {value:g}" for key, value in one.items() if key not in shown
            ),
            "script": one["script"],
        }
        for one in kept["measurements"]
    ]
    table = markup.frame_table(pd.DataFrame(rows), {"times as fast": "{:.1f}"})
    return f"Measured on {kept['date'][:10]}, on {_hardware(kept['hardware'])}.\n\n{raw(table)}"
