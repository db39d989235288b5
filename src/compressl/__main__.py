"""``python -m compressl`` is the ``compressl`` command."""

from compressl.cli import main

main()
