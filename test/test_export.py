# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Exported graphs say what the network in torch says, hold no weights of their own, and need no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tiny_models import SENTENCES, tiny_config, tiny_model, voice

from hri_emo_ros.cli.main import main
from hri_emo_ros.data.manifest import demo_manifest
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import GRAPH_FILES, load_bundle, save_bundle
from hri_emo_ros.model.config import ContextConfig, ModelConfig
from hri_emo_ros.model.export import export_bundle
from hri_emo_ros.types import SignalQuality, Transcript
from hri_emo_ros.voices.baseline import BaselineConfig, Heard

GOOD = SignalQuality(20.0, -25.0, 0.0, 0.9)
NEW = {
    "baseline": BaselineConfig(),
    "voice_components": (6, 12),
    "context": ContextConfig(turns=2, turn_tokens=6, max_tokens=32),
}


def mixed(audio: str, text: str) -> ModelConfig:
    """The encoders' layers summed with learned weights, as in config/train/wavlm_roberta.yaml."""
    config = tiny_config(audio=audio, text=text)
    spec = config.audio.model_copy(update={"layer_weighted_sum": True})
    return config.model_copy(update={"audio": spec})


KINDS = {
    "compact": tiny_config(),
    "relative": tiny_config(text="bert", **NEW),
    "multi-label": tiny_config(objective="multi_label"),
    "plain decoder": tiny_config(unimodal_path=False),
    "late fusion": tiny_config("late_fusion"),
    "voice alone": tiny_config("audio_only", **NEW),
    "words alone": tiny_config("text_only"),
    "wavlm": tiny_config(audio="wavlm", text="roberta"),
    "wavlm, its layers mixed": mixed("wavlm", "roberta"),
    "hubert": tiny_config(audio="hubert"),
    "wav2vec2": tiny_config("audio_only", audio="wav2vec2"),
}


def utterances(engine: EmotionEngine) -> list[EngineInput]:
    """Of different length, with both modalities, one and none; known voices and earlier turns."""
    size = len(engine.population)
    known = Heard(np.linspace(-3, 3, size, dtype=np.float32), 3.0) if size else None
    words = [Transcript(text, confidence=0.7) for text in SENTENCES]
    return [
        EngineInput(voice(1.0, 1), words[0], GOOD),
        EngineInput(voice(2.3, 2), words[1], GOOD, voice=known, context=("what a day", "no")),
        EngineInput(voice(0.6, 3), None, GOOD, room=known),
        EngineInput(voice(0.6, 3), words[2], GOOD, context=("so",)),
        EngineInput(None, words[3], context=("I am so happy",)),
        EngineInput(np.concatenate([np.zeros(9000), voice(1.1, 4)]).astype(np.float32), None, GOOD),
        EngineInput(1e-3 * voice(0.3, 5), None, GOOD),
        EngineInput(None, None),
    ]


