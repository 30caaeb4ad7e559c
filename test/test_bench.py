# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The bench measures what it says it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import tiny_config

from hri_emo_ros.cli.main import main
from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.runtime import Encoded

DATA = Path(__file__).parent / "data"


def test_the_bench_reports_stages_speed_and_memory(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        f"path,emotion\n{DATA / 'lj_LJ001-0008.flac'},neutral\n{DATA / 'emodb_11a02Wc.flac'},angry\n"
    )
    out = tmp_path / "bench.json"
    arguments = [
        "bench",
        "--part",
        "replay",
        "--hours",
        "0.004",
        "--manifest",
        str(manifest),
        "--json",
        str(out),
    ]
    assert main([*arguments, "--bundle", str(tiny_bundle)]) == 0
    result = json.loads(out.read_text())
    assert result["speed"]["median"] > 0
    assert all(stage["median"] > 0 for stage in result["stages"].values())
    assert len(result["memory"]["points"]) > 5
    assert result["memory"]["utterances"] >= 2
    # No assertion on speed; memory far beyond the target would be a leak even on a slow machine.
    assert result["memory"]["peak_mb"] < 2048


@pytest.mark.ros
@pytest.mark.timeout(600)
def test_the_bench_measures_the_running_nodes_beside_the_reference(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    from hri_emo_ros.evaluation import bench_live

    monkeypatch.setattr(bench_live, "SILENT_SECONDS", 0.5)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path,emotion\n{DATA / 'lj_LJ001-0008.flac'},neutral\n")
    out = tmp_path / "bench.json"
    arguments = ["bench", "--part", "live", "--rounds", "1", "--manifest", str(manifest)]
    assert main([*arguments, "--json", str(out), "--bundle", str(tiny_bundle)]) == 0
    live = json.loads(out.read_text())["live"]
    assert (live["utterances"], live["finals with words"]) == (1, 1)
    words = live["latency"]["speech to provisional with words"]["p50"]
    assert 160 <= words <= live["latency"]["speech to final"]["p50"]  # Not before the endpoint.
    assert live["latency"]["speech to final"]["p50"] >= 600  # The pause is in it.
    assert live["reference"]["speech to final"]["p50"] >= 600
    assert set(live["processor"]) == {"speech_node", "asr_node", "emotion_node"}
    assert all(size > 20 for size in live["memory_mb"].values())


def test_a_length_out_of_bounds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--hours", "0"]) == 2
    assert "--hours is 0, must be 0.001 to 48" in capsys.readouterr().err


def test_a_folder_for_recordings_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert (
        main(
            [
                "bench",
                "--part",
                "replay",
                "--hours",
                "0.01",
                "--tmp",
                str(tmp_path / "file" / "below"),
            ]
        )
        != 0
    )
    assert "--tmp" in capsys.readouterr().err


@pytest.mark.ros
def test_the_bench_starts_nodes_with_both_runtimes_in_turn(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    from hri_emo_ros.evaluation import bench_start

    monkeypatch.setattr(bench_start, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(bench_start, "_PASSES", 2)
    out = tmp_path / "bench.json"
    arguments = ["bench", "--part", "start", "--rounds", "1", "--json", str(out)]
    assert main([*arguments, "--bundle", str(tiny_bundle)]) == 0
    start = json.loads(out.read_text())["start"]
    alone = {"speech_node, onnx", "asr_node, onnx"}
    both = {
        f"{name}, {runtime}"
        for name in ("emotion_node", "speech_node + asr_node + emotion_node", "pipeline")
        for runtime in ("onnx", "torch")
    }
    assert set(start["processes"]) == alone | both
    assert set(start["file_s"]) == set(start["utterance_ms"]) == {"onnx", "torch"}
    resident = {name: found["memory_mb"] for name, found in start["processes"].items()}
    assert resident["emotion_node, onnx"] < resident["emotion_node, torch"]  # 200 MB less


@pytest.mark.ros
@pytest.mark.timeout(600)
def test_the_bench_lets_one_emotion_node_hear_several_microphones(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    from hri_emo_ros.evaluation import bench_streams

    monkeypatch.setattr(bench_streams, "STREAMS", (1, 3))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path,emotion\n{DATA / 'lj_LJ001-0008.flac'},neutral\n")
    out = tmp_path / "bench.json"
    arguments = ["bench", "--part", "streams", "--manifest", str(manifest), "--json", str(out)]
    assert main([*arguments, "--bundle", str(tiny_bundle)]) == 0
    found = json.loads(out.read_text())["streams"]
    assert [(row["streams"], row["utterances"]) for row in found["streams"]] == [(1, 1), (3, 3)]
    assert all(row["finals_missing"] == 0 for row in found["streams"])
    assert [row["utterances"] for row in found["batches"]] == [1, 3]


def test_the_bench_exports_random_encoders_and_reckons_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe's own network, but for its size."""
    from hri_emo_ros.cli import dry_run
    from hri_emo_ros.evaluation import bench_encoders
    from hri_emo_ros.model.torch_runtime import TorchRuntime

    heard: list[float] = []
    encode = TorchRuntime.voice

    def voice(runtime: TorchRuntime, batch: ModelBatch) -> Encoded:
        heard.append(batch.waveform.shape[1] / 16_000)
        return encode(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "voice", voice)
    tiny = tiny_config(audio="wavlm", text="roberta")
    random_network = dry_run.random_network

    def small(config: ModelConfig) -> ModelConfig:
        real = random_network(config)
        same = {"name", "allow_download"}
        assert real.audio.model_dump(include=same) == tiny.audio.model_dump(include=same)
        assert real.text.model_dump(include=same) == tiny.text.model_dump(include=same)
        return tiny

    monkeypatch.setattr(dry_run, "random_network", small)
    monkeypatch.setattr(bench_encoders, "LENGTHS", (1.0,))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path,emotion,text\n{DATA / 'lj_LJ001-0008.flac'},neutral,in being\n")
    out = tmp_path / "bench.json"
    arguments = ["bench", "--part", "encoders", "--rounds", "2", "--manifest", str(manifest)]
    assert main([*arguments, "--tmp", str(tmp_path), "--json", str(out)]) == 0
    # The trial when it is loaded, a warm-up, a length and the padded clip, each of them encoded every time.
    assert heard == [1.0, 1.0, 1.0, 1.0, 10.0, 10.0]
    found = json.loads(out.read_text())["encoders"]
    kinds = {"torch", "onnx", "onnx, int8"}
    assert all(set(row) == {"seconds", *kinds} for row in found["by_length"])
    answer = found["answer"]
    assert answer.pop("reference, torch")["ratio"] == 1.0
    assert set(answer) == kinds - {"torch"}
    for row in answer.values():
        assert row["after_pause_s"] >= 0  # Not before the pause is over.
        assert row["after_speech_s"] == pytest.approx(row["after_pause_s"] + 0.6)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
