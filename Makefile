# SPDX-License-Identifier: MIT
# Every target installs what it needs: Debian packages when missing (as root), tools into .cache/venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

CACHE := $(CURDIR)/.cache
VENV := $(CACHE)/venv
# Where a target leaves its JUnit reports; .ci/steps.py sets this and counts them.
REPORTS ?= $(CACHE)/reports/$@

# The agent's libraries, as on a target, and what the tests and checks themselves need.
AGENT_PACKAGES := python3 python3-venv python3-aiohttp python3-cryptography python3-jinja2 python3-msgpack python3-nacl \
	python3-prometheus-client python3-yaml
# What compiles and loads the kernel data plane, and what its tests look at it with.
PLANE_PACKAGES := bpftool ethtool iproute2 libbpf1 linux-libc-dev python3-bpfcc wireguard-tools
# What boots stock kernels, and fetches them.
GUEST_PACKAGES := busybox-static cpio kmod mmdebstrap qemu-system-x86 xz-utils
# What the web page is looked at with.
BROWSER_PACKAGES := chromium chromium-driver python3-selenium
# What benchmarks impair the network of their hosts with. The program serf, which they compare with, is only unpacked.
BENCH_PACKAGES := nftables
BASE_PACKAGES := ca-certificates git openssh-client python3 python3-apt python3-venv
TEST_PACKAGES := $(AGENT_PACKAGES) $(BASE_PACKAGES) curl faketime fish iproute2 mandoc shellcheck zsh

# Simulated clusters per scenario.
SIM_SEEDS ?= 30
# Seconds that `make soak` lasts, after some minutes of preparation.
SOAK_SECONDS ?= 7200
# What `make coverage` measures: all tests of `unit` take half as long again.
COVERED ?= -m "not slow and not root"
# What `make sanity` and `make ansible-units` test with: 2.18, 2.19, newest, unpinned or a version; and a Python for it, if
# not the first one found.
CORE ?= 2.19
PYTHON ?=
# The version of the release, as the names of its artifacts state it.
VERSION = $(shell sed -n 's/^version: //p' galaxy.yml)
# The program container of the release. The archives contain it if `make container` has built it.
CONTAINER = build/xdp-gossip-$(VERSION).xgp
# Packages of the collection that Ansible loads.
PLUGINS := plugins extensions
# What is under molecule/.
SCENARIOS := default trust udp upgrade

# The checkout, seen as an installed collection.
COLLECTIONS := $(CACHE)/collections
lint molecule $(SCENARIOS:%=molecule-%): export ANSIBLE_COLLECTIONS_PATH := $(COLLECTIONS)
lint molecule $(SCENARIOS:%=molecule-%): export ANSIBLE_HOME := $(CACHE)/ansible
# Targets of the integration tests are roles.
lint: export ANSIBLE_ROLES_PATH := tests/integration/targets
# Ansible refuses to work in a locale that is not UTF-8.
export LC_ALL := C.UTF-8
export ANSIBLE_NOCOWS := 1
export PYTHONDONTWRITEBYTECODE := 1
unexport PYTHONPATH

# What `make test` runs, stage by stage; in a stage with lanes (a,b/c,d) c and d run beside a and b, at a lower priority.
# Clusters are measured, so they have the machine to themselves. Fleets and systemd hosts are waited for most of the
# time, so they have a lane each: what only needs a processor runs beside them. The lanes are about equally long.
comma := ,
space := $(subst ,, )
FLEETS := planes networks recovery fleet eda monitoring bench-short
HOSTS := $(SCENARIOS:%=molecule-%) fleet-root
PROGRAMS := bpf kernels-short lint quality
MODELS := integration docs-run sim ansible-test-2.18 ansible-test-2.19 ansible-test-newest coverage
lane = $(subst $(space),$(comma),$(strip $(1)))
STEPS := code unit/ui cluster $(call lane,$(HOSTS))/$(call lane,$(FLEETS))/$(call lane,$(PROGRAMS))/$(call lane,$(MODELS)) claims

##@ First steps
.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: packages-demo venv-ansible link ## Make a fleet of three hosts on this machine and show what it can do (root)
	@.ci/demo

.PHONY: demo-clean
demo-clean: packages-demo venv-ansible link ## Remove the demo's fleet (root); the cached base image stays
	@.ci/demo --clean

