# Which notebooks to run is decided by their keys (em_companion.build.keys): a result lies in a folder named by its key,
# so a file that is there is current and a changed dependency asks for another file. The same rules run on one machine
# (--cores) and on a cluster (an executor plugin); 'em-companion build' runs them and tells how far they are.
import shlex

from em_companion.build import keys
from em_companion.build.workflow import command, logs, steps
from em_companion.core.paths import ROOT

PROFILE = config.get("profile", "cpu")
MODEL = keys.load_profile(PROFILE)
USING_MODELS = set(filter(keys.uses_models, keys.names()))
STEPS = steps(PROFILE)
COMMAND = shlex.quote(command("em-companion"))
LOG = f"> {logs(PROFILE).relative_to(ROOT)}/{{wildcards.name}}.log 2>&1"
logs(PROFILE).mkdir(parents=True, exist_ok=True)
# Trainings share a GPU badly and two CPU cores well.
GPUS = 1 if MODEL.device == "cuda" else 0


def outputs(kind):
    return [str(step.output.relative_to(ROOT)) for step in STEPS if step.kind == kind]


rule all:
    input:
        outputs("notebooks"),


rule organism:
    output:
        f"artifacts/organisms/{PROFILE}/{{name}}/{{key}}/provenance.json",
    resources:
        gpu=GPUS,
    shell:
        f"OMP_NUM_THREADS=1 {COMMAND} grow {{wildcards.name}} --profile {PROFILE} {LOG}"


rule notebook:
    input:
        # Their keys stand for them, not their age.
        lambda wildcards: ancient(outputs("organisms")) if wildcards.name in USING_MODELS else [],
    output:
        f"artifacts/notebooks/{PROFILE}/{{name}}/{{key}}/run.json",
    resources:
        gpu=lambda wildcards: GPUS if wildcards.name in USING_MODELS else 0,
    shell:
        f"{COMMAND} run {{wildcards.name}} --profile {PROFILE} {LOG}"
