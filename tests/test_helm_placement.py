"""Where the chart puts experts, state and models."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import manifests
import pytest
import yaml
from chart_cases import EXAMPLES, rendered

from orchestrator.config import Config


@pytest.mark.parametrize("case", ["default", "gpu"])
def test_rays_autoscaler_and_the_shell_read_the_offered_resources(case: str) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _get_ray_resources_from_group_spec,
    )

    for name, group in manifests.groups(rendered(case)).items():
        (argument,) = shlex.split(f"--resources={group['rayStartParams']['resources']}")
        offered = json.loads(argument.removeprefix("--resources="))
        seen = _get_ray_resources_from_group_spec(group, name == "head")
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert offered.items() <= seen.items()
        assert seen["CPU"] == int(limits["cpu"])
        assert seen.get("GPU", 0) == int(limits.get("nvidia.com/gpu", 0))


def test_each_expert_of_the_gpu_example_fits_its_class_alone() -> None:
    config = Config.check(yaml.safe_load(EXAMPLES["gpu"].read_text())["config"])
    groups = manifests.groups(rendered("gpu"))
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


def test_gpu_groups_follow_the_autoscaler_down_to_their_minimum() -> None:
    spec = manifests.cluster(rendered("gpu"))
    bounds = {
        g["groupName"]: (g["minReplicas"], g["maxReplicas"]) for g in spec["workerGroupSpecs"]
    }
    assert spec["enableInTreeAutoscaling"] is True
    assert bounds == {"l40s": (2, 8), "a100": (0, 2)}
    assert manifests.cluster(rendered("fixed size"))["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in manifests.cluster(rendered("fixed size"))


@pytest.mark.parametrize(
    ("case", "throughput", "haproxy"),
    [("default", "1", "0"), ("throughput off", "0", "0"), ("haproxy", "1", "1")],
)
def test_serves_switches_come_from_the_configuration(
    case: str, throughput: str, haproxy: str
) -> None:
    for pod in manifests.pods(rendered(case)).values():
        seen = manifests.environment(pod)
        assert seen["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == throughput
        assert seen["RAY_SERVE_ENABLE_HA_PROXY"] == haproxy


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
def test_the_head_alone_mounts_the_state_for_writing(case: str, claim: str) -> None:
    writers = [
        (name, mount["mountPath"])
        for name, pod in manifests.pods(rendered(case)).items()
        for found, mount in _claims(pod)
        if found == claim and not mount.get("readOnly")
    ]
    assert writers == [("head", "/var/lib/collegium")]
    assert manifests.one(rendered(case), "RayService")["spec"]["upgradeStrategy"] == {
        "type": "None"
    }


def test_workers_read_adapters_from_a_claim_that_many_nodes_can_mount() -> None:
    (mount,) = [m for _, m in _claims(manifests.pods(rendered("shared claim"))["cpu"])]
    assert mount["mountPath"] == "/var/lib/collegium/adapters"
    assert (mount["subPath"], mount["readOnly"]) == ("adapters", True)
    assert list(_claims(manifests.pods(rendered("default"))["cpu"])) == []


def test_without_persistence_nothing_is_claimed_and_upgrades_overlap() -> None:
    objects = rendered("no persistence")
    assert "PersistentVolumeClaim" not in [o["kind"] for o in objects]
    assert not any(list(_claims(pod)) for pod in manifests.pods(objects).values())
    assert manifests.one(objects, "RayService")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}


def test_every_pod_mounts_the_volume_of_the_routers_versions_for_writing() -> None:
    for pod in manifests.pods(rendered("volumes")).values():
        (mount,) = [mount for claim, mount in _claims(pod) if claim == "gates"]
        assert mount["mountPath"] == "/var/lib/collegium/router"
        assert not mount.get("readOnly")
    for pod in manifests.pods(rendered("default")).values():
        mounts = [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]
        assert "router" not in mounts


@pytest.mark.parametrize("part", ["retrieval", "router", "server"])
def test_what_needs_the_state_can_only_run_on_the_head(part: str) -> None:
    for case in ("default", "gpu", "baked"):
        (application,) = manifests.serve_config(rendered(case))["applications"]
        config = Config.check(application["args"]["config"])
        (wanted,) = getattr(config, part).deployment.resources.custom
        offering = [
            name
            for name, group in manifests.groups(rendered(case)).items()
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
    case: str, expected: dict[str, list[str] | None]
) -> None:
    fetched = {
        name: pod["initContainers"][0]["args"] if "initContainers" in pod else None
        for name, pod in manifests.pods(rendered(case)).items()
    }
    assert fetched == expected
