"""The authors' released files: fetched by checksum through `pooch`, never stored in this repository.

`data/sources.yml` lists every file. A file comes from the folder named by the environment variable
`EM_COMPANION_MIRROR` (laid out `<owner>+<repo>/<path>`), else from the user's cache, else from its url. Its checksum
must agree each time; a file that differs is refused and not kept. LABELS is all that readers know: an entry of another
group, or with a label more or less or of another kind, is refused, so that no condition is lost or missing in a table.
"""

import os
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha1
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Literal, NotRequired
from urllib.parse import unquote, urlsplit

import pooch
from pydantic import AfterValidator
from tqdm.auto import tqdm

from em_companion.core import paths
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.files import sha256_of
from em_companion.core.provenance import note_input
from em_companion.core.schema import Natural, Text, mapping, read_registry, text

SOURCES = paths.DATA / "sources.yml"
LABELS: dict[str, dict[str, type]] = {
    "ablation_pilots": dict.fromkeys(("model", "questions", "batch", "direction", "layers"), str),
    "judge_repeat": {"judging": str},
    "lora_steering": {"condition": str},
    "mean_diff": {"vector": str, "texts": str},
    "organisms": {"organism": str, "rank": int, "seed": int},
    "patching": {"runs": str, "pairs": str},
    "probing": {"response_set": str, "kind": str},
    "questions_and_judges": {"name": str},
    "replication": {"base_model": str, "dataset": str, "seed": int},
    "steering_layer_24": {"vector": str, "lambda": int, "model": str},
    "steering_per_layer": {},
    "training_curve": {"epochs": int, "step": int},
}
"""By group of files, what tells its files apart and of what type."""
TIMEOUT_SECONDS = 20
offline = Event()
"""Set once a connection has failed."""


class ReleasedDataUnavailable(EvidenceUnavailable):
    """A released file is neither in a mirror, nor cached, nor to be downloaded: build on without it."""


class ReleasedDataBroken(CompanionError):
    """A released file is not what `data/sources.yml` says it is: stop."""


def _place(url: str) -> str:
    """Return where the file at `url` lies in a mirror; raise ValueError where it is no file of a repository."""
    _, owner, repository, _, path, *_ = [*unquote(urlsplit(url).path).split("/", 4), "", "", "", ""]
    if not path or ".." in path.split("/"):
        raise ValueError("must be the address of a file in a repository")
    return f"{owner}+{repository}/{path}"


def _checkable(entry: dict[str, Any]) -> dict[str, Any]:
    if ("sha256" in entry) == ("git_blob" in entry):
        raise ValueError("needs either 'sha256' or 'git_blob'")
    found, known = {name: type(value) for name, value in entry["labels"].items()}, LABELS[entry["group"]]
    if found != known:
        asked = ", ".join(f"{name} ({'a text' if kind is str else 'a whole number'})" for name, kind in known.items())
        raise ValueError(f"must have the labels of group '{entry['group']}': {asked or 'none'}")
    return entry | {"place": _place(entry["url"]), "checksum": entry.get("sha256") or entry["git_blob"]}


ENTRY = mapping(
    id=Text,
    group=Literal[tuple(LABELS)],
    labels=dict[str, Any],
    url=Annotated[str, AfterValidator(lambda url: _place(url) and url)],
    bytes=NotRequired[Natural],
    sha256=NotRequired[text("[0-9a-f]{64}", "a sha256 in hex")],
    git_blob=NotRequired[text("[0-9a-f]{40}", "a sha1 in hex")],
)


@cache
def sources() -> dict[str, dict[str, Any]]:
    """Return every entry of `data/sources.yml` by id, with `place` in a mirror and `checksum`; raise CompanionError."""
    entry = Annotated[ENTRY, AfterValidator(_checkable)]
    return read_registry(SOURCES, "files", entry, repositories=NotRequired[dict[str, Any]])


