"""Write into requirements.lock the sha256 of every file of each version that it names, by `uv` (pip install uv).

python .ci/lock.py
"""

import subprocess
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
COMMAND = (
    "uv pip compile --quiet --no-deps --universal --generate-hashes --no-header --no-annotate --python-version 3.11"
)


def main() -> None:
    """Keep the comments on top and the versions; replace all hashes."""
    head = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    done = subprocess.run([*COMMAND.split(), str(LOCK)], stdout=subprocess.PIPE, check=True, encoding="utf-8")
    LOCK.write_text("\n".join([*head, done.stdout]), encoding="utf-8")


if __name__ == "__main__":
    main()
