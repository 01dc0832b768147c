"""Tables of docs/landscape.md and docs/mistakes.md, and the pages of docs/families: `python -m tests.pages` writes them.

What is written by hand stands around the tables; pages of families are made whole. A test compares them with what this makes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import costmodel as cm
from costmodel.answers.derivations import PREFERRED, derivation, derivation_tables
from costmodel.blocks import FAMILIES
from costmodel.blocks.base import Keeping
from costmodel.catalog import presets
from costmodel.families import ALIASES
from costmodel.scenario import Scenario
from costmodel.units import binary_bytes, count, decimal_bytes, flop, tokens
from costmodel.variants import edited

from .accuracy import table

DOCS = Path(__file__).parents[1] / "docs"
CONTEXTS = (4_096, 131_072, 1_048_576)
LONG = CONTEXTS[1]
FORMATS = {"fp8": 8, "int8": 8, "int4": 4, "mxfp4": 4, "q8_0": 8, "q4_K": 4}
"""Formats with scales, and the bits in their names."""

# docs/landscape.md


def costs(*names: str) -> Callable[[], str]:
    """Size, cache and decode FLOPs of presets at each context."""
    return lambda: _costs([(f"`{name}`", cm.load(name)) for name in names])


def _costs(models: list[tuple[str, cm.Architecture]]) -> str:
    rows = [
        (
            name, count(model.params.total), count(model.params.active), _published(model),
            *(binary_bytes(model.cache_bytes(context=s)) for s in CONTEXTS),
            *(flop(model.decode_flops(context=s)) for s in CONTEXTS),
        )
        for name, model in models
    ]  # fmt: skip
    head = ("Preset", "Total:", "Active:", "Published context:")
    return table((*head, *(f"Cache, {tokens(s)}:" for s in CONTEXTS), *(f"A token, {tokens(s)}:" for s in CONTEXTS)), rows)


def _published(model: cm.Architecture) -> str:
    return f"{model.max_position_embeddings:,}" if model.max_position_embeddings else "none"


STORY = {
    "Multi-head attention": "gpt2-large", "Grouped queries": "llama-3.1-70b", "Latent attention": "deepseek-v3",
    "Sliding windows": "gemma-3-27b", "Windows in a code world model": "cwm-32b", "Shared keys and values": "hunyuan-large",
    "Chunks": "llama-4-maverick", "Sparse latent attention": "deepseek-v3.2", "Gated DeltaNet": "qwen3-next-80b-a3b",
    "Kimi Delta Attention": "kimi-linear-48b-a3b", "Lightning attention": "minimax-text-01", "Short convolutions": "lfm2-1.2b",
    "Mamba-2 hybrid": "nemotron-h-56b", "Mamba alone": "mamba-2.8b", "RWKV-7": "rwkv7-2.9b", "xLSTM": "xlstm-7b",
}  # fmt: skip
"""Each idea with a preset that has it."""


def story() -> str:
    """What one sequence keeps at each context as a share of the usual formula, and how a token's FLOPs grow."""
    rows = []
    for idea, name in STORY.items():
        model = cm.load(name)
        first, *later = (model.decode_flops(context=s) for s in CONTEXTS)
        shares = [_of_usual(model, s) for s in CONTEXTS]
        rows.append((idea, f"`{name}`", *shares, *(f"{value / first:.2f}" for value in later)))
    head = ("Idea", "Preset", *(f"Kept, {tokens(s)}:" for s in CONTEXTS), *(f"FLOPs, {tokens(s)} / 4k:" for s in CONTEXTS[1:]))
    return table(head, rows)


def _of_usual(model: cm.Architecture, context: int) -> str:
    attends = any(group.mixer is not None and group.mixer.usual_heads is not None for group in model.layers)
    if not attends:
        return "state alone"
    return f"{model.cache_bytes(context=context) / model.cache_bytes(context=context, method='2lhd'):.1%}"


