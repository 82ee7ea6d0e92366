"""Run the Snakefile, one build at a time: `python -m em_companion.workflow SNAKEMAKE-OPTIONS`.

Snakemake's own lock stays behind when its process is killed and then refuses every later build. A lock of the operating
system goes with its process, and a second build waits for the first instead of failing. Results need no such care: each
is written whole or not at all.
"""

import fcntl
import os
import sys
from pathlib import Path

from em_companion.core import paths
from em_companion.core.paths import relative


def hold_lock() -> None:
    """Hold the lock until this process ends, also after `exec`; wait, and say so, while another build holds it."""
    paths.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    handle = os.open(paths.ARTIFACTS / ".workflow.lock", os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(handle, True)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another build is at work here; waiting for it to end.", file=sys.stderr, flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)


def main(options: list[str]) -> None:
    """Become snakemake with these options."""
    try:
        hold_lock()
    except OSError as error:
        sys.exit(f"{relative(paths.ARTIFACTS)}/ cannot be written: {error.strerror}.")
    tool = str(Path(sys.executable).with_name("snakemake"))
    os.execv(tool, [tool, "--nolock", "--rerun-incomplete", *options])


if __name__ == "__main__":
    main(sys.argv[1:])
