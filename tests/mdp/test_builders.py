"""One small model through every door, in and out; samples; Gymnasium's tables against dense solves."""

import gymnasium
import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.core.batch import Batch
from dodona.errors import MDPError, ShapeError
from dodona.mdp import (
    MDP,
    backward_induction,
    policy_value,
    return_variance,
    shortest_path_value_iteration,
    solve,
    worlds,
)
from dodona.oracles import mdp as oracles

FIELDS = ("sa_indptr", "actions", "indptr", "indices", "probs", "rewards", "terminal")

# three states in a row: "walk" mostly advances and pays 2 for reaching the end, "wait" pays 1/4;
# the end is terminal. Probabilities and rewards are dyadic, so every door gives the same floats.
GAMMA = 0.5
CHAIN = {
    (0, 0): [(0.75, 1, 0.0), (0.25, 0, 0.0)],
    (0, 1): [(1.0, 0, 0.25)],
    (1, 0): [(0.75, 2, 2.0), (0.25, 1, 0.0)],
    (1, 1): [(1.0, 1, 0.25)],
}


def dense_chain():
    P, R3 = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    for (s, a), outcomes in CHAIN.items():
        for p, s2, r in outcomes:
            P[s, a, s2], R3[s, a, s2] = p, r
    return P, R3, (P * R3).sum(axis=2)


def chain_step(s, a):
    return [(p, s2, r, s2 == 2) for p, s2, r in CHAIN[s, a]] if s < 2 else None


def chain_doors():
    P, R3, R = dense_chain()
    ass, A = P.transpose(1, 0, 2), range(2)
    end = {"gamma": GAMMA, "terminal": [2]}
    rows = [(s, a, s2, p, r, int(s2 == 2)) for (s, a), o in CHAIN.items() for p, s2, r in o]
    sampled = [(s, a, r, s2, s2 == 2) for s, a, s2, p, r, _ in rows for _ in range(int(4 * p))]
    yield "dense r(s, a)", MDP.from_dense(P, R, **end)
    yield "dense r(s, a, s')", MDP.from_dense(P, R3, **end)
    yield "dense, action first", MDP.from_dense(ass, R3.transpose(1, 0, 2), layout="ass", **end)
    yield "scipy, r(s, a)", MDP.from_scipy([sparse.csr_matrix(ass[a]) for a in A], R, **end)
    yield (
        "scipy, r(s, a, s')",
        MDP.from_scipy(
            [sparse.coo_array(ass[a]) for a in A], [sparse.csc_matrix(R3[:, a]) for a in A], **end
        ),
    )
    yield "mdptoolbox, r(s, a)", MDP.from_mdptoolbox(ass, R, **end)
    yield "mdptoolbox, r(a, s, s')", MDP.from_mdptoolbox(ass, R3.transpose(1, 0, 2), **end)
    matrices = np.empty(2, dtype=object)
    matrices[:] = [sparse.csr_matrix(ass[a]) for a in A]
    yield "mdptoolbox, array of matrices", MDP.from_mdptoolbox(matrices, R, **end)
    yield "function", MDP.from_function(chain_step, 3, 2, gamma=GAMMA)
    yield "table", MDP.from_table(rows, gamma=GAMMA)
    yield "samples", MDP.from_samples(tuple(map(list, zip(*sampled, strict=True))), gamma=GAMMA, num_states=3)  # fmt: skip
    yield "gymnasium", MDP.from_gymnasium(ChainEnv(), gamma=GAMMA)


class ChainEnv(gymnasium.Env):
    """The chain as Gymnasium's toy texts keep theirs; the end has rows, as FrozenLake's goal has."""

    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)
    P = {s: {a: chain_step(s, a) or [(1.0, 2, 0.0, True)] for a in range(2)} for s in range(3)}
    initial_state_distrib = np.array([1.0, 0.0, 0.0])


def test_every_door_gives_the_same_chain():
    doors = dict(chain_doors())
    first = doors.pop("dense r(s, a)")
    # by hand: walking is best, v(1) = (.75 * 2) / (1 - .5 * .25), v(0) = .375 v(1) / (1 - .125)
    v1 = 1.5 / 0.875
    assert solve(first).values == pytest.approx([0.375 * v1 / 0.875, v1, 0], abs=1e-8)
    for name, mdp in doors.items():
        P, R, gamma = mdp.dense()
        assert np.array_equal(P, first.dense()[0]), name
        assert np.array_equal(R, first.dense()[1]), name
        assert gamma == GAMMA and np.array_equal(mdp.terminal, first.terminal), name
        assert mdp.num_actions == 2, name
        assert solve(mdp).values == pytest.approx(solve(first).values, abs=1e-8), name


