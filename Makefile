# The two commands are `make demo` and `make test`. Each first makes what it needs in .venv.
#
#   PYTHON=python3.12   which Python makes .venv (default: the first of 3.10 to 3.13 that is found)
#   TORCH=torch==2.13.0 which PyTorch the tests run with; where pip's index has only builds with CUDA, add one
#                       with builds for the CPU through PIP_EXTRA_INDEX_URL
#   PYTEST="..."        options of pytest
#   DEMO="..."          options of `vss demo`, see `.venv/bin/vss demo --help`

SUPPORTED := python3 python3.12 python3.11 python3.13 python3.10
PYTHON ?= $(shell for name in $(SUPPORTED); do \
	$$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$name && break; done)

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
PYTEST ?= -n auto --maxprocesses 4
DEMO ?=

# A sourced ROS 2 is used as it is; it was built for numpy 1. Elsewhere ROS comes as wheels.
ROS_IS_SOURCED := $(if $(PYTHON),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes))
ROS := $(if $(ROS_IS_SOURCED),,ros,)
NUMPY := $(if $(ROS_IS_SOURCED),'numpy<2')

# An exact torch: with an open range pip prefers the newest, which may come with gigabytes of CUDA.
TORCH ?= torch==2.13.0

.PHONY: demo test lint format clean

demo: $(VENV)/.demo
	$(VENV)/bin/vss demo $(DEMO)

# One thread each: the tests themselves run side by side. Here ROS is there, so its tests must not be skipped.
test: $(VENV)/.test
	VSS_NEEDS_ROS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build install log dist demo_output *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find vss_ros test launch -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, filled in steps; a step is repeated only when setup.py changes.
$(VENV)/.demo: setup.py | $(VENV)/bin/python
	@echo 'Installing the demo into $(VENV) ...'
	$(PIP) -e '.[$(ROS)video,plot]' $(NUMPY)
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo 'Installing PyTorch and the test tools into $(VENV) ...'
	$(PIP) -e '.[train,bags,openvino,test]' $(TORCH) $(NUMPY)
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e '.[dev]' $(TORCH) $(NUMPY)
	@touch $@

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'No Python 3.10 to 3.13 was found. Install one (Debian, Ubuntu:' \
		'apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
		echo '$(PYTHON) is not Python 3.10 to 3.13; name another: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot make environments.' \
		'Install its venv module (Debian, Ubuntu: apt install python3-venv)'; exit 1; }
	@test -n '$(ROS_IS_SOURCED)' || test "$$(uname -sm)" = 'Linux x86_64' || { \
		echo "There are no ROS 2 wheels for $$(uname -sm). Install ROS 2 and source it" \
		'(source /opt/ros/jazzy/setup.bash), then run make again'; exit 1; }
	$(PYTHON) -m venv $(VENV)
