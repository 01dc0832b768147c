"""What is asked of an architecture: the phase of a pass, the options of a quantity, and the precision of each role.

The three letters of a workload are B sequences, T new tokens of each in this pass, and S tokens of context
after it. Prefill is T = S, decode T = 1; a cached prefix or a speculative step is any T in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache, reduce
from inspect import Signature, signature
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from sympy import Expr, Integer, Rational, ceiling

from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.symbols import b_a, b_kv, b_state, b_w

MAX_ELEMENT_BYTES = 16


class Phase(StrEnum):
    """A T of 1 is decode, any other is prefill. The phase picks a block's algorithm."""

    DECODE = "decode"
    PREFILL = "prefill"


@dataclass(frozen=True)
class Pass:
    """How one forward pass is counted.

    `attention` is `causal` (the pairs visible in that architecture) or `full` (T S pairs; windows ignored).
    `algorithms` names the algorithms asked for; a block that knows none of them goes by the phase.
    """

    phase: Phase = Phase.PREFILL
    attention: str = "causal"
    algorithms: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """How the cache is counted: `theory`, or what a paged `engine` reserves, summed over its tp ranks.

    `block` tokens a page; `evict_windows` frees the pages a sliding window has left; `tp` tensor-parallel ranks;
    `speculative` extra slots of recurrent state a sequence; `hybrid_pages` makes the pages of attention and
    recurrent layers equal in bytes, as unified memory pools do.
    """

    engine: bool = False
    block: int = 16
    evict_windows: bool = False
    tp: int = 1
    speculative: int = 0
    hybrid_pages: bool = False


def ceil_div(a: Expr, b: Expr | int) -> Expr:
    """ceil(a / b), left unevaluated while letters remain.

    >>> from costmodel.symbols import S
    >>> ceil_div(S, 16)
    ceiling(S/16)
    """
    ratio = a / b
    return ceiling(ratio) if ratio.is_Number else ceiling(ratio, evaluate=False)


@dataclass(frozen=True)
class Format:
    """A storage format: bytes of a [d_in, d_out] matrix, scales included."""

    name: str
    bytes_of: Callable[[Expr, Expr], Expr]

    def bytes(self, d_in: Expr, d_out: Expr) -> Expr:
        """Bytes of one [d_in, d_out] matrix.

        >>> FORMATS["fp8"].bytes(Integer(7168), Integer(576))
        4129888
        """
        return self.bytes_of(d_in, d_out)


def _plain(name: str, element_bytes: Expr) -> Format:
    return Format(name, lambda d_in, d_out: element_bytes * d_in * d_out)


def _blocks(name: str, block: int, block_bytes: int) -> Format:
    """Rows of d_in elements cut into blocks: GGUF's layouts, each with its scales inside."""
    return Format(name, lambda d_in, d_out: block_bytes * ceil_div(d_in, block) * d_out)


def _grouped_4bit(name: str, group: int, scale_bytes: int) -> Format:
    """4 bits an element, two to a byte, and one scale for each `group` inputs of an output."""
    return Format(name, lambda d_in, d_out: (ceil_div(d_in, 2) + scale_bytes * ceil_div(d_in, group)) * d_out)


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        _plain("fp32", Integer(4)),
        _plain("fp16", Integer(2)),
        _plain("bf16", Integer(2)),
        # one fp32 scale for each 128 x 128 block (DeepSeek-V3 report, section 3.3.2)
        Format("fp8", lambda i, o: i * o + 4 * ceil_div(i, 128) * ceil_div(o, 128)),
        # one bf16 scale for each output
        Format("int8", lambda i, o: i * o + 2 * o),
        _grouped_4bit("int4", 128, 2),
        _grouped_4bit("mxfp4", 32, 1),  # OCP Microscaling Formats 1.0: one E8M0 scale for each 32
        _grouped_4bit("nvfp4", 16, 1),
        _blocks("q8_0", 32, 34),  # GGUF: blocks of 32 or 256 inputs
        _blocks("q6_K", 256, 210),
        _blocks("q5_K", 256, 176),
        _blocks("q4_K", 256, 144),
    )
}
ELEMENT_BYTES: dict[str, Expr] = {"fp32": Integer(4), "fp16": Integer(2), "bf16": Integer(2), "fp8": Integer(1), "int8": Integer(1)}
"""Formats of a cache, a state or an activation, in bytes an element: fp8 and int8 as 1 byte, without scales."""
PACKED_MLA = "fp8_ds_mla"
"""DeepSeek's packed latent: d_c bytes of fp8, one fp32 scale for each 128 of them, the rope key in bf16 (656 bytes in V3.2)."""
EXPERTS_ONLY = ("mxfp4",)
ALIASES = {
    "float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "fp8",
    "fp8_e4m3": "fp8", "e4m3": "fp8",
}  # fmt: skip
"""What torch and servers call these formats."""

