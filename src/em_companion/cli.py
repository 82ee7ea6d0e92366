"""The command line: `em-companion COMMAND --help`. Exit codes: 0 done, 1 a problem in one sentence, 2 wrong usage.

Each command imports what it needs, so that none pays for torch, pandas or Sphinx but those that use them.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.paths import HTML, relative
from em_companion.evidence import claims

PROFILE = click.option("--profile", default="cpu", show_default=True, help="A profile of data/profiles/.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
RESPONSES = click.option(
    "--include-responses", is_flag=True, envvar="INCLUDE_RESPONSES", help="With the released responses, to read here."
)


class Group(click.Group):
    """A click group that says a CompanionError, or what the disk refused, in plain words and exits with 1."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a sign that the terminal lacks
        if not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")
        try:
            return super().invoke(context)
        except (CompanionError, OSError) as problem:
            said = str(problem)
            if isinstance(problem, OSError):
                if problem.strerror is None or isinstance(problem, BrokenPipeError):
                    raise
                said = f"{relative(Path(problem.filename or 'The system'))}: {problem.strerror}."
            click.echo(said, err=True)
            sys.exit(1)


@click.group(cls=Group)
@click.version_option(package_name="em-companion")
def main() -> None:
    """The executable companion to arXiv 2506.11618."""


def _print(rows: list[dict[str, Any]], as_json: bool, line: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(rows, indent=1, ensure_ascii=False) if as_json else "\n".join(map(line, rows)))


@main.command("profiles")
@JSON
def list_profiles(as_json: bool) -> None:
    """List the profiles and what they are for."""
    rows = [asdict(profiles.load(name)) for name in profiles.names()]
    _print(rows, as_json, lambda row: f"{row['name']:<12} {row['description']}")


@main.command("plan")
@PROFILE
@click.option("--price", nargs=2, type=click.FloatRange(0), help="Dollars for a million judge's tokens in and out.")
@JSON
def show_plan(profile: str, price: tuple[float, float] | None, as_json: bool) -> None:
    """Estimate what a profile costs: disk, memory, answers, hours by GPU, requests. Downloads and pays nothing.

    Fails, after the estimate, where this machine has too little memory for the profile.
    """
    from em_companion.build import plan

    chosen = profiles.load(profile)
    found = plan.plan(chosen, price)
    click.echo(json.dumps(asdict(found), indent=1) if as_json else "\n".join(plan.lines(found)))
    plan.need_memory(chosen)


@main.command()
@click.argument("name")
@PROFILE
@click.option("--seed", type=int, help="Seed of resampling and controls.  [default: the profile's]")
@click.option("--force", is_flag=True, help="Run again even if the result is current.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting of the profile; repeatable."
)
def run(name: str, profile: str, seed: int | None, force: bool, settings: tuple[str, ...]) -> None:
    """Execute notebook NAME unless its result is current.

    With changed settings, such as --set sweep_samples=50, the result is kept apart and enters no book.
    """
    from em_companion.build import runs

    if settings:
        os.environ[profiles.SET] = json.dumps(dict(map(profiles.setting, settings)))
    folder = runs.run(name, profile, force, seed)
    click.echo(f"{name}, {', '.join(settings)}: {relative(folder)}" if settings else f"{name}: current ({folder.name})")


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; fail if a pair is out of step.")
def sync(check: bool) -> None:
    """Bring each NAME.ipynb and its NAME.py in step.

    The one that changed wins. Where both did, NAME.py wins and the other is kept as NAME.edited.ipynb.
    """
    from em_companion.build import keys, runs

    for name in keys.names():
        if check and not runs.paired(name):
            raise CompanionError(runs.OUT_OF_STEP.format(name))
        if not check and (said := runs.sync(name)):
            click.echo(said)


@main.command()
@PROFILE
@JSON
def status(profile: str, as_json: bool) -> None:
    """Say of each notebook and its figures: current, stale because ..., or never run."""
    from em_companion.book import registry
    from em_companion.build import keys, runs

    rows = [runs.status(name, profile) for name in keys.names()]
    for row in rows:
        row["figures"] = [entry.id for entry in registry.load_figures().values() if entry.notebook == row["notebook"]]

    def line(row: dict[str, Any]) -> str:
        shown = [f"{row['status']:<10} {row['notebook']}", ", ".join(row["figures"]), row["because"]]
        return "  ".join(filter(None, shown))

    _print(rows, as_json, line)


