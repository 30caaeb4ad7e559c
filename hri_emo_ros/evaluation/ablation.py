# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Where the loss comes from: words or boundaries, voice or words, and which of them leads.

Every label that names an emotion is answered under eight conditions: with its true boundaries or with
those of the utterances found, with its true words or the recognised ones, with voice and words, voice
alone and words alone. All use the same model on the same sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from hri_emo_ros.audio.quality import measure_quality
from hri_emo_ros.data import metrics
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.excerpts import excerpts
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.replay import Replayer, ReplayRun
from hri_emo_ros.evaluation.replay_report import comparison_figure
from hri_emo_ros.evaluation.report import Section, Table
from hri_emo_ros.evaluation.scores import FIGURES, rounded
from hri_emo_ros.evaluation.utterances import HeardUtterance
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript

BOUNDARIES = ("found", "true")
WORDS = ("recognised", "true")
_BOTH = ("found", "recognised", "both")
_NOTHING = -1
"""Class of what was missed: the first label is never taken for it."""


def ablation(
    replayer: Replayer,
    run: ReplayRun,
    progress: Callable[[float, float], None] | None = None,
) -> dict[str, Any]:
    """Answer every label under every condition.

    Args:
        replayer: with the model and recogniser of the run.
        run: a finished replay with labels.
        progress: called with (labels done, labels in all).

    Returns:
        JSON: ``conditions``, ``differences`` (each against voice and words as found and recognised,
        with paired 95 % intervals), ``conflict`` (who leads when voice and words disagree).

    Raises:
        HriEmoError: there are no labels with emotions.
    """
    labels = [label for label in run.reference or [] if label.emotion]
    if not labels:
        raise HriEmoError(f"--ablate needs labels with emotions for '{run.bag}': give --labels")
    index = {name: i for i, name in enumerate(run.labels)}
    targets = np.array([index[label.emotion] for label in labels])
    answers = _Answers(replayer, run)
    rows: list[dict[tuple[str, str, str], int]] = []
    for number, (label, heard, found, true) in enumerate(_sounds(run, labels)):
        rows.append(answers.of(label, heard, found, true))
        if progress is not None:
            progress(number + 1, len(labels))
    names = list(rows[0])
    predictions = {name: np.array([row[name] for row in rows]) for name in names}
    groups = [label.speaker for label in labels]
    speakers = groups if all(groups) else None
    texts = sum(bool(label.text) for label in labels)
    return {
        "utterances": len(labels),
        "with_text": texts,
        "recogniser": run.recogniser,
        "conditions": [_condition(name, targets, predictions[name], speakers) for name in names],
        "differences": [
            _difference(name, targets, predictions[name], predictions[_BOTH], speakers)
            for name in names
            if name != _BOTH
        ],
        "conflict": _conflict(predictions, targets),
    }


def _sounds(
    run: ReplayRun, labels: Sequence[Label]
) -> Iterator[tuple[Label, HeardUtterance | None, FloatArray, FloatArray]]:
    """Each label, the utterance found for it, that one's sound, the sound of its true stretch."""
    values = run.parameters["speech_node"]
    # The same pre-roll and hang-over as the segmenter's, so that only the boundary differs.
    before = float(values["segment.pre_roll"])
    after = float(values["segment.hang_over"])
    best = {id(match.label): match.best for match in run.matches}
    spans = []
    for label in labels:
        heard = best.get(id(label))
        spans.append((heard.start, heard.end) if heard else (label.start, label.start))
        spans.append((label.start - before, label.end + after))
    sounds = excerpts(run.bag, run.topic, values, spans)
    for label in labels:
        yield label, best.get(id(label)), next(sounds), next(sounds)


class _Answers:
    """Asks the model for classes under every condition."""

    def __init__(self, replayer: Replayer, run: ReplayRun) -> None:
        self._engine, self._recogniser = replayer.engine, replayer.recogniser
        self._labels = run.labels

    def of(
        self,
        label: Label,
        heard: HeardUtterance | None,
        found: FloatArray,
        true: FloatArray,
    ) -> dict[tuple[str, str, str], int]:
        """Class answered, by (boundaries, words, modalities)."""
        spoken = Transcript(label.text) if label.text else None
        quality = measure_quality(true)
        cut = self._modalities(
            true, quality, {"true": spoken, "recognised": self._recognised(true, quality)}
        )
        result = {("true", *name): answer for name, answer in cut.items()}
        if heard is None:
            return result | {("found", *name): _NOTHING for name in cut}
        recognised = None
        if heard.transcript:
            recognised = Transcript(heard.transcript, confidence=heard.transcript_confidence)
        words = {"true": spoken, "recognised": recognised}
        answers = self._modalities(found, heard.quality, words)
        return result | {("found", *name): answer for name, answer in answers.items()}

    def _recognised(self, samples: FloatArray, quality: SignalQuality) -> Transcript | None:
        if self._recogniser is None:
            return None
        heard = self._recogniser.transcribe(samples, quality)
        return heard if heard.text else None

    def _modalities(
        self,
        samples: FloatArray,
        quality: SignalQuality,
        words: Mapping[str, Transcript | None],
    ) -> dict[tuple[str, str], int]:
        result = {("none", "voice"): self._answer(samples, None, quality)}
        for kind, transcript in words.items():
            result[kind, "words"] = self._answer(None, transcript, None)
            result[kind, "both"] = self._answer(samples, transcript, quality)
        return result

    def _answer(
        self,
        samples: FloatArray | None,
        transcript: Transcript | None,
        quality: SignalQuality | None,
    ) -> int:
        if samples is None and transcript is None:
            return _NOTHING
        estimate = self._engine.estimate(samples, transcript, quality)
        return int(np.argmax(estimate.probabilities))


