# The two commands a newcomer needs: make up, make test. "make help" lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export CGO_ENABLED ?= 0
GO ?= go
BINS := phala phala-api phala-gateway phala-guest-agent phala-kms phala-vmm phala-devcloud

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: up
up: deps ## start the cloud on this machine and run the main job (hello, verified)
	@$(MAKE) -j2 --no-print-directory programs image-container
	@PATH="$(CURDIR)/bin:$$PATH" exec bin/phala-devcloud up --source $(CURDIR)

.PHONY: down
down: ## stop a cloud that runs in the background
	@test -x bin/phala-devcloud || $(MAKE) --no-print-directory build
	@bin/phala-devcloud down

.PHONY: clean-state
clean-state: ## forget the cloud on this machine: apps, keys, volumes (asks first)
	@test -x bin/phala-devcloud || $(MAKE) --no-print-directory build
	@bin/phala-devcloud clean

.PHONY: deps
deps: ## what "make up" needs from the system (says what it installs)
	@./scripts/deps.sh up

.PHONY: programs
programs: # what "up" needs; the image is built meanwhile
	@mkdir -p bin
	@test -x bin/phala-devcloud || echo "compiling (the first time takes about two minutes)"
	@$(GO) build -trimpath -o bin/ ./cmd/phala ./cmd/phala-devcloud

.PHONY: build
build: ## all programs, into bin/
	@mkdir -p bin
	@$(GO) build -trimpath -o bin/ $(addprefix ./cmd/,$(BINS))

.PHONY: image
image: ## the guest image (os/), into build/images: for containers, for virtual machines, for developing
	@os/build.sh container prod dev

.PHONY: image-container
image-container: # what "up" needs
	@os/build.sh container

.PHONY: image-lock
image-lock: ## renew os/packages.lock from what Debian has now (review the difference)
	@os/debs.sh lock os/packages.lock os/cache/debs
	@git --no-pager diff --stat -- os/packages.lock

.PHONY: image-repro
image-repro: ## build the image twice, in different places, and compare the bytes
	@os/repro.sh

.PHONY: contracts
contracts: ## compile the contracts again: artifacts and Go bindings
	@governance/ethereum/contracts/build.sh

.PHONY: test
test: ## everything that CI runs (starts and stops its own daemons)
	@./scripts/test.sh

.PHONY: test-long
test-long: ## long fuzzing, all seeds, fault injection (an hour or so)
	@./scripts/test.sh long

.PHONY: bench
bench: ## measure the verifier beside its peers: writes docs/performance.md (wants a quiet machine)
	@$(GO) test ./test/bench/attest -v -timeout 60m -args -rounds 400 -hosts 100000 -write ../../../docs/performance.md

.PHONY: bench-vm
bench-vm: ## a thousand VMs on a node: writes docs/performance.md (wants a quiet machine)
	@$(GO) test ./test/bench/vm -run TestNode -v -timeout 30m -args -vms 1000 -write ../../../docs/performance.md

.PHONY: bench-deploy
bench-deploy: ## from phala deploy to the first verified answer, by stage, in containers and machines: writes docs/performance.md
	@$(GO) test ./test/bench/deploy -v -timeout 30m -args -rounds 7 -machines 2 -write ../../../docs/performance.md

.PHONY: bench-scale
bench-scale: ## the API with 10,000 nodes, 100,000 CVMs and 1,000 deploys at once, on both databases: writes docs/performance.md
	@$(GO) test ./test/bench/vm -run TestScale -v -timeout 30m -args -nodes 10000 -cvms 100000 -deploys 1000 -reads 40 -write ../../../docs/performance.md

.PHONY: mutate-attest
mutate-attest: ## switch each check of the verifier off in turn: its tests must fail
	@$(GO) run ./test/mutate

.PHONY: test-postgres
test-postgres: ## the cloud API on PostgreSQL (Debian's server, on a directory of its own)
	@$(GO) test -count=1 -timeout 10m -run Postgres ./api/...

.PHONY: ci-deploy
ci-deploy: ## deploy from a pipeline that is not GitHub's or GitLab's (docs/ci.md)
	@templates/ci/deploy.sh

.PHONY: lint
lint: ## vet, golangci, the import law
	@./scripts/lint.sh