def test_the_chain_tells_the_usual_mistakes_apart():
    P, R3, R = dense_chain()
    truth = solve(MDP.from_dense(P, R, gamma=GAMMA, terminal=[2])).values
    stay = P.copy()
    stay[2, :, 2] = 1.0
    mistakes = {
        "the end lives on and pays": MDP.from_dense(stay, R + 1.0 * (np.arange(3) == 2)[:, None], gamma=GAMMA),
        "rewards of s for those of s'": MDP.from_dense(P, np.roll(R, 1, axis=0) * [[1], [1], [0]], gamma=GAMMA, terminal=[2]),
        "actions swapped in P only": MDP.from_dense(P[:, ::-1], R, gamma=GAMMA, terminal=[2]),
        "sums for means": MDP.from_dense(P, R3.sum(axis=2), gamma=GAMMA, terminal=[2]),
        "a truncated end": MDP.from_function(lambda s, a: CHAIN.get((s, a), [(1.0, 0, 0.0)]), 3, 2, gamma=GAMMA),
    }  # fmt: skip
    for name, mdp in mistakes.items():
        assert np.abs(solve(mdp).values[:2] - truth[:2]).max() > 0.01, name


def test_the_three_forms_of_reward_give_one_value_and_transitions_give_the_variance():
    rng = np.random.default_rng(0)
    P, on_arrival = rng.dirichlet(np.ones(4), size=(4, 2)), rng.normal(size=4)
    R3 = np.broadcast_to(on_arrival, (4, 2, 4))
    policy = rng.dirichlet(np.ones(2), size=4)
    models = [MDP.from_dense(P, R, gamma=0.9) for R in ((P * R3).sum(axis=2), R3, on_arrival)]
    models.append(
        MDP.from_scipy([sparse.csr_array(P[:, a]) for a in range(2)], on_arrival, gamma=0.9)
    )
    values = [policy_value(m, policy).values for m in models]
    for v in values[1:]:
        assert v == pytest.approx(values[0], abs=1e-12)
    variances = [return_variance(m, policy) for m in models]
    assert variances[1] == pytest.approx(variances[2], abs=1e-9)
    assert variances[1] == pytest.approx(variances[3], abs=1e-9)
    assert np.all(variances[0] < variances[1])  # the mean of a reward has no noise of its own


def test_a_vector_of_rewards_means_arriving_in_scipy_and_being_in_mdptoolbox():
    P = np.array([[[0.0, 1.0], [1.0, 0.0]]])  # one action, two states in turn
    R = [5.0, 0.0]
    assert MDP.from_scipy([sparse.csr_array(P[0])], R, gamma=0.5).rewards.tolist() == [0, 5]
    assert MDP.from_mdptoolbox(P, R, gamma=0.5).rewards.tolist() == [5, 0]


@pytest.mark.parametrize("name", ["book_grid", "puterman_two_state", "river_swim", "inventory", "cliff", "gambler"])  # fmt: skip
def test_a_model_survives_the_way_through_scipy(name):
    mdp = getattr(worlds, name)()
    matrices, R = mdp.to_scipy()
    assert all(matrix.format == "csr" for matrix in matrices)
    back = MDP.from_scipy(
        matrices, R, gamma=mdp.gamma, terminal=mdp.terminal, action_mask=mdp.action_mask
    )
    assert back.num_actions == mdp.num_actions
    P, R, _ = mdp.dense()
    assert np.array_equal(back.dense()[0], P) and np.array_equal(back.dense()[1], R)
    again, _ = back.to_scipy()
    for a, b in zip(matrices, again, strict=True):
        assert (a != b).nnz == 0


def test_float32_probabilities_stay_float32_through_scipy():
    mdp = worlds.garnet(10, 2, 3, seed=0, dtype=np.float32)
    back = MDP.from_scipy(*mdp.to_scipy(), gamma=mdp.gamma)
    assert back.probs.dtype == np.float32
    assert np.array_equal(back.dense()[0], mdp.dense()[0])


