# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node (`nodes`), and reading them from YAML without ROS.

The ROS layer declares them from here (descriptor, bounds, read-only flag), ``hri-emo replay`` and
``hri-emo tune`` read the same YAML through `load_parameters`, and ``hri-emo parameters`` prints
docs/parameters.md. A parameter whose value is used anywhere is looked up by the name given in `nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters.nodes import ASR_BACKENDS, NODES, SAMPLE_FORMATS
from hri_emo_ros.parameters.parameter import Parameter, Value

__all__ = [
    "ASR_BACKENDS",
    "NODES",
    "SAMPLE_FORMATS",
    "Parameter",
    "Value",
    "check",
    "defaults",
    "load_parameters",
    "markdown",
]


def defaults(node: str) -> dict[str, Value]:
    """The declared defaults of one node, by parameter name."""
    return {parameter.name: parameter.default for parameter in NODES[node]}


def check(node: str, values: Mapping[str, Any], where: str = "") -> dict[str, Value]:
    """The node's defaults overlaid with `values`, every one of them checked.

    Raises:
        HriEmoError: a name is not declared (the nearest ones are listed) or a value is refused.
    """
    declared = {parameter.name: parameter for parameter in NODES[node]}
    result = defaults(node)
    for name, value in values.items():
        if name not in declared:
            prefix = f"{where}: " if where else ""
            raise HriEmoError(
                f"{prefix}{node} has no parameter '{name}'; it has: {', '.join(declared)}"
            )
        result[name] = declared[name].check(value, where)
    return result


def load_parameters(
    path: Path | None, overrides: Iterable[str] = ()
) -> dict[str, dict[str, Value]]:
    """Read a ROS parameter file without ROS.

    Args:
        path: YAML whose top keys are node names, optionally behind wildcards or a namespace
            (``/**/speech_node``, ``speech_node``), or ``/**`` for parameters of every node that
            declares them; None takes the defaults.
        overrides: ``name:=value`` pairs, each applied to every node that declares the name.

    Returns:
        Node name -> parameter name -> value, complete with defaults.

    Raises:
        HriEmoError: the file cannot be read, or a name or value in it is refused.
    """
    values: dict[str, dict[str, Any]] = {node: {} for node in NODES}
    where = str(path) if path else ""
    if path is not None:
        for key, section in _read_yaml(path).items():
            if not isinstance(section, Mapping) or not isinstance(
                section.get("ros__parameters"), Mapping
            ):
                raise HriEmoError(f"{where}: section '{key}' must hold 'ros__parameters:'")
            flat = _flatten(section["ros__parameters"])
            node = str(key).rsplit("/", 1)[-1]
            if node in NODES:
                values[node].update(flat)
            elif node in ("*", "**"):
                _spread(flat, values, where)
            # Other nodes' sections are legal in a shared parameter file.
    for override in overrides:
        name, separator, text = override.partition(":=")
        if not separator:
            raise HriEmoError(f"'{override}' must be NAME:=VALUE")
        _spread({name: yaml.safe_load(text)}, values, "command line")
    return {node: check(node, values[node], where) for node in NODES}


def _spread(flat: Mapping[str, Any], values: dict[str, dict[str, Any]], where: str) -> None:
    """Give each value to every node that declares its name."""
    for name, value in flat.items():
        takers = [node for node in NODES if name in defaults(node)]
        if not takers:
            if name == "use_sim_time":
                continue
            raise HriEmoError(f"{where}: no node has a parameter '{name}'")
        for node in takers:
            values[node][name] = value


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HriEmoError(f"cannot read parameter file '{path}': {error}") from error
    if not isinstance(content, Mapping):
        raise HriEmoError(f"parameter file '{path}' must be a mapping of node names")
    return content


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'vad': {'threshold': 0.5}} -> {'vad.threshold': 0.5}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif f"{prefix}{key}" != "use_sim_time":
            flat[f"{prefix}{key}"] = value
    return flat


def markdown(node: str) -> str:
    """The node's parameters as a Markdown table."""
    lines = ["| Parameter | Default | Allowed | Meaning |", "|---|---|---|---|"]
    for parameter in NODES[node]:
        default = "''" if parameter.default == "" else str(parameter.default)
        fixed = " *(read-only)*" if parameter.read_only else ""
        lines.append(
            f"| `{parameter.name}` | `{default}` | {parameter.bounds()} | {parameter.description}{fixed} |"
        )
    return "\n".join(lines)
