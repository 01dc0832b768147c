"""How a model makes its output: token after token, by denoising blocks of text, or by recursion on a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from sympy import Add, Dummy, Expr, Integer, Min, Poly, Rational

from costmodel.blocks import FAMILIES
from costmodel.blocks.base import Size
from costmodel.cost import ONE
from costmodel.errors import CostModelError
from costmodel.evaluate import distinct_experts
from costmodel.formula import Term
from costmodel.ops import up_to
from costmodel.symbols import S, S_g, S_p, T, n_d
from costmodel.workload import Checked, Options

DECODE_FORMS = tuple(family.algorithms[0] for family in FAMILIES.values() if family.algorithms)
"""The algorithm of each family for one token at a time."""

PassTerms = Callable[[Options], tuple[Term, ...]]
"""The rows' FLOPs, or bytes, of one pass under options, in letters."""


class Diffusion(Checked):
    """Text diffusion: the tokens of a block are denoised together, over a number of steps that the user picks.

    `block_length` tokens make a block where the user names no other number. Nie et al. 2025, arXiv 2502.09992, section 2.4;
    blocks with a cache: Arriola et al. 2025, arXiv 2503.09573.

    >>> Diffusion().block_length
    32
    """

    source: ClassVar[str] = "Nie et al. 2025, arXiv 2502.09992; blocks with a cache: Arriola et al. 2025, arXiv 2503.09573"

    block_length: Size = 32


class Recursion(Checked):
    """A recursive reasoner: a step applies few layers many times to a grid of `positions`, and steps repeat until it halts.

    `positions` counts the places before the grid too; `steps` is the most it takes; a head of `halt_outputs` logits, with a
    bias, reads the first place and says when to stop. Nothing is kept between tokens. Jolicoeur-Martineau 2025, arXiv 2510.04871.

    >>> Recursion(positions=916).steps
    16
    """

    source: ClassVar[str] = "Jolicoeur-Martineau 2025, arXiv 2510.04871; HRM: Wang et al. 2025, arXiv 2506.21734"

    positions: Size
    steps: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 16
    halt_outputs: Size = 2


def autoregressive_flops(flops: PassTerms, options: Options) -> tuple[Term, ...]:
    """A prompt of S_p tokens, whose last one gives the first of S_g tokens, then S_g - 1 steps of one token each.

    The steps together are one pass of S_g - 1 tokens after the prompt, with the algorithms of a step and logits for all.
    """
    stepwise = options.model_copy(
        update={"logits": "all"} | ({"algorithm": DECODE_FORMS} if options.algorithm == "auto" else {})
    )  # fmt: skip
    steps = {T: S_g - 1, S: S_p + S_g - 1}
    return _placed(flops(options), "prompt", lambda expr: expr.xreplace({T: S_p, S: S_p})) + _placed(
        flops(stepwise), "tokens", lambda expr: expr.xreplace(steps)
    )


def autoregressive_traffic(moved: PassTerms, options: Options) -> tuple[Term, ...]:
    """The same in bytes: a pass over the prompt, then S_g - 1 passes of one token, each of which reads the weights again."""
    first, last = S_p + 1, S_p + S_g - 1
    steps = tuple(replace(term, prefill=term.decode) for term in moved(options))
    return _placed(moved(options), "prompt", lambda expr: expr.xreplace({T: S_p, S: S_p})) + _placed(
        steps, "tokens", lambda expr: _over_contexts(expr.xreplace({T: ONE}), first, last)
    )


