"""Colours can be told apart by people who see little contrast, in both themes: WCAG 2.2, 1.4.3 and
1.4.11."""

import re

import pytest

from proxy.control.dashboard.render import HERE

CSS = (HERE / "static" / "dashboard.css").read_text()
TEXT, GRAPHIC = 4.5, 3.0
GROUNDS = ("ground", "card", "hover")
PAIRS = [
    *((name, on, TEXT) for name in ("text", "muted", "link") for on in GROUNDS),
    *((name, f"{name}-ground", TEXT) for name in ("good", "warn", "bad", "info")),
    ("text", "track", TEXT),  # a state of no colour
    ("bad", "card", TEXT),
    ("bad", "hover", TEXT),
    ("text", "warn-ground", TEXT),  # a call that has just arrived
    ("accent-text", "accent", TEXT),
    ("accent", "ground", GRAPHIC),  # what has the focus
    ("accent", "card", GRAPHIC),
    ("edge", "card", GRAPHIC),  # of what can be filled in or pressed
    ("edge", "ground", GRAPHIC),
    *((f"s{n}", "card", GRAPHIC) for n in range(8)),
]


def themes() -> dict[str, dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
        for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    )
    return {"light": light, "dark": light | dark}


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_what_its_definition_says():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out(theme):
    colours = themes()[theme]
    weak = {
        f"{name} on {ground}": round(found, 2)
        for name, ground, least in PAIRS
        if (found := contrast(colours[name], colours[ground])) < least
    }
    assert weak == {}


def test_dark_has_every_colour_of_its_own():
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    names = [set(re.findall(r"--([\w-]+):", block)) for block in (light, dark)]
    assert names[0] == names[1]


def test_figures_line_up():
    assert re.search(r"\.num \{[^}]*text-align: right;[^}]*tabular-nums", CSS)
