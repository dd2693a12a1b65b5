"""Which options each planning method takes, and what they may be.

Not here: what they do (proposals.py), their sources (planning.py, the function that offers them).
"""

import math
from typing import Any

from dodona.errors import InputError, nearest
from dodona.mdp.evaluation import METHODS as EVALUATIONS

OPTIONS = {
    "auto": ("patience", "inner", "alpha", "krylov"),
    "anderson": ("window",),
    "gauss-seidel": ("inner", "omega"),
    "backward": ("inner",),
    "random-order": ("seed",),
    "topological": ("limit",),
    "truncated": ("num_sweeps",),
    "policy-iteration": ("evaluation", "switch"),
    "inexact": ("alpha", "krylov"),
}
COUNTS = {
    "num_sweeps": 1,
    "inner": 0,
    "window": 1,
    "limit": 1,
    "seed": 0,
}  # option -> its least value


def check_options(
    *, method: str, tol: float, max_iter: int | None, tol_kind: str, **options: Any
) -> None:
    """Raises: InputError: an option that the method does not take, or a value that it can not use."""
    if not (tol > 0 and math.isfinite(tol)):
        raise InputError(f"tol must be a finite number > 0, got {tol}. 1e-8 is usual.")
    if tol_kind not in ("value", "policy"):
        raise InputError(f"tol_kind must be 'value' or 'policy', got {tol_kind!r}.")
    known = OPTIONS.get(method, ())
    for name in options:
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise InputError(
                f"method '{method}' has no option '{name}'; it {takes}. {nearest(name, known) if known else ''}".rstrip()
            )
    counts = {"max_iter": max_iter} | {k: options.get(k) for k in COUNTS}
    for name, value in counts.items():
        if value is not None and (value != int(value) if math.isfinite(value) else True):
            raise InputError(f"{name} must be a whole number, got {value}.")
        if value is not None and value < COUNTS.get(name, 1):
            raise InputError(f"{name} must be at least {COUNTS.get(name, 1)}, got {value}.")
    if options.get("krylov", "gmres") not in ("gmres", "bicgstab"):
        raise InputError(f"krylov must be 'gmres' or 'bicgstab', got {options['krylov']!r}.")
    if options.get("evaluation", "auto") not in EVALUATIONS:
        raise InputError(
            f"evaluation must be one of {', '.join(EVALUATIONS)}, got {options['evaluation']!r}."
        )
    if options.get("switch", "howard") not in ("howard", "simplex"):
        raise InputError(f"switch must be 'howard' or 'simplex', got {options['switch']!r}.")
    if not 0 < options.get("omega", 1.0) < 2:
        raise InputError(f"omega must be in (0, 2), got {options['omega']}. 1 is Gauss-Seidel.")
    if not 0 < options.get("alpha", 1e-4) < 1:
        raise InputError(f"alpha must be in (0, 1), got {options['alpha']}. madupite uses 1e-4.")
