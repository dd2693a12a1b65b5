"""The verb diagnose: which bug explains learned values, of a file or of a run.

A recipe whose runs can be diagnosed has ``learnt(config)``: arm -> (its model, the options of diagnose); what
was learnt stands in the artifacts values-... and visits-... of an arm that has ended, and in the checkpoint of
the one in which the run was stopped.

Source: ours.  Not here: the diagnosis (checks/diagnosis.py).
"""

import argparse
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from dodona.errors import DataError, InputError
from dodona.verbs.printing import print_json, spoken_warnings


def diagnose_values(arguments: argparse.Namespace) -> int:
    from dodona.core.inputs import check_choice, check_count

    if arguments.target is not None:
        check_choice(("optimal", "policy"), target=arguments.target)
    check_count(limit=arguments.limit)
    if arguments.values == "latest" or (Path(arguments.values) / "config.json").is_file():
        return _diagnose_run(arguments)
    return _diagnose_file(arguments)


def _diagnose_file(arguments: argparse.Namespace) -> int:
    from dodona.checks.diagnosis import diagnose, read_learned

    model = _model(arguments)
    if model is None:
        raise InputError("diagnose needs the environment: --env ID or --mdp FILE, one of them.")
    values, visits = read_learned(arguments.values)
    found = diagnose(values, model, visits=visits, **_given(arguments))
    if arguments.json:
        print_json(found.to_json())
    else:
        print(found)
    return 0


def _diagnose_run(arguments: argparse.Namespace) -> int:
    from dodona import recipes
    from dodona.checks.diagnosis import diagnose
    from dodona.runs import RunFolder, make_config

    folder = RunFolder.open(arguments.values, out=arguments.out)
    recipe = recipes.load(folder.recipe)
    if not hasattr(recipe, "learnt"):
        raise InputError(
            f"{folder.path} is a run of {folder.recipe}, which keeps no learned values. Give them as a "
            "file: .npz (key q), .npy, .csv or .safetensors."
        )
    config = make_config(recipe.Config, flags=folder.config)
    known, other = recipe.learnt(config), _model(arguments)
    found = {}
    for arm, (values, visits) in _tables(folder, recipe, config, known):
        model, options = known[arm]
        if other is None and arguments.gamma is not None:
            model = model.replace(gamma=arguments.gamma)
        options = {"visits": visits, **options, **_given(arguments)}
        found[arm] = diagnose(values, other or model, **options)
    if not found:
        raise DataError(
            f"{folder.path} holds no learned values yet. One of these must have ended, or have been stopped: "
            f"{', '.join(known)}. Go on with: dodona resume {folder.path}"
        )
    if arguments.json:
        print_json({arm: diagnosis.to_json() for arm, diagnosis in found.items()})
    else:
        print("\n\n".join(f"{arm}\n{diagnosis}" for arm, diagnosis in found.items()))
    return 0


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of diagnose that stand on the command line."""
    options = {
        "target": arguments.target, "limit": arguments.limit, "behaviour": arguments.epsilon,
    }  # fmt: skip
    return {name: value for name, value in options.items() if value is not None}


def _model(arguments: argparse.Namespace) -> Any:
    """The environment that the command line names, or None."""
    from dodona.mdp import MDP
    from dodona.mdp.formats.tables import mdp_from_file

    if arguments.env is not None and arguments.mdp is not None:
        raise InputError("diagnose needs one environment: --env ID or --mdp FILE, not both.")
    if arguments.env is not None:
        if arguments.gamma is None:
            raise InputError("an environment has no discount: give --gamma, as the learner had it.")
        return MDP.from_gymnasium(arguments.env, gamma=arguments.gamma)
    if arguments.mdp is not None:
        return mdp_from_file(arguments.mdp, gamma=arguments.gamma)
    return None


# ---------------------------------------------------------------------- what a run holds
def _tables(
    folder: Any, recipe: Any, config: Any, known: Container[str]
) -> Iterator[tuple[str, Any]]:
    """(arm, Learned) of the arms that have ended, and of the one that the checkpoint stands in."""
    import numpy as np

    from dodona.checks.diagnosis import TRIED, Learned
    from dodona.runs import load_checkpoint, read_events

    for event in read_events(folder):
        files = {key.partition("-")[0]: e["file"] for key, e in event.data.get("artifacts", {}).items()}  # fmt: skip
        if {"values", "visits"} <= set(files) and event.data["arm"] in known:
            values, visits = (
                np.load(folder.path / "artifacts" / files[x], allow_pickle=False)
                for x in ("values", "visits")
            )
            yield event.data["arm"], Learned(values, visits)
    with spoken_warnings():
        state = (load_checkpoint(folder) or {}).get("trainer", {})
    if state.get("arm") in known:
        trainer = recipe.build(config)
        trainer.load_state_dict(state)
        learned = None if trainer.current is None else Learned(**trainer.current.learnt())
        if learned is not None and (learned.visits >= TRIED).any():  # else it has only begun
            yield state["arm"], learned
