"""A run's configuration: a frozen dataclass, filled from a file, ``--set`` and flags, in that order.

Unknown keys are errors with the nearest name and what that field means. Values are read by the
field's type; nothing is evaluated.
"""

import ast
import dataclasses
import hashlib
import inspect
import json
import textwrap
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dodona.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class Field:
    """One configuration field: its name, type, default and the docstring under it."""

    name: str
    type: Any
    default: Any
    doc: str


def config_fields(config_class: type) -> list[Field]:
    """The fields of a config class in order, each with its docstring."""
    hints, docs = get_type_hints(config_class), _docs(config_class)
    return [
        Field(name=f.name, type=hints[f.name], default=f.default, doc=docs.get(f.name, ""))
        for f in dataclasses.fields(config_class)
    ]


def make_config(
    config_class: type,
    *,
    base: Any = None,
    file: str | Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Any:
    """Fill a config: defaults or ``base`` (a preset), then the file, then ``key=value``, then flags.

    Args:
        file: JSON or TOML with the fields at its top level.
        sets: "key=value" strings.  flags: field -> text or value; None = not given.
    Raises:
        ConfigError: an unknown key (nearest name and its meaning), a value of the wrong type, a
            file that can not be read.
    """
    fields = {f.name: f for f in config_fields(config_class)}
    values = {} if base is None else {name: getattr(base, name) for name in fields}
    given: list[tuple[str, Any]] = list(_read_file(file).items()) if file else []
    for item in sets:
        key, sign, value = item.partition("=")
        if not sign:
            raise ConfigError(f"--set needs key=value, got '{item}'.")
        given.append((key.strip(), value.strip()))
    given += [(k, v) for k, v in (flags or {}).items() if v is not None]
    for key, value in given:
        if key not in fields:
            hint = nearest(key, fields)
            meant = fields.get(hint.split("'")[1]) if hint.startswith("Did") else None
            raise ConfigError(
                f"unknown configuration key '{key}'. {hint}"
                + (f" {meant.name}: {meant.doc}" if meant and meant.doc else "")
            )
        values[key] = parse_value(key, value, fields[key].type)
    return config_class(**values)


def parse_value(name: str, value: Any, kind: Any) -> Any:
    """A text or JSON value as the field's type, or a ConfigError that says what fits."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None or (type(None) in options and value in ("none", "None", "null", "")):
            return None
        for option in options:
            if option is not type(None):
                try:
                    return parse_value(name, value, option)
                except ConfigError:
                    continue
    elif origin is Literal:
        for option in options:
            if value == option or str(option) == value:
                return option
    elif origin is tuple:
        items = [x for x in value.split(",") if x] if isinstance(value, str) else list(value)
        return tuple(
            parse_value(name, x.strip() if isinstance(x, str) else x, options[0]) for x in items
        )
    elif kind is bool:
        table = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in table:
            return table[str(value).lower()]
    elif kind in (int, float):
        try:
            if not isinstance(value, bool) and (kind is float or float(value) == int(float(value))):
                return (
                    kind(value)
                    if isinstance(value, str) and kind is int and value.isdigit()
                    else kind(float(value))
                )
        except (TypeError, ValueError, OverflowError):
            pass
    elif kind is str and isinstance(value, str):
        return value
    raise ConfigError(f"{name} must be {_spell(kind)}, got {value!r}.")


def config_hash(recipe: str, config: Any) -> str:
    """Eight hex digits that name recipe and configuration."""
    text = json.dumps([recipe, dataclasses.asdict(config)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _spell(kind: Any) -> str:
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(repr(o) for o in options)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if o is type(None) else _spell(o) for o in options)
    if origin is tuple:
        return f"a comma-separated list of {_spell(options[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        kind, str(kind)
    )


def _read_file(file: str | Path) -> dict[str, Any]:
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            f"config file {path} can not be read: {error}. JSON or TOML is expected."
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"config file {path} must hold one table of fields, got {type(data).__name__}."
        )
    return data


def _docs(config_class: type) -> dict[str, str]:
    """Docstrings under the fields, read from the source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(config_class)))
    except (OSError, TypeError):
        return {}
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    docs = {}
    for field, below in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                docs[ast.unparse(field.target)] = " ".join(below.value.value.split())
    return docs
