# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Where emotions lie between unpleasant and pleasant, calm and excited.

Russell, J. A., & Mehrabian, A. (1977). Evidence for a three-factor theory of emotions. Journal of Research in
Personality, 11(3), 273-294: mean ratings of pleasure and arousal of the terms happy, sad, angry, fearful,
disgusted and surprised, each in [-1, 1]. The origin of their scales is the neutral state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hri_emo_ros.types import FloatArray

Affect = dict[str, tuple[float, float]]
"""Label -> (valence, arousal), each in [-1, 1]."""

SOURCE = (
    "Russell & Mehrabian (1977), Evidence for a three-factor theory of emotions, J. Res. Pers. 11, 273-294: "
    "mean pleasure and arousal; neutral is the origin"
)
POSITIONS: Affect = {
    "neutral": (0.0, 0.0),
    "happy": (0.81, 0.51),
    "sad": (-0.63, -0.27),
    "angry": (-0.51, 0.59),
    "fear": (-0.64, 0.60),
    "disgust": (-0.60, 0.35),
    "surprise": (0.40, 0.67),
}


def known_positions(labels: Sequence[str]) -> Affect:
    """The positions of `labels`; empty if one of them has none, since an expectation needs all."""
    if not all(label in POSITIONS for label in labels):
        return {}
    return {label: POSITIONS[label] for label in labels}


def expectation(
    probabilities: FloatArray, positions: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """(valence, arousal) of an estimate, each in [-1, 1]; NaN without positions.

    Args:
        probabilities: [labels]; those of a multi-label model are divided by their sum.
        positions: [labels, 2], or [0, 2] where the bundle has none.
    """
    if not len(positions):
        return float("nan"), float("nan")
    share = np.asarray(probabilities, np.float64)
    valence, arousal = share @ positions / max(float(share.sum()), 1e-12)
    return float(np.clip(valence, -1.0, 1.0)), float(np.clip(arousal, -1.0, 1.0))
