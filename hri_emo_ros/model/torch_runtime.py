# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A bundle's network executed by torch: on a GPU, without exported graphs, and for explanations."""

from __future__ import annotations

import numpy as np
import torch

from hri_emo_ros.model.answer import Answer
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.explain import explain_utterance
from hri_emo_ros.model.items import Batch
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch
from hri_emo_ros.model.runtime import Encoded
from hri_emo_ros.model.tokenizer import EncodedText
from hri_emo_ros.types import Explanation, FloatArray, Transcript


class TorchRuntime:
    """See `hri_emo_ros.model.runtime.Runtime`.

    Args:
        model: is put into evaluation mode and onto the device.
        threads: of torch's, for the whole process.
    """

    name = "torch"

    def __init__(self, model: EmotionModel, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = model.eval().to(device)
        self.device = device
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

    def _wait(self) -> None:
        """Until the device is done: what it computes runs behind the call that started it."""
        if self.device == "cuda":
            torch.cuda.synchronize()
