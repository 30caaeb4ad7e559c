# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Emotion from voice and words for ROS 2 robots."""

__version__ = "0.1.0"
