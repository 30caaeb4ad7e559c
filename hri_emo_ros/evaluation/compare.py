# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo compare``: two runs on the same labels, paired."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from hri_emo_ros.data import metrics
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.scores import FIGURES, rounded

_SAME_TIME = 0.02
"""Seconds by which the same label may differ between two runs (rounding)."""


@dataclass(frozen=True)
class Item:
    """One labelled thing and what was answered to it."""

    key: str
    """The same in both runs."""
    truth: str
    answer: str
    """Empty where nothing was."""
    group: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """What is needed of a run's JSON."""

    path: Path
    name: str
    labels: tuple[str, ...]
    items: tuple[Item, ...]


def load_run(path: Path) -> Run:
    """Read a run: report.json of ``replay --out``, or the file of ``--json`` of replay or evaluate.

    Raises:
        HriEmoError: unreadable, or without labelled items.
    """
    file = path
    if path.is_dir():
        names = ("report.json", "evaluation.json", "evaluate.json")
        file = next((path / name for name in names if (path / name).exists()), path / names[0])
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise HriEmoError(f"cannot read the run '{file}': {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("items"), list):
        raise HriEmoError(
            f"'{file}' is no run: give a folder of 'hri-emo replay --out' or the JSON of "
            "'hri-emo replay' or 'hri-emo evaluate'"
        )
    items = tuple(_item(entry) for entry in content["items"] if entry.get("emotion"))
    if not items:
        raise HriEmoError(f"the run '{file}' has no labelled utterances to compare")
    name = f"{content.get('bag') or content.get('manifest') or file.stem}"
    model = content.get("model") or content.get("model_id") or ""
    return Run(file, f"{name} ({model})", tuple(content["labels"]), items)


def _item(entry: Mapping[str, Any]) -> Item:
    key = f"{entry.get('line', '')} {entry.get('path', '')}"
    if "start" in entry:
        key = f"{entry.get('path', '')} {round(float(entry['start']) / _SAME_TIME)}"
    return Item(
        key,
        str(entry["emotion"]),
        str(entry.get("predicted") or ""),
        str(entry.get("speaker") or ""),
        tuple(float(p) for p in entry.get("probabilities") or ()),
    )


def compare_runs(one: Run, other: Run) -> dict[str, Any]:
    """Figures of both and their differences (the second minus the first) on the common items.

    Intervals are 95 % paired bootstrap over speakers (over items where not all name one);
    ``p_value`` is McNemar's exact test on the items that only one of the two has right.

    Raises:
        HriEmoError: the runs have other labels, or no item in common.
    """
    if one.labels != other.labels:
        raise HriEmoError(
            f"'{one.path}' knows the labels {', '.join(one.labels)} and '{other.path}' "
            f"{', '.join(other.labels)}: only runs with the same labels can be compared"
        )
    theirs = {(item.key, item.truth): item for item in other.items}
    pairs = [
        (item, theirs[item.key, item.truth])
        for item in one.items
        if (item.key, item.truth) in theirs
    ]
    if not pairs:
        raise HriEmoError(
            f"'{one.path}' and '{other.path}' have no labelled utterance in common: compare runs on "
            "the same recording or manifest"
        )
    index = {label: i for i, label in enumerate(one.labels)}
    truth = np.array([index[a.truth] for a, _ in pairs])
    first = np.array([index.get(a.answer, len(index)) for a, _ in pairs])
    second = np.array([index.get(b.answer, len(index)) for _, b in pairs])
    groups = [a.group for a, _ in pairs]
    speakers = groups if all(groups) else None
    figures = {}
    for name, figure in FIGURES.items():
        interval = metrics.bootstrap_interval(
            lambda d, f=figure: f(truth[d], second[d]) - f(truth[d], first[d]),  # type: ignore[misc]
            len(truth),
            speakers,
        )
        figures[name] = {
            "first": rounded(figure(truth, first)),
            "second": rounded(figure(truth, second)),
            "difference": rounded(asdict(interval)),
        }
    figures["ece"] = _calibration(pairs, truth)
    only_first = int(((first == truth) & (second != truth)).sum())
    only_second = int(((first != truth) & (second == truth)).sum())
    p_value = 1.0
    if only_first + only_second:
        p_value = float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
    return {
        "first": one.name,
        "second": other.name,
        "items": len(pairs),
        "only_in_first": len(one.items) - len(pairs),
        "only_in_second": len(other.items) - len(pairs),
        "intervals_over": "speakers" if speakers and len(set(speakers)) > 1 else "items",
        "figures": figures,
        "only_first_right": only_first,
        "only_second_right": only_second,
        "same_answer": int((first == second).sum()),
        "p_value": round(p_value, 6),
    }


def _calibration(
    pairs: Sequence[tuple[Item, Item]], truth: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Expected calibration error of both where both have probabilities."""
    both = np.array([bool(a.probabilities and b.probabilities) for a, b in pairs])
    if not both.any():
        nothing = {"value": None, "low": None, "high": None}
        return {"first": None, "second": None, "difference": nothing}
    p = np.array([a.probabilities for (a, _), w in zip(pairs, both, strict=True) if w])
    q = np.array([b.probabilities for (_, b), w in zip(pairs, both, strict=True) if w])
    y = truth[both]
    interval = metrics.bootstrap_interval(
        lambda d: metrics.ece(y[d], q[d]) - metrics.ece(y[d], p[d]), len(y)
    )
    return {
        "first": rounded(metrics.ece(y, p)),
        "second": rounded(metrics.ece(y, q)),
        "difference": rounded(asdict(interval)),
    }
