"""What each verb does, with its progress on the terminal; the work itself lies in the rooms below."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from compressl import distributed, pictures
from compressl.console import PatientConsole
from compressl.data import PackedImages, default_cache, open_splits, pack, suggest_view_size
from compressl.devices import is_out_of_memory, resolve_device, resolve_precision
from compressl.errors import CheckpointError, ResourceError, UsageError
from compressl.evaluation.ground import Ground
from compressl.evaluation.labelled import Labelled
from compressl.evaluation.protocol import Evaluation
from compressl.evaluation.protocol import evaluate as measure
from compressl.evaluation.subject import Subject, is_name, open_subject
from compressl.files import write_atomically
from compressl.methods import Method, create_method
from compressl.models import create_encoder
from compressl.runs import RunFolder
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.report import ReportSettings
from compressl.training import checkpoint

console = PatientConsole(highlight=False)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that is counted; shown only once there is something to count."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, int] = {}

        def advance(done: int, total: int, label: str = what) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(escape(label), total=total or None)
            bar.update(tasks[label], completed=done, total=total or None)  # type: ignore[arg-type]

        yield advance


def pretrain(settings: PretrainSettings, sources: dict[str, str] | None = None, *, hint: bool = True) -> RunFolder:
    """Train, and say what to do next unless ``hint`` is off."""
    from compressl.training.loop import pretrain as train

    with distributed.processes():
        console.quiet |= not distributed.is_main()
        with counting("decoding images") as progress:
            run = train(settings, sources=sources, console=console, progress=progress)
    if hint:
        console.print(f"The encoder is in {run.path}.", markup=False)
        console.print(f"Next: compressl evaluate {run.path} --data <labelled images>", markup=False)
    return run


def evaluate(settings: EvaluateSettings, *, quiet: bool = False) -> Evaluation:
    """Evaluate an encoder, write evaluation.json and the picture of neighbours, print the tables unless ``quiet``."""
    device = resolve_device(settings.device)
    out = settings.out or _default_result(settings.run)
    if settings.out is not None:
        check_file(out)  # now, not after the measuring
    sources = open_splits(settings.data, settings.test, seed=settings.seed)
    subject = open_subject(settings, suggest_view_size(sources.train))
    packed: dict[str, PackedImages] = {}
    with counting("decoding images") as progress:
        for role, source in (("training", sources.train), ("test", sources.test)):
            packed[role] = pack(
                source, view_size=subject.card.size, cache=settings.cache or default_cache(), progress=progress
            )
            for name, reason in packed[role].unreadable:
                console.print(f"Left out of the {role} images: {name} ({reason}).", markup=False)
    settings = replace(settings, precision=resolve_precision(settings.precision, device))  # type: ignore[arg-type]
    with counting("features") as progress, memory_errors(settings.batch_size):
        ground = Ground.of(
            subject.encoder,
            subject.card,
            Labelled.of(packed["training"], "training", settings.limit, settings.seed),
            Labelled.of(packed["test"], "test"),
            settings,
            device,
            class_names=packed["training"].class_names,
            split=sources.split_description,
            method=subject.method,
            views=subject.views,
            history=history(settings.run, subject),
            advance=lambda what, done, total: progress(done, total, what),  # type: ignore[call-arg]
        )
        result = measure(ground)
    write_atomically(out, json.dumps(result.record, indent=2))
    picture = out.with_name("neighbors.png") if out.name == "evaluation.json" else out.with_suffix(".neighbors.png")
    write_atomically(picture, neighbor_sheet(result, ground.train, ground.test))
    if quiet:
        return result
    if result.record["results"]:
        print_results({settings.run.name: result.record})
    print_measures(result.record)
    for name, sentence in result.record["skipped"].items():
        console.print(f"Not measured: {name}. {sentence}", markup=False)
    console.print(f"Written to {out}. Next: compressl report {out.parent}", markup=False)
    return result


def _default_result(spec: Path) -> Path:
    """evaluation.json in the run folder; for a named model or a file, in a folder of its own under runs/."""
    if is_name(spec.as_posix()) or spec.suffix == ".safetensors":
        name = spec.stem if spec.suffix == ".safetensors" else spec.as_posix().replace("/", "-")
        folder = Path("runs") / name if spec.name != "encoder.safetensors" else spec.parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "evaluation.json"
    return RunFolder(spec).evaluation


def history(run: Path, subject: Subject) -> list[tuple[int, Callable[[], Method]]]:
    """The checkpoints of a run with a way to the method as it was at each, oldest first."""
    training = subject.training
    if training is None or not run.is_dir():
        return []

    def reader(path: Path) -> Callable[[], Method]:
        def read() -> Method:
            encoder = create_encoder(subject.card.settings(), subject.card.size)
            method = create_method(training.method, encoder, subject.card.num_features)
            method.load_state_dict(checkpoint.load(path)["method"])
            return method.eval()

        return read

    found = reversed(checkpoint.checkpoints(RunFolder(run).checkpoints))
    return [(int(path.name.removeprefix("step-")), reader(path)) for path in found]


def check_file(out: Path) -> None:
    """Refuse an output that is no file in a folder that exists.

    Raises:
        UsageError: otherwise.
    """
    if out.is_dir() or not out.parent.is_dir():
        what = f"{out} is a folder" if out.is_dir() else f"{out.parent} is no folder"
        raise UsageError(f"{what}.", "Give --out a file in a folder that exists.")


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """A failed allocation becomes a sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"Out of memory with --batch-size {batch_size}.", f"Try --batch-size {max(1, batch_size // 4)}, or --limit."
        ) from error


