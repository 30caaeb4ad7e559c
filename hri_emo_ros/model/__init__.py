# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The emotion networks: encoders, heads, calibration, explanation and the bundle on disk."""
