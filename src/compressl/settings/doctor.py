"""Everything `compressl doctor` can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DoctorSettings:
    """What is wrong with this machine, and the cure."""

    cache: bool = False
    """Also read every byte of the packed images in the cache, and name what is no longer what was written."""

    def check(self) -> list[str]:
        return []