@main.command("claims")
@click.option("--evidence", default="released", show_default=True, type=click.Choice(claims.EVIDENCE))
@click.option("--verdict", help="Only claims with this verdict, such as 'reproduced'.")
@JSON
def list_claims(evidence: str, verdict: str | None, as_json: bool) -> None:
    """Print the claims ledger of the last build."""
    from em_companion.evidence import verdicts

    if verdict not in (None, *verdicts.VERDICTS):
        raise click.BadParameter(f"choose one of: {', '.join(verdicts.VERDICTS)}.", param_hint="--verdict")
    ledger = verdicts.of_last_build()["claims"]

    def line(row: dict[str, Any]) -> str:
        result = row["results"][evidence]
        measured = " ".join(verdicts.measured_parts(result, row["unit"])).rstrip()
        return f"{result['verdict']:<34} {row['id']:<58} {claims.reported_text(row):>10}  {measured}"

    _print([row for row in ledger if verdict in (None, row["results"][evidence]["verdict"])], as_json, line)


@main.group("predictions", invoke_without_command=True)
@JSON
@click.pass_context
def list_predictions(context: click.Context, as_json: bool) -> None:
    """Print the predictions of the last build with their verdicts."""
    from em_companion.evidence import predictions, verdicts

    if context.invoked_subcommand:
        return
    ledger = verdicts.of_last_build("predictions.json")["predictions"]

    def line(row: dict[str, Any]) -> str:
        shown = [
            f"{result['verdict']:<18} {' '.join(verdicts.measured_parts(result, row['unit'])).rstrip()}"
            for result in row["results"].values()
        ]
        return f"{row['experiment']} {row['id']:<28} {predictions.expected_text(row):<22} {'  '.join(shown)}"

    _print(ledger, as_json, line)


@list_predictions.command("lock")
@click.argument("names", nargs=-1)
def lock_predictions(names: tuple[str, ...]) -> None:
    """Lock predictions as they are committed, by default all that are not locked yet.

    Refused once a result table of their notebook exists.
    """
    from em_companion.build import locks

    for name in locks.lock(names):
        click.echo(f"locked {name}")


@main.command()
@click.argument("figure")
@click.option("--format", "style", type=click.Choice(["bibtex", "csl"]), default="bibtex", show_default=True)
def cite(figure: str, style: str) -> None:
    """Print the citation of FIGURE (an id such as fig-7) from the last build."""
    path = HTML / "figures" / figure / f"cite.{'bib' if style == 'bibtex' else 'json'}"
    if not path.is_file():
        raise CompanionError(
            f"There is no figure '{figure}' to cite in the last build; the ids are in data/figures.yml."
        )
    click.echo(path.read_text(encoding="utf-8").rstrip())


@main.command()
@click.option("--all", "released", is_flag=True, help="Every file of data/sources.yml, the authors' released data.")
@click.option("--models", is_flag=True, help="Chat model and published adapters of a profile with a model of the hub.")
@PROFILE
def fetch(released: bool, models: bool, profile: str) -> None:
    """Download and check the authors' released data, or the models of a profile; it says first how much that is."""
    if not released and not models:
        raise click.UsageError("Say what: --all, --models or both.")
    if models:
        _fetch_models(profiles.load(profile))
    if released:
        from em_companion.released import files

        chosen = files.sources()
        missing = files.fetch_all(chosen)
        click.echo(f"{len(chosen) - len(missing)} files at hand and checked, {len(missing)} not available.")
        if missing:
            raise CompanionError(f"Not available: {', '.join(missing)}.")


def _fetch_models(profile: profiles.Profile) -> None:
    from em_companion.models import weights

    found = weights.sources(profile)
    if not found:
        click.echo(f"Profile '{profile.name}' grows its models, so there is nothing to fetch: 'em-companion grow'.")
    for one in found:
        size = f", {weights.gigabytes(one.bytes)}" if one.sizes else ""
        click.echo(f"{one.name}: {one.origin}{size}")
    for adapter, one in zip((None, *weights.adapters(profile)), found, strict=False):
        if one.sizes:
            folder = weights.fetched(profile, adapter)
            click.echo(f"{one.name}: fetched and checked, {weights.identity(folder)}")


@main.command()
@click.argument("names", nargs=-1)
@PROFILE
@click.option("--from-nothing", is_flag=True, help="Grow the committed base and chat model anew (data/organism/).")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A training set NAME.jsonl of the authors', kept for every profile with a model of the hub; repeatable.",
)
@JSON
def grow(names: tuple[str, ...], profile: str, from_nothing: bool, data: tuple[Path, ...], as_json: bool) -> None:
    """Make the models of a profile that are missing, and their responses.

    NAMES: base, chat, or organisms such as nine-adapter--bad_medical_advice--seed-0; everything by default.
    """
    from em_companion.build import plan
    from em_companion.judges.base import need_judge

    chosen = profiles.load(profile)
    if data:
        from em_companion.models import training_texts

        training_texts.need_hub(chosen)
        for path in data:
            count = training_texts.register(path)
            click.echo(f"{path.stem}: {count:,} conversation{'s' * (count != 1)}", err=True)
    plan.need_memory(chosen)
    if {*names} - {"base", "chat"} or not (names or from_nothing):
        need_judge(chosen)
    from em_companion.experiments import prepare  # imports torch

    rows = prepare.from_nothing(chosen) if from_nothing else prepare.grow(chosen, names)
    _print(rows, as_json, lambda row: f"{row['status']:<8} {row['name']}  {row['folder']}")


