# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows what the running graph uses, and nothing else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")

from policy_rules import POLICY, allowed, outside, unused, used

from hri_emo_ros.nodes.graph import PIPELINE_NODES, Graph

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

CLIP = Path(__file__).parent / "data" / "emodb_10a07Ta.flac"


def test_the_policy_has_the_form_that_sros2_reads() -> None:
    """As in sros2's policy.xsd, version 0.2.0."""
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
    (enclaves,) = root
    paths = [enclave.get("path") for enclave in enclaves]
    assert len(set(paths)) == len(paths) == 6
    verbs = {
        "topics": {"publish", "subscribe"}, "services": {"reply", "request"},
        "actions": {"call", "execute"},
    }  # fmt: skip
    for enclave in enclaves:
        (profiles,) = enclave
        for profile in profiles:
            assert (profile.tag, set(profile.attrib)) == ("profile", {"ns", "node"})
            for group in profile:
                assert set(group.attrib) <= verbs[group.tag]
                assert {item.tag for item in group} == {group.tag[:-1]}


@pytest.mark.fault(
    "trust", "a node under SROS 2 opens what `config/sros2/policy.xml` does not allow",
    does="nothing: the running graph's topics, services and actions are the policy's",
    shows="each name is compared, both ways",
)  # fmt: skip
def test_the_policy_is_what_the_running_graph_uses(tiny_bundle: Path) -> None:
    nodes = (*PIPELINE_NODES, "audio_player")
    with Graph(
        nodes=nodes,
        bundle=tiny_bundle,
        use_sim_time=True,
        parameters={
            "audio_player": {"player.files": [str(CLIP)], "player.loop": True},
            "asr_node": {"asr.threads": 1},
            "emotion_node": {"model.threads": 1, "explanation.enabled": True},
        },
    ) as graph:

        def settled() -> bool:
            return all(not unused(used(graph, node), allowed(node, node)) for node in nodes)

        graph.spin_until(settled)
        for node in nodes:
            found = used(graph, node)
            assert outside(found, allowed(node, node)) == [], node
            assert unused(found, allowed(node, node)) == [], node
    for node in PIPELINE_NODES:
        assert allowed("pipeline", node) == allowed(node, node)
