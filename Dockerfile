# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
# The nodes on apt's ROS 2, x86_64 and arm64 alike: what package.xml names comes from apt, what rosdep cannot install from pip.
#   docker build --build-arg ROS_DISTRO=jazzy -t hri_emo_ros:jazzy .
ARG ROS_DISTRO=kilted
FROM ros:${ROS_DISTRO}
SHELL ["/bin/bash", "-c"]

# What is installed depends on these files alone, so that a change of the code installs nothing anew.
WORKDIR /ws/src/hri_emo_ros
COPY package.xml ./
COPY hri_emo_msgs/package.xml hri_emo_msgs/
COPY requirements/workspace.txt requirements/nodeps.txt requirements/
WORKDIR /ws
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rosdep install --from-paths src src/*/hri_emo_msgs -iy -t exec -t build -t buildtool \
    && rm -rf /var/lib/apt/lists/*
# Ubuntu keeps pip out of its own Python; numpy stays the one that ROS was compiled against.
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -r src/hri_emo_ros/requirements/workspace.txt \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps -r src/hri_emo_ros/requirements/nodeps.txt

COPY . src/hri_emo_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && colcon build --base-paths src src/*/hri_emo_msgs --cmake-args -DBUILD_TESTING=OFF \
    && rm -rf build log

# The nodes' scripts take the first python3 of PATH.
ENV PATH=/opt/venv/bin:$PATH
USER ubuntu
WORKDIR /home/ubuntu
ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "hri_emo_ros", "emotion.launch.py"]
