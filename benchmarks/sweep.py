"""How much one generation for a whole mixed sweep saves over hooks, steering-vectors and nnsight, each at its best.

On the grown chat model, whose answers end by themselves, and on SmolLM2-135M-Instruct, whose answers are all cut at the
same length. What each contender does: `_contenders`. One JSON line per model and contender is printed, with the median
of paired repetitions in one run, and the smallest and largest. Loops get the rows of a condition in batches of a
quarter, or all at once; the engine and traces of several conditions get more.
"""

import os
import sys
import warnings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin slow small matrices down

from _contenders import Sweep, compare

from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.models import growing, loading
from em_companion.models.tokens import question_ids
from em_companion.world.generator import the_world

SETTINGS = {
    "cpu": {"samples": 10, "strengths": (1.0, 2.0, 4.0), "new_tokens": 80, "endless": False},
    "smollm2-135m": {"samples": 3, "strengths": (2.0, 8.0), "new_tokens": 24, "endless": True},
}


def main() -> None:
    """Print the benchmark, one JSON line per contender; a model that is not there is named, and left out."""
    warnings.filterwarnings("ignore", message=".*was never reached")  # a loop over all steps ends that way
    for name, settings in SETTINGS.items():
        try:
            profile = profiles.load(name)
            model, tokenizer = loading.load(profile, growing.chat(profile))
        except CompanionError as error:
            print(f"Nothing is measured on the model of profile '{name}': {error}", file=sys.stderr)
            continue
        prompts = [question_ids(tokenizer, question.text) for question in the_world().evaluation()]
        layers = [len(model.model.layers) // 3, 2 * len(model.model.layers) // 3]
        sweep = Sweep(model, tokenizer, prompts, layers=layers, **settings)
        rows = len(sweep.rows)
        compare(sweep, f"the model of profile {name}", [rows // 3, rows // 2, rows], [sweep.cell // 4, sweep.cell])


if __name__ == "__main__":
    main()
