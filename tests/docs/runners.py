# SPDX-License-Identifier: MIT
"""How each kind of snippet is run. A runner takes a :class:`Place` and the code, and returns what was printed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from snippets import ROOT, Snippet, constant
from world import AGENT, PYTHON, Failed, World

#: Keys of the agent's configuration file that tell it from other YAML.
_CONFIG = {"api", "cluster", "node", "wire", "templates", "signers", "keys"}
_PEKONODE = """
import sys
from xdp_gossip.pekonode import codec
print(codec.decode(b"".join(line.strip() for line in sys.stdin.buffer)))
"""
#: The host of tasks, in the groups that they name, and with a variable that they use.
_INVENTORY = {
    "all": {"hosts": {"localhost": {"shop_password": "secret of the shop"}}},
    **{group: {"hosts": {"localhost": None}} for group in ("web", "web_servers")},
}
#: What a deployment does before something is sealed for this host.
_KEYS = {
    "xdp_gossip.fleet.xdp_gossip_sealing_key": {"host": "localhost", "directory": "~/.xdp-gossip/default/sealing"},
}
#: Playbooks that change hosts, or make them.
_HOST_PLAYBOOK = re.compile(r"xdp_gossip\.fleet\.(deploy|upgrade|remove|demo)\b")
#: A network of its own for programs that open the agent's port on all addresses; 192.0.2.0/24 is theirs.
_OWN_NETWORK = """
ip link set lo up
ip address add 192.0.2.1/24 dev lo
exec "$@"
"""
#: An agent with a configuration, where no other agent is in its way. It has to serve within a minute.
_AGENT = """
ip link set lo up
ip address add 198.18.0.11/32 dev lo
mount -t tmpfs none /run/xdp-gossip
mount -t tmpfs none /var/lib
mkdir --mode=0750 /var/lib/xdp-gossip
xdp-gossip check-config "$1"
xdp-gossip agent --config "$1" &
for attempt in $(seq 600); do
    if xdp-gossip status 2>&1; then kill %1; wait %1; exit; fi
    sleep 0.1
done
echo "the agent does not serve"
exit 1
"""


@dataclass(frozen=True)
class Place:
    """Where a snippet runs: a world, a directory in it, and which lines are not to be run."""

    world: World
    directory: Path
    is_skipped: Callable[[str], bool] = lambda line: False

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command there; see :meth:`World.run`."""
        return self.world.run(*command, cwd=self.directory, status=status)

    def write(self, name: str, text: str) -> Path:
        """Write a file there."""
        path = self.directory / name
        path.write_text(text)
        return path


Runner = Callable[[Place, str], str]


def shell(place: Place, text: str) -> str:
    """Each line in one shell, which stops at the first that fails. Of playbooks not to be run, the syntax."""
    lines = []
    for line in text.splitlines():
        if not place.is_skipped(line.strip()):
            if _HOST_PLAYBOOK.search(line):
                raise Failed(f"{line}: expected it to be listed in exceptions.py, because it changes a whole host")
            lines.append(line)
        elif line.startswith("ansible-playbook "):
            lines.append(f"{line} --syntax-check")
            if place.world.deploys and "fleet.deploy" in line:
                lines.append(shlex.join(_deployment(place, re.findall(r"-e @(\S+)", line))))
    return place.run("bash", "-euo", "pipefail", "-c", "\n".join(lines))


def _deployment(place: Place, names: list[str]) -> list[str]:
    """The command that gives the agents of the world what the files ``names`` of the role's variables say."""
    values: dict[str, Any] = {}
    for name in names:
        values.update(json.loads((place.directory / f"{name}.json").read_text()))
    deployed = place.write("deployed.json", json.dumps(values))
    script = str(Path(__file__).parent / "deploy.py")
    return [PYTHON, script, str(place.world.directory / "world.json"), str(deployed)]


def session(place: Place, text: str) -> str:
    """Each command of a session; its output has to be the one shown, versions, times and widths of columns aside."""
    commands: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
            shown.append("")
        elif not commands:
            raise Failed(f"expected a command after '$ ', got {line!r}")
        else:
            shown[-1] += line + "\n"
    mark = "-- next --"
    # The status of a command is there for the next one to ask for.
    script = "".join(f"{command}\nstatus=$?\necho '{mark}'\n(exit $status)\n" for command in commands)
    printed = place.run("bash", "-c", script, status=None).split(f"{mark}\n")[: len(commands)]
    for command, expected, got in zip(commands, shown, printed):
        if _plain(expected) != _plain(got):
            raise Failed(f"$ {command}\nexpected:\n{expected}\ngot:\n{got}")
    return "".join(printed)


