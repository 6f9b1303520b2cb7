# Nothing is installed outside this checkout, except by `make peers` and `make install-sendmail`: .venv holds the tools
# and libraries, var/ the state of `make run`.
# `make run` needs Python 3.11 or newer, git and make; uv is used where it is there, venv and pip otherwise.

# The system's own Python where it is new enough and can make environments: distributions build theirs with all
# optimisations, which are worth a fifth of the CPU time. Else python3 as it is found. `make PYTHON=…` names another one.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

ifeq ($(UV),)
  MAKE_VENV = $(PYTHON) -m venv $(VENV)
  INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
else
  MAKE_VENV = $(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
  INSTALL = $(UV) pip install --quiet --python $(BIN)/python
endif

# Tests start many processes of Python: without compiled files each of them would take twice as long to start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test check coverage house soak bench fuzz docs peers install-sendmail clean

help:
	@echo 'make run    start a node in the foreground: SMTP on 127.0.0.1:2525, submission on 127.0.0.1:2587'
	@echo 'make check  ruff, mypy --strict, the import contract and the fast tests'
	@echo 'make test   all tests; those whose programs are not installed are skipped, with the reasons at the end'
	@echo 'make peers  install these programs (on Debian, as root; all that make installs outside this checkout)'
	@echo 'make coverage  branch coverage of each module by the fast tests, or by TESTS=tests/peers/test_tls.py, added up'
	@echo 'make house  sizes, circles and names of the code, for whoever looks'
	@echo 'make soak   simulated nodes, SECONDS=600 of seeds from FROM=1 on, on all cores'
	@echo 'make bench  compare with Postfix, side by side'
	@echo 'make fuzz   look for what breaks a parser: TARGET=server|client|grammar|bdat, SECONDS=600'
	@echo 'make docs   write docs/configuration.md and examples/postroad.toml from the settings'
	@echo 'make install-sendmail  install sendmail, mailq and newaliases: PREFIX=/usr FOLDER=/var/spool/postroad REPLACE=yes'
	@echo 'make clean  remove what the above have made, var/ and .venv included'

run: $(VENV)/.installed
	@exec $(BIN)/postroad serve --demo var

# ONLY='not anywhere' leaves out what finds the same on each machine and as each user, once it has run somewhere.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(ONLY),-m '$(ONLY)')

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -m 'not slow and not peer'

peers:
	tests/peers/install

# What ran before is kept, so that the table grows; `rm -r var/coverage` begins anew. The nodes that tests start count, too.
TESTS ?= -n 2 -m 'not slow and not peer'

coverage: $(VENV)/.installed-coverage
	mkdir -p var/coverage
	-$(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage combine --quiet --append
	$(BIN)/coverage report --sort=cover

house: $(VENV)/.installed-dev
	$(BIN)/python -m tests.house

SECONDS ?= 600
FROM ?= 1

soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.sim --soak $(SECONDS) --from $(FROM)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench

TARGET ?= server
fuzz: $(VENV)/.installed-fuzz
	nice $(BIN)/python -m tests.fuzz $(TARGET) --seconds $(SECONDS)

docs: $(VENV)/.installed
	$(BIN)/postroad config reference > docs/configuration.md
	$(BIN)/postroad config example > examples/postroad.toml

PREFIX ?= /usr/local
FOLDER ?= /var/spool/postroad

# DESTDIR: where a package is built. PYTHON runs the program; it is none of .venv, which users may not be able to enter.
install-sendmail:
	PYTHONPATH=src $(PYTHON) -m postroad.sendmail.install --prefix $(PREFIX) --folder $(FOLDER) \
	  $(if $(DESTDIR),--root $(DESTDIR)) $(if $(filter yes,$(REPLACE)),--replace)

clean:
	rm -rf $(VENV) var dist build bench/results .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that is too old would fail much later, with a message about syntax.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Postroad needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo not there)." >&2; \
	  echo "Name another one: make run PYTHON=python3.12" >&2; \
	  exit 1; }
	$(MAKE_VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	$(INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.installed-coverage: requirements-coverage.lock $(VENV)/.installed-dev
	$(INSTALL) --require-hashes -r requirements-coverage.lock
	@touch $@

# atheris is not made for every Python and machine: without it the targets run with the plain runner.
$(VENV)/.installed-fuzz: requirements-fuzz.lock $(VENV)/.installed-dev
	$(INSTALL) --require-hashes -r requirements-fuzz.lock || echo 'atheris is not to be had here: the plain runner will do.'
	@touch $@
