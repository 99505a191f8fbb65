"""Rate and lag over time as SVG: a row for each run, drawn here so that it needs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchmarks.replay_mri.gauges import Sample
from benchmarks.replay_mri.replay import Outcome

_WIDTH, _ROW, _LEFT, _GAP, _TOP = 960, 210, 60, 70, 46
_PANEL: Final = (_WIDTH - 2 * _LEFT - _GAP) // 2
_HEIGHT: Final = 120
_SMOOTH: Final = 5
Points = Sequence[tuple[float, float]]
_ACKNOWLEDGED, _COMMITTED, _WAITING = "#c2410c", "#1d4ed8", "#475569"


def draw(runs: Mapping[str, Outcome]) -> str:
    """One picture of all runs."""
    height = _TOP + _ROW * len(runs)
    rows = "".join(_row(name, run, _TOP + number * _ROW) for number, (name, run) in enumerate(runs.items()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{_legend()}{rows}</svg>\n"
    )


def _legend() -> str:
    names = (("acknowledged", _ACKNOWLEDGED), ("committed", _COMMITTED), ("waiting", _WAITING))
    return "".join(
        f'<rect x="{_LEFT + 130 * number}" y="14" width="12" height="12" fill="{colour}"/>'
        f'<text x="{_LEFT + 18 + 130 * number}" y="24">{name}</text>'
        for number, (name, colour) in enumerate(names)
    )


def _row(name: str, run: Outcome, top: float) -> str:
    samples = [sample for sample in run.samples if sample.at_s >= 0]
    end_s = max((sample.at_s for sample in samples), default=1.0)
    rates = {
        _ACKNOWLEDGED: _rates(samples, [sample.acknowledged for sample in samples]),
        _COMMITTED: _rates(samples, [sample.committed for sample in samples]),
    }
    waiting = {_WAITING: [(sample.at_s, float(sample.waiting)) for sample in samples]}
    heading = f'<text x="{_LEFT}" y="{top + 12}" font-weight="bold">{escape(name)}</text>'
    left = _panel("instances/s", rates, _LEFT, top + 36, end_s, run.seconds)
    right = _panel("messages waiting", waiting, _LEFT + _PANEL + _GAP, top + 36, end_s, run.seconds)
    return heading + left + right


def _rates(samples: Sequence[Sample], totals: Sequence[int]) -> Points:
    """Over the last `_SMOOTH` samples: commits come in batches."""
    points = []
    for later in range(1, len(samples)):
        sooner = max(0, later - _SMOOTH)
        span_s = samples[later].at_s - samples[sooner].at_s
        if span_s > 0:
            points.append((samples[later].at_s, (totals[later] - totals[sooner]) / span_s))
    return points


def _panel(what: str, lines: Mapping[str, Points], left: float, top: float, end_s: float, window_s: float) -> str:
    highest = max((value for points in lines.values() for _, value in points), default=0.0) or 1.0
    right, bottom = left + _PANEL, top + _HEIGHT
    edge = left + _PANEL * min(1.0, window_s / end_s)
    parts = [
        f'<rect x="{left}" y="{top}" width="{edge - left:.1f}" height="{_HEIGHT}" fill="#f1f5f9"/>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#94a3b8"/>',
        f'<text x="{left - 6}" y="{top + 4}" text-anchor="end">{highest:,.0f}</text>',
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{left}" y="{bottom + 16}">0 s</text>',
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{end_s:.0f} s</text>',
        f'<text x="{left + 6}" y="{top - 6}" fill="#475569">{what}</text>',
    ]
    for colour, points in lines.items():
        path = " ".join(
            f"{left + _PANEL * at_s / end_s:.1f},{bottom - _HEIGHT * value / highest:.1f}" for at_s, value in points
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(parts)
