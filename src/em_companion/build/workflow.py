"""Build the book: snakemake makes what is missing, one build at a time, and each finished step is told in one line.

It runs once per stage that is not done: the chat model's weights are part of the organisms' keys, and the weights of
both of the notebooks'.

Snakemake's own lock stays behind when its process is killed and then refuses every later build; a lock of the operating
system goes with its process. Results need no such care: each is written whole or not at all.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from em_companion.build import keys, plan, runs
from em_companion.core import paths, profiles
from em_companion.core.errors import CompanionError
from em_companion.core.paths import ROOT, relative
from em_companion.judges.base import need_judge
from em_companion.models import organism, weights
from em_companion.released import files

POLL_SECONDS = 0.5

PLACES = ("-e", "--executor", "--profile", "--workflow-profile")
"""Options of snakemake that say where steps run and how many at once, if not on the cores of this machine."""


@dataclass(frozen=True)
class Step:
    """A job of the workflow: a base or chat model, an organism with its responses, or a notebook.

    It is done once `output` is there.
    """

    kind: str
    name: str
    output: Path


def models(profile: str) -> list[Step]:
    """Return the steps that grow the base and the chat model, none where models come from the hub or none is used."""
    chosen = keys.load_profile(profile)
    if not isinstance(chosen.model, profiles.GrownModel) or not any(map(keys.uses_models, keys.names())):
        return []
    places = {"base": organism.base_folder(chosen), "chat": organism.chat_folder(chosen)}
    return [Step("models", name, folder / "provenance.json") for name, folder in places.items()]


def organisms(profile: str) -> list[Step]:
    """Return the steps that train organisms; raise CompanionError if the chat model that they need is not there."""
    chosen = keys.load_profile(profile)
    needed = organism.organisms_of(chosen) if any(map(keys.uses_models, keys.names())) else []
    trained = [one for one in needed if one.data and not chosen.published(one.recipe, one.data)]
    return [Step("organisms", one.name, organism.adapter_folder(chosen, one) / "provenance.json") for one in trained]


def notebooks(profile: str) -> list[Step]:
    """Return the steps that run the notebooks, whose keys are made of all that the other steps make."""
    return [Step("notebooks", one, runs.folder(one, profile) / "run.json") for one in keys.names()]


STAGES = (models, organisms, notebooks)


def steps(profile: str) -> list[Step]:
    """Return the steps of the first stage that is not done, else those of the last."""
    return next((found for stage in STAGES if missing(found := stage(profile))), notebooks(profile))


def missing(some: Iterable[Step]) -> list[Step]:
    """Return the steps that are not done."""
    return [step for step in some if not step.output.is_file()]


def logs(profile: str) -> Path:
    """Return the folder of the logs NAME.log of a profile's steps."""
    return paths.ARTIFACTS / "logs" / profile


