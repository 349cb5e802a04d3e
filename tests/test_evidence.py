"""Retrieval evidence in the service: private names, who may know of them, and what is reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from in_process import Service, configuration, fill, gathered, serving

from orchestrator.cli.root import cli
from orchestrator.errors import InvalidRequest, NotFound
from orchestrator.identity import Principal
from orchestrator.registry import open_registry, open_scale
from orchestrator.wire import RoutingReport
from retrieval.document import Document
from retrieval.errors import CorruptCollection
from retrieval.index import Index
from router.evidence import EvidenceError, Scale

pytestmark = pytest.mark.models

MANUALS = [
    Document(
        "zephyr",
        "Zephyr 300",
        "Hold the mode key of the Zephyr 300 for five seconds to reset its filter counter. "
        "The Zephyr 300 hums when its filter is full.",
    ),
    Document(
        "quillon",
        "Quillon dock",
        "The Quillon dock blinks amber while it charges and green when it is full. "
        "Put the Quillon dock on a level surface.",
    ),
]
CONTRACTS = [
    Document(
        "brant",
        "Brant project",
        "The Brant project ends in March. Only partners may hand over Brant papers to auditors.",
    )
]
PROMPTS = {
    "devices": [
        "Why does my Zephyr 300 hum?",
        "How do I reset the filter counter of the Zephyr 300?",
        "The Quillon dock blinks amber, what does that mean?",
        "Where should I put the Quillon dock?",
    ],
    "legal": [
        "Who may hand over Brant papers?",
        "When does the Brant project end?",
    ],
    "general": ["Tell me a joke about a cow.", "What should I cook for six guests tonight?"],
}
SUPPORT = Principal("support", None, frozenset({"manuals"}))
AUDIT = Principal("audit", None, frozenset({"contracts"}))


def opened(encoder: Path, folder: Path, **router: Any) -> Service:  # noqa: ANN401
    experts = {
        "general": {"model": "base"},
        "code": {"model": "base", "adapter": "x", "attachments": [".py"]},
        "legal": {"model": "base", "adapter": "x", "collections": ["contracts"]},
        "devices": {"model": "base", "adapter": "x", "collections": ["manuals", "never-filled"]},
        "retired": {
            "model": "base",
            "adapter": "x",
            "collections": ["manuals"],
            "enabled": False,
        },
    }
    settings = {"versions": str(folder.parent / f"{folder.name}-versions"), **router}
    return Service.open(configuration(encoder, folder, experts=experts, router=settings))


@pytest.fixture(scope="module")
def evident(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that weighs evidence of two private collections."""
    service = opened(encoder_dir, tmp_path_factory.mktemp("collections"), evidence=True)
    index = Index(
        Path(str(service.config.retrieval.directory)),
        lambda texts: asyncio.run(service.retriever.embed(texts)),
    )
    index.add("manuals", MANUALS)
    index.add("contracts", CONTRACTS)
    index.close()
    with serving(service.app()) as url:
        yield service.served_at(url)


async def routed(
    service: Service,
    prompt: str,
    principal: Principal | None = None,
    **body: Any,  # noqa: ANN401
) -> RoutingReport:
    task = service.task(prompt, **({"principal": principal} if principal else {}), **body)
    return await service.pipeline().route(task, ())


@pytest.mark.parametrize(
    ("expert", "prompt"), [(name, text) for name, texts in PROMPTS.items() for text in texts]
)
async def test_a_private_name_reaches_the_expert_that_reads_of_it(
    evident: Service, expert: str, prompt: str
) -> None:
    report = await routed(evident, prompt)
    assert max(report.candidates, key=lambda c: c.probability).name == expert
    assert expert in [chosen.name for chosen in report.experts]
    assert sum(c.probability for c in report.candidates) == pytest.approx(1.0, abs=1e-6)


async def test_without_evidence_the_gate_cannot_know_it(evident: Service) -> None:
    config = evident.config
    blind = config.model_copy(
        update={"router": config.router.model_copy(update={"evidence": False})}
    )
    service = Service.open(blind)
    for prompt in PROMPTS["devices"]:
        report = await routed(service, prompt)
        assert report.evidence is None
        assert "devices" not in [chosen.name for chosen in report.experts]


async def test_the_report_and_the_reason_say_what_was_found(evident: Service) -> None:
    report = await routed(evident, PROMPTS["devices"][0])
    assert report.evidence is not None
    (found,) = [one for one in report.evidence if one.expert == "devices"]
    assert found.collection == "manuals"
    assert found.before < 0.05 < found.after
    assert found.after == next(c.probability for c in report.candidates if c.name == "devices")
    assert 0.5 < found.similarity <= 1.0
    assert "a passage of manuals (cosine " in report.reason
    assert "evidence moved the choice from " in report.reason


