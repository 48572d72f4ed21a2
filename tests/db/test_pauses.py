"""The ledger's thread of low priority lets calls through while it works."""

import sqlite3
import threading

import pytest

from db import pauses
from db.pauses import PAUSE_S, PIECE_S, Pieces, in_pieces, take_pauses
from db.threads import Threads

STEP_S = PIECE_S / 4


class Time:
    """Each look at the clock takes a quarter of a piece."""

    def __init__(self):
        self.now, self.worked, self.slept = 100.0, [0.0], []

    def perf_counter(self):
        self.now += STEP_S
        self.worked[-1] += STEP_S
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)
        self.worked.append(0.0)


@pytest.fixture
def clock(monkeypatch):
    made = Time()
    monkeypatch.setattr(pauses, "time", made)
    return made


def in_a_thread(work):
    """The pace of a thread is for good."""
    result = []
    thread = threading.Thread(target=lambda: (take_pauses(), result.append(work())))
    thread.start()
    thread.join()
    return result[0]


def test_a_thread_that_takes_pauses_sleeps_after_each_piece_and_loses_no_item(clock):
    assert in_a_thread(lambda: list(in_pieces(range(100)))) == list(range(100))
    assert len(clock.slept) > 10
    assert set(clock.slept) == {PAUSE_S}
    assert max(clock.worked) <= PIECE_S + 2 * STEP_S


def test_no_other_thread_pauses(clock):
    assert list(in_pieces(range(100))) == list(range(100))
    assert clock.slept == []


def test_a_statement_of_many_rows_pauses_between_them(clock):
    def insert():
        with sqlite3.connect(":memory:") as connection:
            connection.execute("CREATE TABLE numbers (n)")
            connection.executemany("INSERT INTO numbers VALUES (?)", Pieces([(1,)] * 100))
            return connection.execute("SELECT sum(n) FROM numbers").fetchone()[0]

    assert in_a_thread(insert) == 100
    assert len(clock.slept) > 10


async def test_only_work_that_can_wait_pauses(clock):
    threads = Threads(19)
    await threads.run(lambda: list(in_pieces(range(100))))
    slept = len(clock.slept)
    threads.hurry = True
    await threads.run(lambda: list(in_pieces(range(100))))
    assert len(clock.slept) == slept > 10
    threads.close()