def neighbor_sheet(result: Evaluation, train: Labelled, test: Labelled) -> bytes:
    """Test images and their nearest training images; a full frame where the class agrees, a thin one elsewhere."""
    rows, frames = [], []
    for query, found in zip(result.queries, result.neighbors, strict=True):
        pictures_in_row = [_stored(test, int(query)), *(_stored(train, int(j)) for j in found)]
        rows.append(pictures_in_row)
        same = [train.labels[j] == test.labels[query] for j in found]
        frames.append([None, *(pictures.RIGHT if s else pictures.WRONG for s in same)])
    return pictures.sheet(rows, frames)


def _stored(images: Labelled, position: int) -> pictures.Pixels:
    pixels, geometry = images.packed.gather(images.indices[position : position + 1])
    return pictures.from_store(pixels[0], geometry[0])


def print_results(records: dict[str, dict]) -> None:  # type: ignore[type-arg]
    """The figures of one or several evaluations as a table."""
    first = next(iter(records.values()))
    data = first["data"]
    table = Table(
        title=f"{data['name']}: {data['train_images']:,} training and {data['test_images']:,} test images, "
        f"{len(data['classes'])} classes, chance {data['chance']:.1%}",
        title_justify="left",
        box=None,
        padding=(0, 1),
    )
    for column in ("representation", "size", "kNN", "linear probe"):
        table.add_column(column, justify="left" if column == "representation" else "right", no_wrap=True)
    for run, record in records.items():
        for name, result in record["results"].items():
            if name != "encoder" and record is not first:
                continue  # the baselines are shown once
            cells = [
                f"{result[m]['value']:.1%} [dim]\\[{result[m]['low']:.1%}, {result[m]['high']:.1%}][/]"
                for m in ("knn", "linear")
            ]
            table.add_row(escape(run if name == "encoder" else name), str(result["dimension"]), *cells)
    console.print(table)


def print_measures(record: dict[str, Any]) -> None:
    """A line for each further measure, the encoder's figure beside that of random weights; the report has the rest."""
    found = record["measures"]
    lines: list[tuple[str, Callable[[str], str]]] = [
        ("accuracy under corruption", lambda name: _share(found["robustness"]["results"][name]["corrupted"])),
        ("kept information", lambda name: _bounds(found["information"]["representations"][name]["kept"])),
        ("superfluous information", lambda name: _bounds(found["information"]["representations"][name]["superfluous"])),
        ("invariance to views", lambda name: _number(found["geometry"]["results"][name]["invariance"]["invariance"])),
        ("RankMe", lambda name: f"{found['geometry']['results'][name]['dimension']['rankme']:.1f}"),
        ("local slope", lambda name: _number(found["lipschitz"]["results"][name]["local"]["slope"]["mean"])),
        (
            "calibration error",
            lambda name: _share(found["uncertainty"]["results"][name]["calibration"]["before"]["ece"]),
        ),
    ]
    table = Table(box=None, padding=(0, 1))
    for column in ("measure", "encoder", "random encoder"):
        table.add_column(column, justify="left" if column == "measure" else "right", no_wrap=True)
    for label, show in lines:
        with contextlib.suppress(KeyError, TypeError):  # not measured, or in part: the record says why
            table.add_row(label, *(show(name) for name in ("encoder", "random encoder")))
    if table.row_count:
        console.print()
        console.print(table)


def _share(figure: dict[str, float]) -> str:
    return f"{figure['value']:.1%} [dim]\\[{figure['low']:.1%}, {figure['high']:.1%}][/]"


def _number(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [dim]\\[{figure['low']:.3f}, {figure['high']:.3f}][/]"


def _bounds(figure: dict[str, dict[str, float]]) -> str:
    """From the low end of the lower bound to the high end of the upper one."""
    return f"{figure['lower']['low']:.1f} to {figure['upper']['high']:.1f} bits"


def report(settings: ReportSettings) -> Path:
    """Write the page."""
    from compressl.report import write_report

    if settings.out is not None:
        check_file(settings.out)
    missing = [str(path) for path in settings.runs if RunFolder(path).status() is None]
    if missing:
        raise CheckpointError(f"{', '.join(missing)} holds no run.", "Give folders that `compressl pretrain` wrote.")
    out = settings.out or (settings.runs[0] if len(settings.runs) == 1 else settings.runs[0].parent) / "report.html"
    write_report([RunFolder(path) for path in settings.runs], out)
    console.print(f"Written to {out}", markup=False)
    return out
