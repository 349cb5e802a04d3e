"""`collegium feedback`: say how good a decision of a running service was."""

from __future__ import annotations

import click

from orchestrator.cli.console import out, readable_errors


@click.command()
@click.argument("decision_id")
@click.argument("thumb", required=False, type=click.Choice(["up", "down"]))
@click.option("--score", type=click.FloatRange(-1, 1), help="In place of a thumb: -1 to 1.")
@click.option("--expert", metavar="NAME", help="Who should have answered.")
@click.option("--comment", help="Kept with it; at most 2,000 characters.")
@click.option("--url", help="The service; default: $COLLEGIUM_BASE_URL or http://127.0.0.1:8000.")
def feedback(
    decision_id: str,
    thumb: str | None,
    score: float | None,
    expert: str | None,
    comment: str | None,
    url: str | None,
) -> None:
    """Say how good the decision DECISION_ID was: up, down, or a score.

    The id is `x_routing.decision_id` of the answer, or the answer's own `id`; `collegium chat`
    shows it below each answer. Saying it again replaces what was said before.

    \b
    collegium feedback dec-5d41402abc4b2a76b9719d91 up
    collegium feedback dec-5d41402abc4b2a76b9719d91 down --expert legal
    """
    from orchestrator import Client, CollegiumError

    with readable_errors(CollegiumError), Client(base_url=url) as client:
        kept = client.feedback(decision_id, thumb, score=score, expert=expert, comment=comment)
    said = [
        "" if kept.score is None else f"score {kept.score:g}",
        f"{kept.expert} should have answered" if kept.expert else "",
        "in place of what was said before" if kept.replaced else "",
    ]
    words = ", ".join(word for word in said if word)
    out.print(f"{kept.decision_id}: {words}", markup=False, highlight=False, soft_wrap=True)
