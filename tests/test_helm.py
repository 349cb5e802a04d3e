"""The chart, rendered by the real helm, against the schemas of Kubernetes, KubeRay and Ray."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from chart_cases import CASES, DEFAULT, EXAMPLES, configured, helm, rendered
from helm_binary import CHART, RELEASES

from orchestrator.config import Config, ConfigError


@pytest.mark.parametrize("version", sorted(RELEASES))
@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_lint_finds_nothing_in_strict_mode(version: str, example: str | None) -> None:
    status, output = helm(version).lint(*([EXAMPLES[example]] if example else []))
    assert status == 0, output
    assert "1 chart(s) linted, 0 chart(s) failed" in output


@pytest.mark.parametrize("case", ["default", "gpu", "haproxy, watched"])
def test_helm_3_and_4_render_the_same(case: str) -> None:
    def without_token(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted((o for o in objects if o["kind"] != "Secret"), key=json.dumps)

    older = helm("helm 3").render(CASES[case])
    assert without_token(older) == without_token(rendered(case))


@pytest.mark.parametrize("case", CASES)
def test_every_object_and_pod_is_valid_kubernetes(case: str) -> None:
    manifests.check_kubernetes(rendered(case))


@pytest.mark.skipif(
    manifests.crds() is None, reason="KubeRay's definitions are not on this machine"
)
@pytest.mark.parametrize("case", CASES)
def test_the_rayservice_is_valid_for_kuberay(case: str) -> None:
    assert manifests.kuberay_faults(manifests.one(rendered(case), "RayService")) == []


@pytest.mark.skipif(
    manifests.crds() is None, reason="KubeRay's definitions are not on this machine"
)
def test_kuberays_schema_refuses_a_misspelt_key() -> None:
    service = manifests.one(helm().render(), "RayService")
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParamz"] = {}
    (fault,) = manifests.kuberay_faults(service)
    assert "rayStartParamz" in fault


@pytest.mark.parametrize("case", CASES)
def test_ray_serve_and_the_service_accept_what_is_deployed(case: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    deployed = manifests.serve_config(rendered(case))
    schema = ServeDeploySchema.model_validate(deployed)
    (application,) = schema.applications
    config = Config.check(application.args["config"])
    assert (application.name, application.route_prefix) == ("collegium", "/")
    assert application.import_path == "orchestrator.app:build"
    assert schema.http_options.host == "0.0.0.0"
    assert schema.http_options.port == config.server.port
    assert schema.http_options.request_timeout_s == config.server.request_timeout_s


def test_the_deployed_configuration_is_the_given_file_unchanged() -> None:
    given = yaml.safe_load(EXAMPLES["gpu"].read_text())["config"]
    (application,) = manifests.serve_config(rendered("gpu"))["applications"]
    assert application["args"]["config"] == given


def test_a_given_configuration_is_not_merged_with_the_default() -> None:
    config = {"models": {"other": {"source": "a/b"}}, "experts": {"general": {"model": "other"}}}
    values = {"config": config, "persistence": {"enabled": False}}
    (application,) = manifests.serve_config(helm().render(values))["applications"]
    assert application["args"]["config"] == config


def test_the_default_configuration_is_the_services_own_but_for_placement() -> None:
    ours, embedded = Config.check(DEFAULT).model_dump(), Config.load().model_dump()
    for body in (ours, embedded):
        del body["retrieval"]["deployment"], body["router"]["deployment"]
        del body["server"]["deployment"]
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


@pytest.mark.parametrize("version", sorted(RELEASES))
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
    version: str, values: dict[str, Any], named: str
) -> None:
    status, _, error = helm(version).template(values)
    assert status != 0
    assert named in error
    if "config" in values:
        with pytest.raises(ConfigError):
            Config.check(values["config"])


def _expert(**resources: Any) -> dict[str, Any]:  # noqa: ANN401
    expert = {"model": "base", "deployment": {"resources": resources}}
    return {"config": configured(experts={"general": expert})}


REMOTE = {"base_url": "https://a.example.com/v1", "model": "m", "api_key_env": "THEIR_KEY"}


@pytest.mark.parametrize("version", sorted(RELEASES))
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"upgradeStrategy": "NewCluster"}, "would be a second writer"),
        (
            {"config": configured(retrieval={})},
            "config.retrieval.deployment.resources.custom needs",
        ),
        (
            {"config": configured(router={})},
            "config.router.deployment.resources.custom needs",
        ),
        (
            {"config": configured(server={})},
            "config.server.deployment.resources.custom needs",
        ),
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
        (
            _expert(custom={"class_gpu": 1}),
            "config.experts.general.deployment.resources asks for cu",
        ),
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
    version: str, values: dict[str, Any], sentence: str
) -> None:
    status, _, error = helm(version).template(values)
    assert status != 0
    assert sentence in error


def test_a_long_release_name_stays_within_kuberays_limit() -> None:
    name = manifests.one(helm().render(release="a" * 50), "RayService")["metadata"]["name"]
    assert len(name) <= 47


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
