"""The size that a checkpoint states of itself meets ours, in the variant it holds, or a remark says by how much it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import costmodel as cm
from costmodel.catalog import import_config
from costmodel.cli import main
from costmodel.importers import read_config
from costmodel.importers.stored import COPIES, DRAFTS, INDEX, MAX_INDEX_BYTES, OWN, TOLERANCE, TWICE, StoredSize

CONFIGS = Path(__file__).parent / "configs"


def table_bytes(model: cm.Architecture) -> int:
    return 2 * model.params.embedding


def index(total: Any) -> str:
    return json.dumps({"metadata": {"total_size": total}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}})


def stored(name: str, total: Any, **changes: Any) -> StoredSize:
    config = json.loads((CONFIGS / f"{name}.json").read_text()) | changes
    found = read_config(json.dumps(config), f"{name}.json", index(total)).stored
    assert found is not None
    return found


PUBLISHED = [
    ("llama-3.1-8b", 16_060_522_496, OWN, 0.0),
    ("qwen3-30b-a3b", 61_064_245_248, OWN, 0.0),
    ("qwen3-0.6b", 1_503_264_768, TWICE, 0.0),
    ("gpt-oss-20b", 13_761_264_768, OWN, 0.0),
    ("deepseek-v3", 688_586_727_753, COPIES, 2e-5),
]
"""Sizes in the published files. DeepSeek-V3 keeps some small tensors in fp32."""


@pytest.mark.parametrize(("name", "total", "variant", "off"), PUBLISHED, ids=[name for name, *_ in PUBLISHED])
def test_a_published_size_is_ours(name: str, total: int, variant: str, off: float) -> None:
    found = stored(name, total)
    assert found.best == variant
    assert abs(found.difference) <= off
    assert found.remark == ""


def test_each_variant_is_what_it_says() -> None:
    glm = cm.load("glm-4.6")
    own = 2 * glm.params.total
    variants = {OWN: own, DRAFTS: own + 2 * glm.params.mtp, COPIES: own + 2 * glm.params.mtp + 2 * table_bytes(glm)}
    assert stored("glm-4.6", own).variants == variants
    for name, total in variants.items():
        assert stored("glm-4.6", total).best == name
        assert stored("glm-4.6", total).difference == 0
    gemma = cm.load("gemma-3-1b")
    assert stored("gemma-3-1b", 1).variants == {OWN: 2 * gemma.params.total, TWICE: 2 * gemma.params.total + table_bytes(gemma)}
    assert set(stored("llama-3.1-8b", 1).variants) == {OWN}


def test_the_stored_format_is_the_configs() -> None:
    total = cm.load("gpt2").params.total
    for form, size in (("float32", 4), ("torch.float32", 4), ("float16", 2), ("bfloat16", 2)):
        for field in ("dtype", "torch_dtype"):
            assert stored("gpt2", size * total, **{field: form}).difference == 0
    fp8 = cm.load("deepseek-v3").weight_bytes(precision="fp8")
    assert stored("deepseek-v3", fp8).best == OWN
    for unknown in ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"dtype": "float8_e4m3fn"}, {"dtype": 5}):
        found = stored("gpt2", 1_000, **unknown)
        assert found.precision is None
        assert "not compared" in found.remark


@pytest.mark.parametrize("factor", [0.5, 1 - 1.1 * TOLERANCE, 1 + 1.1 * TOLERANCE, 3])
def test_a_size_that_does_not_meet_ours_is_remarked(factor: float) -> None:
    own = 2 * cm.load("llama-3.1-8b").params.total
    found = stored("llama-3.1-8b", round(own * factor))
    assert found.difference == pytest.approx(1 / factor - 1, abs=1e-9)
    assert f"{own:,}" in found.remark
    assert "\n" not in found.remark
    assert stored("llama-3.1-8b", round(own * (1 + 0.9 * TOLERANCE))).remark == ""


BAD = {
    "empty": ("", "no valid JSON"),
    "list": ("[]", "got a list"),
    "bare": ("{}", "metadata.total_size got None"),
    "text": (index("16060522496"), "metadata.total_size got '16060522496'"),
    "fraction": (index(1.5), "metadata.total_size got 1.5"),
    "not a number": ('{"metadata": {"total_size": NaN}}', "metadata.total_size got nan"),
    "none": (index(0), "metadata.total_size got 0"),
    "less": (index(-4), "metadata.total_size got -4"),
    "true": (index(True), "metadata.total_size got True"),
    "huge": (index(10**30), "metadata.total_size got"),
    "metadata": ('{"metadata": 4}', "metadata.total_size got None"),
    "twice": ('{"metadata": {"total_size": 1, "total_size": 2}}', "given twice"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "large": (" " * (MAX_INDEX_BYTES + 1), "at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_index_is_one_line(name: str, tmp_path: Path) -> None:
    text, part = BAD[name]
    (tmp_path / "config.json").write_text((CONFIGS / "gpt2.json").read_text())
    (tmp_path / INDEX).write_text(text)
    for read in (import_config, cm.load):
        with pytest.raises(cm.CostModelError) as raised:
            read(tmp_path)
        line = str(raised.value)
        assert INDEX in line
        assert part in line
        assert line.isprintable()
        assert len(line) < 400


def test_a_folder_is_compared_with_its_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text((CONFIGS / "qwen3-8b.json").read_text())
    assert import_config(tmp_path).stored is None
    own = 2 * cm.load("qwen3-8b").params.total
    (tmp_path / INDEX).write_text(index(float(own)))
    for path in (tmp_path, tmp_path / "config.json"):
        found = import_config(path).stored
        assert found is not None
        assert (found.published, found.difference) == (own, 0)
    assert cm.load(tmp_path).params.total == cm.load("qwen3-8b").params.total
    (tmp_path / INDEX).write_text(index(own // 2))
    with pytest.raises(SystemExit) as ended:
        main(["import", str(tmp_path), "-f", "json"])
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert json.loads(told.out)["stored"] == [
        {"variant": OWN, "published_bytes": own // 2, "our_bytes": own, "difference_percent": 100.0, "best": True}
    ]
    assert "+100.00%" in told.err


def test_another_file_in_the_folder_has_no_index(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text((CONFIGS / "gpt2.json").read_text())
    (tmp_path / INDEX).write_text(index(1))
    assert import_config(tmp_path / "other.json").stored is None
