"""Annotations checked while the tests run: types by beartype, shapes in the scopes of jaxtyping.

An import hook decorates every function and dataclass of the named modules. jaxtyping has such a hook;
it binds and checks the arguments of each call twice over, which was half of the suite's time. Here
beartype checks once, and only functions that name shapes open a scope. No part of the package.
"""

import ast
import dataclasses
import functools
import re
import sys
import types
import typing
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

import beartype
import jaxtyping

# The numeric tower of PEP 484 holds: an int may stand where a float is annotated.
CONF = beartype.BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError)


def install(modules: Collection[str]) -> None:
    """Check the annotations of these modules, named with dots, when they are imported from now on."""
    sys.meta_path.insert(0, _Finder(modules))


def checked(thing: Any) -> Any:
    """A function that checks its annotations; a dataclass whose __init__ does.

    Within one call, a letter of a shape stands for one length in arguments and result alike.
    """
    if isinstance(thing, type):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    function = beartype.beartype(conf=CONF)(thing)
    if not any(_names_a_shape(hint) for hint in thing.__annotations__.values()):
        return function

    @functools.wraps(thing)
    def scoped(*args: Any, **kwargs: Any) -> Any:
        with jaxtyping.jaxtyped("context"):
            return function(*args, **kwargs)

    return scoped


def _names_a_shape(hint: Any) -> bool:
    """Whether a shape stands anywhere in an annotation; of a string nobody knows, so: yes."""
    if isinstance(hint, str):
        return True
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    inside = hint if isinstance(hint, list) else typing.get_args(hint)
    return any(_names_a_shape(part) for part in inside)


class _Finder:
    """Loads the modules that it knows through _Loader, and leaves all others to the next finder."""

    def __init__(self, modules: Collection[str]):
        self.modules = frozenset(modules)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self.modules else None
        if spec is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> types.CodeType:
        # past the cache: what lies there was compiled without decorators
        tree = _Decorating().visit(ast.parse(self.get_data(self.path)))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


class _Decorating(ast.NodeTransformer):
    """Puts ``checked`` below the decorators of each function and above those of each class.

    Annotations by a name imported under TYPE_CHECKING are dropped: at run time it does not exist.
    """

    def __init__(self) -> None:
        self.absent: set[str] = set()

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self.absent.update(a.asname or a.name for i in node.body for a in i.names)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        hint = node.annotation
        if isinstance(hint, ast.Constant) and self.absent & set(
            re.findall(r"\w+", str(hint.value))
        ):
            node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list.append(_decorator(node))
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list.insert(0, _decorator(node))
        return self.generic_visit(node)


def _decorator(node: ast.stmt) -> ast.expr:
    """``checked``, found without adding a name to the module."""
    expression = ast.parse(f"__import__({__name__!r}).checked", mode="eval").body
    return ast.copy_location(expression, node)
