"""`collegium train`: experts and the router, from JSON Lines files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import err, out, progress_bar, readable_errors
from orchestrator.cli.train_evidence import train_evidence
from orchestrator.cli.train_losses import train_losses
from orchestrator.cli.train_promises import train_promises
from orchestrator.cli.train_router import train_router
from orchestrator.cli.training_bar import TrainingBar

if TYPE_CHECKING:
    from experts.examples import Example
    from experts.training import Lessons, TrainingOptions


@click.group()
def train() -> None:
    """Train an expert's adapter or the router: gate, promises, weight of evidence."""


@dataclass(frozen=True)
class _ExpertJob:
    name: str
    data: tuple[Path, ...]
    base: str
    folder: Path
    tokens: int
    held_out: float
    held_out_rows: int
    exclude: tuple[str, ...]
    short_share: float
    keep: tuple[Path, ...]
    invocation: str
    device: str
    threads: int


_Files = click.Path(exists=True, dir_okay=False, path_type=Path)
_Count = click.IntRange(min=1)


train.add_command(train_evidence)
train.add_command(train_losses)
train.add_command(train_promises)
train.add_command(train_router)


@train.command("expert")
@click.option("--name", required=True, help="Domain of the expert, e.g. legal.")
@click.option(
    "--data",
    "data",
    required=True,
    multiple=True,
    type=_Files,
    help="JSON Lines with `prompt` and `response` (repeatable; also bare arguments).",
)
@click.argument("more", nargs=-1, type=_Files)
@click.option("--base", default="smollm2-135m-instruct", show_default=True, help="Base model.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Default: adapters/NAME.")
@click.option(
    "--tokens", default=100_000, type=_Count, show_default=True, help="Trained (response) tokens."
)
@click.option(
    "--held-out",
    default=0.03,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    show_default=True,
    help="Share of rows that are only measured on, never trained on.",
)
@click.option(
    "--held-out-rows", default=64, type=_Count, show_default=True, help="At most so many of them."
)
@click.option(
    "--exclude-license",
    "exclude",
    multiple=True,
    help="Leave out rows whose licence has this text; `unnamed` for rows without one.",
)
@click.option(
    "--short-share",
    default=1.0,
    type=click.FloatRange(0, 1),
    show_default=True,
    help="At most this share of the rows has a response under 40 characters (bare labels).",
)
@click.option(
    "--keep",
    "keep",
    multiple=True,
    type=_Files,
    help="Rows of what other experts are for (repeatable): there the expert learns to stay as the "
    "base is. As many tokens as are trained on, the same share from each file.",
)
@click.option(
    "--keep-weight",
    default=1.0,
    type=click.FloatRange(0, min_open=True),
    show_default=True,
    help="What staying counts, beside 1 for learning.",
)
@click.option(
    "--invocation",
    default="",
    help="Act only from the last occurrence of this text in the prompt on (activated LoRA): the "
    "experts of a mixture that wait so share one pass over the prompt. \\n is a line break.",
)
@click.option("--rank", default=8, type=_Count, show_default=True)
@click.option("--alpha", default=16, type=_Count, show_default=True)
@click.option(
    "--learning-rate",
    default=1e-3,
    type=click.FloatRange(0, 1, min_open=True),
    show_default=True,
)
@click.option("--epochs", default=1, type=_Count, show_default=True)
@click.option(
    "--batch-tokens", default=512, type=_Count, show_default=True, help="Padded tokens a step."
)
@click.option(
    "--max-length",
    default=512,
    type=_Count,
    show_default=True,
    help="Tokens of prompt and response: a longer response is cut, a longer prompt left out.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto: any.")
@click.option(
    "--threads", default=0, type=click.IntRange(min=0), help="CPU threads; default: all cores."
)
def train_expert(
    name: str,
    data: tuple[Path, ...],
    more: tuple[Path, ...],
    base: str,
    folder: Path | None,
    tokens: int,
    held_out: float,
    held_out_rows: int,
    exclude: tuple[str, ...],
    short_share: float,
    keep: tuple[Path, ...],
    invocation: str,
    device: str,
    threads: int,
    **options: float,
) -> None:
    """Train a LoRA adapter for one domain and write it with its model card.

    Stop it with Ctrl-C and run the same command again: it continues from the last checkpoint.

    \b
    collegium train expert --name legal --data train/legal.jsonl --tokens 60000
    """
    from experts.checkpoint import CheckpointError
    from experts.device import DeviceError
    from experts.examples import ExampleError
    from experts.store import ModelError
    from experts.training import TrainingOptions

    job = _ExpertJob(
        name,
        (*data, *more),
        base,
        folder or Path("adapters") / name,
        tokens,
        held_out,
        held_out_rows,
        exclude,
        short_share,
        keep,
        invocation.replace("\\n", "\n"),
        device,
        threads,
    )
    with readable_errors(CheckpointError, DeviceError, ExampleError, ModelError):
        _train(job, TrainingOptions(**options))  # type: ignore[arg-type]


