"""The proof of a router: every figure of its report, from decisions on labelled prompts.

The result is a mapping fit for JSON; sections that nothing was given for are None.
`router/report.py` writes it in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.calibration import negative_log_likelihood
from router.cascade import measure_cascade
from router.dataset import LabelledPrompt
from router.features import featurize
from router.figures import plain
from router.flips import count_flips, measure_translation, sample
from router.gate import Gate
from router.intervals import RESAMPLES, Interval, Macro, bootstrap, mean_interval
from router.losses import LossTable
from router.memory import EncoderMemory
from router.novelty import measure_novelty
from router.peers import Answers, Peer
from router.promise import EPSILON, Threshold
from router.router import Router
from router.scores import (
    brier,
    confusion,
    expected_error,
    label_scores,
    macro_f1,
    reliability,
    risk_curve,
)
from router.stakes import measure_regret
from router.trials import Floats, Indices, Trials, run_trials
from router.vectors import Progress

WARM_DECISIONS = 20


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a proof is made from.

    `router` must have been made with `memory` as its encoder. `parallel` are translations as
    `read_parallel` gives them, `apart` a gate trained without the generalist's domain,
    `seen_languages` those of the training rows, `language_expert` the one that rows in other
    languages should reach, `threshold` sets the least confidence for the promise on regret.
    `robust_rows` is how many rows a domain the transforms are tried on; 0 leaves them out.
    """

    router: Router
    memory: EncoderMemory
    rows: Sequence[LabelledPrompt]
    losses: LossTable | None = None
    peers: Sequence[Peer] = ()
    parallel: Sequence[tuple[LabelledPrompt, str]] = ()
    apart: Gate | None = None
    seen_languages: frozenset[str] | None = None
    language_expert: str = "multilingual"
    threshold: Threshold | None = None
    epsilon: float = EPSILON
    robust_rows: int = 100
    resamples: int = RESAMPLES
    seed: int = 0


def prove(evidence: Evidence, progress: Progress | None = None) -> dict[str, Any]:
    """Return every figure of the router. `progress` is called with (stage, done, total)."""
    evidence.memory.learn([row.text for row in evidence.rows], progress)
    trials = run_trials(evidence.router, evidence.rows, progress)
    alone = _alone(evidence, trials)
    answers = _ask_peers(evidence)
    found = {
        "router": _identity(evidence),
        **_labels(evidence, trials),
        "decisions": _decisions(trials),
        "calibration": {**_calibration(trials), "gate": _calibration(alone)},
        "first_stage": measure_cascade(
            trials, alone, evidence.router.gate.first, evidence.resamples, evidence.seed
        ),
        "risk_coverage": risk_curve(alone.confidence, ~alone.right),
        "unseen_languages": _unseen_languages(evidence, trials),
        "novelty": _novelty(evidence),
        **measure_regret(
            trials,
            alone,
            evidence.losses,
            {name: given.names for name, given in answers.items()},
            evidence.threshold,
            evidence.epsilon,
            evidence.resamples,
            evidence.seed,
        ),
        "peers": _peers(evidence, trials, answers),
        "robustness": _robustness(evidence, progress),
        "translation": measure_translation(
            evidence.router, evidence.memory, evidence.parallel, progress
        ),
        "times": {
            **_times(trials.seconds),
            "settled": _times(trials.seconds[trials.settled]) if trials.settled.any() else None,
        },
    }
    result = plain(found)
    assert isinstance(result, dict), "a mapping stays a mapping"
    return result


def _alone(evidence: Evidence, trials: Trials) -> Trials:
    # A promise of rare regret is one on the gate's own confidence, and `max_risk` asks it always.
    if evidence.router.gate.first is None:
        return trials
    return run_trials(evidence.router.without_first_stage(), evidence.rows)


def _identity(evidence: Evidence) -> dict[str, Any]:
    router, rows = evidence.router, evidence.rows
    return {
        "version": router.version,
        "encoder": router.gate.encoder,
        "labels": router.gate.labels,
        "experts": router.experts,
        "generalist": router.generalist,
        "policy": router.policy,
        "rows": len(rows),
        "sources": sorted({row.family for row in rows}),
        "seed": evidence.seed,
        "resamples": evidence.resamples,
    }


def _labels(evidence: Evidence, trials: Trials) -> dict[str, Any]:
    single = np.flatnonzero(trials.single)
    truths = [trials.rows[row].labels[0] for row in single]
    found = trials.names(trials.likeliest[single])
    right = trials.right.astype(np.float64)
    settings = (evidence.resamples, evidence.seed)
    if not truths:
        return {"accuracy": None, "macro_f1": None, "domains": {}, "languages": {}, "confusion": {}}

    def f1(at: Indices) -> float:
        return macro_f1([truths[n] for n in at], [found[n] for n in at])

    return {
        "accuracy": mean_interval(right[single], truths, *settings),
        "macro_f1": bootstrap(f1, truths, *settings),
        "domains": _domains(evidence, trials, dict(label_scores(truths, found))),
        "languages": _languages(trials),
        "confusion": confusion(trials.experts, truths, found),
    }


