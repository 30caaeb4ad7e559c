# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Make hri_emo_ros/voices/ge2e.onnx out of the wheel of Resemblyzer 0.1.4. It was done once.

usage: python tools/speaker_encoder.py Resemblyzer-0.1.4-py3-none-any.whl OUT.onnx

  pip download --no-deps resemblyzer==0.1.4
  pip install onnx==1.23.2 torch   # onnx is needed here alone

The weights are kept as float16 and computed with as float32. Prints the result's SHA-256, which
hri_emo_ros/voices/README.md records.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

WHEEL_SHA256 = "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f"
LAYERS, UNITS, BANDS = 3, 256, 40


def weights(wheel: Path) -> dict[str, np.ndarray]:
    """Name -> array of the checkpoint's model."""
    content = wheel.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"'{wheel}' has SHA-256 {found}, must be {WHEEL_SHA256}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        stored = archive.read("resemblyzer/pretrained.pt")
    state = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)["model_state"]
    return {name: tensor.numpy() for name, tensor in state.items()}


def reordered(matrix: np.ndarray) -> np.ndarray:
    """torch stacks the gates input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = np.split(matrix, 4)
    return np.concatenate([i, o, f, c])


def main(wheel: Path, out: Path) -> None:
    state = weights(wheel)
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value.astype(np.float16), f"{name}_16"))
        nodes.append(helper.make_node("Cast", [f"{name}_16"], [name], to=TensorProto.FLOAT))
        return name

    constants.append(numpy_helper.from_array(np.array([1], np.int64), "direction"))
    constants.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    nodes.append(helper.make_node("Transpose", ["mels"], ["x0"], perm=[1, 0, 2]))
    for layer in range(LAYERS):
        gates = {
            part: reordered(state[f"lstm.{part}_l{layer}"])
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        inputs = [
            f"x{layer}",
            constant(f"w{layer}", gates["weight_ih"][None]),
            constant(f"r{layer}", gates["weight_hh"][None]),
            constant(f"b{layer}", np.concatenate([gates["bias_ih"], gates["bias_hh"]])[None]),
        ]
        outputs = [f"y{layer}", f"h{layer}"]
        nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=UNITS))
        nodes.append(helper.make_node("Squeeze", [f"y{layer}", "direction"], [f"x{layer + 1}"]))
    nodes.append(helper.make_node("Squeeze", [f"h{LAYERS - 1}", "first"], ["state"]))
    linear = [constant("w", state["linear.weight"]), constant("b", state["linear.bias"])]
    nodes.append(helper.make_node("Gemm", ["state", *linear], ["projected"], transB=1))
    nodes.append(helper.make_node("Relu", ["projected"], ["positive"]))
    nodes.append(helper.make_node("LpNormalization", ["positive"], ["embeddings"], axis=1, p=2))
    graph = helper.make_graph(
        nodes,
        "ge2e",
        [helper.make_tensor_value_info("mels", TensorProto.FLOAT, ["windows", "frames", BANDS])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["windows", UNITS])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    out.write_bytes(content)
    print(f"{out}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
