"""Figures as SVG: a small writer of the plain dicts that `charts` makes, for files that no browser has to draw.

It knows lines, markers, bars, waterfalls and icicles on linear, logarithmic and named axes: what our figures have.
Texts are text: they are cleaned, cut and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape, unescape
from math import ceil, floor, log10
from typing import Any

from costmodel.figures.drawing import Figure
from costmodel.figures.palette import GREY
from costmodel.tables import clean

WIDTH, HEIGHT = 720, 340
LETTER = 6.9
"""Pixels that a letter takes, about."""
LINE = 15
"""Pixels from a line of text to the next."""
LONGEST = 96
"""Characters of a label; what is longer is cut."""
DASHES = {"solid": "", "dash": "9 6", "dot": "3 4", "dashdot": "10 4 3 4"}
SHAPES = {
    "diamond": "M0-1.3L1.3 0 0 1.3-1.3 0Z", "square": "M-1-1H1V1H-1Z", "triangle-up": "M0-1.2L1.1.9H-1.1Z",
    "cross": "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z", "x": "M-1-1L1 1M-1 1L1-1",
    "star": "M0-1.3L.4-.4 1.3-.3.6.3.8 1.2 0 .7-.8 1.2-.6.3-1.3-.3-.4-.4Z",
}  # fmt: skip
"""Markers of one pixel; every other one is a circle."""
DARK = "@media (prefers-color-scheme:dark){svg{color:#e6edf3}}"
"""How a figure in a file of its own looks on a dark page; within a page it takes the page's colour."""


def as_svg(figure: Figure, words: str, *, own_file: bool = True) -> str:
    """A figure as SVG, with `words` for those who do not see it.

    >>> "&lt;nothing&gt;" in as_svg({"data": [], "layout": {}}, "<nothing>")
    True
    """
    icicle = any(trace["type"] == "icicle" for trace in figure["data"])
    height, parts = _icicle(figure) if icicle else _plot(figure)
    style = f"<style>{DARK}</style>\n" if own_file and parts else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" color="#1f2328" font-size="12" '
        f'font-family="system-ui,sans-serif" role="img" aria-label="{escape(clean(words))}">\n{style}'
        + "\n".join(parts) + ("\n" if parts else "") + "</svg>\n"
    )  # fmt: skip


# axes