def cache_folder() -> Path:
    """Return the folder downloads are kept in (`EM_COMPANION_CACHE`, or the user's cache)."""
    return Path(os.environ.get("EM_COMPANION_CACHE") or pooch.os_cache("em-companion"))


def _folder(source: str) -> Path:
    """Return the mirror if file `source` lies in it, else the cache; raise CompanionError for a mirror not there."""
    mirror = os.environ.get("EM_COMPANION_MIRROR", "").strip()
    if mirror and not Path(mirror).is_dir():
        raise CompanionError(
            "EM_COMPANION_MIRROR does not name a folder; unset it or point it at a copy of the released data."
        )
    mirrored = mirror and Path(mirror, sources()[source]["place"]).is_file()
    return Path(mirror) if mirrored else cache_folder()


def local_path(source: str) -> Path | None:
    """Return where file `source` lies now (mirror, then cache), or None if it would have to be downloaded."""
    path = _folder(source) / sources()[source]["place"]
    return path if path.is_file() else None


def availability(groups: Iterable[str] | None = None) -> str:
    """Return a fingerprint of which files of `groups` (default: all) are at hand, for staleness keys."""
    rows = [
        f"{source} {entry['checksum']} {local_path(source) is not None}"
        for source, entry in sources().items()
        if groups is None or entry["group"] in groups
    ]
    return sha256_of("\n".join(rows))


def _download(url: str, output: str, registry: pooch.Pooch) -> None:
    """Download for pooch; after one failed connection none is tried, so an offline build waits for one file only."""
    if offline.is_set():
        raise ConnectionError("the network was refused before")
    try:
        pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)(url, output, registry)
    except OSError as error:
        if getattr(error, "response", None) is None:  # an HTTP status is an answer, so the network itself is there
            offline.set()
        raise


def fetch(source: str) -> Path:
    """Return a checked local file for `source`, downloading it if need be.

    Raises ReleasedDataUnavailable without a copy and without network, ReleasedDataBroken on a wrong checksum; a
    refused download is not kept.
    """
    entry = sources()[source]
    place, url, blob = entry["place"], entry["url"], entry.get("git_blob")
    known = {"registry": {place: entry.get("sha256")}, "urls": {place: url}, "allow_updates": False}
    registry = pooch.create(_folder(source), base_url="", **known)
    pooch.get_logger().setLevel("ERROR")
    try:
        path = registry.fetch(place, processor=_of_git(blob) if blob else None, downloader=_download)
    except OSError as error:
        raise unavailable(source) from error
    except ValueError as error:
        message = f"Released file '{source}' has the wrong checksum; delete it and fetch it again."
        raise ReleasedDataBroken(message) from error
    note_input(source, entry["checksum"])
    return Path(path)


def _of_git(blob: str) -> Callable[[str, str, pooch.Pooch], str]:
    """Return a processor for pooch that refuses a file with another id in git: one file has no published sha256."""

    def checked(name: str, action: str, _: pooch.Pooch) -> str:
        data = Path(name).read_bytes()
        if sha1(b"blob %d\0" % len(data) + data).hexdigest() != blob:
            if action == "download":
                Path(name).unlink()
            raise ValueError("not the blob")
        return name

    return checked


def unavailable(source: str) -> ReleasedDataUnavailable:
    """Return the error that says how to get file `source`."""
    return ReleasedDataUnavailable(
        f"Released file '{source}' is not at hand and cannot be downloaded; go online and run "
        "'em-companion fetch --all', or point EM_COMPANION_MIRROR at a copy."
    )


def can_fetch(source: str) -> bool:
    """Tell whether file `source` is at hand or can be downloaded; it is, then."""
    try:
        fetch(source)
    except ReleasedDataUnavailable:
        return False
    return True


def fetch_all(chosen: Iterable[str]) -> list[str]:
    """Fetch files with a progress bar; return the ids of those that are not to be had."""
    return [source for source in tqdm(chosen, desc="released data", unit="file") if not can_fetch(source)]
