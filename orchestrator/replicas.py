"""What runs inside a replica: the rooms' classes, with a span around each call.

Plain classes without Ray: `orchestrator/app.py` deploys them, tests and notebooks use them as they
are. They hold to the protocols of `orchestrator/ports.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experts.generation import Chunk, ExpertError, Generation, Health, Score, Scoring
from experts.local import LocalExperts, LocalSpec
from experts.remote import RemoteExpert, RemoteSpec
from experts.store import ModelStore, default_home
from orchestrator.config import Config
from orchestrator.errands import Errand, Found, Ingest
from orchestrator.registry import open_policy, open_registry, open_scale
from orchestrator.report import tokens
from orchestrator.search_settings import search_settings
from orchestrator.telemetry import Carrier, Telemetry, failing
from retrieval.cross_encoder import CrossEncoder
from retrieval.embeddings import Embeddings
from retrieval.encoder import Encoder
from retrieval.filters import EVERYTHING, Condition
from retrieval.finding import Finding
from retrieval.index import Index
from router.counts import Count
from router.decision import Decision
from router.gate import Gate
from router.live import LiveRouter
from router.overrides import Overrides
from router.router import Router
from router.situation import CALM, Situation

Vectors = npt.NDArray[np.float32]

_RETRIEVER_THREADS = 4
_TURN = 32
"""Passages that an ingestion encodes before others get at the encoder."""


def open_encoder(config: Config, threads: int) -> Encoder:
    """The sentence encoder of the configuration, fetched if it is not there."""
    model = config.encoder
    folder = ModelStore().resolve(model.source, revision=model.revision)
    device = "cpu" if model.device == "auto" else model.device
    prefixes = config.retrieval.query_prefix, config.retrieval.passage_prefix
    return Encoder(folder, threads, device, *prefixes)


def collections_folder(config: Config) -> Path:
    """Where the collections lie."""
    directory = config.retrieval.directory
    return Path(directory) if directory else default_home() / "collections"


def open_index(config: Config, encoder: Encoder) -> Index:
    """The collections, searched as the configuration says."""
    wanted = config.retrieval
    settings = search_settings(wanted)
    reranker: CrossEncoder | None = None
    if wanted.reranker is not None:
        reranker = CrossEncoder(ModelStore().resolve(wanted.reranker), wanted.threads)
    return Index(
        collections_folder(config),
        encoder.encode_passages,
        settings,
        encode_query=encoder.encode,
        reranker=reranker,
        reads=encoder.reads,
    )


class RouterReplica:
    """Embeds the conversation once, if it must, and decides; follows the versions of the gate.

    Without `notes` it leaves no trace of its decisions: see `router.live.LiveRouter`.
    """

    def __init__(self, config: Config, *, notes: bool = True) -> None:
        self._telemetry = _telemetry(config, "router")
        encoder = open_encoder(config, config.router.threads)
        languages = {name: expert.languages for name, expert in config.experts.items()}
        kinds = {name: expert.attachments for name, expert in config.experts.items()}
        experts, disabled, scale = list(config.experts), config.disabled, open_scale(config)

        def build(gate: Gate) -> Router:
            policy, general = open_policy(config, gate), config.generalist
            own = policy, languages, disabled, kinds, scale
            first = config.router.first_stage
            return Router(gate, encoder.encode, experts, general, *own, first_stage=first)

        self._router = LiveRouter(
            open_registry(config),
            build,
            exploration=config.router.explore,
            keep_features=config.feedback.enabled,
            sampled=config.router.sampled_per_hour,
            notes=notes,
        )

    async def route(
        self,
        messages: Sequence[tuple[str, str]],
        overrides: Overrides,
        trace: Carrier,
        situation: Situation = CALM,
        key: str = "",
        keep: bool = True,
    ) -> Decision:
        """The decision on a conversation, by the version of the gate that acts for this key."""
        with self._telemetry.span("collegium.router.decide", trace) as span:
            route = partial(self._router.route, messages, overrides, situation, key, keep=keep)
            decision = await asyncio.to_thread(route)
            span.set_attribute("collegium.routing.seconds", decision.seconds)
        return decision

    def counts(self) -> list[Count]:
        """Counters of decisions, versions and comparisons, with their tags."""
        return self._router.counts()


class RetrieverReplica:
    """Searches the collections on disk, and embeds texts."""

    def __init__(self, config: Config) -> None:
        self._telemetry = _telemetry(config, "retriever")
        self._encoder = open_encoder(config, config.retrieval.threads)
        self._index = open_index(config, self._encoder)
        # Threads of its own: in one process with the gateway, whose threads wait for vectors while
        # they place marks, those of the event loop may all be taken.
        self._threads = ThreadPoolExecutor(_RETRIEVER_THREADS, "retriever")
        # One ingestion at a time, in steps between which searches get at the encoder.
        self._filled = Index(collections_folder(config), self._encode_in_turns)
        self._filling = ThreadPoolExecutor(1, "ingestion")

    async def search(
        self,
        text: str,
        vector: Vectors | None,
        collections: Sequence[str],
        top_k: int,
        trace: Carrier,
        condition: Condition = EVERYTHING,
    ) -> list[Finding]:
        """What each of these collections holds; without its vector the text is embedded."""
        asked = text, vector, collections, top_k, condition
        with self._telemetry.span("collegium.retriever.search", trace) as span:
            search = partial(self._index.survey, *asked)
            found = await asyncio.get_running_loop().run_in_executor(self._threads, search)
            span.set_attribute("collegium.found", sum(len(one.offer.keys) for one in found))
        return found

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors [n, d]."""
        encode = partial(self._encoder.encode, list(texts))
        return await asyncio.get_running_loop().run_in_executor(self._threads, encode)

    async def embeddings(self, texts: Sequence[str], trace: Carrier) -> Embeddings:
        """Unit vectors [n, d] of a request of its own, with the number of tokens."""
        with self._telemetry.span("collegium.retriever.embed", trace) as span:
            embed = partial(self._encoder.embed, list(texts))
            found = await asyncio.get_running_loop().run_in_executor(self._threads, embed)
            span.set_attribute("gen_ai.usage.input_tokens", found.tokens)
        return found

    async def tend(self, errand: Errand[Found], trace: Carrier) -> Found:
        """What an errand to the collections finds. Raises `RetrievalError`."""
        name = type(errand).__name__
        fills = isinstance(errand, Ingest)
        index, threads = (self._filled, self._filling) if fills else (self._index, self._threads)
        with self._telemetry.span("collegium.retriever.tend", trace, collegium__errand=name):
            return await asyncio.get_running_loop().run_in_executor(threads, errand.run, index)

    def _encode_in_turns(self, texts: Sequence[str]) -> Vectors:
        turns = range(0, len(texts), _TURN)
        encode = self._encoder.encode_passages
        return np.concatenate([encode(texts[at : at + _TURN]) for at in turns])


