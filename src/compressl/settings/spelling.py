"""What a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where a known word comes near, else nothing.

    >>> suggestion("bach_size", ["batch_size", "seed"])
    " Did you mean 'batch_size'?"
    """
    near = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
