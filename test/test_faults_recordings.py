# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Recordings as killed recorders, other versions and other tools leave them, through `hri-emo replay`."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.main import main
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.bag_source import BagSource
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.evaluation.rosbag_types import (
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_INFO,
    AUDIO_STAMPED,
    audio_typestore,
)
from hri_emo_ros.parameters import defaults

DATA = Path(__file__).parent / "data"
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> BagRecipe:
    manifest = tmp_path_factory.mktemp("clips") / "manifest.csv"
    names = ("emodb_11a02Wc", "lj_LJ001-0008")
    lines = [f"{DATA / name}.flac,neutral" for name in names]
    manifest.write_text("path,emotion\n" + "\n".join(lines) + "\n")
    return BagRecipe(manifest, gap=(0.7, 0.8), noise="pink", snr_db=30.0, level_dbfs=-26.0)


@pytest.fixture(scope="module")
def whole(recipe: BagRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite3 bag with nothing wrong."""
    path = tmp_path_factory.mktemp("bags") / "whole"
    make_bag(replace(recipe, storage="sqlite3"), path)
    return path


@pytest.fixture(scope="module")
def replayed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs `hri-emo replay`: (exit status, utterances as (start, end), seconds, figures)."""

    def run(bag: Path, *more: str) -> tuple[int, list[tuple[float, float]], dict[str, Any]]:
        out = tmp_path_factory.mktemp("replay")
        arguments = ["replay", str(bag), "--bundle", str(tiny_bundle), "--asr", "none"]
        status = main([*arguments, "--out", str(out / "out"), *more])
        if status:
            return status, [], {}
        report = json.loads((out / "out" / "report.json").read_text())
        spans = [(u["start"], u["end"]) for u in report["heard"]]
        return status, spans, report

    return run


def contents(bag: Path) -> list[tuple[str, str, int, bytes]]:
    with Reader(bag) as reader:
        return [(c.topic, c.msgtype, t, bytes(raw)) for c, t, raw in reader.messages()]


def killed_recorders_file(whole: Path, folder: Path, journal: str) -> Path:
    """The storage file of a recorder that was killed: nearly half of it in SQLite's journal."""
    folder.mkdir()
    file = folder / "bag_0.db3"
    shutil.copy(next(whole.glob("*.db3")), file)
    (count,) = sqlite3.connect(file).execute("SELECT max(id) FROM messages").fetchone()
    half = int(count * 0.55)
    database = sqlite3.connect(file, isolation_level=None)
    later = database.execute("SELECT * FROM messages WHERE id > ?", (half,)).fetchall()
    database.execute("DELETE FROM messages WHERE id > ?", (half,))
    database.execute("VACUUM")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.executemany("INSERT INTO messages VALUES(?, ?, ?, ?)", later)
    killed = folder / "killed"
    killed.mkdir()
    for path in folder.glob("bag_0.db3*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, killed)
    database.close()
    assert (killed / "bag_0.db3-wal").stat().st_size > 50_000
    return killed / "bag_0.db3"


@pytest.mark.fault(
    "recording", "a sqlite3 recorder was killed: 45 % of the messages lie in its write-ahead log",
    does="read them too, from a copy: the bag's folder stays as it is",
    shows="the same utterances as from the whole bag",
)  # fmt: skip
def test_a_write_ahead_log_is_part_of_the_bag(whole: Path, tmp_path: Path, replayed: Any) -> None:
    file = killed_recorders_file(whole, tmp_path / "bag", "wal")
    before = {p.name: p.read_bytes() for p in file.parent.iterdir()}
    _, expected, _ = replayed(whole)
    status, found, _ = replayed(file)
    assert status == 0
    assert len(found) == 2
    assert found == expected
    assert {p.name: p.read_bytes() for p in file.parent.iterdir()} == before


@pytest.mark.fault(
    "recording", "the same with a metadata.yaml beside it (`ros2 bag reindex`)",
    does="read the log too", shows="the same utterances as from the whole bag",
)  # fmt: skip
def test_a_folder_with_a_write_ahead_log_is_read_whole(
    whole: Path, tmp_path: Path, replayed: Any
) -> None:
    file = killed_recorders_file(whole, tmp_path / "bag", "wal")
    metadata = (whole / "metadata.yaml").read_text()
    name = next(whole.glob("*.db3")).name
    (file.parent / "metadata.yaml").write_text(metadata.replace(name, file.name))
    status, found, _ = replayed(file.parent)
    assert status == 0
    assert found == replayed(whole)[1]


@pytest.mark.parametrize(
    "storage",
    [
        pytest.param("mcap", marks=pytest.mark.fault(
            "recording", "one .mcap.zstd file without metadata.yaml",
            does="decompress it into a temporary folder and read it", shows="the same utterances",
        )),
        pytest.param("sqlite3", marks=pytest.mark.fault(
            "recording", "one .db3.zstd file without metadata.yaml",
            does="decompress it into a temporary folder and read it", shows="the same utterances",
        )),
    ],
)  # fmt: skip
def test_one_compressed_file_is_read_without_its_folder(
    recipe: BagRecipe, whole: Path, tmp_path: Path, replayed: Any, storage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_bag(replace(recipe, storage=storage), tmp_path / "bag")
    file = next(p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3"))
    packed = file.with_name(file.name + ".zstd")
    packed.write_bytes(zstandard.ZstdCompressor().compress(file.read_bytes()))
    file.unlink()
    (tmp_path / "bag" / "metadata.yaml").unlink()
    status, found, _ = replayed(packed)
    assert status == 0
    assert found == replayed(whole)[1]
    capsys.readouterr()
    assert replayed(tmp_path / "bag")[0] == 2
    assert f"or give one file of it, '{packed}'" in capsys.readouterr().err


@pytest.mark.fault(
    "recording", "a .db3 file without metadata.yaml whose messages are compressed one by one",
    does="decompress each", shows="the same utterances",
)  # fmt: skip
def test_one_file_of_compressed_messages_is_read_without_its_folder(
    whole: Path, tmp_path: Path, replayed: Any
) -> None:
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, stamp, raw in contents(whole):
            if topic not in connections:
                store = audio_typestore(AUDIO_DATA_STAMPED)
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp, raw)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    status, found, _ = replayed(next((tmp_path / "bag").glob("*.db3")))
    assert status == 0
    assert found == replayed(whole)[1]


OLD_AUDIO_DATA = (
    "float32[] float32_data\nint32[] int32_data\nint32[] int24_data\nint16[] int16_data\n"
    "int8[] int8_data\nuint8[] uint8_data\n"
)
"""mgonzs13's audio_common from May 2023 to May 2024."""


def write_stamped(path: Path, encoding: int, defined: bool) -> None:
    """An AudioStamped bag of the old definition, 44 ms a message; `defined`: with definitions in it."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for name, text in {
        AUDIO_DATA: OLD_AUDIO_DATA,
        AUDIO_INFO: "int32 format\nint32 channels\nint32 rate\nint32 chunk\n",
        "audio_common_msgs/msg/Audio": (
            "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info\n"
        ),
        AUDIO_STAMPED: "std_msgs/Header header\naudio_common_msgs/Audio audio\n",
    }.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    speech = np.concatenate([np.zeros(8000, np.float32), read_audio(DATA / "emodb_11a02Wc.flac")])
    rng = np.random.default_rng(0)
    speech = np.pad(speech, (0, 16000)) + rng.normal(0.0, 1e-4, len(speech) + 16000)
    kinds = {name.rsplit("/", 1)[1]: store.types[name] for name in types}
    none = {name: np.zeros(0, kind) for name, kind in (
        ("float32_data", np.float32), ("int32_data", np.int32), ("int24_data", np.int32),
        ("int16_data", np.int16), ("int8_data", np.int8), ("uint8_data", np.uint8),
    )}  # fmt: skip
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/audio", AUDIO_STAMPED, typestore=store)
        for start in range(0, len(speech) - 703, 704):
            codes = np.rint(speech[start : start + 704] * 2**23).astype("<i4")
            if encoding == 4:
                # Its recorder put three bytes a sample into the 32-bit words one after another.
                filled = {
                    "int24_data": codes.view(np.uint8)
                    .reshape(-1, 4)[:, :3]
                    .copy()
                    .reshape(-1)
                    .view("<i4")
                }
            else:
                filled = {"int16_data": (codes >> 8).astype(np.int16)}
            stamp = START_NS + start * SECOND // 16000
            header = store.types["std_msgs/msg/Header"](
                store.types["builtin_interfaces/msg/Time"](stamp // SECOND, stamp % SECOND), "mic"
            )
            audio = kinds["Audio"](
                kinds["AudioData"](**(none | filled)), kinds["AudioInfo"](encoding, 1, 16000, 704)
            )
            raw = store.serialize_cdr(kinds["AudioStamped"](header, audio), AUDIO_STAMPED)
            writer.write(connection, stamp + 704 * SECOND // 16000, raw)
    if not defined:
        # As recorders of that time left it.
        file = next(path.glob("*.db3"))
        with sqlite3.connect(file) as database:
            database.execute("UPDATE schema SET schema_version = 3")
            database.execute("DROP TABLE message_definitions")


@pytest.mark.parametrize(
    ("encoding", "defined"),
    [
        pytest.param(8, True, id="int16-defined", marks=pytest.mark.fault(
            "recording", "AudioStamped of 2023 (with int24_data), its definition in the bag",
            does="read it by that definition", shows="an utterance",
        )),
        pytest.param(8, False, id="int16", marks=pytest.mark.fault(
            "recording", "AudioStamped of 2023 (with int24_data) without its definition",
            does="tell the two definitions apart by a message", shows="an utterance",
        )),
        pytest.param(4, False, id="int24", marks=pytest.mark.fault(
            "recording", "24 bits as that version's recorder packed them into int24_data",
            does="take them apart again", shows="an utterance",
        )),
    ],
)  # fmt: skip
def test_old_definitions_of_audio_stamped_are_read(
    tmp_path: Path, replayed: Any, encoding: int, defined: bool
) -> None:
    write_stamped(tmp_path / "bag", encoding, defined)
    status, found, report = replayed(tmp_path / "bag")
    assert status == 0
    ((start, end),) = found
    assert start == pytest.approx(0.35, abs=0.25)
    assert end - start > 1.0
    assert not report["heard"][0]["abstained"]


def write_changing(path: Path, told: list[tuple[int, int]], later_file: bool = False) -> None:
    """AudioDataStamped whose AudioInfo changes: [(sample rate, seconds)]."""
    import soxr

    store = audio_typestore(AUDIO_DATA_STAMPED)
    speech = read_audio(DATA / "emodb_11a02Wc.flac")
    rng = np.random.default_rng(0)
    now = START_NS
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        audio = writer.add_connection("/audio", AUDIO_DATA_STAMPED, typestore=store)
        info = writer.add_connection("/audio_info", AUDIO_INFO, typestore=store)
        for rate, seconds in told:
            message = store.types[AUDIO_INFO](1, rate, "S16LE", 0, "wave")
            if not later_file:
                writer.write(info, now, store.serialize_cdr(message, AUDIO_INFO))
            part = np.pad(speech, (16000, 0))[: seconds * 16000]
            part = np.pad(part, (0, seconds * 16000 - len(part)))
            part = part + rng.normal(0.0, 1e-4, len(part))
            samples = soxr.resample(part, 16000, rate)
            frames = rate // 50
            for start in range(0, len(samples) - frames + 1, frames):
                data = np.rint(samples[start : start + frames] * 32767).astype("<i2")
                header = store.types["std_msgs/msg/Header"](
                    store.types["builtin_interfaces/msg/Time"](now // SECOND, now % SECOND), "mic"
                )
                stamped = store.types[AUDIO_DATA_STAMPED](
                    header, store.types[AUDIO_DATA](data.view(np.uint8))
                )
                now += SECOND // 50
                raw = store.serialize_cdr(stamped, AUDIO_DATA_STAMPED)
                writer.write(audio, now, raw)


@pytest.mark.fault(
    "recording", "AudioInfo changes within a recording (16 kHz, then 44.1 kHz, then 16 kHz)",
    does="read what follows each in its format", shows="the utterances of all three stretches",
)  # fmt: skip
def test_a_change_of_format_is_followed_at_its_place(tmp_path: Path, replayed: Any) -> None:
    write_changing(tmp_path / "bag", [(16000, 4), (44100, 4), (16000, 4)])
    status, found, report = replayed(tmp_path / "bag")
    assert status == 0
    assert [round(start - 4 * k, 1) for k, (start, _) in enumerate(found)] == pytest.approx(
        [found[0][0]] * 3, abs=0.15
    )
    lengths = [end - start for start, end in found]
    assert lengths == pytest.approx([lengths[0]] * 3, abs=0.2)
    assert not any(u["abstained"] for u in report["heard"])


@pytest.mark.parametrize(
    "kind", ["empty", "noise", "no tables", "not zstd", "not a bag", "cut zstd"]
)
@pytest.mark.fault(
    "recording", "files that are no bag, or whose inside is broken (eight kinds)",
    does="end with status 2", shows="one sentence that names the file; no traceback",
)  # fmt: skip
def test_a_broken_recording_is_one_sentence(
    whole: Path, tmp_path: Path, kind: str, replayed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    packed = zstandard.ZstdCompressor().compress(next(whole.glob("*.db3")).read_bytes())
    broken = {
        "empty": ("bag.db3", b""),
        "noise": ("bag.mcap", noise),
        "no tables": ("bag.db3", b"SQLite format 3\0" + noise),
        "not zstd": ("bag.db3.zstd", noise),
        "not a bag": ("bag.txt", b"hello"),
        "cut zstd": ("bag.mcap.zstd", packed[:100]),
    }
    name, data = broken[kind]
    (tmp_path / name).write_bytes(data)
    assert replayed(tmp_path / name)[0] == 2
    said = capsys.readouterr().err
    assert said.startswith("hri-emo replay: ")
    assert str(tmp_path / name) in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("field", ["duration", "topics_with_message_count", "version"])
@pytest.mark.fault(
    "recording", "metadata.yaml without one of its keys, or with nonsense in it",
    does="end with status 2, or read the one file without it",
    shows="one sentence, or the utterances and that the bag was never closed",
)  # fmt: skip
def test_broken_metadata_is_no_traceback(
    whole: Path, tmp_path: Path, field: str, replayed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "bag")
    metadata = (tmp_path / "bag" / "metadata.yaml").read_text()
    (tmp_path / "bag" / "metadata.yaml").write_text(
        metadata.replace(f"{field}:", f"{field}: []\n  x:")
    )
    status, found, report = replayed(tmp_path / "bag")
    said = capsys.readouterr().err
    assert (status == 2 and len(said.splitlines()) == 1) or (
        found == replayed(whole)[1] and "truncated" in json.dumps(report)
    )


@pytest.mark.fault(
    "recording", "bags whose bytes were changed, cut or overwritten at random",
    does="read what can be read", shows="samples, where the bag breaks off, or one sentence",
)  # fmt: skip
def test_mutated_bags_are_never_a_traceback(recipe: BagRecipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seeds = []
    for storage in ("mcap", "sqlite3"):
        for message in ("AudioDataStamped", "AudioStamped"):
            folder = tmp_path / f"{storage}_{message}"
            make_bag(replace(recipe, storage=storage, message=message, gap=(0.1, 0.2)), folder)
            seeds += [p for p in folder.iterdir() if p.suffix in (".mcap", ".db3")]
    ends = {"whole": 0, "broken off": 0, "refused": 0}
    for number in range(120):
        seed = seeds[number % len(seeds)]
        data = bytearray(seed.read_bytes())
        where = int(rng.integers(len(data)))
        if number % 3 == 0:
            for place in rng.integers(min(len(data), 5000), size=12):
                data[place] = int(rng.integers(256))
        elif number % 3 == 1:
            del data[where:]
        else:
            data[where : where + 1500] = rng.bytes(int(rng.integers(3000)))
        file = tmp_path / f"mutated{seed.suffix}"
        file.write_bytes(data)
        try:
            with AudioBag(file) as bag:
                source = BagSource(bag, defaults("speech_node"), None, None)
                assert all(np.isfinite(i.data).all() for i in source.inputs() if hasattr(i, "data"))
                bag.labels()
            ends["broken off" if source.truncated else "whole"] += 1
        except HriEmoError as refused:
            sentence = str(refused)
            ends["refused"] += len(sentence.splitlines()) == 1
    assert min(ends.values()) > 0, ends
