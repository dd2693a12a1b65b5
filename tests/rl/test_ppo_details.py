"""The 37 details of PPO: what each switch turns into, by hand; presets; contradictions; whole runs."""

from dataclasses import fields, replace

import gymnasium
import numpy as np
import pytest
import torch
from scripted_game import Game

from dodona.core.optimizers import trained_parameters
from dodona.errors import ConfigError, InputError
from dodona.mdp import worlds
from dodona.objectives import ppo
from dodona.policies import CNNPolicy, LSTMPolicy, MLPPolicy
from dodona.policies.continuous import Beta, DiagonalGaussian
from dodona.policies.correlated import CorrelatedGaussian
from dodona.rl import (
    EnvCollector,
    Evaluation,
    PPOConfig,
    PPODetails,
    RecurrentCollector,
    detailed_trainer,
    make_env,
    mdp_env,
    ppo_trainer,
)
from dodona.rl.ppo_detailed import RestartingCollector
from dodona.rl.ppo_details import GROUPS, REAL, SWITCHES
from dodona.rl.ppo_networks import ClippedSamples, SharedCritic, detailed_networks

SMALL = PPOConfig.cleanrl(num_env_steps=128, num_steps=16, epochs=2, minibatches=2)
RNG = np.random.default_rng


def cartpole(num_envs=4):
    return make_env("CartPole-v1", num_envs, seed=0)


def pendulum(num_envs=4):
    return make_env("Pendulum-v1", num_envs, seed=0)


def trainer(details, env=None, config=SMALL, **options):
    env = cartpole() if env is None else env
    return detailed_trainer(None, env, details=details, config=config, **options)


def weights(*modules):
    return torch.cat([p.detach().reshape(-1) for p in trained_parameters(*modules)])


class Spaces:
    """An environment that is only looked at: images and three buttons."""

    id, num_envs, num_states, max_episode_steps = "Frames-v0", 2, None, None
    obs_shape, obs_dtype, device = (2, 40, 40), torch.uint8, torch.device("cpu")
    num_actions, action_dim, action_low, action_high = 3, None, None, None

    def reset(self, *, seed=None): ...
    def step(self, actions): ...
    def state_dict(self): ...
    def load_state_dict(self, state): ...


class Arm(Spaces):
    id, obs_shape, obs_dtype, num_actions, action_dim = "Arm-v0", (3,), torch.float32, None, 2
    action_low, action_high = torch.tensor([-1.0, -0.5]), torch.tensor([1.0, 0.5])


IMAGES, ARM = Spaces(), Arm()
OBS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------- the list
def test_there_are_37_of_them_in_five_groups():
    assert {name: len(names) for name, names in GROUPS.items()} == {
        "core": 13, "atari": 9, "continuous": 9, "lstm": 5, "multi_discrete": 1,
    }  # fmt: skip
    assert len(SWITCHES) == 37 and sum(GROUPS.values(), ()) == SWITCHES
    assert [f.name for f in fields(PPODetails)] == [*SWITCHES, "action_sizes"]


def test_presets_switch_their_group_on():
    on = {name: {s for s in SWITCHES if getattr(made, s)} for name, made in (
        ("core", PPODetails()), ("none", PPODetails.none()), ("atari", PPODetails.atari()),
        ("continuous", PPODetails.continuous()), ("lstm", PPODetails.lstm()),
    )}  # fmt: skip
    core = set(GROUPS["core"])
    assert on["core"] == core and on["none"] == set()
    assert on["continuous"] == core | set(GROUPS["continuous"])
    for name in ("atari", "lstm"):
        assert on[name] == (core | set(GROUPS[name])) - {"separate_networks"}
    assert not PPODetails.atari(clip=False).clip


