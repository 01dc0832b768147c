"""Published throughput of whole deployments, with where each one operated, beside what the time model says of it.

No constant belongs to a row: devices are their datasheets with the H100's calibration (its fractions on the H800, H20 and H200).
What a source says of its load is an input: tokens and layout; and one number for LMSYS's three default rows of prefill, how
unevenly experts were used, is solved from two other figures of the same source (`lmsys_imbalance`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import costmodel as cm
from costmodel.catalog import accelerator
from costmodel.parallelism import Parallel
from costmodel.timing.estimating import decode_pass, formats_of, prefill_pass
from costmodel.timing.points import Points
from costmodel.timing.roofline import Clock, clock

from .end_to_end import llama2
from .test_published import gpt

PROFILE = "deepseek-ai/profile-data@ae7fc07; figures by LMSYS and InferSim from its traces"
LMSYS = "LMSYS, Deploying DeepSeek on 96 H100 GPUs, 2025-05-05"
DAY_6 = "deepseek-ai/open-infra-index@56d8685, day 6"
INFERSIM = "alibaba/InferSim@f2293da README and examples"
DEEPEP = "deepseek-ai/DeepEP docs/legacy.md@0297fc8"
DSA = "deepseek-ai/DeepSeek-V3.2-Exp@3b99a53, figure 3"
NODE = 8
PROMPT_TOKENS = 16_384
"""Tokens a GPU and prefill pass in DeepSeek's profile and LMSYS's tests."""
BALANCED_4K, DEFAULT_4K = 59_337, 50_302
"""LMSYS's prefill a node at 4K prompts, with experts used evenly and as its data used them."""
MTP_TOKENS, ACCEPTED = 2, 1.6
"""Tokens of a request in a pass, and how many of them LMSYS counts, in its simulation of multi-token prediction."""
MEAN_PROMPT, HIT = 608e9 / (608e9 + 168e9 / 2) * 4989, 0.563
"""DeepSeek's mean prompt: 608e9 tokens in, 168e9 out, a context of 4,989 at an output token in the mean (P + D / 2)."""


@dataclass(frozen=True)
class Row:
    """A published figure: ours, what the ratio ours / published must lie between (None: it is only shown), and what explains it."""

    name: str
    title: str
    published: float
    unit: str
    ours: Callable[[], float]
    source: str
    point: str
    within: tuple[float, float] | None
    why: str


def timer(model: str | cm.Architecture, device: str, precision: str = "fp8", cache: str = "bf16") -> Clock:
    """The clock of a deployment."""
    return clock(cm.load(model) if isinstance(model, str) else model, accelerator(device), formats_of(precision, cache))


def wide(ranks: int, imbalance: float = 1.0) -> Parallel:
    """Data-parallel attention and experts over all ranks, in two overlapping batches."""
    return Parallel(dp=ranks, ep=ranks, overlap="two_batches", imbalance=imbalance)


def prefill(device: str, ranks: int, prompt: int, *, prefix: int = 0, imbalance: float = 1.0, model: str = "deepseek-v3") -> float:
    """Computed tokens a second and GPU: passes of 16,384 tokens of prompts of this length after a prefix."""
    batch = max(round(PROMPT_TOKENS / prompt), 1)
    cache = "fp8_ds_mla" if model == "deepseek-v3.2" else "bf16"
    found = prefill_pass(timer(model, device, cache=cache), wide(ranks, imbalance), batch * ranks, prompt, prefix)
    return batch * prompt / found.seconds


def decode(device: str, ranks: int, batch: int, context: int, model: str = "deepseek-v3") -> float:
    """Tokens a second and GPU: `batch` sequences a GPU at one context."""
    cache = "fp8_ds_mla" if model == "deepseek-v3.2" else "bf16"
    return batch / decode_pass(timer(model, device, cache=cache), wide(ranks), batch * ranks, context, context).seconds


