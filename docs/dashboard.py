#!/usr/bin/env python3
"""Draws dashboards/divvy.json from a real run, as docs/dashboard.svg.

Needs `prometheus` (Debian: apt-get install prometheus) and a built example:

    cargo build --release --features metrics --example metrics && python3 docs/dashboard.py

The example's fleet is scraped by Prometheus, which is then asked every query of every panel.
"""

import html
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLEET, SERVER = "127.0.0.1:9464", "127.0.0.1:9465"
COLOURS = ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300"]
WIDTH, ROW, HEAD = 1440, 200, 30


def record():
    """Runs the fleet while it is scraped. Returns the dashboard with the answers to all queries."""
    dashboard = json.load(open(f"{ROOT}/dashboards/divvy.json"))
    with tempfile.TemporaryDirectory() as folder:
        config = f"{folder}/prometheus.yml"
        with open(config, "w") as file:
            file.write(
                "scrape_configs:\n  - job_name: fleet\n    honor_labels: true\n    scrape_interval: 1s\n"
                f"    static_configs: [{{targets: ['{FLEET}']}}]\n"
            )
        server = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={SERVER}", "--log.level=error"])
        begin = time.time()
        try:
            time.sleep(2)
            subprocess.run([f"{ROOT}/target/release/examples/metrics", FLEET], check=True)
            end = time.time()
            for panel in dashboard["panels"]:
                for target in panel.get("targets", []):
                    target["answer"] = ask(target["expr"], begin, end)
        finally:
            server.terminate()
            server.wait()
    return dashboard, begin, end


def ask(query, begin, end):
    query = query.replace("$__rate_interval", "5s").replace("$job", ".*")
    arguments = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": 0.5})
    with urllib.request.urlopen(f"http://{SERVER}/api/v1/query_range?{arguments}") as reply:
        return json.load(reply)["data"]["result"]


def lines_of(panel):
    """Returns each series of a panel: its legend and its points."""
    lines = []
    for target in panel["targets"]:
        for series in target["answer"]:
            labels = series["metric"]
            legend = re.sub(r"{{\s*(\w+)\s*}}", lambda m: labels.get(m[1], ""), target["legendFormat"])
            points = [(float(t), float(v)) for t, v in series["values"] if v not in ("NaN", "+Inf", "-Inf")]
            if points:
                lines.append((legend, points))
    return lines


def thinned(points):
    """Removes points between two of the same value."""
    inner = zip(points, points[1:], points[2:])
    kept = [b for a, b, c in inner if not (a[1] == b[1] == c[1] and c[0] - a[0] < 2.5)]
    return points[:1] + kept + points[-1:]


def shown(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g}" + {"s": " s", "ops": "/s"}.get(unit, "")


def draw(panel, begin, end, x, y, width):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    lines = lines_of(panel)
    top = max((v for _, points in lines for _, v in points), default=1) or 1
    left, right, bottom = x + 58, x + width - 12, y + ROW - 46
    height = bottom - (y + 34)
    out = [f'<rect x="{x + 4}" y="{y + 4}" width="{width - 8}" height="{ROW - 8}" rx="3" fill="#1f1f20"/>',
           f'<text x="{x + 14}" y="{y + 22}" class="title">{html.escape(panel["title"])}</text>']
    for part in (0, 0.5, 1):
        at = bottom - part * height
        out.append(f'<line x1="{left}" x2="{right}" y1="{at:.0f}" y2="{at:.0f}" stroke="#333"/>')
        out.append(f'<text x="{left - 5}" y="{at + 4:.0f}" class="axis" text-anchor="end">{shown(top * part, unit)}</text>')
    legend_x, legend_y = x + 14, y + ROW - 28
    for index, (legend, points) in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        path, last = [], None
        for moment, value in thinned(points):
            px = left + (moment - begin) / (end - begin) * (right - left)
            py = bottom - value / top * height
            # A flat stretch is two points; other than that, more than two scrapes are a gap.
            goes_on = last is not None and (moment - last[0] < 2.5 or value == last[1])
            path.append(f'{"L" if goes_on else "M"}{px:.1f} {py:.1f}')
            last = moment, value
        out.append(f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        size = 20 + 5.6 * len(legend)
        if legend_x + size > x + width - 10:
            legend_x, legend_y = x + 14, legend_y + 13
        if legend_y < y + ROW - 8:
            out.append(f'<rect x="{legend_x}" y="{legend_y - 6}" width="9" height="3" fill="{colour}"/>')
            out.append(f'<text x="{legend_x + 12}" y="{legend_y}" class="axis">{html.escape(legend)}</text>')
        legend_x += size
    if not lines:
        out.append(f'<text x="{(left + right) / 2}" y="{bottom - height / 2}" class="axis" text-anchor="middle">no data</text>')
    return out


def main():
    dashboard, begin, end = record()
    out, y, x = [], HEAD, 0
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            y += ROW if x else 0
            x = 0
            out.append(f'<text x="8" y="{y + 20}" class="row">{html.escape(panel["title"])}</text>')
            y += 28
            continue
        width = panel["gridPos"]["w"] * WIDTH // 24
        out += draw(panel, begin, end, x, y, width)
        x += width
        if x >= WIDTH:
            x, y = 0, y + ROW
    y += ROW if x else 0
    style = "text{font-family:sans-serif;fill:#ccc}.title{font-size:13px}.row{font-size:15px}.axis{font-size:10px;fill:#999}"
    with open(f"{ROOT}/docs/dashboard.svg", "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 6}"><style>{style}</style>'
                   f'<rect width="{WIDTH}" height="{y + 6}" fill="#111214"/>'
                   f'<text x="8" y="21" class="row">divvy: {end - begin:.0f} seconds of a fleet of five</text>\n'
                   + "\n".join(out) + "</svg>\n")


main()
