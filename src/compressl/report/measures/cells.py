"""Values of a record and the cells that show them, read so that a damaged part costs only itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from compressl.measures.intervals import Estimate
from compressl.report.summary import percent

Record = Mapping[str, Any]
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)  # what a record of other shape raises
T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    value: str
    small: str = ""


def at(record: Any, *path: str | int) -> Any:
    """What stands at a place of a record; None where it is missing or the record has another shape.

    >>> at({"a": [1, {"b": 2}]}, "a", 1, "b"), at({"a": 3}, "a", "b") is None
    (2, True)
    """
    for name in path:
        try:
            record = record[name]
        except (LookupError, TypeError):
            return None
    return record


def number(found: Any) -> float | None:
    """A finite number, or None."""
    whole = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if whole else None


def numbers(found: Any) -> list[float]:
    """A list of finite numbers, or nothing."""
    values = [number(value) for value in found] if isinstance(found, list) else []
    return [value for value in values if value is not None] if None not in values else []


def estimate(found: Any) -> Estimate | None:
    """A figure with its interval, or None."""
    value, low, high = (number(at(found, name)) for name in ("value", "low", "high"))
    return None if value is None or low is None or high is None else Estimate(value, low, high)


def items(found: Any) -> list[tuple[str, Any]]:
    """The pairs of a table of the record, or nothing."""
    return list(found.items()) if isinstance(found, dict) else []


def attempt(read: Callable[[Record], T], part: Record) -> T | None:
    try:
        return read(part)
    except DAMAGE:
        return None


def share(*path: str | int) -> Callable[[Record], Cell | None]:
    """A share as a percentage, with its interval if it has one."""

    def read(part: Record) -> Cell | None:
        found = at(part, *path)
        if (e := estimate(found)) is not None:
            return Cell(percent(e.value), between(100 * e.low, 100 * e.high, 1))
        value = number(found)
        return None if value is None else Cell(percent(value))

    return read


def plain(*path: str | int, digits: int = 2, scale: float = 1.0) -> Callable[[Record], Cell | None]:
    """A figure as it is, with its interval if it has one."""

    def read(part: Record) -> Cell | None:
        found = at(part, *path)
        if (e := estimate(found)) is not None:
            return Cell(fixed(scale * e.value, digits), between(scale * e.low, scale * e.high, digits))
        value = number(found)
        return None if value is None else Cell(fixed(scale * value, digits))

    return read


def points(*path: str | int) -> Callable[[Record], Cell | None]:
    """A share as points of a hundred."""
    return plain(*path, digits=1, scale=100.0)


def fixed(value: float, digits: int) -> str:
    """A number with some digits after the point; three significant ones where fine figures would be 0.

    >>> fixed(3.14159, 2), fixed(-0.001234, 2), fixed(-0.04, 1), fixed(1234.5, 1)
    ('3.14', '−0.00123', '0.0', '1,234.5')
    """
    text = f"{value:,.{digits}f}"
    if not text.strip("-0."):
        text = f"{value:.3g}" if value and digits > 1 else text.lstrip("-")
    return text.replace("-", "−")


def between(low: float, high: float, digits: int) -> str:
    """
    >>> between(0.5, 1, 1), between(-0.5, 1, 1)
    ('0.5 – 1.0', '−0.5 to 1.0')
    """
    return f"{fixed(low, digits)} {'to' if low < 0 else '–'} {fixed(high, digits)}"