Role = str | int | float | Fraction
_LETTERED: dict[str, Expr] = {
    "weights": b_w, "experts": b_w, "embeddings": b_w, "others": b_w, "cache": b_kv, "state": b_state, "activations": b_a,
}  # fmt: skip


Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
"""A name that is safe everywhere: lower case letters, digits, dot, dash and underscore."""

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=10_000)]


class Checked(BaseModel):
    """A frozen model whose construction in Python fails with one line, as reading a file does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, *unnamed: Any, **fields: Any) -> None:
        if unnamed:
            known = ", ".join(type(self).model_fields)
            raise CostModelError(f"{type(self).__name__} takes its fields by name, not {shown(unnamed[0])} alone; they are {known}")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise CostModelError(one_line(error, type(self), f"{type(self).__name__}: ")) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # inside another model pydantic checks the fields itself

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Has `help` show types without their limits: those are said in errors."""
        super().__pydantic_init_subclass__(**options)
        fields = [
            each.replace(annotation=_bare(each.annotation)) for each in signature(cls).parameters.values() if each.name != "unnamed"
        ]
        cls.__signature__ = Signature(fields)

    def __str__(self) -> str:
        return repr(self)


def _bare(kind: Any) -> Any:
    """A type without the limits that it is annotated with."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    return reduce(or_, map(_bare, get_args(kind))) if get_origin(kind) in (Union, UnionType) else kind


class Precision(BaseModel):
    """The storage format of each role: a name of `FORMATS`, or bytes an element as a number.

    `weights` (attention and dense feed-forward matrices, shared experts), `experts` (routed), `embeddings` (token
    table and head), `others` (norms, routers, biases, convolutions, towers), `cache`, `state` (None: the block's own,
    fp32 unless its family says otherwise), `activations`.

    >>> Precision(weights="fp8", cache=1).cache
    1
    >>> Precision.named("mxfp4").weights, Precision.named("mxfp4").experts
    ('bf16', 'mxfp4')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    weights: Role = "bf16"
    experts: Role = "bf16"
    embeddings: Role = "bf16"
    others: Role = "bf16"
    cache: Role = "bf16"
    state: Role | None = None
    activations: Role = "bf16"

    def __init__(self, **roles: Any) -> None:
        unknown = next((role for role in roles if role not in type(self).model_fields), None)
        if unknown is not None:
            raise CostModelError(f"precision has no role {shown(unknown)}; {did_you_mean(unknown, type(self).model_fields)}")
        super().__init__(**{role: _checked(role, value) for role, value in roles.items()})

    @field_validator("*", mode="plain")
    @classmethod
    def _as_given(cls, value: Role | None) -> Role | None:
        return value

    @classmethod
    def named(cls, name: str, **others: Any) -> Self:
        """The precision a single name means for weights: it sets `weights` and `experts` (mxfp4: `experts` alone)."""
        form = _checked("experts" if isinstance(name, str) and name.lower() in EXPERTS_ONLY else "weights", name)
        return cls(**({"experts": form} if form in EXPERTS_ONLY else {"weights": form, "experts": form}), **others)

    def matrix(self, role: str) -> Format:
        """The format of the matrices of a role."""
        value = getattr(self, role)
        return FORMATS[value] if isinstance(value, str) else _plain(str(value), Rational(value))

    def element(self, role: str, own: Expr | None = None) -> Expr:
        """Bytes of one element of a cache, state or activation; `own` is the block's own where the role is not set."""
        value = getattr(self, role)
        if value is None:
            return own if own is not None else ELEMENT_BYTES["fp32"]
        return ELEMENT_BYTES[value] if isinstance(value, str) else Rational(value)


class LetteredPrecision(Precision):
    """Every format left as its letter (b_w, b_kv, b_state, b_a): for formulas in letters."""

    def matrix(self, role: str) -> Format:
        return _plain(str(_LETTERED[role]), _LETTERED[role])

    def element(self, role: str, own: Expr | None = None) -> Expr:
        return _LETTERED[role]


def _known(role: str) -> tuple[str, ...]:
    if role == "experts":
        return tuple(FORMATS)
    if role in ("weights", "embeddings", "others"):
        return tuple(name for name in FORMATS if name not in EXPERTS_ONLY)
    return (*ELEMENT_BYTES, PACKED_MLA) if role == "cache" else tuple(ELEMENT_BYTES)


