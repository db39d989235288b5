"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from compressl.errors import ResourceError
from compressl.files import write_atomically


def test_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ü ä.json"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_failure_keeps_the_old_file_and_leaves_no_stump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError, match="disk is full" if code != errno.EACCES else "cannot be written") as error:
        write_atomically(path, "new" * 1_000_000)
    if code != errno.EACCES:
        assert "3.0 MB" in str(error.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
