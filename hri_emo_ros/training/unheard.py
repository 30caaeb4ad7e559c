# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the voice stage's runs say of the people that each of them left out.

A fusion that learns from a head which has heard its training speakers learns to believe it too much: of others
it is less sure. So each voice is answered by the run that has not heard it (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.types import FloatArray
from hri_emo_ros.voices.baseline import Baseline


class UnheardVoices:
    """Answers of runs to their validation sides' voices.

    Args:
        runs: folders of finished runs of a voice stage with baselines, each with a fold left out.

    Raises:
        HriEmoError: one is not finished.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        self._heads, self._run_of = [], dict[str, int]()
        for number, folder in enumerate(runs):
            file = folder / "validation.npz"
            if not file.is_file():
                raise HriEmoError(f"'pretrained.unheard': there is no finished run in '{folder}'")
            with np.load(file, allow_pickle=False) as archive:
                self._run_of |= dict.fromkeys(archive["ids"].tolist(), number)
            model = load_bundle(folder / "bundle").model
            self._heads.append((model.baseline, model.audio_head, model.config.own_view))

    @torch.no_grad()
    def __call__(self, item: Item, statistics: FloatArray, known: Baseline) -> FloatArray:
        """Logits [L] by the run that has not heard the speaker; NaN where every run has."""
        baseline, head, own = self._heads[self._run_of.get(item.id, 0)]
        views = baseline.compare(*(torch.from_numpy(x)[None] for x in (statistics, known.mean)))
        logits: FloatArray = head.views(*views, torch.ones(1, dtype=torch.bool), own)[0].numpy()
        return logits if item.id in self._run_of else np.full_like(logits, np.nan)
