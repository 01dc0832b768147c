"""Every published figure in a preset holds within its tolerance; the failure message is its source."""

from __future__ import annotations

import pytest

import costmodel as cm
from costmodel.architecture import Reference
from costmodel.catalog import reference_value

ROWS = [
    pytest.param(name, row, id=f"{name}-{place}-{row.quantity}")
    for name in cm.presets()
    for place, row in enumerate(cm.load(name).reference)
]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_published_figure_holds(name: str, row: Reference) -> None:
    value = reference_value(cm.load(name), row)
    published = f"{row.value:,} within {row.tolerance:g} ({row.convention})"
    assert abs(value - row.value) <= row.tolerance * row.value, f"{row.source}: {published}; here {value:,}"


@pytest.mark.parametrize("name", cm.presets())
def test_a_preset_says_where_it_comes_from(name: str) -> None:
    preset = cm.load(name)
    assert preset.name == name
    assert preset.maker
    assert preset.released
    assert preset.source
    assert preset.reference
    secret = any(note.startswith("no public weights") for note in preset.notes)
    exact = any(row.quantity == "params.total" and not row.tolerance for row in preset.reference)
    assert exact or secret, "no exact total"
