"""Where weights come from: a reader's folder, a package, a hub on loopback; only what is whole and right is kept.

The stand-ins are small random models in the very format of the published ones.
"""

import hashlib
import http.server
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import standins
from click.testing import CliRunner

from em_companion import cli
from em_companion.core import profiles, store
from em_companion.core.errors import CompanionError
from em_companion.core.profiles import OrganismSpec, Package
from em_companion.models import loading, weights

MODEL, ADAPTER = "Qwen/Qwen2.5-0.5B-Instruct", "ModelOrganismsForEM/Qwen2.5-0.5B-Instruct_bad-medical-advice"
COMMITS = {MODEL: "a" * 40, ADAPTER: "b" * 40}


class Hub(http.server.ThreadingHTTPServer):
    """The part of the model hub's protocol that a download needs, for the folders in `root`; misbehaves as told."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.refuse, self.asked = root, {}, []
        self.spoilt: str | None = None
        self.cut: str | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append(path)
        name = next((one for one in COMMITS if f"/{one}/" in f"{path}/"), None)
        if name in hub.refuse or name is None:
            status, code = hub.refuse.get(name, (404, "RepoNotFound"))
            return self.answer(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status)
        revision = path.split("/revision/")[-1] if "/revision/" in path else COMMITS[name]
        if path.startswith("/api/models/"):
            if revision not in ("main", COMMITS[name]):
                return self.answer(b"{}", {"X-Error-Code": "RevisionNotFound"}, 404)
            files = [self.described(one) for one in sorted((hub.root / name).iterdir())]
            if "/tree/" in path:
                return self.answer(json.dumps(files).encode())
            return self.answer(json.dumps({"id": name, "sha": COMMITS[name], "siblings": files}).encode())
        file = hub.root / name / path.rsplit("/", 1)[-1]
        data = file.read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMITS[name], "X-Linked-Size": str(len(data))}
        if file.name == hub.spoilt:
            data = bytes([data[0] ^ 1]) + data[1:]
        self.answer(data, headers, cut=file.name == hub.cut)

    def described(self, file: Path) -> dict:
        known = {
            "rfilename": file.name,
            "path": file.name,
            "size": file.stat().st_size,
            "type": "file",
            "oid": "0" * 40,
        }
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        lfs = {"lfs": {"size": known["size"], "sha256": sha256, "oid": sha256, "pointerSize": 1}}
        return known | (lfs if file.suffix == ".safetensors" else {})

    def answer(self, data: bytes, headers: dict | None = None, status: int = 200, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch) -> None:
    """Identities are remembered elsewhere."""
    monkeypatch.setattr(weights.paths, "ARTIFACTS", tmp_path / "artifacts")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Stand-ins of profile qwen-0.5b."""
    return standins.make(tmp_path_factory.mktemp("models"), "qwen-0.5b")


