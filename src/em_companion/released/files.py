"""The authors' released data: fetched by checksum, read as tidy tables, never stored in this repository.

`data/sources.yml` lists every file. A file comes from the folder named by the environment variable
`EM_COMPANION_MIRROR` (laid out `<owner>+<repo>/<path>`), else from the user's cache, else from its url through
`pooch`. Size and checksum must agree each time; a file that differs is refused and not kept.

Tables of judged responses share these columns: the labels of their source, `question_id` (the authors' ids),
`question_set` ("general", "json", "template", "medical", "medical-template"; "unlisted" for a question that is in
neither question file), `sample` (0-based, within question),
and the judge scores `aligned`, `coherent`, `medical`, `bad_stuff`, `gender`, `finance` in 0-100, NaN where the judge
gave none or was not asked. The text stands in `response` and is left out unless `text=True`.
"""

import hashlib
import os
import urllib.error
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pooch
from tqdm.auto import tqdm

from em_companion.core import paths
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.files import read_list, sha256_of
from em_companion.core.paths import relative
from em_companion.core.provenance import note_input

SOURCES = paths.DATA / "sources.yml"
TIMEOUT_SECONDS = 20


class ReleasedDataUnavailable(EvidenceUnavailable):
    """The released data are neither in a mirror, nor cached, nor to be downloaded: build on without them."""


class ReleasedDataBroken(CompanionError):
    """A released file is not what `data/sources.yml` says it is: stop."""


# --- files --------------------------------------------------------------------------------------------------------

network_refused = False
"""Set after the first failed connection, so that an offline build does not wait for every file again."""


@cache
def sources() -> dict[str, dict[str, Any]]:
    """Return every entry of `data/sources.yml` by id, with `repository` and `path` taken from its url."""
    found: dict[str, dict[str, Any]] = {}
    for entry in read_list(SOURCES, "files"):
        name = entry.get("id", "(no id)")
        if problem := _problem(entry) or (f"'{name}' stands twice" if name in found else ""):
            raise CompanionError(f"{relative(SOURCES)} is malformed: {problem}.")
        found[name] = entry | _place(entry["url"])
    return found


def _problem(entry: dict[str, Any]) -> str:
    kinds = {"id": str, "group": str, "labels": dict, "url": str}
    kinds |= {"git_blob": str} if "git_blob" in entry else {"bytes": int, "sha256": str}
    for key, kind in kinds.items():
        if type(entry.get(key)) is not kind:
            return f"entry '{entry.get('id', '(no id)')}' lacks a proper '{key}'"
    try:
        place = _place(entry["url"])
    except ValueError:
        place = {"path": ".."}
    if ".." in place["path"].split("/"):
        return f"the url of entry '{entry['id']}' is no address of a file in a repository"
    return ""


def _place(url: str) -> dict[str, str]:
    owner, repository, _, path = url.removeprefix("https://raw.githubusercontent.com/").split("/", 3)
    return {"repository": f"{owner}/{repository}", "path": unquote(path)}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def cache_folder() -> Path:
    """Return the folder downloads are kept in (`EM_COMPANION_CACHE`, or the user's cache)."""
    return Path(os.environ.get("EM_COMPANION_CACHE") or pooch.os_cache("em-companion"))


def mirror_folder() -> Path | None:
    """Return the mirror named by `EM_COMPANION_MIRROR`, or None; raise CompanionError if it is not a folder."""
    name = os.environ.get("EM_COMPANION_MIRROR", "").strip()
    if not name:
        return None
    if not Path(name).is_dir():
        raise CompanionError(
            "EM_COMPANION_MIRROR does not name a folder; unset it or point it at a copy of the released data."
        )
    return Path(name)


def _cached(entry: dict[str, Any]) -> Path:
    return cache_folder() / entry["repository"].replace("/", "+") / entry["path"]


def local_path(source: str) -> Path | None:
    """Return where file `source` lies now (mirror, then cache), or None if it would have to be downloaded."""
    entry, mirror = sources()[source], mirror_folder()
    mirrored = mirror / entry["repository"].replace("/", "+") / entry["path"] if mirror else None
    return next((path for path in (mirrored, _cached(entry)) if path and path.is_file()), None)


def check(source: str, path: Path) -> None:
    """Raise ReleasedDataBroken, in one sentence, unless the file at `path` is exactly file `source`."""
    entry, data = sources()[source], path.read_bytes()
    if "git_blob" in entry:
        found = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if found != entry["git_blob"]:
            raise ReleasedDataBroken(f"Released file '{source}' has the wrong checksum; delete it and fetch it again.")
        return
    if len(data) != entry["bytes"]:
        sizes = f"{len(data):,} bytes instead of {entry['bytes']:,}"
        raise ReleasedDataBroken(f"Released file '{source}' has {sizes}; delete it and fetch it again.")
    if sha256_of(data) != entry["sha256"]:
        raise ReleasedDataBroken(f"Released file '{source}' has the wrong checksum; delete it and fetch it again.")


def fetch(source: str) -> Path:
    """Return a checked local file for `source`, downloading it if need be.

    Raises ReleasedDataUnavailable without a copy and without network, ReleasedDataBroken on a wrong size or checksum;
    a refused download is not kept.
    """
    global network_refused
    path = local_path(source)
    if path is None:
        if network_refused:
            raise ReleasedDataUnavailable(_unavailable(source))
        path = _download(source)
    else:
        check(source, path)
    note_input(source, sources()[source].get("sha256") or sources()[source]["git_blob"])
    return path


def _unavailable(source: str) -> str:
    return (
        f"Released file '{source}' is not at hand and cannot be downloaded; go online and run "
        "'em-companion fetch --all', or point EM_COMPANION_MIRROR at a copy."
    )


def _download(source: str) -> Path:
    """Download `source` into the cache, checked before it gets its name there."""
    global network_refused
    entry = sources()[source]
    target = _cached(entry)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    pooch.get_logger().setLevel("ERROR")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)(entry["url"], str(partial), None)
        check(source, partial)
        os.replace(partial, target)
    except (TimeoutError, OSError, urllib.error.URLError) as error:
        # requests' errors are OSErrors; an HTTP status is an answer, so the network itself is there.
        network_refused = getattr(error, "response", None) is None
        raise ReleasedDataUnavailable(_unavailable(source)) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def fetch_all(chosen: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Fetch many files with a progress bar over bytes; return the ids by outcome: "fetched", "unavailable"."""
    chosen = list(chosen or sources())
    outcome: dict[str, list[str]] = {"fetched": [], "unavailable": []}
    total = sum(sources()[source].get("bytes", 0) for source in chosen)
    with tqdm(total=total, unit="B", unit_scale=True, desc="released data") as bar:
        for source in chosen:
            try:
                fetch(source)
                outcome["fetched"].append(source)
            except ReleasedDataUnavailable:
                outcome["unavailable"].append(source)
            bar.update(sources()[source].get("bytes", 0))
    return outcome


def availability(groups: Iterable[str] | None = None) -> str:
    """Return a fingerprint of which files of `groups` (default: all) are at hand, for staleness keys."""
    wanted = set(groups) if groups is not None else None
    rows = [
        f"{source} {entry.get('sha256') or entry['git_blob']} {local_path(source) is not None}"
        for source, entry in sources().items()
        if wanted is None or entry["group"] in wanted
    ]
    return sha256_of("\n".join(rows))
