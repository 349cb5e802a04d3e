"""Fixtures of the service in one process; see `in_process`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import Service, configuration, fill, serving


@pytest.fixture(scope="session")
def service(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with filled collections."""
    config = configuration(encoder_dir, tmp_path_factory.mktemp("collections"))
    opened = Service.open(config)
    fill(opened)
    with serving(opened.app()) as url:
        yield opened.served_at(url)
