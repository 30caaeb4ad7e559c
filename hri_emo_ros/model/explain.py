"""Which moment and which word spoke for each emotion, and which moments go with which words.

Attribution is gradient times input at the encoders' states, through the same pass of the head that gives
the answer: for emotion e with score s_e (its logit less the mean of all logits, since a softmax sees no
more than differences) and the states x_f of the voice's frames,

    attribution[e, f] = sum_d  ds_e / dx_fd * (x_fd - mean_f x_fd),

the first-order change of s_e if frame f held nothing but the utterance's average; likewise for tokens,
which are added up to words. It covers every path of the head (queries, h, gate, unimodal logits), where
attention weights would cover one. `deletion_check` holds it against what removal really does.

Alignment is the attention from each word to the voice's frames in the cross-modal block.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch, ModelOutput
from hri_emo_ros.model.tokenizer import EncodedText
from hri_emo_ros.types import SAMPLE_RATE, Explanation, FloatArray, Transcript, Word


def fuse_with_explanation(
    model: EmotionModel,
    encoded: EncodedBatch,
    batch: ModelBatch,
    text: EncodedText | None,
    transcript: Transcript | None,
) -> tuple[ModelOutput, Explanation]:
    """The head's answer for one utterance and what it rests on.

    Args:
        encoded, batch: of one utterance; the states come from outside inference mode.
        text: the tokens of the words in the batch; None when there are none.
        transcript: gives the words' times where it has them.
    """
    states = replace(
        encoded,
        audio=encoded.audio.detach().requires_grad_(),
        text=encoded.text.detach().requires_grad_(),
    )
    with torch.enable_grad():
        output = model.fuse(states, batch, need_alignment=True)
        moments, tokens = _gradient_times_input(output.logits[0], states)
    period = _period(model, batch, encoded)
    frames = int(encoded.audio_mask.shape[1]) if bool(output.audio_present[0]) else 0
    words = _words(text, transcript) if bool(output.text_present[0]) else ()
    owner = text.word_of_token if text is not None and words else []
    alignment: FloatArray = np.zeros((len(words), frames), np.float32)
    if output.text_to_audio is not None and len(words) and frames:
        looked = output.text_to_audio[0].detach().cpu().numpy()[: len(owner)]
        alignment = _rows_to_one(_merge(looked.T, owner, len(words)).T)
    return _detached(output), Explanation(
        words=words,
        word_attribution=_rows_to_one(_merge(tokens[:, : len(owner)], owner, len(words))),
        moment_attribution=_rows_to_one(moments[:, :frames]),
        moment_period=period,
        alignment=alignment,
    )


def deletion_masks(
    attribution: FloatArray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The most attributed share of [n] positions, and the same pattern somewhere else.

    The control is the first mask turned round by a random amount, so that both consist of runs of the
    same lengths: holes scattered at random would hurt a voice more than one gap of the same size, and
    the comparison would be about gaps.

    Returns:
        Two boolean masks [n] with the same number of true, at least one.
    """
    count = max(1, round(fraction * len(attribution)))
    most = np.zeros(len(attribution), dtype=bool)
    most[np.argsort(-attribution, kind="stable")[:count]] = True
    turn = int(rng.integers(1, len(attribution))) if len(attribution) > 1 else 0
    return most, np.roll(most, turn)


def without_moments(
    samples: FloatArray, removed: np.ndarray, period: float, total_frames: int
) -> FloatArray:
    """`samples` with the frames of the boolean mask `removed` [frames] muted."""
    owner = np.minimum(
        (np.arange(len(samples)) / (period * SAMPLE_RATE)).astype(int), total_frames - 1
    )
    return np.where(removed[owner], np.float32(0.0), samples).astype(np.float32)


def without_words(words: tuple[Word, ...], removed: np.ndarray) -> str:
    """The text that remains of `words` without those of the boolean mask `removed`."""
    return " ".join(word.text for word, gone in zip(words, removed, strict=True) if not gone)


def _gradient_times_input(logits: Tensor, states: EncodedBatch) -> tuple[np.ndarray, np.ndarray]:
    """[L, F] and [L, N] signed attributions; zeros in masked positions."""
    scores = logits - logits.mean()
    moments: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    for score in scores:
        if not score.requires_grad:  # both modalities absent
            break
        gradients = torch.autograd.grad(
            score, (states.audio, states.text), retain_graph=True, allow_unused=True
        )
        for rows, gradient, x, mask in (
            (moments, gradients[0], states.audio, states.audio_mask),
            (tokens, gradients[1], states.text, states.text_mask),
        ):
            if gradient is None:
                gradient = torch.zeros_like(x)
            real = mask[0].unsqueeze(-1)
            mean = (x[0] * real).sum(0) / real.sum().clamp(min=1)
            rows.append((gradient[0] * (x[0] - mean) * real).sum(-1).detach().cpu().numpy())
    labels = logits.shape[0]
    if not moments:
        return (
            np.zeros((labels, states.audio.shape[1]), np.float32),
            np.zeros((labels, states.text.shape[1]), np.float32),
        )
    return np.stack(moments), np.stack(tokens)


def _period(model: EmotionModel, batch: ModelBatch, encoded: EncodedBatch) -> float:
    if np.isfinite(model.frame_period):
        return model.frame_period
    seconds = float(batch.speech_seconds[0])
    return seconds / encoded.audio_mask.shape[1] if seconds > 0 else 0.0


def _words(text: EncodedText | None, transcript: Transcript | None) -> tuple[Word, ...]:
    """The encoder's words, with the recogniser's times where its words are the same ones."""
    if text is None:
        return ()
    timed = transcript.words if transcript is not None else ()
    if [w.text.strip() for w in timed[: len(text.words)]] == text.words:
        return tuple(timed[: len(text.words)])
    confidence = transcript.confidence if transcript is not None else 1.0
    return tuple(Word(word, 0.0, 0.0, confidence) for word in text.words)


def _merge(values: np.ndarray, owner: list[int], words: int) -> np.ndarray:
    """[R, tokens] -> [R, words], tokens added up to their words, special tokens left out."""
    merged = np.zeros((values.shape[0], words), np.float32)
    for token, word in enumerate(owner):
        if word >= 0:
            merged[:, word] += values[:, token]
    return merged


def _rows_to_one(values: np.ndarray) -> FloatArray:
    """Each row divided by the sum of its absolute values; rows of zeros stay."""
    total = np.abs(values).sum(axis=1, keepdims=True)
    return (values / np.where(total > 0, total, 1.0)).astype(np.float32)


def _detached(output: ModelOutput) -> ModelOutput:
    return replace(
        output,
        logits=output.logits.detach(),
        audio_logits=output.audio_logits.detach(),
        text_logits=output.text_logits.detach(),
        beta=output.beta.detach(),
        text_to_audio=None,
    )