def test_a_switch_is_flipped_alone():
    details = PPODetails().flipped("gae")
    assert not details.gae and details.flipped("gae") == PPODetails()
    with pytest.raises(InputError, match="name must be one of .* got 'gea'. Did you mean 'gae'"):
        PPODetails().flipped("gea")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"shared_cnn": True}, "shared_cnn=True is one network, separate_networks=True two"),
        ({"separate_mlps": True, "separate_networks": False}, "Switch both alike"),
        ({"sign_rewards": True, "scale_rewards": True}, "two scales of one reward"),
        ({"clip_obs": True}, "needs normalize_obs=True"),
        ({"clip_rewards": True}, "needs scale_rewards=True"),
        ({"raw_actions": True}, "gaussian_actions=False is a Beta law"),
        ({"lstm_init": True}, "an LSTM is shared by policy and critic"),
        ({"rebuild_state": True, "separate_networks": False}, "runs along rows, whose order"),
        ({"zero_state": True, "separate_networks": False, "gaussian_actions": True}, "recurrent policy of real"),
        ({"multi_discrete": True}, r"needs action_sizes, such as \(3, 2\)"),
        ({"action_sizes": (3, 2)}, "belongs to multi_discrete=True"),
        ({"multi_discrete": True, "action_sizes": (3, 2), "gaussian_actions": True,
          **dict.fromkeys(("state_independent_std", "independent_actions", "raw_actions"), True)},
         "for perceptrons with several numbered choices"),
    ],
)  # fmt: skip
def test_switches_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        PPODetails(**changes)


# ---------------------------------------------------------------------- core
@pytest.mark.parametrize(
    "switch, read, on, off",
    [
        ("anneal_lr", lambda c: c.anneal, True, False),
        ("gae", lambda c: c.objective.gae_lambda, 0.95, 1.0),
        ("minibatches", lambda c: c.minibatches, 2, 1),
        ("normalize_advantages", lambda c: c.objective.scale, "minibatch", "none"),
        ("clip", lambda c: c.objective.surrogate, "clip", "unclipped"),
        ("clip_value", lambda c: c.objective.value_kind, "clipped", "mse"),
        ("entropy_bonus", lambda c: c.objective.entropy_coef, 0.01, 0.0),
        ("clip_grad_norm", lambda c: c.max_grad_norm, 0.5, None),
    ],
)
def test_what_is_a_setting_is_set_and_nothing_else(switch, read, on, off):
    whole, without = PPODetails().settle(SMALL), PPODetails().flipped(switch).settle(SMALL)
    assert read(whole) == on and read(without) == off and whole == SMALL
    changed = [f.name for f in fields(SMALL) if getattr(whole, f.name) != getattr(without, f.name)]
    assert len(changed) == 1


def test_with_the_core_on_the_run_is_that_of_the_cleanrl_preset():
    plain, detailed = ppo_trainer(None, cartpole(), config=SMALL), trainer(PPODetails())
    events = [[e.metrics for e in t] for t in (plain, detailed)]
    assert events[0] == events[1]
    assert torch.equal(weights(plain.policy, plain.critic), weights(detailed.policy, detailed.critic))  # fmt: skip


def test_episodes_run_on_from_collection_to_collection_or_begin_anew():
    on, off = trainer(PPODetails()), trainer(PPODetails(vector_env=False))
    assert type(off.collector) is RestartingCollector
    for made, continues in ((on, True), (off, False)):
        first, second = (made.collector.collect(made.policy) for _ in range(2))
        going = ~(first.terminated | first.truncated)[:, -1]
        same = (first.next_obs[:, -1] == second.obs[:, 0]).all(1)
        assert going.any() and bool(same[going].all()) == continues
        assert bool((second.obs[:, 0].abs() <= 0.05).all()) != continues  # CartPole's starts


def test_adam_has_the_epsilon_of_the_source_or_of_torch():
    for on, eps in ((True, 1e-5), (False, 1e-8)):
        made = trainer(PPODetails(adam_eps=on))
        assert {g["eps"] for g in made.bound.optimizer.param_groups} == {eps}