def guessing(device: str, ranks: int, batch: int, context: int) -> float:
    """Tokens a second and GPU where a pass checks two tokens of a sequence, as LMSYS counts them."""
    points = replace(Points.of(wide(ranks), batch, MTP_TOKENS, context), verify=True, _found={})
    return batch * ACCEPTED / float(timer("deepseek-v3", device).seconds(points, "two_batches")[0])


@lru_cache(maxsize=1)
def lmsys_imbalance() -> float:
    """The busiest rank's load over the mean at which LMSYS's prefill at 4K falls from its balanced figure to its default one."""
    low, high = 1.0, 4.0
    balanced = prefill("h100-sxm", 32, 4096)
    for _ in range(30):
        middle = (low + high) / 2
        falls = prefill("h100-sxm", 32, 4096, imbalance=middle) / balanced
        low, high = (middle, high) if falls > DEFAULT_4K / BALANCED_4K else (low, middle)
    return low


def usd(tokens_per_s: float) -> float:
    """Dollars a million tokens at $2 a GPU and hour."""
    return 2 / 3600 / tokens_per_s * 1e6


def message_us(name: str, ranks: int) -> float:
    """Microseconds of a layer's dispatch or combine of 128 single tokens a GPU."""
    found = timer("deepseek-v3", "h800").detail(Points.of(Parallel(dp=ranks, ep=ranks), 128, 1, 4096))
    return next(op["seconds"] / op["layers"] * 1e6 for op in found.ops if op["op"] == name and op["kernel"] == "sent")


def offline(batch: int) -> float:
    """Tokens of output a second on eight H200 with a copy of Llama-2-70B each."""
    found = cm.estimate(llama2(), "h200", batch=batch, prompt=294, output=294, precision="fp8", cache_precision="fp8")
    return 8 * found.output_tokens_per_s_per_device


def small(model: str, precision: str, ranks: int, batch: int) -> float:
    """Tokens a second and H20 at contexts of 4,096 to 6,144."""
    layout = Parallel(dp=ranks, ep=ranks)
    return batch / decode_pass(timer(model, "h20", precision), layout, batch * ranks, 4096, 6144).seconds


def small_prefill(model: str, precision: str) -> float:
    """Tokens a second of an H20: passes of four prompts of 4,096."""
    return PROMPT_TOKENS / prefill_pass(timer(model, "h20", precision), Parallel(), 4, 4096).seconds


def step_ms(devices: int) -> float:
    """Milliseconds of a decode step of a GPT of 13B parameters on A100s, batch 1 after 512 tokens."""
    return 1e3 * (cm.estimate(gpt(40, 5120, 40), "a100-40gb", devices, prompt=512, output=10).tpot_s or 0.0)


QUARTER = (0.75, 1.25)
AT_LEAST = (1.0, 2.0)
SKEWED = "experts as used by its data: the imbalance ({:.2f}) at which 59,337 becomes 50,302 at 4K, both measured there"
"""How LMSYS's default rows were loaded."""


