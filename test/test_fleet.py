# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Many inputs on many workers: one report, the same as one process makes, though workers are lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from corpus_trees import tone

from hri_emo_ros.cli.main import main
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation import evaluate as manifests
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.fleet import Fleet
from hri_emo_ros.evaluation.labels import Recording
from hri_emo_ros.evaluation.replay_outputs import UNFINISHED, replay_many
from hri_emo_ros.parameters import load_parameters

DATA = Path(__file__).parent / "data"
TIMES = {"wall_time", "speed", "latency", "clips_per_s"}


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of two robots, with names that are not unique."""
    folder = tmp_path_factory.mktemp("robots")
    manifest = folder / "manifest.csv"
    manifest.write_text(
        "path,emotion,speaker\n"
        f"{DATA / 'lj_LJ001-0008.flac'},neutral,lj\n{DATA / 'emodb_11a02Wc.flac'},angry,emodb_11\n"
    )
    found = [folder / "one" / "a", folder / "one" / "b", folder / "two" / "a"]
    for seed, bag in enumerate(found):
        bag.parent.mkdir(exist_ok=True)
        make_bag(BagRecipe(manifest, gap=(0.8, 0.9), noise="pink", snr_db=30.0, seed=seed), bag)
    return found


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster of two workers that somebody else has started."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        yield cluster.scheduler_address


def timeless(value: Any) -> Any:
    """Without what took how long."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def killed_once(marker: Path, do: Callable[[Any], Any], item: Any) -> Any:
    """The first worker to come here dies of it, in the midst of its part."""
    result = do(item)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return result
    os.kill(os.getpid(), signal.SIGKILL)


class Perilous(Fleet):
    """One of its workers is killed."""

    marker: Path

    def map(self, do: Any, items: Sequence[Any], *args: Any) -> Any:
        return super().map(partial(killed_once, self.marker, do), items, *args)


def test_recordings_make_one_report_though_a_worker_is_killed(
    bags: list[Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    overrides = [f"model.bundle:={tiny_bundle}", "asr.backend:=none"]
    parameters = load_parameters(None, overrides)
    recordings = [Recording(bag) for bag in bags]
    alone = replay_many(parameters, recordings, out=tmp_path / "alone")
    with Perilous(2) as fleet:
        fleet.marker = tmp_path / "killed"
        spread = replay_many(parameters, recordings, out=tmp_path / "out", fleet=fleet)
    assert fleet.marker.exists()
    assert timeless(spread.summary()) == timeless(alone.summary())
    summary = spread.summary()
    assert [one["bag"] for one in summary["recordings"]] == ["one/a", "one/b", "two/a"]
    assert summary["utterances"] == 6 == len(summary["items"])
    assert summary["final_states"] == sum(one["final_states"] for one in summary["recordings"])
    for name in ("one/a", "one/b", "two/a"):
        assert json.loads((tmp_path / "out" / name / "report.json").read_text())["final_states"]
        assert (tmp_path / "out" / name / "bag").is_dir()
    assert not list((tmp_path / "out").rglob(f"{UNFINISHED}*"))


def test_a_recording_that_cannot_be_replayed_is_named_and_the_others_are(
    bags: list[Path], tiny_bundle: Path, tmp_path: Path, scheduler: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    broken = bags[0].parent / "broken.mcap"
    broken.write_bytes(b"no bag")
    arguments = ["replay", str(broken), *map(str, bags[:2]), "--bundle", str(tiny_bundle), "--asr", "none",
                 "--scheduler", scheduler, "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(arguments) == 2
    assert "1 of the recordings could not be replayed" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["bag"] for one in report["recordings"]] == ["a", "b"]
    assert [one["bag"] for one in report["failed"]] == ["broken.mcap"]
    assert "broken.mcap" in (tmp_path / "out" / "report.html").read_text()
    assert main([*arguments[:1], str(bags[0]), str(bags[0]), *arguments[4:]]) == 2
    assert "is named twice" in capsys.readouterr().err


def test_a_manifest_is_scored_alike_by_a_cluster(
    tiny_bundle: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "PART", 2)
    rows = [("path", "emotion", "text", "speaker"), ("none.wav", "angry", "", "a")]
    for k, emotion in enumerate(
        ("angry", "happy", "sad", "fear", "neutral", "disgust", "surprise")
    ):
        tone(tmp_path / f"{k}.wav", 150.0 + 40 * k, seconds=0.8 + 0.1 * k)
        rows.append((f"{k}.wav", emotion, "what was said", "ab"[k % 2]))
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    arguments = ["evaluate", "--bundle", str(tiny_bundle), "--manifest", str(tmp_path / "manifest.csv"),
                 "--sweep-snr", "5", "--noise", "babble", "--channels"]  # fmt: skip
    found = []
    for more in (["--workers", "1"], ["--scheduler", scheduler]):
        assert main([*arguments, *more, "--json", str(tmp_path / "e.json")]) == 0
        found.append(json.loads((tmp_path / "e.json").read_text()))
    assert timeless(found[0]) == timeless(found[1])
    assert found[0]["n"] == 7
    assert [entry["line"] for entry in found[0]["unreadable"]] == [2]


def test_a_sweep_of_several_recordings_counts_them_all(
    bags: list[Path], tiny_bundle: Path, tmp_path: Path, scheduler: str
) -> None:
    arguments = ["sweep", *map(str, bags[:2]), "--bundle", str(tiny_bundle), "--asr", "none",
                 "--noise", "white", "--snr", "0,20", "--gain", "-6"]  # fmt: skip
    tables = []
    for more in (["--workers", "1"], ["--scheduler", scheduler]):
        assert main([*arguments, *more, "--out", str(tmp_path / more[0])]) == 0
        tables.append((tmp_path / more[0] / "sweep.csv").read_text())
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert [(r["disturbance"], r["utterances"]) for r in rows] == [
        ("none", "4"), ("snr", "4"), ("snr", "4"), ("gain", "4"),
    ]  # fmt: skip


def die(item: int) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_part_that_kills_every_worker_is_given_up_and_named(scheduler: str) -> None:
    with Fleet(scheduler=scheduler) as fleet:
        first, second, third = fleet.map(die, [0, 1, 2])
    assert (first, third) == (0, 2)
    assert isinstance(second, HriEmoError)
    assert "2 workers died of it" in str(second)


def test_a_scheduler_that_is_not_there_is_said(bags: list[Path], monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr("hri_emo_ros.evaluation.fleet._CONNECT", 0.5)
    arguments = ["replay", str(bags[0]), "--asr", "none", "--scheduler", "tcp://127.0.0.1:9"]
    assert main(arguments) == 2
    assert "no worker answers at --scheduler 'tcp://127.0.0.1:9'" in capsys.readouterr().err


def test_one_recording_needs_nothing_of_dask(bags: list[Path], tiny_bundle: Path) -> None:
    code = (
        "import sys\nfrom hri_emo_ros.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, "replay", str(bags[0]), "--bundle", str(tiny_bundle), "--asr", "none"],
        check=True,
    )  # fmt: skip
