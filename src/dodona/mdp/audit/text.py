"""An audit in words: one sentence per finding, then the policies in a table. Nothing is computed here.

Not here: the records (report.py), pictures and HTML (dodona.audit_page).
Source: see audit.py.
"""

import textwrap

import numpy as np

from dodona.mdp.audit.report import Attainment, AuditReport

WIDTH = 100  # columns of the report
TOPIC = 12  # columns of a topic, blanks included
SAME = 1e-9  # relative: returns closer than this are one number to a reader


def report_text(report: AuditReport) -> str:
    """Headline, findings, table of policies, sizes."""
    lines = [f"{report.env_id}: {headline(report)}", ""]
    for topic, sentence in findings(report):
        lines += textwrap.wrap(
            sentence,
            WIDTH,
            initial_indent=f"{topic:<{TOPIC}}",
            subsequent_indent=" " * TOPIC,
        )
    head, rows = policy_table(report)
    return "\n".join(
        [*lines, "", *_aligned([head, *rows]), "", *textwrap.wrap(sizes(report), WIDTH)]
    )


def headline(report: AuditReport) -> str:
    """The one thing to know, without the name of the environment."""
    judged = decisive(report)
    if judged is not None:
        said = {True: "can be reached", False: "is out of reach", None: "is the optimum itself"}
        optimum = (
            f"the optimum{_within(report)} is {number(report.threshold + judged.margin.middle)}"
        )
        return f"the threshold {number(report.threshold)} {said[judged.reached]}, {optimum}"
    if report.optimum is not None:
        discount = "" if report.gamma == 1.0 else f" at gamma {report.gamma:g}"
        return f"the optimum{discount} is {number(report.optimum.middle)}"
    if report.time_aware is not None:
        return f"the optimum{_within(report)} is {number(report.time_aware.earned.middle)}"
    return "without a discount it has no optimum"


def decisive(report: AuditReport) -> Attainment | None:
    """What the registration is about: the limit where there is one."""
    settings = {a.setting: a for a in report.attainments()}
    if report.limit is not None:
        return settings.get("limit, time-aware")
    return settings.get("no limit")


def findings(report: AuditReport) -> list[tuple[str, str]]:
    """(topic, sentence) of every finding, the weightiest first."""
    found = [
        ("optimum", _optimum(report)),
        ("threshold", _threshold(report)),
        ("time limit", _limit(report)),
        ("stationary", _stationary(report)),
        ("loops", _loops(report)),
        ("ties", _ties(report)),
        ("chance", _chance(report)),
    ]
    return [(topic, sentence) for topic, sentence in found if sentence]


def policy_table(report: AuditReport) -> tuple[list[str], list[list[str]]]:
    """(head, rows): every policy played, and the optimum without a limit above them."""
    level, within = report.threshold, report.limit
    fails = any(_differ(p.succeeded, p.ended) for p in report.plays)
    rows = []
    if report.undiscounted_optimum is not None and within is not None:
        middle = report.undiscounted_optimum.middle
        rows.append(
            ["optimum without the limit", _fixed(middle), "", "", "", _margin(middle, level)]
        )
    for p in report.plays:
        earned = None if p.earned is None else p.earned.middle
        rows.append(
            [p.name, _fixed(earned), _fixed(p.succeeded), _fixed(p.ended), _fixed(p.steps, 2), _margin(earned, level)]
        )  # fmt: skip
    unit = "without limit" if within is None else f"within {within} steps"
    head = [f"undiscounted, {unit}", "return", "success", "ended", "steps", ""]
    if level is not None:
        head[-1] = f"against {number(level)}"
    wanted = [0, 1, *([2] if fails else []), 3, 4, *([] if level is None else [5])]
    return [head[i] for i in wanted], [[row[i] for i in wanted] for row in rows]


