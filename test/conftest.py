# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ros_playing import Heard

    from hri_emo_ros.nodes.graph import Graph

# Bounds of message fields are checked in tests; read by every ROS process when it starts.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete, exported bundle (HRI-EMO, compact encoders, random weights, under 1 MB)."""
    # Imported here: torch and transformers take seconds, and most tests need neither.
    from tiny_models import tiny_config, tiny_model

    from hri_emo_ros.model.bundle import save_bundle
    from hri_emo_ros.model.export import export_bundle

    folder = save_bundle(tiny_model(tiny_config()), tmp_path_factory.mktemp("bundle") / "tiny")
    export_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CTranslate2 folder of a random Whisper: it loads and runs as a real one does.

    Beside it, ``source`` is the transformers folder that it was converted from.
    """
    import torch
    from ctranslate2.converters import TransformersConverter
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    folder = tmp_path_factory.mktemp("whisper")
    source, converted = folder / "source", folder / "tiny-random"
    source.mkdir()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*letters, *(f"Ġw{i}" for i in range(1000))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    languages = [f"<|{code}|>" for code in _LANGUAGE_CODES]
    tokenizer.add_special_tokens(
        ["<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>",
         "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
         *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]
    )  # fmt: skip
    end = tokenizer.token_to_id("<|endoftext|>")
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=tokenizer.get_vocab_size(), d_model=16, encoder_layers=2, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, pad_token_id=end, bos_token_id=end, eos_token_id=end,
            decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
            suppress_tokens=[], begin_suppress_tokens=[],
        )
    )  # fmt: skip
    model.generation_config.alignment_heads = [[0, 0]]
    model.generation_config.lang_to_id = {code: tokenizer.token_to_id(code) for code in languages}
    model.generation_config.is_multilingual = True
    model.generation_config.no_timestamps_token_id = tokenizer.token_to_id("<|notimestamps|>")
    model.save_pretrained(source)
    tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    WhisperFeatureExtractor().save_pretrained(source)
    TransformersConverter(
        str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]
    ).convert(str(converted))
    return converted


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test run on this machine uses."""
    coordinator = pytest.importorskip("domain_coordinator")
    with coordinator.domain_id() as domain:
        yield domain


@pytest.fixture(scope="session")
def graph(tiny_bundle: Path, ros_domain: int) -> Iterator[Graph]:
    """speech_node and emotion_node, active, for voice alone; a module that wants others has its own, which must not
    hear these: they live to the end."""
    from hri_emo_ros.nodes.graph import Graph, free_domain

    with Graph(
        nodes=("speech_node", "emotion_node"),
        bundle=tiny_bundle,
        domain_id=next(domain for domain in iter(free_domain, None) if domain != ros_domain),
        parameters={
            "speech_node": {"audio.queue": 120.0},
            "emotion_node": {"transcript.source": "none", "model.threads": 1},
        },
    ) as running:
        yield running


@pytest.fixture(scope="module")
def collected(graph: Graph) -> Iterator[Heard]:
    """All that the module's graph publishes."""
    from ros_playing import configure_anew, listen

    # What the module before made fail shows in diagnostics for a while.
    configure_anew(graph, "speech_node")
    heard = listen(graph)
    yield heard
    for subscription in heard.subscriptions:
        graph.node.destroy_subscription(subscription)


@pytest.fixture
def heard(graph: Graph, collected: Heard) -> Heard:
    """A new stream, nothing heard yet."""
    from ros_playing import restart

    restart(graph)
    collected.start_over()
    return collected
