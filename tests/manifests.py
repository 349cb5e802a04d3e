"""Rendered objects: finding their parts, and checking them against the schemas of Kubernetes and
KubeRay.

KubeRay's own definitions are data that is not part of the repository. They are looked for in
`kuberay-crds/` below `$COLLEGIUM_SHARED`, else below the folder `shared` beside the repository.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.33"
_OWN = "ray.io/v1"


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of a kind."""
    (found,) = [o for o in objects if o["kind"] == kind]
    return found


def cluster(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The Ray cluster of the RayService."""
    found: dict[str, Any] = one(objects, "RayService")["spec"]["rayClusterConfig"]
    return found


def serve_config(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The parsed file that Ray Serve deploys."""
    parsed: dict[str, Any] = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return parsed


def groups(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Head (as `head`) and worker groups by name."""
    spec = cluster(objects)
    workers = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"], **workers}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod specs of head and worker groups by name."""
    return {name: group["template"]["spec"] for name, group in groups(objects).items()}


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """Environment of the Ray container: the value, or the reference to a Secret as (name, key)."""
    found: dict[str, Any] = {}
    for entry in pod["containers"][0]["env"]:
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        found[entry["name"]] = (
            (reference["name"], reference["key"]) if reference else entry["value"]
        )
    return found


def check_kubernetes(objects: list[dict[str, Any]]) -> None:
    """Raise the schema's error for any object, or pod of the RayService, that is not valid."""
    for plain in objects:
        if plain["apiVersion"] != _OWN:
            kubernetes_validate.validate(plain, KUBERNETES, strict=True)
    for name, group in groups(objects).items():
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {**pod["metadata"], "name": name}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def crds() -> Path | None:
    """The folder of KubeRay's definitions, if it is there."""
    shared = os.environ.get("COLLEGIUM_SHARED")
    root = Path(shared) if shared else Path(__file__).resolve().parents[2] / "shared"
    folder = root / "kuberay-crds"
    return folder if folder.is_dir() else None


def kuberay_faults(rayservice: dict[str, Any]) -> list[str]:
    """What KubeRay's schema, with unknown keys refused, has against a RayService."""
    faults = _rayservice_schema().iter_errors(rayservice)
    return [f"{'/'.join(map(str, fault.absolute_path))}: {fault.message[:200]}" for fault in faults]


@cache
def _rayservice_schema() -> jsonschema.Draft7Validator:
    folder = crds()
    if folder is None:
        raise FileNotFoundError("no folder kuberay-crds")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load((folder / "ray.io_rayservices.yaml").read_text(), Loader=loader)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    # The definition leaves metadata open; Kubernetes itself fills it in.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft7Validator(schema)


def _strict(node: dict[str, Any]) -> dict[str, Any]:
    found = dict(node)
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
        found["type"] = ["integer", "string"]
    if "properties" in found:
        found["properties"] = {k: _strict(v) for k, v in found["properties"].items()}
        if not found.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _strict(found[key])
    return found