class ExpertReplica:
    """One or more experts, local or remote, behind one face."""

    def __init__(self, config: Config, names: Sequence[str]) -> None:
        """`names` are the experts that this deployment answers for; the first is its own."""
        self._telemetry = _telemetry(config, f"expert-{names[0]}")
        self._expert = _open_expert(config, names)

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        """Stream an answer."""
        weights = [weight for _, weight in request.experts]
        span = self._telemetry.start(
            "collegium.expert.generate",
            request.trace,
            gen_ai__operation__name="chat",
            collegium__mode=str(request.mode),
            collegium__experts=[name for name, _ in request.experts],
            collegium__weights=weights,
        )
        try:
            with failing(span):
                async with aclosing(self._expert.generate(request)) as chunks:
                    async for chunk in chunks:
                        if chunk.usage is not None:
                            span.set_attributes(tokens(chunk.usage))
                        yield chunk
        finally:
            span.end()

    async def score(self, request: Scoring) -> Score:
        """Log-likelihood of a text under one of the local experts."""
        if not isinstance(self._expert, LocalExperts):
            raise ExpertError(f"{request.expert} is remote and cannot score a text")
        with self._telemetry.span("collegium.expert.score", request.trace):
            return await self._expert.score(request)

    async def health(self) -> Health:
        """Who answers here."""
        return await self._expert.health()

    def stats(self) -> dict[str, float]:
        """Counters and gauges of a local expert's engine; nothing for a remote one."""
        return self._expert.stats() if isinstance(self._expert, LocalExperts) else {}

    def check_health(self) -> None:
        """Called by Serve; raising replaces the replica."""
        self._expert.check_health()


def _telemetry(config: Config, role: str) -> Telemetry:
    settings = config.telemetry
    return Telemetry(settings.service_name, role, enabled=settings.traces)


def _open_expert(config: Config, names: Sequence[str]) -> LocalExperts | RemoteExpert:
    expert = config.experts[names[0]]
    if expert.remote is not None:
        remote = expert.remote
        return RemoteExpert(
            RemoteSpec(
                names[0],
                remote.base_url,
                remote.model,
                remote.api_key_env,
                remote.timeout_s,
                remote.connect_timeout_s,
                remote.retries,
                remote.token_limit,
                remote.sampling,
            )
        )
    return LocalExperts(local_spec(config, str(expert.model)))


def local_spec(config: Config, model: str) -> LocalSpec:
    """The base model of this name with all enabled experts over it: any may be mixed in."""
    settings = config.models[model]
    over = {n: e for n, e in config.experts.items() if e.model == model and e.enabled}
    spec = LocalSpec(
        model=settings.source,
        experts=tuple((n, e.adapter) for n, e in over.items()),
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        resident=settings.resident_adapters,
        pinned=tuple(n for n, e in over.items() if e.adapter and e.pinned),
    )
    limits = replace(
        spec.limits,
        context=settings.context,
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        max_tokens_in_cache=settings.cache_tokens,
        step_tokens=settings.step_tokens,
        shared_step_tokens=settings.shared_step_tokens,
        ageing_s=settings.ageing_s,
    )
    return replace(spec, limits=limits)
