"""The documentation says what is: its examples run, its commands and links exist, its picture is fresh."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import costmodel as cm
from costmodel.blocks import FAMILIES
from costmodel.catalog import validate
from costmodel.cli import app, main
from tests import accuracy
from tests.pictures import PICTURE, draw

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(command: str) -> None:
    """Runs a `costmodel ...` command in this process; it must succeed."""
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command)[1:])
    assert end.value.code == 0, command


def test_python_blocks_of_the_readme_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own README
        for line in block.splitlines():
            code, _, says = line.partition("# ")
            value = says.split(" ")[0].strip().rstrip(",")
            if re.fullmatch(r"[\d_]+", value) and "=" not in code.split("(")[0]:
                assert eval(code, names) == int(value), line  # noqa: S307 - our own README


@pytest.mark.parametrize(
    "command", re.findall(r"`(costmodel (?:show|compare|diff|derive|capacity|train) [^`]+|costmodel accelerators)`", README)
)
def test_commands_of_the_readme_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "mine.toml" in command:
        (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8"), re.DOTALL)
        (tmp_path / "mine.toml").write_text(example, encoding="utf-8")
        command = command.replace("mine.toml", str(tmp_path / "mine.toml"))
    run(command)
    assert capsys.readouterr().out


def test_the_example_architecture_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8"), re.DOTALL)
    model = validate(tomllib.loads(example), "docs/architectures.md")
    assert model.layer_order[:3] == ("local", "local", "global")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_command_and_family_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"costmodel {name}" in pages or f"`{name}`" in pages
    with pytest.raises(SystemExit):
        main(["derive", "--help"])
    described = capsys.readouterr().out
    assert [family for family in FAMILIES if family not in described] == []


def test_every_public_name_is_there_after_every_module() -> None:
    """No module bears the name of a public function."""
    import pkgutil
    from importlib import import_module

    for module in pkgutil.walk_packages(cm.__path__, "costmodel."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in cm.__all__:
        value = getattr(cm, name)
        assert callable(value), name
        assert value.__doc__, name


def test_the_picture_shows_todays_numbers() -> None:
    """Rich may draw another frame; the words and numbers are the same."""

    def words(svg: str) -> list[str]:
        return re.findall(r">([^<>\s][^<>]*)</text>", svg)

    assert words(PICTURE.read_text(encoding="utf-8")) == words(draw())
    assert re.findall(r"https?://(?!www\.w3\.org)", PICTURE.read_text(encoding="utf-8")) == []


def test_the_tables_of_the_accuracy_page_are_fresh() -> None:
    """`python -m tests.accuracy` writes them."""
    text = accuracy.PAGE.read_text(encoding="utf-8")
    assert accuracy.page(text) == text
