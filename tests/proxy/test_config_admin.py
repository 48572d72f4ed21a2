"""Viewers in the configuration."""

import pytest

from proxy.config import Admin, Viewer
from proxy.config_admin import check_admin
from proxy.config_reader import Problems


def problems(admin):
    found = Problems("test.yaml")
    check_admin(admin, found)
    return [f"{path}: {text}" for path, text in found._found]


def test_viewers_that_can_be_told_apart_are_fine():
    viewers = [Viewer("a", "x" * 16, "acme/search"), Viewer("b", "y" * 16, "acme/search")]
    assert problems(Admin(key="k", viewers=viewers)) == []


@pytest.mark.parametrize(
    ("viewer", "says"),
    [
        (Viewer("admin", "x" * 16, "acme/search"), "admin has this name already"),
        (Viewer("", "x" * 16, "acme/search"), "a name is"),
        (Viewer("a", "x" * 15, "acme/search"), "shorter than 16"),
        (Viewer("a", "k" * 16, "acme/search"), "is the same as admin.key"),
        (Viewer("a", "x" * 16, "search"), "expected ORG/TEAM"),
        (Viewer("a", "x" * 16, "acme/"), "expected ORG/TEAM"),
    ],
)
def test_what_is_wrong_with_a_viewer_is_said(viewer, says):
    (problem,) = problems(Admin(key="k" * 16, viewers=[viewer]))
    assert says in problem


def test_viewers_need_an_admin():
    assert "admin.key" in problems(Admin(viewers=[Viewer("a", "x" * 16, "acme/search")]))[0]