@dataclass(frozen=True)
class Axis:
    """From values to pixels: `low` at `start`, `high` at `end`; logarithmic, or through the places of names."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: tuple[str, ...] = ()

    def at(self, value: Any) -> float:
        """The pixel of a value; of 0 on a logarithmic axis, the lowest."""
        number = float(self.names.index(str(value))) if self.names else float(value)
        number = (log10(number) if number > 0 else self.low) if self.log else number
        return self.start + (number - self.low) / (self.high - self.low or 1.0) * (self.end - self.start)

    def between(self, share: float) -> float:
        """The pixel at a share of the axis."""
        return self.start + share * (self.end - self.start)


def _axis(layout: Figure, name: str, values: Sequence[Any]) -> Axis:
    """An axis that has room for values; its pixels come later."""
    told = layout.get(f"{name}axis", {})
    if any(isinstance(value, str) for value in values):
        names = tuple(dict.fromkeys(map(str, values)))
        return Axis(len(names) - 0.5, -0.5, 0, 1, names=names)
    log = told.get("type") == "log"
    numbers = [float(value) for value in values if value is not None and (value > 0 or not log)] or [1.0, 10.0]
    if log:
        numbers = [log10(number) for number in numbers]
    low, high = told.get("range") or (min(numbers), max(numbers))
    if "range" not in told:
        edge = (high - low) * 0.04 or 0.5
        low, high = low - (0 if told.get("rangemode") == "tozero" else edge), high + edge
        low = min(0.0, low) if told.get("rangemode") == "tozero" else low
    return Axis(low, high, 0, 1, log)


def _ticks(layout: Figure, name: str, axis: Axis) -> list[tuple[float, str]]:
    """Places and words of an axis, those in sight."""
    told = layout.get(f"{name}axis", {})
    if told.get("visible") is False or told.get("showticklabels") is False:
        return []
    if "tickvals" in told:
        every = list(zip(told["tickvals"], told["ticktext"], strict=True))
    elif axis.names:
        every = [(value, value) for value in axis.names]
    else:
        every = [(value, _number(value, told)) for value in _steps(axis)]
    places = [(axis.at(value), str(text)) for value, text in every]
    ends = sorted((axis.start, axis.end))
    return [(place, text) for place, text in places if ends[0] - 0.5 <= place <= ends[1] + 0.5]


def _steps(axis: Axis) -> list[float]:
    """Round numbers of a linear axis, five or so."""
    span = axis.high - axis.low
    size = 10.0 ** floor(log10(span / 5)) if span > 0 else 1.0
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 6)
    return [step * place for place in range(ceil(axis.low / step - 1e-9), floor(axis.high / step + 1e-9) + 1)]


def _number(value: float, told: Figure) -> str:
    text = format(value, told["tickformat"]) if "tickformat" in told else f"{value:,.6g}"
    return told.get("tickprefix", "") + text  # type: ignore[no-any-return]  # figures are untyped


# a plot


def _plot(figure: Figure) -> tuple[float, list[str]]:
    """Height and elements of a figure with axes."""
    layout, traces = figure["layout"], [_horizontal(trace) for trace in figure["data"]]
    if not traces:
        return 40, []
    x, y = (
        _axis(layout, name, [value for trace in traces for value in _extent(trace, name)] + _stacks(traces, name, layout))
        for name in "xy"
    )
    legend, below = _legend([trace for trace in traces if trace.get("showlegend", layout.get("showlegend", True))])
    ticks = [_lines(text) for _, text in _ticks(layout, "y", replace(y, start=0, end=1))]
    left = 14 + min(max((len(line) for lines in ticks for line in lines), default=0) * LETTER, 300)
    left += 18 if _title(layout, "y") and layout.get("yaxis", {}).get("visible", True) else 0
    right = WIDTH - max(16, layout.get("margin", {}).get("r", 0), _outside(traces))
    bottom = layout.get("height", HEIGHT) - (LINE * 2.5 if _title(layout, "x") else LINE * 1.5)
    if layout.get("yaxis", {}).get("visible") is False:
        bottom = 70.0
    x, y = replace(x, start=left, end=right), replace(y, start=bottom, end=14.0)
    parts = [*_grid(layout, x, y), *_shapes(layout, x, y)]
    for trace in traces:
        parts += _drawn(trace, traces, x, y, layout)
    parts += _notes(layout, x, y)
    end = bottom + (LINE * 2.9 if _title(layout, "x") else LINE * 1.7)
    return end + below, [*parts, *(_moved(item, end) for item in legend)]


def _horizontal(trace: Figure) -> Figure:
    """A waterfall as bars from where the one before ends."""
    if trace["type"] != "waterfall":
        return trace
    base, total, colours = [], 0.0, []
    for value, kind in zip(trace["x"], trace["measure"], strict=True):
        start = total if kind == "relative" else 0.0
        base.append(start)
        total = start + value
        drawn = "totals" if kind != "relative" else "increasing" if value > 0 else "decreasing"
        colours.append(trace[drawn]["marker"]["color"])
    return {**trace, "type": "bar", "base": base, "marker": {"color": colours}, "textposition": "outside"}


def _stacks(traces: Sequence[Figure], name: str, layout: Figure) -> list[float]:
    """Ends of bars that lie on each other."""
    if name == "y" or layout.get("barmode") != "stack" or any(trace.get("orientation") != "h" for trace in traces):
        return []
    return [sum(value or 0.0 for value in values) for values in zip(*(trace["x"] for trace in traces), strict=True)]


def _extent(trace: Figure, name: str) -> Iterable[Any]:
    """Values that an axis must have room for."""
    values = trace[name]
    if trace["type"] != "bar" or name != ("x" if trace.get("orientation") == "h" else "y"):
        return values if trace["type"] != "bar" or isinstance(values[0], str) else [values[0] - 0.5, values[-1] + 0.5]
    ends = [base + (value or 0.0) for base, value in zip(trace.get("base", [0.0] * len(values)), values, strict=True)]
    return [0.0, *ends]


def _outside(traces: Sequence[Figure]) -> float:
    """Room to the right for words behind bars."""
    words = [text for trace in traces if trace.get("textposition") == "outside" for text in trace.get("text", ())]
    return max((len(text) * LETTER + 12 for text in words), default=0.0)


def _drawn(trace: Figure, traces: Sequence[Figure], x: Axis, y: Axis, layout: Figure) -> Iterator[str]:
    if trace["type"] == "bar":
        yield from (_across if trace.get("orientation") == "h" else _cells)(trace, traces, x, y, layout)
        return
    points = [
        (x.at(across), y.at(up))
        for across, up in zip(trace["x"], trace["y"], strict=True)
        if across is not None and up is not None and (up > 0 or not y.log)
    ]
    mode, line = trace.get("mode", "lines"), trace.get("line", {})
    if "lines" in mode and points:
        told = "".join(f"{'L' if place else 'M'}{across:.1f} {up:.1f}" for place, (across, up) in enumerate(points))
        dash = _dash(line.get("dash", "solid"))
        yield f'<path d="{told}" fill="none" stroke="{line.get("color", GREY)}" stroke-width="{line.get("width", 2)}"{dash}/>'
    if "markers" in mode:
        yield from _markers(trace, points)
    if "text" in mode:
        yield from _labels(trace, points, x)


def _markers(trace: Figure, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    marker = trace.get("marker", {})
    for place, (across, up) in enumerate(points):
        drawn, symbol = (_each(marker.get(name), place, rest) for name, rest in (("color", GREY), ("symbol", "circle")))
        yield _mark(symbol, across, up, marker.get("size", 8) / 2, drawn)


def _each(value: Any, place: int, rest: str) -> str:
    """A point's own, or what holds for all."""
    return str(value[place] if isinstance(value, (list, tuple)) else value or rest)


def _mark(symbol: str, across: float, up: float, size: float, drawn: str) -> str:
    hollow = symbol.endswith("-open") or symbol == "x"
    paint = f'fill="none" stroke="{drawn}" stroke-width="1.5"' if hollow else f'fill="{drawn}"'
    if symbol.removesuffix("-open") in SHAPES:
        path = f'd="{SHAPES[symbol.removesuffix("-open")]}" transform="translate({across:.1f} {up:.1f}) scale({size:g})"'
        return f'<path {path} vector-effect="non-scaling-stroke" {paint}/>'
    return f'<circle cx="{across:.1f}" cy="{up:.1f}" r="{size:g}" {paint}/>'


def _labels(trace: Figure, points: Sequence[tuple[float, float]], x: Axis) -> Iterator[str]:
    for place, (across, up) in enumerate(points):
        words = trace.get("text", [""] * len(points))[place]
        where = _each(trace.get("textposition"), place, "top right")
        anchor = "end" if "left" in where or across > x.between(0.85) else "start" if "right" in where else "middle"
        yield _text(across, up + (LINE if "bottom" in where else -8), words, anchor) if words else ""


def _cells(trace: Figure, traces: Sequence[Figure], x: Axis, y: Axis, layout: Figure) -> Iterator[str]:
    """Bars that stand: neighbours of one series in one rectangle each."""
    wide = abs(x.at(1) - x.at(0)) * trace.get("width", 0.9)
    paint = f'fill="{_each(trace["marker"]["color"], 0, GREY)}"' + (' fill-opacity="0.5"' if _striped(trace) else "")
    for value, height in zip(trace["x"], trace["y"], strict=True):
        top = y.at(height)
        yield f'<rect x="{x.at(value) - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{y.at(0) - top:.1f}" {paint}/>'


def _striped(trace: Figure) -> bool:
    return bool(trace.get("marker", {}).get("pattern", {}).get("shape"))


