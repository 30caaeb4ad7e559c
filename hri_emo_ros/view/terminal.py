# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""How estimates look in a terminal: the same for live nodes, files and the microphone."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hri_emo_ros.view.shown import Shown

BAR = 24
"""Width of a full probability bar, characters."""
COLOURS = {
    "neutral": "grey70", "happy": "yellow", "sad": "blue", "angry": "red", "fear": "magenta",
    "disgust": "green", "surprise": "cyan",
}  # fmt: skip
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(value: float, width: int = BAR) -> str:
    """A horizontal bar, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, value)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def now_panel(shown: Shown | None, title: str = "") -> RenderableType:
    """The newest estimate: a bar for each emotion, the two weights, the words."""
    if shown is None:
        return Panel(Text("listening ...", style="dim"), title=Text(title), title_align="left")
    bars = Table.grid(padding=(0, 1))
    bars.add_column(justify="right", width=9)
    bars.add_column(width=BAR)
    bars.add_column(justify="right", width=5)
    for label, probability in zip(shown.labels, shown.probabilities, strict=False):
        style = COLOURS.get(label, "white")
        strong = "bold " if label == shown.dominant else ""
        bars.add_row(
            Text(label, style=strong + style), Text(bar(probability), style=style),
            f"{probability:.2f}",
        )  # fmt: skip
    facts = Table.grid(padding=(0, 1))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("utterance", f"{shown.utterance} ({'final' if shown.final else 'speaking'})")
    facts.add_row("heard", f"{shown.duration:.1f} s")
    facts.add_row("words", Text(shown.words or "-"))
    facts.add_row("voice", f"{bar(shown.audio_weight, 10):<10} {shown.audio_weight:.2f}")
    facts.add_row("words'", f"{bar(shown.text_weight, 10):<10} {shown.text_weight:.2f}")
    facts.add_row("says", Text(shown.verdict))
    both = Table.grid(padding=(0, 3), expand=True)
    both.add_column(width=BAR + 18)
    both.add_column(ratio=1)
    both.add_row(bars, facts)
    return Panel(both, title=Text(title), title_align="left")


def history_table(finals: list[Shown]) -> Table:
    """Final estimates, one a row."""
    table = Table(expand=True, pad_edge=False)
    table.add_column("at", justify="right", width=8)
    table.add_column("long", justify="right", width=6)
    table.add_column("emotion", width=16)
    table.add_column("", width=10)
    table.add_column("voice/words", width=11, justify="center")
    table.add_column("latency", justify="right", width=8)
    table.add_column("heard", ratio=1, overflow="fold")
    for shown in finals:
        top = max(shown.probabilities, default=0.0)
        style = COLOURS.get(shown.dominant, "dim")
        table.add_row(
            f"{shown.start:.1f} s",
            f"{shown.duration:.1f} s",
            Text("abstained" if shown.abstained else shown.verdict, style=style),
            Text("" if shown.abstained else bar(top, 10), style=style),
            f"{shown.audio_weight:.2f} / {shown.text_weight:.2f}",
            f"{shown.latency * 1000:.0f} ms",
            Text(shown.abstained or shown.words or "-"),
        )
    return table


def screen(current: Shown | None, finals: list[Shown], title: str, rows: int = 14) -> Group:
    """The live view: the newest estimate above the latest final ones."""
    return Group(now_panel(current, title), history_table(finals[-rows:]))
