"""Build the book: snakemake makes what is missing, one build at a time, and each finished step is told in one line.

Snakemake's own lock stays behind when its process is killed and then refuses every later build. A lock of the operating
system goes with its process, and a second build waits for the first instead of failing. Results need no such care: each
is written whole or not at all. How far a step is stands in its log, so a job may run on any machine that shares these
folders.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from em_companion.build import keys, runs
from em_companion.core import paths, profiles, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import write_json
from em_companion.core.paths import HTML, ROOT, relative
from em_companion.models import organism
from em_companion.released import files

DONE = "done"
"""Last line of the log of a step that ended well."""

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Step:
    """A job of the workflow: an organism with its responses, or a notebook; it is done once `output` is there."""

    kind: str
    name: str
    output: Path


def steps(profile: str, seed: int, notebooks: Sequence[str]) -> list[Step]:
    """Return all steps behind some notebooks; raise CompanionError if the chat model that they need is not there."""
    chosen = profiles.load(profile)
    needed = organism.organisms_of(chosen) if any(map(keys.uses_models, notebooks)) else []
    trained = [one for one in needed if one.data and not chosen.published(one.recipe, one.data)]
    found = [Step("organisms", one.name, organism.adapter_folder(chosen, one) / "provenance.json") for one in trained]
    return found + [Step("notebooks", name, runs.folder(name, profile, seed) / "run.json") for name in notebooks]


def logs(profile: str) -> Path:
    """Return the folder of the logs NAME.log of a profile's steps."""
    return paths.ARTIFACTS / "logs" / profile


