# SPDX-License-Identifier: MIT
"""What of the documentation cannot be run in these tests, and what the rest has to print.

Both name a snippet by its file and one of its lines. An entry that no snippet has any more fails a test, and so does a
snippet that is neither run nor listed here.
"""

from __future__ import annotations

_HOSTS = "needs systemd hosts; molecule/default has them"
_BOOTS = "boots systemd hosts, for minutes; molecule/default does it, too"
_COLLECTION = "builds into the checkout; tests/fleet/test_installed_collection.py builds and installs it elsewhere"
_ROTATION = "needs systemd hosts; tests/fleet/test_rotation.py has them"
_MONITORING = "needs a host with Prometheus; tests/monitoring/test_role.py has one"
_SEALED = "needs hosts whose keys the controller has; molecule/trust/verify/sealed.yml has them"
_SIGNED = "needs a key and the files of a release; tests/agent/test_docs_releasing.py runs it with both"
_SIMULATOR = "needs the checkout as its directory; tests/sim/test_simulator_page.py runs it there"
_PEKONODE = "fetches and compiles another project"

#: File -> the beginning of a line -> why it is not run here, and what runs it instead. Of a shell snippet, only this
#: line is left out; any other snippet is left out as a whole, by its first line. Playbooks get a syntax check all the
#: same.
NOT_RUN = {
    "README.md": {
        "git clone <this repository>": "the address is the reader's to fill in",
        "make demo ": "tests/docs/test_demo.py runs it, on a lab of its own",
        "make test ": "runs these tests, too",
        "make collection": _COLLECTION,
        "ansible-galaxy collection install build/": _COLLECTION,
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.deploy": _HOSTS,
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.upgrade ": "needs systemd hosts; molecule/upgrade has them",
    },
    "docs/cli.md": {
        "# xdp-gossip dataplane up": "needs a card whose peer lacks GRO; tests/bpf/test_loader_real.py has such cards",
    },
    "docs/events.md": {
        "ansible-rulebook ": "goes on forever, and needs Java; tests/eda/test_rulebook.py runs this rulebook",
    },
    "docs/monitoring.md": {
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.monitoring ": _MONITORING,
    },
    "docs/trust.md": {
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.deploy ": f"{_HOSTS}; here, tests/docs/deploy.py does its part",
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.reseal ": _SEALED,
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.rotate_secret": _ROTATION,
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.rotate_token": _ROTATION,
    },
    "docs/releasing.md": {
        ".cache/venv/quality/bin/antsibull-changelog release": "writes into the checkout",
        "git tag ": "makes a tag",
        "make sums": _COLLECTION,
        "ssh-keygen -Y sign ": _SIGNED,
        "ssh-keygen -Y verify ": _SIGNED,
        "sha256sum --check ": _SIGNED,
        "ansible-galaxy collection publish ": "publishes",
    },
    "examples/README.md": {
        "ansible-rulebook ": "goes on forever, and needs Java; tests/docs/test_examples.py runs its sources",
    },
    "docs/rendering.md": {
        "$ xdp-gossip rendered": "needs nginx; molecule/default/verify/rendered.yml has it",
    },
    "docs/security.md": {
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.rotate_secret": _ROTATION,
        "ansible-playbook -i hosts.yml xdp_gossip.fleet.rotate_token": _ROTATION,
    },
    "docs/simulator.md": {"python3 -m tests.sim ": _SIMULATOR},
    "roles/agent/README.md": {
        "- hosts: all": _HOSTS,
        "ansible-playbook -i INVENTORY xdp_gossip.fleet.upgrade ": "needs systemd hosts; molecule/upgrade has them",
    },
    "plugins/modules/xdp_gossip_host.py": {"- name: Install, configure and run the agent": _HOSTS},
    "plugins/modules/xdp_gossip_rotation.py": {
        "- name: How far is the rotation?": "needs secrets; tests/unit/plugins/action/test_rotation.py has some",
    },
    "roles/monitoring/README.md": {"- hosts: monitoring": _MONITORING},
    "roles/lab/README.md": {"- hosts: localhost": _BOOTS},
    "tests/interop/README.md": {
        "git clone https://github.com/dpwgc/pekonode": _PEKONODE,
        "mkdir -p cmd/pekod": _PEKONODE,
        "sed -i '1s,.*,module github.com/dpwgc/pekonode,' go.mod": _PEKONODE,
        "go build ": _PEKONODE,
        "XDP_GOSSIP_PEKOD=": "needs the program of the lines above",
    },
}

#: File -> the beginning of a line -> regular expressions that the output of the snippet has to match.
PROMISED = {
    "README.md": {
        "- https://198.18.0.11:8001": ['"host1"', '"host2"', '"host3"'],
        "ansible-inventory -i nodelist.yml --graph": [r"\|--host1\n.*\|--host2\n.*\|--host3\n"],
        "from xdp_gossip import Node, NodeList": ["A-server", "b'test metadata'"],
        "xdp-gossip verify shop/settings": ["3 of 3 members"],
    },
    "examples/README.md": {
        "ansible-inventory -i inventory/": [r"@role_web:\n.*\|--host2\n.*\|--host3\n"],
        "ansible-playbook publish.yml": [r"ok=2 +changed=1 "],
        "PYTHONPATH=../agent ": ["app/settings\nheld by all\nfirst second\n"],
    },
    "docs/inventory.md": {
        "private_data_format: json": ['"xdp_gossip_alive": {', '"zone_a": {', '"zone_b": {', '"role_web": {'],
        "- exclude: xdp_gossip.zone == 'c'": ['"zone_a": {', '"zone_b": {'],
    },
    "docs/security.md": {"echo 'requests_per_second: 200'": ["signed by SHA256:", "deleted, version "]},
    "docs/trust.md": {
        "xdp-gossip read app/limits >": ["signed by SHA256:"],
        "xdp-gossip audit --since 1h": [
            r"shop +198\.18\.0\.11 +documents\.publish +done +shop/rates +[0-9a-f]{16}@\S+ +[0-9a-f]{16}@",
            r"reader +198\.18\.0\.11 +documents\.delete +forbidden +shop/rates",
        ],
    },
    "docs/api.md": {"sock=/run/xdp-gossip/api.sock": [r'"name": ?"host3"', r'"converged": ?true']},
    "docs/toolkit.md": {
        "import time": ["test-data", "b'test metadata'"],
        "from xdp_gossip import NodeList, Node, ProtocolError": [r"\['[0-9a-f]{16}@\S+', '[0-9a-f]{16}@\S+'\]"],
        "import asyncio": ["converged=True"],
    },
    "plugins/inventory/nodelist.py": {
        "plugin: xdp_gossip.fleet.nodelist": ['"zone_a": {', '"zone_b": {', '"role_web": {']
    },
    "plugins/lookup/metadata.py": {"- name: Show a document": ['"msg": "[^"]+"']},
}


def reason(path: str, line: str) -> str | None:
    """Why a line, or the snippet that begins with it, is not run; None when it is."""
    return next((why for start, why in NOT_RUN.get(path, {}).items() if line.startswith(start)), None)


def promises(path: str, line: str) -> list[str]:
    """What the output of a snippet with this line has to match."""
    return [promise for start, found in PROMISED.get(path, {}).items() if line.startswith(start) for promise in found]


def outdated(lines: dict[str, list[str]]) -> list[tuple[str, str]]:
    """The entries of both lists that match none of the ``lines`` of their file."""
    return [
        (path, start)
        for entries in (NOT_RUN, PROMISED)
        for path, starts in entries.items()
        for start in starts
        if not any(line.startswith(start) for line in lines.get(path, []))
    ]
