"""The layout of app/: sizes of files and areas, and pure modules. import-linter checks the imports."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

from tests.processes import REPOSITORY

APP = REPOSITORY / "app"
MODULES = {path: path.read_text() for path in sorted(APP.rglob("*.py")) if "alembic" not in path.parts}
LINES_AT_MOST = 500
SHARE_AT_MOST = 0.15
ENTRIES_AT_MOST = 12
# One entry per page, sender or table of an area. `app` has four files and twelve rooms.
REGISTRIES = {"app.pages", "app.ingest.senders"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def test_no_file_is_too_long() -> None:
    assert len(MODULES) > 200
    lines = {name_of(path): text.count("\n") for path, text in MODULES.items()}
    assert {name: number for name, number in lines.items() if number > LINES_AT_MOST} == {}


def test_no_area_is_too_large() -> None:
    """Of the first two levels, each without the areas in it that count themselves."""
    lines: Counter[str] = Counter()
    for path, text in MODULES.items():
        lines["/".join(path.parent.relative_to(APP).parts[:2])] += text.count("\n")
    assert len(lines) > 30
    assert {area: share for area, each in lines.items() if (share := each / lines.total()) > SHARE_AT_MOST} == {}


def test_no_level_has_too_many_entries() -> None:
    """Files and folders beside each other, so that a reader sees what a room has."""
    entries = {
        name_of(folder): [path.name for path in folder.iterdir() if not path.name.startswith("__")]
        for folder in {path.parent for path in MODULES}
    }
    assert len(entries) > 50
    too_many = {name: len(here) for name, here in entries.items() if len(here) > ENTRIES_AT_MOST}
    assert too_many.keys() == {"app", *REGISTRIES}


def test_every_module_that_calls_itself_pure_is_held_to_it() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = {name for one in contracts if one["type"] == "forbidden" for name in one["source_modules"]}
    docstrings = {name_of(path): ast.get_docstring(ast.parse(text)) or "" for path, text in MODULES.items()}
    pure = {
        name for name, docstring in docstrings.items() if re.search(r"\bPure\b(?!, except| modules|: `)", docstring)
    }
    assert len(pure) > 40
    assert [name for name in sorted(pure) if not any(f"{name}.".startswith(f"{each}.") for each in held)] == []
    assert [name for name in sorted(held) if name not in docstrings] == []
