"""Installs the package the way ROS wants it: `colcon build` calls this; names and executables are in setup.cfg.

An environment of wheels is made by tools/setup instead.
"""

import importlib.util
import os
import sys

from setuptools import setup

PACKAGE = "hri_emo_ros"
MESSAGES = "hri_emo_msgs"


def refuse_without_messages() -> None:
    """Stop an installation that could not run.

    colcon takes a folder with a package.xml for one package and never looks below it, so that a plain
    `colcon build` would succeed without the messages.
    """
    if not {"install", "develop"} & set(sys.argv):
        return  # colcon also asks for names and commands; nothing is installed then
    prefixes = [
        prefix
        for variable in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH")
        for prefix in os.environ.get(variable, "").split(os.pathsep)
        if prefix
    ]
    marker = os.path.join("share", "ament_index", "resource_index", "packages", MESSAGES)
    if any(
        os.path.exists(os.path.join(prefix, *below, marker))
        for prefix in prefixes
        for below in ((), (MESSAGES,))
    ):
        return
    if importlib.util.find_spec(MESSAGES):
        return
    raise SystemExit(
        f"{MESSAGES} is not built: colcon does not look below {PACKAGE}'s package.xml. Type this in the "
        "workspace: colcon build --base-paths src src/*/hri_emo_msgs"
    )


def shared_files() -> list[tuple[str, list[str]]]:
    """(folder under the prefix, files) of everything that goes to share/hri_emo_ros."""
    share = os.path.join("share", PACKAGE)
    found = [
        (
            os.path.join("share", "ament_index", "resource_index", "packages"),
            [f"resource/{PACKAGE}"],
        ),
        (share, ["package.xml"]),
    ]
    wanted = {"launch": (".launch.py",), "config": (".yaml", ".rviz"), "models": ("",)}
    for top, endings in wanted.items():
        for folder, folders, names in os.walk(top, followlinks=True):
            folders[:] = sorted(f for f in folders if f != "__pycache__" and not f.startswith("."))
            files = [
                os.path.join(folder, name)
                for name in sorted(names)
                if name.endswith(endings) and not name.startswith(".")
            ]
            if files:
                found.append((os.path.join(share, folder), files))
    return found


refuse_without_messages()
setup(
    data_files=[*shared_files(), ("bin", ["tools/hri-emo"])],
    # As in setup.cfg, where setuptools overlooks it if colcon runs in a virtual environment.
    options={"install": {"install_scripts": f"$base/lib/{PACKAGE}"}},
)
