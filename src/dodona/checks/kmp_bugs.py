"""Known bugs of matchers, each of which checks/kmp.py must catch.

Most were met in published code; the issue is named where there is one. Each returns an answer, which is
right for some texts and wrong for others.
"""

from collections.abc import Callable

import numpy as np

from dodona.algorithms import kmp
from dodona.core.protocols import Mutant
from dodona.oracles import strings

VOCABULARY = (b"", b"a", b"b", b"ab", b"ba", b"aab", b"bba")
"""The tokens with which tables are checked."""


def _prefix_with(fall: Callable[[list[int], int], int]) -> Callable[[str], np.ndarray]:
    """The prefix function with another fallback."""

    def function(p: str) -> np.ndarray:
        pi = [0] * len(p)
        for i in range(1, len(p)):
            k = pi[i - 1]
            while k > 0 and p[i] != p[k]:
                k = fall(pi, k)
            pi[i] = k + (p[i] == p[k])
        return np.array(pi)

    return function


def _strong_once(p: str) -> np.ndarray:
    fall = kmp.next_table(p)
    skip = [fall[j] if j == 0 or p[fall[j]] != p[j] else fall[fall[j]] for j in range(len(p))]
    return np.array([*skip, fall[len(p)]])


def _z_without_growth(p: str) -> np.ndarray:
    z = kmp.z_function(p)
    begin, end = 0, 0
    for i in range(1, len(p)):
        if i < end:
            z[i] = min(z[i - begin], end - i)
        elif i + z[i] > end:
            begin, end = i, i + z[i]
    return z


def _restarting(p: str, alphabet: str) -> np.ndarray:
    table = kmp.automaton(p, alphabet)
    table[-1] = table[0]
    return table


def _compared_twice(t: str, p: str, *, failure: str = "prefix") -> kmp.Trace:
    trace = kmp.trace_search(t, p, failure=failure)
    twice = [c for c in trace.comparisons for _ in range(2 if c.equal else 1)]
    return trace._replace(comparisons=tuple(twice))


class _Forgetful(kmp.KMPStream):
    def feed(self, chunk):
        self.restore((0, self.state()[1]))
        return super().feed(chunk)


class _Relative(kmp.KMPStream):
    def feed(self, chunk):
        begin = self.state()[1]
        return super().feed(chunk) - begin


class _LongestOnly(kmp.AhoCorasick):
    def find_all(self, t):
        found = super().find_all(t)
        return found[np.unique(found[:, 2], return_index=True)[1]]


class _HastyStream(kmp.AhoCorasick):
    def stream(self):
        stream = super().stream()
        feed = stream.feed
        stream.feed = lambda chunk: np.concatenate([feed(chunk), stream.flush()])
        return stream


def _always_earliest(patterns, *, kind="all"):
    return kmp.AhoCorasick(patterns, kind="all" if kind == "all" else "earliest_end")


class _Loop:
    """The usual loop: all text so far is searched again at every chunk."""

    def __init__(self, stops, *, winner=strings.first_stop, hold=strings.held):
        self.stops, self.winner, self.hold = stops, winner, hold
        self.text, self.shown = "", 0

    def feed(self, chunk):
        self.text += chunk
        found = self.winner(self.text, self.stops)
        shown = self.shown
        if found:
            return kmp.StopEvent(self.text[shown : max(found[1], shown)], True, *found)
        self.shown = max(shown, len(self.text) - self.hold(self.text, self.stops))
        return kmp.StopEvent(self.text[shown : self.shown])

    def flush(self):
        return kmp.StopEvent(self.text[self.shown :])


def _first_in_list(text, stops):
    for which, stop in enumerate(stops):
        if stop in text:
            return which, text.find(stop), text.find(stop) + len(stop)
    return None


def _shortest_of_a_tie(text, stops):
    truth = strings.first_stop(text, stops)
    if truth is None:
        return None
    end = truth[2]
    which = min((len(s), i) for i, s in enumerate(stops) if text[:end].endswith(s))[1]
    return which, end - len(stops[which]), end


class _PerToken(kmp.TokenStopTable):
    def step(self, state, tokens):
        return super().step(np.where(self.stopped(state), state, 0), tokens)


class _Flattened(kmp.TokenStopTable):
    def step(self, state, tokens):
        state, hit = super().step(state, tokens)
        return np.where(self.stopped(state).any(), state.max(), state), hit


class _LastByte(kmp.TokenStopTable):
    def step(self, state, tokens):
        state, hit = super().step(state, tokens)
        lengths = np.array([len(piece) for piece in VOCABULARY])
        return state, np.where(hit >= 0, lengths[tokens], hit)


class _OneLag(kmp.RepeatDetector):
    def __init__(self, **options):
        super().__init__(**{**options, "max_period": 1})


