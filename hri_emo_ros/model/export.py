# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Write what ONNX Runtime executes into a bundle: three graphs that share the weights in its safetensors.

A graph names file, offset and length of each weight (ONNX's external data), so none is stored twice: a
safetensors file is a header and then plain arrays. Half-precision weights are followed by a Cast, and with
``int8`` by their quantisation; both depend on nothing but the weight and are folded away when a session
starts. config.json notes of which bundle the graphs were made, and their digests, so that they are never used with
other weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.bundle import Graphs, find_bundle, load_bundle, write_graphs
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.encoders import AudioEncoder, TextEncoder
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch
from hri_emo_ros.model.runtime import graph_files

_OPSET = 17
_BATCH, _SAMPLES, _TOKENS, _OWN, _FRAMES = 2, (32_000, 20_000), (14, 9), (8, 9), 7
"""Of the example that is traced: rows of unlike length, one of them without context."""
_LEAST_INT8 = 1024
"""Weights of smaller matrices stay as they are: nothing would be gained."""
_LEAST_TABLE = 1000
"""Rows from which a table is looked up in half precision and only what was found is converted."""


class _Voice(nn.Module):
    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        assert isinstance(model.audio_encoder, AudioEncoder)
        self.audio_encoder, self.baseline = model.audio_encoder, model.config.baseline is not None

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        mask = torch.arange(samples.shape[1])[None] < lengths[:, None]
        states, mask = self.audio_encoder(samples, mask)
        states = states * mask.unsqueeze(-1)
        return (states, mask, voice_statistics(states, mask)) if self.baseline else (states, mask)


class _Words(nn.Module):
    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        assert isinstance(model.text_encoder, TextEncoder)
        self.text_encoder, self.context = model.text_encoder, model.config.context is not None

    def forward(self, ids: Tensor, own: Tensor, read: Tensor) -> Tensor:
        place = torch.arange(ids.shape[1])[None]
        mask = place < own[:, None]
        context = (place >= own[:, None]) & (place < read[:, None]) if self.context else None
        states, _ = self.text_encoder(ids, mask, context)
        return states * mask.unsqueeze(-1)


class _Head(nn.Module):
    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        voice: Tensor,
        voice_mask: Tensor,
        words: Tensor,
        words_mask: Tensor,
        snr_db: Tensor,
        asr_confidence: Tensor,
        speech_seconds: Tensor,
        word_count: Tensor,
        baseline: Tensor,
        heard: Tensor,
    ) -> tuple[Tensor, ...]:
        nothing = torch.zeros(voice.shape[0], 1)
        batch = ModelBatch(
            waveform=nothing, audio_lengths=nothing, input_ids=nothing,
            text_mask=words_mask, context_mask=nothing > 0,
            audio_present=voice_mask.any(1), text_present=words_mask.any(1),
            snr_db=snr_db, asr_confidence=asr_confidence, speech_seconds=speech_seconds,
            word_count=word_count, baseline=baseline, heard=heard,
        )  # fmt: skip
        audio = self.model.relate(voice, voice_mask, batch)
        output = self.model.fuse(EncodedBatch(audio, voice_mask, words, words_mask), batch)
        return tuple(getattr(output, name) for name in _answer_fields(self.model.config))


def _answer_fields(config: ModelConfig) -> list[str]:
    """The fields of an `Answer` that the head's graph gives."""
    relative = config.uses_audio and config.baseline is not None
    return [
        "logits", "audio_logits", "text_logits", "beta", *(["shares", "speech"] if relative else [])
    ]  # fmt: skip


