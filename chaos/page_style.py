"""The style of a drill's page: light and dark, narrow and wide, on paper. Nothing is said by a colour alone."""

from __future__ import annotations

# Colours of sites: told apart by people who see no red or no green too (checked as pairs, light and dark).
_SITES_LIGHT = ("#2f6fb7", "#a86200", "#0b7f6b", "#7d4cb0", "#5d6b00", "#a33f72", "#46627f", "#6d5a4a")
_SITES_DARK = ("#6ea8f0", "#efb04e", "#3fc3ab", "#bb92ea", "#b9c94f", "#e58db6", "#9fb6cd", "#c9b5a3")


def _names(colours: tuple[str, ...]) -> str:
    return "".join(f"--s{n}:{colour};" for n, colour in enumerate(colours))


LIGHT = (
    "--ground:#fff;--panel:#f5f7f9;--ink:#191f25;--dim:#56616c;--line:#d5dbe1;--grid:#e6eaee;--bad:#bd2424;"
    "--bad-in:#fff;--stripe:#fff7;--good:#176f42;--warn:#8a5800;--nobody:#c9d0d7;--well:#cfe3d6;--leader:#dfe4ea;"
    "--p-detect:#3d3577;--p-decide:#191f25;--p-apply:#6a5fc0;--p-ttl:#b3abea;--p-ttl-in:#191f25;--on:#fff;"
    + _names(_SITES_LIGHT)
)
DARK = (
    "--ground:#12161a;--panel:#1a2026;--ink:#e7ebef;--dim:#9eabb7;--line:#35404a;--grid:#242c34;--bad:#ff7468;"
    "--bad-in:#1c0604;--stripe:#0005;--good:#52cf92;--warn:#f2b950;--nobody:#4a545e;--well:#26493a;--leader:#2f3943;"
    "--p-detect:#cfc8ff;--p-decide:#fff;--p-apply:#9087e0;--p-ttl:#584fa0;--p-ttl-in:#fff;--on:#10151a;"
    + _names(_SITES_DARK)
)
_SITE_RULES = "".join(f".site{n}{{fill:var(--s{n})}}.key.site{n}{{background:var(--s{n})}}" for n in range(8))

STYLE = (
    f":root{{color-scheme:light dark;{LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}"
    f"@media print{{:root{{color-scheme:light;{LIGHT}}}}}"
    + """
*{box-sizing:border-box}
body{margin:0 auto;padding:24px 20px 48px;max-width:1120px;background:var(--ground);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
h1{font-size:26px;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:36px 0 8px}
h3{font-size:15px;margin:20px 0 4px}
p{margin:6px 0;max-width:80ch}
.top{display:flex;gap:14px;align-items:center;flex-wrap:wrap}
.badge{font-weight:700;letter-spacing:.04em;padding:3px 12px;border-radius:4px;border:2px solid}
.passed{color:var(--good)}.failed{color:var(--bad)}
.dim,.meta{color:var(--dim)}.meta{font-size:13px;overflow-wrap:anywhere}
code{font:13px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(205px,1fr));gap:12px;margin:20px 0 8px;padding:0}
.fact{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:10px 14px;break-inside:avoid}
.fact b{display:block;font-size:19px;line-height:1.3;overflow-wrap:anywhere}
.fact span{display:block;font-size:13px;color:var(--dim);overflow-wrap:anywhere}
.fact .what{text-transform:uppercase;font-size:11px;letter-spacing:.06em}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:left;font-weight:600;color:var(--dim);font-size:12px}
th,td{padding:4px 14px 4px 0;vertical-align:top;border-bottom:1px solid var(--grid)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td{white-space:nowrap}td.mark,th.mark{width:1%}td.t{font-variant-numeric:tabular-nums;color:var(--dim)}
td.long{white-space:normal;overflow-wrap:anywhere;min-width:13em}
tr{break-inside:avoid}
.bad{color:var(--bad)}b.bad,td.n.bad{font-weight:600}.over{color:var(--warn)}.good{color:var(--good)}
ul.wrong{margin:2px 0;padding-left:18px;overflow-wrap:anywhere}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--dim);margin:4px 0 8px}
.key{display:inline-block;width:13px;height:13px;border-radius:2px;vertical-align:-2px;margin-right:5px}
.key.error{background:repeating-linear-gradient(45deg,var(--bad) 0 3px,var(--ground) 3px 5px)}
.key.nobody{background:var(--nobody)}.key.forced{background:var(--bad);transform:rotate(45deg) scale(.75)}
.key.decided{border:2px solid var(--dim);transform:rotate(45deg) scale(.75)}
figure{margin:0 0 8px;break-inside:avoid}
svg{display:block;width:100%;height:auto;font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
svg.narrow{display:none}
@media screen and (max-width:640px){svg.wide{display:none}svg.narrow{display:block}body{padding:16px 12px 32px}
 h1{font-size:22px}}
@media print{body{padding:0;font-size:12px}.facts{grid-template-columns:repeat(4,1fr)}
 .scroll{overflow:visible}h2{break-after:avoid}}
svg text{fill:var(--ink)}
svg text.tick{fill:var(--dim);font-variant-numeric:tabular-nums}.mid{text-anchor:middle}.end{text-anchor:end}
svg text.name{text-anchor:end;fill:var(--dim)}svg text.above{fill:var(--dim)}
svg text.head{font-weight:600;font-size:12px}
.grid{stroke:var(--grid)}
.at-fault{stroke:var(--bad)}.at-decision{stroke:var(--ink)}.at-fault,.at-decision{stroke-dasharray:3 3}
.fault{fill:var(--bad);opacity:.88}.error{fill:var(--bad)}.stripe{fill:var(--stripe)}
svg text.fault-in,svg text.error-in{fill:var(--bad-in)}
svg text.error-in{paint-order:stroke;stroke:var(--bad);stroke-width:4px;stroke-linejoin:round}
.leader{fill:var(--leader);stroke:var(--ground)}.nobody{fill:var(--nobody)}.well{fill:var(--well)}
.empty{fill:none;stroke:var(--bad);stroke-dasharray:3 2}.deed{fill:var(--dim)}
.decided{fill:var(--ground);stroke:var(--ink);stroke-width:1.5}.decided.forced{fill:var(--bad);stroke:var(--bad)}
.detect{fill:var(--p-detect)}.decide{fill:var(--p-decide)}.apply{fill:var(--p-apply)}.ttl{fill:var(--p-ttl)}
.most{fill:none;stroke-width:1.5}.detect.most{stroke:var(--p-detect)}.decide.most{stroke:var(--p-decide)}
.apply.most{stroke:var(--p-apply)}.ttl.most{stroke:var(--p-ttl)}
svg text.detect-in,svg text.decide-in,svg text.apply-in{fill:var(--on)}svg text.ttl-in{fill:var(--p-ttl-in)}
"""
    + _SITE_RULES
    + "".join(f"svg text.site{n}-in{{fill:var(--on)}}" for n in range(8))
)
