# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Message packages of other people, built into a prefix of their own for the tests that need them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_CMAKE = """cmake_minimum_required(VERSION 3.16)
project({package})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(std_msgs REQUIRED)
rosidl_generate_interfaces(${{PROJECT_NAME}}
  {files}
  DEPENDENCIES std_msgs
)
ament_export_dependencies(rosidl_default_runtime)
ament_package()
"""
_PACKAGE = """<package format="3">
  <name>{package}</name><version>1.0.0</version><description>for tests</description>
  <maintainer email="nobody@example.org">nobody</maintainer><license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <build_depend>rosidl_default_generators</build_depend>
  <depend>std_msgs</depend><exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""


@dataclass(frozen=True)
class MessagePrefix:
    """An installed message package that hides the environment's of the same name."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with the prefix ahead of everything."""
        packages = next((self.folder / "lib").glob("python3*/site-packages"))
        # The wheels' start-up has been gone through in this process: it would order the folders at random.
        libraries = [str(self.folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "AMENT_PREFIX_PATH": os.pathsep.join([str(self.folder), sys.prefix]),
        }


def build_messages(package: str, definitions: Mapping[str, str], folder: Path) -> MessagePrefix:
    """Generate, build and install a package of `definitions` ("AudioData" -> text of its .msg)."""
    source, build, prefix = folder / "source", folder / "build", folder / "prefix"
    (source / "msg").mkdir(parents=True)
    for name, text in definitions.items():
        (source / "msg" / f"{name}.msg").write_text(text)
    files = "\n  ".join(f"msg/{name}.msg" for name in definitions)
    (source / "CMakeLists.txt").write_text(_CMAKE.format(package=package, files=files))
    (source / "package.xml").write_text(_PACKAGE.format(package=package))
    cmake = Path(sys.prefix) / "bin" / "cmake"
    hidden = ("PYTHONPATH", "LD_LIBRARY_PATH", "CMAKE_PREFIX_PATH")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment["AMENT_PREFIX_PATH"] = sys.prefix
    environment["PATH"] = f"{cmake.parent}{os.pathsep}{environment['PATH']}"
    for command in (
        [cmake, "-S", source, "-B", build, "-GNinja", "-DCMAKE_BUILD_TYPE=None",
         "-DCMAKE_C_FLAGS=-O1", "-DCMAKE_CXX_FLAGS=-O1", "-DBUILD_TESTING=OFF",
         f"-DCMAKE_PREFIX_PATH={sys.prefix}", f"-DCMAKE_INSTALL_PREFIX={prefix}",
         f"-DPython3_EXECUTABLE={sys.executable}",
         f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'tools' / 'wheel_build.cmake'}"],
        [cmake, "--build", build],
        [cmake, "--install", build],
    ):  # fmt: skip
        done = subprocess.run(
            [str(c) for c in command], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return MessagePrefix(prefix)
