# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What ``hri-emo replay`` leaves behind: bag, page, JSON, and a few lines in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from hri_emo_ros.conversation import Conversation
from hri_emo_ros.data.json_files import write_json
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.ablation import ablation, ablation_section
from hri_emo_ros.evaluation.bag_writer import new_bag
from hri_emo_ros.evaluation.bags import AudioBag, TruncatedBagError
from hri_emo_ros.evaluation.emotion_bag import EmotionBagWriter
from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.evaluation.fleet import Fleet, kept
from hri_emo_ros.evaluation.labels import Recording
from hri_emo_ros.evaluation.replay import Parameters, Replayer, ReplayRun, merge
from hri_emo_ros.evaluation.replay_report import headline, write_report
from hri_emo_ros.pipeline import Record

UNFINISHED = ".unfinished-"
"""Beginning of the names of folders that are still being written."""


@contextmanager
def record_bag(out: Path | None, replayer: Replayer) -> Iterator[Callable[[Record], None] | None]:
    """Write the pipeline's records to OUT/bag; None where nothing is to be kept.

    Raises:
        HriEmoError: OUT/bag is there already.
    """
    if out is None:
        yield None
        return
    if (out / "bag").exists():
        raise HriEmoError(f"'{out / 'bag'}' exists already: give another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    with new_bag(out / "bag") as writer:
        conversation = Conversation(replayer.engine, replayer.parameters["emotion_node"])
        name = replayer.recogniser_name
        yield EmotionBagWriter(writer, "replay", name, conversation, replayer.parameters).write


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on standard error while it is a terminal; takes (seconds done, seconds in all)."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[speed]}"),
    )  # fmt: skip
    console = Console(stderr=True)
    silent = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task(title, total=None, speed="")
        last = -1.0

        def update(done: float, total: float) -> None:
            nonlocal last
            # A call for every 20 ms of audio would cost more than the audio.
            if done - last < total / 500 and done < total:
                return
            last = done
            elapsed = bar.tasks[task].elapsed or 0.0
            speed = f"{done / elapsed:.0f}x" if elapsed else ""
            bar.update(task, completed=done, total=total, speed=speed)

        yield update


def replay_offline(
    parameters: Parameters,
    bag: Path,
    topic: str = "",
    labels: Path | None = None,
    label_topic: str = "",
    out: Path | None = None,
    ablate: bool = False,
) -> ReplayRun:
    """Replay one bag with a progress bar, the output bag and, if asked for, the ablation.

    Raises:
        HriEmoError: something about the bag, the labels, the model or `out` is refused.
    """
    # A bag that cannot be read is said at once and not after the model has been loaded.
    AudioBag(bag, topic).close()
    replayer = Replayer(parameters)
    with record_bag(out, replayer) as record, progress_bar(bag.name) as progress:
        run = replayer.run(bag, topic, labels, label_topic, record=record, progress=progress)
    if ablate:
        with progress_bar("ablation") as progress:
            run.extra["ablation"] = ablation(replayer, run, progress)
    return run


@dataclass(frozen=True)
class _Job:
    """One of several recordings, for whichever worker."""

    parameters: Parameters
    recording: Recording
    name: str
    topic: str
    label_topic: str
    out: Path | None


def _replay(job: _Job) -> ReplayRun:
    """Replay one of several; its page and bag are written here, and only what is merged travels."""
    replayer = kept(Replayer, job.parameters)
    bag, labels = job.recording.bag, job.recording.labels
    if job.out is None:
        run = replayer.run(bag, job.topic, labels, job.label_topic)
    else:
        # Beside its place, so that what a worker that died has left is never taken for a whole one.
        job.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=job.out.parent, prefix=UNFINISHED) as folder:
            unfinished = Path(folder) / job.out.name
            with record_bag(unfinished, replayer) as record:
                run = replayer.run(bag, job.topic, labels, job.label_topic, record=record)
            write_report(run, unfinished)
            if not job.out.exists():  # A worker taken for lost may have come to its end.
                unfinished.replace(job.out)
    for utterance in run.utterances:
        utterance.provisional = []
    return replace(run, bag=Path(job.name), envelope=Envelope())


