# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A bundle's network executed by torch: on a GPU, without exported graphs, and for explanations."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hri_emo_ros.model.answer import Answer
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.encoders import AudioEncoder, TextEncoder
from hri_emo_ros.model.explain import explain_utterance
from hri_emo_ros.model.items import Batch
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch
from hri_emo_ros.model.runtime import Encoded
from hri_emo_ros.model.tokenizer import EncodedText
from hri_emo_ros.types import SAMPLE_RATE, Explanation, FloatArray, Transcript

_TOKENS = 16
"""Texts are rounded up to a multiple of so many tokens, voices to whole seconds: 15 and 8 graphs."""
_logger = logging.getLogger(__name__)


class TorchRuntime:
    """See `hri_emo_ros.model.runtime.Runtime`.

    Args:
        model: is put into evaluation mode and onto the device.
        threads: of torch's, for the whole process.
        record: on CUDA, record the encoders' kernels for each length (`record`), and let matrix products
            round their inputs to TF32.
    """

    name = "torch"

    def __init__(self, model: EmotionModel, device: str, threads: int, record: bool = True) -> None:
        torch.set_num_threads(threads)
        self.model = model.eval().to(device)
        self.device = device
        if device == "cuda" and record:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            self._record()
        self.population: FloatArray = (
            np.zeros(0, np.float32)
            if not model.config.uses_audio or model.config.baseline is None
            else model.baseline.population.cpu().numpy()
        )

    def prepare(self, batch: Batch[np.ndarray]) -> ModelBatch:
        """The batch as tensors on the device."""
        return ModelBatch.of(batch).to(self.device)

    @torch.no_grad()
    def voice(self, batch: ModelBatch) -> Encoded:
        """The voices' states."""
        states, mask = self.model.encode_voice(batch)
        statistics = None
        if len(self.population) and bool(mask.any()):
            statistics = voice_statistics(states, mask).float().cpu().numpy()
        self._wait()
        return Encoded(states, mask, statistics)

    @torch.no_grad()
    def words(self, batch: ModelBatch) -> Encoded:
        """The words' states."""
        encoded = Encoded(*self.model.encode_text(batch))
        self._wait()
        return encoded

    @torch.no_grad()
    def fuse(self, voice: Encoded, words: Encoded, batch: ModelBatch) -> Answer[np.ndarray]:
        """What the network says."""
        audio = self.model.relate(voice.states, voice.mask, batch)
        encoded = EncodedBatch(audio, voice.mask, words.states, words.mask)
        return self.model.fuse(encoded, batch).numpy()

    def explain(
        self,
        voice: Encoded,
        batch: ModelBatch,
        tokens: EncodedText | None,
        transcript: Transcript | None,
    ) -> tuple[Answer[np.ndarray], Explanation]:
        """What the network says of one utterance and why (`model.explain`)."""
        with torch.no_grad():
            audio = self.model.relate(voice.states, voice.mask, batch)
            output, explanation = explain_utterance(
                self.model, audio, voice.mask, batch, tokens, transcript
            )
        return output.numpy(), explanation

    def _record(self) -> None:
        config, parts = self.model.config, dict(self.model.named_children())
        try:
            for part in parts.values():
                if isinstance(part, AudioEncoder):
                    most = int(config.max_audio_seconds * SAMPLE_RATE)
                    record(part, SAMPLE_RATE, most, (torch.float32, torch.bool))
                elif isinstance(part, TextEncoder):
                    most = config.max_text_tokens
                    if config.context is not None:
                        most = max(most, config.context.max_tokens)
                    record(part, _TOKENS, most, (torch.long, torch.bool, torch.bool))
        except RuntimeError as error:  # an encoder that asks the GPU in between cannot be recorded
            reason = " ".join(str(error).split())[:200]
            _logger.warning("the encoder's kernels are started one by one: %s", reason)

    def _wait(self) -> None:
        """Until the device is done: what it computes runs behind the call that started it."""
        if self.device == "cuda":
            torch.cuda.synchronize()


Replay = Callable[[], tuple[Tensor, ...]]


def record(
    encoder: nn.Module, step: int, most: int, kinds: tuple[torch.dtype, ...],
    capture: Callable[[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]], Replay] | None = None,
) -> None:  # fmt: skip
    """Have `encoder` run from recordings where it is given a single utterance: of such a call most of the time
    would go into starting hundreds of kernels one by one. Utterances are padded (and masked) up to the next
    recorded length.

    Args:
        encoder: takes tensors [1, N], of which all but the first are masks; returns states and their mask.
        step: recorded lengths are its multiples.
        most: the longest utterance.
        kinds: types of the tensors.
        capture: makes a recording of a call with tensors that stay where they are; None makes CUDA graphs.

    Raises:
        RuntimeError: the encoder cannot be recorded; it stays as it was.
    """
    as_it_was = partial(type(encoder).forward, encoder)  # also where it was recorded before
    capture = capture or partial(_cuda_graph, torch.cuda.graph_pool_handle())
    device = next(encoder.parameters()).device
    recordings: dict[int, tuple[tuple[Tensor, ...], Replay]] = {}
    # The longest first: the others fit into its memory.
    for length in range(math.ceil(most / step) * step, 0, -step):
        inputs = tuple(torch.ones(1, length, dtype=kind, device=device) for kind in kinds)
        recordings[length] = inputs, capture(as_it_was, inputs)

    def forward(*given: Tensor) -> tuple[Tensor, ...]:
        length = math.ceil(given[0].shape[1] / step) * step
        if given[0].shape[0] != 1 or length not in recordings:
            return tuple(as_it_was(*given))
        inputs, replay = recordings[length]
        for kept, new in zip(inputs, given, strict=True):
            kept.zero_()
            kept[:, : new.shape[1]] = new
        return tuple(result.clone() for result in replay())

    encoder.forward = forward


def _cuda_graph(
    memory: Any, call: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
) -> Replay:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        call(*inputs)  # libraries set themselves up in the first call, which no graph may hold
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph, memory, capture_error_mode="thread_local"):
        results = tuple(call(*inputs))

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return results

    return replay
