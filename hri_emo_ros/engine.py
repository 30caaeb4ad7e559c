# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""`EmotionEngine`: speech and words in, an `EmotionEstimate` out.

The one object that the nodes, the command-line tool and the evaluation all call, so that live and offline
cannot drift apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hri_emo_ros import hardware
from hri_emo_ros import parameters as declared
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.affect import expectation
from hri_emo_ros.model.answer import Answer, log_sigmoid
from hri_emo_ros.model.bundle import (
    Bundle,
    check_identity,
    find_bundle,
    load_bundle,
    read_config,
    read_tokenizer,
)
from hri_emo_ros.model.calibration import probabilities
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.items import MIN_AUDIO_SAMPLES, ModelItem, pad
from hri_emo_ros.model.runtime import Encoded, Runtime, choose
from hri_emo_ros.model.tokenizer import EncodedText
from hri_emo_ros.model.weights import modality_weights
from hri_emo_ros.outcome import normalised_entropy
from hri_emo_ros.types import (
    SAMPLE_RATE,
    AbstainReason,
    EmotionEstimate,
    FloatArray,
    SignalQuality,
    Transcript,
)
from hri_emo_ros.voices.baseline import Baseline, BaselineConfig, Heard, combine

if TYPE_CHECKING:
    from hri_emo_ros.model.network import EmotionModel
    from hri_emo_ros.model.torch_runtime import TorchRuntime

SILENT_DBFS = -65.0
"""Audio below this level holds no usable voice: 16-bit quantisation noise begins at about -98."""
FULL_WEIGHT_SECONDS = 1.0
"""Speech from which on an utterance counts fully in how its voice usually sounds."""
LEAST_SPEECH_FRACTION = 0.05
"""Share of VAD speech frames below which audio counts as without speech."""


@dataclass(frozen=True)
class EngineInput:
    """One utterance; either part may be absent."""

    samples: FloatArray | None = None
    """[n] float32 in [-1, 1], 16 kHz mono."""
    transcript: Transcript | None = None
    quality: SignalQuality | None = None
    """None: measured here."""
    voice: Heard | None = None
    """What was heard of this voice before; None: nothing, or nobody knows whose it is."""
    room: Heard | None = None
    """What was heard of the stream's other voices; None: nothing."""
    context: tuple[str, ...] = ()
    """What was said before in the conversation, latest turn first."""


def make_engine(values: Mapping[str, Any]) -> EmotionEngine:
    """The engine that emotion_node makes of its parameters.

    Raises:
        HriEmoError: see `EmotionEngine`.
    """
    return EmotionEngine(
        bundle=str(values["model.bundle"]),
        device=str(values["model.device"]),
        threads=int(values["model.threads"]),
        parameters=values,
        runtime=str(values["model.runtime"]),
    )


