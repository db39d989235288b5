"""The terminal, which may go away while the work goes on."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class PatientConsole(Console):
    """A console that falls silent when its reader closes (``| head``, a lost connection) instead of ending the work."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # or the interpreter complains when it flushes at its end
        os.close(null)