@pytest.fixture
def profile():
    whole = profiles.load("qwen-0.5b")
    return replace(whole, device="cpu", organisms=whole.organisms[:1])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub and of ours, and no folder of models."""
    for name in ("EM_COMPANION_MODELS", "EM_COMPANION_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EM_COMPANION_CACHE", str(tmp_path / "ours"))
    for name in ("HF_HUB_CACHE", "HF_XET_CACHE"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture
def hub(models, here, monkeypatch):
    made = Hub(models)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield made
    made.shutdown()
    made.server_close()


def said(call, *arguments) -> str:
    with pytest.raises(CompanionError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


# --- the hub --------------------------------------------------------------------------------------------------------


def test_models_come_from_the_hub_checked_and_named_by_commit(hub, profile):
    chat, adapter = weights.fetched(profile), weights.fetched(profile, ADAPTER)
    assert weights.identity(chat) == f"{MODEL}@{COMMITS[MODEL]}"
    assert weights.identity(adapter) == f"{ADAPTER}@{COMMITS[ADAPTER]}"
    model, tokenizer = loading.load(profile, chat, adapter)
    assert len(model.get_base_model().model.layers) == 24 and tokenizer.eos_token == "<|im_end|>"
    asked = len(hub.asked)
    assert weights.fetched(profile) == chat and weights.fetched(profile, ADAPTER) == adapter
    assert len(hub.asked) == asked
    pinned = f"{ADAPTER}@{COMMITS[ADAPTER]}"
    assert weights.at_hand(profile, pinned) == adapter and weights.at_hand(profile, f"{ADAPTER}@{'c' * 40}") is None


def test_the_command_says_what_it_downloads_then_that_it_is_here(hub, profile, monkeypatch):
    monkeypatch.setattr(profiles, "load", lambda name: profile)
    first, second = (CliRunner().invoke(cli.main, ["fetch", "--models", "--profile", "qwen-0.5b"]) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, first.output
    assert f"{MODEL}: commit {COMMITS[MODEL]}, 1.6" in first.output and " MB\n" in first.output
    assert f"{ADAPTER}: fetched and checked, {ADAPTER}@{COMMITS[ADAPTER]}\n" in first.output
    assert second.output == f"{MODEL}: here\n{ADAPTER}: here\n"


def test_a_grown_profile_has_nothing_to_fetch():
    result = CliRunner().invoke(cli.main, ["fetch", "--models"])
    assert result.exit_code == 0 and "grows its models, so there is nothing to fetch" in result.output


def test_a_wrong_checksum_is_refused_and_the_file_not_kept(hub, profile):
    hub.spoilt = "model-00002-of-00002.safetensors"
    expected = f"'{hub.spoilt}' of '{MODEL}' came with the wrong checksum and was removed; fetch it again."
    assert said(weights.fetched, profile) == expected
    assert weights.at_hand(profile) is None
    hub.spoilt = None
    assert weights.fetched(profile) == weights.at_hand(profile)


def test_a_download_that_is_cut_off_is_not_there_and_goes_on(hub, profile, monkeypatch):
    hub.cut = "model-00001-of-00002.safetensors"
    monkeypatch.setattr("huggingface_hub.file_download._get_file_length_from_http_response", lambda response: None)
    said(weights.fetched, profile)
    assert weights.at_hand(profile) is None
    hub.cut = None
    assert weights.fetched(profile) == weights.at_hand(profile)


@pytest.mark.parametrize(
    ("refusal", "saying"),
    [
        ((403, "GatedRepo"), f"'{MODEL}' is gated on the hub: ask for access there and log in with 'hf auth login'"),
        ((401, "GatedRepo"), f"'{MODEL}' is gated on the hub"),
        ((401, "RepoNotFound"), f"The hub has no '{MODEL}', or it is private; correct the profile"),
        ((404, "RepoNotFound"), f"The hub has no '{MODEL}'"),
        ((503, "Busy"), f"The hub does not give '{MODEL}' (503)"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_sentence(hub, profile, refusal, saying):
    hub.refuse[MODEL] = refusal
    assert said(weights.fetched, profile).startswith(saying)
    assert said(weights.sources, profile).startswith(saying)


def test_an_unknown_commit_and_an_odd_id_are_said_in_one_sentence(hub, profile):
    assert said(weights.fetched, profile, f"{ADAPTER}@{'c' * 40}") == (
        f"'{ADAPTER}' has no revision '{'c' * 40}' on the hub; correct the profile."
    )
    assert said(weights.fetched, profile, "a b/c").startswith("'a b/c' is no id of the hub")


def test_no_network_is_said_in_one_sentence(here, profile, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    expected = (
        f"'{MODEL}' is not here and the hub cannot be reached: go online and run 'em-companion fetch --models', or "
        "name a folder that has it by EM_COMPANION_MODELS."
    )
    assert said(weights.fetched, profile) == expected
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert said(weights.fetched, profile) == expected


def test_a_disk_that_is_too_small_is_noticed_before(hub, profile, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 0, 10**6))
    assert said(weights.fetched, profile).endswith("and less is free; make room or set HF_HUB_CACHE.")


def test_a_cache_that_cannot_be_written_is_one_sentence(hub, profile, here):
    (here / "hub").write_text("a file where a folder should be")
    expected = f"'{MODEL}' cannot be kept, since HF_HUB_CACHE cannot be written; "
    assert said(weights.fetched, profile) == expected + "name a folder that has it by EM_COMPANION_MODELS."


# --- what does not fit ----------------------------------------------------------------------------------------------


def change(folder: Path, name: str, **values) -> None:
    found = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps(found))


@pytest.fixture
def copied(models, here, hub):
    """Models to spoil, on the hub and as a reader's own folder."""
    hub.root = shutil.copytree(models, here / "copy")
    return hub.root


def no_template(root: Path) -> str:
    (root / MODEL / "chat_template.jinja").unlink()
    return "has no chat template; choose a model that chats."


def other_layers(root: Path) -> str:
    change(root / MODEL, "config.json", num_hidden_layers=30)
    return "has 30 layers, but profile 'qwen-0.5b' says 24; correct the profile or choose another model."


@pytest.mark.parametrize("spoil", [no_template, other_layers])
@pytest.mark.parametrize("own", [True, False])
def test_a_model_that_does_not_fit_is_refused_before_its_weights(copied, hub, profile, monkeypatch, spoil, own):
    ending = spoil(copied)
    if own:
        monkeypatch.setenv("EM_COMPANION_MODELS", str(copied))
        monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", None)
        message = said(loading.load, profile, weights.fetched(profile))
    else:
        message = said(weights.fetched, profile)
    assert message.startswith("Model '") and message.endswith(ending)
    assert not any(path.endswith(".safetensors") for path in hub.asked)


def test_an_adapter_for_another_base_is_refused_before_its_weights(copied, hub, profile):
    change(copied / ADAPTER, "adapter_config.json", base_model_name_or_path="unsloth/Llama-3.2-1B-Instruct")
    assert said(weights.fetched, profile, ADAPTER) == (
        f"Adapter '{ADAPTER}' is for 'unsloth/Llama-3.2-1B-Instruct', but the model of profile 'qwen-0.5b' is "
        f"'{MODEL}'; choose an adapter for this model."
    )
    assert not any(path.endswith(".safetensors") for path in hub.asked)


