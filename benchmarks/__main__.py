"""Run every benchmark of this folder and keep what they print, with the machine it ran on, for the book's machine page.

python benchmarks
"""

import json
import subprocess
import sys
from pathlib import Path

from em_companion.core.files import write_json
from em_companion.core.paths import BENCHMARKS
from em_companion.core.provenance import environment, utc_now


def main() -> None:
    """Print one JSON line per measurement as it comes, and write all of them once every script has ended well."""
    lines: list[dict] = []
    for script in sorted(Path(__file__).parent.glob("[!_]*.py")):
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, encoding="utf-8") as running:
            for line in running.stdout or ():
                print(line, end="", flush=True)
                lines.append({"script": f"benchmarks/{script.name}"} | json.loads(line))
        if running.returncode:
            sys.exit(f"{script.name} failed; nothing was written.")
    write_json(BENCHMARKS, {"measurements": lines, "date": utc_now()} | environment())


if __name__ == "__main__":
    main()
