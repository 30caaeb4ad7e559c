# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Models that are called with a time limit, and made again where they hang or keep failing.

Native code may never return, run out of memory or lose its GPU. Whoever calls it through here gets an
`HriEmoError` instead, in time, and at once for as long as the model is out of order.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hri_emo_ros.asr import LoadedRecogniser
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import EmotionEstimate, FloatArray, SignalQuality, Transcript
from hri_emo_ros.voices.baseline import Heard
from hri_emo_ros.voices.encoder import Embedding, SpeakerEncoder

if TYPE_CHECKING:
    from hri_emo_ros.engine import EmotionEngine

FAILURES = 2
"""Calls in a row that fail before the model is made again: a single one may be the utterance's fault."""
RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds between two attempts to make it; doubled each time, up to the second."""
MOST_HUNG = 3
"""Threads that may hang at a time; with one more the process is not to be saved by another."""

T = TypeVar("T")
R = TypeVar("R")
_logger = logging.getLogger(__name__)


def _say_nothing(problem: str) -> None:
    pass


def _check_nothing(parameters: Mapping[str, Any]) -> None:
    pass


class Watched(Generic[T]):
    """Owns a model and the thread that it runs in.

    Args:
        what: its name in messages ("the recogniser").
        make: loads one, ready to work; called in the model's thread.
        limit: seconds that a call may take.
        said: told what is wrong, and "" when all is well again; from any thread.

    Raises:
        HriEmoError: whatever the first `make` raises.
    """

    def __init__(
        self,
        what: str,
        make: Callable[[], T],
        limit: float,
        said: Callable[[str], None] = _say_nothing,
    ) -> None:
        self.what, self._make, self.limit, self._said = what, make, limit, said
        self.counters = {f"{what} hung": 0, f"{what} failed": 0, f"{what} made again": 0}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._problem = ""
        self._failures = 0
        self._hung: list[_Runner[T]] = []
        self._making: _Runner[T] | None = None
        first: _Runner[T] = _Runner(what)
        try:
            # Waiting for it, not making it: a signal gets through to the main thread.
            first.model = first.ask(lambda model: make()).result()
        except BaseException:
            first.end(timeout=0.5)
            raise
        self._runner: _Runner[T] | None = first

    def call(self, do: Callable[[T], R]) -> R:
        """`do` with the model, in the model's thread.

        Raises:
            HriEmoError: it took longer than `limit`, or the model is out of order since an earlier call.
            Exception: what `do` raises.
        """
        with self._lock:
            runner, problem = self._runner, self._problem
        if runner is None:
            self._make_again()  # Of those that hang one may have returned.
            raise HriEmoError(problem)
        future = runner.ask(do)
        try:
            result = future.result(self.limit)
        except HriEmoError:
            raise  # The input's fault.
        except Exception as error:
            if isinstance(error, futures.TimeoutError) and not future.done():
                self._give_up(
                    runner, f"{self.what} has not answered for {self.limit:g} s", hung=True
                )
                raise HriEmoError(self._problem) from None
            self.counters[f"{self.what} failed"] += 1
            self._failures += 1
            if self._failures >= FAILURES:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                self._give_up(runner, f"{self.what} fails each time ({text})", hung=False)
            raise
        self._failures = 0
        return result

    def close(self, timeout: float = 1.0) -> None:
        """End its thread, if it ends within `timeout` seconds; nothing can be called any more."""
        self._closed.set()
        with self._lock:
            runners = [r for r in (self._runner, self._making) if r is not None]
            self._runner, self._making, self._problem = None, None, f"{self.what} is closed"
        for runner in runners:
            runner.end(timeout)

    def _give_up(self, runner: _Runner[T], problem: str, *, hung: bool) -> None:
        with self._lock:
            if self._closed.is_set() or self._runner is not runner:
                return
            self._runner, self._failures = None, 0
            if hung:
                self._hung.append(runner)
                self.counters[f"{self.what} hung"] += 1
            self._problem = f"{problem}: given up, loading it again"
        # Ended before the next is loaded, so that memory holds one. One that hangs ends when it returns.
        runner.end(timeout=0.0 if hung else self.limit)
        if not self._make_again():
            self._problem = (
                f"{problem}, as {MOST_HUNG} before it that still hang: restart the process"
            )
        self._said(self._problem)

    def _make_again(self) -> bool:
        """Begin to make a new one, if that is not done already and not too many hang."""
        with self._lock:
            self._hung = [runner for runner in self._hung if runner.thread.is_alive()]
            if self._closed.is_set() or len(self._hung) > MOST_HUNG:
                return False
            if self._making is None:
                self._making = _Runner(self.what)
                self._making.ask(lambda model: self._replace())
            return True

    def _replace(self) -> None:
        """In the new thread: make the model until it works, then hand it over."""
        wait, runner = RETRY, self._making
        while runner is not None and not self._closed.is_set():
            try:
                model = self._make()
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                with self._lock:
                    self._problem = f"{self.what} cannot be loaded again ({text}): trying on"
                self._said(self._problem)
                self._closed.wait(wait)
                wait = min(2.0 * wait, LONGEST_RETRY)
                continue
            with self._lock:
                if self._closed.is_set():
                    return
                runner.model = model
                self._runner, self._making, self._problem = runner, None, ""
                self.counters[f"{self.what} made again"] += 1
            self._said("")
            _logger.warning("%s works again", self.what)
            return


class _Runner(Generic[T]):
    """A thread that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self.model: T | None = None
        self._tasks: queue.SimpleQueue[tuple[Callable[[Any], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        # A daemon, so that a call that hangs cannot keep the process from ending.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def ask(self, do: Callable[[Any], R]) -> Future[R]:
        future: Future[R] = Future()
        self._tasks.put((do, future))
        return future

    def end(self, timeout: float = 0.0) -> None:
        self._tasks.put(None)
        self.model = None
        if timeout:
            self.thread.join(timeout)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            do, future = task
            try:
                future.set_result(do(self.model))
            except BaseException as error:
                future.set_exception(error)
            # The result is the asker's: nothing is kept alive here until the next task comes.
            del task, do, future


class WatchedRecogniser:
    """A `Recogniser` under watch.

    Args:
        parameters: values of the asr node.
        make: `make_recogniser`, or what calls it.
        said: see `Watched`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        make: Callable[[Mapping[str, Any]], LoadedRecogniser | None],
        said: Callable[[str], None] = _say_nothing,
    ) -> None:
        self._parameters, self._make = parameters, make
        self.name = self.device = ""
        """The recogniser and its model; cpu or cuda."""
        self.check: Callable[[Mapping[str, Any]], None] = _check_nothing
        """See `LoadedRecogniser`."""
        self.watched = Watched("the recogniser", self._load, parameters["asr.timeout"], said)

    def _load(self) -> LoadedRecogniser:
        recogniser = self._make(self._parameters)
        assert recogniser is not None  # Whoever wants none watches none.
        recogniser.warm_up()
        self.name, self.device, self.check = recogniser.name, recogniser.device, recogniser.check
        return recogniser

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new values of the parameters that are not read-only.

        Raises:
            HriEmoError: a value is refused.
        """
        before, self._parameters = self._parameters, parameters
        self.watched.limit = float(parameters["asr.timeout"])
        try:
            self.watched.call(lambda recogniser: recogniser.configure(parameters))
        except HriEmoError:
            self._parameters = before
            raise

    def warm_up(self) -> None:
        """Done when it is made."""

    def transcribe(self, samples: FloatArray, quality: SignalQuality | None = None) -> Transcript:
        """The words of one utterance; see `Recogniser`."""
        return self.watched.call(lambda recogniser: recogniser.transcribe(samples, quality))


class WatchedEngine:
    """An `Estimator` and the speaker encoder beside it, under watch; what it is stands here.

    Args:
        parameters: values of the emotion node.
        make: loads the engine from them.
        said: see `Watched`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        make: Callable[[Mapping[str, Any]], EmotionEngine],
        said: Callable[[str], None] = _say_nothing,
    ) -> None:
        self._parameters = parameters
        self._make = make
        self.watched = Watched("the model", self._load, parameters["model.timeout"], said)

    def _load(self) -> tuple[EmotionEngine, SpeakerEncoder]:
        engine, encoder = self._make(self._parameters), SpeakerEncoder()
        engine.warm_up()
        if self._parameters["explanation.enabled"]:
            engine.load_explainer()
        if self._parameters["voices.enabled"]:
            encoder.warm_up()
        self.labels, self.thresholds = engine.labels, engine.thresholds
        self.model_id, self.multi_label = engine.model_id, engine.multi_label
        self.min_confidence = engine.min_confidence
        self.device, self.runtime = engine.device, engine.runtime.name
        return engine, encoder

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new ``abstain.*`` values, also for an engine that is made later.

        Raises:
            HriEmoError: a value is refused, or explanations cannot be had.
        """
        self._parameters = parameters
        self.watched.limit = float(parameters["model.timeout"])

        def configure(model: tuple[EmotionEngine, SpeakerEncoder]) -> None:
            model[0].configure(parameters)
            self.min_confidence = model[0].min_confidence
            if parameters["explanation.enabled"]:
                model[0].load_explainer(wait=False)  # states come without until it is there

        self.watched.call(configure)

    def hear(self, samples: FloatArray, quality: SignalQuality) -> None:
        """Nothing: one thread runs model and speaker encoder one after the other."""

    def estimate(
        self,
        samples: FloatArray | None,
        transcript: Transcript | None,
        quality: SignalQuality | None = None,
        explain: bool = False,
        voice: Heard | None = None,
        room: Heard | None = None,
        context: tuple[str, ...] = (),
    ) -> EmotionEstimate:
        """One utterance; see `EmotionEngine.estimate`."""
        return self.watched.call(
            lambda model: model[0].estimate(
                samples, transcript, quality, explain and model[0].explains, voice, room, context
            )
        )

    def warm_up(self) -> None:
        """Done when it is made."""

    def embed(self, samples: FloatArray) -> Embedding:
        """What an utterance tells of its speaker; see `SpeakerEncoder.embed`."""
        return self.watched.call(lambda model: model[1].embed(samples))
