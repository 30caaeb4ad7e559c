# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo vad``: which speech is heard and which noise is taken for speech, by level and threshold."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import Value, load_parameters

if TYPE_CHECKING:
    from hri_emo_ros.evaluation.hearing import Hearing

_ALLOWED_LOST = 0.02
"""Groups that lose a larger share are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--manifest", type=Path, nargs="+", default=[], metavar="FILE.csv",
        help="clips of one utterance each: path (relative to the file) and any of corpus, speaker, sex, "
        "emotion, intensity",
    )  # fmt: skip
    parser.add_argument("--noise", type=Path, metavar="DIR", help="folder or file without speech")
    parser.add_argument(
        "--peak", default="recorded", metavar="DBFS,...",
        help="levels to which each clip's peak is brought, e.g. recorded,-40,0 (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--thresholds", default="", metavar="T:R,...",
        help="pairs of vad.threshold and vad.release_threshold to compare, e.g. 0.5:0.35,0.3:0.2",
    )  # fmt: skip
    parser.add_argument("--params", type=Path, metavar="FILE.yaml", help="ROS parameter file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME:=VALUE", help="one parameter; repeats"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures; - prints them"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    if not args.manifest and args.noise is None:
        raise HriEmoError("nothing to hear: give --manifest, --noise or both")
    parameters = _parameters(args)
    levels = [_peak(text) for text in args.peak.split(",")]
    from hri_emo_ros.data.json_files import write_json
    from hri_emo_ros.evaluation.hearing import hear

    console = Console(stderr=True)
    with console.status("") as status:
        found = hear(args.manifest, args.noise, levels, parameters, progress=status.update)
    summaries = [hearing.summary() for hearing in found]
    if args.json is not None:
        write_json(args.json, {"settings": summaries})
    if str(args.json) != "-":
        _print(found)
    return 0


def _parameters(args: argparse.Namespace) -> list[dict[str, Value]]:
    """The speech node's values, once for each pair of thresholds."""
    values = load_parameters(args.params, args.set)["speech_node"]
    if not args.thresholds:
        return [values]
    found = []
    for pair in args.thresholds.split(","):
        try:
            start, release = (float(part) for part in pair.split(":"))
        except ValueError as error:
            raise HriEmoError(
                f"--thresholds has '{pair}', must be THRESHOLD:RELEASE, e.g. 0.5:0.35"
            ) from error
        overrides = [f"vad.threshold:={start}", f"vad.release_threshold:={release}"]
        found.append(load_parameters(args.params, [*args.set, *overrides])["speech_node"])
    return found


def _peak(text: str) -> float | None:
    if text.strip() == "recorded":
        return None
    try:
        level = float(text)
    except ValueError:
        level = 1.0
    if not -90.0 <= level <= 0.0:
        raise HriEmoError(f"--peak has '{text}', must be 'recorded' or -90 to 0 dBFS")
    return level


def _print(found: list[Hearing]) -> None:
    from hri_emo_ros.evaluation.hearing import by, figures, shown_level

    console = Console()
    table = Table(title="Speech heard and noise taken for speech", title_justify="left")
    for name in ("level", "thresholds", "clips", "lost", "one utterance", "start error, s",
                 "in noise, 1/min"):  # fmt: skip
        table.add_column(name, justify="left" if name in ("level", "thresholds") else "right")
    corpora = Table(title="Lost, one utterance, start error by corpus", title_justify="left")
    for name in (
        "level",
        "thresholds",
        "corpus",
        "clips",
        "lost",
        "one utterance",
        "start error, s",
    ):
        corpora.add_column(name)
    worst = Table(title=f"Groups that lose more than {_ALLOWED_LOST:.0%}", title_justify="left")
    for name in ("level", "thresholds", "corpus emotion sex intensity", "clips", "lost"):
        worst.add_column(name)
    for hearing in found:
        values = hearing.parameters
        where = [shown_level(hearing.level),
                 f"{values['vad.threshold']:g} / {values['vad.release_threshold']:g}"]  # fmt: skip
        noise = hearing.summary()["noise"]["per_minute"]
        table.add_row(*where, *_cells(figures(hearing.clips)), _share(noise, "{:.2f}"))
        for name, of in by(hearing.clips, ("corpus",)).items():
            corpora.add_row(*where, name, *_cells(of))
        for name, of in by(hearing.clips, ("corpus", "emotion", "sex", "intensity")).items():
            if of["lost"] > _ALLOWED_LOST:
                worst.add_row(*where, name, str(of["clips"]), _share(of["lost"]))
    console.print(table)
    if any(hearing.clips for hearing in found):
        console.print(corpora)
    if worst.row_count:
        console.print(worst)


def _cells(of: dict[str, float | None]) -> list[str]:
    return [
        str(of["clips"]), _share(of["lost"]), _share(of["one_to_one"]),
        _share(of["start_error"], "{:.3f}"),
    ]  # fmt: skip


def _share(value: float | None, form: str = "{:.2%}") -> str:
    return "" if value is None else form.format(value)
