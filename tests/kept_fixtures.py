"""The fixture of a service with a cache; see `kept_answers`."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import Service, fill
from kept_answers import configured


@pytest.fixture
def kept(encoder_dir: Path, tmp_path: Path) -> Service:
    opened = Service.open(configured(encoder_dir, tmp_path))
    fill(opened)
    return opened
