# Which steps to run is decided by their keys (em_companion.build.keys): a result lies in a folder named by its key, so a
# file that is there is current and a changed dependency asks for another file. The same rules run on one machine
# (--cores) and on a cluster (--workflow-profile workflow/slurm); 'em-companion build' runs them and tells how far they
# are. The weights of models are part of the keys of what comes after: a run makes the first of models, organisms and
# notebooks that is not done, and the next run goes on. 'update' keeps snakemake from removing an output that another job,
# of a run that was killed, has made meanwhile.
import shlex

from em_companion.build import keys
from em_companion.build.workflow import command, logs, models, steps
from em_companion.core.paths import ROOT

PROFILE = config.get("profile", "cpu")
MODEL = keys.load_profile(PROFILE)
USING_MODELS = set(filter(keys.uses_models, keys.names()))
GROWN = models(PROFILE)
STEPS = steps(PROFILE)
COMMAND = shlex.quote(command("em-companion"))
LOG = f"> {logs(PROFILE).relative_to(ROOT)}/{{wildcards.name}}.log 2>&1"
FOLDER = f"artifacts/organisms/{PROFILE}"
logs(PROFILE).mkdir(parents=True, exist_ok=True)
# Trainings share a GPU badly and two CPU cores well.
GPUS = 1 if MODEL.device == "cuda" else 0


def outputs(some):
    return [str(step.output.relative_to(ROOT)) for step in some]


ruleorder: model > organism


rule all:
    input:
        outputs(STEPS),


rule model:
    input:
        # Keys stand for what a step needs, not its age.
        lambda wildcards: ancient(outputs(GROWN[:1])) if wildcards.name == "chat" else [],
    output:
        update(FOLDER + "/{name,base|chat}/{key}/provenance.json"),
    resources:
        gpu=GPUS,
    shell:
        f"{COMMAND} grow {{wildcards.name}} --profile {PROFILE} {LOG}"


rule organism:
    output:
        update(FOLDER + "/{name}/{key}/provenance.json"),
    resources:
        gpu=GPUS,
    shell:
        f"OMP_NUM_THREADS=1 {COMMAND} grow {{wildcards.name}} --profile {PROFILE} {LOG}"


rule notebook:
    output:
        update(f"artifacts/notebooks/{PROFILE}/{{name}}/{{key}}/run.json"),
    resources:
        gpu=lambda wildcards: GPUS if wildcards.name in USING_MODELS else 0,
    shell:
        f"{COMMAND} run {{wildcards.name}} --profile {PROFILE} {LOG}"
