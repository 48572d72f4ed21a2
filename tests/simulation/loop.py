"""An event loop whose time is simulated, and the simulated processes that share it.

Every handle belongs to a process, which the context variable tells: tasks and callbacks inherit
it. Handles of one process run in order, as asyncio promises; which process goes next, the seed
decides. A process that is killed runs no further handle, no `finally` and no `except`.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

IDLE_S_MAX = 3_600.0  # a world that has nothing to do for this long is stuck


class Killed(BaseException):
    """The process that runs is dead: nothing catches this."""


class Stuck(Exception):
    """Nothing is left to happen, or nothing but timers far away."""


class Process:
    """One simulated process: what it has to do, and what is cleaned up when it is gone."""

    def __init__(self, loop: "SimLoop", name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.paused = False
        self.host: Any = None  # the machine it runs on
        self.life: Any = None  # of a worker
        self.in_transaction = False  # of a control: what it knows may be behind
        self.dies_in_steps = 0  # n: after the n-th handle from now
        self.dies_in_write = 0  # n: in the middle of its n-th write from now
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.on_death: list[Callable[[], None]] = []  # by the kernel: descriptors, connections
        self.main: asyncio.Task[Any] | None = None
        self.context: Context = copy_context()
        self.context.run(CURRENT.set, self)

    def start(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run `main`; the process ends with it."""
        self.main = self.context.run(self.loop.create_task, main)
        self.main.add_done_callback(self._ended, context=self.context)

    def _ended(self, main: "asyncio.Task[Any]") -> None:
        if not main.cancelled() and main.exception() is not None:
            self.loop.on_error({"message": "main failed", "exception": main.exception()})
        self.die()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Do something in this process, soon."""
        self.loop.call_soon(function, *args, context=self.context)

    def die(self) -> None:
        if self.alive:
            self.alive = False
            self.loop.on_event(self, "is dead")
            self.ready.clear()
            for clean in self.on_death:
                clean()

    def __repr__(self) -> str:
        return self.name


CURRENT: ContextVar[Process] = ContextVar("process")


def current() -> Process:
    """The process whose code is running. Raises Killed in one that is dead."""
    process = CURRENT.get()
    if not process.alive:
        raise Killed
    return process


class SimLoop(asyncio.AbstractEventLoop):
    """`step` runs one handle. Time passes only when there is none to run."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 1000.0  # monotonic
        self.steps = 0
        self.on_error: Callable[[dict[str, Any]], None] = lambda context: None
        self.on_event: Callable[[Process, str], None] = lambda process, text: None
        self.connect: Callable[..., Any] | None = None
        self.processes: list[Process] = []
        self.world = Process(self, "world")
        self.processes.append(self.world)
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = 0
        self._running = False

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self.processes.append(process)
        return process

    # --- running

    def step(self) -> Process:
        """Run the next handle; returns whose it was. Raises Stuck."""
        while True:
            able = [p for p in self.processes if p.ready and not p.paused]
            if able:
                break
            self._advance()
        process = able[0] if len(able) == 1 else self.random.choice(able)
        handle = process.ready.popleft()
        self.steps += 1
        if not handle._cancelled:
            handle._run()
        if process.dies_in_steps:
            process.dies_in_steps -= 1
            if not process.dies_in_steps:
                process.die()
        return process

    def _advance(self) -> None:
        """To the next timer, and to all that are due with it."""
        timers = self._timers
        while timers and (timers[0][2]._cancelled or not self._owner(timers[0][2]).alive):
            heapq.heappop(timers)
        if not timers or timers[0][0] > self.now + IDLE_S_MAX:
            raise Stuck("nothing is left to happen")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                self._queue(handle)

    def run(self, until: Callable[[], bool], steps_max: int) -> None:
        """Raises Stuck when that takes more than `steps_max` steps."""
        for _ in range(steps_max):
            if until():
                return
            self.step()
        raise Stuck(f"no end after {steps_max} steps")

    @contextlib.contextmanager
    def running(self) -> Any:
        """As the running loop of this thread."""
        asyncio.events._set_running_loop(self)
        self._running = True
        token = CURRENT.set(self.world)
        try:
            yield self
        finally:
            CURRENT.reset(token)
            self._running = False
            asyncio.events._set_running_loop(None)

    def bury(self) -> None:
        """Take down what is left, without a trace: nothing of it may run again."""
        self.on_event = lambda process, text: None
        for process in self.processes:
            process.die()
        for process in self.processes:
            for task in process.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with contextlib.suppress(BaseException):
                        process.context.run(task.get_coro().close)
                else:
                    with contextlib.suppress(BaseException):
                        task.exception()
            process.tasks.clear()
            process.on_death.clear()
            process.main = None
        self._timers.clear()

    # --- asyncio.AbstractEventLoop

    def time(self) -> float:
        return self.now

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + max(delay, 0), callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    @staticmethod
    def _owner(handle: asyncio.Handle) -> Process:
        return handle._context[CURRENT]  # type: ignore[attr-defined,no-any-return]

    def _queue(self, handle: asyncio.Handle) -> None:
        process = self._owner(handle)
        if process.alive:
            process.ready.append(handle)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Any, *, name: object = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, context=context)
        CURRENT.get().tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, function: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """A thread: what it does happens a little later, all at once."""
        future = self.create_future()

        def work() -> None:
            try:
                result = function(*args)
            except Exception as exc:
                self.call_later(self.latency(), _settle, future, None, exc)
            else:
                self.call_later(self.latency(), _settle, future, result, None)

        self.call_later(self.latency(), work)
        return future

    def latency(self) -> float:
        return self.random.choice((0.0, 0.0, 0.0001, 0.001, 0.004))

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any):  # type: ignore[override,no-untyped-def]
        assert self.connect is not None
        return await self.connect(factory, host, port)

    async def create_server(self, factory: Any, *, sock: Any = None, **_: Any):  # type: ignore[override,no-untyped-def]
        return sock.listen(factory)

    async def shutdown_asyncgens(self) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), Killed):
            return
        process = CURRENT.get(None)
        if process is None or process.alive:
            self.on_error(context)


def _settle(future: "asyncio.Future[Any]", result: Any, exc: BaseException | None) -> None:
    if future.done():
        return
    if exc is not None:
        future.set_exception(exc)
    else:
        future.set_result(result)