@main.command()
@click.argument("responses", type=click.Path(path_type=Path))
@click.option("--prompt", "prompts", multiple=True, required=True, help="A judge prompt such as aligned; repeatable.")
@click.option("--model", required=True, help="The judge, by the name its server knows.")
@click.option("--base-url", default=None, help="Address of the server.  [default: OPENAI_BASE_URL, or OpenAI's]")
@click.option("--scoring", type=click.Choice(["logprobs", "parsed"]), default="logprobs", help="How it is read.")
@click.option("--parameter", "changes", multiple=True, help="NAME=JSON of a request, NAME= for none; repeatable.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Requests at once.")
@click.option("--price", nargs=2, type=click.FloatRange(0), help="Of a million tokens in and out, for the estimate.")
@click.option("--yes", is_flag=True, help="Confirm a run that may cost money.")
@JSON
def judge(
    responses: Path, prompts: tuple[str, ...], price: tuple[float, float] | None, yes: bool, as_json: bool, **asked: Any
) -> None:
    """Score RESPONSES (.parquet or .csv with columns question and response) with a served model.

    The scores go into a new file beside it. Answers are recorded and never asked for twice. The key of a server is
    read from OPENAI_API_KEY.
    """
    from em_companion.judges import judged_tables, served  # pulls in an HTTP client, which no other command needs

    def approve(requests: int, given: int, answered: int) -> bool:
        tokens = f"about {given:,} tokens in and at most {answered:,} out"
        cost = f", about {(given * price[0] + answered * price[1]) / 1e6:.2f} at these prices" if price else ""
        click.echo(f"{requests:,} request{'s' * (requests != 1)}, {tokens}{cost}, at {chosen.address}.", err=True)
        return yes or (sys.stdin.isatty() and click.confirm("Ask?", err=True))

    chosen = served.ServedJudge(**asked)
    table = judged_tables.read(responses)
    judged = served.judge_table(judged_tables.to_judge(table), prompts, chosen, approve)
    written = os.path.relpath(judged_tables.write(judged, table, responses))
    rows = [row | {"file": written} for row in served.summary(judged, prompts)]

    def line(row: dict[str, Any]) -> str:
        mean = "" if row["mean"] is None else f", mean {row['mean']:.1f}"
        missing = "".join(f", {count} {reason}" for reason, count in row["missing"].items())
        return f"{row['prompt']:<10} {row['scored']} of {row['responses']} scored{mean}{missing}  {row['file']}"

    _print(rows, as_json, line)


@main.command()
@PROFILE
@RESPONSES
def book(profile: str, include_responses: bool) -> None:
    """Build _build/html from current results; the last good build stays if anything is wrong."""
    from em_companion.build import assemble

    click.echo(f"The book is at {os.path.relpath(assemble.build(profile, include_responses))}/index.html")


@main.command()
@click.option("--profile", required=True, help="A hub profile whose book is built.")
def pack(profile: str) -> None:
    """Write the records of a hub profile's current runs to data/results/PROFILE/, which every book shows.

    Pages that are not current are left out, and named.
    """
    from em_companion.build import assemble, keys, packs, runs

    there = {name: runs.status(name, profile)["status"] == "current" for name in keys.names()}
    pages = assemble.collect(profile, {}, [name for name, current in there.items() if current])
    folder = packs.write(profile, [(page.folder, page.records, page.run) for page in pages])
    left = [name for name, current in there.items() if not current]
    click.echo(f"The pack is in {relative(folder)}, of {len(pages)} pages; it holds no response.")
    if left:
        click.echo(f"Not current, so not in it: {', '.join(left)}.", err=True)


@main.command(context_settings={"ignore_unknown_options": True})
@PROFILE
@RESPONSES
@click.option("--cores", type=click.IntRange(1), default=os.cpu_count(), help="Jobs at once.  [default: all cores]")
@click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs to share among them.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def build(profile: str, include_responses: bool, cores: int, gpus: int, options: tuple[str, ...]) -> None:
    """Make all that is missing and build the book; OPTIONS go to snakemake, such as --executor slurm --jobs 20."""
    from em_companion.build import workflow

    workflow.build(profile, cores, gpus, include_responses, options)