class EmotionEngine:
    """A loaded bundle that estimates.

    Utterances are never padded to a fixed length; of audio longer than the bundle's
    ``max_audio_seconds`` (15 s unless trained otherwise) the encoder sees the end. Calls from several
    threads are served one after the other.

    Args:
        bundle: see `load_bundle`; a loaded `Bundle` is taken as it is.
        device: cpu, cuda or auto.
        threads: CPU threads of the model, see `hardware.threads`.
        parameters: emotion_node values by name; of them the ``abstain.*`` are read here. Missing ones
            take their defaults.
        runtime: what executes the network, see `model.runtime.choose`: auto, onnx or torch. A `Bundle` in
            memory is always torch's.

    Raises:
        HriEmoError: the bundle cannot be loaded, there is no such device or runtime, or a parameter is
            refused.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle = "",
        device: str = "cpu",
        threads: int = 0,
        parameters: Mapping[str, Any] | None = None,
        runtime: str = "auto",
    ) -> None:
        self._threads = hardware.threads(threads)
        self._folder: Path | None = None
        self._torch: TorchRuntime | None = None
        device = _device(device)
        if isinstance(bundle, Bundle):
            self.document, self.tokenizer = bundle.document, bundle.tokenizer
            self.runtime: Runtime = self._torch_runtime(bundle, device)
        else:
            self._folder = folder = find_bundle(bundle)
            self.document = read_config(folder)
            self.tokenizer = read_tokenizer(folder, self.config)
            if choose(runtime, device, self.document.graphs is not None) == "onnx":
                from hri_emo_ros.model.onnx_runtime import OnnxRuntime

                check_identity(folder)
                self.runtime = OnnxRuntime(folder, self.document, self._threads)
            else:
                self.runtime = self._torch_runtime(load_bundle(folder), device)
        affect = self.document.affect
        self._affect = np.array(
            [affect[label] for label in self.labels] if affect else [], np.float64
        ).reshape(-1, 2)
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._encoded: tuple[FloatArray, Encoded] | None = None
        """The samples estimated last and what the encoder made of them."""
        self._ahead = 0.0
        """Seconds that `hear` took for them, until an estimate has told it."""
        self.configure(parameters or {})
        if self._folder is not None:
            self._try()

    def _try(self) -> None:
        """A bundle may be whole and still compute nothing: wrong kinds of values, weights beyond all numbers."""
        try:
            self.warm_up(1)
        except HriEmoError:
            raise
        except Exception as error:
            raise HriEmoError(
                f"bundle '{self._folder}' does not compute ({type(error).__name__}: {error}): its configuration or "
                "weights are broken, or this machine lacks memory (parameter 'model.bundle')"
            ) from error

    def _torch_runtime(self, bundle: Bundle, device: str) -> TorchRuntime:
        from hri_emo_ros.model.torch_runtime import TorchRuntime  # seconds to import

        self._torch = TorchRuntime(bundle.model, device, self._threads)
        return self._torch

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new ``abstain.*`` values; safe while another thread estimates.

        Raises:
            HriEmoError: a name is not declared or a value is refused; the old ones stay.
        """
        values = declared.check("emotion_node", dict(parameters))
        with self._lock:
            self._min_speech = float(values["abstain.min_speech"])
            self._max_clipped = float(values["abstain.max_clipped"])
            self._min_snr = float(values["abstain.min_snr"])
            self._min_confidence = (
                float(values["abstain.min_confidence"])
                or self.document.calibration.abstain_confidence
            )

    @property
    def config(self) -> ModelConfig:
        """The network's."""
        return self.document.model

    @property
    def model(self) -> EmotionModel:
        """The network in torch, loaded now if another runtime executes it."""
        return self._explainer().model

    @property
    def device(self) -> str:
        """cpu or cuda."""
        return self.runtime.device

    @property
    def population(self) -> FloatArray:
        """[D]: statistics of an average voice; empty for a bundle without baselines."""
        return self.runtime.population

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions, in the order of every probability vector."""
        return self.config.labels

    @property
    def model_id(self) -> str:
        return self.document.model_id

    @property
    def thresholds(self) -> Sequence[float]:
        """Probability at which each label counts as present, [0, 1]."""
        return self.document.calibration.thresholds

    @property
    def min_confidence(self) -> float:
        """Highest probability below which an estimate abstains, [0, 1]."""
        return self._min_confidence

    @property
    def multi_label(self) -> bool:
        """Each label's probability stands on its own."""
        return self.config.objective == "multi_label"

    @property
    def baseline_config(self) -> BaselineConfig | None:
        """How the bundle weighs what is known of a voice; None if it judges each as an unknown one."""
        return self.config.baseline

    def warm_up(self, passes: int = 2) -> None:
        """Run `passes` estimates on a second of noise and a few words, so that the first real one does
        not pay for lazy initialisation."""
        noise = np.random.default_rng(0).normal(0.0, 0.05, SAMPLE_RATE).astype(np.float32)
        quality = SignalQuality(0.0, -26.0, 0.0, 1.0)
        for _ in range(passes):
            self.estimate(noise, Transcript("warm up the model"), quality)

    def hear(self, samples: FloatArray, quality: SignalQuality) -> None:
        """Encode a voice, which the next `estimate` of the very same array then finds done.

        Raises:
            HriEmoError: see `estimate`.
        """
        with self._lock:
            inputs = [_checked(EngineInput(samples, quality=quality))]
            batch = pad([self._item(inputs[0])], self.config, self.tokenizer)
            ahead: dict[str, float] = {}
            with _timed(ahead, "audio_encoder"):
                self._voice(self.runtime, self.runtime.prepare(batch), inputs)
            self._ahead = ahead["audio_encoder"]

    def estimate(
        self,
        samples: FloatArray | None = None,
        transcript: Transcript | None = None,
        quality: SignalQuality | None = None,
        explain: bool = False,
        voice: Heard | None = None,
        room: Heard | None = None,
        context: tuple[str, ...] = (),
    ) -> EmotionEstimate:
        """Estimate one utterance.

        Args:
            samples: [n] float32 in [-1, 1], 16 kHz mono; None or empty when there is no voice.
            transcript: None or empty text when there are no words.
            quality: of the samples; measured here (Silero VAD and `audio.quality`) when None.
            explain: fill `EmotionEstimate.explanation`; costs a batch of nine through the text
                encoder and the head and one backward pass per emotion, none through the audio encoder.
            voice, room: what was heard of this voice and of the stream's other voices before (the
                `EmotionEstimate.voice_statistics` of their utterances); None for nothing.
            context: what was said before in the conversation, latest turn first.

        Raises:
            HriEmoError: the samples are not finite float mono.
        """
        with self._lock:
            item = EngineInput(samples, transcript, quality, voice, room, context)
            return self._estimate([item], explain)[0]

    def estimate_batch(self, inputs: Sequence[EngineInput]) -> list[EmotionEstimate]:
        """Estimate several utterances in one padded batch; the results are those of `estimate`.

        Each estimate's latency is the batch's.
        """
        if not inputs:
            return []
        with self._lock:
            return self._estimate(list(inputs), explain=False)

    def _estimate(self, inputs: list[EngineInput], explain: bool) -> list[EmotionEstimate]:
        inputs = [_checked(item) for item in inputs]
        items = [self._item(item) for item in inputs]
        runtime = self._explainer() if explain else self.runtime
        batch = runtime.prepare(pad(items, self.config, self.tokenizer))
        latency: dict[str, float] = {}
        explanation = None
        heard = self._encoded is not None and self._encoded[0] is inputs[0].samples
        with _timed(latency, "audio_encoder"):
            voice = self._voice(runtime, batch, inputs)
        latency["audio_encoder"] += self._ahead if heard else 0.0
        self._ahead = 0.0
        with _timed(latency, "text_encoder"):
            words = runtime.words(batch)
        with _timed(latency, "fusion"):
            if explain:
                answer, explanation = self._explainer().explain(
                    voice, batch, self._tokens(items[0]), inputs[0].transcript
                )
            else:
                answer = runtime.fuse(voice, words, batch)
        estimates = self._heard(self._read(answer, inputs, latency), voice, answer)
        if explanation is not None:
            # The encoder hears the end of what is longer than its limit.
            unheard = estimates[0].duration - self.config.max_audio_seconds
            estimates = [replace(estimates[0], explanation=explanation.behind(unheard))]
        return estimates

    @property
    def explains(self) -> bool:
        """What explanations need is loaded."""
        return self._torch is not None

    def load_explainer(self, *, wait: bool = True) -> None:
        """Load what explanations need, which takes seconds; the first of them does it otherwise.

        Args:
            wait: until it is there, or load it in a thread.

        Raises:
            HriEmoError: torch is not installed.
        """
        choose("torch", self.device, exported=False)
        if wait:
            self._explainer()
        else:
            threading.Thread(target=self._explainer, daemon=True).start()

    def _explainer(self) -> TorchRuntime:
        """torch, which gradients need."""
        with self._loading:
            if self._torch is None:
                choose("torch", self.device, exported=False)  # says so where it is not installed
                self._torch_runtime(load_bundle(self._folder or ""), self.device)
        assert self._torch is not None
        return self._torch

    def _voice(self, runtime: Runtime, batch: Any, inputs: list[EngineInput]) -> Encoded:
        """The voice's states; those of the utterance estimated last are kept.

        When words come to a voice that was estimated without them, the voice is not encoded again.
        """
        samples = inputs[0].samples if len(inputs) == 1 and runtime is self.runtime else None
        if samples is None:
            return runtime.voice(batch)
        if self._encoded is None or self._encoded[0] is not samples:
            self._encoded = (samples, runtime.voice(batch))
        return self._encoded[1]

    def logits(self, inputs: Sequence[EngineInput]) -> FloatArray:
        """Uncalibrated logits [inputs, labels] of several utterances in one batch."""
        items = [self._item(_checked(item)) for item in inputs]
        batch = self.runtime.prepare(pad(items, self.config, self.tokenizer))
        with self._lock:
            voice, words = self.runtime.voice(batch), self.runtime.words(batch)
            return self.runtime.fuse(voice, words, batch).logits

    def _heard(
        self, estimates: list[EmotionEstimate], voice: Encoded, answer: Answer[np.ndarray]
    ) -> list[EmotionEstimate]:
        """The estimates with what their voices' memory should learn."""
        if voice.statistics is None:
            return estimates
        return [
            replace(
                estimate,
                voice_statistics=voice.statistics[row],
                baseline_weight=self._baseline_weight(estimate),
            )
            if answer.audio_present[row]
            else estimate
            for row, estimate in enumerate(estimates)
        ]

    def _baseline_weight(self, estimate: EmotionEstimate) -> float:
        """How much an utterance should count in how its voice usually sounds, [0, 1]: little where it is
        short."""
        quality = estimate.quality
        if quality is None or quality.snr_db < self._min_snr:
            return 0.0
        if estimate.abstain_reason is AbstainReason.NOT_SPEECH:
            return 0.0
        return float(min(1.0, quality.speech_fraction * estimate.duration / FULL_WEIGHT_SECONDS))

    def _tokens(self, item: ModelItem) -> EncodedText | None:
        tokenizer = self.tokenizer
        if tokenizer is None or not item.text or not item.text.strip():
            return None
        return tokenizer.encode(item.text, self.config.max_text_tokens)

    def _item(self, item: EngineInput) -> ModelItem:
        """What the network gets: audio without a voice in it is left out."""
        quality = item.quality
        heard = item.samples is not None and _has_voice(quality)
        seconds = float("nan")
        if heard and quality is not None and item.samples is not None:
            seconds = quality.speech_fraction * len(item.samples) / SAMPLE_RATE
        transcript = item.transcript if item.transcript and item.transcript.usable else None
        return ModelItem(
            samples=item.samples if heard else None,
            text=transcript.text if transcript else None,
            snr_db=quality.snr_db if quality else float("nan"),
            asr_confidence=transcript.confidence if transcript else 1.0,
            speech_seconds=seconds,
            baseline=self._baseline(item) if heard else None,
            context=item.context,
        )

    def _baseline(self, item: EngineInput) -> Baseline | None:
        config = self.baseline_config
        if config is None:
            return None
        return combine(config, self.population, item.voice, item.room)

    def _read(
        self, answer: Answer[np.ndarray], inputs: list[EngineInput], latency: dict[str, float]
    ) -> list[EmotionEstimate]:
        objective = self.config.objective
        calibrated = self.document.calibration.apply(answer)
        p = probabilities(calibrated.logits, objective)
        weights = modality_weights(calibrated, objective)
        overall, each = weights.audio, weights.audio_per_emotion
        if not (np.isfinite(p).all() and np.isfinite(each).all()):
            raise HriEmoError(
                f"model '{self.model_id}' computes no numbers (NaN) for this utterance: its weights are broken "
                "(parameter 'model.bundle')"
            )
        thresholds = np.asarray(self.thresholds, dtype=np.float32)
        speech = self._speech(answer)
        estimates = []
        for row, item in enumerate(inputs):
            valence, arousal = expectation(p[row], self._affect)
            estimates.append(
                EmotionEstimate(
                    labels=self.labels,
                    probabilities=p[row],
                    above_threshold=p[row] >= thresholds,
                    uncertainty=normalised_entropy(p[row], self.multi_label),
                    audio_weight=float(overall[row]),
                    text_weight=float(1.0 - overall[row]),
                    audio_weight_per_emotion=each[row],
                    text_weight_per_emotion=(1.0 - each[row]).astype(np.float32),
                    duration=_duration(item),
                    model_id=self.model_id,
                    valence=valence,
                    arousal=arousal,
                    abstain_reason=self._abstain(
                        item,
                        bool(answer.audio_present[row]),
                        bool(answer.text_present[row]),
                        float(p[row].max()),
                        bool(speech[row]),
                    ),
                    quality=item.quality,
                    transcript=item.transcript,
                    latency=dict(latency),
                )
            )
        return estimates

    def _speech(self, answer: Answer[np.ndarray]) -> np.ndarray:
        """[B] bool: false where a sound was heard that is no speech."""
        if answer.speech is None:
            return np.ones(len(answer.logits), dtype=np.bool_)
        speech = np.exp(log_sigmoid(answer.speech)) >= self.document.calibration.speech_threshold
        return np.asarray(speech | ~answer.audio_present)

    def _abstain(
        self,
        item: EngineInput,
        audio_present: bool,
        text_present: bool,
        confidence: float,
        speech: bool,
    ) -> AbstainReason:
        """The first reason that applies, from "there is nothing" to "the model is not sure"."""
        quality = item.quality
        if not audio_present and not text_present:
            return AbstainReason.NO_SPEECH
        if audio_present and quality is not None and item.samples is not None:
            if quality.speech_fraction * _duration(item) < self._min_speech:
                return AbstainReason.TOO_SHORT
            if quality.clipped_fraction > self._max_clipped:
                return AbstainReason.CLIPPED
            # With words the noise costs only the voice, and the gate knows about it.
            if not text_present and quality.snr_db < self._min_snr:
                return AbstainReason.TOO_NOISY
        if not speech:
            return AbstainReason.NOT_SPEECH
        if confidence < self._min_confidence:
            return AbstainReason.LOW_CONFIDENCE
        return AbstainReason.NONE


