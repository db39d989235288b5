"""From settings to everything the loop needs, in the order in which things can fail cheaply."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressl import distributed
from compressl.data import Batch, Batches, PackedImages, default_cache, open_source, pack, suggest_view_size
from compressl.devices import (
    environment,
    free_memory,
    is_out_of_memory,
    prepare_device,
    resolve_device,
    resolve_precision,
)
from compressl.errors import CheckpointError, DataError, UsageError
from compressl.methods import Method, create_method
from compressl.models import EncoderCard, chunked, create_encoder, synchronize
from compressl.randomness import permutation
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.toml import flatten, to_toml
from compressl.training.compiling import allow_compilations, compile_encoders
from compressl.training.optimizers import create_optimizer
from compressl.training.schedules import warmup_steps
from compressl.views import Views

# settings that change neither the weights nor the metrics: a run may be resumed with others
NEUTRAL = (
    "recipe", "config", "out", "log_every", "save_every", "save_every_steps", "keep", "overwrite", "allow_data_change",
    "tensorboard", "on_collapse", "data.cache", "data.device", "data.pack", "data.max_unreadable", "threads", "device",
    "deterministic",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """Everything that a training is made of."""

    settings: PretrainSettings
    device: torch.device
    precision: str
    packed: PackedImages
    stages: tuple[Views, ...]  # parts of equal length: where views grow, each has a size of its own
    method: Method
    card: EncoderCard
    optimizer: torch.optim.Optimizer
    steps_per_epoch: int
    notes: tuple[str, ...]
    compiled: bool
    graphs: bool

    @property
    def views(self) -> Views:
        """Of the full size."""
        return self.stages[-1]

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    @property
    def warmup(self) -> int:
        return warmup_steps(self.settings.optimizer.warmup_epochs, self.steps_per_epoch, self.total_steps)

    @property
    def peak_lr(self) -> float:
        """Linear scaling (Goyal et al. 2017): the rate is given per 256 images."""
        return self.settings.optimizer.lr * self.settings.batch_size / 256

    @cached_property
    def images_on_device(self) -> bool:
        """Whether all images are kept in the device's memory; decided once, as what is free changes."""
        choice = self.settings.data.device
        if choice != "auto" or self.packed.on_demand:
            return choice == "yes"
        sharing = distributed.processes_here() if self.device.type == "cpu" else 1
        return self.packed.images.nbytes < free_memory(self.device) / 4 / sharing

    def look(self, loader: Batches) -> tuple[Batch, list[Tensor]] | None:
        """The next batch and its views, laid out as the network wants them; None after the last one."""
        if (batch := next(loader, None)) is None:
            return None
        layout = layout_of(self.settings)
        views = self.stages[batch.step * len(self.stages) // self.total_steps]
        return batch, views(batch.images, batch.geometry, batch.indices, batch.epoch, memory_format=layout)

    def names(self, indices: Tensor) -> list[str]:
        """What images are called, for messages."""
        return [self.packed.name(int(i)) for i in indices]

    def record(self) -> dict[str, Any]:
        """What the result depends on besides the settings."""
        return environment(self.device, self.precision) | {"processes": distributed.world_size()}


def prepare(
    settings: PretrainSettings,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Training:
    """Images, views, networks and optimizer of a training.

    Args:
        progress: told how many images of how many are decoded.
        say: told what takes long and shows no progress.

    Raises:
        UsageError, DataError, ResourceError: what cannot be had, and what to do.
    """
    processes = distributed.world_size()
    if settings.batch_size % (processes * settings.accumulate):
        raise UsageError(
            f"A batch of {settings.batch_size} images cannot be shared by {processes} processes"
            f"{f' in {settings.accumulate} passes each' if settings.accumulate > 1 else ''}.",
            f"Choose a --batch-size that is a multiple of {processes * settings.accumulate}.",
        )
    if settings.micro_batch is not None and settings.micro_batch % processes:
        raise UsageError(
            f"A micro-batch of {settings.micro_batch} images cannot be shared by {processes} processes.",
            f"Choose a --micro-batch that is a multiple of {processes}.",
        )
    device = distributed.own_device(resolve_device(settings.device))
    precision = resolve_precision(settings.precision, device)
    prepare_device(device, deterministic=settings.deterministic)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    source = open_source(settings.data.path)
    size = suggest_view_size(source) if settings.views.size is None else settings.views.size
    stages = settings.views.stages(size)
    recipes = stages[-1]
    # built before the images are decoded: a wrong encoder should not cost an hour of decoding
    encoder = synchronize(create_encoder(settings.encoder, recipes[0].size, settings.seed))
    features = [count_features(encoder, stage[0].size) for stage in stages][-1]
    if len(source) < settings.batch_size:
        raise _too_few(settings, len(source))
    with distributed.in_turn():
        packed = pack(
            source,
            view_size=size,
            cache=settings.data.cache or default_cache(),
            progress=progress if distributed.is_main() else None,
            max_unreadable=settings.data.max_unreadable,
            keep=settings.data.pack,
        )
    if settings.data.limit is not None and settings.data.limit < len(packed):
        chosen = permutation(len(packed), settings.seed, epoch=-1)[: settings.data.limit]
        packed = packed.subset(chosen.sort().values.numpy())
    if len(packed) < settings.batch_size:
        raise _too_few(settings, len(packed))
    _check_alike(settings, packed.fingerprint)
    encoder = chunked(encoder, settings.micro_batches)  # before there are slow copies of it
    method = create_method(settings.method, encoder, features, settings.seed).to(device)
    synchronize(method)  # the heads too
    method = method.to(memory_format=layout_of(settings))  # type: ignore[call-overload]
    notes = [note for note in (source.note, packed.note) if note]
    if packed.unreadable:
        listing = "; ".join(f"{name} ({reason})" for name, reason in packed.unreadable[:3])
        more = f" and {len(packed.unreadable) - 3} more" if len(packed.unreadable) > 3 else ""
        notes.append(f"{len(packed.unreadable)} unreadable images are replaced by their neighbours: {listing}{more}.")
    if settings.accumulate > 1 and processes > 1:
        notes.append("With --accumulate, several processes put other images into one pass than a single process does.")
    views = tuple(Views(stage, settings.seed, compile=settings.compile) for stage in stages)
    compiled = settings.compile and processes == 1
    graphs = settings.cuda_graphs and device.type == "cuda" and compiled
    if settings.compile and processes > 1:
        notes.append("torch.compile of the encoder is off: it is for one process.")
    elif settings.compile:
        images, layout = settings.batch_size // settings.accumulate, layout_of(settings)
        shapes = [[(images, 3, recipe.size, recipe.size) for recipe in stage] for stage in stages]
        sizes = {shape for stage in shapes for shape in stage}
        say(f"Compiling the encoder for {len(sizes)} size{'s' * (len(sizes) > 1)} of views; each may take a minute.")
        likes = [[torch.rand(s, device=device).to(memory_format=layout) for s in stage] for stage in shapes]
        if problem := compile_encoders(method, likes, precision, graphs):
            notes.append(f"torch.compile of the encoder is off: {problem}")
            compiled = graphs = False
    if settings.cuda_graphs and not graphs:
        notes.append("CUDA graphs are off: they need a CUDA device, one process and a compiled encoder.")
    if settings.compile and device.type != "cpu":
        allow_compilations(2 * sum(len(stage) for stage in stages))
        share, (_, height, width, _) = settings.batch_size // processes, packed.images.shape
        problems = (v.try_compile(share, height, width, device, layout_of(settings)) for v in views)
        if problem := next(filter(None, problems), None):
            notes.append(f"torch.compile of the views is off: {problem}")
    return Training(
        settings=settings,
        device=device,
        precision=precision,
        packed=packed,
        stages=views,
        method=method,
        card=EncoderCard(
            name=settings.encoder.name,
            width=settings.encoder.width,
            small_stem=settings.encoder.small_stem(recipes[0].size),
            num_features=features,
            size=recipes[0].size,
            mean=recipes[0].mean,
            std=recipes[0].std,
            seed=settings.seed,
            data_fingerprint=packed.fingerprint,
            dim=settings.encoder.dim,
        ),
        optimizer=create_optimizer(settings.optimizer, method),
        steps_per_epoch=len(packed) // settings.batch_size,
        notes=tuple(notes),
        compiled=compiled,
        graphs=graphs,
    )


def layout_of(settings: PretrainSettings) -> torch.memory_format:
    """Of images in memory."""
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def _too_few(settings: PretrainSettings, images: int) -> DataError:
    if images < 2:
        return DataError(f"{settings.data.path} holds {images} image(s); at least two are needed.", "Give more images.")
    return DataError(
        f"{settings.data.path} holds {images} images, fewer than one batch of {settings.batch_size}.",
        f"Give --batch-size {max(2, images // 2)} or less, or more images.",
    )


@torch.no_grad()
def count_features(encoder: nn.Module, size: int) -> int:
    """The width F of the features that an encoder gives for views of this size."""
    was_training = encoder.training
    try:
        features: Tensor = encoder.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"The encoder does not take views of {size} px: {str(error).strip() or type(error).__name__}.",
            "Give --views.size the side it was made for (and no --views.start-size), or another --encoder.",
        ) from error
    encoder.train(was_training)
    return features.shape[1]


def check_same_run(settings: PretrainSettings, fingerprint: str, state: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run with other settings or other images.

    Raises:
        CheckpointError, DataError: naming what differs.
    """
    then, now = (flatten(tomllib.loads(config)) for config in (state["config"], to_toml(settings)))
    if differing := _differing(then, now):
        listing = ", ".join(f"{n} was {then.get(n)!r} and is {now.get(n)!r}" for n in differing)
        raise CheckpointError(
            f"The run in {folder} began with other settings: {listing}.",
            "Give the same to continue it, another --out for a new run, or --overwrite to replace it.",
        )
    if state["fingerprint"] != fingerprint and not settings.allow_data_change:
        raise DataError(
            f"The images in {settings.data.path} are not those that the run in {folder} began with.",
            "Restore them, give --allow-data-change to continue all the same, or another --out for a new run.",
        )


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings that differ and that a training depends on."""
    return [n for n in sorted(one.keys() | other.keys()) if n not in NEUTRAL and one.get(n) != other.get(n)]


def _check_alike(settings: PretrainSettings, fingerprint: str) -> None:
    """Refuse to train on several processes that were not told the same, or find other images on their machine.

    Raises:
        UsageError: naming what differs.
    """
    own = flatten(tomllib.loads(to_toml(settings))) | {"images": fingerprint}
    if differing := _differing(own, distributed.from_main(lambda: own)):
        raise UsageError(
            f"Process {distributed.rank()} differs from the main one in: {', '.join(differing)}.",
            "Start all processes with the same command, and give each machine the same images.",
        )
    distributed.barrier()  # the others learn of it here
