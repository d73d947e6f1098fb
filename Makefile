# make demo    set everything up and write a story
# make test    everything CI runs
# make format  format the sources, mend what ruff can mend
# make clean   remove what was made, the environment too
#
# A first run sets up, later ones only check the stamps in $(VENV). Nothing asks questions; what is installed
# outside of $(VENV) (by apt, where root or passwordless sudo allows it) is named before it is installed.

PYTHON ?= python3
VENV ?= .venv
# Two workers: compiling shaders for llvmpipe takes one thread each. What is marked slow takes minutes more:
# make test PYTEST_ARGS="-n 2 --dist loadfile" has it too.
PYTEST_ARGS ?= -n 2 --dist loadfile -m "not slow"
# Tests of whole models and hooks that run a second time, with what is made for GPUs alone.
AS_GPU := tests/examples $(addprefix tests/rwkvgraph/, models/test_every_slot.py models/test_versions.py \
    test_batching.py test_capture.py test_hooks.py test_state.py)
# Those that need subgroups of 16 threads, run once more where llvmpipe has them; usually its have 8.
WIDE := tests/rwkvgraph/test_parts.py tests/rwkvgraph/models/test_v7.py -k "(test_parts and (64 or relays)) or share_a_head"

# llvmpipe's compiled shaders: the wheel, the demo and both workers share them, also where there is no home to keep
# them in. `make clean` forgets them.
export MESA_SHADER_CACHE_DIR ?= $(abspath $(VENV))/shaders

export DEBIAN_FRONTEND := noninteractive
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore

SHELL := /bin/sh
BIN := $(VENV)/bin
# Compiling on first import costs less than compiling everything now.
PIP_INSTALL := $(BIN)/python -m pip install -qq --no-compile
GENERATE := generate -p "Once upon a time" --temp 0.8 --top-p 0.6 --top-k 0 --seed 7

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test adapter lint types wheel pytest format clean

help:
	@sed -n 's/^# //p; /^#$$/q' Makefile

demo: $(VENV)/.installed adapter
	@$(BIN)/rwkvgraph $(GENERATE) -n 200

# pytest comes last, so that its summary closes the log.
test: lint types wheel demo pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Where an adapter was found, and in CI in any case, tests that need one fail without it rather than skip.
pytest: $(VENV)/.installed-dev adapter
	if [ -e $(VENV)/.adapter ] || [ -n "$$CI" ]; then export RWKVGRAPH_REQUIRE_GPU=1; fi; \
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "gpu and not slow" --as-gpu $(AS_GPU) && \
	LP_NATIVE_VECTOR_WIDTH=512 $(BIN)/python -m pytest -q -n 2 -m "gpu and not slow" $(WIDE) && \
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The wheel as a user gets it: in an environment of its own, run from a folder that is no checkout.
wheel: $(VENV)/.installed-dev adapter
	@set -e; elsewhere=$$(mktemp -d); trap 'rm -rf "$$elsewhere"' EXIT; unset PYTHONPATH; \
	echo "building the wheel and running it from a fresh environment"; \
	$(BIN)/python -m hatchling build -t wheel -d "$$elsewhere" >/dev/null; \
	$(BIN)/python -m venv "$$elsewhere/venv"; \
	"$$elsewhere/venv/bin/python" -m pip install -qq "$$elsewhere"/rwkvgraph-*.whl; \
	cd "$$elsewhere"; \
	story=$$(venv/bin/rwkvgraph $(GENERATE) -n 16); \
	test -n "$$story" || { echo "the installed rwkvgraph wrote nothing"; exit 1; }; \
	echo "$$story"

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find rwkvgraph codegen tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ---- the environment

$(VENV)/.created:
	@$(apt_install); $(check_python)
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "installing rwkvgraph into $(VENV)"
	@$(PIP_INSTALL) --editable ".[cli]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.created
	@echo "installing rwkvgraph and the tools of development into $(VENV)"
	@$(PIP_INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.installed

# The stamp is left out while nothing is found: a driver may be installed between two runs.
adapter: $(VENV)/.installed
	@test -e $(VENV)/.adapter || { $(apt_install); $(ensure_adapter); }

# ---- shell that the recipes above share

# apt_install PACKAGE... : fails where there is no apt, or neither root nor sudo without a password.
define apt_install
apt_install() { \
    command -v apt-get >/dev/null || return 1; \
    if [ "$$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; else return 1; fi; \
    echo "installing with apt: $$*" >&2; \
    $$as_root apt-get -o DPkg::Lock::Timeout=120 update -qq </dev/null >/dev/null; \
    $$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -qq \
        --no-install-recommends "$$@" </dev/null >/dev/null; \
}
endef

# Debian's python3 comes without ensurepip, which venv needs.
define check_python
if ! command -v $(PYTHON) >/dev/null; then \
    echo "rwkvgraph needs Python 3.11 or newer, and there is no $(PYTHON). If it goes by another name:" >&2; \
    echo "    make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
fi; \
if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
    echo "rwkvgraph needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version). With a newer one:" >&2; \
    echo "    make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
fi; \
can_venv() { $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; }; \
if ! can_venv && ! { apt_install python3-venv && can_venv; }; then \
    echo "$(PYTHON) cannot make a virtual environment: its venv or ensurepip module is missing." >&2; \
    echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
fi
endef

# OpenGL adapters do not count: their compute shaders lack what the kernels need.
define find_adapter
import sys, wgpu; sys.exit(all(a.info["backend_type"] == "OpenGL" for a in wgpu.gpu.enumerate_adapters_sync()))
endef

define ensure_adapter
has_adapter() { $(BIN)/python -c '$(find_adapter)' 2>/dev/null; }; \
if has_adapter || { [ "$$(uname)" = Linux ] && apt_install mesa-vulkan-drivers libvulkan1 && has_adapter; }; then \
    touch $(VENV)/.adapter; \
else \
    echo "No GPU driver was found: going on without one, with numpy, which is slower." >&2; \
    echo "A driver in software will do. Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1;" >&2; \
    echo "Fedora: dnf install mesa-vulkan-drivers vulkan-loader; Arch: pacman -S vulkan-swrast vulkan-icd-loader." >&2; \
fi
endef
