"""How estimates look in a terminal: the same for live nodes, files and the microphone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hri_emo_ros import messages
from hri_emo_ros.pipeline import Outcome

BAR = 24
"""Width of a full probability bar, characters."""
COLOURS = {
    "neutral": "grey70", "happy": "yellow", "sad": "blue", "angry": "red", "fear": "magenta",
    "disgust": "green", "surprise": "cyan",
}  # fmt: skip
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Shown:
    """One estimate, from wherever it came."""

    utterance: int
    start: float
    """Seconds since the first sound, or of the clock."""
    duration: float
    final: bool
    words: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    dominant: str
    """Empty when abstained."""
    abstained: str
    """Why; empty when not."""
    audio_weight: float
    text_weight: float
    latency: float
    """Seconds from the end of speech to the estimate."""
    asr: float
    """Seconds of recognition."""

    @property
    def verdict(self) -> str:
        if self.abstained:
            return f"abstained: {self.abstained}"
        top = max(self.probabilities, default=0.0)
        return f"{self.dominant} {top:.2f}"

    @property
    def line(self) -> str:
        """In one line, for logs and pipes."""
        return (
            f"{self.start:7.2f} s  {self.duration:5.2f} s  {self.verdict:<18}  "
            f"voice {self.audio_weight:.2f} words {self.text_weight:.2f}  "
            f"{self.latency * 1000:5.0f} ms  {self.words or '-'}"
        )


def from_message(message: Any, epoch_ns: int = 0) -> Shown:
    """Of a hri_emo_msgs/EmotionState."""
    stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
    return Shown(
        utterance=message.utterance_id,
        start=(stamp_ns - epoch_ns) * 1e-9,
        duration=message.duration,
        final=message.stage == 1,
        words=_words(message.transcript, message.rejected_transcript),
        labels=tuple(score.label for score in message.scores),
        probabilities=tuple(score.probability for score in message.scores),
        dominant=message.dominant,
        abstained=message.abstain_text if message.abstained else "",
        audio_weight=message.audio_weight,
        text_weight=message.text_weight,
        latency=message.latency.total,
        asr=message.latency.asr,
    )


def from_outcome(outcome: Outcome, epoch_ns: int = 0) -> Shown:
    """Of what the pipeline emits without ROS."""
    estimate = outcome.estimate
    fields = messages.state(outcome, "", "")
    return Shown(
        utterance=outcome.utterance_id,
        start=(outcome.stamp_ns - epoch_ns) * 1e-9,
        duration=estimate.duration,
        final=outcome.stage == "final",
        words=_words(fields["transcript"], fields["rejected_transcript"]),
        labels=estimate.labels,
        probabilities=tuple(float(p) for p in estimate.probabilities),
        dominant="" if estimate.abstained else estimate.dominant,
        abstained=estimate.abstain_text,
        audio_weight=float(estimate.audio_weight),
        text_weight=float(estimate.text_weight),
        latency=outcome.latency["total"],
        asr=outcome.latency["asr"],
    )


def _words(used: str, rejected: str) -> str:
    return f"[refused: {rejected}]" if rejected else used


def bar(value: float, width: int = BAR) -> str:
    """A horizontal bar, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, value)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def now_panel(shown: Shown | None, title: str = "") -> RenderableType:
    """The newest estimate: a bar for each emotion, the two weights, the words."""
    if shown is None:
        return Panel(Text("listening ...", style="dim"), title=title, title_align="left")
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
    facts.add_row("words", shown.words or "-")
    facts.add_row("voice", f"{bar(shown.audio_weight, 10):<10} {shown.audio_weight:.2f}")
    facts.add_row("words'", f"{bar(shown.text_weight, 10):<10} {shown.text_weight:.2f}")
    facts.add_row("says", shown.verdict)
    both = Table.grid(padding=(0, 3), expand=True)
    both.add_column(width=BAR + 18)
    both.add_column(ratio=1)
    both.add_row(bars, facts)
    return Panel(both, title=title, title_align="left")


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
            shown.abstained or shown.words or "-",
        )
    return table


def screen(current: Shown | None, finals: list[Shown], title: str, rows: int = 14) -> Group:
    """The live view: the newest estimate above the latest final ones."""
    return Group(now_panel(current, title), history_table(finals[-rows:]))
