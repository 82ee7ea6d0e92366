"""What a notebook talks to: a `Run` shows figures, tables, measured claims and numbers, and records all of them.

Every result is a small function handed to the run. The run calls it, and where the released data are not at hand it
shows a visible box and notes the gap instead of failing, so that the book also builds offline.
"""

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, display
from myst_nb import glue

from em_companion import claims, figure_registry, figures, markup, profiles, released
from em_companion.artifacts import CompanionError, write_json
from em_companion.paths import ARTIFACTS
from em_companion.provenance import environment, utc_now

FIGURE_MIME = "application/vnd.em-companion.figure+json"
NOT_AVAILABLE = "not available"


class Run:
    """One execution of a notebook under a profile and a seed.

    Results go to the folder named by `EM_COMPANION_RUN_FOLDER` (set by `em-companion run`), or to
    `artifacts/by-hand/<notebook>` when the notebook is run in Jupyter.
    """

    def __init__(self, notebook: str, profile: str = "cpu", seed: int = 0) -> None:
        self.notebook = notebook
        self.profile = profiles.load(profile)
        self.seed = seed
        self.started = time.monotonic()
        self.folder = self._folder()
        self.records: dict[str, Any] = {
            "notebook": notebook,
            "profile": profile,
            "seed": seed,
            "finished": False,
            "figures": [],
            "measurements": [],
            "values": [],
            "unavailable": [],
        }
        figures.use_theme()
        self._write()

    def _folder(self) -> Path:
        given = os.environ.get("EM_COMPANION_RUN_FOLDER")
        if given:
            return Path(given)
        folder = ARTIFACTS / "by-hand" / self.notebook
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _write(self) -> None:
        write_json(self.folder / "records.json", self.records)

    def _or_box(self, make: Callable[[], Any]) -> Any:
        """Return make(), or None after a visible box when released data are missing."""
        try:
            return make()
        except released.ReleasedDataUnavailable as problem:
            self.records["unavailable"].append(str(problem))
            self._write()
            display(HTML(markup.box("Released data not available", str(problem))))
            return None

    @property
    def model_evidence(self) -> str:
        """The evidence that models of this profile give: "grown" or "hub"."""
        return self.profile.model.source

    @property
    def grown(self) -> bool:
        """Whether the models of this profile are grown, so that who speaks in their world is known."""
        return self.model_evidence == "grown"

    # --- showing ---------------------------------------------------------------------------------------------------

    def figure(self, figure_id: str, draw: figures.Draw, *, evidence: str, caption: str, alt: str) -> None:
        """Draw, save and show a registered figure; a placeholder takes its place when released data are missing."""
        entry = figure_registry.registered(figure_id, self.notebook)
        try:
            drawn, data = draw()
        except released.ReleasedDataUnavailable as problem:
            self.records["unavailable"].append(str(problem))
            text = f"{caption} *Released data not available.*"
            self._show(figures.placeholder(self.folder, entry, evidence=evidence, status="unavailable", text=text))
            return
        record = figures.save_figure(
            self.folder, entry, drawn, data, evidence=evidence, caption=caption, alt=alt, provenance=self.provenance()
        )
        self._show(record)

    def grown_figure(self, figure_id: str, draw: figures.Draw, *, caption: str, alt: str, why: str) -> None:
        """Show a figure of grown evidence; under a hub profile a box with `why` as its caption takes its place."""
        if self.grown:
            self.figure(figure_id, draw, evidence="grown", caption=caption, alt=alt)
        else:
            self.waiting(figure_id, needs="grown", why=why)

    def waiting(self, figure_id: str, *, needs: str, why: str) -> None:
        """Show a box for a registered figure that needs evidence this build does not have; `why` is its caption."""
        entry = figure_registry.registered(figure_id, self.notebook)
        self._show(figures.placeholder(self.folder, entry, evidence=needs, status="waiting", text=why))

    def _show(self, record: dict[str, Any]) -> None:
        if any((record["id"], record["evidence"]) == (one["id"], one["evidence"]) for one in self.records["figures"]):
            raise CompanionError(f"Figure '{record['id']}' is drawn twice from {record['evidence']} evidence.")
        self.records["figures"].append(record)
        self._write()
        folder = self.folder / "figures" / record["id"] / record["evidence"]
        bundle: dict[str, Any] = {
            FIGURE_MIME: {"id": record["id"], "evidence": record["evidence"]},
            "text/plain": record["alt"],
        }
        if (folder / "figure.png").is_file():
            bundle["image/png"] = base64.b64encode((folder / "figure.png").read_bytes()).decode()
        else:
            bundle["text/html"] = markup.box(record["alt"], record["caption"])
        display(bundle, raw=True)

    def table(
        self, make: Callable[[], pd.DataFrame], formats: dict[str, str] | None = None, number: str = "{:.3g}"
    ) -> None:
        """Show make() as a table; text is escaped, numbers use `formats` per column, else `number`."""
        frame = self._or_box(make)
        if frame is not None:
            display(HTML(markup.frame_table(frame, formats, number)))

    def measure(self, make: Callable[[], Iterable[claims.Measurement]]) -> None:
        """Record measurements of this notebook's claims and show them beside the reported values, with verdicts."""
        measured = self._or_box(lambda: list(make()))
        if measured is None:
            return
        for measurement in measured:
            claim = claims.load_claims().get(measurement.claim)
            if claim is None or claim.notebook != self.notebook:
                raise CompanionError(f"Claim '{measurement.claim}' is not registered for notebook '{self.notebook}'.")
            self.records["measurements"].append(_plain(asdict(measurement)))
        self._write()
        display(HTML(markup.measured_table(measured)))

    def values(self, make: Callable[[], pd.DataFrame], evidence: str = "released") -> None:
        """Record recomputed numbers for `claims.json`; columns name, value, unit and optional low, high, n."""
        frame = self._or_box(make)
        if frame is None:
            return
        if missing := {"name", "value", "unit"} - set(frame):
            raise CompanionError(f"Values need a column '{sorted(missing)[0]}'.")
        if frame.name.duplicated().any():
            raise CompanionError(f"Value '{frame.name[frame.name.duplicated()].iloc[0]}' is recorded twice.")
        self.records["values"] += [_plain(row) | {"evidence": evidence} for row in frame.to_dict("records")]
        self._write()

    def glue(self, name: str, make: Callable[[], str]) -> None:
        """Make a ready string available to the prose as {glue:text}`name`; "not available" without released data."""
        try:
            text = make()
        except released.ReleasedDataUnavailable as problem:
            self.records["unavailable"].append(str(problem))
            text = NOT_AVAILABLE
        glue(name, markup.typography(text), display=False)

    def grown_glue(self, name: str, make: Callable[[], str]) -> None:
        """As `glue`, of grown evidence; "not run" under a hub profile."""
        self.glue(name, make if self.grown else lambda: "not run")

    def finish(self) -> None:
        """Close the run: write what was recorded and show how to rerun and cite this page."""
        self.records |= {"finished": True, "seconds": round(time.monotonic() - self.started, 1)}
        self._write()
        display(HTML(self._footer()))

    def _footer(self) -> str:
        ids = list(dict.fromkeys(record["id"] for record in self.records["figures"] if record["status"] == "made"))
        links = ", ".join(f'<a href="../figures/{one}/index.html">{one}</a>' for one in ids)
        cite = f"<strong>Cite a figure.</strong> Each has a record with data, provenance and BibTeX: {links}."
        name = markup.escape(self.notebook)
        return (
            '<div class="em-footer"><p><strong>Rerun this page.</strong> '
            f"<code>make notebook NAME={name}</code> (profile {markup.escape(self.profile.name)}, seed {self.seed}; "
            f"{self.records['seconds']:.0f} s here), or open <code>notebooks/{name}.ipynb</code> in Jupyter.</p>"
            f"{f'<p>{cite}</p>' if ids else ''}</div>"
        )

    def provenance(self) -> dict[str, Any]:
        """Return what made the present result (see `provenance.environment`), with the inputs read so far."""
        return {
            "notebook": self.notebook,
            "parameters": {"profile": self.profile.name, "seed": self.seed},
            "profile": self.profile.name,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.started, 1),
            "date": utc_now(),
            "inputs": dict(sorted(released.opened.items())),
        } | environment()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with NumPy scalars as Python ones and non-finite numbers as None, ready for JSON."""
    plain = {}
    for key, value in row.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, tuple | list):
            value = list(_plain(dict(enumerate(value))).values())
        plain[key] = None if isinstance(value, float) and not isfinite(value) else value
    return plain