def test_a_model_survives_the_way_through_mdptoolbox():
    mdp = worlds.mdptoolbox_small()
    P, R = mdp.to_mdptoolbox()
    assert P.tolist() == [[[0.5, 0.5], [0.8, 0.2]], [[0.0, 1.0], [0.1, 0.9]]]
    assert R.tolist() == [[5.0, 10.0], [-1.0, 2.0]]
    back = MDP.from_mdptoolbox(P, R, gamma=mdp.gamma)
    for field in FIELDS:
        assert np.array_equal(getattr(back, field), getattr(mdp, field)), field


def test_mdptoolbox_gets_rows_that_sum_to_one_and_the_same_optimum():
    mdp = worlds.puterman_two_state()
    with pytest.raises(
        MDPError, match=r"action 1 is infeasible in state 1 \(1 such pairs\).*'repeat'"
    ):
        mdp.to_mdptoolbox()
    P, R = mdp.to_mdptoolbox(infeasible="repeat")
    assert P.sum(axis=2) == pytest.approx(np.ones((2, 2))) and R[1].tolist() == [-1, -1]
    assert solve(MDP.from_mdptoolbox(P, R, gamma=0.95)).values == pytest.approx(solve(mdp).values)
    P, R = worlds.corners_grid(gamma=0.9).to_mdptoolbox()
    assert P[:, 0, 0].tolist() == [1.0] * 4 and R[0].tolist() == [0.0] * 4
    v = solve(MDP.from_mdptoolbox(P, R, gamma=0.9)).values
    assert v == pytest.approx(solve(worlds.corners_grid(gamma=0.9)).values, abs=1e-7)


def test_matrices_of_a_large_model_are_never_dense():
    # [S, A, S] would take 640 GB
    n = 200_000
    s = np.arange(n)
    forward = sparse.csr_array((np.ones(n), (s, (s + 1) % n)), shape=(n, n))
    stay = sparse.eye_array(n, format="csr")
    mdp = MDP.from_scipy([stay, forward], np.arange(n) == 0, gamma=0.9)
    assert len(mdp.probs) == 2 * n and mdp.rewards.sum() == 2


@st.composite
def sparse_models(draw):
    seed, S, A = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    terminal = rng.random(S) < draw(st.sampled_from([0.0, 0.4]))
    mask = rng.random((S, A)) < 0.7
    mask[np.arange(S), rng.integers(0, A, S)] = True
    P = rng.dirichlet(np.ones(S), size=(S, A)) * (rng.random((S, A, S)) < 0.6)
    P[..., 0] += P.sum(axis=2) == 0
    P /= P.sum(axis=2, keepdims=True)
    return P, rng.normal(size=(S, A)) * ~terminal[:, None], terminal, mask


@given(sparse_models())
def test_dense_scipy_function_and_table_agree_on_any_model(model):
    P, R, terminal, mask = model
    S, A = R.shape
    a_first = P.transpose(1, 0, 2)
    settings = {"gamma": 0.9, "terminal": terminal, "action_mask": mask}
    dense = MDP.from_dense(P, R, layout="sas", **settings)
    others = {
        "scipy": MDP.from_scipy([sparse.csr_array(M) for M in a_first], R, **settings),
        "mdptoolbox": MDP.from_mdptoolbox(a_first, R, **settings),
        "back": MDP.from_scipy(*dense.to_scipy(), **settings),
    }
    for name, other in others.items():
        for field in FIELDS:
            assert np.array_equal(getattr(other, field), getattr(dense, field)), (name, field)

    def step(s, a):
        return [(p, j, R[s, a]) for j, p in enumerate(P[s, a])] if mask[s, a] else None

    function = MDP.from_function(step, S, A, gamma=0.9, terminal=terminal)
    for field in FIELDS:
        if field != "rewards":
            assert np.array_equal(getattr(function, field), getattr(dense, field)), field
    assert function.rewards == pytest.approx(dense.rewards, abs=1e-14)


# ---------------------------------------------------------------------- functions and ends
def test_a_terminated_transition_into_a_living_state_carries_its_own_discount():
    # state 0 starts again after every episode: reached by an end and by nothing else, it lives on
    mdp = MDP.from_function(
        lambda s, a: [(1.0, 1, 1.0)] if s == 0 else [(0.5, 0, 2.0, True), (0.5, 1, 0.0)],
        2, 1, gamma=0.8,
    )  # fmt: skip
    assert not mdp.terminal.any() and mdp.discounts.tolist() == [0.8, 0.0, 0.8]
    v1 = 1.0 / (1 - 0.4)
    assert solve(mdp).values == pytest.approx([1 + 0.8 * v1, v1], abs=1e-8)


