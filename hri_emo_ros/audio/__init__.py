# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Bytes of any PCM in, utterances at 16 kHz mono out. No ROS, no torch."""
