"""The chart, rendered by the real helm and checked by the schemas of Kubernetes, KubeRay and Ray."""

from __future__ import annotations

import base64
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from helm_binary import CHART, RELEASES, Helm, HelmUnavailable, fetch

from orchestrator.config import DEFAULT_FILE, Config, ConfigError

EXAMPLES = {path.stem: path for path in sorted((CHART / "examples").glob("*.yaml"))}
DEFAULT = yaml.safe_load((CHART / "files" / "config.yaml").read_text())
MONITORING = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
SECRET = {"name": "UPSTREAM_KEY", "secretName": "upstream", "key": "api-key"}


def configured(**sections: Any) -> dict[str, Any]:  # noqa: ANN401
    return {**DEFAULT, **sections}


SWITCHES: dict[str, dict[str, Any]] = {
    "default": {},
    "haproxy": {"config": configured(server={"haproxy": True})},
    "haproxy, open pods": {
        "config": configured(server={"haproxy": True}),
        "networkPolicy": {"enabled": False, "metrics": [MONITORING]},
    },
    "haproxy, watched": {
        "config": configured(server={"haproxy": True, "port": 9000}),
        "networkPolicy": {"metrics": [MONITORING]},
    },
    "throughput off": {"config": configured(server={"throughput_optimized": False})},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "no authentication": {"auth": {"mode": "disabled"}},
    "own secret": {"auth": {"existingSecret": "ours"}},
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
        "imagePullSecrets": [{"name": "registry"}],
    },
    "no workers": {"config": yaml.safe_load(DEFAULT_FILE.read_text()), "workerGroups": []}
    | {"persistence": {"enabled": False}},
}
CASES = {**SWITCHES, **EXAMPLES}


def _fetched(name: str) -> Helm:
    try:
        return fetch(name)
    except HelmUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=sorted(RELEASES))
def each_helm(request: pytest.FixtureRequest) -> Helm:
    return _fetched(request.param)


@pytest.fixture(scope="session")
def helm() -> Helm:
    return _fetched("helm 4")


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> dict[str, list[dict[str, Any]]]:
    return {name: helm.render(values) for name, values in CASES.items()}


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_lint_finds_nothing_in_strict_mode(each_helm: Helm, example: str | None) -> None:
    status, output = each_helm.lint(*([EXAMPLES[example]] if example else []))
    assert status == 0, output
    assert "1 chart(s) linted, 0 chart(s) failed" in output


