VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX  ?= /usr/local
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
# The control socket and --admin speak HTTP/1.1 alone: net/http goes without HTTP/2.
TAGS = nethttpomithttp2
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 1m
MODULES = integration/node_modules/.installed
SIM_HOURS ?= 1000000
UNITS   = . ./cmd/... ./handoff/... ./internal/... ./master/... ./sdk/... ./tools/... ./worker/...
# Modules of their own, with quic-go, which the others do without.
QUIC    = sdk/quicgo examples/http3 integration/testdata/http3
RACES   = TestReloadsNewConnections|TestCrashes|TestOverlapping|TestBrokenDeploy|TestReplaceMe|TestHostile|TestRogue|TestScale|TestMasterIs|TestUpgrade

.PHONY: reference site release peers build install man demo check lint modules test long fuzz vuln bench

build: ## bin/handoff, one static binary
	CGO_ENABLED=0 go build -tags $(TAGS) -trimpath -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)" -o bin/handoff ./cmd/handoff

install: build man ## into PREFIX (/usr/local), with the names rackman and rackadmin
	install -D bin/handoff $(DESTDIR)$(PREFIX)/bin/handoff
	ln -sf handoff $(DESTDIR)$(PREFIX)/bin/rackman
	ln -sf handoff $(DESTDIR)$(PREFIX)/bin/rackadmin
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 && install -m 644 bin/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/

man: ## bin/man, the man pages
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)} go run -tags man -ldflags "-X main.version=$(VERSION)" ./cmd/handoff man --dir bin/man

reference: ## docs/reference, from the code
	go run -tags man ./cmd/handoff reference

demo: build ## 20 seconds: a Node server under load is reloaded, broken, its master killed; it goes on running
	@go run ./tools/demo

check: lint ## a minute: format, vet, staticcheck, unit and architecture tests
	go test -short -vet=off -p 4 $(UNITS)
	CGO_ENABLED=0 go test -C sdk/quicgo -vet=off ./...

lint:
	@wrong=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l) && test -z "$$wrong" || { echo "gofmt -w these: $$wrong"; exit 1; }
	go vet ./...
	for m in $(QUIC); do CGO_ENABLED=0 go vet -C $$m ./... || exit 1; done
	go run $(STATICCHECK) ./...

test: lint $(MODULES) ## minutes: everything; units and a part of the integration tests with the race detector
	go test -race -short -vet=off -p 4 $(UNITS)
	CGO_ENABLED=0 go test -C sdk/quicgo -vet=off ./...
	go test -count=1 -vet=off -parallel 4 -timeout 20m ./integration
	go test -count=1 -vet=off -parallel 4 -timeout 5m ./integration/hostile
	go test -count=1 -vet=off -timeout 5m ./integration/programs
	go test -count=1 -vet=off -parallel 4 -timeout 10m ./integration -race-binary -run '$(RACES)'

long: $(MODULES) ## a night: full numbers, every Node, a million simulated hours (SIM_HOURS)
	go test -timeout 20m ./handoff
	HANDOFF_STEPS=30000000 go test -run Random ./master/fleet
	HANDOFF_SIM_HOURS=$(SIM_HOURS) go test -count=1 -timeout 24h -run TestSimulation -v ./master/sim
	tools/sim-faults
	go test -timeout 60m ./integration -long -v
	go test -timeout 60m -parallel 4 ./integration/hostile -long -v
	go test -timeout 3h ./integration/programs -long -install -v
	for v in 18 22 24 26; do PATH=$(CURDIR)/integration/node_modules/node$$v/bin:$$PATH go test -count=1 -parallel 4 -timeout 20m ./integration -skip TestNodeVersions || exit 1; done

fuzz: ## FUZZTIME (a minute) for each parser of what others send
	go run ./tools/fuzz -time $(FUZZTIME)

vuln: ## known vulnerabilities in what a release is built of (govulncheck)
	go run ./tools/vuln

site: ## docs/.vitepress/dist, the docs as a site; a dead link is an error
	cd docs && npm install --no-package-lock --no-audit --no-fund --loglevel=error && npx vitepress build .

release: ## dist: archives, .deb, .rpm, npm tarballs, SBOMs, checksums
	tools/release/build.sh dist

peers: ## 40 minutes: handoff and the tools that are used in its place, docs/benchmarks
	go run ./bench/peers
	go run ./bench/scale

bench: ## handoff beside Node's cluster and a plain node
	go run ./bench

modules: $(MODULES)

$(MODULES): integration/package.json
	cd integration && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	touch $@
