# The bench's targets. Its environment, .venv-bench, is its own; see bench/README.md.
#
#   make bench          every server at every workload: hours; BENCH_ARGS="-s fastasgi,uvicorn -w hello"
#   make bench-quick    a few of both, h2load if it is installed: under three minutes, once the environment is made
#   make bench-compare  this checkout against a commit: make bench-compare BASE=main
#   make bench-micro    time the codecs alone
#   make bench-guard    fail if a codec takes over 3 % more instructions than recorded (needs valgrind)
#   make bench-record   record those figures, after a change that is worth them

BENCH_ARGS ?=
BASE ?= HEAD
# The bench is run from the checkout, so here its folder has to be on the path.
BENCH := env -u PYTHONSAFEPATH $(PYTHON) -m bench

.PHONY: bench bench-quick bench-compare bench-micro bench-guard bench-record

bench:
	$(BENCH) full $(BENCH_ARGS)

bench-quick:
	$(BENCH) quick $(BENCH_ARGS)

bench-compare:
	$(BENCH) compare $(BASE) $(BENCH_ARGS)

bench-micro:
	$(BENCH) micro $(BENCH_ARGS)

# The suite's environment has a build of this checkout already.
bench-guard: install
	env -u PYTHONSAFEPATH $(IN_VENV) -m bench guard --installed $(BENCH_ARGS)

bench-record: install
	env -u PYTHONSAFEPATH $(IN_VENV) -m bench guard --installed --record
