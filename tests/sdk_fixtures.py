"""Fixtures that bring both kinds of client together with a service that misbehaves."""

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from misbehaving import Connect, FromAsync, Service

from orchestrator import AsyncClient, Client


@pytest.fixture(scope="session")
def sdk_portal() -> Iterator[BlockingPortal]:
    """Give an event loop in a thread of its own."""
    with start_blocking_portal() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def connect_sdk(request: pytest.FixtureRequest, sdk_portal: BlockingPortal) -> Iterator[Connect]:
    """Give a function that makes a client, of either kind, and close what it made."""
    made: list[Client] = []

    def make(*args: Any, **kwargs: Any) -> Client:  # noqa: ANN401
        if request.param == "sync":
            made.append(Client(*args, **kwargs))
        else:
            made.append(cast(Client, FromAsync(sdk_portal, AsyncClient(*args, **kwargs))))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def misbehaving_server() -> Iterator[tuple[Service, str]]:
    """Run the service on a free port."""
    service = Service()
    config = uvicorn.Config(service.app(), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield service, f"http://127.0.0.1:{port}"
    server.should_exit = True
    server.force_exit = True
    thread.join()


@pytest.fixture
def misbehaving(misbehaving_server: tuple[Service, str]) -> Service:
    """Give the service, with nothing noted yet."""
    misbehaving_server[0].forget()
    return misbehaving_server[0]


@pytest.fixture
def misbehaving_url(misbehaving: Service, misbehaving_server: tuple[Service, str]) -> str:
    """Give the service's address."""
    return misbehaving_server[1]


@pytest.fixture
def sdk(connect_sdk: Connect, misbehaving_url: str) -> Client:
    """Give a client of the service, of either kind."""
    return connect_sdk(misbehaving_url)
