# Which notebooks to run is decided by their keys (em_companion.execution): a result lies in a folder named by its key,
# so a file that is there is current and a changed dependency asks for another file. The same rules run on one machine
# (--cores) and on a cluster (an executor plugin).
import shlex
import sys
from pathlib import Path

from em_companion import execution, model_store, profiles
from em_companion.paths import ROOT

COMMAND = shlex.quote(str(Path(sys.executable).with_name("em-companion")))

PROFILE = config.get("profile", "cpu")
MODEL = profiles.load(PROFILE)
SEED = int(config.get("seed", MODEL.seed))
NAMES = config["notebooks"].split(",") if config.get("notebooks") else execution.names()
USING_MODELS = {name for name in NAMES if execution.uses_models(name)}
# Trainings share a GPU badly and two CPU cores well.
GPUS = 1 if MODEL.device == "cuda" else 0


def organism(recipe, data, seed):
    return str((model_store.adapter_folder(MODEL, recipe, data, seed) / "provenance.json").relative_to(ROOT))


ORGANISMS = [organism(one.recipe, one.data, seed) for one in MODEL.organisms for seed in one.seeds if USING_MODELS]


def result(name):
    return str(execution.folder(name, PROFILE, SEED).relative_to(ROOT) / "run.json")


rule all:
    input:
        [result(name) for name in NAMES],


rule organism:
    output:
        f"artifacts/organisms/{PROFILE}/{{name}}/{{key}}/provenance.json",
    resources:
        gpu=GPUS,
    shell:
        f"OMP_NUM_THREADS=1 {COMMAND} grow {{wildcards.name}} --profile {PROFILE}"


rule notebook:
    input:
        lambda wildcards: ORGANISMS if wildcards.name in USING_MODELS else [],
    output:
        f"artifacts/notebooks/{PROFILE}/{{name}}/{{key}}/run.json",
    resources:
        gpu=lambda wildcards: GPUS if wildcards.name in USING_MODELS else 0,
    shell:
        f"{COMMAND} run {{wildcards.name}} --profile {PROFILE} --seed {SEED}"
