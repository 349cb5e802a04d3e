"""From files and a configuration to what a router's proof is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config import Config
from orchestrator.registry import open_policy, open_registry
from orchestrator.replicas import open_encoder
from router.ablation import ablate
from router.conformal import safe_threshold
from router.dataset import DatasetError, LabelledPrompt, balance, fingerprint, read_prompts
from router.features import featurize
from router.figures import plain
from router.flips import read_parallel
from router.gate import Gate
from router.losses import LossError, LossTable, read_losses
from router.memory import EncoderMemory
from router.novelty import without
from router.peers import Peer, fit_peers, lessons
from router.proof import Evidence
from router.router import Router
from router.semantic import check_interpreter, semantic_router
from router.training import EXCLUDED_LICENSES, PER_LABEL, PER_PAIR, train_gate
from router.trials import Floats
from router.vectors import VectorCache

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Sources:
    """Where the evidence lies, and how much of it is wanted.

    `data` are measured on, `train` is what peers and the gate apart learn from. `gate` without
    `config` is measured over its own labels. `semantic_router` is an interpreter that has it. With
    `ablate` the gate is trained again without each part; rows of `ablate_sources` are one of them.
    """

    data: tuple[Path, ...]
    train: tuple[Path, ...]
    losses: tuple[Path, ...]
    gate: Path | None
    config: Path | None
    peers: bool
    semantic_router: str | None
    apart: bool
    ablate: bool
    ablate_sources: tuple[str, ...]
    language_expert: str
    robust_rows: int
    resamples: int
    seed: int
    threads: int
    cache: Path


def gather(sources: Sources, progress: Progress) -> Evidence:
    """Read and open everything; fit the peers and the gate apart where they are wanted.

    Raises the errors of configuration, model store, encoder, gate, data and losses, `PeerError`
    where a package is missing.
    """
    if sources.semantic_router:
        check_interpreter(sources.semantic_router)
    rows = list(read_prompts(sources.data))
    if not rows:
        raise DatasetError("--data: there is no row to measure on.")
    losses = _losses(sources.losses)
    seen = frozenset(row.language for row in read_prompts(sources.train))
    taught = balance(read_prompts(sources.train, EXCLUDED_LICENSES), PER_LABEL, PER_PAIR)
    router, memory, cache = _open(sources)
    return Evidence(
        router=router,
        memory=memory,
        rows=rows,
        losses=losses,
        peers=_peers(sources, router, memory, taught, losses, progress),
        parallel=read_parallel(sources.data),
        apart=_apart(sources, router, cache, taught, progress),
        seen_languages=seen if sources.train else None,
        language_expert=sources.language_expert,
        threshold=set_threshold,
        robust_rows=sources.robust_rows,
        resamples=sources.resamples,
        seed=sources.seed,
    )


def ablation(sources: Sources, evidence: Evidence, progress: Progress) -> dict[str, Any] | None:
    """What each part of the gate is worth, fit for JSON; None unless it is wanted.

    Raises `DatasetError` for training rows that cannot be used.
    """
    if not sources.ablate:
        return None
    found = ablate(
        balance(read_prompts(sources.train, EXCLUDED_LICENSES), PER_LABEL, PER_PAIR),
        evidence.rows,
        evidence.memory,
        evidence.router.generalist,
        sources=sources.ablate_sources,
        per_domain=max(1, sources.robust_rows),
        resamples=sources.resamples,
        seed=sources.seed,
        progress=progress,
    )
    plainly: dict[str, Any] = plain(found)
    return plainly


def describe(sources: Sources, rows: Sequence[LabelledPrompt]) -> dict[str, Any]:
    """What was measured on: file names, and a hash of texts and labels in any order."""
    digest = hashlib.blake2b(digest_size=8)
    for mark in sorted(f"{fingerprint(row.text):016x} {' '.join(row.labels)}" for row in rows):
        digest.update(mark.encode())
    return {
        "files": [path.name for path in sources.data],
        "train_files": [path.name for path in sources.train],
        "rows": len(rows),
        "fingerprint": digest.hexdigest(),
    }


def set_threshold(confidences: Floats, regrets: Floats, alpha: float, epsilon: float) -> float:
    """The least confidence to route at, as training sets it, for as many new rows as these."""
    fresh = len(confidences)
    found = safe_threshold(confidences, regrets, alpha=alpha, epsilon=epsilon, fresh=fresh)
    return float("inf") if found is None else found


def _open(sources: Sources) -> tuple[Router, EncoderMemory, VectorCache]:
    config = Config.load(sources.config)
    gate = Gate.load(sources.gate) if sources.gate else open_registry(config).acting()
    encoder = open_encoder(config, sources.threads)
    cache = VectorCache(sources.cache, encoder.encode, config.encoder.source)
    memory = EncoderMemory(cache)
    alone = sources.gate is not None and sources.config is None
    experts = gate.labels if alone else tuple(config.experts)
    return (
        Router(
            gate,
            memory,
            experts,
            config.generalist,
            open_policy(config, gate),
            disabled=() if alone else config.disabled,
            # As in the service: a second stage needs the vector anyway.
            first_stage=config.router.first_stage and not config.router.evidence,
        ),
        memory,
        cache,
    )


def _losses(paths: Sequence[Path]) -> LossTable | None:
    tables = [read_losses(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if (table.experts, table.marks) != (tables[0].experts, tables[0].marks):
            raise LossError(f"{path}: holds losses of other experts than {paths[0]}.")
        tables[0].rows.update(table.rows)
    return tables[0] if tables else None


def _peers(
    sources: Sources,
    router: Router,
    memory: EncoderMemory,
    taught: Sequence[LabelledPrompt],
    losses: LossTable | None,
    progress: Progress,
) -> tuple[Peer, ...]:
    python = sources.semantic_router
    if not sources.peers:
        return ()
    texts = [row.text for row in taught]
    memory.learn(texts, progress)
    known = None if losses is None else losses.matrix(texts, router.experts)
    vectors = np.stack([featurize([("user", text)], memory).vector for text in texts])
    given = lessons(taught, vectors, router.experts, known)
    peers = fit_peers(given, sources.seed)
    return (*peers, semantic_router(python, given)) if python else peers


def _apart(
    sources: Sources,
    router: Router,
    cache: VectorCache,
    taught: Sequence[LabelledPrompt],
    progress: Progress,
) -> Gate | None:
    if not sources.apart:
        return None
    gate, _ = train_gate(
        without(taught, router.generalist),
        # Already kept by its text, so that nothing is kept twice.
        cache,
        seed=sources.seed,
        encoder_name=router.gate.encoder,
        progress=progress,
    )
    return gate
