"""Run a change of a registry again and again, each time killed at a later line of its code.

    python kill_steps.py PREPARED ORIGIN TARGET CHANGE

For the n-th run the folder PREPARED is copied to TARGET/n. A child makes the change there and kills
itself with SIGKILL when it comes to a new line of the registry's own modules for the n-th time.
Ends with the first run that is not killed, and prints its number.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from router.standards import Standards
from router.version import Signature
from router.versions import Registry

MODULES = ("versions.py", "version.py", "lineup.py", "history.py")
BY = Signature("killed", "a reason")

CHANGES: dict[str, Callable[[Registry, Path], object]] = {
    "promote": lambda registry, _: registry.promote("2", BY, Standards()),
    "rollback": lambda registry, _: registry.rollback(BY),
    "add": lambda registry, origin: registry.add(origin, BY),
    "remove": lambda registry, _: registry.remove("3", BY),
}


def killing(step: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that kills this process before the line of this number."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401
        path = Path(frame.f_code.co_filename)
        if path.parent.name != "router" or path.name not in MODULES:
            return None
        if event == "line":
            seen.add((path.name, frame.f_lineno))
            if len(seen) > step:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def killed(step: int, change: Callable[[], object]) -> bool:
    """Make a change in a child; tells whether it was killed. Raises if it failed otherwise."""
    child = os.fork()
    if child == 0:
        try:
            sys.settrace(killing(step))
            change()
            sys.settrace(None)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"the change of step {step} failed by itself")
    return os.WIFSIGNALED(status)


def main(prepared: Path, origin: Path, target: Path, name: str) -> None:
    step, going = 0, True
    while going:
        folder = target / str(step)
        shutil.copytree(prepared, folder)
        registry = Registry(folder, origin)
        going = killed(step, lambda made=registry: CHANGES[name](made, origin))  # type: ignore[misc]
        step += 1
    sys.stdout.write(f"{step - 1}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
