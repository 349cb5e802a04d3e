"""The `collegium` command group: commands are looked up by name and imported when used."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "cache": ("orchestrator.cli.cache", "cache"),
    "chat": ("orchestrator.cli.chat", "chat"),
    "eval": ("orchestrator.cli.evaluate", "evaluate"),
    "feedback": ("orchestrator.cli.feedback", "feedback"),
    "index": ("orchestrator.cli.index", "index"),
    "models": ("orchestrator.cli.models", "models"),
    "route": ("orchestrator.cli.route", "route"),
    "router": ("orchestrator.cli.router", "router"),
    "serve": ("orchestrator.cli.serve", "serve"),
    "train": ("orchestrator.cli.train", "train"),
}


class _Lazy(click.Group):
    # Importing torch and ray takes seconds; `collegium --help` must not pay for them.
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        command = getattr(import_module(found[0]), found[1]) if found else None
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="collegium")
def cli() -> None:
    """One OpenAI-compatible endpoint in front of many domain experts.

    \b
    Start:      collegium models pull && collegium serve
    Talk:       collegium chat
    Explain:    collegium route "May I copy GPL code into my app?"
    """
