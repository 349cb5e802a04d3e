"""The configuration as a file: read without guessing, paths made absolute, faults in words."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.validation import sentence


class _UniqueKeys(yaml.SafeLoader):
    # Plain YAML keeps the last of two equal keys, and an expert would be lost without a word.
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """The parsed file.

    Raises:
        OSError, UnicodeDecodeError, yaml.YAMLError: it cannot be read, is not UTF-8 or not YAML,
            or gives a key twice.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)


def over_default(body: object, default: Path) -> object:
    """A file that names neither models nor experts, over the default one."""
    if isinstance(body, Mapping) and body and not {"models", "experts"} & set(body):
        whole = read_yaml(default)
        body = {**whole, **body} if isinstance(whole, Mapping) else body
    return body


def anchor(body: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A checked configuration as plain data, with paths that were relative to `folder`."""
    for expert in body["experts"].values():
        if not (expert["adapter"] or "").startswith("embedded:"):
            expert["adapter"] = _absolute(expert["adapter"], folder)
    for model in (*body["models"].values(), body["encoder"]):
        source = str(model["source"])
        if source.startswith((".", "~")) or source.endswith(".gguf"):
            model["source"] = _absolute(source, folder)
    if body["router"]["weights"] != "embedded":
        body["router"]["weights"] = _absolute(body["router"]["weights"], folder)
    body["router"]["versions"] = _absolute(body["router"]["versions"], folder)
    body["retrieval"]["directory"] = _absolute(body["retrieval"]["directory"], folder)
    reranker = body["retrieval"]["reranker"]
    if reranker and reranker.startswith((".", "~")):
        body["retrieval"]["reranker"] = _absolute(reranker, folder)
    body["cache"]["directory"] = _absolute(body["cache"]["directory"], folder)
    body["feedback"]["directory"] = _absolute(body["feedback"]["directory"], folder)
    return body


def faults(error: ValidationError) -> list[str]:
    """One sentence for each fault, with the key's path, what is allowed and what was found."""
    lines = []
    for problem in error.errors():
        shown: dict[str, Any] = dict(problem)
        shown["loc"] = tuple(step for step in problem["loc"] if step != "[key]")
        # Pydantic shows members of an enumeration as Python does: <Mode.BLEND: 'blend'>.
        shown["msg"] = re.sub(r"<[\w.]+: ('[^']*')>", r"\1", problem["msg"])
        lines.append(re.sub(r"was (not )?sent\.$", r"was \1found.", sentence(shown)))
    return lines


def _absolute(value: str | None, folder: Path) -> str | None:
    return value if value is None else str(folder / Path(value).expanduser())