.PHONY: test
test: setup ## Everything that CI runs, about an hour (root)
	@/usr/bin/python3 .ci/steps.py $(STEPS)

.PHONY: test-loaded
test-loaded: setup ## The same while all processors are kept busy: no test may be the clock's (root)
	@.ci/loaded /usr/bin/python3 .ci/steps.py $(STEPS)

.PHONY: check
check: ## The quick part: no root, under a minute
	@$(MAKE) code & code=$$!; $(MAKE) unit PYTEST_ARGS='-m "not slow and not root" -q'; unit=$$?; wait $$code && exit $$unit
	@$(MAKE) sim SIM_SEEDS=1 PYTEST_ARGS='-m "not slow" -q -n 2'

##@ Parts of `make test`
.PHONY: code
code: packages-test venv-dev link ## Ruff, clang-format, mypy --strict on agent, plugins and extensions, Python 3.9, shellcheck
	$(VENV)/dev/bin/ruff check
	$(VENV)/dev/bin/ruff format --check
	$(VENV)/dev/bin/clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')
	$(VENV)/dev/bin/mypy
	MYPYPATH=$(COLLECTIONS) $(VENV)/dev/bin/mypy $(PLUGINS:%=-p ansible_collections.xdp_gossip.fleet.%)
	$(VENV)/dev/bin/vermin --quiet --no-tips --violations --target=3.9- agent
	shellcheck $$(.ci/shell-scripts)

.PHONY: unit
unit: packages-test venv-dev ## Tests of the agent
	$(VENV)/dev/bin/pytest -n 2 --junitxml="$(REPORTS)/agent.xml" $(PYTEST_ARGS)

.PHONY: ui
ui: packages-test packages-browser venv-dev ## The web page in headless Chromium, over real agents
	$(VENV)/dev/bin/pytest tests/ui --junitxml="$(REPORTS)/ui.xml" $(PYTEST_ARGS)

.PHONY: coverage
coverage: packages-test venv-dev ## How much of each wing the quick tests reach, lines and branches; no gate
	rm -rf $(CACHE)/coverage/data*
	mkdir -p "$(REPORTS)" $(CACHE)/coverage
	# Some tests start processes as other users.
	chmod 1777 $(CACHE)/coverage
	$(VENV)/dev/bin/coverage run -m pytest -n 2 -q $(COVERED) $(PYTEST_ARGS) || echo "coverage: a test failed; unit judges it"
	# A process that a test cut off while it wrote leaves a file that cannot be read: there is a warning, and it goes.
	$(VENV)/dev/bin/coverage combine --quiet
	rm -f $(CACHE)/coverage/data.*
	# Units of plugins, when ansible-test-2.19 has left what it measured.
	[ ! -d $(CACHE)/coverage/plugins ] || $(VENV)/dev/bin/coverage combine --keep --append --quiet $(CACHE)/coverage/plugins
	$(VENV)/dev/bin/coverage json --quiet -o $(CACHE)/coverage/report.json
	.ci/coverage_by_wing $(CACHE)/coverage/report.json | tee "$(REPORTS)/summary.txt"

.PHONY: sim
sim: packages-test venv-dev ## Simulated clusters: SIM_SEEDS (30) seeds a scenario
	SIM_SEEDS=$(SIM_SEEDS) $(VENV)/dev/bin/pytest tests/sim --junitxml="$(REPORTS)/sim.xml" $(PYTEST_ARGS)

.PHONY: cluster
cluster: packages-test venv-dev ## Clusters of real agents on this machine: convergence, cost, crashes
	$(VENV)/dev/bin/pytest tests/cluster --junitxml="$(REPORTS)/cluster.xml" $(PYTEST_ARGS)

.PHONY: bpf
bpf: packages-test packages-plane venv-dev ## The data plane's programs, packet by packet, and their loader (root)
	$(VENV)/dev/bin/pytest tests/bpf -n 2 --dist loadfile --junitxml="$(REPORTS)/bpf.xml" $(PYTEST_ARGS)

.PHONY: planes
planes: packages-test packages-plane venv-dev ## The same fleet tests over UDP, TC, generic and native XDP (root)
	$(VENV)/dev/bin/pytest tests/planes --junitxml="$(REPORTS)/planes.xml" $(PYTEST_ARGS)

