"""Secrets, authentication, pod security and network policy of the chart."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from chart_cases import CASES, MONITORING, helm, rendered
from cluster_stub import serving
from helm_binary import CHART, RELEASES


def test_secrets_are_references_and_stand_nowhere_in_clear() -> None:
    for pod in manifests.pods(rendered("environment")).values():
        seen = manifests.environment(pod)
        assert seen["UPSTREAM_KEY"] == ("upstream", "api-key")
        assert seen["OTEL_SERVICE_NAME"] == "x"
        assert seen["DEPTH"] == "3"
    kinds = [o["kind"] for o in rendered("own secret")]
    assert "Secret" not in kinds


def test_the_made_token_stands_only_in_its_secret() -> None:
    objects = rendered("default")
    secret = manifests.one(objects, "Secret")
    encoded = secret["data"]["auth_token"]
    token = base64.b64decode(encoded).decode()
    rest = json.dumps([o for o in objects if o is not secret])
    assert re.fullmatch(r"[A-Za-z0-9]{48}", token)
    assert token not in rest
    assert encoded not in rest


@pytest.mark.parametrize("version", sorted(RELEASES))
@pytest.mark.parametrize("installed", [True, False])
def test_the_token_of_an_installed_release_is_kept(
    version: str, installed: bool, tmp_path: Path
) -> None:
    token = base64.b64encode(b"made-at-the-first-install").decode()
    owned = {"helm.sh/release-name": "demo", "helm.sh/release-namespace": "experts"}
    held = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "demo-collegium-ray-auth",
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {f"meta.{key}": value for key, value in owned.items()},
        },
        "data": {"auth_token": token},
    }
    path = "/namespaces/experts/secrets/demo-collegium-ray-auth"
    arguments = ["template", "demo", str(CHART), "-n", "experts", "--dry-run=server"]
    arguments.append("--disable-openapi-validation")
    with serving({path: held} if installed else {}, tmp_path) as kubeconfig:
        status, out, error = helm(version).run(*arguments, kubeconfig=kubeconfig)
    assert status == 0, error
    found = manifests.one([o for o in yaml.safe_load_all(out) if o], "Secret")
    assert (found["data"]["auth_token"] == token) is installed


@pytest.mark.parametrize(
    ("case", "secret"), [("default", "demo-collegium-ray-auth"), ("own secret", "ours")]
)
def test_head_workers_and_operator_use_the_same_token(case: str, secret: str) -> None:
    options = manifests.cluster(rendered(case))["authOptions"]
    assert options == {"mode": "token", "secretName": secret}
    for pod in manifests.pods(rendered(case)).values():
        seen = manifests.environment(pod)
        assert seen["RAY_AUTH_MODE"] == "token"
        assert seen["RAY_AUTH_TOKEN"] == (secret, "auth_token")


def test_authentication_is_switched_off_everywhere_or_nowhere() -> None:
    objects = rendered("no authentication")
    assert manifests.cluster(objects)["authOptions"] == {"mode": "disabled"}
    assert "Secret" not in [o["kind"] for o in objects]
    for pod in manifests.pods(objects).values():
        seen = manifests.environment(pod)
        assert seen["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN" not in seen


def test_probes_ask_only_what_ray_answers_without_a_token() -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    for name, pod in manifests.pods(rendered("default")).items():
        (ray,) = pod["containers"]
        agent = [ray["startupProbe"], ray["livenessProbe"]]
        ready = ray["readinessProbe"]["httpGet"]
        if name == "head":
            agent.append(ray["readinessProbe"])
        else:
            assert ready == {"path": "/-/healthz", "port": "serve"}
        for probe in agent:
            assert probe["httpGet"]["path"] in PUBLIC_EXACT_PATHS
            assert probe["httpGet"]["port"] == 52365


@pytest.mark.parametrize("case", CASES)
def test_pods_keep_the_restricted_pod_security_standard(case: str) -> None:
    for name, pod in manifests.pods(rendered(case)).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
        if name != "head":
            assert pod["automountServiceAccountToken"] is False


def test_shared_memory_is_a_bounded_volume_in_memory() -> None:
    for name, pod in manifests.pods(rendered("default")).items():
        (volume,) = [v for v in pod["volumes"] if v["name"] == "shm"]
        store = manifests.groups(rendered("default"))[name]["rayStartParams"]["object-store-memory"]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
        assert int(store) < 2**30


def _admits(policy: dict[str, Any], port: int, peer: dict[str, Any] | None) -> bool:
    for rule in policy["spec"]["ingress"]:
        ports = rule.get("ports")
        fits = ports is None or any(p["port"] <= port <= p.get("endPort", p["port"]) for p in ports)
        if fits and ("from" not in rule or peer in rule["from"]):
            return True
    return False


RELEASE = {
    "podSelector": {
        "matchLabels": {
            "app.kubernetes.io/instance": "demo",
            "app.kubernetes.io/part-of": "collegium",
        }
    }
}


@pytest.mark.parametrize("port", [8404, 9101])
@pytest.mark.parametrize(
    ("case", "watched"),
    [("haproxy", False), ("haproxy, open pods", True), ("haproxy, watched", True)],
)
def test_haproxys_ports_are_open_to_the_named_alone(case: str, watched: bool, port: int) -> None:
    policy = manifests.one(rendered(case), "NetworkPolicy")
    assert _admits(policy, port, MONITORING) is watched
    others: tuple[dict[str, Any] | None, ...] = (None, RELEASE, {"podSelector": {}})
    for peer in others:
        assert not _admits(policy, port, peer)


def test_the_network_policy_opens_what_each_peer_needs() -> None:
    policy = manifests.one(rendered("haproxy, watched"), "NetworkPolicy")
    operator = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]["operator"][0]
    assert all(_admits(policy, port, RELEASE) for port in (6379, 9000, 10002, 30000))
    assert _admits(policy, 8265, operator)
    assert _admits(policy, 9000, {"podSelector": {}})
    assert not _admits(policy, 8000, {"podSelector": {}})
    assert not _admits(policy, 8265, {"podSelector": {}})
    assert not _admits(policy, 9000, None)


def test_pods_left_open_are_open_but_for_haproxy() -> None:
    policy = manifests.one(rendered("haproxy, open pods"), "NetworkPolicy")
    assert all(_admits(policy, port, None) for port in (1, 8000, 8403, 8405, 9100, 9102, 65535))
    assert "NetworkPolicy" not in [o["kind"] for o in rendered("no network policy")]


def test_policies_and_budgets_select_the_pods_of_the_cluster() -> None:
    groups = manifests.groups(rendered("gpu"))
    labels = {name: group["template"]["metadata"]["labels"] for name, group in groups.items()}
    selectors = {
        o["metadata"]["name"]: o["spec"].get("podSelector") or o["spec"]["selector"]
        for o in rendered("gpu")
        if o["kind"] in ("NetworkPolicy", "PodDisruptionBudget")
    }
    selected = {
        name: {
            group for group, own in labels.items() if selector["matchLabels"].items() <= own.items()
        }
        for name, selector in selectors.items()
    }
    assert selected == {
        "demo-collegium": {"head", "l40s", "a100"},
        "demo-collegium-head": {"head"},
        "demo-collegium-worker": {"l40s", "a100"},
    }


def test_the_ingress_points_to_the_service_that_kuberay_makes() -> None:
    objects = rendered("ingress")
    (rule,) = manifests.one(objects, "Ingress")["spec"]["rules"]
    service = rule["http"]["paths"][0]["backend"]["service"]
    name = manifests.one(objects, "RayService")["metadata"]["name"]
    assert service == {"name": f"{name}-serve-svc", "port": {"name": "serve"}}
    assert "Ingress" not in [o["kind"] for o in rendered("default")]
