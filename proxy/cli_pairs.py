"""The value of `--where`."""

from typing import Any

import click


class Pairs(click.ParamType[tuple[str, str]]):
    name = "DIMENSION=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        name, equals, wanted = value.partition("=")
        if not equals:
            self.fail(f"{value!r}: expected DIMENSION=VALUE, like team=acme/search", param, ctx)
        return name, wanted
