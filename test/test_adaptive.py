# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A subscription that is there from the start and takes what the publishers offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
from audio_common_msgs.msg import AudioData, AudioDataStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float32MultiArray

from hri_emo_ros.nodes.adaptive import AdaptiveSubscription
from hri_emo_ros.nodes.diagnostics import Diagnostics

pytestmark = pytest.mark.ros
STAMPED, PLAIN = "audio_common_msgs/msg/AudioDataStamped", "audio_common_msgs/msg/AudioData"
TOPIC = "/robot/audio"
WANTED = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class Place:
    """One participant of DDS with a node, as each process on a robot has its own."""

    def __init__(self, name: str, domain: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(
            context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO
        )
        self.node = Node(name, context=self._context, namespace="robot")
        # As every node of ours has them.
        self.node.diagnostics = Diagnostics(self.node, dict)
        self.node.look_often = lambda look: self.node.create_timer(0.1, look)
        self.node.look_no_more = lambda look: None
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def spin(self) -> None:
        self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.try_shutdown()
        self._context.destroy()


class Robot:
    """A listener with the subscription, and a driver that publishes."""

    def __init__(self, domain: int) -> None:
        self.listener, self.driver = Place("listener", domain), Place("driver", domain)
        self.received: list[Any] = []
        self.subscription = AdaptiveSubscription(
            self.listener.node,
            "audio",
            {STAMPED: AudioDataStamped, PLAIN: AudioData},
            self.received.append,
            WANTED,
        )

    def until(self, condition: Callable[[], object]) -> bool:
        deadline = time.monotonic() + 30.0
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.listener.spin()
            self.driver.spin()
        return True

    def told(self) -> str:
        """What the listener's diagnostics say."""
        return str(self.listener.node.diagnostics.status().message)

    def types(self) -> list[str]:
        """What `ros2 topic list -t` shows."""
        return dict(self.driver.node.get_topic_names_and_types()).get(TOPIC, [])

    @contextmanager
    def publisher(
        self, kind: type, reliability: ReliabilityPolicy, durability: DurabilityPolicy
    ) -> Iterator[Any]:
        quality = QoSProfile(depth=10, reliability=reliability, durability=durability)
        made = self.driver.node.create_publisher(kind, "audio", quality)
        try:
            yield made
        finally:
            self.driver.node.destroy_publisher(made)


@pytest.fixture
def robot(ros_domain: int) -> Iterator[Robot]:
    made = Robot(ros_domain)
    yield made
    made.subscription.destroy()
    made.listener.close()
    made.driver.close()


def test_the_topic_is_listed_before_anybody_publishes(robot: Robot) -> None:
    assert robot.until(lambda: robot.types() == [STAMPED])
    assert robot.subscription.type_name == ""


@pytest.mark.parametrize("kind", [AudioDataStamped, AudioData])
@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
@pytest.mark.parametrize(
    "durability", [DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL]
)
def test_every_offer_is_taken(
    robot: Robot, kind: type, reliability: ReliabilityPolicy, durability: DurabilityPolicy
) -> None:
    with robot.publisher(kind, reliability, durability) as publisher:
        publisher.publish(kind())
        if (reliability, durability) != (WANTED.reliability, WANTED.durability):
            # Not latched: what is sent before the subscription fits is lost, and it is made anew for each offer.
            assert robot.until(lambda: publisher.publish(kind()) or robot.received)
        assert robot.until(lambda: robot.received)
        assert isinstance(robot.received[0], kind)
        assert robot.until(lambda: robot.subscription.type_name.endswith(f"/{kind.__name__}"))


def test_a_topic_that_cannot_be_read_keeps_its_own_type_alone(robot: Robot) -> None:
    """`ros2 topic echo` refuses a topic of two types."""
    offer = (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    with robot.publisher(Float32MultiArray, *offer):
        assert robot.until(lambda: robot.types() == ["std_msgs/msg/Float32MultiArray"])
        assert robot.until(lambda: "/robot/driver (std_msgs/msg/Float32MultiArray)" in robot.told())
    assert robot.until(lambda: robot.told() == "OK")
    assert robot.until(lambda: robot.types() == [STAMPED])
