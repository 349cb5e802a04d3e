"""The chart under the values that the tests look at: each switch in both states, each example."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_binary import CHART, Helm, HelmUnavailable, fetch

from orchestrator.config import DEFAULT_FILE

EXAMPLES = {path.stem: path for path in sorted((CHART / "examples").glob("*.yaml"))}
DEFAULT = yaml.safe_load((CHART / "files" / "config.yaml").read_text())
MONITORING = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
SECRET = {"name": "UPSTREAM_KEY", "secretName": "upstream", "key": "api-key"}
AT_HEAD = DEFAULT["server"]


def configured(**sections: Any) -> dict[str, Any]:  # noqa: ANN401
    """The chart's default configuration with sections replaced."""
    return {**DEFAULT, **sections}


SWITCHES: dict[str, dict[str, Any]] = {
    "default": {},
    "haproxy": {"config": configured(server={"haproxy": True, **AT_HEAD})},
    "haproxy, open pods": {
        "config": configured(server={"haproxy": True, **AT_HEAD}),
        "networkPolicy": {"enabled": False, "metrics": [MONITORING]},
    },
    "haproxy, watched": {
        "config": configured(server={"haproxy": True, "port": 9000, **AT_HEAD}),
        "networkPolicy": {"metrics": [MONITORING]},
    },
    "throughput off": {"config": configured(server={"throughput_optimized": False, **AT_HEAD})},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "no authentication": {"auth": {"mode": "disabled"}},
    "own secret": {"auth": {"existingSecret": "ours"}},
    "nothing kept": {"config": configured(feedback={"enabled": False}, server={})},
    "no persistence": {"persistence": {"enabled": False}},
    "own claim": {"persistence": {"existingClaim": "ours"}},
    "shared claim": {"persistence": {"accessMode": "ReadWriteMany", "storageClass": "nfs"}},
    "fixed size": {"autoscaler": {"enabled": False}},
    "ingress": {"ingress": {"enabled": True, "hosts": ["a.example.com"], "className": "nginx"}},
    "budget": {"podDisruptionBudget": {"enabled": True}},
    "given account": {"serviceAccount": {"create": False, "name": "ours"}},
    "environment": {"env": {"OTEL_SERVICE_NAME": "x", "DEPTH": 3}, "secretEnv": [SECRET]},
    "fault tolerance": {"gcsFaultTolerance": {"redisAddress": "redis:6379"}},
    "volumes": {
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": True}],
        "models": {"volume": {"persistentVolumeClaim": {"claimName": "weights"}}},
        "router": {"volume": {"persistentVolumeClaim": {"claimName": "gates"}}},
        "config": configured(router={"top_k": 1}),
        "imagePullSecrets": [{"name": "registry"}],
    },
    "no workers": {"config": yaml.safe_load(DEFAULT_FILE.read_text()), "workerGroups": []}
    | {"persistence": {"enabled": False}},
}
CASES: dict[str, dict[str, Any] | Path] = {**SWITCHES, **EXAMPLES}


@cache
def helm(version: str = "helm 4") -> Helm:
    """The real helm; the calling test is skipped when it cannot be fetched."""
    try:
        return fetch(version)
    except HelmUnavailable as error:
        pytest.skip(str(error))


@cache
def rendered(case: str) -> list[dict[str, Any]]:
    """The objects of one case, shared between tests: do not change them."""
    return helm().render(CASES[case])
