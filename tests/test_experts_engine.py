"""The engine against transformers and PEFT, on a tiny random model and on the embedded experts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_adapters import write_adapters
from transformers import AutoModelForCausalLM

from experts.generation import (
    Busy,
    Chunk,
    ExpertError,
    FinishReason,
    Generation,
    LocalMode,
    PromptTooLong,
    Sampling,
    Scoring,
)
from experts.limits import EngineLimits
from experts.local import LocalExperts, LocalSpec

pytestmark = pytest.mark.models

NEAR_TIE = 1e-4
PROMPTS = (
    "Hi",
    "Write a function that adds two numbers.",
    "Does this contract end when the tenant dies? " * 4,
    "¿Qué hora es en Madrid cuando en Tokio es medianoche?",
)


@pytest.fixture(scope="module")
def adapters(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_adapters(tiny_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def tiny(tiny_dir: Path, adapters: dict[str, Path], device: str) -> AsyncIterator[LocalExperts]:
    experts = (("plain", None), *((name, str(folder)) for name, folder in adapters.items()))
    limits = EngineLimits(context=256, max_rows=12, max_waiting=20, step_tokens=64)
    local = LocalExperts(
        LocalSpec(str(tiny_dir), experts, device=device, dtype="float32", threads=1, limits=limits)
    )
    yield local
    local.engine.stop()


@pytest.fixture(scope="module")
def oracle(tiny_dir: Path, adapters: dict[str, Path]) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    first, *others = adapters.items()
    model = PeftModel.from_pretrained(base, first[1], adapter_name=first[0])
    for name, folder in others:
        model.load_adapter(folder, adapter_name=name)
    return model.eval()


def request(
    prompt: str,
    experts: Sequence[tuple[str, float]],
    mode: LocalMode = LocalMode.SINGLE,
    id: str = "",
    **sampling: object,
) -> Generation:
    settings = {"max_tokens": 24, **sampling}
    return Generation(
        id=id or f"{prompt}{experts}{mode}{sorted(settings.items(), key=str)}",
        messages=(("user", prompt),),
        experts=tuple(experts),
        sampling=Sampling(**settings),  # type: ignore[arg-type]
        mode=mode,
    )


async def collect(local: LocalExperts, asked: Generation) -> list[Chunk]:
    return [chunk async for chunk in local.generate(asked)]


def text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def next_distribution(model: object, expert: str, tokens: Sequence[int]) -> torch.Tensor:
    assert isinstance(model, PeftModel)
    with torch.inference_mode():
        if expert == "plain":
            with model.disable_adapter():
                logits = model(torch.tensor([tokens])).logits
        else:
            model.set_adapter(expert)
            logits = model(torch.tensor([tokens])).logits
    return torch.softmax(logits[0, -1].double(), -1)


def reported(chunks: Sequence[Chunk]) -> dict[str, float]:
    (first, *_) = [p for chunk in chunks for p in chunk.logprobs]
    return {token: torch.tensor(value).exp().item() for token, value in first.top}


def expected_top(local: LocalExperts, probabilities: torch.Tensor) -> dict[str, float]:
    values, ids = probabilities.topk(20)
    decode = local._runner.tokenizer.decode
    return {
        decode([i], skip_special_tokens=False): v
        for i, v in zip(ids.tolist(), values.tolist(), strict=True)
    }


@pytest.mark.parametrize("expert", ["plain", "red", "green", "blue"])
async def test_a_single_expert_has_the_distribution_of_peft(
    tiny: LocalExperts, oracle: PeftModel, expert: str
) -> None:
    asked = request(PROMPTS[2], [(expert, 1.0)], max_tokens=1, logprobs=20)
    found = reported(await collect(tiny, asked))
    truth = next_distribution(oracle, expert, tiny.prompt(asked.messages))
    assert found == pytest.approx(expected_top(tiny, truth), abs=1e-5)


async def test_a_mixture_is_the_weighted_sum_of_separate_softmaxes(
    tiny: LocalExperts, oracle: PeftModel
) -> None:
    weights = [("red", 0.5), ("blue", 0.3), ("plain", 0.2)]
    asked = request(PROMPTS[1], weights, LocalMode.MIXTURE, max_tokens=1, logprobs=20)
    found = reported(await collect(tiny, asked))
    tokens = tiny.prompt(asked.messages)
    truth = sum(w * next_distribution(oracle, name, tokens) for name, w in weights)
    assert isinstance(truth, torch.Tensor)
    assert found == pytest.approx(expected_top(tiny, truth), abs=1e-5)


async def test_a_mixture_stays_exact_while_it_writes(tiny: LocalExperts, oracle: PeftModel) -> None:
    weights = [("red", 0.6), ("green", 0.4)]
    asked = request(PROMPTS[0], weights, LocalMode.MIXTURE, max_tokens=12, logprobs=1)
    chunks = await collect(tiny, asked)
    tokens = tiny.prompt(asked.messages)
    for said in (p for chunk in chunks for p in chunk.logprobs):
        truth = sum(w * next_distribution(oracle, name, tokens) for name, w in weights)
        assert isinstance(truth, torch.Tensor)
        chosen = int(truth.argmax())
        assert torch.tensor(said.logprob).exp().item() == pytest.approx(
            float(truth[chosen]), abs=1e-4
        )
        tokens = [*tokens, chosen]


async def test_posterior_weights_follow_the_likelihood_of_the_text(
    tiny: LocalExperts, oracle: PeftModel
) -> None:
    weights = {"red": 0.5, "green": 0.5}
    base = request(PROMPTS[0], list(weights.items()), LocalMode.MIXTURE, max_tokens=8, logprobs=1)
    asked = Generation(base.id, base.messages, base.experts, base.sampling, base.mode, True)
    tokens = tiny.prompt(asked.messages)
    for said in (p for chunk in await collect(tiny, asked) for p in chunk.logprobs):
        each = {name: next_distribution(oracle, name, tokens) for name in weights}
        mixed = sum((weights[name] * each[name] for name in weights), torch.zeros(()))
        chosen = int(mixed.argmax())
        assert torch.tensor(said.logprob).exp().item() == pytest.approx(
            float(mixed[chosen]), abs=1e-4
        )
        weights = {n: float(w * each[n][chosen] / mixed[chosen]) for n, w in weights.items()}
        tokens = [*tokens, chosen]
    assert abs(weights["red"] - 0.5) > 0.01


async def test_a_mixture_of_one_equals_that_expert(tiny: LocalExperts) -> None:
    alone = await collect(tiny, request(PROMPTS[1], [("green", 1.0)]))
    mixed = await collect(tiny, request(PROMPTS[1], [("green", 1.0)], LocalMode.MIXTURE))
    assert text(mixed) == text(alone)


async def test_a_blend_equals_adding_the_weighted_adapters(
    tiny: LocalExperts, tiny_dir: Path, adapters: dict[str, Path]
) -> None:
    weights = [("red", 0.7), ("green", 0.3)]
    asked = request(PROMPTS[3], weights, LocalMode.BLEND, max_tokens=1, logprobs=20)
    found = reported(await collect(tiny, asked))
    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    with torch.no_grad():
        for name, weight in weights:
            other = AutoModelForCausalLM.from_pretrained(tiny_dir)
            merged = PeftModel.from_pretrained(other, adapters[name]).merge_and_unload()
            plain = AutoModelForCausalLM.from_pretrained(tiny_dir)
            for target, tuned, before in zip(
                base.parameters(), merged.parameters(), plain.parameters(), strict=True
            ):
                target += weight * (tuned - before)
        logits = base(torch.tensor([tiny.prompt(asked.messages)])).logits[0, -1]
    truth = torch.softmax(logits.double(), -1)
    assert found == pytest.approx(expected_top(tiny, truth), abs=1e-5)


async def test_requests_of_every_kind_share_batches_and_equal_their_solo_answers(
    tiny: LocalExperts,
) -> None:
    asked = [
        request(PROMPTS[0], [("plain", 1.0)]),
        request(PROMPTS[1], [("red", 1.0)]),
        request(PROMPTS[2], [("green", 0.5), ("blue", 0.5)], LocalMode.MIXTURE),
        request(PROMPTS[3], [("red", 0.5), ("blue", 0.5)], LocalMode.BLEND),
        request(PROMPTS[2], [("blue", 1.0)], temperature=0.9, top_p=0.8, seed=7),
        request(
            PROMPTS[1], [("red", 0.9), ("plain", 0.1)], LocalMode.MIXTURE, seed=3, temperature=1.0
        ),
    ]
    solo = [text(await collect(tiny, one)) for one in asked]
    together = await asyncio.gather(*(collect(tiny, one) for one in asked * 3))
    assert [text(chunks) for chunks in together] == solo * 3


async def test_the_same_seed_gives_the_same_text_and_another_seed_another(
    tiny: LocalExperts,
) -> None:
    texts = [
        text(await collect(tiny, request(PROMPTS[0], [("red", 1.0)], temperature=1.0, seed=seed)))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_string_ends_the_answer_before_it(tiny: LocalExperts) -> None:
    whole = text(await collect(tiny, request(PROMPTS[1], [("red", 1.0)], max_tokens=20)))
    stop = whole[5:9]
    chunks = await collect(tiny, request(PROMPTS[1], [("red", 1.0)], max_tokens=20, stop=(stop,)))
    assert text(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_usage_and_reason_tell_what_was_read_and_written(tiny: LocalExperts) -> None:
    asked = request(PROMPTS[2], [("red", 1.0)], max_tokens=5, logprobs=0)
    chunks = await collect(tiny, asked)
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == len(tiny.prompt(asked.messages))
    assert usage.completion_tokens == sum(len(c.logprobs) for c in chunks) == 5
    assert chunks[-1].finish_reason is FinishReason.LENGTH


async def test_a_client_that_goes_away_frees_its_rows(tiny: LocalExperts) -> None:
    asked = request(PROMPTS[0], [("red", 0.5), ("blue", 0.5)], LocalMode.MIXTURE, max_tokens=200)
    stream = tiny.generate(asked)
    async with aclosing(stream):
        await anext(stream)
        assert (await tiny.health()).running == 1
    for _ in range(100):
        if (await tiny.health()).running == 0:
            break
        await asyncio.sleep(0.02)
    assert (await tiny.health()).running == 0


async def test_a_score_is_the_sum_of_the_texts_log_probabilities(
    tiny: LocalExperts, oracle: PeftModel
) -> None:
    said = "The court decided in favour of the tenant."
    score = await tiny.score(Scoring((("user", PROMPTS[2]),), said, "green"))
    tokens = tiny.prompt((("user", PROMPTS[2]),))
    total = 0.0
    for token in tiny._runner.tokenizer.encode(said, add_special_tokens=False):
        total += next_distribution(oracle, "green", tokens)[token].log().item()
        tokens.append(token)
    assert score.logprob == pytest.approx(total, rel=1e-4)
    assert score.bytes == len(said.encode())


async def test_a_prompt_beyond_the_context_is_refused_with_its_length(tiny: LocalExperts) -> None:
    with pytest.raises(PromptTooLong, match="at most 255 fit"):
        await collect(tiny, request("word " * 400, [("red", 1.0)]))


async def test_an_unknown_expert_is_refused_by_name(tiny: LocalExperts) -> None:
    with pytest.raises(ExpertError, match="violet"):
        await collect(tiny, request("Hi", [("violet", 1.0)]))


async def test_a_full_waiting_line_refuses(tiny: LocalExperts) -> None:
    asked = [
        request("Hi", [("red", 0.6), ("blue", 0.4)], LocalMode.MIXTURE, str(n), max_tokens=60)
        for n in range(60)
    ]
    found = await asyncio.gather(*(collect(tiny, one) for one in asked), return_exceptions=True)
    refused = [one for one in found if isinstance(one, Busy)]
    answered = [one for one in found if isinstance(one, list)]
    assert refused and len(refused) + len(answered) == 60
    assert len({text(chunks) for chunks in answered}) == 1


async def test_embedded_experts_equal_generate_with_peft_token_for_token(
    base_dir: Path, device: str
) -> None:
    from experts.adapters import EMBEDDED

    names = ("general", "code", "legal", "multilingual")
    local = LocalExperts(
        LocalSpec(
            "smollm2-135m-instruct",
            tuple((n, None if n == "general" else f"embedded:{n}") for n in names),
            device=device,
            dtype="float32",
        )
    )
    asked = [
        request(p, [(names[n % 4], 1.0)], max_tokens=24, logprobs=0)
        for n, p in enumerate(PROMPTS * 2)
    ]
    found = await asyncio.gather(*(collect(local, one) for one in asked))
    local.engine.stop()
    base = AutoModelForCausalLM.from_pretrained(base_dir)
    model = PeftModel.from_pretrained(base, EMBEDDED / "code", adapter_name="code")
    for name in names[2:]:
        model.load_adapter(EMBEDDED / name, adapter_name=name)
    model.eval()
    near_ties = 0
    for one, chunks in zip(asked, found, strict=True):
        said = [p.token for chunk in chunks for p in chunk.logprobs]
        near_ties += _compare(local, model, one, said)
    assert near_ties <= 1


def _compare(local: LocalExperts, model: PeftModel, asked: Generation, said: Sequence[str]) -> int:
    """Asserts equality up to the first near tie; returns 1 if there was one, else 0."""
    prompt = torch.tensor([local.prompt(asked.messages)])
    options = {
        "max_new_tokens": 24,
        "do_sample": False,
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    name = asked.experts[0][0]
    if name == "general":
        with model.disable_adapter():
            out = model.generate(prompt, **options)
    else:
        model.set_adapter(name)
        out = model.generate(prompt, **options)
    decode = local._runner.tokenizer.decode
    ends = local._runner.ends
    for position, token in enumerate(out.sequences[0, prompt.shape[1] :].tolist()):
        if token in ends:
            assert len(said) == position
            break
        if said[position] != decode([token], skip_special_tokens=False):
            top = torch.softmax(out.scores[position][0].double(), -1).topk(2).values
            assert float(top[0] - top[1]) < NEAR_TIE
            return 1
    return 0