.PHONY: networks
networks: packages-test packages-plane venv-dev ## Fleets on each kind of interface and address (docs/networks.md) (root)
	$(VENV)/dev/bin/pytest tests/networks -m "not variant" -rs --junitxml="$(REPORTS)/networks.xml" $(PYTEST_ARGS)

.PHONY: recovery
recovery: packages-test packages-plane venv-dev ## Faults of a data plane in use: noticed, told, mended by itself (root)
	$(VENV)/dev/bin/pytest tests/recovery -m "not variant" --junitxml="$(REPORTS)/recovery.xml" $(PYTEST_ARGS)

.PHONY: kernels-short
kernels-short: packages-test packages-plane packages-guests venv-dev ## The programs on stock kernels 6.1 and 6.12; two guests (root)
	$(VENV)/dev/bin/pytest tests/kernels -m "not slow" -rs --junitxml="$(REPORTS)/kernels.xml" $(PYTEST_ARGS)

.PHONY: ansible-units
ansible-units: packages-test ## Unit tests of the plugins: ansible-test units, CORE (2.19) on PYTHON
	.ci/ansible_test.py --core $(CORE) --python "$(PYTHON)" units

.PHONY: integration
integration: packages-test ## Integration targets of the collection: ansible-test integration, CORE (2.19) on PYTHON
	.ci/ansible_test.py --core $(CORE) --python "$(PYTHON)" integration

.PHONY: sanity
sanity: packages-test ## ansible-test sanity, CORE (2.19) on PYTHON
	.ci/ansible_test.py --core $(CORE) --python "$(PYTHON)" sanity

# ansible-test-2.18 ansible-test-2.19 ansible-test-newest: both of the above with that ansible-core. One of them measures
# what units reach, for `make coverage`.
ansible-test-%: packages-test
	.ci/ansible_test.py --core $* $(if $(filter 2.19,$*),--coverage) sanity units

.PHONY: lint
lint: packages-base venv-quality link ## Spelling, words, ansible-lint (production profile), yamllint, change log, messages of new commits
	.ci/commits
	.ci/words
	$(VENV)/quality/bin/codespell
	PATH="$(VENV)/quality/bin:$$PATH" ansible-lint
	$(VENV)/quality/bin/yamllint --strict .
	$(VENV)/quality/bin/antsibull-changelog lint

.PHONY: quality
quality: packages-test venv-dev venv-ansible venv-docs venv-quality ## The built collection under galaxy-importer, antsibull-docs and ansible-builder
	$(VENV)/dev/bin/pytest tests/quality --junitxml="$(REPORTS)/quality.xml" $(PYTEST_ARGS)

.PHONY: docs-run
docs-run: packages-test packages-demo venv-dev venv-ansible link ## Every example and snippet of the documentation, run on real agents (root)
	$(VENV)/dev/bin/pytest tests/docs --junitxml="$(REPORTS)/docs.xml" $(PYTEST_ARGS)

.PHONY: fleet
fleet: packages-test venv-dev venv-ansible link ## The built and stripped collection; inventory and modules on real agents
	PATH="$(VENV)/ansible/bin:$$PATH" $(VENV)/dev/bin/pytest tests/fleet -m "not root" --junitxml="$(REPORTS)/fleet.xml"

.PHONY: fleet-root
fleet-root: packages-test venv-dev venv-ansible link ## Rotations of secrets on systemd hosts, of which some are away in between; containers built for them (root)
	PATH="$(VENV)/ansible/bin:$$PATH" $(VENV)/dev/bin/pytest tests/fleet -m "root and not variant" --junitxml="$(REPORTS)/fleet-root.xml" $(PYTEST_ARGS)

.PHONY: eda
eda: packages-test venv-dev venv-eda ## The event source: alone, on real agents, and in a real ansible-rulebook
	$(VENV)/dev/bin/pytest tests/eda -n 2 --junitxml="$(REPORTS)/eda.xml" $(PYTEST_ARGS)

.PHONY: monitoring
monitoring: packages-test packages-prometheus venv-dev venv-ansible link ## Alerts and dashboards; a real Prometheus finds and watches real agents (root)
	PATH="$(VENV)/ansible/bin:$(CACHE)/unpacked/prometheus/usr/bin:$$PATH" $(VENV)/dev/bin/pytest tests/monitoring --junitxml="$(REPORTS)/monitoring.xml" $(PYTEST_ARGS)