class _AnyRow(kmp.RepeatDetector):
    def step(self, tokens):
        return np.full(len(tokens), super().step(tokens).any())


MUTANTS = (
    Mutant(name="fall back by one", replaces="prefix_function", function=_prefix_with(lambda pi, k: k - 1), bug="k - 1 instead of pi[k - 1]"),
    Mutant(name="fall back to nothing", replaces="prefix_function", function=_prefix_with(lambda pi, k: 0), bug="k = 0 on the first mismatch"),
    Mutant(name="next not shifted", replaces="next_table", function=lambda p: np.append(kmp.prefix_function(p), -1), bug="pi under the name of next"),
    Mutant(name="skips one candidate only", replaces="strong_failure", function=_strong_once, bug="next[next[j]] may meet the same symbol"),
    Mutant(name="longest border only", replaces="borders", function=lambda p: kmp.borders(p)[:1], bug="the chain of borders not followed"),
    Mutant(name="periods that divide", replaces="periods", function=lambda p: np.array([q for q in kmp.periods(p) if len(p) % q == 0]), bug="a period need not divide the length"),
    Mutant(name="power without division", replaces="exponent", function=lambda p: len(p) // int(kmp.periods(p)[0]), bug="aabaa taken for a power of aab"),
    Mutant(name="matches do not grow", replaces="z_function", function=_z_without_growth, bug="the copied value taken as final"),
    Mutant(name="borders only once in Z", replaces="z_from_prefix", function=lambda pi: np.array([len(pi), *(next((int(pi[j]) for j in range(len(pi) - 1, i - 1, -1) if pi[j] and j - pi[j] + 1 == i), 0) for i in range(1, len(pi)))]), bug="matches inside matches lost"),
    Mutant(name="ends of matches only", replaces="prefix_from_z", function=lambda z: np.array([max((j - i + 1 for i in range(1, j + 1) if i + z[i] == j + 1), default=0) for j in range(len(z))]), bug="a longer match also ends earlier"),
    Mutant(name="counts of longest only", replaces="prefix_counts", function=lambda t, p: np.bincount(kmp.trace_search(t, p).states, minlength=len(p) + 1)[1:], bug="counts not added along pi"),
    Mutant(name="restart after a match", replaces="automaton", function=_restarting, bug="row m is row 0: overlaps lost"),
    Mutant(name="not found is true", replaces="find", function=lambda t, p: max(kmp.find(t, p), 0), bug="-1 is truthy, tests that only ask for truth pass"),
    Mutant(name="overlaps lost", replaces="find_all", function=lambda t, p, *, overlap=True: kmp.find_all(t, p, overlap=False), bug="k = 0 after a report"),
    Mutant(name="match compared twice", replaces="trace_search", function=_compared_twice, bug="24 comparisons at n = 9"),
    Mutant(name="forgets at a chunk border", replaces="KMPStream", function=_Forgetful, bug="needle split across buffers: aho-corasick#64"),
    Mutant(name="positions in the chunk", replaces="KMPStream", function=_Relative, bug="offset not added"),
    Mutant(name="longest output only", replaces="AhoCorasick", function=_LongestOnly, bug="dictionary links not followed"),
    Mutant(name="leftmost by end", replaces="AhoCorasick", function=_always_earliest, bug="he reported where here was asked for"),
    Mutant(name="decides at a chunk border", replaces="AhoCorasick", function=_HastyStream, bug="does not wait for a longer match"),
    Mutant(name="list-order stop", replaces="StopMatcher", function=lambda stops: _Loop(stops, winner=_first_in_list), bug="stops b, a leave xa of xab"),
    Mutant(name="shortest of a tie", replaces="StopMatcher", function=lambda stops: _Loop(stops, winner=_shortest_of_a_tie), bug="cut too late"),
    Mutant(name="fixed hold-back", replaces="StopMatcher", function=lambda stops: _Loop(stops, hold=lambda text, stops: max(map(len, stops)) - 1), bug="every symbol delayed: vllm PR #45636"),
    Mutant(name="nothing held back", replaces="StopMatcher", function=lambda stops: _Loop(stops, hold=lambda text, stops: 0), bug="pieces of the stop leak: vllm#3574"),
    Mutant(name="one token at a time", replaces="TokenStopTable", function=_PerToken, bug="stops across tokens missed: mlx-examples#524"),
    Mutant(name="one row ends all", replaces="TokenStopTable", function=_Flattened, bug="rows flattened: unsloth PR #11039"),
    Mutant(name="stop at the token's end", replaces="TokenStopTable", function=_LastByte, bug="text after the stop kept"),
    Mutant(name="period one only", replaces="RepeatDetector", function=_OneLag, bug="abab not noticed"),
    Mutant(name="one row flags all", replaces="RepeatDetector", function=_AnyRow, bug="any over the batch"),
)  # fmt: skip