async def test_the_same_search_grounds_the_answer(evident: Service) -> None:
    counted = Counting(evident.retriever)
    pipeline = replace(evident, retriever=counted).pipeline()  # type: ignore[arg-type]
    prompt = "How do I reset the filter counter of the Zephyr 300? It hums."
    text, finish = await gathered(pipeline, evident.task(prompt))
    assert counted.searches == [["contracts", "manuals", "never-filled"]]
    assert finish.routing.support is not None and finish.routing.support.sources
    assert "devices" in [expert.name for expert in finish.routing.experts]
    assert text


class Counting:
    """A retriever that notes the collections of every search."""

    def __init__(self, retriever: Any) -> None:  # noqa: ANN401
        self.searches: list[list[str]] = []
        self._retriever = retriever

    async def search(self, text: str, vector: object, names: list[str], *rest: object) -> object:
        self.searches.append(list(names))
        return await self._retriever.search(text, vector, names, *rest)

    def __getattr__(self, name: str) -> object:
        return getattr(self._retriever, name)


class Broken(Counting):
    """A retriever that cannot read one of the collections."""

    async def search(self, text: str, vector: object, names: list[str], *rest: object) -> object:
        if "manuals" in names:
            raise CorruptCollection("The file of collection 'manuals' is damaged.")
        return await super().search(text, vector, names, *rest)


async def test_a_collection_that_cannot_be_read_leaves_the_decision_to_the_gate(
    evident: Service,
) -> None:
    broken = replace(evident, retriever=Broken(evident.retriever))  # type: ignore[arg-type]
    prompt = PROMPTS["legal"][0]
    report = await broken.pipeline().route(evident.task(prompt), ())
    assert report.evidence is None
    assert sum(one.probability for one in report.candidates) == pytest.approx(1.0)


def test_evidence_that_was_fitted_to_another_encoder_is_refused(
    evident: Service, tmp_path: Path
) -> None:
    router = evident.config.router.model_copy(update={"versions": str(tmp_path)})
    config = evident.config.model_copy(update={"router": router})
    Scale(20.0, 0.5, {"encoder": "another"}).save(open_registry(config).folder)
    with pytest.raises(EvidenceError, match="'another'"):
        open_scale(config)


@pytest.mark.parametrize(
    ("principal", "hidden", "prompts"),
    [(AUDIT, "manuals", PROMPTS["devices"]), (SUPPORT, "contracts", PROMPTS["legal"])],
)
async def test_what_a_caller_may_not_read_has_no_trace_in_the_decision(
    evident: Service, principal: Principal, hidden: str, prompts: list[str]
) -> None:
    nothing = replace(principal, collections=frozenset())
    for prompt in prompts:
        report = await routed(evident, prompt, principal)
        blind = await routed(evident, prompt, nothing)
        assert hidden not in report.model_dump_json()
        before = {one.name: one.probability for one in blind.candidates}
        for candidate in report.candidates:
            moved = [one for one in report.evidence or () if one.expert == candidate.name]
            assert moved or candidate.probability <= before[candidate.name] + 1e-9


async def test_a_caller_that_may_read_nothing_gets_the_gates_decision(evident: Service) -> None:
    nobody = Principal("nobody", None, frozenset())
    report = await routed(evident, PROMPTS["devices"][0], nobody)
    assert report.evidence is None
    assert "devices" not in [expert.name for expert in report.experts]


async def test_experts_that_are_not_allowed_give_no_evidence(evident: Service) -> None:
    prompt = PROMPTS["devices"][0]
    report = await routed(evident, prompt, routing={"experts": ["general", "code"]})
    assert report.evidence is None and "manuals" not in report.reason
    forced = await routed(evident, prompt, model="code")
    assert [(e.name, e.weight) for e in forced.experts] == [("code", 1.0)]
    assert forced.evidence is None
    off = await routed(evident, prompt, routing={"grounding": "off"})
    assert off.evidence is None


async def test_a_disabled_expert_gains_nothing(evident: Service) -> None:
    report = await routed(evident, PROMPTS["devices"][0])
    assert "retired" not in [one.expert for one in report.evidence or ()]
    assert next(c.probability for c in report.candidates if c.name == "retired") == 0.0


async def test_named_collections_alone_are_searched(evident: Service) -> None:
    counted = Counting(evident.retriever)
    pipeline = replace(evident, retriever=counted).pipeline()  # type: ignore[arg-type]
    task = evident.task(PROMPTS["devices"][0], routing={"collections": ["contracts"]})
    report = await pipeline.route(task, ())
    assert counted.searches == [["contracts"]]
    assert "manuals" not in report.model_dump_json()


