# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The ROS layer: parameters, conversions, lifecycle and diagnostics; nothing is computed here."""
