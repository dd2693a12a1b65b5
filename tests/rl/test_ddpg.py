"""DDPG and TD3: against a plain loop, their parts against closed forms, resumption, and what is refused."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dodona.core.rng import Streams
from dodona.errors import CheckpointError, ConfigError, InputError, NonFiniteError, ShapeError
from dodona.oracles.replay import q_network
from dodona.policies import DeterministicPolicy
from dodona.rl import (
    ActionCritics,
    DDPGConfig,
    TD3Config,
    ddpg_trainer,
    evaluate,
    make_env,
    td3_trainer,
)
from dodona.rl._deterministic_gradients import ByAutograd, WrittenOut
from dodona.rl._flat import FlatParameters
from dodona.rl.environments import Step

SMALL = {
    "num_env_steps": 120, "learning_starts": 40, "batch_size": 16, "train_every": 8, "gradient_steps": 5,
    "buffer_size": 100, "record_every": 40, "hidden": (7, 5), "gamma": 0.9,
}  # fmt: skip


class Target:
    """One-step episodes, or endless ones cut after each step: the reward is 1 - |a - goal(x)|^2."""

    id, num_actions, num_states, max_episode_steps = "Target", None, None, 1
    obs_shape, obs_dtype, action_dim = (2,), torch.float32, 1
    device = torch.device("cpu")

    def __init__(self, num_envs=8, *, truncates=False, scale=1.0, low=-2.0, high=4.0):
        self.num_envs, self.truncates, self.scale = num_envs, truncates, scale
        self.action_low, self.action_high = torch.tensor([low]), torch.tensor([high])
        self.rng = np.random.default_rng(0)

    def reset(self, *, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.obs = torch.from_numpy(self.rng.uniform(-1, 1, (self.num_envs, 2)).astype(np.float32))
        return self.obs

    def step(self, actions):
        assert bool((actions >= self.action_low).all() and (actions <= self.action_high).all())
        goal = 1.0 + self.obs[:, :1]
        rewards = 1.0 - self.scale * ((actions - goal) ** 2).sum(1)
        after, ended = self.obs, torch.ones(self.num_envs, dtype=torch.bool)
        obs = self.reset()
        return Step(
            obs=obs, next_obs=after, rewards=rewards, terminated=ended & (not self.truncates),
            truncated=ended & self.truncates, mask=ended,
        )  # fmt: skip

    def state_dict(self):
        return {"rng": self.rng.bit_generator.state, "obs": self.obs.clone()}

    def load_state_dict(self, state):
        self.rng.bit_generator.state, self.obs = state["rng"], state["obs"].clone()


def pendulum(num_envs=4):
    return make_env("Pendulum-v1", num_envs, seed=3)


def built(algorithm, env=None, **changes):
    make, config = {"td3": (td3_trainer, TD3Config), "ddpg": (ddpg_trainer, DDPGConfig)}[algorithm]
    return make(None, None, env or pendulum(), config(**{**SMALL, **changes}))


def networks(seed, *, num=2, hidden=(6, 4), D=3, A=2):
    """An actor and critics in float64, as views of one flat vector."""
    low, high = -torch.arange(1.0, A + 1), torch.ones(A)
    policy = DeterministicPolicy.mlp(D, A, bounds=(low, high), hidden=hidden, last_layer=1.0, seed=seed)  # fmt: skip
    critics = ActionCritics(D, A, num_critics=num, hidden=hidden, seed=seed + 1)
    both = nn.ModuleList([policy, critics]).double()
    return policy, critics, FlatParameters(both)


# ---------------------------------------------------------------------- gradients
@given(
    seed=st.integers(0, 10**6), num=st.sampled_from([1, 2]), penalty=st.sampled_from([0.0, 0.3]),
    hidden=st.sampled_from([(), (5,), (6, 4)]),
)  # fmt: skip
def test_the_written_gradient_is_that_of_autograd(seed, num, penalty, hidden):
    policy, critics, flat = networks(seed, num=num, hidden=hidden)
    assert WrittenOut.fits(policy, critics)
    rng = torch.Generator().manual_seed(seed)
    obs, units, y = (torch.randn(9, *s, generator=rng, dtype=torch.float64) for s in ((3,), (2,), ()))  # fmt: skip
    units = units.tanh()
    found = []
    for kind in (ByAutograd, WrittenOut):
        nets = kind(policy, critics, penalty=penalty)
        flat.gradient.fill_(math.nan)
        losses = [nets.critic_loss(obs, units, y), nets.actor_loss(obs)]
        found.append([*losses, flat.gradient.clone(), nets.units(obs), nets.q(obs, units)])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [ByAutograd, WrittenOut])
def test_the_actor_step_and_the_critic_step_leave_each_other_alone(kind):
    policy, critics, flat = networks(0)
    nets, obs = kind(policy, critics, penalty=0.0), torch.randn(9, 3, dtype=torch.float64)
    cut = sum(p.numel() for p in policy.parameters())
    for step, others in (
        (lambda: nets.actor_loss(obs), slice(cut, None)),
        (lambda: nets.critic_loss(obs, obs[:, :2], obs[:, 0]), slice(0, cut)),
    ):
        flat.gradient.fill_(7.0)
        before = flat.vector.clone()
        step()
        assert torch.equal(flat.vector, before)
        assert bool((flat.gradient[others] == 7.0).all())


def test_the_actor_gradient_is_the_chain_rule_and_the_finite_difference():
    """theta moves q_1(s, mu(s)) and nothing else, the second critic included."""
    policy, critics, flat = networks(4)
    obs = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nets = WrittenOut(policy, critics, penalty=0.0)
    nets.actor_loss(obs)
    cut = sum(p.numel() for p in policy.parameters())
    gradient, theta = flat.gradient[:cut].clone(), flat.vector[:cut]

    def loss():
        return -critics(obs, policy.unit(obs))[0].mean().item()

    for i in range(0, cut, 5):
        ends = []
        for h in (1e-5, -2e-5):
            theta[i] += h
            ends.append(loss())
        theta[i] += 1e-5
        assert gradient[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_other_networks_go_through_autograd():
    policy, critics, _ = networks(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    assert not WrittenOut.fits(DeterministicPolicy(net, bounds=(-1.0, 1.0)), critics)
    assert not WrittenOut.fits(DeterministicPolicy(policy.net, bounds=None), critics)
    assert not WrittenOut.fits(policy, nn.Linear(5, 1))
    env = pendulum()
    net = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 1))
    policy = DeterministicPolicy(net, bounds=(env.action_low, env.action_high))
    trainer = td3_trainer(policy, None, env, TD3Config(**SMALL))
    before = trainer.online.vector.clone()
    assert list(trainer)[-1].num_samples == 120
    assert bool((trainer.online.vector != before).float().mean() > 0.9)


def test_every_stacked_critic_is_a_network_of_its_own():
    critics = ActionCritics(3, 2, num_critics=3, hidden=(5, 4), seed=2).double()
    rng = np.random.default_rng(0)
    obs, units = rng.normal(size=(4, 3)), rng.uniform(-1, 1, (4, 2))
    got = critics(torch.from_numpy(obs), torch.from_numpy(units)).detach().numpy()
    for i in range(3):
        layers = [(w[i].detach().numpy(), b[i].detach().numpy()) for w, b in zip(critics.weights, critics.biases, strict=True)]  # fmt: skip
        for b in range(4):
            expected = q_network(layers, np.concatenate([obs[b], units[b]]))
            assert got[i, b] == pytest.approx(expected[0], abs=1e-12)


# ---------------------------------------------------------------------- the whole rule
def plain_loop(trainer, policy, critics, num_updates):
    """Algorithm 1 of either paper with torch.optim, on the rows that the trainer drew."""
    config, streams = trainer.config, Streams(trainer.config.seed)
    slow_policy, slow_critics = copy.deepcopy(policy), copy.deepcopy(critics)
    actor = torch.optim.Adam(policy.parameters(), lr=config.actor_lr)
    judge = torch.optim.Adam(critics.parameters(), lr=config.critic_lr, weight_decay=config.critic_decay)  # fmt: skip
    size, done = config.batch_size, 0
    while done < num_updates:
        block = min(num_updates - done, config.policy_delay)
        index = streams.numpy("replay").integers(0, len(trainer.buffer), block * size)
        noise = torch.zeros(block * size, 1)
        if config.target_noise:
            noise.normal_(std=config.target_noise, generator=streams.torch("smoothing"))
        for k in range(block):
            rows = trainer.buffer.rows(index[k * size : (k + 1) * size])
            with torch.no_grad():
                e = noise[k * size : (k + 1) * size].clamp(-config.target_noise_clip, config.target_noise_clip)  # fmt: skip
                u = (slow_policy.unit(rows.next_obs) + e).clamp(-1, 1)
                y = rows.rewards + rows.info["discounts"] * slow_critics(rows.next_obs, u).min(0).values  # fmt: skip
            loss = sum(((q - y) ** 2).mean() for q in critics(rows.obs, rows.actions))
            judge.zero_grad()
            loss.backward()
            judge.step()
            done += 1
            if done % config.policy_delay == 0:
                z = policy.net(rows.obs)
                loss = -critics(rows.obs, z.tanh())[0].mean() + config.actor_penalty * (z**2).mean()
                actor.zero_grad()
                loss.backward()
                actor.step()
                for slow, fast in ((slow_policy, policy), (slow_critics, critics)):
                    for p, q in zip(slow.parameters(), fast.parameters(), strict=True):
                        p.data += config.tau * (q.data - p.data)
    return [*policy.parameters(), *critics.parameters()], [*slow_policy.parameters(), *slow_critics.parameters()]  # fmt: skip


@pytest.mark.parametrize(
    "algorithm, changes",
    [
        ("td3", {}),
        ("td3", {"policy_delay": 3, "num_steps": 2, "tau": 0.1, "actor_penalty": 0.1}),
        ("ddpg", {}),
        ("ddpg", {"critic_decay": 0.01, "tau": 0.001, "noise": "ou", "noise_std": 0.2}),
    ],
)
def test_all_updates_are_those_of_a_plain_loop(algorithm, changes):
    """All acting comes first here, so that the loop finds the same replay."""
    changes = {"num_env_steps": 80, "train_every": 40, "gradient_steps": 7, **changes}
    trainer = built(algorithm, **changes)
    policy, critics = copy.deepcopy(trainer.policy), copy.deepcopy(trainer.critics)
    list(trainer)
    assert trainer.num_updates == 7
    online, slow = plain_loop(trainer, policy, critics, 7)
    for got, expected in ((trainer.online, online), (trainer.target, slow)):
        expected = torch.cat([p.detach().flatten() for p in expected])
        assert torch.allclose(got.vector, expected, rtol=0, atol=2e-5)


def test_the_actor_and_the_targets_wait_for_their_turn():
    trainer = built("td3", policy_delay=3, num_env_steps=48, train_every=8, gradient_steps=2)
    cut, before = len(trainer.actor.vector), trainer.online.vector.clone()
    target = trainer.target.vector.clone()
    list(trainer)
    assert trainer.num_updates == 2
    assert torch.equal(trainer.online.vector[:cut], before[:cut])
    assert not torch.equal(trainer.online.vector[cut:], before[cut:])
    assert torch.equal(trainer.target.vector, target)


def test_the_target_follows_by_the_closed_form(monkeypatch):
    """theta'_n = theta + (1 - tau)^n (theta'_0 - theta), while theta rests."""
    trainer = built("ddpg", tau=0.1, num_env_steps=72, gradient_steps=3)
    for optimizer in (trainer.actor_optimizer, trainer.critic_optimizer):
        monkeypatch.setattr(optimizer, "step", lambda: None)
    trainer.target.vector.add_(1.0)
    first, online = trainer.target.vector.clone(), trainer.online.vector.clone()
    list(trainer)
    assert trainer.num_updates == 12
    expected = online + (1 - 0.1) ** 12 * (first - online)
    assert torch.allclose(trainer.target.vector, expected, atol=1e-5)


def test_replay_holds_units_and_the_environment_sees_its_own_range():
    env = Target()
    trainer = built("ddpg", env, noise_std=1.0)
    list(trainer)  # the environment asserts its bounds
    actions = trainer.buffer.rows(np.arange(len(trainer.buffer))).actions
    assert float(actions.min()) >= -1 and float(actions.max()) <= 1
    back = trainer.policy.to_unit(trainer.policy.to_env(actions))
    assert torch.allclose(back, actions, atol=1e-6)


# ---------------------------------------------------------------------- learning
@pytest.mark.parametrize("algorithm", ["ddpg", "td3"])
def test_it_finds_the_action_of_every_observation(algorithm):
    env = Target()
    changes = {
        "num_env_steps": 1000, "learning_starts": 500, "batch_size": 64, "hidden": (24, 24), "buffer_size": 1000,
        "gradient_steps": 6, "noise_std": 0.3, "actor_lr": 3e-3, "critic_lr": 1e-2, "tau": 0.02,
    }  # fmt: skip
    trainer = built(algorithm, env, **changes)
    events = list(trainer)
    stats = evaluate(trainer.policy, Target(50), num_episodes=400, seed=1)
    # 1 is perfect, an action drawn from the box gets -2.3 on average
    assert stats.mean_return > 0.9
    assert events[-1].metrics["episode/count"] > 0


@pytest.mark.parametrize("truncates, expected", [(True, 2.0), (False, 1.0)])
def test_a_time_limit_still_bootstraps(truncates, expected):
    """Reward 1 at every step and gamma 1/2: 2 where a limit cuts, 1 where the episode ends."""
    env = Target(truncates=truncates, scale=0.0)
    trainer = built("ddpg", env, gamma=0.5, num_env_steps=400, critic_lr=2e-2, tau=0.3)
    list(trainer)
    q = trainer.critics(env.obs, trainer.policy.unit(env.obs))
    assert q.detach().mean().item() == pytest.approx(expected, abs=0.05)


def test_a_saturated_actor_comes_back_by_the_penalty():
    shares = {}
    for penalty in (0.0, 0.1):
        env = pendulum()
        policy = DeterministicPolicy.for_env(env, hidden=(8,), seed=0)
        with torch.no_grad():
            policy.net[-1].bias.fill_(12.0)  # tanh' is below 1e-9
        config = DDPGConfig(**{**SMALL, "actor_penalty": penalty, "actor_lr": 0.05, "num_env_steps": 500})  # fmt: skip
        events = list(ddpg_trainer(policy, None, env, config))
        assert events[0].metrics["actor/saturation"] == 1.0
        shares[penalty] = events[-1].metrics["actor/saturation"]
    assert shares[0.0] == 1.0
    assert shares[0.1] < 0.1


def test_the_first_actions_are_drawn_evenly_from_the_box():
    trainer = built("td3", pendulum(50), learning_starts=1000, num_env_steps=1000, buffer_size=1000)
    list(trainer)
    u = np.sort(trainer.buffer.rows(np.arange(1000)).actions.numpy().ravel())
    gap = np.abs(u - np.linspace(-1, 1, 1000)).max() / 2
    assert gap < 1.95 / math.sqrt(1000)  # Kolmogorov-Smirnov, level 0.001


# ---------------------------------------------------------------------- events and state
@pytest.mark.parametrize(
    "algorithm, changes", [("td3", {"noise": "ou", "policy_delay": 3}), ("ddpg", {"num_steps": 3})]
)
def test_it_resumes_bit_for_bit(algorithm, changes):
    def judge(policy):
        return {"centre": policy(torch.zeros(1, 3)).item()}

    def made():
        trainer = built(algorithm, evaluate_every=40, **changes)
        trainer.evaluate = judge
        return trainer

    whole = made()
    events = list(whole)
    assert [e.kind for e in events] == ["update", "evaluation"] * 3
    for cut in (1, 2, 3):
        first, second = made(), made()
        steps = iter(first)
        before = [next(steps) for _ in range(cut)]
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        assert before + list(second) == events
        assert torch.equal(second.online.vector, whole.online.vector)
        assert torch.equal(second.target.vector, whole.target.vector)


def test_equal_seeds_give_equal_runs_and_others_do_not():
    a, b, c = (built("td3", seed=seed) for seed in (0, 0, 1))
    assert list(a) == list(b)
    list(c)
    assert not torch.equal(a.online.vector, c.online.vector)


def test_until_ends_the_run():
    env, config = pendulum(), TD3Config(**SMALL, evaluate_every=40)
    trainer = td3_trainer(None, None, env, config, evaluate=lambda p: {"x": 1.0}, until=lambda m: m["x"] > 0)  # fmt: skip
    events = list(trainer)
    assert events[-1].kind == "evaluation" and events[-1].num_samples == 48


def test_an_event_says_what_happened():
    event = list(built("td3", num_env_steps=840, record_every=840, learning_starts=800, buffer_size=900))[-1]  # fmt: skip
    names = {
        "loss/critic", "loss/actor", "q/mean", "q/max", "q/bound", "actor/saturation", "replay/size",
        "episode/return", "episode/length", "episode/count",
    }  # fmt: skip
    assert set(event.metrics) == names
    assert event.metrics["episode/length"] == 200 and event.metrics["episode/count"] == 4
    assert event.metrics["replay/size"] == 840 and event.step == 25


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"noise_std": 2.5}, r"noise_std must be in \[0, 2\], got 2.5. Noise is in units of half"),
        ({"target_noise": -0.1}, r"target_noise must be in \[0, 2\]"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0. DDPG uses 0.001"),
        ({"tau": 1.5}, r"tau must be in \(0, 1\], got 1.5"),
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\]"),
        ({"policy_delay": 0}, "policy_delay must be at least 1"),
        ({"learning_starts": 4, "batch_size": 16}, "learning_starts 4 is smaller than batch_size"),
        ({"buffer_size": 8}, "buffer_size 8 is smaller than batch_size"),
        ({"actor_penalty": -1.0}, "actor_penalty must be in"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises((ConfigError, InputError), match=message):
        replace(TD3Config(), **changes)


def test_the_presets_are_those_of_the_papers():
    ddpg, td3 = DDPGConfig.paper(), TD3Config.paper(seed=4)
    assert (ddpg.tau, ddpg.actor_lr, ddpg.critic_lr, ddpg.batch_size) == (1e-3, 1e-4, 1e-3, 64)
    assert (ddpg.noise, ddpg.ou_theta, ddpg.noise_std, ddpg.buffer_size) == ("ou", 0.15, 0.2, 10**6)
    assert (td3.tau, td3.policy_delay, td3.target_noise, td3.target_noise_clip) == (5e-3, 2, 0.2, 0.5)  # fmt: skip
    assert (td3.noise_std, td3.batch_size, td3.seed, type(td3)) == (0.1, 256, 4, TD3Config)


def test_numbered_actions_and_other_boxes_are_refused():
    pole, env = make_env("CartPole-v1", 2, seed=0), pendulum()
    for make in (ddpg_trainer, td3_trainer):
        with pytest.raises(InputError, match="CartPole-v1 has 2 numbered actions.*dqn_trainer"):
            make(None, None, pole)
    with pytest.raises(InputError, match="numbered actions"):
        DeterministicPolicy.for_env(pole)
    with pytest.raises(InputError, match="numbered actions.*QNetwork"):
        ActionCritics.for_env(pole)
    raw = DeterministicPolicy.for_env(env, bounds=None)
    with pytest.raises(InputError, match="not squashed.*dpg_trainer"):
        td3_trainer(raw, None, env)
    narrow = DeterministicPolicy.for_env(env, bounds=(-1.0, 1.0))
    with pytest.raises(InputError, match=r"the policy's low is -1.0, that of Pendulum-v1 is \[-2.0\]"):  # fmt: skip
        td3_trainer(narrow, None, env)


def test_an_unbounded_box_is_refused():
    env = Target(high=math.inf)
    with pytest.raises(InputError, match=r"tanh needs a bounded box, got \[-2.0\] to \[inf\]"):
        td3_trainer(None, None, env)


def test_critics_of_pictures_are_refused():
    class Pictures:
        id, num_actions, obs_shape = "Pictures", None, (3, 8, 8)

    with pytest.raises(ShapeError, match=r"Pictures has observations of shape \(3, 8, 8\)"):
        ActionCritics.for_env(Pictures())


def test_a_shared_trunk_is_refused():
    env, trunk = pendulum(), nn.Linear(3, 4)
    policy = DeterministicPolicy(nn.Sequential(trunk, nn.Linear(4, 1)), bounds=(env.action_low, env.action_high))  # fmt: skip
    critics = ActionCritics.for_env(env)
    critics.trunk = trunk
    with pytest.raises(InputError, match="actor and critics share parameters"):
        td3_trainer(policy, critics, env)


def test_the_number_of_critics_belongs_to_the_method():
    env = pendulum()
    with pytest.raises(ConfigError, match="the critics are 1, expected 2"):
        td3_trainer(None, ActionCritics.for_env(env, num_critics=1), env)
    with pytest.raises(ConfigError, match="the critics are 2, expected 1"):
        ddpg_trainer(None, ActionCritics.for_env(env), env)

    class Flipped(nn.Module):
        """[B, 1] for [1, B], which would be broadcast."""

        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 1)

        def forward(self, obs, units):
            return self.line(torch.cat([obs, units], dim=1))

    with pytest.raises(
        ShapeError, match=r"the critics gave \(16, 1\), expected \[N, B\] = \(1, 16\)"
    ):
        list(ddpg_trainer(None, Flipped(), env, DDPGConfig(**SMALL)))


def test_a_state_of_other_networks_is_refused():
    state = next_state(built("td3"))
    with pytest.raises(CheckpointError, match="the state holds .* weights, the networks have"):
        built("td3", hidden=(4,)).load_state_dict(state)


def next_state(trainer):
    next(iter(trainer))
    return trainer.state_dict()


def test_a_loss_that_is_no_number_names_its_rows():
    trainer = built("ddpg")
    trainer.critics.biases[0].data.fill_(math.inf)
    with pytest.raises(NonFiniteError, match="loss of update 1 is .* on the replay rows .*critic_lr"):  # fmt: skip
        list(trainer)


def test_divergence_is_warned_about_once():
    trainer = built("ddpg", divergence=1.0, num_env_steps=200)
    trainer.target_critics.biases[-1].data.fill_(1e5)
    with pytest.warns(UserWarning, match="targets reach .*divergence=inf silences this") as caught:
        events = list(trainer)
    assert len(caught) == 1
    assert sum(bool(e.data.get("diverges")) for e in events) >= 1
