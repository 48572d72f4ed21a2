"""What the processes of `tollkeeper serve` take, under load."""

import re
from pathlib import Path

import pytest

from tests.load import Load, Provider
from tests.processes import Serving, resident_mb

CALLS = 400
WORKER_MB, TOGETHER_MB = 45, 120


@pytest.mark.slow
def test_a_worker_stays_small_and_loads_no_database(tmp_path: Path) -> None:
    with Provider(seed=3) as provider, Serving(tmp_path, provider.url) as serving:
        worker = serving.worker()
        with Load(serving.url, provider) as load:
            load.wait_completed(CALLS, 60)
        mapped = Path(f"/proc/{worker}/maps").read_text()
        assert "httptools" in mapped  # what is mapped is what was imported
        assert not re.search(r"sqlalchemy|sqlite|greenlet|asyncpg", mapped)
        assert resident_mb(worker) < WORKER_MB
        assert resident_mb(worker) + resident_mb(serving.pid) < TOGETHER_MB
