"""What can be wrong with the database, each with one clear line.

DatabaseError
 +-- DatabaseUnusable   cannot be opened or reached: path, permissions, driver, server
 +-- SchemaMismatch     its tables are not the ones this version works with
 +-- CatalogError       a key, scope or budget that cannot be declared as asked
 |    +-- NotKnown      there is no such thing
 |    +-- AlreadyThere  it would come twice
 |    +-- FromConfig    the configuration declares it, and is where it is changed
 +-- ReportError        a report that cannot be made as asked: unknown dimension, bad time range
"""

from collections.abc import Sequence


def reason(error: BaseException) -> str:
    """The database's own words in one line, without the statement."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else repr(error)


class DatabaseError(Exception):
    """Base of all the errors below."""


class DatabaseUnusable(DatabaseError):
    """The database cannot be opened or reached."""


class SchemaMismatch(DatabaseError):
    """The live schema differs from the models. `problems` lists how, `fix` what to do."""

    def __init__(self, problems: Sequence[str], fix: str) -> None:
        self.problems = list(problems)
        self.fix = fix
        shown = "; ".join(self.problems[:5])
        more = f"; and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
        super().__init__(f"database schema: {shown}{more}. {fix}")


class CatalogError(DatabaseError):
    """A declaration that cannot be stored, naming what is wrong with it."""


class NotKnown(CatalogError):
    """What is to be changed is not there."""


class AlreadyThere(CatalogError):
    """What is to be made is there already."""


class FromConfig(CatalogError):
    """What the configuration declares, it also takes back."""


class ReportError(DatabaseError):
    """A report request that makes no sense, naming the part that does not."""
