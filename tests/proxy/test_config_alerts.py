"""What is wrong with channels, routes and scheduled reports is said with its path."""

import re

import pytest

from proxy.config import ConfigError
from proxy.config_loader import load
from tests.proxy.cli_runner import CONFIG
from tests.source_code import read

URL = "https://ops.example.com/T0KEN"


def loaded(tmp_path, text, **env):
    path = tmp_path / "config.yaml"
    path.write_text(f"{CONFIG}\n{text}")
    return load(path, env)


def test_the_example_in_the_document_loads(tmp_path):
    examples = re.findall(r"```yaml\n(alerts:.*?)```", read("docs/configuration.md"), re.S)
    env = {"ALERT_SECRET": "a", "SLACK_WEBHOOK_URL": URL, "SMTP_PASSWORD": "p"}
    config = loaded(tmp_path, examples[0], **env)
    assert config.alerts.channels["chat"].url == URL
    assert config.reports[0].to == ["finance"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("channels: {ops: {kind: webhook, url: nowhere, secret: s}}", "ops.url: expected http"),
        (f"channels: {{ops: {{kind: webhook, url: '{URL}'}}}}", "ops.secret: missing"),
        (f"channels: {{ops: {{kind: slack, url: '{URL}', secret: s}}}}", "secret: is of no use"),
        ("channels: {ops: {kind: fax}}", "ops.kind: expected one of email, log"),
        ("channels: {'O K': {kind: log}}", "a channel's name is made of"),
        ("channels: {log: {kind: email}}", "this name is the log's"),
        ("channels: {m: {kind: email, host: h, recipients: [a@b]}}", "sender: expected an"),
        ("channels: {m: {kind: email, host: h, sender: a@b}}", "m.recipients: missing"),
        (
            "channels: {m: {kind: email, host: h, sender: a@b, recipients: ['a@b\\nX: y']}}",
            "m.recipients.0.: expected an address",
        ),
        (
            "channels: {m: {kind: email, host: h, sender: a@b, recipients: [a@b], user: u, "
            "password: p, security: none}}",
            "m.user: a password is not sent in the clear",
        ),
        ("routes: [{to: [nobody]}]", "routes.0..to.0.: no channel is called 'nobody'"),
        ("routes: [{kinds: [budget_*]}]", "routes.0..to: missing"),
        ("routes: [{to: [log], kinds: [nothing]}]", "kinds.0.: no such kind; there are: budget_"),
        ("anomalies: {minimum_usd: -1}", "minimum_usd: expected an amount, 0 or more"),
        ("anomalies: {by: model}", "by: expected one of key, off"),
    ],
)  # fmt: skip
def test_problems_name_their_path_and_no_secret(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        loaded(tmp_path, f"alerts:\n  {text}")
    assert "T0KEN" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: a, at: noon, to: [log]}", "at: expected `daily 08:00`"),
        ("{name: a, at: daily 08:00}", "to: missing"),
        ("{name: a, at: daily 08:00, to: [x]}", "no channel is called 'x'"),
        ("{name: 'a b', at: daily 08:00, to: [log]}", "a name is made of"),
        ("{name: a, at: daily 08:00, to: [log], timezone: Mars}", "unknown time zone 'Mars'"),
        ("{name: a, at: daily 08:00, to: [log]}, {name: a, at: daily 09:00}", "duplicate"),
    ],
)  # fmt: skip
def test_problems_of_reports(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, f"reports: [{text}]")