def test_an_absorbing_state_that_pays_nothing_is_an_end_only_if_entered_by_ends():
    def step(s, a):
        return [(1.0, 1, 1.0, ended)] if s == 0 else [(1.0, 1, 0.0, ended)]

    ended = True
    assert MDP.from_function(step, 2, 1, gamma=1.0).terminal.tolist() == [False, True]
    ended = False
    assert MDP.from_function(step, 2, 1, gamma=1.0).terminal.tolist() == [False, False]


def test_a_function_needs_no_action_in_terminal_states():
    asked = []
    MDP.from_function(
        lambda s, a: asked.append(s) or [(1.0, 2, 1.0)], 3, 2, gamma=0.9, terminal=[2]
    )
    assert set(asked) == {0, 1}


# ---------------------------------------------------------------------- samples
def test_the_predictor_of_the_textbook_sees_three_quarters():
    # Sutton & Barto ex. 6.4: A 0 B 0 once, B 1 six times, B 0 once; the end is state 2
    A, B = 0, 1
    steps = [(A, 0.0, B, False), (B, 0.0, 2, True)] + [(B, 1.0, 2, True)] * 6 + [(B, 0.0, 2, True)]
    s, r, s2, ended = zip(*steps, strict=True)
    mdp = MDP.from_samples((list(s), [0] * 9, list(r), list(s2), list(ended)), gamma=1.0)
    assert policy_value(mdp, [0, 0, -1]).values == pytest.approx([0.75, 0.75, 0], abs=1e-9)


def test_samples_have_the_counts_of_the_oracle():
    rng = np.random.default_rng(4)
    mdp = worlds.garnet(6, 3, 2, seed=4, terminal=1)
    states, actions = rng.integers(0, 5, 500), rng.integers(0, 3, 500)
    successors, rewards, ended = mdp.step(states, actions, rng=rng)
    rewards = rewards + rng.normal(size=500)
    columns = (states, actions, rewards, successors, ended)
    empirical = MDP.from_samples(columns, gamma=0.9)
    truth = oracles.empirical_mdp(*columns, num_states=6, num_actions=3)
    P, R, _ = empirical.dense()
    mask = empirical.action_mask
    assert np.array_equal(mask, truth.action_mask[:6])
    # the oracle sends every end to an extra state, here it is the terminal one
    assert P[mask][:, :5] == pytest.approx(truth.P[:6][mask][:, :5], abs=1e-15)
    assert P[mask][:, 5] == pytest.approx(truth.P[:6][mask][:, 6], abs=1e-15)
    assert R[mask] == pytest.approx(truth.R[:6][mask], abs=1e-12)
    shuffled = rng.permutation(500)
    again = MDP.from_samples(tuple(c[shuffled] for c in columns), gamma=0.9)
    assert np.array_equal(again.probs, empirical.probs)
    assert again.rewards == pytest.approx(empirical.rewards, abs=1e-12)


def test_a_batch_of_tensors_counts_its_unmasked_rows_and_lives_through_truncation():
    batch = Batch(
        obs=torch.tensor([[0, 1, 0], [1, 0, 0]]),
        actions=torch.tensor([[0, 0, 1], [0, 0, 0]]),
        rewards=torch.tensor([[1.0, 2.0, 9.0], [4.0, 0.0, 0.0]]),
        next_obs=torch.tensor([[1, 0, 0], [0, 1, 0]]),
        truncated=torch.tensor([[False, True, True], [True, True, True]]),
        mask=torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]),
    )
    mdp = MDP.from_samples(batch, gamma=0.9)
    assert mdp.num_actions == 1 and not mdp.terminal.any() and mdp.discounts is None
    assert mdp.rewards.tolist() == [0.5, 3.0] and mdp.indices.tolist() == [1, 0]


