# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The package as others see it: its manifest, its set-up script, what lands in the environment."""

from __future__ import annotations

import ast
import configparser
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hri_emo_ros

ROOT = Path(__file__).resolve().parents[1]
PREFIX = Path(sys.prefix)
SETUP = ROOT / "tools" / "setup"

# import name -> name in package.xml or the requirements, where the two differ
DISTRIBUTIONS = {
    "google": "protobuf",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
REQUIREMENTS = ("ros.txt", "core.txt", "demo.txt", "evaluation.txt", "train.txt", "dev.txt")
ROSDEP_KEYS = {"pyyaml": "python3-yaml"}
# Imported, and always there with another: rosbags and faster-whisper read files with these.
BROUGHT = {
    "apsw": "rosbags",
    "av": "faster-whisper",
    "ctranslate2": "faster-whisper",
    "lz4": "rosbags",
    "zstandard": "rosbags",
    "rosgraph_msgs": "rclpy",
}


def executables() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options.entry_points"]["console_scripts"].strip().splitlines()
    return {name.strip(): target.strip() for name, target in (line.split("=") for line in lines)}


def pins(*names: str) -> dict[str, str]:
    """Distribution -> the rest of its line."""
    found = {}
    for name in names:
        for line in (ROOT / "requirements" / name).read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                match = re.match(r"([\w.-]+)(.*)", line)
                assert match
                found[match[1].lower()] = match[2]
    return found


def imports(folder: Path) -> dict[str, set[str]]:
    """Top-level module -> the files below `folder` that import it, functions included."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    standard = set(sys.stdlib_module_names) | {"hri_emo_ros"}
    return {name: files for name, files in found.items() if name not in standard}


def manifest(folder: Path = ROOT):  # type: ignore[no-untyped-def]
    package = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    parsed = package.parse_package(str(folder / "package.xml"), warnings=warnings)
    assert not warnings
    return parsed


def test_manifests_are_valid_and_agree() -> None:
    package, messages = manifest(), manifest(ROOT / "hri_emo_msgs")
    for each in (package, messages):
        each.validate()
        assert each.version == hri_emo_ros.__version__
        assert [author.name for author in each.authors] == ["hri_emo_ros contributors"]
        for licence in each.licenses:
            assert (Path(each.filename).parent / licence.file).is_file()
    assert package.licenses == ["Apache-2.0", "CC-BY-NC-SA-4.0"]  # the code, the models
    assert messages.licenses == ["Apache-2.0"]
    assert package.get_build_type() == "ament_python"
    assert messages.get_build_type() == "ament_cmake"
    assert [group.name for group in messages.member_of_groups] == ["rosidl_interface_packages"]
    assert "hri_emo_msgs" in {depend.name for depend in package.exec_depends}
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_every_message_is_built() -> None:
    cmake = (ROOT / "hri_emo_msgs" / "CMakeLists.txt").read_text()
    for kind in ("msg", "srv", "action"):
        for path in (ROOT / "hri_emo_msgs" / kind).iterdir():
            assert f"{kind}/{path.name}" in cmake


def test_what_the_package_imports_is_declared() -> None:
    """Whatever is imported is in package.xml or, where rosdep has it not, in workspace.txt."""
    declared = {depend.name for depend in manifest().exec_depends}
    declared |= set(pins("workspace.txt"))
    tooling = set(pins("demo.txt", "evaluation.txt", "train.txt", "dev.txt"))
    missing = {}
    for name, files in {**imports(ROOT / "hri_emo_ros"), **imports(ROOT / "launch")}.items():
        distribution = BROUGHT.get(name, DISTRIBUTIONS.get(name, name)).lower()
        key = ROSDEP_KEYS.get(distribution, f"python3-{distribution}")
        alternatives = {distribution, distribution.replace("_", "-"), key}
        if not alternatives & (declared | tooling):
            missing[name] = sorted(files)
    assert not missing


def test_what_the_nodes_and_tools_import_is_pinned() -> None:
    wheels = pins(*REQUIREMENTS)
    ours = {"audio_common_msgs", "hri_emo_msgs"}
    # Not to be had as wheels; imported where ROS is installed.
    elsewhere = {"launch", "launch_ros", "audio_common_msgs", "audio_msgs", "audio_stamped_msgs"}
    missing = {}
    for name, files in imports(ROOT / "hri_emo_ros").items():
        distribution = BROUGHT.get(name, DISTRIBUTIONS.get(name, name)).lower().replace("_", "-")
        if name in ours | elsewhere or {distribution, f"ros-kilted-{distribution}"} & set(wheels):
            continue
        try:  # ROS packages that come with a named one
            __import__(name)
        except ImportError:
            missing[name] = sorted(files)
        else:
            if not (PREFIX / "share" / name / "package.xml").exists():
                missing[name] = sorted(files)
    assert not missing


def test_what_nodes_import_where_they_are_loaded_is_declared_for_them_alone() -> None:
    """A node without evaluation, training and torch starts: nothing of those is in what it declares."""
    declared = {depend.name for depend in manifest().exec_depends} | set(pins("workspace.txt"))
    heavy = {*pins("demo.txt", "evaluation.txt", "train.txt", "dev.txt")}
    assert not declared & (heavy | {f"python3-{name}" for name in heavy})
    assert set(pins("workspace.txt")) <= set(pins("core.txt"))


def test_every_requirement_is_pinned() -> None:
    for distribution, rest in pins(*REQUIREMENTS, "nodeps.txt", "docs.txt").items():
        assert re.match(r"==[\w.]+($|;)", rest), f"{distribution}{rest}"


SPDX = "Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0"
SOURCES = {
    ".action",
    ".cfg",
    ".cmake",
    ".html",
    ".j2",
    ".js",
    ".msg",
    ".py",
    ".srv",
    ".toml",
    ".xml",
    ".yaml",
}
# Data, generated files, and what makes neither of them; package.xml has its <license>.
NO_SOURCES = {"build", "data", "demo", "install", "log", "models", "runs", "__pycache__"}


def sources() -> list[Path]:
    """The tree's source files: by ending or name, and every script."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [n for n in folders if n == ".ci" or not (n in NO_SOURCES or n[0] == ".")]
        for path in (Path(folder, name) for name in sorted(names)):
            if path.name == "package.xml" or path.is_symlink():
                continue
            known = path.suffix in SOURCES or path.name in (
                "CMakeLists.txt",
                "Dockerfile",
                "Makefile",
            )
            if known or path.read_bytes()[:2] == b"#!":
                found.append(path)
    return found


def test_every_source_file_names_its_licence() -> None:
    """In its first line, or below the line that has to be the first."""
    paths = sources()
    kinds = {name for path in paths for name in (path.suffix, path.name)}
    assert {".py", ".msg", ".srv", ".action", ".yaml", "CMakeLists.txt", "setup"} <= kinds
    without = []
    for path in paths:
        first, second = [*path.read_text().splitlines(), "", ""][:2]
        if SPDX not in first and not (first.startswith(("#!", "<?xml")) and SPDX in second):
            without.append(str(path.relative_to(ROOT)))
    assert not without


def pages() -> list[Path]:
    """The Markdown pages for people."""
    folders = (".", "docs", "models", "models/compact", "demo", "test/data", "hri_emo_ros/voices")
    return [page for folder in folders for page in sorted((ROOT / folder).glob("*.md"))]


def test_links_between_the_pages_lead_somewhere() -> None:
    links = [
        (page, link.partition("#")[0])
        for page in pages()
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if not re.match(r"https?://|mailto:|#", link)
    ]
    assert len(links) > 20
    assert not [(str(page), link) for page, link in links if not (page.parent / link).exists()]


def test_the_site_has_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    wanted = {str(page.relative_to(ROOT)) for page in pages()}
    assert set(re.findall(r": (\S+\.md)$", site, re.MULTILINE)) == wanted


@pytest.mark.parametrize(("name", "target"), executables().items())
def test_executables_lead_somewhere(name: str, target: str) -> None:
    module, function = target.split(":")
    source = ROOT / (module.replace(".", "/") + ".py")
    assert source.exists(), f"{name}: {source} is missing"
    defined = {node.name for node in ast.parse(source.read_text()).body if hasattr(node, "name")}
    assert function in defined


# --- The environment that tools/setup made ---------------------------------------------------------

made_by_setup = pytest.mark.skipif(
    PREFIX != ROOT / ".venv", reason="not running in this tree's .venv"
)


@made_by_setup
def test_the_environment_looks_like_a_ros_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = pytest.importorskip("ament_index_python.packages")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(PREFIX))
    for name in ("hri_emo_ros", "hri_emo_msgs", "audio_common_msgs"):
        share = Path(packages.get_package_share_directory(name))
        assert (share / "package.xml").is_file(), name
    for name in executables():
        assert os.access(PREFIX / "lib" / "hri_emo_ros" / name, os.X_OK), name
    for name in ("launch", "config"):
        assert (PREFIX / "share" / "hri_emo_ros" / name).is_dir(), name


