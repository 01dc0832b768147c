"""The load test at a small scale, so that it keeps working: `python -m tests.load` is the whole."""

from __future__ import annotations

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("websockets")

from .load.__main__ import architecture, load, secret


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_few_people_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    good = load(sessions=4, seconds=6)
    assert good, capsys.readouterr().out


def test_each_session_has_a_file_of_its_own() -> None:
    assert secret(1).encode() in architecture(1)
    assert secret(1) != secret(2)
