# SPDX-License-Identifier: MIT
"""The page over 1,000 nodes and 10,000 documents: what is wrong comes first, and nothing is drawn that nobody reads.

Times are not asserted: how many rows are in the page and how many requests are made tells it on any machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.ui.browser import Browser
from tests.ui.large import TOKEN, UNSEEN_KEYS, LargeFleet, Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

VIEWS = ("fleet", "documents", "live", "files")
#: Rows of the longest table that is drawn at first.
ROWS = 200


@pytest.fixture(name="served")
def fixture_served() -> Iterator[Served]:
    with Served(LargeFleet()) as served:
        yield served


@pytest.fixture(name="browser", params=["desk", "phone"])
def fixture_browser(served: Served, request: pytest.FixtureRequest) -> Iterator[Browser]:
    made = Browser(served.url, request.param == "phone")
    made.sign_in(TOKEN)
    made.shows("995 alive", "9 problems")
    yield made
    made.close()


@pytest.fixture(name="desk")
def fixture_desk(served: Served) -> Iterator[Browser]:
    made = Browser(served.url)
    made.sign_in(TOKEN)
    made.shows("995 alive", "9 problems")
    yield made
    made.close()


def rows(browser: Browser) -> int:
    return int(browser.script("return document.querySelectorAll('main tbody tr').length"))


def requests(browser: Browser) -> Counter[str]:
    """How often each list was asked for."""
    script = "return performance.getEntriesByType('resource').map((one) => one.name.split('/v1/')[1])"
    return Counter(name.split("?")[0] for name in browser.script(script) if name)


def go(browser: Browser, where: str) -> None:
    browser.script("location.hash = arguments[0]", f"#/{where}")


def focused(browser: Browser) -> str:
    return str(browser.script("return document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"))


def may_read_the_clipboard(browser: Browser) -> None:
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": permissions})
    browser.script("window.kept = navigator.clipboard")


def hear(browser: Browser) -> None:
    """From now on ``window.heard`` has all that the region for screen readers and the pressed button say.

    Both soon say something else.
    """
    browser.script(
        "window.heard = [];"
        "const note = (changes) => changes.forEach((one) => one.addedNodes.forEach((text) => heard.push(text.data)));"
        "for (const place of [document.querySelector('#said'), window.pressed])"
        "  new MutationObserver(note).observe(place, { childList: true })"
    )


def clipped(browser: Browser, text: str) -> None:
    """Until this is in the clipboard."""
    script = "const done = arguments[0]; kept.readText().then(done, (error) => done(`no: ${error}`))"
    browser.until(lambda: browser.driver.execute_async_script(script) == text, f"no {text!r} in the clipboard")


def test_few_rows_and_few_requests_whatever_the_size(served: Served, browser: Browser) -> None:
    assert rows(browser) == ROWS
    for view in VIEWS:
        go(browser, view)
        browser.shows({"live": "Nothing was published"}.get(view, "problems"))
        browser.look(f"large-{view}")
        assert rows(browser) <= ROWS
    go(browser, "documents")
    browser.shows("site/", "10,000", "app/")
    assert rows(browser) == 3, "two prefixes and a document"
    go(browser, f"documents/{quote('site/eu-west/nginx/', safe='')}")
    browser.shows("host-00000/config.yml", "Show 100 more of 213")
    assert rows(browser) < ROWS
    browser.look("large-tree")
    go(browser, "documents")
    before, last = requests(browser), "site/eu-west/nginx/host-00008/config.yml"
    for number in range(50):
        served.call(served.fleet.news, last, f"news {number}".encode())
        served.call(served.fleet.news, f"site/eu-west/nginx/host-new-{number}/config.yml")
    browser.shows("Show 100 more of 263")
    after = requests(browser)
    assert before["documents"] == after["documents"] == 1, "the list was read again for changes that the stream tells"
    assert after["nodes"] - before["nodes"] <= 2 and after["rendered/fleet"] <= 6, after
    assert not after["convergence"], "publishes of a large fleet are followed while nobody looks"
    assert rows(browser) < ROWS


def test_what_is_wrong_comes_first_with_what_to_do(browser: Browser) -> None:
    titles = browser.texts(".troubles .title")
    wanted = [
        "The disk of this member cannot be written",
        "3 nodes dead",
        "The clock is more than half of max_clock_drift from the cluster's",
        "2 rendered files failed",
        "Heard, but cannot be reached at the address that it tells",
        "1 node suspect",
        "2 versions of the agent run",
        "1 rendered file changed by hand",
        "1 rendered file waiting for more than a minute",
    ]
    # The word before it stands for the mark, for who does not see that.
    assert [title.splitlines()[-1] for title in titles] == wanted
    assert [title.splitlines()[0] for title in titles] == ["Failure:"] * 4 + ["Warning:"] * 5
    todos = browser.texts(".troubles .todo")
    assert len(todos) == len(wanted) and all(todos)
    top = "document.querySelector(arguments[{}]).getBoundingClientRect().top"
    panel, first = browser.script(f"return [{top.format(0)}, {top.format(1)}]", ".trouble", "main tbody tr")
    assert panel < first
    assert browser.driver.title == "(9) Fleet · eu-west-app-001 · XDP Gossip"
    browser.click("3 nodes dead")
    browser.until(lambda: rows(browser) == 3, "the dead nodes only")
    go(browser, "documents")
    browser.until(lambda: browser.driver.title.startswith("(9) Documents"), "the title of the view")
    browser.click("9 problems")
    browser.shows("The disk of this member cannot be written")


def test_a_fleet_without_trouble_says_so_in_a_line() -> None:
    with Served(LargeFleet(40, 40, trouble=False)) as served:
        browser = Browser(served.url)
        browser.sign_in(TOKEN)
        browser.shows("Nothing is wrong: 40 nodes alive, 80 rendered files in place or on the way.", "nothing wrong")
        assert not browser.driver.find_elements(By.CSS_SELECTOR, ".troubles li")
        assert browser.driver.title == "Fleet · eu-west-app-001 · XDP Gossip"
        browser.look("fine")
        go(browser, "files")
        browser.shows("No file is failed, changed by hand, or waiting for long.")
        browser.close()


def test_what_is_not_known_is_not_called_fine() -> None:
    with Served(LargeFleet(40, 40, trouble=False)) as served:
        browser = Browser(served.url)
        browser.sign_in(TOKEN)
        browser.shows("Nothing is wrong", "nothing wrong")
        served.fleet.cannot_tell = True
        browser.script("location.hash = '#/files'")
        browser.shows("The files cannot be listed.", "1 problem")
        served.fleet.cannot_tell = False
        browser.click("Fleet")
        browser.shows("The files of the fleet cannot be read", "xdp-gossip doctor")
    browser.shows("No connection to this member", "What is shown is from", "1 problem")
    assert browser.driver.title.startswith("(1) Fleet")
    browser.look("lost")
    browser.driver.quit()  # refused requests are in the console


def test_a_node_that_stays_behind_is_told_and_one_that_follows_is_not(served: Served, desk: Browser) -> None:
    desk.script("const real = performance.now.bind(performance); performance.now = () => real() + (window.ahead ?? 0)")

    def later(number: int) -> None:
        served.fleet.odd_digests = {"ap-south-app-003": 1, "us-east-app-002": number}
        served.call(served.fleet.news, "app/limits")
        desk.until(lambda: "2 out of sync" in desk.text, "the list of nodes, read again")

    later(1)
    desk.script("window.ahead = 40000")
    asked = requests(desk)["nodes"]
    later(2)
    desk.until(lambda: requests(desk)["nodes"] > asked, "the list of nodes, read again")
    desk.shows("1 node with other documents for more than 30 s")
    desk.click("1 node with other documents for more than 30 s")
    desk.until(lambda: rows(desk) == 2, "those that are out of sync")


def test_who_comes_back_goes_on_where_they_were(desk: Browser) -> None:
    go(desk, f"documents/{quote('site/eu-west/nginx/', safe='')}")
    desk.shows("host-00400/config.yml")
    desk.press("a[aria-label$='host-00400/config.yml']")
    desk.shows("Who holds it, who applied it")
    desk.driver.back()
    desk.until(lambda: desk.script("return scrollY") > 1_000, "the place in the tree")
    desk.shows("host-00400/config.yml")


def test_files_in_trouble_of_the_whole_fleet(browser: Browser) -> None:
    go(browser, "files")
    browser.shows("4 files on 4 of 996 members; 1,992 files in all.")
    (table,) = browser.texts("table[aria-label='Files in trouble']")
    for word in ("ap-south-app-003", "198.18.1.4:8000", "/etc/nginx/nginx.conf", "failed", "exit status 1", "drifted"):
        assert word in table
    times = browser.script("return [...document.querySelectorAll('main td time')].map((one) => one.dateTime)")
    assert len(times) == 4 and all(time.endswith("Z") for time in times)


def test_keys_are_searched(browser: Browser) -> None:
    go(browser, "documents")
    browser.shows("site/")
    browser.type(".filter", "nginx HOST-0120")
    browser.shows("site/eu-west/nginx/host-01200/config.yml", "matching of 10,")
    browser.look("large-search")
    assert requests(browser)["documents"] == 1
    browser.click("Tree")
    browser.until(lambda: browser.script("return document.querySelector('.filter').value") == "", "an empty field")
    browser.click("List")
    browser.shows("200 shown of 10,")
    assert rows(browser) <= ROWS + 200


@pytest.mark.parametrize("context", ["secure", "clear"])
def test_an_unseen_key_is_seen_and_copied_as_it_is(desk: Browser, context: str) -> None:
    may_read_the_clipboard(desk)
    if context == "clear":  # over http from another host
        desk.script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    go(desk, "documents/app%2F")
    desk.shows("lim⟨U+200B⟩its", "⟨U+2800⟩", "two␣␣spaces␣", "⟨U+202E⟩txt.exe")
    marked = desk.script("return [...document.querySelectorAll('tbody .unseen')].map((one) => one.textContent)")
    assert len(marked) == 5
    for key in UNSEEN_KEYS:
        go(desk, f"documents/{quote(key, safe='')}")
        desk.shows("This key has characters that cannot be seen")
        assert "\u202e" not in desk.driver.title and "\u200b" not in desk.driver.title
        find = "[...document.querySelectorAll('button')].find((one) => one.textContent.trim() === 'Copy key')"
        desk.script(f"window.pressed = {find}; window.pressed.focus()")
        hear(desk)
        ActionChains(desk.driver).send_keys(Keys.ENTER).perform()
        clipped(desk, key)
        desk.until(lambda: {"Copied", "Copied: key"} <= set(desk.script("return window.heard")), "said and shown")
        assert desk.script("return document.activeElement === window.pressed")
    desk.look(f"unseen-{context}")
    go(desk, f"documents/{quote('app/limits', safe='')}")
    desk.shows("app/limits")
    assert "This key has characters" not in desk.text


def test_addresses_digests_and_content_are_copied(served: Served, desk: Browser) -> None:
    may_read_the_clipboard(desk)
    served.call(served.fleet.news, "copy/content", b"a\r\n\tb\xe2\x80\x8b \n")
    held: dict[str, Any] = {}
    served.call(lambda: held.update(digest=served.fleet.document("copy/content").digest))
    desk.press(".who [aria-label='Copy address 198.18.1.18:8000']")
    clipped(desk, "198.18.1.18:8000")
    go(desk, "documents/copy%2Fcontent")
    desk.press("[aria-label='Copy digest']")
    clipped(desk, held["digest"])
    desk.click("Show")
    desk.click("Copy content")
    clipped(desk, "a\r\n\tb\u200b \n")


def test_the_tree_by_keyboard(desk: Browser) -> None:
    go(desk, "documents")
    desk.shows("site/")
    assert focused(desk) == "main", "after a navigation the keyboard goes on in the content"
    keys = lambda *some: ActionChains(desk.driver).send_keys(*some).perform()  # noqa: E731
    desk.script("document.querySelector('[data-at]').focus()")
    assert focused(desk) == "app/, 5 documents"
    keys(Keys.ARROW_DOWN)
    assert focused(desk).startswith("site/, 10,")
    keys(Keys.ARROW_RIGHT)
    desk.shows("ap-south/", "eu-west/")
    keys(Keys.ARROW_RIGHT)
    assert focused(desk) == "site/ap-south/, 2,500 documents"
    keys(Keys.ENTER)
    desk.shows("grafana/")
    assert focused(desk) == "site/ap-south/, 2,500 documents"
    keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert focused(desk).startswith("site/, 10,") and "grafana/" not in desk.text
    keys(Keys.END)
    assert focused(desk) == "release"
    keys(Keys.ENTER)
    desk.shows("Who holds it, who applied it")
    desk.click("Documents")
    desk.shows("ap-south/")


def test_a_change_takes_the_focus_from_nobody_and_is_not_read_aloud(served: Served, desk: Browser) -> None:
    go(desk, "documents")
    desk.shows("app/")
    desk.script("document.querySelector('[data-at]').focus()")
    desk.script(
        "window.heard = []; for (const one of document.querySelectorAll('[role=status], [role=alert], [aria-live]'))"
        " new MutationObserver(() => heard.push(one.id || one.className)).observe(one,"
        " { childList: true, subtree: true, characterData: true })"
    )
    served.call(served.fleet.news, "app/focus")
    desk.until(lambda: focused(desk) == "app/, 6 documents", "another count, under the same focus")
    assert desk.script("return heard") == []


def test_landmarks_and_names(desk: Browser) -> None:
    for view in VIEWS:
        go(desk, view)
        desk.shows({"live": "Nothing was published"}.get(view, "problems"))
        found = desk.script(
            "return [document.querySelectorAll('main').length, document.querySelectorAll('header').length,"
            " document.querySelectorAll('main h1').length, document.querySelectorAll('nav:not([aria-label])').length,"
            " [...document.querySelectorAll('button, a[href], input')].filter((one) => !(one.getAttribute('aria-label')"
            " || one.textContent.trim() || one.labels?.length)).map((one) => one.outerHTML)]"
        )
        assert found == [1, 1, 1, 0, []], view


#: The least contrast of any text with what is behind it (WCAG 2.1, 1.4.3 asks for 4.5), and the sizes of all text.
LOOKS = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (one) => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4;
const light = (rgb) => rgb.slice(0, 3).map((one) => linear(one / 255))
  .reduce((sum, one, index) => sum + one * [.2126, .7152, .0722][index], 0);
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const colour = numbers(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
let least = [99, ''];
const sizes = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const one = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !one.checkVisibility() || one.closest('script, noscript, :disabled')) continue;
  const style = getComputedStyle(one);
  sizes.add(Math.round(parseFloat(style.fontSize) * 10) / 10);
  const [a, b] = [light(numbers(style.color)), light(behind(one))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < least[0]) least = [ratio, one.outerHTML.slice(0, 200)];
}
return [least, [...sizes].sort((a, b) => a - b)];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes_and_of_few_sizes(desk: Browser, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    desk.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    sizes: set[float] = set()
    for view in (*VIEWS, "documents/app%2F", f"documents/{quote(UNSEEN_KEYS[0], safe='')}"):
        go(desk, view)
        desk.shows({"live": "Nothing was published"}.get(view, "problems"))
        (ratio, element), found = desk.script(LOOKS)
        assert ratio >= 4.5, (view, ratio, element)
        sizes |= set(found)
        desk.look(f"{scheme}-{view.split('/')[0]}")
    assert len(sizes) <= 4, sizes
    sheet = (Path(__file__).resolve().parents[2] / "agent/xdp_gossip/web/app.css").read_text()
    used = {line.split("font-size:")[1].split(";")[0].strip() for line in sheet.split("\n") if "font-size:" in line}
    assert used <= {"var(--small)", "var(--fixed)", "var(--large)", "1rem"}, used
