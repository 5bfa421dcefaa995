# SPDX-License-Identifier: MIT
"""Templates of rendered files give what Ansible's module ``template`` gives for the same text."""

from __future__ import annotations

import re
from pathlib import Path

from test_role_agent_runs import Controller, controller, pytestmark  # noqa: F401  (the same needs)

from xdp_gossip.templates.filters import FILTERS, TESTS
from xdp_gossip.templates.worker import render

#: Data that both see as ``x``.
DATA = """{% set x = {'b': [1, 2.5, none, true], 'a': {'größe': "it's <b>", 'n': {'k': 'v: #', 'l': []}}, 'e': ''} %}
"""
EXPRESSIONS = [
    "x | to_json",
    "x | to_json(indent=1, sort_keys=true)",
    "x | to_json(ensure_ascii=false)",
    "x | to_nice_json",
    "x | to_nice_json(indent=2)",
    "x | to_yaml",
    "x | to_yaml(default_flow_style=false)",
    "x | to_nice_yaml",
    "x | to_nice_yaml(indent=2, width=20, sort_keys=false)",
    "['true', '1', 'a: b', '- x', '', 'größe', '2020-01-01', 'two\\nlines\\n'] | to_nice_yaml",
    "(x | to_json | from_json).a.n.k",
    "(x | to_yaml | from_yaml).b | to_json",
    "'a: 1\\n---\\nb: 2\\n' | from_yaml_all | list | to_json",
    "'größe' | b64encode",
    "'größe' | b64encode | b64decode",
    "'ab?>' | b64encode(urlsafe=true)",
    "'YWI_Pg==' | b64decode(urlsafe=true)",
    "'foobar' | regex_replace('^f.*o(.*)$', '\\\\1')",
    "'Foo foo' | regex_replace('foo', 'x', ignorecase=true)",
    "'a\\nb\\na' | regex_replace('^a$', 'x', multiline=true, count=1)",
    "80 | regex_replace('0', '1')",
    "'server1/db42' | regex_search('database[0-9]+') is none",
    "'server1/db42' | regex_search('db[0-9]+')",
    "'server1/db42' | regex_search('server([0-9]+)/(?P<n>.*)', '\\\\1', '\\\\g<n>') | to_json",
    "'FOO' | regex_search('foo', ignorecase=true)",
    "'a1 b2' | regex_findall('[a-z]([0-9])') | to_json",
    "'^a.b$' | regex_escape",
    "true | ternary('y', 'n')",
    "'' | ternary('y', 'n')",
    "none | ternary('y', 'n', 'none')",
    "['yes', 'on', '1', 'True', 1, true, 'no', 'off', 0, false] | map('bool') | list | to_json",
    '"it\'s" | quote',
    "none | quote",
    "5 | quote",
    "'test' | hash",
    "'größe' | hash('sha256')",
    "[1, [2, [3, none]], 'null'] | flatten | to_json",
    "[1, [2, [3, none]]] | flatten(levels=1, skip_nulls=false) | to_json",
    "{'a': 1, 'b': {'c': 1}} | combine({'b': {'d': 2}}) | to_json(sort_keys=true)",
    "{'a': 1, 'b': {'c': 1}} | combine({'b': {'d': 2}}, {'a': 3}, recursive=true) | to_json(sort_keys=true)",
    "[{'a': 1}, {'b': 2}] | combine | to_json(sort_keys=true)",
    *(
        f"{{'a': [1, 2], 'b': {{'c': [1]}}}} | combine({{'a': [2, 3], 'b': {{'c': [4]}}}}, recursive={deep}, "
        f"list_merge='{how}') | to_json(sort_keys=true)"
        for deep in ("true", "false")
        for how in ("replace", "keep", "append", "prepend", "append_rp", "prepend_rp")
    ),
    "{'a': 1, 'b': 2} | dict2items | to_json",
    "{'a': 1} | dict2items(key_name='k', value_name='v') | to_json",
    "[{'key': 'a', 'value': 1}] | items2dict | to_json",
    "[{'k': 'a', 'v': 1}] | items2dict(key_name='k', value_name='v') | to_json",
    "x.e | mandatory | to_json",
    "'/etc/nginx/nginx.conf' | basename",
    "'/etc/nginx/nginx.conf' | dirname",
    "[1, 2, 2] | union([2, 3]) | to_json",
    "[1, 2, 2, 3] | intersect([2, 3]) | to_json",
    "[1, 2, 2, 3, 1] | difference([2]) | to_json",
    "['foobar' is match('o'), 'foobar' is match('FO', ignorecase=true)] | to_json",
    "['foobar' is search('ob'), 'foobar' is search('x')] | to_json",
    "[[1, 2] is contains(2), [1] is contains(3)] | to_json",
    "[[1] is subset([1, 2]), [1, 3] is subset([1, 2])] | to_json",
    "[[1, 2] is superset([1]), [1] is superset([3])] | to_json",
]
#: Blocks, white space, the header line, and the final newline.
LAYOUTS = [
    "a\n{% if true %}\n  b\n{% endif %}\nc\n\n",
    "  {% for i in [1, 2] %}\n  {{ i }}\n  {% endfor %}\nend",
    "#jinja2: trim_blocks: False\na\n{% if true %}\nb\n{% endif %}\nc\n",
    "#jinja2: lstrip_blocks: True\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "#jinja2: variable_start_string: '[%', variable_end_string: '%]'\n{{ [% 1 + 1 %]\n",
]
#: Not compared: Jinja's own name, which Ansible leaves with its escapes for HTML.
OURS = {"tojson"}


def ours(text: str) -> str:
    kind, value = render(text, 1 << 20, lambda *question: None, lambda key, envelope: b"")
    assert kind == "done", value
    return str(value.decode())


def test_each_filter_and_test_is_among_the_expressions() -> None:
    text = "\n".join(EXPRESSIONS)
    used = set(re.findall(r"\| (\w+)", text)) | set(re.findall(r"map\('(\w+)'", text))
    assert set(FILTERS) - OURS <= used
    assert set(TESTS) <= set(re.findall(r" is (\w+)\(", text))


def test_the_documentation_lists_them() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rendering.md").read_text()
    listed = set(re.findall(r"`(\w+)`", page))
    assert set(FILTERS) | set(TESTS) <= listed


def test_results_are_those_of_ansible(controller: Controller) -> None:  # noqa: F811
    directory = controller.directory
    lines = "".join(f"<<{number}>>{{{{ {text} }}}}\n" for number, text in enumerate(EXPRESSIONS))
    texts = [DATA + lines, *LAYOUTS]
    controller.inventory({"host1": {}})
    for number, text in enumerate(texts):
        (directory / f"{number}.j2").write_text(text)
    (directory / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  connection: local\n  tasks:\n"
        "    - ansible.builtin.template: {src: '{{ item }}.j2', dest: '" + str(directory) + "/{{ item }}.out'}\n"
        f"      loop: {list(range(len(texts)))}\n"
    )
    done = controller.play("play.yml")
    assert "failed=0" in done.stdout and done.returncode == 0, done.stdout
    theirs = [(directory / f"{number}.out").read_text() for number in range(len(texts))]
    mine = [ours(text) for text in texts]

    def parts(text: str) -> dict[str, str]:
        return dict(zip(EXPRESSIONS, re.split(r"<<\d+>>", text)[1:]))

    here = parts(mine[0])
    different = {name: (there, here[name]) for name, there in parts(theirs[0]).items() if there != here[name]}
    assert different == {}
    assert mine[1:] == theirs[1:]
