# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
# Everything here is complete on its own: `make demo` and `make test` set up what they need first.

# A sourced ROS workspace or another environment would be mixed into .venv.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME PYTHONPATH
unexport ROS_DISTRO ROS_PYTHON_VERSION ROS_VERSION VIRTUAL_ENV _ROS_WHEELS_BOOTSTRAP_COMPLETE
# The bootstrap of the ROS wheels and the logs of the nodes want a home, which containers may lack.
export HOME ?= /tmp

bin := .venv/bin
py := $(bin)/python
# Interpreter that tools/setup itself runs on: any python3.
PYTHON3 ?= python3
# More arguments for the command behind a target: make test ARGS="-k messages", make demo ARGS="--help".
ARGS ?=

.PHONY: help demo test lint format bench fuzz soak core evaluation dev clean distclean

help:
	@echo "make demo    play the demo recording through the real nodes and show what they say"
	@echo "make test    check style and types, run the tests"
	@echo "make bench   measure speed and memory"
	@echo "make fuzz    mutated messages, parameters, recordings, bundles: the long run of test/test_fuzz.py"
	@echo "make soak    24 h of conversation through the nodes, as fast as they take it"
	@echo "make lint    style and types only"
	@echo "make format  put the code in order"
	@echo "make clean   remove what builds and runs left (make distclean: and .venv)"

core:
	@$(PYTHON3) tools/setup core

evaluation:
	@$(PYTHON3) tools/setup evaluation

dev:
	@$(PYTHON3) tools/setup dev

demo: core
	@$(bin)/hri-emo demo $(ARGS)

bench: evaluation
	@$(bin)/hri-emo bench $(ARGS)

fuzz: dev
	@$(py) tools/fuzz $(ARGS)

soak: dev
	@$(py) tools/soak $(ARGS)

lint: dev
	@$(py) -m ruff check .
	@$(py) -m ruff format --check .
	@$(py) -m mypy

format: dev
	@$(py) -m ruff check --fix .
	@$(py) -m ruff format .

test: lint
	@$(py) -m pytest $(ARGS)

clean:
	rm -rf build install log runs .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name .venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

distclean: clean
	rm -rf .venv