def export_bundle(path: str | Path, int8: bool = False) -> list[Path]:
    """Write the graphs of a bundle beside its weights.

    Args:
        path: see `load_bundle`.
        int8: matrix products with weights take 8-bit integers: weights with one scale for each output,
            activations with one scale for each product, found as they come.

    Returns:
        The files written.

    Raises:
        HriEmoError: the bundle cannot be loaded, or its network not be exported.
    """
    folder = find_bundle(path)
    bundle = load_bundle(folder)
    for part, spec in (("audio", bundle.config.audio), ("text", bundle.config.text)):
        if getattr(bundle.config, f"uses_{part}") and spec.kind == "features":
            raise HriEmoError(
                f"bundle '{folder}' reads precomputed {part} features, for which there is no encoder to "
                "export: it runs with torch (parameter 'model.runtime')"
            )
    weights = _locations(folder)
    made: dict[Path, bytes] = {}
    for part, file in graph_files(bundle.document).items():
        graph = _traced(bundle.model, part)
        # The head is a twentieth of the work.
        _share_weights(graph, weights, int8 and part != "head")
        made[folder / file] = graph.SerializeToString()
    try:
        for target, content in made.items():
            target.write_bytes(content)
    except OSError as error:
        raise HriEmoError(f"cannot write into bundle '{folder}': {error}") from error
    digests = {target.name: hashlib.sha256(content).hexdigest() for target, content in made.items()}
    write_graphs(folder, Graphs(model_id=bundle.model_id, int8=int8, sha256=digests))
    return list(made)


def _traced(model: EmotionModel, part: str) -> onnx.ModelProto:
    """The graph of one part, with its own copies of the weights."""
    config = model.config
    if part == "voice":
        module: nn.Module = _Voice(model)
        example: tuple[Tensor, ...] = (
            torch.randn(_BATCH, max(_SAMPLES)) * 0.1,
            torch.tensor(_SAMPLES),
        )
        inputs, outputs = ["samples", "lengths"], ["states", "mask", "statistics"]
        outputs = outputs[: 3 if config.baseline is not None else 2]
        lengths = {"samples": "samples", "states": "frames", "mask": "frames"}
    elif part == "words":
        module = _Words(model)
        example = (torch.full((_BATCH, max(_TOKENS)), 3), torch.tensor(_OWN), torch.tensor(_TOKENS))
        inputs, outputs = ["ids", "own", "read"], ["states"]
        lengths = {"ids": "tokens", "states": "tokens"}
    else:
        module, example = _Head(model), _head_example(model)
        inputs = ["voice", "voice_mask", "words", "words_mask", "snr_db", "asr_confidence",
                  "speech_seconds", "word_count", "baseline", "heard"]  # fmt: skip
        outputs = _answer_fields(config)
        lengths = {"voice": "frames", "voice_mask": "frames", "words": "tokens",
                   "words_mask": "tokens", "baseline": "statistics"}  # fmt: skip
    axes = {
        name: {0: "batch", **({1: lengths[name]} if name in lengths else {})}
        for name in (*inputs, *outputs)
    }
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about branches that the example decides
        torch.onnx.export(
            module.eval(), example, file, input_names=inputs, output_names=outputs,
            dynamic_axes=axes, opset_version=_OPSET, do_constant_folding=False, dynamo=False,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def _head_example(model: EmotionModel) -> tuple[Tensor, ...]:
    """Inputs of the head of two utterances that have everything."""
    sizes = [
        getattr(getattr(model, f"{name}_encoder", None), "hidden_size", 1)
        for name in ("audio", "text")
    ]
    states = [torch.randn(_BATCH, _FRAMES, size) for size in sizes]
    present = torch.ones(_BATCH, _FRAMES, dtype=torch.bool)
    scalars = torch.rand(4, _BATCH)
    return (
        states[0], present, states[1], present, *scalars,
        torch.randn(_BATCH, 2 * sizes[0]), torch.ones(_BATCH, 2),
    )  # fmt: skip


@dataclass(frozen=True)
class _Location:
    """Where a weight lies."""

    file: str
    type: int
    """Of ONNX's element types."""
    offset: int
    length: int


_TYPES = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}


def _locations(folder: Path) -> dict[str, _Location]:
    """Every floating-point weight of the bundle, by its name in `EmotionModel`."""
    found = {}
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] in _TYPES:
                start, stop = entry["data_offsets"]
                found[name] = _Location(
                    file.name, _TYPES[entry["dtype"]], 8 + size + start, stop - start
                )
    return found


