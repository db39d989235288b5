"""Failures that a person can act on: each names what is wrong and the next step, and carries an exit code.

Exit codes: 0 done, 1 a bug of ours, 2 usage or configuration, 3 data, 4 checkpoint, 5 numerics or collapse,
6 resources (memory, disk), 75 interrupted after saving (run the same command again).
"""

from __future__ import annotations

from typing import ClassVar


class CompresslError(Exception):
    """An expected failure. The message is one or two sentences: what is wrong, then what to do.

    >>> str(DataError("photos/ holds no images.", "Give a folder with .jpg or .png files."))
    'photos/ holds no images. Give a folder with .jpg or .png files.'
    >>> DataError.exit_code
    3
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, next_step: str = "") -> None:
        super().__init__(f"{problem} {next_step}".strip())
        self.problem = problem
        self.next_step = next_step


class UsageError(CompresslError):
    """A wrong option, configuration key or combination of them."""

    exit_code = 2


class DataError(CompresslError):
    """Images or labels that cannot be used."""

    exit_code = 3


class CheckpointError(CompresslError):
    """A run folder or checkpoint that is damaged, foreign or in the way."""

    exit_code = 4


class NumericsError(CompresslError):
    """Non-finite values or a collapsed representation."""

    exit_code = 5


class ResourceError(CompresslError):
    """Out of memory or disk."""

    exit_code = 6


class Interrupted(CompresslError):
    """A signal asked the run to stop; its state is saved and the same command continues it (EX_TEMPFAIL)."""

    exit_code = 75


class CompresslWarning(UserWarning):
    """Something worth knowing that does not stop the work."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, for within a sentence: its first line, or its name if it says nothing.

    >>> first_line(RuntimeError("No compiler was found.\\nSet CXX.")), first_line(RuntimeError())
    ('No compiler was found', 'RuntimeError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
