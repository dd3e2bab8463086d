"""Half a minute of tests/chaos.py; SYMBERT_CHAOS_SECONDS=300 makes it five."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_cluster import needs_namespace

SECONDS = os.environ.get("SYMBERT_CHAOS_SECONDS", "30")
SEED = os.environ.get("SYMBERT_CHAOS_SEED", "0")


@pytest.mark.long
@pytest.mark.timeout(float(SECONDS) + 900)
def test_random_kills_change_nothing_and_leave_nothing(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    needs_namespace()
    log = tmp_path / "chaos.jsonl"
    command = [sys.executable, "-m", "tests.chaos", "--seconds", SECONDS, "--seed", SEED, "--log", str(log)]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-8000:]
    kills = [json.loads(line) for line in log.read_text().splitlines()]
    assert f"{len(kills)} killed in" in result.stdout
    assert kills
