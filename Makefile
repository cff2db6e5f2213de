# From a bare clone, with Python >= 3.10 and nothing else installed: `make demo`, `make test`.
#
#   PYTHON=python3.11     the interpreter to build the virtual environment with
#   MINUTES=10            how long `make soak` keeps the node at work
#   LOG=<folder or bag>   what `make demo` plays: an AV2 log or a rosbag2; without it, a generated scene
#   TORCH_PIP_ARGS=...    more pip arguments for torch, such as --extra-index-url with one of PyTorch's own
#                         indices, for another CUDA or for the build without CUDA

PYTHON ?= python3
VENV ?= .venv
MINUTES ?= 10
LOG ?=
TORCH_PIP_ARGS ?=

torch := torch
ifeq ($(shell nvidia-smi -L >/dev/null 2>&1 && echo found),found)
torch := 'torch!=$(shell sed -n 's/^torch==//p' constraints.txt)+cpu'
endif

# A sourced ROS 2 is used as it is, through --system-site-packages: its compiled messages fix the major version of
# numpy, so the pins of constraints.txt do not fit. Elsewhere ROS 2 comes from PyPI.
ros := $(if $(ROS_DISTRO),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo $(ROS_DISTRO)))
ifeq ($(ros),)
venv_flags :=
pins := -c constraints.txt
extras := ros,dev,viz
else
venv_flags := --system-site-packages
numpy_major := $(shell $(PYTHON) -c 'import numpy; print(numpy.__version__.split(".")[0])')
# pyarrow does not say which numpy it was built for; from 22 on it is numpy 2.
pins := "numpy<$(shell expr $(numpy_major) + 1)" $(if $(filter 1,$(numpy_major)),"pyarrow<22") \
        $(shell grep '^torch==' constraints.txt)
extras := dev
endif
stamp := $(VENV)/.made-with-$(or $(ros),wheels)

.PHONY: help venv demo test soak lint clean

help:
	@echo "make demo [LOG=...]  play a log through the node and draw what moves"
	@echo "make test            run all tests"
	@echo "make soak            keep the node at work for MINUTES (10) and more, and kill it again and again"
	@echo "make venv            make or renew the virtual environment in $(VENV)"
	@echo "make lint            check the code with ruff"
	@echo "make clean           remove what these commands built"

venv: $(stamp)

$(stamp): setup.py setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "ZeroFlow-ROS needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	       "name another one with make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) can't make virtual environments: install its venv package" \
	       "(Debian, Ubuntu: sudo apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(venv_flags) $(VENV)
	$(VENV)/bin/pip install -c constraints.txt pip setuptools
	$(VENV)/bin/pip install $(pins) $(torch) $(TORCH_PIP_ARGS)
	$(VENV)/bin/pip install $(pins) --no-build-isolation -e '.[$(extras)]'
	@touch $@

demo: venv
	@$(VENV)/bin/python -c 'import rclpy' 2>/dev/null || { \
	  echo "The demo needs ROS 2, whose wheels are for x86-64 only, and this machine is $$(uname -m):" \
	       "source a ROS 2 installation (. /opt/ros/<distro>/setup.sh) and run make demo again" >&2; exit 1; }
	$(VENV)/bin/python -m zeroflow_ros.demo $(if $(LOG),"$(LOG)")

test: venv
	$(VENV)/bin/pytest

soak: venv
	ZEROFLOW_SOAK_MINUTES=$(MINUTES) $(VENV)/bin/pytest -s test/end_to_end/test_load.py test/end_to_end/test_soak.py \
	  test/end_to_end/test_kills.py

lint: venv
	$(VENV)/bin/ruff check .

clean:
	rm -rf $(VENV) build dist install log *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
