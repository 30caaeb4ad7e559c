# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Scoring: figures of merit, bags, replay, sweeps and the report."""
