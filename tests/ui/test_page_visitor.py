# SPDX-License-Identifier: MIT
"""A site of somebody else, open in the browser in which an operator is signed in at the page of a member."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from tests.support.fleet import Cluster, eventually
from tests.ui.browser import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TOKEN = "a-token-of-the-tests-of-the-visitor"

#: What the site does. ``target`` is the member's address; the answers show what the site could read.
ATTACK = """
const [target, done] = arguments;
const told = {};
const attempt = async (what, make) => { try { told[what] = await make(); } catch (error) { told[what] = "blocked"; } };
const loaded = (made, name, value) => new Promise((resolve) => {
  made.onload = () => resolve("loaded"); made.onerror = () => resolve("blocked");
  made[name] = value; document.body.append(made);
});
(async () => {
  const text = {"Content-Type": "text/plain"};
  await attempt("read", async () => (await fetch(`${target}/v1/documents`)).text());
  await attempt("read the health", async () => (await fetch(`${target}/v1/health`)).text());
  await attempt("read with a token", async () =>
    (await fetch(`${target}/v1/documents`, {headers: {Authorization: "Bearer x"}})).text());
  await attempt("read with cookies", async () =>
    (await fetch(`${target}/v1/documents`, {credentials: "include"})).text());
  await attempt("put", async () => (await fetch(`${target}/v1/documents/plan`, {method: "PUT", body: "evil"})).status);
  for (const path of ["/v1/documents", "/v1/node/leave", "/v1/node/stop", "/v1/repair", "/v1/rollback/plan"]) {
    const sent = {method: "POST", mode: "no-cors", credentials: "include", headers: text,
      body: '{"documents": [{"key": "plan", "value": "evil"}]}'};
    await attempt(`post ${path}`, async () => (await fetch(target + path, sent)).type);
    const frame = document.createElement("iframe");
    frame.name = path;
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {action: target + path, method: "post", enctype: "text/plain", target: path});
    const field = document.createElement("input");
    Object.assign(field, {name: '{"documents": [{"key": "plan", "value": "evil", "x": "', value: '"}]}'});
    form.append(field);
    document.body.append(form);
    form.submit();
  }
  told["script"] = await loaded(document.createElement("script"), "src", `${target}/ui/api.js`);
  told["image"] = await loaded(document.createElement("img"), "src", `${target}/ui/icon.svg`);
  const socket = new WebSocket(target.replace("http", "ws") + "/v1/events");
  told["socket"] = await new Promise((resolve) => {
    socket.onopen = () => resolve("open"); socket.onerror = () => resolve("blocked");
  });
  const framed = document.createElement("iframe");
  framed.src = `${target}/ui/`;
  framed.id = "framed";
  await new Promise((resolve) => { framed.onload = resolve; document.body.append(framed); });
  const opened = window.open(`${target}/ui/`);
  await new Promise((resolve) => setTimeout(resolve, 500));
  await attempt("opened", async () => opened.closed ? "severed" : String(opened.document.body.innerHTML));
  done(told);
})();
"""


@pytest.fixture(name="cluster", scope="module")
def fixture_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("visitor"), 2, cycle=0.5) as made:
        for agent in made:
            token = agent.write_secret("api.token", TOKEN)
            agent.settings["api"].update(listen=f"{agent.ip}:{agent.port + 1}", token_file=str(token), ui=True)
        made.form()
        made[0].publish("plan", b"of the operator")
        eventually(made.disagreement, 20)
        yield made


@pytest.fixture(name="site")
def fixture_site(tmp_path: Path) -> Iterator[str]:
    """A site with an empty page."""
    (tmp_path / "index.html").write_text("<!doctype html><title>evil</title><body>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(tmp_path), **kwargs)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_another_site_reads_and_changes_nothing(cluster: Cluster, site: str) -> None:
    agent = cluster[0]
    target = f"http://{agent.ip}:{agent.port + 1}"
    browser = Browser(f"{target}/ui/", names=f"MAP rebound.example {agent.ip}")
    try:
        browser.sign_in(TOKEN)
        browser.shows("2 alive")
        before = ([one.versions() for one in cluster], agent.call("GET", "/v1/node")["incarnation"])
        signed_in = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("tab")
        browser.driver.get(site)
        told = browser.driver.execute_async_script(ATTACK, target)
        expected = dict.fromkeys(told, "blocked")
        # The browser sends these without asking, and shows the site nothing of the answer.
        expected.update({name: "opaque" for name in told if name.startswith("post ")})
        if told["opened"] == "severed":
            expected["opened"] = "severed"
        assert told == expected, json.dumps(told, indent=1)
        browser.driver.switch_to.frame("framed")
        assert not browser.driver.find_elements(By.ID, "token"), "the page is in a frame of another site"
        browser.driver.switch_to.default_content()

        # The name of the site becomes the member's address: now the page is the site's own, without a token.
        browser.driver.get(f"http://rebound.example:{agent.port + 1}/ui/")
        browser.until(lambda: browser.driver.find_elements(By.ID, "token"), "no sign-in under another name")
        script = (
            "const done = arguments[0]; (async () => { const found = [sessionStorage.length, document.cookie];"
            "for (const path of ['/v1/documents', '/v1/nodes', '/v1/status', '/v1/health'])"
            " found.push((await fetch(path)).status);"
            "found.push((await fetch('/v1/documents/plan', {method: 'PUT', body: 'evil'})).status); done(found); })();"
        )
        assert browser.driver.execute_async_script(script) == [0, "", 401, 401, 401, 200, 401]

        assert ([one.versions() for one in cluster], agent.call("GET", "/v1/node")["incarnation"]) == before
        assert agent.read("plan") == b"of the operator"
        browser.driver.switch_to.window(signed_in)
        browser.shows("2 alive")
    finally:
        browser.driver.quit()  # not close(): the browser complains of each thing that it blocks
