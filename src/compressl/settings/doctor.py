"""Everything `compressl doctor` can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DoctorSettings:
    """What is wrong with this machine, and the cure."""

    cache: bool = False
    """Also list the packed images in the cache, with what each was made from, and read every byte of them: what is no
    longer what was written is named."""

    remove_stale: bool = False
    """With --cache: remove packed images whose source is gone or changed, or whose format is older than this version's.
    What another process is using stays. A source on a disk that is not mounted counts as gone."""

    def check(self) -> list[str]:
        return ["--remove-stale is for the cache: give --cache too."] if self.remove_stale and not self.cache else []
