"""The picture of `benchmarks.insert_cost`: milliseconds of a batch over instances in the catalog, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 190, 20, 44
_COLOURS: Final = {
    ("sqlite", "device"): "#1f77b4",
    ("sqlite", "random"): "#7fb2dd",
    ("postgres", "device"): "#c2410c",
    ("postgres", "random"): "#f0a06a",
}


def draw(costs: Sequence[Mapping[str, Any]]) -> str:
    """A line for each catalog and kind of UIDs: medians, with bars from the tenth to the ninetieth percentile."""
    rows = [math.log10(cost["rows"]) for cost in costs]
    low, high = min(rows), max(max(rows), min(rows) + 1)
    top = max(cost["batch_ms_p90"] for cost in costs) * 1.1

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return float(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM))

    parts = [*_axes(sorted({cost["rows"] for cost in costs}), top, x, y)]
    for place, (name, colour) in enumerate(_COLOURS.items()):
        line = [cost for cost in costs if (cost["catalog"], cost["uids"]) == name]
        if not line:
            continue
        points = " ".join(f"{x(one['rows']):.1f},{y(one['batch_ms_median']):.1f}" for one in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for one in line:
            at = x(one["rows"])
            parts.append(
                f'<path d="M{at:.1f} {y(one["batch_ms_p10"]):.1f}V{y(one["batch_ms_p90"]):.1f}" stroke="{colour}"/>'
                f'<circle cx="{at:.1f}" cy="{y(one["batch_ms_median"]):.1f}" r="3" fill="{colour}"/>'
            )
        label_y = _TOP + 12 + 18 * place
        parts.append(f'<text x="{_WIDTH - _RIGHT + 16}" y="{label_y}" fill="{colour}">{name[0]}, {name[1]} UIDs</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        f' font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _axes(rows: Sequence[int], top: float, x: Any, y: Any) -> list[str]:
    step = 10 ** math.floor(math.log10(top))
    step = step / 2 if top / step < 3 else step
    parts = [
        f'<text x="{_LEFT}" y="{_TOP - 6}" fill="#333">ms for a batch of 256</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}" fill="#333">instances in the catalog</text>',
    ]
    for count in range(int(top // step) + 1):
        at = y(count * step)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#333">{count * step:g}</text>')
    for value in rows:
        parts.append(
            f'<text x="{x(value):.1f}" y="{_HEIGHT - 24}" text-anchor="middle" fill="#333">{_short(value)}</text>'
        )
    return parts


def _short(value: int) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g} M"
    return f"{value / 1000:g} k" if value >= 1000 else str(value)
