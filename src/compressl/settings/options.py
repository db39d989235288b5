"""The options of a settings dataclass: their names, their types, and what is wrong with a value or a flag."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from compressl.settings.spelling import suggestion


@dataclass(frozen=True)
class Option:
    """One setting: where it lives in the dataclass (``data.path``), how it is spelt as a flag (``data``), its type."""

    path: str
    flag: str
    kind: Any
    positional: bool = False
    required: bool = False


def options(settings: Any, group: str = "") -> dict[str, Option]:
    """Every option of a dataclass, nested ones included, by path."""
    found: dict[str, Option] = {}
    for name, hint in get_type_hints(settings, include_extras=True).items():
        if name not in settings.__dataclass_fields__:
            continue
        kind, extras = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
        path = f"{group}{name}"
        if dataclasses.is_dataclass(kind):
            found |= options(kind, f"{path}.")
            continue
        flag = next((extra.name for extra in extras if getattr(extra, "name", None)), path)
        positional = any(extra is tyro.conf.Positional or "Positional" in repr(extra) for extra in extras)
        field = settings.__dataclass_fields__[name]
        required = field.default is field.default_factory is dataclasses.MISSING
        found[path] = Option(path, flag.replace("_", "-"), kind, positional, required)
    return found


def check_device(name: str) -> list[str]:
    """The sentence about a device that there cannot be, if it is one."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        return []
    return [f"device {name!r} is unknown. Known: auto, cpu, cuda, cuda:<n>, mps."]


def check_seed(seed: int) -> list[str]:
    """The sentence about a seed that random generators do not take, if it is one."""
    return [] if 0 <= seed < 2**63 else [f"seed lies between 0 and 2^63; it is {seed}."]


def convert(value: Any, kind: Any) -> Any:
    """A value from a file or (as text) from a flag, as the type that an option has.

    Raises:
        ValueError: it is not one; the message completes "must be ...".

    >>> convert("3", int), convert("0.5", float | None), convert("none", float | None)
    (3, 0.5, None)
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None or (value == "none" and _inner(kind) in (int, float)):
            return None
        return convert(value, _inner(kind))
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(f"one of {', '.join(get_args(kind))}{suggestion(str(value), get_args(kind))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError("a list of numbers")
        return tuple(convert(item, get_args(kind)[0]) for item in value)
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if kind is int or kind is float:
        try:
            if isinstance(value, bool) or (kind is int and isinstance(value, float)):
                raise ValueError
            number = kind(value)
            if not math.isfinite(number):
                raise ValueError
            return number
        except (ValueError, TypeError, OverflowError):
            raise ValueError("a whole number" if kind is int else "a number") from None
    if not isinstance(value, str):
        raise ValueError("text in quotes")
    return Path(value).expanduser() if kind is Path else value


def _inner(kind: Any) -> Any:
    return next((k for k in get_args(kind) if k is not type(None)), None)


def is_optional_number(option: Option) -> bool:
    """Whether ``none`` stands for no value."""
    return _inner(option.kind) in (int, float) and type(None) in get_args(option.kind)


def read_flags(argv: Sequence[str], known: dict[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """The values that flags give, by path, and what is wrong with the others, a sentence each."""
    by_flag = {option.flag: option for option in known.values()}
    positionals = [option for option in known.values() if option.positional]
    values: dict[str, Any] = {}
    problems: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            option = next((o for o in positionals if o.path not in values or _is_list(o)), None)
            if option is None:
                problems.append(f"{word!r} stands alone: every value needs its option before it.")
                continue
            given: list[str] = [word]
            while _is_list(option) and words and not words[0].startswith("--"):
                given.append(words.pop(0))
        else:
            name, equals, text = word[2:].partition("=")
            name = name.replace("_", "-")
            group, dot, last = name.rpartition(".")
            positive = by_flag.get(f"{group}{dot}{last.removeprefix('no-')}")
            option = by_flag.get(name) or (positive if positive and positive.kind is bool else None)
            if option is None:
                problems.append(f"--{name} is unknown.{suggestion('--' + name, ['--' + f for f in by_flag])}")
                while words and not words[0].startswith("--"):
                    words.pop(0)
                continue
            if option.kind is bool:
                values[option.path] = name == option.flag
                if equals:
                    problems.append(f"--{name} takes no value; say --{name} or --{_negated(option.flag)}.")
                continue
            given = [text] if equals else []
            while not equals and words and not words[0].startswith("--") and (not given or _is_list(option)):
                given.append(words.pop(0))
            if not given or "" in given:
                problems.append(f"--{name} needs a value.")
                continue
        try:
            values[option.path] = convert(given if _is_list(option) else given[0], option.kind)
        except ValueError as error:
            problems.append(f"--{option.flag} must be {error}; it is {' '.join(given)!r}.")
    spoken_of = " ".join(problems)
    problems += [
        f"{option.flag.upper() if option.positional else '--' + option.flag} is missing."
        for option in known.values()
        if option.required and option.path not in values and f"--{option.flag} " not in spoken_of
    ]
    return values, problems


def _is_list(option: Option) -> bool:
    return get_origin(option.kind) is tuple


def _negated(flag: str) -> str:
    group, dot, last = flag.rpartition(".")
    return f"{group}{dot}no-{last}"


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag, the last if it is given more than once."""
    found = None
    for i, word in enumerate(argv):
        if word == f"--{flag}" and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            found = argv[i + 1]
        if word.startswith(f"--{flag}="):
            found = word.partition("=")[2]
    return found
