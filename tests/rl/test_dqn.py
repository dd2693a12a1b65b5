"""DQN: every switch against a plain loop, fixed data against exact truths, resumption, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dodona.checks import dqn as checks
from dodona.checks import value_function_approximation as method
from dodona.core.batch import Batch
from dodona.errors import CheckpointError, ConfigError, InputError, NonFiniteError
from dodona.mdp import MDP, solve, worlds
from dodona.objectives import double_q_target, dqn_loss, q_learning_target
from dodona.oracles.empirical import empirical_mdp
from dodona.rl import FittedQ, OneHot, evaluate, mdp_env
from dodona.rl._flat import FlatOptimizer, FlatParameters
from dodona.rl.dqn import DQNConfig, dqn_trainer
from dodona.rl.fitted_q import LeastSquares
from dodona.rl.q_networks import EpsilonGreedy, QNetwork
from dodona.rl.transitions import sample_transitions

SMALL = DQNConfig(
    num_env_steps=400, learning_starts=40, batch_size=16, train_every=8, gradient_steps=2, target_every=4,
    buffer_size=150, gamma=0.9, record_every=80,
)  # fmt: skip

ZERO = torch.tensor([0])


def as_batch(rows):
    return Batch(
        obs=torch.from_numpy(rows.states), actions=torch.from_numpy(rows.actions),
        rewards=torch.from_numpy(rows.rewards).float(), next_obs=torch.from_numpy(rows.next_states),
        terminated=torch.from_numpy(rows.terminated), truncated=torch.from_numpy(rows.truncated),
        mask=torch.ones(len(rows.rewards), dtype=torch.bool),
    )  # fmt: skip


def run(trainer):
    return list(trainer)


# ---------------------------------------------------------------------- the rule
@pytest.mark.parametrize("seed", range(1, 6))
def test_every_switch_does_what_the_loop_does(seed):
    for check in checks.dqn_checks(method.SUBJECTS, seed):
        name, got, expected, tolerance, _ = check
        assert np.allclose(got, expected, atol=tolerance, rtol=0), name


def test_the_gradient_is_the_hand_formula_and_the_finite_difference():
    """A linear network: d loss / d W[a] = mean of 2 (q - y) x over the rows with action a."""
    rng = np.random.default_rng(0)
    x, a = torch.from_numpy(rng.normal(size=(12, 3))), torch.from_numpy(rng.integers(0, 2, 12))
    data = Batch(
        obs=x, actions=a, rewards=torch.from_numpy(rng.normal(size=12)).float(), next_obs=x.flip(0),
        terminated=torch.arange(12) % 5 == 0, truncated=torch.zeros(12, dtype=torch.bool),
        mask=torch.ones(12, dtype=torch.bool),
    )  # fmt: skip
    net = QNetwork((3,), 2, hidden=(), seed=1).double()
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    config = DQNConfig(batch_size=None, optimizer="sgd", lr=1.0, train_every=1, gradient_steps=1, target_every=1, num_env_steps=1, learning_starts=1, gamma=0.9)  # fmt: skip
    trainer = dqn_trainer(net, None, config, dataset=data)
    rows = trainer.buffer.rows(np.arange(12))
    with torch.no_grad():
        y = rows.rewards.double() + rows.info["discounts"].double() * net(rows.next_obs).amax(1)
        error = net(x).gather(1, a[:, None])[:, 0] - y
    weight = torch.stack([2 * (error * (a == b)) @ x / 12 for b in range(2)])
    bias = torch.stack([2 * (error * (a == b)).sum() / 12 for b in range(2)])

    def loss(vector):
        W, b = vector[:6].reshape(2, 3), vector[6:]
        return (((x @ W.T + b).gather(1, a[:, None])[:, 0] - y) ** 2).mean().item()

    h = 1e-6
    differences = [(loss(before + h * e) - loss(before - h * e)) / (2 * h) for e in torch.eye(8, dtype=torch.float64)]  # fmt: skip
    with torch.no_grad():
        expected = dqn_loss(net(x), a, y).item()
    assert run(trainer)[-1].metrics["loss/td"] == pytest.approx(expected, rel=1e-12)
    moved = before - trainer.online.vector
    assert torch.allclose(moved, torch.cat([weight.flatten(), bias]), atol=1e-12)
    assert np.allclose(moved.numpy(), differences, atol=1e-7)


def test_a_table_on_even_data_is_fitted_q_iteration_by_iteration():
    """Every pair equally often: one gradient step of length pairs / 2 is one exact refit."""
    s, a = np.repeat(np.arange(3), 4), np.tile([0, 0, 1, 1], 3)
    rng = np.random.default_rng(3)
    rows = (s, a, rng.integers(-8, 9, 12) / 8, rng.integers(0, 3, 12), rng.random(12) < 0.2)
    data = Batch(
        **{k: torch.from_numpy(v) for k, v in zip(("obs", "actions", "next_obs", "terminated"), (s, a, rows[3], rows[4]), strict=True)},
        rewards=torch.from_numpy(rows[2]).float(), truncated=torch.zeros(12, dtype=torch.bool),
        mask=torch.ones(12, dtype=torch.bool),
    )  # fmt: skip
    for k in (1, 2, 5):
        fitted = FittedQ(lambda: LeastSquares(OneHot(3)), 2, gamma=0.5)
        with pytest.warns(UserWarning, match="still moves"):
            fitted.learn(rows, num_iterations=k, tol=1e-12)
        config = DQNConfig(batch_size=None, optimizer="sgd", lr=3.0, train_every=1, gradient_steps=1, target_every=1, num_env_steps=k, learning_starts=1, gamma=0.5)  # fmt: skip
        net = QNetwork(3, 2, hidden=()).double()
        run(dqn_trainer(net, None, config, dataset=data))
        assert np.allclose(net(torch.arange(3)).detach().numpy(), fitted.q(np.arange(3)), atol=1e-12)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_all_rows_of_a_table_end_at_the_optimum_of_the_empirical_model(seed):
    for name, got, expected, tolerance, _ in checks.identity_check(method.SUBJECTS, seed):
        assert np.allclose(got, expected, atol=tolerance, rtol=0), name


def test_double_estimation_takes_the_bias_of_the_maximum_away():
    """Two equal arms with noise: E max of two means is s / sqrt(pi); a second network judges without bias.

    400 data sets; |z| <= 4.
    """
    rng = np.random.default_rng(0)
    plain, double = [], []
    for _ in range(400):
        means = rng.normal(size=(2, 2))  # two networks, two arms
        judge, chooser = torch.from_numpy(means)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        plain.append(q_learning_target(zero, one, judge[None]).item())
        double.append(double_q_target(zero, one, chooser[None], judge[None]).item())
    for got, truth in ((plain, 1 / math.sqrt(math.pi)), (double, 0.0)):
        assert abs(np.mean(got) - truth) < 4 * np.std(got) / 20


# ---------------------------------------------------------------------- acting
def test_it_learns_the_optimum_of_a_small_model():
    mdp = worlds.book_small()
    truth = solve(mdp).q
    env = mdp_env(mdp, 8, seed=0, max_episode_steps=20)
    net = QNetwork.for_env(env, hidden=())
    config = DQNConfig(
        num_env_steps=6000, gamma=mdp.gamma, epsilon=(1.0, 1.0, 1.0), target_every=20, lr=0.05, batch_size=64,
    )  # fmt: skip
    events = run(dqn_trainer(net, env, config))
    feasible = np.isfinite(truth) & ~mdp.terminal[:, None]
    q = net(torch.arange(mdp.num_states)).detach().numpy()
    assert np.abs(q - truth)[feasible].max() < 0.05
    assert events[-1].num_samples >= 6000 and events[-1].metrics["replay/size"] == 6000


def test_infeasible_actions_are_neither_taken_nor_hoped_for():
    mask = np.array([[True, False], [True, True], [True, False]])
    P = np.zeros((3, 2, 3))
    P[:, :, :] = [[[0, 1, 0]] * 2, [[1, 0, 0], [0, 0, 1]], [[1, 0, 0]] * 2]
    mdp = MDP.from_dense(P, np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), gamma=0.5, layout="sas", action_mask=mask)  # fmt: skip
    trainer = dqn_trainer(None, mdp_env(mdp, 4, seed=0), replace(SMALL, gamma=0.5))
    run(trainer)
    rows = trainer.buffer.rows(np.arange(len(trainer.buffer)))
    assert mask[rows.obs.numpy(), rows.actions.numpy()].all()
    assert (rows.actions[rows.obs == 1] == 1).any()


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"prioritized": True, "num_steps": 3, "double": True},
        {"tau": 0.1, "target_every": 1, "optimizer": "rmsprop", "loss": "huber", "max_grad_norm": 1.0},
        {"dueling": True, "batch_size": None, "optimizer": "sgd", "lr": 1e-3},
    ],
)  # fmt: skip
def test_a_resumed_run_is_the_same_run(switches):
    def fresh():
        env = mdp_env(worlds.book_grid(), 3, seed=5, max_episode_steps=7)
        config = replace(SMALL, evaluate_every=80, **switches)
        return dqn_trainer(
            None, env, config, evaluate=lambda net: {"first": float(net(ZERO)[0, 0])}
        )

    whole, first, second = fresh(), fresh(), fresh()
    expected = run(whole)
    begun = iter(first)
    events = [next(begun) for _ in range(3)]  # an evaluation is due and not yet made
    state = first.state_dict()
    list(begun)  # what happens after the state was taken does not change it
    second.load_state_dict(state)
    events += run(second)
    assert events == expected
    assert torch.equal(second.online.vector, whole.online.vector)
    assert torch.equal(second.target.vector, whole.target.vector)


def test_equal_seeds_run_alike_and_others_do_not():
    def last(seed):
        env = mdp_env(worlds.book_grid(), 3, seed=5)
        trainer = dqn_trainer(None, env, replace(SMALL, seed=seed))
        run(trainer)
        return trainer.online.vector

    assert torch.equal(last(0), last(0)) and not torch.equal(last(0), last(1))


def test_more_environments_than_a_bout_owe_more_updates():
    env = mdp_env(worlds.book_grid(), 32, seed=0)
    trainer = dqn_trainer(None, env, replace(SMALL, num_env_steps=320, target_every=2))
    assert run(trainer)[-1].step == (320 - 40) // 8 * 2


def test_the_learning_rate_falls_in_a_straight_line():
    config = replace(SMALL, lr=0.005, lr_decay=0.8, record_every=200)
    trainer = dqn_trainer(None, mdp_env(worlds.book_grid(), 8, seed=0), config)
    seen = [(event.num_samples, trainer.optimizer.lr) for event in trainer]
    assert [n for n, _ in seen] == [200, 400]
    assert np.allclose([lr for _, lr in seen], [0.003, 0.001], rtol=1e-12)


def test_events_come_when_due_and_an_evaluation_can_end_the_run():
    env = mdp_env(worlds.book_grid(), 4, seed=0, max_episode_steps=5)
    seen = []

    def judge(net):
        seen.append(EpsilonGreedy(net))
        return {"number": float(len(seen))}

    config = replace(SMALL, evaluate_every=120)
    trainer = dqn_trainer(None, env, config, evaluate=judge, until=lambda found: found["number"] == 2)  # fmt: skip
    events = run(trainer)
    assert [e.kind for e in events] == ["update", "evaluation", "update", "update", "evaluation"]
    assert events[-1].metrics == {"eval/number": 2.0} and events[-1].num_samples == 240
    assert run(trainer) == []
    update = events[0].metrics
    assert {"loss/td", "q/mean", "q/max", "q/bound", "episode/return", "explore/epsilon", "replay/size"} <= set(update)  # fmt: skip
    assert update["episode/length"] == 5.0
    stats = evaluate(seen[0], mdp_env(worlds.book_grid(), 4, seed=0, max_episode_steps=5), num_episodes=4, seed=1, greedy=True)  # fmt: skip
    assert len(stats) == 4


def test_the_target_network_shares_no_storage_and_has_no_gradient():
    net = QNetwork((3,), 2)
    trainer = dqn_trainer(net, None, SMALL, dataset=as_float_batch())
    run(trainer)
    mine = {p.untyped_storage().data_ptr() for p in net.parameters()}
    theirs = {p.untyped_storage().data_ptr() for p in trainer.target_net.parameters()}
    assert not mine & theirs
    assert all(p.grad is None and not p.requires_grad for p in trainer.target_net.parameters())


def as_float_batch(dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    return Batch(
        obs=torch.randn(60, 3, generator=rng, dtype=dtype), actions=torch.randint(2, (60,), generator=rng),
        rewards=torch.randn(60, generator=rng), next_obs=torch.randn(60, 3, generator=rng, dtype=dtype),
        terminated=torch.rand(60, generator=rng) < 0.1, mask=torch.ones(60, dtype=torch.bool),
    )  # fmt: skip


def test_parameters_become_views_of_one_vector_and_the_network_stays_what_it_was():
    net = QNetwork((3,), 2, dueling=True, layer_norm=True)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    before = net(x)
    flat = FlatParameters(net)
    assert torch.equal(net(x), before)
    flat.vector.mul_(2.0)
    assert torch.equal(next(net.parameters()).flatten(), flat.vector[: 3 * 64])
    net(x).sum().backward()
    assert torch.equal(flat.gradient[: 3 * 64], next(net.parameters()).grad.flatten())
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(
        TypeError, match="one dtype on one device, got torch.float32 on cpu, torch.float64"
    ):
        FlatParameters(mixed)
    with pytest.raises(TypeError, match="got no parameters"):
        FlatParameters(nn.ReLU())


@pytest.mark.parametrize(
    "network, switches",
    [
        ({"hidden": (7, 5)}, {}),
        ({"hidden": (), "dueling": True}, {"loss": "huber"}),
        ({"hidden": (6,), "dueling": True}, {"prioritized": True, "double": True}),
        ({"hidden": (4, 3, 2)}, {"loss": "huber", "prioritized": True, "max_grad_norm": 0.1}),
    ],
)
def test_the_written_gradient_is_that_of_autograd(network, switches):
    class Any(QNetwork):
        """A network of which nothing is known goes through autograd."""

    nets = [kind((3,), 2, seed=1, **network).double() for kind in (QNetwork, Any)]
    config = replace(SMALL, **switches)
    trainers = [dqn_trainer(net, None, config, dataset=as_float_batch(torch.float64)) for net in nets]  # fmt: skip
    assert [len(trainer.written) for trainer in trainers] == [2, 0]
    events = [run(trainer) for trainer in trainers]
    assert torch.allclose(*(t.online.vector for t in trainers), rtol=1e-9, atol=1e-12)
    assert events[0][-1].metrics == pytest.approx(events[1][-1].metrics, rel=1e-9)


@pytest.mark.parametrize("kind", ["adam", "rmsprop", "sgd"])
def test_the_optimizer_is_the_published_one(kind):
    """Adam and plain steps against torch.optim, centred RMSProp against its recursion, number by number."""
    rng = np.random.default_rng(0)
    flat = FlatParameters(nn.Linear(3, 2).double())
    optimizer = FlatOptimizer(flat, kind, lr=0.01, eps=0.01)
    reference = nn.Parameter(flat.vector.clone())
    theirs = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}.get(kind)
    if theirs:
        theirs = theirs([reference], lr=0.01, **({"eps": 0.01} if kind == "adam" else {}))
    mean, square = np.zeros(8), np.zeros(8)
    expected = flat.vector.numpy().copy()
    for _ in range(7):
        g = rng.normal(size=8)
        flat.gradient.copy_(torch.from_numpy(g))
        optimizer.step()
        if theirs:
            reference.grad = torch.from_numpy(g)
            theirs.step()
            expected = reference.detach().numpy()
        else:
            for i in range(8):
                mean[i] = 0.95 * mean[i] + 0.05 * g[i]
                square[i] = 0.95 * square[i] + 0.05 * g[i] ** 2
                expected[i] -= 0.01 * g[i] / math.sqrt(square[i] - mean[i] ** 2 + 0.01)
        assert np.allclose(flat.vector.numpy(), expected, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------------- what is watched and refused
def test_a_loss_that_is_not_finite_names_the_rows():
    trainer = dqn_trainer(QNetwork((3,), 2), None, SMALL, dataset=as_float_batch())
    trainer.buffer.ring.obs[:] = 255  # float32 NaN, byte by byte
    with pytest.raises(
        NonFiniteError, match=r"loss of update 1 is nan, on the replay rows \d+, .*, \.\.\."
    ):
        run(trainer)


def test_values_beyond_what_rewards_allow_are_warned_about_once():
    net = QNetwork((3,), 2)
    with torch.no_grad():
        net.head.bias.fill_(1e6)
    config = replace(SMALL, lr=1e-6)
    trainer = dqn_trainer(net, None, config, dataset=as_float_batch())
    with pytest.warns(UserWarning, match=r"action values reach .* allow .*: learning diverges") as caught:  # fmt: skip
        events = run(trainer)
    assert len(caught) == 1 and all(e.data == {"diverges": True} for e in events)
    silent = dqn_trainer(net, None, replace(config, divergence=math.inf), dataset=as_float_batch())
    run(silent)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"tau": 1.5}, r"tau must be in \(0, 1\], got 1.5"),
        ({"lr_decay": 1.1}, r"lr_decay must be in \[0, 1\], got 1.1"),
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\], got 1.1"),
        ({"target_every": 0}, "the target network would never move"),
        ({"target_every": 10**6}, "target_every is 1000000 and the run makes at most 100 updates"),
        ({"buffer_size": 8}, "buffer_size 8 is smaller than batch_size 16"),
        ({"learning_starts": 8}, "learning_starts 8 is smaller than batch_size 16"),
        ({"epsilon": (1.0, 0.1, 0.0)}, r"epsilon_share must be in \(0, 1\], got 0.0"),
        ({"epsilon": (1.0, 1.1, 0.5)}, r"epsilon must be in \[0, 1\], got 1.1 at index 1"),
        ({"batch_size": None, "prioritized": True}, "has nothing to prioritize"),
        ({"divergence": 0.5}, r"divergence must be in \[1, inf\]"),
    ],
)  # fmt: skip
def test_settings_that_can_not_work_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


def test_presets_are_what_was_published():
    nature, cleanrl = DQNConfig.nature(), DQNConfig.cleanrl(seed=3)
    assert (nature.batch_size, nature.buffer_size, nature.target_every, nature.lr, nature.optimizer, nature.loss) == (32, 1_000_000, 10_000, 2.5e-4, "rmsprop", "huber")  # fmt: skip
    assert round(nature.epsilon[2] * nature.num_env_steps) == 1_000_000 and nature.epsilon[1] == 0.1
    found = (
        cleanrl.lr,
        cleanrl.gamma,
        cleanrl.batch_size,
        cleanrl.buffer_size,
        cleanrl.learning_starts,
    )
    assert found == (2.5e-4, 0.99, 128, 10_000, 10_000)
    assert cleanrl.train_every == 10 * cleanrl.gradient_steps
    assert cleanrl.target_every * 10 == 500 and cleanrl.seed == 3


def test_what_does_not_fit_together_is_refused():
    env = mdp_env(worlds.book_grid(), 2, seed=0)
    data = as_float_batch()
    with pytest.raises(InputError, match="give an environment or a data set, one of them"):
        dqn_trainer(None, env, SMALL, dataset=data)
    with pytest.raises(InputError, match="give an environment or a data set, one of them"):
        dqn_trainer(None, None, SMALL)
    with pytest.raises(InputError, match="does not say what network to make"):
        dqn_trainer(None, None, SMALL, dataset=data)
    with pytest.raises(ConfigError, match="q_net is not dueling"):
        dqn_trainer(QNetwork(25, 5), env, replace(SMALL, dueling=True))
    env.num_actions = None
    with pytest.raises(
        InputError, match="continuous actions; DQN takes a maximum over numbered ones"
    ):
        dqn_trainer(None, env, SMALL)
    with pytest.raises(InputError, match="has continuous actions and q has one output per action"):
        QNetwork.for_env(env)
    with pytest.raises(TypeError, match="actions must be integers, got torch.float32"):
        dqn_trainer(QNetwork((3,), 2), None, SMALL, dataset=data.replace(actions=data.actions.float()))  # fmt: skip
    with pytest.raises(ConfigError, match="the data set has 60 rows and buffer_size keeps 40"):
        dqn_trainer(QNetwork((3,), 2), None, replace(SMALL, buffer_size=40), dataset=data)
    trainer = dqn_trainer(QNetwork((3,), 2), None, SMALL, dataset=data)
    other = dqn_trainer(QNetwork((3,), 2, hidden=(8,)), None, SMALL, dataset=data)
    with pytest.raises(CheckpointError, match="the network has 50. Make it as it was"):
        other.load_state_dict(trainer.state_dict())


def test_unvisited_pairs_keep_the_loss_from_saying_anything():
    """Book Fig 8.12: on few data the loss vanishes and the values do not come near the truth."""
    grid = worlds.book_grid()
    rows = sample_transitions(grid, 60, seed=0)
    seen = empirical_mdp(rows.states, rows.actions, rows.rewards, rows.next_states, num_states=25, num_actions=5)  # fmt: skip
    assert (seen.counts[:25] == 0).sum() > 40
    net = QNetwork(25, 5, hidden=())
    config = DQNConfig(
        batch_size=None, optimizer="sgd", lr=15.0, train_every=1, gradient_steps=1, target_every=5,
        num_env_steps=600, learning_starts=1, gamma=0.9,
    )  # fmt: skip
    events = run(dqn_trainer(net, None, replace(config, record_every=600), dataset=as_batch(rows)))
    truth = solve(grid).q
    error = net(torch.arange(25)).detach().numpy() - truth
    assert events[-1].metrics["loss/td"] < 1e-2 and np.sqrt((error**2).mean()) > 1.0