def replay_many(
    parameters: Parameters,
    recordings: Sequence[Recording],
    topic: str = "",
    label_topic: str = "",
    out: Path | None = None,
    fleet: Fleet | None = None,
) -> ReplayRun:
    """Replay several bags as one run, with a progress bar; each one's own report and bag go to a folder of its
    name in `out`.

    Args:
        fleet: who does the work; None is this process.

    Returns:
        The merged run; what could not be replayed is in ``extra["failed"]``, with the reason.

    Raises:
        HriEmoError: two recordings are the same, `out` has one of them, or none can be replayed.
    """
    names = _names([recording.bag for recording in recordings])
    places = [None if out is None else out / name for name in names]
    for place in places:
        if place is not None and place.exists():
            raise HriEmoError(f"'{place}' exists already: give another folder with --out")
    jobs = [
        _Job(parameters, recording, name, topic, label_topic, place)
        for recording, name, place in zip(recordings, names, places, strict=True)
    ]
    seconds = [_length(recording.bag, topic) for recording in recordings]
    started = time.perf_counter()
    with progress_bar(f"{len(jobs)} recordings") as progress:
        past = 0.0

        def done(number: int, result: ReplayRun | HriEmoError) -> None:
            nonlocal past
            past += seconds[number]
            progress(past, sum(seconds))

        results = (fleet or Fleet()).map(_replay, jobs, done)
    for left in [] if out is None else list(out.rglob(f"{UNFINISHED}*")):
        shutil.rmtree(left)
    runs = [result for result in results if isinstance(result, ReplayRun)]
    failed = [
        {"bag": name, "reason": str(result)}
        for name, result in zip(names, results, strict=True)
        if isinstance(result, HriEmoError)
    ]
    if not runs:
        raise HriEmoError(
            f"no recording can be replayed; {failed[0]['bag']}: {failed[0]['reason']}"
        )
    merged = merge(runs, time.perf_counter() - started)
    merged.extra["failed"] = failed
    return merged


def _names(bags: Sequence[Path]) -> list[str]:
    """What tells the recordings apart: their paths below the folder that holds them all."""
    paths = [bag.resolve() for bag in bags]
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise HriEmoError(f"the recording '{twice[0]}' is named twice")
    above = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(above)) for path in paths]


def _length(bag: Path, topic: str) -> float:
    """Seconds; 0 for one that cannot be read, which the worker will say."""
    try:
        with AudioBag(bag, topic) as audio:
            return audio.duration
    except HriEmoError:
        return 0.0


def finish(run: ReplayRun, out: Path | None, json: Path | None) -> None:
    """Write the page and the JSON, print the figures.

    Raises:
        TruncatedBagError: last of all, where the bag broke off.
        HriEmoError: or where one of several could not be replayed.
    """
    summary = run.summary()
    if out is not None:
        extra = [ablation_section(run.extra["ablation"])] if "ablation" in run.extra else []
        print(write_report(run, out, extra, summary))
    if json is not None:
        write_json(json, summary)
    if str(json) != "-":
        print_summary(run.name, summary)
    for part in run.parts or [run]:
        for fault in part.extra.get("faults", ()):
            print(f"{part.bag if run.parts else part.name}: {fault}", file=sys.stderr)
    failed = run.extra.get("failed", ())
    for one in failed:
        print(f"{one['bag']}: {one['reason']}", file=sys.stderr)
    if failed:
        raise HriEmoError(f"{len(failed)} of the recordings could not be replayed")
    if run.truncated:
        raise TruncatedBagError(run.truncated)


def print_summary(name: str, summary: Mapping[str, Any]) -> None:
    """The figures that matter, as a small table."""
    table = Table(title=f"Replay of {name}", show_header=False, title_justify="left")
    for row in headline(summary):
        table.add_row(*row)
    Console().print(table)
