# Load tests. Included by the Makefile of the repository; all run from its root.

LOADTEST = target/release/tidegate-loadtest
LOADTEST_OUT = target/loadtest
SOAK_SECONDS ?= 1800
SIEGE_SECONDS ?= 120

.PHONY: siege bench-instructions bench bench-growth bench-results bench-observed bench-peers bench-soak bench-micro loadtest-build

loadtest-build:
	cargo build --release --package tidegate --package tidegate-floor --package tidegate-loadtest

bench: loadtest-build ## tidegate against the floor: all short scenarios; fails if a budget is exceeded
	mkdir -p $(LOADTEST_OUT)
	$(LOADTEST) bench --json $(LOADTEST_OUT)/bench.json --plots $(LOADTEST_OUT)/plots $(BENCH_ARGS)

bench-growth: loadtest-build ## connections, routes and nodes, one thing at a time; what each costs must stay
	mkdir -p $(LOADTEST_OUT)
	$(LOADTEST) growth --json $(LOADTEST_OUT)/growth.json --plots $(LOADTEST_OUT)/plots $(BENCH_ARGS)

bench-results: loadtest-build ## loadtest/RESULTS.md from what the other commands have measured
	$(LOADTEST) results --from $(LOADTEST_OUT)

bench-observed: loadtest-build ## what an access log and metrics of each route cost, against tidegate without
	mkdir -p $(LOADTEST_OUT)
	$(LOADTEST) bench --targets tidegate,tidegate-observed --scenario dispatch --scenario push --rounds 5 \
	  --json $(LOADTEST_OUT)/observed.json $(BENCH_ARGS)

bench-peers: loadtest-build ## tidegate against nginx with nchan, Pushpin and a gateway on Node's ws
	@for program in nginx pushpin node npm; do \
	  command -v $$program >/dev/null || { echo "$$program is missing: apt-get install nginx libnginx-mod-nchan pushpin nodejs npm" >&2; exit 1; }; \
	done
	cd loadtest/peers/node && npm ci --silent --no-audit --no-fund
	mkdir -p $(LOADTEST_OUT)
	$(LOADTEST) bench --targets floor,tidegate,node,nchan --json $(LOADTEST_OUT)/peers.json \
	  --scenario idle --scenario accept --scenario dispatch --scenario dispatch-paced --scenario push --scenario push-paced --scenario fanout-1000 --scenario group-10000 $(BENCH_ARGS)
	# Debian's Pushpin delivers nothing under steady publishing above about 60 a second: only what it delivers is measured.
	$(LOADTEST) bench --targets floor,tidegate,pushpin --json $(LOADTEST_OUT)/pushpin.json \
	  --scenario idle --scenario push-slow-paced --connections 1000 $(BENCH_ARGS)

bench-soak: loadtest-build ## half an hour of mixed load (SOAK_SECONDS=1800); memory and latency must not grow
	mkdir -p $(LOADTEST_OUT)
	$(LOADTEST) bench --scenario soak --seconds $(SOAK_SECONDS) --json $(LOADTEST_OUT)/soak.json --plots $(LOADTEST_OUT)/plots $(BENCH_ARGS)

siege: loadtest-build ## attack the release build with its defaults, each way for SIEGE_SECONDS=120; needs redis-server
	python3 loadtest/siege.py --seconds $(SIEGE_SECONDS) --binary target/release/tidegate

bench-instructions: loadtest-build ## instructions of a message and a push, in the whole process; BASE= another binary to compare with
	@command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 1; }
	python3 loadtest/instructions.py $(BASE) target/release/tidegate

bench-micro: loadtest-build ## hot functions, counted in instructions; needs valgrind and gungraun-runner
	@command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 1; }
	@command -v gungraun-runner >/dev/null || { echo "gungraun-runner is missing: cargo install gungraun-runner --version 0.20.0" >&2; exit 1; }
	mkdir -p $(LOADTEST_OUT)
	cargo bench --package tidegate-micro -- --output-format=json >$(LOADTEST_OUT)/micro.json
	$(LOADTEST) micro --json $(LOADTEST_OUT)/micro.json
