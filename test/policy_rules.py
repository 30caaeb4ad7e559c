# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What config/sros2/policy.xml allows, and what a running node uses, in the same words."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

from hri_emo_ros.nodes.graph import Graph

POLICY = Path(__file__).resolve().parent.parent / "config" / "sros2" / "policy.xml"
Rules = dict[str, set[str]]
"""Of one node: "publish", "subscribe" and "reply" -> fully qualified names."""


def allowed(enclave: str, node: str) -> Rules:
    """As sros2 translates the rules of a node in an enclave: relative names are the namespace's, "~" the node's,
    an action is three services and two topics."""
    path = f"enclaves/enclave[@path='/hri_emo_ros/{enclave}']/profiles/profile[@node='{node}']"
    profile = ElementTree.parse(POLICY).getroot().find(path)
    assert profile is not None, path
    assert profile.get("ns") == "/"
    rules: Rules = {"publish": set(), "subscribe": set(), "reply": set()}
    for group in profile:
        for what, verdict in group.attrib.items():
            assert verdict == "ALLOW", "what is not allowed is denied anyway"
            for item in group:
                name = _full(item.text or "", node)
                if what == "execute":
                    rules["reply"] |= {
                        f"{name}/_action/{x}" for x in ("send_goal", "cancel_goal", "get_result")
                    }
                    rules["publish"] |= {f"{name}/_action/{x}" for x in ("feedback", "status")}
                else:
                    rules[what].add(name)
    return rules


def used(graph: Graph, node: str) -> Rules:
    """What a node of a running graph has open."""
    asked = {
        "publish": graph.node.get_publisher_names_and_types_by_node,
        "subscribe": graph.node.get_subscriber_names_and_types_by_node,
        "reply": graph.node.get_service_names_and_types_by_node,
    }
    return {what: {name for name, _ in ask(node, "/")} for what, ask in asked.items()}


def outside(used: Rules, allowed: Rules) -> list[str]:
    """What is used and not allowed."""
    return [
        f"{what} {name}"
        for what, names in used.items()
        for name in sorted(names)
        if not any(fnmatch(name, rule) for rule in allowed[what])
    ]


def unused(used: Rules, allowed: Rules) -> list[str]:
    """What is allowed and not used."""
    return [
        f"{what} {rule}"
        for what, rules in allowed.items()
        for rule in sorted(rules)
        if not any(fnmatch(name, rule) for name in used[what])
    ]


def _full(name: str, node: str) -> str:
    return f"/{node}{name[1:]}" if name.startswith("~") else name if name[0] == "/" else f"/{name}"
