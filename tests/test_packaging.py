"""The wheel holds what the program needs, and finds it without the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from costmodel.cli import app_flags

ROOT = Path(__file__).parents[1]
SCRIPT = """
import costmodel as cm
from costmodel.catalog import bundled
assert "_bundled" in str(bundled("app.py")), bundled("app.py")
print(cm.__file__, len(cm.presets()), cm.load("deepseek-v3").params.total)
"""


KEPT = {
    "costmodel", "app.py", "presets", "tests", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE",
    "NOTICE", "docs", "Dockerfile",
}  # fmt: skip
"""What stands at the top, beside files that begin with a dot."""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: what is kept is not known")
def test_nothing_else_stands_at_the_top() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603
    top = {line.partition("/")[0] for line in told.splitlines()}
    assert {name for name in top if not name.startswith(".")} == KEPT


def test_a_wheel_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hatchling = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / hatchling.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {"costmodel/_bundled/app.py", "costmodel/_bundled/.streamlit/config.toml", "costmodel/figures/live.js"} <= set(names)
    assert "costmodel/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert [name for name in names if not name.startswith(("costmodel/", "costmodel-"))] == []
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    where, count, total = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert int(count) == len(list((ROOT / "presets" / "architectures").glob("*.toml")))
    assert total == "671026419200"


def test_found_from_the_source_tree() -> None:
    """Beside the package, where no bundle is."""
    from costmodel.catalog import bundled

    assert bundled("presets").is_dir()
    assert bundled("app.py").is_file()


def test_the_dockerfile_keeps_its_promises() -> None:
    lines = [line.strip() for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()]
    steps = [line.partition(" ")[::2] for line in lines if line and not line.startswith("#")]
    users = [rest for step, rest in steps if step == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert [step for step, _ in steps if step in ("CMD", "ENTRYPOINT", "USER")][-2:] == ["USER", "CMD"]
    health = next(rest for step, rest in steps if step == "HEALTHCHECK")
    assert "/_stcore/health" in health
    assert any("compileall" in rest for step, rest in steps if step == "RUN")
    command = json.loads(next(rest for step, rest in steps if step == "CMD"))
    assert command[:2] == ["costmodel", "app"]
    for step, rest in steps:
        if step == "COPY":
            assert all((ROOT / name).exists() for name in rest.split()[:-1])


def test_the_dashboards_settings_travel_as_flags() -> None:
    flags = app_flags()
    assert "--browser.gatherUsageStats=False" in flags
    assert "--server.maxUploadSize=1" in flags
    assert "--theme.dark.primaryColor=#4BA3D9" in flags
