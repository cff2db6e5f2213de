"""The page a report is printed on: one HTML file that needs nothing else, for light and dark screens and paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zeroflow_core.evaluation.report.markup import Content, Markup, join, tag
from zeroflow_core.files import new_file

# Eight marks that keep their distance on white and, lightened, on black, for every common colour vision.
_ON_WHITE = ("#1f5fae", "#b9540a", "#117a65", "#9a3f86", "#5b5fc7", "#8a6d00", "#c0304f", "#4c5661")
_ON_BLACK = ("#74b0f4", "#f0a05a", "#5cc9ad", "#dc8fcb", "#a9acf8", "#d9bc54", "#f58a9d", "#b4bdc8")
MARKS = len(_ON_WHITE)  # of runs that can be told apart


def _marks(colours: Sequence[str]) -> str:
    return " ".join(f"--run{k}: {colour};" for k, colour in enumerate(colours))


_STYLE = f"""
:root {{
  color-scheme: light dark;
  --paper: #fdfdfc; --ink: #1b2027; --faint: #59626e; --hair: #e6e8eb; --rule: #c9ced5; --raised: #f5f6f7;
  --warn: #8a4b00; --warn-paper: #fff6e5; --warn-rule: #e0a84a; --best: #e4f1e6; --reference: #7a838f;
  {_marks(_ON_WHITE)}
}}
@media (prefers-color-scheme: dark) {{ :root {{
  --paper: #13161b; --ink: #e5e9ee; --faint: #9ba5b2; --hair: #262c35; --rule: #3a424e; --raised: #1a1e25;
  --warn: #f2c271; --warn-paper: #2a2214; --warn-rule: #7c5a1d; --best: #1d3a2a; --reference: #8d97a4;
  {_marks(_ON_BLACK)}
}} }}
"""

_STYLE += """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif; font-variant-numeric: tabular-nums;
}
main { max-width: 1200px; margin: 0 auto; padding: 40px 32px 64px; }
h1 { font-size: 28px; line-height: 1.2; font-weight: 650; letter-spacing: -0.012em; margin: 4px 0 14px;
  overflow-wrap: anywhere; }
h2 { font-size: 20px; line-height: 1.3; font-weight: 650; letter-spacing: -0.006em; margin: 0 0 6px; }
h3 { font-size: 15px; line-height: 1.4; font-weight: 650; margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 76ch; }
section { margin-top: 52px; scroll-margin-top: 16px; }
a { color: var(--run0); text-decoration-thickness: 1px; text-underline-offset: 2px; }
.faint, .kicker, figcaption, caption, .nothing { color: var(--faint); }
.kicker { margin: 0; font-size: 13px; }
.lead { color: var(--faint); margin-bottom: 18px; }
nav { border-top: 1px solid var(--hair); border-bottom: 1px solid var(--hair); margin: 24px 0 0; padding: 9px 0;
  font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 22px; }
nav a { color: var(--ink); text-decoration: none; }
nav a:hover { text-decoration: underline; }

dl.facts { display: flex; flex-wrap: wrap; gap: 14px 36px; margin: 0; }
dl.facts div { min-width: 0; }
dl.facts dt { font-size: 12.5px; color: var(--faint); }
.note { margin: 14px 0 0; font-size: 14px; } .note + .note { margin-top: 4px; }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }

.columns { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 32px 40px; }
.columns.three { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 32px 36px; }
.columns.panels { grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 24px 28px; }
.columns > * { min-width: 0; }
figure { margin: 0; }
figcaption { font-size: 13.5px; margin-top: 6px; }
.warning { border: 1px solid var(--warn-rule); background: var(--warn-paper); border-radius: 6px; padding: 14px 18px;
  margin-top: 24px; }
.warning h2 { font-size: 16px; color: var(--warn); margin-bottom: 4px; }
.warning p:last-child, .warning table:last-child { margin-bottom: 0; }