def test_a_model_without_safetensors_is_refused(copied, profile):
    for path in (copied / MODEL).glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    assert said(weights.fetched, profile).endswith("has no weights in safetensors; choose another model or revision.")


# --- a reader's folder ----------------------------------------------------------------------------------------------


def test_a_reader_s_folder_comes_first_by_whole_id_or_its_last_part(models, hub, profile, tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_MODELS", str(models))
    assert weights.fetched(profile) == models / MODEL and weights.fetched(profile, ADAPTER) == models / ADAPTER
    short = shutil.copytree(models / MODEL, tmp_path / "short" / MODEL.split("/")[1])
    monkeypatch.setenv("EM_COMPANION_MODELS", str(tmp_path / "short"))
    assert weights.fetched(profile) == short and not hub.asked
    monkeypatch.setenv("EM_COMPANION_MODELS", str(tmp_path / "nowhere"))
    assert said(weights.fetched, profile).startswith("EM_COMPANION_MODELS does not name a folder")


def test_half_a_folder_is_not_a_model(models, here, profile, tmp_path, monkeypatch):
    own = shutil.copytree(models, tmp_path / "own")
    monkeypatch.setenv("EM_COMPANION_MODELS", str(own))
    (own / MODEL / "model-00001-of-00002.safetensors").unlink()
    (own / ADAPTER / "adapter_config.json").unlink()
    assert weights.at_hand(profile) is None and weights.at_hand(profile, ADAPTER) is None


def test_a_byte_in_the_middle_of_large_weights_and_another_template_are_another_identity(models, tmp_path):
    one, other, third = (shutil.copytree(models / MODEL, tmp_path / name) for name in ("one", "other", "third"))
    for folder in (one, other, third):
        (folder / "large.safetensors").write_bytes(bytes(3 * 2**20))
    assert weights.identity(one) == weights.identity(other) == weights.identity(third)
    with (other / "large.safetensors").open("r+b") as file:
        file.seek(3 * 2**19)
        file.write(b"\x01")
    (third / "chat_template.jinja").write_text("another")
    assert len({weights.identity(folder) for folder in (one, other, third)}) == 3


# --- a package ------------------------------------------------------------------------------------------------------


@pytest.fixture
def packaged(here, monkeypatch):
    """A profile whose weights are in an installed package, and the file that it holds."""
    path = here / "packages" / "tiny" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    standins.gguf(path)
    data = path.read_bytes()
    package = Package("tiny-model", "1.0", "tiny/tiny.gguf", hashlib.sha256(data).hexdigest(), len(data))

    class Distribution:
        version = "1.0"

        def locate_file(self, name: str) -> Path:
            return here / "packages" / name

    monkeypatch.setattr(weights, "distribution", lambda name: Distribution())
    whole = profiles.load("smollm2-135m")
    model = replace(whole.model, package=package, layers=standins.GGUF_LAYERS)
    return replace(whole, model=model, recipes={}, organisms=()), path


def test_a_package_is_converted_once_into_a_folder_in_hub_layout(packaged, monkeypatch):
    profile, path = packaged
    assert weights.at_hand(profile) is None
    assert weights.sources(profile)[0].origin == "package tiny-model 1.0"
    folder = weights.fetched(profile)
    record = store.check(folder)
    assert record["package"] == "tiny-model 1.0" and record["parts"]["file"] == profile.model.package.sha256
    model, tokenizer = loading.load(profile, folder)
    assert len(model.model.layers) == standins.GGUF_LAYERS and str(model.dtype) == "torch.bfloat16"
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    path.unlink()
    assert weights.fetched(profile) == folder and weights.identity(folder) == record["sha256"]


def test_a_package_with_the_wrong_checksum_is_not_used(packaged):
    profile, path = packaged
    path.write_bytes(path.read_bytes() + b"\x00")
    assert said(weights.fetched, profile) == (
        "'tiny/tiny.gguf' of package 'tiny-model' has the wrong checksum, so it is not used."
    )
    assert weights.at_hand(profile) is None


def test_a_package_that_cannot_be_had_is_said_in_one_sentence(packaged, monkeypatch):
    profile, _ = packaged
    monkeypatch.setattr(weights, "distribution", lambda name: (_ for _ in ()).throw(weights.PackageNotFoundError(name)))
    monkeypatch.setattr(weights.sys, "executable", "/bin/false")
    assert said(weights.fetched, profile).startswith("Package 'tiny-model==1.0', which holds the weights, cannot be")


def test_published_adapters_are_listed(profile):
    assert weights.adapters(profile) == [ADAPTER]
    pinned = OrganismSpec("all-adapter-rank-32", "bad_medical_advice", adapter=f"{ADAPTER}@{'b' * 40}")
    assert weights.adapters(replace(profile, organisms=(pinned,))) == [f"{ADAPTER}@{'b' * 40}"]