def test_weights_are_orthogonal_or_as_torch_begins():
    policy, critic = detailed_networks(PPODetails(), cartpole(), seed=0)
    plain, plain_critic = detailed_networks(PPODetails(orthogonal_init=False), cartpole(), seed=0)
    for net in (policy.net, critic.net):
        w = net[2].weight
        assert torch.allclose(w @ w.T, 2.0 * torch.eye(64), atol=1e-4) and not net[2].bias.any()
    for net in (plain.net, plain_critic.net):
        for made in (net[0], net[2], net[4]):
            for x in (made.weight, made.bias):
                assert (x.abs() <= made.in_features**-0.5).all()
            assert made.weight.std() > 0.5 * made.in_features**-0.5
    again, _ = detailed_networks(PPODetails(orthogonal_init=False), cartpole(), seed=0)
    assert torch.equal(weights(plain), weights(again))


def test_debug_variables_are_told_or_left_out():
    told, quiet = (next(iter(trainer(PPODetails(debug_variables=on)))).metrics for on in (True, False))  # fmt: skip
    missing = set(told) - set(quiet)
    assert {
        "policy/kl_old",
        "policy/kl_old_k1",
        "policy/clip_fraction",
        "value/explained",
    } <= missing
    assert {"loss/policy", "loss/value", "loss/entropy"} <= set(quiet)


def test_policy_and_critic_share_nothing_or_all_but_the_last_layer():
    apart = detailed_networks(PPODetails(), cartpole(), seed=0)
    policy, critic = detailed_networks(PPODetails(separate_networks=False), cartpole(), seed=0)
    count = len(trained_parameters(policy))
    assert len(trained_parameters(*apart)) == 2 * count
    assert isinstance(critic, SharedCritic) and len(trained_parameters(policy, critic)) == count + 2
    obs = torch.randn(5, 4)
    x = obs
    for made in (policy.net[0], policy.net[2]):
        x = torch.tanh(x @ made.weight.T + made.bias)
    assert torch.allclose(critic(obs), x @ critic.head.weight[0], atol=1e-6)


# ---------------------------------------------------------------------- Atari
@pytest.mark.parametrize(
    "switch, wrapper",
    [
        ("noop_reset", "NoopReset"), ("max_and_skip", "MaxAndSkip"), ("episodic_life", "EpisodicLife"),
        ("fire_reset", "FireReset"), ("warp_frame", "GreySquare"), ("sign_rewards", "SignReward"),
        ("frame_stack", None),
    ],
)  # fmt: skip
def test_each_habit_is_a_wrapper(switch, wrapper):
    on, off = PPODetails.atari().wrap(Game()), PPODetails.atari().flipped(switch).wrap(Game())
    if wrapper is None:
        assert on.observation_space.shape == (4, 84, 84) and off.observation_space.shape == (
            1,
            84,
            84,
        )
        return
    assert wrapper in chain(on) and set(chain(on)) - set(chain(off)) == {wrapper}


def chain(env):
    while isinstance(env, gymnasium.Wrapper):
        yield type(env).__name__
        env = env.env


def test_images_have_one_network_or_two_and_are_scaled_or_not():
    one = detailed_networks(PPODetails.atari(), IMAGES, seed=0)
    two = detailed_networks(
        PPODetails.atari(shared_cnn=False, separate_networks=True), IMAGES, seed=0
    )
    assert isinstance(one[0], CNNPolicy) and one[1].trunk is one[0].trunk
    assert two[1].trunk is not two[0].trunk
    assert [detailed_networks(PPODetails.atari(scale_images=on), IMAGES, seed=0)[0].trunk.scale_images
            for on in (True, False)] == [True, False]  # fmt: skip


# ---------------------------------------------------------------------- real actions
def test_the_law_of_real_actions():
    def law(**changes):
        policy, _ = detailed_networks(PPODetails.continuous(**changes), ARM, seed=0)
        return policy.distribution(OBS), policy

    gaussian, policy = law()
    assert isinstance(gaussian, DiagonalGaussian) and (policy.log_std == 0).all()
    assert isinstance(law(gaussian_actions=False)[0], Beta)
    head, policy = law(state_independent_std=False)
    assert policy.log_std is None and head.log_std.std(0).min() > 0  # differs between states
    full, policy = law(independent_actions=False)
    assert isinstance(full, CorrelatedGaussian)
    with torch.no_grad():
        policy.below[1] = 0.7  # on and above the diagonal it is not read
    assert torch.allclose(policy.distribution(OBS).scale, torch.tensor([[1.0, 0.0], [0.7, 1.0]]))


