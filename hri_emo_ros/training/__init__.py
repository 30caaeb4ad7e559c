# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Corpora, splits, augmentation and the trainer."""
