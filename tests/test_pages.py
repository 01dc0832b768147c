"""Landscape, mistakes and families: what is made is fresh, and every code block runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sympy

from costmodel.blocks import FAMILIES
from tests import pages
from tests.test_docs import run

HAND = tuple(pages.DOCS / name for name in pages.TABLES)
FAMILY_PAGES = tuple(pages.DOCS / "families" / f"{kind}.md" for kind in FAMILIES)
BYTES = {"b_w": 2, "b_kv": 2, "b_a": 2, "b_state": 4}


def blocks(path: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


COMMANDS = [(path.name, line) for path in HAND for block in blocks(path, "sh") for line in block.splitlines()]


def test_pages_are_fresh() -> None:
    """`python -m tests.pages` writes them."""
    stale = [path.name for path, text in pages.made() if path.read_text(encoding="utf-8") != text]
    assert stale == []


def test_every_family_has_a_page_and_no_page_is_left_over() -> None:
    assert sorted((pages.DOCS / "families").glob("*")) == sorted(FAMILY_PAGES)


@pytest.mark.parametrize("path", HAND, ids=lambda path: path.name)
def test_every_table_is_asked_for_once(path: Path) -> None:
    marked = [found[2] for found in pages.MARKED.finditer(path.read_text(encoding="utf-8"))]
    assert sorted(marked) == sorted(pages.TABLES[path.name])


@pytest.mark.parametrize("path", HAND, ids=lambda path: path.name)
def test_python_blocks_say_what_they_give(path: Path) -> None:
    checked = 0
    for block in blocks(path, "python"):
        names: dict[str, object] = {}
        exec(compile(block, path.name, "exec"), names)  # noqa: S102 - our own page
        for line in block.splitlines():
            code, _, says = line.partition("  # ")
            if says:
                assert eval(code, names) == int(says), line  # noqa: S307 - our own page
                checked += 1
    assert checked


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_run(page: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(command)
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", FAMILY_PAGES, ids=lambda path: path.stem)
def test_numbers_of_a_family_give_its_values(path: Path) -> None:
    """The middle line of each derivation, read as arithmetic, is the last one."""
    for block in blocks(path, "text"):
        _, numbers, value = block.strip().splitlines()
        known = {**vars(sympy), **BYTES, "B": 1, "S": sympy.Integer(pages.CONTEXTS[0])}
        given = value.removeprefix("= ").rpartition(" ")[0]
        assert eval(numbers.removeprefix("= "), known) == int(given.replace(",", "")), (path.name, numbers)  # noqa: S307 - our own page
    assert blocks(path, "text") or path.stem in pages.WHOLE_ALONE


@pytest.mark.parametrize("path", [*HAND, *FAMILY_PAGES], ids=lambda path: path.name)
def test_every_code_block_is_of_a_kind_that_is_tested(path: Path) -> None:
    kinds = re.findall(r"^```(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)[::2]
    assert set(kinds) <= ({"python", "sh"} if path in HAND else {"text"})


@pytest.mark.parametrize("path", FAMILY_PAGES, ids=lambda path: path.stem)
def test_links_of_families_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target