def heads() -> str:
    """Llama 3.1 70B with as many KV heads as it has query heads, with its own, and with one."""
    llama = cm.load("llama-3.1-70b")
    return _costs([(f"`llama-3.1-70b`, n_kv = {n}", edited(llama, {"dense/mixer/num_key_value_heads": n})) for n in (64, 8, 1)])


def algorithms() -> str:
    """Decode FLOPs of latent attention, absorbed and expanded."""
    rows = []
    for name in ("deepseek-v3", "kimi-k2"):
        for algorithm in ("absorbed", "expanded"):
            asked = cm.load(name).decode_flops.having(algorithm=algorithm)
            rows.append((f"`{name}`", algorithm, *(flop(asked(context=s)) for s in CONTEXTS)))
    return table(("Preset", "Algorithm", *(f"A token, {tokens(s)}:" for s in CONTEXTS)), rows)


def windows() -> str:
    """Gemma 3 27B with its window, and with none."""
    gemma = cm.load("gemma-3-27b")
    wide = edited(gemma, {"local/mixer/sliding_window": None})
    return _costs([("`gemma-3-27b`", gemma), ("`gemma-3-27b`, no window", wide)])


def delta() -> str:
    """Qwen3-Next as it is, and with attention in every layer."""
    qwen = cm.load("qwen3-next-80b-a3b")
    full = edited(qwen, {"deltanet/count": 0, "attention/count": 48})
    return _costs([("`qwen3-next-80b-a3b`", qwen), ("`qwen3-next-80b-a3b`, attention alone", full)])


def diffusion() -> str:
    """FLOPs of each of 256 tokens after a prompt, by the way they are denoised, and token after token."""
    rows = []
    for name in ("llada-8b", "dream-7b"):
        model = cm.load(name)
        for steps in (256, 64):
            for sampling in ("plain", "blocks"):
                asked = model.generation_flops.having(sampling=sampling)
                each = [asked(prompt=s - 256, generated=256, steps=steps) / 256 for s in CONTEXTS]
                rows.append((f"`{name}`", f"{sampling}, {steps} steps", *map(flop, each)))
        each = [model.autoregressive.generation_flops(prompt=s - 256, generated=256) / 256 for s in CONTEXTS]
        rows.append((f"`{name}`", "token after token", *map(flop, each)))
    return table(("Preset", "Sampling", *(f"A token, {tokens(s)}:" for s in CONTEXTS)), rows)


def recursion() -> str:
    """Recursive reasoners on their own grid: size, a step, a whole answer, and a step on longer grids."""
    rows = []
    for name in presets():
        model = cm.load(name)
        if model.recursion is None:
            continue
        places, steps = model.recursion.positions, model.recursion.steps
        step, answer = (model.solve_flops(context=places, steps=n) for n in (1, steps))
        mixes = any(group.mixer is not None and group.mixer.kind == "token_mixing" for group in model.layers)
        longer = ["fixed grid"] * 3 if mixes else [flop(model.solve_flops(context=s, steps=1)) for s in CONTEXTS]
        kept = binary_bytes(model.cache_bytes(context=places))
        rows.append((f"`{name}`", count(model.params.total), f"{places}", kept, flop(step), flop(answer), *longer))
    head = ("Preset", "Total:", "Places:", "Cache:", "A step:", "An answer, all steps:")
    return table((*head, *(f"A step, {tokens(s)}:" for s in CONTEXTS)), rows)