def _train(job: _ExpertJob, options: TrainingOptions) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from experts.card import write_card
    from experts.device import choose_device
    from experts.store import ModelStore
    from experts.training import train_adapter

    if job.threads:
        torch.set_num_threads(job.threads)
    with progress_bar() as pulling:
        base = ModelStore().pull(job.base, progress=pulling)
    tokenizer = AutoTokenizer.from_pretrained(base)
    invocation = tokenizer.encode(job.invocation, add_special_tokens=False)
    options = replace(options, invocation=tuple(invocation))
    lessons = _lessons(job, options, tokenizer)
    every = [*lessons.learn, *lessons.keep]
    _warn_of_licenses(every)
    device = choose_device(job.device)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    with TrainingBar(job.name) as bar:
        report = train_adapter(model, lessons, job.folder, options, bar.step, job.base)
    write_card(
        job.folder,
        name=job.name,
        base=job.base,
        command=_command(sys.argv[1:]),
        examples=every,
        report=report,
    )
    out.print(
        f"{job.folder}: held-out loss {report.loss_before:.4f} -> {report.loss_after:.4f} "
        f"nats/token, {report.trained_tokens} tokens in {report.seconds:.0f} s"
    )


def _lessons(job: _ExpertJob, options: TrainingOptions, tokenizer: Any) -> Lessons:  # noqa: ANN401
    from experts.examples import ExampleError, choose
    from experts.training import Lessons

    examples, held = _examples(job, job.data, options, tokenizer)
    chosen = choose(examples, job.tokens, options.seed, short_share=job.short_share)
    if not chosen or not held:
        raise ExampleError(
            f"{len(chosen)} rows to train on and {len(held)} held out: give more data, or change "
            "--held-out, --max-length, --short-share or --exclude-license"
        )
    err.print(f"{len(chosen)} rows of {len(examples)}, {len(held)} held out")
    keep: list[Example] = []
    kept_out: list[Example] = []
    for path in job.keep:
        rows, out_of = _examples(job, (path,), options, tokenizer)
        keep += choose(rows, job.tokens // len(job.keep), options.seed)
        kept_out += out_of[: max(1, job.held_out_rows // len(job.keep))]
    if job.keep:
        err.print(f"{len(keep)} rows to leave alone, {len(kept_out)} held out")
    return Lessons(chosen, held[: job.held_out_rows], keep, kept_out)


def _examples(
    job: _ExpertJob,
    paths: Sequence[Path],
    options: TrainingOptions,
    tokenizer: Any,  # noqa: ANN401
) -> tuple[list[Example], list[Example]]:
    """Those to train on and those held out."""
    from experts.examples import read_rows, split_rows, tokenise

    parts = split_rows(read_rows(paths, exclude_licenses=job.exclude), job.held_out, options.seed)
    first, second = (
        [e for row in rows if (e := tokenise(tokenizer, row, options.max_length))] for rows in parts
    )
    return first, second


def _warn_of_licenses(examples: Sequence[Example]) -> None:
    from experts.card import restricted_licenses

    restricted = restricted_licenses(examples)
    if restricted:
        rows = ", ".join(f"{text} ({n} rows)" for text, n in restricted.items())
        options = " ".join(f"--exclude-license {shlex.quote(text)}" for text in restricted)
        click.echo(
            f"Warning: the adapter will bear no licence, because these terms of the data restrict "
            f"what is made from it, or are not known: {rows}. Leave those rows out with {options}",
            err=True,
        )


def _command(arguments: Sequence[str]) -> str:
    return "collegium " + shlex.join(_shown(argument) for argument in arguments)


def _shown(argument: str) -> str:
    # The card must not carry the paths of the machine that trained.
    option, equals, value = (
        argument.partition("=") if argument.startswith("-") else ("", "", argument)
    )
    path = Path(value)
    is_place = path.is_absolute() or ("/" in value and path.exists())
    return option + equals + (path.name if is_place else value)
