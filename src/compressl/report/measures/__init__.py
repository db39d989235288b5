"""Sections of the page, a file for each topic: ``sections(group)`` gives those for which there are figures."""
