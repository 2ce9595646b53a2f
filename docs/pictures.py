#!/usr/bin/env python3
"""Draws the pictures of the documents: `make pictures`.

    docs/pictures.py drawings     architecture.svg and handover.svg
    docs/pictures.py demo BINARY  examples/demo.svg, from a run of `divvy demo` on a terminal
    docs/pictures.py stamp FILE SOURCE…   adds the hash of the sources to a picture

Each picture carries a hash of the files that it is drawn from. A test compares it, so that a stale
picture fails the build.
"""

import fcntl
import html
import os
import pty
import re
import struct
import sys
import termios
import unicodedata

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FONT = "Inter,Helvetica,Arial,DejaVu Sans,sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace"
INK, DIM, LINE = "#1f2937", "#6b7280", "#9ca3af"
TEAL, AMBER, RED, BLUE = "#0f766e", "#b45309", "#b91c1c", "#1d4ed8"


def fnv(paths):
    """FNV-1a, 64 bits, over the files' bytes."""
    value = 0xCBF29CE484222325
    for path in paths:
        with open(os.path.join(ROOT, path), "rb") as file:
            for byte in file.read():
                value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def write(path, svg, sources):
    """Writes a picture with the hash of its sources as the last line."""
    svg = re.sub(r"\n<!-- drawn from .*-->\n?$", "\n", svg.rstrip("\n") + "\n")
    with open(os.path.join(ROOT, path), "w") as file:
        file.write(f"{svg}<!-- drawn from {' '.join(sources)}: {fnv(sources)} -->\n")
    print(path)


class Canvas:
    def __init__(self, width, height, label):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{html.escape(label)}" font-family="{FONT}">',
            '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" '
            'fill="context-stroke"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def box(self, x, y, width, height, fill="#f9fafb", stroke=LINE, radius=6, dash=""):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" '
            f'stroke="{stroke}"{dashes}/>')

    def text(self, x, y, text, size=13, fill=INK, anchor="start", weight="", mono=False):
        family = f' font-family="{MONO}"' if mono else ""
        bold = f' font-weight="{weight}"' if weight else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{bold}{family}>'
            f"{html.escape(text)}</text>")

    def line(self, points, stroke=INK, arrow=True, dash="", width=1.6):
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{end}{dashes}/>')

    def svg(self):
        return "\n".join(self.parts) + "\n</svg>\n"


def architecture():
    c = Canvas(960, 452, "Workers write heartbeats to NATS KV; the leader watches them and publishes fenced "
                         "assignments; each worker watches its own assignment.")
    # A worker process.
    c.box(16, 44, 252, 392)
    c.text(28, 32, "every worker process", 15, weight="bold")
    c.box(32, 64, 220, 84, "#ecfdf5", TEAL)
    c.text(44, 86, "your code", 13, TEAL, weight="bold")
    c.text(44, 108, "start and stop partitions", 12)
    c.text(44, 128, "added / removed callback", 12, DIM)
    c.box(32, 180, 220, 236, "#ffffff")
    c.text(44, 202, "Manager", 13, weight="bold")
    for row, (thread, job) in enumerate([("dv-notify", "runs your callbacks"),
                                         ("dv-member", "id, heartbeat,"),
                                         ("", "election, assignment"),
                                         ("dv-io", "calls to the store")]):
        y = 230 + 24 * row
        c.text(44, y, thread, 12, BLUE, mono=True)
        c.text(120, y, job, 12)
    c.text(44, 348, "applies an assignment only if its", 12, DIM)
    c.text(44, 366, "(term, version) is newer", 12, DIM)
    c.text(44, 394, "three OS threads, no async", 12, DIM)
    c.line([(142, 180), (142, 150)], TEAL)

    # The store.
    c.box(372, 44, 216, 392, "#eff6ff", BLUE)
    c.text(480, 32, "NATS JetStream KV", 15, anchor="middle", weight="bold")
    keys = [("heartbeat", ["heartbeat.worker-7"], "expires after 6 s", 64),
            ("stable ids", ["worker-7"], "expires after 30 s", 146),
            ("election", ["leader"], "lease, 5 s", 228),
            ("assignment", ["assignment.worker-7", "divvy.fence", "divvy.commit"], "", 310)]
    for name, rows, note, y in keys:
        height = 70 if len(rows) == 1 else 110
        c.box(388, y, 184, height, "#ffffff", "#bfdbfe")
        c.text(398, y + 19, name, 12, BLUE, weight="bold")
        for number, row in enumerate(rows):
            c.text(398, y + 40 + 20 * number, row, 12, mono=True)
        if note:
            c.text(398, y + 59, note, 11, DIM)

    # The leader.
    c.box(692, 44, 252, 392)
    c.text(704, 32, "in addition, on the leader", 15, weight="bold")
    c.text(708, 68, "Calculator", 13, weight="bold")
    steps = [(80, "dv-watch", "leases of the live workers"), (166, "dv-calc", "when and why to rebalance"),
             (252, "dv-publish", "strategy, conditional writes")]
    for y, thread, job in steps:
        c.box(708, y, 220, 62, "#ffffff")
        c.text(720, y + 24, thread, 12, BLUE, mono=True)
        c.text(720, y + 46, job, 12)
    c.line([(818, 142), (818, 164)])
    c.line([(818, 228), (818, 250)])
    c.box(708, 344, 220, 76, "#ecfdf5", TEAL)
    c.text(720, 366, "your code", 13, TEAL, weight="bold")
    c.text(720, 386, "partition source, on dv-source", 12)
    c.text(720, 406, "strategy (default: sticky)", 12)
    c.line([(818, 342), (818, 316)], TEAL)

    # What flows.
    c.line([(268, 96), (386, 96)])
    c.text(327, 88, "every 2 s", 11, anchor="middle")
    c.line([(268, 180), (386, 180)])
    c.text(327, 172, "claim, renew", 11, anchor="middle")
    c.line([(268, 262), (386, 262)])
    c.text(327, 254, "renew lease", 11, anchor="middle")
    c.line([(386, 346), (270, 346)])
    c.text(327, 338, "watch own key", 11, anchor="middle")
    c.line([(574, 96), (706, 96)])
    c.text(640, 88, "watch", 11, anchor="middle")
    c.line([(706, 300), (640, 300), (640, 362), (576, 362)], AMBER)
    c.text(640, 382, "conditional", 11, AMBER, "middle")
    c.text(640, 397, "writes", 11, AMBER, "middle")
    write("docs/architecture.svg", c.svg(), ["docs/pictures.py"])


