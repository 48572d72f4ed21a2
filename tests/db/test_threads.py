"""Who does the ledger's blocking work, and at which priority."""

import asyncio
import os
import threading

import pytest

from db.threads import RELIEF_S, STARVED_S, Threads

NICE = os.getpriority(os.PRIO_PROCESS, 0)
LOWER = min(NICE + 3, 19)


def nice_here():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.fixture
def threads():
    made = Threads(LOWER)
    yield made
    made.close()


async def test_work_runs_beside_the_loop_at_the_lower_priority(threads):
    assert await threads.run(nice_here) == LOWER
    assert nice_here() == NICE, "what the loop's thread starts would inherit it"


async def test_in_a_hurry_it_runs_at_normal_priority_and_goes_back_after(threads):
    await threads.run(nice_here)
    threads.hurry = True
    assert await threads.run(nice_here) == NICE
    threads.hurry = False
    assert await threads.run(nice_here) == LOWER


async def test_work_that_starves_runs_at_normal_priority_for_a_while():
    now = 100.0
    threads = Threads(LOWER, monotonic=lambda: now)

    def slow():
        nonlocal now
        now += STARVED_S + 0.01
        return nice_here()

    assert await threads.run(slow) == LOWER
    assert await threads.run(nice_here) == NICE
    now += RELIEF_S + 0.01
    assert await threads.run(nice_here) == LOWER
    threads.close()


async def test_once_there_was_nothing_to_do_work_can_wait_again():
    now = 100.0
    threads = Threads(LOWER, monotonic=lambda: now)

    def slow():
        nonlocal now
        now += STARVED_S + 0.01

    await threads.run(slow)
    threads.rested()
    assert await threads.run(nice_here) == LOWER
    threads.close()


async def test_without_a_priority_all_work_has_the_same_thread():
    threads = Threads()
    first = await threads.run(threading.get_ident)
    threads.hurry = True
    assert await threads.run(threading.get_ident) == first
    assert await threads.run(nice_here) == NICE
    threads.close()


async def test_what_was_begun_is_finished_before_it_closes(threads):
    begun, done = threading.Event(), []
    release = threading.Event()

    def work():
        begun.set()
        release.wait(10)
        done.append(True)

    running = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(begun.wait, 10)
    release.set()
    threads.close()
    assert done == [True]
    await running
