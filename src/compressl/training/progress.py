"""The live line of a training: what it learns, how fast, how long still."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to redraw


class TrainingProgress:
    """A line that is redrawn on a terminal, and a plain line now and then elsewhere."""

    def __init__(self, console: Console, total_steps: int, start_step: int, epochs: int, label: str) -> None:
        self.console = console
        self.total_steps, self.epochs, self.label = total_steps, epochs, label
        self.knn: float | None = None
        self.started, self.start_step = time.monotonic(), start_step
        self.last_line = -math.inf
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(label, total=total_steps, completed=start_step, values="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def show(self, step: int, epoch: int, loss: float, terms: dict[str, float], rate: float, waiting: float) -> None:
        """The newest numbers; terms are in nats and shown in bits."""
        parts = [f"epoch {epoch + 1}/{self.epochs}", f"loss {loss:.3f}"]
        for name, short in (("residual_information_excess", "residual"), ("mutual_information_bound", "shared ≥")):
            if name in terms:
                parts.append(f"{short} {terms[name] / math.log(2):.2f} bits")
        if self.knn is not None:
            parts.append(f"kNN {self.knn:.1%}")
        parts += [f"{rate:,.0f} images/s", f"waiting {waiting:.0%}"]
        self.bar.update(self.task, completed=step, values=" · ".join(parts))
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.last_line > SECONDS_BETWEEN_LINES or step == self.total_steps):
            self.last_line = now
            left = (now - self.started) / max(1, step - self.start_step) * (self.total_steps - step)
            self.console.print(f"{self.label} · " + " · ".join(parts) + f" · {_clock(left)} left", highlight=False)

    def note(self, message: str) -> None:
        """A sentence above the line."""
        self.console.print(message, style="yellow", highlight=False, markup=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
