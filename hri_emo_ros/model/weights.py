# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""How much the voice and the words decided: weights that say what removal would do.

The definition. Let l_e be the network's score of emotion e (log-probability for single-label models,
logit for multi-label ones) for the whole utterance, l_e(words) its score when the voice is removed, and
l_e(voice) when the words are. Every head returns all three from one forward pass: late fusion by passing
its MLP a learned "missing" vector, HRI-EMO because its answer without a modality *is* the other
modality's own answer (see `hri_emo`, step 5; without ``unimodal_path`` the fusion runs twice more on
the same encoder states). With

    a_e = |l_e - l_e(words)|    what the voice changed about e
    t_e = |l_e - l_e(voice)|    what the words changed about e

the weight of the voice for emotion e is

    w_e = (a_e + eps * g) / (a_e + t_e + eps),        eps = 0.05 nat,

where g is the gate's mean beta: it decides only where both modalities alone already say the same, so
that neither changes anything. The overall weight is the same ratio of what is lost of the whole answer
p, in nats, when one modality is removed:

    a = KL(p || p(words)),   t = KL(p || p(voice)),

for multi-label models the mean over the labels' Bernoulli divergences. Text weights are 1 - w. An
absent modality has weight 0.

Why neither beta nor attention: after cross-attention the audio states hold text, so attention to them,
or their share in h, credits the voice with what the words said. A difference in the answer cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hri_emo_ros.model.answer import Answer, log_sigmoid, log_softmax
from hri_emo_ros.model.config import Objective

EPSILON = 0.05
"""nat; changes much smaller than this leave the word to the gate."""
_LEAST_LOG_PROBABILITY = -7.0
"""Below about 0.001 a log-probability no longer says anything about what anyone would notice."""


@dataclass
class ModalityWeights:
    """Shares in [0, 1]; the text's are what is missing to 1."""

    audio: np.ndarray
    """[B]"""
    audio_per_emotion: np.ndarray
    """[B, L]"""


def scores(logits: np.ndarray, objective: Objective) -> np.ndarray:
    """The scale on which answers are compared: log-probabilities, or logits for multi-label."""
    if objective == "single_label":
        return np.maximum(log_softmax(logits), _LEAST_LOG_PROBABILITY)
    return logits


def modality_weights(output: Answer[np.ndarray], objective: Objective) -> ModalityWeights:
    """The weights of `output`, by the definition above.

    For the published weights, calibrate its three logits first (`Calibration.apply`): a temperature
    changes what removal does to the probability.
    """
    whole = scores(output.logits, objective)
    audio = np.abs(whole - scores(output.text_logits, objective))
    text = np.abs(whole - scores(output.audio_logits, objective))
    both = output.audio_present & output.text_present
    # Without the other modality the gate is exactly 1 or 0, and then it is the weight.
    gate = output.gate[:, None]
    per_emotion = np.where(both[:, None], _ratio(audio, text, gate), gate)
    overall = _ratio(
        divergence(output.logits, output.text_logits, objective),
        divergence(output.logits, output.audio_logits, objective),
        output.gate,
    )
    return ModalityWeights(np.where(both, overall, output.gate), per_emotion)


def divergence(whole: np.ndarray, rest: np.ndarray, objective: Objective) -> np.ndarray:
    """KL divergence in nats, [B], of the answer `rest` from the answer `whole` (logits [B, L])."""
    if objective == "single_label":
        p = np.exp(log_softmax(whole))
        lost = (p * (scores(whole, objective) - scores(rest, objective))).sum(-1)
    else:
        yes, no = log_sigmoid(whole), log_sigmoid(-whole)
        lost = (
            np.exp(yes) * (yes - log_sigmoid(rest)) + np.exp(no) * (no - log_sigmoid(-rest))
        ).mean(-1)
    return np.maximum(lost, 0.0)


def _ratio(audio: np.ndarray, text: np.ndarray, gate: np.ndarray) -> np.ndarray:
    return np.asarray((audio + EPSILON * gate) / (audio + text + EPSILON))
