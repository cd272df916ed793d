"""Pictures of a comparison as inline SVG: no library, no script, colours from the page's theme.

A page that shows them includes `CSS`, which defines the colours for light and dark; one with colours of
its own defines those variables itself and includes `SHAPES`. Every text is escaped here.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptclf.evaluation.metrics import ReliabilityBin

_LIGHT = """
--page: #f8fafc; --card: #ffffff; --line: #e2e8f0; --ink: #0f172a; --muted: #64748b; --faint: #f1f5f9;
--accent: #4f46e5; --on-accent: #ffffff; --wrong: #e11d48; --on-wrong: #ffffff;
--good: #047857; --open: #b45309;
"""
_DARK = """
--page: #0b1020; --card: #131a2e; --line: #2a3450; --ink: #e2e8f0; --muted: #94a3b8; --faint: #1a2238;
--accent: #818cf8; --on-accent: #0b1020; --wrong: #fb7185; --on-wrong: #0b1020;
--good: #34d399; --open: #fbbf24;
"""
SHAPES = """
svg.chart { display: block; font: 11px system-ui, sans-serif; }
svg.fit { width: 100%; min-width: 460px; max-width: 860px; height: auto; }
svg.chart text { fill: var(--ink); }
svg.chart .muted { fill: var(--muted); }
svg.chart .grid { stroke: var(--line); }
svg.chart .zero { stroke: var(--muted); }
svg.chart .ideal { stroke: var(--muted); stroke-dasharray: 4 4; }
svg.chart .point { stroke: var(--accent); stroke-width: 2; }
svg.chart .whisker { stroke: var(--accent); stroke-width: 2; }
svg.chart .curve { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round; }
svg.chart .right { fill: var(--accent); }
svg.chart .wrong { fill: var(--wrong); }
svg.chart text.on-right { fill: var(--on-accent); }
svg.chart text.on-wrong { fill: var(--on-wrong); }
"""
CSS = (
    f":root {{ color-scheme: light dark; {_LIGHT} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}\n{SHAPES}"
)


#: What stands in the pictures; a page in another language passes its own words.
WORDS: Mapping[str, str] = {
    "confusion": "Confusion matrix",
    "reliability": "Reliability diagram",
    "cost": "Accuracy against cost",
    "confidence": "confidence",
    "accuracy": "accuracy",
    "accuracy_axis": "accuracy %",
    "cost_axis": "seconds for 1,000 texts",
    "rows_axis": "rows",
    "one_row": "1 row",
    "rows": "{count} rows",
    "right": "{true}: {rows} ({share}) right",
    "wrong": "{true}: {rows} ({share}) taken for {predicted}",
    "bin": "confidence {lower} to {upper}: {rows}, sure {confidence}, right {accuracy}",
    "point": "{name}: {accuracy}, {cost} s for 1,000 texts",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A classifier in the picture of accuracy against cost (seconds for 1,000 texts)."""

    name: str
    cost: float
    accuracy: float
    interval: tuple[float, float]
    variant: bool = False


def confusion_chart(
    confusion: Sequence[Sequence[int]],
    labels: Sequence[str],
    title: str = "",
    words: Mapping[str, str] = WORDS,
) -> str:
    """A heat map, true labels down and predicted ones across; shade is the share of the true label.

    Right answers and mistakes have colours of their own. Counts stand in the cells where there is
    room, and in the tooltip of each cell always. Usable with 2 to a few hundred labels.
    """
    size = 40 if len(labels) <= 8 else 32 if len(labels) <= 14 else 22 if len(labels) <= 30 else 12
    names = [_short(label, 22 if size >= 22 else 26) for label in labels]
    font = 11 if size >= 22 else 9
    margin = max(40.0, max(map(_text_width, names)) * font / 11 + 10)
    side = size * len(labels)
    # Leaning names are easier to read, but need room after the last column and between the lines.
    lean = -45 if size >= 22 else -90
    top, after = (margin * 0.72 + 8, margin * 0.72) if lean == -45 else (margin, 0)
    shapes = [_rect(margin, top, side, side, 'fill="var(--faint)" rx="3"')]
    for i, (row, name) in enumerate(zip(confusion, names, strict=True)):
        y, x = top + i * size, margin + i * size
        shapes += [
            _text(margin - 6, y + size / 2, name, 'text-anchor="end" dominant-baseline="central"', labels[i]),
            _text(
                0,
                0,
                name,
                f'dominant-baseline="central" {_turned(x + size / 2, top - 6, lean)}',
                labels[i],
            ),
        ]
        total = sum(row)
        for j, count in enumerate(row):
            if count:
                about = _about(count, count / total, labels[i], labels[j], words)
                shapes.append(_cell(margin + j * size, y, size, count, count / total, i == j, about))
    return _svg(margin + side + after + 4, top + side + 4, shapes, title or words["confusion"], font)


