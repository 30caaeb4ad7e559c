# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Paired comparison of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hri_emo_ros.cli.main import main
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.compare import compare_runs, load_run

LABELS = ["sad", "angry"]


def write(path: Path, answers: str, **change: Any) -> Path:
    """A run of ten labels, sad and angry in turn; answers are s, a or - (missed)."""
    names = {"s": "sad", "a": "angry", "-": ""}
    items = [
        {
            "start": 3.0 * k, "end": 3.0 * k + 2, "emotion": LABELS[k % 2], "speaker": f"p{k // 2 % 4}",
            "text": "", "predicted": names[answer],
            "probabilities": [0.8, 0.2] if answer == "s" else [0.2, 0.8] if answer == "a" else [],
        }
        for k, answer in enumerate(answers)
    ]  # fmt: skip
    path.write_text(
        json.dumps({"labels": LABELS, "items": items, "bag": "b", "model": "m"} | change)
    )
    return path


def test_a_run_compared_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    run = load_run(write(tmp_path / "a.json", "sasasasaaa"))
    result = compare_runs(run, run)
    for figure in result["figures"].values():
        assert figure["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert result["p_value"] == 1.0


def test_the_difference_is_the_second_minus_the_first_with_a_paired_interval(
    tmp_path: Path,
) -> None:
    one = load_run(write(tmp_path / "a.json", "ssssssssss"))
    two = load_run(write(tmp_path / "b.json", "sasasasasa"))
    result = compare_runs(one, two)
    ua = result["figures"]["ua"]
    assert (ua["first"], ua["second"], ua["difference"]["value"]) == (0.5, 1.0, 0.5)
    assert ua["difference"]["low"] > 0
    assert (result["only_first_right"], result["only_second_right"]) == (0, 5)
    assert result["intervals_over"] == "speakers"
    assert result["p_value"] == pytest.approx(0.0625)


def test_what_was_missed_is_wrong(tmp_path: Path) -> None:
    one = load_run(write(tmp_path / "a.json", "sasasasasa"))
    two = load_run(write(tmp_path / "b.json", "sasasasa--"))
    assert compare_runs(one, two)["figures"]["wa"]["second"] == pytest.approx(0.8)


def test_runs_that_share_no_labels_are_refused(tmp_path: Path) -> None:
    one = load_run(write(tmp_path / "a.json", "sa"))
    with pytest.raises(HriEmoError, match="no labelled utterance in common"):
        compare_runs(one, load_run(write(tmp_path / "b.json", "sa", items=[
            {"start": 99.0, "end": 100.0, "emotion": "sad", "predicted": "sad"}
        ])))  # fmt: skip
    with pytest.raises(HriEmoError, match="only runs with the same labels"):
        compare_runs(
            one, load_run(write(tmp_path / "c.json", "sa", labels=["sad", "angry", "fear"]))
        )


def test_the_command_takes_folders_and_files_and_refuses_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "report.json", "sasa")
    other = write(tmp_path / "b.json", "ssss")
    assert main(["compare", str(tmp_path / "run"), str(other), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 4
    assert main(["compare", str(tmp_path / "run"), str(other)]) == 0
    assert "McNemar" in capsys.readouterr().out
    (tmp_path / "no.json").write_text("[]")
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "no.json")]) == 2
    assert "is no run" in capsys.readouterr().err
