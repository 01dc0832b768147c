"""The command line: flags, one library call, a table. Data goes to stdout, remarks to stderr; a mistake exits with 2."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from costmodel.errors import CostModelError, shown
from costmodel.usage import check_once, in_options, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from costmodel.tables import Table

app = typer.Typer(
    name="costmodel",
    help="What an LLM architecture costs: parameters, cache, FLOPs and bytes, derived symbolically and explained.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from costmodel import __version__

        sys.stdout.write(f"costmodel {__version__}\n")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """What holds for every command."""


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


FormatOption = Annotated[
    Format, typer.Option("--format", "-f", help="table and md read well; json and csv are exact, in base units.")
]
ContextOption = Annotated[str, typer.Option("--context", "-c", help="Tokens of context per sequence: 4096, 128k, 1M.")]
BatchOption = Annotated[int, typer.Option("--batch", "-b", help="Concurrent sequences.")]
PrecisionOption = Annotated[str, typer.Option(help="Format of weights and experts: bf16, fp8, int8, int4, mxfp4, nvfp4, q4_K ...")]
CacheOption = Annotated[str, typer.Option("--cache-precision", help="Format of the cache: bf16, fp8, int8 ...")]
ModelArgument = Annotated[str, typer.Argument(help="A preset name (see `costmodel presets`), a TOML file, or what `import` takes.")]
OnOption = Annotated[str, typer.Option(help="An accelerator (see `costmodel accelerators`) or a TOML file.")]
EpOption = Annotated[int, typer.Option(help="Ranks that experts are spread over, of tp x dp x cp.")]
DpOption = Annotated[int, typer.Option(help="Groups of ranks with sequences of their own, which share experts.")]
PpOption = Annotated[int, typer.Option(help="Pipeline stages.")]
CpOption = Annotated[int, typer.Option(help="Ranks that have a part each of every context.")]


def emit(tables: Sequence[Table], form: Format) -> None:
    """Prints tables to stdout and their remarks to stderr."""
    from costmodel.tables import as_csv, as_json, as_markdown, print_tables

    if form is Format.json:
        sys.stdout.write(as_json(list(tables[0].rows) if len(tables) == 1 else {table.name: list(table.rows) for table in tables}))
    elif form is Format.csv:
        sys.stdout.write(as_csv(tables))
    elif form is Format.md:
        sys.stdout.write(as_markdown(tables))
    else:
        print_tables(tables)
    note(remark for table in tables for remark in table.remarks)


def note(remarks: Iterable[str]) -> None:
    """Writes remarks to stderr, each once."""
    from costmodel.tables import clean

    for remark in dict.fromkeys(remarks):
        sys.stderr.write(f"note: {clean(remark)}\n")


@app.command(epilog="Example: costmodel presets --format csv")
def presets(form: FormatOption = Format.table) -> None:
    """List the architectures that come with costmodel."""
    from costmodel.catalog import load
    from costmodel.catalog import presets as names
    from costmodel.tables import Table

    rows = []
    for name in names():
        model = load(name)
        released = model.released.isoformat() if model.released else ""
        params = {"params_total": model.params.total, "params_active": model.params.active}
        rows.append({"name": name, "title": model.title, "maker": model.maker, "released": released, **params})
    emit([Table("presets", "Presets", rows, {"params_total": "parameters", "params_active": "parameters"})], form)


@app.command(epilog="Example: costmodel show deepseek-v3 --context 128k --precision fp8")
def show(
    model: ModelArgument,
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    form: FormatOption = Format.table,
) -> None:
    """Show what one architecture costs: parameters, cache, FLOPs and bytes."""
    from costmodel.answers.summary import published_remarks, summary_tables
    from costmodel.catalog import load, published_precision
    from costmodel.units import parse_tokens

    chosen = load(model)
    emit(summary_tables(chosen, parse_tokens(context), batch, precision, cache_precision), form)
    note(published_remarks(published_precision(model)) if precision == "bf16" else ())


@app.command(epilog="Example: costmodel compare deepseek-v3 kimi-k2 qwen3-next-80b-a3b --context 1M")
def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more preset names, TOML files or config.json files.")],
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    form: FormatOption = Format.table,
) -> None:
    """Compare architectures at one context."""
    from costmodel.answers.summary import comparison_table
    from costmodel.catalog import load
    from costmodel.units import parse_tokens

    chosen = [load(model) for model in models]
    people = form in (Format.table, Format.md)
    emit([comparison_table(chosen, parse_tokens(context), batch, precision, cache_precision, by_quantity=people)], form)


@app.command(epilog="Example: costmodel accelerators --format json")
def accelerators(form: FormatOption = Format.table) -> None:
    """List the accelerators that come with costmodel: memory, peaks, links, power and price, with their sources."""
    from costmodel.answers.summary import accelerators_table

    emit([accelerators_table(notes=form in (Format.json, Format.csv))], form)


@app.command(epilog="Example: costmodel capacity llama-3.1-70b --on h100-sxm --devices 4 --precision fp8")
def capacity(
    models: Annotated[list[str], typer.Argument(help="Preset names or TOML files.")],
    on: OnOption,
    devices: Annotated[int, typer.Option("--devices", "-d", help="How many of them.")] = 1,
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    view: Annotated[str, typer.Option(help="The cache: theory (what must be kept) or engine (what a server reserves).")] = "theory",
    form: FormatOption = Format.table,
) -> None:
    """Show what fits into the memory of accelerators: the longest context, the most sequences, the fewest devices."""
    from costmodel.answers.summary import capacity_table
    from costmodel.catalog import accelerator
    from costmodel.units import parse_tokens

    people = form in (Format.table, Format.md)
    asked = parse_tokens(context), batch, precision, cache_precision, view
    emit([capacity_table(models, accelerator(on), devices, *asked, by_quantity=people)], form)


@app.command(epilog="Example: costmodel memory deepseek-v3 --on h200 --tp 8 --ep 8 --batch 32 --context 8k --precision fp8")
def memory(
    model: ModelArgument,
    on: OnOption,
    tp: Annotated[int, typer.Option(help="Tensor-parallel ranks.")] = 1,
    ep: EpOption = 1,
    dp: DpOption = 1,
    pp: PpOption = 1,
    cp: CpOption = 1,
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    view: Annotated[str, typer.Option(help="The cache: engine (what a server reserves) or theory (what must be kept).")] = "engine",
    pass_tokens: Annotated[int, typer.Option(help="Tokens of the largest pass; longer prompts go in pieces.")] = 8192,
    reserve: Annotated[float, typer.Option(help="Share of a device that the runtime takes.")] = 0.1,
    mtp: Annotated[int, typer.Option(help="Multi-token-prediction modules that guess.")] = 0,
    speculative: Annotated[int, typer.Option(help="Tokens guessed for each sequence and step.")] = 0,
    draft: Annotated[str, typer.Option(help="A draft model that guesses: a preset or a file.")] = "",
    form: FormatOption = Format.table,
) -> None:
    """Show what each device of a layout holds, row by row, and what fits: context, sequences, devices, formats."""
    from costmodel.answers.summary import memory_tables
    from costmodel.footprint import device_memory
    from costmodel.parallelism import Parallel
    from costmodel.units import parse_tokens

    held = device_memory(
        model, on, Parallel(tp=tp, ep=ep, dp=dp, pp=pp, cp=cp), batch, parse_tokens(context), precision, cache_precision, view,
        pass_tokens, reserve, mtp, speculative, draft or None,
    )  # fmt: skip
    emit(memory_tables(held, by_quantity=form in (Format.table, Format.md)), form)


@app.command(epilog="Example: costmodel estimate llama-3.1-8b --on h100-sxm --batch 16 --prompt 4k --output 256")
def estimate(
    model: ModelArgument,
    on: OnOption,
    devices: Annotated[int | None, typer.Option("--devices", "-d", help="How many; by default those of one replica.")] = None,
    tp: Annotated[int, typer.Option(help="Tensor-parallel ranks; by default as many devices as the heads allow.")] = 0,
    ep: EpOption = 1,
    dp: DpOption = 1,
    pp: PpOption = 1,
    cp: CpOption = 1,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="One half of a batch computes while the other's messages travel.")
    ] = False,
    batch: BatchOption = 1,
    prompt: Annotated[str, typer.Option(help="Tokens of each prompt: 4096, 128k.")] = "4096",
    output: Annotated[str, typer.Option(help="Tokens of each output.")] = "1024",
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    calibration: Annotated[str, typer.Option(help="A calibration's name or file; the accelerator's own by default.")] = "",
    launch_us: Annotated[
        float, typer.Option(min=0, max=1e8, help="Microseconds of host time a kernel, where no graph captures them.")
    ] = 0.0,
    form: FormatOption = Format.table,
) -> None:
    """Estimate seconds: the first token, each further one, what bounds them, with an interval and every kernel's share."""
    from costmodel.answers.summary import estimate_tables
    from costmodel.parallelism import Parallel
    from costmodel.timing.estimating import estimate as time
    from costmodel.units import parse_tokens

    layout = None
    if tp or max(ep, dp, pp, cp) > 1 or overlap:
        whole = tp or max((devices or 1) // max(dp * pp * cp, 1), 1)
        layout = Parallel(tp=whole, ep=ep, dp=dp, pp=pp, cp=cp, overlap="two_batches" if overlap else "none")
    found = time(
        model, on, devices, layout, batch, parse_tokens(prompt), parse_tokens(output), precision,
        cache_precision, calibration or None, launch_us * 1e-6,
    )  # fmt: skip
    emit(estimate_tables(found, by_quantity=form in (Format.table, Format.md)), form)


RateOption = Annotated[float, typer.Option(help="Requests a second.")]
PromptOption = Annotated[str, typer.Option(help="Tokens of each prompt: 4096, 128k, or p50=900,p90=4000,max=32k.")]
OutputOption = Annotated[str, typer.Option(help="Tokens of each output, in the same forms.")]
CachedOption = Annotated[float, typer.Option(help="Part of each prompt that the prefix cache has.")]
SpeculateOption = Annotated[
    str, typer.Option(help="Guesses: TOKENS:ACCEPTANCE of the model's own modules, or TOKENS:ACCEPTANCE:DRAFT of a draft model.")
]
ChunkOption = Annotated[int, typer.Option(help="Tokens of a prompt that ride on one decode step of a colocated engine.")]


@app.command(epilog="Example: costmodel plan llama-3.1-8b --on h100-sxm --on l40s --rate 2 --ttft 1 --tpot 0.05")
def plan(
    model: ModelArgument,
    on: Annotated[list[str], typer.Option(help="An accelerator (see `costmodel accelerators`) or a TOML file; may be repeated.")],
    rate: RateOption,
    prompt: PromptOption = "4096",
    output: OutputOption = "1024",
    cached: CachedOption = 0.0,
    ttft: Annotated[float | None, typer.Option(help="Most seconds to the first token, queue included.")] = None,
    tpot: Annotated[float | None, typer.Option(help="Most seconds between tokens, in the mean.")] = None,
    level: Annotated[float, typer.Option(help="Share of requests whose first token keeps its limit.")] = 0.9,
    devices: Annotated[int | None, typer.Option("--devices", "-d", help="Most devices.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Most nodes.")] = None,
    budget: Annotated[float | None, typer.Option(help="Most dollars an hour.")] = None,
    objective: Annotated[str, typer.Option(help="What is to be least: usd, devices or latency.")] = "usd",
    precision: Annotated[
        list[str] | None, typer.Option(help="Formats of weights and cache: bf16, fp8, fp8/fp8; may be repeated.")
    ] = None,
    mode: Annotated[list[str] | None, typer.Option(help="colocated or disaggregated; both by default.")] = None,
    price: Annotated[list[str] | None, typer.Option(help="Dollars of a device's hour: h800=2.0; may be repeated.")] = None,
    speculate: SpeculateOption = "",
    chunk: ChunkOption = 2048,
    imbalance: Annotated[float, typer.Option(help="Load of the busiest rank of experts over the mean.")] = 1.0,
    report_to: Annotated[
        Path | None, typer.Option("--report", help="A file to write the plan's report to: .html, .md, .pdf, .xlsx, .csv or .json.")
    ] = None,
    form: FormatOption = Format.table,
) -> None:
    """Plan a deployment: which accelerators, how many, how laid out, at what price, and why; or the nearest miss."""
    from costmodel.files import check_place
    from costmodel.planning.candidates import Limits
    from costmodel.planning.plans import plan as find
    from costmodel.planning.tables import plan_tables, read_precisions, read_prices, read_speculation
    from costmodel.serving.engines import MODES, Traffic

    written = None if report_to is None else _form_of(report_to)
    if report_to is not None and written is not None:
        from costmodel.reporting.writing import check_format

        check_format(written.value)
        check_place(report_to)
    found = find(
        model, on, Traffic(requests_per_s=rate, prompt=prompt, output=output, cached_fraction=cached),
        Limits(ttft_s=ttft, tpot_s=tpot, level=level, devices=devices, nodes=nodes, usd_per_hour=budget),
        objective,  # type: ignore[arg-type]  # checked where it is used
        read_precisions(precision or ()), tuple(mode or MODES), prices=read_prices(price or ()),  # type: ignore[arg-type]
        speculation=read_speculation(speculate), chunk=chunk, imbalance=imbalance,
    )  # fmt: skip
    emit(plan_tables(found, by_quantity=form in (Format.table, Format.md)), form)
    if report_to is not None and written is not None:
        from costmodel.reporting import Report

        Report.of(found).write(written.value, report_to)
        sys.stderr.write(f"wrote {shown(str(report_to))[1:-1]}\n")


@app.command(epilog="Example: costmodel serve llama-3.1-8b --on h100-sxm --rate 2 --prompt p50=900,p90=4000 --output 256")
def serve(
    model: ModelArgument,
    on: OnOption,
    rate: RateOption,
    prompt: PromptOption = "4096",
    output: OutputOption = "1024",
    cached: CachedOption = 0.0,
    tp: Annotated[int, typer.Option(help="Tensor-parallel ranks of a replica.")] = 1,
    ep: EpOption = 1,
    dp: DpOption = 1,
    pp: PpOption = 1,
    cp: CpOption = 1,
    replicas: Annotated[int, typer.Option(help="Replicas that decode.")] = 1,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Most sequences that decode in a replica.")] = 64,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    mode: Annotated[str, typer.Option(help="colocated, or disaggregated: prompts in a pool of their own.")] = "colocated",
    prefill_tp: Annotated[int, typer.Option(help="Tensor-parallel ranks of a prefill replica; the layout of the others if 0.")] = 0,
    prefill_replicas: Annotated[int, typer.Option(help="Replicas that compute prompts, where they are apart.")] = 1,
    speculate: SpeculateOption = "",
    chunk: ChunkOption = 2048,
    form: FormatOption = Format.table,
) -> None:
    """Say what a deployment promises under traffic: the first token with its queue, each further one, and what devices hold."""
    from costmodel.catalog import load
    from costmodel.parallelism import Parallel
    from costmodel.planning.tables import read_speculation, service_tables
    from costmodel.serving.engines import Traffic
    from costmodel.serving.services import serve as promise

    chosen = load(model)
    found = promise(
        chosen, on, Traffic(requests_per_s=rate, prompt=prompt, output=output, cached_fraction=cached),
        Parallel(tp=tp, ep=ep, dp=dp, pp=pp, cp=cp), replicas, batch, precision, cache_precision,
        mode,  # type: ignore[arg-type]  # checked where it is used
        Parallel(tp=prefill_tp) if prefill_tp else None, prefill_replicas, chunk, read_speculation(speculate),
    )  # fmt: skip
    emit(service_tables(found, chosen.name, by_quantity=form in (Format.table, Format.md)), form)


@app.command(epilog="Example: costmodel sweep gemma-3-27b cache_bytes --grid context=1k..1M:log:5 --grid batch=1,8")
def sweep(
    model: ModelArgument,
    quantity: Annotated[str, typer.Argument(help="Quantities, with commas between: cache_bytes, prefill_flops, params.total ...")],
    grid: Annotated[
        list[str],
        typer.Option(
            "--grid",
            "-g",
            help="An input or a field and its values: batch=1,2,4; context=1k..1M:log:50; local/mixer/sliding_window=512,none.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The Parquet file to write, block by block; resumable.")] = None,
    scheduler: Annotated[str, typer.Option(help="The address of a Dask scheduler, whose workers then do it.")] = "",
    workers: Annotated[int, typer.Option(help="Threads of this machine; one a processor by default.")] = 0,
    form: FormatOption = Format.table,
) -> None:
    """Evaluate quantities over a grid of inputs and fields of the architecture; the last axis is the fastest."""
    from costmodel.sweeping.grids import read_grid
    from costmodel.sweeping.sweeps import check_printed, executor_of, sweep_table
    from costmodel.sweeping.sweeps import sweep as run

    left = f"what is done is kept in {shown(f'{out}.parts')[1:-1]}; run the same command to go on" if out else "nothing was kept"
    axes = read_grid(grid)
    if out is None:
        check_printed(axes)
    with _interruptible(left), executor_of(scheduler, workers) as executor, _bar("sweeping") as follow:
        found = run(model, quantity.split(","), axes, executor, out, follow)
    if out is None:
        emit([sweep_table(found)], form)
    else:
        note(found.remarks)
        sys.stderr.write(f"wrote {shown(str(out))[1:-1]}: {found.points:,} points\n")


@app.command(epilog="Example: costmodel design llama-3.1-8b --cache 4GiB --context 128k")
def design(
    model: ModelArgument,
    cache: Annotated[str, typer.Option(help="Most bytes of cache: 16GiB, 16GB; no limit by default.")] = "",
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    flops: Annotated[float | None, typer.Option(help="Most FLOPs of a decode step, as a multiple of now: 1.0.")] = None,
    params: Annotated[float | None, typer.Option(help="Most parameters, as a multiple of now.")] = None,
    changes: Annotated[int, typer.Option(help="Changes made at once, at most: 1 or 2.")] = 2,
    kind: Annotated[list[str] | None, typer.Option(help="A kind of change to try: kv_heads, window ...; may be repeated.")] = None,
    mixer: Annotated[
        list[str] | None, typer.Option(help="What layers may turn to: mla, qwen3-next-80b-a3b/deltanet; may be repeated.")
    ] = None,
    hold: Annotated[str, typer.Option(help="What feed-forward widths keep equal: decode_flops or params_total.")] = "",
    round_to: Annotated[int, typer.Option(help="Widths so changed are multiples of it.")] = 64,
    objective: Annotated[
        list[str] | None, typer.Option(help="What the front is over: cache_bytes, decode_flops, distance ...; may be repeated.")
    ] = None,
    cache_precision: CacheOption = "bf16",
    write: Annotated[tuple[int, Path] | None, typer.Option(help="A design's number, and the TOML file to write it to.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Search small changes that meet limits of cache, FLOPs and parameters: all that no other beats, smallest change first."""
    from costmodel.designing.moves import MIXERS
    from costmodel.designing.search import OBJECTIVE
    from costmodel.designing.search import design as search
    from costmodel.files import check_place, write_text
    from costmodel.units import parse_tokens

    if write is not None:
        check_place(write[1])
    found = search(
        model, cache or None, parse_tokens(context), batch, flops, params, kind or None, objective or OBJECTIVE, changes,
        cache_precision, hold or None, round_to, mixer or MIXERS,
    )  # fmt: skip
    saved = None if write is None else found.numbered(write[0]).toml
    emit([found.table_for(people=form in (Format.table, Format.md))], form)
    if write is not None and saved is not None:
        write_text(write[1], saved)
        sys.stderr.write(f"wrote {shown(str(write[1]))[1:-1]}\n")


@app.command(epilog="Example: costmodel train deepseek-v3 --on h800 --devices 2048 --tokens 14.8T --mfu 0.39")
def train(
    model: ModelArgument,
    on: OnOption,
    devices: Annotated[int, typer.Option("--devices", "-d", help="How many of them.")],
    tokens: Annotated[str, typer.Option(help="Tokens of the run: 300B, 14.8T.")],
    sequence: Annotated[str, typer.Option(help="Tokens of a sequence: 4096, 128k.")] = "4096",
    batch: Annotated[int, typer.Option("--batch", "-b", help="Sequences of a step; 0: no step is timed.")] = 0,
    mfu: Annotated[float, typer.Option(help="Share of the peak that the model's own FLOPs reach.")] = 0.4,
    method: Annotated[str, typer.Option(help="FLOPs: exact, or 6nd (6 x active parameters x tokens).")] = "exact",
    recompute: Annotated[str, typer.Option(help="Activations made again in the backward pass: none, selective or full.")] = "none",
    tp: Annotated[int, typer.Option(help="Tensor-parallel ranks.")] = 1,
    pp: Annotated[int, typer.Option(help="Stages of the pipeline.")] = 1,
    ep: Annotated[int, typer.Option(help="Data-parallel ranks that share the experts.")] = 1,
    zero: Annotated[int, typer.Option(help="Cut over data-parallel ranks: 1 optimiser, 2 gradients too, 3 weights too.")] = 1,
    sequence_parallel: Annotated[
        bool, typer.Option("--sequence-parallel", help="Cut what tensor-parallel ranks hold whole along the tokens.")
    ] = False,
    microbatch: Annotated[int, typer.Option(help="Sequences of a microbatch.")] = 1,
    precision: PrecisionOption = "bf16",
    gradients: Annotated[str, typer.Option(help="Format of the gradients: bf16, fp32.")] = "bf16",
    optimizer: Annotated[str, typer.Option(help="adamw, adamw-bf16, adamw-8bit, momentum or sgd.")] = "adamw",
    dropout: Annotated[bool, typer.Option("--dropout", help="Keep masks of dropout, as GPT-3 did.")] = False,
    dtype: Annotated[str, typer.Option(help="The format whose peak the MFU refers to.")] = "bf16",
    usd_per_hour: Annotated[float | None, typer.Option(help="Dollars of a device's hour; the listed price by default.")] = None,
    add: Annotated[list[str] | None, typer.Option(help="Further device hours: 'post-training=5000'; may be repeated.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Price a run of training: FLOPs, device hours, days, dollars, and what the fullest device holds."""
    from costmodel.answers.summary import training_tables
    from costmodel.training.runs import read_hours
    from costmodel.training.runs import train as price
    from costmodel.units import parse_count, parse_tokens

    found = price(
        model, on, devices, parse_count(tokens), parse_tokens(sequence), batch or None, mfu, method=method, recompute=recompute,
        tp=tp, pp=pp, ep=ep, zero=zero, sequence_parallel=sequence_parallel, microbatch=microbatch, precision=precision,
        gradients=gradients, optimizer=optimizer, dropout=dropout, dtype=dtype, usd_per_hour=usd_per_hour,
        further=read_hours(add or ()),
    )  # fmt: skip
    emit(training_tables(found, by_quantity=form in (Format.table, Format.md)), form)


@app.command(epilog="Example: costmodel diff llama-3.1-8b qwen3-8b")
def diff(
    a: ModelArgument,
    b: ModelArgument,
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    to_precision: Annotated[str, typer.Option(help="Format of B's weights; A's by default.")] = "",
    to_cache_precision: Annotated[str, typer.Option(help="Format of B's cache; A's by default.")] = "",
    form: FormatOption = Format.table,
) -> None:
    """Walk from A to B, one architecture change at a time, with what each costs."""
    from costmodel.answers.summary import diff_table
    from costmodel.catalog import load
    from costmodel.units import parse_tokens

    stored = (precision, to_precision or precision), (cache_precision, to_cache_precision or cache_precision)
    emit([diff_table(load(a), load(b), parse_tokens(context), batch, *stored)], form)


FAMILY_NAMES = (
    "gqa",
    "mha",
    "mqa",
    "sliding-window",
    "mla",
    "dsa",
    "gated_deltanet",
    "kda",
    "lightning_attention",
    "token_mixing",
    "mamba",
    "mamba2",
    "parallel_hybrid",
    "shared_transformer",
    "short_conv",
    "mlstm",
    "rwkv7",
    "mlp",
    "moe",
    "rwkv_channel_mix",
)
"""Written out, so that `--help` derives nothing; a test compares them with the families."""


@app.command(epilog="Example: costmodel derive mla --preset deepseek-v3")
def derive(
    family: Annotated[str, typer.Argument(help=f"A family: {', '.join(FAMILY_NAMES)}.")],
    preset: Annotated[str, typer.Option(help="The preset whose numbers are filled in; by default one that has the family.")] = "",
    context: ContextOption = "4096",
    batch: BatchOption = 1,
    form: FormatOption = Format.table,
) -> None:
    """Derive a family's formulas: in letters, with a preset's numbers, and the values; as text and LaTeX, with the source."""
    from costmodel.answers.derivations import derivation_tables
    from costmodel.units import parse_tokens

    emit(derivation_tables(family, preset or None, parse_tokens(context), batch), form)


class ReportFormat(StrEnum):
    """How a report is written."""

    html = "html"
    md = "md"
    pdf = "pdf"
    xlsx = "xlsx"
    csv = "csv"
    json = "json"
    folder = "folder"
    table = "table"


@app.command(epilog="Example: costmodel report deepseek-v3 --out deepseek-v3.html")
def report(
    models: Annotated[
        list[str] | None, typer.Argument(help="A preset name, a file, several to compare, or `all`: a report for each preset.")
    ] = None,
    context: ContextOption = "128k",
    batch: BatchOption = 1,
    precision: PrecisionOption = "bf16",
    cache_precision: CacheOption = "bf16",
    view: Annotated[str, typer.Option(help="The cache: theory (what must be kept) or engine (what a server reserves).")] = "theory",
    on: Annotated[str, typer.Option(help="The accelerator of roofline and price.")] = "h200",
    devices: Annotated[int, typer.Option("--devices", "-d", help="How many of them.")] = 16,
    units: Annotated[str, typer.Option(help="Bytes in GiB or GB.")] = "GiB",
    link: Annotated[str, typer.Option(help="A dashboard's link, in the place of models and all above.")] = "",
    calibration: Annotated[str, typer.Option(help="A calibration's name or file, in the place of models.")] = "",
    form: Annotated[
        ReportFormat | None, typer.Option("--format", "-f", help="By default as the file ends, else md; json and csv are exact.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file or folder to write; stdout by default.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Whether a folder holds a PDF too.")] = True,
) -> None:
    """Write a report to send around: one file, or a folder of all formats; for every preset at once with `all`."""
    from costmodel.files import check_place
    from costmodel.reporting.asking import Asked
    from costmodel.reporting.writing import check_format

    asked = Asked(tuple(models or ()), context, batch, precision, cache_precision, view, on, devices, units, link, calibration)
    if asked.every:
        _report_all(asked, form or ReportFormat.md, out, pdf)
        return
    chosen = _form_of(out, form)
    if out is not None and chosen not in (ReportFormat.folder, ReportFormat.table):
        check_format(chosen.value)
        check_place(out)
    found = asked.report()
    if chosen is ReportFormat.table:
        if out is not None:
            raise CostModelError("a report's table is for the terminal; choose html, md, pdf, xlsx, csv, json or folder")
        emit(found.told, Format.table)
    elif out is not None:
        found.write(chosen.value, out, pdf=pdf)
        sys.stderr.write(f"wrote {shown(str(out))[1:-1]}\n")
    elif chosen in (ReportFormat.pdf, ReportFormat.xlsx, ReportFormat.folder):
        raise CostModelError(f"{chosen.value} is nothing for a terminal; give --out with a place to write it")
    else:
        sys.stdout.write(found.terminal if chosen is ReportFormat.md and sys.stdout.isatty() else found.write(chosen.value))
    note(found.remarks)


def _report_all(asked: Any, chosen: ReportFormat, out: Path | None, pdf: bool) -> None:
    """A report for each preset, in a folder."""
    from costmodel.reporting.many import report_each

    if out is None or chosen is ReportFormat.table:
        raise CostModelError("reports of all presets need a folder and a format; give --out DIR --format html, md, pdf ...")
    with _interruptible("the reports that are there are whole"), _bar("writing") as follow:
        report_each(asked.names, chosen.value, out, None, follow, pdf=pdf, **asked.choices)
    sys.stderr.write(f"wrote {len(asked.names)} reports to {shown(str(out))[1:-1]}\n")


def _form_of(out: Path | None, form: ReportFormat | None = None) -> ReportFormat:
    """The format that is asked for, or that a file's ending says; Markdown on stdout.

    Raises CostModelError where an ending says another format, or none says which.
    """
    if out is None:
        return form or ReportFormat.md
    endings = [each.value for each in ReportFormat if each not in (ReportFormat.folder, ReportFormat.table)]
    ending = out.suffix[1:].lower()
    if form is None and ending not in endings:
        known = ", ".join(f".{each}" for each in endings)
        raise CostModelError(f"{shown(str(out))} does not say which format; end it in one of {known}, or give --format")
    if form is not None and form.value in endings and ending in endings and ending != form.value:
        raise CostModelError(f"--format {form.value} and a file that ends in .{ending} disagree; leave one of them out")
    return form or ReportFormat(ending)


@app.command("import", epilog="Example: costmodel import path/to/config.json --write mine.toml")
def import_(
    config: Annotated[
        str, typer.Argument(help="A Hugging Face config.json, the folder that holds it, a GGUF file, or a model's name on the hub.")
    ],
    write: Annotated[Path | None, typer.Option("--write", "-w", help="The TOML file to write the architecture to.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Import a config.json or GGUF file: which fields were used, ignored and assumed, the parameters, and the size of the files."""
    from costmodel.answers.summary import import_tables
    from costmodel.catalog import as_toml, import_config
    from costmodel.files import check_place, write_text

    if write is not None:
        check_place(write)
    imported = import_config(config)
    if write is not None:
        write_text(write, as_toml(imported.architecture))
    emit(import_tables(imported), form)
    if write is not None:
        sys.stderr.write(f"wrote {shown(str(write))[1:-1]}\n")


@app.command(epilog="Example: costmodel calibrate --quick")
def calibrate(
    device: Annotated[str, typer.Option(help="What to measure here: cpu or cuda (cuda:1 ...).")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer points: a minute, not several.")] = False,
    table: Annotated[Path | None, typer.Option(help="Fit this CSV file of measured kernels instead, one row a point.")] = None,
    kind: Annotated[str, typer.Option(help="The table's class: gemm, prefill_attention, decode_attention, moe or allreduce.")] = "",
    on: Annotated[
        str, typer.Option("--on", "--accelerator", "-a", help="Whose peaks (see `costmodel accelerators`); needed for a table.")
    ] = "",
    points: Annotated[int, typer.Option(help="Rows of a table to fit; all the others are scored.")] = 40,
    seed: Annotated[int, typer.Option(help="Which point the choice of rows, or of shapes, starts at.")] = 0,
    dtype: Annotated[str, typer.Option(help="Format of the operands: fp32, bf16 ...; fp32 on a CPU, else bf16.")] = "",
    time_unit: Annotated[str, typer.Option(help="Unit of a table's times: s, ms, us or ns.")] = "s",
    where: Annotated[list[str] | None, typer.Option(help="Keep a table's rows whose column has this text: COLUMN=TEXT.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The calibration file to write (JSON); calibration.json if measured here.")
    ] = None,
    form: FormatOption = Format.table,
) -> None:
    """Measure small kernels on this machine, or take a table of them; fit every class, and score it on points not fitted."""
    from costmodel.calibration.report import fit_file, scores_tables
    from costmodel.calibration.store import as_json
    from costmodel.catalog import accelerator
    from costmodel.files import check_place, write_text

    if out is not None:
        check_place(out)
    if table is None:
        if kind or where:
            raise CostModelError("--kind and --where are of a table; give --table FILE.csv, or leave them out to measure here")
        from costmodel.calibration.own import calibrate as measure

        written = out or Path("calibration.json")
        with (
            _interruptible(f"the samples are in {shown(str(written))[1:-1]}.part; run the same command to go on"),
            _bar() as follow,
        ):
            fitted = measure(device, on or None, quick, dtype, seed, written, follow)
    else:
        if not kind or not on:
            raise CostModelError("a table needs --kind and --on, such as --kind gemm --on h100-sxm")
        fitted = fit_file(table, kind, accelerator(on), points, seed, dtype or "bf16", time_unit, where or ())
        if out is not None:
            write_text(out, as_json(fitted))
    emit(scores_tables(fitted), form)
    note(fitted.notes if fitted.machine else ())
    if out is not None:
        sys.stderr.write(f"wrote {shown(str(out))[1:-1]}\n")


@app.command(epilog="Example: costmodel validate --quick")
def validate(
    device: Annotated[str, typer.Option(help="What to run on: cpu or cuda (cuda:1 ...).")] = "cpu",
    calibration: Annotated[str, typer.Option(help="A calibration's name or file; by default kernels are measured beside.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer points and layers: a minute.")] = False,
    on: Annotated[str, typer.Option("--on", "--accelerator", "-a", help="Whose peaks; by default the device's own name.")] = "",
    seed: Annotated[int, typer.Option(help="Which shapes of kernels are measured.")] = 0,
    form: FormatOption = Format.table,
) -> None:
    """Run small torch layers (Llama-like, MLA with experts, Gated DeltaNet) beside their predictions, and print both."""
    from costmodel.answers.summary import validation_tables
    from costmodel.calibration.store import read_calibration
    from costmodel.catalog import calibration_file
    from costmodel.validation import validate as run

    known = read_calibration(calibration_file(calibration)) if calibration else None
    with _interruptible("nothing was kept"), _bar() as follow:
        found = run(device, on or None, known, quick, seed, follow)
    emit(validation_tables(found), form)


@contextmanager
def _interruptible(left: str) -> Iterator[None]:
    """Ends an interrupt with a line that says what is left."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: {left}\n")
        raise typer.Exit(130) from None


@contextmanager
def _bar(doing: str = "measuring") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda taken, expected: progress.update(task, completed=taken, total=expected)


@app.command(epilog="Example: costmodel schema --format md")
def schema(form: FormatOption = Format.json) -> None:
    """Print the JSON Schema of an architecture file (json), or its fields as a list."""
    from costmodel.answers.summary import schema_table
    from costmodel.architecture import Architecture
    from costmodel.tables import as_json

    if form is Format.json:
        sys.stdout.write(as_json(Architecture.model_json_schema()))
    else:
        emit([schema_table()], form)


@app.command(
    "app",
    epilog="Example: costmodel app --server.port=8502",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def dashboard(context: typer.Context) -> None:
    """Open the dashboard in a browser (needs streamlit: the extra called app).

    It listens on this machine alone. Further options go to streamlit, such as --server.port=8502, --server.headless=true, or
    --server.address=0.0.0.0 for others to reach it.
    """
    import subprocess
    from importlib.util import find_spec

    from costmodel.catalog import bundled
    from costmodel.errors import CostModelError

    if context.args and not context.args[0].startswith("-"):
        raise CostModelError(f"app takes no argument, not {shown(context.args[0])}; give options of streamlit, or nothing")
    if find_spec("streamlit") is None:
        raise CostModelError("the dashboard needs streamlit, which is not installed; run: pip install 'costmodel[app]'")
    flags = [*app_flags(), "--server.address=localhost", *context.args]
    command = [sys.executable, "-m", "streamlit", "run", str(bundled("app.py")), *flags]
    if os.name == "posix":  # signals and status are streamlit's own then
        os.execv(sys.executable, command)  # noqa: S606 - no text of a user's but options for streamlit
    raise SystemExit(subprocess.run(command, check=False).returncode)  # noqa: S603


def app_flags() -> list[str]:
    """The dashboard's settings as flags of streamlit, so that they hold in any folder."""
    import tomllib

    from costmodel.catalog import bundled

    return _flags(tomllib.loads(bundled(".streamlit/config.toml").read_text(encoding="utf-8")))


def _flags(settings: dict[str, Any], within: str = "--") -> list[str]:
    """Settings of a file as flags: `--theme.dark.primaryColor=...`."""
    return [
        flag
        for name, value in settings.items()
        for flag in (_flags(value, f"{within}{name}.") if isinstance(value, dict) else [f"{within}{name}={value}"])
    ]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits; a user's mistake is one line on stderr and status 2."""
    prepare_streams()
    given, group = list(sys.argv[1:] if arguments is None else arguments) or ["--help"], typer.main.get_command(app)
    options = _options(group, given[0])
    try:
        check_once(given, {spelling: each.opts[0] for each in options if _is_single(each) for spelling in each.opts})
        status = group.main(given, "costmodel", standalone_mode=False)
        sys.stdout.flush()
    except CostModelError as error:
        sys.stderr.write(f"error: {in_options(str(error), {each.name: each.opts[0] for each in options})}\n")
        status = 2
    except USAGE_ERROR as error:
        where = f"costmodel {given[0]}" if options else "costmodel"
        sys.stderr.write(f"error: {typed(error, given)}; see `{where} --help`\n")
        status = 2
    except OSError as error:  # whoever read stdout has left, or its disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
        status = 1
    raise SystemExit(status or 0)


def _options(group: Any, command: str) -> list[Any]:
    """The options of a command; none of what is no command."""
    params = group.commands[command].params if command in group.commands else []
    return [each for each in params if each.opts[0].startswith("-")]


def _is_single(option: Any) -> bool:
    return not option.multiple and not option.is_flag


USAGE_ERROR: Any = typer.BadParameter.__base__
"""What typer raises for a mistaken command line; it exports only this child of it."""


def prepare_streams() -> None:
    """Has stdout and stderr take every character, and be there at all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
