"""One step of the model: kernels, fused layers and many adapters against the plain model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts import decoder as decoder_module
from experts import runner as runner_module
from experts.adapters import load_adapter
from experts.lowrank import Gate
from experts.projection import Kernel, kernel_for, project_with
from experts.runner import Runner, Work
from experts.stacks import MAX_STACKED

pytestmark = pytest.mark.models
CPU = torch.device("cpu")
COUNT = 11


@pytest.fixture(scope="module")
def folders(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """More adapters than one stack holds, of two ranks and different targets."""
    root, made = tmp_path_factory.mktemp("many"), {}
    targets = [["q_proj", "v_proj"], ["o_proj", "gate_proj", "up_proj"], ["k_proj", "down_proj"]]
    for number in range(COUNT):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(tiny_dir)
        config = LoraConfig(
            r=2 + number % 2 * 3, target_modules=targets[number % 3], task_type="CAUSAL_LM"
        )
        peft = get_peft_model(base, config)
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.2)
        made[f"a{number}"] = root / f"a{number}"
        peft.save_pretrained(made[f"a{number}"])
    return made


@pytest.fixture(scope="module")
def oracle(tiny_dir: Path, folders: dict[str, Path]) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    model = PeftModel.from_pretrained(base, folders["a0"], adapter_name="a0")
    for name in list(folders)[1:]:
        model.load_adapter(folders[name], adapter_name=name)
    return model.eval()


def loaded(tiny_dir: Path, folders: dict[str, Path], device: str, dtype: str = "float32") -> Runner:
    runner = Runner(tiny_dir, device=device, threads=1, cache_tokens=8192, dtype=dtype)
    runner.load([load_adapter(n, f, runner.linears) for n, f in folders.items()])
    return runner


@pytest.fixture(scope="module")
def fused(tiny_dir: Path, folders: dict[str, Path], device: str) -> Runner:
    return loaded(tiny_dir, folders, device)


def run(runner: Runner, gates: Sequence[Gate], texts: Sequence[Sequence[int]]) -> torch.Tensor:
    rows = [runner.arena.reserve(len(t)) for t in texts]
    works = [
        Work(row, gate, text, [len(text) - 1])
        for row, gate, text in zip(rows, gates, texts, strict=True)
        if row is not None
    ]
    found = torch.cat(runner.run(works)).cpu()
    for work in works:
        runner.arena.release(work.cache, "", [])
    runner.arena.clear()
    return found


def expected(model: PeftModel, name: str | None, text: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        if name is None:
            with model.disable_adapter():
                return model(torch.tensor([text])).logits[0, -1]
        model.set_adapter(name)
        return model(torch.tensor([text])).logits[0, -1]


def texts(count: int) -> list[list[int]]:
    return [[5 + n, 900 + n, *range(40, 40 + n % 4)] for n in range(count)]


def test_more_adapters_than_a_stack_holds_share_a_step(fused: Runner, oracle: PeftModel) -> None:
    assert COUNT > MAX_STACKED
    names: list[str | None] = [None, *(f"a{n}" for n in range(COUNT)), None, "a3", "a3"]
    found = run(fused, [{} if n is None else {n: 1.0} for n in names], texts(len(names)))
    truth = [expected(oracle, n, t) for n, t in zip(names, texts(len(names)), strict=True)]
    torch.testing.assert_close(found, torch.stack(truth), atol=2e-4, rtol=1e-4)


def test_the_order_of_rows_does_not_matter(fused: Runner) -> None:
    gates: list[Gate] = [{"a1": 1.0}, {}, {"a2": 0.4, "a1": 0.6}, {"a9": 1.0}, {"a1": 1.0}]
    prompts = texts(5)
    forth = run(fused, gates, prompts)
    back = run(fused, gates[::-1], prompts[::-1])
    torch.testing.assert_close(forth, back.flip(0), atol=2e-5, rtol=1e-5)


def test_a_replaced_adapter_is_the_new_one_and_an_unloaded_one_is_gone(
    tiny_dir: Path, folders: dict[str, Path], oracle: PeftModel, device: str
) -> None:
    runner = loaded(tiny_dir, {n: folders[n] for n in ("a0", "a1")}, device)
    text = texts(1)
    before = run(runner, [{"a0": 1.0}], text)[0]
    torch.testing.assert_close(before, expected(oracle, "a0", text[0]), atol=2e-4, rtol=1e-4)
    runner.load([load_adapter("a0", folders["a4"], runner.linears)])
    after = run(runner, [{"a0": 1.0}], text)[0]
    torch.testing.assert_close(after, expected(oracle, "a4", text[0]), atol=2e-4, rtol=1e-4)
    runner.bank.unload("a0")
    assert runner.bank.names == ["a1"]


def test_a_model_outside_the_family_gives_the_same_logits(
    tiny_dir: Path,
    folders: dict[str, Path],
    fused: Runner,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "fits", lambda _model: False)
        plain = loaded(tiny_dir, folders, device)
    gates: list[Gate] = [{}, {"a1": 1.0}, {"a2": 0.4, "a5": 0.6}]
    torch.testing.assert_close(
        run(plain, gates, texts(3)), run(fused, gates, texts(3)), atol=2e-4, rtol=1e-4
    )


SHAPE = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 2,
}


@pytest.mark.parametrize(
    ("kind", "config", "in_family"),
    [
        ("Llama", {"attention_bias": True, "mlp_bias": True}, True),
        ("Llama", {"tie_word_embeddings": True, "head_dim": 16}, True),
        ("Mistral", {"sliding_window": None}, True),
        ("Mistral", {"sliding_window": 64}, False),
        ("Qwen2", {}, True),
        ("Qwen3", {"head_dim": 16}, False),
    ],
)
def test_the_logits_are_those_of_transformers(
    tiny_dir: Path,
    tmp_path: Path,
    kind: str,
    config: dict[str, object],
    in_family: bool,
    device: str,
) -> None:
    """A prompt in two chunks, then single tokens, beside another row; biases are not zero."""
    torch.manual_seed(3)
    made = getattr(transformers, f"{kind}Config")(**{**SHAPE, **config})
    model = getattr(transformers, f"{kind}ForCausalLM")(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    assert decoder_module.fits(model) is in_family
    runner = Runner(tmp_path, device=device, dtype="float32", threads=1, cache_tokens=1024)
    long, other = list(range(20, 60)), [5, 6, 7, 8]
    rows = [runner.arena.reserve(len(text)) for text in (long, other)]
    found = []
    for start, stop, beside in [(0, 17, 0), (17, 38, 1), (38, 39, 2), (39, 40, 3)]:
        works = [Work(rows[0], {}, long[start:stop], [stop - start - 1])]
        works.append(Work(rows[1], {}, [other[beside]], [0]))
        found.append([logits.cpu() for logits in runner.run(works)])
    with torch.inference_mode():
        first, second = (model(torch.tensor([text])).logits[0] for text in (long, other))
    for (mine, theirs), stop, beside in zip(found, (17, 38, 39, 40), range(4), strict=True):
        torch.testing.assert_close(mine[0], first[stop - 1], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(theirs[0], second[beside], atol=2e-4, rtol=1e-4)


def test_int8_is_refused_for_a_model_that_it_cannot_compute(tiny_dir: Path, tmp_path: Path) -> None:
    config = transformers.Qwen3Config(**{**SHAPE, "head_dim": 16})
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not Qwen3ForCausalLM: choose another dtype"):
        Runner(tmp_path, device="cpu", dtype="int8", threads=1, cache_tokens=64)


def test_half_precision_is_as_near_the_truth_as_transformers(base_dir: Path, device: str) -> None:
    """The embedded base in bfloat16, a prompt in chunks: no worse than transformers' own."""
    runner = Runner(base_dir, device=device, dtype="bfloat16", threads=2, cache_tokens=1024)
    text = runner.tokenizer.encode("A tenant may end the lease when the roof leaks, because " * 3)
    row = runner.arena.reserve(len(text))
    assert row is not None
    halves = []
    for start, stop in [(0, 17), (17, len(text) - 1), (len(text) - 1, len(text))]:
        work = Work(row, {}, text[start:stop], range(stop - start))
        halves.append(runner.run([work])[0].float().cpu())
    ids = torch.tensor([text])
    with torch.inference_mode():
        truth = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)(ids).logits[0]
        model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.bfloat16).to(device)
        theirs = model(ids.to(device)).logits[0].float().cpu()
    ours = torch.cat(halves)
    assert (ours - truth).norm() < 1.3 * (theirs - truth).norm()
    assert (ours - truth).norm() < 0.03 * truth.norm()


