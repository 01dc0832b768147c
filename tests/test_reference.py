"""The reference, the tutorial and the worked plans say what the code says today."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import costmodel as cm
from costmodel.cli import app
from tests import reference


@pytest.mark.parametrize("name", ["api.md", "cli.md"])
def test_the_reference_is_fresh(name: str) -> None:
    """`python -m tests.reference` writes it."""
    made = {"api.md": reference.api, "cli.md": reference.commands}[name]()
    assert made == (reference.DOCS / "reference" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", reference.WORKED, ids=lambda page: page.name)
def test_worked_pages_print_what_they_say(page: Path) -> None:
    """Every block runs, and its answer stands after it."""
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("^```(?:sh|python)$", text, re.MULTILINE)) == len(re.findall(r"^```text( \d+)?$", text, re.MULTILINE))
    assert reference.worked(text) == text


def test_every_public_name_and_command_is_there() -> None:
    api, cli = ((reference.DOCS / "reference" / name).read_text(encoding="utf-8") for name in ("api.md", "cli.md"))
    assert sorted(re.findall("^### (.+)$", api, re.MULTILINE)) == sorted(cm.__all__)
    names = [each.name or each.callback.__name__ for each in app.registered_commands if each.callback]
    assert re.findall("^## (.+)$", cli, re.MULTILINE) == sorted(names)


def test_terminal_and_hash_seed_change_nothing() -> None:
    code = "from tests import reference as r; print(r.api(), r.commands(), r.printed('costmodel show lfm2-350m'))"
    said = {
        subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code],
            cwd=reference.DOCS.parent,
            env={"PYTHONHASHSEED": seed, "COLUMNS": width, "FORCE_COLOR": "1", "PATH": ""},
            capture_output=True,
            check=True,
        ).stdout
        for seed, width in (("1", "40"), ("2", "200"))
    }
    assert len(said) == 1


@pytest.mark.parametrize("wrong", ["costmodel show deepsek-v3", "costmodel nothing"])
def test_a_command_that_fails_is_not_printed(wrong: str) -> None:
    with pytest.raises(SystemExit):
        reference.printed(wrong)
