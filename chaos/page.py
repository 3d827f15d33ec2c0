"""A drill's report as one self-contained page: no scripts, nothing from elsewhere, everything escaped.

In the order of an on-call engineer's questions: what broke, who noticed, when the traffic moved, how that compares
with the computed bound; then the evidence.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence

from chaos import lanes, picture
from chaos.history import History
from chaos.page_style import STYLE
from chaos.report import Failover, Outage, Report
from chaos.svg import Canvas, text
from chaos.timeline import BAD, GOOD, broke_bounds, causes, clock, phases, timeline

CLOSE_UPS = 3  # incidents that are drawn from close by
BARS_SHOWN = 12
EVENTS_SHOWN = 1000
LINES_SHOWN = 20  # of an invariant's violations and notes

Cell = str | tuple[str, str]  # text, or (class, text)


def page(report: Report, history: History, again: str) -> str:
    """HTML 5. again: the command that repeats the drill."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    body = "".join(
        (
            _head(report, history, again),
            _facts(report, history),
            _close_ups(report, history),
            _whole(history),
            _bars(report.failovers, broke_bounds(report)),
            _verdicts(report),
            _clients(report.outages),
            _events(history),
        )
    )
    word = "passed" if report.passed else "failed"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(report.scenario)}: drill {word}</title><style>{STYLE}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )


def _head(report: Report, history: History, again: str) -> str:
    word = "passed" if report.passed else "failed"
    facts = [
        f"world {report.world}",
        f"seed {report.seed}",
        f"{_long(report.duration_s)} played in {report.took_s:.1f} s",
    ]
    facts += [f"cluster {history.config.cluster}", _when(report.began), f"history {report.history_sha256[:16]}"]
    stopped = f'<p class="bad">Stopped: {text(report.stopped)}</p>' if report.stopped else ""
    left = f'<p class="bad">Not healed: {text("; ".join(report.left))}</p>' if report.left else ""
    return (
        f'<header><div class="top"><h1>{text(report.scenario)}</h1>'
        f'<span class="badge {word}">{word.upper()}</span></div><p>{text(report.about)}</p>{stopped}{left}'
        f'<p class="meta">{text(" · ".join(fact for fact in facts if fact))}</p>'
        f'<p class="meta">Again: <code>{text(again)}</code></p></header>'
    )


def _facts(report: Report, history: History) -> str:
    """Four boxes: what broke, who noticed, when the traffic moved, what clients had."""
    boxes = [_broke(history)]
    worst = max(report.failovers, key=lambda f: (f.outage_s or 0.0, -f.at_s), default=None)
    if worst is not None:
        boxes += [*_moved(worst, history), _out(worst, broke_bounds(report))]
    else:
        moves = len(lanes.decisions(history))
        boxes.append(_fact("Traffic", "was not forced to move", f"{moves} other decisions" if moves else "no decision"))
        longest = max((o for o in report.outages if o.resolver == "keeps"), key=lambda o: o.longest_s, default=None)
        if longest is not None and longest.failed:
            where = f"the longest outage: {longest.service} in {longest.region}"
            boxes.append(_fact("Clients", f"{longest.longest_s:.1f} s", where))
        elif longest is not None:
            boxes.append(_fact("Clients", "no request failed", "with resolvers that keep TTLs"))
    others = f'<p class="meta">{len(report.failovers)} failovers; told here is the one with the longest outage.</p>'
    return f'<div class="facts">{"".join(boxes)}</div>{others if len(report.failovers) > 1 else ""}'


def _broke(history: History) -> str:
    faults = lanes.faults(history)
    if not faults:
        return _fact("What broke", "nothing", "")
    first = faults[0]
    end = clock(first.end) if first.end < history.duration_s else "the end"
    since = f"at {clock(first.start)}" + (f", until {end}" if first.end > first.start else "")
    return _fact("What broke", first.value, since + (f"; and {len(faults) - 1} more" if len(faults) > 1 else ""))


