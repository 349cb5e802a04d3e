"""`collegium chat`: a conversation in the terminal that shows who spoke and from which sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator import Client, CollegiumError
from orchestrator.answer import Answer
from orchestrator.cli.console import err, out

if TYPE_CHECKING:
    from orchestrator.calls import Sampling

_HELP = "/new starts over, /model NAME chooses (auto, legal, code+legal, …), /quit ends."


@click.command()
@click.option("--url", help="The service; default: $COLLEGIUM_BASE_URL or http://127.0.0.1:8000.")
@click.option("--model", default="auto", show_default=True, help="`auto`, an expert, or `a+b`.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 is greedy.")
@click.argument("question", required=False)
def chat(
    url: str | None,
    model: str,
    max_tokens: int,
    temperature: float | None,
    question: str | None,
) -> None:
    """Talk to a running service; with QUESTION, ask once and stop.

    Below each answer stand the experts that spoke, with their weights, and its sources. Ctrl-C
    stops an answer, Ctrl-D or /quit ends.
    """
    settings: Sampling = {"max_tokens": max_tokens}
    if temperature is not None:
        settings["temperature"] = temperature
    with Client(base_url=url) as client:
        conversation = _Conversation(client, model, settings)
        if question:
            if not conversation.say(question):
                raise SystemExit(1)
        else:
            out.print(f"[dim]{_HELP}[/]", highlight=False)
            conversation.run()


class _Conversation:
    def __init__(self, client: Client, model: str, settings: Sampling) -> None:
        self._client, self._model, self._settings = client, model, settings
        self._messages: list[dict[str, str]] = []

    def run(self) -> None:
        line = self._read()
        while line is not None:
            word, _, rest = line.partition(" ")
            if word == "/new":
                self._messages.clear()
                out.print("[dim]a new conversation[/]")
            elif word == "/model" and rest:
                self._model = rest.strip()
                out.print(f"model {self._model}", style="dim", markup=False)
            elif word.startswith("/"):
                out.print(f"[dim]{_HELP}[/]", highlight=False)
            elif line:
                self.say(line)
            line = self._read()

    def say(self, text: str) -> bool:
        """Whether an answer came, whole or stopped."""
        self._messages.append({"role": "user", "content": text})
        said, failed = "", False
        try:
            with self._client.stream(self._messages, model=self._model, **self._settings) as stream:
                for event in stream:
                    said += event.delta
                    out.print(event.delta, end="", markup=False, highlight=False, soft_wrap=True)
                out.print()
                _show(stream.answer())
        except KeyboardInterrupt:
            out.print("\n[dim]stopped[/]")
        except CollegiumError as error:
            failed = True
            if said:
                out.print()
            err.print(str(error), style="red", markup=False, highlight=False)
        if said:
            self._messages.append({"role": "assistant", "content": said})
        else:
            self._messages.pop()
        return not failed

    def _read(self) -> str | None:
        try:
            line = out.input("[bold]> [/]").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return None
        return None if line == "/quit" else line


def _show(answer: Answer) -> None:
    routing = answer.routing
    if routing is not None:
        spoke = ", ".join(f"{e.name} {e.weight:.2f}" for e in routing.experts)
        fallback = ", fallback" if routing.fallback else ""
        line = f"{spoke} · {routing.mode}{fallback} · {routing.reason} · {routing.decision_id}"
        out.print(line, style="dim", markup=False, highlight=False)
    shown: dict[str, str] = {}
    for citation in answer.citations:
        mark = answer.text[citation.start_index : citation.end_index]
        shown.setdefault(mark, f"{citation.title} — {citation.url} ({citation.collection})")
    for mark, source in shown.items():
        out.print(f"{mark} {source}", style="dim", markup=False, highlight=False)
