"""TRPO: what a step owes whatever it is given, the trainer against the loop by hand, two processes, and what is refused."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from two_processes import in_two_processes

from dodona.checks import trpo as checks
from dodona.core.batch import Batch
from dodona.core.distributed import rank
from dodona.errors import CheckpointError, ConfigError, InputError, NonFiniteError
from dodona.mdp import policy_value, solve, worlds
from dodona.objectives import (
    PolicyObjective,
    conjugate_gradient,
    fisher_vector_product,
    natural_step,
    ppo,
    step_scale,
    surrogate_loss,
)
from dodona.policies import LinearPolicy, MLPCritic, MLPPolicy, TablePolicy
from dodona.rl import (
    Evaluation,
    TRPOConfig,
    TrustRegion,
    TrustRegionUpdate,
    make_env,
    mdp_env,
    npg_trainer,
    trpo_objective,
    trpo_trainer,
    trust_region_step,
)

SMALL = TRPOConfig(
    num_env_steps=256, num_steps=16,
    update=TrustRegionUpdate(critic_iters=2, critic_minibatches=4),
)  # fmt: skip


def cartpole(num_envs=4, seed=0):
    return make_env("CartPole-v1", num_envs, seed=seed)


def weights(*modules):
    return torch.cat([p.detach().reshape(-1) for m in modules for p in m.parameters()])


def problem(family="categorical", n=40, seed=0, dtype=torch.float64, **options):
    """(policy, batch) of random states and advantages."""
    policy = MLPPolicy(3, 2, hidden=(8,), family=family, seed=seed, **options).to(dtype)
    rng = np.random.default_rng(seed)
    obs = torch.from_numpy(rng.normal(size=(n, 3))).to(dtype)
    actions, logp_old = policy.sample(obs, rng=rng)
    return policy, Batch(
        obs=obs, actions=actions, logp_old=logp_old, mask=torch.ones(n, dtype=torch.bool),
        advantages=torch.from_numpy(rng.normal(size=n)).to(dtype),
    )  # fmt: skip


def measured(before, after, batch):
    """(KL(old || new), gain of the surrogate) anew."""
    with torch.no_grad():
        old, new = before.distribution(batch.obs), after.distribution(batch.obs)
        w = batch.mask.double() / batch.mask.double().sum()
        gap = torch.expm1(new.log_prob(batch.actions) - old.log_prob(batch.actions))
        return float((w * old.kl(new)).sum()), float((w * gap * batch.advantages)[batch.mask.bool()].sum())  # fmt: skip


# ---------------------------------------------------------------------- the step
def test_a_thousand_injected_cases_are_inside_and_better_or_have_changed_nothing():
    """Random advantages of any scale, NaN, constants, one state, masks, radii of 1e-8 to 10, laws near 0 and 1."""
    subjects = dict(checks.SUBJECTS)
    found = [c for seed in range(1000, 2000) for c in checks._contract(subjects, seed)]
    assert [c.name for c in found if not c.passed] == []
    taken = [c.name for c in found if c.name.startswith("taken")]
    assert len(found) >= 1000 and 600 < len(taken) / 2 < 1000


@pytest.mark.parametrize("family", ["categorical", "gaussian"])
def test_the_step_is_the_search_by_hand(family):
    policy, batch = problem(family)
    by_hand = copy.deepcopy(policy)
    report = trust_region_step(policy, batch, damping=0.1, damping_kind="absolute", max_kl=0.05)
    logp = by_hand.log_prob(batch.obs, batch.actions)
    loss = surrogate_loss(logp, batch.logp_old, batch.advantages)
    g = torch.cat([x.reshape(-1) for x in torch.autograd.grad(-loss, list(by_hand.parameters()))])
    step = natural_step(g, fisher_vector_product(by_hand, batch.obs), max_kl=0.05, damping=0.1)
    start = weights(by_hand)
    for j in range(10):
        moved = copy.deepcopy(by_hand)
        nn.utils.vector_to_parameters(start + 0.8**j * step, moved.parameters())
        kl, gain = measured(by_hand, moved, batch)
        if kl <= 0.05 and gain > 0:
            break
    assert report.accepted and report.backtracks == j and report.looks == j + 1
    assert torch.allclose(weights(policy), start + 0.8**j * step, atol=1e-10)
    assert report.kl == pytest.approx(kl, abs=1e-12)
    assert report.improvement == pytest.approx(gain, abs=1e-12)
    assert report.predicted == pytest.approx(float(0.8**j * g @ step), rel=1e-9)
    cosine = float(torch.nn.functional.cosine_similarity(g, step, dim=0))
    assert np.cos(np.radians(report.angle_to_gradient)) == pytest.approx(cosine, abs=1e-9)


@pytest.mark.parametrize("radius", ["backtrack", "exact"])
def test_a_deviation_that_all_states_share_counts_in_the_divergence(radius):
    """Its law holds a view of the parameter: were candidates written in place, it would not seem to move."""
    policy, batch = problem("gaussian")
    batch = batch.replace(advantages=-(batch.actions**2).sum(-1))  # smaller deviations are better
    before = copy.deepcopy(policy)
    report = trust_region_step(policy, batch, max_kl=0.02, radius=radius)
    kl, gain = measured(before, policy, batch)
    assert report.accepted and (policy.log_std < before.log_std).all()
    assert report.kl == pytest.approx(kl, rel=1e-9) and kl <= 0.02 and gain > 0
    if radius == "exact":
        assert kl >= 0.99 * 0.02 and report.looks <= 7


def test_parameters_keep_their_memory_and_their_order():
    policy, batch = problem()
    places = [p.data_ptr() for p in policy.parameters()]
    assert trust_region_step(policy, batch).accepted
    assert [p.data_ptr() for p in policy.parameters()] == places


def test_the_scale_of_the_advantages_changes_no_step():
    ends = []
    for scale in (1.0, 2.0**13):  # a power of 2 rounds nothing
        policy, batch = problem()
        trust_region_step(policy, batch.replace(advantages=scale * batch.advantages))
        ends.append(weights(policy))
    assert torch.allclose(*ends, atol=1e-12)


def test_the_policy_after_a_step_hardly_depends_on_its_parametrisation():
    """theta -> M theta moves the law alike at O(step^2); a plain gradient step moves it elsewhere."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(3, 3)) + np.eye(3)
    states = torch.from_numpy(rng.integers(0, 3, 60))

    def policies():
        return LinearPolicy(np.eye(3), 2).double(), LinearPolicy(mix, 2).double()

    gaps = {}
    for max_kl in (1e-2, 1e-4):
        ends, plain = [], []
        for policy in policies():
            actions = torch.arange(60) % 2
            batch = Batch(
                obs=states, actions=actions, mask=torch.ones(60, dtype=torch.bool),
                logp_old=policy.log_prob(states, actions).detach(),
                advantages=torch.from_numpy(np.random.default_rng(1).normal(size=60)),
            )  # fmt: skip
            logp = policy.log_prob(states, actions)
            (g,) = torch.autograd.grad(-surrogate_loss(logp, batch.logp_old, batch.advantages), policy.weights)  # fmt: skip
            moved = copy.deepcopy(policy)
            product = fisher_vector_product(policy, states)
            scale = step_scale(g.reshape(-1), product, max_kl=max_kl)
            moved.weights.data += scale * g
            plain.append(moved.distribution(torch.arange(3)).probs.detach())
            trust_region_step(policy, batch, max_kl=max_kl, radius="quadratic", damping=0.0, num_cg_iters=20)  # fmt: skip
            ends.append(policy.distribution(torch.arange(3)).probs.detach())
        gaps[max_kl] = float((ends[0] - ends[1]).abs().max()), float((plain[0] - plain[1]).abs().max())  # fmt: skip
    assert gaps[1e-4][0] < 1e-6 < 1e-3 < gaps[1e-4][1]
    assert gaps[1e-2][0] < 1e-4


