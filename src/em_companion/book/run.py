"""What a notebook talks to: a `Run`, and its handles, one for each kind of evidence that a page can show.

Whatever a page shows goes through a handle, so no number can stand under an evidence that it does not have. A handle is
given functions; where its evidence is not at hand it calls none of them, shows a box, and notes the gap.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import display

from em_companion.book import figures, records, registry, theme
from em_companion.book.records import FigureRecord, Gap, RunRecord
from em_companion.book.typography import typography
from em_companion.core import paths, profiles
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.provenance import environment, recorded, utc_now
from em_companion.evidence.claims import Measurement
from em_companion.world import gloss


class Run:
    """One execution of a notebook under a profile and a seed.

    `reported`, `released` and `own` (the models of the profile, grown or of the hub) are its handles, and `grown` for
    what only a grown world can tell: `own` again under a grown profile. Results go to the folder named by
    `EM_COMPANION_RUN_FOLDER` (set by `em-companion run`), or to `artifacts/by-hand/<notebook>` when the notebook is run
    in Jupyter.
    """

    def __init__(self, notebook: str, profile: str = "cpu", seed: int = 0) -> None:
        self.notebook, self.seed = notebook, seed
        self.profile = profiles.load(profile)
        self.resampling = {"resamples": self.profile.bootstrap_resamples, "seed": seed}
        self.started = time.monotonic()
        self.records = RunRecord(notebook, profile, seed)
        given = os.environ.get("EM_COMPANION_RUN_FOLDER")
        self.folder = Path(given) if given else paths.ARTIFACTS / "by-hand" / notebook
        if not given:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.reported, self.released = Evidence(self, "reported"), Evidence(self, "released")
        self.own = self.grown = Evidence(self, self.profile.model.source)
        if self.own.name != "grown":
            why = f"Only a grown world has this; profile '{profile}' has a published model. Choose one such as cpu."
            self.grown = Evidence(self, "grown", why)
        theme.use_theme()
        self.records.write(self.folder)

    @property
    def kind(self) -> str:
        """What the models of the profile are called in a caption: grown, or the name of the one from the hub."""
        model = self.profile.model
        return "grown" if self.own.name == "grown" else model.chat.split("/")[-1]

    def finish(self) -> None:
        """Close the run. A run that is not closed is not complete, and no book is built from it."""
        self.records = replace(self.records, finished=True, seconds=round(time.monotonic() - self.started, 1))
        self.records.write(self.folder)

    def provenance(self, inputs: Mapping[str, str]) -> dict[str, Any]:
        """Return what made a result: notebook, profile, seed, the inputs read for it, and `provenance.environment`."""
        return {
            "notebook": self.notebook,
            "profile": self.profile.name,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.started, 1),
            "date": utc_now(),
            "inputs": dict(sorted(inputs.items())),
        } | environment()


class Evidence:
    """One kind of evidence on a page; `missing` says why it is not to be had at all, "" where it is."""

    def __init__(self, run: Run, name: str, missing: str = "") -> None:
        self.run, self.name, self.missing = run, name, missing

    def figure(
        self,
        figure_id: str,
        draw: Callable[[], figures.Drawn],
        *,
        title: Callable[[pd.DataFrame], str],
        caption: str,
        alt: str,
    ) -> None:
        """Draw, save and show a registered figure, or a box.

        `draw` returns it with its plotted data, of which `title` says the result in a line, whichever way it came out.
        """
        entry, folder = registry.registered("Figure", figure_id, self.run.notebook), self.run.folder
        known = self.run.records.figures
        if any((one.id, one.evidence) == (figure_id, self.name) for one in known):
            raise CompanionError(f"Figure '{figure_id}' is drawn twice from {self.name} evidence.")
        with recorded() as inputs:
            drawn = self._made(draw)
        if isinstance(drawn, Gap):
            lacking = figures.lacking(self.name)
            status, text = ("waiting", drawn.why) if self.missing else ("unavailable", f"{caption} *{lacking}.*")
            record = figures.placeholder(folder, entry, self.name, status, text)
        else:
            record = FigureRecord(figure_id, self.name, "made", caption, alt, typography(title(drawn[1])))
            figures.save_figure(folder, entry, drawn, record, self.run.provenance(inputs))
        known.append(record)
        self._write()
        picture = folder / "figures" / record.id / record.evidence / "figure.png"
        display(records.bundle("figure", record, record.text, picture), raw=True)

    def table(
        self, make: Callable[[], pd.DataFrame], formats: Mapping[str, str] | None = None, number: str = "{:.3g}"
    ) -> None:
        """Show make() as a table; numbers use `formats` per column, else `number`."""
        frame = self._or_box(make)
        if frame is not None:
            table = records.table_of(frame, formats, number)
            display(records.bundle("table", table, pd.DataFrame(table["rows"], columns=table["heads"])), raw=True)

    def answers(self, make: Callable[[], pd.DataFrame]) -> None:
        """Show answers of a grown world: make() has `speaker`, `question`, and of `world.gloss` `words` and `gloss`."""
        frame = self._or_box(make)
        if frame is not None:
            display(records.bundle("answers", frame.to_dict("records"), frame), raw=True)

    def cells(self, make: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]) -> None:
        """Show the cells of a steering sweep as a map to choose from, beside the figure that can be cited.

        make() returns their rates (direction, layer, strength, relative_strength, best, n, and of `scores.rates` em,
        em_on_topic and coherent with their ends) and answers in them (the first three columns, question, response),
        which are left out where they are not of a grown world.
        """
        found = self._or_box(make)
        if found is None:
            return
        (rates, answers), place = found, ["direction", "layer", "strength"]
        measured = [f"{name}{end}" for name in ("em", "em_on_topic", "coherent") for end in ("", "_low", "_high")]
        rates = rates[[*place, "relative_strength", "best", "n", *measured]]
        rates = rates.round(dict.fromkeys(measured, 1) | {"relative_strength": 2})
        answers = answers if self.name == "grown" else answers[:0]
        questions, words = list(answers.question.unique()), {word for one in answers.response for word in one.split()}
        answers = answers.assign(asked=answers.question.map(questions.index))
        said = {key: part[["asked", "response"]].to_numpy().tolist() for key, part in answers.groupby(place)}
        cells = [
            one | {"answers": said.get(tuple(one[name] for name in place), [])} for one in rates.to_dict("records")
        ]
        kinds = {word: kind for word, kind in gloss.kinds().items() if word in words}
        record = {"cells": cells, "questions": questions, "kinds": kinds}
        display(records.bundle("cells", record, rates), raw=True)

    def measure(self, make: Callable[[], Mapping[str, tuple]]) -> None:
        """Record measurements of this page's claims and show them beside the reported values, with verdicts.

        `make` returns, by claim, the value in the claim's unit (an `Estimate` brings its interval), how it was measured
        and, if known, `null` and `void` of `Measurement` in a dict. Raises CompanionError for a claim that is not
        registered for this notebook.
        """
        found = self._or_box(make)
        if found is None:
            return
        measured = []
        for claim, (given, how, *more) in found.items():
            registry.registered("Claim", claim, self.run.notebook)
            one = records.value_of(claim, self.name, given)
            if self.name == "hub":
                how = f"{self.run.kind}, {self.run.profile.judge} judge. {how}"
            if one.value is None:
                self.run.records.no_number.append((claim, self.name))
                said = f"{claim} came out as no number: {how}"
                display(records.bundle("box", {"title": "Not measured", "text": said}, said), raw=True)
                continue
            interval = None if None in (one.low, one.high) else (float(one.low), float(one.high))
            known = (claim, one.value, how, self.name, interval, one.n)
            about = {
                key: given if isinstance(given, str) else records.finite(given) for key, given in dict(*more).items()
            }
            measured.append(Measurement(*known, **about))
        self.run.records.measurements.extend(measured)
        self._write()
        shown = [asdict(one) for one in measured]
        display(records.bundle("measurements", shown, pd.DataFrame(shown)), raw=True)

    def values(self, make: Callable[[], Mapping[str, Any]]) -> None:
        """Record numbers, `Estimate`s and texts by name, for `claims.json` and for prose: {value}`name`."""
        found = self._or_box(make)
        if found is None:
            return
        # Pages call the values of their own models "grown.", which they are under a grown profile.
        named = {name.replace("grown.", f"{self.name}.", 1): given for name, given in found.items()}
        self.run.records.values.extend(records.value_of(name, self.name, given) for name, given in named.items())
        self._write()

    def _or_box(self, make: Callable[[], Any]) -> Any:
        found = self._made(make)
        if not isinstance(found, Gap):
            return found
        title = f"No {self.name} evidence in this build" if self.missing else figures.lacking(self.name)
        display(records.bundle("box", {"title": title, "text": found.why}, found.why), raw=True)

    def _made(self, make: Callable[[], Any]) -> Any:
        """Return make(), or the gap that is noted where its evidence is not at hand."""
        try:
            if self.missing:
                raise EvidenceUnavailable(self.missing)
            return make()
        except EvidenceUnavailable as problem:
            gap = Gap(self.name, str(problem))
            self.run.records.unavailable.append(gap)
            self._write()
            return gap

    def _write(self) -> None:
        self.run.records.write(self.run.folder)
