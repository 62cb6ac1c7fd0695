# The tasks of development. Each makes what it needs from a clean checkout, python3 and a C compiler.
#
#   make serve    serve the demo application on http://127.0.0.1:8000
#   make test     run the suite in four processes; PYTEST_ARGS="-k upload" for other arguments
#   make lint     ruff, mypy --strict, cython-lint, clang-format, the C headers under strict warnings
#   make asan     run the compiled modules' tests on an AddressSanitizer and UBSan build (Linux, gcc)
#   make drill    run the tests of nested loops, finalizers that send, long HTTP/2 connections and rolling deploys, DRILL
#                 times as long, and the suite on each CPython here, and on 3.14 in a folder with Debian
#   make fuzz     run the fuzz targets on that build, FUZZ_SECONDS each
#   make docs     write the settings table again from the settings
#   make wheels   build sdist and a wheel for each CPython here, PYTHONS, and try each in an environment of its own
#   make sbom     write the software bill of materials to build/sbom.cdx.json
#   make site     build the documentation's site in build/site, and check its links
#   make release VERSION=1.2.3   check, build and tag a release; it says what to push
#   make requirements   write requirements/ again, with the newest versions; LOCKED=1 installs from there
#   make develop  compile in place, for an editor or a quick try in the checkout
#   make format   let ruff and clang-format rewrite the sources
#   make clean    remove all that the other targets made
#
# bench/bench.mk has the targets that measure: make bench, bench-quick, bench-compare and others.
# Another interpreter: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
ASAN_VENV ?= .venv-asan
PYTHONS ?= $(shell .ci/pythons | cut -d ' ' -f 2)
SERVE_ARGS ?= --host 127.0.0.1 --port 8000
# Many tests wait for processes: twice as many of them as processors keep those busy
PYTEST_ARGS ?= -n 4 --dist worksteal
FUZZ_SECONDS ?= 60
DRILL ?= 20
DRILL_TESTS := $(addprefix tests/asgi/test_,nesting.py finalizers.py) \
	$(addprefix tests/wires/test_http2_,citizens.py windows.py) tests/deploy/test_rolling.py