async def test_what_a_filter_leaves_out_is_no_evidence(evident: Service) -> None:
    prompt = PROMPTS["devices"][0]
    blind = await routed(evident, prompt, routing={"filter": {"document": ["quillon", "brant"]}})
    assert "devices" not in [one.name for one in blind.experts]
    seen = await routed(evident, prompt, routing={"filter": {"document": "zephyr"}})
    assert "devices" in [one.name for one in seen.experts]
    nothing = await routed(evident, prompt, routing={"filter": {"lang": "xx"}})
    assert nothing.evidence is None


async def test_a_named_collection_that_cannot_be_is_refused(evident: Service) -> None:
    for name, kind in (("nowhere", NotFound), ("No Name", InvalidRequest)):
        with pytest.raises(kind) as refusal:
            await routed(evident, "hi", routing={"collections": [name]})
        assert refusal.value.param == "routing.collections"
        assert "manuals" not in refusal.value.message


async def test_required_grounding_is_still_required(evident: Service) -> None:
    task = evident.task("Tell me a joke about a cow.", routing={"grounding": "required"})
    text, finish = await gathered(evident.pipeline(), task)
    assert (text, finish.routing.grounding) == ("The sources do not say.", "not_in_sources")


async def test_the_session_follows_the_expert_that_evidence_chose(evident: Service) -> None:
    pipeline, routing = evident.pipeline(), {"session": "s"}
    await gathered(pipeline, evident.task(PROMPTS["devices"][1], routing=routing))
    report = await pipeline.route(evident.task("What else?", routing=routing), ())
    assert report.experts[0].name == "devices"


def test_over_http_route_and_chat_report_the_same(evident: Service) -> None:
    body = {"messages": [{"role": "user", "content": PROMPTS["devices"][2]}]}
    route = httpx.post(f"{evident.url}/v1/route", json=body, timeout=30).json()
    chat = httpx.post(f"{evident.url}/v1/chat/completions", json=body, timeout=30).json()
    for key in ("experts", "candidates", "evidence", "reason"):
        assert chat["x_routing"][key] == route[key]


def written(folder: Path, config: Any) -> tuple[str, str]:  # noqa: ANN401
    """A file of labelled prompts, each said in several ways, and a configuration file."""
    shapes = ("{}", "Quick question: {}", "{} Please tell me.")
    rows = [
        json.dumps({"prompt": shape.format(text), "expert": name})
        for name, texts in PROMPTS.items()
        for text in texts
        for shape in shapes
    ]
    data, file = folder / "rows.jsonl", folder / "config.yaml"
    data.write_text("\n".join(rows), encoding="utf-8")
    # JSON is YAML.
    file.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
    return str(data), str(file)


def test_a_fitted_scale_is_shown_written_and_read(evident: Service, tmp_path: Path) -> None:
    data, file = written(tmp_path, evident.config)
    done = CliRunner().invoke(
        cli, ["train", "evidence", "--data", data, "--config", file, "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    body = json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"))
    assert f"slope {body['slope']:g} nats" in done.output
    assert body["slope"] > 1.0
    assert body["figures"]["accuracy_after"] > body["figures"]["accuracy_before"]


def test_a_fit_that_cannot_be_is_explained(evident: Service, tmp_path: Path) -> None:
    data, file = written(tmp_path, evident.config)
    (tmp_path / "few.jsonl").write_text('{"prompt": "x", "expert": "legal"}\n', encoding="utf-8")
    few = CliRunner().invoke(
        cli, ["train", "evidence", "--data", str(tmp_path / "few.jsonl"), "--config", file]
    )
    assert few.exit_code == 1
    assert "1 labelled prompts are too few" in few.output
    (tmp_path / "odd.jsonl").write_text('{"prompt": "x", "expert": "nobody"}\n', encoding="utf-8")
    odd = CliRunner().invoke(
        cli, ["train", "evidence", "--data", str(tmp_path / "odd.jsonl"), "--config", file]
    )
    assert odd.exit_code == 1
    assert "no label 'nobody' here" in odd.output


def test_a_service_reads_what_was_fitted_beside_its_versions(
    encoder_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "collections"
    versions = tmp_path / "collections-versions"
    versions.mkdir()
    (versions / "evidence.json").write_text('{"slope": 0.0, "centre": 0.5}', encoding="utf-8")
    service = opened(encoder_dir, folder, evidence=True)
    fill(service)
    report = asyncio.run(routed(service, PROMPTS["devices"][0]))
    assert report.evidence is None