def command(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def hold_lock() -> int:
    """Take the lock, waiting and saying so while another build holds it; return the file that holds it while open."""
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
    if uses_models := any(map(keys.uses_models, keys.names())):
        _need(keys.load_profile(profile), options)
    started, handle = time.monotonic(), hold_lock()
    lacking = files.fetch_all(files.sources())
    if uses_models:
        _get_models(keys.load_profile(profile))
    here = ["--cores", str(cores), "--resources", f"gpu={gpus}"]
    limits = [] if any(option.split("=")[0] in PLACES for option in options) else here
    for stage in STAGES:
        if todo := missing(stage(profile)):
            _run_snakemake(todo, logs(profile), [*limits, *options, "--config", f"profile={profile}"], handle)
    every = notebooks(profile)  # what changed meanwhile is stale
    print("Building the pages.", flush=True)
    from em_companion.build import assemble  # slow to import

    folders = {step.name: step.output.parent for step in every}
    site = assemble.build(profile, include_responses, folders)
    print(f"The book is at {relative(site)}/index.html, after {_minutes(time.monotonic() - started)}.")
    print("\n".join(_outcome(folders.values(), lacking)))


def _need(profile: profiles.Profile, options: Sequence[str]) -> None:
    """Raise CompanionError where jobs on this machine lack memory, or nothing is here yet and the judge neither."""
    if not any(option.split("=")[0] in PLACES for option in options):
        plan.need_memory(profile)
    if organism.fingerprint(profile) == organism.NOT_THERE:  # else answers that are kept may do without it
        need_judge(profile)


def _get_models(profile: profiles.Profile) -> None:
    """Get chat model and adapters of a hub profile, on which all else depends: here, where there is a network."""
    if isinstance(profile.model, profiles.GrownModel):
        return
    if all(weights.at_hand(profile, adapter) for adapter in (None, *weights.adapters(profile))):
        return
    print(f"Getting {profile.model.chat}.", flush=True)
    if subprocess.run([command("em-companion"), "fetch", "--models", "--profile", profile.name]).returncode:
        raise CompanionError(f"'{profile.model.chat}' is not here, so nothing can be made with it.")


def progress(done: Collection[Step], todo: Collection[Step], seconds: float) -> str:
    """Return how far all is, such as "[31/45] organisms 14/20, notebooks 17/25, 7 min gone, about 3 min left"."""
    total, ended = (Counter(step.kind for step in some) for some in (todo, done))
    kinds = ", ".join(f"{kind} {ended[kind]}/{count}" for kind, count in total.items())
    pace = seconds / max(len(done), 1)
    left = f", about {_minutes(pace * (len(todo) - len(done)))} left" if 0 < len(done) < len(todo) else ""
    return f"[{len(done)}/{len(todo)}] {kinds}, {_minutes(seconds)} gone{left}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _run_snakemake(todo: list[Step], folder: Path, options: list[str], lock: int) -> None:
    """Run snakemake to its end, telling each step that is done; raise CompanionError with what failed steps said."""
    folder.mkdir(parents=True, exist_ok=True)
    said, own_log = {step: folder / f"{step.name}.log" for step in todo}, folder / ".snakemake.log"
    for log in said.values():
        log.unlink(missing_ok=True)
    whole = ["--nolock", "--ignore-incomplete", "--keep-incomplete"]  # an output that is there was written whole
    called = [command("snakemake"), *whole, "--rerun-triggers", "mtime", *options]
    with own_log.open("w", encoding="utf-8") as output:
        # The file of the lock goes along: while jobs are at work, no other build begins, whoever is killed.
        quiet = os.environ | {"TQDM_DISABLE": "1"}
        process = subprocess.Popen(called, cwd=ROOT, stdout=output, stderr=output, env=quiet, pass_fds=[lock])
        try:
            _follow(process, todo)
        finally:
            process.wait()
    if process.returncode:
        failed = [step for step in todo if said[step].is_file() and not step.output.is_file()]
        told = [f"{step.name}: {_read(said[step]) or 'killed'}" for step in failed]
        raise CompanionError("\n".join(told) or refusal(_read(own_log)))


def refusal(said: str) -> str:
    """Return why no step was begun: what snakemake, or Slurm, has against its orders, or all that snakemake said."""
    found = re.findall(r"(?:sbatch|snakemake): error: (.+?)'?\.?$", said, re.MULTILINE)
    return f"No step was begun: {found[-1]}; 'On a cluster' in book/how-to-rerun.md helps." if found else said


def _follow(process: subprocess.Popen, todo: list[Step]) -> None:
    started, waiting, ended = time.monotonic(), todo, False
    print(progress([], todo, 0), flush=True)
    while not ended:
        ended = process.poll() is not None
        for step in [one for one in waiting if one.output.is_file()]:
            waiting = [one for one in waiting if one != step]
            done = [one for one in todo if one not in waiting]
            print(f"{progress(done, todo, time.monotonic() - started)}: {step.name}", flush=True)
        time.sleep(0 if ended else POLL_SECONDS)


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()


def _outcome(folders: Iterable[Path], files_lacking: list[str]) -> list[str]:
    """Return a line on each kind of test by each evidence, and on each reason why some was not at hand."""
    from em_companion.evidence.verdicts import MEASURED, of_last_build  # slow to import

    scores = of_last_build()["scoreboard"]
    given = {f"{name}, {kind}": found for kind, by_evidence in scores.items() for name, found in by_evidence.items()}
    measured = {test: found for test, found in given.items() if any(map(found.get, MEASURED))}
    counts = {test: [f"{n} {name}" for name, n in found.items() if n] for test, found in measured.items()}
    records = [json.loads((folder / "records.json").read_text(encoding="utf-8")) for folder in folders]
    reasons = dict.fromkeys(gap["why"] for one in records for gap in one["unavailable"])
    lacking = [f"{len(files_lacking)} files of the authors, such as '{files_lacking[0]}'."] if files_lacking else []
    lines = [f"{test}: {', '.join(found)}" for test, found in counts.items()]
    return lines + [f"Not available: {reason}" for reason in [*reasons, *lacking]]