def reliability_chart(
    bins: Sequence[ReliabilityBin], ece: float, title: str = "", words: Mapping[str, str] = WORDS
) -> str:
    """Accuracy against confidence, the gap between them in colour, and how many rows each bin has."""
    left, top, side, low = 40, 24, 220, 48
    step = side / len(bins)
    most = max((b.count for b in bins), default=0) or 1
    base = top + side
    foot = base + 34 + low
    shapes = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y, x = base - tick * side, left + tick * side
        shapes += [
            f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y:.1f}" y2="{y:.1f}"/>',
            _text(left - 6, y, f"{tick:g}", 'class="muted" text-anchor="end" dominant-baseline="central"'),
            _text(x, base + 14, f"{tick:g}", 'class="muted" text-anchor="middle"'),
        ]
    for i, b in enumerate(bins):
        if not b.count:
            continue
        x, bar = left + i * step + 1, step - 2
        about = words["bin"].format(
            lower=f"{b.lower:.2f}",
            upper=f"{b.upper:.2f}",
            rows=_rows(b.count, words),
            confidence=f"{b.confidence:.1%}",
            accuracy=f"{b.accuracy:.1%}",
        )
        high, floor = max(b.accuracy, b.confidence), min(b.accuracy, b.confidence)
        tall = low * b.count / most
        shapes += [
            f"<g><title>{escape(about)}</title>",
            _rect(x, base - floor * side, bar, floor * side, 'class="right" fill-opacity="0.7"'),
            _rect(x, base - high * side, bar, (high - floor) * side, 'class="wrong" fill-opacity="0.35"'),
            _rect(x, base - b.accuracy * side - 1, bar, 2, 'class="right"'),
            _rect(x, foot - tall, bar, tall, 'class="muted" fill-opacity="0.7"'),
            "</g>",
        ]
    shapes += [
        f'<line class="ideal" x1="{left}" y1="{base}" x2="{left + side}" y2="{top}"/>',
        f'<line class="grid" x1="{left}" x2="{left + side}" y1="{foot}" y2="{foot}"/>',
        _text(left, top - 12, f"ECE {ece:.3f}", 'font-weight="600"'),
        _text(left - 6, foot - low + 4, f"{most:,}", 'class="muted" text-anchor="end"'),
        _text(left - 6, foot, words["rows_axis"], 'class="muted" text-anchor="end"'),
        _text(left + side / 2, foot + 16, words["confidence"], 'class="muted" text-anchor="middle"'),
        _text(
            0,
            0,
            words["accuracy"],
            f'class="muted" text-anchor="middle" {_turned(9, top + side / 2, -90)}',
        ),
    ]
    return _svg(left + side + 14, foot + 24, shapes, title or words["reliability"])


