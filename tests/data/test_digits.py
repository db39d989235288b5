from __future__ import annotations

import numpy as np
import pytest

from compressl.data import DigitsSource, open_splits
from compressl.data.digits import CONTRAST


@pytest.fixture(scope="module")
def splits():
    return open_splits("digits")


def test_no_scan_is_in_both_parts(splits) -> None:
    train, test, how = splits
    assert set(train.scans) | set(test.scans) == set(range(1797))
    assert not set(train.scans) & set(test.scans)
    assert how == "digits: no scan of a digit is in both"
    assert train.images.shape == (1438 * 4, 32, 32, 3)
    assert test.images.shape == (359 * 2, 32, 32, 3)


def test_every_class_has_its_share(splits) -> None:
    train, test, _ = splits
    share = np.bincount(test.labels) / 2 / (np.bincount(test.labels) / 2 + np.bincount(train.labels) / 4)
    assert np.abs(share - 0.2).max() < 0.01


def test_pixels_depend_on_seed_scan_and_rendering_alone(splits) -> None:
    _, test, _ = splits
    again, other = DigitsSource("test", renderings=3), DigitsSource("test", seed=1)
    np.testing.assert_array_equal(again.images[: len(test)], test.images)
    differs = (other.images != test.images).mean()
    assert differs > 0.9
    first, second = test.images[:359], test.images[359:]
    assert (test.scans[:359] == test.scans[359:]).all()
    assert (first != second).any((1, 2, 3)).all()
    assert len({test.fingerprint(), again.fingerprint(), other.fingerprint()}) == 3
    assert DigitsSource("test").fingerprint() == test.fingerprint()


def test_the_digit_stands_out(splits) -> None:
    train, _, _ = splits
    grey = train.images.reshape(len(train), -1, 3).mean(2) / 255
    background = np.median(grey, axis=1)  # the digit covers less than half of an image
    texture = np.median(np.abs(grey - background[:, None]), axis=1)
    strokes = np.abs(grey - background[:, None]).max(1)
    assert np.quantile(strokes, 0.01) > 0.8 * CONTRAST[0]
    assert (strokes > 3 * texture).mean() > 0.98


def test_pixels_are_a_weak_representation(splits) -> None:
    """Nearest neighbours of raw pixels are above chance and far from solved: room for an encoder to show itself."""
    train, test, _ = splits
    a, b = (part.images.reshape(len(part), -1).astype(np.float32) for part in (train, test))
    a, b = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (a, b))
    nearest = np.argpartition(-(b @ a.T), 20, axis=1)[:, :20]
    votes = np.eye(10)[train.labels[nearest]].sum(1)
    assert 0.40 < (votes.argmax(1) == test.labels).mean() < 0.65


def test_the_number_of_renderings_is_checked() -> None:
    with pytest.raises(ValueError, match="between 1 and 64"):
        DigitsSource("test", renderings=65)
