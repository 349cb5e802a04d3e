"""Write the `config` part of the chart's values schema from the service's own configuration model.

    python helm/schema.py [FILE]

Definitions with a capital come from `orchestrator.config.Config` and are replaced; the rest of
`collegium/values.schema.json` is written by hand and kept. FILE defaults to that file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "helm" / "collegium" / "values.schema.json"

_DROPPED = ("title", "default")


def config_definitions() -> dict[str, Any]:
    """JSON Schema (draft 7) definitions of the configuration file, the whole file as `Config`."""
    from orchestrator.config import Config

    schema = Config.model_json_schema(ref_template="#/definitions/{model}")
    parts = schema.pop("$defs")
    return {name: _plain(part) for name, part in sorted({**parts, "Config": schema}.items())}


def with_config(schema: dict[str, Any]) -> dict[str, Any]:
    """The values schema with its configuration part replaced by the present model's."""
    own = {k: v for k, v in schema["definitions"].items() if not k[0].isupper()}
    return {**schema, "definitions": {**own, **config_definitions()}}


def _plain(node: Any, *, names: bool = False) -> Any:  # noqa: ANN401
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {key: _plain(value) for key, value in node.items()}
    kept = {k: v for k, v in node.items() if k not in _DROPPED}
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    return {k: _plain(v, names=k in ("properties", "patternProperties")) for k, v in kept.items()}


def main(arguments: list[str]) -> None:
    """Rewrite the schema file, or write it to the path that is given."""
    sys.path.insert(0, str(ROOT))
    target = Path(arguments[0]) if arguments else SCHEMA
    schema = with_config(json.loads(SCHEMA.read_text(encoding="utf-8")))
    target.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
