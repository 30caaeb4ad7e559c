# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The command-line tool ``hri-emo``: one module a command."""