@contextmanager
def _timed(latency: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    latency[stage] = time.perf_counter() - start


def _device(wanted: str) -> str:
    if wanted not in ("auto", "cpu", "cuda"):
        raise HriEmoError(
            f"device is '{wanted}', must be auto, cpu or cuda (parameter 'model.device')"
        )
    if wanted == "cpu" or (wanted == "auto" and not hardware.nvidia_driver()):
        return "cpu"
    try:
        import torch

        available = torch.cuda.is_available()
    except ImportError:
        available = False
    if wanted == "cuda" and not available:
        raise HriEmoError(
            "device is 'cuda', but torch finds no GPU: use cpu or auto (parameter 'model.device')"
        )
    return "cuda" if available else "cpu"


def _checked(item: EngineInput) -> EngineInput:
    """The input with its quality measured and unusable parts set to None."""
    samples, quality = item.samples, item.quality
    if samples is not None:
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise HriEmoError(
                f"samples are {samples.dtype} of shape {samples.shape}, must be mono float32 [n] in [-1, 1]"
            )
        if not np.isfinite(samples).all():
            raise HriEmoError("samples hold NaN or infinity, must be finite float32 in [-1, 1]")
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if len(samples) < MIN_AUDIO_SAMPLES:
            samples = None
    if samples is not None and quality is None:
        # Loads onnxruntime, which a node that is told the quality does not need.
        from hri_emo_ros.audio.quality import measure_quality

        quality = measure_quality(samples)
    return replace(item, samples=samples, quality=quality)


def _has_voice(quality: SignalQuality | None) -> bool:
    if quality is None:
        return False
    return not (quality.level_dbfs < SILENT_DBFS or quality.speech_fraction < LEAST_SPEECH_FRACTION)


def _duration(item: EngineInput) -> float:
    return 0.0 if item.samples is None else len(item.samples) / SAMPLE_RATE
