"""Equal answers are equal however they are written, unequal ones are not, and what is unclear is said to be."""

import itertools
import json
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from math_pairs import CLASSES

from dodona.errors import InputError
from dodona.language._math_process import SymbolicProcess
from dodona.language._math_reader import read_math
from dodona.language._math_values import at_point, exact
from dodona.language.math_answers import extract_answer, math_equal
from dodona.oracles import tasks as oracle

NEVER = r"9^{9^{9^{9}}} + \sqrt{2}"  # no computer finishes it


@pytest.fixture(scope="module")
def process():
    with SymbolicProcess(time_limit=10.0) as asked:
        yield asked


def test_every_spelling_of_an_answer_equals_its_neighbours_and_the_first(process):
    pairs = [
        (a, b) for row in CLASSES for a, b in (*itertools.pairwise(row), *((x, row[0]) for x in row[1:]))
    ]  # fmt: skip
    assert len(pairs) > 200
    judged = {(a, b): math_equal(a, b, process=process).verdict for a, b in pairs}
    assert [pair for pair, verdict in judged.items() if verdict != "right"] == []


def test_equality_is_symmetric_on_the_table(process):
    for row in CLASSES:
        for a, b in itertools.pairwise(row):
            assert math_equal(b, a, process=process).verdict == "right", (b, a)


def test_answers_of_different_rows_are_never_equal(process):
    firsts = [row[0] for row in CLASSES]
    lasts = [row[-1] for row in CLASSES]
    pairs = [(a, b) for (i, a), (j, b) in itertools.product(enumerate(lasts), enumerate(firsts)) if i != j]  # fmt: skip
    assert len(pairs) > 200
    assert [p for p in pairs if math_equal(*p, process=process).verdict == "right"] == []


numbers = st.fractions(min_value=-1000, max_value=1000, max_denominator=60)
spelled = st.sampled_from(
    [
        lambda x: str(x),
        lambda x: rf"\frac{{{x.numerator}}}{{{x.denominator}}}",
        lambda x: f"${x.numerator * 6}/{x.denominator * 6}$",
        lambda x: rf"-\dfrac{{{-x.numerator * 2}}}{{{x.denominator * 2}}}",
        lambda x: rf"{x.numerator} \div {x.denominator}",
        lambda x: rf"\left({x - 1} + 1\right)",
        lambda x: rf"\frac{{1}}{{2}} \times {2 * x}".replace("times -", "times (-1) * "),
    ]
)


@given(numbers, numbers, spelled, spelled)
def test_fractions_are_equal_exactly_where_their_values_are(x, y, spell, other):
    verdict = math_equal(spell(x), other(y)).verdict
    assert verdict == ("right" if x == y else "wrong")


@given(numbers, spelled)
def test_a_scaled_fraction_is_the_same_number(x, spell):
    assert math_equal(spell(x), str(x)).verdict == "right"


@given(
    st.integers(-(10**9), 10**9), st.integers(0, 3), st.booleans(), st.integers(-(10**9), 10**9), st.integers(0, 3)
)  # fmt: skip
def test_decimals_agree_with_comparing_them_digit_by_digit(n, places, commas, m, other_places):
    def written(value, places):
        text = f"{abs(value) // 10**places:,}" if commas else str(abs(value) // 10**places)
        sign = "-" if value < 0 else ""
        return sign + text + (f".{abs(value) % 10**places:0{places}d}" if places else "")

    a, b = written(n, places), written(m, other_places)
    assert (math_equal(a, b).verdict == "right") == oracle.equal_numbers(a, b)
    assert math_equal(a, a + ("0" if "." in a else ".0")).verdict == "right"


@given(st.permutations(["x^2", r"\frac{1}{3}", "2x", r"\sqrt{5}"]))
def test_a_sum_does_not_depend_on_its_order(process, terms):
    assert math_equal("+".join(terms), r"x^2+\frac{1}{3}+2x+\sqrt{5}", process=process).verdict == "right"  # fmt: skip


@given(st.text(alphabet="0123456789xe+-*/^(){}[]|,=!._ \\fracsqrt{}", max_size=40))
def test_any_text_is_judged_without_an_exception(process, text):
    assert math_equal(text, "1,2", process=process).verdict in ("right", "wrong", "undecided")


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("0.33", "1/3", "wrong"),
        ("0.51", r"\frac12", "wrong"),
        ("0.499999999", "0.5", "wrong"),
        ("1000001", "1000000.0", "wrong"),
        ("3.14", r"\pi", "wrong"),
        ("0.333333333", "0.3333333333", "wrong"),
        ("5 cm", "5 m", "wrong"),
        ("5 cm", "5", "right"),
        ("5,60", "560", "wrong"),
        ("(1,000)", "1000", "wrong"),
        ("[1,2]", "(1,2)", "wrong"),
        ("1,2", "(1,2)", "right"),
        ("2,1", "(1,2)", "wrong"),
        (r"\{1,1,2\}", r"\{1,2\}", "wrong"),
        ("Yes, because 5", "5", "undecided"),
        ("eighteen", "18", "undecided"),
        ("1 8", "18", "undecided"),
        ("", "18", "undecided"),
        ("((", "18", "undecided"),
        (r"\foo{3}", "3", "undecided"),
        ("(" * 60 + "1" + ")" * 60, "1", "undecided"),
        ("1" * 1001 + "x", "1", "undecided"),
        ("1/0", "1", "wrong"),
        ("x=5", "y=5", "wrong"),
        ("5=x", "x=5", "right"),
    ],
)
def test_the_verdict_of_a_hard_case(process, answer, gold, verdict):
    assert math_equal(answer, gold, process=process).verdict == verdict


