"""What tasks and verifiers owe, by brute force: every right answer, every verdict, every count.

Each task has a function here that lists its right answers from the prompt alone, by trees, walks, scans or
fractions, and says how many answers are well-formed. Verdicts on all well-formed answers, and on right answers
with one symbol changed, must be those of the list.

Source: card rollouts-and-verifiers, sec. 4 e to g.  Not here: answers of models (rollouts_and_verifiers.py).
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from dodona.checks.compare import close
from dodona.core.protocols import Check
from dodona.language import tasks
from dodona.language.tasks import split
from dodona.oracles import mdp, search, strings, trees
from dodona.oracles import tasks as oracle

CARD = "card rollouts-and-verifiers, sec. 2"


def agree(name: str, cases: Iterable[tuple[Any, Any]], *, source: str) -> Check:
    """The number of cases in which both differ, which must be 0; shows the first of them."""
    wrong = [(got, expected) for got, expected in cases if got != expected]
    got, expected = wrong[0] if wrong else ("the same", "the same")
    return Check(
        name=name, got=str(got), expected=str(expected), error=float(len(wrong)), tolerance=0.0, source=source
    )  # fmt: skip


# ---------------------------------------------------------------------- right answers, from the prompt alone
def _countdown_rpn(prompt: str) -> list[str]:
    digits, target = prompt[:-1].split("=")
    values = oracle.tree_values([int(d) for d in digits])
    return [text for text, (value, _) in values.items() if value == int(target)]


def _tree_rebuild(prompt: str) -> list[str]:
    pre, ino = prompt[:-1].split(",")
    return ["".join(trees.postorder(t)) for t in trees.trees_with(pre=list(pre), ino=list(ino))]


def _prefix_function(prompt: str) -> list[str]:
    return ["".join(map(str, strings.prefix_function(prompt[:-1])))]


def _kmp_find(prompt: str) -> list[str]:
    text, pattern = prompt[:-1].split(",")
    return [",".join(map(str, strings.occurrences(text, pattern))) or "-"]


def _binary_search_trace(prompt: str) -> list[str]:
    listed, target = prompt[:-1].split("?")
    rounds, place = oracle.search_trace([int(x) for x in listed.split(",")], int(target))
    return [";".join([*(",".join(map(str, r)) for r in rounds), str(place)])]


def _search_the_answer(prompt: str) -> list[str]:
    listed, hours = prompt[:-1].split("/")
    piles = [int(x) for x in listed.split(",")]

    def in_time(speed: int) -> bool:
        return sum(math.ceil(Fraction(pile, speed)) for pile in piles) <= int(hours)

    return [str(search.least_by_scan(in_time, range(1, max(piles) + 1)))]


def _mdp_value(prompt: str) -> list[str]:
    listed, asked = prompt[:-1].split("?")
    rows = [[tuple(map(int, e.split("+"))) for e in row.split(",")] for row in listed.split(";")]
    S, A, s = len(rows), len(rows[0]), int(asked)
    P = np.full((S, A, S), Fraction(0), dtype=object)
    R = np.full((S, A), Fraction(0), dtype=object)
    for state, action in itertools.product(range(S), range(A)):
        after, reward = rows[state][action]
        P[state, action, after], R[state, action] = Fraction(1), Fraction(reward)
    return [str(a) for a in np.flatnonzero(mdp.optimal_rational(P, R, Fraction(1, 2))[1][s])]


def _arithmetic(prompt: str) -> list[str]:
    sign = next(c for c in prompt if c in "+-*")
    a, b = prompt[:-1].split(sign)
    return [str(oracle.OPERATORS[sign](int(a), int(b)))]


def _sorting(prompt: str) -> list[str]:
    orders = map("".join, itertools.permutations(prompt[:-1]))
    return [next(x for x in orders if all(a <= b for a, b in itertools.pairwise(x)))]


def _signs(prompt: str) -> list[str]:
    return ["+" if math.prod(1 if c == "+" else -1 for c in prompt[:-1]) > 0 else "-"]


class Case(NamedTuple):
    """How a task is checked: its options, the level, its right answers, how many are well-formed."""

    options: Mapping[str, Any]
    level: int
    right: Callable[[str], list[str]]
    num_candidates: Callable[[str], int]
    strict: bool = True  # every text that is not well-formed is undecided


def _arrangements(prompt: str) -> int:
    return len(set(itertools.permutations(prompt[:-1])))


CASES: Mapping[str, Case] = {
    "CountdownRPN": Case({}, 3, _countdown_rpn, lambda p: len(oracle.tree_values([int(d) for d in p[:3]]))),
    "TreeRebuild": Case({"letters": "abcde"}, 4, _tree_rebuild, lambda p: 24),
    "PrefixFunction": Case({}, 5, _prefix_function, lambda p: len(trees.shapes(5))),
    "KMPFind": Case({}, 5, _kmp_find, lambda p: 2 ** (len(p.split(",")[0]) - len(p.split(",")[1]) + 2)),
    "BinarySearchTrace": Case({}, 4, _binary_search_trace, lambda p: 5, strict=False),
    "SearchTheAnswer": Case({"max_pile": 12}, 3, _search_the_answer, lambda p: max(map(int, p.split("/")[0].split(",")))),
    "GridworldPlan": Case(
        {"max_moves": 4}, 3, lambda p: oracle.grid_plans(p[:-1].split("/"), 4), lambda p: 4 + 16 + 64 + 256
    ),
    "MDPValue": Case({"num_actions": 3, "max_reward": 3}, 3, _mdp_value, lambda p: 3),
    "Arithmetic": Case({}, 1, _arithmetic, lambda p: 9 + 1 + 81),
    "Sorting": Case({}, 4, _sorting, _arrangements),
    "Reverse": Case({"letters": "abc"}, 4, lambda p: ["".join(p[i] for i in (3, 2, 1, 0))], lambda p: 3**4),
    "Signs": Case({}, 5, _signs, lambda p: 2),
}  # fmt: skip
TASKS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(tasks, name) for name in CASES}, "Countdown": tasks.Countdown, "split": split,
}  # fmt: skip


@cache
def _right(name: str, prompt: str) -> tuple[str, ...]:
    return tuple(CASES[name].right(prompt))


def _owed(name: str, subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """Solutions, answers, verdicts and counts of one task."""
    case = CASES[name]
    task = subjects[name](case.level, **case.options)
    items = task.generate_many(60 if full else 16, seed=0)
    truth = [set(_right(name, item.prompt)) for item in items]
    source = "brute force over the prompt"
    both = list(zip(items, truth, strict=True))
    yield agree(
        f"{name}: the reference is right",
        ((item.answer in right, True) for item, right in both),
        source=source,
    )
    yield agree(
        f"{name}: verify(solve) = 1",
        ((task.verify(item, task.solve(item)).value, 1.0) for item in items),
        source=source,
    )
    yield agree(
        f"{name}: all right answers",
        ((sorted(task.answers(item)), sorted(right)) for item, right in both),
        source=source,
    )
    yield agree(
        f"{name}: well-formed and right ones counted",
        (
            (
                (
                    task.num_candidates(item),
                    len(set(_candidates(task, item))),
                    task.num_answers(item),
                    task.uniform_rate(item),
                ),
                (n, n, len(right), len(right) / n),
            )
            for item, right in both
            for n in [case.num_candidates(item.prompt)]
        ),
        source=source,
    )
    verdicts = (
        (
            (item.prompt, text, score.value, score.verdict),
            (item.prompt, text, *_verdict(text in right)),
        )
        for item, right in both[: None if full else 4]
        for text in _candidates(task, item)
        for score in [task.verify(item, text)]
    )
    yield agree(f"{name}: verdicts on well-formed answers", verdicts, source=source)
    yield agree(
        f"{name}: verdicts on answers with a changed symbol",
        _changed(task, both, case.strict),
        source=source,
    )


def _candidates(task: Any, item: Any) -> list[str]:
    if task.name == "gridworld_plan":  # too many to list in general, few enough here
        return ["".join(p) for n in range(1, 5) for p in itertools.product("UDLR", repeat=n)]
    return list(task.candidates(item))


def _verdict(right: bool) -> tuple[float, str]:
    return (1.0, "right") if right else (0.0, "wrong")


def _changed(
    task: Any, both: list[tuple[Any, set[str]]], strict: bool
) -> Iterator[tuple[Any, Any]]:
    rng = np.random.default_rng(1)
    for item, right in both:
        candidates = set(_candidates(task, item))
        for place in range(len(item.answer)):
            for symbol in rng.choice(list(task.alphabet), 3):
                text = item.answer[:place] + symbol + item.answer[place + 1 :]
                score = task.verify(item, text)
                yield (text, score.value), (text, float(text in right))
                if strict:
                    yield (text, score.verdict == "undecided"), (text, text not in candidates)


# ---------------------------------------------------------------------- counts of the card, splits, infix
def _countdown_counts(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """(numbers, largest target) -> prompts, mean share of right answers."""
    known = {(3, 30): (1274, 0.067446), (3, 99): (1864, 0.060463), (4, 30): (9722, 0.020185)}
    for (n, top), (count, rate) in known.items() if full else list(known.items())[:1]:
        task = subjects["CountdownRPN"](n, max_target=top)
        items = task.items()
        right = [task.num_answers(item) for item in items]
        rates = [k / task.num_candidates(item) for k, item in zip(right, items, strict=True)]
        name = f"countdown_rpn, {n} numbers, targets to {top}"
        yield close(f"{name}: prompts", len(items), count, tolerance=0.0, source=CARD)
        yield close(
            f"{name}: mean share of right answers",
            statistics.fmean(rates),
            rate,
            tolerance=6e-7,
            source=CARD,
        )
        if n == 3 and top == 30:
            few = statistics.fmean(k <= 2 for k in right)
            yield close(
                f"{name}: median of right answers",
                statistics.median(right),
                4,
                tolerance=0.0,
                source=CARD,
            )
            yield close(f"{name}: share with at most two", few, 0.329, tolerance=5e-4, source=CARD)
    task = subjects["CountdownRPN"](2)
    foreign = (
        (item, text)
        for item in task.items()[::5]
        for (numbers, target), texts in _all_countdown(2).items()
        if target == item.meta["target"] and numbers != item.meta["numbers"]
        for text in texts
    )
    yield agree(
        "countdown_rpn, 2 numbers: answers to other prompts",
        ((task.verify(*x).value, 0.0) for x in foreign),
        source="oracles.tasks.countdown",
    )
    found = {
        (item.meta["numbers"], item.meta["target"]): sorted(task.answers(item))
        for item in task.items()
    }
    truth = {key: sorted(texts) for key, texts in _all_countdown(2).items()}
    yield agree(
        "countdown_rpn, 2 numbers: every prompt", [(found, truth)], source="oracles.tasks.countdown"
    )


@cache
def _all_countdown(n: int) -> Mapping[Any, list[str]]:
    return oracle.countdown(n, 30)


def _tree_counts(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    task = subjects["TreeRebuild"]()
    shapes = {task.item(number).meta["shape"] for number in range(50)}
    yield close(
        "tree_rebuild: items",
        task.size(),
        14 * 1680,
        tolerance=0.0,
        source="14 shapes, 8 x 7 x 6 x 5 labellings",
    )
    yield agree("tree_rebuild: shapes", [(shapes, set(range(14)))], source="Catalan numbers")
    for asks in ("pre", "in"):
        task = subjects["TreeRebuild"](4, letters="abcd", asks=asks)
        yield agree(
            f"tree_rebuild, asks {asks}", _rebuilt(task, asks), source="oracles.trees.trees_with"
        )


def _rebuilt(task: Any, asks: str) -> Iterator[tuple[str, str]]:
    for number in range(14):
        item = task.item(number)
        first, second = (list(x) for x in item.prompt[:-1].split(","))
        if asks == "pre":
            found = {"".join(trees.preorder(t)) for t in trees.trees_with(post=first, ino=second)}
        else:
            found = {"".join(trees.inorder(t)) for t in trees.trees_with(pre=first, post=second)}
        yield task.solve(item), found.pop() if len(found) == 1 else "?"


def _splits(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """Whole groups on one side, nothing lost, as many as asked for."""
    for task in (tasks.CountdownRPN(2), tasks.TreeRebuild(3, letters="abcde"), tasks.Signs(5)):
        items = task.items()
        parts = subjects["split"](task, items, unseen=0.3, seed=1)
        train, unseen = ({task.group(item) for item in part} for part in parts)
        numbers = sorted(item.meta["number"] for part in parts for item in part)
        yield agree(f"{task.name}: groups on both sides", [(train & unseen, set())], source="sets")
        yield agree(
            f"{task.name}: items of both sides", [(numbers, list(range(len(items))))], source="sets"
        )
        yield agree(
            f"{task.name}: unseen groups",
            [(len(unseen), round(0.3 * len(train | unseen)))],
            source="sets",
        )


def _infix(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """Every expression of the numbers of an item, and of numbers that it does not have."""
    task = subjects["Countdown"](3)
    for item in task.generate_many(8 if full else 2, seed=0):
        numbers, target = item.meta["numbers"], item.meta["target"]
        values = oracle.tree_values(numbers, "+-*/").values()
        cases = (
            (text, task.verify(item, text).value, float(value == target)) for value, text in values
        )
        yield agree(
            "countdown: every expression",
            (((t, a), (t, b)) for t, a, b in cases),
            source="oracles.tasks.tree_values",
        )
        yield agree(
            "countdown: verify(solve) = 1",
            [(task.verify(item, task.solve(item)).value, 1.0)],
            source="oracles.tasks.tree_values",
        )
        a, b, c = numbers
        foreign = (
            str(target),
            f"{target}+0",
            f"({item.answer})+{a}-{a}",
            f"{item.answer}*1",
            f"{target}+{a}-{a}+{b}-{b}+{c}-{c}",
        )
        yield agree(
            "countdown: numbers that it does not have",
            ((task.verify(item, x).value, 0.0) for x in foreign),
            source=CARD,
        )


# ---------------------------------------------------------------------- mathematics
EQUAL = (
    ("5", "5.0", "$5$", r"\frac{10}{2}", "10/2", "x=5", "5 dollars", "05", r"\sqrt{25}"),
    ("0.5", r"\frac12", r"\dfrac{1}{2}", "2/4", ".50", "50/100", "2^{-1}"),
    ("-1/2", "-0.5", r"\frac{-1}{2}", r"-\frac12"),
    ("1/3", "0.3333333", r"\frac{2}{6}"),
    ("1000", "1,000", r"\$1,000", "10^3", "1.0 \\times 10^3"),
    ("2/3", r"\frac46", "0.66666667"),
    ("1.5", r"1\frac12", "3/2"),
    ("(1,2)", "(1, 2)", r"\left(1,\frac{4}{2}\right)"),
    ("(2,1)", "(2, 1.0)"),
    ("[1,2)", "[1.0, 2)"),
    (r"\{1,2,3\}", r"\{3, 2, 1\}"),
    (r"\pi", "3.14159265"),
)  # fmt: skip
UNEQUAL = (
    ("0.51", r"\frac12"), ("0.33", "1/3"), ("0.499999999", "0.5"), ("1000001", "1000000.0"), ("5 cm", "5 m"),
    ("3.14", r"\pi"), ("[1,2]", "(1,2)"), ("2,1", "(1,2)"), (r"\{1,1,2\}", r"\{1,2\}"), ("1.8", "18"), ("5,60", "560"),
)  # fmt: skip
ANSWERS = (
    (r"so \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"), (r"\boxed{1} no, \boxed{ 2 }", "2"), (r"\boxed{3", None),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"), ("#### 1\nwait\n#### 2", "2"), ("<answer>a\nb</answer>", "a\nb"),
    (r"\boxed{1} then #### 2", "2"), ("#### 2 then <answer>3</answer>", "3"), ("no answer", None),
)  # fmt: skip


def _mathematics(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    equal = partial(_verdict_of, subjects["math_equal"])
    pairs = [(a, b) for row in EQUAL for a in row for b in row]
    yield agree(
        "equal answers, however written",
        ((equal(*p), (*p, "right")) for p in pairs),
        source="by hand",
    )
    firsts = [(a[-1], b[0]) for a, b in itertools.permutations(EQUAL, 2)]
    yield agree(
        "unequal answers",
        ((equal(*p), (*p, "wrong")) for p in (*UNEQUAL, *firsts)),
        source="by hand",
    )
    unread = ("", "eighteen", "Yes, because 5", "((", "1 8")
    yield agree(
        "answers that can not be read",
        ((equal(x, "18"), (x, "18", "undecided")) for x in unread),
        source=CARD,
    )
    rng = np.random.default_rng(0)
    written = [
        _written(*rng.integers([-2000, 0, 0], [2000, 4, 2]).tolist())
        for _ in range(400 if full else 60)
    ]
    decimals = list(itertools.pairwise(written)) + [
        (x, x + ("0" if "." in x else ".0")) for x in written
    ]
    yield agree(
        "decimals, digit by digit",
        ((equal(*p), (*p, "right" if oracle.equal_numbers(*p) else "wrong")) for p in decimals),
        source="oracles.tasks.equal_numbers",
    )
    fractions = [
        (Fraction(*rng.integers(1, 40, 2).tolist()), int(rng.integers(2, 9))) for _ in range(40)
    ]
    scaled = [(rf"\frac{{{x.numerator * k}}}{{{x.denominator * k}}}", str(x)) for x, k in fractions]
    yield agree("scaled fractions", ((equal(*p), (*p, "right")) for p in scaled), source="scaling")
    extract = subjects["extract_answer"]
    yield agree(
        "the answer of a text",
        (((x, extract(x)), (x, found)) for x, found in ANSWERS),
        source="by hand",
    )


def _verdict_of(function: Callable[..., Any], answer: str, gold: str) -> tuple[str, str, str]:
    return answer, gold, function(answer, gold).verdict


def _written(value: int, places: int, commas: int) -> str:
    whole, part = divmod(abs(value), 10**places)
    text = f"{whole:,}" if commas else str(whole)
    return ("-" if value < 0 else "") + text + (f".{part:0{places}d}" if places else "")


GROUPS: Mapping[Callable[..., Iterator[Check]], tuple[str, ...]] = {
    **{partial(_owed, name): (name,) for name in CASES},
    _countdown_counts: ("CountdownRPN",), _tree_counts: ("TreeRebuild",), _splits: ("split",),
    _infix: ("Countdown",), _mathematics: ("math_equal", "extract_answer"),
}  # fmt: skip
"""Groups of checks and the subjects that each of them asks."""
