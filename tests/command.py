"""The command line, called in this process."""

from __future__ import annotations

from compressl import cli


def run(*argv: str) -> int:
    """The exit code."""
    try:
        cli.main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