def test_a_rounded_decimal_needs_a_number_that_has_no_decimal_form():
    assert math_equal("0.3333", "1/3", rtol=1e-3).verdict == "right"
    assert math_equal("0.2501", "1/4", rtol=1e-3).verdict == "wrong"
    assert math_equal("0.3333333", "1/3", rtol=0.0).verdict == "wrong"


def test_a_question_without_end_is_undecided_within_its_limit_and_the_next_one_is_answered():
    with SymbolicProcess(time_limit=1.0) as asked:
        assert math_equal(r"\sqrt{8}", r"2\sqrt{2}", process=asked).verdict == "right"
        child = asked._child
        began = time.monotonic()
        score = math_equal(NEVER, "3", process=asked)
        assert score.verdict == "undecided" and "time limit" in score.reason
        assert time.monotonic() - began < 2.0
        assert child is not None and child.returncode is not None  # it is dead, and waited for
        assert math_equal(r"\sqrt{8}", r"2\sqrt{2}", process=asked).verdict == "right"


def test_a_time_limit_holds_outside_the_main_thread():
    verdicts = []
    with SymbolicProcess(time_limit=0.3) as asked:
        thread = threading.Thread(target=lambda: verdicts.append(math_equal(NEVER, "3", process=asked)))  # fmt: skip
        thread.start()
        thread.join(timeout=30)
    assert [score.verdict for score in verdicts] == ["undecided"]


def test_a_process_that_died_is_started_again():
    with SymbolicProcess(time_limit=10.0) as asked:
        assert asked.equal(("num", "1"), ("num", "1")) is True
        asked._child.kill()
        asked._child.wait()
        assert asked.equal(("sym", "x"), ("sym", "y")) is False


def test_numbers_start_no_process(monkeypatch):
    monkeypatch.setattr(SymbolicProcess, "_started", lambda self: pytest.fail("it was started"))
    for answer, gold in [("5.0", "5"), (r"\frac12", "0.5"), ("(1,2)", "(2,1)"), (r"\pi", "3"), ("x", "y")]:  # fmt: skip
        math_equal(answer, gold)


def test_a_reference_that_can_not_be_read_is_an_error():
    with pytest.raises(InputError, match=r"the reference '\(\(' can not be read: the answer ends too early"):  # fmt: skip
        math_equal("1", "((")


def test_a_negative_tolerance_is_refused():
    with pytest.raises(InputError, match=r"rtol must be in \[0, inf\), got -1"):
        math_equal("1", "2", rtol=-1.0)


def test_a_time_limit_must_be_positive():
    with pytest.raises(InputError, match=r"time_limit must be in \(0, inf\), got 0"):
        SymbolicProcess(time_limit=0.0)


@given(numbers, numbers)
def test_the_exact_and_the_complex_value_of_a_tree_agree(x, y):
    node, _ = read_math(rf"\frac{{{x.numerator}}}{{{x.denominator}}} * ({y})^2 - |{x}| + 3!")
    assert exact(node) == x * y**2 - abs(x) + 6
    assert at_point(node, {}) == pytest.approx(complex(float(x * y**2 - abs(x) + 6)), abs=1e-6)


def test_a_rational_root_is_found_and_an_irrational_one_is_not():
    assert exact(read_math(r"\sqrt[3]{\frac{8}{27}}")[0]) == Fraction(2, 3)
    assert exact(read_math("4^{1/2}")[0]) == 2
    assert exact(read_math(r"\sqrt{2}")[0]) is None
    assert exact(read_math("10^{100000}")[0]) is None  # too large to be worth it


# ---------------------------------------------------------------------- finding the answer
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{1} no, \boxed{ 2 }", "2"),
        (r"\boxed{3", None),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        ("#### 1\nwait\n#### 2", "2"),
        ("<answer>a\nb</answer>", "a\nb"),
        (r"\boxed{1} then #### 2", "2"),
        ("<answer>1</answer> and <answer>2", "1"),
        ("no answer", None),
        ("A: 5", None),
    ],
)
def test_the_last_answer_counts(text, found):
    assert extract_answer(text) == found


def test_a_line_counts_where_it_is_asked_for():
    assert extract_answer("A: 5\nThe A: 6\nAnswer: 7", formats=("line",)) == "7"


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="formats must be some of boxed, hash, tag, line"):
        extract_answer("x", formats=())


def test_the_gold_answers_of_gsm8k_equal_themselves(shared):
    lines = (shared / "data" / "gsm8k" / "train.jsonl").read_text().splitlines()
    golds = {extract_answer(json.loads(line)["answer"], formats=("hash",)) for line in lines}
    assert len(lines) == 7473 and None not in golds
    for gold in golds:
        assert math_equal(gold, f"{gold.replace(',', '')}.0").verdict == "right", gold