def test_samples_are_stored_raw_or_as_clipped():
    raw, clipped = (detailed_networks(PPODetails.continuous(raw_actions=on), ARM, seed=0)[0] for on in (True, False))  # fmt: skip
    assert isinstance(clipped, ClippedSamples)
    for policy, inside in ((raw, False), (clipped, True)):
        actions, logp = policy.sample(OBS, rng=RNG(0), num_samples=3)
        assert bool(((actions >= ARM.action_low) & (actions <= ARM.action_high)).all()) == inside
        again = policy.log_prob(OBS.repeat_interleave(3, dim=0), actions)
        assert torch.allclose(again, logp, atol=1e-6)
    a, b = (policy.sample(OBS, rng=RNG(0))[0] for policy in (raw, clipped))
    assert torch.allclose(raw.env_actions(a), b)


def test_real_actions_have_two_perceptrons_or_one_trunk():
    _, apart = detailed_networks(PPODetails.continuous(), ARM, seed=0)
    policy, shared = detailed_networks(PPODetails.continuous(separate_mlps=False), ARM, seed=0)
    assert not isinstance(apart, SharedCritic) and shared.trunk[0] is policy.net[0]
    both = PPODetails.continuous(separate_mlps=False, raw_actions=False)
    policy, shared = detailed_networks(both, ARM, seed=0)
    assert shared.trunk[0] is policy.net[0]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, (True, True, 10.0, 10.0)),
        ({"clip_obs": False}, (True, True, None, 10.0)),
        ({"clip_rewards": False}, (True, True, 10.0, None)),
        ({"normalize_obs": False, "clip_obs": False}, (False, True, None, 10.0)),
        ({"scale_rewards": False, "clip_rewards": False}, (True, False, 10.0, None)),
    ],
)
def test_scales_of_observations_and_rewards(changes, expected):
    made = PPODetails.continuous(**changes).normalizer(pendulum(), gamma=0.9)
    got = (made.normalize_obs, made.normalize_rewards, made.obs_clip, made.reward_clip)
    assert got == expected and made.gamma == 0.9
    assert PPODetails().normalizer(pendulum(), gamma=0.9) is None


# ---------------------------------------------------------------------- LSTM and several choices
def test_the_details_of_an_lstm_are_those_of_its_network_and_its_collector():
    def made(**changes):
        details = PPODetails.lstm(**changes)
        t = trainer(details)
        assert isinstance(t.policy, LSTMPolicy) and isinstance(t.collector, RecurrentCollector)
        return t

    whole = made()
    body = whole.policy.body
    w = body.lstm.weight_hh_l0
    assert torch.allclose(w.T @ w, torch.eye(64), atol=1e-4)
    assert not body.begin.any() and body.reset_state and whole.collector.rebuild_state
    assert whole.bound.config.unit == "rows"
    plain = made(lstm_init=False).policy.body.lstm.weight_hh_l0
    assert (plain.abs() <= 64**-0.5).all()
    assert made(zero_state=False).policy.body.begin.all()
    assert not made(reset_state=False).policy.body.reset_state
    stored = made(rebuild_state=False)
    assert not stored.collector.rebuild_state and stored.bound.config.unit == "rows"
    shuffled = made(rebuild_state=False, sequence_minibatches=False)
    assert shuffled.bound.config.unit == "steps"
    for t in (whole, stored, shuffled):
        first = next(iter(t)).metrics
        assert np.isfinite(first["loss/policy"])


class Two:
    """CartPole whose six actions are (a, b): only the parity of b pushes."""

    def __init__(self, env):
        self.env, self.num_actions, self.seen = env, 6, []

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, *, seed=None):
        return self.env.reset(seed=seed)

    def step(self, actions):
        self.seen.append(actions)
        return self.env.step(actions % 2)

    def state_dict(self):
        return self.env.state_dict()

    def load_state_dict(self, state):
        self.env.load_state_dict(state)