def rows() -> tuple[Row, ...]:
    """All of them."""
    h800, h100, tok, node = "h800", "h100-sxm", "tok/s/GPU", "tok/s/node"
    skew = lmsys_imbalance()
    return (
        Row("inf-v3-pre", "DeepSeek-V3 prefill, profile, H800", 7839, tok, lambda: prefill(h800, 32, 4096), PROFILE,
            "EP32 TP1, 16,384 tokens a GPU in 4K prompts, two micro-batches, balanced experts", QUARTER, ""),
        Row("inf-v3-dec", "DeepSeek-V3 decode, profile, H800", 2324, tok, lambda: decode(h800, 128, 128, 4096), PROFILE,
            "EP128 TP1, 128 requests a GPU after 4,096 tokens, two micro-batches, balanced experts", QUARTER,
            "likely: FlashMLA (up to 660 TFLOP/s, here 510) and DeepGEMM are faster than the kernels of the calibration; read as "
            "passes of two tokens, as LMSYS simulates the profile, it is 1.05"),
        Row("lmsys-pre-4k-balanced", "DeepSeek-V3 prefill, 4K prompts, balanced experts, H100", BALANCED_4K, node,
            lambda: NODE * prefill(h100, 32, 4096), LMSYS, "4 nodes, EP32, 16,384 tokens a GPU, two-batch overlap", QUARTER, ""),
        Row("lmsys-pre-1k", "DeepSeek-V3 prefill, 1K prompts, H100", 57_674, node,
            lambda: NODE * prefill(h100, 32, 1024, imbalance=skew), LMSYS, f"the same; {SKEWED.format(skew)}", QUARTER, ""),
        Row("lmsys-pre-2k", "DeepSeek-V3 prefill, 2K prompts, H100", 54_543, node,
            lambda: NODE * prefill(h100, 32, 2048, imbalance=skew), LMSYS, "the same", QUARTER, ""),
        Row("lmsys-e2e-in", "DeepSeek-R1 on 96 H100, tokens in", 52_300, node,
            lambda: NODE * prefill(h100, 32, 2000, imbalance=skew), LMSYS, "the same, prompts of 2,000", QUARTER,
            "1.29 with experts used evenly, which is not within a quarter; moves of caches and waiting are left out"),
        Row("lmsys-dec-2k", "DeepSeek-V3 decode, H100", 22_282, node, lambda: NODE * decode(h100, 72, 256, 2000), LMSYS,
            "9 nodes, EP72, 256 requests a GPU after 2,000 tokens, two-batch overlap", QUARTER,
            "the combine outlasts the attention beside it, as LMSYS saw; uneven experts and 32 redundant ones are left out"),
        Row("lmsys-e2e", "DeepSeek-R1 on 96 H100, tokens out", 22_300, node, lambda: NODE * decode(h100, 72, 256, 2000), LMSYS,
            "the same", QUARTER, ""),
        Row("lmsys-dec-4k", "DeepSeek-V3 decode, simulated multi-token prediction, H100", 17_373, node,
            lambda: NODE * guessing(h100, 72, 128, 4000), LMSYS,
            "9 nodes, EP72, 128 requests a GPU after 4,000 tokens, 2 tokens of each in a pass, 1.6 of them counted", QUARTER,
            "attention was slowed down there to take as long as DeepSeek's"),
        Row("oii-prefill-nocache", "DeepSeek's service, mean of a day, prefill, H800", 32_206, node,
            lambda: NODE * prefill(h800, 32, round(MEAN_PROMPT * (1 - HIT)), prefix=round(MEAN_PROMPT * HIT)), DAY_6,
            "EP32; 16,384 computed tokens a GPU; the mean prompt (4,383 tokens) after its 56.3 % in the cache", AT_LEAST,
            "a day's mean is not full load: nodes idle at times, lengths differ and experts are used unevenly; the same engine's "
            "profile, balanced and full, is 1.95 times as fast"),
        Row("oii-decode", "DeepSeek's service, mean of a day, decode, H800", 14_800, node,
            lambda: NODE * decode(h800, 144, 128, 4989), DAY_6,
            "EP144, mean context 4,989; 128 requests a GPU, an assumption (LMSYS's reading)", AT_LEAST,
            "at 20 to 22 tokens a second and user the mean is 84 to 93 requests a GPU, not 128"),
        Row("inf-q30-dec", "Qwen3-30B-A3B bf16 decode, H20", 2749, tok, lambda: small("qwen3-30b-a3b", "bf16", 4, 100), INFERSIM,
            "4 GPUs, EP4, 100 requests a GPU, 4,096 in and 2,048 out", None, ""),
        Row("inf-q30-pre", "Qwen3-30B-A3B bf16 prefill, H20", 16_594, tok, lambda: small_prefill("qwen3-30b-a3b", "bf16"), INFERSIM,
            "16,384 tokens in prompts of 4,096", None,
            "likely: an H20 has a seventh of the H100's FLOP/s at its bandwidth, and reaches more of them"),
        Row("inf-q8-dec", "Qwen3-8B fp8 decode, H20", 2682, tok, lambda: small("qwen3-8b", "fp8", 1, 64), INFERSIM,
            "1 GPU, 64 requests, 4,096 in and 2,048 out", None, ""),
        Row("inf-q8-pre", "Qwen3-8B fp8 prefill, H20", 15_061, tok, lambda: small_prefill("qwen3-8b", "fp8"), INFERSIM,
            "16,384 tokens in prompts of 4,096", None, "as above"),
        Row("mlperf-h200", "Llama-2-70B fp8, MLPerf v4.0 offline, 8 H200", 31_712, "tok/s", lambda: offline(512),
            "NVIDIA's MLPerf v4.0 results", "a copy on each GPU, cache in fp8; batch 512 and 294 tokens in and out are assumptions",
            None, "lengths are not published with the figure; fp8 products were measured with quantisation as a pass of its own"),
        Row("kip-13b-meas", "GPT 13B decode, FasterTransformer, A100 40 GB", 22.0, "ms", lambda: step_ms(1),
            "kipply/blog@1dd66d0", "1 GPU, batch 1, 512 tokens in, 10 out", None, ""),
        Row("kip-13b-2", "GPT 13B decode, FasterTransformer, 2 A100 40 GB", 13.5, "ms", lambda: step_ms(2),
            "kipply/blog@1dd66d0", "2 GPUs, the same", None, ""),
        *prices(),
        *(
            Row(f"deepep-{name}-{ranks}", f"DeepEP low-latency {name} over {ranks} H800", value, "us",
                lambda name=name, ranks=ranks: message_us(name, ranks), DEEPEP, "128 tokens a GPU, 7,168 wide, top 8", QUARTER, "")
            for name, values in (("dispatch", (118, 155, 173, 192, 194)), ("combine", (195, 273, 314, 369, 360)))
            for ranks, value in zip((16, 32, 64, 128, 256), values, strict=True)
        ),
    )  # fmt: skip


