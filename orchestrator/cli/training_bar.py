"""Progress of a training run: steps, smoothed loss and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from orchestrator.cli.console import err

if TYPE_CHECKING:
    from experts.training import Step


class TrainingBar:
    """Shows every step that it is told of; without a terminal, a line now and then."""

    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn("train {task.fields[name]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[eta]} left"),
            console=err,
        )
        self._task = self._progress.add_task("", total=None, name=name, loss=0.0, eta="?")
        self._loss: float | None = None

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._progress.stop()

    def step(self, step: Step) -> None:
        """Show one step."""
        self._loss = step.loss if self._loss is None else 0.9 * self._loss + 0.1 * step.loss
        eta = f"{int(step.remaining) // 60}:{int(step.remaining) % 60:02d}"
        self._progress.update(
            self._task, completed=step.number, total=step.total, loss=self._loss, eta=eta
        )
        if not err.is_terminal and (step.number % 20 == 0 or step.number == step.total):
            err.print(f"step {step.number}/{step.total} loss {self._loss:.3f} {eta} left")