LANDSCAPE = {
    "story": story,
    "heads": heads,
    "dense": costs("gpt2-large", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "qwen3-32b"),
    "latent": costs("deepseek-v2", "deepseek-v3", "kimi-k2"),
    "algorithms": algorithms,
    "windows": windows,
    "windowed": costs("mistral-7b-v0.1", "gemma-3-27b", "olmo-3-7b", "gpt-oss-120b", "llama-4-maverick", "hunyuan-large"),
    "world": costs("cwm-32b", "qwen3-32b"),
    "experts": costs("mixtral-8x7b", "qwen3-235b-a22b", "glm-4.5", "deepseek-v3", "kimi-k2", "gpt-oss-120b"),
    "sparse": costs("deepseek-v3", "deepseek-v3.2", "glm-5"),
    "delta": delta,
    "linear": costs("qwen3-next-80b-a3b", "qwen3.5-397b-a17b", "kimi-linear-48b-a3b", "minimax-text-01"),
    "recursion": recursion,
    "diffusion": diffusion,
    "liquid": costs("lfm2-350m", "lfm2-1.2b", "lfm2-8b-a1b", "qwen3-0.6b"),
    "rwkv": costs("rwkv7-0.4b", "rwkv7-2.9b"),
    "mamba": costs("mamba-2.8b", "mamba2-2.7b", "zamba2-2.7b", "falcon-h1-7b", "nemotron-h-8b", "nemotron-h-56b",
                   "nemotron-3-nano-30b-a3b", "granite-4.0-h-small", "jamba-1.5-large"),
    "xlstm": costs("xlstm-7b", "llama-3.1-8b"),
}  # fmt: skip

# docs/mistakes.md


def usual() -> str:
    """Presets whose cache the usual formula misses, most first."""
    rows = []
    for name in presets():
        model = cm.load(name)
        if model.recursion or _of_usual(model, LONG) == "state alone":
            continue
        exact, told = (model.cache_bytes(context=LONG, method=method) for method in ("exact", "2lhd"))
        if exact != told:
            rows.append((told / exact, (f"`{name}`", _layers(model), binary_bytes(exact), binary_bytes(told))))
    ordered = sorted(rows, key=lambda row: (-row[0], row[1]))
    head = ("Preset", "Its layers", "Kept, 128k:", "Usual formula:", "Times:")
    return table(head, [(*cells, f"{times:.2f}") for times, cells in ordered])


def _layers(model: cm.Architecture) -> str:
    """How many layers of each kind of mixer: `52 gqa in windows, 10 gqa`."""
    kinds: Counter[str] = Counter()
    for group in model.layers:
        if group.mixer is not None:
            windowed = " in windows" if group.mixer.keeping is Keeping.WINDOW else ""
            kinds[group.mixer.kind + windowed] += group.count
    return ", ".join(f"{layers} {kind}" for kind, layers in kinds.items())


def head_width() -> str:
    """Presets with grouped-query attention whose heads are not d_model / n_h wide."""
    rows = []
    for name in presets():
        model = cm.load(name)
        mixer = next((group.mixer for group in model.layers if isinstance(group.mixer, cm.GQA)), None)
        if mixer is None or mixer.head_dim * mixer.num_attention_heads == model.hidden_size:
            continue
        guessed = model.hidden_size / mixer.num_attention_heads
        cells = (f"`{name}`", f"{model.hidden_size:,}", f"{mixer.num_attention_heads}", f"{guessed:g}", f"{mixer.head_dim}")
        rows.append((*cells, f"{guessed / mixer.head_dim:.2f}"))
    return table(("Preset", "d_model:", "n_h:", "d_model / n_h:", "head_dim:", "Cache, times:"), rows)


def tied() -> str:
    """Presets with one table for input and output: what counting it twice, or leaving it out, makes of the total."""
    rows = []
    for name in presets():
        model = cm.load(name)
        if model.tie_word_embeddings and not model.recursion:
            total, own = model.params.total, model.params.embedding
            rows.append((f"`{name}`", f"{total:,}", f"{own:,}", f"{own / total:+.1%}"))
    return table(("Preset", "Total:", "Table:", "Counted twice:"), rows)


def active() -> str:
    """What memory holds and what a token uses, of presets with experts."""
    rows = []
    for name in presets():
        model = cm.load(name)
        if not model.params.routed_experts:
            continue
        total, used = model.params.total, model.params.active
        cells = (f"`{name}`", count(total), count(used), f"{total / used:.1f}")
        rows.append((*cells, flop(2 * total), flop(model.decode_flops(context=1))))
    return table(("Preset", "Total:", "Active:", "Times:", "2 x total:", "A token, context 1:"), rows)


