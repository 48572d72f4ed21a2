"""What control does now and then: set its pace, follow new journals, keep the disk within bounds,
show that it lives, fold days that are over."""

import logging
from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.errors import reason
from db.journal import JournalError
from db.ledger_rollups import fold_day
from db.ledger_tags import fold_tags
from db.ledger_types import JournalState
from db.partitions import make_ahead
from db.transactions import is_lock_timeout
from proxy.config import Journal
from proxy.control.clock import Due
from proxy.control.opening import Parts
from proxy.control.refusals import Refusals
from proxy.control.session import Session
from proxy.wire import Ask, Meet

log = logging.getLogger(__name__)

HOST_TIMEOUT_MS = 60_000  # an epoch unseen for this long is labelled lost
CLOCK_SKEW_MS_MAX = 2_000
HOUSEKEEPING_S = 60.0
DAYS_S = 60.0
PARTITIONS_S = 3600.0
BACKLOG_BYTES = 8 * 2**20  # beyond it the ledger gets its share of the core; some 20,000 calls


def set_pace(parts: Parts) -> None:
    """The ledger yields to calls unless one of them waits for it, or it falls behind."""
    behind = parts.writer.backlog_bytes() > BACKLOG_BYTES
    parts.threads.hurry = behind or parts.leases.waiting > 0


def follow(parts: Parts, session: Session) -> bool:
    """Begin to read a new worker's journal, which is registered. False: there is no worker to
    serve, because it is gone already or its journal cannot be read."""
    try:
        start = JournalState(parts.epoch_id, (0, 0), finished=False, truncated=False)
        parts.writer.open(session.journal_id, start)
    except JournalError as exc:
        log.error("worker %d: %s", session.pid, exc)
        session.close()
        return False
    if session.gone:
        parts.recovery.mourn(session.journal_id)
        return False
    parts.leases.attach(session.journal_id, session.send)
    return True


def tidy_disk(parts: Parts, journal: Journal, now_ms: int) -> None:
    """Also while the ledger is out of reach, when it fills."""
    older_than_s = now_ms / 1000 - journal.keep_h * 3600
    full = parts.writer.tidy(older_than_s=older_than_s, bytes_max=journal.max_mb * 2**20)
    if parts.leases.set_full(full):
        what = "full: new calls are refused" if full else "not full any more"
        log.error("the journal (journal.max_mb) is %s", what)


async def show_life(parts: Parts, now_ms: int) -> None:
    """Compare the clocks, and label hosts that do not show theirs. Raises EpochClosed."""
    skew_ms = abs(await parts.ledger.touch_epoch(parts.epoch_id) - now_ms)
    if skew_ms > CLOCK_SKEW_MS_MAX:
        log.warning("this clock and the database's are %d ms apart", skew_ms)
    for epoch_id in await parts.ledger.mark_lost(HOST_TIMEOUT_MS):
        log.warning("epoch %d is lost: its host has not been seen", epoch_id)


def take_question(parts: Parts, session: Session, ask: Ask | Meet) -> None:
    if isinstance(ask, Meet):
        parts.customers.on_ask(session.send, ask)
    else:
        parts.objects.on_ask(session.send, ask)


async def keep_house(parts: Parts, due: Due, now_ms: int) -> None:
    if due.now("housekeeping", HOUSEKEEPING_S):
        await parts.objects.housekeeping(now_ms)
        await parts.customers.housekeeping(now_ms)
    if due.now("days", DAYS_S) and await fold_one_day(parts, now_ms):
        due["days"] = 0.0  # the next one in the next turn
    if due.now("tags", DAYS_S) and await fold_some_tags(parts, now_ms):
        due["tags"] = 0.0
    if due.now("partitions", PARTITIONS_S):
        await make_partitions(parts, now_ms)


async def count_refusals(parts: Parts, refusals: Refusals, due: Due, now_ms: int) -> None:
    await refusals.store(parts.transactions, parts.welcome.host_id, due, now_ms)


async def make_partitions(parts: Parts, now_ms: int) -> None:
    """For months to come, where cost rows lie in partitions. One that cannot be made is no harm:
    its rows go where those of no month are, and it is tried again."""
    if parts.transactions.dialect != "postgresql":
        return
    try:
        made = await parts.transactions.run(lambda connection: make_ahead(connection, now_ms))
    except DBAPIError as exc:
        log.warning("a partition of cost rows cannot be made: %s", reason(exc))
    else:
        for name in made:
            log.info("partition %s made", name)


async def fold_one_day(parts: Parts, now_ms: int) -> bool:
    """Whether there was one. While the lock for it cannot be had reports read hours, as before."""
    return await _fold(parts, lambda connection: fold_day(connection, now_ms) is not None)


async def fold_some_tags(parts: Parts, now_ms: int) -> bool:
    """Whether there were calls to add up. While that cannot be done reports read the calls."""
    return await _fold(parts, lambda connection: fold_tags(connection, now_ms))


async def _fold(parts: Parts, work: Callable[[Connection], bool]) -> bool:
    try:
        return await parts.transactions.run(work)
    except DBAPIError as exc:
        if not is_lock_timeout(exc):
            raise
        log.warning("rollups cannot be made: %s", reason(exc))
        return False
