# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Messages' C support without the code generator."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_PACKAGE = "rosidl_generator_py"


def leave_generator_out() -> None:
    """Keep rclpy from importing what writes message classes: every class asks `rosidl_generator_py` for one small
    function, and that package imports its generator, with a parser, a regular-expression engine and a library of
    hashes: 10 MB and 0.1 s in every process."""
    spec = importlib.util.find_spec(_PACKAGE) if _PACKAGE not in sys.modules else None
    if spec is None or spec.submodule_search_locations is None:
        return
    package = ModuleType(_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = package
    try:
        found = importlib.import_module(f"{_PACKAGE}.import_type_support_impl")
        package.import_type_support = found.import_type_support  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        del sys.modules[_PACKAGE]  # another release's layout
