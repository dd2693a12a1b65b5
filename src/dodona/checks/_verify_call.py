"""How a loss of unknown make is called: which argument means what, and what it gives back.

Source: the names that RLHF and control libraries use.  Not here: judging.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.errors import InputError, nearest
from dodona.objectives.rewards import pay_at_the_end

ROLES = ("logp", "logp_old", "logp_ref", "advantages", "rewards", "group", "group_size", "mask")
NAMES: Mapping[str, tuple[str, ...]] = {
    "logp": ("logp", "logps", "logprobs", "log_probs", "log_prob", "logp_new", "new_logp", "new_logps", "newlogprob",
             "new_log_probs", "new_logprobs", "per_token_logps", "action_log_probs", "current_log_probs",
             "curr_logprobs", "policy_logps", "trainer_logprobs", "logpi", "log_pi"),
    "logp_old": ("logp_old", "old_logp", "old_logps", "old_log_probs", "old_log_prob", "old_logprobs", "oldlogprob",
                 "old_per_token_logps", "old_action_log_probs", "logprobs_old", "log_probs_old",
                 "behavior_logp", "behaviour_logp", "sampling_logps", "b_logprobs", "mb_logprobs", "rollout_log_probs",
                 "inference_logprobs", "generator_logprobs", "mu_logp"),
    "logp_ref": ("logp_ref", "ref_logp", "ref_logps", "ref_log_probs", "ref_log_prob", "ref_logprobs",
                 "ref_per_token_logps", "reference_logps", "reference_log_probs", "base_action_log_probs",
                 "log_probs_ref"),
    "advantages": ("advantages", "advantage", "adv", "advs", "weights", "returns", "b_advantages", "mb_advantages", "a"),
    "rewards": ("rewards", "reward", "scores", "outcome_rewards", "r"),
    "group": ("group", "groups", "group_ids", "group_id", "prompt_ids", "prompt_index", "index", "uid"),
    "group_size": ("group_size", "num_generations", "num_samples_per_prompt", "n_samples_per_prompt", "g"),
    "mask": ("mask", "response_mask", "completion_mask", "action_mask", "loss_mask", "eos_mask", "attention_mask",
             "token_mask"),
}  # fmt: skip
"""Role -> names that are taken for it, compared without case."""


SAMPLES = 7  # batches that a vectorised call must reproduce


@dataclass
class Called:
    """A loss with its roles found. Counts its calls.

    Rows of one group stand together, so a loss may take their number (group_size) in place of group.
    turned: roles that it wants in the other shape: advantages per row, rewards per token.
    flat: it wants the counted tokens of all rows in one line.
    """

    loss: Callable[..., Any]
    roles: tuple[tuple[str, str], ...]  # (parameter, role)
    turned: set[str] = field(default_factory=set)
    flat: bool = False
    float_mask: bool = False
    num_groups: int = 1  # in the batches of the moment, one group after the other
    calls: int = 0

    def has(self, *roles: str) -> bool:
        """It takes one of them."""
        return any(r in roles for _, r in self.roles)

    def value(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The scalar loss.  Raises: InputError: no scalar comes back."""
        self.calls += 1
        arguments = {name: self._shaped(role, inputs) for name, role in self.roles}
        found = self.loss(**arguments)
        if isinstance(found, Mapping):
            found = found.get("loss", next(iter(found.values()), None))
        if isinstance(found, (tuple, list)) and found:
            found = found[0]
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the loss returned {shape}, one scalar tensor is expected (or a tuple or dictionary that "
                "begins with it). Reduce it first: how it is reduced is part of what is judged."
            )
        return found.reshape(())

    def gradient(self, inputs: Mapping[str, Tensor]) -> np.ndarray:
        """[B, T] d loss / d logp."""
        logp = inputs["logp"].detach().clone().requires_grad_()
        loss = self.value({**inputs, "logp": logp})
        if not loss.requires_grad:
            raise InputError("the loss does not depend on logp: nothing would be trained by it.")
        (found,) = torch.autograd.grad(loss, logp, allow_unused=True)
        return np.zeros(tuple(logp.shape)) if found is None else found.numpy()

    def gradients(self, inputs: Mapping[str, Tensor]) -> np.ndarray:
        """[n, B, T] the same for n batches at once: in one vectorised call where the loss can be traced and
        then agrees with single calls, otherwise one after another."""
        num = len(inputs["logp"])
        single = [
            self.gradient({k: x[i] for k, x in inputs.items()})
            for i in range(0, num, num // SAMPLES or 1)
        ]
        if not self.flat:

            def of(logp: Tensor, rest: dict[str, Tensor]) -> Tensor:
                return self.value({**rest, "logp": logp})

            try:
                rest = {k: x for k, x in inputs.items() if k != "logp"}
                found = torch.func.vmap(torch.func.grad(of))(inputs["logp"], rest).detach().numpy()
            except Exception:  # it reads values, or does what can not be traced
                found = None
            if found is not None and np.allclose(
                found[:: num // SAMPLES or 1], single, rtol=1e-9, atol=1e-12, equal_nan=True
            ):
                self.calls += num - 1
                return found
        return np.stack([self.gradient({k: x[i] for k, x in inputs.items()}) for i in range(num)])

    def _shaped(self, role: str, inputs: Mapping[str, Tensor]) -> Tensor | int:
        if role == "group_size":
            return len(inputs["logp"]) // self.num_groups
        x, mask = inputs[role], inputs["mask"]
        if role in self.turned:
            x = x[:, 0] if role == "advantages" else pay_at_the_end(x, mask)
        if self.flat and x.ndim == 2:
            x = x[mask]
        return x.to(inputs["logp"].dtype) if role == "mask" and self.float_mask else x


def check_roles(takes: Sequence[str]) -> None:
    """Raises: InputError: a role that does not exist; the nearest is named."""
    for role in takes:
        if role not in ROLES:
            raise InputError(f"takes has an unknown role '{role}'. {nearest(role, ROLES)}")


def read_signature(loss: Callable[..., Any], takes: Sequence[str] | None = None) -> Called:
    """The roles of a loss's parameters, by their names or as told.

    Args: takes: roles in the order of the parameters, out of ROLES.
    Raises: InputError: an unknown role; a required parameter whose role nobody can guess; no logp.
    """
    # a torch module is called through __call__(*args), which says nothing
    spoken = loss.forward if isinstance(loss, torch.nn.Module) else loss
    parameters = [
        p
        for p in inspect.signature(spoken).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if takes is not None:
        check_roles(takes)
        if len(takes) > len(parameters):
            raise InputError(f"takes names {len(takes)} arguments, the loss has {len(parameters)}.")
        roles = [(p.name, role) for p, role in zip(parameters, takes, strict=False)]
        rest = parameters[len(takes) :]
    else:
        roles, rest = [], []
        for p in parameters:
            role = _guess(p.name)
            if role is not None and role not in {r for _, r in roles}:
                roles.append((p.name, role))
            else:
                rest.append(p)
    unknown = [p.name for p in rest if p.default is p.empty]
    if unknown:
        raise InputError(
            f"what is '{unknown[0]}' of {_name(loss)}? Its name says nothing. Give takes=(...), the roles of the "
            f"arguments in order, out of {', '.join(ROLES)}; or give it a default."
        )
    if "logp" not in {role for _, role in roles}:
        raise InputError(
            f"{_name(loss)} takes no log-probabilities (a parameter named logp, log_probs, ...). Name the "
            "arguments with takes=(...)."
        )
    return Called(loss, tuple(roles))


def find_shapes(called: Called, inputs: Mapping[str, Tensor]) -> Called:
    """Try per token, then per row, then flat, until the loss accepts; raises its first complaint.

    Flat comes first where there is no mask: padding would count as tokens.
    """
    first: Exception | None = None
    lines = not called.has("mask", "rewards", "group", "group_size")
    for flat in (lines, not lines):
        for float_mask in (False, True):
            for turned in (set(), {"advantages"}, {"rewards"}):
                if any(not called.has(role) for role in turned) or float_mask > called.has("mask"):
                    continue
                called.flat, called.turned, called.float_mask = flat, turned, float_mask
                try:
                    called.gradient(inputs)
                except InputError as error:
                    if "returned" in str(error) or "depend" in str(error):
                        raise
                    first = first or error
                except Exception as error:  # whatever a stranger's function throws at a wrong shape
                    first = first or error
                else:
                    return called
    assert first is not None
    raise InputError(
        f"{_name(called.loss)} fails on a batch of two answers of three tokens: {type(first).__name__}: {first}. "
        f"It was given {', '.join(f'{p} as {r}' for p, r in called.roles)}; if a role is wrong, give takes=(...)."
    ) from first


def _guess(name: str) -> str | None:
    return next((role for role, names in NAMES.items() if name.lower() in names), None)


def _name(loss: Callable[..., Any]) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