def _across(trace: Figure, traces: Sequence[Figure], x: Axis, y: Axis, layout: Figure) -> Iterator[str]:
    """Bars that lie: stacked on those before, beside each other, or from a base of their own."""
    stacked, place = layout.get("barmode") == "stack", traces.index(trace)
    side = 1 if stacked or len(traces) == 1 else len(traces)
    high = abs(y.at(y.names[0]) - y.at(y.names[1]) if len(y.names) > 1 else 40) * 0.7 / side
    for row, (name, value) in enumerate(zip(trace["y"], trace["x"], strict=True)):
        before = sum(other["x"][row] or 0.0 for other in traces[:place]) if stacked else trace.get("base", [0.0] * (row + 1))[row]
        start, end = sorted((x.at(before), x.at(before + (value or 0.0))))
        top = y.at(name) - high * side / 2 + (0 if side == 1 else high * place)
        paint = f'fill="{_each(trace["marker"]["color"], row, GREY)}"' + (' fill-opacity="0.6"' if _striped(trace) else "")
        yield f'<rect x="{start:.1f}" y="{top:.1f}" width="{max(end - start, 0.5):.1f}" height="{high:.1f}" {paint}/>'
        if trace.get("text"):
            left = (value or 0.0) < 0 and not trace.get("base")
            yield _text(start - 4 if left else end + 4, top + high / 2 + 4, trace["text"][row], "end" if left else "start")


def _grid(layout: Figure, x: Axis, y: Axis) -> Iterator[str]:
    last = -1e9
    for place, words in _ticks(layout, "x", x):
        yield _rule(place, place, y.start, y.end)
        lines = _lines(words)
        wide = max(map(len, lines)) * LETTER
        if place - wide / 2 > last:
            yield _text(place, y.start + LINE, words, "middle")
            last = place + wide / 2 + 4
    for place, words in _ticks(layout, "y", y):
        yield "" if y.names else _rule(x.start, x.end, place, place)
        yield _text(x.start - 6, place + 4 - (len(_lines(words)) - 1) * LINE / 2, words, "end")
    if _title(layout, "x"):
        yield _text(x.between(0.5), y.start + LINE * 2.2, _title(layout, "x"), "middle")
    if _title(layout, "y") and layout["yaxis"].get("visible", True):
        middle = y.between(0.5)
        turned = f'transform="rotate(-90 14 {middle:.1f})"'
        yield _text(14, middle, _title(layout, "y"), "middle", turned)


def _title(layout: Figure, name: str) -> str:
    return str(layout.get(f"{name}axis", {}).get("title", {}).get("text", ""))


