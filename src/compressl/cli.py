"""The ``compressl`` command: its verbs, and nothing else. Each imports what it needs when it is called, so that
``--help`` and every configuration error answer at once."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from compressl import __version__
from compressl.errors import CompresslError


def pretrain(argv: Sequence[str]) -> None:
    """Learn an encoder from unlabelled images."""
    from compressl.settings.loading import load_pretrain

    try:
        settings, sources = load_pretrain(argv)
    except CompresslError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1":
            raise
        time.sleep(60)  # torchrun gave every process these words, and ends all with the first: let it be the one above
        raise SystemExit(error.exit_code) from None
    from compressl import verbs

    verbs.pretrain(settings, sources)


def evaluate(argv: Sequence[str]) -> None:
    """Measure what an encoder keeps, beside raw pixels and a random one."""
    from compressl.settings.evaluate import EvaluateSettings
    from compressl.settings.loading import load_flags

    settings = load_flags(EvaluateSettings, argv, "compressl evaluate")
    from compressl import verbs

    verbs.evaluate(settings)


def report(argv: Sequence[str]) -> None:
    """One HTML page about one run, or comparing several."""
    from compressl.settings.loading import load_flags
    from compressl.settings.report import ReportSettings

    settings = load_flags(ReportSettings, argv, "compressl report")
    from compressl import verbs

    verbs.report(settings)


def list_(argv: Sequence[str]) -> None:
    """Methods, encoders, view recipes and training recipes."""
    from compressl.settings.catalog import print_catalog
    from compressl.settings.loading import no_options

    no_options(argv, "compressl list", print_catalog.__doc__)
    print_catalog()


def doctor(argv: Sequence[str]) -> None:
    """What is wrong with this machine, and the cure."""
    from compressl.settings.doctor import DoctorSettings
    from compressl.settings.loading import load_flags

    settings = load_flags(DoctorSettings, argv, "compressl doctor")
    from compressl.doctor import examine

    if not examine(cache=settings.cache, remove_stale=settings.remove_stale):
        raise SystemExit(1)


def demo(argv: Sequence[str]) -> None:
    """SimCLR against C-SimCLR on built-in images: train, evaluate, report, in minutes on a CPU."""
    from compressl.settings.demo import DemoSettings
    from compressl.settings.loading import load_flags

    settings = load_flags(DemoSettings, argv, "compressl demo")
    from compressl import demo as demonstration

    demonstration.run(settings)


VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": demo,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "report": report,
    "list": list_,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb; end with the exit codes of :mod:`compressl.errors`."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        print(f"compressl {__version__}")
        raise SystemExit(0)
    try:
        if words[0] not in VERBS:
            from compressl.errors import UsageError
            from compressl.settings.spelling import suggestion

            raise UsageError(f"There is no verb {words[0]!r}.{suggestion(words[0], VERBS)}", "See `compressl --help`.")
        VERBS[words[0]](words[1:])
    except CompresslError as error:
        if debug:
            traceback.print_exc()
        print(f"compressl: {error.problem}", file=sys.stderr)
        if error.next_step:
            print(error.next_step, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("compressl: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `compressl list | head`
        sys.stderr.close()
        raise SystemExit(0) from None


def usage() -> str:
    """The text of ``compressl --help``."""
    verbs = "\n".join(f"  {name:<10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items())
    return (
        f"compressl {__version__}: representations of images, compressed and measured.\n\n"
        f"usage: compressl VERB [OPTIONS]      `compressl VERB --help` lists the options of a verb\n\n{verbs}\n\n"
        "  --debug    after a failure, show where in the code it happened\n"
        "  --version  the version\n\n"
        "example:\n"
        "  compressl pretrain --method c-simclr --data ~/photos --out runs/photos\n"
        "  compressl evaluate runs/photos --data ~/labelled\n"
        "  compressl report runs/*"
    )
