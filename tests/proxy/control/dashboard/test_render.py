"""Figures as people read them."""

import pytest
from jinja2 import UndefinedError

from proxy.control.dashboard.render import (
    Assets,
    Templates,
    amount,
    nano,
    percent,
    segment,
    short,
    usd,
    when,
)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0"),
        (1, "$0.000000001"),
        (1_234_567, "$0.00123"),
        (9_999_999, "$0.01"),
        (10_000_000, "$0.01"),
        (1_005_000_000, "$1.01"),
        (1_234_567_891_234_567, "$1,234,567.89"),
        (-2_500_000_000, "-$2.50"),
    ],
)
def test_dollars(nano_usd, text):
    assert usd(nano_usd) == text


def test_other_figures():
    assert [short(n) for n in (9_999, 12_345, 1_234_567, 2 * 10**9)] == [
        "9,999", "12.3 k", "1.2 M", "2.0 G",
    ]  # fmt: skip
    assert [percent(n, 1000) for n in (0, 9, 10, 999, 2500)] == [
        "0 %",
        "< 1 %",
        "1 %",
        "99 %",
        "250 %",
    ]
    assert percent(0, 0) == "0 %"
    assert amount(12_000, "tokens") == "12,000 tokens"
    assert nano("0.000000001") == 1
    assert when(0) == "1970-01-01 00:00:00"
    assert when(None) == ""
    assert segment("a/b&c") == "a%2Fb%26c"


def test_everything_is_escaped_and_nothing_is_forgotten():
    templates = Templates(Assets())
    values = {"title": "<b>", "text": '"&', "identity": None, "is_admin": False, "csrf": "",
              "path": "", "outage": False}  # fmt: skip
    html = templates.text("login.html", values | {"off": False, "problem": "<i>", "to": '">'})
    assert "&lt;i&gt;" in html
    assert 'value="&#34;&gt;"' in html
    with pytest.raises(UndefinedError):
        templates.text("login.html", {})