def _plain_number(value: Any) -> Any:
    """A number of numpy as Python's; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _checked(role: str, value: object) -> Role | None:
    if value is None and role == "state":
        return None
    if isinstance(value, str):
        known = _known(role)
        lower, asked = {name.lower(): name for name in known}, ALIASES.get(value.lower(), value.lower())
        if asked not in lower:
            raise CostModelError(f"{role} cannot be stored as {shown(value)}; {did_you_mean(value, known)}")
        return lower[asked]
    value = _plain_number(value)
    if isinstance(value, (int, float, Fraction)) and not isinstance(value, bool) and 0 < value <= MAX_ELEMENT_BYTES:
        return Fraction(str(value)) if isinstance(value, float) else value  # 0.3 as it is written
    raise CostModelError(
        f"{role} got {shown(value)}; give a format ({', '.join(_known(role))}) "
        f"or bytes an element, more than 0 and at most {MAX_ELEMENT_BYTES}"
    )


class Options(BaseModel):
    """Every option of every quantity, with its default. A quantity takes some of them; a Formula remembers its own.

    `attention` causal or full; `logits` last or all; `algorithm` a family's named form, or several (`auto`: by the
    phase); `precision` (a name or a Precision); `view` theory or engine, with the engine's `block`,
    `evict_windows`, `tp`, `speculative`, `hybrid_pages` (see `View`); `mtp` multi-token-prediction modules counted;
    `sampling` of a diffusion model: `blocks` with a cache of the finished ones, `uncached` blocks, or `plain` passes over the
    whole output, with its `block_length` (None: the model's own);
    `images` seen by a vision tower in this pass, per sequence; `recompute` none, selective or full in training;
    `method` exact, or a usual shortcut: 6nd of training, 2lhd of the cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attention: Literal["causal", "full"] = "causal"
    logits: Literal["last", "all"] = "last"
    algorithm: str | tuple[str, ...] = "auto"
    precision: str | Precision = "bf16"
    view: Literal["theory", "engine"] = "theory"
    block: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 16
    evict_windows: Annotated[bool, Field(strict=True)] = False
    tp: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 1
    speculative: Annotated[int, Field(strict=True, ge=0, le=64)] = 0
    hybrid_pages: Annotated[bool, Field(strict=True)] = False
    mtp: Annotated[int, Field(strict=True, ge=0, le=64)] = 0
    images: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 0
    recompute: Literal["none", "selective", "full"] = "none"
    method: Literal["exact", "6nd", "2lhd"] = "exact"
    sampling: Literal["blocks", "uncached", "plain"] = "blocks"
    block_length: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None

    @field_validator("precision", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if not isinstance(value, (str, Precision)):
            raise ValueError(f"got {shown(value)}; give a format such as fp8, or a Precision")
        return value

    def with_(self, allowed: Collection[str], changes: Mapping[str, Any]) -> Self:
        """These options with some changed. Raises CostModelError for an unknown option or an impossible value."""
        for name in changes:
            if name not in allowed:
                raise CostModelError(f"no option {shown(name)} here; {did_you_mean(name, allowed) if allowed else 'it takes none'}")
        plain = {name: _plain_number(value) for name, value in changes.items()}
        try:
            options = type(self).model_validate({**self.__dict__, **plain})
        except ValidationError as error:
            raise CostModelError(one_line(error, type(self))) from None
        for name in ENGINE_OPTIONS:
            if options.view == "theory" and getattr(options, name) != type(self).model_fields[name].default:
                raise CostModelError(f"{name} belongs to the engine view; add view='engine'")
        if options.method == "2lhd" and (options.view == "engine" or options.mtp):
            raise CostModelError("method 2lhd knows neither the engine view nor mtp; leave view and mtp out")
        return options

    def as_pass(self, phase: Phase) -> Pass:
        """The options that a block's ops depend on, in a phase."""
        names = (self.algorithm,) if isinstance(self.algorithm, str) else self.algorithm
        return Pass(phase, self.attention, tuple(name for name in names if name != "auto"))

    def as_view(self) -> View:
        """The options that the cache depends on."""
        return View(self.view == "engine", *(getattr(self, name) for name in ENGINE_OPTIONS))

    def as_precision(self, names: str) -> Precision:
        """The precision; a bare name sets the `weights` (and experts) or the `cache`, as the quantity says."""
        if isinstance(self.precision, Precision):
            return self.precision
        return Precision(cache=self.precision) if names == "cache" else Precision.named(self.precision)


METHODS = {"6nd": "training_flops", "2lhd": "cache_bytes"}
"""The usual shortcuts, and the quantity each belongs to."""
ENGINE_OPTIONS = ("block", "evict_windows", "tp", "speculative", "hybrid_pages")


def one_line(error: ValidationError, model: type[BaseModel], within: str = "") -> str:
    """The first of pydantic's complaints as one line: where, what came, what was expected.

    Unknown fields come first, with the nearest known one: a misspelt field is the usual cause of a missing one.
    """
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    where = ".".join(shown(step)[1:-1] if isinstance(step, str) else str(step) for step in problem["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        name, known = problem["loc"][-1], _fields(model)
        hint = "it belongs elsewhere (see `costmodel schema`)" if name in known else did_you_mean(name, known)
        return f"{within}{where}: unknown field here; {hint}{more}"
    if problem["type"] == "missing":
        return f"{within}{where}: this field is missing; give it{more}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    came = "" if problem["type"] == "value_error" else f" got {shown(problem['input'])};"
    return f"{within}{where}:{came} {message}{more}" if where else f"{within}{message}{more}"


@cache
def _fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Every field name that may stand anywhere in a model's data."""
    schemas = model.model_json_schema()
    tables = [schemas, *schemas.get("$defs", {}).values()]
    return tuple(dict.fromkeys(name for table in tables for name in table.get("properties", {})))
