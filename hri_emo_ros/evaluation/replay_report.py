# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The page and the JSON of a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hri_emo_ros.data.json_files import write_json
from hri_emo_ros.evaluation import svg
from hri_emo_ros.evaluation.replay import ReplayRun
from hri_emo_ros.evaluation.report import (
    Code,
    Figure,
    Section,
    Table,
    Tile,
    TimelineItem,
    coverage_figure,
    emotion_section,
    reliability_figure,
    shown,
    with_interval,
    write_page,
)
from hri_emo_ros.evaluation.timeline import timeline
from hri_emo_ros.evaluation.utterances import HeardUtterance

_FIGURE_NAMES = {
    "ua": "UA, unweighted average recall",
    "wa": "WA, accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
}
_CUTS = ("labels", "one_to_one", "missed", "split", "merged")


def write_report(
    run: ReplayRun,
    folder: Path,
    extra: Sequence[Section] = (),
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` into a folder; returns the page.

    Args:
        run: what was measured.
        folder: made if need be.
        extra: more sections, behind the emotions.
        summary: of the run, where it has been made already (its intervals take a moment).
    """
    summary = summary or run.summary()
    write_json(folder / "report.json", summary)
    page = folder / "report.html"
    minutes, seconds = divmod(run.duration, 60)
    write_page(
        page,
        f"Replay of {run.name}",
        f"{minutes:.0f} min {seconds:.0f} s on {run.topic} ({run.message_type.rsplit('/', 1)[-1]}), "
        f"model {run.model_id}, recogniser {run.recogniser}",
        _tiles(run, summary),
        [
            _recordings_section(summary) if run.parts else _timeline_section(run),
            *(_scored_sections(run, summary) if run.reference is not None else ()),
            *extra,
            _latency_section(summary),
            *(() if run.parts else (_states_section(run),)),
            _identity_section(run, summary),
        ],
        notices=[run.truncated] if run.truncated else [],
    )
    return page


def headline(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures for a terminal."""
    lines = [("final states", str(summary["final_states"]))]
    if "ua" in summary:
        lines += [
            ("labelled utterances", str(summary["utterances"])),
            ("missed", str(summary["missed"])),
            *((name, str(summary["segmentation"][name])) for name in ("split", "merged")),
            ("abstained", str(summary["abstained"])),
        ]
        lines += [
            (name, with_interval(summary["intervals"][key])) for key, name in _FIGURE_NAMES.items()
        ]
        lines += [
            ("calibration error", shown(summary["ece"])),
            ("word error rate", shown(summary["wer"])),
            ("the same, refused words left out", shown(summary["wer_used"])),
        ]
    if summary["latency"]:
        total = summary["latency"]["total"]
        lines.append(("latency p50 / p95", f"{total['p50']:.3f} / {total['p95']:.3f} s"))
    lines.append(("speed", f"{summary['speed']} x real time"))
    return lines


def _tiles(run: ReplayRun, summary: Mapping[str, Any]) -> list[Tile]:
    tiles = []
    if "ua" in summary:
        interval = summary["intervals"]["ua"]
        between = f"{shown(interval['low'])} to {shown(interval['high'])}"
        tiles += [
            Tile("UA", shown(summary["ua"]), f"{between}; chance {shown(summary['chance_ua'])}"),
            Tile("WA", shown(summary["wa"]), "accuracy"),
            Tile("macro F1", shown(summary["macro_f1"])),
            Tile(
                "labelled",
                str(summary["utterances"]),
                f"{summary['missed']} missed, {summary['segmentation']['split']} split, "
                f"{summary['segmentation']['merged']} merged",
            ),
            Tile("abstained", str(summary["abstained"]), "of the labelled"),
            Tile("ECE", shown(summary["ece"]), "calibration error"),
            Tile("WER", shown(summary["wer"]), "words"),
        ]
    tiles.append(Tile("final states", str(summary["final_states"])))
    if summary["latency"]:
        total = summary["latency"]["total"]
        tiles.append(
            Tile("latency", f"{total['p50'] * 1e3:.0f} ms", f"p95 {total['p95'] * 1e3:.0f}")
        )
    tiles.append(Tile("speed", f"{summary['speed']:.3g}x", "real time"))
    return tiles


def _timeline_section(run: ReplayRun) -> Section:
    drawing = timeline(run.duration, run.envelope, run.utterances, run.reference or [], run.labels)
    caption = (
        "Boxes in the sound are the utterances found, with their number and a dotted line where "
        "speech ended. Probabilities: darker is more likely, the frame is the highest; columns are "
        "provisional states as they came, the last one is the final state. Weights: black is voice, "
        "hatched is words. ✓ and ✗ compare with the label."
    )
    return Section("Timeline", [TimelineItem.of(drawing, caption)])


def _recordings_section(summary: Mapping[str, Any]) -> Section:
    rows = [
        [
            one["bag"],
            round(one["duration"], 1),
            one["final_states"],
            one["abstained_states"],
            one["labels"],
            one["truncated"] or "; ".join(one["faults"]),
        ]
        for one in summary["recordings"]
    ]
    rows += [[one["bag"], None, None, None, None, one["reason"]] for one in summary["failed"]]
    columns = ["recording", "s", "final states", "abstained", "labels", "what is wrong"]
    return Section("Recordings", [Table("Each by itself", columns, rows)])


def _scored_sections(run: ReplayRun, summary: Mapping[str, Any]) -> list[Section]:
    sections = []
    if summary["utterances"]:
        sections += [_overall_section(summary), _per_emotion_section(run, summary)]
        sections.append(_confidence_section(run, summary))
    return [*sections, _segmentation_section(run, summary)]


def _overall_section(summary: Mapping[str, Any]) -> Section:
    rows = []
    for key, name in _FIGURE_NAMES.items():
        interval = summary["intervals"][key]
        rows.append(
            [name, interval["value"], interval["low"], interval["high"],
             summary["answered"][key], summary["majority"][key]]
        )  # fmt: skip
    return Section(
        "Figures",
        [
            Table(
                "All labelled utterances",
                ["figure", "value", "95 % from", "to", "answered only", "always the commonest"],
                rows,
                "What was missed, or came without an estimate, counts as wrong. Intervals are "
                "bootstrapped over speakers where labels name them. 'Answered only' leaves out what "
                f"abstained: coverage {shown(summary['answered']['coverage'])}.",
            )
        ],
    )


def _per_emotion_section(run: ReplayRun, summary: Mapping[str, Any]) -> Section:
    confusion = summary["confusion"]
    columns, counts = confusion["labels"], confusion["counts"]
    if not any(row[-1] for row in counts):
        columns, counts = columns[:-1], [row[:-1] for row in counts]
    return emotion_section(summary["per_emotion"], list(run.labels), columns, counts)


def _confidence_section(run: ReplayRun, summary: Mapping[str, Any]) -> Section:
    answers = run.answers()
    right = (answers.targets == answers.predictions)[answers.estimated]
    doubt = 1.0 - answers.probabilities.max(axis=1) if len(right) else np.zeros(0)
    reasons = [
        [reason.replace("_", " "), count] for reason, count in summary["abstain_reasons"].items()
    ]
    table = Table(
        "Abstained, by reason", ["reason", "utterances"], reasons or [["none", 0]],
        "Of the labelled utterances.",
    )  # fmt: skip
    return Section(
        "Confidence",
        [
            reliability_figure(summary["reliability"], summary["ece"]),
            coverage_figure(right, doubt),
            table,
        ],
    )


def _segmentation_section(run: ReplayRun, summary: Mapping[str, Any]) -> Section:
    cut = summary["segmentation"]
    counts = [
        ["labelled", cut["labels"], "stretches of speech that a person marked"],
        ["found", cut["utterances"], "utterances"],
        ["one to one", cut["one_to_one"], "one utterance, one label"],
        ["missed", cut["missed"], "labels without an utterance"],
        ["split", cut["split"], "labels cut into several utterances"],
        ["merged", cut["merged"], "utterances over several labels"],
        ["unlabelled", cut["unlabelled"], "utterances where nobody is labelled"],
        ["truncated", cut["truncated"], "utterances cut at segment.max_length"],
        ["words refused", sum(bool(u.rejected_transcript) for u in run.utterances),
         "utterances whose transcript was rejected (asr.min_confidence): the voice alone spoke"],
    ]  # fmt: skip
    errors = [
        [name, cut[key]["mean"], cut[key]["mean_absolute"], cut[key]["p90_absolute"]]
        for name, key in (("start", "start_error"), ("end", "end_error"))
    ]
    by_emotion = [
        [emotion or "(none named)", *(of[key] for key in _CUTS)]
        for emotion, of in cut["by_emotion"].items()
    ]
    items = [
        Table("Utterances", ["", "count", "meaning"], counts),
        Table(
            "Labels by emotion",
            ["emotion", "labelled", *(key.replace("_", " ") for key in _CUTS[1:])],
            by_emotion,
            "Missed: no utterance holds it. Merged: its utterance holds some of another label too.",
        ),
        Table(
            "Boundaries, s", ["", "mean", "mean magnitude", "90th percentile"], errors,
            "Found minus labelled, of one-to-one pairs; pre-roll and hang-over are taken off.",
        ),
    ]  # fmt: skip
    words = summary["words"]
    if words:
        rows = [[name, words[name]] for name in words]
        items.append(
            Table(f"Words: error rate {shown(summary['wer'])}", ["", "count"], rows,
                  "Case and punctuation do not count; words in missed speech are deletions. Where refused words "
                  f"count as deletions too, the error rate of the words used is {shown(summary['wer_used'])}.")
        )  # fmt: skip
    return Section("Segmentation and words", items)


def _latency_section(summary: Mapping[str, Any]) -> Section:
    rows = [
        [stage.replace("_", " "), *(round(1e3 * value[q], 1) for q in ("p50", "p95", "p99"))]
        for stage, value in summary["latency"].items()
    ]
    return Section(
        "Latency",
        [Table("Milliseconds by stage", ["stage", "p50", "p95", "p99"], rows)],
        "Of the final states, from the end of speech. Offline these are times of computing only: "
        "nothing waits in queues, and the pause that ends an utterance is not in them.",
    )


def _states_section(run: ReplayRun) -> Section:
    truth = {id(m.best): m.label.emotion for m in run.matches if m.best is not None}
    rows = [_state_row(u, truth.get(id(u), "")) for u in run.utterances]
    columns = ["no.", "start, s", "end, s", "true", "answer", "p", "abstained", "uncertainty",
               "voice", "words", "SNR, dB", "heard"]  # fmt: skip
    return Section("Utterances", [Table("Final states", columns, rows)])


def _state_row(u: HeardUtterance, truth: str) -> list[Any]:
    return [
        u.utterance_id,
        round(u.start, 2),
        round(u.end, 2),
        truth,
        u.dominant,
        max(u.probabilities, default=None),
        u.abstained.replace("_", " "),
        u.uncertainty,
        u.audio_weight,
        u.text_weight,
        round(u.snr_db, 1),
        f"(refused: {u.rejected_transcript})" if u.rejected_transcript else u.transcript,
    ]


def _identity_section(run: ReplayRun, summary: Mapping[str, Any]) -> Section:
    parameters = {
        node: {"ros__parameters": dict(values)}
        for node, values in run.parameters.items()
        if node not in ("audio_player", "ros4hri_bridge")
    }
    identity = {
        "bag": run.name,
        "model": run.model_id,
        "recogniser": run.recogniser,
        "hri_emo_ros": summary["version"],
        "counters": run.counters,
    }
    return Section(
        "To run it again",
        [
            Code("What it was", yaml.safe_dump(identity, sort_keys=False), open=True),
            Code(
                "Parameters: save as params.yaml and give it with --params",
                yaml.safe_dump(parameters, sort_keys=False),
            ),
        ],
    )


def comparison_figure(
    title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], chance: float | None, caption: str
) -> Figure:
    """Bars with intervals, one for each condition."""
    return Figure(
        title,
        svg.bars(
            [name for name, _ in rows],
            [figure["value"] for _, figure in rows],
            [figure["low"] for _, figure in rows],
            [figure["high"] for _, figure in rows],
            chance,
        ),
        caption,
    )
