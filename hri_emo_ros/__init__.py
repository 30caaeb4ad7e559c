# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Emotion from voice and words for ROS 2 robots."""

import os

# NumPy's products here are small: OpenBLAS's threads would wait for each other in a loop, at the cost of a core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
