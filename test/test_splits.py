# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Nobody stands on two sides."""

from __future__ import annotations

import pytest

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.labels import one_hot
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.splits import (
    SplitRule,
    check_disjoint,
    speaker_halves,
    split_corpus,
    split_then_merge,
)


def items(corpus: str = "a", speakers: int = 6, each: int = 4, **more) -> list[Item]:
    return [
        Item(
            id=f"{corpus}/{s}/{k}", corpus=corpus, label="sad", target=one_hot("sad"),
            speaker=f"{corpus}_{s}", text="x", fold=s % 3 + 1,
            split="dev" if s == 0 else "train", **more,
        )
        for s in range(speakers)
        for k in range(each)
    ]  # fmt: skip


def test_folds_validate_on_the_given_one_and_without_one_train_on_all():
    split = split_corpus(items(), SplitRule(method="folds"), fold=2)
    assert {item.fold for item in split.validation} == {2}
    assert {item.fold for item in split.train} == {1, 3}
    assert split_corpus(items(), SplitRule(method="folds")).validation == []


def test_a_corpus_with_fewer_folds_starts_again():
    split = split_corpus(items(), SplitRule(method="folds"), fold=4)
    assert {item.fold for item in split.validation} == {1}


def test_grouped_draws_whole_speakers():
    rule = SplitRule(method="grouped", validation_fraction=0.34)
    split = split_corpus(items(), rule)
    train, validation = ({i.speaker for i in part} for part in (split.train, split.validation))
    assert not train & validation
    assert len(validation) == 3
    assert split_corpus(items(), rule).validation == split.validation


def test_official_takes_the_published_sides():
    split = split_corpus(items(), SplitRule(method="official"))
    assert {item.speaker for item in split.validation} == {"a_0"}


def test_what_a_corpus_does_not_tell_cannot_split_it():
    bare = [Item(id="a/1", corpus="a", label="x", target=one_hot("sad"), text="x")]
    for method, what in (("folds", "fold"), ("grouped", "speaker"), ("official", "published")):
        with pytest.raises(HriEmoError, match=what):
            split_corpus(bare, SplitRule(method=method), fold=1)


def test_a_corpus_can_be_left_out_whole():
    corpora = {"a": items("a"), "b": items("b")}
    split = split_then_merge(
        corpora, {k: SplitRule(method="folds") for k in corpora}, leave_out="b"
    )
    assert {i.corpus for i in split.validation} == {"b"}
    assert {i.corpus for i in split.train} == {"a"}
    with pytest.raises(HriEmoError, match=r"'leave_corpus_out' is 'c', must be one of: a, b"):
        split_then_merge(corpora, {k: SplitRule() for k in corpora}, leave_out="c")


def test_a_speaker_on_two_sides_fails_loudly():
    some = items(speakers=2)
    with pytest.raises(HriEmoError, match=r"speaker 'a_0' stands on both sides, train and valid"):
        check_disjoint({"train": some[:2], "validation": some[2:4]})
    check_disjoint({"train": some[:4], "validation": some[4:]})


def test_shared_speakers_pass_only_where_declared_and_are_reported():
    some = [
        Item(id=f"m/{k}", corpus="m", label="x", target=one_hot("sad"), speaker="friends_joey",
             text="x", split=split)
        for k, split in enumerate(("train", "dev"))
    ]  # fmt: skip
    with pytest.raises(HriEmoError, match="friends_joey"):
        split_then_merge({"m": some}, {"m": SplitRule(method="official")})
    split = split_then_merge({"m": some}, {"m": SplitRule(method="official", shared_speakers=True)})
    assert split.shared_speakers == ["m"]


def test_an_item_on_two_sides_fails_even_where_speakers_are_shared():
    one = items(speakers=1, each=1)
    with pytest.raises(HriEmoError, match="item 'a/0/0'"):
        check_disjoint({"train": one, "validation": one}, shared=["a"])


def test_halves_for_calibration_share_no_speaker_and_hold_every_corpus():
    both = [*items("a"), *items("b", speakers=3)]
    first, second = speaker_halves(both)
    assert sorted([*first, *second]) == list(range(len(both)))
    assert not {both[i].speaker for i in first} & {both[i].speaker for i in second}
    assert {both[i].corpus for i in first} == {both[i].corpus for i in second} == {"a", "b"}