def command(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


# --- one build at a time ------------------------------------------------------------------------------------------


def hold_lock() -> int:
    """Take the lock, waiting and saying so while another build holds it; return the file that holds it while open."""
    import fcntl

    paths.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    handle = os.open(paths.ARTIFACTS / ".workflow.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another build is at work here; waiting for it to end.", file=sys.stderr, flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def build(profile: str, cores: int, gpus: int, include_responses: bool, options: Sequence[str] = ()) -> None:
    """Make what is missing and build the book; `options` go to snakemake, such as those that name a cluster.

    Raises CompanionError with what the steps said that failed.
    """
    started, handle = time.monotonic(), hold_lock()
    missing = files.fetch_all(files.sources())
    chosen = profiles.load(profile)
    if any(map(keys.uses_models, keys.names())):
        _grow_chat_model(chosen)
    every = steps(profile, chosen.seed, keys.names())
    todo = [step for step in every if not step.output.is_file()]
    if todo:
        limits = ["--cores", str(cores), "--resources", f"gpu={gpus}"]
        _run_snakemake(profile, Progress(todo, logs(profile), cores), [*limits, *options], handle)
    print("Building the pages.", flush=True)
    from em_companion.build import assemble  # slow to import

    site = assemble.build(profile, include_responses)
    print(f"The book is at {relative(site)}/index.html, after {_minutes(time.monotonic() - started)}.")
    print("\n".join([*_scoreboard(), *_gaps(every, missing)]))


def _grow_chat_model(profile: profiles.Profile) -> None:
    """Make the base and the chat model, on which the keys of all else depend, where they are missing."""
    if isinstance(profile.model, profiles.GrownModel):
        if all(store.is_there(place(profile)) for place in (organism.base_folder, organism.chat_folder)):
            return
    print("Making the base and the chat model.", flush=True)
    grown = subprocess.run([command("em-companion"), "grow", "base", "chat", "--profile", profile.name])
    if grown.returncode:
        raise CompanionError("The base and the chat model were not made, so nothing else can be.")


# --- progress -----------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far the steps of a build are, and how long the rest may take: from their logs, and from earlier builds."""

    todo: list[Step]
    logs: Path
    workers: int
    started: float = field(default_factory=time.monotonic)
    begun: dict[Step, float] = field(default_factory=dict)
    took: dict[Step, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        for step in self.todo:
            self._log(step).unlink(missing_ok=True)
        self.record = self.logs / "seconds.json"
        self.known = json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else {}

    def _log(self, step: Step) -> Path:
        return self.logs / f"{step.name}.log"

    def newly_done(self) -> list[Step]:
        """Return the steps that ended well since the last call."""
        begun = [step for step in self.todo if step not in self.took and self._log(step).is_file()]
        self.begun = dict.fromkeys(begun, time.monotonic()) | self.begun
        found = [step for step in begun if self._said(step).endswith(f"{DONE}\n")]
        for step in found:
            self.took[step] = self.known[step.name] = round(time.monotonic() - self.begun[step], 1)
        if found:
            write_json(self.record, self.known)
        return found

    def failures(self) -> list[str]:
        """Return what each step said that began and did not end well."""
        failed = [step for step in self.begun if step not in self.took]
        return [f"{step.name}: {self._said(step).strip() or 'killed'}" for step in failed]

    def _said(self, step: Step) -> str:
        return self._log(step).read_text(encoding="utf-8", errors="replace")

    def line(self) -> str:
        """Return how far all is, such as "[31/45] organisms 14/22, notebooks 17/23, 7 min gone, about 4 left"."""
        total, done = (Counter(step.kind for step in some) for some in (self.todo, self.took))
        kinds = ", ".join(f"{kind} {done[kind]}/{count}" for kind, count in total.items())
        left = self.seconds_left()
        about = "" if math.isnan(left) else f", about {math.ceil(left / 60)} left"
        gone = _minutes(time.monotonic() - self.started)
        return f"[{len(self.took)}/{len(self.todo)}] {kinds}, {gone} gone{about}"

    def seconds_left(self) -> float:
        """Return how long the rest takes if each step does as it did before, or as others of its kind; NaN if new."""
        now, rest = time.monotonic(), [step for step in self.todo if step not in self.took]
        costs = [self._cost(step) for step in rest]
        each = [max(cost - now + self.begun.get(step, now), 0) for step, cost in zip(rest, costs, strict=True)]
        return max(sum(each) / self.workers, *each, 0)

    def _cost(self, step: Step) -> float:
        alike = [self.known[one.name] for one in self.todo if one.kind == step.kind and one.name in self.known]
        return self.known.get(step.name) or mean(alike or self.took.values() or [math.nan])


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _run_snakemake(profile: str, progress: Progress, options: list[str], lock: int) -> None:
    """Run snakemake to its end, telling each step that is done; raise CompanionError with what failed steps said."""
    print(progress.line(), flush=True)
    called = [command("snakemake"), "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime"]
    called += [*options, "--config", f"profile={profile}"]
    own_log = progress.logs / ".snakemake.log"
    with own_log.open("w", encoding="utf-8") as output:
        # The file of the lock goes along: while jobs are at work, no other build begins, whoever is killed.
        quiet = os.environ | {"TQDM_DISABLE": "1"}
        process = subprocess.Popen(called, cwd=ROOT, stdout=output, stderr=output, env=quiet, pass_fds=[lock])
        try:
            _follow(process, progress)
        finally:
            process.wait()
    if process.returncode:
        raise CompanionError(
            "\n".join(progress.failures()) or own_log.read_text(encoding="utf-8", errors="replace").strip()
        )


def _follow(process: subprocess.Popen, progress: Progress) -> None:
    ended = False
    while not ended:
        ended = process.poll() is not None
        for step in progress.newly_done():
            print(f"{progress.line()}: {step.name}", flush=True)
        time.sleep(0 if ended else POLL_SECONDS)


# --- what came of it ----------------------------------------------------------------------------------------------


def _scoreboard() -> list[str]:
    """Return a line on each evidence that was measured."""
    scores = json.loads((HTML / "claims.json").read_text(encoding="utf-8"))["scoreboard"]
    measured = {evidence: found for evidence, found in scores.items() if found["reproduced"] or found["differs"]}
    counts = {evidence: [f"{n} {name}" for name, n in found.items() if n] for evidence, found in measured.items()}
    return [f"{evidence}: {', '.join(found)}" for evidence, found in counts.items()]


def _gaps(every: list[Step], missing: list[str]) -> list[str]:
    """Return a line on each kind of evidence that was not at hand, and why."""
    why = defaultdict(list)
    for step in (one for one in every if one.kind == "notebooks"):
        records = json.loads(step.output.with_name("records.json").read_text(encoding="utf-8"))
        for reason in dict.fromkeys(gap["why"] for gap in records["unavailable"]):
            why[reason].append(step.name)
    said = [f"Not available: {reason} ({', '.join(names)})" for reason, names in why.items()]
    return said + ([f"Not available: {len(missing)} files of the authors, such as '{missing[0]}'."] if missing else [])
