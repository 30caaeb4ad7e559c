#!/usr/bin/env python3
# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A planner that acts on final states and on a change of the conversation's tone.

python3 planner.py --ros-args -r emotion_final:=/robot1/emotion_final
"""

import contextlib

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from hri_emo_msgs.msg import ConversationEmotion, EmotionState

# Latched: a planner that starts late gets the last one at once.
LATEST = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COMFORT = ("sad", "fear")


class Planner(Node):
    def __init__(self):
        super().__init__("planner")
        self.create_subscription(EmotionState, "emotion_final", self.on_state, LATEST)
        self.create_subscription(ConversationEmotion, "conversation_emotion", self.on_tone, LATEST)

    def on_state(self, state):
        if state.abstained:
            self.act(f"wait: {state.abstain_text}")
        elif state.dominant in COMFORT and state.uncertainty < 0.7:
            self.act(f"comfort {state.voice_id or 'them'}, after {state.transcript!r}")
        else:
            self.act(f"go on: {state.dominant}, valence {state.valence:+.2f}")

    def on_tone(self, tone):
        if tone.overall.changed:
            self.act(f"ask what happened: {tone.overall.changed_from} -> {tone.overall.dominant}")

    def act(self, what):
        print(what, flush=True)


def main():
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Planner())


if __name__ == "__main__":
    main()
