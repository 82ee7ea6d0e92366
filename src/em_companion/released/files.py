"""The authors' released files: fetched by checksum through `pooch`, never stored in this repository.

`data/sources.yml` lists every file. A file comes from the folder named by the environment variable
`EM_COMPANION_MIRROR` (laid out `<owner>+<repo>/<path>`), else from the user's cache, else from its url. Its checksum
must agree each time; a file that differs is refused and not kept.
"""

import os
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Annotated, Any, NotRequired
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
TIMEOUT_SECONDS = 20


class ReleasedDataUnavailable(EvidenceUnavailable):
    """A released file is neither in a mirror, nor cached, nor to be downloaded: build on without it."""


class ReleasedDataBroken(CompanionError):
    """A released file is not what `data/sources.yml` says it is: stop."""


# --- which there are ----------------------------------------------------------------------------------------------


def _place(url: str) -> str:
    """Return where the file at `url` lies in a mirror; raise ValueError where it is no file of a repository."""
    _, owner, repository, _, path, *_ = [*unquote(urlsplit(url).path).split("/", 4), "", "", "", ""]
    if not path or ".." in path.split("/"):
        raise ValueError("must be the address of a file in a repository")
    return f"{owner}+{repository}/{path}"


def _checkable(entry: dict[str, Any]) -> dict[str, Any]:
    if ("sha256" in entry) == ("git_blob" in entry):
        raise ValueError("needs either 'sha256' or 'git_blob'")
    return entry | {"place": _place(entry["url"])}


ENTRY = mapping(
    id=Text,
    group=Text,
    labels=dict[str, Any],
    url=Annotated[str, AfterValidator(lambda url: _place(url) and url)],
    bytes=NotRequired[Natural],
    sha256=NotRequired[text("[0-9a-f]{64}", "a sha256 in hex")],
    git_blob=NotRequired[text("[0-9a-f]{40}", "a sha1 in hex")],
)


@cache
def sources() -> dict[str, dict[str, Any]]:
    """Return every entry of `data/sources.yml` by id, with its `place` in a mirror; raise CompanionError naming one."""
    return read_registry(SOURCES, "files", Annotated[ENTRY, AfterValidator(_checkable)])


# --- where they are -----------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder downloads are kept in (`EM_COMPANION_CACHE`, or the user's cache)."""
    return Path(os.environ.get("EM_COMPANION_CACHE") or pooch.os_cache("em-companion"))


def mirror_folder() -> Path | None:
    """Return the mirror named by `EM_COMPANION_MIRROR`, or None; raise CompanionError if it is not a folder."""
    name = os.environ.get("EM_COMPANION_MIRROR", "").strip()
    if name and not Path(name).is_dir():
        raise CompanionError(
            "EM_COMPANION_MIRROR does not name a folder; unset it or point it at a copy of the released data."
        )
    return Path(name) if name else None


def local_path(source: str) -> Path | None:
    """Return where file `source` lies now (mirror, then cache), or None if it would have to be downloaded."""
    found = [folder / sources()[source]["place"] for folder in (mirror_folder(), cache_folder()) if folder]
    return next((path for path in found if path.is_file()), None)


def availability(groups: Iterable[str] | None = None) -> str:
    """Return a fingerprint of which files of `groups` (default: all) are at hand, for staleness keys."""
    wanted = set(groups) if groups is not None else None
    rows = [
        f"{source} {_checksum(entry)} {local_path(source) is not None}"
        for source, entry in sources().items()
        if wanted is None or entry["group"] in wanted
    ]
    return sha256_of("\n".join(rows))


def _checksum(entry: dict[str, Any]) -> str:
    return entry.get("sha256") or entry["git_blob"]


# --- fetching -----------------------------------------------------------------------------------------------------


class Session:
    """Downloads for pooch; after one failed connection none is tried, so an offline build waits for one file only."""

    def __init__(self) -> None:
        self.network_refused = False

    def __call__(self, url: str, output: str, registry: pooch.Pooch) -> None:
        if self.network_refused:
            raise ConnectionError("the network was refused before")
        try:
            pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)(url, output, registry)
        except OSError as error:
            # requests' errors are OSErrors; an HTTP status is an answer, so the network itself is there.
            self.network_refused = getattr(error, "response", None) is None
            raise


@cache
def session() -> Session:
    """Return what this process knows of the network."""
    return Session()


def fetch(source: str) -> Path:
    """Return a checked local file for `source`, downloading it if need be.

    Raises ReleasedDataUnavailable without a copy and without network, ReleasedDataBroken on a wrong checksum; a
    refused download is not kept.
    """
    entry, mirror = sources()[source], mirror_folder()
    place, blob = entry["place"], entry.get("git_blob")
    mirrored = mirror and (mirror / place).is_file()
    registry = pooch.create(
        path=mirror if mirrored else cache_folder(),
        base_url="",
        registry={place: entry.get("sha256")},
        urls={place: entry["url"]},
        allow_updates=False,
    )
    pooch.get_logger().setLevel("ERROR")
    try:
        path = registry.fetch(place, processor=_of_git(blob) if blob else None, downloader=session())
    except OSError as error:
        raise unavailable(source) from error
    except ValueError as error:
        message = f"Released file '{source}' has the wrong checksum; delete it and fetch it again."
        raise ReleasedDataBroken(message) from error
    note_input(source, _checksum(entry))
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


def fetch_all(chosen: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Fetch many files with a progress bar over bytes; return the ids by outcome: "fetched", "unavailable"."""
    chosen = list(chosen or sources())
    sizes = {source: sources()[source].get("bytes", 0) for source in chosen}
    outcome: dict[str, list[str]] = {"fetched": [], "unavailable": []}
    with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc="released data") as bar:
        for source in chosen:
            outcome["fetched" if can_fetch(source) else "unavailable"].append(source)
            bar.update(sizes[source])
    return outcome
