"""Trees, strings, searches, grids and decision processes, each beside its brute force."""

import collections
import itertools
from fractions import Fraction

import numpy as np
import pytest

from dodona.language.tasks import (
    BinarySearchTrace,
    GridworldPlan,
    KMPFind,
    MDPValue,
    PrefixFunction,
    SearchTheAnswer,
    Signs,
    TreeRebuild,
    split,
)
from dodona.oracles import mdp, search, strings, trees
from dodona.oracles import tasks as oracle


# ---------------------------------------------------------------------- trees
def test_the_default_has_fourteen_shapes_and_1680_labellings():
    task = TreeRebuild()
    items = task.items()
    assert len(items) == 14 * 1680 == 23_520
    shapes = collections.Counter(item.meta["shape"] for item in items)
    assert shapes == dict.fromkeys(range(14), 1680)
    assert task.num_candidates(items[0]) == 24 and task.uniform_rate(items[0]) == 1 / 24


def test_a_split_shares_no_label_set():
    task = TreeRebuild()
    train, unseen = split(task, task.items(), unseen=0.2, seed=0)
    sets = [{item.meta["labels"] for item in part} for part in (train, unseen)]
    assert [len(x) for x in sets] == [56, 14] and not sets[0] & sets[1]
    assert all(item.meta["labels"] == task.group(item) for item in unseen[:200])
    per_shape = collections.Counter(item.meta["shape"] for item in unseen)
    assert set(per_shape.values()) == {14 * 24}  # every shape with every order of every label set


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 6])
def test_a_rebuilt_tree_is_the_only_one_with_both_traversals(nodes):
    task = TreeRebuild(nodes, letters="abcdefg")
    catalan = len(trees.shapes(nodes))
    for number in range(0, min(catalan, 60)):
        item = task.item(number)
        pre, ino = item.prompt[:-1].split(",")
        found = trees.trees_with(pre=list(pre), ino=list(ino))
        assert [trees.postorder(tree) for tree in found] == [list(item.answer)]
        assert trees.labelled(trees.shapes(nodes)[number], list(pre)) == found[0]


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_a_tree_is_ambiguous_exactly_where_several_have_its_traversals(nodes):
    task = TreeRebuild(nodes, letters="abcde", asks="in")
    for number in range(len(trees.shapes(nodes))):
        item = task.item(number)
        pre, post = item.prompt[:-1].split(",")
        found = {"".join(trees.inorder(t)) for t in trees.trees_with(pre=list(pre), post=list(post))}  # fmt: skip
        assert item.answer == (found.pop() if len(found) == 1 else "?")
        assert task.solve(item) == item.answer


def test_from_postorder_and_inorder_the_preorder_is_asked():
    item = TreeRebuild(asks="pre").item(6)
    post, ino = item.prompt[:-1].split(",")
    (tree,) = trees.trees_with(post=list(post), ino=list(ino))
    assert trees.preorder(tree) == list(item.answer)


def test_labels_are_every_arrangement_once():
    task = TreeRebuild(3, letters="abcd")
    pres = [task.item(number).prompt.split(",")[0] for number in range(0, task.size(), 5)]
    assert sorted(pres) == sorted("".join(p) for p in itertools.permutations("abcd", 3))


# ---------------------------------------------------------------------- strings
def test_every_failure_table_is_that_of_the_definition():
    for level, letters in ((5, "ab"), (4, "abc")):
        task = PrefixFunction(level, letters=letters)
        for item in task.items():
            expected = strings.prefix_function(item.prompt[:-1])
            assert item.answer == task.solve(item) == "".join(map(str, expected))


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_the_well_formed_tables_are_counted_by_catalan(n):
    task = PrefixFunction(n)
    item = task.item(0)
    listed = sorted("".join(map(str, row)) for row in oracle.failure_tables(n))
    assert sorted(task.candidates(item)) == listed
    assert task.num_candidates(item) == len(listed) == len(trees.shapes(n))


def test_every_occurrence_is_found():
    task = KMPFind(5)
    for item in task.items():
        text, pattern = item.prompt[:-1].split(",")
        places = strings.occurrences(text, pattern, overlap=True)
        assert item.answer == task.solve(item) == (",".join(map(str, places)) or "-")


# ---------------------------------------------------------------------- searches
def test_a_trace_is_that_of_a_linear_scan():
    task = BinarySearchTrace()
    places = collections.Counter()
    for level in task.levels:
        for item in task.generate_many(30, seed=level, level=level):
            listed, target = item.prompt[:-1].split("?")
            values = [int(x) for x in listed.split(",")]
            rounds, place = oracle.search_trace(values, int(target))
            answer = ";".join([*(",".join(map(str, r)) for r in rounds), str(place)])
            assert item.answer == answer == task.solve(item)
            assert values == sorted(set(values)) and len(values) == level
            places[level, place] += 1
    assert all(places[2, place] for place in range(3))