def scales() -> str:
    """Weights in formats with scales, against the bits in the format's name."""
    rows = []
    for name in ("deepseek-v3", "llama-3.1-70b"):
        model = cm.load(name)
        for precision, bits in FORMATS.items():
            exact, named = model.weight_bytes(precision=precision), model.params.total * bits / 8
            rows.append((f"`{name}`", precision, decimal_bytes(exact), decimal_bytes(named), f"{exact / named - 1:+.1%}"))
    return table(("Preset", "Format", "Weights:", "Bits of the name:", "More:"), rows)


def gigabytes() -> str:
    """The same bytes in both units."""
    rows = []
    for name in ("deepseek-v3", "gemma-3-27b", "llama-3.1-70b", "qwen3-32b"):
        kept, weights = cm.load(name).cache_bytes(context=LONG), cm.load(name).weight_bytes()
        rows.append((f"`{name}`", binary_bytes(kept), decimal_bytes(kept), binary_bytes(weights), decimal_bytes(weights)))
    return table(("Preset", "Cache, 128k, GiB:", "GB:", "Weights, GiB:", "GB:"), rows)


def halved() -> str:
    """FLOPs of a prompt with the pairs that are visible, and with the whole square."""
    rows = []
    for name in ("llama-3.1-8b", "llama-3.1-70b", "gemma-3-27b", "deepseek-v3"):
        asked = cm.load(name).prefill_flops
        pairs = [(asked(context=s), asked(context=s, attention="full")) for s in CONTEXTS]
        rows.append((f"`{name}`", *(f"{full / seen:.2f}" for seen, full in pairs)))
    return table(("Preset", *(f"Full / visible, {tokens(s)}:" for s in CONTEXTS)), rows)


def two_n() -> str:
    """A token's FLOPs against twice the active parameters."""
    rows = []
    for name in ("llama-3.1-8b", "llama-3.1-70b", "gemma-3-27b", "deepseek-v3", "deepseek-v3.2", "qwen3-next-80b-a3b", "xlstm-7b"):
        model = cm.load(name)
        usual = 2 * model.params.active
        rows.append((f"`{name}`", flop(usual), *(f"{model.decode_flops(context=s) / usual:.2f}" for s in CONTEXTS)))
    return table(("Preset", "2 x active:", *(f"Exact / that, {tokens(s)}:" for s in CONTEXTS)), rows)


def ranks() -> str:
    """Cache over all tensor-parallel ranks, against one copy."""
    rows = []
    for name in ("llama-3.1-70b", "qwen3-235b-a22b", "qwen3-next-80b-a3b", "deepseek-v3"):
        kept = cm.load(name).cache_bytes
        once = kept(context=LONG)
        rows.append((f"`{name}`", *(f"{kept(context=LONG, view='engine', tp=tp) / once:.2f}" for tp in (1, 8, 16))))
    return table(("Preset", "1 rank:", "8 ranks:", "16 ranks:"), rows)


MISTAKES = {
    "usual": usual, "head_width": head_width, "tied": tied, "active": active, "scales": scales, "gigabytes": gigabytes,
    "halved": halved, "two_n": two_n, "ranks": ranks,
}  # fmt: skip

