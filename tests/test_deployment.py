"""The Serve graph: what a configuration asks for is what Ray is told."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from experts.limits import EngineLimits
from orchestrator.app import build
from orchestrator.config import Config
from orchestrator.replicas import local_spec


def options(placement: str) -> dict[str, Any]:
    """The reserved CPUs and most replicas by expert, read from the bound deployments."""
    config = {
        "models": {"base": {"source": "x"}},
        "placement": placement,
        "experts": {
            "general": {"model": "base"},
            "legal": {
                "model": "base",
                "adapter": "x",
                "deployment": {"resources": {"num_cpus": 3}, "autoscaling": {"max_replicas": 5}},
            },
        },
    }
    gateway = build({"config": config})._bound_deployment
    experts = gateway.init_args[3]
    found = {name: node._bound_deployment for name, node in experts.items()}
    return {
        name: (
            deployment.name,
            deployment.ray_actor_options["num_cpus"],
            deployment._deployment_config.autoscaling_config.max_replicas,
        )
        for name, deployment in found.items()
    }


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("together", {"general": ("Experts:base", 3, 5), "legal": ("Experts:base", 3, 5)}),
        ("apart", {"general": ("Expert:general", 0.2, 1), "legal": ("Expert:legal", 3, 5)}),
    ],
)
def test_a_deployment_gets_what_any_of_its_experts_asks_for(
    placement: str, expected: dict[str, Any]
) -> None:
    assert options(placement) == expected


def test_every_limit_of_a_model_reaches_its_engine() -> None:
    limits = {"context": 11, "max_rows": 12, "max_waiting": 13, "ageing_s": 1.5}
    steps = {"step_tokens": 15, "shared_step_tokens": 14}
    model = {"source": "x", "cache_tokens": 16, "resident_adapters": 17, **limits, **steps}
    body = {"models": {"base": model}, "experts": {"general": {"model": "base"}}}
    spec = local_spec(Config.check(body), "base")
    expected = {**limits, **steps, "max_tokens_in_cache": 16}
    assert (asdict(spec.limits), spec.resident) == (expected, 17)
    default = {"models": {"base": {"source": "x"}}, "experts": {"general": {"model": "base"}}}
    assert local_spec(Config.check(default), "base").limits == EngineLimits()
