"""Our own request headers: what they mean, and that mistakes are named."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.journal_records import CUSTOMER_TAG
from proxy.errors import Refusal
from proxy.principal import TAGS_MAX, own_headers
from proxy.request_head import RequestHead


def test_everything_at_once() -> None:
    own = own_headers(
        RequestHead(
            [
                (b"content-type", b"application/json"),
                (b"x-tollkeeper-user", b"ann@acme.test"),
                (b"x-tollkeeper-project", b"ranking"),
                (b"x-tollkeeper-tags", b"env=prod, feature = search ,"),
                (b"x-tollkeeper-max-cost-usd", b"0.25"),
                (b"x-tollkeeper-include-usage", b"off"),
                (b"x-stainless-retry-count", b"2"),
            ]
        )
    )
    assert own.user == "ann@acme.test"
    assert own.project == "ranking"
    assert own.tags == {"env": "prod", "feature": "search"}
    assert own.max_cost_nano == 250_000_000
    assert own.include_usage is False
    assert own.client_retry == 2


@given(st.text(max_size=140) | st.from_regex(r"[\w.@:+/-]{1,129}", fullmatch=True))
def test_a_customer_is_what_was_sent_or_refused(customer: str) -> None:
    """In the tags of the row too, however many others there are."""
    tags = ",".join(f"k{number}=v" for number in range(TAGS_MAX)).encode()
    headers = [(b"x-tollkeeper-customer", customer.encode()), (b"x-tollkeeper-tags", tags)]
    if re.fullmatch(r"[A-Za-z0-9_.@:+/-]{1,128}", customer.strip()):
        own = own_headers(RequestHead(headers))
        assert own.customer == own.tags[CUSTOMER_TAG] == customer.strip()
    else:
        with pytest.raises(Refusal, match="x-tollkeeper-customer"):
            own_headers(RequestHead(headers))


def test_a_customer_is_named_once() -> None:
    with pytest.raises(Refusal, match="twice"):
        own_headers(RequestHead([(b"x-tollkeeper-customer", b"a")] * 2))


def test_nothing() -> None:
    own = own_headers(RequestHead([(b"accept", b"*/*"), (b"x-stainless-retry-count", b"zzz")]))
    assert (own.user, own.project, own.tags, own.max_cost_nano) == ("", "", {}, None)
    assert own.include_usage
    assert own.client_retry == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-tollkeeper-user", b""),
        (b"x-tollkeeper-user", b"a" * 129),
        (b"x-tollkeeper-user", b"ann\xe4"),
        (b"x-tollkeeper-project", b"a b"),
        (b"x-tollkeeper-tags", b"novalue"),
        (b"x-tollkeeper-tags", b"=v"),
        (b"x-tollkeeper-tags", b"tollkeeper.x=v"),
        (b"x-tollkeeper-tags", b",".join(b"k%d=v" % i for i in range(17))),
        (b"x-tollkeeper-tags", b"k=" + b"v" * 128),
        (b"x-tollkeeper-max-cost-usd", b"cheap"),
        (b"x-tollkeeper-max-cost-usd", b"-1"),
        (b"x-tollkeeper-max-cost-usd", b"NaN"),
        (b"x-tollkeeper-max-cost-usd", b""),
        (b"x-tollkeeper-max-cost-usd", b"1_0"),
        (b"x-tollkeeper-max-cost-usd", b"1e99"),
        (b"x-tollkeeper-max-cost-usd", b"9999999999"),
        (b"x-tollkeeper-tags", b"a=b\x1b[31m"),
        (b"x-tollkeeper-include-usage", b"maybe"),
    ],
)
def test_mistakes_name_the_header(name: bytes, value: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        own_headers(RequestHead([(name, value)]))
    assert refused.value.code == "invalid_tollkeeper_header"
    assert name.decode() in refused.value.message


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (b"0", 0),
        (b"0.000000001", 1),
        (b"0.0000000019", 1),
        (b"1e-05", 10_000),
        (b"2.5E-3", 2_500_000),
        (b"999999999.9", 999_999_999_900_000_000),
    ],
)
def test_a_cap_is_exact_and_never_rounded_up(value: bytes, nano: int) -> None:
    assert own_headers(RequestHead([(b"x-tollkeeper-max-cost-usd", value)])).max_cost_nano == nano


def test_a_cap_given_twice_is_no_cap() -> None:
    header = (b"x-tollkeeper-max-cost-usd", b"1")
    with pytest.raises(Refusal, match="given twice"):
        own_headers(RequestHead([header, header]))


def test_tags_of_several_headers_add_up() -> None:
    name = b"x-tollkeeper-tags"
    own = own_headers(RequestHead([(name, b"env=prod,a=1"), (name, "a=2,stadt=Köln".encode())]))
    assert own.tags == {"env": "prod", "a": "2", "stadt": "Köln"}
    assert own_headers(RequestHead([(name, b"stadt=K\xf6ln")])).tags == {"stadt": "Köln"}
    many = [(name, b"k%d=v" % number) for number in range(17)]
    with pytest.raises(Refusal, match="at most 16"):
        own_headers(RequestHead(many))
