"""What one expert may be told: where it answers from, what it reads, speaks and costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from orchestrator.attachment_kind import AttachmentKind
from orchestrator.deployment import DeploymentConfig
from orchestrator.language_tag import LanguageTag
from orchestrator.strict_model import StrictModel, refuse

ConfigName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_Seconds = Annotated[float, Field(gt=0)]
_Dollars = Annotated[float, Field(ge=0)]


class RemoteConfig(StrictModel):
    """An OpenAI-compatible upstream. The key is read from the environment variable named here."""

    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: Annotated[str, Field(json_schema_extra={"pattern": _VARIABLE})] | None = None
    timeout_s: _Seconds = 60.0
    connect_timeout_s: _Seconds = 5.0
    retries: Annotated[int, Field(ge=0)] = 2
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sampling: bool = True

    # These messages leave out what was found: it may be the key itself.
    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name and not re.match(_VARIABLE, name):
            what = "must be the name of an environment variable, not the key itself"
            raise refuse("secret", "", what)
        return name

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, address: str) -> str:
        if urlsplit(address).username is not None:
            raise refuse("secret", "", "must hold no user or password: use `api_key_env`")
        return address


class PriceConfig(StrictModel):
    """What an expert costs: USD per million tokens read and written; nothing unless given."""

    input: _Dollars = 0.0
    output: _Dollars = 0.0


class ExpertConfig(StrictModel):
    """One expert: local (`model`, with or without `adapter`) or `remote`.

    One that is not `enabled` is known and not asked: nothing of it is started.
    `adapter` is `embedded:NAME` or a PEFT folder, relative to the configuration file.
    `collections` are those that its answers may be grounded in; `attachments` are kinds of files
    that it is for.
    """

    description: str = ""
    enabled: bool = True
    model: str | None = None
    adapter: str | None = None
    pinned: bool = False
    remote: RemoteConfig | None = None
    collections: list[ConfigName] = []
    languages: list[LanguageTag] = []
    attachments: list[AttachmentKind] = []
    price: PriceConfig = PriceConfig()
    deployment: DeploymentConfig = DeploymentConfig()

    @classmethod
    def conflicts(cls, data: Mapping[str, object]) -> Iterator[PydanticCustomError]:
        """An expert is either local or remote, and only a local one has an adapter."""
        local, remote = data.get("model") is not None, data.get("remote") is not None
        if local == remote:
            yield refuse("one_kind", "model", "or `remote` must be given, and only one of them")
        if data.get("adapter") is not None and remote and not local:
            yield refuse("adapter", "adapter", "needs `model`: a remote expert has no adapter")
