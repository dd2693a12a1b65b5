"""The deterministic gradient without replay: the compatible critic's theorem, the steps by hand, a regulator."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from dodona.errors import CheckpointError, InputError, NonFiniteError
from dodona.oracles.lqr import lqr2
from dodona.policies import DeterministicPolicy
from dodona.rl import CompatibleCritic, DPGConfig, dpg_trainer, make_env
from dodona.rl.environments import Step


class Regulator:
    """The cart of oracles.lqr: reward -(x^T Q x + u^T R u), episodes of 50 steps, first states N(0, I)."""

    id, num_actions, num_states, max_episode_steps = "Regulator", None, None, 50
    obs_shape, obs_dtype, action_dim = (2,), torch.float64, 1
    device = torch.device("cpu")
    action_low, action_high = torch.tensor([-math.inf]), torch.tensor([math.inf])

    def __init__(self, num_envs=64):
        self.num_envs, self.truth = num_envs, lqr2()

    def reset(self, *, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.x, self.t = self.rng.normal(size=(self.num_envs, 2)), 0
        return torch.from_numpy(self.x.copy())

    def step(self, actions):
        truth, u = self.truth, actions.double().numpy()
        cost = np.einsum("bi,ij,bj->b", self.x, truth.Q, self.x) + np.einsum("bi,ij,bj->b", u, truth.R, u)  # fmt: skip
        noise = self.rng.normal(size=self.x.shape) @ np.linalg.cholesky(truth.W).T
        self.x, self.t = self.x @ truth.A.T + u @ truth.B.T + noise, self.t + 1
        after, over = torch.from_numpy(self.x.copy()), self.t == 50
        obs = self.reset() if over else after
        no = torch.zeros(self.num_envs, dtype=torch.bool)
        return Step(obs=obs, next_obs=after, rewards=torch.from_numpy(-cost).float(), terminated=no, truncated=no | over, mask=~no)  # fmt: skip

    def state_dict(self):
        return {"x": self.x.copy(), "t": self.t, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.x, self.t = state["x"].copy(), state["t"]
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = state["rng"]


def linear_actor(K):
    """u = -K x, not squashed."""
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(-torch.tensor([K]))
    return DeterministicPolicy(net, bounds=None)


def squares(x):
    """1 and all products of two coordinates."""
    return torch.stack([torch.ones_like(x[:, 0]), x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2], dim=1)  # fmt: skip


def two_layers():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return DeterministicPolicy(net, bounds=(-1.0, 1.0)).double()


# ---------------------------------------------------------------------- the compatible critic
def test_its_value_is_the_formula():
    """(u - mu)^T grad mu^T w + f^T phi, the tangent by differences."""
    torch.manual_seed(0)
    policy = two_layers()
    critic = CompatibleCritic(policy, squares, 4)
    with torch.no_grad():
        critic.w.normal_()
        critic.f.normal_()
    obs, units = torch.randn(6, 2).double(), torch.rand(6, 2).double()
    parameters = list(policy.net.parameters())
    pieces, ends = critic.w.detach().split([p.numel() for p in parameters]), []
    for h in (1e-6, -1e-6):
        moved = copy.deepcopy(policy)
        with torch.no_grad():
            for p, w in zip(moved.net.parameters(), pieces, strict=True):
                p.add_(h * w.view_as(p))
            ends.append(moved.unit(obs))
    along = (ends[0] - ends[1]) / 2e-6
    expected = ((units - policy.unit(obs)) * along).sum(1) + squares(obs) @ critic.f
    assert torch.allclose(critic(obs, units)[0], expected, atol=1e-8)


def test_its_gradient_in_w_is_the_actors_tangent_and_reaches_no_actor():
    policy = two_layers()
    critic = CompatibleCritic(policy, squares, 4)
    assert {name for name, _ in critic.named_parameters()} == {"w", "f"}
    obs, units = torch.randn(1, 2).double(), torch.rand(1, 2).double()
    (of_w,) = torch.autograd.grad(critic(obs, units).sum(), [critic.w])
    gap = (units - policy.unit(obs)).detach()
    rows = torch.autograd.grad((gap * policy.unit(obs)).sum(), list(policy.net.parameters()))
    assert torch.allclose(of_w, torch.cat([r.flatten() for r in rows]), atol=1e-12)


def test_fitted_to_a_regulator_it_gives_the_exact_gradient():
    """Silver et al. 2014, theorem 3: least squares of q_K on (u - mu) grad mu and features of v, then the chain rule."""
    truth, K = lqr2(), [1.0, 1.0]
    policy = linear_actor(K)
    critic = CompatibleCritic(policy, squares, 4)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(400, 2)))
    push = torch.from_numpy(rng.normal(size=(400, 1)))
    obs, units = torch.cat([x, x]), torch.cat([policy.unit(x) + push, policy.unit(x) - push]).detach()  # fmt: skip
    q = truth.q(np.array([K]))
    both = torch.cat([obs, units], dim=1).numpy()
    worth = -np.einsum("bi,ij,bj->b", both, q.H, both) - q.constant
    rows = []
    for i in range(len(obs)):
        found = torch.autograd.grad(critic(obs[i : i + 1], units[i : i + 1]).sum(), [critic.w, critic.f])  # fmt: skip
        rows.append(torch.cat(found).numpy())
    # q is quadratic in the push, and its square is no compatible feature: it has a column of its own here
    design = np.column_stack([np.stack(rows), push.repeat(2, 1).numpy() ** 2])
    fit = np.linalg.lstsq(design, worth, rcond=None)[0]
    with torch.no_grad():
        critic.w.copy_(torch.from_numpy(fit[:2]))
    # E[x x^T] over a discounted life of the cart
    moment = torch.from_numpy(np.linalg.cholesky(truth.state_moment(np.array([K]))).T * math.sqrt(2))  # fmt: skip
    (slope,) = torch.autograd.grad(critic(moment, policy.unit(moment)).sum(), [policy.net.weight], allow_unused=True)  # fmt: skip
    expected = truth.gradient(np.array([K]))
    # the two rows have that moment on average; reward = -cost and u = -K x turn the sign twice
    assert np.allclose(slope.numpy() / 2, expected, rtol=1e-9)


# ---------------------------------------------------------------------- the rule
def test_one_step_is_the_rule_as_written():
    env = Regulator(5)
    policy = linear_actor([1.0, 1.0])
    critic = CompatibleCritic(policy, squares, 4).double()
    with torch.no_grad():
        critic.w.copy_(torch.tensor([0.3, -0.2]))
        critic.f.copy_(torch.tensor([0.1, -0.2, 0.3, -0.4]))
    config = DPGConfig(num_env_steps=5, record_every=5, actor_lr=0.01, critic_lr=0.02, gamma=0.9)
    trainer = dpg_trainer(policy, critic, env, config)
    env.reset(seed=trainer.streams.integer("environment"))
    x = torch.from_numpy(env.x.copy())
    noise = np.random.Generator(np.random.PCG64DXSM())
    noise.bit_generator.state = trainer.streams.numpy("explore").bit_generator.state
    u = -(x @ torch.ones(2, 1).double()) + torch.from_numpy(0.2 * noise.standard_normal((5, 1)))
    w, f = critic.w.detach().clone(), critic.f.detach().clone()
    step = env.step(u.float())
    (event,) = list(trainer)
    push = u + x.sum(1, keepdim=True)
    # grad mu = x for the weight -K, so q = push (x w) + f phi
    q = push[:, 0] * (x @ w) + squares(x) @ f
    delta = step.rewards.double() + 0.9 * squares(step.next_obs) @ f - q
    assert event.metrics["loss/critic"] == pytest.approx((delta**2).mean().item(), rel=1e-6)
    assert torch.allclose(critic.w, w + 0.02 * (delta[:, None] * push * x).mean(0), atol=1e-6)
    assert torch.allclose(critic.f, f + 0.02 * (delta[:, None] * squares(x)).mean(0), atol=1e-6)
    expected = -torch.ones(1, 2) + 0.01 * (x * (x @ w)[:, None]).mean(0)
    assert torch.allclose(policy.net.weight, expected.double(), atol=1e-9)


def test_a_regulator_is_learnt_to_a_few_hundredths_of_its_cost():
    truth = lqr2()
    policy = linear_actor([1.0, 1.0])
    critic = CompatibleCritic(policy, squares, 4)
    config = DPGConfig(
        num_env_steps=64 * 600, actor_lr=1e-2, critic_lr=0.3, optimizer="adam", noise_std=1.0,
        critic_starts=64 * 150, record_every=64 * 600,
    )  # fmt: skip
    list(dpg_trainer(policy, critic, Regulator(), config))
    K = -policy.net.weight.detach().numpy()
    best = truth.cost(truth.optimal_gain())
    assert truth.cost(np.ones((1, 2))) / best > 1.48
    assert truth.cost(K) / best < 1.05


def test_rows_that_only_reset_are_left_out():
    class Halting(Regulator):
        def step(self, actions):
            step = super().step(actions)
            idle = torch.arange(self.num_envs) % 2 == 0
            return Step(
                obs=step.obs, next_obs=torch.where(idle[:, None], torch.nan, step.next_obs), rewards=step.rewards,
                terminated=step.terminated, truncated=step.truncated, mask=~idle,
            )  # fmt: skip

    policy = linear_actor([1.0, 1.0])
    critic = CompatibleCritic(policy, squares, 4)
    trainer = dpg_trainer(policy, critic, Halting(6), DPGConfig(num_env_steps=30, record_every=30))
    assert list(trainer)[-1].num_samples == 30
    assert bool(torch.isfinite(trainer.online.vector).all())


# ---------------------------------------------------------------------- state and refusals
def made(**changes):
    env = make_env("Pendulum-v1", 4, seed=0)
    policy = DeterministicPolicy.for_env(env, hidden=(6,))
    critic = CompatibleCritic(policy, lambda x: x, 3)
    config = DPGConfig(**{"num_env_steps": 120, "record_every": 40, "noise": "ou", **changes})
    return dpg_trainer(policy, critic, env, config)


def test_it_resumes_bit_for_bit():
    whole = made()
    events = list(whole)
    first, second = made(), made()
    before = [next(iter(first))]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert before + list(second) == events and len(events) == 3
    assert torch.equal(second.online.vector, whole.online.vector)
    with pytest.raises(CheckpointError, match="the state holds"):
        state = first.state_dict()
        made().load_state_dict({**state, "parameters": state["parameters"][1:]})


def test_what_it_refuses():
    env = make_env("CartPole-v1", 2, seed=0)
    policy = two_layers()
    critic = CompatibleCritic(policy, squares, 4)
    with pytest.raises(InputError, match="CartPole-v1 has 2 numbered actions"):
        dpg_trainer(policy, critic, env)
    critic.trunk = policy.net[0]
    with pytest.raises(InputError, match="actor and critic share parameters"):
        dpg_trainer(policy, critic, Regulator())
    with pytest.raises(InputError, match=r"noise_std must be in \[0, 2\], got 3.0"):
        DPGConfig(noise_std=3.0)
    with pytest.raises(InputError, match="actor_lr must be in"):
        DPGConfig(actor_lr=0.0)


def test_an_error_that_is_no_number_ends_the_run():
    trainer = made()
    trainer.critic.f.data.fill_(math.inf)
    with pytest.raises(NonFiniteError, match="error of update 1 is .*critic_lr"):
        list(trainer)
