r"""Reads an answer in LaTeX or plain notation into a small tree, without ``eval`` and without SymPy.

Nodes are tuples that JSON can carry to another process:
("num", "12.5"), ("sym", "x"), ("const", "pi" | "e" | "i" | "oo"), ("neg" | "fact" | "abs", a),
("add" | "sub" | "mul" | "div" | "pow" | "root" | "log" | "eq" | "pm", a, b), ("fun", name, a); and above them
("list", items) without brackets, ("set", items), ("span", "(]", items) for tuples and intervals,
("union", items), ("matrix", rows), ("text", "words").

Conventions: a percent sign, a currency and a degree sign do not count; a whole number before a fraction of
numbers is a mixed number; an implicit product binds like a written one; log is natural.

Source: ours; recursive descent.
Not here: what a tree is worth, and whether two are equal (math_answers.py).
"""

import re
from typing import Any

from dodona.errors import InputError

Node = tuple[Any, ...]
LONGEST, DEEPEST = 1_000, 40  # symbols and nested brackets of an answer that is read

FUNCTIONS = ("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "sec", "csc", "cot", "exp", "ln", "log")  # fmt: skip
GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi", "omega"}  # fmt: skip
CONSTANTS = {"pi": "pi", "infty": "oo", "infinity": "oo", "inf": "oo"}
WORDS = "|".join(("sqrt", "infinity", "infty", "inf", "pi", *FUNCTIONS))
MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}  # fmt: skip

NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
TOKEN = re.compile(rf"\s*({NUMBER}|\\[a-zA-Z]+|\\[{{}}]|(?:{WORDS})(?![a-zA-Z])|\*\*|[a-zA-Z]|\S)")
GROUPED = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
REPLACED = {
    "\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u00f7": "/", "\u03c0": "\\pi ",
    "\u221e": "\\infty ", "\u221a": "\\sqrt ", "\u222a": "\\cup ", "\u00b1": "\\pm ", "\u00b0": "", "{,}": "",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\left": "", "\\right": "", "\\bigl": "", "\\bigr": "",
    "\\displaystyle": "", "\\!": "", "\\,": " ", "\\;": " ", "\\:": " ", "\\ ": " ", "~": " ", "\\quad": " ",
    "\\cdot": "*", "\\times": "*", "\\div": "/", "\\lvert": "|", "\\rvert": "|", "\\vert": "|",
    "^{\\circ}": "", "^\\circ": "", "\\circ": "", "\\%": "", "%": "", "\\$": "", "$": "", "\u20ac": "", "\u00a3": "",
    "\\(": "", "\\)": "", "\\[": "", "\\]": "", "\\lbrace": "\\{", "\\rbrace": "\\}",
}  # fmt: skip
REPLACE = re.compile("|".join(rf"{re.escape(k)}(?![a-zA-Z])" if k[-1].isalpha() and k[0] == "\\" else re.escape(k) for k in sorted(REPLACED, key=len, reverse=True)))  # fmt: skip
WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")  # fmt: skip
MIXED = re.compile(r"(?<![\d.^_/{])(\d+)\s*(?:\\frac\s*\{(\d+)\}\s*\{(\d+)\}|\\frac\s*(\d)(\d)|(?<=\d)\s+(\d+)\s*/\s*(\d+))(?![\d.])")  # fmt: skip
UNIT = re.compile(rf"([-+]?\s*[\d.,]*{NUMBER})\s*((?:[a-zA-Z]{{2,}}|(?<=\s)[a-zA-Z]+)(?:[\s/][a-zA-Z./^\d\s]*)?)\.?")  # fmt: skip
PROSE = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{WORDS})(?![a-zA-Z]))[a-zA-Z]{{4,}}")
MATRIX = re.compile(r"\\begin\{([pbvB]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)


def read_math(text: str) -> tuple[Node, str]:
    """(tree, unit): an answer as a tree, and the unit in words behind a number, or "".

    Raises: InputError: what can not be read, and where.
    Source: see the module.  Oracle: tables of pairs, equal and not.  Cost: O(symbols).
    """
    if len(text) > LONGEST:
        raise InputError(f"the answer has {len(text)} symbols, at most {LONGEST} are read.")
    matrix = MATRIX.fullmatch(text.strip().strip("$").strip())
    if matrix:
        rows = [row.split("&") for row in re.split(r"\\\\", matrix[2]) if row.strip()]
        return ("matrix", [[_Reader(cleaned(cell)).whole() for cell in row] for row in rows]), ""
    text = cleaned(text)
    unit = UNIT.fullmatch(text)
    if unit and not re.fullmatch(WORDS, unit[2].strip()):
        number, words = unit[1], unit[2].strip().casefold().split()
        node = _Reader(_ungrouped(number)).whole()
        if words[0] in MULTIPLES:
            node = ("mul", node, ("num", str(MULTIPLES[words.pop(0)])))
        return node, " ".join(words).removesuffix("s")
    words = re.sub(r"[\s.'-]+", " ", text).strip()
    letters = words.replace(" ", "")
    if (
        letters.isalpha()
        and (len(letters) > 3 or " " in words)
        and not re.fullmatch(WORDS, letters)
    ):
        return ("text", words.casefold()), ""
    prose = PROSE.search(text)
    if prose:  # a product of four symbols is written with * or spaces; a word is no mathematics
        raise InputError(f"{prose[0]!r} is a word.")
    return _Reader(_ungrouped(text)).whole(), ""


def cleaned(text: str) -> str:
    """Spellings without meaning are removed; the rest of a notation stays."""
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", "", text)  # a thin space in a number
    text = REPLACE.sub(lambda match: REPLACED[match[0]], WRAPPED.sub(r" \1 ", text))
    text = re.sub(r"\s(?:and|or)\s", ",", text).strip()
    text = re.sub(r"[.;:,]+$", "", text).strip()
    return MIXED.sub(_mixed, text)


def _mixed(match: re.Match[str]) -> str:
    whole, *parts = (part for part in match.groups() if part is not None)
    return f"({whole}+{parts[0]}/{parts[1]})"


def _ungrouped(text: str) -> str:
    """1,000 is a thousand; between brackets it is two numbers."""
    if any(bracket in text for bracket in "([{"):
        return text
    return GROUPED.sub(lambda match: match[0].replace(",", ""), text)


class _Reader:
    """Recursive descent over the tokens of a cleaned answer."""

    def __init__(self, text: str):
        self.tokens = [match[1] for match in TOKEN.finditer(text)]
        self.place = self.depth = 0

    def whole(self) -> Node:
        if not self.tokens:
            raise InputError("the answer is empty.")
        parts = [self.items()]
        while self.take("\\cup"):
            parts.append(self.items())
        if self.peek():
            raise InputError(f"{self.peek()!r} is not expected here.")
        nodes = [x[0] if len(x) == 1 else ("list", x) for x in parts]
        return nodes[0] if len(nodes) == 1 else ("union", nodes)

    def items(self) -> list[Node]:
        found = [self.relation()]
        while self.take(","):
            found.append(self.relation())
        return found

    def relation(self) -> Node:
        left = self.sum()
        return ("eq", left, self.sum()) if self.take("=") else left

    def sum(self) -> Node:
        node = self.product()
        while self.peek() in ("+", "-", "\\pm"):
            kind = {"+": "add", "-": "sub", "\\pm": "pm"}[self.next()]
            node = (kind, node, self.product())
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            if self.take("*"):
                node = ("mul", node, self.signed())
            elif self.take("/"):
                node = ("div", node, self.signed())
            elif self.begins_factor():
                node = ("mul", node, self.power())
            else:
                return node

    def signed(self) -> Node:
        if self.take("-"):
            return ("neg", self.nested(self.signed))
        if self.take("+"):
            return self.nested(self.signed)
        if self.take("\\pm"):
            return ("pm", ("num", "0"), self.power())
        return self.power()

    def power(self) -> Node:
        node = self.atom()
        while self.take("!"):
            node = ("fact", node)
        if self.take("^") or self.take("**"):
            minus = self.take("-")
            exponent = self.nested(self.power)
            node = ("pow", node, ("neg", exponent) if minus else exponent)
        return node

    def atom(self) -> Node:
        token = self.next()
        if token[0].isdigit() or token[0] == ".":
            if self.peek()[:1].isdigit() or self.peek() == "_":
                raise InputError(f"{token} is followed by {self.peek()!r}: two numbers, or a base.")
            return ("num", token.rstrip(".") if token != "." else "0")
        name = token.removeprefix("\\")
        if token in ("(", "[", "\\{", "{", "|"):
            return self.nested(lambda: self.bracketed(token))
        if name == "frac":
            return ("div", self.group(), self.group())
        if name == "sqrt":
            degree: Node = ("num", "2")
            if self.take("["):
                degree = self.nested(self.sum)
                self.expect("]")
            return ("root", self.group(), degree)
        if name in FUNCTIONS and len(token) > 1:
            return self.applied(name)
        if name in CONSTANTS:
            return ("const", CONSTANTS[name])
        if token in ("e", "i"):
            return ("const", token)
        if (len(token) == 1 and token.isalpha()) or name in GREEK:
            return ("sym", name + self.subscript())
        raise InputError(f"{token!r} can not be read here.")

    def bracketed(self, opening: str) -> Node:
        """What stands behind an opening bracket, up to its partner."""
        items = self.items()
        if opening == "(" or opening == "[":
            closing = self.next()
            if closing not in (")", "]"):
                raise InputError(f"'{opening}' is closed by {closing!r}.")
            if len(items) == 1 and opening + closing in ("()", "[]"):
                return items[0]
            return ("span", opening + closing, items)
        self.expect({"\\{": "\\}", "{": "}", "|": "|"}[opening])
        if opening == "|":
            return ("abs", items[0])
        # braces that are only written, {1, 2}, are a set too
        return ("set", items) if opening == "\\{" or len(items) > 1 else items[0]

    def group(self) -> Node:
        """The argument of \\frac or \\sqrt: a group in braces, or one digit or symbol."""
        token = self.peek()
        if token.isdigit():  # \frac12 is one half
            self.tokens[self.place : self.place + 1] = [token[1:]] if len(token) > 1 else []
            return ("num", token[0])
        return self.nested(self.atom)

    def applied(self, name: str) -> Node:
        if name == "log" and self.take("_"):
            base = self.group()
            return ("log", self.argument(), base)
        power = self.group() if self.take("^") else None
        node: Node = ("fun", name, self.argument())
        return node if power is None else ("pow", node, power)

    def argument(self) -> Node:
        """A bracket alone, or the product that follows: sin(x)^2 is a square, and sin 2x is sin(2x)."""
        if self.peek() in ("(", "[", "{"):
            return self.nested(self.atom)
        node = self.nested(self.power)
        while self.peek() not in ("(", "[") and self.begins_factor(functions=False):
            node = ("mul", node, self.power())
        return node

    def subscript(self) -> str:
        if not self.take("_"):
            return ""
        if not self.take("{"):
            return "_" + self.next()
        name = "_"
        while not self.take("}"):
            name += self.next()
        return name

    def begins_factor(self, *, functions: bool = True) -> bool:
        token = self.peek()
        name = token.removeprefix("\\")
        if name in FUNCTIONS and len(token) > 1:
            return functions
        if name in ("frac", "sqrt") or name in CONSTANTS or name in GREEK:
            return True
        if token in ("(", "[", "\\{", "{") or token[:1].isdigit():
            return True
        return len(token) == 1 and token.isalpha()

    # ------------------------------------------------------------------ tokens
    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        if not token:
            raise InputError("the answer ends too early.")
        self.place += 1
        return token

    def take(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.place += 1
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise InputError(f"{token!r} is expected, got {self.peek() or 'the end'!r}.")

    def nested(self, rule: Any) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"the answer is nested more than {DEEPEST} deep.")
        node = rule()
        self.depth -= 1
        return node