.PHONY: molecule $(SCENARIOS:%=molecule-%)
molecule: $(SCENARIOS:%=molecule-%) ## The agent role on real systemd hosts, with native XDP and without BPF (root)
$(SCENARIOS:%=molecule-%): molecule-%: packages-base venv-quality link
	REPORTS="$(REPORTS)" .ci/molecule $*

.PHONY: bench-short
bench-short: packages-test packages-plane packages-bench venv-dev venv-ansible link ## Each benchmark of one machine, only to see that it works; judges no figure (root)
	$(VENV)/dev/bin/python -m bench --short

.PHONY: claims
claims: packages-test venv-dev ## Each promised feature was proved by a test of this run (tests/claims.yml); after all others
	$(VENV)/dev/bin/python -m tests.claims $(CACHE)/reports

##@ Longer than `make test`
.PHONY: kernels
kernels: packages-test packages-plane packages-guests venv-dev ## The whole matrix, printed; all modes and devices in guests (root)
	$(VENV)/dev/bin/python -m tests.kernels $(if $(wildcard $(CONTAINER)),--container $(CONTAINER))
	$(VENV)/dev/bin/pytest tests/kernels -rs --junitxml="$(REPORTS)/kernels.xml" $(PYTEST_ARGS)

# The pairs of .ci/pairs.py; PAIRS='debian-13 el-9' runs only these.
.PHONY: unit-pairs
unit-pairs: packages-test ## Quick tests of the agent with the Pythons and libraries of other distributions, as far as there are such Pythons
	/usr/bin/python3 .ci/pairs.py "$(REPORTS)" $(PAIRS)

.PHONY: sim-large
sim-large: packages-test venv-dev ## Faults in simulated fleets: ten thousand members, one of them full; a thousand; a hundred with the usual cycle
	for fault in crash loss_in loss_out loss_80; do \
		$(VENV)/dev/bin/python -m tests.sim.crowd $$fault --seeds 20 && \
		$(VENV)/dev/bin/python -m tests.sim.detection $$fault --nodes 1000 --seconds 60 && \
		$(VENV)/dev/bin/python -m tests.sim.detection $$fault --seconds 120 --cycle 0 || exit 1; \
	done

.PHONY: long
long: packages-test packages-plane venv-dev venv-ansible link ## What takes too long for `make test`: a minute's lateness, variants of networks, 200 seeds, 10,000 requests given up, libraries of other distributions, an upgrade of Debian in place, coverage of all unit tests, the latest ansible-core, a deployment to 30 hosts (root)
	XDP_GOSSIP_LATE_SECONDS=60 $(VENV)/dev/bin/pytest tests/recovery/test_late.py $(PYTEST_ARGS)
	$(VENV)/dev/bin/pytest tests/networks tests/recovery -m variant -rs $(PYTEST_ARGS)
	SIM_SEEDS=200 SIM_DETECTION_LONG=20 $(VENV)/dev/bin/pytest tests/sim $(PYTEST_ARGS)
	GIVEN_UP_REQUESTS=10000 $(VENV)/dev/bin/pytest tests/agent/test_api_given_up.py $(PYTEST_ARGS)
	$(VENV)/dev/bin/python -m tests.recovery
	$(MAKE) unit-pairs
	PATH="$(VENV)/ansible/bin:$$PATH" $(VENV)/dev/bin/pytest tests/fleet/test_debian_upgrade.py $(PYTEST_ARGS)
	$(MAKE) coverage COVERED=
	.ci/ansible_test.py --core unpinned sanity units
	DEPLOY_HOSTS=3,10,30 $(VENV)/dev/bin/python -m bench deploy

##@ Measuring
.PHONY: bench
bench: packages-test packages-plane packages-bench venv-dev venv-ansible link ## What the data plane and the plugins cost and bring, as tables and JSON (root)
	$(VENV)/dev/bin/python -m bench $(BENCH_ARGS)

.PHONY: soak
soak: packages-test packages-plane packages-bench venv-dev link ## Thirty agents for SOAK_SECONDS (7200) under changes and faults: what grows, what is lost (root)
	$(VENV)/dev/bin/python -m bench soak --seconds $(SOAK_SECONDS)

##@ Artifacts
.PHONY: container
container: packages-test packages-plane ## The program container of the release, into build/ (root)
	@mkdir -p build
	agent/bin/xdp-gossip dataplane build $(CONTAINER)