@pytest.mark.parametrize("case", ["default", "gpu", "haproxy, watched"])
def test_helm_3_and_4_render_the_same(case: str, rendered: dict[str, Any]) -> None:
    def without_token(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted((o for o in objects if o["kind"] != "Secret"), key=json.dumps)

    older = _fetched("helm 3").render(CASES[case])
    assert without_token(older) == without_token(rendered[case])


@pytest.mark.parametrize("case", CASES)
def test_every_object_and_pod_is_valid_kubernetes(case: str, rendered: dict[str, Any]) -> None:
    manifests.check_kubernetes(rendered[case])


@pytest.mark.skipif(manifests.crds() is None, reason="KubeRay's definitions are not on this machine")
@pytest.mark.parametrize("case", CASES)
def test_the_rayservice_is_valid_for_kuberay(case: str, rendered: dict[str, Any]) -> None:
    assert manifests.kuberay_faults(manifests.one(rendered[case], "RayService")) == []


@pytest.mark.skipif(manifests.crds() is None, reason="KubeRay's definitions are not on this machine")
def test_kuberays_schema_refuses_a_misspelt_key(helm: Helm) -> None:
    service = manifests.one(helm.render(), "RayService")
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParamz"] = {}
    (fault,) = manifests.kuberay_faults(service)
    assert "rayStartParamz" in fault


@pytest.mark.parametrize("case", CASES)
def test_ray_serve_and_the_service_accept_what_is_deployed(
    case: str, rendered: dict[str, Any]
) -> None:
    from ray.serve.schema import ServeDeploySchema

    deployed = manifests.serve_config(rendered[case])
    schema = ServeDeploySchema.model_validate(deployed)
    (application,) = schema.applications
    config = Config.check(application.args["config"])
    assert (application.name, application.route_prefix) == ("collegium", "/")
    assert application.import_path == "orchestrator.app:build"
    assert schema.http_options.host == "0.0.0.0"
    assert schema.http_options.port == config.server.port
    assert schema.http_options.request_timeout_s == config.server.request_timeout_s


def test_the_deployed_configuration_is_the_given_file_unchanged(rendered: dict[str, Any]) -> None:
    given = yaml.safe_load(EXAMPLES["gpu"].read_text())["config"]
    (application,) = manifests.serve_config(rendered["gpu"])["applications"]
    assert application["args"]["config"] == given


def test_a_given_configuration_is_not_merged_with_the_default(helm: Helm) -> None:
    config = {"models": {"other": {"source": "a/b"}}, "experts": {"general": {"model": "other"}}}
    values = {"config": config, "persistence": {"enabled": False}}
    (application,) = manifests.serve_config(helm.render(values))["applications"]
    assert application["args"]["config"] == config


def test_the_default_configuration_is_the_services_own_but_for_placement() -> None:
    ours, embedded = Config.check(DEFAULT).model_dump(), Config.load().model_dump()
    for body in (ours, embedded):
        del body["retrieval"]["deployment"]
        for expert in body["experts"].values():
            del expert["deployment"]
    assert ours == embedded


def test_the_values_schema_is_that_of_the_present_configuration(tmp_path: Path) -> None:
    script = runpy.run_path(str(CHART.parent / "schema.py"))
    target = tmp_path / "schema.json"
    script["main"]([str(target)])
    assert target.read_text() == (CHART / "values.schema.json").read_text(), (
        "run: python helm/schema.py"
    )


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"confg": {}}, "confg"),
        ({"image": {"tags": "1"}}, "tags"),
        ({"auth": {"mode": "tokens"}}, "mode"),
        ({"workerGroups": [{"name": "x", "maxReplicas": 1, "resources": {}, "gpus": 1}]}, "gpus"),
        ({"secretEnv": [{"name": "KEY", "value": "in clear"}]}, "value"),
        ({"rayVersion": "latest"}, "rayVersion"),
        ({"config": configured(placment="apart")}, "placment"),
        ({"config": configured(placement="aprt")}, "placement"),
        ({"config": configured(router={"top_k": 0})}, "top_k"),
        ({"config": {"models": DEFAULT["models"]}}, "experts"),
        ({"config": configured(models={"Bad Name": {"source": "x"}})}, "Bad Name"),
    ],
)
def test_a_misspelt_or_wrong_value_is_refused_by_name(
    each_helm: Helm, values: dict[str, Any], named: str
) -> None:
    status, _, error = each_helm.template(values)
    assert status != 0
    assert named in error
    if "config" in values:
        with pytest.raises(ConfigError):
            Config.check(values["config"])


def _expert(**resources: Any) -> dict[str, Any]:  # noqa: ANN401
    expert = {"model": "base", "deployment": {"resources": resources}}
    return {"config": configured(experts={"general": expert})}


