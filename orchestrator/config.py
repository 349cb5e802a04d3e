"""The one configuration file: what it may say, checked before anything starts.

Every section is strict: an unknown or wrong key stops the start, with the key's path, what is
allowed and what was found. `Config.load(None)` gives the embedded default (`default.yaml`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, PositiveFloat, ValidationError
from pydantic_core import PydanticCustomError

from orchestrator import consistency
from orchestrator.cache_config import CacheConfig
from orchestrator.config_file import anchor, faults, over_default, read_yaml
from orchestrator.deployment import DeploymentConfig, shared
from orchestrator.expert_config import ConfigName, ExpertConfig
from orchestrator.quality import GateConfig, Metric, default_gates
from orchestrator.request import Grounding, Mode, Probability, Share
from orchestrator.server_config import ServerConfig
from orchestrator.strict_model import StrictModel, refuse

DEFAULT_FILE = Path(__file__).with_name("default.yaml")

_Positive = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0)]


class ConfigError(ValueError):
    """The configuration cannot be used; the message lists every fault with its key."""


class Placement(StrEnum):
    """Local experts of one base: a deployment each, or one deployment for all."""

    APART = "apart"
    TOGETHER = "together"


class ModelConfig(StrictModel):
    """A base model: an embedded name, a Hub id, a folder or a GGUF file.

    `context` bounds prompt and answer in tokens; `threads` are CPU threads of one replica (0: as
    torch decides); `cache_tokens` bounds keys and values of one replica in tokens; `ageing_s` is
    the waiting that makes up for one level of priority, in seconds.
    """

    source: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16", "int8"] = "auto"
    context: _Positive = 2048
    threads: Annotated[int, Field(ge=0)] = 0
    max_rows: _Positive = consistency.MAX_ROWS
    max_waiting: _Positive = 256
    cache_tokens: _Positive = 65_536
    step_tokens: _Positive = 256
    shared_step_tokens: _Positive = 16
    ageing_s: _Seconds = 10.0
    resident_adapters: _Positive = consistency.RESIDENT_ADAPTERS

    @classmethod
    def conflicts(cls, data: Mapping[str, object]) -> Iterator[PydanticCustomError]:
        """The int8 kernels are those of a CPU."""
        device = data.get("device", "auto")
        if data.get("dtype") == "int8" and device not in ("auto", "cpu"):
            yield refuse("int8", "dtype", f"'int8' needs `device: cpu`, not {device!r}")


class RouterConfig(StrictModel):
    """The gate's weights folder (`embedded`, or a path) and the policy over its probabilities.

    `versions` is the registry, by default `$COLLEGIUM_HOME/router`; `gates` are limits by the name
    of a figure in a version's report.
    `max_risk` takes the confidence that the gate promises for it, `min_confidence` sets it; without
    either it is 0.45. Sessions are kept in each gateway process, `session_ttl_s` in seconds.
    `load_balance` null: where the experts have more than one deployment. Of `sampled_per_hour`
    requests the sentence vector is kept. `first_stage` lets that of the gate settle the sure cases
    without the encoder. `evidence` lets what the Retriever finds weigh in the choice; its slope and
    centre lie in the folder of the versions.
    `explore` is the share of requests in which chance chooses the expert.
    """

    weights: str = "embedded"
    versions: str | None = None
    gates: dict[Metric, GateConfig] = Field(default_factory=default_gates)
    top_k: _Positive = consistency.TOP_K
    top_p: Share = 0.85
    min_confidence: Probability | None = None
    max_risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    min_weight: Probability = 0.15
    load_balance: bool | None = None
    sampled_per_hour: Annotated[int, Field(ge=0, le=1000)] = 48
    first_stage: bool = True
    evidence: bool = False
    explore: Probability = 0.0
    max_sessions: Annotated[int, Field(ge=0)] = 10_000
    session_ttl_s: _Seconds = 1800.0
    threads: _Positive = 1
    deployment: DeploymentConfig = DeploymentConfig()

    @classmethod
    def conflicts(cls, data: Mapping[str, object]) -> Iterator[PydanticCustomError]:
        """One confidence counts."""
        if data.get("max_risk") is not None and data.get("min_confidence") is not None:
            what = "and `min_confidence` both say when the generalist answers: give one of them"
            yield refuse("one_confidence", "max_risk", what)


class CombinationConfig(StrictModel):
    """How several chosen experts become one answer.

    `mode` holds for experts of one base, `across` where bases differ or an expert is remote.
    `max_fanout` is how many drafts of one request are written at a time.
    """

    mode: Literal[Mode.BLEND, Mode.MIXTURE] = Mode.MIXTURE
    across: Literal[Mode.RANK, Mode.FUSE] = Mode.RANK
    max_fanout: _Positive = 4
    draft_timeout_s: _Seconds = 120.0


class SamplingConfig(StrictModel):
    """What a request gets that does not say: temperature 0 is greedy."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Share = 1.0
    max_tokens: _Positive = 256