def diffusion_terms(pass_terms: PassTerms, options: Options, block: int) -> tuple[Term, ...]:
    """S_g tokens after a prompt of S_p in n_d denoising steps, by one of three samplings.

    `plain`: every step is a pass over prompt and output, S_p + S_g tokens. `uncached`: block after block; a step of block j is
    a pass over prompt and blocks up to it, S_p + j b tokens. `blocks`: the same with keys and values of all before the block
    kept; a step is a pass of the block's b tokens alone, the prompt passes once, and so does each finished block but the
    last, whose clean tokens' keys and values are kept (no logits in either). A pass costs a + b T + c S + d T S, so the
    sum over blocks is the cost at the mean of S and of T S.
    """
    denoising = options.model_copy(update={"logits": "all"})
    length, mean = S_p + S_g, S_p + (S_g + block) * Rational(1, 2)
    mean_square = S_p**2 + S_p * (S_g + block) + (S_g + block) * (2 * S_g + block) * Rational(1, 6)
    if options.sampling == "plain":
        return _placed(pass_terms(denoising), "denoising", lambda expr: n_d * _expected(expr, length, length, length**2))
    if options.sampling == "uncached":
        return _placed(pass_terms(denoising), "denoising", lambda expr: n_d * _expected(expr, mean, mean, mean_square))
    size, before_last = Integer(block), S_p + S_g * Rational(1, 2)
    storing = tuple(term for term in pass_terms(options) if term.path[0] != "head")
    return (
        _placed(storing, "prompt", lambda expr: expr.xreplace({T: S_p, S: S_p}))
        + _placed(pass_terms(denoising), "denoising", lambda expr: n_d * _expected(expr, size, mean, size * mean))
        + _placed(
            storing, "finished blocks", lambda expr: (S_g / size - 1) * _expected(expr, size, before_last, size * before_last)
        )
    )


def recursion_terms(flops: PassTerms, options: Options) -> tuple[Term, ...]:
    """n_d steps, each a pass over the whole grid with logits at every place of it."""
    return _placed(flops(options.model_copy(update={"logits": "all"})), "steps", lambda expr: n_d * expr.xreplace({T: S}))


def _expected(expr: Expr, new: Expr, context: Expr, both: Expr) -> Expr:
    """The mean of a + b T + c S + d T S over passes, from the means of T, S and T S."""
    if new.is_number:  # passes of one length: what is not straight in T is a number
        expr, both = expr.xreplace({T: new}), context
    elif expr.has(distinct_experts):
        raise CostModelError("experts touched in passes of growing length have no closed sum; choose sampling blocks or plain")
    means = {(0, 0): ONE, (1, 0): new, (0, 1): context, (1, 1): both}
    return Add(*(coefficient * means[powers] for powers, coefficient in Poly(expr, T, S).terms()))


def _over_contexts(expr: Expr, first: Expr, last: Expr) -> Expr:
    """The sum of an expression in S and in Min(S, c) over the contexts from `first` to `last`."""
    windows = {window: Dummy() for window in expr.atoms(Min) if window.has(S)}
    letters = (S, *windows.values())
    sums = {(1, *(0 for _ in windows)): (last * (last + 1) - first * (first - 1)) / 2, tuple(0 for _ in letters): last - first + 1}
    for place, window in enumerate(windows, start=1):
        (reach,) = (argument for argument in window.args if argument != S)
        sums[tuple(int(place == other) for other in range(len(letters)))] = up_to(last, reach) - up_to(first - 1, reach)
    return Add(*(coefficient * sums[powers] for powers, coefficient in Poly(expr.xreplace(windows), *letters).terms()))


def _placed(terms: tuple[Term, ...], part: str, turned: Callable[[Expr], Expr]) -> tuple[Term, ...]:
    """Terms of whole passes, under a part of their own."""
    return tuple(
        replace(term, path=(part, *term.path), decode=expr, prefill=expr, by_algorithm=False)
        for term in terms
        for expr in [turned(term.prefill)]
    )


def check_blocks(block: int) -> Callable[[Mapping[Any, Any]], None]:
    """Refuses output that is no whole number of blocks, and steps that do not spread evenly over them; 0: there are none."""

    def check(values: Mapping[Any, Any]) -> None:
        generated, steps = values.get(S_g), values.get(n_d)
        if not block or generated is None or steps is None:
            return
        if np.any(np.mod(generated, block)):
            raise CostModelError(f"generated is no multiple of block_length {block}; give whole blocks, or another block_length")
        if np.any(np.mod(steps * block, generated)):
            raise CostModelError(f"steps do not spread evenly over the blocks of {block} tokens; give a multiple of their number")

    return check
