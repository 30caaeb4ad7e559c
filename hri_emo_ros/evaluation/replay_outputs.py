# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What ``hri-emo replay`` leaves behind: bag, page, JSON, and a few lines in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from hri_emo_ros.evaluation.replay import Parameters, Replayer, ReplayRun
from hri_emo_ros.evaluation.replay_report import headline, write_report
from hri_emo_ros.pipeline import Record


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


def finish(run: ReplayRun, out: Path | None, json: Path | None) -> None:
    """Write the page and the JSON, print the figures.

    Raises:
        TruncatedBagError: last of all, where the bag broke off.
    """
    summary = run.summary()
    if out is not None:
        extra = [ablation_section(run.extra["ablation"])] if "ablation" in run.extra else []
        print(write_report(run, out, extra, summary))
    if json is not None:
        write_json(json, summary)
    if str(json) != "-":
        print_summary(run.bag.name, summary)
    for fault in run.extra.get("faults", ()):
        print(f"{run.bag.name}: {fault}", file=sys.stderr)
    if run.truncated:
        raise TruncatedBagError(run.truncated)


def print_summary(name: str, summary: Mapping[str, Any]) -> None:
    """The figures that matter, as a small table."""
    table = Table(title=f"Replay of {name}", show_header=False, title_justify="left")
    for row in headline(summary):
        table.add_row(*row)
    Console().print(table)