def _plain(output: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    output = re.sub(r"\b[0-9a-f]{16}@", "VERSION@", output)
    output = re.sub(r"\b[0-9]+\.[0-9]+ s\b", "TIME", output)
    return [" ".join(line.split()) for line in output.splitlines() if line.strip()]


def python(place: Place, text: str) -> str:
    """A program that uses the toolkit."""
    program = place.write("snippet.py", text)
    command = [PYTHON, "-W", "error", str(Path(__file__).parent / "program.py"), str(program)]
    return place.run(
        "unshare", "--net", "bash", "-euc", _OWN_NETWORK, "network", "env", f"PYTHONPATH={AGENT}", *command
    )


def packet(place: Place, text: str) -> str:
    """A packet of PekoNode's wire."""
    path = place.write("packet.json", text)
    code = f"PYTHONPATH={shlex.quote(str(AGENT))} {PYTHON} -c {shlex.quote(_PEKONODE)} < {shlex.quote(str(path))}"
    return place.run("sh", "-c", code)


def structured(place: Place, text: str) -> str:
    """YAML of whatever kind, one document after the other."""
    output = ""
    for part in re.split(r"(?m)^---$", text):
        data = yaml.safe_load(part)
        if data is not None:
            output += _runner_of_data(data)(place, part)
    return output


def _runner_of_data(data: Any) -> Runner:
    """Which kind of YAML this is. Raises :class:`Failed` when none is recognised: then nobody knows how to run it."""
    if isinstance(data, dict):
        if "plugin" in data:
            return inventory
        if "scrape_configs" in data:
            return scrape
        if _inventory_options() & set(data):
            return inventory_part
        if _CONFIG & set(data):
            return config
        if all(key.startswith("xdp_gossip_agent_") for key in data):
            return role_variables
        if all(key.startswith("xdp_gossip_") for key in data):
            return variables
    elif isinstance(data, list) and all(isinstance(entry, dict) for entry in data):
        if all("sources" in entry for entry in data):
            return rulebook
        if all("hosts" in entry for entry in data):
            return playbook
        if any(key.endswith(".membership") for entry in data for key in entry):
            return event_source
        return tasks
    raise Failed(f"expected a kind of YAML that these tests can run, got {data!r}")


def inventory(place: Place, text: str) -> str:
    """A configuration of the inventory plugin; hosts have to come of it."""
    path = place.write("snippet.nodelist.yml", text)
    output = place.run("ansible-inventory", "-i", str(path), "--list")
    listed = json.loads(output[output.index("{") :])
    if not listed["_meta"]["hostvars"]:
        raise Failed(f"expected hosts, got none:\n{output}")
    return output


def inventory_part(place: Place, text: str) -> str:
    """Some options of the inventory plugin, which need the others to be a configuration."""
    return inventory(place, f"plugin: xdp_gossip.fleet.nodelist\nprivate_data_format: json\n{text}")


def _inventory_options() -> set[str]:
    """The options that the inventory plugin documents in its own file."""
    source = (ROOT / "plugins" / "inventory" / "nodelist.py").read_text()
    return set(yaml.safe_load(constant(source, "DOCUMENTATION")[1])["options"])


def playbook(place: Place, text: str) -> str:
    """A play; one without tasks gets a task that needs the connection it sets up."""
    data = yaml.safe_load(text)
    if any("roles" in play for play in data):
        raise Failed("a play with roles: expected it to be listed in exceptions.py, because it changes a whole host")
    if "tasks" not in data[-1]:
        text += "  tasks:\n    - xdp_gossip.fleet.xdp_gossip_info:\n"
    return _play(place, place.write("snippet-play.yml", text))


def tasks(place: Place, text: str) -> str:
    """Tasks, run by a play on this host."""
    place.write("snippet-tasks.yml", text)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [*([_KEYS] if "seal" in text else []), {"ansible.builtin.import_tasks": "snippet-tasks.yml"}],
    }
    return _play(place, place.write("play.yml", json.dumps([play])))


def _play(place: Place, path: Path, *options: str) -> str:
    local = json.dumps({"ansible_connection": "local", "ansible_python_interpreter": PYTHON})
    inventory = place.write("snippet-inventory.json", json.dumps(_INVENTORY))
    output = place.run("ansible-playbook", "-i", str(inventory), "-e", local, *options, str(path))
    # An example must not teach what Ansible is about to drop.
    if "DEPRECATION" in output:
        raise Failed(output)
    return output


def syntax(place: Place, text: str) -> str:
    """Plays that are not run: whether Ansible would take them, and knows the roles."""
    path = place.write("snippet-play.yml", text)
    return place.run("ansible-playbook", "-i", "localhost,", "--syntax-check", str(path))