def test_a_state_entered_and_never_left_is_named_or_ends():
    columns = ([0, 0], [0, 1], [1.0, 3.0], [0, 4], [False, False])
    with pytest.raises(MDPError, match="state 4 is entered and never left.*unseen='end'") as caught:
        MDP.from_samples(columns, gamma=0.5)
    assert caught.value.state == 4
    mdp = MDP.from_samples(columns, gamma=0.5, unseen="end", num_states=6, num_actions=3)
    assert mdp.terminal.tolist() == [False] + [True] * 5 and mdp.num_actions == 3
    assert solve(mdp).values[0] == pytest.approx(3.0)


def test_an_empirical_model_comes_as_close_as_its_samples_allow():
    # every pair equally often: each frequency is binomial, each z-score standard normal. 36
    # comparisons at |z| <= 4.5 fail together once in 4000 seeds; an error of .1 is seen at z > 8
    rng = np.random.default_rng(11)
    truth, N = worlds.garnet(6, 2, 3, seed=2), 2000
    states, actions = np.repeat(np.arange(6), 2 * N), np.tile(np.repeat([0, 1], N), 6)
    successors, rewards, ended = truth.step(states, actions, rng=rng)
    P, R, _ = MDP.from_samples((states, actions, rewards, successors, ended), gamma=0.9).dense()
    exact, R_exact, _ = truth.dense()
    error = np.sqrt(exact * (1 - exact) / N)
    assert np.all(np.abs(P - exact) <= 4.5 * error)
    assert pytest.approx(R_exact, abs=1e-12) == R


# ---------------------------------------------------------------------- Gymnasium
TABLES = [("FrozenLake-v1", 0.99), ("FrozenLake8x8-v1", 0.99), ("Taxi-v4", 0.95), ("CliffWalking-v1", 0.9)]  # fmt: skip


def dense_table(env, gamma):
    """P discounted [S, A, S] and R [S, A] of env.P by a plain loop; what ends is dropped."""
    S, A = env.observation_space.n, env.action_space.n
    P, R = np.zeros((S, A, S)), np.zeros((S, A))
    for s in range(S):
        for a in range(A):
            for p, s2, r, ended in env.P[s][a]:
                R[s, a] += p * r
                P[s, a, s2] += 0.0 if ended else p * gamma
    return P, R


@pytest.mark.parametrize("env_id, gamma", TABLES)
def test_a_gymnasium_table_has_the_values_of_a_dense_solve(env_id, gamma):
    env = gymnasium.make(env_id).unwrapped
    mdp = MDP.from_gymnasium(env, gamma=gamma)
    P, R = dense_table(env, gamma)
    S, A = R.shape
    for seed in range(2):
        policy = np.random.default_rng(seed).dirichlet(np.ones(A), size=S)
        P_pi, r_pi = np.einsum("sa,sat->st", policy, P), (policy * R).sum(axis=1)
        v = np.linalg.solve(np.eye(S) - P_pi, r_pi)
        live = ~mdp.terminal
        assert policy_value(mdp, policy).values[live] == pytest.approx(v[live], abs=1e-8)
    solution = solve(mdp)
    v = np.where(mdp.terminal, 0.0, solution.values)
    best = (R + P @ v).max(axis=1)  # the optimality equation, on the table itself
    assert best[live] == pytest.approx(v[live], abs=1e-7)


def test_frozen_lakes_have_their_known_optima():
    for env_id, discounted, undiscounted in (
        ("FrozenLake-v1", 0.542025932, 14 / 17),
        ("FrozenLake8x8-v1", 0.414640362, 1.0),
    ):
        assert solve(MDP.from_gymnasium(env_id, gamma=0.99)).values[0] == pytest.approx(
            discounted, abs=1e-8
        )
        episodic = MDP.from_gymnasium(env_id, gamma=1.0)
        assert shortest_path_value_iteration(episodic).values[0] == pytest.approx(
            undiscounted, abs=1e-7
        )


def test_frozen_lakes_with_a_time_limit_have_their_known_optima():
    for env_id, steps, value in (
        ("FrozenLake-v1", 100, 0.7441902878),
        ("FrozenLake8x8-v1", 200, 0.9132201502),
    ):
        mdp = MDP.from_gymnasium(env_id, gamma=1.0)
        assert backward_induction(mdp, steps).values[0, 0] == pytest.approx(value, abs=1e-9)


