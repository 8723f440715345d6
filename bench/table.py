#!/usr/bin/env python3
"""The results of bench.sh (DIR/results, DIR/machine) as a table for a terminal, DIR/table.md and DIR/chart.svg.

Of what was done several times, the median of each figure counts.
"""

import statistics
import sys
from pathlib import Path

TOOLS = ["pi-agent", "before", "restic", "rustic", "borg"]
WHAT = {
    "first": "first night",
    "changed": "changed night",
    "unchanged": "unchanged night",
    "restore": "restore",
    "check": "check, reading all",
}
# As bench.sh writes them, after place, what and tool.
FIGURES = ["wall", "user", "system", "kib", "requests", "of_step", "up", "down"]
# Distinguishable by the colour-blind, and readable on light and on dark.
COLOURS = {"pi-agent": "#2f81f7", "before": "#8957e5", "restic": "#8b949e", "rustic": "#d97706", "borg": "#2da44e"}


def main():
    directory = Path(sys.argv[1])
    rows = read(directory / "results")
    machine = (directory / "machine").read_text()
    print(machine)
    print(text(rows))
    (directory / "table.md").write_text(markdown(rows, machine))
    (directory / "chart.svg").write_text(chart(rows))


def read(path):
    """{(place, what): {tool: {figure: median}}}, in the order they were measured."""
    runs = {}
    for line in path.read_text().splitlines():
        place, what, tool, *figures = line.split()
        runs.setdefault((place, what), {}).setdefault(tool, []).append([float(figure) for figure in figures])
    rows = {}
    for key, tools in runs.items():
        for tool, all_figures in tools.items():
            row = dict(zip(FIGURES, map(statistics.median, zip(*all_figures))))
            row["cpu"] = statistics.median(figures[1] + figures[2] for figures in all_figures)
            row["mib"] = row["kib"] / 1024
            row["moved"] = (row["up"] + row["down"]) / 1e6
            rows.setdefault(key, {})[tool] = row
    return rows


def requests(place, tool, row):
    if place == "folder":
        return "–"
    step = "" if tool != "pi-agent" or row["of_step"] == row["requests"] else f" ({row['of_step']:.0f})"
    return f"{row['requests']:.0f}{step}"


def size(place, value):
    if place == "folder":
        return "–"
    return f"{value / 1e6:.1f}" if value >= 1e5 else f"{value / 1e6:.3f}"


def ratio(row, ours, figure):
    return f"{row[figure] / ours[figure]:.2f}" if ours[figure] else "–"


HEADER = ["place", "what", "tool", "wall s", "CPU s", "peak MiB", "requests", "MB up", "MB down", "wall ×", "CPU ×", "peak ×"]


def cells(rows):
    for (place, what), tools in rows.items():
        ours = tools["pi-agent"]
        for tool in [tool for tool in TOOLS if tool in tools]:
            row = tools[tool]
            yield [
                place, WHAT[what], tool,
                f"{row['wall']:.2f}", f"{row['cpu']:.2f}", f"{row['mib']:.0f}",
                requests(place, tool, row), size(place, row["up"]), size(place, row["down"]),
                ratio(row, ours, "wall"), ratio(row, ours, "cpu"), ratio(row, ours, "mib"),
            ]


def text(rows):
    table = [HEADER, *cells(rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADER))]
    lines = []
    before = None
    for line in table:
        if before and line[:2] != before:
            lines.append("")
        before = line[:2]
        left = [cell.ljust(width) for cell, width in zip(line[:3], widths)]
        right = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:])]
        lines.append("  ".join(left + right))
    return "\n".join(lines) + "\n\n× : over pi-agent's. Requests in brackets: those of the step alone, without the run's own.\n"


def markdown(rows, machine):
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * 3 + "--:|" * (len(HEADER) - 3)]
    for line in cells(rows):
        bold = line[2] == "pi-agent"
        lines.append(f"| {' | '.join(f'**{cell}**' if bold and 2 <= at <= 5 else cell for at, cell in enumerate(line))} |")
    facts = "\n".join(f"- {line}" for line in machine.splitlines())
    return "\n".join(lines) + "\n\n" + facts + "\n"


# The chart: for each place a band, in it for each figure a column of panels, one bar a tool.
PANEL, BAR, GAP, LEFT, TOP = 200, 13, 22, 132, 84
EVERYWHERE = [("wall", "seconds"), ("cpu", "CPU seconds"), ("mib", "peak memory, MiB")]
# Where somebody counts them.
BUCKET = [("requests", "requests"), ("moved", "MB up and down")]


def short(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def band(rows, place, top):
    """The shapes of a place's panels, how many stand side by side, and where they end."""
    shapes, y = [], top
    columns = EVERYWHERE + (BUCKET if place == "bucket" else [])
    for number, (figure, title) in enumerate(columns):
        x, y = LEFT + number * (PANEL + 24), top
        shapes.append(f'<text x="{x}" y="{top - 14}" class="b">{place}: {title}</text>')
        for what in [what for what in WHAT if (place, what) in rows]:
            tools = {tool: rows[place, what][tool][figure] for tool in TOOLS if tool in rows[place, what]}
            most = max(tools.values()) or 1
            if number == 0:
                shapes.append(f'<text x="{LEFT - 10}" y="{y + len(tools) * BAR / 2 + 4}" text-anchor="end">{WHAT[what]}</text>')
            for tool, value in tools.items():
                width = max(1.5, value / most * (PANEL - 52))
                weight = ' class="b"' if tool == "pi-agent" else ""
                shapes.append(
                    f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{BAR - 2}" rx="1.5" fill="{COLOURS[tool]}"/>'
                    f'<text x="{x + width + 5:.1f}" y="{y + BAR - 3}"{weight}>{short(value)}</text>'
                )
                y += BAR
            y += GAP
    return shapes, len(columns), y


def chart(rows):
    shapes, across, bottom = [], 0, TOP
    for place in dict.fromkeys(place for place, _ in rows):
        of_place, columns, end = band(rows, place, bottom)
        shapes += of_place
        across, bottom = max(across, columns), end + 40
    legend = []
    x = LEFT
    for tool in [tool for tool in TOOLS if any(tool in tools for tools in rows.values())]:
        legend.append(f'<rect x="{x}" y="18" width="11" height="11" rx="1.5" fill="{COLOURS[tool]}"/><text x="{x + 16}" y="28">{tool}</text>')
        x += 90
    width = LEFT + across * (PANEL + 24)
    height = bottom - 40
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>Time, CPU time, peak memory, requests and bytes of pi-agent, restic, rustic and borg</title>
<desc>Bars within a group share a scale; shorter is better.</desc>
<style>
text {{ font: 11px system-ui, sans-serif; fill: #24292f; }}
.b {{ font-weight: 600; }}
.page {{ fill: #ffffff; }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3; }} .page {{ fill: #0d1117; }} }}
</style>
<rect class="page" width="100%" height="100%"/>
{''.join(legend)}
<text x="{x + 10}" y="28">shorter is better; each group of bars has its own scale</text>
{chr(10).join(shapes)}
</svg>
"""


main()
