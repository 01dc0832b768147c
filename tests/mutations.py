"""Mutants of `blocks/` and `ops.py`: small errors put in on purpose, and how many of them the tests see.

    python -m pip install cosmic-ray
    python -m tests.mutations [--count 300] [--seed 0] [--jobs 1] [--only COSTMODEL/FILE.PY:NUMBER ...]

A seeded sample of all mutants that cosmic-ray's operators make, each in a copy of the tree, against `SUBSET`, which takes less than
ten seconds of CPU. What survives is printed as a diff; docs/mutations.md says of each why.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).parent.parent
MUTATED = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("costmodel/blocks/*.py"), ROOT / "costmodel/ops.py"])
COPIED = ("costmodel", "presets", "tests", "docs", "pyproject.toml", "app.py", "README.md")
SUBSET = (
    "costmodel/blocks", "costmodel/ops.py", "tests/test_brute_force.py", "tests/test_brute_force_linear.py",
    "tests/test_brute_force_mamba.py", "tests/test_brute_force_mlstm.py", "tests/test_brute_force_shared.py",
    "tests/test_brute_force_short_conv.py", "tests/test_brute_force_dsa.py", "tests/test_blocks.py", "tests/test_references.py",
    "tests/test_brute_force_rwkv7.py", "tests/test_brute_force_attention.py",
)  # fmt: skip
"""Quickest first: a mutant is dead at its first failure. No torch."""
LIMIT_S = 60
UNMUTATED = ("VariableReplacer", "VariableInserter")
"""Operators that cosmic-ray wants told which variables."""
BITWISE = ("BitAnd", "BitOr", "BitXor", "LShift", "RShift")
"""What an operator is replaced with where most expressions raise, so that a test dies by running the line at all."""


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file."""

    path: Path
    operator: str
    arguments: tuple[tuple[str, Any], ...]
    occurrence: int
    line: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.path}:{self.number}"

    def text(self) -> str:
        """The file with this change."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        changed = mutate_code((ROOT / self.path).read_text(), get_operator(self.operator)(**dict(self.arguments)), self.occurrence)
        assert changed is not None, self.name
        return str(changed)

    def diff(self) -> str:
        before = (ROOT / self.path).read_text().splitlines()
        lines = difflib.unified_diff(before, self.text().splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if line[:3] not in ("---", "+++", "@@ "))


def mutants() -> list[Mutant]:
    """All of them, but for `|` between types of an annotation, which says nothing when it runs."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    found: list[Mutant] = []
    for path in MUTATED:
        tree, types = get_ast_from_path(ROOT / path), annotations(path)
        each: list[Mutant] = []
        for name in sorted(operator_names()):
            if name.rpartition("/")[2] in UNMUTATED:
                continue
            operator = get_operator(name)()
            starts = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
            kept = [(place, start) for place, start in enumerate(starts) if not ("BitOr" in name and within(start, types))]
            each += [Mutant(path, name, (), place, start[0], len(each) + number) for number, (place, start) in enumerate(kept)]
        found += each
    return found


Span = tuple[tuple[int, int], tuple[int, int]]


def annotations(path: Path) -> list[Span]:
    """Where the annotations of a file stand."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text())))
    found = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    return [((each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)) for each in found if each]


def within(start: tuple[int, int], spans: list[Span]) -> bool:
    return any(first <= tuple(start) < last for first, last in spans)


def tested(mutant: Mutant | None, folder: Path) -> tuple[str, float]:
    """What the subset says of a copy of the tree with one change: killed, survived or timeout, and the CPU seconds it took."""
    if mutant is not None:
        (folder / mutant.path).write_text(mutant.text())
    options = ("-x", "-q", "-p", "no:cacheprovider", "-m", "not torch", "--hypothesis-profile=mutants")
    command = [sys.executable, "-m", "pytest", *options, *SUBSET]
    alone = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    began = os.times()
    try:
        done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, timeout=LIMIT_S)  # noqa: S603
        outcome = {0: "survived"}.get(done.returncode, "killed")
        if mutant is None and done.returncode:
            raise SystemExit(f"the subset fails without a mutant:\n{done.stdout[-2000:]}")
    except subprocess.TimeoutExpired:
        outcome = "timeout"
    finally:
        if mutant is not None:
            shutil.copy(ROOT / mutant.path, folder / mutant.path)
    ended = os.times()
    return outcome, ended.children_user + ended.children_system - began.children_user - began.children_system


def copied(folder: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def main() -> None:
    """A sample tried, its survivors printed, and the share that died."""
    asked = argparse.ArgumentParser(description="Mutants of blocks/ and ops.py against a quick part of the tests.")
    asked.add_argument("--count", type=int, default=300, help="how many mutants (default: 300)")
    asked.add_argument("--seed", type=int, default=0, help="which of them (default: 0)")
    asked.add_argument("--jobs", type=int, default=1, help="how many at once (default: 1)")
    asked.add_argument("--only", nargs="+", metavar="MUTANT", help="these alone, by name")
    choice = asked.parse_args()
    try:
        every = mutants()
    except ModuleNotFoundError as missing:
        raise SystemExit(f"{missing.name} is not installed: python -m pip install cosmic-ray") from None
    sample = random.Random(choice.seed).sample(every, min(choice.count, len(every)))  # noqa: S311 - the same sample every time
    if choice.only:
        sample = [mutant for mutant in every if mutant.name in choice.only]
    with tempfile.TemporaryDirectory() as name:
        told(len(every), run(sample, Path(name), choice.jobs))


def run(sample: list[Mutant], place: Path, jobs: int) -> dict[Mutant, str]:
    """What became of each, after one run without any."""
    folders: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        folders.put(copied(place / str(number)))
    first = folders.get()
    print(f"without a mutant: {tested(None, first)[1]:.1f} s of CPU", flush=True)
    folders.put(first)

    def one(mutant: Mutant) -> str:
        folder, began = folders.get(), time.monotonic()
        outcome, _ = tested(mutant, folder)
        folders.put(folder)
        if outcome != "killed":
            print(f"{outcome} after {time.monotonic() - began:.0f} s: {mutant.name}\n{mutant.diff()}", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(sample, pool.map(one, sample), strict=True))


def told(every: int, outcomes: dict[Mutant, str]) -> None:
    """The shares that died: of all, and of those that do not die by being run."""
    print(f"{len(outcomes)} of {every} mutants: {shares(outcomes)}")
    harder = {mutant: outcome for mutant, outcome in outcomes.items() if not mutant.operator.endswith(BITWISE)}
    print(f"{len(harder)} of them put in no shift or bit operator: {shares(harder)}")


def shares(outcomes: dict[Mutant, str]) -> str:
    counts = {outcome: list(outcomes.values()).count(outcome) for outcome in ("killed", "timeout", "survived")}
    dead = (counts["killed"] + counts["timeout"]) / max(1, len(outcomes))
    return ", ".join(f"{count} {what}" for what, count in counts.items()) + f"; {dead:.1%} dead"


if __name__ == "__main__":
    main()