.PHONY: release
release: packages-base ## The agent's release archive and its SBOM, into build/; with the program container that is there
	@mkdir -p build
	/usr/bin/python3 agent/build_release.py --output build $(if $(wildcard $(CONTAINER)),--container $(CONTAINER))
	/usr/bin/python3 agent/build_sbom.py build/xdp-gossip-$(VERSION).tar.gz

.PHONY: release-check
release-check: packages-test venv-dev venv-ansible venv-quality ## A dry run of a release: versions, tags, change log, artifact, SBOM, Galaxy's importer
	$(VENV)/dev/bin/pytest tests/quality/test_release.py tests/quality/test_importer.py -v $(PYTEST_ARGS)

.PHONY: collection
collection: packages-base venv-ansible ## The collection's artifact, with the release archive inside, into build/
	.ci/collection build $(wildcard $(CONTAINER))

.PHONY: sums
sums: container ## All of the above, and the SHA-256 of all artifacts in build/SHA256SUMS, for the maintainer to sign (root)
	$(MAKE) release collection
	cd build && sha256sum xdp-gossip-$(VERSION).xgp xdp-gossip-$(VERSION).tar.gz xdp-gossip-$(VERSION).cdx.json xdp_gossip-fleet-$(VERSION).tar.gz >SHA256SUMS

.PHONY: docs
docs: packages-base venv-docs ## The documentation as a site, into build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict

##@ Set-up and clean-up
.PHONY: setup
# The packages first and in one go: two calls of apt would wait for each other.
setup: ## Everything that the targets above need
	@.ci/apt $(sort $(BASE_PACKAGES) $(TEST_PACKAGES) $(PLANE_PACKAGES) $(GUEST_PACKAGES) $(BROWSER_PACKAGES) $(BENCH_PACKAGES))
	@.ci/unpack prometheus
	@.ci/unpack serf || echo "'python -m bench' measures without Serf" >&2
	@$(MAKE) --jobs=3 venv-dev venv-ansible venv-docs venv-quality venv-eda link

.PHONY: format
format: venv-dev ## Lay out Python and C as `make code` wants it
	$(VENV)/dev/bin/ruff format
	$(VENV)/dev/bin/clang-format -i $$(git ls-files '*.c' '*.h')

.PHONY: locks
locks: packages-base venv-locks ## Renew the lock files of all virtual environments; LOCKS='--keep' or names: see .ci/locks
	.ci/locks $(LOCKS)

.PHONY: hooks
hooks: venv-dev venv-quality ## Check each commit before it is made (.pre-commit-config.yaml)
	$(VENV)/dev/bin/pre-commit install

.PHONY: clean
clean: ## Remove caches and artifacts (not the demo: see demo-clean)
	rm -rf .cache build .ansible .hypothesis .pytest_cache .mypy_cache .ruff_cache tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: packages-base packages-test packages-plane packages-guests packages-browser packages-prometheus packages-bench packages-demo
packages-base packages-demo:
	@.ci/apt $(BASE_PACKAGES)
packages-test:
	@.ci/apt $(TEST_PACKAGES)
packages-plane:
	@.ci/apt $(PLANE_PACKAGES)
packages-guests:
	@.ci/apt $(GUEST_PACKAGES)
packages-browser:
	@.ci/apt $(BROWSER_PACKAGES)
packages-prometheus:
	@.ci/unpack prometheus
packages-bench:
	@.ci/apt $(BENCH_PACKAGES)
	@.ci/unpack serf || echo "'python -m bench' measures without Serf" >&2

.PHONY: venv-dev venv-ansible venv-docs venv-quality venv-locks venv-eda
# The agent's libraries come from Debian: the versions that a target has are the ones to test with.
venv-dev: packages-test
	@.ci/venv dev --system-site-packages
venv-ansible venv-docs venv-quality venv-locks: venv-%: packages-base
	@.ci/venv $*

# The rule engine runs on any Java from 17 on; only where there is none, Debian's is installed.
venv-eda: packages-base
	@command -v java >/dev/null || .ci/apt openjdk-17-jre-headless
	@.ci/venv eda

.PHONY: link
link:
	@mkdir -p $(COLLECTIONS)/ansible_collections/xdp_gossip
	@ln -sfn ../../../.. $(COLLECTIONS)/ansible_collections/xdp_gossip/fleet
