# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A subscription that takes what the publishers offer: their type and their quality of service.

Robots publish audio as several types, reliable or not, latched or not. A subscription of the wrong
type or with a stricter quality of service would stay silent without a word, so this one asks the
graph, follows changes, and says in diagnostics who publishes what cannot be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from hri_emo_ros.nodes.diagnostics import Level
from hri_emo_ros.nodes.lifecycle import HriNode


def reaches(node: Node, publisher: Any, listener: str) -> bool:
    """Whether all who listen to a publisher of `node` will hear what it sends, the node named `listener` among them.

    Before, the `AdaptiveSubscription` there may be made anew for what the publisher offers, and miss what is sent.
    """
    there = node.get_subscriptions_info_by_topic(publisher.topic_name)
    offered = publisher.qos_profile.reliability, publisher.qos_profile.durability
    kind = f"/{publisher.msg_type.__name__}"
    own = [
        (s.qos_profile.reliability, s.qos_profile.durability) == offered
        and s.topic_type.endswith(kind)
        for s in there
        if s.node_name == listener
    ]
    return bool(own) and all(own) and publisher.get_subscription_count() >= len(there)


def node_of(endpoint: TopicEndpointInfo) -> str:
    """Full name of the node that an endpoint belongs to; empty for the moment in which only the endpoint is known."""
    if endpoint.node_name == "_NODE_NAME_UNKNOWN_":
        return ""
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


class AdaptiveSubscription:
    """Subscribes to `topic`, of the preferred type until a publisher of another known type is there.

    Args:
        types: ROS type name ("std_msgs/msg/Bool") -> message class, the preferred one first; with
            none there is no subscription.
        callback: takes a message; called by the node's executor.
        qos: depth, and the reliability and durability to ask for where the publishers offer them;
            weaker offers are taken as they are.
        advice: what to change where somebody publishes another type on the topic.
    """

    def __init__(
        self,
        node: HriNode,
        topic: str,
        types: Mapping[str, type],
        callback: Callable[[Any], None],
        qos: QoSProfile,
        advice: str = "",
    ) -> None:
        self._node, self._types, self._callback, self._wanted = node, dict(types), callback, qos
        self._topic, self._advice = topic, advice
        self.topic = node.resolve_topic_name(topic)
        """Fully qualified, remapped."""
        self._subscription: Any = None
        self._current: tuple[str, ReliabilityPolicy, DurabilityPolicy] | None = None
        self._offered = ""
        self.look()
        node.look_often(self.look)

    @property
    def type_name(self) -> str:
        """The type that publishers were last seen to offer, empty before."""
        return self._offered

    def publishers(self) -> list[TopicEndpointInfo]:
        """Who publishes on the topic now what can be taken."""
        return [offer for offer in self._all() if offer.topic_type in self._types]

    def _all(self) -> list[TopicEndpointInfo]:
        return self._node.get_publishers_info_by_topic(self._topic)

    def describe_publishers(self) -> str:
        """The publishers in words, of whatever type, for error messages."""
        seen = sorted(
            {f"{node_of(p) or 'a node yet unknown'} ({p.topic_type})" for p in self._all()}
        )
        return ", ".join(seen) if seen else "no publisher"

    def look(self) -> None:
        """Adapt to the publishers there are now."""
        offers = self._all()
        present = {offer.topic_type for offer in offers}
        kind = next((name for name in self._types if name in present), None)
        self._tell_other_types(present, kind)
        if kind is None:
            if offers:
                # No second type on a topic that is not ours to read: the ROS tools refuse to show such.
                self._unsubscribe()
            elif self._current is None and self._types:
                # Nobody yet: `ros2 topic list` has the topic, and the first message is not missed.
                # Volatile matches every publisher; a latched one makes `look` ask for the latched message.
                likely = next(iter(self._types))
                self._subscribe((likely, self._wanted.reliability, DurabilityPolicy.VOLATILE))
            return
        self._offered = kind
        offers = [offer for offer in offers if offer.topic_type == kind]
        reliability, durability = self._wanted.reliability, self._wanted.durability
        # One weaker publisher weakens the subscription: better unreliable than deaf to it.
        if any(o.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for o in offers):
            reliability = ReliabilityPolicy.BEST_EFFORT
        if any(o.qos_profile.durability == DurabilityPolicy.VOLATILE for o in offers):
            durability = DurabilityPolicy.VOLATILE
        if (kind, reliability, durability) != self._current:
            self._subscribe((kind, reliability, durability))

    def _tell_other_types(self, present: set[str], kind: str | None) -> None:
        """Say so where somebody publishes what cannot be taken; DDS keeps silent about it."""
        level, text = Level.OK, ""
        if self._types and present - set(self._types):
            level = Level.ERROR if kind is None else Level.WARN
            text = (
                f"{self.topic} is to carry {' or '.join(self._types)}; there: {self.describe_publishers()}: "
                f"remap '{self._topic}'{self._advice and ' or ' + self._advice}"
            )
        self._node.diagnostics.condition(f"type on {self._topic}", level, text)

    def take_rest(self) -> None:
        """Hand on what has come and was not handed on yet."""
        subscription = self._subscription
        if subscription is None:
            return
        with subscription.handle:
            for _ in range(self._wanted.depth):
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is None:
                    return
                self._node.guarded("callback", partial(self._callback, taken[0]))

    def destroy(self) -> None:
        self._node.diagnostics.condition(f"type on {self._topic}", Level.OK)
        self._node.look_no_more(self.look)
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._current = None

    def _subscribe(self, choice: tuple[str, ReliabilityPolicy, DurabilityPolicy]) -> None:
        self._unsubscribe()
        kind, reliability, durability = choice
        self._current = choice
        self._subscription = self._node.create_subscription(
            self._types[kind],
            self._topic,
            self._callback,
            QoSProfile(
                history=self._wanted.history,
                depth=self._wanted.depth,
                reliability=reliability,
                durability=durability,
            ),
            # What does not fit is adapted to, or told in the diagnostics: no warning of rclpy's beside that.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )
