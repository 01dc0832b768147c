"""What every block is: frozen fields that bind letters, and a list of ops for a pass."""

from __future__ import annotations

from abc import abstractmethod
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field
from sympy import Expr, Integer, Symbol

from costmodel.cost import Kept
from costmodel.ops import Op
from costmodel.workload import Checked, Pass, Phase

MAX_SIZE = 10**9

Size = Annotated[int, Field(strict=True, ge=1, le=MAX_SIZE)]
"""A dimension or a count of an architecture: a whole number from 1 to 10^9."""

Flag = Annotated[bool, Field(strict=True)]


class Block(Checked):
    """A part of a layer. Fields speak the published config; the annotation names the letter a field binds.

    `source` cites the paper. `algorithms` names the forms for (decode, prefill) where a family has two.
    """

    source: ClassVar[str]
    algorithms: ClassVar[tuple[str, ...]] = ()
    kind: str

    @abstractmethod
    def ops(self, forward: Pass) -> list[Op]:
        """The ledger rows of this block in one layer, in letters."""

    def kept(self) -> tuple[Kept, ...]:
        """What one layer keeps of a sequence between tokens: nothing, unless a family says otherwise."""
        return ()

    def binding(self) -> dict[Symbol, Expr]:
        """The numbers behind the letters."""
        values = {letter: getattr(self, name) for name, letter in letters_of(type(self)).items()}
        return {letter: Integer(value) for letter, value in values.items() if isinstance(value, int)}

    def algorithm(self, forward: Pass) -> str:
        """The form taken in a pass: the one asked for where this family has it, else the phase's own."""
        asked = next((name for name in forward.algorithms if name in self.algorithms), None)
        if asked is not None or not self.algorithms:
            return asked or ""
        return self.algorithms[0 if forward.phase is Phase.DECODE else 1]

    @classmethod
    def symbolic(cls, **features: Any) -> Self:
        """The family with its letters left as letters: required sizes become symbols, options keep their defaults.

        A feature of `True` turns an optional size on, as its letter.
        """
        letters = letters_of(cls)
        required = {name: letters[name] for name, field in cls.model_fields.items() if name in letters and field.is_required()}
        chosen = {name: letters[name] if value is True and name in letters else value for name, value in features.items()}
        return cls.model_construct(**(required | chosen))  # type: ignore[return-value]  # the plugin names the class


class Keeping(StrEnum):
    """What kind of thing a layer keeps of a sequence between tokens."""

    FULL = "full attention"
    WINDOW = "sliding window"
    LATENT = "latent attention"
    STATE = "recurrent state"
    SHARED = "another layer's cache"
    NOTHING = "no cache"


class Mixer(Block):
    """Mixes tokens: attention, or a recurrence. Keeps state between tokens."""

    @property
    def keeping(self) -> Keeping:
        """What kind of thing it keeps, seen from what it keeps alone."""
        tokens = [kept for kept in self.kept() if kept.per_token]
        if not self.kept():
            return Keeping.SHARED if self.borrows else Keeping.NOTHING
        if not tokens:
            return Keeping.STATE
        if any(kept.reach is not None for kept in tokens):
            return Keeping.WINDOW
        return Keeping.FULL if all(kept.split for kept in tokens) else Keeping.LATENT

    @property
    def keeps(self) -> str:
        """What layers of this kind do with the past, as the end of a sentence that begins with their number.

        >>> from costmodel.blocks import GQA
        >>> GQA(num_attention_heads=32, num_key_value_heads=16, head_dim=128, sliding_window=1024).keeps
        'keep only 1,024 tokens'
        """
        width = sum(int((kept.heads * kept.width).xreplace(self.binding())) for kept in self.kept() if kept.per_token)
        return {
            Keeping.STATE: "hold a state that does not grow",
            Keeping.SHARED: "keep nothing of their own and read what another layer keeps",
            Keeping.NOTHING: "keep nothing",
            Keeping.WINDOW: f"keep only {' or '.join(f'{window:,}' for window in self.windows)} tokens",
            Keeping.LATENT: f"keep one latent of {width:,} numbers a token for all heads",
            Keeping.FULL: f"keep {width:,} numbers a token",
        }[self.keeping]

    @property
    def borrows(self) -> bool:
        """Whether it reads what another layer keeps."""
        return False

    @property
    def looks_ahead(self) -> bool:
        """Whether a token also sees those after it."""
        return False

    @property
    def usual_heads(self) -> tuple[Expr, Expr] | None:
        """Heads and their width, as the usual formula 2 L H d reads a config: None for a recurrence, which has none."""
        return None

    @property
    def windows(self) -> tuple[int, ...]:
        """Tokens after which part of what it keeps stops growing, in order."""
        letters = {kept.reach for kept in self.kept()} & self.binding().keys()
        return tuple(sorted(int(self.binding()[letter]) for letter in letters))


class FeedForward(Block):
    """Works on each token alone; keeps nothing, but for a token it may look back on."""


@cache
def letters_of(block: type[Block]) -> dict[str, Symbol]:
    """The letter each field binds: `{"num_attention_heads": n_h, ...}`."""
    return {name: letter for name, field in block.model_fields.items() for letter in field.metadata if isinstance(letter, Symbol)}


@cache
def ops_of(block: Block, forward: Pass) -> tuple[Op, ...]:
    """A block's rows, derived once: equal blocks share them."""
    return tuple(block.ops(forward))
