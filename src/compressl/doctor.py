"""What is wrong with this machine for this work, and the command that cures it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from compressl.console import PatientConsole

if TYPE_CHECKING:
    from compressl.data.stores import Stored


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    verdict: Literal["good", "note", "bad"]
    what: str
    cure: str = ""


MARKS = {"good": "[green]✓[/]", "note": "[yellow]·[/]", "bad": "[red]✗[/]"}


def examine(console: Console | None = None, *, cache: bool = False, remove_stale: bool = False) -> bool:
    """Print what was found, with ``cache`` about every store of packed images and every byte of it too; True if nothing
    is broken. With ``remove_stale``, stores that nobody will ask for again are removed before."""
    console = console or PatientConsole(highlight=False)
    sound = True
    of_cache = (removed_stores if remove_stale else stores, packed_images) if cache else ()
    for check in (*CHECKS, *of_cache):
        try:
            found = check()
        except Exception as error:  # a doctor that dies helps nobody
            found = Finding("bad", f"{check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")
        for finding in [found] if isinstance(found, Finding) else found:
            console.print(MARKS[finding.verdict], end=" ")
            console.print(finding.what, markup=False, soft_wrap=True)
            if finding.cure:
                console.print(f"    {finding.cure}", markup=False, soft_wrap=True)
            sound &= finding.verdict != "bad"
    console.print("Nothing is broken." if sound else "Something is broken; the lines after ✗ say what to do.")
    return sound


def python_version() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding(
        "good" if good else "bad", f"Python {platform.python_version()}", "" if good else "Use Python 3.11 or newer."
    )


def torch_version() -> Finding:
    try:
        import torch
    except Exception as error:
        return Finding("bad", f"torch does not import: {error}", "pip install 'torch>=2.10'")
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 10):
        return Finding(
            "bad", f"torch {torch.__version__} reads checkpoints unsafely (CVE-2026-24747)", "pip install 'torch>=2.10'"
        )
    return Finding("good", f"torch {torch.__version__}")


def device() -> Finding:
    import torch

    from compressl.devices import has_native_bf16, resolve_device

    found = resolve_device("auto")
    fast = has_native_bf16(found)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else found.type
    words = f"device {name}, bf16 {'native' if fast else 'emulated: --precision auto uses fp32'}"
    if found.type == "cpu" and shutil.which("nvidia-smi"):
        return Finding(
            "bad",
            f"{words}; this machine has nvidia-smi, but torch sees no GPU",
            "Install a CUDA build of torch, or update the driver.",
        )
    return Finding("good" if found.type != "cpu" or fast else "note", words)


def threads() -> Finding:
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    if used > allowed:
        return Finding("bad", f"{used} threads on {allowed} processors: they hinder each other", f"--threads {allowed}")
    return Finding("good", f"{used} threads, {allowed} processors")


def torchvision() -> Finding:
    """The package index's torchvision is a CUDA build: beside a CPU torch it breaks on import, and timm with it."""
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        return Finding("good", "torchvision is not installed, and only timm/<name> encoders need it")
    plain = _imports("import torchvision")
    if plain is None:
        return Finding("good", "torchvision imports")
    healed = _imports(
        "from compressl.models.encoders import define_torchvision_operators as d; d(); import torchvision"
    )
    if healed is None:
        return Finding(
            "note",
            f"torchvision does not import by itself ({plain}): its compiled part is for a CUDA torch,"
            " and this torch is for the CPU. compressl declares the missing operators before it imports timm:"
            " timm/<name> encoders work.",
            "Nothing to do here. In scripts of your own, call define_torchvision_operators from "
            "compressl.models.encoders first, or install matching builds of both.",
        )
    return Finding(
        "bad",
        f"torchvision does not import: {healed}",
        "pip install --force-reinstall the torchvision that matches torch.",
    )


def timm() -> Finding:
    import importlib.util

    if importlib.util.find_spec("timm") is None:
        return Finding("note", "timm is not installed: no timm/<name> encoders", "pip install 'compressl[timm]'")
    problem = _imports("from compressl.models.encoders import import_timm; import_timm()")
    if problem is None:
        return Finding("good", "timm imports")
    return Finding("bad", f"timm does not import: {problem}", "pip install --upgrade timm")


