# SPDX-License-Identifier: MIT
"""What the page shows of zones: a column, an overview, a lost zone first; and nothing of them without zones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.agent.fake_node_list import Change
from tests.ui.browser import Browser
from tests.ui.large import TOKEN, LargeFleet, Served
from tests.ui.test_page_large import LOOKS
from xdp_gossip.core.types import Member, State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HOSTILE = "<img src=x onerror=owned=1>/ü%2F"


class ZonedFleet(LargeFleet):
    """Zones: ``paris`` whole, with this member; ``lyon`` with a dead node; ``nice`` lost; some nodes without a zone."""

    def __init__(self) -> None:
        super().__init__(nodes=13, documents=3, trouble=False)
        self.record = replace(self.record, zone="paris")
        zones = ("paris", "lyon", "nice", "")
        self.others = [in_zone(member, zones[at % 4]) for at, member in enumerate(self.others)]
        self.others[1] = replace(self.others[1], state=State.DEAD)
        for at in (2, 6):
            self.others[at] = replace(self.others[at], state=State.DEAD)
        self.others[10] = replace(self.others[10], state=State.AGENT_DOWN)
        self.others[4] = replace(self.others[4], state=State.LEFT)

    def turn(self, at: int, state: State | None = None, zone: str | None = None) -> None:
        """Give a node another state or zone, which the event stream tells of."""
        member = self.others[at] = in_zone(replace(self.others[at], state=state or self.others[at].state), zone)
        self.revision += 1
        self._note(Change(self.revision, "node", "updated", member=member))


def in_zone(member: Member, zone: str | None) -> Member:
    assert member.record is not None
    return member if zone is None else replace(member, record=replace(member.record, zone=zone))


@pytest.fixture(name="served")
def fixture_served() -> Iterator[Served]:
    with Served(ZonedFleet()) as served:
        yield served


@pytest.fixture(name="browser", params=["desk", "phone"])
def fixture_browser(served: Served, request: pytest.FixtureRequest) -> Iterator[Browser]:
    made = Browser(served.url, request.param == "phone")
    made.sign_in(TOKEN)
    made.shows("as seen by", "Zones")
    yield made
    made.close()


#: What stands in the column for a node without a zone.
NONE = "\u2013"


def zones(browser: Browser) -> list[str]:
    return [text.replace("\n", " ") for text in browser.texts(".zones li")]


def names(browser: Browser) -> int:
    return len(browser.texts("main tbody tr"))


def test_zones_are_seen_at_a_glance(browser: Browser) -> None:
    # Who left is not missed: paris is whole.
    expected = ["nice lost: 0 of 3 present", "lyon 2 of 3 present", "paris 3 of 3 present", "no zone 3 of 3 present"]
    browser.until(lambda: zones(browser) == expected, "the zones")
    browser.shows("1 zone lost", "1 node dead")
    titles = [text.splitlines()[-1] for text in browser.texts(".troubles .title")]
    assert titles == ["1 zone lost", "1 node dead"], "the nodes of the lost zone are one problem"
    browser.shows("No node is present in nice (3 nodes).", "zone paris, mode")
    places = browser.script(
        "return [...document.querySelectorAll('td[data-label=Zone]')].map((one) => one.textContent)"
    )
    assert sorted(set(places)) == ["lyon", "nice", "paris", NONE] and len(places) == 13
    assert not browser.script("return document.querySelectorAll('.zoned[hidden]').length")
    browser.look("zones")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_zones_are_readable_in_both_schemes_and_by_keyboard(browser: Browser, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.script("document.querySelector('.zones li:first-child button').focus()")
    browser.script("document.activeElement.click()")
    browser.until(lambda: names(browser) == 3, "the nodes of the lost zone")
    (ratio, element), sizes = browser.script(LOOKS)
    assert ratio >= 4.5, (ratio, element)
    assert len(sizes) <= 4
    assert browser.script("return document.activeElement.textContent") == "nice lost: 0 of 3 present"
    browser.look(f"zones-{scheme}")


def test_a_zone_is_chosen_searched_and_sorted(browser: Browser) -> None:
    browser.press(".zones li:nth-child(2) button")
    browser.until(lambda: names(browser) == 3, "the nodes of lyon")
    assert browser.attributes(".zone[aria-pressed=true] .name", "class") == ["name"]
    assert browser.script("return document.activeElement.textContent").startswith("lyon")
    browser.look("zone-chosen")
    browser.press(".zone[aria-pressed=true]")
    browser.until(lambda: names(browser) == 13, "all nodes")
    browser.script("scrollTo(0, 0)")
    browser.click("1 zone lost")
    browser.until(lambda: names(browser) == 3, "the nodes of the lost zone")
    browser.script("location.hash = '#/fleet/zone/'")
    browser.until(lambda: names(browser) == 3, "the nodes without a zone")
    browser.script("location.hash = '#/fleet/dead'")
    browser.until(lambda: names(browser) == 3, "the dead nodes")
    browser.script("location.hash = '#/fleet'")
    browser.type(".filter", "paris")
    browser.until(lambda: names(browser) == 4, "the nodes of paris, with the one that left")
    if browser.name == "desk":  # a phone has no headings of columns
        browser.script("const filter = document.querySelector('.filter'); filter.value = '';"
                       "filter.dispatchEvent(new Event('input'))")  # fmt: skip
        browser.until(lambda: names(browser) == 13, "all nodes")
        browser.click("Zone")
        order = "return [...document.querySelectorAll('td[data-label=Zone]')].map((one) => one.textContent)"
        expected = [NONE] * 3 + ["lyon"] * 3 + ["nice"] * 3 + ["paris"] * 4
        browser.until(lambda: browser.script(order) == expected, "the nodes by zone")


def test_a_zone_that_is_lost_and_returns_is_seen_without_a_reload(served: Served, browser: Browser) -> None:
    fleet = served.fleet
    assert isinstance(fleet, ZonedFleet)
    for at in (5, 9):
        served.call(fleet.turn, at, State.DEAD)
    browser.shows("lost: 0 of 3 present", "2 zones lost", "No node is present in lyon (3 nodes), nice (3 nodes).")
    browser.script("document.querySelector('.zone').focus()")
    served.call(fleet.turn, 2, State.SUSPECT)
    for at in (1, 5, 9):
        served.call(fleet.turn, at, State.ALIVE)
    expected = ["nice 1 of 3 present", "lyon 3 of 3 present", "paris 3 of 3 present", "no zone 3 of 3 present"]
    browser.until(lambda: zones(browser) == expected, "zones that returned")
    browser.until(lambda: "lost" not in browser.text, "no problem about zones")
    assert browser.script("return document.activeElement.dataset.zone") == "lyon", "the focus stays at the zone"


def test_many_zones_and_hostile_names(served: Served, browser: Browser) -> None:
    fleet = served.fleet
    assert isinstance(fleet, ZonedFleet)

    def many() -> None:
        for at in range(12):
            fleet.turn(at, State.ALIVE, f"zone-{at}" if at else HOSTILE)
        for at in range(3):
            fleet.others.append(replace(in_zone(fleet.others[1], f"more-{at}"), address=fleet.others[0].address))
        fleet.others[-3:] = [
            replace(one, address=replace(one.address, port=9000 + at)) for at, one in enumerate(fleet.others[-3:])
        ]

    served.call(many)
    browser.driver.refresh()
    browser.shows("Zones", "Show all 16 zones", HOSTILE)
    assert len(zones(browser)) == 12
    browser.click("Show all 16 zones")
    browser.until(lambda: len(zones(browser)) == 16, "all zones")
    assert "Show all" not in browser.text
    browser.look("zones-many")
    browser.click(f"{HOSTILE} 1 of 1 present")
    browser.until(lambda: names(browser) == 1, "the node of that zone")
    assert "zone/%3Cimg" in browser.driver.current_url
    browser.driver.refresh()
    browser.shows("Zones")
    browser.until(lambda: names(browser) == 1, "the same after a reload")


def test_without_zones_nothing_of_them_is_shown(served: Served, browser: Browser) -> None:
    fleet = served.fleet
    assert isinstance(fleet, ZonedFleet)

    def none() -> None:
        fleet.record = replace(fleet.record, zone="")
        for at in range(12):
            fleet.turn(at, zone="")

    def shown() -> list[int]:
        script = "return ['.overview', 'th.zoned', 'td.zoned'].map((css) => [...document.querySelectorAll(css)]"
        return list(browser.script(f"{script}.filter((one) => one.checkVisibility()).length)"))

    served.call(none)
    browser.driver.refresh()
    browser.shows("8 alive")
    assert shown() == [0, 0, 0] and "zone" not in browser.text.lower()
    browser.look("zones-none")
    # The first node with a zone brings the column, for rows that are there already as well.
    served.call(fleet.turn, 0, None, "paris")
    browser.shows("Zones", "paris")
    browser.until(lambda: shown() == [1, 1, 13], "the overview and the column")
    served.call(fleet.turn, 0, None, "")
    browser.until(lambda: shown() == [0, 0, 0], "no column")
