# Two commands set everything up: `make run` and `make test`. They need Python 3.11 or later, and make.
PYTHON ?= python3
BIN := .venv/bin

# One more than there are cores, because tests often wait for other processes. Each has its own PostgreSQL, so more than
# four would wait for the disk.
PARALLEL = --numprocesses=$$($(BIN)/python -c 'import os; print(min(os.cpu_count() + 1, 4))') --dist=worksteal

# Databases and services of tests write many small files: in memory, where 4 GiB are free, they take a fraction of the time.
SCRATCH = TMPDIR=$$($(BIN)/python -m tests.scratch)

.PHONY: run test test-faults test-openapi check format bench bench-ingest bench-status bench-adversarial bench-metrics bench-pages openapi numbers dashboard wheel lock clean
.DELETE_ON_ERROR:

run: .venv/.run ## install run-time dependencies and serve on 127.0.0.1:8080 with the built-in PostgreSQL
	exec $(BIN)/aftermath serve

test: .venv/.dev ## all tests except the fault tests
	$(SCRATCH) $(BIN)/python -m pytest $(PARALLEL)

test-faults: .venv/.dev ## fault tests with real processes: kills, cut connections, full disks, failover; several minutes
	$(BIN)/python -m pytest tests/faults --numprocesses=3 --dist=worksteal # they mostly wait

test-openapi: .venv/.dev ## openapi.yaml with a linter and a generated client; needs Node.js 20 or later, and the network
	$(BIN)/python -m pytest tests/tools

check: .venv/.dev ## style, types, direction of imports, and whether openapi.yaml is up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/aftermath openapi | diff -u openapi.yaml - || (echo "openapi.yaml is stale: make openapi" && exit 1)

bench: bench-ingest bench-metrics bench-pages ## all benchmarks; about 30 minutes, best on an idle machine

bench-ingest: .venv/.dev ## ingest, compared with Alertmanager and with PostgreSQL alone
	$(BIN)/python -m bench.ingest

bench-status: .venv/.dev ## whether readers of the public status page slow ingest down; about ten minutes
	$(BIN)/python -m bench.status

bench-adversarial: .venv/.dev ## how the time for hostile input grows with its size; about three minutes
	$(BIN)/python -m bench.adversarial

bench-metrics: .venv/.dev ## duration of queries and scrapes, and how it grows with history
	$(BIN)/python -m bench.metrics

bench-pages: .venv/.dev ## duration, size and SQL statements of each page over a year of 100,000 incidents
	$(BIN)/python -m bench.pages

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: .venv/.dev ## write openapi.yaml from the code
	$(BIN)/aftermath openapi openapi.yaml

numbers: .venv/.dev ## write the reference part of docs/numbers.md from the registry
	$(BIN)/aftermath numbers

dashboard: .venv/.dev ## write deploy/grafana/aftermath.json
	$(BIN)/python -m deploy.grafana.dashboard

wheel: .venv/.run ## build dist/aftermath-….whl, with the migrations
	rm -rf build dist # otherwise files deleted from app/ would remain in build/ and get into the wheel
	$(PIP) wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist .

lock: .venv/.dev ## update the pinned versions for tests, the service (a subset), the build and generated clients
	$(LOCK) --group dev pyproject.toml -o requirements.lock
	$(LOCK) --constraint requirements.lock pyproject.toml -o requirements-run.lock
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) --group client -o requirements-client.lock
LOCK := $(BIN)/uv pip compile --generate-hashes --no-emit-index-url --universal --python-version 3.11 --no-header

clean:
	rm -rf .venv .data build dist

PIP := $(BIN)/python -m pip --disable-pip-version-check

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Aftermath needs Python 3.11 or later; $(PYTHON) is " + sys.version.split()[0] + ". Choose another one, for example: make run PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

# Needs the network only if a lock file has changed: the project itself is built with the pinned setuptools.
.venv/.run: requirements-build.lock requirements-run.lock pyproject.toml | .venv/bin/python
	@echo "Installing Aftermath and its dependencies into .venv. The first time, this takes a minute or two."
	$(PIP) install --require-hashes -r requirements-build.lock -r requirements-run.lock
	$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements.lock .venv/.run
	@echo "Installing the test dependencies into .venv."
	$(PIP) install --require-hashes -r requirements.lock
	@touch $@
