"""Tables against sums over all actions and all answers."""

import numpy as np
import pytest
import torch
from scipy import stats

from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp import MDP, worlds
from dodona.oracles import distributions as oracle
from dodona.oracles import sequences
from dodona.policies import LinearPolicy, SequenceTable, TablePolicy
from dodona.rl.features import OneHot, Polynomial

LOGITS = torch.tensor([[0.0, 0.5], [0.2, -0.3], [-0.1, 0.4]], dtype=torch.float64)  # tri3


def table(**options):
    policy = TablePolicy(3, 2, **options).double()
    policy.logits.data.copy_(LOGITS)
    return policy


def test_a_table_is_the_softmax_of_its_rows():
    policy = table()
    for s in range(3):
        for a, p in oracle.categorical_law(LOGITS[s].tolist()).items():
            logp = policy.log_prob(torch.tensor([s]), torch.tensor([a]))
            assert logp.exp().item() == pytest.approx(p)
    rows = policy.log_prob(torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0, 1], [1, 1]]))
    assert rows.shape == (2, 2) and policy(torch.tensor([2])).entropy().shape == (1,)
    uniform = TablePolicy(4, 3).distribution(torch.arange(4)).probs
    assert torch.allclose(uniform, torch.full((4, 3), 1 / 3))


def test_the_gradient_of_the_expected_weight_is_exact():
    """Sum over s, a of w(s, a) p(a | s) by autograd against the softmax's Jacobian."""
    policy, w = table(), torch.tensor([[1.0, -2.0], [0.3, 0.7], [4.0, 1.0]], dtype=torch.float64)
    p = policy.distribution(torch.arange(3)).probs
    (p * w).sum().backward()
    p = p.detach()
    assert torch.allclose(policy.logits.grad, p * (w - (p * w).sum(1, keepdim=True)))


def test_samples_of_a_row_are_adjacent_and_scored():
    policy, rng = table(), np.random.default_rng(0)
    obs = torch.tensor([2, 0])
    actions, logp = policy.sample(obs, rng=rng, num_samples=5000)
    assert actions.shape == logp.shape == (10_000,) and not logp.requires_grad
    assert torch.allclose(logp, policy.log_prob(obs.repeat_interleave(5000), actions).detach())
    for state, drawn in zip((2, 0), actions.view(2, 5000), strict=True):
        expected = 5000 * np.array(list(oracle.categorical_law(LOGITS[state].tolist()).values()))
        counts = np.bincount(drawn.numpy(), minlength=2)
        assert stats.chisquare(counts, expected).pvalue > 1e-3
    steps, _ = policy.sample(torch.zeros(2, 4, dtype=torch.int64), rng=rng, num_samples=3)
    assert steps.shape == (6, 4)
    assert torch.equal(policy.env_actions(actions), actions)


def test_an_action_that_can_not_be_taken_has_no_part():
    mask = np.array([[True, False], [True, True], [False, True]])
    policy = table(action_mask=mask)
    assert policy.distribution(torch.arange(3)).probs[[0, 2]].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    policy.distribution(torch.arange(3)).entropy().sum().backward()
    assert torch.isfinite(policy.logits.grad).all() and (policy.logits.grad[[0, 2]] == 0).all()
    assert "action_mask" in policy.state_dict()


def test_linear_in_one_hot_features_is_the_table():
    expected = table().distribution(torch.arange(3)).probs
    for features in (np.eye(3), torch.eye(3), OneHot(3)):
        policy = LinearPolicy(features, 2).double()
        policy.weights.data.copy_(LOGITS)
        assert torch.allclose(policy.distribution(torch.arange(3)).probs, expected)


def test_linear_in_features_of_real_observations():
    features = Polynomial(1, dim=2)
    policy = LinearPolicy(features, 3)
    obs = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy.weights.data.normal_(generator=torch.Generator().manual_seed(1))
    phi = torch.from_numpy(features.transform(obs.numpy())).float()
    assert torch.allclose(policy.distribution(obs).logits, phi @ policy.weights)


def tm40():
    """(the policy, the problem): histories are states 0..12, state 13 is the end."""
    problem = sequences.tm40()
    P, every = np.zeros((14, 4, 14)), problem.sequences
    for answer, history in zip(every.tokens, every.history, strict=True):
        for t in range(3):
            if history[t] >= 0:
                after = history[t + 1] if t < 2 and history[t + 1] >= 0 else 13
                P[history[t], answer[t], after] = 1.0
    P[13, :, 13] = 1.0
    mdp = MDP.from_dense(
        P, np.zeros((14, 4)), gamma=1.0, terminal=np.arange(14) == 13, start=np.eye(14)[0]
    )
    policy = SequenceTable(mdp).double()
    policy.logits.data[:13] = torch.from_numpy(problem.logits)
    return policy, problem


