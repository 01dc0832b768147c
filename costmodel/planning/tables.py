"""The tables that answer what to rent and what it promises, and the texts of their command line."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

from costmodel.errors import CostModelError, shown
from costmodel.footprint import rows_table
from costmodel.planning.deployments import Deployment
from costmodel.planning.plans import Plan
from costmodel.serving.engines import Speculation, Traffic
from costmodel.serving.services import Service
from costmodel.tables import Table

PLANNED = {
    "accelerator": "", "precision": "", "cache_precision": "", "mode": "", "layout": "", "batch": "", "slots": "", "replicas": "",
    "prefill_layout": "", "prefill_replicas": "", "devices": "", "nodes": "", "usd_per_hour": "", "usd_per_mtok_in": "",
    "usd_per_mtok_out": "", "ttft_s": "s", "tpot_s": "s", "step_s": "s", "prefill_s": "s", "tokens_per_s_per_user": "",
    "output_tokens_per_s_per_device": "", "utilisation": "share", "memory_bytes": "bytes", "free_bytes": "bytes", "watts": "",
    "kwh_per_mtok_out": "", "binds": "",
}  # fmt: skip
"""What a deployment is told by, with its unit."""
BRIEF = (
    "accelerator", "precision", "cache_precision", "mode", "layout", "batch", "replicas", "prefill_layout", "prefill_replicas",
    "devices", "usd_per_hour", "usd_per_mtok_out", "ttft_s", "tpot_s", "output_tokens_per_s_per_device", "binds",
)  # fmt: skip
"""What people see of it in a list."""
LISTED = 10
"""Rows of the list, and of the front, that people see."""
PLAN_REMARKS = (
    "batch: sequences that decode in a replica at full use; slots: those that memory has room for, as their number varies",
    "ttft_s holds for the share of requests that --level says, queue included; tpot_s is the mean between tokens, pauses for "
    "prompts included; both at full use",
    "usd_per_mtok_in and usd_per_mtok_out: each the part of the devices' time that it takes",
)
SERVICE_REMARKS = ("ttft_p50_s, ttft_p90_s and ttft_p99_s hold for that share of requests, queue included",)


def plan_tables(found: Plan, *, by_quantity: bool = True) -> list[Table]:
    """What `costmodel plan` answers: the best, or the nearest miss; the ranked table; the front; what moves the cost of a token.

    For people the first is a column of quantities, and the lists are short.
    """
    shown_, best = found.best or found.nearest, found.best is not None
    about = f"{found.wanted.model.name}, {traffic_words(found.wanted.traffic)}; {found.considered:,} candidates"
    told = (str(found.why), *found.notes, *PLAN_REMARKS)
    name, title = ("best", f"Best: {about}") if best else ("nearest", f"Nothing meets the limits; the nearest miss: {about}")
    tables = [_deployment(shown_, name, title, by_quantity, told)]
    if best:
        brief = [{name: row[name] for name in BRIEF} for row in found.rows[:LISTED]] if by_quantity else found.rows
        tables.append(Table("table", "The best layouts", brief, PLANNED))
    front = _thinned(found.front, LISTED) if by_quantity else list(found.front)
    tables.append(Table("front", "Tokens a second for a user against those for a device", front, {"tpot_s": "s"}))
    changes = [{name: _finite(value) for name, value in row.items()} for row in found.why.sensitivity]
    units = {"minus_10_percent": "share", "plus_10_percent": "share"}
    tables.append(Table("why", "What 10 % of each assumption changes in the cost of output", changes, units))
    return [table for table in tables if table.rows or not by_quantity]


def _deployment(deployment: Deployment | None, name: str, title: str, by_quantity: bool, remarks: tuple[str, ...]) -> Table:
    if deployment is None:
        return Table(name, title, [{"quantity": "candidates that fit", "value": 0}] if by_quantity else [], remarks=remarks)
    if not by_quantity:
        return Table(name, title, [deployment.row], remarks=remarks)
    rows = [{"quantity": quantity, deployment.model: value} for quantity, value in deployment.row.items()]
    return Table(name, title, rows, row_units=PLANNED, remarks=remarks)


def service_tables(found: Service, name: str, *, by_quantity: bool = True) -> list[Table]:
    """What `costmodel serve` answers: what is promised, and what each device holds."""
    values: dict[str, Any] = {
        **{f"ttft_p{level * 100:g}_s": seconds for level, seconds in found.ttft_s.items()},
        "tpot_s": found.tpot_s, "tokens_per_s_per_user": found.tokens_per_s_per_user, "prefill_s": found.prefill_s,
        "step_s": found.step_s, "transfer_s": found.transfer_s, "batch": found.batch, "places": found.places,
        "prefill_utilisation": found.prefill_utilisation, "fits": found.fits, "saturated": found.saturated,
        "most_requests_per_s": found.requests_per_s, "devices": found.devices,
        "input_tokens_per_s_per_device": found.input_tokens_per_s_per_device,
        "output_tokens_per_s_per_device": found.output_tokens_per_s_per_device,
    }  # fmt: skip
    values = {key: _finite(value) for key, value in values.items()}
    units = {key: "s" for key in values if key.endswith("_s") and not key.endswith("_per_s")} | {"prefill_utilisation": "share"}
    title = f"{name} on {found.devices:,} x {found.memory.accelerator.name}, {found.mode}, {traffic_words(found.traffic)}"
    remarks = (*found.notes, *SERVICE_REMARKS)
    rows = [{"quantity": key, name: value} for key, value in values.items()] if by_quantity else [values]
    first = Table("service", title, rows, row_units=units if by_quantity else {}, remarks=remarks)
    return [first, Table("memory", "What each device holds", rows_table(found.memory), {"bytes": "bytes", "share": "share"})]


def traffic_words(traffic: Traffic) -> str:
    """A traffic in words.

    >>> traffic_words(Traffic(requests_per_s=10, prompt=4096, output=1024))
    '10 requests a second of 4096 tokens in and 1024 out'
    """
    found = f", {traffic.cached_fraction:.0%} of prompts cached" if traffic.cached_fraction else ""
    requests = "request" if traffic.requests_per_s == 1 else "requests"
    return f"{traffic.requests_per_s:g} {requests} a second of {traffic.prompt} tokens in and {traffic.output} out{found}"


def read_prices(texts: Iterable[str]) -> dict[str, float]:
    """Dollars of a device's hour as people write them. Raises CostModelError for anything but NAME=DOLLARS.

    >>> read_prices(["h800=2", "h20=1.2"])
    {'h800': 2.0, 'h20': 1.2}
    """
    return {name.strip(): _number(number, text, "a price", "NAME=DOLLARS, such as h800=2.0") for text in texts
            for name, _, number in [text.rpartition("=")]}  # fmt: skip


def read_precisions(texts: Iterable[str]) -> list[tuple[str, str]] | None:
    """Formats of weights and cache as people write them, the cache in bf16 unless it says; None where there are none.

    >>> read_precisions(["fp8/fp8", "bf16"])
    [('fp8', 'fp8'), ('bf16', 'bf16')]
    """
    pairs = [(weights, cache or "bf16") for weights, _, cache in (text.partition("/") for text in texts)]
    return pairs or None


def read_speculation(text: str) -> Speculation | None:
    """Guesses as people write them: TOKENS:ACCEPTANCE, and the draft model after another colon; None for no text.

    >>> read_speculation("1:0.8").tokens_per_step, read_speculation("4:0.7:llama-3.1-8b").draft
    (1.8, 'llama-3.1-8b')
    """
    if not text:
        return None
    tokens, _, rest = text.partition(":")
    acceptance, _, draft = rest.partition(":")
    form = "TOKENS:ACCEPTANCE, such as 1:0.8, or 4:0.7:DRAFT"
    number = _number(tokens, text, "speculation", form)
    if number != int(number):
        raise CostModelError(f"speculation got {shown(text)}; give {form}")
    return Speculation(tokens=int(number), acceptance=_number(acceptance, text, "speculation", form), draft=draft or "mtp")


def _number(text: str, whole: str, what: str, form: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise CostModelError(f"{what} got {shown(whole)}; give {form}")
    return number


def _thinned(rows: tuple[dict[str, Any], ...], most: int) -> list[dict[str, Any]]:
    """So many rows at most, both ends among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def _finite(value: Any) -> Any:
    """None for what has no end."""
    return None if isinstance(value, float) and not isfinite(value) else value
