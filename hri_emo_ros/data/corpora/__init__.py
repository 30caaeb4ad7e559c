# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One module per corpus; `hri_emo_ros.data.corpus.available` finds them here."""