def test_one_of_the_packed_products_is_used_where_there_is_one() -> None:
    expected = {Kernel.MKL, Kernel.ONEDNN} if torch.backends.mkldnn.is_available() else set(Kernel)
    assert kernel_for(CPU, torch.float32, int8=False) in expected


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 16, 31, 64, 65, 200])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [Kernel.MKL, Kernel.ONEDNN])
def test_a_packed_projection_is_the_plain_one(kernel: Kernel, rows: int, bias: bool) -> None:
    parts = {Kernel.MKL: torch.backends.mkl, Kernel.ONEDNN: torch.backends.mkldnn}
    if not parts[kernel].is_available():
        pytest.skip(f"no {kernel} on this machine")
    generator = torch.Generator().manual_seed(rows)
    weights = [torch.randn(n, 48, generator=generator) for n in (24, 8, 40)]
    biases = [torch.randn(len(w), generator=generator) if bias else None for w in weights]
    x = torch.randn(rows, 48, generator=generator)
    truth = torch.cat([linear(x, w, b) for w, b in zip(weights, biases, strict=True)], dim=1)
    found = project_with(kernel, weights, biases)(x)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-4)


def test_int8_is_near_the_plain_model(
    tiny_dir: Path, folders: dict[str, Path], fused: Runner
) -> None:
    if not torch.backends.quantized.supported_engines:
        pytest.skip("no int8 kernels on this machine")
    small = loaded(tiny_dir, folders, "cpu", dtype="int8")
    gates: list[Gate] = [{}, {"a1": 1.0}]
    exact, near = run(fused, gates, texts(2)), run(small, gates, texts(2))
    error = (near - exact).norm() / exact.norm()
    assert 1e-5 < float(error) < 0.15


