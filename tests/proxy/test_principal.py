"""Our own request headers: what they mean, and that mistakes are named."""

import pytest

from proxy.errors import Refusal
from proxy.principal import own_headers
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
        (b"x-tollkeeper-tags", b",".join(b"k%d=v" % i for i in range(17))),
        (b"x-tollkeeper-tags", b"k=" + b"v" * 128),
        (b"x-tollkeeper-max-cost-usd", b"cheap"),
        (b"x-tollkeeper-max-cost-usd", b"-1"),
        (b"x-tollkeeper-max-cost-usd", b"NaN"),
        (b"x-tollkeeper-include-usage", b"maybe"),
    ],
)
def test_mistakes_name_the_header(name: bytes, value: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        own_headers(RequestHead([(name, value)]))
    assert refused.value.code == "invalid_tollkeeper_header"
    assert name.decode() in refused.value.message
