# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Each corpus plug-in reads its official layout, and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from corpus_trees import TREES, tone

from hri_emo_ros.data.corpora.ravdess import FOLD_OF_ACTOR
from hri_emo_ros.data.corpus import Corpus, CorpusData, available, clean_text, make_corpus
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import LABELS


def read(name: str, root, **options) -> CorpusData:
    TREES[name](root)
    return make_corpus(name, options).read(root)


def labels_of(data: CorpusData) -> Counter[str]:
    return Counter(LABELS[item.class_index] for item in data.items)


def test_every_corpus_of_the_issue_is_there_and_has_a_layout_to_be_tested_with():
    assert set(available()) == set(TREES)


@pytest.mark.parametrize("name", sorted(TREES))
def test_a_wrong_folder_is_refused_with_the_expected_tree(name, tmp_path):
    corpus = make_corpus(name)
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(HriEmoError) as error:
        corpus.read(tmp_path)
    assert corpus.tree.strip() in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", sorted(TREES))
def test_ids_are_unique_and_targets_are_over_the_projects_labels(name, tmp_path):
    items = read(name, tmp_path).items
    assert len({item.id for item in items}) == len(items) > 0
    assert all(len(item.target) == len(LABELS) for item in items)
    assert all(item.audio or item.text or item.audio_features is not None for item in items)


@pytest.mark.parametrize("name", sorted(TREES))
def test_label_tables_map_to_the_projects_labels(name):
    kind = available()[name]
    assert set(kind.labels.values()) <= {*LABELS, None}


def test_ravdess_calm_is_neutral_songs_are_left_out_and_folds_are_by_actor(tmp_path):
    data = read("ravdess", tmp_path)
    assert labels_of(data)["neutral"] == 2 * labels_of(data)["happy"]
    assert data.left_out == {"song": 1}
    first = next(item for item in data.items if item.speaker == "ravdess_01")
    assert (first.sex, first.fold, first.intensity) == ("male", 1, "normal")
    assert {i.sex for i in data.items if i.speaker == "ravdess_04"} == {"female"}


def test_ravdess_folds_hold_each_actor_once():
    assert sorted(FOLD_OF_ACTOR) == list(range(1, 25))
    assert Counter(FOLD_OF_ACTOR.values()) == dict.fromkeys(range(1, 7), 4)


def test_crema_d_takes_the_sex_from_the_demographics(tmp_path):
    data = read("crema_d", tmp_path)
    assert {(i.speaker, i.sex) for i in data.items} == {
        ("crema_d_1001", "male"), ("crema_d_1002", "female"),
    }  # fmt: skip
    assert set(labels_of(data)) == set(LABELS) - {"surprise"}


def test_emodb_counts_boredom_and_caps_the_length(tmp_path):
    data = read("emodb", tmp_path, max_duration=2.0)
    assert data.left_out == {"label 'boredom' has no counterpart": 3}
    assert {item.max_duration for item in data.items} == {2.0}
    assert {item.fold for item in data.items} == {1, 5}
    with pytest.raises(HriEmoError, match="max_duration"):
        make_corpus("emodb", {"max_duration": -1.0})


def test_nemo_reads_one_folder_per_speaker_as_well(tmp_path):
    data = read("nemo", tmp_path / "official")
    assert data.items[0].text == "Lubię czytać."
    tone(tmp_path / "by_speaker" / "EB0" / "EB0_anger_1.flac", 200.0)
    other = make_corpus("nemo").read(tmp_path / "by_speaker")
    assert [(i.speaker, i.sex, i.fold) for i in other.items] == [("nemo_EB0", "female", 1)]


def test_goemotions_shares_the_target_between_several_labels(tmp_path):
    data = read("goemotions", tmp_path)
    both = next(item for item in data.items if item.id.endswith("trainboth"))
    assert both.target[LABELS.index("angry")] == both.target[LABELS.index("sad")] == 0.5
    assert data.items[0].text == 'someone said "anger" in train.'
    single = make_corpus("goemotions", {"single_label_only": True}).read(tmp_path)
    assert single.left_out == {"several labels": 2}


def test_emorynlp_leaves_out_and_counts_what_has_no_counterpart(tmp_path):
    data = read("emorynlp", tmp_path)
    assert sum(data.left_out.values()) == 4
    assert {item.split for item in data.items} == {"train", "dev"}


