from __future__ import annotations

import tracemalloc

import pytest

from compressl.data.names import Names


def test_it_is_like_a_list() -> None:
    words = ["", "a", "dog/žluťoučký kůň.png", "bad-\udcff.png", "a"]
    names = Names(words)
    assert list(names) == words == names[:] == [names[i] for i in range(5)]
    assert names[-2] == words[-2]
    assert names[3:0:-2] == words[3:0:-2]
    assert "a" in names
    with pytest.raises(IndexError):
        names[5]
    assert list(Names([])) == []


def test_it_takes_little_more_than_the_letters() -> None:
    tracemalloc.start()
    try:
        names = Names(f"class/{i:08}.jpeg" for i in range(20_000))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 20_000 * (19 + 8) * 1.1
    assert names[777] == "class/00000777.jpeg"
