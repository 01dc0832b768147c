"""Models by their name on the hub, which a local server plays: two files, one line for what is not there, and never for a link."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import costmodel as cm
from costmodel import catalog
from costmodel.importers.hub import is_hub_name
from costmodel.importers.stored import INDEX

pytest.importorskip("huggingface_hub")

CONFIG = (Path(__file__).parent / "configs" / "qwen3-8b.json").read_bytes()
OWN = 2 * cm.load("qwen3-8b").params.total
INDEXED = json.dumps({"metadata": {"total_size": OWN}, "weight_map": {}}).encode()
MODELS: dict[str, dict[str, bytes]] = {
    "Qwen/Qwen3-8B": {"config.json": CONFIG, INDEX: INDEXED, "modeling.py": b"raise SystemExit", "model.safetensors": b"\0" * 100},
    "one/file": {"config.json": CONFIG},
    "no/config": {"README.md": b"#"},
    "bad/config": {"config.json": b"<html>"},
    "bad/index": {"config.json": CONFIG, INDEX: b"[]"},
    "large/config": {"config.json": b" " * ((1 << 20) + 1)},
    "other/kind": {"config.json": b'{"model_type": "mamba9"}'},
}
ERRORS = {"locked/model": (403, "GatedRepo"), "broken/server": (500, "")}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download of a file asks for."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        owner, name, _, _, file = self.path.strip("/").split("/", 4)
        self.asked.append(f"{owner}/{name}/{file}")
        model = f"{owner}/{name}"
        status, code = ERRORS.get(model, (404, "RepoNotFound" if model not in MODELS else "EntryNotFound"))
        data = MODELS.get(model, {}).get(file)
        self.send_response(200 if data is not None else status)
        if data is None:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{abs(hash(data))}"')
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if body and data is not None:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]  # of the class just made
    server.shutdown()
    server.server_close()


def command(where: Path, endpoint: str, *arguments: str, **others: str) -> tuple[int, str, str]:
    """The command line in a process of its own: the client reads its settings once."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(where),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    environment = {**os.environ, **settings, "HF_TOKEN": "", **others}
    line = [sys.executable, "-m", "costmodel", *arguments]
    done = subprocess.run(line, cwd=where, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    return done.returncode, done.stdout, done.stderr


def test_a_name_is_read_from_the_hub_and_from_its_cache(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, asked = hub
    status, text, err = command(tmp_path, endpoint, "import", "Qwen/Qwen3-8B", "-f", "json", "-w", "mine.toml")
    assert status == 0, err
    assert err == "wrote mine.toml\n"
    (row,) = json.loads(text)["stored"]
    assert (row["published_bytes"], row["difference_percent"]) == (OWN, 0)
    model = cm.load(tmp_path / "mine.toml")
    assert (model.name, model.title, model.maker) == ("qwen3-8b", "Qwen3-8B", "Qwen")
    assert "Qwen/Qwen3-8B" in model.source
    assert model.params.total == cm.load("qwen3-8b").params.total
    assert set(asked) == {"Qwen/Qwen3-8B/config.json", f"Qwen/Qwen3-8B/{INDEX}"}

    for offline in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        status, text, err = command(tmp_path, endpoint, "show", "Qwen/Qwen3-8B", "-f", "json", **offline)
        assert status == 0, err
        assert json.loads(text)["quantities"][0]["value"] == model.params.total
    (status, text, err), before = command(tmp_path, endpoint, "import", "one/file", "-f", "json"), len(asked)
    assert status == 0, err
    assert "stored" not in json.loads(text)
    assert before == len(asked)


REFUSED = {
    "no/config": "has no config.json",
    "bad/config": "no valid JSON",
    "bad/index": "got a list",
    "large/config": "1,048,577 bytes",
    "other/kind": "mamba9",
    "locked/model": "asks for consent",
    "broken/server": "cannot be read from the Hugging Face hub",
    "nobody/nothing": "no public model on the Hugging Face hub",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_to_be_had_is_one_line(name: str, hub: tuple[str, list[str]], tmp_path: Path) -> None:
    status, text, err = command(tmp_path, hub[0], "import", name)
    assert (status, text) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert REFUSED[name] in err


@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_offline_is_one_line(offline: dict[str, str], tmp_path: Path) -> None:
    status, text, err = command(tmp_path, "", "show", "Qwen/Qwen3-8B", **offline)
    assert (status, text) == (2, "")
    assert err.startswith("error: 'Qwen/Qwen3-8B' is no local file, and the Hugging Face hub cannot be reached; give a local file")
    assert err.count("\n") == 1


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(cm.CostModelError) as raised:
        cm.load("Qwen/Qwen3-8B")
    assert "pip install 'costmodel[hub]'" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names for which the hub was asked; none is answered."""
    asked: list[str] = []

    def fetched(name: str) -> None:
        asked.append(name)
        raise cm.CostModelError("asked the hub")

    monkeypatch.setattr(catalog, "fetched", fetched)
    return asked


def test_a_local_path_always_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetches: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_bytes(CONFIG)
    assert cm.load("org/model").params.total == cm.load("qwen3-8b").params.total
    for name in ("org/misspelt", Path("other/model")):
        with pytest.raises(cm.CostModelError, match="no file"):
            cm.load(name)
    assert fetches == []
    with pytest.raises(cm.CostModelError, match="asked the hub"):
        cm.load("other/model")
    assert fetches == ["other/model"]


NAMES = ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-0.6B", "a/b", "openai-community/gpt2", "0x/y_"]
NOT_NAMES: list[Any] = [
    "gpt2", "a/b/c", "/a", "a/", "./a", "../a", "~/a", "a/..", "a/b.toml", "a/b.json", "a/b.GGUF", "a/b.git", "a /b", "a/b\n",
    "a\\b/c", "http://x", "a//b", "-a/b", "a/b-", "a/b.", "a--b/c", "a/b..c", "a" * 200 + "/b", "\u00e4/b", "a/b?x=1", "a/b#c",
    "a/b@main", "", "/", None, 5, Path("a/b"),
]  # fmt: skip


def test_what_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [name for name in NAMES if not is_hub_name(name)] == []
    assert [name for name in NOT_NAMES if is_hub_name(name)] == []


@pytest.mark.parametrize("text", [text for text in NOT_NAMES if isinstance(text, str) and text != "gpt2"])
def test_nothing_else_asks_the_hub(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetches: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cm.CostModelError):
        cm.load(text)
    assert fetches == []


def test_a_link_never_asks_the_hub(fetches: list[str]) -> None:
    """Neither a scenario nor a change takes a name that is no preset's."""
    from costmodel.scenario import Scenario
    from costmodel.variants import edited

    name = "Qwen/Qwen3-8B"
    for field in ("models", "model", "other"):
        scenario, notices = Scenario.of({field: [name]})
        assert notices
        assert name not in (*scenario.models, getattr(scenario, field))
    for edit in ({"dense/mixer": f"{name}/dense"}, {"added-1": f"{name}/dense"}, {"added-1": name}):
        with pytest.raises(cm.CostModelError):
            edited(cm.load("gpt2"), edit)
    with pytest.raises(cm.CostModelError, match="no preset"):
        catalog.preset(name)
    assert fetches == []