def test_meld_pairs_words_with_clips_and_counts_missing_ones(tmp_path):
    data = read("meld", tmp_path)
    assert data.left_out == {"clip without a sound file": 1}
    assert data.items[0].text == "Oh, that's anger."
    assert data.items[0].audio is not None
    assert data.items[0].audio.name == "dia0_utt0.wav"


def test_a_turn_knows_what_was_said_before_it_even_where_that_turn_is_left_out(tmp_path):
    items = read("emorynlp", tmp_path / "e").with_context()
    sad = next(i for i in items if i.label == "Sad" and i.split == "train")
    assert sad.context[:2] == ("This is Powerful.", "This is Peaceful.")
    assert items[0].context == ()
    heard = {i.id: i for i in read("meld", tmp_path / "m").with_context()}
    assert len(heard["meld/dev/dia7_utt4"].context) == 4  # utterance 3 has no clip, but was said


def test_folds_come_from_the_manifest_beside_the_clips_where_a_corpus_publishes_none(tmp_path):
    data = read("banglaser", tmp_path)
    assert {(i.speaker, i.fold, i.sex) for i in data.items} == {
        ("banglaser_01", 1, "male"), ("banglaser_12", 2, "female"),
    }  # fmt: skip
    assert set(labels_of(data)) == {"neutral", "happy", "sad", "angry", "surprise"}


def test_iemocap_speakers_are_the_turns_and_the_fold_is_the_session(tmp_path):
    data = read("iemocap", tmp_path)
    assert {i.speaker for i in data.items} == {f"iemocap_Ses0{s}{x}" for s in (1, 2) for x in "FM"}
    assert {(i.fold, i.speaker[:13]) for i in data.items} == {
        (1, "iemocap_Ses01"), (2, "iemocap_Ses02"),
    }  # fmt: skip
    assert sum(data.left_out.values()) == 4
    assert data.items[0].text == "Excuse me number 0."


def test_mosei_targets_are_multi_label_and_neutral_where_nothing_is_present(tmp_path):
    data = read("mosei", tmp_path)
    nothing, one = data.items[0], data.items[1]
    assert nothing.target[0] == 1.0
    assert sum(nothing.target) == 1.0
    assert one.target[LABELS.index("sad")] == 1.0
    assert one.target[0] == 0.0
    assert one.audio_features is not None
    assert one.audio_features.shape == (6, 74)


def test_mosei_refuses_pickled_objects(tmp_path):
    np.savez(tmp_path / "train.npz", audio=np.array([{"a": 1}], dtype=object))
    with pytest.raises(HriEmoError, match=r"train\.npz"):
        make_corpus("mosei").read(tmp_path)


def test_a_manifest_takes_any_known_word_and_names_an_unknown_one(tmp_path):
    data = read("manifest", tmp_path)
    assert [LABELS[i.class_index] for i in data.items] == ["happy", "sad"]
    assert data.left_out == {"file is missing": 1}
    table = tmp_path / "manifest.csv"
    table.write_text(table.read_text().replace("joy", "hungry"))
    with pytest.raises(HriEmoError, match=r"line 2: emotion 'hungry' is not known"):
        make_corpus("manifest").read(tmp_path)


def test_unknown_corpora_and_options_are_named_with_the_allowed_ones():
    with pytest.raises(HriEmoError, match=r"'tess' is not known, must be one of: .*ravdess"):
        make_corpus("tess")
    with pytest.raises(HriEmoError, match=r"no option 'lenght', must be one of: max_duration"):
        make_corpus("emodb", {"lenght": 2.0})


def test_a_new_corpus_is_found_by_its_presence(tmp_path, monkeypatch):
    from hri_emo_ros.data import corpora

    (tmp_path / "toy.py").write_text(
        "from hri_emo_ros.data.corpus import Corpus, CorpusData\n"
        "class Toy(Corpus):\n"
        "    name, tree, labels = 'toy', 'toy/', {'glad': 'happy'}\n"
        "    def read(self, root): return CorpusData([])\n"
    )
    monkeypatch.setattr(corpora, "__path__", [*corpora.__path__, str(tmp_path)])
    available.cache_clear()
    try:
        assert isinstance(make_corpus("toy"), Corpus)
    finally:
        monkeypatch.undo()
        available.cache_clear()


def test_text_is_repaired():
    assert clean_text("You must\x92ve  had [NAME]\x85") == "You must've had someone..."
