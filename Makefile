# Builds, runs and tests rwsgi. `make help` lists the targets.
#
# The work is done by cargo and by the small scripts in tests/tools; this file names and orders it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# The targets share build/ and target/, and cargo uses all cores by itself.
.NOTPARALLEL:

# The Python that the default gateway is built for. Whatever is chosen, httpd's user must be able
# to read it.
PYTHON ?= /usr/bin/python3
# More versions for `make test-matrix`, for example PYTHONS="/usr/bin/python3.11 /opt/py/bin/python3.13".
PYTHONS ?= $(PYTHON)
APXS ?= apxs
CARGO ?= cargo
# --locked: build exactly what Cargo.lock says.
CARGOFLAGS ?= --locked
# For `make run`. PORT=0 takes any free port.
PORT ?= 8000
MPM ?= event
# embedded: in httpd's own processes. daemon: in processes of their own (see docs/daemon.md).
MODE ?= embedded
# The sample site: django (WSGI), or fastapi (ASGI).
APP ?= django
DESTDIR ?=
# Passed on to pytest, for example PYTEST="-k django -x".
PYTEST ?=
# Seconds for each fuzz target.
FUZZ ?= 30
# Passed on to tests/bench/run.py.
BENCH ?=

# rustup installs here, and a shell started before that does not know it.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin
export PYTHON PYTHONS APXS CARGO CARGOFLAGS PORT MPM MODE APP DESTDIR PYTEST
export PYTHONDONTWRITEBYTECODE := 1

TOOLS := tests/tools
VENV := build/venv
# httpd's children run as another user when make runs as root. These targets therefore go through
# a script that works in a copy of the tree if that user cannot read this one.
READABLE := $(TOOLS)/readable_tree.sh

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what building and testing need (Debian packages, Rust); asks nothing
	@$(TOOLS)/deps.sh

.PHONY: build
build: ## Build mod_rwsgi.so, rwsgi-daemon and the gateway for PYTHON into build/
	@$(TOOLS)/module.sh
	@$(TOOLS)/daemon.sh
	@$(TOOLS)/gateway.sh "$(PYTHON)" default

.PHONY: gateway
gateway: ## Add a gateway for another Python beside the first: make gateway PYTHON=...
	@$(TOOLS)/gateway.sh "$(PYTHON)"

.PHONY: venv
venv: ## Create the virtual environment of the tests, build/venv
	@$(TOOLS)/venv.sh

.PHONY: run
run: deps ## Serve a sample site on 127.0.0.1:PORT (8000); APP=fastapi, MODE=daemon, MPM=prefork
	@$(READABLE) run-here
.PHONY: run-here
run-here: build venv
	@$(TOOLS)/run.sh

.PHONY: test
test: deps ## Run everything: check, unit tests, end-to-end tests
	@$(READABLE) test-here
# The tests note what they show of the checklist; the report ends the run.
.PHONY: test-here
test-here: export RWSGI_CHECKLIST := $(CURDIR)/build/checklist/results
test-here: build venv checklist-begin check unit daemon-parts
	@$(TOOLS)/e2e.sh
	@$(TOOLS)/checklist.sh end
.PHONY: checklist-begin
checklist-begin: venv
	@$(TOOLS)/checklist.sh begin

.PHONY: unit
unit: ## Run the unit tests: pure parts, httpd side, supervisor, the gateway against PYTHON
	@echo "== unit tests: pure parts"
	@CARGO_TARGET_DIR=target $(CARGO) test $(CARGOFLAGS) --quiet
	@echo "== unit tests: the httpd side"
	@CARGO_TARGET_DIR=target/httpd $(CARGO) test $(CARGOFLAGS) --features httpd --quiet
	@echo "== unit tests: the supervisor"
	@CARGO_TARGET_DIR=target/supervisor $(CARGO) test $(CARGOFLAGS) --features supervisor --quiet
	@$(TOOLS)/python_tests.sh "$(PYTHON)"

.PHONY: daemon-parts
daemon-parts: build venv ## Run the tests of supervisor and worker by themselves, without httpd
	@$(TOOLS)/daemon_tests.sh $(notdir $(wildcard tests/supervisor tests/worker))

.PHONY: e2e
e2e: ## Run the end-to-end tests only: make e2e PYTEST="-k django"
	@$(READABLE) e2e-here
.PHONY: e2e-here
e2e-here: build venv
	@$(TOOLS)/several.sh
	@$(VENV)/bin/pytest tests/e2e $(PYTEST)

.PHONY: test-autobahn
test-autobahn: deps ## Run the Autobahn WebSocket test suite itself (needs Python 2.7; an hour)
	@$(READABLE) test-autobahn-here
.PHONY: test-autobahn-here
test-autobahn-here: build venv
	@$(TOOLS)/autobahn.sh
	@RWSGI_TEST_SOAK=1 $(VENV)/bin/pytest tests/e2e/test_asgi_autobahn_suite.py $(PYTEST)

.PHONY: test-matrix
test-matrix: deps ## Gateway, unit tests and core end-to-end tests for each of PYTHONS="..."
	@$(READABLE) test-matrix-here
.PHONY: test-matrix-here
test-matrix-here: build venv
	@$(TOOLS)/matrix.sh $(PYTHONS)

.PHONY: python-free-threaded
python-free-threaded: ## Build a Python without the GIL from Debian's source package (ten minutes)
	@$(TOOLS)/python_free_threaded.sh

.PHONY: test-free-threaded
test-free-threaded: deps ## Core tests in that Python, with its GIL and without
	@$(READABLE) test-free-threaded-here
.PHONY: test-free-threaded-here
test-free-threaded-here: build venv
	@$(TOOLS)/free_threaded.sh

.PHONY: check
check: venv ## Formatting and lints of Rust and Python
	@$(TOOLS)/check.sh

.PHONY: bench
bench: deps ## Measure instructions and CPU per request against other servers: make bench BENCH="..."
	@$(READABLE) bench-here
.PHONY: bench-here
bench-here: build venv
	@$(VENV)/bin/python tests/bench/run.py $(BENCH)

.PHONY: install
install: ## Install the module, gateways, rwsgi-daemon and (on Debian) rwsgi.load and rwsgi.conf; DESTDIR works
	@test -f build/mod_rwsgi.so -a -f build/rwsgi/default -a -x build/rwsgi/rwsgi-daemon || $(MAKE) build
	@$(TOOLS)/install.sh install

.PHONY: uninstall
uninstall: ## Remove what install installed
	@$(TOOLS)/install.sh uninstall

.PHONY: clean
clean: ## Remove build/ and target/
	rm -rf build target

.PHONY: fuzz
fuzz: ## Fuzz the pure codecs, each for FUZZ seconds (30)
	@tests/fuzz/run.sh $(FUZZ)
