"""Off-policy actor-critic: updates by hand, forms that differ, resuming, support; means stand in the checks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.core.batch import Batch
from dodona.errors import ConfigError, InputError, ShapeError, SupportError
from dodona.mdp import worlds
from dodona.oracles.chains import stationary
from dodona.oracles.dense import policy_value
from dodona.oracles.gradients import off_policy_gradient, softmax, visitation
from dodona.policies import MLPPolicy, TablePolicy
from dodona.rl import OffPolicyConfig, OffPolicyObjective, make_env, mdp_env, off_policy_trainer

GRID = worlds.book_grid()
EVEN = np.full((25, 5), 0.2)
SMALL = OffPolicyConfig(num_env_steps=4 * 8 * 6, optimizer="sgd", lr=0.5, critic_lr=1.0)
FORMS = ("semi", "emphatic", "clipped", "none")


def trainer(form="semi", *, behaviour=EVEN, config=SMALL, **options):
    return off_policy_trainer(
        None, behaviour, mdp_env(GRID, 4, seed=3), config=replace(config, form=form), **options
    )


def weights(module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()


@pytest.mark.parametrize("form", ["semi", "emphatic", "none"])
def test_one_update_is_the_two_rules_written_out(form):
    run = trainer(form)
    with torch.no_grad():  # off the behaviour, or every ratio is one
        run.policy.logits.copy_(torch.randn(25, 5, generator=torch.Generator().manual_seed(0)))
        run.critic.values.copy_(torch.linspace(-1, 1, 25))
    theta, v = run.policy.logits.detach().clone().double(), run.critic.values.detach().clone()
    batch = run.collector.collect(run.policy)
    pi = torch.softmax(theta, 1)
    step_theta, step_v = torch.zeros_like(theta), torch.zeros(25, dtype=torch.float64)
    for row in range(4):
        trace = 1.0
        for t in range(8):
            s, a, s2 = (int(x[row, t]) for x in (batch.obs, batch.actions, batch.next_obs))
            w = 1.0 if form == "none" else float(pi[s, a]) / 0.2
            delta = float(batch.rewards[row, t]) + 0.9 * float(v[s2]) - float(v[s])
            m = trace if form == "emphatic" else 1.0
            step_v[s] += w * delta / 32
            step_theta[s] += m * w * delta * (torch.eye(5)[a] - pi[s]) / 32
            trace = 1.0 + 0.9 * w * trace
    run.update(batch)
    assert np.allclose(run.policy.logits.detach(), theta + 0.5 * step_theta, atol=1e-5)
    assert np.allclose(run.critic.values.detach(), v + 1.0 * step_v, atol=1e-5)


def test_the_behaviour_acts_and_stays_as_it_is():
    behaviour = TablePolicy(25, 5)
    with torch.no_grad():
        behaviour.logits[:, 1] = 2.0
    before = weights(behaviour).copy()
    run = trainer(behaviour=behaviour)
    batch = run.collector.collect(run.policy)
    assert torch.equal(batch.logp_old, behaviour.log_prob(batch.obs, batch.actions))
    list(run)
    assert np.array_equal(weights(behaviour), before)


def test_a_policy_that_is_its_own_behaviour_has_ratio_one():
    run = trainer()
    run.collector.behaviour = run.policy
    numbers = run.update(run.collector.collect(run.policy))
    assert numbers["ratio/max"] == pytest.approx(1.0) and numbers["ratio/ess"] == pytest.approx(1.0)


def test_exact_weights_are_asked_of_the_policy_before_every_update():
    asked = []

    def ones(policy):
        asked.append(weights(policy).copy())
        return np.ones(25)

    run, semi = trainer("exact", state_weights=ones), trainer("semi")
    list(run), list(semi)
    assert len(asked) == 6 and not np.array_equal(asked[0], asked[-1])
    assert np.array_equal(weights(run.policy), weights(semi.policy))


def test_masked_rows_do_not_count():
    policy = TablePolicy(3, 2)
    with torch.no_grad():
        policy.logits.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.3, 0.2]]))
    generator = torch.Generator().manual_seed(1)

    def made(columns):
        flags = torch.zeros(2, 4, dtype=torch.bool)
        whole = {
            "obs": torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]]),
            "actions": torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1]]),
            "rewards": torch.randn(2, 4, generator=generator.manual_seed(1)),
            "values": torch.randn(2, 4, generator=generator),
            "next_values": torch.randn(2, 4, generator=generator),
            "logp_old": torch.full((2, 4), -0.7), "terminated": flags, "truncated": flags,
            "next_obs": torch.zeros(2, 4, dtype=torch.int64),
        }  # fmt: skip
        return {name: x[:, columns] for name, x in whole.items()}

    objective = OffPolicyObjective(policy, form="emphatic", gamma=0.9)
    dropped = objective.prepare(Batch(mask=torch.ones(2, 3), **made([0, 2, 3])))
    objective.carry = None
    mask = torch.ones(2, 4)
    mask[:, 1] = 0.0
    masked = objective.prepare(Batch(mask=mask, **made([0, 1, 2, 3])))
    assert torch.allclose(masked.advantages[:, [0, 2, 3]], dropped.advantages)
    losses = [
        objective(policy.log_prob(b.obs, b.actions), b, values=b.values)[0].item()
        for b in (masked, dropped)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_mean_of_many_emphatic_steps_is_the_exact_gradient():
    """4 standard errors of 64 means; a semi-gradient would be off by more than half the gradient."""
    P, R, gamma = GRID.dense()
    run = off_policy_trainer(
        None, EVEN, mdp_env(GRID, 64, seed=0),
        config=replace(SMALL, form="emphatic", num_env_steps=64 * 60, num_steps=60),
    )  # fmt: skip
    logits = np.random.default_rng(0).normal(size=(25, 5)) * 0.3
    v, _ = policy_value(P, R, gamma, softmax(logits))
    with torch.no_grad():
        run.policy.logits.copy_(torch.from_numpy(logits))
        run.critic.values.copy_(torch.from_numpy(v))
    run.collector.collect(run.policy)  # to the long-run shares
    batch = run.objective.prepare(run.collector.collect(run.policy))
    late = torch.zeros(64, 60)
    late[:, 40:] = 1.0  # the trace has forgotten its beginning
    logp = run.policy.log_prob(batch.obs, batch.actions)
    terms = (logp - batch.logp_old).exp() * batch.advantages * late / 20
    truth = off_policy_gradient(P, R, gamma, logits, behaviour=EVEN, form="exact")
    direction = truth / np.linalg.norm(truth)
    rows = np.array([
        torch.autograd.grad(term, run.policy.logits, retain_graph=True)[0].double().numpy().ravel() @ direction
        for term in terms.sum(1)
    ])  # fmt: skip
    error = rows.std() / 8
    assert abs(rows.mean() - np.linalg.norm(truth)) < 4 * error
    semi = off_policy_gradient(P, R, gamma, logits, behaviour=EVEN, form="semi")
    assert np.linalg.norm(truth) - semi @ direction > 4 * error


def test_corrected_forms_learn_the_grid_and_the_uncorrected_does_not():
    P, R, gamma = GRID.dense()
    shares = stationary(P, EVEN)
    config = OffPolicyConfig(num_env_steps=32 * 8 * 80, lr=0.15, critic_lr=0.4)

    def exact(policy):
        pi = softmax(policy.logits.detach().double().numpy())
        return visitation(P, gamma, pi, start=shares) / shares

    values = {}
    for form in ("semi", "none", "exact"):
        known = {"state_weights": exact} if form == "exact" else {}
        run = off_policy_trainer(None, EVEN, mdp_env(GRID, 32, seed=1), config=replace(config, form=form), **known)  # fmt: skip
        list(run)
        pi = softmax(run.policy.logits.detach().double().numpy())
        values[form] = shares @ policy_value(P, R, gamma, pi)[0]
    assert values["semi"] > 7.0 and values["exact"] > 7.0  # of 7.8
    assert values["none"] < 4.0


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_gives_the_same_events(form):
    whole = [repr(e) for e in trainer(form)]
    first = trainer(form)
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(3)]
    second = trainer(form)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_perceptrons_learn_from_perceptrons():
    env = make_env("CartPole-v1", 4, seed=0)
    behaviour = MLPPolicy.for_env(env, seed=9)
    run = off_policy_trainer(None, behaviour, env, config=replace(SMALL, form="clipped"))
    before = weights(run.policy).copy()
    assert all(np.isfinite(e.metrics["loss/policy"]) for e in run)
    assert not np.array_equal(weights(run.policy), before)


# ---------------------------------------------------------------------- bad input
def test_what_the_behaviour_never_does_is_named():
    never = EVEN.copy()
    never[7] = [0.25, 0.25, 0.0, 0.25, 0.25]
    with pytest.raises(SupportError, match=r"state 7, action 2: the policy takes it with .* 0.2 and the behaviour never does") as error:  # fmt: skip
        trainer(behaviour=never)
    assert (error.value.state, error.value.action) == (7, 2)
    with pytest.raises(SupportError, match="behaviour in state 0 is"):
        trainer(behaviour=2 * EVEN)


def test_a_perceptron_behaviour_without_support_is_found_in_the_batch():
    class Bounded(MLPPolicy):
        def distribution(self, obs, actions=None):
            law = super().distribution(obs, actions)
            logits = law.logits.clone()
            logits[..., 1] = -torch.inf
            return type(law)(logits)

    env = make_env("CartPole-v1", 4, seed=0)
    run = off_policy_trainer(None, Bounded.for_env(env, seed=1), env, config=SMALL)
    with pytest.raises(SupportError, match="observation .* action 1"):
        list(run)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="form"):
        OffPolicyConfig(form="retrace")
    with pytest.raises(InputError, match="ratio_max"):
        OffPolicyConfig(ratio_max=0.0)
    with pytest.raises(InputError, match="form is 'exact' and none were given"):
        trainer("exact")
    with pytest.raises(InputError, match="form is 'semi' and they were given"):
        trainer("semi", state_weights=lambda policy: np.ones(25))
    with pytest.raises(InputError, match="a function without sample and log_prob"):
        trainer(behaviour=lambda obs: torch.zeros(len(obs), dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"behaviour has shape \(3, 5\), expected \[S, A\] = \(25, 5\)"):  # fmt: skip
        trainer(behaviour=EVEN[:3])
    with pytest.raises(ConfigError, match="one collection is 32 steps"):
        trainer(config=replace(SMALL, num_env_steps=31))
    env = make_env("CartPole-v1", 4, seed=0)
    with pytest.raises(InputError, match="one number per numbered state, and CartPole-v1 has none"):
        off_policy_trainer(
            None, MLPPolicy.for_env(env), env, config=replace(SMALL, form="exact"),
            state_weights=lambda policy: np.ones(4),
        )  # fmt: skip
    run = trainer()
    batch = run.collector.collect(run.policy)
    with pytest.raises(InputError, match="the batch has no logp_old"):
        run.objective.prepare(batch.replace(logp_old=None))