def handover():
    c = Canvas(960, 372, "Hand-over of leadership on a time line with the default timing.")
    left, right, top = 150, 930, 64
    scale = (right - left) / 9.0  # seconds
    x = lambda seconds: left + seconds * scale
    lanes = [("worker-0", 96), ("store", 186), ("worker-1", 276)]
    c.text(20, 30, "Hand-over of leadership: the leader freezes (default timing, schematic)", 15, weight="bold")
    for second in range(10):
        c.line([(x(second), top), (x(second), 318)], "#e5e7eb", arrow=False, width=1)
        c.text(x(second), 338, f"{second} s", 11, DIM, "middle")
    for name, y in lanes:
        c.text(20, y + 5, name, 13, weight="bold")
        c.line([(left, y), (right, y)], LINE, arrow=False, width=1)

    def block(lane, start, end, label, fill, stroke):
        y = lanes[lane][1]
        c.box(x(start), y - 15, x(end) - x(start), 30, fill, stroke, 4)
        c.text((x(start) + x(end)) / 2, y + 4, label, 11, stroke, "middle")

    def mark(lane, second, label, above=True, fill=INK, anchor="middle", shift=0):
        y = lanes[lane][1]
        c.parts.append(f'<circle cx="{x(second)}" cy="{y}" r="4.5" fill="{fill}"/>')
        c.text(x(second) + shift, y - 24 if above else y + 32, label, 11, fill, anchor)

    block(0, 0, 2.2, "leads, term 3", "#ecfdf5", TEAL)
    mark(0, 2.2, "process freezes", fill=RED, anchor="start", shift=-30)
    block(1, 0, 6.4, "lease of worker-0 (renewed at 1.4 s for 5 s)", "#eff6ff", BLUE)
    c.line([(x(1.4), lanes[0][1] + 15), (x(1.4), lanes[1][1] - 17)], DIM, width=1.2)
    c.text(x(1.4) + 6, 140, "renews the lease", 11, DIM)
    block(1, 6.5, 9, "lease of worker-1", "#eff6ff", BLUE)
    c.line([(x(6.5), lanes[2][1] - 6), (x(6.5), lanes[1][1] + 17)], BLUE)
    mark(2, 6.5, "lease acquired", False, BLUE, "end", 4)
    c.line([(x(6.75), lanes[2][1] - 6), (x(6.75), lanes[1][1] + 17)], AMBER)
    mark(2, 6.75, "fence written, term 4", False, AMBER, "start", 6)
    block(2, 7.0, 9, "leads, term 4", "#ecfdf5", TEAL)
    c.line([(x(7.5), lanes[2][1] - 17), (x(7.5), lanes[1][1] + 17)], TEAL)
    c.text(x(7.5) + 6, 236, "version 43 published", 11, TEAL)
    mark(0, 7.6, "resumes and publishes in term 3", fill=RED)
    c.line([(x(7.62), lanes[0][1] + 6), (x(7.95), lanes[1][1] - 17)], RED, dash="5 4")
    c.text(x(7.8) - 12, 140, "rejected: the fence has moved", 11, RED, "end")
    c.text(20, 362, "A running leader stops publishing before its lease expires. The successor writes the fence before it "
                    "reads anything else.", 12, DIM)
    write("docs/handover.svg", c.svg(), ["docs/pictures.py"])


