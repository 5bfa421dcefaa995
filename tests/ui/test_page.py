# SPDX-License-Identifier: MIT
"""What an operator sees and does on the page, at a desk and on a phone; and what hostile text cannot do there.

Screenshots are left in .cache/ui/, for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.cluster.harness import Cluster, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SHOTS = Path(__file__).resolve().parents[2] / ".cache" / "ui"
TOKEN = "a-token-of-the-tests-of-the-page"
SECONDS = 20
#: Each would set window.owned if it became markup, a script or a link that is followed.
HOSTILE = '<img src=x onerror="owned=1"><script>owned=2</script>"><svg onload=owned=3>'
HOSTILE_KEY = "evil/<img src=x onerror=owned=4>&quot;javascript:owned=5"


@pytest.fixture(name="cluster", scope="module")
def fixture_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("ui"), 3, cycle=0.5, timeout=2.5) as made:
        for agent in made:
            token = agent.write_secret("api.token", TOKEN)
            agent.settings["api"].update(listen=f"{agent.ip}:{agent.port + 1}", token_file=str(token), ui=True)
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


class Browser:
    """A browser at the page of one member."""

    def __init__(self, cluster: Cluster, width: int, height: int, phone: bool) -> None:
        options = Options()
        options.binary_location = "/usr/bin/chromium"
        # Its sandbox needs namespaces that a container may lack; it sees nothing but these agents.
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.name = "phone" if phone else "desk"
        if phone:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.url = f"http://{cluster[0].ip}:{cluster[0].port + 1}/ui/"

    def until(self, true: Callable[[], Any], what: str) -> Any:
        return WebDriverWait(self.driver, SECONDS, 0.1).until(lambda _: true(), what)

    @property
    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def shows(self, *words: str) -> None:
        """Until the page shows all ``words``."""
        self.until(lambda: all(word in self.text for word in words), f"expected {words}, got:\n{self.text}")

    def click(self, label: str) -> None:
        path = f"//*[self::a or self::button][normalize-space()='{label}']"
        self.until(lambda: self.driver.find_elements(By.XPATH, path), f"no {label!r} to click")
        self.driver.find_elements(By.XPATH, path)[0].click()

    def sign_in(self, token: str = TOKEN) -> None:
        self.driver.get(self.url)
        self.until(lambda: self.driver.find_elements(By.ID, "token"), "no sign-in")
        self.driver.find_element(By.ID, "token").send_keys(token + Keys.ENTER)

    def look(self, name: str) -> None:
        """Leave a screenshot; nothing may need scrolling sideways, and nothing hostile may have run."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SHOTS / f"{self.name}-{name}.png"))
        wide, inner, owned, alien = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth, window.owned ?? null,"
            " document.querySelectorAll('main img, main script, main iframe, [onerror], [onload],"
            " a[href^=\"javascript\"]').length]"
        )
        assert wide <= inner, f"{name}: {wide} pixels wide in a window of {inner}"
        assert owned is None and alien == 0, f"{name}: text became markup"

    def complaints(self) -> list[str]:
        """Errors in the browser's console, but for the question that finds out whether a token is needed."""
        logged = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [text for text in logged if "401 (Unauthorized)" not in text]


@pytest.fixture(name="browser", params=["desk", "phone"])
def fixture_browser(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Browser]:
    phone = request.param == "phone"
    made = Browser(cluster, *((390, 844) if phone else (1280, 900)), phone)
    try:
        yield made
        assert made.complaints() == []
    finally:
        made.driver.quit()


def test_an_operator_looks_at_everything(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in("not the token")
    browser.shows("Expected a token of printable ASCII characters")
    browser.sign_in("not-the-token")
    browser.shows("token")
    browser.look("sign-in")
    assert not browser.driver.find_elements(By.XPATH, "//*[text()='Fleet' and @aria-current]")

    browser.sign_in()
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
    browser.shows("Files")
    browser.look("files")


def test_a_publish_is_followed_until_all_hold_it(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in()
    browser.shows("3 alive")
    browser.click("Live")
    key = f"live/{browser.name}"
    cluster[1].publish(key, b"news")
    browser.shows(key, "arrived everywhere", "3 of 3 hold it")
    plots = browser.driver.find_elements(By.CSS_SELECTOR, "svg.plot")
    assert len(plots) == 1 and "3 of 3 hold it" in str(plots[0].get_attribute("aria-label"))
    browser.look("live")


def test_a_member_that_dies_is_seen_without_a_reload(cluster: Cluster, browser: Browser) -> None:
    browser.sign_in()
    browser.shows("3 alive")
    cluster[2].kill()
    try:
        browser.shows("2 alive", "1 dead")
    finally:
        cluster.start([cluster[2]])
    browser.shows("3 alive")
    eventually(cluster.disagreement, 20)


def test_the_page_is_read_only_and_asks_its_own_member_only(cluster: Cluster, browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.sign_in()
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