def _moved(failover: Failover, history: History) -> Iterator[str]:
    mark = lanes.decision_of(history, failover)
    seen = causes(mark.decision)[:1] if mark else []
    reason = seen[0].reason.partition("; ")[2] or seen[0].reason if seen else ""
    took = "?" if failover.detect_s is None else f"{failover.detect_s:.1f} s"
    yield _fact("Noticed", f"after {took}", reason)
    change = mark.change if mark else ""
    arrived = "" if failover.apply_s is None else f"every name server {failover.apply_s:.1f} s later"
    more = ", ".join(part for part in (change, arrived) if part)
    yield _fact("Traffic moved", f"{failover.service} at {clock(failover.at_s)}", more)


def _out(failover: Failover, broken: bool) -> str:
    """What clients had, beside the bound."""
    most_s, outage_s = failover.worst_case_s, failover.outage_s
    if outage_s is None:
        return _fact("Clients", "?", f"of at most {most_s:.1f} s computed")
    word = f"{outage_s:.1f} s"
    if outage_s <= most_s:
        return _fact("Clients out for", word, f"of at most {most_s:.1f} s computed, {outage_s / most_s:.0%}")
    if broken:
        return _fact("Clients out for", word, f"longer than the computed bound of {most_s:.1f} s", "bad")
    return _fact("Clients out for", word, f"more than {most_s:.1f} s, the bound for one accident alone", "over")


def _fact(what: str, fact: str, more: str, kind: str = "plain") -> str:
    return (
        f'<div class="fact"><span class="what">{text(what)}</span><b class="{kind}">{text(fact)}</b>'
        f"<span>{text(more)}</span></div>"
    )


def _close_ups(report: Report, history: History) -> str:
    parts = []
    groups = lanes.incidents(report.failovers)
    for number, group in enumerate(groups[:CLOSE_UPS]):
        worst, others = group[0], group[1:]
        names = sorted({f.service for f in others} - {worst.service})
        more = f' <span class="dim">(and {text(", ".join(names))})</span>' if names else ""
        title = f"{text(worst.service)} leaves {text(worst.left)} at {clock(worst.at_s)}{more}"
        drawn = picture.close_up(history, worst, number)
        parts.append(f"<h2>{title}</h2>{_legend(history)}<figure>{drawn}</figure>")
    if len(groups) > CLOSE_UPS:
        parts.append(f'<p class="dim">{len(groups) - CLOSE_UPS} more incidents: see below.</p>')
    return "".join(parts)


def _whole(history: History) -> str:
    return f"<h2>The whole drill</h2>{_legend(history)}<figure>{picture.overview(history)}</figure>"


def _legend(history: History) -> str:
    canvas = Canvas("", picture.WIDE, 0, 0.0, 1.0, picture.sites_of(history))
    keys = [(f"site{number}", site) for site, number in canvas.colour.items()]
    keys += [("error", "requests or probes fail"), ("nobody", "silent, or out of reach")]
    keys += [("forced", "forced decision"), ("decided", "other decision")]
    items = "".join(f'<span><i class="key {kind}"></i>{text(word)}</span>' for kind, word in keys)
    return f'<div class="legend">{items}</div>'


def _bars(failovers: Sequence[Failover], broken: bool) -> str:
    """Measured phases beside the computed ones, on one scale; then the same as a table."""
    if not failovers:
        return ""
    shown = sorted(failovers, key=lambda f: -(f.outage_s or 0.0) / f.worst_case_s if f.worst_case_s else 0.0)[
        :BARS_SHOWN
    ]
    longest = max(max(f.worst_case_s, f.outage_s or 0.0, sum(t or 0.0 for _, t, _ in phases(f))) for f in shown)

    def draw(name: str, width: int, gutter: int) -> str:
        canvas = Canvas(f"bars-{name}", width, gutter, 0.0, longest * 1.02, ())
        canvas.axis(lambda at: f"{at:g} s")
        for failover in shown:
            canvas.title(f"{failover.service} leaves {failover.left}, {clock(failover.at_s)}")
            picture.measured(canvas, failover, 0.0, (failover.detect_s or 0.0) + (failover.decide_s or 0.0))
        about = " ".join(f"{f.service}: {picture.summary(f)}" for f in shown)
        return canvas.svg("wide" if gutter else "narrow", "Measured phases beside the computed bound", about)

    drawn = f"<figure>{picture.both(draw)}</figure>" if len(failovers) > 1 else ""  # one is drawn from close by
    rows = []
    for f in failovers:
        cells: list[Cell] = [f.service, f.left, ("n", "?" if f.fault_at_s is None else clock(f.fault_at_s))]
        cells.append(("n", clock(f.at_s)))
        cells += [_beside(took, most, broken) for _, took, most in phases(f)]
        rows.append([*cells, _beside(f.outage_s, f.worst_case_s, broken)])
    head = ("service", "left", ":fault", ":decided", ":detect", ":decide", ":apply", ":TTL", ":outage")
    return (
        f"<h2>Failovers: measured beside computed</h2>{drawn}"
        f'<p class="dim">Seconds, measured / at most. The bound is the worst case: everything dies at once, a moment '
        f"after the last good check; it holds for resolvers that keep TTLs.</p>{_table(head, rows)}"
    )


