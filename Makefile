# Everything a person does here. `make` or `make help` lists it; each target installs what it needs and nothing twice.

PORT ?= 8000
DATA ?= .martlet
ARGS ?=
SECONDS ?= 60
# Processes that test: three on two cores, because what they test often waits.
WORKERS ?= 3

BIN := .venv/bin
PACKAGES := nftables
# Docker's own packages, where they are installed, are not to be had beside Debian's.
TEST_PACKAGES := crun curl etcd-client etcd-server erofs-utils iproute2 lz4 nftables mmdebstrap podman qemu-system-x86 redis-server runc sqlite3 uidmap zstd $(if $(shell command -v dockerd),,docker.io)
# Elsewhere than in CI this would start a server for all the world.
TEST_PACKAGES += $(if $(filter true,$(CI)),openssh-server)
BACKPORTS := runsc
BENCH_PACKAGES := crun nginx-light podman runc wrk $(if $(shell command -v dockerd),,docker.io)

export PORT DATA
# Where it is set each process of a platform compiles its sources anew, which takes as long as all the rest of a start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up test test-every-rung unit fuzz soak lint types format docs bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(BIN)/.installed ## Start Martlet with an example; PORT=8000 and DATA=.martlet may be given
	@scripts/packages $(PACKAGES) || echo "Without them functions have no way out (network: egress)." >&2
	@$(BIN)/python scripts/up.py

test: $(BIN)/.installed-test $(if $(filter true,$(CI)),$(BIN)/.installed-fuzz) ## Run every test, in WORKERS=3 processes; ARGS="-k keys -x" goes to pytest
	@scripts/packages $(TEST_PACKAGES) || test "$(CI)" != true
	@scripts/backports $(BACKPORTS) || test "$(CI)" != true
	@$(BIN)/python -m scripts.toolchains .toolchains || test "$(CI)" != true
	@scripts/maven .toolchains/maven-repository || test "$(CI)" != true
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-every-rung: $(BIN)/.installed-test ## Run all that there is for microVMs, every attack and runtime; ARGS as for test
	@scripts/packages $(TEST_PACKAGES)
	@$(BIN)/python -m scripts.toolchains .toolchains
	$(BIN)/pytest --every-rung -k microvm $(ARGS)

unit: $(BIN)/.installed-test ## Run the tests that need no server
	$(BIN)/pytest tests/unit tests/contract $(ARGS)

fuzz: $(BIN)/.installed-test $(BIN)/.installed-fuzz ## Fuzz each parser for SECONDS=60; ARGS="server shim" names those to take
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

soak: $(BIN)/.installed-test ## Change, cut and kill a cluster under load for ten minutes, as root; ARGS="--minutes 2"
	@scripts/packages $(TEST_PACKAGES)
	$(BIN)/python -m tests.soak $(ARGS)

lint: $(BIN)/.installed-lint ## Check style, formatting, who imports whom, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

types: $(BIN)/.installed-lint ## Check the types only
	$(BIN)/mypy

format: $(BIN)/.installed-lint ## Format the sources and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(BIN)/.installed ## Write the generated parts of docs/ anew
	$(BIN)/python -m scripts.docs

# The servers and machines of a cluster are those of the tests.
bench: $(BIN)/.installed-bench $(BIN)/.installed-test ## Measure the promises of SPECIFICATION.md
	@scripts/packages $(BENCH_PACKAGES) $(TEST_PACKAGES)
	-@scripts/backports $(BACKPORTS)
	$(BIN)/python -m bench $(ARGS)

clean: ## Remove all that was installed, built or cached here (not the data folder)
	rm -rf .toolchains .venv build dist .fuzz .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find bench examples scripts src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. A stamp for each set of extras is renewed when pyproject.toml has changed since.

$(BIN)/pip:
	@scripts/venv

$(BIN)/.installed: pyproject.toml | $(BIN)/pip
	@echo "Installing Martlet into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(BIN)/.installed-%: pyproject.toml | $(BIN)/pip
	@echo "Installing Martlet and what \"$*\" needs into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