def test_every_answer_has_its_probability_and_the_golden_sums_come_out():
    # card grpo, sec. 4: J, entropy, gradient and mean length of TM-40
    policy, problem = tm40()
    every = problem.sequences
    obs = torch.zeros(len(every.tokens), dtype=torch.int64)
    answers = torch.from_numpy(every.tokens).clamp(min=0)
    assert policy.root == 0 and policy.max_length == 3
    mask = policy.mask(obs, answers)
    assert np.array_equal(mask.numpy(), every.mask)
    logp = policy.log_prob(obs, answers)
    assert logp.detach().numpy() == pytest.approx(sequences.token_logp(every, problem.logits))
    p = logp.sum(1).exp()
    objective = (p * torch.from_numpy(problem.rewards)).sum()
    assert objective.item() == pytest.approx(0.11726333993066, abs=1e-13)
    assert -(p * p.log()).sum().item() == pytest.approx(3.21483435575752, abs=1e-12)
    assert (p * mask.sum(1)).sum().item() == pytest.approx(2.62097218627091, abs=1e-12)
    (gradient,) = torch.autograd.grad(objective, policy.logits)
    assert gradient.norm().item() == pytest.approx(0.07779087335764, abs=1e-12)
    assert gradient[0].tolist() == pytest.approx(
        [-0.01661157, 0.02893164, 0.00052565, -0.01284572], abs=5e-9
    )
    law = policy.distribution(obs, answers)
    assert law.logits.shape == (40, 3, 4)
    assert torch.allclose(torch.where(mask, law.log_prob(answers), 0.0), logp)
    assert policy.distribution(obs[:2]).logits.shape == (2, 4)


def test_sampled_answers_have_their_frequencies():
    policy, problem = tm40()
    answers, logp = policy.sample(
        torch.zeros(1, dtype=torch.int64), rng=np.random.default_rng(1), num_samples=20_000
    )
    assert answers.shape == logp.shape == (20_000, 3)
    tokens = torch.from_numpy(problem.sequences.tokens).clamp(min=0)
    counts = [(answers == t).all(1).sum().item() for t in tokens]
    assert sum(counts) == 20_000
    expected = 20_000 * sequences.probabilities(problem.sequences, problem.logits)
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    assert torch.equal(
        logp, policy.log_prob(torch.zeros(20_000, dtype=torch.int64), answers).detach()
    )


def test_a_token_world_of_the_house_and_prompts():
    policy = SequenceTable(worlds.token_mdp(2, 3, lambda t: float(sum(t))))
    assert policy.max_length == 3 and policy.logits.shape == (8, 2)
    prompts = torch.tensor([0, 2])  # the empty prefix, and the prefix (1,)
    answers, _ = policy.sample(prompts, rng=np.random.default_rng(0), num_samples=4)
    mask = policy.mask(prompts.repeat_interleave(4), answers)
    assert mask.sum(1).tolist() == [3] * 4 + [2] * 4 and (answers[4:, 2] == 0).all()


def test_a_table_fits_an_environment_of_numbered_states():
    class Env:
        id, num_states, num_actions = "ring", 5, 2

    assert TablePolicy.for_env(Env).logits.shape == (5, 2)
    Env.num_states = None
    with pytest.raises(InputError, match="ring has None numbered states.*Use MLPPolicy.for_env"):
        TablePolicy.for_env(Env)


def test_wrong_input_is_answered():
    with pytest.raises(InputError, match="num_states must be at least 1, got 0"):
        TablePolicy(0, 2)
    with pytest.raises(
        ShapeError, match=r"action_mask has shape \(2, 2\), expected \[S, A\] = \(3, 2\)"
    ):
        TablePolicy(3, 2, action_mask=np.ones((2, 2), dtype=bool))
    with pytest.raises(InputError, match="state 1 has no action that can be taken"):
        TablePolicy(2, 2, action_mask=np.array([[True, True], [False, False]]))
    with pytest.raises(ShapeError, match=r"features have shape \(3,\)"):
        LinearPolicy(np.zeros(3), 2)
    with pytest.raises(MDPError, match="state 0, action 0 has 3 successors"):
        SequenceTable(worlds.garnet(4, 2, 3, seed=0))
    with pytest.raises(MDPError, match="comes again for ever: answers must end"):
        SequenceTable(worlds.book_grid())
    with pytest.raises(InputError, match="num_samples must be at least 1"):
        table().sample(torch.tensor([0]), rng=np.random.default_rng(0), num_samples=0)