@made_by_setup
def test_the_package_comes_from_the_tree_and_brings_nothing_else(tmp_path: Path) -> None:
    """A path to the tree on sys.path would make `launch` importable and hide that ROS's is not."""
    code = (
        "import importlib.util as u, hri_emo_ros\n"
        "print(hri_emo_ros.__file__)\n"
        "print([n for n in ('launch', 'config', 'models', 'demo')\n"
        "       if (s := u.find_spec(n)) and s.origin is None])"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code], cwd=tmp_path, text=True
    ).splitlines()
    assert Path(output[0]) == ROOT / "hri_emo_ros" / "__init__.py"
    assert output[1] == "[]"


@made_by_setup
def test_command_line_tool_runs() -> None:
    output = subprocess.check_output([PREFIX / "bin" / "hri-emo", "--version"], text=True)
    assert hri_emo_ros.__version__ in output


@made_by_setup
def test_second_setup_does_nothing() -> None:
    if runpy.run_path(str(SETUP))["outdated"]("dev"):
        pytest.skip("the tree has changed since tools/setup ran")
    done = subprocess.run([SETUP, "dev"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# --- What tools/setup says where something is missing ---------------------------------------------


@pytest.fixture
def bare_tree(tmp_path: Path) -> Path:
    """What tools/setup needs of the tree, without .venv, and a folder of commands for PATH."""
    tree = tmp_path / "a tree"
    for name in ("tools", "requirements", "hri_emo_msgs"):
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy(ROOT / "setup.cfg", tree)
    (tree / "bin").mkdir()
    return tree


def run_setup(tree: Path, *commands: str, **variables: str) -> str:
    """stderr of a set-up that fails, with just `commands` on PATH."""
    for name in commands:
        (tree / "bin" / name).symlink_to(shutil.which(name) or "/bin/true")
    done = subprocess.run(
        [sys.executable, tree / "tools" / "setup", "core"],
        env={"PATH": str(tree / "bin"), "HOME": str(tree), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (tree / ".venv").exists()
    return done.stderr


def fake_python(tree: Path, answer: str) -> str:
    """An interpreter that answers tools/setup's question in this way."""
    path = tree / "bin" / "fake-python"
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


def test_missing_compiler_is_named(bare_tree: Path) -> None:
    assert "sudo apt-get install g++" in run_setup(bare_tree)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[[3, 9], true, true]", "Python 3.10 to 3.13 is needed, found 3.9"),
        ("[[3, 14], true, true]", "Python 3.10 to 3.13 is needed, found 3.14"),
        ("[[3, 12], false, true]", "sudo apt-get install python3.12-venv"),
        ("[[3, 11], true, false]", "sudo apt-get install python3.11-dev"),
    ],
)
def test_unsuitable_python_is_named(bare_tree: Path, answer: str, expected: str) -> None:
    python = fake_python(bare_tree, answer)
    assert expected in run_setup(bare_tree, "c++", PYTHON=python)


def test_foreign_environment_is_left_alone(bare_tree: Path) -> None:
    venv = bare_tree / ".venv"
    venv.mkdir()
    (venv / "precious").write_text("")
    (bare_tree / "bin" / "c++").symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, bare_tree / "tools" / "setup", "core"],
        env={"PATH": str(bare_tree / "bin"), "HOME": str(bare_tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "move it away" in done.stderr
    assert (venv / "precious").exists()
