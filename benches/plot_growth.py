#!/usr/bin/env python3
"""Draws what growth.rs prints (axis, value, seconds, peak_mib) as an SVG: python3 plot_growth.py growth.tsv docs/growth.svg [TITLE].

Time above (both scales logarithmic), memory below (from zero), a column an axis; nothing but Python's own library is needed.
"""

import csv
import html
import math
import sys

AXES = {"size": "side of the picture, pixels", "batch": "batch", "steps": "denoising steps"}
# Column of the file, label, colour, whether its scale is logarithmic.
ROWS = [("seconds", "seconds", "#1f77b4", True), ("peak_mib", "peak memory, MiB", "#d95f02", False)]
WIDTH, HEIGHT = 300, 210  # of a panel
LEFT, TOP, GAP_X, GAP_Y, RIGHT, BOTTOM = 62, 50, 66, 74, 24, 52
TEXT = 'font-family="sans-serif" fill="#333"'


def read(path):
    """The points of each axis, in the file's order."""
    axes = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            axes.setdefault(row["axis"], []).append(row)
    return axes


def ticks(low, high):
    """1, 2, 5, 10, ... within the range; powers of ten alone where those would be many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    some = [m * 10.0**e for e in decades for m in (1, 2, 5)]
    some = [t for t in some if low <= t * 1.0001 and t <= high * 1.0001]
    return some if len(some) <= 8 else [t for t in some if math.isclose(math.log10(t) % 1, 0, abs_tol=1e-9)]


def even_ticks(high):
    """About four from zero on."""
    step = 10.0 ** math.floor(math.log10(high))
    step = next(step / d for d in (1, 2, 5, 10) if high / (step / d) >= 4)
    return [i * step for i in range(int(high / step) + 1)]


def number(value):
    return f"{value:.4g}" if value < 1e4 else f"{value:,.0f}"


def text(x, y, content, size=11, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {TEXT} {extra}>{html.escape(content)}</text>'


def panel(x0, y0, points, x_label, y_label, colour, logarithmic):
    """One curve in a frame; `points` are pairs of positive numbers."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys) / 1.6 if logarithmic else 0.0, max(ys) * 1.3
    left, right = math.log(xs[0]), math.log(xs[-1]) if len(xs) > 1 else math.log(xs[0]) + 1

    def at(x, y):
        along = (math.log(x) - left) / (right - left)
        up = math.log(y / low) / math.log(high / low) if logarithmic else y / high
        return x0 + along * WIDTH, y0 + (1 - up) * HEIGHT

    out = [f'<rect x="{x0}" y="{y0}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>']
    for tick in ticks(low, high) if logarithmic else even_ticks(high):
        _, y = at(xs[0], tick)
        out.append(f'<line x1="{x0}" x2="{x0 + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        out.append(text(x0 - 6, y + 4, number(tick), anchor="end"))
    for x in xs:
        px, _ = at(x, low)
        out.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{y0}" y2="{y0 + HEIGHT}" stroke="#e5e5e5"/>')
        out.append(text(px, y0 + HEIGHT + 16, number(x)))
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y in points))
    out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for i, (x, y) in enumerate(points):
        px, py = at(x, y)
        out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')
        # The first below its point, the others to the upper left: the curves rise.
        place = (px + 5, py + 14, "start") if i == 0 else (px - 2, py - 7, "end")
        out.append(text(*place[:2], f"{y:.3g}" if y < 1000 else f"{y:.0f}", 10, place[2]))
    out.append(text(x0 + WIDTH / 2, y0 + HEIGHT + 34, x_label, 12))
    out.append(text(x0, y0 - 8, y_label, 12, "start"))
    return out


def draw(axes, title):
    columns = [axis for axis in AXES if axis in axes]
    rows = [row for row in ROWS if any(p[row[0]] for points in axes.values() for p in points)]
    width = LEFT + len(columns) * WIDTH + (len(columns) - 1) * GAP_X + RIGHT
    height = TOP + len(rows) * HEIGHT + (len(rows) - 1) * GAP_Y + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(LEFT, 22, title, 14, "start", 'font-weight="bold"'),
    ]
    for i, axis in enumerate(columns):
        for j, (key, label, colour, logarithmic) in enumerate(rows):
            points = [(float(p["value"]), float(p[key])) for p in axes[axis] if p[key]]
            if points:
                x0, y0 = LEFT + i * (WIDTH + GAP_X), TOP + j * (HEIGHT + GAP_Y)
                out += panel(x0, y0, points, AXES[axis], label, colour, logarithmic)
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    axes = read(sys.argv[1])
    if not any(axis in AXES for axis in axes):
        sys.exit(f"{sys.argv[1]}: no line has one of the axes {', '.join(AXES)}")
    title = sys.argv[3] if len(sys.argv) == 4 else "How cost grows"
    with open(sys.argv[2], "w") as file:
        file.write(draw(axes, title))


if __name__ == "__main__":
    main()
