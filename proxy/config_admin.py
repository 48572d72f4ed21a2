"""Who may use control's port: the checks of the section `admin`."""

from proxy.config import ADMIN_NAME, Admin
from proxy.config_reader import Problems

VIEWER_KEY_CHARS_MIN = 16


def check_admin(admin: Admin, problems: Problems) -> None:
    names = {ADMIN_NAME: "admin"}
    keys = {admin.key: "admin.key"}
    if admin.viewers and not admin.key:
        problems.add_check("admin.key", "missing: without it there is nothing to view")
    for index, viewer in enumerate(admin.viewers):
        path = f"admin.viewers[{index}]"
        if not viewer.name or not viewer.name.isprintable() or len(viewer.name) > 64:
            problems.add_check(f"{path}.name", "a name is 1 to 64 printable characters")
        if names.setdefault(viewer.name, path) != path:
            problems.add_check(f"{path}.name", f"{names[viewer.name]} has this name already")
        if len(viewer.key) < VIEWER_KEY_CHARS_MIN:
            problems.add_check(f"{path}.key", f"shorter than {VIEWER_KEY_CHARS_MIN} characters")
        if keys.setdefault(viewer.key, f"{path}.key") != f"{path}.key":
            problems.add_check(f"{path}.key", f"is the same as {keys[viewer.key]}")
        if viewer.team.count("/") != 1 or not all(viewer.team.split("/")):
            problems.add_check(f"{path}.team", "expected ORG/TEAM")
