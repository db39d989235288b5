"""Settings as TOML: written so that ``--config`` reads them back, and read as values by path."""

from __future__ import annotations

import dataclasses
from typing import Any

# of one call and not of the configuration: kept as a comment, so that --config does not replay them
OF_ONE_CALL = ("recipe", "config", "out", "overwrite", "allow_data_change")


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
        if path in OF_ONE_CALL and value is not None:
            text = f"# {text}"
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


def flatten(table: dict[str, Any], group: str = "") -> dict[str, Any]:
    """The values of nested tables by path.

    >>> flatten({"seed": 1, "data": {"path": "x"}})
    {'seed': 1, 'data.path': 'x'}
    """
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= flatten(value, f"{group}{name}.") if isinstance(value, dict) else {f"{group}{name}": value}
    return flat
