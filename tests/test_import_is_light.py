import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "ray", "faiss", "transformers", "fastapi", "starlette", "numpy", "openai", "peft"}


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nsys.stdout.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_importing_the_package_brings_nothing_along() -> None:
    loaded = modules_after("import orchestrator")
    assert "orchestrator" in loaded
    assert not loaded & (HEAVY | {"click", "rich", "httpx", "pydantic"})


@pytest.mark.parametrize("name", ["errors", "wire"])
def test_errors_and_wire_need_pydantic_alone(name: str) -> None:
    loaded = modules_after(f"import orchestrator.{name}")
    assert "pydantic" in loaded
    assert not loaded & (HEAVY | {"click", "rich", "httpx"})


def test_the_versions_of_the_router_need_no_torch() -> None:
    loaded = modules_after(
        "from orchestrator.cli.router import router; import orchestrator.registry"
    )
    assert {"numpy", "filelock", "safetensors"} <= loaded
    assert not loaded & {"torch", "ray", "faiss", "transformers", "fastapi", "peft"}


def test_the_client_needs_httpx_and_pydantic_alone() -> None:
    loaded = modules_after("from orchestrator import AsyncClient, Client; Client()")
    assert {"httpx", "pydantic"} <= loaded
    assert not loaded & HEAVY
    assert not loaded & {"router", "retrieval", "experts"}