def test_no_gradient_and_constant_advantages_move_nothing():
    policy, batch = problem()
    start = weights(policy).clone()
    for advantages, reason in ((2.5, "constant advantages"), (0.0, "constant advantages")):
        same = batch.replace(advantages=torch.full_like(batch.advantages, advantages))
        report = trust_region_step(policy, same)
        assert (report.accepted, report.reason, report.kl) == (False, reason, 0.0)
    # both actions once in one state, weighed by their chance: no gradient, though advantages differ
    table = TablePolicy(2, 2).double()
    pairs = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    level = Batch(
        obs=pairs[0], actions=pairs[1], mask=torch.ones(4, dtype=torch.bool),
        logp_old=table.log_prob(*pairs).detach(), advantages=torch.tensor([1.0, 1.0, 2.0, 2.0]).double(),
    )  # fmt: skip
    assert trust_region_step(table, level).reason == "no gradient"
    assert torch.equal(weights(policy), start) and torch.equal(weights(table), torch.zeros(4).double())  # fmt: skip


def test_a_candidate_that_breaks_the_policy_leaves_it_whole():
    class Fragile(MLPPolicy):
        asked = 0

        def distribution(self, obs, actions=None):
            self.asked += 1
            if self.asked == 3:  # surrogate, Fisher products, first candidate
                raise RuntimeError("out of memory")
            return super().distribution(obs, actions)

    _, batch = problem()
    policy = Fragile(3, 2, hidden=(8,), seed=0).double()
    start = weights(policy).clone()
    with pytest.raises(RuntimeError, match="out of memory"):
        trust_region_step(policy, batch)
    assert torch.equal(weights(policy), start)


