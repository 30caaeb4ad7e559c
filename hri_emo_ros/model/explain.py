# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Which moment and which word spoke for each emotion, and which moments go with which words.

Attribution is by integrated gradients (Sundararajan et al. 2017) of the emotion's score s_e, its logit
less the mean of all logits (a softmax sees only differences): with x a voice frame's encoder state or a
token's input embedding, and x0 a baseline (zero for frames, the text's mean embedding for tokens),

    attribution[e, x] = sum_d (x_d - x0_d) * mean over a of ds_e / dx_d at x0 + a (x - x0),

a at the midpoints of `STEPS` equal pieces of [0, 1]. It covers every path of the head (queries, h, gate,
unimodal logits), where attention weights would cover one. The points of the path and the utterance
itself (a = 1) are one batch through the network, so the answer that is explained comes from the same
pass. Tokens are attributed at the text encoder's input, because its output spreads each word over all
positions; with the gradient at a = 1 alone, saturated networks point at the wrong word (on a constructed
task with one telling word, voice present, leaving out the word with the largest gradient moved the score
by 0.29, a random one by 0.23, the one found by integration by 1.27). test/deletion.py holds all this against removal.

Alignment is the attention from each word to the voice's frames in the cross-modal block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.encoders import FeatureEncoder
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch, ModelOutput
from hri_emo_ros.model.tokenizer import EncodedText
from hri_emo_ros.types import Explanation, FloatArray, Transcript, Word

STEPS = 8
"""Points of the integration path."""


def explain_utterance(
    model: EmotionModel,
    audio: Tensor,
    audio_mask: Tensor,
    batch: ModelBatch,
    text: EncodedText | None,
    transcript: Transcript | None,
) -> tuple[ModelOutput, Explanation]:
    """The network's answer for one utterance and what it rests on.

    Args:
        audio, audio_mask: what `EmotionModel.relate` gave for `batch`, outside inference mode.
        batch: one utterance.
        text: the tokens of the words in the batch; None when there are none.
        transcript: gives the words' times where it has them.
    """
    output, moments, tokens = _integrate(model, audio, audio_mask, batch)
    frames = int(audio_mask.shape[1]) if bool(output.audio_present[0]) else 0
    words = _words(text, transcript) if bool(output.text_present[0]) else ()
    owner = text.word_of_token if text is not None and words else []
    alignment: FloatArray = np.zeros((len(words), frames), np.float32)
    if output.text_to_audio is not None and len(words) and frames:
        looked = output.text_to_audio[0].cpu().numpy()[: len(owner)]
        alignment = _rows_to_one(_merge(looked.T, owner, len(words)).T)
    return output, Explanation(
        words=words,
        word_attribution=_rows_to_one(_merge(tokens[:, : len(owner)], owner, len(words))),
        moment_attribution=_rows_to_one(moments[:, :frames]),
        moment_period=_period(model, batch, audio_mask),
        alignment=alignment,
    )


def _integrate(
    model: EmotionModel, audio: Tensor, audio_mask: Tensor, batch: ModelBatch
) -> tuple[ModelOutput, np.ndarray, np.ndarray]:
    """The utterance's own output (one row), and attributions [L, F] of frames, [L, N] of tokens."""
    rows = torch.zeros(STEPS + 1, dtype=torch.long, device=audio.device)
    share = torch.cat([(torch.arange(STEPS) + 0.5) / STEPS, torch.ones(1)]).to(audio.device)
    share = share[:, None, None]
    frames = (audio.detach()[rows] * share).requires_grad_()
    with torch.enable_grad(), _interpolated_embeddings(model, batch, share) as path:
        text, text_mask = model.encode_text(batch.select(rows))
        encoded = EncodedBatch(frames, audio_mask[rows], text, text_mask)
        output = model.fuse(encoded, batch.select(rows), need_alignment=True)
        scores = (output.logits - output.logits.mean(-1, keepdim=True))[:STEPS].sum(0)
        tokens = path.get("x")
        length = 1 if tokens is None else tokens.shape[1]
        moments = np.zeros((len(scores), audio.shape[1]), np.float32)
        words = np.zeros((len(scores), length), np.float32)
        inputs = [frames] if tokens is None else [frames, tokens]
        for emotion, score in enumerate(scores):
            if not score.requires_grad:  # nothing of what the head uses is present
                break
            gradients = torch.autograd.grad(score, inputs, retain_graph=True, allow_unused=True)
            moments[emotion] = _attribution(gradients[0], audio[0])
            if tokens is not None:
                words[emotion] = _attribution(gradients[1], path["difference"])
    return _last_row(output), moments, words


def _attribution(gradient: Tensor | None, difference: Tensor) -> np.ndarray:
    """Mean gradient along the path [STEPS + 1, N, D] times input less baseline [N, D] -> [N]."""
    if gradient is None:
        return np.zeros(difference.shape[0], np.float32)
    product = gradient[:STEPS].mean(0) * difference
    return product.sum(-1).detach().float().cpu().numpy()


@contextmanager
def _interpolated_embeddings(
    model: EmotionModel, batch: ModelBatch, share: Tensor
) -> Iterator[dict[str, Tensor]]:
    """While this is open the text encoder sees the path's embeddings; they and their difference from
    the baseline are in the yielded dict once it has run. Precomputed text features are projected, and
    the projections are taken for the embeddings."""
    encoder = getattr(model, "text_encoder", None)
    path: dict[str, Tensor] = {}
    if encoder is None:
        yield path
        return

    def replace_output(_: nn.Module, __: object, embedded: Tensor) -> Tensor:
        embedded = embedded.detach()
        # What was said before stays as it is: it is not what is asked about.
        own = batch.text_mask[0, : embedded.shape[1], None]
        path["difference"] = (embedded[0] - embedded[0][own[:, 0]].mean(0)) * own
        path["x"] = (embedded - (1 - share) * path["difference"]).requires_grad_()
        return path["x"]

    source = (
        encoder.project
        if isinstance(encoder, FeatureEncoder)
        else encoder.model.get_input_embeddings()
    )
    handle = source.register_forward_hook(replace_output)
    try:
        yield path
    finally:
        handle.remove()


def _last_row(output: ModelOutput) -> ModelOutput:
    """The utterance itself, without gradient."""
    return ModelOutput(
        **{
            field.name: None if value is None else value[-1:].detach()
            for field in fields(output)
            for value in [getattr(output, field.name)]
        }
    )


def _period(model: EmotionModel, batch: ModelBatch, audio_mask: Tensor) -> float:
    if np.isfinite(model.frame_period):
        return model.frame_period
    seconds = float(batch.speech_seconds[0])
    return seconds / audio_mask.shape[1] if seconds > 0 else 0.0


def _words(text: EncodedText | None, transcript: Transcript | None) -> tuple[Word, ...]:
    """The encoder's words, with the recogniser's times where its words are the same ones."""
    if text is None:
        return ()
    timed = transcript.words if transcript is not None and transcript.usable else ()
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
