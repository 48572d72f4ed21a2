"""The OpenAPI document and the answers keep to each other, whatever is asked; nothing is a 5xx.

Every operation is walked with what its schema allows and with what it does not.
"""

import json
import re
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy import cli
from proxy.control.api.endpoints import ENDPOINTS
from proxy.control.api.openapi import document
from proxy.control.api.table import PREFIX

DOCUMENT = json.loads(json.dumps(document(ENDPOINTS)))
OPERATIONS = [
    (path, method, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
DOCS = Path(__file__).parents[4] / "docs/admin-api.md"
LIKELY = (
    "", "0", "1", "2", "3", "-1", "1e9", "true", "team,model", "total", "gpt-5", "acme/search",
    "acme", "prod", "openai", "2026-01-31", "7d", "Europe/Berlin", "0001-01-01", "999999w",
    "%", "*", "[", "\u202e", "\0", "'; --", "configured", "openai/gpt-5", "tag:x", "9" * 30,
)  # fmt: skip
TEXT = st.sampled_from(LIKELY) | st.text("aZ9 /%&=+\\\"'<\u00e9\u4e2d\U0001f600\x7f\n", max_size=8)


def values(schema):
    """Of a schema, in the main: its edges, and what people might send instead."""
    schema = {**schema, **(schema.get("anyOf") or [{}])[0]}
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "integer":
        low, high = schema.get("minimum", 0), schema.get("maximum", 2**63)
        return st.integers(low, min(high, low + 3)) | st.sampled_from([low - 1, high, high + 1])
    if kind == "number":
        return st.sampled_from([schema.get("minimum", 0.5), 0.5, -1.0, 1e300])
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=3)
    if kind == "object":
        return st.just({"model": "gpt-5", "messages": []}) | st.dictionaries(TEXT, TEXT, max_size=2)
    return TEXT


def fields(properties, required):
    optional = {name: values(each) for name, each in properties.items() if name not in required}
    always = {name: values(properties[name]) for name in required}
    return st.fixed_dictionaries(always, optional=optional)


@st.composite
def requests(draw, path, operation):
    """(URL, body)."""
    parameters = [each for each in operation["parameters"] if each["name"] != "tags"]
    for each in parameters:
        if each["in"] == "path":
            text = draw(values(each["schema"]).map(str).filter(lambda text: text))
            path = path.replace(f"{{{each['name']}}}", quote(text, safe=""))
    asked = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
    required = [each["name"] for each in parameters if each["in"] == "query" and each["required"]]
    found = draw(fields(asked, required))
    pairs = [
        (name, one)
        for name, value in found.items()
        for one in (value if isinstance(value, list) else [value])
    ]
    query = "&".join(f"{name}={quote(str(value))}" for name, value in pairs)
    url = f"{path}?{query}" if query else path
    if "requestBody" not in operation:
        return url, None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return url, draw(fields(schema["properties"], schema.get("required", [])))


def check(operation, answer):
    assert answer.status_code < 500, answer.text
    said = operation["responses"].get(str(answer.status_code))
    assert said, f"{answer.status_code} is not in the document"
    media = answer.headers["content-type"].partition(";")[0]
    schema = said["content"][media].get("schema")
    if media == "application/json":
        whole = {**schema, "components": DOCUMENT["components"]}
        Draft202012Validator(whole).validate(answer.json())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "method", "operation"), OPERATIONS, ids=lambda part: part if type(part) is str else ""
)
async def test_whatever_is_asked_the_answer_is_documented(site, path, method, operation):
    asked = []

    @settings(
        max_examples=4,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(path, operation))
    def collect(request):
        asked.append(request)

    collect()
    for url, body in asked:
        # Text that JSON cannot carry never leaves the client.
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        answer = await site.admin.request(
            method, f"http://control{url}", content=content, headers=headers
        )
        check(operation, answer)


def test_the_document_stands_by_itself():
    text = json.dumps(DOCUMENT)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids) == len(ENDPOINTS)


def test_the_docs_list_every_endpoint():
    rows = re.findall(r"^\| `(\w+) (/[^`]*)` \| (\w+) \|", DOCS.read_text(), re.M)
    assert rows == [(each.method, each.path, each.role.name.lower()) for each in ENDPOINTS]
    assert PREFIX in DOCS.read_text()


def test_the_docs_say_of_every_command_where_it_is_here():
    def names(command, path=""):
        if not isinstance(command, click.Group):
            return [path]
        found = [path] if command.invoke_without_command and path else []
        for name in command.list_commands(click.Context(command)):
            each = command.get_command(click.Context(command), name)
            found += names(each, f"{path} {name}".strip())
        return found

    section = DOCS.read_text().partition("## Commands and endpoints")[2].partition("## Audit")[0]
    assert [name for name in names(cli.main) if f"`{name}`" not in section] == []
    said = re.findall(r"`(?:GET |POST )?(/[^`]+)`", section)
    assert set(said) <= {each.path for each in ENDPOINTS}
