#!/usr/bin/env python3
# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""ListenOnce as a leaf of a behaviour tree: tick() returns RUNNING, SUCCESS or FAILURE, and never blocks.

The class has the life of a leaf of py_trees (initialise, update, terminate) and of BehaviorTree.CPP
(onStart, onRunning, onHalted); here a loop ticks it. FAILURE is silence, a refusal or an abstained state.
"""

import sys

import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node

from hri_emo_msgs.action import ListenOnce


class Listen:
    """Waits for what is said next."""

    def __init__(self, node, timeout):
        self.client = ActionClient(node, ListenOnce, "listen_once")
        self.timeout = timeout
        self.heard = None  # EmotionState

    def start(self):
        self.goal = self.result = None
        self.sent = self.client.send_goal_async(ListenOnce.Goal(timeout=self.timeout))

    def tick(self):
        if self.goal is None:
            if not self.sent.done():
                return "RUNNING"
            self.goal = self.sent.result()
            if not self.goal.accepted:
                return "FAILURE"
            self.result = self.goal.get_result_async()
        if not self.result.done():
            return "RUNNING"
        answer = self.result.result().result
        self.heard = answer.state if answer.heard else None
        return "SUCCESS" if answer.heard and not answer.state.abstained else "FAILURE"

    def halt(self):
        if self.goal is not None and self.result is not None and not self.result.done():
            self.goal.cancel_goal_async()


def main():
    rclpy.init()
    node = Node("behaviour")
    listen = Listen(node, timeout=float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
    if not listen.client.wait_for_server(timeout_sec=30.0):
        sys.exit("no emotion_node here")
    print("How are you?", flush=True)  # Say it first: what was said before the goal is no answer.
    listen.start()
    while (status := listen.tick()) == "RUNNING":
        rclpy.spin_once(node, timeout_sec=0.1)
    print(status, listen.heard.dominant if listen.heard else "nobody spoke", flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