def test_a_strided_fisher_matrix_is_that_of_every_so_many_th_state():
    policy, batch = problem(n=60)
    other = copy.deepcopy(policy)
    trust_region_step(policy, batch, fisher_stride=3, radius="quadratic", damping=0.0)
    thin = fisher_vector_product(other, batch.obs[::3])
    loss = surrogate_loss(other.log_prob(batch.obs, batch.actions), batch.logp_old, batch.advantages)  # fmt: skip
    g = torch.cat([x.reshape(-1) for x in torch.autograd.grad(-loss, list(other.parameters()))])
    s, _ = conjugate_gradient(thin, g)
    expected = weights(other) + step_scale(s, thin, max_kl=0.01) * s
    assert torch.allclose(weights(policy), expected, atol=1e-9)


def test_min_gain_asks_for_a_share_of_what_is_predicted():
    policy, batch = problem()
    report = trust_region_step(policy, batch, max_kl=0.5, min_gain=0.9)
    if report.accepted:
        assert report.improvement > 0.9 * report.predicted
    plain = trust_region_step(problem()[0], batch, max_kl=0.5)
    assert plain.accepted and plain.backtracks <= report.backtracks + 10 * (not report.accepted)


# ---------------------------------------------------------------------- the update and the trainers
def test_an_update_is_a_step_and_then_regression_by_hand():
    trainer = trpo_trainer(None, cartpole(), config=SMALL)
    policy, critic = copy.deepcopy(trainer.policy), copy.deepcopy(trainer.critic)
    batch = trainer.collector.collect(trainer.policy)
    prepared = trainer.objective.prepare(batch)
    trust_region_step(policy, prepared.flatten())
    adam = torch.optim.Adam(critic.parameters(), 1e-3, eps=1e-5)
    obs, returns = prepared.obs.reshape(-1, 4), prepared.returns.reshape(-1)
    rng = type(trainer.streams)(0).numpy("minibatches")
    for _ in range(2):
        for rows in np.array_split(rng.permutation(64), 4):
            adam.zero_grad()
            (0.5 * (critic(obs[rows]) - returns[rows]) ** 2).mean().backward()
            adam.step()
    metrics = trainer.update(batch)
    assert torch.allclose(weights(trainer.policy), weights(policy), atol=1e-5)
    assert torch.allclose(weights(trainer.critic), weights(critic), atol=1e-5)
    assert metrics["trust/accepted"] == 1 and 0 < metrics["trust/kl_share"] <= 1
    assert {"trust/improvement", "trust/predicted", "trust/cg_residual", "trust/angle_to_gradient",
            "trust/backtracks", "loss/value", "value/explained", "guard/skipped"} <= set(metrics)  # fmt: skip


def test_it_finds_the_best_policy_of_an_mdp():
    model = worlds.line_two()
    env = mdp_env(model, 8, seed=0, max_episode_steps=20)
    config = TRPOConfig(
        num_env_steps=8 * 20 * 25, num_steps=20, objective=trpo_objective(gamma=model.gamma),
        update=TrustRegionUpdate(max_kl=0.1, critic_lr=5e-2, critic_minibatches=2),
    )  # fmt: skip
    trainer = trpo_trainer(None, env, config=config)
    list(trainer)
    best = solve(model, tol=1e-10)
    greedy = trainer.policy.logits.argmax(dim=1).numpy()
    assert policy_value(model, greedy).values == pytest.approx(best.values, abs=1e-6)


