# SPDX-License-Identifier: MIT
"""Headless Chromium at the page, and what a test asks of it. Screenshots are left in .cache/ui/, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.patience import patient

SHOTS = Path(__file__).resolve().parents[2] / ".cache" / "ui"
SECONDS = patient(20.0)


class Browser:
    """A browser at the page of one member, at a desk or on a phone."""

    def __init__(self, url: str, phone: bool = False, *, names: str = "") -> None:
        """``names``: rules for names of hosts, such as ``MAP evil.example 127.0.0.1``."""
        width, height = (375, 812) if phone else (1280, 800)
        options = Options()
        options.binary_location = "/usr/bin/chromium"
        # Its sandbox needs namespaces that a container may lack; it sees nothing but these agents.
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
            options.add_argument(word)
        if names:
            options.add_argument(f"--host-resolver-rules={names}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.name = "phone" if phone else "desk"
        if phone:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.url = url

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Ask until the answer is true. The page may draw a view anew at any moment, between two calls of the driver
        as well: an answer that met an element which is gone is asked for again."""
        wait = WebDriverWait(self.driver, SECONDS, 0.1, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: true(), what)

    @property
    def text(self) -> str:
        return self.texts("body")[0]

    def texts(self, css: str) -> list[str]:
        """What each of the elements shows, of one moment; an empty list without any."""
        found: tuple[list[str]] = self.until(
            lambda: ([str(item.text) for item in self.driver.find_elements(By.CSS_SELECTOR, css)],),
            f"the texts of {css}",
        )
        return found[0]

    def attributes(self, css: str, name: str) -> list[str | None]:
        """The attribute of each of the elements, of one moment; an empty list without any."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.getAttribute(arguments[1]))"
        found: list[str | None] = self.script(script, css, name)
        return found

    def shows(self, *words: str) -> None:
        """Until the page shows all ``words``."""
        try:
            self.until(lambda: all(word in self.text for word in words), "")
        except TimeoutException:
            missing = [word for word in words if word not in self.text]
            raise AssertionError(f"expected {missing}, got:\n{self.text}") from None

    def click(self, label: str) -> None:
        """Click the first link or button of this label."""
        self._act(By.XPATH, f"//*[self::a or self::button][normalize-space()='{label}']", lambda one: one.click())

    def press(self, css: str) -> None:
        """Click the first element that this selects."""
        self._act(By.CSS_SELECTOR, css, lambda one: one.click())

    def type(self, css: str, keys: str) -> None:
        """Type into the first element that this selects."""
        self._act(By.CSS_SELECTOR, css, lambda one: one.send_keys(keys))

    def _act(self, by: str, what: str, act: Callable[[Any], None]) -> None:
        def acted() -> bool:
            found = self.driver.find_elements(by, what)
            if found:
                act(found[0])
            return bool(found)

        self.until(acted, f"no {what}")

    def sign_in(self, token: str) -> None:
        self.driver.get(self.url)
        self.type("#token", token + Keys.ENTER)

    def look(self, name: str) -> None:
        """Leave a screenshot; nothing may need scrolling sideways, and nothing hostile may have run."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SHOTS / f"{self.name}-{name}.png"))
        wide, inner, owned, alien = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth, window.owned ?? null,"
            " document.querySelectorAll('main img, main script, main iframe, [onerror], [onload],"
            ' a[href^="javascript"]\').length]'
        )
        assert wide <= inner, f"{name}: {wide} pixels wide in a window of {inner}"
        assert owned is None and alien == 0, f"{name}: text became markup"

    def complaints(self) -> list[str]:
        """Errors in the browser's console, but for the questions that find out what a token permits."""
        logged = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [
            text
            for text in logged
            if not ("401 (Unauthorized)" in text or ("rendered/fleet" in text and "403 (Forbidden)" in text))
        ]

    def script(self, text: str, *values: Any) -> Any:
        """What a piece of script returns."""
        return self.driver.execute_script(text, *values)

    def close(self) -> None:
        """End it; nothing may have gone wrong in the console."""
        try:
            assert self.complaints() == []
        finally:
            self.driver.quit()
