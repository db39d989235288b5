"""What there is to choose from."""

from __future__ import annotations

import dataclasses
import tomllib

from compressl.settings.encoder import RESNETS
from compressl.settings.loading import RECIPES as RECIPE_FOLDER
from compressl.settings.loading import recipe_names
from compressl.settings.methods import METHODS, describe
from compressl.settings.views import RECIPES as VIEW_RECIPES


def print_catalog() -> None:
    """Methods, encoders, view recipes and training recipes."""
    from rich.table import Table

    from compressl.console import PatientConsole

    console = PatientConsole(highlight=False, markup=False)

    def table(title: str, rows: list[tuple[str, str]]) -> None:
        grid = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
        for name, text in rows:
            grid.add_row(name, text)
        console.print(grid)
        console.print()

    table("Methods (--method)", [(name, describe(settings)) for name, settings in METHODS.items()])
    table(
        "Encoders (--encoder)",
        [
            (", ".join(RESNETS), "ResNet with --encoder.width and a stem for images up to 64 px"),
            ("timm/<name>", "any model of timm (extra: pip install 'compressl[timm]')"),
        ],
    )
    rows = []
    for name, views in VIEW_RECIPES.items():
        default = type(views[0])()
        differs = [
            f"{f.name} " + "/".join(dict.fromkeys(f"{getattr(v, f.name):g}" for v in views))
            for f in dataclasses.fields(default)
            if isinstance(getattr(default, f.name), float)
            and any(getattr(v, f.name) != getattr(default, f.name) for v in views)
        ]
        rows.append((name, f"{len(views)} views; {', '.join(differs) or 'the defaults'}"))
    table("View recipes (--views.recipe)", rows)
    texts = [(name, tomllib.loads((RECIPE_FOLDER / f"{name}.toml").read_text())) for name in recipe_names()]
    table("Recipes (--recipe)", [(name, str(text.get("description", ""))) for name, text in texts])
