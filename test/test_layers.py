# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Arrows go down only: which package may import which, and no module imports itself in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hri_emo_ros"


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("hri_emo_ros.")}


MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): imports(path)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


@pytest.mark.parametrize(
    ("lower", "above"),
    [
        ("data", ("training", "evaluation", "nodes", "cli")),
        ("training", ("evaluation", "nodes", "cli")),
        ("evaluation", ("training", "cli")),
        ("model", ("training", "evaluation", "nodes", "cli", "data")),
    ],
)
def test_nothing_imports_what_lies_above_it(lower, above):
    wrong = {
        (module, name)
        for module, names in MODULES.items()
        for name in names
        if module.startswith(f"hri_emo_ros.{lower}.")
        and name.startswith(tuple(f"hri_emo_ros.{other}" for other in above))
    }
    assert not wrong


@pytest.mark.parametrize("part", ["data", "training"])
def test_no_module_imports_itself_in_a_circle(part):
    inside = {
        m: n & MODULES.keys() for m, n in MODULES.items() if m.startswith(f"hri_emo_ros.{part}.")
    }
    # `available` imports every corpus plug-in when it is called.
    try:
        tuple(TopologicalSorter(inside).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")