def test_several_choices_are_a_product_of_laws_and_the_environment_gets_their_number():
    env = Two(cartpole())
    t = trainer(PPODetails(multi_discrete=True, action_sizes=(3, 2)), env)
    batch = t.collector.collect(t.policy)
    assert batch.actions.shape == (4, 16, 2)
    numbers = np.ravel_multi_index(tuple(batch.actions.numpy().transpose(2, 0, 1)), (3, 2))
    assert np.array_equal(torch.stack(env.seen, 1), numbers)
    assert np.isfinite(t.update(batch)["loss/policy"])
    assert trainer(PPODetails(), Two(cartpole())).policy.size == 6  # off: one law of six


# ---------------------------------------------------------------------- whole runs
@pytest.mark.parametrize(
    "details, env",
    [(PPODetails.continuous(), pendulum), (PPODetails.lstm(), cartpole), (PPODetails.none(), cartpole),
     (PPODetails.lstm(**dict.fromkeys(REAL, True), normalize_obs=True, clip_obs=True), pendulum)],
)  # fmt: skip
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(details, env):
    whole = [e.metrics for e in trainer(details, env())]
    assert len(whole) == 2 and all(np.isfinite(m["loss/policy"]) for m in whole)
    one, other = trainer(details, env()), trainer(details, env())
    next(iter(one))
    other.load_state_dict(one.state_dict())
    assert [e.metrics for e in other] == whole[1:]


def test_a_recurrent_policy_is_evaluated_with_its_memory():
    evaluation = Evaluation(env=cartpole(2), every=1, num_episodes=3)
    events = list(trainer(PPODetails.lstm(), evaluation=evaluation))
    scores = [e.metrics["eval/return"] for e in events if e.kind == "evaluation"]
    assert len(scores) == 2 and min(scores) >= 1.0


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: detailed_trainer(MLPPolicy(4, 2), cartpole(), details=PPODetails()), "details decide what the networks are"),
        (lambda: trainer(PPODetails(), pendulum()), "Pendulum-v1 has real actions, and none of"),
        (lambda: trainer(PPODetails.continuous()), "CartPole-v1 has numbered actions, and gaussian_actions"),
        (lambda: trainer(PPODetails(scale_images=True)), "scale_images are of images"),
        (lambda: trainer(PPODetails.continuous(independent_actions=False), pendulum()), "nothing to correlate"),
        (lambda: trainer(PPODetails(multi_discrete=True, action_sizes=(3, 2))), r"num_actions 2, and action_sizes=\(3, 2\) make 6"),
        (lambda: trainer(PPODetails(), mdp_env(worlds.book_small(), 4, seed=0)), "numbers its states"),
        (lambda: trainer(PPODetails(), config=replace(SMALL, max_grad_norm=None)), "needs max_grad_norm"),
        (lambda: trainer(PPODetails(clip=False), config=replace(SMALL, anneal_clip=True)), "has nothing to lower"),
        (lambda: trainer(PPODetails(), config=replace(SMALL, objective=ppo(clip_eps=None, surrogate="cispo", clip_eps_high=0.2))), "clip_eps"),
        (lambda: trainer(PPODetails(), config=replace(SMALL, normalize_obs=True)), "has normalize_obs=True, and the detail"),
        (lambda: trainer(PPODetails(), config=replace(SMALL, normalize_rewards=True)), "and scale_rewards is off"),
        (lambda: trainer(PPODetails(), config=replace(SMALL, minibatches=33)), "33 minibatches of 64 steps .* Use at most 32"),
        (lambda: trainer(PPODetails.lstm(), config=replace(SMALL, minibatches=5)), "5 minibatches of 4 rows .* Use at most 4"),
        (lambda: trainer(PPODetails.lstm(vector_env=False)), "vector_env=False would cut it"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_the_collector_is_the_fast_one_where_nothing_forbids_it():
    plain = ppo_trainer(None, cartpole(), config=SMALL).collector
    assert type(trainer(PPODetails()).collector) is type(plain)
    assert isinstance(trainer(PPODetails(vector_env=False)).collector, EnvCollector)
