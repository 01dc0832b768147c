"""The command line: every command in every format, exact data on stdout, remarks and one-line errors on stderr."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import costmodel as cm
from costmodel.catalog import bundled
from costmodel.cli import app, main
from costmodel.comparison import comparison_rows, diff_rows

FORMATS = ("table", "json", "csv", "md")
COMMANDS: dict[str, list[str]] = {
    "presets": ["presets"],
    "show": ["show", "deepseek-v3"],
    "compare": ["compare", "deepseek-v3", "kimi-k2"],
    "diff": ["diff", "deepseek-v3", "kimi-k2"],
    "derive": ["derive", "mla", "--preset", "deepseek-v3"],
    "import": ["import", str(Path(__file__).parent / "configs" / "deepseek-v3.json")],
}
FAMILIES = (
    "gqa",
    "mha",
    "mqa",
    "sliding-window",
    "sliding_window",
    "MLA",
    "gated_deltanet",
    "gated-deltanet",
    "mamba",
    "mamba2",
    "mlp",
    "moe",
    "short_conv",
    "mlstm",
    "rwkv7",
    "rwkv_channel_mix",
)
Run = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Run:
    """(status, stdout, stderr) of a command line in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=False)  # noqa: S603


def on_a_terminal(width: int, *arguments: str) -> str:
    """What a command prints on a terminal so many characters wide, without its colours."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "costmodel", *arguments]
    environment = os.environ | {"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as child:  # noqa: S603
        os.close(theirs)
        told = b""
        with suppress(OSError):  # the terminal is gone
            while block := os.read(ours, 65_536):
                told += block
    os.close(ours)
    assert child.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", told.decode()).replace("\r\n", "\n")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


# every command in every format


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_every_format(capsys: pytest.CaptureFixture[str], command: str, form: str) -> None:
    status, out, err = run(capsys, *COMMANDS[command], "--format", form)
    assert status == 0
    assert all(line.startswith("note: ") for line in err.splitlines())
    assert "note:" not in out
    assert out.endswith("\n")
    if form == "json":
        assert json.loads(out)
    elif form == "csv":
        rows = rows_of(out)
        assert rows
        assert all(None not in row and None not in row.values() for row in rows)
    elif command in ("show", "derive"):
        assert "DeepSeek" in out
    else:
        assert "deepseek-v3" in out


def test_presets_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = run(capsys, "presets", "-f", "json")
    _, sheet, _ = run(capsys, "presets", "-f", "csv")
    assert [row["name"] for row in json.loads(text)] == cm.presets()
    for row, cells in zip(json.loads(text), rows_of(sheet), strict=True):
        params = cm.load(row["name"]).params
        assert (row["params_total"], row["params_active"]) == (params.total, params.active)
        assert (int(cells["params_total"]), int(cells["params_active"])) == (params.total, params.active)


@pytest.mark.parametrize("name", ["deepseek-v3", "gemma-3-27b", "gpt2", "qwen3-next-80b-a3b"])
def test_show_is_exact(capsys: pytest.CaptureFixture[str], name: str) -> None:
    model = cm.load(name)
    at = {"context": 1024, "batch": 3}
    expected = {
        "params.total": model.params.total,
        "params.active": model.params.active,
        "weight_bytes": model.weight_bytes(precision="int4"),
        "cache_bytes": model.cache_bytes(**at, precision="fp8"),
        "cache_bytes_engine": model.cache_bytes(**at, precision="fp8", view="engine"),
        "prefill_flops": model.prefill_flops(**at),
        "decode_flops": model.decode_flops(**at),
    }
    arguments = ("show", name, "-c", "1k", "-b", "3", "--precision", "int4", "--cache-precision", "fp8")
    _, text, _ = run(capsys, *arguments, "-f", "json")
    _, sheet, _ = run(capsys, *arguments, "-f", "csv")
    told = {row["quantity"]: row["value"] for row in json.loads(text)["quantities"]}
    cells = {row["quantity"]: row["value"] for row in rows_of(sheet) if row["table"] == "quantities"}
    for quantity, value in expected.items():
        assert isinstance(value, int)
        assert told[quantity] == value
        assert int(cells[quantity]) == value
    parts = json.loads(text)["parts"]
    assert sum(part["params"] for part in parts) == model.params.total
    assert sum(part["decode_flops"] for part in parts) == expected["decode_flops"]


def test_compare_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    rows = comparison_rows(["deepseek-v3", "mixtral-8x7b", "gpt2"], 32_768, 2, "fp8", "fp8")
    asked = (
        "compare",
        "deepseek-v3",
        "mixtral-8x7b",
        "gpt2",
        "-c",
        "32k",
        "-b",
        "2",
        "--precision",
        "fp8",
        "--cache-precision",
        "fp8",
    )
    _, text, err = run(capsys, *asked, "-f", "json")
    _, sheet, _ = run(capsys, *asked, "-f", "csv")
    assert json.loads(text) == rows
    assert "note: gpt2: context 32,768 is beyond the published limit of 1,024 tokens" in err
    for row, cells in zip(rows, rows_of(sheet), strict=True):
        assert {name: str(value) for name, value in row.items()} == cells
        assert all(isinstance(row[name], int) for name in ("params_total", "weight_bytes", "cache_bytes", "prefill_flops"))


def test_diff_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    start, steps, end = diff_rows("deepseek-v3", "kimi-k2", 8192, 2)
    _, text, _ = run(capsys, "diff", "deepseek-v3", "kimi-k2", "-c", "8k", "-b", "2", "-f", "json")
    _, sheet, _ = run(capsys, "diff", "deepseek-v3", "kimi-k2", "-c", "8k", "-b", "2", "-f", "csv")
    assert json.loads(text) == [start, *steps, end]
    assert rows_of(sheet) == [{name: str(value) for name, value in row.items()} for row in (start, *steps, end)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_derived(capsys: pytest.CaptureFixture[str], family: str) -> None:
    status, text, _ = run(capsys, "derive", family, "-c", "2k", "-b", "2", "-f", "json")
    assert status == 0
    data = json.loads(text)
    numbers = {row["letter"]: row["value"] for row in data["letters"]}
    formulas = {row["quantity"]: row for row in data["formulas"]}
    assert set(formulas) >= {"params.total", "params.active", "cache_bytes", "prefill_flops", "decode_flops"}
    assert formulas["params.total"]["value"] > 0
    assert {"letters", "numbers", "latex", "source", "unit"} <= set(formulas["decode_flops"])
    if family == "MLA":
        lettered = cm.family("mla").cache_bytes
        assert formulas["cache_bytes"]["value"] == lettered(**{s.name: numbers[s.name] for s in lettered.symbols})


@pytest.mark.parametrize("form", ["md", "json"])
def test_report_command_writes_what_the_library_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str) -> None:
    expected = cm.report("gpt2", form, context=512, batch=2)
    assert run(capsys, "report", "gpt2", "-c", "512", "-b", "2", "-f", form) == (0, expected, "")
    out = tmp_path / f"report.{form}"
    status, text, err = run(capsys, "report", "gpt2", "-c", "512", "-b", "2", "-f", form, "-o", str(out))
    assert (status, text, len(err.splitlines())) == (0, "", 1)
    assert out.read_text(encoding="utf-8") == expected


def test_one_file_and_one_preset_of_the_same_name_keep_a_column_each(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = (bundled("presets") / "architectures" / "gpt2.toml").read_text()
    file.write_text(text.replace("count = 12", "count = 24"))
    _, table, _ = run(capsys, "compare", "gpt2", str(file), "-c", "1k", "-f", "md")
    assert "| quantity | gpt2 | gpt2 (2) |" in table
    assert "| params\\_total | 124.4 M | 209.5 M |" in table


@pytest.mark.parametrize("name", ["quantity", "params_total", "my_model"])
def test_a_models_name_disturbs_no_table(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine.toml"
    text = (bundled("presets") / "architectures" / "gpt2.toml").read_text()
    file.write_text(text.replace('name = "gpt2"', f'name = "{name}"').replace('name = "dense"', 'name = "cache_bytes"'))
    _, table, _ = run(capsys, "compare", str(file), "-c", "1k")
    assert name in table
    assert "36 MiB" in table
    _, table, _ = run(capsys, "show", str(file), "-c", "1k", "-f", "md")
    assert "| cache\\_bytes | 12 | gqa + mlp |" in table


def test_remarks_go_to_stderr_beside_data_and_below_the_table_in_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    remark = "context 2,048 is beyond the published limit of 1,024 tokens"
    for form in ("table", "json", "csv"):
        _, out, err = run(capsys, "show", "gpt2", "-c", "2048", "-f", form)
        assert err == f"note: {remark}\n"
        assert remark not in out
    _, out, err = run(capsys, "show", "gpt2", "-c", "2048", "-f", "md")
    assert remark in out
    assert remark in err
    assert run(capsys, "show", "gpt2", "-c", "1024")[2] == ""


def test_import_tells_every_field_and_writes_the_architecture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config, written = COMMANDS["import"][1], tmp_path / "mine.toml"
    status, text, err = run(capsys, "import", config, "--write", str(written), "-f", "json")
    assert status == 0
    note, wrote = err.splitlines()
    assert note == "note: published weights are fp8, experts fp8; costs are in bf16 unless a precision is chosen"
    assert wrote.startswith("wrote ")
    data = json.loads(text)
    told = {row["field"]: (row["treated"], row["value"]) for row in data["fields"]}
    assert told["kv_lora_rank"] == ("used", "512")
    assert told["rope_theta"] == ("ignored", "constants of rope")
    assert set(json.loads(Path(config).read_text())) <= set(told)
    assert data["parameters"][0] == {"quantity": "params.total", "value": 671_026_419_200}
    assert cm.load(written) == cm.load(config)
    assert rows_of(run(capsys, "show", str(written), "-f", "csv")[1]) == rows_of(run(capsys, "show", config, "-f", "csv")[1])
    for wrong in (["import", "deepseek-v3"], ["import", "gpt2.toml"], ["import", config, "--write", str(tmp_path)]):
        status, out, err = run(capsys, *wrong)
        assert (status, out, err.count("\n")) == (2, "", 1)


# help, schema, mistakes


@pytest.mark.parametrize("command", ["", *COMMANDS, "report", "schema"])
def test_help_is_printed(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, err = run(capsys, *command.split(), "--help")
    assert (status, err) == (0, "")
    assert "Usage" in out


CONFIG = Path(__file__).parent / "configs" / "deepseek-v3.json"
SLOW_EXAMPLES = ("app", "calibrate", "validate")
"""They start a server, or measure for a minute."""
EXAMPLES = [each.epilog.removeprefix("Example: costmodel ").split() for each in app.registered_commands if each.epilog]


def test_every_command_has_an_example() -> None:
    assert len(EXAMPLES) == len(app.registered_commands)


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each[0] not in SLOW_EXAMPLES], ids=lambda example: example[0])
def test_examples_of_help_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/config.json").write_bytes(CONFIG.read_bytes())
    status, out, err = run(capsys, *example)
    assert status == 0, err
    assert out or any(tmp_path.glob("*.*"))


def test_a_config_whose_weights_are_stored_otherwise_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Costs are in bf16 unless a precision is chosen, and DeepSeek-V3 is published in fp8."""
    config = str(CONFIG)
    assert "published weights are fp8" in run(capsys, "show", config)[2]
    assert "published weights are" not in run(capsys, "show", config, "--precision", "fp8")[2]
    assert "published weights are" not in run(capsys, "show", "gpt2")[2]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"costmodel {cm.__version__}\n", "")