def _beside(measured_s: float | None, bound_s: float, broken: bool) -> Cell:
    """broken: a bound was broken that should have held."""
    word = "?" if measured_s is None else f"{measured_s:.1f}"
    longer = measured_s is not None and measured_s > bound_s
    return (f"n {'bad' if broken else 'over'}" if longer else "n", f"{word} / {bound_s:.1f}")


def _verdicts(report: Report) -> str:
    met: list[Sequence[Cell]] = [[_mark(m.passed), ("long", m.text), ("long", m.detail)] for m in report.expectations]
    kept: list[Sequence[Cell]] = [
        [_mark(i.passed), i.name, ("n", f"{i.checked:,}"), ("long", "; ".join((*i.violations, *i.notes)[:LINES_SHOWN]))]
        for i in report.invariants
    ]
    expected = f"<h2>Expectations</h2>{_table(('', 'expected', 'found'), met)}" if met else ""
    head = ("", "invariant", ":checked", "violations and notes")
    return expected + (f"<h2>Invariants</h2>{_table(head, kept)}" if kept else "")


def _mark(good: bool) -> Cell:
    return ("mark good", "✔") if good else ("mark bad", "✖ broken")


def _clients(outages: Sequence[Outage]) -> str:
    if not outages:
        return ""
    rows: list[Sequence[Cell]] = []
    for o in outages:
        began = "" if o.began_s is None else clock(o.began_s)
        longest = ("n", f"{o.longest_s:.1f} s" if o.failed else "none")
        counts: list[Cell] = [("n", f"{o.requests:,}"), ("n", f"{o.failed:,}")]
        rows.append([o.service, o.region, _RESOLVERS.get(o.resolver, o.resolver), *counts, longest, ("n", began)])
    head = ("service", "region", "resolver", ":requests", ":failed", ":longest outage", ":began")
    return f"<h2>Clients</h2>{_table(head, rows)}"


_RESOLVERS = {"keeps": "keeps TTLs", "stretch": "stretches TTLs", "stale": "serves stale answers"}


def _events(history: History) -> str:
    found = timeline(history)
    tones = {BAD: "long bad", GOOD: "long good"}
    rows: list[Sequence[Cell]] = [[("t", clock(e.at)), e.kind, (tones.get(e.tone, "long"), e.text)] for e in found]
    cut = f'<p class="dim">{len(rows) - EVENTS_SHOWN} more are left out.</p>' if len(rows) > EVENTS_SHOWN else ""
    return f"<h2>Timeline</h2>{_table(('time', 'what', ''), rows[:EVENTS_SHOWN])}{cut}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """head: ":word" for a column of numbers."""
    top = "".join(f"<th{' class=n' if h.startswith(':') else ''}>{text(h.removeprefix(':'))}</th>" for h in head)
    body = []
    for row in rows:
        cells = [("", cell) if isinstance(cell, str) else cell for cell in row]
        body.append(
            "".join(f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{text(w)}</td>" for kind, w in cells)
        )
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _when(iso: str) -> str:
    """ "2026-03-02 03:14:03 UTC", of a time in UTC; as it is, if it is none."""
    return f"{iso[:10]} {iso[11:19]} UTC" if iso.endswith(("Z", "+00:00")) else iso


def _long(duration_s: float) -> str:
    return f"{duration_s / 60:g} min" if duration_s >= 60 else f"{duration_s:g} s"
