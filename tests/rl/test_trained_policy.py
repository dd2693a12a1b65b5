"""A trained policy as a file: the same law as in the trainer, and no damage that goes unseen."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from dodona.errors import DataError, InputError
from dodona.policies import (
    CNNPolicy,
    DeterministicPolicy,
    LinearPolicy,
    LSTMPolicy,
    MLPPolicy,
    TablePolicy,
)
from dodona.rl import (
    EpsilonGreedy,
    Normalizer,
    PPOConfig,
    PPODetails,
    QNetwork,
    evaluate_recurrent,
    make_env,
    ppo_trainer,
)
from dodona.rl.trained_policy import TrainedPolicy, read_header


def again(policy, **facts):
    return TrainedPolicy.from_bytes(TrainedPolicy(policy, facts=facts).to_bytes())


def same_law(a, b, obs):
    x, y = a.distribution(obs), b.distribution(obs)
    actions = x.sample(rng=np.random.default_rng(0))
    return torch.equal(x.log_prob(actions), y.log_prob(actions)) and torch.equal(x.mode(), y.mode())


BOX = (torch.tensor([-2.0, 0.0]), torch.tensor([1.0, 3.0]))
PERCEPTRONS = {
    "categorical": lambda: MLPPolicy(3, 4, seed=1),
    "linear": lambda: MLPPolicy(3, 4, hidden=()),
    "relu": lambda: MLPPolicy(3, 4, hidden=(8, 9, 10), activation="relu"),
    "several": lambda: MLPPolicy(3, (2, 3), family="multi_categorical"),
    "bernoulli": lambda: MLPPolicy(3, 4, family="bernoulli", activation="elu"),
    "gaussian": lambda: MLPPolicy(3, 2, family="gaussian", log_std=-0.5),
    "bounded": lambda: MLPPolicy(3, 2, family="gaussian", bounds=BOX),
    "two heads": lambda: MLPPolicy(3, 2, family="squashed", bounds=BOX, log_std=None),
    "beta": lambda: MLPPolicy(3, 2, family="beta", bounds=BOX),
}


@pytest.mark.parametrize("name", PERCEPTRONS)
def test_a_perceptron_comes_back_with_its_law(name):
    policy = PERCEPTRONS[name]()
    loaded, obs = again(policy), torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert same_law(policy, loaded, obs)
    actions = policy.distribution(obs).mode()
    assert torch.equal(policy.env_actions(actions), loaded.env_actions(actions))


def test_an_unbounded_box_survives():
    policy = MLPPolicy(3, 1, family="gaussian", bounds=(-torch.inf, torch.inf))
    assert again(policy).policy.high.tolist() == [torch.inf]


@pytest.mark.parametrize("mask", [None, np.array([[True, False], [True, True], [False, True]])])
def test_a_table_comes_back_with_its_mask(mask):
    policy = TablePolicy(3, 2, action_mask=mask)
    nn.init.normal_(policy.logits, generator=torch.Generator().manual_seed(0))
    assert same_law(policy, again(policy), torch.arange(3))


GRID = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
Q_NETWORKS = {
    "vectors": (lambda: QNetwork((3,), 4), False),
    "dueling": (lambda: QNetwork((3,), 4, dueling=True, layer_norm=True), False),
    "one output": (lambda: QNetwork((3,), 4, action_as_input=True), False),
    "states": (lambda: QNetwork(3, 2, hidden=(8,), action_mask=np.eye(3, 2) + 1 > 1.5), True),
    "table": (lambda: QNetwork(3, 2, hidden=()), True),
    "coordinates": (lambda: QNetwork(3, 2, coordinates=GRID), True),
}


@pytest.mark.parametrize("name", Q_NETWORKS)
def test_action_values_come_back_with_their_greedy_policy(name):
    make, numbered = Q_NETWORKS[name]
    net = make()
    if name == "states":
        net.action_mask[2] = True  # every state has an action
    loaded = again(EpsilonGreedy(net, epsilon=0.25))
    obs = (
        torch.arange(3)
        if numbered
        else torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    )
    assert torch.equal(net(obs), loaded.policy.q_net(obs)) and loaded.policy.epsilon == 0.25
    assert same_law(EpsilonGreedy(net), again(EpsilonGreedy(net)), obs)


@pytest.mark.parametrize("bounds", [BOX, None])
def test_an_actor_without_chance_comes_back_as_a_certain_law(bounds):
    actor = DeterministicPolicy.mlp(3, 2, bounds=bounds, hidden=(8, 5), last_layer=1.0, seed=1)
    loaded, obs = again(actor), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    law = loaded.distribution(obs)
    assert torch.equal(law.mode(), actor(obs)) and torch.equal(
        loaded.env_actions(law.mode()), actor(obs)
    )
    assert torch.equal(law.sample(rng=None), actor(obs)) and law.sample(
        rng=None, num_samples=3
    ).shape == (3, 5, 2)
    actions, logp = loaded.sample(obs, rng=None, num_samples=2)
    assert torch.equal(actions[1::2], actor(obs)) and logp.shape == (10,) and logp.isnan().all()
    with pytest.raises(TypeError, match="a policy without chance has no density"):
        loaded.log_prob(obs, actor(obs))


IMAGE = (2, 36, 40)
SEEING = {
    "policy": lambda: CNNPolicy(IMAGE, 3, hidden=16, seed=1),
    "unscaled": lambda: CNNPolicy(IMAGE, 3, hidden=16, scale_images=False, seed=1),
    "action values": lambda: EpsilonGreedy(QNetwork.nature(3, obs_shape=IMAGE, seed=1)),
    "dueling": lambda: EpsilonGreedy(QNetwork.nature(3, obs_shape=IMAGE, dueling=True, seed=1)),
}


@pytest.mark.parametrize("name", SEEING)
def test_a_policy_of_images_comes_back_with_its_law(name):
    policy = SEEING[name]()
    images = torch.randint(0, 256, (5, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert same_law(policy, again(policy), images)


# ---------------------------------------------------------------------- memory
REMEMBERING = {
    "vectors": lambda: LSTMPolicy((3,), 4, hidden=5, memory=6, seed=1),
    "runs on": lambda: LSTMPolicy((3,), 4, hidden=5, memory=6, reset_state=False, orthogonal=False),
    "begins elsewhere": lambda: LSTMPolicy((3,), 4, zero_state=False, seed=1),
    "real actions": lambda: LSTMPolicy((3,), 2, family="gaussian", bounds=BOX, seed=1),
    "unbounded": lambda: LSTMPolicy((3,), 2, family="gaussian", seed=1),
    "images": lambda: LSTMPolicy(IMAGE, 4, hidden=8, memory=6, scale_images=False, seed=1),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_policy_that_remembers_comes_back_with_its_memory(name):
    policy = REMEMBERING[name]()
    loaded, rng = again(policy), torch.Generator().manual_seed(0)
    obs = torch.randn(2, 4, *policy.body.obs_shape, generator=rng)
    start = torch.tensor([[True, False, False, False], [True, False, True, False]])
    rows = {"obs": obs, "start": start, "prompt_state": policy.initial_state(2)}
    assert loaded.remembers and torch.equal(loaded.initial_state(2), policy.initial_state(2))
    assert same_law(policy, loaded, rows)
    actions, logp = loaded.sample(rows, rng=np.random.default_rng(0))
    assert torch.equal(loaded.log_prob(rows, actions), logp)
    assert torch.equal(policy.env_actions(actions), loaded.env_actions(actions))
    state = loaded.initial_state(2)
    for t in range(4):  # and step by step
        law, state = loaded.step(obs[:, t], state, start[:, t])
        assert torch.allclose(law.mode(), policy.distribution(rows).mode()[:, t], atol=1e-6)


def test_a_policy_that_remembers_is_played_with_the_statistics_of_its_training():
    details = PPODetails.lstm(normalize_obs=True, clip_obs=True)
    config = PPOConfig(num_env_steps=256, num_steps=32, minibatches=2, epochs=1, details=details)
    trainer = ppo_trainer(None, make_env("CartPole-v1", 4, seed=0), config=config)
    assert list(trainer)
    loaded = TrainedPolicy.from_bytes(TrainedPolicy.of(trainer).to_bytes())
    play = {"num_episodes": 6, "seed": 3, "greedy": True}
    expected = evaluate_recurrent(
        trainer.policy, make_env("CartPole-v1", 3, seed=0), normalizer=trainer.collector.normalizer, **play
    )  # fmt: skip
    env = make_env("CartPole-v1", 3, seed=0)
    assert evaluate_recurrent(loaded, env, **play).returns.tolist() == expected.returns.tolist()
    obs = torch.tensor([[1e6, 0.0, 0.0, 0.0]])
    assert torch.equal(loaded.scaled({"obs": obs})["obs"], trainer.collector.normalizer.obs(obs))
    with pytest.raises(InputError, match="a LSTMPolicy remembers.*evaluate_recurrent"):
        loaded.distribution(env.reset())
    assert not TrainedPolicy(MLPPolicy(3, 2)).remembers


# ---------------------------------------------------------------------- statistics
def trained():
    config = PPOConfig(num_env_steps=256, num_steps=32, normalize_obs=True, normalize_rewards=True)
    trainer = ppo_trainer(None, make_env("Pendulum-v1", 4, seed=0), config=config)
    assert list(trainer)
    return trainer


def test_the_statistics_of_the_training_are_kept_and_stay():
    trainer = trained()
    normalizer: Normalizer = trainer.collector.normalizer
    kept = TrainedPolicy.of(trainer, env="Pendulum-v1", seed=3)
    loaded = TrainedPolicy.from_bytes(kept.to_bytes())
    obs = trainer.collector.env.reset() * torch.tensor([1.0, 1.0, 1e6])  # clipped, too
    expected = trainer.policy.distribution(normalizer.obs(obs))
    for policy in (kept, loaded):
        assert torch.equal(policy.distribution(obs).mode(), expected.mode())
        assert torch.equal(policy.scaled(obs), normalizer.obs(obs))
    before = loaded.scaled(obs)
    normalizer.begin(obs + 100.0)
    assert not torch.equal(normalizer.obs(obs), before) and torch.equal(kept.scaled(obs), before)
    assert loaded.facts == {"env": "Pendulum-v1", "seed": 3} and not loaded.training
    actions, logp = loaded.sample(obs, rng=np.random.default_rng(0))
    assert torch.equal(loaded.log_prob(obs, actions), logp) and loaded(obs).mode().shape == (4, 1)


def test_without_its_statistics_it_would_act_differently():
    trainer = trained()
    obs = trainer.collector.env.reset()
    raw = TrainedPolicy(trainer.policy)
    assert not torch.equal(
        raw.distribution(obs).mode(), TrainedPolicy.of(trainer).distribution(obs).mode()
    )


def test_equal_policies_are_equal_files():
    policy = MLPPolicy(3, 2)
    data = TrainedPolicy(policy, facts={"env": "a", "return": 1.5}).to_bytes()
    assert TrainedPolicy.from_bytes(data).to_bytes() == data


# ---------------------------------------------------------------------- refusals
def test_what_can_not_be_told_is_refused():
    with pytest.raises(
        InputError,
        match="a LinearPolicy can not be written to a policy file, only CNNPolicy, Dete",
    ):
        TrainedPolicy(LinearPolicy(np.eye(3), 2)).to_bytes()
    with pytest.raises(InputError, match="a EpsilonGreedy can not be written"):
        TrainedPolicy(EpsilonGreedy(nn.Linear(3, 2))).to_bytes()
    rebuilt = QNetwork.nature(4, obs_shape=IMAGE)
    rebuilt.body[2] = nn.Tanh()
    with pytest.raises(InputError, match="a EpsilonGreedy can not be written"):
        TrainedPolicy(EpsilonGreedy(rebuilt)).to_bytes()
    for other in (CNNPolicy(IMAGE, 3, hidden=4), LSTMPolicy(IMAGE, 3), LSTMPolicy((3,), 2)):
        net = other.trunk.net if isinstance(other, CNNPolicy) else other.body.encoder
        getattr(net, "net", net)[1] = nn.Sigmoid()
        with pytest.raises(InputError, match=f"a {type(other).__name__} can not be written"):
            TrainedPolicy(other).to_bytes()
    policy = MLPPolicy(3, 2)
    policy.net[1] = nn.Sigmoid()
    with pytest.raises(InputError, match="a MLPPolicy can not be written"):
        TrainedPolicy(policy).to_bytes()
    with pytest.raises(TypeError, match="object has neither a policy nor a q_net"):
        TrainedPolicy.of(object())


def test_damage_anywhere_is_seen():
    data = TrainedPolicy(MLPPolicy(3, 2, hidden=(4,)), facts={"env": "a"}).to_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 9, len(data) - 1, *rng.integers(0, len(data), size=60)]:
        broken = bytearray(data)
        broken[place] ^= 4
        with pytest.raises(DataError, match="x.safetensors (is damaged|holds a)"):
            TrainedPolicy.from_bytes(bytes(broken), name="x.safetensors")
    for short in (b"", data[:4], data[:100], data[:-1]):
        with pytest.raises(DataError, match="is damaged or no policy file"):
            TrainedPolicy.from_bytes(short)


def test_a_file_of_a_later_format_is_named():
    data = TrainedPolicy(MLPPolicy(3, 2)).to_bytes()
    later = data.replace(
        json.dumps({"format": 1})[1:-1].replace('"', '\\"').encode(), b'\\"format\\": 2'
    )
    assert later != data
    with pytest.raises(DataError, match="in format 2, this dodona reads format 1"):
        read_header(later)