def _condition(
    name: tuple[str, str, str],
    targets: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    speakers: Sequence[str] | None,
) -> dict[str, Any]:
    true, answered = _shifted(targets, predictions)
    ua = metrics.bootstrap_interval(
        lambda drawn: metrics.ua(true[drawn], answered[drawn]), len(true), speakers
    )
    return {
        "boundaries": name[0], "words": name[1], "modalities": name[2],
        "answered": int((predictions != _NOTHING).sum()),
        "ua_interval": rounded(asdict(ua)),
        **{key: rounded(figure(true, answered)) for key, figure in FIGURES.items()},
    }  # fmt: skip


def _difference(
    name: tuple[str, str, str],
    targets: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    baseline: npt.NDArray[np.int64],
    speakers: Sequence[str] | None,
) -> dict[str, Any]:
    """UA of a condition minus that of the pipeline as it runs, on the same draws."""
    true, one = _shifted(targets, predictions)
    _, other = _shifted(targets, baseline)
    interval = metrics.bootstrap_interval(
        lambda d: metrics.ua(true[d], one[d]) - metrics.ua(true[d], other[d]), len(true), speakers
    )
    return {
        "boundaries": name[0], "words": name[1], "modalities": name[2], **rounded(asdict(interval)),
    }  # fmt: skip


def _shifted(
    targets: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Both one higher, so that nothing becomes class 0, which never is a target."""
    return targets + 1, predictions + 1


def _conflict(
    predictions: Mapping[tuple[str, str, str], npt.NDArray[np.int64]],
    targets: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Which of voice and words the whole follows where the two, asked alone, disagree."""
    result = {}
    for words in WORDS:
        voice = predictions["true", "none", "voice"]
        alone = predictions["true", words, "words"]
        both = predictions["true", words, "both"]
        differ = (voice != alone) & (voice != _NOTHING) & (alone != _NOTHING)
        count = int(differ.sum())

        def share(which: npt.NDArray[np.bool_], count: int = count) -> float | None:
            return round(float(which.sum()) / count, 4) if count else None

        result[words] = {
            "disagree": count,
            "follows_voice": share(differ & (both == voice)),
            "follows_words": share(differ & (both == alone)),
            "neither": share(differ & (both != voice) & (both != alone)),
            "voice_right": share(differ & (voice == targets)),
            "words_right": share(differ & (alone == targets)),
            "both_right": share(differ & (both == targets)),
        }
    return result


def ablation_section(result: Mapping[str, Any]) -> Section:
    """The ablation on the report's page."""
    by_name = {(c["boundaries"], c["words"], c["modalities"]): c for c in result["conditions"]}
    against = {(d["boundaries"], d["words"], d["modalities"]): d for d in result["differences"]}
    bars, rows = [], []
    for name, condition in by_name.items():
        boundaries, words, modalities = name
        with_words = "" if words == "none" else f", {words} words"
        text = f"{modalities}{with_words}, {boundaries} cut"
        bars.append((text, condition["ua_interval"]))
        change = against.get(name, {"value": None, "low": None, "high": None})
        rows.append(
            [modalities, words, boundaries, condition["ua"], condition["wa"], condition["macro_f1"],
             change["value"], change["low"], change["high"]]
        )  # fmt: skip
    grid = [
        [f"{words} words", *(by_name[b, words, "both"]["ua"] for b in BOUNDARIES)]
        for words in WORDS
    ]
    conflict = [
        [words, c["disagree"], c["follows_voice"], c["follows_words"], c["neither"],
         c["voice_right"], c["words_right"], c["both_right"]]
        for words, c in result["conflict"].items()
    ]  # fmt: skip
    columns = ["", "words", "boundaries", "UA", "WA", "macro F1", "UA difference", "from", "to"]
    return Section(
        "Where the loss comes from",
        [
            Table("UA, voice and words together", ["", "found cut", "true cut"], grid),
            comparison_figure("UA by condition", bars, None, "Lines are 95 % intervals."),
            Table(
                "All conditions", columns, rows,
                "Differences are to the pipeline as it runs (both, recognised words, found cut), "
                "paired, with 95 % intervals.",
            ),
            Table(
                "When voice and words disagree",
                ["words", "disagree", "follows voice", "follows words", "neither", "voice right",
                 "words right", "both right"],
                conflict,
                "At true boundaries: answers of voice alone and of words alone differ, and the model "
                "that has both sides with one of them. Shares of the disagreements.",
            ),
        ],
        f"{result['utterances']} labels, {result['with_text']} of them with their words; "
        f"recogniser {result['recogniser']}.",
    )  # fmt: skip
