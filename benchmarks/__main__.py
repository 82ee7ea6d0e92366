"""Run the benchmarks of this folder and keep what they print, with the machine it ran on, for the book's machine page.

python benchmarks [NAME...]

Without a name, all but `gpu`, which needs a large card; what named ones print is kept in a file of its own. The files
are `benchmarks[-NAME...].json` in `data/results/`, or in the folder that the variable OUT names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from em_companion.core.files import write_sealed
from em_companion.core.paths import RESULTS
from em_companion.core.provenance import environment, utc_now


def main(names: list[str]) -> None:
    """Print one JSON line per measurement as it comes, and write all of them once every script has ended well."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"There is no benchmark '{unknown[0]}'; choose of: {', '.join(known)}.")
    lines: list[dict] = []
    for name in names or [name for name in known if name != "gpu"]:
        script = Path(__file__).with_name(f"{name}.py")
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, encoding="utf-8") as running:
            for line in running.stdout or ():
                print(line, end="", flush=True)
                lines.append({"script": f"benchmarks/{script.name}"} | json.loads(line))
        if running.returncode:
            sys.exit(f"{script.name} failed; nothing was written.")
    target = Path(os.environ.get("OUT") or RESULTS) / f"{'-'.join(['benchmarks', *names])}.json"
    write_sealed(target, {"measurements": lines, "date": utc_now()} | environment())


if __name__ == "__main__":
    main(sys.argv[1:])