def test_the_natural_policy_gradient_takes_the_quadratic_step_and_a_rate_where_it_is_given_one():
    shares, sizes = [], []
    for update in (SMALL.update, replace(SMALL.update, radius="quadratic", step_size=0.01)):
        trainer = npg_trainer(None, cartpole(), config=replace(SMALL, update=update))
        start = weights(trainer.policy)
        (first, *_) = trainer
        shares.append(first.metrics["trust/kl_share"])
        sizes.append(float((weights(trainer.policy) - start).norm()))
        assert first.metrics["trust/accepted"] == 1 and first.metrics["trust/looks"] == 1
    assert shares[1] < shares[0] and sizes[1] < sizes[0]


def test_a_resumed_run_gives_the_same_events():
    def build():
        env = make_env("Pendulum-v1", 3, seed=1, backend="gymnasium")
        return trpo_trainer(
            None, env, config=replace(SMALL, num_env_steps=5 * 48, normalize_obs=True, normalize_rewards=True),
            evaluation=Evaluation(env=make_env("Pendulum-v1", 2, seed=5), every=3, num_episodes=2),
        )  # fmt: skip

    whole = [repr(e) for e in build()]
    first = build()
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(2)]
    second = build()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_objectives_with_an_entropy_bonus_grow_as_a_whole():
    """L is what the objective says: the bonus is in the gradient and in the test."""
    policy, batch = problem()
    with torch.no_grad():
        policy.net[-1].bias[0] += 1.0  # away from the uniform law
    batch = batch.replace(logp_old=policy.log_prob(batch.obs, batch.actions).detach())
    update = TrustRegionUpdate(critic_iters=0).bind(policy)
    bonus = PolicyObjective(name="bonus", advantage="given", surrogate="unclipped", entropy_coef=100.0)  # fmt: skip
    before = policy.distribution(batch.obs).entropy().mean().item()
    metrics = update.run(batch, bonus, rng=np.random.default_rng(0), step=0)
    assert metrics["trust/accepted"] == 1
    assert policy.distribution(batch.obs).entropy().mean().item() > before


class Trunk(nn.Module):
    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(8, 1)

    def forward(self, obs):
        return self.head(self.trunk(obs)).squeeze(-1)


def test_a_shared_trunk_is_said_frozen_or_wanted():
    policy = MLPPolicy(4, 2, hidden=(8,))
    critic = Trunk(policy.net[:2])
    with pytest.warns(
        UserWarning, match="policy and critic share 2 of 4 parameters.*shared='freeze'"
    ):
        TrustRegionUpdate().bind(policy, critic)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = TrustRegionUpdate(shared="train").bind(policy, critic)
        own = TrustRegionUpdate(shared="freeze").bind(policy, critic)
        TrustRegionUpdate(critic_iters=0).bind(policy, critic)
    sizes = [len(b.optimizer.param_groups[0]["params"]) for b in (both, own)]
    assert sizes == [4, 2]
    with pytest.raises(InputError, match="all of the critic's parameters are the policy's"):
        TrustRegionUpdate(shared="freeze").bind(policy, policy.net)


# ---------------------------------------------------------------------- two processes
ROWS = [[0, 2, 4, 5, 9, 11, 12], [1, 3, 6, 7, 8, 10, 13, 14, 15]]


def stepped(rows, radius):
    policy, batch = problem("gaussian", n=16)
    report = trust_region_step(policy, batch.select(rows), radius=radius)
    return weights(policy), report


def stepped_on_a_share():
    """Parameters and reports after a step on this process's share of the rows."""
    return [stepped(ROWS[rank()], radius) for radius in ("backtrack", "exact")]


