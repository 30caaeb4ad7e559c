# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Dockerfile and compose.yaml, as far as they can be held without Docker: what they name is there."""

from __future__ import annotations

import ast
import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
DISTRIBUTIONS = ("jazzy", "kilted")


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile, continued lines joined."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines.splitlines() if line]


def commands() -> list[list[str]]:
    """Every command of the RUN instructions, as words."""
    return [
        shlex.split(command)
        for name, rest in instructions()
        if name == "RUN"
        for command in rest.split("&&")
    ]


def sent() -> list[Path]:
    """What Docker is given of this tree, by .dockerignore: the last pattern that fits a path or a folder above
    it decides."""
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def ignored(path: Path) -> bool:
        names = [str(p) for p in (path, *path.parents) if p != Path()]
        answer = False
        for pattern in patterns:
            wanted = pattern.removeprefix("!")
            inside = wanted.removeprefix("**/")
            found = any(
                fnmatch.fnmatchcase(name if inside == wanted else Path(name).name, inside)
                for name in names
            )
            answer = not pattern.startswith("!") if found else answer
        return answer

    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    if not tracked:
        pytest.skip("not a git checkout")
    made_here = [".git/config", ".venv/bin/python", "build/x", "hri_emo_ros/__pycache__/x.pyc"]
    paths = [Path(name) for name in (*tracked, *made_here)]
    return [path for path in paths if not ignored(path)]


def test_docker_is_sent_what_the_image_is_built_of_and_nothing_else() -> None:
    tops = {path.parts[0] for path in sent()}
    assert {"package.xml", "setup.py", "hri_emo_ros", "hri_emo_msgs", "models", "launch"} <= tops
    assert not tops & {".git", ".venv", "build", "test", "demo", "docs", ".ci"}
    assert not [path for path in sent() if "__pycache__" in path.parts]


def test_what_the_image_copies_is_sent() -> None:
    paths = {str(path) for path in sent()}
    sources = [
        word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]
    ]
    assert len(sources) >= 4
    assert not [word for word in sources if word != "." and word not in paths]


def test_the_package_installs_from_what_is_sent(tmp_path: Path) -> None:
    if not (Path(sys.prefix) / "share/ament_index/resource_index/packages/hri_emo_msgs").exists():
        pytest.skip("the messages are not built here")
    tree, prefix = tmp_path / "tree", tmp_path / "prefix"
    for path in sent():
        if (ROOT / path).is_file():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tree / path)
    arguments = ["install", f"--prefix={prefix}", "--single-version-externally-managed"]
    done = subprocess.run(
        [sys.executable, "setup.py", *arguments, "--record", str(tmp_path / "record")],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    share = prefix / "share" / "hri_emo_ros"
    for file in ("package.xml", "launch/emotion.launch.py", "config/emotion.yaml",
                 "models/compact/config.json", "models/compact/voice.onnx"):  # fmt: skip
        assert (share / file).is_file(), file
    for file in ("lib/hri_emo_ros/emotion_node", "bin/hri-emo"):
        assert (prefix / file).is_file(), file


def test_rosdep_understands_the_manifests_alone(tmp_path: Path) -> None:
    """They are copied before the licences that they name."""
    packages = pytest.importorskip("catkin_pkg.packages")
    for file in ("package.xml", "hri_emo_msgs/package.xml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for folder in (tmp_path, tmp_path / "hri_emo_msgs"):
        assert len(packages.find_packages(str(folder))) == 1


def test_pip_installs_nothing_but_the_requirements() -> None:
    pip = [words for words in commands() if words[0].endswith("/pip")]
    named = {}
    for words in pip:
        arguments = words[words.index("install") + 1 :]
        assert arguments[-2] == "-r"
        assert all(word.startswith("--") for word in arguments[:-2])
        named[Path(arguments[-1]).name] = "--no-deps" in arguments
    assert named == {"workspace.txt": False, "nodeps.txt": True}


def test_apt_knows_what_is_installed() -> None:
    """Of what is no ROS package, where this machine's lists of packages are here."""
    manifest = (ROOT / "package.xml").read_text()
    wanted = set(re.findall(r"<exec_depend>((?:python3-|portaudio)[\w-]+)<", manifest))
    for words in commands():
        if words[:2] == ["apt-get", "install"]:
            wanted |= {word for word in words[2:] if not word.startswith("-")}
    assert "python3-venv" in wanted
    assert len(wanted) > 4
    if shutil.which("apt-cache") is None:
        pytest.skip("no apt here")
    known = subprocess.run(
        ["apt-cache", "pkgnames"], capture_output=True, text=True, check=True
    ).stdout.split()
    if "portaudio19-dev" not in known:
        pytest.skip("apt's lists are not here")
    assert not wanted - set(known)


def test_the_services_are_images_of_this_tree_for_each_distribution() -> None:
    assert re.search(r"^ARG ROS_DISTRO=(\w+)$", DOCKERFILE, re.MULTILINE)[1] in DISTRIBUTIONS  # type: ignore[index]
    assert ("FROM", "ros:${ROS_DISTRO}") in instructions()
    assert set(SERVICES) == {"robot", "recorded", "recording"}
    for service in SERVICES.values():
        assert service["build"]["context"] == "."
        assert set(service["build"]["args"]) == {"ROS_DISTRO"}
        assert "${ROS_DISTRO" in service["image"]


def test_the_services_launch_what_there_is() -> None:
    declared = {
        node.args[0].value
        for node in ast.walk(ast.parse((ROOT / "launch" / "emotion.launch.py").read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "DeclareLaunchArgument"
        and isinstance(node.args[0], ast.Constant)
    }
    default = ast.literal_eval(dict(instructions())["CMD"])
    for words in (default, *(shlex.split(SERVICES[n]["command"]) for n in ("robot", "recorded"))):
        assert words[:4] == ["ros2", "launch", "hri_emo_ros", "emotion.launch.py"]
        given = {word.partition(":=")[0] for word in words[4:]}
        assert given <= declared


def test_the_recording_that_is_played_is_there() -> None:
    service = SERVICES["recording"]
    source, target, _ = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["volumes"][0]).split(":")
    assert (ROOT / source / "metadata.yaml").is_file()
    words = shlex.split(service["command"])
    assert words[:4] == ["ros2", "bag", "play", target]
    assert "--clock" in words
    assert "use_sim_time:=true" in SERVICES["recorded"]["command"]
    assert service["depends_on"] == ["recorded"]
