# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A real `colcon build` of both packages, against the ROS 2 in the environment the tests run in."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("colcon_core")
pytest.importorskip("colcon_ros")

ROOT = Path(__file__).resolve().parents[1]
PREFIX = Path(sys.prefix)
WHAT_TO_TYPE = "colcon build --base-paths src src/*/hri_emo_msgs"

# About a minute of compiling, more where other tests run beside it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Only for ROS from wheels; see tools/wheel_build.cmake. A workspace on a real ROS needs none of it.
FOR_WHEELS = [
    "--cmake-args",
    "-GNinja",
    "-DCMAKE_BUILD_TYPE=None",
    "-DCMAKE_CXX_FLAGS=-O0",
    f"-DPython3_EXECUTABLE={sys.executable}",
    f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'tools' / 'wheel_build.cmake'}",
]


@dataclass(frozen=True)
class Workspace:
    root: Path

    @property
    def source(self) -> Path:
        return self.root / "src" / "hri_emo_ros"

    def installed(self, package: str) -> Path:
        return self.root / "install" / package

    def colcon(
        self, command: str, *more: str, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a line as one would type it, in the workspace unless told otherwise."""
        environment = {
            "AMENT_PREFIX_PATH": str(PREFIX),
            "CMAKE_PREFIX_PATH": str(PREFIX),
            "HOME": str(self.root),
            "PATH": f"{PREFIX / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        words = " ".join(f"'{word}'" for word in more)
        return subprocess.run(
            f"'{sys.executable}' -m {command} {words}",
            shell=True,
            cwd=cwd or self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with this repository in src/, its work in progress included."""
    space = Workspace(tmp_path_factory.mktemp("workspace"))
    left_out = shutil.ignore_patterns(
        ".*", "__pycache__", "build", "install", "log", "runs", "data"
    )
    shutil.copytree(ROOT, space.source, ignore=left_out)
    return space


@pytest.fixture(scope="module")
def plain(workspace: Workspace) -> subprocess.CompletedProcess[str]:
    """The plain build, before anything is there; its traces are removed."""
    done = workspace.colcon("colcon build")
    for name in ("build", "install", "log"):
        shutil.rmtree(workspace.root / name, ignore_errors=True)
    return done


@pytest.fixture(scope="module")
def built(workspace: Workspace, plain: subprocess.CompletedProcess[str]) -> Workspace:
    """The build with the line that the plain build says to type."""
    done = workspace.colcon(WHAT_TO_TYPE, *FOR_WHEELS)
    assert done.returncode == 0, done.stdout[-4000:]
    return workspace


def test_plain_build_stops_and_says_what_to_type(plain: subprocess.CompletedProcess[str]) -> None:
    assert plain.returncode != 0
    said = [line for line in plain.stdout.splitlines() if WHAT_TO_TYPE in line]
    assert len(said) == 1
    assert "Traceback" not in plain.stdout


def test_messages_are_installed(built: Workspace) -> None:
    prefix = built.installed("hri_emo_msgs")
    messages = {path.stem for path in (ROOT / "hri_emo_msgs" / "msg").glob("*.msg")}
    assert {path.stem for path in (prefix / "share/hri_emo_msgs/msg").glob("*.msg")} == messages
    packages = next((prefix / "lib").glob("python3*/site-packages"))
    code = "from hri_emo_msgs.msg import EmotionState as S; import hri_emo_msgs as m; S(); print(m.__file__)"
    output = subprocess.check_output(
        [sys.executable, "-c", code],
        env={
            "HOME": str(built.root),
            "PATH": os.defpath,
            "PYTHONPATH": str(packages),
            "LD_LIBRARY_PATH": str(prefix / "lib"),
        },
        cwd=built.root,
        text=True,
    )
    assert Path(output.strip()).is_relative_to(prefix)


def test_executables_are_where_ros2_run_looks(built: Workspace) -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options.entry_points"]["console_scripts"].strip().splitlines()
    names = {line.split("=")[0].strip() for line in lines}
    folder = built.installed("hri_emo_ros") / "lib" / "hri_emo_ros"
    assert {path.name for path in folder.iterdir()} == names
    assert all(os.access(path, os.X_OK) for path in folder.iterdir())
    # Not that of colcon's environment, which `ros2 run` would start instead of the sourced ROS's.
    assert {path.read_text().splitlines()[0] for path in folder.iterdir()} == {
        "#!/usr/bin/env python3"
    }
    assert os.access(built.installed("hri_emo_ros") / "bin" / "hri-emo", os.X_OK)


def test_shared_files_are_installed(built: Workspace) -> None:
    """Every licence, launch file, configuration and file of a model in the repository, and the manifest."""
    share = built.installed("hri_emo_ros") / "share" / "hri_emo_ros"
    assert (share / "package.xml").is_file()
    for package in ("hri_emo_ros", "hri_emo_msgs"):
        folder = built.installed(package) / "share" / package
        for licence in re.findall(r'file="([^"]+)"', (folder / "package.xml").read_text()):
            assert (folder / licence).is_file(), licence
    patterns = ("launch/*.launch.py", "config/**/*.yaml", "models/**/*")
    wanted = {
        path.relative_to(built.source)
        for pattern in patterns
        for path in built.source.glob(pattern)
        if path.is_file()
    }
    assert any(path.parts[0] == "launch" for path in wanted)
    assert any(path.parts[0] == "config" for path in wanted)
    assert not [str(path) for path in sorted(wanted) if not (share / path).is_file()]
    index = share.parent / "ament_index" / "resource_index" / "packages"
    assert (index / "hri_emo_ros").is_file()


def test_installed_command_line_tool_runs(built: Workspace) -> None:
    prefix = built.installed("hri_emo_ros")
    packages = next((prefix / "lib").glob("python3*/site-packages"))
    output = subprocess.check_output(
        [sys.executable, prefix / "bin" / "hri-emo", "--version"],
        env={"HOME": str(built.root), "PATH": os.defpath, "PYTHONPATH": str(packages)},
        cwd=built.root,
        text=True,
    )
    assert output.startswith("hri-emo ")
    for name in ("audio/silero_vad.onnx", "audio/silero_vad.LICENSE.txt", "view/page.html"):
        assert (packages / "hri_emo_ros" / name).is_file()


def test_build_inside_the_repository_finds_both(built: Workspace) -> None:
    """colcon_defaults.yaml names both packages where colcon is started in the repository."""
    done = built.colcon(
        "colcon build --build-base ../../build --install-base ../../install",
        *FOR_WHEELS,
        cwd=built.source,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for package in ("hri_emo_msgs", "hri_emo_ros"):
        assert f"Finished <<< {package}" in done.stdout


def test_colcon_test_runs_pytest_for_both(built: Workspace) -> None:
    done = built.colcon(
        "colcon test --base-paths src src/*/hri_emo_msgs --pytest-args", "test/test_affect.py"
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for package in ("hri_emo_msgs", "hri_emo_ros"):
        (report,) = (built.root / "build" / package).rglob("pytest*.xml")
        suites = list(ET.parse(report).getroot().iter("testsuite"))
        ran = sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in suites)
        assert ran > 3, package
        assert not any(
            int(suite.get(kind, 0)) for suite in suites for kind in ("errors", "failures")
        )
