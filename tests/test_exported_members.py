import inspect
import tomllib
from pathlib import Path

import pytest

import orchestrator
from orchestrator import errors

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert orchestrator.__all__ == sorted(orchestrator.__all__)
    assert all(getattr(orchestrator, name) is not None for name in orchestrator.__all__)


def test_every_error_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.CollegiumError)
    }
    assert tree <= set(orchestrator.__all__)
    assert all(getattr(orchestrator, name) is getattr(errors, name) for name in tree)


def test_the_clients_are_public() -> None:
    from orchestrator import AsyncClient, Client
    from orchestrator.client import AsyncClient as AsyncHome
    from orchestrator.client import Client as Home

    assert (Client, AsyncClient) == (Home, AsyncHome)


def test_dir_shows_the_public_names() -> None:
    assert dir(orchestrator) == orchestrator.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        orchestrator.Cleint  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert orchestrator.__version__ == project["version"]
