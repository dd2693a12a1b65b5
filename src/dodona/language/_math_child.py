"""The symbolic process: one line of JSON in, one line out. Run by path, so it imports nothing of dodona.

A request is two trees of _math_reader, the answer true, false or null. Trees are built, never parsed from
text: SymPy's own parser evaluates what it reads.

Source: ours; SymPy's simplify and equals.
Not here: the time limit, which the parent keeps by ending this process (_math_process.py).
"""

import json
import sys
from typing import Any


def main() -> None:
    _limit_memory()
    import sympy

    print("ready", flush=True)
    for line in sys.stdin:
        left, right = json.loads(line)
        try:
            answer = _equal(sympy, left, right)
        except Exception:  # whatever SymPy can not do is not decided
            answer = None
        print(json.dumps(answer), flush=True)


def _equal(sympy: Any, left: Any, right: Any) -> bool | None:
    difference = _built(sympy, left) - _built(sympy, right)
    if difference == 0:
        return True
    simple = sympy.simplify(difference)
    if simple == 0:
        return True
    return simple.equals(0)


def _built(sympy: Any, node: Any) -> Any:
    kind, *parts = node
    if kind == "num":
        return sympy.Rational(parts[0])
    if kind == "sym":
        return sympy.Symbol(parts[0])
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[parts[0]]
    if kind == "fun":
        name = str(parts[0])
        name = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log"}.get(name, name)
        return getattr(sympy, name)(_built(sympy, parts[1]))
    values = [_built(sympy, part) for part in parts]
    a, b = (values * 2)[:2]
    if kind == "fact":
        return sympy.factorial(a)
    if kind == "root":
        negative = a.is_number and a.is_negative and b.is_odd
        return -sympy.root(-a, b) if negative else sympy.root(a, b)
    if kind == "log":
        return sympy.log(a, b)
    if kind in ("neg", "abs"):
        return -a if kind == "neg" else sympy.Abs(a)
    return {"add": a.__add__, "sub": a.__sub__, "mul": a.__mul__, "div": a.__truediv__, "pow": a.__pow__}[kind](b)  # fmt: skip


def _limit_memory() -> None:
    """Two GiB, where the system can limit it."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


if __name__ == "__main__":
    main()
