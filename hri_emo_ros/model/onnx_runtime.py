# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A bundle's network executed by ONNX Runtime from the graphs that `model.export` wrote.

The graphs hold no weights: they name bytes of the bundle's safetensors files, which ONNX Runtime maps, and
converts to float32 once where they are half precision.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.hardware import open_session, return_freed_memory
from hri_emo_ros.model.answer import Answer
from hri_emo_ros.model.bundle import ENCODER_FILES, WEIGHTS_FILE, BundleConfig
from hri_emo_ros.model.bundle_files import check_graph, read_bounded
from hri_emo_ros.model.items import MIN_AUDIO_SAMPLES, Batch
from hri_emo_ros.model.runtime import Encoded, graph_files
from hri_emo_ros.types import FloatArray

if TYPE_CHECKING:
    import onnxruntime

_AGAIN = "run `hri-emo export` on the bundle again (parameter 'model.bundle')"


class OnnxRuntime:
    """See `hri_emo_ros.model.runtime.Runtime`.

    Args:
        folder: the bundle's.
        threads: of each session.

    Raises:
        HriEmoError: a graph cannot be loaded or belongs to another model.
    """

    name, device = "onnx", "cpu"

    def __init__(self, folder: Path, document: BundleConfig, threads: int) -> None:
        _check_graphs(folder, document)
        self._sessions = {
            part: _session(folder / file, threads) for part, file in graph_files(document).items()
        }
        self._widths = {
            x.name: int(x.shape[2])
            for x in self._sessions["head"].get_inputs()
            if x.name in ("voice", "words")
        }
        self.population: FloatArray = np.zeros(0, np.float32)
        if document.model.uses_audio and document.model.baseline is not None:
            self.population = _array(folder / WEIGHTS_FILE, "baseline.population")
        return_freed_memory()

    def prepare(self, batch: Batch[np.ndarray]) -> Batch[np.ndarray]:
        """The batch itself."""
        return batch

    def voice(self, batch: Batch[np.ndarray]) -> Encoded:
        """The voices' states; absent rows are not computed."""
        lengths = batch.audio_lengths * batch.audio_present
        present = lengths >= MIN_AUDIO_SAMPLES
        if "voice" not in self._sessions or not present.any():
            return self._nothing("voice", len(present))
        lengths = lengths[present]
        samples = batch.waveform[present, : int(lengths.max())]
        states, mask, *statistics = self._run("voice", {"samples": samples, "lengths": lengths})
        states, mask = _spread(states, present), _spread(mask, present)
        return Encoded(states, mask, _spread(statistics[0], present) if statistics else None)

    def words(self, batch: Batch[np.ndarray]) -> Encoded:
        """The words' states; absent rows are not computed."""
        mask = batch.text_mask & batch.text_present[:, None]
        present = mask.any(1)
        if "words" not in self._sessions or not present.any():
            return self._nothing("words", len(present))
        own, read = (x[present].sum(1) for x in (mask, mask | batch.context_mask))
        ids = batch.input_ids[present, : int(read.max())]
        (states,) = self._run("words", {"ids": ids, "own": own, "read": read})
        longest = int(own.max())  # what was said before has told the encoder what it had to
        return Encoded(_spread(states[:, :longest], present), mask[:, :longest])

    def fuse(self, voice: Encoded, words: Encoded, batch: Batch[np.ndarray]) -> Answer[np.ndarray]:
        """What the network says."""
        named = {
            "voice": voice.states, "voice_mask": voice.mask,
            "words": words.states, "words_mask": words.mask,
            "snr_db": batch.snr_db, "asr_confidence": batch.asr_confidence,
            "speech_seconds": batch.speech_seconds, "word_count": batch.word_count,
            "baseline": batch.baseline, "heard": batch.heard,
        }  # fmt: skip
        session = self._sessions["head"]
        names = [x.name for x in session.get_outputs()]
        found = dict(zip(names, self._run("head", named), strict=True))
        return Answer(**found, audio_present=voice.mask.any(1), text_present=words.mask.any(1))

    def _run(self, part: str, named: dict[str, np.ndarray]) -> list[np.ndarray]:
        session = self._sessions[part]
        return list(session.run(None, {x.name: named[x.name] for x in session.get_inputs()}))

    def _nothing(self, part: str, rows: int) -> Encoded:
        width = self._widths.get(part, 1)
        return Encoded(np.zeros((rows, 1, width), np.float32), np.zeros((rows, 1), np.bool_))


def _check_graphs(folder: Path, document: BundleConfig) -> None:
    """Raise HriEmoError where a graph is not the one that was made of this bundle."""
    graphs = document.graphs
    if graphs is None or graphs.model_id != document.model_id:
        made_of = "nothing" if graphs is None else f"model '{graphs.model_id}'"
        raise HriEmoError(
            f"the graphs of bundle '{folder}' were made of {made_of}, it is '{document.model_id}': {_AGAIN}"
        )
    for file in graph_files(document).values():
        content = read_bounded(folder / file)
        if hashlib.sha256(content).hexdigest() != graphs.sha256.get(file):
            raise HriEmoError(f"'{folder / file}' was damaged or changed: {_AGAIN}")
        check_graph(folder / file, content, {WEIGHTS_FILE, *ENCODER_FILES.values()})


def _session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    try:
        # An arena would keep what the longest utterance took.
        return open_session(str(file), threads, arena=False)
    except Exception as error:  # ONNX Runtime's own types share no other base
        reason = " ".join(str(error).split())[:300]
        raise HriEmoError(f"cannot load '{file}': {reason}; {_AGAIN}") from error


def _array(file: Path, name: str) -> FloatArray:
    try:
        with safe_open(file, framework="numpy") as archive:
            return np.asarray(archive.get_tensor(name), np.float32)
    except (SafetensorError, OSError) as error:
        raise HriEmoError(f"cannot read '{file}': {error} (parameter 'model.bundle')") from error


def _spread(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The rows of present utterances in their places, zeros elsewhere."""
    if present.all():
        return values
    everywhere = np.zeros((len(present), *values.shape[1:]), values.dtype)
    everywhere[present] = values
    return everywhere