.scroll { overflow-x: auto; }
.scroll + p, .blocks { margin-top: 14px; }
.blocks table { width: auto; }
.blocks th + *, .blocks td + * { padding-left: 30px; }
.blocks > * + * { margin-top: 28px; }
table { border-collapse: collapse; font-size: 13.5px; line-height: 1.35; width: 100%; }
caption { text-align: left; font-size: 13.5px; padding-bottom: 8px; }
th, td { padding: 5px 0 5px 16px; text-align: right; font-weight: 400; border-bottom: 1px solid var(--hair);
  vertical-align: baseline; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--faint); font-size: 12.5px; border-bottom: 1px solid var(--rule); vertical-align: bottom; }
tr.over > * { border-bottom: 0; padding-bottom: 0; overflow-wrap: anywhere; }
tr.over > th { color: var(--ink); font-weight: 650; }
tbody th { white-space: nowrap; }
th:last-child, td:last-child { padding-right: 6px; }
table.prose th, table.prose td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 3.2em; }
tr.group > th { font-weight: 650; padding-top: 18px; border-bottom-color: var(--rule); }
tr.strong > * { font-weight: 650; }
.best { background: var(--best); font-weight: 650; padding: 1px 5px; margin: 0 -5px; border-radius: 3px; }
details { margin-top: 14px; }
summary { cursor: pointer; color: var(--faint); font-size: 13.5px; }
summary:hover { color: var(--ink); }
details > .scroll { margin-top: 10px; }

.definition th + *, .definition td + * { padding-left: 8px; }
.definition th, .definition td, .unbroken { white-space: nowrap; }
.definition .value { font-size: 34px; line-height: 1.15; font-weight: 600; letter-spacing: -0.02em;
  margin: 2px 0 10px; }
.definition .value small { font-size: 14px; font-weight: 400; letter-spacing: 0; color: var(--faint); }
.definition > svg { width: 100%; height: 8px; margin-bottom: 8px; }
.definition p.counts { font-size: 13.5px; margin-top: 12px; color: var(--faint); }
.swatch { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 7px; }

svg { display: block; max-width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--ink); }
svg text.faint { fill: var(--faint); }
svg text.title { font-size: 13.5px; font-weight: 650; }
svg .grid, svg .hair { stroke: var(--hair); stroke-width: 1; }
svg .reference { stroke: var(--reference); stroke-width: 1.5; }
svg .reach { stroke-width: 2; opacity: 0.38; }
svg .curve { stroke-width: 1.4; opacity: 0.75; }
.part0 { fill: var(--run0); background: var(--run0); }
.part1 { fill: var(--run1); background: var(--run1); }
.part2 { fill: var(--faint); background: var(--faint); }

.runs { display: flex; flex-wrap: wrap; gap: 6px 24px; list-style: none; margin: 0 0 18px; padding: 0;
  font-size: 14px; }
.runs li { display: flex; align-items: baseline; gap: 7px; overflow-wrap: anywhere; }
.runs svg { flex: none; align-self: center; }
.runs .reference { display: inline-block; width: 2px; height: 13px; background: var(--reference); align-self: center; }

.pair { margin-top: 34px; }
.pair img { display: block; width: 100%; height: auto; border-radius: 5px; background: #0d1117; }
.pair .views { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)) 108px; gap: 12px; margin-top: 10px; }
.pair .views svg { margin-bottom: 16px; }
.pair figcaption { margin: 4px 0 0; }
.pair .views > div { display: flex; flex-direction: column; justify-content: space-between; }
.pair p { margin: 0; max-width: none; font-size: 13.5px; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 16px 30px; align-items: center; font-size: 13.5px; color: var(--faint); }
.legend img { display: block; width: 84px; height: 84px; }
.legend > div { display: flex; gap: 14px; align-items: center; max-width: 46ch; }
.legend ul { list-style: none; margin: 0; padding: 0; }
footer { margin-top: 60px; padding-top: 12px; border-top: 1px solid var(--hair); font-size: 13px; color: var(--faint); }

