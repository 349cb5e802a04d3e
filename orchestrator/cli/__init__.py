"""The command line. Each command lives in a file of its own and imports what it needs when run."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `collegium`; tells how to install the command line if it is missing."""
    try:
        from orchestrator.cli.root import cli

        # Each command imports what it needs when it runs.
        cli()
    except ModuleNotFoundError as error:
        sys.exit(
            f"collegium: the package {error.name!r} is missing. The client SDK works without it; "
            "install the command line with: pip install 'collegium[cli]' (chat, route, models of a "
            "running service), 'collegium[serve]' (the service) or 'collegium[train]' (everything)"
        )
