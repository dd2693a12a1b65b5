"""A function of the user's, found by its place: mine.py:td_target, or package.module:td_target.

The file is executed, as ``python mine.py`` would, but not as ``__main__``. Not here: what is done with the
function (runner.py).
Source: ours; the form module:object is that of Python's entry points.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from dodona.errors import DataError, InputError, nearest


def load_function(place: str) -> Callable[..., Any]:
    """The function, or class, at a place.

    Args:
        place: "FILE.py:name", or "module:name" of a module that Python finds from here.
    Raises:
        InputError: no colon, a module that is not found or fails, a name that it has not (the nearest is
            given) or that can not be called.
        DataError: no such file.
    Source: see the module.  Oracle: a file with a function that is called.  Cost: that of the file.
    """
    where, colon, name = place.rpartition(":")
    if not (colon and where and name):
        raise InputError(
            f"'{place}' is no place of a function. Expected FILE.py:function or module:function."
        )
    module = load_module(where)
    # a room that loads its names when they are asked for says them in __all__
    public = getattr(module, "__all__", None) or [
        n for n, x in vars(module).items() if callable(x) and not n.startswith("_")
    ]
    found = getattr(module, name, None)
    if found is None:
        hint = nearest(name, public) if public else "It defines no function."
        raise InputError(f"{where} has no function '{name}'. {hint}")
    if not callable(found):
        raise InputError(f"{where}:{name} is {type(found).__name__}, expected a function or class.")
    return found


def load_module(where: str) -> ModuleType:
    """The module of a file, or the one that Python finds from here by that name.

    Raises: InputError: it is not found, or fails.  DataError: no such file.
    Source: see the module.  Oracle: as load_function.  Cost: that of the file.
    """
    path = Path(where)
    if path.suffix != ".py":
        with _findable(Path.cwd()), _told(where):
            return importlib.import_module(where)
    if not path.is_file():
        raise DataError(f"there is no file {path}. Expected FILE.py:function.")
    spec = importlib.util.spec_from_file_location(f"user file {path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look themselves up there
    with _findable(path.resolve().parent), _told(where):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _findable(folder: Path) -> Iterator[None]:
    """Modules beside the user's own are found, as in a script."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{where} could not be imported: {type(error).__name__}: {error}."
        ) from error