def extras() -> Finding:
    import importlib.util

    absent = [name for name in ("tensorboard", "datasets") if importlib.util.find_spec(name) is None]
    if not absent:
        return Finding("good", "extras: tensorboard, hub")
    cures = {"tensorboard": "compressl[tensorboard]", "datasets": "compressl[hub]"}
    return Finding(
        "note",
        f"not installed: {', '.join(absent)} (TensorBoard events; hf:<name> and downloads)",
        "pip install " + " ".join(f"'{cures[name]}'" for name in absent),
    )


def disk() -> Finding:
    from compressl.data import default_cache

    cache = default_cache()
    place = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(place).free / 1e9
    if not os.access(place, os.W_OK):
        return Finding("bad", f"the cache {cache} cannot be written", "Set COMPRESSL_CACHE to a folder that can.")
    if free < 2:
        return Finding("bad", f"{free:.1f} GB free for the cache {cache}", "Free some space, or set COMPRESSL_CACHE.")
    return Finding("good", f"{free:.0f} GB free for the cache {cache}")


def stores() -> list[Finding]:
    """What each store in the cache was made from, its size, and whether anybody can ask for it again."""
    from compressl.data import default_cache
    from compressl.data.stores import survey

    cure = "`compressl doctor --cache --remove-stale` removes it."
    return [
        Finding("note", f"{_words(store)}: {store.stale}", cure) if store.stale else Finding("good", _words(store))
        for store in survey(default_cache())
    ]


def removed_stores() -> list[Finding]:
    """As :func:`stores`, without those that nobody can ask for again: they are removed."""
    from compressl.data import default_cache
    from compressl.data.stores import InUse, remove, survey

    found, freed = [], 0
    for store in survey(default_cache()):
        if not store.stale:
            found.append(Finding("good", _words(store)))
            continue
        try:
            remove(store)
        except InUse:
            words = f"{_words(store)}: {store.stale}, but another process is using it"
            found.append(Finding("note", words, "It stays; try again when that process is done."))
        except OSError as error:
            words = f"{_words(store)}: {store.stale}, but it cannot be removed: {error.strerror or error}"
            found.append(Finding("bad", words, "Change the permissions of the cache."))
        else:
            freed += store.nbytes
            found.append(Finding("good", f"removed {_words(store)}: {store.stale}"))
    return [*found, Finding("good", f"{_size(freed)} freed in the cache")]


def _words(store: Stored) -> str:
    count = "images" if store.images is None else f"{store.images:,} images"
    where = "a source that is not on record" if store.origin is None else store.origin.place
    return f"{store.name}: {count} of {where}, {_size(store.nbytes)}{'' if store.finished else ', unfinished'}"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def packed_images() -> Finding:
    """Whether packed images are, to the byte, what was written."""
    from compressl.data import Damaged, default_cache, verify
    from compressl.data.journal import VERSION, read_layout

    journals = sorted(default_cache().glob("[!.]*/journal.jsonl"))
    layouts = {path.parent: read_layout(path.parent) for path in journals}
    folders = [folder for folder, layout in layouts.items() if layout is None or layout.version == VERSION]
    damaged = []
    for folder in folders:
        try:
            damaged += [f"{folder}: images {start} to {stop - 1}" for start, stop in verify(folder)]
        except Damaged as error:
            damaged.append(f"{folder}: {error}")
    if damaged:
        return Finding(
            "bad",
            f"packed images that are not what was written: {'; '.join(damaged)}",
            "Remove store.json from each of these folders: the next run decodes what is damaged again.",
        )
    return Finding(
        "good", f"{len(folders)} packed collection{'s' * (len(folders) != 1)} in the cache, each what was written"
    )


def memory() -> Finding:
    import torch

    from compressl.devices import free_memory

    free = free_memory(torch.device("cpu")) / 1e9
    if free == 0:
        return Finding("note", "free memory is unknown on this system")
    return Finding(
        "good" if free > 2 else "bad", f"{free:.0f} GB of memory free", "" if free > 2 else "Close other programs."
    )


def shared_data() -> Finding:
    place = os.environ.get("COMPRESSL_DATA")
    if not place:
        return Finding("note", "COMPRESSL_DATA is not set: cifar10 and cifar100 come through the `hub` extra")
    good = Path(place).is_dir()
    return Finding(
        "good" if good else "bad", f"COMPRESSL_DATA is {place}", "" if good else "It is no folder; correct or unset it."
    )


def _imports(code: str) -> str | None:
    """None if the code runs in a fresh interpreter, else the last line of its error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


CHECKS: tuple[Callable[[], Finding | list[Finding]], ...] = (
    python_version, torch_version, device, threads, memory, disk, torchvision, timm, extras, shared_data,
)  # fmt: skip