def test_taxi_can_not_reach_its_threshold():
    mean = []
    for gamma, expected, error in ((0.99, 6.327464, 1e-6), (1.0, 7.93, 1e-6)):
        mdp = MDP.from_gymnasium("Taxi-v4", gamma=gamma)
        solver = shortest_path_value_iteration if gamma == 1 else solve
        mean.append(mdp.start @ solver(mdp).values)
        assert np.count_nonzero(mdp.start) == 300
        assert mean[-1] == pytest.approx(expected, abs=error)
    assert mean[-1] < gymnasium.spec("Taxi-v4").reward_threshold == 8


def test_the_cliff_of_gymnasium_is_the_cliff_of_the_book():
    theirs, ours = MDP.from_gymnasium("CliffWalking-v1", gamma=1.0), worlds.cliff()
    assert theirs.start.argmax() == ours.start.argmax() == 36
    v = shortest_path_value_iteration(theirs).values
    assert v[36] == pytest.approx(-13, abs=1e-8)
    assert v[:37] == pytest.approx(shortest_path_value_iteration(ours).values[:37], abs=1e-7)


def test_episodes_in_gymnasium_have_the_return_of_the_model():
    # 4000 episodes of the uniform policy with the exact standard error; |z| <= 4.5 by chance once in
    # 150 000 seeds, a bias of .005 is seen at z = 20
    env = gymnasium.make("FrozenLake-v1", max_episode_steps=10_000)
    mdp = MDP.from_gymnasium(env, gamma=0.9)
    uniform = np.full((16, 4), 0.25)
    value, variance = policy_value(mdp, uniform).values[0], return_variance(mdp, uniform)[0]
    rng, returns = np.random.default_rng(0), []
    env.reset(seed=0)
    for _ in range(4000):
        env.reset()
        total, discount, over = 0.0, 1.0, False
        while not over:
            _, reward, over, _, _ = env.step(int(rng.integers(4)))
            total, discount = total + discount * reward, discount * 0.9
        returns.append(total)
    assert abs(np.mean(returns) - value) <= 4.5 * np.sqrt(variance / 4000)


def test_sampled_transitions_have_the_value_of_the_model():
    # the same, through mdp.step, with noisy rewards and ends
    mdp = worlds.maximisation_bias(3, gamma=0.9)
    policy = np.array([0, 1, -1])
    value, variance = policy_value(mdp, policy).values[0], return_variance(mdp, policy)[0]
    rng, N = np.random.default_rng(1), 20_000
    state, total, discount = np.zeros(N, dtype=np.int64), np.zeros(N), np.ones(N)
    alive = np.arange(N)
    while len(alive):
        after, reward, ended = mdp.step(state[alive], policy[state[alive]], rng=rng)
        total[alive] += discount[alive] * reward
        discount[alive] *= 0.9
        state[alive] = after
        alive = alive[~ended]
    assert abs(total.mean() - value) <= 4.5 * np.sqrt(variance / N)


