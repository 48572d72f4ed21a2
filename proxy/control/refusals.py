"""The newest refused calls of this host's workers, since control has started."""

from collections import Counter, deque
from collections.abc import Callable, Iterable

from proxy.wire import Refused

KEPT_MAX = 2_000

Sees = Callable[[str, str], bool]  # whether somebody may see an organization's team


class Refusals:
    def __init__(self) -> None:
        self._newest: deque[Refused] = deque(maxlen=KEPT_MAX)

    def add(self, refused: Iterable[Refused]) -> None:
        self._newest.extendleft(refused)

    def newest(self, sees: Sees) -> list[Refused]:
        """The last one first."""
        return [each for each in self._newest if sees(each.organization, each.team)]

    def find(self, request_id: str, sees: Sees) -> Refused | None:
        return next((each for each in self.newest(sees) if each.request_id == request_id), None)

    def counts(self, sees: Sees) -> list[tuple[str, int]]:
        """By code, the most frequent first."""
        return Counter(each.code for each in self.newest(sees)).most_common()
