# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Installs the package the way ROS wants it; names and executables are in setup.cfg.

`colcon build` calls this. An environment of wheels is made by tools/setup instead.
"""

import os
import sys
from itertools import pairwise

from setuptools import setup

PACKAGE = "hri_emo_ros"
MESSAGES = "hri_emo_msgs"


def refuse_without_messages() -> None:
    """Stop an installation that leaves the messages out.

    colcon takes a folder with a package.xml for one package and never looks below it, so a plain
    `colcon build` would succeed without them. Messages from an underlay are good enough where
    hri_emo_msgs/ is not there to be built (or holds a COLCON_IGNORE).
    """
    if not {"install", "develop"} & set(sys.argv):
        return  # colcon also asks for names and commands; nothing is installed then
    marker = os.path.join("share", "ament_index", "resource_index", "packages", MESSAGES)
    source = os.path.join(os.path.dirname(os.path.realpath(__file__)), MESSAGES)
    if os.path.exists(os.path.join(source, "package.xml")) and not os.path.exists(
        os.path.join(source, "COLCON_IGNORE")
    ):
        # colcon makes the folder it installs to the prefix, newer ones without saying so in argv.
        prefixes = [
            sys.prefix,
            *(after for word, after in pairwise(sys.argv) if word == "--prefix"),
        ]
        prefixes += [os.path.join(os.path.dirname(prefix), MESSAGES) for prefix in prefixes]
    else:
        prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any(os.path.exists(os.path.join(prefix, marker)) for prefix in prefixes if prefix):
        raise SystemExit(
            f"{MESSAGES} is not built: colcon does not look below {PACKAGE}'s package.xml. "
            "Type this in the workspace: colcon build --base-paths src src/*/hri_emo_msgs"
        )


def shared_files() -> list[tuple[str, list[str]]]:
    """(folder under the prefix, files) of everything that goes to share/hri_emo_ros."""
    share = os.path.join("share", PACKAGE)
    found = [
        (
            os.path.join("share", "ament_index", "resource_index", "packages"),
            [f"resource/{PACKAGE}"],
        ),
        (share, ["package.xml", "LICENSE"]),
    ]
    wanted = {
        "launch": (".launch.py",),
        "config": (".yaml", ".rviz", ".json", ".xml"),
        "examples": (".py", ".xml"),
        "models": ("",),
    }
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
