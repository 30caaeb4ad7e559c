# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""When an utterance is recognised: as soon as speech seems to end, and once its end is certain.

Recognition does not wait for the pause that ends an utterance. It starts at each endpoint (a chunk marked so);
if the person goes on, its words are provisional. If not, the closing chunk adds no sample, and the words are
those already found. The nodes, `run_offline` and `hri-emo listen` all go through here.
"""

from __future__ import annotations

from dataclasses import dataclass

from hri_emo_ros.asr import Recogniser
from hri_emo_ros.audio.utterance import UtteranceBuffer
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, SpeechChunk, Transcript


@dataclass(frozen=True)
class Recognition:
    """Speech to be recognised: all of one utterance that has been heard."""

    chunk: SpeechChunk
    """The chunk at which this became due."""
    samples: FloatArray
    """[n] float32, 16 kHz mono."""
    quality: SignalQuality
    stamp_ns: int
    """Sensor time of the first sample held, ns."""
    final: bool
    """The utterance is over."""

    @property
    def duration(self) -> float:
        """Seconds of speech."""
        return len(self.samples) / SAMPLE_RATE


class SpeechCollector:
    """Puts the chunks of utterances together and says when one is to be recognised."""

    def __init__(self) -> None:
        self.unclosed = 0
        """Utterances whose end never came."""
        self.late = 0
        """Chunks that came again or too late."""
        self._open: UtteranceBuffer | None = None
        self._stream = ""

    def add(self, chunk: SpeechChunk, stream: str = "") -> Recognition | None:
        """Take a chunk of `stream`; returns what is to be recognised now, if anything."""
        speech = self._open
        if (
            speech is None
            or stream != self._stream
            or chunk.utterance_id != speech.utterance_id
            or (chunk.sequence == 0 and chunk.first_sample == 0)
        ):
            self.unclosed += speech is not None
            self._stream = stream
            self._open = speech = UtteranceBuffer(chunk)
        elif not speech.add(chunk):
            self.late += 1
            return None
        if chunk.last:
            self._open = None
        if not (chunk.last or chunk.endpoint):
            return None
        return Recognition(chunk, speech.samples, speech.quality, speech.stamp_ns, chunk.last)

    def clear(self) -> None:
        """Forget the utterance in work."""
        self._open = None


class EndpointRecogniser:
    """A recogniser that remembers its last answer, so that nothing is recognised twice."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self._samples: FloatArray | None = None
        self._transcript: Transcript | None = None

    def recognise(self, speech: Recognition) -> Transcript:
        """The words of what was heard of an utterance."""
        # The closing chunk of an utterance that ended at its endpoint leaves the very same array.
        if self._transcript is None or self._samples is not speech.samples:
            self._transcript = self.recogniser.transcribe(speech.samples, speech.quality)
            self._samples = speech.samples
        return self._transcript