def answers(engine: EmotionEngine, items: list[EngineInput]) -> list[np.ndarray]:
    """All numbers of the estimates, each utterance by itself and all in one batch."""
    single = [
        engine.estimate(
            item.samples, item.transcript, item.quality,
            voice=item.voice, room=item.room, context=item.context,
        )
        for item in items
    ]  # fmt: skip
    return [
        np.concatenate(
            [e.probabilities, e.audio_weight_per_emotion,
             [e.audio_weight, e.baseline_weight, float(e.abstain_reason)],
             np.zeros(0) if e.voice_statistics is None else e.voice_statistics]
        )
        for e in (*single, *engine.estimate_batch(items))
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_network_says_what_it_says_in_torch(kind, tmp_path):
    folder = save_bundle(tiny_model(KINDS[kind]), tmp_path / "bundle")
    torch = EmotionEngine(folder, threads=1)
    assert torch.runtime.name == "torch"
    export_bundle(folder)
    onnx = EmotionEngine(folder, threads=1)
    assert onnx.runtime.name == "onnx"
    items = utterances(torch)
    for ours, theirs in zip(answers(onnx, items), answers(torch, items), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_graphs_hold_no_weight_a_second_time(tmp_path):
    config = tiny_config(head_hidden=512)
    folder = save_bundle(tiny_model(config), tmp_path / "bundle")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".json"}
    files = export_bundle(folder)
    assert sorted(f.name for f in files) == sorted(GRAPH_FILES.values())
    assert all((folder / name).read_bytes() == data for name, data in before.items())
    weights = load_bundle(folder).model.audio_head.classifier[2].weight
    assert not any(weights.numpy().tobytes()[:256] in file.read_bytes() for file in files)


def test_eight_bit_products_change_little_and_fewer_bytes_of_memory_are_needed(tmp_path):
    folder = save_bundle(tiny_model(KINDS["relative"]), tmp_path / "bundle")
    exact = EmotionEngine(folder, threads=1)
    export_bundle(folder, int8=True)
    assert b"MatMulInteger" in (folder / "words.onnx").read_bytes()
    rounded = EmotionEngine(folder, threads=1)
    items = utterances(exact)
    differences = [
        np.abs(a.probabilities - b.probabilities).max()
        for a, b in zip(exact.estimate_batch(items), rounded.estimate_batch(items), strict=True)
    ]
    assert 0.0 < max(differences) < 0.05


def test_graphs_of_another_bundle_or_damaged_ones_are_refused(tiny_bundle, tmp_path):
    damaged = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
    content = bytearray((damaged / "head.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "head.onnx").write_bytes(content)
    with pytest.raises(
        HriEmoError, match=r"head\.onnx' was damaged or changed: run `hri-emo export"
    ):
        EmotionEngine(damaged)
    (damaged / "head.onnx").unlink()
    with pytest.raises(HriEmoError, match=r"head\.onnx' is no file.*model\.bundle"):
        EmotionEngine(damaged)
    other = save_bundle(tiny_model(tiny_config(), seed=1), tmp_path / "other")
    export_bundle(other)
    config = json.loads((other / "config.json").read_text())
    config["graphs"] = json.loads((tiny_bundle / "config.json").read_text())["graphs"]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(HriEmoError, match=r"made of model 'tiny-.*it is 'tiny-.*hri-emo export"):
        EmotionEngine(other)


def test_a_bundle_that_is_saved_anew_has_no_graphs(tiny_bundle, tmp_path):
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    assert EmotionEngine(folder).runtime.name == "onnx"
    save_bundle(load_bundle(folder), folder)
    assert not list(folder.glob("*.onnx"))
    assert EmotionEngine(folder).runtime.name == "torch"


def test_the_runtime_is_chosen_in_one_place(tiny_bundle, tmp_path):
    assert EmotionEngine(tiny_bundle).runtime.name == "onnx"
    assert EmotionEngine(tiny_bundle, runtime="torch").runtime.name == "torch"
    plain = save_bundle(tiny_model(tiny_config()), tmp_path / "plain")
    with pytest.raises(HriEmoError, match=r"hri-emo export.*model\.runtime"):
        EmotionEngine(plain, runtime="onnx")
    with pytest.raises(HriEmoError, match="must be auto, onnx or torch"):
        EmotionEngine(plain, runtime="tensorrt")
    features = save_bundle(tiny_model(tiny_config(audio="features")), tmp_path / "features")
    with pytest.raises(HriEmoError, match="precomputed audio features"):
        export_bundle(features)


def test_the_command_exports_and_compares_with_torch_on_real_clips(tmp_path, capsys):
    folder = save_bundle(tiny_model(tiny_config()), tmp_path / "bundle")
    assert main(["export", str(folder), "--manifest", str(demo_manifest())]) == 0
    out = capsys.readouterr().out
    assert "voice.onnx" in out
    assert "0 other emotions, 0 other abstentions" in out


COMMANDS = {
    "file": ["file", "CLIP", "--asr", "none", "--json"],
    "monitor": ["monitor", "--help"],
    "listen": ["listen", "--help"],
    "parameters": ["parameters"],
}
HEAVY = ("torch", "transformers", "scipy", "sklearn", "matplotlib", "jiwer", "rosbags", "apsw",
         "jinja2", "optuna", "pandas")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_nothing_that_it_does_not_use(command, tiny_bundle):
    clip = str(demo_manifest().parent / "clips" / "ravdess_03-01-03-02-02-01-11.flac")
    arguments = [clip if a == "CLIP" else a for a in COMMANDS[command]]
    if command == "file":
        arguments += ["--bundle", str(tiny_bundle)]
    loaded = modules_after(f"""
        from hri_emo_ros.cli.main import main
        try:
            main({arguments!r})
        except SystemExit:
            pass
        tell()
    """)
    assert not loaded & set(HEAVY)


@pytest.mark.ros
def test_active_nodes_have_imported_nothing_that_they_do_not_use(tiny_bundle, ros_domain):
    arguments = ["nodes", "--autostart", "--ros-args", "-p", f"model.bundle:={tiny_bundle}"]
    loaded = modules_after(
        f"""
        import os, signal, threading, time
        from hri_emo_ros.nodes import pipeline
        from hri_emo_ros.nodes.graph import PIPELINE_NODES
        from hri_emo_ros.nodes.lifecycle import HriNode, run
        nodes = []
        was = HriNode.on_activate
        def on_activate(node, state):
            nodes.append(node.get_name())
            return was(node, state)
        HriNode.on_activate = on_activate
        def stop():
            while len(nodes) < len(PIPELINE_NODES):
                time.sleep(0.05)
            tell()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=stop, daemon=True).start()
        sys.argv = {arguments!r}
        assert pipeline.main() == 0
        """,
        {"ROS_DOMAIN_ID": str(ros_domain)},
    )
    assert not loaded & {*HEAVY, "ctranslate2", "lark", "rich"}
    assert {"rclpy", "onnxruntime", "tokenizers"} <= loaded


TELL = """
import json, sys
def tell():
    print("\\nMODULES" + json.dumps(sorted({m.partition(".")[0] for m in sys.modules})), flush=True)
"""


def modules_after(code: str, environment: Mapping[str, str] | None = None) -> set[str]:
    """Top-level modules that a process has imported when `code` calls ``tell()`` in it."""
    done = subprocess.run(
        [sys.executable, "-c", TELL + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("MODULES")[2].splitlines()[0]))