class RetrievalConfig(StrictModel):
    """Grounding: where collections lie, how many passages, how similar they must be.

    `directory` defaults to `$COLLEGIUM_HOME/collections`. `min_similarity` is the cosine below
    which a passage is not used, `min_relevance` the probability of an answer below which none is;
    null takes the calibrated one.
    `dense_weight` is the share of meaning against words in a ranking; `diversity` how much likeness
    to a better passage takes off a passage's score.
    """

    enabled: bool = True
    directory: str | None = None
    grounding: Grounding = Grounding.AUTO
    top_k: _Positive = 2
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.2
    min_relevance: Probability | None = None
    fusion: Literal["convex", "rrf"] = "convex"
    dense_weight: Annotated[float, Field(ge=0, le=1)] = 0.85
    candidates: Annotated[int, Field(ge=10, le=1000)] = 50
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    reranker: Annotated[str, Field(min_length=1)] | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    passage_characters: _Positive = 800
    threads: _Positive = 1
    deployment: DeploymentConfig = DeploymentConfig()


class LimitsConfig(StrictModel):
    """What one request may ask for, and how many may be open at a gateway replica."""

    max_body_bytes: _Positive = 1_048_576
    max_messages: _Positive = 256
    max_prompt_characters: _Positive = 32_768
    max_attachments: Annotated[int, Field(ge=0)] = 8
    max_attachment_bytes: _Positive = 65_536
    max_tokens: _Positive = 1024
    max_open_requests: _Positive = 256
    max_embedding_inputs: _Positive = 256
    max_upload_bytes: _Positive = 33_554_432
    max_upload_files: _Positive = 256
    upload_seconds: PositiveFloat = 120.0


class FeedbackConfig(StrictModel):
    """The log of decisions, which `/v1/feedback` adds to.

    `directory` defaults to `$COLLEGIUM_HOME/feedback`. `keep_text` keeps the user's last message,
    too; without it only the features that the gate read.
    """

    enabled: bool = True
    directory: str | None = None
    keep_text: bool = False
    max_rows: _Positive = 100_000
    max_age_days: Annotated[float, Field(gt=0)] = 90.0


class TelemetryConfig(StrictModel):
    """Traces go out by the standard OTEL_* variables; without an endpoint nothing is exported."""

    service_name: str = "collegium"
    traces: bool = True


class Config(StrictModel):
    """The whole file."""

    models: Annotated[dict[ConfigName, ModelConfig], Field(min_length=1)]
    experts: Annotated[dict[ConfigName, ExpertConfig], Field(min_length=1)]
    generalist: str = "general"
    placement: Placement = Placement.TOGETHER
    encoder: ModelConfig = ModelConfig(source="all-minilm-l6-v2")
    router: RouterConfig = RouterConfig()
    combination: CombinationConfig = CombinationConfig()
    sampling: SamplingConfig = SamplingConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    limits: LimitsConfig = LimitsConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    cache: CacheConfig = CacheConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    server: ServerConfig = ServerConfig()

    @classmethod
    def conflicts(cls, data: Mapping[str, object]) -> Iterator[PydanticCustomError]:
        """What sections say against each other."""
        return consistency.conflicts(data)

    @property
    def disabled(self) -> tuple[str, ...]:
        """The experts that are not to be asked."""
        return tuple(name for name, expert in self.experts.items() if not expert.enabled)

    def deployment(self, names: Sequence[str]) -> DeploymentConfig:
        """Scaling and resources of the deployment that these experts share."""
        return shared(self.experts[name].deployment for name in names)

    def deployed(self) -> Config:
        """The same for Serve alone, whose `http_options` say where it listens, not `host`."""
        return self.model_copy(update={"server": self.server.deployed()})

    @classmethod
    def load(cls, path: Path | None = None) -> Config:
        """Read and check a file; None reads the embedded default.

        Paths of adapters, gate weights and folders are taken relative to the file. One that names
        neither models nor experts has those of the default.

        Raises:
            ConfigError: the file cannot be read, is not YAML, or a key is at fault.
        """
        source = path or DEFAULT_FILE
        try:
            body = over_default(read_yaml(source), DEFAULT_FILE)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read {str(source)!r}: {error}") from error
        config = cls.check(body, origin=str(source.name))
        if path:
            config = cls.model_validate(anchor(config.model_dump(), path.parent.resolve()))
        return config

    @classmethod
    def check(cls, body: object, *, origin: str = "configuration") -> Config:
        """Check a parsed file.

        Raises:
            ConfigError: lists every fault with its key's path.
        """
        if not isinstance(body, Mapping):
            raise ConfigError(f"{origin} must hold the keys {', '.join(cls.model_fields)}")
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            found = faults(error)
        # Raised outside of the handler: pydantic's own text would show every value in a traceback.
        raise ConfigError("\n  ".join([f"{origin} has {len(found)} fault(s):", *found]))
