"""Whole layers beside their predictions: small layers as models have them, run by torch here, timed like single kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.architecture import Architecture
from costmodel.calibration.fit import Scores
from costmodel.calibration.own import BUDGET_S, QUICK_BUDGET_S, fitted_to, named, torch_kernels
from costmodel.calibration.shapes import SINGLE, Point, checks, plan
from costmodel.calibration.store import Calibration
from costmodel.catalog import Device
from costmodel.errors import CostModelError
from costmodel.timing.estimating import time_pass

Tensor = Any
Weights = Mapping[str, Tensor]
Sides = tuple[int, int, int]
"""Batch, new tokens a sequence, tokens in context."""
LAYERS_BUDGET_S = 45.0

_GQA = {"kind": "gqa", "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64}
_WIDE = {"kind": "gqa", "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
_MLA = {
    "kind": "mla", "num_attention_heads": 16, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 96,
}  # fmt: skip
_MOE = {"kind": "moe", "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 512, "num_shared_experts": 1}
_DELTA = {
    "kind": "gated_deltanet", "linear_num_key_heads": 8, "linear_num_value_heads": 16, "linear_key_head_dim": 64,
    "linear_value_head_dim": 64, "linear_conv_kernel_dim": 4,
}  # fmt: skip


def _mlp(width: int) -> dict[str, Any]:
    return {"kind": "mlp", "intermediate_size": width}


def _architecture(name: str, hidden: int, *layers: tuple[str, dict[str, Any], dict[str, Any]]) -> Architecture:
    groups = [{"name": group, "count": 1, "mixer": mixer, "feed_forward": forward} for group, mixer, forward in layers]
    return Architecture.model_validate(
        {
            "name": name,
            "title": name,
            "maker": "costmodel",
            "source": "small layers to validate with",
            "hidden_size": hidden,
            "vocab_size": 1024,
            "tie_word_embeddings": True,
            "layers": groups,
        }
    )


def layers() -> dict[str, Architecture]:
    """The small layers that are validated: as in Llama, as in DeepSeek, as in Qwen3-Next.

    >>> list(layers())
    ['llama', 'llama-wide', 'mla-moe', 'deltanet-hybrid']
    """
    return {
        "llama": _architecture("llama", 1024, ("attention", _GQA, _mlp(2816))),
        "llama-wide": _architecture("llama-wide", 2048, ("attention", _WIDE, _mlp(5632))),
        "mla-moe": _architecture("mla-moe", 1024, ("latent", _MLA, _MOE)),
        "deltanet-hybrid": _architecture(
            "deltanet-hybrid", 1024, ("deltanet", _DELTA, _mlp(2816)), ("attention", _GQA, _mlp(2816))
        ),
    }  # fmt: skip


PREFILLS = ((1, 64, 64), (1, 192, 192), (1, 512, 512), (1, 1024, 1024), (4, 128, 128), (2, 384, 384))
DECODES = ((1, 1, 256), (1, 1, 2048), (1, 1, 8192), (2, 1, 1024), (4, 1, 2048), (8, 1, 512), (16, 1, 1024))


@dataclass(frozen=True)
class Validation:
    """Predicted and measured seconds of each layer and pass; `calibration` is what predicted them."""

    rows: tuple[dict[str, Any], ...]
    calibration: Calibration
    noisy: bool

    def scores(self, phase: str) -> Scores:
        """Errors over all layers of a phase: prefill or decode."""
        rows = [row for row in self.rows if row["pass"] == phase]
        return Scores.of(*(np.array([row[name] for row in rows]) for name in ("predicted_s", "measured_s")))


def validate(
    device: str = "cpu", accelerator: Device | None = None, calibration: Calibration | None = None, quick: bool = False,
    seed: int = 0, follow: Callable[[int, int], None] | None = None,
) -> Validation:  # fmt: skip
    """Runs small layers (Llama-like, MLA with experts, Gated DeltaNet beside attention) and predicts each, in fp32.

    Without a `calibration` the kernels are measured too, in the same rounds as the layers, and fitted; no layer is ever
    fitted. Raises CostModelError where torch is missing or the device is not here.

    >>> validate(quick=True).scores("prefill").median < 0.2  # doctest: +SKIP
    True
    """
    kernels = torch_kernels()
    kernels.check_device(device)
    chosen = named(accelerator, device)
    if calibration and calibration.accelerator != chosen.name:
        raise CostModelError(f"calibration {calibration.name} was measured on {calibration.accelerator}, not on {chosen.name}")
    wanted = list(_points(quick))
    fitted = [] if calibration else plan(quick, seed)
    points = [*wanted, *fitted, *([] if calibration else checks(quick, seed))]
    budget = LAYERS_BUDGET_S + (0.0 if calibration else QUICK_BUDGET_S if quick else BUDGET_S)
    timed = kernels.KERNELS | {
        name: kernels.Kernel(("batch", "tokens", "context"), _Layers(model, kernels).inputs, _Layers(model, kernels).run)
        for name, model in layers().items()
    }

    def hear(_: Point, __: float, taken: int, expected: int) -> None:
        if follow:
            follow(taken, expected)

    found = kernels.measure(points, device, budget_s=budget, seed=seed, kernels=timed, follow=hear)
    measured = {point: kernels.statistic(found.seconds.pop(point), device) for point in wanted}
    used = calibration or fitted_to(found, fitted, chosen, device, "fp32", seed)
    rows = tuple(_row(point, seconds, used) for point, seconds in measured.items())
    return Validation(rows, used, found.noisy)


def _points(quick: bool) -> Iterator[Point]:
    for name in layers():
        for batch, tokens, context in [*PREFILLS, *DECODES][:: 2 if quick else 1]:
            yield Point(name, (("batch", batch), ("tokens", tokens), ("context", context)))


def _row(point: Point, measured: float, calibration: Calibration) -> dict[str, Any]:
    model, shape = layers()[point.kind], dict(point.shape)
    timed = time_pass(
        model, calibration.accelerator, shape["batch"], shape["tokens"], shape["context"], SINGLE, calibration=calibration
    )
    predicted = sum(op["seconds"] for op in timed.ops if op["block"] not in ("embedding", "head"))
    phase = "decode" if shape["tokens"] == 1 else "prefill"
    return {
        "layer": point.kind, "pass": phase, **shape, "predicted_s": predicted, "measured_s": measured,
        "error": predicted / measured - 1,
    }  # fmt: skip


# layers, of the kernels that are measured


@dataclass(frozen=True)
class _Layers:
    """All layers of a small model in a row, on tensors; `kernels` is the module that has torch."""

    model: Architecture
    kernels: Any

    def inputs(self, s: Any, batch: int, tokens: int, context: int) -> tuple[Any, ...]:
        """Activations that were just written, and weights, caches and states that no cache holds."""
        width = self.model.hidden_size
        parts = []
        for block in self._blocks():
            norm = s.warm(width) * width**-0.5  # rows of length one, about: no product becomes a denormal
            parts.append((norm, CUTS[block.kind](block, width, s, (batch, tokens, context))))
        return s.warm(batch * tokens, width), parts, (batch, tokens, context)

    def _blocks(self) -> list[Any]:
        return [block for group in self.model.layers for block in (group.mixer, group.feed_forward)]

    def run(self, x: Tensor, parts: list[tuple[Tensor, Weights]], sides: Sides) -> Tensor:
        """Norm, block, residual; and so on."""
        for block, (norm, weights) in zip(self._blocks(), parts, strict=True):
            y = RUNS[block.kind](block, self.kernels, self.kernels.norm(x, norm), weights, sides)
            x = self.kernels.add(x, y)
        return x


def _angles(s: Any, tokens: int, width: int) -> dict[str, Tensor]:
    return {"cos": s.warm(tokens, 1, width), "sin": s.warm(tokens, 1, width)}


def _cut_gqa(block: Any, width: int, s: Any, sides: Sides) -> Weights:
    batch, tokens, context = sides
    heads, kv_heads, head = block.num_attention_heads, block.num_key_value_heads, block.head_dim
    return {
        "qkv": s.cold((heads + 2 * kv_heads) * head, width),
        "o": s.cold(width, heads * head),
        "keys": s.cold(batch, kv_heads, context, head),
        "values": s.cold(batch, kv_heads, context, head),
        **_angles(s, tokens, head),
    }


def _run_gqa(block: Any, t: Any, x: Tensor, w: Weights, sides: Sides) -> Tensor:
    batch, tokens, _ = sides
    heads, kv_heads, head = block.num_attention_heads, block.num_key_value_heads, block.head_dim
    rows = t.gemm(x, w["qkv"]).view(batch, tokens, heads + 2 * kv_heads, head)
    turned = t.rope(rows[:, :, : heads + kv_heads], w["cos"], w["sin"]).transpose(1, 2)
    q, k, v = turned[:, :heads], turned[:, heads:], rows[:, :, heads + kv_heads :].transpose(1, 2)
    w["keys"][:, :, -tokens:].copy_(k)
    w["values"][:, :, -tokens:].copy_(v)
    seen = t.prefill_attention(q, k, v) if tokens > 1 else t.decode_attention(q, w["keys"], w["values"])
    return t.gemm(seen.transpose(1, 2).reshape(batch * tokens, heads * head), w["o"])


def _cut_mla(block: Any, width: int, s: Any, sides: Sides) -> Weights:
    batch, tokens, context = sides
    heads, nope, rope = block.num_attention_heads, block.qk_nope_head_dim, block.qk_rope_head_dim
    latent, value = block.kv_lora_rank, block.v_head_dim
    return {
        "q": s.cold(heads * (nope + rope), width),
        "kv_a": s.cold(latent + rope, width),
        "norm": s.warm(latent) * latent**-0.5,
        "kv_b": s.cold(heads * (nope + value), latent),
        "o": s.cold(width, heads * value),
        "latents": s.cold(batch, context, latent),
        "ropes": s.cold(batch, context, rope),
        **_angles(s, tokens, rope),
    }


def _run_mla(block: Any, t: Any, x: Tensor, w: Weights, sides: Sides) -> Tensor:
    """Latents expanded in prefill; in decode the queries go through the latents' up-projection instead (absorbed)."""
    batch, tokens, _ = sides
    heads, nope, rope, value = block.num_attention_heads, block.qk_nope_head_dim, block.qk_rope_head_dim, block.v_head_dim
    q = t.gemm(x, w["q"]).view(batch, tokens, heads, nope + rope)
    latent, k_rope = t.gemm(x, w["kv_a"]).view(batch, tokens, -1).split((block.kv_lora_rank, rope), dim=-1)
    latent = t.norm(latent, w["norm"])
    q_rope, k_rope = t.rope(q[..., nope:], w["cos"], w["sin"]), t.rope(k_rope[:, :, None], w["cos"], w["sin"])
    w["latents"][:, -tokens:].copy_(latent)
    w["ropes"][:, -tokens:].copy_(k_rope[:, :, 0])
    if tokens > 1:
        expanded = t.gemm(latent.reshape(batch * tokens, -1), w["kv_b"]).view(batch, tokens, heads, nope + value)
        keys = t.side_by_side(expanded[..., :nope], k_rope.expand(batch, tokens, heads, rope)).transpose(1, 2)
        queries = t.side_by_side(q[..., :nope], q_rope).transpose(1, 2)
        seen = t.prefill_attention(queries, keys, expanded[..., nope:].transpose(1, 2)).transpose(1, 2)
    else:
        up = w["kv_b"].view(heads, nope + value, -1)
        absorbed = (q[:, 0, :, :nope].transpose(0, 1) @ up[:, :nope]).transpose(0, 1).contiguous()
        read = t.mla_decode(absorbed, q_rope[:, 0], w["latents"], w["ropes"])
        seen = (read.transpose(0, 1) @ up[:, nope:].transpose(1, 2)).transpose(0, 1)
    return t.gemm(seen.reshape(batch * tokens, heads * value), w["o"])


