"""What can be measured. All serve OpenAI's and Anthropic's paths in front of the fake provider."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("BENCH_HOME") or Path(tempfile.gettempdir()) / "tollkeeper-bench")
PROVIDER_PORT = 9100
PROVIDER_KEY = "sk-upstream-secret"
TOLLKEEPER_KEY = "sk-tollkeeper-bench-0123456789"
LITELLM_KEY = "sk-master-1234"


@dataclass(frozen=True)
class Target:
    """A process to measure. The load is sized so that slow proxies are not drowned."""

    command: tuple[str, ...]  # empty: straight to the fake provider
    port: int
    key: str
    prepare: Callable[[], None] = lambda: None
    env: dict[str, str] = field(default_factory=dict)
    start_s_max: float = 20
    warm_s: float = 1
    connections: int = 32  # saturated JSON calls
    slices: tuple[int, float] = (6, 0.5)  # short ones: a noisy neighbour spoils some, not all
    paced_streams: int = 32
    burst_streams: int = 16


def clear_tollkeeper() -> None:
    """Each run starts with an empty ledger and journal."""
    folder = HOME / "tollkeeper"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


TARGETS = {
    "direct": Target(command=(), port=PROVIDER_PORT, key=PROVIDER_KEY),
    "nginx": Target(
        command=("nginx", "-c", str(HERE / "peers/nginx.conf"), "-p", f"{HOME}/"),
        port=9201,
        key=PROVIDER_KEY,
    ),
    "tollkeeper": Target(
        command=(
            str(Path(sys.executable).parent / "tollkeeper"),
            *("--config", str(HERE / "tollkeeper.yaml"), "serve"),
        ),
        port=9401,
        key=TOLLKEEPER_KEY,
        prepare=clear_tollkeeper,
    ),
    "litellm-masterkey": Target(
        command=(
            f"{HOME}/litellm/bin/litellm",
            *("--config", str(HERE / "peers/litellm.yaml")),
            *("--host", "127.0.0.1", "--port", "9203", "--num_workers", "1"),
        ),
        port=9203,
        key=LITELLM_KEY,
        env={"LITELLM_LOG": "ERROR", "NO_DOCS": "True"},
        start_s_max=180,
        warm_s=8,
        connections=16,
        slices=(2, 2),
        paced_streams=2,
        burst_streams=4,
    ),
}
