"""Distributions of lengths: sums over drawn levels beside the closed forms, text, and every mistake in one line."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.serving.lengths import KEPT_VALUES
from costmodel.workload import Checked

LEVELS = (np.arange(1_000_000) + 0.5) / 1_000_000
TYPICAL = cm.Lengths(quantiles={0.5: 900, 0.9: 4000, 0.99: 16000})

tokens = st.integers(1, 200_000)
distributions = st.lists(tokens, min_size=2, max_size=12).flatmap(
    lambda values: st.lists(st.floats(0, 1), min_size=len(values), max_size=len(values), unique=True).map(
        lambda levels: cm.Lengths(quantiles=list(zip(sorted(levels), sorted(values), strict=True)))
    )
)


class Holder(Checked):
    """A model with a length among its fields, as traffic has."""

    prompt: cm.Lengths


def test_one_length() -> None:
    one = cm.Lengths.of(4096)
    assert (one.mean, one.second_moment, one.min, one.max, one.constant) == (4096, 4096**2, 4096, 4096, True)
    values, weights = one.points(32)
    assert (values.tolist(), weights.tolist()) == ([4096], [1])
    assert one == cm.Lengths.of("4096") == cm.Lengths.of("4k") == cm.Lengths.of(np.int64(4096)) == Holder(prompt=4096).prompt


@pytest.mark.parametrize("lengths", [TYPICAL, cm.Lengths.of("min=5,max=50"), cm.Lengths(quantiles=[(0.9, 10), (0.9, 900)])])
def test_moments_are_those_of_drawn_levels(lengths: cm.Lengths) -> None:
    drawn = lengths.at(LEVELS)
    assert lengths.mean == pytest.approx(drawn.mean(), rel=1e-4)
    assert lengths.second_moment == pytest.approx((drawn**2).mean(), rel=1e-3)
    assert lengths.min <= drawn.min() <= drawn.max() <= lengths.max


def test_a_sample_keeps_its_moments() -> None:
    drawn = np.exp(np.random.default_rng(0).normal(6, 1, 1000)) + 1
    kept = cm.Lengths.sample(drawn)
    assert kept.mean == pytest.approx(drawn.mean(), rel=1e-9)
    assert kept.second_moment == pytest.approx((drawn**2).mean(), rel=1e-9)
    assert (kept.min, kept.max) == pytest.approx((drawn.min(), drawn.max()))
    many = np.exp(np.random.default_rng(1).normal(6, 1, 50 * KEPT_VALUES + 7)) + 1
    short = cm.Lengths.sample(many)
    assert len(short.quantiles) == 2 * KEPT_VALUES
    assert short.mean == pytest.approx(many.mean(), rel=1e-9)
    assert 0.98 < short.second_moment / (many**2).mean() < 1
    assert short.at([0.5, 0.99]) == pytest.approx(np.quantile(many, [0.5, 0.99]), rel=0.02)


@given(distributions, st.integers(1, 70))
def test_points_keep_the_mean(lengths: cm.Lengths, n: int) -> None:
    values, weights = lengths.points(n)
    assert weights.sum() == pytest.approx(1)
    assert weights @ values == pytest.approx(lengths.mean, rel=1e-6)
    assert np.all(np.diff(values) >= 0)
    assert lengths.min <= values[0] <= values[-1] <= lengths.max
    assert weights @ values**2 <= lengths.second_moment * (1 + 1e-9)


def test_points_converge() -> None:
    errors = [1 - weights @ values**2 / TYPICAL.second_moment for values, weights in map(TYPICAL.points, (8, 32, 128))]
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[1] < 0.003


@given(distributions)
def test_text_and_data_lead_back(lengths: cm.Lengths) -> None:
    assert Holder.model_validate_json(Holder(prompt=lengths).model_dump_json()).prompt == lengths
    assert lengths.mean > 0  # what has been asked already is no part of the value
    copy = pickle.loads(pickle.dumps(lengths))  # noqa: S301 - our own bytes
    assert copy == lengths
    assert hash(copy) == hash(lengths)
    again = cm.Lengths.of(str(lengths))
    assert again.mean == pytest.approx(lengths.mean, rel=1e-9)


def test_text() -> None:
    assert cm.Lengths.of("p50=900, p90=4000, P99=16000") == TYPICAL == Holder(prompt="p50=900,p90=4000,p99=16000").prompt
    assert str(TYPICAL) == "p50=900,p90=4000,p99=16000"
    assert cm.Lengths.of("0.5=1k,p99.9=2048.5,max=1M").quantiles == ((0.5, 1024.0), (0.999, 2048.5), (1.0, 1048576.0))
    assert Holder(prompt={0.5: 900, 0.9: 4000, 0.99: 16000}).prompt == TYPICAL


def test_ends_are_carried_on() -> None:
    assert TYPICAL.max == pytest.approx(16000 + 0.01 * 12000 / 0.09)
    assert TYPICAL.min == 1
    assert cm.Lengths.of("p50=900,min=100,max=1000").at([0, 0.25, 1]).tolist() == [100, 500, 1000]


@pytest.mark.parametrize(
    "value",
    [
        True, 0, -5, float("nan"), float("inf"), 10**400, None, [1, 2], b"4096", np.float64("nan"), np.array([1.0, 2.0]), 1j,
        {}, {0.5: 900}, {0.5: 900, 0.4: 1000}, {1.5: 1, 0.5: 1}, {float("nan"): 1, 0.5: 1}, {0.5: True, 0.6: 3}, {True: 4, 0.5: 1},
        {0.5: 1, 0.9: float("nan")}, "", "many", "0", "-1", "1e3", "p50", "p50=900", "p50=9,p40=10", "p50=,p90=4", "p500=1,p50=1",
        "mean=4,p50=3", "p50=0,p90=3", "p50=nan,p90=3", "pnan=1,p50=2", "p50=0.5,p90=3", "=4,p50=3", "p50=1,,p90=2", "p" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_distribution(value: Any) -> None:
    for make in (cm.Lengths.of, lambda given: Holder(prompt=given)):
        with pytest.raises(cm.CostModelError) as error:
            make(value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "values", [[], (), "abc", None, 5, {1: 2}, [0], [True, 2], [float("nan")], [[1, 2]], ["4"], np.array([[1, 2]]), [1, -1]]
)
def test_what_is_no_sample(values: Any) -> None:
    with pytest.raises(cm.CostModelError, match="length"):
        cm.Lengths.sample(values)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, 10**6, None])
def test_what_is_no_number_of_points(n: Any) -> None:
    with pytest.raises(cm.CostModelError, match="points"):
        TYPICAL.points(n)
    with pytest.raises(cm.CostModelError, match="level"):
        TYPICAL.at([0.5, 1.5])
