"""CPU and memory of a process and everything it started, read from /proc."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """Process ids of `root` and its living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    ticks = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    exact = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            exact += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    # schedstat counts nanoseconds but forgets threads that have ended; ticks do not
    return max(ticks - 2 / TICKS_PER_S, exact / 1e9)


def cpu_s(pids: list[int]) -> dict[int, float]:
    """CPU seconds, user and system, that each of these processes has used."""
    used = {}
    for pid in pids:
        with suppress(OSError):
            used[pid] = _cpu_s(pid)
    return used


def rss_mib(pid: int) -> float:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / MIB
    return 0.0


def stolen_s() -> float:
    """Time the hypervisor gave to somebody else."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / TICKS_PER_S


def stop(process: "subprocess.Popen[bytes]", wait_s: float = 15) -> None:
    """End a process in order; whatever is left of its tree after that is killed."""
    family = tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(wait_s)
    for pid in family:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait(5)
    time.sleep(0.3)