# ---------------------------------------------------------------------- what can not be read
EYE = np.eye(2)
ZERO = torch.zeros((1, 1), dtype=torch.int64)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: MDP.from_scipy(sparse.eye_array(2), EYE, gamma=0.9), ShapeError, r"one \[S, S\] matrix per action, got one matrix"),
        (lambda: MDP.from_scipy([], EYE, gamma=0.9), ShapeError, "got an empty list"),
        (lambda: MDP.from_scipy([EYE, np.eye(3)], EYE, gamma=0.9), ShapeError, r"matrices\[1\] has shape \(3, 3\), expected \[S, S\] = \(2, 2\)"),
        (lambda: MDP.from_mdptoolbox(np.ones((2, 3, 2)) / 2, EYE, gamma=0.9), ShapeError, r"matrices\[0\] has shape \(3, 2\).*goes to MDP.from_dense"),
        (lambda: MDP.from_scipy([EYE], np.zeros((3, 1)), gamma=0.9), ShapeError, r"R has shape \(3, 1\); with 1 matrices of 2 states expected r\(s, a\) \(2, 1\)"),
        (lambda: MDP.from_scipy([EYE], 1.0, gamma=0.9), ShapeError, r"R has shape \(\); with 1 matrices"),
        (lambda: MDP.from_scipy([EYE], [EYE, EYE], gamma=0.9), ShapeError, "R has 2 matrices of 2 states, expected 1 of 2"),
        (lambda: MDP.from_scipy([EYE * 1j], EYE[:, :1], gamma=0.9), MDPError, "has dtype complex128; real numbers"),
        (lambda: MDP.from_scipy([sparse.csr_array(EYE * 1j)], EYE[:, :1], gamma=0.9), MDPError, r"matrices\[0\] has dtype complex128"),
        (lambda: MDP.from_scipy([EYE * 0.5], EYE[:, :1], gamma=0.9), MDPError, "state 0, action 0: the probabilities sum to 0.5"),
        (lambda: MDP.from_scipy([EYE * np.nan], EYE[:, :1], gamma=0.9), MDPError, "state 0, action 0: probability nan"),
        (lambda: MDP.from_scipy([EYE * 0], EYE[:, :1], gamma=0.9), MDPError, "state 0, action 0: the pair has no successor"),
        (lambda: MDP.from_scipy([EYE], EYE[:, :1], gamma=0.9, terminal=[0]), MDPError, r"state 0 is terminal and has reward \[1.0\]"),
        (lambda: MDP.from_scipy([EYE], EYE[:, :1], gamma=0.9, action_mask=np.ones((1, 2))), ShapeError, r"action_mask has shape \(1, 2\), expected \[S, A\] = \(2, 1\)"),
        (lambda: MDP.from_function(lambda s, a: None, 2, 2, gamma=0.9), MDPError, "step gave no outcome for any state"),
        (lambda: MDP.from_function(lambda s, a: [(1.0, s)], 2, 1, gamma=0.9), MDPError, r"state 0, action 0: step gave the outcome \(1.0, 0\), expected \(probability"),
        (lambda: MDP.from_function(lambda s, a: [(1.0, 0.5, 0.0)], 2, 1, gamma=0.9), MDPError, "the next state an integer"),
        (lambda: MDP.from_function(lambda s, a: [(1.0, 2, 0.0)], 2, 1, gamma=0.9), MDPError, r"state 0, action 0: successor 2 is out of range, states are 0\.\.1"),
        (lambda: MDP.from_function(lambda s, a: [(0.5, 0, 0.0)], 2, 1, gamma=0.9), MDPError, "state 0, action 0: the probabilities sum to 0.5"),
        (lambda: MDP.from_function(lambda s, a: [(0.0, 0, 0.0)], 2, 1, gamma=0.9), MDPError, "the probabilities sum to 0.0"),
        (lambda: MDP.from_function(lambda s, a: [(float("nan"), 0, 0.0)], 2, 1, gamma=0.9), MDPError, "probability nan"),
        (lambda: MDP.from_function(lambda s, a: [(1.0, 0, 0.0)] if s == 0 else (), 2, 1, gamma=0.9), MDPError, "state 1 has no feasible action and is not terminal"),
        (lambda: MDP.from_samples(([0], [0], [1.0], [0]), gamma=0.9), ShapeError, "a batch has 4 columns, expected 5"),
        (lambda: MDP.from_samples(([0], [0], [1.0], [0, 1], [True]), gamma=0.9), ShapeError, r"next states has shape \(2,\), expected \(1,\)"),
        (lambda: MDP.from_samples(([], [], [], [], []), gamma=0.9), MDPError, "the batch is empty"),
        (lambda: MDP.from_samples(([0.5], [0], [1.0], [0], [True]), gamma=0.9), TypeError, "states must be integers, got dtype float64"),
        (lambda: MDP.from_samples(([0], [-1], [1.0], [0], [True]), gamma=0.9), MDPError, "action -1 is out of range"),
        (lambda: MDP.from_samples(([3], [0], [1.0], [0], [True]), gamma=0.9, num_states=2), MDPError, "state 3 is out of range: states are numbered from 0 to num_states - 1 = 1"),
        (lambda: MDP.from_samples(([0, 0], [0, 0], [1.0, np.inf], [0, 0], [True, True]), gamma=0.9), MDPError, r"rewards\[1\] is .*inf"),
        (lambda: MDP.from_samples(Batch(obs=ZERO, actions=ZERO, mask=ZERO + 1), gamma=0.9), MDPError, "the batch has no rewards, next states"),
        (lambda: MDP.from_function(lambda s, a: [(1.0, 1 - s, 1.0, s == 1)], 2, 1, gamma=0.9).to_scipy(), MDPError, "discount per transition, which"),
    ],
)  # fmt: skip
def test_what_can_not_be_a_model_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
