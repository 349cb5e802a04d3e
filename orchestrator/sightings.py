"""From labelled prompts to what gate and search make of them, for fitting evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.config import Config
from orchestrator.librarian import clues
from orchestrator.registry import open_policy, open_registry
from orchestrator.replicas import collections_folder, open_encoder
from retrieval.finding import NOTHING
from retrieval.index import Index
from router.dataset import DatasetError, LabelledPrompt
from router.evaluation import target_matrix
from router.evidence_fit import Sightings
from router.router import Router

Progress = Callable[[str, int, int], None]


def gather_sightings(
    config: Config, rows: Sequence[LabelledPrompt], threads: int, progress: Progress
) -> Sightings:
    """Route and search every row, as the service does with a conversation of one message.

    Raises `DatasetError` for a label that is no expert of the configuration, or where no enabled
    expert reads a collection; and the errors of registry, gate, encoder and retrieval.
    """
    readers = {
        name: expert.collections
        for name, expert in config.experts.items()
        if expert.enabled and expert.collections and name != config.generalist
    }
    if not readers:
        raise DatasetError("no expert declares `collections`: there is no evidence to weigh.")
    gate, encoder = open_registry(config).acting(), open_encoder(config, threads)
    experts = list(config.experts)
    own = open_policy(config, gate), None, config.disabled
    # A service that weighs evidence asks the gate always.
    router = Router(gate, encoder.encode, experts, config.generalist, *own, first_stage=False)
    folder, questions = collections_folder(config), encoder.encode
    index = Index(folder, encoder.encode_passages, encode_query=questions)
    names = [name for collections in readers.values() for name in collections]
    targets = target_matrix(rows, router.experts)
    probabilities = np.zeros(targets.shape)
    similarities = np.full(targets.shape, NOTHING)
    try:
        for number, row in enumerate(rows):
            decision = router.route([("user", row.text)])
            probabilities[number] = decision.ranking.probabilities(router.experts)
            found = clues(readers, index.survey(row.text, decision.vector, names, 1))
            for name, clue in found.items():
                similarities[number, router.experts.index(name)] = clue.similarity
            progress("route and search", number + 1, len(rows))
    finally:
        index.close()
    return Sightings(probabilities, similarities, targets)