COLUMNS, ROWS = 100, 36
CELL_WIDTH, CELL_HEIGHT = 8.4, 18
COLOURS = {"31": "#f2777a", "32": "#7fc97f", "33": "#e6b455", "36": "#62b8d6", "2": "#7d8590", "90": "#7d8590"}


def frames(binary):
    """Every screen that the demo draws on a terminal, as text with escape sequences."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("NO_COLOR", None)
        os.execv(binary, [binary, "demo"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    output = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        sys.exit(f"the demo failed with status {status}")
    text = output.decode()
    return [frame.split("\x1b[J")[0] for frame in text.split("\x1b[H")[1:]]


def spans(line):
    """Runs of text with colour and weight."""
    colour, bold = "#d0d4da", False
    for part in re.split(r"(\x1b\[[0-9;]*[A-Za-z])", line):
        if not part.startswith("\x1b"):
            if part:
                yield part, colour, bold
            continue
        if part.endswith("m"):
            for code in part[2:-1].split(";"):
                if code in ("", "0"):
                    colour, bold = "#d0d4da", False
                elif code == "1":
                    bold = True
                elif code in COLOURS:
                    colour = COLOURS[code]


def plain(line):
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)


def terminal_svg(lines):
    width, height = COLUMNS * CELL_WIDTH + 24, len(lines) * CELL_HEIGHT + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img" aria-label="divvy demo on a terminal">',
        '<rect width="100%" height="100%" rx="8" fill="#14181d"/>',
        f'<g font-family="{MONO}" font-size="14">',
    ]
    bars = "█▏▎▍▌▋▊▉"
    eighths = {"█": 8, "▉": 7, "▊": 6, "▋": 5, "▌": 4, "▍": 3, "▎": 2, "▏": 1}
    for row, line in enumerate(lines):
        column, baseline = 0, 14 + CELL_HEIGHT * row + 14
        for text, colour, bold in spans(line):
            for run in re.findall(f"[{bars}]+| +|[^ {bars}]+(?: [^ {bars}]+)*", text):
                x = 12 + column * CELL_WIDTH
                if run[0] in eighths:
                    length = sum(eighths[c] for c in run) / 8 * CELL_WIDTH
                    parts.append(f'<rect x="{x:.1f}" y="{baseline - 11}" width="{length:.1f}" height="12" fill="{colour}"/>')
                elif run.strip():
                    weight = ' font-weight="bold"' if bold else ""
                    parts.append(
                        f'<text x="{x:.1f}" y="{baseline}" textLength="{len(run) * CELL_WIDTH:.1f}" '
                        f'lengthAdjust="spacingAndGlyphs" fill="{colour}"{weight}>{html.escape(run)}</text>')
                column += sum(0 if unicodedata.combining(c) else 1 for c in run)
    return "\n".join(parts) + "\n</g></svg>\n"


def demo(binary):
    shown = [frame.split("\r\n") for frame in frames(binary)]
    # The end of the crash step: workers that left and crashed are shown, and the plan is repaired.
    wanted = [lines for lines in shown if any(re.match(r" *ok 4\.", plain(line)) for line in lines)
              and not any(re.match(r" *ok 5\.", plain(line)) for line in lines)]
    if not wanted:
        sys.exit("no frame shows the end of step 4")
    lines = wanted[0]
    while lines and not plain(lines[-1]).strip():
        lines.pop()
    write("examples/demo.svg", terminal_svg(lines), DEMO_SOURCES)


DEMO_SOURCES = ["docs/pictures.py", "src/bin/divvy/demo/screen.rs", "src/bin/divvy/demo/fleet.rs"]


def main(arguments):
    if arguments == ["drawings"]:
        architecture()
        handover()
    elif len(arguments) == 2 and arguments[0] == "demo":
        demo(os.path.abspath(arguments[1]))
    elif len(arguments) > 2 and arguments[0] == "stamp":
        path, sources = arguments[1], arguments[2:]
        with open(os.path.join(ROOT, path)) as file:
            write(path, file.read(), sources)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