REMOTE = {"base_url": "https://a.example.com/v1", "model": "m", "api_key_env": "THEIR_KEY"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"upgradeStrategy": "NewCluster"}, "would be a second writer"),
        ({"config": configured(retrieval={})}, "config.retrieval.deployment.resources.custom needs"),
        ({"head": {"customResources": {"collegium_state": None}}}, "must offer collegium_state"),
        (
            {
                "workerGroups": [
                    {
                        "name": "x",
                        "maxReplicas": 1,
                        "resources": {},
                        "customResources": {"collegium_state": 1, "class_cpu": 1},
                    }
                ]
            },
            "workerGroups: x must not offer collegium_state",
        ),
        (_expert(custom={"class_gpu": 1}), 'config.experts.general.deployment.resources asks for cu'),
        (_expert(num_gpus=1), "num_gpus 1, which neither head nor any of workerGroups offers"),
        (
            {"config": configured(experts=DEFAULT["experts"] | {"far": {"remote": REMOTE}})},
            "config.experts.far.remote.api_key_env is THEIR_KEY, which is not in secretEnv",
        ),
        ({"ingress": {"enabled": True}}, "ingress.hosts must name at least one host"),
        ({"fullnameOverride": "9lives"}, "is not a DNS label that starts with a letter"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused_with_the_reason(
    each_helm: Helm, values: dict[str, Any], sentence: str
) -> None:
    status, _, error = each_helm.template(values)
    assert status != 0
    assert sentence in error


def test_a_long_release_name_stays_within_kuberays_limit(helm: Helm) -> None:
    name = manifests.one(helm.render(release="a" * 50), "RayService")["metadata"]["name"]
    assert len(name) <= 47


# Secrets and authentication


def test_secrets_are_references_and_stand_nowhere_in_clear(rendered: dict[str, Any]) -> None:
    for pod in manifests.pods(rendered["environment"]).values():
        seen = manifests.environment(pod)
        assert seen["UPSTREAM_KEY"] == ("upstream", "api-key")
        assert seen["OTEL_SERVICE_NAME"] == "x"
        assert seen["DEPTH"] == "3"
    kinds = [o["kind"] for o in rendered["own secret"]]
    assert "Secret" not in kinds


def test_the_made_token_stands_only_in_its_secret(rendered: dict[str, Any]) -> None:
    objects = rendered["default"]
    secret = manifests.one(objects, "Secret")
    encoded = secret["data"]["auth_token"]
    token = base64.b64decode(encoded).decode()
    rest = json.dumps([o for o in objects if o is not secret])
    assert re.fullmatch(r"[A-Za-z0-9]{48}", token)
    assert token not in rest
    assert encoded not in rest


@pytest.mark.parametrize(
    ("case", "secret"), [("default", "demo-collegium-ray-auth"), ("own secret", "ours")]
)
def test_head_workers_and_operator_use_the_same_token(
    case: str, secret: str, rendered: dict[str, Any]
) -> None:
    options = manifests.cluster(rendered[case])["authOptions"]
    assert options == {"mode": "token", "secretName": secret}
    for pod in manifests.pods(rendered[case]).values():
        seen = manifests.environment(pod)
        assert seen["RAY_AUTH_MODE"] == "token"
        assert seen["RAY_AUTH_TOKEN"] == (secret, "auth_token")


def test_authentication_is_switched_off_everywhere_or_nowhere(rendered: dict[str, Any]) -> None:
    objects = rendered["no authentication"]
    assert manifests.cluster(objects)["authOptions"] == {"mode": "disabled"}
    assert "Secret" not in [o["kind"] for o in objects]
    for pod in manifests.pods(objects).values():
        seen = manifests.environment(pod)
        assert seen["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN" not in seen


def test_probes_ask_only_what_ray_answers_without_a_token(rendered: dict[str, Any]) -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    for name, pod in manifests.pods(rendered["default"]).items():
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


# Placement


@pytest.mark.parametrize("case", ["default", "gpu"])
def test_rays_autoscaler_and_the_shell_read_the_offered_resources(
    case: str, rendered: dict[str, Any]
) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _get_ray_resources_from_group_spec,
    )

    for name, group in manifests.groups(rendered[case]).items():
        (argument,) = shlex.split(f"--resources={group['rayStartParams']['resources']}")
        offered = json.loads(argument.removeprefix("--resources="))
        seen = _get_ray_resources_from_group_spec(group, name == "head")
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert offered.items() <= seen.items()
        assert seen["CPU"] == int(limits["cpu"])
        assert seen.get("GPU", 0) == int(limits.get("nvidia.com/gpu", 0))


def test_each_expert_of_the_gpu_example_fits_its_class_alone(rendered: dict[str, Any]) -> None:
    config = Config.check(yaml.safe_load(EXAMPLES["gpu"].read_text())["config"])
    groups = manifests.groups(rendered["gpu"])
    for name, expert in config.experts.items():
        needs = expert.deployment.resources
        fitting = [
            group
            for group, spec in groups.items()
            if all(f'"{wanted}"' in spec["rayStartParams"]["resources"] for wanted in needs.custom)
        ]
        if expert.model is None:
            continue
        (group,) = fitting
        pod = groups[group]["template"]["spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        assert needs.num_gpus <= int(limits["nvidia.com/gpu"]), name
        assert "nvidia.com/gpu.product" in pod["nodeSelector"]
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_gpu_groups_follow_the_autoscaler_down_to_their_minimum(rendered: dict[str, Any]) -> None:
    spec = manifests.cluster(rendered["gpu"])
    bounds = {g["groupName"]: (g["minReplicas"], g["maxReplicas"]) for g in spec["workerGroupSpecs"]}
    assert spec["enableInTreeAutoscaling"] is True
    assert bounds == {"l40s": (2, 8), "a100": (0, 2)}
    assert manifests.cluster(rendered["fixed size"])["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in manifests.cluster(rendered["fixed size"])


@pytest.mark.parametrize(
    ("case", "throughput", "haproxy"),
    [("default", "1", "0"), ("throughput off", "0", "0"), ("haproxy", "1", "1")],
)
def test_serves_switches_come_from_the_configuration(
    case: str, throughput: str, haproxy: str, rendered: dict[str, Any]
) -> None:
    for pod in manifests.pods(rendered[case]).values():
        seen = manifests.environment(pod)
        assert seen["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == throughput
        assert seen["RAY_SERVE_ENABLE_HA_PROXY"] == haproxy


# State and models


def _claims(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    for mount in pod["containers"][0]["volumeMounts"]:
        if mount["name"] in claims:
            yield claims[mount["name"]], mount


@pytest.mark.parametrize(
    ("case", "claim"),
    [("default", "demo-collegium-state"), ("shared claim", "demo-collegium-state")]
    + [("own claim", "ours"), ("gpu", "demo-collegium-state")],
)
def test_the_head_alone_mounts_the_state_for_writing(
    case: str, claim: str, rendered: dict[str, Any]
) -> None:
    writers = [
        (name, mount["mountPath"])
        for name, pod in manifests.pods(rendered[case]).items()
        for found, mount in _claims(pod)
        if found == claim and not mount.get("readOnly")
    ]
    assert writers == [("head", "/var/lib/collegium")]
    assert manifests.one(rendered[case], "RayService")["spec"]["upgradeStrategy"] == {"type": "None"}


def test_workers_read_adapters_from_a_claim_that_many_nodes_can_mount(
    rendered: dict[str, Any],
) -> None:
    (mount,) = [m for _, m in _claims(manifests.pods(rendered["shared claim"])["cpu"])]
    assert mount["mountPath"] == "/var/lib/collegium/adapters"
    assert (mount["subPath"], mount["readOnly"]) == ("adapters", True)
    assert list(_claims(manifests.pods(rendered["default"])["cpu"])) == []


def test_without_persistence_nothing_is_claimed_and_upgrades_overlap(
    rendered: dict[str, Any],
) -> None:
    objects = rendered["no persistence"]
    assert "PersistentVolumeClaim" not in [o["kind"] for o in objects]
    assert not any(list(_claims(pod)) for pod in manifests.pods(objects).values())
    assert manifests.one(objects, "RayService")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}


def test_the_retriever_can_only_run_on_the_head(rendered: dict[str, Any]) -> None:
    for case in ("default", "gpu", "baked"):
        (application,) = manifests.serve_config(rendered[case])["applications"]
        config = Config.check(application["args"]["config"])
        (wanted,) = config.retrieval.deployment.resources.custom
        offering = [
            name
            for name, group in manifests.groups(rendered[case]).items()
            if wanted in group["rayStartParams"].get("resources", "")
        ]
        assert offering == ["head"], case


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "default",
            {
                "head": ["all-minilm-l6-v2", "smollm2-135m-instruct"],
                "cpu": ["all-minilm-l6-v2", "smollm2-135m-instruct"],
            },
        ),
        (
            "gpu",
            {
                "head": ["all-minilm-l6-v2"],
                "l40s": ["Qwen/Qwen2.5-7B-Instruct", "all-minilm-l6-v2"],
                "a100": ["Qwen/Qwen2.5-7B-Instruct", "all-minilm-l6-v2"],
            },
        ),
        ("baked", {"head": None, "cpu": None}),
    ],
)
def test_init_containers_fetch_the_models_unless_baked(
    case: str, expected: dict[str, list[str] | None], rendered: dict[str, Any]
) -> None:
    fetched = {
        name: pod["initContainers"][0]["args"] if "initContainers" in pod else None
        for name, pod in manifests.pods(rendered[case]).items()
    }
    assert fetched == expected


# Security


@pytest.mark.parametrize("case", CASES)
def test_pods_keep_the_restricted_pod_security_standard(case: str, rendered: dict[str, Any]) -> None:
    for name, pod in manifests.pods(rendered[case]).items():
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


def test_shared_memory_is_a_bounded_volume_in_memory(rendered: dict[str, Any]) -> None:
    for name, pod in manifests.pods(rendered["default"]).items():
        (volume,) = [v for v in pod["volumes"] if v["name"] == "shm"]
        store = manifests.groups(rendered["default"])[name]["rayStartParams"]["object-store-memory"]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
        assert int(store) < 2**30


def _admits(policy: dict[str, Any], port: int, peer: dict[str, Any] | None) -> bool:
    for rule in policy["spec"]["ingress"]:
        ports = rule.get("ports")
        fits = ports is None or any(
            p["port"] <= port <= p.get("endPort", p["port"]) for p in ports
        )
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
def test_haproxys_ports_are_open_to_the_named_alone(
    case: str, watched: bool, port: int, rendered: dict[str, Any]
) -> None:
    policy = manifests.one(rendered[case], "NetworkPolicy")
    assert _admits(policy, port, MONITORING) is watched
    for peer in (None, RELEASE, {"podSelector": {}}):
        assert not _admits(policy, port, peer)


def test_the_network_policy_opens_what_each_peer_needs(rendered: dict[str, Any]) -> None:
    policy = manifests.one(rendered["haproxy, watched"], "NetworkPolicy")
    operator = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]["operator"][0]
    assert all(_admits(policy, port, RELEASE) for port in (6379, 9000, 10002, 30000))
    assert _admits(policy, 8265, operator)
    assert _admits(policy, 9000, {"podSelector": {}})
    assert not _admits(policy, 8000, {"podSelector": {}})
    assert not _admits(policy, 8265, {"podSelector": {}})
    assert not _admits(policy, 9000, None)


