"""The path of an incident as SVG: time to the right, and each task that helped moves it down.

Pure. Two spans above it show the times to acknowledge and to recover, measured from detection.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from html import escape

from app.incidents.history.path import Path, Point

WIDTH, HEIGHT = 800, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 780, 70, 230


def svg(title: str, path: Path) -> str:
    return "".join(_parts(title, path))


def _parts(title: str, path: Path) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    yield f'font-family="sans-serif" font-size="11"><title>{escape(title)}</title>'
    for number, (label, until) in enumerate((("acknowledged", "acknowledged_at"), ("recovered", "resolved_at"))):
        yield from _span(path, label, until, 20 + 22 * number)
    levels = sorted({point.level for point in path.points} | {0})
    for level in {levels[0], 0, levels[-1]}:
        y = _y(path, level)
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{_RIGHT}" y2="{y}" stroke="#ccc"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{f"{level:+d}" if level else 0}</text>'
    yield f'<path d="{_steps(path)}" fill="none" stroke="#1d4ed8" stroke-width="2"/>'
    for step in path.steps:
        x, y = _x(path, step.task.takes_effect_at), _y(path, step.level)
        yield f'<circle cx="{x}" cy="{y}" r="4" fill="#1d4ed8"><title>{escape(step.task.text[:200])}</title></circle>'
    for point, anchor in ((path.points[0], "start"), (path.points[-1], "end")):
        yield f'<text x="{_x(path, point.at)}" y="{HEIGHT - 8}" text-anchor="{anchor}">{point.at:%Y-%m-%d %H:%M}</text>'
    yield "</svg>"


def _span(path: Path, label: str, until: str, y: int) -> Iterator[str]:
    begin, end = path.marks["detected_at"], path.marks[until]
    if begin is None or end is None or end < begin:
        return
    x1, x2 = _x(path, begin), _x(path, end)
    yield f'<line x1="{x1}" y1="{y}" x2="{x2}" y2="{y}" stroke="#555"/>'
    yield f'<text x="{x1}" y="{y - 4}">{label} after {timedelta(seconds=round((end - begin).total_seconds()))}</text>'


def _steps(path: Path) -> str:
    """The level stays until a task takes effect."""
    first, *others = path.points
    drawn = (f"H {_x(path, point.at)} V {_y(path, point.level)}" for point in others)
    return " ".join([f"M {_x(path, first.at)} {_y(path, first.level)}", *drawn])


def _x(path: Path, at: datetime) -> float:
    begin, end = path.points[0].at, _last(path).at
    share = (at - begin) / (end - begin) if end > begin else 0.0
    return round(_LEFT + min(max(share, 0.0), 1.0) * (_RIGHT - _LEFT), 1)


def _last(path: Path) -> Point:
    return max(path.points, key=lambda point: point.at)


def _y(path: Path, level: int) -> float:
    levels = [point.level for point in path.points] + [0]
    low, high = min(levels), max(levels)
    share = (high - level) / (high - low) if high > low else 0.5
    return round(_TOP + share * (_BOTTOM - _TOP - 10), 1)