def test_devices_follow_the_layout(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["estimate", "llama-3.1-70b", "--on", "h100-sxm", "--tp", "4", "-f", "json"]
    assert run(capsys, *asked)[:2] == run(capsys, *asked, "-d", "4")[:2]
    assert "takes 4 devices; devices got 6" in run(capsys, *asked, "-d", "6")[2]


def test_no_arguments_print_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert all(command in out for command in COMMANDS)


def plain(value: Any) -> Any:
    """TOML data as JSON has it."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def test_schema_is_a_schema_and_every_preset_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(run(capsys, "schema")[1])
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for name in cm.presets():
        data = plain(tomllib.loads((bundled("presets") / "architectures" / f"{name}.toml").read_text()))
        assert not list(validator.iter_errors(data)), name
        assert list(validator.iter_errors(data | {"hiden_size": 1}))


MISTAKES: dict[str, list[str]] = {
    "unknown command": ["bogus"],
    "near command": ["shwo", "gpt2"],
    "no model": ["show"],
    "no models": ["compare"],
    "one side": ["diff", "gpt2"],
    "too many": ["show", "gpt2", "a\nb\x1b[31m"],
    "unknown option": ["show", "gpt2", "--bogus"],
    "unknown option with a line": ["show", "gpt2", "--bo\ngus"],
    "option without value": ["show", "gpt2", "--context"],
    "unknown format": ["show", "gpt2", "-f", "xml"],
    "unknown report format": ["report", "gpt2", "-f", "docx"],
    "a report about nothing": ["report"],
    "a report about two things": ["report", "gpt2", "--calibration", "cpu"],
    "a report of all on stdout": ["report", "all"],
    "a report of all and one": ["report", "all", "gpt2", "-o", "/nowhere"],
    "a PDF for a terminal": ["report", "gpt2", "-f", "pdf"],
    "a folder for a terminal": ["report", "gpt2", "-f", "folder"],
    "a report's link that is none": ["report", "--link", "gpt2"],
    "a report's link with an unknown model": ["report", "--link", "report?models=gpt3"],
    "batch is text": ["show", "gpt2", "-b", "x"],
    "batch is half": ["show", "gpt2", "-b", "1.5"],
    "no batch": ["show", "gpt2", "-b", "0"],
    "huge batch": ["show", "gpt2", "-b", "9" * 30],
    "endless batch": ["show", "gpt2", "-b", "9" * 5000],
    "no context": ["show", "gpt2", "-c", "0"],
    "negative context": ["show", "gpt2", "-c", "-5"],
    "context is text": ["show", "gpt2", "-c", "nan"],
    "half context": ["show", "gpt2", "-c", "1.5"],
    "huge context": ["show", "gpt2", "-c", "9" * 30],
    "endless context": ["show", "gpt2", "-c", "9" * 100_000],
    "unknown model": ["show", "deepsek-v3"],
    "no name": ["show", ""],
    "folder": ["show", "."],
    "closed model": ["compare", "gpt2", "gpt-5"],
    "missing file": ["diff", "gpt2", "missing.toml"],
    "unknown precision": ["show", "gpt2", "--precision", "fp7"],
    "cache precision": ["compare", "gpt2", "--cache-precision", "int4"],
    "unknown family": ["derive", "gqaa"],
    "family without preset": ["derive", "mla", "--preset", "gpt2"],
    "unwritable": ["report", "gpt2", "-o", "/nowhere/report.md"],
    "report to a folder": ["report", "gpt2", "-o", "."],
    "report without batch": ["report", "gpt2", "-b", "0"],
    "derive without batch": ["derive", "mlp", "-b", "0"],
    "argument to schema": ["schema", "x"],
    "argument to the dashboard": ["app", "extra"],
    "an option twice": ["serve", "gpt2", "--on", "h100-sxm", "--on", "h200", "--rate", "1"],
    "an option twice, short and long": ["show", "gpt2", "-b", "1", "--batch=2"],
    "a report of no format": ["report", "gpt2", "-o", "report.doc"],
    "a report without an ending": ["report", "gpt2", "-o", "report"],
    "a report of two formats": ["report", "gpt2", "-f", "html", "-o", "report.md"],
    "a plan's report of no format": ["plan", "gpt2", "--on", "h100-sxm", "--rate", "1", "--report", "plan.txt"],
    "a plan's report nowhere": ["plan", "gpt2", "--on", "h100-sxm", "--rate", "1", "--report", "/nowhere/plan.md"],
    "a design nowhere": ["design", "gpt2", "--write", "1", "/nowhere/design.toml"],
    "an import nowhere": ["import", "/nowhere/config.json", "--write", "/nowhere/model.toml"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert len(err) < 400


def test_mistakes_speak_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Not of the library's fields and classes."""
    served = ["serve", "llama-3.1-8b", "--on", "h100-sxm", "--rate"]
    planned = ["plan", "llama-3.1-8b", "--on", "h100-sxm", "--rate", "1"]
    for arguments, told in (
        ([*served, "0"], "error: --rate got 0.0; should be greater than 0"),
        ([*served, "1", "--cached", "2"], "error: --cached got 2.0; should be less than 1"),
        ([*served, "1", "--tp", "0"], "error: --tp got 0; should be greater than or equal to 1"),
        ([*served, "1", "--prompt", "x"], "error: --prompt"),
        ([*served, "1", "--batch", "many"], "error: --batch got 'many'; give a whole number; see `costmodel serve --help`"),
        ([*planned, "--ttft", "-1"], "error: --ttft got -1.0"),
        ([*planned, "--budget", "-1"], "error: --budget got -1.0"),
        ([*planned, "--mode", "both"], "error: --mode holds 'both'"),
        (["design", "gpt2", "--changes", "3"], "error: --changes got 3"),
        (["estimate", "gpt2", "--on", "h100-sxm", "--launch-us", "-1"], "error: Invalid value for '--launch-us'"),
        (["report", "gpt2", "--units", "MB"], "error: --units got 'MB'"),
        (
            ["memory", "deepseek-v3", "--on", "h200", "--mtp", "3"],
            "error: deepseek-v3 has 1 modules that guess tokens, not 3; give --mtp 1",
        ),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, "")
        assert err.startswith(told), err


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_breaks_no_name_and_no_number(width: int) -> None:
    """Columns that do not fit side by side stand below each other, with the names or the rows' numbers in front."""
    for arguments in (["accelerators"], ["presets"], ["compare", "llama-3.1-8b", "deepseek-v3", "mixtral-8x7b", "kimi-k2"]):
        shown = on_a_terminal(width, *arguments)
        assert max(map(len, shown.splitlines())) <= width
        cells = {name for line in shown.splitlines() for name in line.split("  ")}
        words = {word.strip() for word in cells}
        wanted = {"accelerators": cm.accelerators(), "presets": cm.presets()}.get(arguments[0], arguments[1:])
        assert set(wanted) <= words
        heading = " ".join(shown.split())
        assert "usd" in heading if arguments[0] == "accelerators" else "kimi-k2" in heading


# processes


def test_module_runs_and_mistakes_leave_no_traceback() -> None:
    shown = python("-m", "costmodel", "show", "gpt2", "-c", "2048", "-f", "json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["quantities"][0]["value"] == 124_439_808
    wrong = python("-m", "costmodel", "show", "gpt-5")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


HEAVY = "{'sympy', 'numpy', 'pydantic', 'pandas', 'torch', 'streamlit', 'gguf', 'huggingface_hub'}"


@pytest.mark.parametrize(
    ("doing", "banned"),
    [
        ("import costmodel", HEAVY),
        ("run('--help')", HEAVY),
        ("run('show', '--help')", HEAVY + " - {'pydantic'}"),  # typer itself may use it
        (f"[run(*command) for command in {[*COMMANDS.values(), ['report', 'gpt2'], ['schema']]}]",
         "{'pandas', 'torch', 'streamlit', 'matplotlib', 'gguf', 'huggingface_hub'}"),
    ],
    ids=["import", "help", "command help", "every command"],
)  # fmt: skip
def test_nothing_heavy_is_imported(doing: str, banned: str) -> None:
    script = f"""
import sys
def run(*arguments):
    from costmodel.cli import main
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, end.code
{doing}
print(*sorted(({banned}) & set(sys.modules)), file=sys.stderr)
"""
    done = python("-c", script)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if line and not line.startswith("note: ")] == []


def test_output_is_the_same_in_every_process() -> None:
    script = """
from costmodel.cli import main
for line in ("report deepseek-v3", "report gemma-3-27b -f json", "compare kimi-k2 gemma-3-27b -f json", "derive mla", "schema"):
    try:
        main(line.split())
    except SystemExit:
        pass
"""
    first, second = (python("-c", script, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert len(first.stdout) > 10_000
    assert first.stdout == second.stdout
    assert first.stderr == second.stderr


@pytest.mark.parametrize("command", ["presets", "report gpt2 -f json", "--help"])
def test_a_reader_that_leaves_causes_no_traceback(command: str) -> None:
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "costmodel", *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_terminal_without_unicode_gets_the_same_bytes(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = (bundled("presets") / "architectures" / "gpt2.toml").read_text()
    file.write_text(text.replace('"GPT-2"', '"GPT-2 \u00e9\u6f22"'), encoding="utf-8")
    plainly = python("-m", "costmodel", "show", str(file), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert plainly.returncode == 0
    assert "Traceback" not in plainly.stderr


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a full device")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "costmodel", "presets", "-f", "json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")
