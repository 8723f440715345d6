# The menu. Everything here installs what it needs on a Debian-like machine with Rust, and says what it does.
.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-trixie test-sid test-pi lint bench bench-neighbour deb deb-reproducible generated clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## three nights of a household, a disaster, and everything restored (under three minutes after the build)
	@demo/demo.sh

test: ## every test in its short form: PostgreSQL 15 and 17, pgBackRest, restic, an S3 server, whole machines (20 minutes; the first time 20 more, and 6 GB; as root)
	@tests/run.sh short

test-long: ## every test at full strength, on both packages, and with the PostgreSQL of Debian 13 and unstable (an hour and a quarter)
	@tests/run.sh full

test-trixie: ## the PostgreSQL tests in a Debian 13: PostgreSQL 17 and pgBackRest 2.55
	@tests/elsewhere.sh trixie

test-sid: ## the PostgreSQL tests in Debian unstable: the newest PostgreSQL and pgBackRest that Debian has
	@tests/elsewhere.sh sid

test-pi: ## a night with a power cut and every file system on a fully emulated Raspberry Pi 4, with the package of make deb ARCH=arm64 (up to 40 minutes)
	@tests/pi.sh

lint: ## formatting, clippy, unused dependencies, licences and advisories
	@tests/setup.sh lint
	@# From now on git refuses an unformatted commit, unless there is a hook of somebody's own.
	@[ ! -e .git ] || git config core.hooksPath >/dev/null || git config core.hooksPath .githooks
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo machete
	cargo deny check bans licenses sources
	@# The advisories live in a repository on the network; without it that is said, and not taken for a clean result.
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny check advisories; \
	else echo "lint: NOT CHECKED: advisories (their database cannot be fetched)"; fi

bench: ## nights, restore and check beside restic, rustic and borg, into a folder and into S3: time, memory, requests; a table and a chart (thirteen minutes, and twenty to build the tools once)
	@bench/bench.sh

bench-neighbour: ## what a database's users notice of a backup by pi-agent and by restic (an hour, on a machine with nothing else to do)
	@bench/neighbour.sh

deb: ## build/pi-agent_VERSION_ARCH.deb; ARCH=arm64 for a Raspberry Pi
	@packaging/build-deb.sh $(ARCH)

deb-reproducible: ## the package twice, from two directories: the same bytes (ten minutes and more)
	@packaging/reproduce.sh $(ARCH)

generated: ## write again what is made from the sources: manual pages, completions, licences
	@cargo run --quiet --package pi-agent-tests --example generate

clean: ## remove target/ and build/ (the tests' systems stay in /var/cache/pi-agent-tests)
	cargo clean
	rm -rf build