def prices() -> tuple[Row, ...]:
    """Dollars a million tokens at a position, as DeepSeek estimates them from its service."""
    v3, v32 = "deepseek-v3", "deepseek-v3.2"
    prompt = "EP32; passes of 4 pieces of 4,096 tokens around the position"
    step = "EP144; 128 requests a GPU, all of them at the position"
    full = "the layout and the batch behind the curve are not published"
    return tuple(
        Row(name, f"{'DeepSeek-V3.1' if model == v3 else 'DeepSeek-V3.2-Exp'} {phase} at {at:,} tokens, H800", value, "$/Mtok",
            (lambda model=model, at=at: usd(prefill("h800", 32, 4096, prefix=max(at - 2048, 0), model=model)))
            if phase == "prefill" else (lambda model=model, at=at: usd(decode("h800", 144, 128, at, model=model))),
            DSA, prompt if phase == "prefill" else step, None, why)
        for name, model, phase, at, value, why in (
            ("dsa-cost-pre-v31-0", v3, "prefill", 0, 0.0529, f"the first 4,096 tokens, not the first one; {full}"),
            ("dsa-cost-pre-v31-128k", v3, "prefill", 131_072, 0.6657, full),
            ("dsa-cost-pre-v32-0", v32, "prefill", 0, 0.0611, f"the first 4,096 tokens, not the first one; {full}"),
            ("dsa-cost-pre-v32-6.6k", v32, "prefill", 6600, 0.0999, full),
            ("dsa-cost-dec-v31-128k", v3, "decode", 131_072, 2.154, full),
            ("dsa-cost-dec-v32-101.6k", v32, "decode", 101_600, 0.2275, "the indexer's scores are a guess, not measured"),
            ("dsa-cost-dec-v32-128k", v32, "decode", 131_072, 0.2491, "the same"),
        )
    )  # fmt: skip