@pytest.mark.parametrize("rows", [1, 4, 33])
def test_an_int8_projection_rounds_weights_and_rows_and_nothing_else(rows: int) -> None:
    if not torch.backends.quantized.supported_engines:
        pytest.skip("no int8 kernels on this machine")
    generator = torch.Generator().manual_seed(rows)
    weights = [torch.randn(n, 256, generator=generator) for n in (40, 24)]
    x = torch.randn(rows, 256, generator=generator)
    biases = [torch.randn(40, generator=generator), None]
    truth = torch.cat([linear(x, w, b) for w, b in zip(weights, biases, strict=True)], dim=1)
    found = project_with(Kernel.INT8, weights, biases)(x)
    assert float((found - truth).norm() / truth.norm()) < 0.025


@pytest.mark.parametrize("rows", [2, 16, 17, 40])
def test_an_int8_row_is_what_it_is_alone_however_large_the_others_are(rows: int) -> None:
    if not torch.backends.quantized.supported_engines:
        pytest.skip("no int8 kernels on this machine")
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(24, 256, generator=generator)
    x = torch.randn(rows, 256, generator=generator)
    x[0] *= 1000
    project = project_with(Kernel.INT8, [weight], [None])
    each = torch.cat([project(row[None]) for row in x])
    torch.testing.assert_close(project(x), each, atol=1e-3, rtol=1e-4)
    assert float((each[1] - weight @ x[1]).norm() / (weight @ x[1]).norm()) < 0.03


def test_int8_channels_a_thousand_times_larger_than_others_drown_them_only_if_unknown() -> None:
    if not torch.backends.quantized.supported_engines:
        pytest.skip("no int8 kernels on this machine")
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(24, 256, generator=generator), torch.randn(9, 256, generator=generator)
    x[:, 7] *= 1000
    weight[:, 7] /= 1000
    truth = linear(x, weight)
    peaks = x.abs().amax(dim=0)

    def error(found: torch.Tensor) -> float:
        return float((found - truth).norm() / truth.norm())

    assert error(project_with(Kernel.INT8, [weight], [None], peaks)(x)) < 0.05
    assert error(project_with(Kernel.INT8, [weight], [None])(x)) > 0.5


def test_int8_costs_the_embedded_model_little(base_dir: Path) -> None:
    """Loss of a text that the calibration has not seen, against transformers' float32."""
    if not torch.backends.quantized.supported_engines:
        pytest.skip("no int8 kernels on this machine")
    runner = Runner(base_dir, device="cpu", dtype="int8", threads=2, cache_tokens=1024)
    text = runner.tokenizer.encode((Path(__file__).parents[1] / "LICENSE").read_text())[:400]
    row = runner.arena.reserve(len(text))
    assert row is not None
    found = runner.run([Work(row, {}, text[:-1], range(len(text) - 1))])[0]
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
        truth = model(torch.tensor([text])).logits[0, :-1]
    losses = [torch.nn.functional.cross_entropy(y, torch.tensor(text[1:])) for y in (found, truth)]
    assert float(losses[0] - losses[1]) < 0.1


def test_int8_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(ValueError, match="needs a CPU"):
        kernel_for(torch.device("cuda"), torch.bfloat16, int8=True)
