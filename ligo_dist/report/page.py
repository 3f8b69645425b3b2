"""A report as one HTML page that needs nothing else: no network, no script, the picture within."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from ligo_dist import __version__

from .cases import Case
from .report import Report
from .tables import Table, tables

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.dim { opacity: .7; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; white-space: nowrap; vertical-align: bottom; }
th { font-weight: normal; opacity: .7; border-bottom: 1px solid; }
.name { text-align: left; }
tbody tr:hover { background: rgba(128, 128, 128, .15); }
figure { margin: 1rem 0; background: white; border-radius: .5rem; padding: .75rem; }
img { width: 100%; height: auto; display: block; }
figcaption { color: #444; font-size: .9rem; padding-top: .5rem; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%; border: 1px solid #8888; }
li { margin: .3rem 0; }
dt { font-weight: bold; }
"""

_CAPTION = (
    "Validation loss of each target. Thick: the mean over the seeds; thin: each seed, and what trained its source."
    " Circles: just grown; dotted: from the source to there. Diamonds, on the line of the baseline's final loss: where"
    " it is reached, and what is saved."
)

_MEANING = """
<dl>
<dt>saved</dt>
<dd>1 &minus; <i>needed</i> / <i>baseline</i>: what the run needed to reach the baseline's final validation loss, as a
part of what the baseline needed. It is stated only where the run's curve crosses that loss between two evaluations;
negative where more was needed.</dd>
<dt>source excluded, included</dt>
<dd>Excluded: counted from where the target begins; learning to grow and growing are in it. Included: with all that
trained the model that was grown. What the baseline spent is counted whole either way.</dd>
<dt>reached</dt>
<dd>Where the falling curve through the evaluations (the non-increasing one nearest to them) meets the loss, linear
between evaluations: one lucky evaluation reaches nothing.</dd>
<dt>&plusmn;</dt>
<dd>Over runs that differ by their seed alone: the mean, and half of the range. Each is held against the baseline of its
own seed, where there are several.</dd>
<dt>time</dt>
<dd>Of optimizer steps, their evaluations and growing; pauses between an end and a resumption are not in it.</dd>
</dl>
"""


def make_page(report: Report, picture: bytes, colours: dict[str, str]) -> str:
    """The page.

    Args:
        report: what it says.
        picture: a PNG file.
        colours: of the groups in it, by label.
    """
    against = f", held against {report.baseline.label}" if report.baseline else ""
    count = len(report.members)
    summary = f"{count} {'run' if count == 1 else 'runs'}{against}"
    verdicts = "".join(_verdict(case, colours[case.label]) for case in report.cases)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    body = [
        "<h1>Loss against compute</h1>",
        f'<p class="dim">{escape(summary)}</p>',
        f"<ul>{verdicts}</ul>",
        f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
        f'<figure><img alt="validation loss against FLOPs and time" src="{_inline(picture)}">',
        f"<figcaption>{_CAPTION}</figcaption></figure>",
        *(_table(table) for table in tables(report)),
        "<h2>What the numbers are</h2>",
        _MEANING,
        f'<p class="dim">ligo_dist {__version__}; all numbers are in report.json beside this page.</p>',
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Loss against compute</title><style>{_STYLE}</style>"
    )
    lines = "\n".join(line for line in body if line)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{lines}\n</body></html>\n'


def _verdict(case: Case, colour: str) -> str:
    swatch = f'<span class="swatch" style="background: {colour}"></span>'
    said = f": {escape(case.verdict)}" if case.verdict else ""
    return f"<li>{swatch} <b>{escape(case.label)}</b>{said}</li>"


def _table(table: Table) -> str:
    heads = _row("th", [head.replace("\n", " ") for head in table.heads], table.num_names)
    rows = "".join(_row("td", row, table.num_names) for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="table"><table><thead>{heads}</thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(tag: str, words: Sequence[str], num_names: int) -> str:
    names = "".join(f'<{tag} class="name">{escape(word)}</{tag}>' for word in words[:num_names])
    numbers = "".join(f"<{tag}>{escape(word)}</{tag}>" for word in words[num_names:])
    return f"<tr>{names}{numbers}</tr>\n"


def _inline(picture: bytes) -> str:
    return f"data:image/png;base64,{b64encode(picture).decode('ascii')}"
