# SPDX-License-Identifier: MIT
"""What an operator sees and does on the page, at a desk and on a phone; and what hostile text cannot do there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.webdriver.common.by import By

from tests.support.fleet import Cluster, eventually
from tests.ui.browser import Browser
from xdp_gossip.config.access import hash_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TOKEN = "a-token-of-the-tests-of-the-page"
#: A token that may read some keys only.
LIMITED = "a-token-of-the-tests-for-some-keys"
#: Each would set window.owned if it became markup, a script or a link that is followed.
HOSTILE = '<img src=x onerror="owned=1"><script>owned=2</script>"><svg onload=owned=3>'
HOSTILE_KEY = "evil/<img src=x onerror=owned=4>&quot;javascript:owned=5"


@pytest.fixture(name="cluster", scope="module")
def fixture_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("ui"), 3, cycle=0.5, timeout=2.5) as made:
        for agent in made:
            token = agent.write_secret("api.token", TOKEN)
            agent.settings["api"].update(listen=f"{agent.ip}:{agent.port + 1}", token_file=str(token), ui=True)
            some = {"name": "page", "hash": hash_of(LIMITED), "rights": "read", "prefixes": ["app/"]}
            agent.settings["api"]["tokens"] = [some]
        # Nobody serves the helper's socket: the file fails, and every member tells of it.
        template = tmp_path_factory.mktemp("templates") / "motd.j2"
        template.write_text("hello")
        made[2].settings["templates"] = [{"name": "motd", "source": str(template), "path": "/etc/no-such/motd"}]
        made[2].settings["files_helper"] = {"socket": "/run/no-such/helper.sock"}
        made[1].settings["node"]["private_data"] = HOSTILE
        made[1].settings["node"]["name"] = HOSTILE[:200]
        made.form()
        for comment, value in (("first", b'{"rps": 100}\n'), ("more", b'{"rps": 200}\n')):
            made[0].call("PUT", f"/v1/documents/app/limits?content_type=json&author=ops&comment={comment}", value)
        query = f"author={quote(HOSTILE[:100])}&comment={quote(HOSTILE)}"
        made[1].call("PUT", f"/v1/documents/{quote(HOSTILE_KEY)}?{query}", HOSTILE.encode())
        together = [{"key": key, "value": "x"} for key in ("both/one", "both/other", "both/third")]
        made[0].call("POST", "/v1/documents", json.dumps({"documents": together}).encode())
        made[0].publish("both/third", b"alone")
        eventually(made.disagreement, 20)
        yield made


@pytest.fixture(name="browser", params=["desk", "phone"])
def fixture_browser(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Browser]:
    made = Browser(f"http://{cluster[0].ip}:{cluster[0].port + 1}/ui/", request.param == "phone")
    yield made
    made.close()


def test_an_operator_looks_at_everything(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in("not the token")
    browser.shows("Expected a token of printable ASCII characters")
    browser.sign_in("not-the-token")
    browser.shows("token")
    browser.look("sign-in")
    assert not browser.driver.find_elements(By.XPATH, "//*[text()='Fleet' and @aria-current]")

    browser.sign_in(TOKEN)
    browser.shows("node1", "node3", cluster[2].address, HOSTILE[:30], "3 alive", "UDP")
    browser.look("fleet")

    browser.click("Documents")
    browser.shows("app/limits", HOSTILE_KEY)
    browser.look("documents")

    browser.driver.get(f"{browser.url}#/documents/{quote('app/limits', safe='')}")
    browser.shows("ops", "more", '-{"rps": 100}', '+{"rps": 200}')
    browser.click("Ask all members")
    browser.shows("3 of 3")
    browser.look("document")

    browser.driver.get(f"{browser.url}#/documents/{quote('both/one', safe='')}")
    browser.shows("both/one", "Written with", "both/other", "1 that changed since")

    browser.driver.get(f"{browser.url}#/documents/{quote(HOSTILE_KEY, safe='')}")
    browser.shows(HOSTILE_KEY, HOSTILE[:40])
    browser.click("Show")
    browser.shows(HOSTILE)
    browser.look("hostile")

    browser.click("Files")
    browser.shows("In trouble, in the whole fleet", "/etc/no-such/motd", "node3", "failed", "1 of 3 members")
    browser.look("files")
    browser.click("1 problem")
    browser.shows("1 rendered file failed", "journalctl -u xdp-gossip-files")
    assert browser.driver.title.startswith("(1) Fleet")


def test_a_publish_is_followed_until_all_hold_it(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in(TOKEN)
    browser.shows("3 alive")
    browser.click("Live")
    key = f"live/{browser.name}"
    cluster[1].publish(key, b"news")
    browser.shows(key, "arrived everywhere", "3 of 3 hold it")
    plots = browser.attributes("svg.plot", "aria-label")
    assert len(plots) == 1 and "3 of 3 hold it" in str(plots[0])
    browser.look("live")


def test_a_token_that_may_read_some_keys_shows_these(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in(LIMITED)
    browser.shows("3 alive", "node1")
    browser.click("Documents")
    browser.shows("app/limits")
    assert HOSTILE_KEY not in browser.text and "both/one" not in browser.text
    browser.driver.get(f"{browser.url}#/documents/{quote('app/limits', safe='')}")
    browser.shows("ops", "more", '+{"rps": 200}')
    browser.click("Ask all members")
    browser.shows("3 of 3")
    browser.click("Files")
    browser.shows("This token may use some keys only")


def test_a_member_that_dies_is_seen_without_a_reload(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in(TOKEN)
    browser.shows("3 alive")
    cluster[2].kill()
    try:
        browser.shows("2 alive", "1 dead", "1 node dead", "systemctl status xdp-gossip")
    finally:
        cluster.start([cluster[2]])
    browser.shows("3 alive")
    eventually(cluster.disagreement, 20)


def test_the_page_is_read_only_and_asks_its_own_member_only(cluster: Cluster, browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.sign_in(TOKEN)
    browser.shows("3 alive")
    for view in ("Documents", "Live", "Files", "Fleet"):
        browser.click(view)
    entries = browser.driver.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert entries and all(name.startswith(browser.url.removesuffix("ui/")) for name in entries), entries
    used = {name.split("?")[0] for name in entries}
    assert not [name for name in used if TOKEN in name], "the token is in an address"
    script = "return [JSON.stringify(localStorage), document.cookie, sessionStorage.length]"
    stored = browser.driver.execute_script(script)
    assert stored == ["{}", "", 1]
    browser.click("Sign out")
    browser.until(lambda: browser.driver.find_elements(By.ID, "token"), "no sign-in after the sign-out")
    assert browser.driver.execute_script("return sessionStorage.length") == 0


def test_the_files_of_the_page(cluster: Cluster, tmp_path: Path) -> None:
    """Without a browser: headers, what needs a token, and that nothing else is there."""
    agent = cluster[0]
    page = agent.ask("GET", "/ui/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'" and policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff" and page.headers["Referrer-Policy"] == "no-referrer"
    text = page.body.decode()
    assert "http://" not in text and "https://" not in text and "<style" not in text and " style=" not in text
    web = Path(__file__).resolve().parents[2] / "agent" / "xdp_gossip" / "web"
    for file in sorted(web.iterdir()):
        name = "" if file.name == "index.html" else file.name
        answer = agent.ask("GET", f"/ui/{name}")
        assert (answer.status, answer.body) == (200, file.read_bytes()), file
        assert agent.ask("GET", f"/ui/{name}", If_None_Match=answer.headers["ETag"]).status == 304
        source = file.read_text()
        dangerous = ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write")
        assert not [word for word in dangerous if word in source], file
    for path in ("/ui/nothing.js", "/ui/..%2fapi%2fapp.py", "/ui/%2e%2e/agent.yml", "/ui/index.html"):
        assert agent.ask("GET", path).status == 404, path
    assert json.loads(agent.ask("POST", "/ui/").body)["error"]["code"] == "method_not_allowed"


def test_without_the_setting_there_is_no_page(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1) as cluster:
        cluster.start()
        assert cluster[0].ask("GET", "/ui/").status == 404
