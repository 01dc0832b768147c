"""A formula as MathML, which browsers draw without a script: sympy's printer, with cases and grouped digits.

The same tree as plain lists is what paper is set from.
"""

from __future__ import annotations

from typing import Any

from sympy import Expr, S
from sympy.printing.mathml import MathMLPresentationPrinter

INVISIBLE_TIMES = "\u2062"


class _Printer(MathMLPresentationPrinter):  # type: ignore[misc]  # sympy is untyped
    """sympy has no cases in presentation MathML, and prints numbers of eleven digits without a break."""

    def _print_Piecewise(self, expr: Any) -> Any:  # noqa: N802 - sympy calls it by the class
        rows = self.dom.createElement("mtable")
        for value, condition in expr.args:
            row = self.dom.createElement("mtr")
            for cell in (self._print(value), self._word("otherwise") if condition is S.true else self._print(condition)):
                held = self.dom.createElement("mtd")
                held.appendChild(cell)
                row.appendChild(held)
            rows.appendChild(row)
        cases = self.dom.createElement("mrow")
        brace = self.dom.createElement("mo")
        brace.appendChild(self.dom.createTextNode("{"))
        cases.appendChild(brace)
        cases.appendChild(rows)
        return cases

    def _print_Integer(self, expr: Any) -> Any:  # noqa: N802
        number = self.dom.createElement("mn")
        number.appendChild(self.dom.createTextNode(f"{int(expr):,}"))
        return number

    def _print_int(self, number: int) -> Any:
        return self._print_Integer(number)

    _print_One = _print_Zero = _print_NegativeOne = _print_Integer  # noqa: N815

    def _word(self, text: str) -> Any:
        word = self.dom.createElement("mtext")
        word.appendChild(self.dom.createTextNode(text))
        return word


def as_mathml(expr: Expr) -> str:
    """An expression as a block of MathML.

    >>> from costmodel.symbols import S
    >>> as_mathml(3 * S + 4_096)
    '<math display="block"><mrow><mrow><mn>3</mn><mo>&#8290;</mo><mi>S</mi></mrow><mo>+</mo><mn>4,096</mn></mrow></math>'
    """
    drawn = _drawn(expr).toxml().replace(INVISIBLE_TIMES, "&#8290;").replace("<mo>-</mo>", "<mo>&#8722;</mo>")
    return f'<math display="block">{drawn}</math>'


def as_tree(expr: Expr) -> list[Any]:
    """An expression as MathML in nested lists: an element's name, and its text or its elements.

    >>> from costmodel.symbols import S
    >>> as_tree(S**2)
    ['msup', [['mi', 'S'], ['mn', '2']]]
    """
    return _tree(_drawn(expr))


def _drawn(expr: Expr) -> Any:
    return _Printer({"mul_symbol": INVISIBLE_TIMES})._print(expr)


def _tree(node: Any) -> list[Any]:
    inner = node.childNodes
    return [node.tagName, inner[0].data if inner[0].nodeType == inner[0].TEXT_NODE else [_tree(each) for each in inner]]