def cost_chart(points: Sequence[Point], words: Mapping[str, str] = WORDS, *, width: float = 640.0) -> str:
    """Accuracy with its interval against seconds for 1,000 texts, on a logarithmic axis of `width`."""
    left, top, height = 48.0, 14.0, 270.0
    exponents = [math.log10(max(p.cost, 1e-6)) for p in points]
    heights = [p.accuracy for p in points]
    first, last = math.floor(min(exponents) - 0.15), math.ceil(max(exponents) + 0.15)
    floor = max(0.0, math.floor((min(p.interval[0] for p in points) - 0.02) * 20) / 20)
    roof = min(1.0, math.ceil((max(p.interval[1] for p in points) + 0.02) * 20) / 20)

    def at(exponent: float, accuracy: float) -> tuple[float, float]:
        return (
            left + width * (exponent - first) / (last - first),
            top + height * (roof - accuracy) / (roof - floor),
        )

    shapes = []
    for power in range(first, last + 1):
        x, y = at(power, floor)
        shapes += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y:.1f}"/>',
            _text(x, y + 16, f"{10.0**power:,.10g}", 'class="muted" text-anchor="middle"'),
        ]
    for tick in _ticks(floor, roof):
        x, y = at(first, tick)
        shapes += [
            f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>',
            _text(
                x - 8, y, f"{100 * tick:.0f}", 'class="muted" text-anchor="end" dominant-baseline="central"'
            ),
        ]
    # Start, height and end of what is written and drawn: names go round both.
    taken = [(x - 6, y, x + 6) for x, y in (at(*place) for place in zip(exponents, heights, strict=True))]
    for point, exponent in sorted(zip(points, exponents, strict=True), key=lambda pair: -pair[0].accuracy):
        x, y = at(exponent, point.accuracy)
        (_, upper), (_, lower) = at(exponent, point.interval[1]), at(exponent, point.interval[0])
        about = words["point"].format(
            name=point.name, accuracy=f"{point.accuracy:.1%}", cost=f"{point.cost:.3g}"
        )
        inside = "var(--card)" if point.variant else "var(--accent)"
        shapes.append(
            f"<g><title>{escape(about)}</title>"
            f'<path class="whisker" stroke-opacity="0.45" d="M{x:.1f} {upper:.1f}V{lower:.1f}"/>'
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{inside}"/></g>'
        )
        name = _short(point.name, 34)
        long = _text_width(name)
        flip = x + 12 + long > left + width  # no room on the right
        start = x - 12 - long if flip else x + 12
        for _, height_taken, _ in sorted(
            (entry for entry in taken if entry[0] < start + long and start < entry[2]), key=lambda e: e[1]
        ):
            if abs(height_taken - y) < 14:  # below what is written there already
                y = height_taken + 14
        taken.append((start, y, start + long))
        shapes.append(_text(start, y, name, 'dominant-baseline="central" font-size="12"', point.name))
    shapes += [
        _text(
            left + width / 2,
            top + height + 34,
            words["cost_axis"],
            'class="muted" text-anchor="middle"',
        ),
        _text(
            0,
            0,
            words["accuracy_axis"],
            f'class="muted" text-anchor="middle" {_turned(11, top + height / 2, -90)}',
        ),
    ]
    return _svg(left + width + 16, top + height + 42, shapes, words["cost"], fit=True)


