"""The options of a settings dataclass: their names, their types, and what is wrong with a value or a flag."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Sequence
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


def convert(value: Any, kind: Any) -> Any:
    """A value from a file or (as text) from a flag, as the type that an option has.

    Raises:
        ValueError: it is not one; the message completes "must be ...".

    >>> convert("3", int), convert("0.5", float | None), convert("none", float | None)
    (3, 0.5, None)
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return convert(value, next(k for k in get_args(kind) if k is not type(None)))
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
            return kind(value)
        except (ValueError, TypeError):
            raise ValueError("a whole number" if kind is int else "a number") from None
    if not isinstance(value, str):
        raise ValueError("text in quotes")
    return Path(value).expanduser() if kind is Path else value


def check_flags(argv: Sequence[str], known: dict[str, Option]) -> list[str]:
    """What is wrong with flags, a sentence each."""
    by_flag = {option.flag: option for option in known.values()}
    positionals = [option for option in known.values() if option.positional]
    problems, seen = [], set()
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if positionals:
                seen.add(positionals[0].path)
                if get_origin(positionals[0].kind) is not tuple:
                    positionals.pop(0)
            else:
                problems.append(f"{word!r} stands alone: every value needs its option before it.")
            continue
        name, equals, text = word[2:].replace("_", "-").partition("=")
        group, _, last = name.rpartition(".")
        negated = f"{group}.{last[3:]}".lstrip(".") if last.startswith("no-") else name
        option = by_flag.get(name) or by_flag.get(negated)
        if option is None or (name != negated and name not in by_flag and option.kind is not bool):
            problems.append(f"--{name} is unknown.{suggestion('--' + name, ['--' + f for f in by_flag])}")
            while words and not words[0].startswith("--"):
                words.pop(0)
            continue
        if option.kind is bool:
            continue
        given: Any = [text] if equals else []
        while not equals and words and not words[0].startswith("--"):
            given.append(words.pop(0))
            if get_origin(option.kind) is not tuple:
                break
        if not given:
            problems.append(f"--{name} needs a value.")
            continue
        try:
            convert(given if get_origin(option.kind) is tuple else given[0], option.kind)
        except ValueError as error:
            problems.append(f"--{name} must be {error}; it is {' '.join(given)!r}.")
    problems += [f"{option.flag.upper()} is missing." for option in positionals if option.path not in seen]
    given = set(flags_given(argv, known))
    problems += [
        f"--{option.flag} is missing."
        for option in known.values()
        if option.required and not option.positional and option.path not in given
    ]
    return problems


def flags_given(argv: Sequence[str], known: dict[str, Option]) -> Iterable[str]:
    given = {word[2:].partition("=")[0].replace("_", "-").replace("no-", "") for word in argv if word.startswith("--")}
    return [path for path, option in known.items() if option.flag in given]


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    for i, word in enumerate(argv):
        if word == f"--{flag}" and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            return argv[i + 1]
        if word.startswith(f"--{flag}="):
            return word.partition("=")[2]
    return None