def _cut_delta(block: Any, width: int, s: Any, sides: Sides) -> Weights:
    batch, tokens, _ = sides
    keys, values = (
        block.linear_num_key_heads * block.linear_key_head_dim,
        block.linear_num_value_heads * block.linear_value_head_dim,
    )
    heads, kernel = block.linear_num_value_heads, block.linear_conv_kernel_dim
    state = s.cold(batch, heads, block.linear_key_head_dim, block.linear_value_head_dim) if tokens == 1 else None
    return {
        "qkvz": s.cold(2 * keys + 2 * values, width),
        "ba": s.cold(2 * heads, width),
        "conv": s.warm(2 * keys + values, 1, kernel),
        "tail": s.cold(batch, 2 * keys + values, kernel - 1) if tokens == 1 else None,
        "rate": s.warm(heads),
        "bias": s.warm(heads),
        "ones": s.warm(block.linear_key_head_dim) * 0 + block.linear_key_head_dim**-0.5,
        "norm": s.warm(block.linear_value_head_dim),
        "out": s.cold(width, values),
        "state": state,
    }


def _run_delta(block: Any, t: Any, x: Tensor, w: Weights, sides: Sides) -> Tensor:
    batch, tokens, _ = sides
    key_heads, heads = block.linear_num_key_heads, block.linear_num_value_heads
    key, value = block.linear_key_head_dim, block.linear_value_head_dim
    keys, values = key_heads * key, heads * value
    mixed, z = t.gemm(x, w["qkvz"]).split((2 * keys + values, values), dim=-1)
    b, a = t.gemm(x, w["ba"]).view(batch, tokens, 2 * heads).chunk(2, dim=-1)
    mixed = t.conv(mixed.view(batch, tokens, -1).transpose(1, 2), w["conv"], w["tail"])
    mixed = t.silu(mixed).transpose(1, 2)
    qk, v = mixed[..., : 2 * keys].reshape(batch, tokens, 2 * key_heads, key), mixed[..., 2 * keys :]
    q, k = t.norm(qk, w["ones"]).split(key_heads, dim=2)
    beta, decay = b.sigmoid(), -w["rate"].exp() * t.softplus(a + w["bias"])
    v = v.reshape(batch, tokens, heads, value)
    if tokens > 1:
        read = t.gdn_chunked(q, k, v, decay, beta)[0]
    else:
        read = t.gdn_step(q[:, 0], k[:, 0], v[:, 0], decay[:, 0], beta[:, 0], w["state"])
    read = t.gate(z.reshape(batch * tokens, values), t.norm(read.reshape(-1, value), w["norm"]).view(batch * tokens, values))
    return t.gemm(read, w["out"])