def _rule(x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="currentColor" stroke-opacity="0.15"/>'


def _shapes(layout: Figure, x: Axis, y: Axis) -> Iterator[str]:
    """Levels and shaded areas."""
    for shape in layout.get("shapes", ()):
        places = []
        for axis, name in ((x, "x"), (y, "y")):
            of = axis.between if shape.get(f"{name}ref") == "paper" else axis.at
            ends = sorted((axis.start, axis.end))
            places += [min(max(of(shape[f"{name}{end}"]), ends[0]), ends[1]) for end in (0, 1)]
        x0, x1, y0, y1 = places
        if shape["type"] == "rect":
            box = f'x="{min(x0, x1):.1f}" y="{min(y0, y1):.1f}" width="{abs(x1 - x0):.1f}" height="{abs(y1 - y0):.1f}"'
            yield f'<rect {box} fill="{shape["fillcolor"]}" fill-opacity="{shape["opacity"]}"/>'
        else:
            line = shape["line"]
            dash = _dash(line.get("dash", "solid"))
            yield f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{line["color"]}" stroke-width="{line["width"]}"{dash}/>'


def _notes(layout: Figure, x: Axis, y: Axis) -> Iterator[str]:
    """Words at places; those on a logarithmic axis are exponents, as plotly has them."""
    for note in layout.get("annotations", ()):
        across, up = (
            axis.between(note[name]) if note.get(f"{name}ref") == "paper" else axis.at(10 ** note[name] if axis.log else note[name])
            for axis, name in ((x, "x"), (y, "y"))
        )
        drawn = f'fill="{note["font"]["color"]}"' if "font" in note else ""
        lines = _lines(note["text"])
        lift = {"top": 12.0, "bottom": -4.0}.get(note.get("yanchor", "middle"), 4 - (len(lines) - 1) * LINE / 2)
        yield _text(across + 6, up + lift, note["text"], "start", drawn)


def _legend(traces: Sequence[Figure]) -> tuple[list[tuple[float, float, str]], float]:
    """Keys and words in rows, and the height that they take."""
    items: list[tuple[float, float, str]] = []
    across, down = 14.0, 8.0
    named = [trace for trace in traces if trace.get("name")]
    for trace in named if len(named) > 1 else ():
        words = _cut(_lines(trace["name"])[0], 100)
        wide = 30 + len(words) * LETTER + 14
        if across + wide > WIDTH and across > 14:
            across, down = 14.0, down + LINE + 3
        items.append((across, down, _key(trace) + _text(30, 4, words)))
        across += wide
    return items, (down + LINE if items else 4.0)


def _key(trace: Figure) -> str:
    line, marker = trace.get("line", {}), trace.get("marker", {})
    if trace["type"] == "bar":
        faint = ' fill-opacity="0.5"' if _striped(trace) else ""
        return f'<rect x="4" y="-6" width="18" height="12" fill="{_each(marker.get("color"), 0, GREY)}"{faint}/>'
    mode = trace.get("mode", "lines")
    drawn = _each(line.get("color"), 0, GREY)
    key = f'<path d="M0 0H24" stroke="{drawn}" stroke-width="2.5"{_dash(line.get("dash", "solid"))}/>' if "lines" in mode else ""
    if "markers" in mode:
        key += _mark(_each(marker.get("symbol"), 0, "circle"), 12, 0, 4, _each(marker.get("color"), 0, GREY))
    return key


def _dash(name: str) -> str:
    return f' stroke-dasharray="{DASHES[name]}"' if DASHES.get(name) else ""


def _moved(item: tuple[float, float, str], down: float) -> str:
    return f'<g transform="translate({item[0]:.1f} {item[1] + down:.1f})">{item[2]}</g>'


# an icicle


def _icicle(figure: Figure) -> tuple[float, list[str]]:
    """Parts within parts, from the whole at the top: a rectangle's width is its share."""
    trace = next(trace for trace in figure["data"] if trace["type"] == "icicle")
    values = dict(zip(trace["ids"], trace["values"], strict=True))
    whole = values[trace["ids"][0]] or 1
    row, starts = 44.0, {trace["ids"][0]: 0.0}
    parts: list[str] = []
    ends: dict[str, float] = {}
    for place, path in enumerate(trace["ids"]):
        parent = trace["parents"][place]
        start = ends.get(parent, starts.get(parent, 0.0)) if parent else 0.0
        share = values[path] / whole
        starts[path], ends[parent] = start, start + share
        parts += _cell(trace, place, start * WIDTH, share * WIDTH, path.count("/") * row, row)
    return row * (1 + max(path.count("/") for path in values)), parts


def _cell(trace: Figure, place: int, left: float, wide: float, top: float, high: float) -> Iterator[str]:
    """One part, with as much of its words as it has room for."""
    if wide < 0.5:
        return
    drawn = trace["marker"]["colors"][place]
    box = f'x="{left:.1f}" y="{top:.1f}" width="{max(wide - 1, 0.5):.1f}" height="{high - 1:.1f}"'
    yield f'<rect {box} fill="{drawn}"><title>{_safe(trace["ids"][place])}: {_safe(trace["text"][place])}</title></rect>'
    room = int((wide - 8) / LETTER)
    for down, words in ((17, trace["labels"][place]), (33, trace["text"][place])):
        if room >= 4:
            yield _text(left + 4, top + down, _cut(words, room), "start", 'fill="#ffffff"')


# texts


def _lines(text: str) -> list[str]:
    """The lines of a figure's text, as plotly would show them."""
    return [_cut(unescape(line)) for line in str(text).split("<br>")]


def _cut(text: str, most: int = LONGEST) -> str:
    text = clean(text[: 4 * most])
    return text if len(text) <= most else text[: most - 1] + "…"


def _safe(text: str) -> str:
    return escape(_cut(unescape(text), 200))


def _text(x: float, y: float, words: str, anchor: str = "start", own: str = 'fill="currentColor"') -> str:
    """Words at a place, one line below the other."""
    own = own if "fill" in own else f'fill="currentColor" {own}'
    told = "".join(
        f'<tspan x="{x:.1f}"{f" dy={chr(34)}{LINE}{chr(34)}" if place else ""}>{escape(line)}</tspan>'
        for place, line in enumerate(_lines(words))
    )
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {own}>{told}</text>'
