"""The search for designs: its numbers are the formulas', its front is the brute force's, its best answers the question."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.catalog import parse
from costmodel.cli import main
from costmodel.designing.moves import CHANGES, MIXERS, Costs, Prices, costs_of
from costmodel.designing.search import _Search, pareto
from costmodel.units import parse_bytes
from costmodel.variants import edited, read_edits

GIB = 1 << 30
ASKED = ("llama-3.1-70b", "gemma-3-27b", "qwen3-8b", "deepseek-v3", "qwen3-next-80b-a3b", "jamba-1.5-large", "hunyuan-large")
SMALL = (
    "qwen3-8b",
    "gemma-3-1b",
    "gpt2",
    "granite-4.0-h-tiny",
    "zamba2-1.2b",
    "trm-arc",
    "llada-8b",
    "nemotron-h-8b",
    "mamba-2.8b",
)


def rebuilt(name: str, design: cm.Design, context: int = 131_072, batch: int = 1) -> Costs:
    """The costs of a design made anew from its edits, by whole formulas."""
    model = edited(cm.load(name), read_edits(design.edits))
    return costs_of(model, context, batch, design.cache_precision)


def dominates(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


# the numbers


@pytest.mark.parametrize("name", ASKED)
def test_designs_cost_what_their_edits_and_files_cost(name: str) -> None:
    found = cm.design(name, cache_bytes=16 * GIB, most_changes=1)
    assert found.best
    for design in found.front:
        assert rebuilt(name, design) == design.costs
        loaded = parse(design.toml, "design.toml")
        assert costs_of(loaded, 131_072, 1, design.cache_precision) == design.costs
        assert design.cache_bytes <= 16 * GIB
        assert design.ratios["decode_flops"] == design.decode_flops / found.base.decode_flops


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(SMALL), context=st.sampled_from([512, 4_096, 131_072]), batch=st.sampled_from([1, 7]),
    hold=st.sampled_from([None, "decode_flops", "params_total"]), seed=st.integers(0, 10_000), fp8=st.booleans(),
)  # fmt: skip
def test_every_candidate_costs_what_its_formulas_say(
    name: str, context: int, batch: int, hold: str | None, seed: int, fp8: bool
) -> None:
    """Sums over blocks, whose prices are kept, are the whole formulas' numbers."""
    base = cm.load(name)
    search = _Search(base, context, batch, "fp8" if fp8 else "bf16", hold, 64)
    moves = search.moves(CHANGES, None, MIXERS)
    chosen = moves[seed % len(moves) :][:1] + moves[seed // 7 % len(moves) :][:1]
    for one in search.candidates(chosen, 2):
        precision = search._precision_of(one.moves)
        assert costs_of(edited(base, one.edits), context, batch, precision) == one.costs


@pytest.mark.parametrize("name", cm.presets())
def test_blocks_add_up_to_their_model(name: str) -> None:
    model = cm.load(name)
    assert Prices(model, 5_000, 3, "bf16").of(model) == costs_of(model, 5_000, 3, "bf16")


def test_what_changes_in_a_group_changes_in_its_twin() -> None:
    """Fewer heads and a window in some layers: all layers have fewer heads."""
    found = cm.design("llama-3.1-8b", cache_bytes=2 * GIB, changes=["kv_heads", "windowed_layers"])
    pair = next(design for design in found.front if design.changes == 2)
    model = edited(cm.load("llama-3.1-8b"), read_edits(pair.edits))
    assert len({group.mixer.num_key_value_heads for group in model.layers if isinstance(group.mixer, cm.GQA)}) == 1
    assert len(model.layers) == 2
    assert model.depth == 32


# the front


def by_hand(context: int) -> Iterator[tuple[int, dict[str, int]]]:
    """Every number of heads and every window for qwen3-8b, alone and together, written out."""
    heads = [{"dense/mixer/num_key_value_heads": n} for n in (1, 2, 4)]
    windows = [{"dense/mixer/sliding_window": 2**power} for power in range(9, 17) if 2**power < context]
    yield 0, {}
    yield from ((1, edits) for edits in (*heads, *windows))
    yield from ((2, few | window) for few in heads for window in windows)


@pytest.mark.parametrize("limit", [None, GIB, 3 * GIB])
@pytest.mark.parametrize("objective", [("cache_bytes", "decode_flops", "distance"), ("cache_bytes", "params_total")])
def test_the_front_and_the_best_are_those_of_the_brute_force(limit: int | None, objective: tuple[str, ...]) -> None:
    context = 40_960
    found = cm.design("qwen3-8b", limit, context, changes=["kv_heads", "window"], objective=objective)
    base = cm.load("qwen3-8b")
    rows = [(n, costs_of(edited(base, edits), context, 1, "bf16")) for n, edits in by_hand(context)]
    now = rows[0][1]
    assert found.looked == len(rows)

    def distance(n: int, costs: Costs) -> tuple[int, float]:
        changes = (costs.params_total, now.params_total), (costs.decode_flops, now.decode_flops)
        return n, sum(abs(a - b) / b for a, b in changes)

    fitting = [(n, costs) for n, costs in rows if limit is None or costs.cache_bytes <= limit]
    scores = [
        tuple(distance(n, costs) if name == "distance" else getattr(costs, name) for name in objective) for n, costs in fitting
    ]
    front = {score for score in scores if not any(dominates(other, score) for other in scores)}
    told = {
        tuple((design.changes, design.loss) if name == "distance" else getattr(design, name) for name in objective)
        for design in found.front
    }
    assert told == front
    assert found.best
    if limit is None:
        assert found.best.cache_bytes == min(costs.cache_bytes for _, costs in fitting)
    else:
        assert (found.best.changes, found.best.loss) == min(distance(n, costs) for n, costs in fitting)


@pytest.mark.parametrize("name", ["gemma-3-1b", "granite-4.0-h-tiny", "gpt2"])
@pytest.mark.parametrize("hold", [None, "params_total"])
def test_no_candidate_beats_a_member_of_the_front(name: str, hold: str | None) -> None:
    base = cm.load(name)
    limit = base.cache_bytes(context=8_192) // 2
    found = cm.design(name, limit, 8_192, hold=hold, flops=1.0, objective=("cache_bytes", "decode_flops", "params_active"))
    search = _Search(base, 8_192, 1, "bf16", hold, 64)
    every = [one.costs for one in search.candidates(search.moves(CHANGES[:-1], limit, MIXERS), 2)]
    fitting = {
        (one.cache_bytes, one.decode_flops, one.params_active)
        for one in every if one.cache_bytes <= limit and one.decode_flops <= found.base.decode_flops
    }  # fmt: skip
    front = [(one.cache_bytes, one.decode_flops, one.params_active) for one in found.front]
    assert found.looked == len(every)
    assert front
    assert set(front) <= fitting
    assert not any(dominates(other, member) for member in front for other in fitting)
    assert all(member in front or any(dominates(other, member) for other in front) for member in fitting)


@given(st.lists(st.tuples(*[st.integers(0, 6) | st.sampled_from([2**60, 2**60 + 1])] * 3), max_size=40))
def test_the_front_of_any_rows(rows: list[tuple[int, ...]]) -> None:
    front = [rows[place] for place in pareto(rows)]
    assert len(front) == len(set(front))
    assert set(front) == {row for row in rows if not any(dominates(other, row) for other in rows)}


@pytest.mark.parametrize("name", ["llama-3.1-70b", "gemma-3-27b", "jamba-1.5-large"])
def test_a_looser_limit_asks_for_no_bigger_change(name: str) -> None:
    limits = [GIB // 2, GIB, 2 * GIB, 4 * GIB, 8 * GIB, 16 * GIB, 64 * GIB]
    bests = [cm.design(name, limit, most_changes=1).best for limit in limits]
    distances = [best.distance for best in bests if best]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 0


def test_distance_counts_changes_first() -> None:
    found = cm.design("gemma-3-27b", cache_bytes="4GiB")
    assert [one.distance for one in found.front] == sorted(one.distance for one in found.front)
    assert all(one.changes <= one.distance < one.changes + 1 for one in found.front)
    assert found.best == found.front[0]


# questions


def test_llama_70b_at_128k_in_16_gib() -> None:
    found = cm.design("llama-3.1-70b", cache_bytes="16GiB", context=131_072)
    best = found.best
    assert best
    assert best.edits == ("dense/mixer/num_key_value_heads=2",)
    assert best.cache_bytes == 2 * 2 * 128 * 131_072 * 80 * 2  # keys and values of 2 heads of 128 in 80 layers, 2 bytes each
    assert "num_key_value_heads 8 -> 2" in best.why
    kinds = {move.split()[0] for design in found.front for move in design.moves}
    assert {"num_key_value_heads", "sliding_window"} <= kinds


def test_the_most_layers_that_fit_keep_their_mixer() -> None:
    """Of Llama's 80 layers with full attention one more does not fit."""
    found = cm.design("llama-3.1-70b", cache_bytes="16GiB", changes=["windowed_layers"], most_changes=1)
    best = found.best
    assert best
    edits = dict(read_edits(best.edits))
    kept = edits["dense/count"]
    assert isinstance(kept, int)
    one_more = edited(cm.load("llama-3.1-70b"), edits | {"dense/count": kept + 1, "dense-windowed/count": 80 - kept - 1})
    assert best.cache_bytes <= 16 * GIB < one_more.cache_bytes(context=131_072)


def test_gemma_already_meets_16_gib_and_not_4() -> None:
    as_it_is = cm.design("gemma-3-27b", cache_bytes="16GiB", most_changes=1)
    assert as_it_is.best == as_it_is.base
    best = cm.design("gemma-3-27b", cache_bytes="4GiB").best
    assert best
    assert best.edits == ("global/mixer/num_key_value_heads=4",)
    assert best.cache_bytes == 2 * 128 * 2 * (10 * 4 * 131_072 + 52 * 16 * 1_024)


def test_deepseek_fits_and_says_so() -> None:
    found = cm.design("deepseek-v3", cache_bytes="16GiB")
    assert found.best == found.base == found.front[0]
    assert found.best.cache_bytes == 9_210_691_584
    assert any("meets the limits as it is" in note for note in found.notes)


def test_qwen_with_equal_flops_and_the_least_cache() -> None:
    found = cm.design("qwen3-8b", flops=1.0, hold="decode_flops", params=1.0)
    best = found.best
    assert best
    assert best.cache_bytes == min(design.cache_bytes for design in found.front) < found.base.cache_bytes / 4
    for design in found.front:
        assert 0.999 < design.decode_flops / found.base.decode_flops <= 1
        assert design.params_total <= found.base.params_total
        assert all(f"held by {width}" in design.why for width in design.held[:1])
    assert best.held == ("intermediate_size 12,864",)


@pytest.mark.parametrize("step", [64, 128])
@pytest.mark.parametrize("hold", ["decode_flops", "params_total"])
def test_what_is_held_is_below_by_less_than_a_step_of_the_widths(hold: str, step: int) -> None:
    found = cm.design("gemma-3-1b", hold=hold, round_to=step, changes=["kv_heads", "other_mixer", "head_dim"], context=32_768)
    for design in found.front[1:]:
        model = edited(cm.load("gemma-3-1b"), read_edits(design.edits))
        widths = {f"{group.name}/feed_forward/intermediate_size": group.feed_forward for group in model.layers}
        if not any(path.endswith("intermediate_size") for path in read_edits(design.edits)):
            continue
        wider = edited(model, {path: block.intermediate_size + step for path, block in widths.items() if isinstance(block, cm.MLP)})
        more = getattr(costs_of(wider, 32_768, 1, "bf16"), hold)
        assert getattr(design, hold) <= getattr(found.base, hold) < more
        assert all(isinstance(block, cm.MLP) and block.intermediate_size % step == 0 for block in widths.values())


def test_a_cache_in_fewer_bytes_is_a_change_where_it_is_asked_for() -> None:
    best = cm.design("llama-3.1-8b", cache_bytes="8GiB", changes=["cache_precision", "kv_heads"]).best
    assert best
    assert (best.edits, best.cache_precision, best.cache_bytes) == ((), "fp8", 8 * GIB)
    assert rebuilt("llama-3.1-8b", best) == best.costs
    assert (
        cm.design("llama-3.1-8b", "8GiB", cache_precision="fp8").best
        == cm.design("llama-3.1-8b", "8GiB", cache_precision="fp8").base
    )


def test_mixers_of_other_presets() -> None:
    found = cm.design("qwen3-8b", "4GiB", changes=["other_mixer"], mixers=["kimi-linear-48b-a3b/kda-moe"], most_changes=1)
    assert found.best
    assert all("kimi-linear-48b-a3b/kda-moe" in " ".join(design.edits) for design in found.front)
    model = edited(cm.load("qwen3-8b"), read_edits(found.best.edits))
    assert {type(group.mixer) for group in model.layers} == {cm.GQA, cm.KDA}


def test_nothing_fits_and_what_to_relax() -> None:
    found = cm.design("qwen3-8b", cache_bytes="1MiB")
    assert (found.front, found.best, found.fitting) == ((), None, 0)
    assert found.nearest
    assert found.shown == (found.nearest,)
    assert any(f"relax cache_bytes to {found.nearest.cache_bytes}" in note for note in found.notes)
    assert cm.design("qwen3-8b", cache_bytes=found.nearest.cache_bytes).best is not None
    assert cm.design("qwen3-8b", cache_bytes=found.nearest.cache_bytes - 1).best is None


def test_several_limits_that_nothing_meets_together() -> None:
    found = cm.design("llama-3.1-8b", cache_bytes="4GiB", flops=0.01, most_changes=1)
    assert found.nearest
    assert any("relax flops to" in note for note in found.notes)


def test_results_are_values() -> None:
    found = cm.design("gpt2", most_changes=1)
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - its own
    with pytest.raises(AttributeError):
        found.looked = 0  # type: ignore[misc]
    assert list(found.table["cache_bytes"]) == [design.cache_bytes for design in found.front]
    assert found.why == tuple(design.why for design in found.front)
    assert all("\n" not in why for why in found.why)


def test_a_search_takes_seconds() -> None:
    cm.load("gemma-3-27b")
    start = time.process_time()
    found = cm.design("gemma-3-27b", cache_bytes="4GiB")
    assert found.looked > 2_000
    assert time.process_time() - start < 6


# mistakes


BAD: list[tuple[dict[str, Any], str]] = [
    *(({"cache_bytes": value}, "cache_bytes got") for value in (0, -1, float("nan"), float("inf"), True, [], 1e40, {})),
    *(({"flops": value}, "flops got") for value in (0, -1.0, float("nan"), float("inf"), "1.0", True, 1e9)),
    *(({"params": value}, "params got") for value in (0, -1.0, float("nan"), True)),
    *(({"cache_bytes": value}, "is no size") for value in ("", "16G", "lots", "-1GiB", "0", "1e9", "16GiBB", "nan")),
    ({"flops": 0.9, "hold": "decode_flops"}, "contradicts hold"),
    ({"params": 0.5, "hold": "params_total"}, "contradicts hold"),
    ({"hold": "flops"}, "did you mean decode_flops?"),
    ({"hold": 3}, "hold got 3"),
    ({"changes": ["kv_head"]}, "did you mean kv_heads?"),
    ({"changes": []}, "is empty"),
    ({"changes": 3}, "changes got 3"),
    ({"changes": [None]}, "changes got None"),
    ({"objective": ["cache"]}, "did you mean cache_bytes?"),
    ({"objective": []}, "is empty"),
    ({"most_changes": 3}, "give 1"),
    ({"most_changes": True}, "give 1"),
    ({"most_changes": 1.0}, "give 1"),
    ({"context": 0}, "context got 0"),
    ({"context": float("nan")}, "context got nan"),
    ({"batch": 10**13}, "batch got"),
    ({"round_to": -64}, "round_to got"),
    ({"cache_precision": "fp9"}, "fp8"),
    ({"cache_precision": None}, "cache_precision got None"),
    ({"mixers": ["gated_deltane"]}, "did you mean gated_deltanet?"),
    ({"mixers": ["deepseek-v3/mo"]}, "no mixer"),
    ({"mixers": ["../x/y"]}, "no mixer"),
    ({"mixers": 7}, "mixers got 7"),
]


@pytest.mark.parametrize(("asked", "said"), BAD, ids=lambda value: str(value)[:40])
def test_mistakes_are_one_line(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(cm.CostModelError) as error:
        cm.design("gpt2", **asked)
    assert said in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("text", "value"),
    [("16GiB", 16 * GIB), ("16GB", 16 * 10**9), ("1.5 KiB", 1536), ("7", 7), ("2TiB", 2 << 40), ("3kB", 3_000), ("8B", 8)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


# the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


ASK = ("design", "llama-3.1-70b", "--cache", "16GiB", "--context", "128k", "--flops", "1.0", "--changes", "1")


def test_the_command_says_what_python_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = cm.design("llama-3.1-70b", cache_bytes=16 * GIB, flops=1.0, most_changes=1)
    status, out, err = run(capsys, *ASK, "-f", "json", "--write", "2", str(tmp_path / "new.toml"))
    rows = json.loads(out)
    assert status == 0
    assert [row["cache_bytes"] for row in rows] == [design.cache_bytes for design in found.front]
    assert [row["best"] for row in rows].count(True) == 1
    assert "designs looked at" in err
    assert cm.load(tmp_path / "new.toml").cache_bytes(context=131_072) == rows[1]["cache_bytes"]


@pytest.mark.parametrize("form", ["table", "csv", "md"])
def test_the_command_in_every_format(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, *ASK, "-f", form, "--kind", "kv_heads", "--kind", "window")
    assert status == 0
    assert "num_key_value_heads 8 -> 2 in dense" in out.replace("\\", "")
    assert "quality of answers" in err


def test_a_miss_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "design", "gpt2", "--cache", "1kB", "--changes", "1", "-f", "json")
    assert status == 0
    assert len(json.loads(out)) == 1
    assert "relax cache_bytes to" in err


@pytest.mark.parametrize(
    "more",
    [("--cache", "16G"), ("--flops", "nan"), ("--changes", "0"), ("--kind", "nope"), ("--write", "99", "x.toml"), ("--hold", "x")],
)
def test_mistakes_of_the_command(more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "design", "gpt2", "--changes", "1", *more)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


def test_pairs_never_set_one_path_twice() -> None:
    search = _Search(cm.load("gemma-3-27b"), 131_072, 1, "bf16", None, 64)
    moves = search.moves(CHANGES, 4 * GIB, MIXERS)
    for a, b in combinations(moves[::5], 2):
        both = a.beside(b)
        assert both is None or (a.edits.items() | b.edits.items()) <= both.items()


def test_what_cannot_be_held_is_one_line() -> None:
    with pytest.raises(cm.CostModelError, match="no feed-forward layers whose width could hold"):
        cm.design("zamba2-1.2b", hold="params_total")
