# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Who is trained on and who is tested on: every corpus is split first, then the parts are merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from sklearn.model_selection import GroupShuffleSplit

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError

Method = Literal["folds", "grouped", "official"]


class SplitRule(BaseModel):
    """How one corpus is divided.

    ``folds``: the corpus's published folds, the given one is validation. ``grouped``: a share of
    the speakers, drawn by a seed. ``official``: the published train and dev parts; test is left
    alone.
    """

    model_config = ConfigDict(extra="forbid")

    method: Method = "folds"
    validation_fraction: float = 0.2
    """Share of the speakers, for ``grouped``."""
    shared_speakers: bool = False
    """The published sides share speakers (MELD, EmoryNLP), and that is accepted here: figures on
    this corpus then are not speaker-independent, and reports say so."""


@dataclass
class Split:
    """Two sides without a common speaker."""

    train: list[Item] = field(default_factory=list)
    validation: list[Item] = field(default_factory=list)
    shared_speakers: list[str] = field(default_factory=list)
    """Corpora whose sides share speakers by declaration."""


def split_corpus(items: Sequence[Item], rule: SplitRule, fold: int | None = None) -> Split:
    """Divide one corpus.

    Args:
        items: all of one corpus.
        rule: how.
        fold: which fold is validation, for ``folds``, counted from 1 among the folds that occur
            (the third fold is the third that the folder holds); None puts everything into train.

    Raises:
        HriEmoError: the corpus does not tell what the rule needs, or has fewer folds.
    """
    if rule.method == "grouped":
        return _grouped(items, rule)
    shared = sorted({item.corpus for item in items}) if rule.shared_speakers else []
    if rule.method == "official":
        _need(items, [item.split for item in items], "published split", "official")
        train, dev = ([i for i in items if i.split == side] for side in ("train", "dev"))
        return Split(train, dev, shared)
    if fold is None:
        return Split(list(items), [], shared)
    _need(items, [item.fold for item in items], "fold", "folds")
    present = sorted({item.fold for item in items if item.fold is not None})
    # A corpus with fewer folds than the others starts again: fold 5 of four is the first.
    wanted = fold if fold in present else present[(fold - 1) % len(present)]
    return Split(
        [item for item in items if item.fold != wanted],
        [item for item in items if item.fold == wanted],
        shared,
    )


def _grouped(items: Sequence[Item], rule: SplitRule) -> Split:
    speakers = [item.speaker for item in items]
    _need(items, speakers, "speaker", "grouped")
    if len(set(speakers)) < 2:
        raise HriEmoError(
            f"corpus '{items[0].corpus}' has one speaker only, so it cannot be split by speaker"
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=rule.validation_fraction, random_state=0)
    train, validation = next(splitter.split(np.zeros(len(items)), groups=speakers))
    return Split([items[i] for i in train], [items[i] for i in validation])


def _need(items: Sequence[Item], values: Sequence[object], what: str, method: str) -> None:
    for item, value in zip(items, values, strict=True):
        if value in (None, ""):
            raise HriEmoError(
                f"'{item.id}' has no {what}, so corpus '{item.corpus}' cannot be split by "
                f"'{method}'; set its 'split' to one of: folds, grouped, official"
            )


def split_then_merge(
    corpora: Mapping[str, Sequence[Item]],
    rules: Mapping[str, SplitRule],
    fold: int | None = None,
    leave_out: str | None = None,
) -> Split:
    """Divide each corpus by its rule, then put the sides together.

    Args:
        corpora: items by corpus.
        rules: a rule for each.
        fold: see `split_corpus`.
        leave_out: this corpus is the whole validation side and all of the others is training.

    Raises:
        HriEmoError: a rule cannot be met, `leave_out` is no corpus, or a speaker is on both sides.
    """
    if leave_out is not None and leave_out not in corpora:
        raise HriEmoError(
            f"'leave_corpus_out' is '{leave_out}', must be one of: {', '.join(corpora)}"
        )
    merged = Split()
    for name, items in corpora.items():
        if leave_out is None:
            part = split_corpus(items, rules[name], fold)
        elif name == leave_out:
            part = Split([], list(items))
        else:
            part = Split(list(items), [])
        merged.train += part.train
        merged.validation += part.validation
        merged.shared_speakers += part.shared_speakers
    check_disjoint({"train": merged.train, "validation": merged.validation}, merged.shared_speakers)
    return merged


def check_disjoint(sides: Mapping[str, Iterable[Item]], shared: Iterable[str] = ()) -> None:
    """Make sure that no speaker and no item stands on two sides.

    Args:
        sides: items by the side's name.
        shared: corpora whose speakers may (their published split is not by speaker).

    Raises:
        HriEmoError: one does; the message names it and the sides.
    """
    declared = set(shared)
    where: dict[tuple[str, str], set[str]] = defaultdict(set)
    for side, items in sides.items():
        for item in items:
            where["item", item.id].add(side)
            if item.speaker and item.corpus not in declared:
                where["speaker", item.speaker].add(side)
    for (kind, name), found in where.items():
        if len(found) > 1:
            raise HriEmoError(
                f"{kind} '{name}' stands on both sides, {' and '.join(sorted(found))}: figures "
                "would not be speaker-independent; change the corpora's 'split'"
            )


def speaker_halves(items: Sequence[Item], seed: int = 0) -> tuple[list[int], list[int]]:
    """Indices of two speaker-disjoint halves, for fitting on one and reporting on the other.

    Every corpus's speakers are dealt in turn, so both halves hold each corpus that has two. Items
    without a speaker are dealt one by one.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.corpus, item.speaker or f"#{index}"].append(index)
    keys = [list(groups)[k] for k in np.random.default_rng(seed).permutation(len(groups))]
    halves: tuple[list[int], list[int]] = ([], [])
    for turn, key in enumerate(sorted(keys, key=lambda key: key[0])):  # corpus by corpus
        halves[turn % 2].extend(groups[key])
    return halves
