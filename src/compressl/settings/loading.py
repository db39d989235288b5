"""From recipe, file and flags to one configuration: precedence recipe < file < flags, all problems at once.

tyro parses the flags and writes the help; it stops at the first problem, so every flag and every line of a file is
checked here before, against the same dataclass.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from compressl.errors import UsageError
from compressl.settings.methods import METHODS
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.spelling import suggestion

RECIPES = Path(__file__).parent.parent / "recipes"

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One setting: where it lives in the dataclass (``data.path``), how it is spelt as a flag (``data``), its type."""

    path: str
    flag: str
    kind: Any
    positional: bool = False


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
        found[path] = Option(path, flag.replace("_", "-"), kind, positional)
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


def load_pretrain(argv: Sequence[str], prog: str = "compressl pretrain") -> tuple[PretrainSettings, dict[str, str]]:
    """The configuration of a pretraining and, for every value that is not a default, where it came from.

    Raises:
        UsageError: everything that is wrong with recipe, file and flags, one line each.
        SystemExit: after ``--help``.
    """
    problems: list[str] = []
    files = []
    if recipe := _flag_value(argv, "recipe"):
        files.append(("recipe " + recipe, _find_recipe(recipe, problems)))
    if config := _flag_value(argv, "config"):
        files.append((config, Path(config).expanduser()))
    tables = [(label, _read(path, problems)) for label, path in files if path is not None]

    method = _flag_value(argv, "method")
    for _, table in tables:
        in_file = table.get("method", {})
        method = (
            method
            if _flag_value(argv, "method")
            else (in_file.get("name") if isinstance(in_file, dict) else None) or method
        )
    method = method or str(PretrainSettings().method.name)
    if method not in METHODS:
        problems.append(f"method {method!r} is unknown.{suggestion(method, METHODS)} Known: {', '.join(METHODS)}.")
    own = METHODS.get(method, type(PretrainSettings().method))
    settings = dataclasses.make_dataclass(
        "PretrainSettings",
        [("method", own, dataclasses.field(default_factory=own))],
        bases=(PretrainSettings,),
        frozen=True,
        namespace={"__doc__": PretrainSettings.__doc__},
    )
    known = options(settings)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for label, table in tables:
        for path, value in _flatten(table).items():
            if path in ("description", "result"):  # a recipe's words about itself
                continue
            if path not in known:
                problems.append(f"{label}: {path!r} is unknown.{suggestion(path, known)}")
                continue
            try:
                values[path], sources[path] = convert(value, known[path].kind), label
            except ValueError as error:
                problems.append(f"{label}: {path} must be {error}; it is {value!r}.")
    values["method.name"] = own().name
    default = _build(settings, values)
    parsed: PretrainSettings = _parse(settings, default, argv, prog, problems)
    for path in _flags_given(argv, known):
        sources[path] = "flag"
    return parsed, sources


def load_flags(settings: type[T], argv: Sequence[str], prog: str) -> T:
    """A configuration that has flags only.

    Raises:
        UsageError: everything that is wrong with them, one line each.
        SystemExit: after ``--help``.
    """
    parsed: T = _parse(settings, None, argv, prog, [])
    return parsed


def _parse(settings: Any, default: Any, argv: Sequence[str], prog: str, problems: list[str]) -> Any:
    if not {"-h", "--help"} & set(argv):
        problems += check_flags(argv, options(settings))
    if problems:
        # what is left of the configuration is still checked, so that nothing waits for the second attempt
        problems += [] if default is None else [p for p in default.check() if "--data" not in p]
        raise UsageError("\n".join(dict.fromkeys(problems)), f"See `{prog} --help`.")
    parsed: Any = tyro.cli(settings, default=default, args=list(argv), prog=prog, description=settings.__doc__)
    if wrong := parsed.check():
        raise UsageError("\n".join(wrong), f"See `{prog} --help`.")
    return parsed


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
    return problems


def _flags_given(argv: Sequence[str], known: dict[str, Option]) -> Iterable[str]:
    given = {word[2:].partition("=")[0].replace("_", "-").replace("no-", "") for word in argv if word.startswith("--")}
    return [path for path, option in known.items() if option.flag in given]


def _flag_value(argv: Sequence[str], flag: str) -> str | None:
    for i, word in enumerate(argv):
        if word == f"--{flag}" and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            return argv[i + 1]
        if word.startswith(f"--{flag}="):
            return word.partition("=")[2]
    return None


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, like ``cifar10/c-simclr``."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.toml"))


def _find_recipe(name: str, problems: list[str]) -> Path | None:
    if name in recipe_names():
        return RECIPES / f"{name}.toml"
    problems.append(
        f"recipe {name!r} is unknown.{suggestion(name, recipe_names())} Known: {', '.join(recipe_names()) or 'none'}; "
        "a file of your own goes to --config."
    )
    return None


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}.")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path} is not TOML: {error}.")
    return {}


def _flatten(table: dict[str, Any], group: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flatten(value, f"{group}{name}.") if isinstance(value, dict) else {f"{group}{name}": value}
    return flat


def _build(settings: type, values: dict[str, Any], group: str = "") -> Any:
    hints = get_type_hints(settings)
    arguments = {}
    for field in dataclasses.fields(settings):
        path = f"{group}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, f"{path}.")
        elif path in values:
            arguments[field.name] = values[path]
    return settings(**arguments)


def to_toml(settings: Any, sources: dict[str, str] | None = None) -> str:
    """A configuration with every default written out, as TOML that ``--config`` reads back.

    >>> from compressl.settings.methods import BYOLSettings
    >>> print(to_toml(BYOLSettings(weight=2.0)).splitlines()[3])
    weight = 2.0
    """
    lines: list[str] = []
    _write(settings, "", lines, sources or {})
    return "\n".join(lines).strip() + "\n"


def _write(settings: Any, group: str, lines: list[str], sources: dict[str, str]) -> None:
    nested = []
    for field in dataclasses.fields(settings):
        value, path = getattr(settings, field.name), f"{group}{field.name}"
        if dataclasses.is_dataclass(value):
            nested.append((path, value))
            continue
        text = f"# {field.name} is not set" if value is None else f"{field.name} = {_toml_value(value)}"
        lines.append(text + (f"  # {sources[path]}" if path in sources else ""))
    for path, value in nested:
        lines += ["", f"[{path}]"]
        _write(value, f"{path}.", lines, sources)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(v) for v in value)}]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    escaped = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped)
    return f'"{escaped}"'


def no_options(argv: Sequence[str], prog: str, text: str | None) -> None:
    """For a verb without options: its help, or what is wrong with what was given.

    Raises:
        UsageError: something was given.
        SystemExit: after ``--help``.
    """
    if {"-h", "--help"} & set(argv):
        print(f"usage: {prog}\n\n{text}")
        raise SystemExit(0)
    if argv:
        raise UsageError(f"{prog} takes no options; it was given {' '.join(argv)!r}.")