SOURCES := setup.py pyproject.toml $(shell find fastasgi -type f ! -name '*.so' ! -path '*/__pycache__/*')
TESTS_COMPILED := $(wildcard tests/compiled/*.py tests/compiled/*.pyx)
HEADERS := $(wildcard fastasgi/*/*.h)
CYTHON_SOURCES := $(wildcard fastasgi/*.pyx fastasgi/*.pxd fastasgi/*/*.pyx fastasgi/*/*.pxd)
# What drives the compiled modules in one process. Frameworks and curl are too slow, or hang, under the sanitizers.
ASAN_TESTS ?= tests/codecs tests/trust tests/logs/test_access_log.py tests/application/test_interfaces.py \
	$(addprefix tests/asgi/test_,exchange.py exchange_errors.py messages.py scope.py nesting.py finalizers.py leaving.py) \
	$(addprefix tests/asgi/test_websocket,.py _receive.py _closing.py _shutdown.py) \
	$(wildcard tests/asgi/test_borrowed*.py) $(addprefix tests/wires/test_,timeouts.py proxyprotocol.py) \
	$(filter-out %_memory.py,$(wildcard tests/wires/test_http1_*.py)) \
	$(addprefix tests/wires/test_http2_,conformance.py exchange.py priorities.py push.py state_machine.py websocket.py)
# Those of TLS import `cryptography`. What it never frees has names in whole stacks only, which takes ten minutes or more;
# ASAN_TLS_OPTIONS=detect_leaks=0 looks for all but leaks; ASAN_MORE=detect_leaks=0 does so in all of them, as CPython 3.12
# and later need it, whose interned strings are never freed.
ASAN_TLS_OPTIONS ?= fast_unwind_on_malloc=0
ASAN_TLS_TESTS ?= tests/sinks tests/wires/test_proxyprotocol.py \
	$(addprefix tests/asgi/test_,nesting.py finalizers.py leaving.py) $(wildcard tests/asgi/test_borrowed*.py)
FUZZ_TARGETS := $(wildcard tests/fuzz/fuzz_*.py)
HEADER_WARNINGS := -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-qual -Wvla -Werror

# The checkout holds no compiled modules: with a safe path, `fastasgi` is always the installed package.
export PYTHONSAFEPATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

IN_VENV := $(VENV)/bin/python
PIP_INSTALL := $(IN_VENV) -m pip install --quiet

.DEFAULT_GOAL := serve
include bench/bench.mk

# Python's own allocator would hide overruns and leaks from the sanitizer. The preloaded library reaches every
# program that a test starts: what isn't Python is to be started without LD_PRELOAD (curl hangs with it).
SANITIZED = FASTASGI_SANITIZE=1 LD_PRELOAD="$(shell $(CC) -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=1:$(ASAN_MORE):log_path=$(CURDIR)/$(ASAN_VENV)/report \
	LSAN_OPTIONS=suppressions=$(CURDIR)/.ci/leaks.supp:print_suppressions=0 UBSAN_OPTIONS=print_stacktrace=1

# Leaks are reported when a process ends: nobody looks at the exit code of those that pytest starts.
CHECK_REPORTS := status=$$?; if cat $(ASAN_VENV)/report.* 2>/dev/null; then exit 1; fi; [ $$status = 0 ] || exit $$status

.PHONY: serve test lint format asan asan-tls fuzz drill docs site wheels sbom release requirements
.PHONY: develop install install-test clean
.DELETE_ON_ERROR:

serve: install
	$(VENV)/bin/fastasgi $(SERVE_ARGS) fastasgi.demo:app

test: install-test
	$(IN_VENV) -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.requirements-dev.txt
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	PATH="$(VENV)/bin:$$PATH" cython-lint $(CYTHON_SOURCES) $(filter %.pyx,$(TESTS_COMPILED))
	$(VENV)/bin/clang-format --dry-run -Werror $(HEADERS) $(wildcard bench/*.c)
	for header in $(HEADERS); do \
		printf '#include "%s"\nextern int unit;\n' $$header | $(CC) $(HEADER_WARNINGS) -I. -fsyntax-only -x c - || exit 1; \
	done

format: $(VENV)/.requirements-dev.txt
	$(VENV)/bin/ruff check --fix-only
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $(HEADERS)

asan: $(ASAN_VENV)/.borrows
	FASTASGI_SANITIZE=1 $(MAKE) install-test VENV=$(ASAN_VENV)
	rm -f $(ASAN_VENV)/report.*
	$(SANITIZED) $(ASAN_VENV)/bin/python -m pytest $(PYTEST_ARGS) -k "not tls" $(ASAN_TESTS); $(CHECK_REPORTS)
	$(MAKE) asan-tls

asan-tls: ASAN_MORE = $(ASAN_TLS_OPTIONS)
asan-tls:
	$(SANITIZED) $(ASAN_VENV)/bin/python -m pytest $(PYTEST_ARGS) -k "tls and not curl" $(ASAN_TLS_TESTS); $(CHECK_REPORTS)

fuzz: $(ASAN_VENV)/.borrows
	FASTASGI_SANITIZE=1 $(MAKE) install-test VENV=$(ASAN_VENV)
	rm -f $(ASAN_VENV)/report.*
	for target in $(FUZZ_TARGETS); do \
		PYTHONPATH=tests:tests/helpers $(SANITIZED) FUZZ_SECONDS=$(FUZZ_SECONDS) $(ASAN_VENV)/bin/python $$target; \
		$(CHECK_REPORTS); \
	done

drill: install-test
	DRILL=$(DRILL) $(IN_VENV) -m pytest $(PYTEST_ARGS) --timeout 1200 $(DRILL_TESTS)
	.ci/pythons | while read -r version python; do \
		$(MAKE) test PYTHON=$$python VENV=.venv-$$version </dev/null || exit 1; \
	done
	.ci/debian-python 3.14 $(MAKE) test PYTHON=python3.14 VENV=.venv-3.14 || [ $$? = 69 ]

docs: install
	$(IN_VENV) -c "from fastasgi.settings.document import settings_document; from fastasgi import Config; \
		print(settings_document(Config), end='')" > docs/settings.md

site: $(VENV)/.requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

wheels: install-test $(VENV)/.requirements-packages.txt
	.ci/wheels $(VENV) $(PYTHONS)
	WHEELS=dist $(IN_VENV) -m pytest tests/packages/test_wheels.py

sbom: $(VENV)/.requirements-packages.txt
	mkdir -p build
	$(IN_VENV) .ci/sbom.py > build/sbom.cdx.json

release: $(VENV)/.requirements-packages.txt
	@$(IN_VENV) .ci/release.py $(VERSION)

requirements: $(VENV)/.requirements-dev.txt
	$(IN_VENV) .ci/requirements.py --lock

develop: $(VENV)/.requirements.txt
	$(IN_VENV) setup.py --quiet build_ext --inplace

install: $(VENV)/.installed

install-test: $(VENV)/.installed $(VENV)/.requirements-test.txt $(VENV)/.tests-compiled

clean:
	rm -rf build dist *.egg-info .venv .venv-* .debian-* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find fastasgi tests bench -name __pycache__ -exec rm -rf {} +
	find fastasgi -name "*.so" -delete

# A copy that an earlier build left in build/ would be installed again after its source was removed.
$(VENV)/.installed: $(SOURCES) $(VENV)/.requirements.txt
	if [ -d build ]; then find build -path '*/lib*' -name '*.py*' -delete; fi
	$(IN_VENV) setup.py --quiet build
	$(PIP_INSTALL) --no-deps --no-build-isolation .
	touch $@

# The compiled modules of the tests, built against the package that is installed
$(VENV)/.tests-compiled: $(VENV)/.installed $(TESTS_COMPILED)
	$(PIP_INSTALL) --no-deps --no-build-isolation tests/compiled
	touch $@

$(VENV)/.requirements.txt: pyproject.toml .ci/requirements.py | $(VENV)/bin/python
	$(IN_VENV) .ci/requirements.py > $@
	$(PIP_INSTALL) $(if $(LOCKED),--require-hashes -r requirements/base.txt,-r $@)

$(VENV)/.requirements-%.txt: pyproject.toml .ci/requirements.py | $(VENV)/bin/python
	$(IN_VENV) .ci/requirements.py $* > $@
	$(PIP_INSTALL) $(if $(LOCKED),--require-hashes -r requirements/$*.txt,-r $@)

# The sanitized build is installed beside what $(VENV) has for the tests, which takes minutes to install again. What
# builds it has to be newer than what comes with a new environment, so that is installed there.
$(ASAN_VENV)/.borrows: | $(VENV)/.requirements.txt $(VENV)/.requirements-test.txt
	$(PYTHON) -m venv $(ASAN_VENV)
	$(IN_VENV) -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(ASAN_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/borrowed.pth
	touch $(ASAN_VENV)/.requirements-test.txt $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
