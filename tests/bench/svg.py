"""Charts as SVG files: dots with their spread, and lines. They are readable on white and on black, because the colours
follow the reader's choice (prefers-color-scheme)."""
from html import escape

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .small { font-size: 11px; fill: #57606a }
.end { text-anchor: end } .middle { text-anchor: middle }
.grid { stroke: #d0d7de; stroke-width: 1 } .one { stroke: #57606a; stroke-width: 1; stroke-dasharray: 4 3 }
.mark { stroke-width: 2; fill: none }
.c0 { stroke: #0969da; fill: #0969da } .c1 { stroke: #bc4c00; fill: #bc4c00 } .c2 { stroke: #1a7f37; fill: #1a7f37 }
.c3 { stroke: #8250df; fill: #8250df } .c4 { stroke: #bf3989; fill: #bf3989 } .c5 { stroke: #6e7781; fill: #6e7781 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #9198a1 }
.c0 { stroke: #4493f8; fill: #4493f8 } .c1 { stroke: #f0883e; fill: #f0883e } .c2 { stroke: #3fb950; fill: #3fb950 }
.c3 { stroke: #ab7df8; fill: #ab7df8 } .c4 { stroke: #db61a2; fill: #db61a2 } .c5 { stroke: #9198a1; fill: #9198a1 }
}
"""
COLOURS = 6


class Drawing:
    def __init__(self, width):
        self.width, self.height, self.parts = width, 0, []

    def grow(self, bottom):
        self.height = max(self.height, bottom)

    def text(self, x, y, text, *classes):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{" ".join(classes)}">{escape(text)}</text>')
        self.grow(y + 8)

    def line(self, x1, y1, x2, y2, *classes):
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {ends} class="{" ".join(classes)}"/>')

    def path(self, points, *classes):
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{steps}" class="{" ".join(classes)}" style="fill: none"/>')

    def dot(self, x, y, *classes):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{" ".join(classes)}"/>')

    def written(self, title):
        size = f'width="{self.width:.0f}" height="{self.height:.0f}" viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{escape(title)}</title>",
                f"<style>{STYLE}</style>"]
        return "\n".join([*head, *self.parts, "</svg>", ""])


def colour(number):
    return f"c{number % COLOURS}"


def legend(drawing, x, y, series):
    for number, name in enumerate(series):
        drawing.dot(x + 4, y - 4, colour(number))
        drawing.text(x + 14, y, name)
        x += 30 + 6.6 * len(name)


def dot_chart(title, note, panels, series, ticks):
    """panels: [(title, [(row, {series: (median, least, most)})])]: a dot for each median, a line from least to most. The
    x axis ends at the last tick, where higher values are drawn too."""
    drawing = Drawing(820)
    left, right, y = 250, 790, 22

    def at(value):
        return left + (right - left) * min(value, ticks[-1]) / ticks[-1]

    drawing.text(16, y, title, "title")
    drawing.text(16, y + 18, note, "small")
    legend(drawing, left, y + 42, series)
    y += 52
    for panel, rows in panels:
        drawing.text(16, y + 18, panel, "title")
        top, y = y + 26, y + 30
        bottom = top + sum(row_height(series) for _ in rows) + 4
        for tick in ticks:
            drawing.line(at(tick), top, at(tick), bottom, "one" if tick == 1 else "grid")
            drawing.text(at(tick), bottom + 14, f"{tick:g}", "small", "middle")
        for name, values in rows:
            drawing.text(left - 10, y + row_height(series) / 2 + 4, name, "end")
            for number, one in enumerate(series):
                if one in values:
                    middle, least, most = values[one]
                    height = y + 7 + 9 * number
                    drawing.line(at(least), height, at(most), height, "mark", colour(number))
                    drawing.dot(at(middle), height, colour(number))
            y += row_height(series)
        y = bottom + 22
    return drawing.written(title)


def row_height(series):
    return 9 * len(series) + 8


def line_charts(title, note, panels, series, ticks):
    """panels: [(title, [label of each x], {series: [(index of x, value)]})], two side by side. The y axis ends at the
    last tick, where higher values are drawn too."""
    drawing = Drawing(820)
    width, height = 350, 170
    drawing.text(16, 22, title, "title")
    drawing.text(16, 40, note, "small")
    legend(drawing, 16, 64, series)
    for number, (panel, labels, lines) in enumerate(panels):
        left, top = 50 + number % 2 * 400, 96 + number // 2 * (height + 70)
        step = width / max(1, len(labels) - 1)

        def at(index, value):
            return left + index * step, top + height * (1 - min(value, ticks[-1]) / ticks[-1])

        drawing.text(left, top - 10, panel, "title")
        for tick in ticks:
            y = at(0, tick)[1]
            drawing.line(left, y, left + width, y, "one" if tick == 1 else "grid")
            drawing.text(left - 8, y + 4, f"{tick:g}", "small", "end")
        for index, label in enumerate(labels):
            drawing.text(at(index, 0)[0], top + height + 16, label, "small", "middle")
        for which, name in enumerate(series):
            points = [at(index, value) for index, value in lines.get(name, [])]
            drawing.path(points, "mark", colour(which))
            for x, y in points:
                drawing.dot(x, y, colour(which))
        drawing.grow(top + height + 30)
    return drawing.written(title)