def test_pods_left_open_are_open_but_for_haproxy(rendered: dict[str, Any]) -> None:
    policy = manifests.one(rendered["haproxy, open pods"], "NetworkPolicy")
    assert all(_admits(policy, port, None) for port in (1, 8000, 8403, 8405, 9100, 9102, 65535))
    assert "NetworkPolicy" not in [o["kind"] for o in rendered["no network policy"]]


def test_policies_and_budgets_select_the_pods_of_the_cluster(rendered: dict[str, Any]) -> None:
    groups = manifests.groups(rendered["gpu"])
    labels = {name: group["template"]["metadata"]["labels"] for name, group in groups.items()}
    selectors = {
        o["metadata"]["name"]: o["spec"].get("podSelector") or o["spec"]["selector"]
        for o in rendered["gpu"]
        if o["kind"] in ("NetworkPolicy", "PodDisruptionBudget")
    }
    selected = {
        name: {group for group, own in labels.items() if selector["matchLabels"].items() <= own.items()}
        for name, selector in selectors.items()
    }
    assert selected == {
        "demo-collegium": {"head", "l40s", "a100"},
        "demo-collegium-head": {"head"},
        "demo-collegium-worker": {"l40s", "a100"},
    }


def test_the_ingress_points_to_the_service_that_kuberay_makes(rendered: dict[str, Any]) -> None:
    objects = rendered["ingress"]
    (rule,) = manifests.one(objects, "Ingress")["spec"]["rules"]
    service = rule["http"]["paths"][0]["backend"]["service"]
    name = manifests.one(objects, "RayService")["metadata"]["name"]
    assert service == {"name": f"{name}-serve-svc", "port": {"name": "serve"}}
    assert "Ingress" not in [o["kind"] for o in rendered["default"]]


# The chart's own form


def test_every_value_of_the_schema_is_there_with_a_comment() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    lines = (CHART / "values.yaml").read_text().splitlines()

    def commented(indent: str, key: str) -> bool:
        pattern = re.compile(rf"{indent}{key}:")
        return any(
            pattern.match(line.replace("- ", "  ", 1)) and before.lstrip().startswith("#")
            for before, line in zip(lines, lines[1:], strict=False)
        )

    for key, part in schema["properties"].items():
        inner = part.get("properties") or part.get("items", {}).get("properties")
        if key == "global":
            continue
        if inner is None or key in ("workerGroups", "secretEnv"):
            assert commented("", key), key
        if inner and key != "secretEnv":
            indent = "    " if key == "workerGroups" else "  "
            missing = [name for name in inner if not commented(indent, name)]
            assert missing == [], key


def test_templates_are_short_and_their_helpers_carry_the_charts_name() -> None:
    for path in sorted((CHART / "templates").iterdir()):
        text = path.read_text()
        assert len(text.splitlines()) < 300, path.name
        assert all(n.startswith("collegium.") for n in re.findall(r'define "([^"]+)"', text))
