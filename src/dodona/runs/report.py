"""One self-contained report.html: opens by double click, offline, in ten years.

Everything it shows comes from the run's folder: events, result, configuration, artifacts. Plotly's
JavaScript is inlined once from the installed package.
"""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dodona.errors import DataError
from dodona.runs.events import read_events
from dodona.runs.folder import RunFolder, write_atomically

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5d666f; --paper: #fdfdfc; --card: #f3f4f2;
  --line: #dcdfdc; --good: #00734f; --bad: #b3400a; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa3ab; --paper: #15181b;
  --card: #1e2226; --line: #333a40; --good: #3ecf9a; --bad: #ff8a4d; --accent: #6cb8ee; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; } h2 { font-size: 20px; margin: 44px 0 12px; }
.claim { font-size: 18px; color: var(--soft); margin: 0 0 24px; max-width: 46em; }
.verdict { display: inline-block; padding: 3px 12px; border-radius: 14px; font-weight: 600;
  border: 1.5px solid currentColor; margin-bottom: 20px; }
.pass { color: var(--good); } .miss { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
figure { margin: 28px 0; } code, pre { font: 13.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre { background: var(--card); padding: 12px 14px; border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--accent); }
footer { color: var(--soft); font-size: 13.5px; margin-top: 48px; }
@media print { main { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""


def write_report(folder: RunFolder, recipe: Any) -> Path:
    """Write report.html of a run.

    Args:
        recipe: the recipe module; its docstring's first line is the claim, its ``figures`` the pictures.
    Returns: the path of the report.
    Raises: DataError: the run is not finished, or one of its files is damaged.
    """
    result, events = _result(folder), read_events(folder)
    claim = (recipe.__doc__ or "").strip().splitlines()[0]
    rows = result["rows"]
    missed = sum(row["verdict"] != "pass" for row in rows)
    verdict = (
        "every expectation met" if not missed else f"{missed} of {len(rows)} expectations missed"
    )
    settings = [[k, _show(v)] for k, v in folder.config.items()]
    settings += [[f"{x['field']}: sha256 of {x['file']}", x["sha256"]] for x in folder.inputs]
    parts = [
        f"<h1>{html.escape(folder.recipe)}</h1><p class='claim'>{html.escape(claim)}</p>",
        f"<div class='verdict {'miss' if missed else 'pass'}'>{verdict}</div>",
        table(
            ["what", "measured", "expected", "verdict"],
            [[r["name"], _show(r["measured"]), r["expected"], r["verdict"]] for r in rows],
        ),
        figures_html(recipe.figures(events, folder.artifacts)),
        "<h2>Reproduce</h2>",
        f"<pre>{html.escape((folder.path / 'command.txt').read_text().strip())}</pre>",
        details("Configuration", table(["field", "value"], settings)),
        details(
            "Environment",
            f"<pre>{html.escape(json.dumps(folder.read('environment.json'), indent=2))}</pre>",
        ),
        f"<footer>{len(events)} events in {result['seconds']:.1f} s, seed {result['seed']}. "
        "The numbers are in events.jsonl and result.json beside this file.</footer>",
    ]
    path = folder.path / "report.html"
    write_atomically(path, page(folder.recipe, "\n".join(parts)).encode())
    return path


def write_comparison(first: RunFolder, second: RunFolder) -> Path:
    """Write comparison.html into the second run: differences of configuration and of results.

    Raises: DataError: a run is not finished, or one of its files is damaged.
    """
    configs = [f.config for f in (first, second)]
    results = [{r["name"]: r for r in _result(f)["rows"]} for f in (first, second)]
    different = [
        [k, _show(configs[0].get(k, "-")), _show(configs[1].get(k, "-"))]
        for k in sorted({*configs[0], *configs[1]})
        if configs[0].get(k) != configs[1].get(k)
    ]
    rows = []
    for name in dict.fromkeys([*results[0], *results[1]]):
        a, b = (r.get(name, {}).get("measured") for r in results)
        change = (
            f"{b - a:+.4g}" if isinstance(a, (int, float)) and isinstance(b, (int, float)) else ""
        )
        rows.append([name, _show(a), _show(b), change])
    parts = [
        "<h1>Two runs</h1>",
        f"<p class='claim'>{html.escape(first.path.name)} against {html.escape(second.path.name)}</p>",
        "<h2>Configuration</h2>",
        table(["field", "first", "second"], different) if different else "<p>The same.</p>",
        "<h2>Results</h2>",
        table(["what", "first", "second", "difference"], rows),
    ]
    path = second.path / "comparison.html"
    write_atomically(path, page("Two runs", "\n".join(parts), plot=False).encode())
    return path


def figures_html(figures: Mapping[str, Any]) -> str:
    parts = []
    for name, figure in figures.items():
        spec, key = _in_script(figure.to_json()), _in_script(json.dumps(name))
        label = html.escape(name, quote=True)
        parts.append(
            f"<figure id='{label}' aria-label='{label}'></figure>"
            f"<script>Plotly.newPlot({key}, ...(f => [f.data, f.layout])({spec}), "
            "{responsive: true, displaylogo: false}).then(g => {const f = "
            f"{spec}.frames; if (f) Plotly.addFrames(g, f)}})</script>"
            if figure.frames
            else f"<figure id='{label}' aria-label='{label}'></figure>"
            f"<script>(f => Plotly.newPlot({key}, f.data, f.layout, "
            f"{{responsive: true, displaylogo: false}}))({spec})</script>"
        )
    return "\n".join(parts)


def page(title: str, body: str, *, plot: bool = True) -> str:
    script = ""
    if plot:
        from plotly.offline import get_plotlyjs

        script = f"<script>{get_plotlyjs()}</script>"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)} · dodona</title><style>{STYLE}</style>{script}</head>"
        f"<body><main>{body}</main></body></html>"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = []
    for row in rows:
        line = "".join(
            f"<td class='{cell}'>{cell}</td>"
            if cell in ("pass", "miss")
            else f"<td>{html.escape(cell)}</td>"
            for cell in row
        )
        lines.append(f"<tr>{line}</tr>")
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"


def _in_script(text: str) -> str:
    """JSON without "<", so that no text in it can end the script it stands in."""
    return text.replace("<", "\\u003c")


def _result(folder: RunFolder) -> dict[str, Any]:
    if not (folder.path / "result.json").exists():
        raise DataError(
            f"the run {folder.path} is not finished: it has no result.json. Finish it first: "
            f"dodona resume {folder.path}"
        )
    result = folder.read("result.json")
    missing = {"rows", "seconds", "seed"} - (set(result) if isinstance(result, dict) else set())
    if missing:
        raise DataError(
            f"{folder.path / 'result.json'} is damaged: it has no {', '.join(sorted(missing))}. "
            f"Write it again: dodona resume {folder.path}"
        )
    return result


def _show(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
