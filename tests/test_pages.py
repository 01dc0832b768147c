"""Landscape, mistakes and families: what is made is fresh, and every code block runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sympy

import costmodel as cm
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


def prose(name: str) -> str:
    """A page's text in one line."""
    return " ".join((pages.DOCS / name).read_text(encoding="utf-8").split())


def test_prose_has_todays_numbers() -> None:
    """What sentences between the tables claim, asked again."""
    short, long = 4096, 131_072

    def cache(name: str, context: int, **options: str) -> float:
        return float(cm.load(name).cache_bytes(context=context, **options))

    def usual(name: str) -> float:
        return cache(name, long, method="2lhd") / cache(name, long)

    def times_active(name: str) -> float:
        return cm.load(name).params.total / cm.load(name).params.active

    hybrid, experts, latent = cm.load("qwen3-next-80b-a3b"), cm.load("qwen3-235b-a22b"), cm.load("deepseek-v3").layers[0].mixer
    states = cache(hybrid.name, short) - short * (cache(hybrid.name, long) - cache(hybrid.name, short)) / (long - short)
    own = latent.num_attention_heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim)
    work = experts.decode_flops(context=long) / experts.decode_flops(context=short)
    claims = {
        "landscape.md": [
            f"DeepSeek-V3 keeps {100 / usual('deepseek-v3'):.0f} % and grows",
            f"{usual('deepseek-v3'):.0f} times less than 128 heads of d_model / n_h",
            f"{own / (latent.kv_lora_rank + latent.qk_rope_head_dim):.0f} times less than the keys and values of its own",
            f"keeps {cache('gpt2-large', 1) / 1024:.0f} KiB a token, with {cm.load('gpt2-large').params.total / 1e6:.0f} million",
            f"does {work:.0f} times the work a token at 128k than at 4k",
            f"the states are {100 * states / cache(hybrid.name, short):.0f} % of what Qwen3-Next keeps, "
            f"at 128k {100 * states / cache(hybrid.name, long):.0f} %",
            f"hence {cache('kimi-linear-48b-a3b', long) / 2**30:.0f} GiB at 128k",
            f"as large as {cache('xlstm-7b', 1) / cache('llama-3.1-8b', 1):.0f} tokens of Llama 3.1 8B's",
            "seven times as large",
        ],
        "mistakes.md": [
            f"({usual('deepseek-v3'):.0f} times for DeepSeek-V3)", f"({usual('gemma-3-27b'):.0f} times for Gemma 3 27B)",
            f"({usual('lfm2-350m'):.1f} to {usual('kimi-linear-48b-a3b'):.0f} times for most hybrids)",
            f"({usual('hunyuan-large'):.0f} times for Hunyuan-Large)",
            f"wrong by {times_active('mixtral-8x7b'):.1f} to {times_active('kimi-k2'):.0f} times",
        ],
    }  # fmt: skip
    missing = [claim for name, each in claims.items() for claim in each if claim not in prose(name)]
    assert missing == []
    assert round(cache("mamba2-2.7b", 1) / cache("mamba-2.8b", 1)) == 7
    assert cache("cwm-32b", short) == cache("qwen3-32b", short)
    assert cache("cwm-32b", long) < cache("qwen3-32b", long) / 3
