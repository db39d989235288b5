"""From the words a user gives to images: what each spec names, and which part of it is for training or for testing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compressl.data.arrays import npy_family
from compressl.data.decode import extensions
from compressl.data.digits import digits_family
from compressl.data.folder import folder_family, walk
from compressl.data.hub import hub_family
from compressl.data.parquet import ParquetSource
from compressl.data.shards import shard_family
from compressl.data.source import TEST_SHARE, Family, Source, Subset, labels_optional, stratified
from compressl.data.tar import TarSource
from compressl.data.tar_index import compressed
from compressl.errors import DataError, UsageError

KINDS = (
    "Give a folder of images, a .parquet or .tar file or a folder of them, a .npy file, digits, cifar10, cifar100, "
    "or hf:<name> of a data set on the Hugging Face hub."
)
_SHARDS: dict[str, Callable[[Path, Sequence[Path], str], Source]] = {".parquet": ParquetSource, ".tar": TarSource}
_KIND_NAMES = {".parquet": "Parquet", ".tar": "tar"}
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_ON_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}


class Splits(NamedTuple):
    """Two sources that share no image and number their classes alike, and how they were told apart, in words."""

    train: Source
    test: Source
    split_description: str


def open_source(spec: str, split: str | None = None, *, seed: int = 0) -> Source:
    """The images that ``spec`` names.

    ``split`` is "train", "test" or None. None is for unlabelled pretraining: everything, except that a source which
    sets a test part aside gives its train part alone, and says so in ``note``. A source without a split of its own is
    split 80/20 by ``seed``, class by class where it has labels.

    Raises:
        DataError: if there are no such images, or they cannot be used.
        UsageError: for an unknown split, or a spec that needs an optional library.

    >>> source = open_source("digits", "test")
    >>> source.read(0).shape, source.class_names[3]
    ((32, 32, 3), '3')
    """
    if split not in (None, "train", "test"):
        raise UsageError(f"The split {split!r} is not known.", "Choose train or test, or leave it out.")
    if split is not None:
        return _part(_family(spec), split, seed)
    with labels_optional() as problems:
        source = _part(_family(spec), split, seed)
    if problems:
        source.note = f"{source.note} The labels are not used: {' '.join(problems)}".strip()
    return source


def open_splits(spec: str, test_spec: str | None = None, *, seed: int = 0) -> Splits:
    """Images to fit measures on and images to score them on.

    With ``test_spec`` the test images come from there: its own test part if it sets one aside, else all of it; and
    from ``spec`` its train part if it has one, else all of it. Class numbers of the test images are those of the train
    images, matched by name.

    Raises:
        DataError: naming the classes that the test images have and the train images do not.

    >>> train, test, how = open_splits("digits")
    >>> len(train) // 4, len(test) // 2, how
    (1438, 359, 'digits: no scan of a digit is in both')
    """
    family = _family(spec)
    if test_spec is None:
        train, test = _part(family, "train", seed), _part(family, "test", seed)
        how = family.how or (
            f"a split of {1 - TEST_SHARE:.0%} to {TEST_SHARE:.0%} by seed {seed}"
            f"{', class by class' if train.labels is not None else ''}, as it has none of its own"
        )
        description = f"{spec}: {how}"
    else:
        other = _family(test_spec)
        train = family.parts["train" if family.has_split else "all"]()
        test = other.parts["test" if other.has_split else "all"]()
        description = f"train on {train.name}, test on {test.name}"
        if train.fingerprint() == test.fingerprint():
            raise DataError(
                f"{spec} and {test_spec} are the same images.", "Leave the test set out to have them split."
            )
    missing = _share_classes(train, test)
    if missing:
        description += f"; without test images: {', '.join(missing)}"
    return Splits(train, test, description)


def _part(family: Family, split: str | None, seed: int) -> Source:
    if family.has_split:
        source = family.parts[split or "train"]()
        if split is None:
            source.note = f"{source.name} alone is used: the test images ({family.how}) are kept for evaluation."
        return source
    whole = family.parts["all"]()
    if split is None:
        return whole
    train, test = stratified(whole.labels, len(whole), seed)
    chosen = train if split == "train" else test
    if len(chosen) == 0:
        raise DataError(f"{whole.name} has too few images for a test part.", "Give a test set of its own.")
    return Subset(whole, chosen, f"{whole.name}-{split}")


def _family(spec: str) -> Family:
    if spec == "digits":
        return digits_family()
    if spec.startswith("hf:"):
        return hub_family(spec.removeprefix("hf:"))
    path = Path(spec).expanduser()
    if spec in _ON_HUB or not path.exists():
        stored = [root / spec for root in data_roots() if spec and (root / spec).exists()]
        if stored:
            path = stored[0]
        elif spec in _ON_HUB:
            return hub_family(_ON_HUB[spec])
        else:
            raise DataError(f"{spec!r} is neither a file or folder that exists nor a known data set.", KINDS)
    return _path_family(path)


def _path_family(path: Path) -> Family:
    if path.is_file():
        ending = path.suffix.lower()
        if ending in _SHARDS:
            return Family({"all": lambda: _SHARDS[ending](path, [path], path.stem)})
        if ending == ".npy":
            return npy_family(path)
        if path.name.lower().endswith(_COMPRESSED):
            raise compressed(str(path))
        raise DataError(f"{path} is a file of a kind that is not read.", KINDS)
    files = [name for name, _ in walk(path)]
    shards = sorted(name for name in files if _ending(name) in _SHARDS)
    loose = next((name for name in files if _ending(name) in extensions()), None)
    if not shards:
        packed = next((name for name in files if name.lower().endswith(_COMPRESSED)), None)
        if packed is not None and loose is None:
            raise compressed(f"{path / packed}")
        return folder_family(path)
    other = next((name for name in shards if _ending(name) != _ending(shards[0])), loose)
    if other is not None:
        raise DataError(
            f"{path} holds both {_KIND_NAMES[_ending(shards[0])]} files ({shards[0]}) and "
            f"{_KIND_NAMES.get(_ending(other), 'image')} files ({other}).",
            "Give a folder of one kind.",
        )
    return shard_family(path, [path / name for name in shards], _SHARDS[_ending(shards[0])])


def _ending(name: str) -> str:
    return Path(name).suffix.lower()


def data_roots() -> list[Path]:
    """Folders in which a data set is looked for by its bare name: ``$COMPRESSL_DATA``, or ``shared/data`` here or
    one folder up."""
    given = os.environ.get("COMPRESSL_DATA")
    return [Path(given).expanduser()] if given else [Path("shared/data"), Path("../shared/data")]


def _share_classes(train: Source, test: Source) -> list[str]:
    """Number the test classes as the train classes are; return the classes without test images."""
    if train.labels is None or test.labels is None:
        return []
    if train.class_names is None or test.class_names is None:
        names = train.class_names or test.class_names
        known = np.arange(len(names)) if names else np.unique(train.labels)
        unknown = [str(label) for label in np.unique(test.labels) if label not in known]
    else:
        names = train.class_names
        number = {name: label for label, name in enumerate(names)}
        present = np.unique(test.labels)
        unknown = [test.class_names[label] for label in present if test.class_names[label] not in number]
        if not unknown:
            mapping = np.full(len(test.class_names), -1, dtype=np.int64)
            mapping[present] = [number[test.class_names[label]] for label in present]
            test.labels = mapping[test.labels]
    if unknown:
        raise DataError(
            f"{test.name} has classes that {train.name} has not: {', '.join(unknown[:10])}"
            f"{f' and {len(unknown) - 10} more' if len(unknown) > 10 else ''}.",
            "Name the classes of both alike, or leave these images out.",
        )
    test.class_names = train.class_names = names
    absent = np.setdiff1d(train.labels, test.labels)
    return [names[label] if names else str(label) for label in absent]