def sizes(report: AuditReport) -> str:
    """The model in a sentence."""
    n = report.sizes
    low, high = n.actions
    actions = f"{high} actions each" if low == high else f"{low} to {high} actions"
    moves = f"{n.num_pairs} state-action pairs, " + (
        "deterministic" if n.num_transitions == n.num_pairs else f"{n.num_transitions} transitions"
    )
    unseen = n.num_states - n.num_reachable
    return (
        f"{n.num_states} states"
        + (f", {unseen} of them never reached" if unseen else "")
        + f", {n.num_live} with a decision ({actions}); {moves}, {n.num_endings} of them "
        f"{'ends' if n.num_endings == 1 else 'end'} the episode; "
        f"rewards from {number(n.rewards[0])} to {number(n.rewards[1])}."
    )


def place(report: AuditReport, state: int) -> str:
    """A state as people find it: its number, and its cell on a grid."""
    labels = report.mdp.labels
    if labels is not None and labels.states is not None:
        return f"state {state} ({labels.states[state]})"
    if labels is not None and labels.grid is not None:
        row, column = divmod(state, labels.grid[1])
        return f"state {state} (row {row}, column {column})"
    return f"state {state}"


def number(x: float) -> str:
    """Six digits; no minus before a zero."""
    return f"{x + 0.0:.6g}"


# ---------------------------------------------------------------------- findings
def _optimum(report: AuditReport) -> str:
    discount = "undiscounted" if report.gamma == 1.0 else f"at gamma {report.gamma:g}"
    best = report.optimum
    if best is None:
        judged = (
            "so only the limit makes it a task"
            if report.limit is not None
            else "and no limit is registered; audit it with --gamma 0.99"
        )
        return f"There is none without discount: {_why_none(report)}, {judged}."
    width = best.upper - best.lower
    if not np.isfinite(width):
        return (
            f"The best policy that ends earns at least {number(best.middle)} {discount}; no upper bound "
            "could be proven, so one that never ends may earn more."
        )
    text = f"{number(best.middle)} {discount}, {_from_where(report)}, proven to within {width:.0e}"
    if report.gamma < 1.0:
        full = report.undiscounted_optimum
        text += "; undiscounted "
        text += f"there is none: {_why_none(report)}" if full is None else number(full.middle)
    return text + "."


def _why_none(report: AuditReport) -> str:
    where = place(report, report.problem_state)
    return {
        "never ends": f"{where} can never end, whatever is done",
        "gains for ever": f"a cycle through {where} gains for ever",
        "better not to end": f"never to end, in {where}, is worth more than to end",
    }[report.problem]


def _from_where(report: AuditReport) -> str:
    starts = np.flatnonzero(report.mdp.start)
    if len(starts) == 1:
        return f"from {place(report, int(starts[0]))}"
    values = report.solution.values[starts]
    return (
        f"the mean over {len(starts)} starts that are worth {number(values.min())} to "
        f"{number(values.max())}"
    )


def _threshold(report: AuditReport) -> str:
    if report.threshold is None:
        return "None is registered."
    level, judged = number(report.threshold), decisive(report)
    if judged is None:
        return (
            f"{level} can not be judged: there is neither an optimum without discount nor a limit."
        )
    size = number(abs(judged.margin.middle))
    free = next((a for a in report.attainments() if a.setting == "no limit"), None)
    if judged.reached is None:
        return f"{level} equals the optimum up to the width of the proof."
    if judged.reached:
        text = f"{level} can be reached: the optimum{_within(report)} is {size} above it"
        still = next((a for a in report.attainments() if a.setting == "limit, stationary"), None)
        if still is not None and still.reached:
            text += f", and a stationary policy stays {number(still.margin.middle)} above"
        elif still is not None:
            text += ", but no stationary policy that was played reaches it"
        if free is not None and free.reached is False:
            text += "; without the limit it can not be reached"
        return text + "."
    if free is not None and free is not judged and free.reached:
        return (
            f"{level} can not be reached{_within(report)}: the optimum is {size} below it; without the "
            f"limit it would be {number(free.margin.middle)} above."
        )
    also = ", nor without the limit" if free is not None and free is not judged else ""
    return f"{level} can not be reached by any policy{_within(report)}{also}: the optimum is {size} below it."


