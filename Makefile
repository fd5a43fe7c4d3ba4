# Every target is explained by `make help`. CI runs the same ones (.ci/run).

SHELL := /bin/bash
.DEFAULT_GOAL := help

MODULES := $(patsubst %/go.mod,%,$(wildcard events/go.mod pkg/go.mod services/*/go.mod e2e/go.mod))
# They pin and build the real servers of the tests.
SERVERS := deployments/servers deployments/servers/consul deployments/servers/vault
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The race detector needs a C compiler; where there is none the tests still run, and say so.
RACE := $(shell command -v gcc >/dev/null 2>&1 && [ "$$(go env CGO_ENABLED)" = 1 ] && echo -race)
# What `go test` is told besides, e.g. `make test TESTFLAGS=-v` or `make test TESTFLAGS='-run Rollback'`.
TESTFLAGS ?=
# Which packages are tested, e.g. `make test PACKAGES=./pkg/ledger/...`.
PACKAGES ?= $(MODULES:%=./%/...)
# The scenarios come last, alone and without the race detector: they hold running programs to times.
SCENARIOS = $(filter ./e2e%,$(PACKAGES))
UNITS = $(filter-out ./e2e%,$(PACKAGES))

.PHONY: help
help: ## Print what each target does (this)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/towpath (everything in one) and one binary for each service into bin/
	@mkdir -p bin
	go build -o bin/ ./services/*/cmd/*

.PHONY: demo
demo: engine ## Watch a commit go through dev and QA to prod, then two breaks on purpose (under 60 s)
	@mkdir -p bin
	@echo "Building towpath (a few minutes the first time, seconds afterwards) ..."
	@began=$$(date +%s); go build -o bin/towpath ./services/towpath/cmd/towpath && \
	exec bin/towpath demo --compiled $$(( $$(date +%s) - began ))s

.PHONY: test
test: test-packages test-scenarios ## Run every test: packages with the race detector, then the scenarios against a real Engine

.PHONY: test-packages
test-packages: engine servers
	@[ -n "$(RACE)" ] || echo "no C compiler here: testing without the race detector (apt-get install gcc libc6-dev)"
	$(if $(UNITS),go test $(RACE) -timeout 45m $(TESTFLAGS) $(UNITS))

.PHONY: test-scenarios
test-scenarios: engine servers
	$(if $(SCENARIOS),go test -timeout 45m $(TESTFLAGS) $(SCENARIOS))

.PHONY: check
check: check-format check-vet check-static check-modules check-shell ## Run every check that needs no Engine (format, vet, staticcheck, modules, imports)
	go test -count=1 ./e2e/imports/...

.PHONY: check-format
check-format: ## Fail on files that gofmt would change
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs -r ls 2>/dev/null | xargs -r gofmt -l); \
	[ -z "$$files" ] || { printf 'gofmt -w these files:\n%s\n' "$$files"; exit 1; }

.PHONY: check-vet
check-vet: ## Run go vet in every module
	go vet $(MODULES:%=./%/...)

.PHONY: check-static
check-static: ## Run staticcheck (pinned) in every module
	@mkdir -p .cache/tools
	GOWORK=off GOBIN=$(CURDIR)/.cache/tools go install $(STATICCHECK)
	@for module in $(MODULES); do \
	  echo "staticcheck $$module"; (cd $$module && $(CURDIR)/.cache/tools/staticcheck ./...) || exit 1; \
	done

.PHONY: check-modules
check-modules: ## Fail where a module does not build by itself (GOWORK=off) or its go.mod is not tidy
	@for module in $(MODULES); do \
	  echo "GOWORK=off $$module"; (cd $$module && GOWORK=off go build ./... && GOWORK=off go mod tidy -diff) || exit 1; \
	done
	@cd deployments/servers && GOWORK=off go mod tidy -diff && GOWORK=off go mod verify >/dev/null

.PHONY: check-servers
check-servers: ## Fail where a module that pins nats-server, registry, Consul or Vault is not tidy; downloads all that theirs name, up to 10 minutes each
	@for module in $(SERVERS); do \
	  echo "go.sum of $$module"; (cd $$module && timeout 10m env GOWORK=off go mod tidy -diff && timeout 10m env GOWORK=off go mod verify >/dev/null) || \
	    { echo "$$module: not tidy, or not what its go.sum says (status $$?; 124: not done in 10 minutes)"; exit 1; }; \
	done

.PHONY: check-shell
check-shell: ## Parse every shell script
	@for script in .ci/run $$(git ls-files -co --exclude-standard '*.sh'); do bash -n $$script || exit 1; done

.PHONY: bench
bench: engine servers ## Measure against the targets of the design, as ratios taken in one run
	go run ./e2e/bench $(BENCHFLAGS)

# How long each decoder is fuzzed, e.g. `make fuzz FUZZTIME=10m`.
FUZZTIME ?= 1m

.PHONY: fuzz
fuzz: ## Fuzz what reads events, subjects, signatures and envelopes, FUZZTIME (1m) each; what it finds is kept in testdata/fuzz
	@grep -rl --include=*_test.go '^func Fuzz' events pkg services | xargs -n1 dirname | sort -u | while read -r dir; do \
	  for target in $$(grep -ho '^func Fuzz[A-Za-z]*' $$dir/*_test.go | cut -d' ' -f2); do \
	    echo "$$dir $$target"; go test ./$$dir -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) || exit 1; \
	  done; \
	done

.PHONY: faults
faults: engine servers ## Leave a stage 100,000 messages behind; kill every process at every step, and any at random, over 1,000 runs (about 45 minutes; e2e/faults/README.md)
	go test ./pkg/worker -run TestAStageFarBehindKeepsNoOtherWaiting -count=1 -v -timeout 30m -behind 100000
	go test -tags faults -count=1 ./pkg/worker/boundary
	go test ./e2e/faults -count=1 -v -timeout 90m -run 'TestCampaign|TestEnvironmentOverKills' -long $(FAULTSFLAGS)

# How often the power of the ledger's disk is cut, e.g. `make powercuts CUTS=5000`.
CUTS ?= 500

.PHONY: powercuts
powercuts: ## Cut the power of the ledger's disk 500 times while it is written to (about 10 minutes; root, ext4, loop devices)
	go test ./pkg/ledger -run TestNoAcknowledgedEventIsLostInAPowerCut -count=1 -v -timeout 4h -cuts $(CUTS)

# How often each way to tamper is tried, e.g. `make tamper TAMPERROUNDS=10000`.
TAMPERROUNDS ?= 2000

.PHONY: tamper
tamper: ## Tamper with proofs and with the ledger beneath, in every way, 2,000 times each (about 10 minutes)
	TOWPATH_TAMPER_ROUNDS=$(TAMPERROUNDS) go test ./pkg/proof -run TestEveryTamperingIsFound -count=1 -v -timeout 4h

.PHONY: engine
engine: ## Make sure that a Docker Engine answers (asks before it installs one; CI=true consents)
	@deployments/engine.sh

.PHONY: servers
servers: ## Build the real nats-server, registry, Consul and Vault that tests run against, 12 minutes once (kept outside the tree)
	@deployments/servers/build.sh >/dev/null

.PHONY: tools
tools: ## Show which versions of the tools are used here, and what is missing
	@go version; git --version; make --version | head -n 1
	@command -v docker >/dev/null && docker version --format 'Docker Engine {{.Server.Version}}, client {{.Client.Version}}' || echo "docker: no program or no Engine; deployments/engine.sh gets one"
	@command -v gcc >/dev/null && gcc --version | head -n 1 || echo "gcc: missing, so tests run without the race detector"
	@PATH=$$PATH:/usr/sbin command -v clamd >/dev/null && PATH=$$PATH:/usr/sbin clamd --version || echo "clamd: missing, and vet's tests need it (apt-get install --no-install-recommends clamav-daemon)"
	@echo "staticcheck: $(STATICCHECK)"

.PHONY: clean
clean: ## Remove what builds left in the tree (bin, .cache); servers and Go's own caches stay
	rm -rf bin .cache