@media screen and (max-width: 1080px) {
  .columns, .columns.three { grid-template-columns: minmax(0, 1fr); }
  .columns.panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .pair .views { grid-template-columns: repeat(3, minmax(0, 1fr)) 64px; gap: 8px; }
}
@media screen and (max-width: 760px) {
  .blocks th + *, .blocks td + * { padding-left: 16px; }
  main { padding: 24px 18px 48px; } section { margin-top: 40px; }
}
@page { size: landscape; margin: 12mm; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --hair: #ddd; --rule: #999; --warn-paper: #fff; --best: #eee; }
  main { max-width: none; padding: 0; zoom: 0.83; } nav, details:not([open]) { display: none; }
  .scroll { overflow: visible; }
  .columns, .pair, .blocks > *, tr { break-inside: avoid; } h2, h3, .lead, .runs, caption { break-after: avoid; }
  section { margin-top: 28px; }
  .warning, .best, .swatch, img { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
_STYLE += "\n".join(
    f"svg .run{k} {{ fill: var(--run{k}); }} svg line.run{k} {{ stroke: var(--run{k}); }}"
    for k in range(MARKS)
)


class Section(Markup):
    """A part of the page that can be linked to by its name."""

    name: str
    title: str


def section(name: str, title: str, *body: Content) -> Section:
    made = Section(tag("section", tag("h2", title), *body, id=name))
    made.name, made.title = name, title
    return made


def document(title: str, header: Content, sections: Sequence[Section], footer: str) -> Markup:
    """A whole HTML file. title: plain text, also the heading; header: what comes between it and the sections"""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(_STYLE)),
    )
    body = tag(
        "main",
        tag("header", tag("p", "Scene flow evaluation", class_="kicker"), tag("h1", title), header),
        tag("nav", [tag("a", one.title, href=f"#{one.name}") for one in sections], aria_label="Sections"),
        sections,
        tag("footer", footer),
    )
    return join(Markup("<!DOCTYPE html>\n"), tag("html", head, tag("body", body), lang="en-GB"))


def table(
    heading: Sequence[Content],
    rows: Sequence[Sequence[Content] | Markup],
    *,
    caption: str = "",
    over: Sequence[tuple[str, int]] = (),
    class_: str | None = None,
) -> Markup:
    """The first cell of each row names it. A row that is Markup already goes in as it is.

    over:   what heads several columns at once, and how many
    class_: "prose" for words rather than numbers
    """
    spanning = [
        tag("th", text, colspan=columns, scope="colgroup") if text else tag("td", colspan=columns)
        for text, columns in over
    ]
    head = tag(
        "thead",
        tag("tr", spanning, class_="over") if over else None,
        tag("tr", [tag("th", cell, scope="col") for cell in heading]),
    )
    body = tag("tbody", [row if isinstance(row, Markup) else table_row(row) for row in rows])
    described = tag("caption", caption) if caption else None
    return tag("div", tag("table", described, head, body, class_=class_), class_="scroll")


def table_row(cells: Sequence[Content], *, class_: str | None = None) -> Markup:
    name, *others = cells
    return tag("tr", tag("th", name, scope="row"), [tag("td", cell) for cell in others], class_=class_)


def group_row(title: str, columns: int) -> Markup:
    """A row that heads those below it."""
    return tag("tr", tag("th", title, scope="rowgroup", colspan=columns), class_="group")


def facts(named: Sequence[tuple[str, Content]]) -> Markup:
    """Short facts beside each other, each below its name."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in named], class_="facts")


def folded(summary: str, *content: Content) -> Markup:
    """What a click shows."""
    return tag("details", tag("summary", summary), *content)


def warning(title: str, *body: Content) -> Markup:
    return tag("div", tag("h2", title), *body, class_="warning", role="note")


def write_page(path: Path, page: Markup) -> None:
    """Write the file, complete or not at all.

    Raises:
        ZeroFlowError: the file system refuses.
    """
    with new_file(path, "wb") as file:
        file.write(page.encode(errors="replace"))  # names of files may hold anything