def _limit(report: AuditReport) -> str:
    if report.limit is None:
        return "None is registered: a policy that loops plays for ever."
    aware, free = report.time_aware.earned.middle, report.undiscounted_optimum
    best = f"with {report.limit} steps the optimum is {number(aware)}"
    if free is None:
        return f"{best[0].upper()}{best[1:]}."
    if _same(aware, free.middle):
        return f"{report.limit} steps cost nothing: the optimum stays {number(aware)}."
    cost = free.middle - aware
    if cost > 0:
        return f"It costs {number(cost)}: {best}, without limit {number(free.middle)}."
    return (
        f"It adds {number(-cost)}: {best}, without limit {number(free.middle)}; being cut off is "
        "cheaper than to go on."
    )


def _stationary(report: AuditReport) -> str:
    aware, still = report.time_aware, report.best_stationary
    if aware is None or still is None:
        return ""
    loss = aware.earned.middle - still.earned.middle
    if _same(aware.earned.middle, still.earned.middle):
        return f"A policy that ignores the time left loses nothing: {still.name} earns as much."
    return (
        f"A policy that ignores the time left loses {number(loss)}: the best one found, {still.name}, "
        f"earns {number(still.earned.middle)}."
    )


def _loops(report: AuditReport) -> str:
    loops, live = report.loops, report.sizes.num_live
    if loops.stuck:
        return f"From {loops.stuck} of {live} states the episode can never end."
    if not loops.avoidable:
        return "None: every policy ends."
    if not loops.first_tie:
        text = f"A policy can avoid the end for ever in {loops.avoidable} of {live} states"
        if loops.tied is None:
            return f"{text}."
        if not loops.tied:
            return f"{text}; greedy play ends, whichever of tied actions it takes."
        return (
            f"{text}; greedy play ends with the first of tied actions, others among them can circle for "
            f"ever in {loops.tied} states."
        )
    trap = next((p for p in report.plays if p.name.endswith("first of ties")), None)
    which = "Greedy play" if trap is None else "Greedy play that takes the first of tied actions"
    text = f"{which} circles for ever in {loops.first_tie} of {live} states"
    if trap is not None and trap.succeeded is not None:
        text += f" and succeeds with probability {number(trap.succeeded)}{_within(report)}"
    return text + (
        "; among ties, take the action that ends soonest." if report.gamma == 1.0 else "."
    )


def _ties(report: AuditReport) -> str:
    ties = report.ties
    if ties is None:
        return ""
    text = f"{ties.num_tied} of {report.sizes.num_live} states have several optimal actions"
    if ties.smallest_gap is None:
        return f"{text}; no action is ever wrong."
    return (
        f"{text}; the closest wrong action is worse by {number(ties.smallest_gap)}, in "
        f"{place(report, ties.state)}."
    )


def _chance(report: AuditReport) -> str:
    play = report.plays[-1]
    if play.earned is None:
        return "Uniform random play may never end."
    text = f"Uniform random play earns {number(play.earned.middle)}"
    if report.limit is None:
        return f"{text} in {number(play.steps)} steps on average."
    return f"{text}{_within(report)}, and ends with probability {number(play.ended)}."


# ---------------------------------------------------------------------- private
def _within(report: AuditReport) -> str:
    return "" if report.limit is None else f" within {report.limit} steps"


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * (1.0 + abs(a))


def _differ(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and not _same(a, b)


def _fixed(x: float | None, digits: int = 6) -> str:
    return "-" if x is None else f"{round(x, digits) + 0.0:.{digits}f}"


def _margin(x: float | None, level: float | None) -> str:
    return "" if x is None or level is None else f"{x - level:+.6f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """First column to the left, numbers to the right, a rule below the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "   ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
