# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One declaration of every parameter: file, tables and checks agree with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hri_emo_ros.cli.main import main
from hri_emo_ros.cli.parameters import page
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import NODES, check, defaults, load_parameters, markdown

ROOT = Path(__file__).resolve().parent.parent


def test_the_shipped_file_holds_every_parameter_at_its_default() -> None:
    path = ROOT / "config" / "emotion.yaml"
    assert load_parameters(path) == {node: defaults(node) for node in NODES}
    sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    for node in NODES:
        assert list(sections[f"/**/{node}"]["ros__parameters"]) == list(defaults(node))


def test_the_page_of_parameters_is_the_one_that_the_command_prints() -> None:
    shown = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert shown == page() + "\n", "hri-emo parameters > docs/parameters.md"


def test_the_command_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parameters", "emotion_node"]) == 0
    printed = capsys.readouterr().out
    assert markdown("emotion_node") in printed
    assert "vad.threshold" not in printed


@pytest.mark.parametrize("node", list(NODES))
def test_every_default_satisfies_its_own_bounds_and_is_described(node: str) -> None:
    assert check(node, defaults(node)) == defaults(node)
    for parameter in NODES[node]:
        assert re.fullmatch(r"\w.+[.)]", parameter.description), parameter.name


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("vad.threshold", 1.5, "0.01 to 0.99"),
        ("vad.threshold", float("nan"), "0.01 to 0.99"),
        ("vad.threshold", "high", "must be a number"),
        ("vad.threshold", True, "must be a number"),
        ("audio.channels", 1.0, "must be an integer"),
        ("audio.use_info", 1, "must be a bool"),
        ("audio.sample_format", "S16", "'S16LE'"),
        ("vad.treshold", 0.5, "has no parameter 'vad.treshold'; it has:"),
    ],
)
def test_refusals_name_the_parameter_and_what_is_allowed(
    name: str, value: object, says: str
) -> None:
    with pytest.raises(HriEmoError, match=re.escape(says)) as refusal:
        check("speech_node", {name: value})
    assert name in str(refusal.value)


def test_wildcards_namespaces_and_nesting_reach_their_nodes(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {use_sim_time: true, final: {hold: 2}}\n"
        "/robot1/speech_node:\n  ros__parameters: {vad: {threshold: 0.6}}\n"
        "/other_node:\n  ros__parameters: {anything: 1}\n",
        encoding="utf-8",
    )
    values = load_parameters(path, ["asr.queue:=3"])
    assert values["emotion_node"]["final.hold"] == 2.0
    assert values["speech_node"]["vad.threshold"] == 0.6
    assert values["asr_node"]["asr.queue"] == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "must be a mapping"),
        ("/**:\n  parameters: {}\n", "must hold 'ros__parameters:'"),
        ("/**:\n  ros__parameters: {vad.treshold: 1}\n", "no node has a parameter"),
        ("a: [\n", "cannot read parameter file"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HriEmoError, match=re.escape(says)) as refusal:
        load_parameters(path)
    assert str(path) in str(refusal.value)
