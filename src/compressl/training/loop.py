"""The training loop: one function, top to bottom.

    compressl pretrain --method c-simclr --data photos --out runs/photos
    torchrun --nproc-per-node 4 -m compressl pretrain --method c-simclr --data photos --out runs/photos

Run it again to continue a run that was interrupted: order, augmentation and noise are functions of the step, so the
result is the same to the bit as if it had never stopped (same software, device type and number of threads).

Under torchrun every process runs this loop on its share of each batch, decides what the others decide, and one writes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from compressl import distributed
from compressl.data import batches
from compressl.devices import Later, autocast, is_out_of_memory
from compressl.errors import CheckpointError, CompresslError, DataError, Interrupted, NumericsError, ResourceError
from compressl.methods.saved import save_heads
from compressl.models import save_encoder
from compressl.randomness import generator, key
from compressl.runs import RunFolder, claim, clear, lock
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.toml import to_toml
from compressl.training import checkpoint, guards, online
from compressl.training.announce import announce, changes, picture_of_views
from compressl.training.metrics import open_metrics
from compressl.training.progress import TrainingProgress
from compressl.training.schedules import cosine_with_warmup
from compressl.training.setup import Training, check_same_run, prepare
from compressl.training.signals import StopRequest

ALARM_EVERY = 50  # steps between looks at the spread of the embeddings


@distributed.processes()
def pretrain(
    settings: PretrainSettings,
    *,
    sources: dict[str, str] | None = None,
    console: Console | None = None,
    progress: Callable[[int, int], None] | None = None,
    after_step: Callable[[int], None] = lambda step: None,
) -> RunFolder:
    """Learn an encoder from unlabelled images and leave it in the run folder.

    Args:
        sources: where each setting that is not a default came from, for config.toml.
        progress: told how many images of how many are decoded.
        after_step: called with the number of steps done, when everything about the step is on record.

    Raises:
        CompresslError: one of its kinds, each with what is wrong and what to do.
    """
    folder, main = settings.run_folder(), distributed.is_main()
    console = console if main and console is not None else Console(quiet=True)
    run = claim(folder, overwrite=settings.overwrite) if main else RunFolder(folder, writes=False)
    began = False  # a training that fails before it begins changes nothing
    with lock(run.path) if main else contextlib.nullcontext():
        try:
            training = prepare(settings, progress, lambda sentence: console.print(sentence, highlight=False))
            distributed.barrier()  # what one process cannot prepare ends them all, before anything is written
            resumed = distributed.from_main(lambda: _find_start(training, run))
            record = training.record()
            history = run.resumed() if resumed else []
            if resumed is not None:
                history.append({"step": resumed.state["step"], "changed": changes(resumed, record)})
            run.set_status("running", resumed=history)
            began = True
            if resumed is None:
                run.write("config.toml", to_toml(settings, sources))
                run.write("environment.json", json.dumps(record, indent=2))
            announce(training, resumed, record, run, console)
            _train(training, resumed, run, console, after_step)
            if run.writes:
                save_encoder(training.method.encoder, training.card, run.path)
                save_heads(training.method, settings.method, run.path)
            run.set_status("finished")
        except Interrupted:
            run.set_status("interrupted")
            raise
        except CompresslError as error:
            _record_failure(run, str(error), began)
            raise
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _record_failure(run, "out of memory", began)
            raise ResourceError(
                f"Out of memory with --batch-size {settings.batch_size}.",
                f"Try --batch-size {max(2, settings.batch_size // 2)}, a smaller --micro-batch, --encoder.width or "
                "--views.size.",
            ) from error
    return run


def _find_start(training: Training, run: RunFolder) -> checkpoint.Loaded | None:
    """The checkpoint to continue from, or None; with ``--overwrite``, whatever cannot be continued is removed.

    Raises:
        CheckpointError, DataError: there is something that neither may be continued nor overwritten.
    """
    settings = training.settings
    claim(run.path, overwrite=settings.overwrite)  # again, now that nobody else can
    try:
        resumed = None if run.status() == "finished" else checkpoint.load_newest(run.checkpoints)
        if resumed is not None:
            check_same_run(settings, training.packed.fingerprint, resumed.state, run.path)
    except (CheckpointError, DataError):
        if not settings.overwrite:
            raise
        resumed = None
    if resumed is None:
        clear(run)
    return resumed


def _train(
    training: Training,
    resumed: checkpoint.Loaded | None,
    run: RunFolder,
    console: Console,
    after_step: Callable[[int], None],
) -> None:
    settings, device, method, optimizer = training.settings, training.device, training.method, training.optimizer
    guard, alarm, step, knn_score = guards.NonFiniteGuard(), guards.CollapseAlarm(), 0, None
    if resumed is not None:
        state = resumed.state
        try:
            method.load_state_dict(state["method"])
            optimizer.load_state_dict(state["optimizer"])
            guard = guards.NonFiniteGuard(**state["guard"])
            alarm = guards.CollapseAlarm(in_a_row=state["alarm"]["in_a_row"], raised=bool(state["alarm"]["raised"]))
            step = state["step"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{resumed.path} does not fit this version of compressl ({type(error).__name__}: {error}).",
                "Use the version that wrote it, another --out, or --overwrite.",
            ) from error
    total = training.total_steps
    save_every = settings.save_every_steps or settings.save_every * training.steps_per_epoch
    # the running statistics of the norms: a step that is skipped must leave them as they were
    buffers = [b for b in method.buffers() if b.is_floating_point()]
    kept = [b.clone() for b in buffers]
    metrics = open_metrics(run, resume_step=step, tensorboard=settings.tensorboard)
    loader = batches(
        training.packed,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_step=step,
        total_steps=total,
        device=device,
        resident=training.images_on_device,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    label = settings.method.name
    bar = TrainingProgress(console, total, step, settings.epochs, label)
    method.train()
    clock, waited, images = time.perf_counter(), loader.waited, 0
    try:
        with StopRequest() as stop, bar:
            upcoming = training.look(loader)
            while upcoming is not None:
                batch, views = upcoming
                lr = cosine_with_warmup(step, total, training.warmup, training.peak_lr)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                # for layers that draw, such as dropout: each process for its own images
                torch.manual_seed(key("step", settings.seed, step) + distributed.rank())
                if step == 0 and run.writes:
                    run.write("views.png", picture_of_views(training, batch, views))
                _copy(kept, buffers)
                method.before_step(step / total)
                loss, terms = _forward_backward(training, views, step)
                norm = torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
                finite = Later(torch.isfinite(loss + norm))
                # queued behind this step's gradient: the device has work while the answer travels
                upcoming = training.look(loader)
                problem = guard.check(
                    bool(finite.wait()),
                    step=step,
                    folder=run.path,
                    images=lambda batch=batch: training.names(distributed.gather(batch.indices.to(device))),  # type: ignore[misc]
                    terms=lambda terms=terms: {name: float(value) for name, value in terms.items()},  # type: ignore[misc]
                    writes=run.writes,
                )
                if problem is None:
                    if settings.optimizer.clip:  # neither absent nor 0
                        torch.nn.utils.clip_grads_with_norm_(method.parameters(), settings.optimizer.clip, norm)
                    optimizer.step()
                    method.after_step(step / total)
                else:
                    _copy(buffers, kept)
                    bar.note(problem)
                optimizer.zero_grad()
                step += 1
                images += settings.batch_size

                line: dict[str, Any] = {"step": step, "epoch": batch.epoch}
                if problem is not None:
                    line["event"] = problem
                ends_epoch = step % training.steps_per_epoch == 0
                if problem is None and (step % settings.log_every == 0 or step == total):
                    values = {name: float(value) for name, value in terms.items()}
                    line |= {"loss": float(loss), **values, "lr": lr, "gradient_norm": float(norm)}
                    seconds = time.perf_counter() - clock
                    rate, waiting = images / seconds, (loader.waited - waited) / seconds
                    line["time"] = {"images_per_second": round(rate, 1), "waiting": round(waiting, 4)}
                    bar.show(step, batch.epoch, float(loss), values, rate, waiting)
                    clock, waited, images = time.perf_counter(), loader.waited, 0
                if step % ALARM_EVERY == 0:
                    now = guards.spread(online.embed(training, views[0]))
                    line |= guards.as_dict(now)
                    if message := alarm.check(now, step):
                        line["event"] = message
                        bar.note(message)
                    if settings.on_collapse == "stop" and distributed.any_rank(alarm.sounding):
                        metrics.write(line)
                        raise NumericsError(f"The embeddings have collapsed at step {step}.", alarm.advice)
                if (ends_epoch and settings.knn_every and (batch.epoch + 1) % settings.knn_every == 0) or step == total:
                    before = time.perf_counter()
                    knn_score = online.knn_score(training)
                    clock += time.perf_counter() - before  # the rate is that of the training alone
                    if knn_score is not None:
                        line["knn"] = bar.knn = knn_score
                if len(line) > 2:
                    metrics.write(line)
                bar.advance(step)
                # asked once and together: what comes later is for the next step, and one signal stops every process
                stopping = distributed.any_rank(stop.name is not None)
                if run.writes and (step % save_every == 0 or step == total or stopping):
                    metrics.sync()
                    checkpoint.save(run.checkpoints, step, _state(training, guard, alarm), settings.keep)
                after_step(step)
                if stopping and step < total:
                    distributed.barrier()  # until it is saved: torchrun ends them all when the first one leaves
                    raise Interrupted(
                        f"{stop.name or 'A signal to another process'}: stopped after step {step} of {total}, which is "
                        f"saved in {run.checkpoints}.",
                        "Run the same command again to continue.",
                    )
    finally:
        loader.close()
        metrics.close()


def _copy(there: list[Tensor], here: list[Tensor]) -> None:
    if here:  # an encoder without batch norm has none
        torch._foreach_copy_(there, here)


def _forward_backward(training: Training, views: list[Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss, terms and gradients of a step over all processes, in as many passes as were asked for."""
    if training.graphs:  # what the last step left in the graphs' memory may be overwritten
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    noise = generator("noise", training.settings.seed, step, device=training.device)
    passes = training.settings.accumulate
    total = torch.zeros((), device=training.device)
    means: dict[str, Tensor] = {}
    for part in zip(*(view.chunk(passes) for view in views), strict=True):
        with autocast(training.device, training.precision):
            loss, terms = training.method(part, noise)
        (loss / passes).backward()
        total += loss.detach() / passes
        means = {name: value / passes + means.get(name, 0.0) for name, value in terms.items()}
    distributed.average_gradients(training.method.parameters())
    means = distributed.average(means | {"loss": total})
    return means.pop("loss"), means


def _state(training: Training, guard: guards.NonFiniteGuard, alarm: guards.CollapseAlarm) -> dict[str, Any]:
    return {
        "method": training.method.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "guard": guard.state(),
        "alarm": alarm.state(),
        "config": to_toml(training.settings),
        "fingerprint": training.packed.fingerprint,
        "environment": training.record(),
    }


def _record_failure(run: RunFolder, reason: str, began: bool) -> None:
    """Into run.json; a run that never began leaves nothing."""
    with contextlib.suppress(ResourceError):  # a full disk must not hide what went wrong first
        if began:
            run.set_status("failed", reason=reason)
