# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo tune``: the YAML's parameters, searched on labelled recordings.

Speakers are divided before anything is tried: the search sees the labels of one part only, and what it
found is measured once on the other, beside the parameters it started from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from hri_emo_ros import __version__
from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.data import metrics
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.labels import Recording
from hri_emo_ros.evaluation.replay import Parameters, Replayer, ReplayRun
from hri_emo_ros.evaluation.scores import FIGURES, Answers
from hri_emo_ros.evaluation.tune_choices import Choice, declared
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript


@dataclass
class Result:
    """What the search found and what it is worth on speakers that it never heard."""

    best: dict[str, Value]
    before: dict[str, Value]
    metric: str
    tune_speakers: list[str]
    test_speakers: list[str]
    tune_before: float
    tune_after: float
    test_before: float
    test_after: float
    difference: metrics.Interval
    """On the test speakers, after minus before, paired over speakers."""
    waiting_before: float
    waiting_after: float
    """Seconds from the end of speech to the final state: pause and wait for the words."""
    trials: int
    parameters: Parameters = field(repr=False, default_factory=dict)


class RememberingRecogniser:
    """Recognises the same sound once; words that come later than `hold` are lost, as on the robot.

    Recognition starts when speech seems to end, so words are waited for only as far as they take longer
    than the rest of the pause.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self._known: dict[bytes, Transcript] = {}
        self.hold = float("inf")
        self.head_start = 0.0
        """Seconds from the endpoint to the end of the pause."""

    @property
    def name(self) -> str:
        return self._recogniser.name

    def warm_up(self) -> None:
        """Already done."""

    def transcribe(self, samples: FloatArray, quality: SignalQuality | None = None) -> Transcript:
        """As the recogniser behind it."""
        key = hashlib.sha256(samples.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._recogniser.transcribe(samples, quality)
        found = self._known[key]
        if found.latency - self.head_start <= self.hold:
            return found
        return Transcript("", confidence=0.0, latency=found.latency)

    def wait(self, latency: float) -> float:
        """Seconds that words which took `latency` are waited for when the pause is over."""
        return min(max(0.0, latency - self.head_start), self.hold)


class Tuner:
    """Searches parameters on recordings.

    Args:
        replayer: model, recogniser and the parameters to start from.
        recordings: labelled bags.
        choices: what to search.
        metric: one of `scores.FIGURES`.
        waiting_cost: how much of the metric a second from the end of speech to the state is worth;
            without it longer pauses and waits would always win.
        storage: file or database URL through which processes search together; empty searches alone.
        test_share: share of the speakers kept for the test.
        seed: of the division and the search.

    Raises:
        HriEmoError: fewer than two speakers, or a recording is refused.
    """

    def __init__(
        self,
        replayer: Replayer,
        recordings: Sequence[Recording],
        choices: Sequence[Choice],
        metric: str = "ua",
        waiting_cost: float = 0.02,
        storage: str = "",
        test_share: float = 0.34,
        seed: int = 0,
    ) -> None:
        self._replayer, self._recordings, self._choices = replayer, recordings, choices
        self._metric, self._cost, self._seed = metric, waiting_cost, seed
        self._storage = storage
        self._recogniser = self._remembering(replayer.recogniser)
        self._start = replayer.parameters
        self._before = self._answers(self._start)
        speakers = sorted({name for _, names in self._before.parts for name in names})
        if len(speakers) < 2:
            raise HriEmoError(
                f"tuning needs labels of at least two speakers, there is {len(speakers)}: what is "
                "tuned on one voice cannot be tested on it (column 'speaker' of the labels)"
            )
        order = np.random.default_rng(seed).permutation(len(speakers))
        held_out = min(len(speakers) - 1, max(1, round(test_share * len(speakers))))
        self.test_speakers = sorted(speakers[i] for i in order[:held_out])
        self.tune_speakers = sorted(speakers[i] for i in order[held_out:])

    def run(self, trials: int, done: Callable[[int, float, float], None] | None = None) -> Result:
        """Search.

        Args:
            trials: sets of values to try, the present ones first.
            done: called with (number of the trial, its score, the best so far).
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = self._study()
        present = self._present()
        study.enqueue_trial(present, skip_if_exists=True)

        def objective(trial: optuna.Trial) -> float:
            values = {choice.parameter.name: choice.suggest(trial) for choice in self._choices}
            try:
                heard = self._answers(self._with(values))
            except HriEmoError as error:  # Values that are fine one by one may not fit together.
                raise optuna.TrialPruned(str(error)) from error
            return heard.score(self._metric, self.tune_speakers) - self._cost * heard.waiting

        def report(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            if done is not None and trial.value is not None:
                done(trial.number + 1, trial.value, study.best_value)

        # Those of all processes count.
        enough = MaxTrialsCallback(trials, (TrialState.COMPLETE, TrialState.PRUNED))
        study.optimize(objective, n_trials=trials, callbacks=[report, enough])
        best = {name: _rounded(value) for name, value in study.best_params.items()}
        after = self._answers(self._with(best))
        return self._result(best, present, after, trials)

    def _study(self) -> optuna.Study:
        """A search of its own, or the one of the storage that began with the same things."""
        if not self._storage:
            sampler = optuna.samplers.TPESampler(seed=self._seed)
            return optuna.create_study(direction="maximize", sampler=sampler)
        alike = (
            self._start, self._choices, self._metric, self._cost, self._seed,
            self._replayer.engine.model_id, [recording.bag.name for recording in self._recordings],
        )  # fmt: skip
        try:
            storage: Any = self._storage
            if "://" not in storage:
                storage = JournalStorage(JournalFileBackend(storage))
            return optuna.create_study(
                study_name=f"hri-emo-{hashlib.sha256(repr(alike).encode()).hexdigest()[:16]}",
                storage=storage,
                load_if_exists=True,
                direction="maximize",
                # Without a seed, or all would try the same.
                sampler=optuna.samplers.TPESampler(),
            )
        except Exception as error:  # Each database has its own.
            raise HriEmoError(f"--storage '{self._storage}' cannot be used: {error}") from error

    def _result(
        self, best: dict[str, Value], present: dict[str, Value], after: _Heard, trials: int
    ) -> Result:
        before = self._before
        true, first, groups = before.of(self.test_speakers)
        _, second, _ = after.of(self.test_speakers)
        figure = FIGURES[self._metric]
        return Result(
            best=best,
            before=present,
            metric=self._metric,
            tune_speakers=self.tune_speakers,
            test_speakers=self.test_speakers,
            tune_before=before.score(self._metric, self.tune_speakers),
            tune_after=after.score(self._metric, self.tune_speakers),
            test_before=before.score(self._metric, self.test_speakers),
            test_after=after.score(self._metric, self.test_speakers),
            difference=metrics.bootstrap_interval(
                lambda d: figure(true[d], second[d]) - figure(true[d], first[d]),
                len(true),
                groups,
            ),
            waiting_before=before.waiting,
            waiting_after=after.waiting,
            trials=trials,
            parameters=self._with(best),
        )

    def _present(self) -> dict[str, Value]:
        """The values to start from, within their ranges."""
        result: dict[str, Value] = {}
        for choice in self._choices:
            value = self._start[choice.node][choice.parameter.name]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert choice.low is not None
                assert choice.high is not None
                value = type(value)(min(max(value, choice.low), choice.high))
            result[choice.parameter.name] = value
        return result

    def _with(self, values: Mapping[str, Value]) -> Parameters:
        nodes = {node: dict(own) for node, own in self._start.items()}
        for choice in self._choices:
            nodes[choice.node][choice.parameter.name] = values[choice.parameter.name]
        return nodes

    def _remembering(self, recogniser: Recogniser | None) -> RememberingRecogniser | None:
        return RememberingRecogniser(recogniser) if recogniser is not None else None

    def _answers(self, parameters: Parameters) -> _Heard:
        """All recordings under these parameters."""
        recogniser = self._recogniser
        asr = parameters["asr_node"]
        pause = float(parameters["speech_node"]["segment.pause"])
        if recogniser is not None and dict(asr) != dict(self._start["asr_node"]):
            recogniser = self._remembering(make_recogniser(asr))
        if recogniser is not None:
            recogniser.hold = float(parameters["emotion_node"]["final.hold"])
            endpoint = float(parameters["speech_node"]["segment.endpoint"])
            recogniser.head_start = max(0.0, pause - endpoint)
        runs = [
            self._replayer.run(
                recording.bag, labels=recording.labels, recogniser=recogniser,
                parameters=parameters,
            )
            for recording in self._recordings
        ]  # fmt: skip
        for run in runs:
            if not any(label.emotion for label in run.reference or []):
                raise HriEmoError(f"'{run.bag}' has no labels with emotions to tune on: --labels")
        waits = []
        if recogniser is not None:
            waits = [recogniser.wait(u.latency["asr"]) for run in runs for u in run.utterances]
        return _Heard(runs, pause + (float(np.mean(waits)) if waits else 0.0))


class _Heard:
    """Answers of several recordings, by speaker."""

    def __init__(self, runs: Sequence[ReplayRun], waiting: float) -> None:
        self.waiting = waiting
        self.parts: list[tuple[Answers, list[str]]] = []
        for run in runs:
            answers = run.answers()
            # A recording that names no speakers counts as one.
            names = [m.label.speaker or str(run.bag) for m in answers.matches]
            self.parts.append((answers, names))

    def of(self, speakers: Sequence[str]) -> tuple[Any, Any, list[str]]:
        """Truth, answer and speaker of these speakers' labels."""
        wanted = set(speakers)
        masks = [np.array([n in wanted for n in names], np.bool_) for _, names in self.parts]
        pairs = list(zip(self.parts, masks, strict=True))
        return (
            np.concatenate([answers.targets[mask] for (answers, _), mask in pairs]),
            np.concatenate([answers.predictions[mask] for (answers, _), mask in pairs]),
            [n for (_, names), mask in pairs for n, m in zip(names, mask, strict=True) if m],
        )

    def score(self, metric: str, speakers: Sequence[str]) -> float:
        true, answered, _ = self.of(speakers)
        return float(FIGURES[metric](true, answered))


def _rounded(value: Any) -> Value:
    return round(value, 5) if isinstance(value, float) else value


def write_yaml(path: Path, result: Result) -> None:
    """A ROS parameter file with what was found, and in its head what it is worth.

    Raises:
        HriEmoError: the file cannot be written.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for name, value in result.best.items():
        node, _ = declared(name)
        nodes.setdefault(f"/**/{node}", {"ros__parameters": {}})["ros__parameters"][name] = value
    low, high = result.difference.low, result.difference.high
    head = [
        f"# Found by hri-emo tune {__version__} in {result.trials} trials.",
        f"# {result.metric} of the speakers tuned on: {result.tune_before:.3f} before, "
        f"{result.tune_after:.3f} after.",
        f"# {result.metric} of {len(result.test_speakers)} other speakers: "
        f"{result.test_before:.3f} before, {result.test_after:.3f} after "
        f"(difference 95 %: {low:.3f} to {high:.3f}).",
        f"# From the end of speech to the state: {result.waiting_before:.2f} s before, "
        f"{result.waiting_after:.2f} s after.",
        f"# Tested on: {', '.join(result.test_speakers)}",
    ]
    text = "\n".join(head) + "\n" + yaml.safe_dump(nodes, sort_keys=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HriEmoError(f"cannot write '{path}': {error.strerror}") from error
