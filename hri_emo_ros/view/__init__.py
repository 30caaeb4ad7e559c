# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Estimates for the eye: in a terminal and as a picture. No ROS."""
