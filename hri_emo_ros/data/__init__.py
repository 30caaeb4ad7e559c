# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Labels and their synonyms, manifests, corpora, noise and channels: what training and evaluation share."""
