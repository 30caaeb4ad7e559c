# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Who speaks, and how that voice usually sounds. Neither ROS nor torch below here."""