def _share_weights(model: onnx.ModelProto, weights: dict[str, _Location], int8: bool) -> None:
    """Replace the graph's copies of weights by their places in the bundle's files."""
    graph = model.graph
    uses: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    before: list[onnx.NodeProto] = []
    behind: dict[str, onnx.NodeProto] = {}
    for tensor in graph.initializer:
        name = tensor.name.removeprefix("model.") if tensor.name not in weights else tensor.name
        place = weights.get(name)
        if place is None:
            continue  # a constant of the trace
        own = tensor.name
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_type, tensor.data_location = place.type, TensorProto.EXTERNAL
        for key, value in (
            ("location", place.file),
            ("offset", place.offset),
            ("length", place.length),
        ):
            tensor.external_data.add(key=key, value=str(value))
        if place.type == TensorProto.FLOAT:
            continue
        tensor.name = own + ".half"
        if tensor.dims[0] >= _LEAST_TABLE and all(n.op_type == "Gather" for n in uses[own]):
            for node in uses[own]:
                node.input[0], out = tensor.name, node.output[0]
                node.output[0] = out + ".half"
                behind[node.output[0]] = _cast(node.output[0], out)
        else:
            before.append(_cast(tensor.name, own))
    nodes = list(before)
    for node in graph.node:
        nodes.append(node)
        if node.output and node.output[0] in behind:
            nodes.append(behind[node.output[0]])
    del graph.node[:]
    graph.node.extend(nodes)
    if int8:
        _quantise(graph)


def _cast(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)


def _quantise(graph: onnx.GraphProto) -> None:
    """Let matrix products with weights take 8-bit integers.

    x W becomes (x8 W8) s_x s_W: W8 with one scale for each output, symmetric; x8 with one scale and zero for the
    whole matrix (DynamicQuantizeLinear). 7 bits of W are used, since AVX2's instruction saturates sums of two
    products (ONNX Runtime's advice for processors without VNNI).
    """
    makers = {out: node for node in graph.node for out in node.output}
    halves = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        weight = _linear_weight(node, makers, halves)
        if weight is None:
            nodes.append(node)
            continue
        if weight not in done:
            nodes += _eight_bits(weight)
            done.add(weight)
        if node.input[0] + ".q" not in done:
            x = node.input[0]
            nodes.append(
                helper.make_node(
                    "DynamicQuantizeLinear", [x], [x + ".q", x + ".scale", x + ".zero"]
                )
            )
            done.add(x + ".q")
        x, y = node.input[0], node.output[0]
        nodes += [
            helper.make_node("MatMulInteger", [x + ".q", weight + ".q", x + ".zero"], [y + ".int"]),
            helper.make_node("Cast", [y + ".int"], [y + ".sum"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [x + ".scale", weight + ".scale"], [y + ".unit"]),
            helper.make_node("Mul", [y + ".sum", y + ".unit"], [y]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, kind), name)
        for name, value, kind in (
            ("int8.most", 63.0, np.float32),
            ("int8.least", 1e-12, np.float32),
        )
    )


def _linear_weight(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], tensors: dict[str, onnx.TensorProto]
) -> str | None:
    """The transposed weight of a linear layer that `node` multiplies with; None for other nodes."""
    if node.op_type != "MatMul":
        return None
    turned = makers.get(node.input[1])
    if turned is None or turned.op_type != "Transpose":
        return None
    cast = makers.get(turned.input[0])
    tensor = tensors.get(cast.input[0] if cast is not None else turned.input[0])
    if tensor is None or len(tensor.dims) != 2 or np.prod(tensor.dims) < _LEAST_INT8:
        return None
    return str(node.input[1])


def _eight_bits(weight: str) -> list[onnx.NodeProto]:
    """``weight.q`` int8 and ``weight.scale`` of a weight [in, out]; ONNX Runtime computes them when it loads."""
    return [
        helper.make_node("Abs", [weight], [weight + ".abs"]),
        helper.make_node("ReduceMax", [weight + ".abs"], [weight + ".max"], axes=[0], keepdims=0),
        helper.make_node("Div", [weight + ".max", "int8.most"], [weight + ".unit"]),
        helper.make_node("Max", [weight + ".unit", "int8.least"], [weight + ".scale"]),
        helper.make_node("Div", [weight, weight + ".scale"], [weight + ".in_units"]),
        helper.make_node("Round", [weight + ".in_units"], [weight + ".round"]),
        helper.make_node("Cast", [weight + ".round"], [weight + ".q"], to=TensorProto.INT8),
    ]