def test_a_trace_with_a_wrong_round_keeps_the_credit_of_the_others():
    task = BinarySearchTrace(4)
    item = next(i for i in task.generate_many(50, seed=0) if i.meta["place"] == 0)
    assert item.answer == "0,4,2;0,2,1;0,1,0;0"
    assert task.verify(item, "0,4,2;0,2,0;0,1,0;0").steps == (1.0, 0.0, 1.0, 1.0)
    assert task.verify(item, "0,4,2;0").steps == (1.0, 0.0, 0.0, 0.0)
    assert task.verify(item, "0,4;0").verdict == "undecided"


def test_the_least_speed_is_the_first_of_a_scan():
    task = SearchTheAnswer()
    for item in task.generate_many(100, seed=1):
        listed, hours = item.prompt[:-1].split("/")
        piles = [int(x) for x in listed.split(",")]
        works = lambda v, p=piles, h=int(hours): sum(-(-x // v) for x in p) <= h  # noqa: E731
        assert int(item.answer) == search.least_by_scan(works, range(1, max(piles) + 1))


# ---------------------------------------------------------------------- grids
def test_the_shortest_plan_is_as_long_as_relaxed_distances_say():
    task = GridworldPlan()
    for level in task.levels:
        for item in task.generate_many(25, seed=level, level=level):
            rows = item.prompt[:-1].split("/")
            assert oracle.shortest_plan(rows) == item.meta["shortest"] == len(task.solve(item))


@pytest.mark.parametrize("moves", [3, 6])
def test_every_plan_is_listed_and_counted(moves):
    task = GridworldPlan(3, max_moves=moves)
    for item in task.generate_many(6, seed=moves):
        plans = oracle.grid_plans(item.prompt[:-1].split("/"), moves)
        assert sorted(task.answers(item)) == sorted(plans)
        assert task.num_answers(item) == len(plans)
        candidates = ["".join(p) for n in range(1, moves + 1) for p in itertools.product("UDLR", repeat=n)]  # fmt: skip
        assert task.num_candidates(item) == len(candidates)
        assert {c for c in candidates if task.verify(item, c).value == 1.0} == set(plans)
        assert task.uniform_rate(item) == pytest.approx(len(plans) / len(candidates))


@pytest.mark.parametrize(
    ("plan", "verdict", "reason"),
    [
        ("RR", "wrong", "move 1 runs into a wall"),
        ("U", "wrong", "move 1 runs into a wall"),
        ("DU", "wrong", "ends beside the goal"),
        ("DRUDUDUDUDR", "wrong", "11 moves, at most 8"),
        ("DRUDU", "right", "right"),
        ("drr", "undecided", "not a row of the moves"),
        ("", "undecided", "not a row of the moves"),
    ],
)
def test_a_plan_is_walked(plan, verdict, reason):
    task = GridworldPlan(2)
    item = task.generate(0)._replace(prompt="S#/.G:" if verdict != "right" else "SG/..:")
    score = task.verify(item, plan)
    assert score.verdict == verdict and reason in score.reason


# ---------------------------------------------------------------------- decision processes
def test_an_action_is_optimal_exactly_where_the_rational_optimum_says():
    ties = 0
    for actions in (2, 3):
        task = MDPValue(num_actions=actions, max_reward=3)
        for level in (2, 3):
            for item in task.generate_many(12, seed=level, level=level):
                transition, reward, asked = _dense(item.prompt)
                solved = mdp.optimal_rational(transition, reward, Fraction(1, 2))
                values = [Fraction(v) for v in solved[0]]
                q = [reward[asked][a] + sum(p * v for p, v in zip(transition[asked][a], values, strict=True)) / 2 for a in range(actions)]  # fmt: skip
                best = [str(a) for a in range(actions) if q[a] == max(q)]
                assert task.answers(item) == best
                assert item.meta["ties"] == len(best)
                ties += len(best) > 1
    assert ties > 0


def _dense(prompt: str):
    listed, asked = prompt[:-1].split("?")
    rows = [[tuple(map(int, e.split("+"))) for e in row.split(",")] for row in listed.split(";")]
    transition = np.zeros((len(rows), len(rows[0]), len(rows)), dtype=object)
    transition[...] = Fraction(0)
    reward = np.zeros(transition.shape[:2], dtype=object)
    for s, row in enumerate(rows):
        for a, (after, r) in enumerate(row):
            transition[s, a, after] = Fraction(1)
            reward[s, a] = Fraction(r)
    return transition, reward, int(asked)


def test_a_sign_is_that_of_the_product():
    for item in Signs(6).items():
        product = np.prod([1 if c == "+" else -1 for c in item.prompt[:-1]])
        assert item.answer == ("+" if product > 0 else "-")