def _domains(evidence: Evidence, trials: Trials, scores: Mapping[str, Any]) -> dict[str, Any]:
    right, domains = trials.right.astype(np.float64), np.asarray(trials.domains)
    chosen = (trials.weights > 0.0).sum(axis=1)
    found = {}
    for name in sorted(set(trials.domains)):
        rows = np.flatnonzero(domains == name)
        found[name] = {
            "rows": len(rows),
            "accuracy": mean_interval(
                right[rows], [name] * len(rows), evidence.resamples, evidence.seed
            ),
            "f1": scores[name].f1 if name in scores else None,
            "precision": scores[name].precision if name in scores else None,
            "experts": float(chosen[rows].mean()),
            "abstained": float(trials.abstained[rows].mean()),
            "label_chosen": float(
                ((trials.weights > 0.0) & (trials.targets > 0.0))[rows].any(axis=1).mean()
            ),
        }
    return found


def _languages(trials: Trials) -> dict[str, Any]:
    languages = np.asarray([row.language for row in trials.rows])
    return {
        str(name): {
            "rows": int((languages == name).sum()),
            "accuracy": float(trials.right[languages == name].mean()),
        }
        for name in np.unique(languages)
    }


def _decisions(trials: Trials) -> dict[str, Any]:
    chosen, wanted = trials.weights > 0.0, trials.targets > 0.0
    several = ~trials.single
    counts = chosen.sum(axis=1)
    pairs = np.asarray((chosen | ~wanted)[several].all(axis=1))
    return {
        "experts": float(counts.mean()),
        "by_count": {int(k): int((counts == k).sum()) for k in np.unique(counts)},
        "abstained": float(trials.abstained.mean()),
        "exact_sets": float((chosen == wanted).all(axis=1).mean()),
        "pairs_found": float(pairs.mean()) if len(pairs) else None,
    }


def _calibration(trials: Trials) -> dict[str, Any]:
    # A prompt of two labels is right by the share of the one that was found.
    shares = np.take_along_axis(trials.targets, trials.likeliest[:, None], axis=1)[:, 0]
    bins = reliability(trials.confidence, shares)
    return {
        "ece": expected_error(bins),
        "nll": negative_log_likelihood(trials.probabilities, trials.targets),
        "brier": brier(trials.probabilities, trials.targets),
        "bins": bins,
    }


def _unseen_languages(evidence: Evidence, trials: Trials) -> dict[str, Any] | None:
    seen, expert = evidence.seen_languages, evidence.language_expert
    if seen is None or expert not in trials.experts:
        return None
    # `und` is no language, and English needs no expert of its own.
    known = seen | {"und", "en"}
    rows = [n for n, row in enumerate(trials.rows) if row.language not in known]
    if not rows:
        return None
    languages = [trials.rows[n].language for n in rows]
    chosen = np.array([trials.chose(n, expert) for n in rows], dtype=np.float64)
    by_language = Macro(languages).by_stratum(chosen)
    return {
        "expert": expert,
        "rows": len(rows),
        "chosen": mean_interval(chosen, languages, evidence.resamples, evidence.seed),
        "by_language": by_language,
    }


def _novelty(evidence: Evidence) -> dict[str, Any]:
    router, seed = evidence.router, evidence.seed
    found: dict[str, Any] = {"served": None, "apart": None}
    for name, gate in (("served", router.gate), ("apart", evidence.apart)):
        if gate is not None:
            found[name] = measure_novelty(
                gate, evidence.rows, evidence.memory, router.generalist, evidence.resamples, seed
            )
    return found


def _robustness(evidence: Evidence, progress: Progress | None) -> dict[str, Any] | None:
    if not evidence.robust_rows:
        return None
    rows = sample(evidence.rows, evidence.robust_rows, evidence.seed)
    flips = count_flips(evidence.router, evidence.memory, rows, evidence.seed, progress=progress)
    return dict(flips)


def _ask_peers(evidence: Evidence) -> dict[str, Answers]:
    if not evidence.peers:
        return {}
    texts = [row.text for row in evidence.rows]
    vectors = np.stack([featurize([("user", t)], evidence.memory).vector for t in texts])
    return {peer.name: peer.answer(vectors) for peer in evidence.peers}


def _peers(
    evidence: Evidence, trials: Trials, answers: Mapping[str, Answers]
) -> dict[str, Any] | None:
    if not answers:
        return None
    ours = Answers(tuple(trials.names(trials.likeliest)), trials.seconds)
    return {
        name: {"setting": given.setting, **_standing(evidence, trials, given)}
        for name, given in {"router": ours, **answers}.items()
    }


def _standing(evidence: Evidence, trials: Trials, given: Answers) -> dict[str, Any]:
    single = np.flatnonzero(trials.single)
    truths = [trials.rows[n].labels[0] for n in single]
    found = [given.names[n] for n in single]
    right = np.array([a == b for a, b in zip(found, truths, strict=True)], dtype=np.float64)
    by_domain = Macro(truths).by_stratum(right)
    accuracy: Interval = mean_interval(right, truths, evidence.resamples, evidence.seed)
    return {
        "accuracy": accuracy,
        "macro_f1": macro_f1(truths, found),
        "by_domain": by_domain,
        "worst_domain": min(by_domain.values()),
        **_times(given.seconds),
    }


def _times(seconds: Floats) -> dict[str, float]:
    kept = seconds[WARM_DECISIONS:] if len(seconds) > 2 * WARM_DECISIONS else seconds
    p50, p99 = np.percentile(kept, [50, 99]) * 1000.0
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
