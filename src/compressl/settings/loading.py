"""From recipe, file and flags to one configuration, all problems at once.

Precedence: defaults < defaults of the method < recipe < file < flags.

tyro parses the flags and writes the help; it stops at the first problem, so every flag and every line of a file is
checked here before, against the same dataclass.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from compressl.errors import UsageError
from compressl.settings.methods import METHODS, MethodSettings
from compressl.settings.options import convert, flag_value, is_optional_number, options, read_flags
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.spelling import suggestion
from compressl.settings.toml import flatten

RECIPES = Path(__file__).parent.parent / "recipes"

T = TypeVar("T")


def load_pretrain(argv: Sequence[str], prog: str = "compressl pretrain") -> tuple[PretrainSettings, dict[str, str]]:
    """The configuration of a pretraining and, for every value that is not a default, where it came from.

    Raises:
        UsageError: everything that is wrong with recipe, file and flags, one line each.
        SystemExit: after ``--help``.
    """
    problems: list[str] = []
    tables: list[tuple[str, dict[str, Any]]] = []
    if config := flag_value(argv, "config"):
        tables.append((config, _read(Path(config).expanduser(), problems)))
    recipe = flag_value(argv, "recipe") or next((table["recipe"] for _, table in tables if "recipe" in table), None)
    if recipe is not None and (file := _find_recipe(str(recipe), problems)):
        tables.insert(0, (f"recipe {recipe}", _read(file, problems)))

    own = _method(argv, tables, problems)
    if _names_optimizer(argv, tables) in (None, own.optimizer.get("name", "sgd")):  # a learning rate is of an optimizer
        tables.insert(0, (f"default of {own().name}", {"optimizer": own.optimizer}))
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
        for path, value in flatten(table).items():
            if path == "description":  # a recipe's words about itself
                continue
            if path not in known:
                problems.append(f"{label}: {path!r} is unknown.{suggestion(path, known)}")
                continue
            try:
                values[path], sources[path] = convert(value, known[path].kind), label
            except ValueError as error:
                problems.append(f"{label}: {path} must be {error}; it is {value!r}.")
    values["method.name"] = own().name
    parsed: PretrainSettings = _parse(settings, values, argv, prog, problems)
    given, _ = read_flags(argv, known)
    return parsed, sources | dict.fromkeys(given, "flag")


def _method(argv: Sequence[str], tables: list[tuple[str, dict[str, Any]]], problems: list[str]) -> type[MethodSettings]:
    """The settings of the method that the flag names, else the file, else the recipe, else the default."""
    default = type(PretrainSettings().method)
    name: Any = default().name
    for _, table in tables:
        group = table.get("method")
        name = group.get("name", name) if isinstance(group, dict) else name
    flag = flag_value(argv, "method")
    name = name if flag is None else flag
    if not isinstance(name, str) or name not in METHODS:
        problems.append(f"method {name!r} is unknown.{suggestion(str(name), METHODS)} Known: {', '.join(METHODS)}.")
        return default
    return METHODS[name]


def _names_optimizer(argv: Sequence[str], tables: list[tuple[str, dict[str, Any]]]) -> str | None:
    """The optimizer that the flag names, else the file, else the recipe; None if none does."""
    name = None
    for _, table in tables:
        group = table.get("optimizer")
        name = group.get("name", name) if isinstance(group, dict) else name
    flag = flag_value(argv, "optimizer")
    return name if flag is None else flag


def load_flags(settings: type[T], argv: Sequence[str], prog: str) -> T:
    """A configuration that has flags only.

    Raises:
        UsageError: everything that is wrong with them, one line each.
        SystemExit: after ``--help``.
    """
    parsed: T = _parse(settings, None, argv, prog, [])
    return parsed


def _parse(settings: Any, values: dict[str, Any] | None, argv: Sequence[str], prog: str, problems: list[str]) -> Any:
    """Files' values (None where there are no files) and flags as one configuration."""
    if not {"-h", "--help"} & set(argv):
        given, wrong = read_flags(argv, options(settings))
        problems += wrong
        if problems and values is not None:
            # what is left of the configuration is still checked, so that nothing waits for the second attempt
            rest = _build(settings, values | given | {"method.name": values["method.name"]})
            problems += [problem for problem in rest.check() if "--data" not in problem]
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)), f"See `{prog} --help`.")
    default = None if values is None else _build(settings, values)
    # tyro spells it None; a path or a text may be called none
    absent = {f"--{o.flag}" for o in options(settings).values() if is_optional_number(o)}
    words = [
        "None" if word == "none" and before in absent else word for before, word in zip(["", *argv], argv, strict=False)
    ]
    parsed: Any = tyro.cli(settings, default=default, args=words, prog=prog, description=settings.__doc__)
    if wrong := parsed.check():
        raise UsageError("\n".join(wrong), f"See `{prog} --help`.")
    return parsed


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