def test_two_processes_equal_one(tmp_path):
    shared = in_two_processes(stepped_on_a_share, tmp_path)
    for (found, report), radius in zip(shared, ("backtrack", "exact"), strict=True):
        alone, expected = stepped(range(16), radius)
        assert expected.accepted and torch.allclose(found, alone, atol=1e-9)
        assert report.kl == pytest.approx(expected.kl, rel=1e-6)
        assert report.improvement == pytest.approx(expected.improvement, rel=1e-6)


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda b: b.replace(logp_old=None), InputError, "needs batch.logp_old, and the batch has none"),
        (lambda b: b.replace(advantages=None), InputError, r"advantages, .* Call objective.prepare"),
        (lambda b: b.replace(logp_old=b.logp_old + 0.5), InputError, "by up to 0.5 nats before the step.*Take one step"),
        (lambda b: b.select([0]), InputError, "1 counted steps: a batch of one"),
        (lambda b: b.replace(advantages=b.advantages * torch.nan), NonFiniteError, "advantages"),
        (lambda b: b.replace(advantages=b.advantages / 0.0), NonFiniteError, "advantages"),
    ],
)  # fmt: skip
def test_batches_that_are_no_ground_to_stand_on_are_named(change, error, message):
    policy, batch = problem()
    start = weights(policy).clone()
    with pytest.raises(error, match=message):
        trust_region_step(policy, change(batch))
    assert torch.equal(weights(policy), start)


def test_policies_that_do_not_hold_still_are_named():
    class Dropped(MLPPolicy):
        def __init__(self, layer):
            super().__init__(3, 2, hidden=(8,), seed=0)
            self.net.insert(2, layer)

    for layer, name in ((nn.Dropout(0.5), "Dropout"), (nn.BatchNorm1d(8), "BatchNorm1d")):
        policy = Dropped(layer).double()
        _, batch = problem()
        with pytest.raises(InputError, match=rf"{name} 'net.2' is active.*policy.eval\(\)"):
            trust_region_step(policy, batch)
        policy.eval()
        batch = batch.replace(logp_old=policy.log_prob(batch.obs, batch.actions).detach())
        assert trust_region_step(policy, batch).accepted

    class Mute:
        def __init__(self, law):
            self.log_prob = law.log_prob

    class NoKL(MLPPolicy):
        def distribution(self, obs, actions=None):
            return Mute(super().distribution(obs))

    with pytest.raises(TypeError, match="Mute has no kl"):
        trust_region_step(NoKL(3, 2, hidden=(8,), seed=0).double(), problem()[1])
    half = problem()[0].half()
    with pytest.raises(InputError, match="torch.float16: natural gradients need float32"):
        trust_region_step(half, problem()[1])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"max_kl": 0.0}, "max_kl must be in .* 0.01"),
        ({"damping": -1e-3}, "damping must be in .*indefinite"),
        ({"backtrack": 1.0}, "backtrack must be in .*0.8"),
        ({"min_gain": 1.0}, "min_gain must be in"),
        ({"num_cg_iters": 0}, "num_cg_iters must be at least 1, got 0"),
        ({"max_backtracks": 0}, "max_backtracks must be at least 1"),
        ({"fisher_stride": 0}, "fisher_stride must be at least 1"),
        ({"step_size": 0.1}, "step_size belongs to radius='quadratic' and radius='backtrack' would ignore it"),
        ({"step_size": -0.1, "radius": "quadratic"}, "step_size must be in"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        TrustRegion(**settings)


def test_updates_and_trainers_that_can_not_be_made_are_named():
    with pytest.raises(InputError, match="critic_iters must be at least 0, got -1"):
        TrustRegionUpdate(critic_iters=-1)
    with pytest.raises(InputError, match="critic_lr must be in"):
        TrustRegionUpdate(critic_lr=0.0)
    with pytest.raises(ConfigError, match="num_env_steps is 63, and one collection is 64 steps"):
        trpo_trainer(None, cartpole(), config=replace(SMALL, num_env_steps=63))
    many = replace(SMALL, update=replace(SMALL.update, critic_minibatches=65))
    with pytest.raises(
        ConfigError, match="65 minibatches of a collection of 64 steps.*Use at most 64"
    ):
        trpo_trainer(None, cartpole(), config=many)
    trainer = trpo_trainer(None, cartpole(), config=replace(SMALL, objective=ppo()))
    with pytest.raises(InputError, match="value_coef is 1.0: the critic has its own steps"):
        list(trainer)
    policy, batch = problem()
    bound = TrustRegionUpdate().bind(policy, MLPCritic(3).double())
    objective = PolicyObjective(name="given", advantage="given", surrogate="unclipped")
    with pytest.raises(InputError, match="the batch has no returns"):
        bound.run(batch, objective, rng=np.random.default_rng(0), step=0)
    with pytest.raises(CheckpointError, match="trains no critic, this run trains one"):
        bound.load_state_dict({"critic": None})