def interval_chart(
    value: float, interval: tuple[float, float], scale: tuple[float, float], *, zero: bool = False
) -> str:
    """A dot with its interval on a common scale, one line high; `zero` marks where nothing differs."""
    width, height, pad = 150, 16, 6

    def at(x: float) -> float:
        return pad + (width - 2 * pad) * (x - scale[0]) / ((scale[1] - scale[0]) or 1)

    low, high = interval
    shapes = [
        f'<line class="grid" x1="{pad}" x2="{width - pad}" y1="8" y2="8"/>',
        f'<line class="whisker" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>',
        f'<circle cx="{at(value):.1f}" cy="8" r="4" class="right"/>',
    ]
    if zero:
        shapes.insert(1, f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="1" y2="15"/>')
    return _svg(width, height, shapes, f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]")


def curve_chart(
    points: Sequence[tuple[float, float]],
    last: float,
    roof: float,
    title: str,
    *,
    percent: bool = False,
    dots: bool = False,
) -> str:
    """A value over the steps of training, from 0 to `roof`.

    The horizontal axis goes from 0 to `last` from the first picture on, so that nothing moves as the
    line grows. `dots` marks each point, for a few values far apart.
    """
    left, top, width, height = 36.0, 26.0, 300.0, 130.0
    base = top + height

    def at(step: float, value: float) -> tuple[float, float]:
        share = min(1.0, max(0.0, value / (roof or 1)))
        return left + width * step / (last or 1), base - height * share

    shapes = [_text(0, 11, title, 'font-weight="600"')]
    for part in (0, 0.25, 0.5, 0.75, 1):
        y, value = base - height * part, part * roof
        shapes += [
            f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>',
            _text(
                left - 6,
                y,
                f"{100 * value:.0f}" if percent else f"{value:.3g}",
                'class="muted" text-anchor="end" dominant-baseline="central"',
            ),
        ]
    for step in sorted({0, round(last / 2), round(last)}):
        x, _ = at(step, 0)
        shapes.append(_text(x, base + 16, f"{step:,}", 'class="muted" text-anchor="middle"'))
    places = [at(*point) for point in points]
    if len(places) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        shapes.append(f'<path class="curve" d="M{path}"/>')
    if dots or len(places) == 1:
        shapes += [f'<circle class="right" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
    return _svg(left + width + 14, base + 24, shapes, title)


def escape(text: str) -> str:
    """`text` for HTML content and attributes."""
    return html.escape(text, quote=True)


def _about(count: int, share: float, true: str, predicted: str, words: Mapping[str, str]) -> str:
    text = words["right" if true == predicted else "wrong"]
    return text.format(true=true, predicted=predicted, rows=_rows(count, words), share=f"{share:.0%}")


def _cell(x: float, y: float, size: int, count: int, share: float, right: bool, about: str) -> str:
    kind = "right" if right else "wrong"
    # The square root lets one row in fifty still be seen.
    opacity = 0.12 + 0.88 * math.sqrt(share)
    gap = 1 if size > 12 else 0.5
    shapes = _rect(
        x + gap,
        y + gap,
        size - 2 * gap,
        size - 2 * gap,
        f'class="{kind}" fill-opacity="{opacity:.2f}" rx="2"',
    )
    if size >= 22 and len(str(count)) * 6.5 < size:
        ink = f' class="on-{kind}"' if opacity > 0.6 else ""
        shapes += _text(
            x + size / 2, y + size / 2, str(count), f'text-anchor="middle" dominant-baseline="central"{ink}'
        )
    return f"<g><title>{escape(about)}</title>{shapes}</g>"


def _ticks(low: float, high: float) -> list[float]:
    step = 0.05 if high - low <= 0.45 else 0.1
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _rows(count: int, words: Mapping[str, str]) -> str:
    return words["one_row"] if count == 1 else words["rows"].format(count=f"{count:,}")


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def _text_width(text: str) -> float:
    """About how many pixels a text takes at 11 px."""
    return sum(11.5 if unicodedata.east_asian_width(char) in "WF" else 6.6 for char in text)


def _turned(x: float, y: float, degrees: int) -> str:
    return f'transform="translate({x:.1f} {y:.1f}) rotate({degrees})"'


def _rect(x: float, y: float, width: float, height: float, attributes: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {attributes}/>'


def _text(x: float, y: float, text: str, attributes: str, tooltip: str = "") -> str:
    note = f"<title>{escape(tooltip)}</title>" if tooltip not in ("", text) else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{note}{escape(text)}</text>'


def _svg(
    width: float, height: float, shapes: Iterable[str], title: str, font: int = 11, *, fit: bool = False
) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    kind = f'class="chart{" fit" if fit else ""}" style="font-size: {font}px"'
    return f'<svg {kind} {size} role="img" aria-label="{escape(title)}">{"".join(shapes)}</svg>'