def variables(place: Place, text: str) -> str:
    """Variables that say where the fleet is: with them, a document can be read."""
    path = place.write("snippet-variables.yml", text)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.debug": {"msg": "{{ lookup('xdp_gossip.fleet.metadata', 'shop/settings') }}"}}],
    }
    return _play(place, place.write("play.yml", json.dumps([play])), "-e", f"@{path}")


def role_variables(place: Place, text: str) -> str:
    """Variables of the role ``agent``: Ansible takes them by the role's argument_specs."""
    path = place.write("snippet-role-variables.yml", text)
    specs = yaml.safe_load((ROOT / "roles" / "agent" / "meta" / "argument_specs.yml").read_text())
    task = {
        "ansible.builtin.validate_argument_spec": {
            "argument_spec": specs["argument_specs"]["main"]["options"],
            "provided_arguments": {name: f"{{{{ {name} }}}}" for name in yaml.safe_load(text)},
        }
    }
    tasks: list[dict[str, Any]] = [task]
    named = re.match(r"# ([\w.-]+\.yml)\b", text)
    if place.world.deploys and named:
        # A later snippet deploys the file of this name, and needs the values that Ansible makes of its expressions.
        names = ", ".join(f"'{name}': {name}" for name in yaml.safe_load(text))
        content = {"content": f"{{{{ {{{names}}} | to_json }}}}", "dest": f"{place.directory}/{named[1]}.json"}
        tasks.append({"ansible.builtin.copy": {**content, "mode": "0600"}})
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    return _play(place, place.write("play.yml", json.dumps([play])), "-e", f"@{path}")


def rulebook(place: Place, text: str) -> str:
    """The sources of a rulebook; its rules need ansible-rulebook (see tests/eda)."""
    return "".join(_sources(place, ruleset["sources"]) for ruleset in yaml.safe_load(text))


def event_source(place: Place, text: str) -> str:
    """Configurations of the event source."""
    return _sources(place, yaml.safe_load(text))


def _sources(place: Place, entries: list[dict[str, Any]]) -> str:
    """Each source has to tell an event."""
    output = ""
    for entry in entries:
        ((name, arguments),) = ((key, value) for key, value in entry.items() if "." in key)
        collection = place.world.directory / "collections" / "ansible_collections" / "xdp_gossip" / "fleet"
        plugin = collection / "extensions" / "eda" / "plugins" / "event_source" / f"{name.rsplit('.', 1)[1]}.py"
        script = str(Path(__file__).parent / "event_source.py")
        output += place.run(PYTHON, script, str(plugin), json.dumps(arguments or {}))
    return output


def config(place: Place, text: str) -> str:
    """An agent's configuration (address and secret are added if it has none): valid, and an agent serves with it."""
    given = yaml.safe_load(text)
    if "node" not in given:
        text += "node: {addr: 198.18.0.11}\n"
    if not {"secret_key_file", "keys", "allow_insecure", "wire"} & set(given):
        text += "allow_insecure: true\n"
    path = place.write("agent.yml", text)
    return place.run("unshare", "--mount", "--net", "bash", "-euc", _AGENT, "agent", str(path))


def scrape(place: Place, text: str) -> str:
    """What Prometheus would do with this: ask each source of targets, and each target for its metrics."""

    def asked(url: str, sender: Any) -> str:
        files = (sender["tls_config"]["ca_file"], sender["authorization"]["credentials_file"])
        authority, token = map(shlex.quote, files)
        header = f'--header "Authorization: Bearer $(cat {token})"'
        return place.run("bash", "-euc", f"curl --silent --fail --cacert {authority} {header} {shlex.quote(url)}")

    output = ""
    for job in yaml.safe_load(text)["scrape_configs"]:
        for source in job["http_sd_configs"]:
            groups = json.loads(asked(source["url"], source))
            for target in [target for group in groups for target in group["targets"]]:
                output += asked(f"{job['scheme']}://{target}{job['metrics_path']}", job)
    if "xdp_gossip_build_info" not in output:
        raise Failed(f"expected the agents' metrics, got:\n{output}")
    return output


_KINDS: dict[str, Runner] = {
    "sh": shell,
    "console": session,
    "python": python,
    "json": packet,
    "yaml": structured,
    "examples": structured,
}


def runner_of(snippet: Snippet) -> Runner:
    """What runs a snippet. Raises :class:`Failed` for a kind that nobody knows how to run."""
    try:
        return _KINDS[snippet.kind]
    except KeyError:
        raise Failed(
            f"{snippet}: expected one of {', '.join(_KINDS)}, got {snippet.kind!r}. Mark it as text if it is no code, "
            "or say in runners.py how to run it"
        ) from None
