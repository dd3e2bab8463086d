"""Fixtures that many tests share, and the rule that `shared` tests are skipped where the real data is absent."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from durable import failpoints

# How long an example takes is the machine's affair.
settings.register_profile("symbert", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("symbert")

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason="../shared/data is not there"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; ask for it only in tests marked `shared`."""
    return SHARED


@pytest.fixture(autouse=True)
def _failpoints_count_from_the_first_passage() -> None:
    failpoints._passages.clear()
