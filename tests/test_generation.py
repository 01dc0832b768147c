"""Whole outputs: token after token, by denoising, and by recursion; each closed form beside its loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from tests.families import model

WRITERS = ["gpt2", "gemma-3-1b", "deepseek-v3", "qwen3-next-80b-a3b", "mixtral-8x7b"]
DIFFUSERS = ["llada-8b", "llada-moe-7b-a1b", "dream-7b"]
SOLVERS = {"trm-arc": (12, 916, 42, 2), "trm-maze": (6, 916, 30, 2), "hrm-arc": (12, 916, 24, 8), "hrm-sudoku": (11, 97, 24, 8)}
"""Vocabulary, places, layer applications of a step, and layers stored."""


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("prompt", "generated"), [(1, 1), (1, 2), (500, 30), (4090, 9)])
def test_token_after_token_is_the_prompt_and_each_step(name: str, prompt: int, generated: int) -> None:
    ours = cm.load(name)
    contexts = range(prompt + 1, prompt + generated)
    at = {"prompt": prompt, "generated": generated, "batch": 3}
    forms = {} if prompt > 1 else {"algorithm": ("expanded", "chunked")}
    first = ours.flops(new_tokens=prompt, context=prompt, batch=3, **forms)
    assert ours.generation_flops(**at) == first + sum(ours.decode_flops(context=context, batch=3) for context in contexts)
    read = ours.bytes_moved(new_tokens=prompt, context=prompt, batch=3, **forms)
    moved = read + sum(ours.bytes_moved(new_tokens=1, context=context, batch=3) for context in contexts)
    assert ours.generation_bytes_moved(**at) == pytest.approx(moved, rel=1e-12)


def denoised(ours: cm.Architecture, sampling: str, prompt: int, generated: int, steps: int, block: int, **ask: Any) -> float:
    """Every pass of a diffusion model's output, one after the other."""
    quantity = ours.flops if ask.pop("of") == "flops" else ours.bytes_moved
    at = quantity.having(logits="all")
    if sampling == "plain":
        return sum(at(new_tokens=prompt + generated, context=prompt + generated, **ask) for _ in range(steps))
    silent = sum(part for name, part in _parts(quantity, prompt, prompt, ask).items() if name != "head")
    total = silent if sampling == "blocks" else 0
    blocks = generated // block
    for place in range(blocks):
        end = prompt + (place + 1) * block
        new = block if sampling == "blocks" else end
        total += sum(at(new_tokens=new, context=end, **ask) for _ in range(steps // blocks))
        if sampling == "blocks" and place < blocks - 1:
            total += sum(part for name, part in _parts(quantity, block, end, ask).items() if name != "head")
    return total


def _parts(quantity: cm.Formula, new: int, context: int, ask: dict[str, Any]) -> dict[str, Any]:
    return {name: part(new_tokens=new, context=context, **ask) for name, part in quantity.parts.items()}


@pytest.mark.parametrize("name", DIFFUSERS)
@given(block=st.integers(2, 9), blocks=st.integers(1, 4), each=st.integers(1, 3), prompt=st.integers(2, 50))
@settings(max_examples=10)
def test_denoising_is_the_sum_of_its_passes(name: str, block: int, blocks: int, each: int, prompt: int) -> None:
    ours, generated, steps = cm.load(name), block * blocks, each * blocks
    at = {"prompt": prompt, "generated": generated, "steps": steps, "batch": 2}
    loop = {"prompt": prompt, "generated": generated, "steps": steps, "block": block, "batch": 2}
    for sampling in ("plain", "uncached", "blocks"):
        flops = ours.generation_flops.having(sampling=sampling, block_length=block)
        # without a cache, keys and values are made and read within the pass: the same FLOPs
        assert flops(**at) == denoised(ours, sampling, of="flops", **loop)
    moved = ours.generation_bytes_moved.having(block_length=block)
    assert moved(**at) == pytest.approx(denoised(ours, "blocks", of="bytes", **loop), rel=1e-12)


def test_block_wise_sampling_lies_between_autoregression_and_plain_sampling() -> None:
    for name in DIFFUSERS:
        ours = cm.load(name)
        at = {"prompt": 512, "generated": 256}
        by = {sampling: ours.generation_flops(steps=256, sampling=sampling, **at) for sampling in ("blocks", "uncached", "plain")}
        assert ours.autoregressive.generation_flops(**at) < by["blocks"] < by["uncached"] < by["plain"]


def test_the_crossover_with_autoregression_of_the_same_shape() -> None:
    """Where traffic sets the time, denoising wins below a number of steps, and the crossing is that number."""
    ours = cm.load("llada-8b")
    at = {"prompt": 512, "generated": 256}
    (steps,) = cm.crossover(ours.generation_bytes_moved, ours.autoregressive.generation_bytes_moved, over="steps", **at)
    alone = ours.autoregressive.generation_bytes_moved(**at)
    fewer, more = (ours.generation_bytes_moved(steps=8 * round(steps / 8 + side), **at) for side in (-1, 1))
    assert fewer < alone < more
    arrays = ours.generation_flops(prompt=512, generated=np.array([32, 64, 256]), steps=64)
    assert list(arrays) == [ours.generation_flops(prompt=512, generated=length, steps=64) for length in (32, 64, 256)]


def test_the_same_shape_token_after_token() -> None:
    for name in DIFFUSERS:
        ours = cm.load(name)
        other = ours.autoregressive
        assert other.diffusion is None
        assert other.params.total == ours.params.total
        assert other.prefill_flops(context=64, attention="full") == ours.prefill_flops(context=64)
        assert other.prefill_flops(context=64) < ours.prefill_flops(context=64)


def test_only_block_wise_sampling_keeps_anything() -> None:
    ours = cm.load("llada-8b")
    assert ours.cache_bytes(context=1024) == ours.autoregressive.cache_bytes(context=1024) == 2 * 32 * 4096 * 2 * 1024
    for sampling in ("plain", "uncached"):
        assert ours.cache_bytes(context=1024, sampling=sampling) == 0
        assert ours.cache_bytes(context=1024, sampling=sampling, view="engine") == 0


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    ("llada-8b", "generation_flops", {"prompt": 9, "generated": 100, "steps": 25}, "generated is no multiple of block_length 32"),
    ("llada-8b", "generation_flops", {"prompt": 9, "generated": 64, "steps": 3}, "steps do not spread evenly"),
    ("llada-8b", "generation_flops", {"prompt": 9, "generated": 64}, "needs steps"),
    ("llada-8b", "generation_flops", {"generated": 64, "steps": 2, "sampling": "dense"}, "sampling"),
    ("gpt2", "generation_flops", {"prompt": 9, "generated": 64, "steps": 3}, "no input 'steps'"),
    ("gpt2", "cache_bytes", {"context": 9, "sampling": "plain"}, "no model of text diffusion"),
    ("llada-moe-7b-a1b", "generation_bytes_moved", {"generated": 64, "steps": 2, "sampling": "uncached"}, "no closed sum"),
    ("gpt2", "solve_flops", {"context": 9, "steps": 3}, "no recursive reasoner"),
    ("trm-arc", "generation_flops", {"generated": 9}, "ask for solve_flops"),
]


@pytest.mark.parametrize(("name", "quantity", "inputs", "told"), WRONG, ids=[f"{row[0]}-{row[3][:20]}" for row in WRONG])
def test_what_makes_no_sense_is_refused_in_one_line(name: str, quantity: str, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(cm.CostModelError) as caught:
        getattr(cm.load(name), quantity)(**inputs)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_diffusion_and_recursion_look_both_ways() -> None:
    group = cm.LayerGroup(name="only", count=2, mixer=cm.GQA(num_attention_heads=2, num_key_value_heads=2, head_dim=8))
    for field in ({"diffusion": cm.Diffusion()}, {"recursion": cm.Recursion(positions=9)}):
        with pytest.raises(cm.CostModelError, match="look both ways"):
            model(group, **field)


# recursive reasoners


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_is_a_pass_of_all_layer_applications(name: str) -> None:
    """The layers written out one by one, with their matmuls."""
    vocabulary, places, applied, stored = SOLVERS[name]
    ours = cm.load(name)
    layer = {"qkv": 3 * 512 * 512, "o": 512 * 512, "gate_up": 2 * 512 * 1536, "down": 1536 * 512}
    scores = 2 * places * places * 512
    head = places * 512 * vocabulary + 512 * 2
    step = 2 * (applied * (places * sum(layer.values()) + scores) + head)
    assert ours.solve_flops(context=places, steps=1) == step
    assert ours.solve_flops(context=places, steps=16, batch=3) == 3 * 16 * step
    assert ours.params.total == stored * sum(layer.values()) + 2 * 512 * vocabulary + 2 * 512 + 2
    assert (ours.depth, ours.stored_layers) == (applied, stored)
    assert ours.cache_bytes(context=places) == ours.cache_bytes(context=places, view="engine") == 0


@pytest.mark.torch
def test_a_tiny_recursive_model_in_torch() -> None:
    """The published step as modules: parameters to the last one, and FLOPs under the counter, with attention and without."""
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    class Gated(nn.Module):  # type: ignore[misc, name-defined]  # torch is untyped here
        def __init__(self, width: int, inner: int) -> None:
            super().__init__()
            self.gate_up, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

        def forward(self, x: Any) -> Any:
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.down(nn.functional.silu(gate) * up)

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, places: int, *, attends: bool) -> None:
            super().__init__()
            self.attends = attends
            if attends:
                self.qkv, self.o = nn.Linear(512, 1536, bias=False), nn.Linear(512, 512, bias=False)
            else:
                self.over_places = Gated(places, 512)
            self.mlp = Gated(512, 1536)

        def forward(self, x: Any) -> Any:
            if self.attends:
                q, k, v = (part.unflatten(-1, (8, 64)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
                seen = torch.softmax(q @ k.transpose(-1, -2) / 8, -1) @ v
                x = x + self.o(seen.transpose(1, 2).flatten(-2))
            else:
                x = x + self.over_places(x.transpose(1, 2)).transpose(1, 2)
            return x + self.mlp(x)

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, vocabulary: int, places: int, *, attends: bool) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(vocabulary, 512), nn.Linear(512, vocabulary, bias=False)
            self.halting = nn.Linear(512, 2)
            self.layers = nn.ModuleList(Layer(places, attends=attends) for _ in range(2))

        def forward(self, ids: Any) -> Any:
            given = self.table(ids)
            answer, thought = torch.zeros_like(given), torch.zeros_like(given)
            for _ in range(3):
                for _ in range(6):
                    thought = self.applied(thought + answer + given)
                answer = self.applied(answer + thought)
            return self.head(answer), self.halting(answer[:, 0])

        def applied(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return x

    for name, vocabulary, places, attends in (("trm-arc", 12, 916, True), ("trm-sudoku", 11, 97, False)):
        with torch.device("meta"):
            real = Model(vocabulary, places, attends=attends)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                real(torch.zeros(2, places, dtype=torch.long))
        ours = cm.load(name)
        assert ours.params.total == sum(tensor.numel() for tensor in real.parameters())
        assert ours.solve_flops(context=places, steps=1, batch=2) == counter.get_total_flops()


def test_gradients_pass_the_last_cycle_alone() -> None:
    """TRM: the third of three cycles of (6 + 1) x 2 layers; HRM: the last low-level and the last high-level pass."""
    for name, learned in (("trm-arc", 14 / 42), ("trm-maze", 10 / 30), ("hrm-arc", 8 / 24)):
        ours, at = cm.load(name), {"context": 916}
        forward = ours.prefill_flops(logits="all", **at)
        head = ours.prefill_flops.having(logits="all").parts["head"](**at)
        assert ours.training_flops(**at) == pytest.approx(forward + 2 * (learned * (forward - head) + head), rel=1e-12)


def test_the_published_variant_with_attention_on_sudoku() -> None:
    data = cm.load("trm-arc").model_dump() | {"vocab_size": 11}
    assert cm.Architecture.model_validate(data).params.total == 6_828_034