TABLES = {"landscape.md": LANDSCAPE, "mistakes.md": MISTAKES}
MARKED = re.compile(r"(<!-- (\w+): made by tests/pages.py -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str, made: dict[str, Callable[[], str]]) -> str:
    """A page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{made[found[2]]()}\n\n{found[3]}", text)


# docs/families


def family_page(kind: str) -> str:
    """The page of a family: what it is, its formulas from letters to values, special cases, and who has it."""
    lettered, having = cm.family(kind), _presets_with(kind)
    model = cm.load(next((name for name in PREFERRED if name in having), having[0]))
    told = [f"# {kind}", _sentence(lettered.title), f"Source: {lettered.source}.", "[All families](../families.md)"]
    told += list(_one_layer(kind, "One layer"))
    for alias, (stands_for, _, _) in ALIASES.items():
        if stands_for == kind:
            told += list(_one_layer(alias, f"Special case: {alias}"))
    told += [*_whole(model, kind), "## Presets", ", ".join(f"`{name}`" for name in having) + "."]
    return "\n\n".join(told) + "\n"


def _sentence(text: str) -> str:
    return text.replace("<", "&lt;")


def _math(latex: str) -> str:
    r"""LaTeX without backslashes before punctuation, which Markdown takes for its own: `a\,b` is a \cdot b."""
    return latex.replace(r"\,", r"\cdot ").replace("\\\\", r"\cr ").replace(r"\:", r"\ ")


def _presets_with(kind: str) -> list[str]:
    return [name for name in presets() if any(block.kind == kind for group in cm.load(name).layers for block in group.blocks)]


def _one_layer(name: str, title: str) -> Iterator[str]:
    """Formulas of one layer in letters, with the numbers of a preset, and their values; then the letters."""
    formulas, letters = derivation_tables(name, None, CONTEXTS[0], 1)
    yield f"## {title}"
    yield f"{formulas.title}, as `costmodel derive {name} --context 4k` prints it."
    shown: dict[str, str] = {}
    for row in formulas.rows:
        same = shown.setdefault(row["letters"], row["quantity"])
        if same != row["quantity"]:
            yield f"**{row['quantity']}** is the same as {same}."
            continue
        yield f"**{row['quantity']}**"
        if row["letters"] == "0":
            yield "0: nothing is kept between tokens."
            continue
        yield f"$$\n{_math(row['latex'])}\n$$"
        yield f"```text\n{row['letters']}\n= {row['numbers']}\n= {row['value']:,} {row['unit']}\n```"
    rows = [(f"`{row['letter']}`", f"`{row['field']}`", f"{row['value']}", row["meaning"]) for row in letters.rows]
    yield table(("Letter", "Field", "Value:", "Meaning"), rows)
    yield "\n".join(f"- {remark}" for remark in formulas.remarks)


def _whole(model: cm.Architecture, kind: str) -> Iterator[str]:
    """How the layers of a model add up."""
    context = model.recursion.positions if model.recursion else CONTEXTS[0]
    yield f"## A whole model: {model.title}"
    yield f"Preset `{model.name}`, one sequence of {tokens(context)} tokens. Layers of {kind} beside the others:"
    for name in ("params", "cache_bytes", "decode_flops"):
        steps = derivation(model, Scenario(context=context), name)
        yield f"**{name}** = {steps.value}"
        if steps.parts:
            yield table(
                ("Layers", "Of each", "Letters"), [(part.title, f"${_math(part.latex)}$", part.letters) for part in steps.parts]
            )


def index() -> str:
    """The list of all families."""
    rows = []
    for kind in FAMILIES:
        lettered, having = cm.family(kind), _presets_with(kind)
        rows.append(
            (f"[{kind}](families/{kind}.md)", _sentence(lettered.title), f"`{lettered.cache_bytes.expr}`", f"{len(having)}")
        )
    return table(("Family", "What it is", "Kept by a layer, bytes", "Presets:"), rows)


TABLES["families.md"] = {"index": index}


def made() -> Iterator[tuple[Path, str]]:
    """Every page and what it should hold."""
    for name, tables in TABLES.items():
        yield DOCS / name, page((DOCS / name).read_text(encoding="utf-8"), tables)
    for kind in FAMILIES:
        yield DOCS / "families" / f"{kind}.md", family_page(kind)


def main() -> None:
    """Writes the pages."""
    (DOCS / "families").mkdir(exist_ok=True)
    for path, text in made():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
