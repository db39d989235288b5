"""Compressive self-supervised learning: representations of images, and the information they keep.

The package is a house of floors; data flows up and nothing imports from above (``docs/architecture.md``)::

    images -> views -> encoder -> heads -> objective -> optimizer step     (compressl pretrain)
    run folder -> features -> measures -> report                           (compressl evaluate, report)

Importing this module costs nothing: torch is loaded by the rooms that compute.
"""

__version__ = "0.1.0"