def _cut_mlp(block: Any, width: int, s: Any, _: Sides) -> Weights:
    return {"gate_up": s.cold(2 * block.intermediate_size, width), "down": s.cold(width, block.intermediate_size)}


def _run_mlp(block: Any, t: Any, x: Tensor, w: Weights, _: Sides) -> Tensor:
    return t.gemm(t.gate(*t.gemm(x, w["gate_up"]).chunk(2, dim=-1)), w["down"])


def _cut_moe(block: Any, width: int, s: Any, _: Sides) -> Weights:
    experts, inter = block.num_experts, block.moe_intermediate_size
    shared = inter * block.num_shared_experts
    return {
        "router": s.cold(experts, width),
        "gate_up": s.cold(experts, 2 * inter, width),
        "down": s.cold(experts, width, inter),
        "shared_gate_up": s.cold(2 * shared, width),
        "shared_down": s.cold(width, shared),
    }


def _run_moe(block: Any, t: Any, x: Tensor, w: Weights, _: Sides) -> Tensor:
    weights, picks = t.softmax(t.gemm(x, w["router"])).topk(block.num_experts_per_tok, dim=-1)
    routed = t.moe(x, picks, weights, w["gate_up"], w["down"])
    return t.add(routed, t.gemm(t.gate(*t.gemm(x, w["shared_gate_up"]).chunk(2, dim=-1)), w["shared_down"]))


CUTS: dict[str, Callable[..., Weights]] = {
    "gqa": _cut_gqa, "mla": _cut_mla, "gated_deltanet": _cut_delta, "mlp": _cut_mlp, "moe": _cut_moe,
}  # fmt: skip
RUNS: dict[str, Callable[..., Tensor]] = {
    "gqa": _run_gqa, "mla": _run_mla, "gated_deltanet": _run_delta, "mlp": _run_mlp, "moe": _run_moe,
}  # fmt: skip
