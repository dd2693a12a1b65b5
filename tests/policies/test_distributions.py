"""Laws of actions against enumeration and quadrature, their samples against their own probabilities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.oracles import distributions as oracle
from dodona.policies import (
    Bernoulli,
    Beta,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
)
from dodona.policies._log_cosh import expected_log_cosh

LEVEL = 1e-3  # of every statistical test; at 20 000 samples they see shifts of two per cent
SIZES = (3, 2)
LOGITS = arrays.arrays(np.float64, (2, 5), elements=st.floats(-30, 30))


def double(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def discrete(name, logits):
    """(law, the same by enumeration, its outcomes as the law takes them)."""
    if name == "categorical":
        law, exact = Categorical(double(logits)), oracle.categorical_law(logits)
        return law, exact, torch.tensor(list(exact))
    if name == "multi":
        law = MultiCategorical(double(logits), SIZES)
        factors = [oracle.categorical_law(logits[:3]), oracle.categorical_law(logits[3:])]
    else:
        law = Bernoulli(double(logits))
        factors = [oracle.categorical_law([0.0, x]) for x in logits]
    exact = oracle.product_law(factors)
    return law, exact, torch.tensor(list(exact))


DISCRETE = ("categorical", "multi", "bernoulli")


@pytest.mark.parametrize("name", DISCRETE)
@given(logits=LOGITS)
def test_a_discrete_law_is_its_enumeration(name, logits):
    p, exact, outcomes = discrete(name, logits[0])
    q, other, _ = discrete(name, logits[1])
    got = p.log_prob(outcomes).exp().numpy()
    assert got == pytest.approx(np.array(list(exact.values())), rel=1e-9, abs=1e-300)
    assert oracle.total(exact) == pytest.approx(1.0)
    assert p.entropy().item() == pytest.approx(oracle.entropy(exact), rel=1e-9, abs=1e-12)
    assert p.kl(q).item() == pytest.approx(oracle.kl(exact, other), rel=1e-9, abs=1e-11)
    best = max(exact.values())
    mode = p.mode().tolist()
    assert exact[tuple(mode) if isinstance(mode, list) else mode] == pytest.approx(best)


@pytest.mark.parametrize("name", DISCRETE)
def test_a_discrete_fisher_matrix_is_that_of_the_scores(name):
    logits = np.array([0.4, -1.1, 0.3, 0.9, -0.2])
    law = discrete(name, logits)[0]
    expected = oracle.fisher(lambda *x: discrete(name, np.array(x))[1], logits)
    got = torch.stack([law.fisher_times(e) for e in torch.eye(5, dtype=torch.float64)])
    assert got.numpy() == pytest.approx(expected, abs=1e-8)


CONTINUOUS = {
    "gaussian": (
        lambda a, b: DiagonalGaussian(a[..., None], b.log()[..., None]),
        oracle.gaussian_law,
        [(0.3, 0.5), (-2.0, 1.7)],
    ),
    "squashed": (
        lambda a, b: SquashedGaussian(a[..., None], b.log()[..., None], low=-2.0, high=1.0),
        lambda a, b: oracle.squashed_gaussian_law(a, b, low=-2.0, high=1.0),
        [(0.3, 0.5), (-2.0, 1.7), (0.0, 4.0), (5.0, 0.1)],
    ),
    "beta": (
        lambda a, b: Beta(a[..., None], b[..., None], low=-2.0, high=1.0),
        lambda a, b: oracle.beta_law(a, b, low=-2.0, high=1.0),
        [(2.0, 3.0), (1.0, 1.0), (0.4, 0.7), (40.0, 3.5)],
    ),
}


def points(name, t):
    """(raw sample, the oracle's point of it)."""
    if name == "gaussian":
        return t, t
    raw = t / 2 if name == "squashed" else t
    return raw, (1 / (1 + math.exp(-t)), 1 / (1 + math.exp(t)))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_density_is_that_of_the_oracle_and_integrates_to_one(name):
    make, exact, cases = CONTINUOUS[name]
    for case in cases:
        law, density = make(*double(case)), exact(*case)
        assert oracle.total(density) == pytest.approx(1.0, abs=1e-8)
        for t in (-3.0, -0.4, 0.0, 1.1, 6.0):
            raw, point = points(name, t)
            got = law.log_prob(double([raw])).item()
            assert got == pytest.approx(density.log_density(point), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_entropy_and_divergence_are_their_integrals(name):
    make, exact, cases = CONTINUOUS[name]
    for case in cases:
        law = make(*double(case))
        assert law.entropy().item() == pytest.approx(oracle.entropy(exact(*case)), abs=2e-7)
        for other in cases:
            expected = oracle.kl(exact(*case), exact(*other))
            got = law.kl(make(*double(other))).item()
            assert got == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_fisher_matrix_is_that_of_the_scores(name):
    make, exact, cases = CONTINUOUS[name]
    a, b = cases[0]
    law = make(*double((a, b)))
    got = torch.stack([law.fisher_times(e) for e in torch.eye(2, dtype=torch.float64)]).numpy()
    scale = np.diag([1.0, 1.0 if name == "beta" else b])  # d std = std d log std
    assert got == pytest.approx(scale @ oracle.fisher(exact, (a, b)) @ scale, abs=1e-6)


@settings(max_examples=25)
@given(st.floats(-6, 6), st.floats(-4, 3))
def test_the_log_cosh_integral_is_right_to_1e_9(mean, log_std):
    got = expected_log_cosh(double(mean), double(log_std)).item()
    assert got == pytest.approx(oracle.expected_log_cosh(mean, math.exp(log_std)), abs=1e-9)


def every_law(dtype=torch.float64, batch=(3,)):
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*batch, *shape, generator=rng, dtype=dtype)

    return {
        "categorical": (Categorical, (normal(5),)),
        "multi": (lambda x: MultiCategorical(x, SIZES), (normal(5),)),
        "bernoulli": (Bernoulli, (normal(4),)),
        "gaussian": (DiagonalGaussian, (normal(2), normal(2))),
        "squashed": (SquashedGaussian, (normal(2), normal(2))),
        "beta": (Beta, (normal(2).exp() + 0.2, normal(2).exp() + 0.2)),
    }


NAMES = list(every_law())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    make, params = every_law(batch=())[name]
    params = [p.requires_grad_() for p in params]
    other = make(*(0.9 * p.detach() + 0.1 for p in params))
    actions = make(*params).sample(rng=np.random.default_rng(1))
    assert torch.autograd.gradcheck(lambda *p: make(*p).log_prob(actions), params, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *p: make(*p).entropy(), params, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *p: make(*p).kl(other), params, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *p: other.kl(make(*p)), params, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_curvature_of_both_divergences_is_the_fisher_matrix(name):
    make, params = every_law(batch=())[name]
    law = make(*params)
    sizes = [p.numel() for p in params]

    def moved(flat):
        return make(*(x.view_as(p) for x, p in zip(flat.split(sizes), params, strict=True)))

    fisher = torch.stack([law.fisher_times(e) for e in torch.eye(sum(sizes), dtype=torch.float64)])
    flat = torch.cat([p.reshape(-1) for p in params])
    for divergence in (lambda x: law.kl(moved(x)), lambda x: moved(x).kl(law)):
        assert divergence(flat).item() == pytest.approx(0.0, abs=1e-12)
        hessian = torch.autograd.functional.hessian(divergence, flat)
        assert torch.allclose(hessian, fisher, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_loop_and_samples_stand_in_front(name):
    make, params = every_law()[name]
    law, rng = make(*params), np.random.default_rng(0)
    drawn = law.sample(rng=rng, num_samples=7)
    assert drawn.shape[:2] == (7, 3) and not drawn.requires_grad
    one = law.sample(rng=rng)
    assert one.shape == drawn.shape[1:] == law.mode().shape and one.dtype == drawn.dtype
    logp = law.log_prob(drawn)
    assert logp.shape == (7, 3)
    for i in range(3):
        single = make(*(p[i] for p in params))
        assert torch.allclose(single.log_prob(drawn[:, i]), logp[:, i])
        assert torch.allclose(single.entropy(), law.entropy()[i])
        tangent = torch.ones_like(law.params)
        assert torch.allclose(single.fisher_times(tangent[i]), law.fisher_times(tangent)[i])
    everything = torch.vmap(lambda p, a: make(*p).log_prob(a))(params, drawn[0])
    assert torch.allclose(everything, logp[0])


def generators(seed):
    return np.random.default_rng(seed), torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [0, 1], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", DISCRETE)
def test_samples_of_a_discrete_law_have_its_frequencies(name, kind):
    law, exact, outcomes = discrete(name, np.array([0.4, -1.1, 0.3, 0.9, -0.2]))
    drawn = law.sample(rng=generators(3)[kind], num_samples=20_000).reshape(20_000, -1)
    counts = [(drawn == o.reshape(-1)).all(1).sum().item() for o in outcomes]
    assert sum(counts) == 20_000
    assert stats.chisquare(counts, 20_000 * np.array(list(exact.values()))).pvalue > LEVEL


@pytest.mark.parametrize("kind", [0, 1], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    "law, cdf",
    [
        (DiagonalGaussian(double([0.3]), double([0.5])), stats.norm(0.3, math.exp(0.5)).cdf),
        (SquashedGaussian(double([0.3]), double([0.5])), stats.norm(0.3, math.exp(0.5)).cdf),
        (Beta(double([2.0]), double([0.5])), lambda t: stats.beta(2, 0.5).cdf(1 / (1 + np.exp(-t)))),
        (Beta(double([0.05]), double([30.0])), lambda t: stats.beta(0.05, 30).cdf(1 / (1 + np.exp(-t)))),
    ],
    ids=["gaussian", "squashed", "beta", "beta at the end"],
)  # fmt: skip
def test_samples_of_a_continuous_law_have_its_distribution(law, cdf, kind):
    drawn = law.sample(rng=generators(4)[kind], num_samples=20_000)[:, 0].numpy()
    assert stats.kstest(drawn, cdf).pvalue > LEVEL


def test_an_action_that_can_not_be_taken_is_never_drawn_and_spoils_nothing():
    logits = torch.tensor([[0.5, -torch.inf, 1.0, -torch.inf], [-torch.inf, -torch.inf, 2.0, 0.0]])
    logits.requires_grad_()
    law, free = Categorical(logits), Categorical(logits.detach()[:, [0, 2]])
    drawn = law.sample(rng=np.random.default_rng(0), num_samples=2000)
    assert set(drawn[:, 0].tolist()) == {0, 2} and set(drawn[:, 1].tolist()) == {2, 3}
    assert law.entropy()[0].item() == pytest.approx(free.entropy()[0].item())
    other = Categorical(torch.where(logits.isinf(), logits, 0.0))
    loss = (
        law.entropy() + law.kl(other) + other.kl(law) + law.log_prob(torch.tensor([2, 3]))
    ).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert (logits.grad[logits.isinf()] == 0).all()
    assert torch.isfinite(law.fisher_times(torch.ones(2, 4))).all()
    assert law.log_prob(torch.tensor([1, 2]))[0] == -torch.inf
    stuck = torch.tensor([torch.inf, -torch.inf, 0.3], requires_grad=True)
    bits = Bernoulli(stuck)
    loss = bits.entropy() + bits.kl(Bernoulli(stuck.detach()))
    loss.backward()
    assert bits.sample(rng=np.random.default_rng(0), num_samples=50)[:, :2].unique(
        dim=0
    ).tolist() == [[1, 0]]
    assert torch.isfinite(loss) and torch.isfinite(stuck.grad).all()


class Largest(np.random.Generator):
    """Every uniform is the largest below one."""

    def random(self, size=None):
        return np.full(size, 1.0 - 2.0**-53)


def test_the_largest_uniform_draws_the_last_action_that_can_be_taken():
    rng = Largest(np.random.PCG64(0))
    logits = torch.tensor([[0.0, 1.0, -torch.inf], [5.0, -torch.inf, -torch.inf], [0.1, 0.2, 0.3]])
    assert Categorical(logits).sample(rng=rng).tolist() == [1, 0, 2]


def test_extremes_stay_exact_in_single_precision():
    sure = Categorical(torch.tensor([200.0, 0.0], requires_grad=True))
    assert sure.log_prob(torch.tensor(1)).item() == -200.0 and sure.entropy().item() == 0.0
    raw = torch.tensor([30.0], requires_grad=True)
    law = SquashedGaussian(torch.tensor([29.0]), torch.tensor([0.0]))
    assert law.squash(raw).item() == 1.0  # rounds to the bound
    logp = law.log_prob(raw)
    expected = -0.5 - 0.5 * math.log(2 * math.pi) + 60.0 - 2 * math.log(2)
    assert logp.item() == pytest.approx(expected, rel=1e-6)
    logp.backward()
    assert raw.grad.item() == pytest.approx(-1.0 + 2.0, rel=1e-5)
    tight = DiagonalGaussian(torch.zeros(1), torch.tensor([-60.0]))
    assert tight.kl(tight).item() == 0.0 and torch.isfinite(tight.log_prob(torch.zeros(1)))
    tiny = Beta(torch.tensor([1e-3]), torch.tensor([1e-3]))
    drawn = tiny.sample(rng=np.random.default_rng(0), num_samples=500)
    assert torch.isfinite(drawn).all() and torch.isfinite(tiny.log_prob(drawn)).all()
    sharp = Beta(torch.tensor([1e5]), torch.tensor([2e5]))
    nearby = Beta(torch.tensor([1e5 + 1]), torch.tensor([2e5]))
    exact = Beta(double([1e5]), double([2e5])).kl(Beta(double([1e5 + 1]), double([2e5])))
    assert sharp.kl(nearby).item() == pytest.approx(exact.item(), rel=1e-2)
    wide = SquashedGaussian(torch.tensor([0.5]), torch.tensor([-90.0], requires_grad=True))
    assert torch.isfinite(wide.entropy()).all()


def test_the_mode_of_a_beta_law_is_where_its_density_peaks():
    law = Beta(double([3.0]), double([2.0]))
    assert law.squash(law.mode()).item() == pytest.approx(2 / 3)
    near = law.mode() + double([[-0.05], [0.05]])
    assert (law.log_prob(near) < law.log_prob(law.mode())).all()
    flat = Beta(double([0.5]), double([1.5]))
    assert flat.squash(flat.mode()).item() == pytest.approx(0.25)  # no peak inside: the mean


def test_one_deviation_serves_all_states():
    mean, log_std = torch.zeros(4, 2), torch.tensor([0.1, -0.2])
    shared = DiagonalGaussian(mean, log_std)
    assert torch.equal(shared.entropy(), DiagonalGaussian(mean, log_std.expand(4, 2)).entropy())


def test_wrong_input_is_answered():
    law = Categorical(torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"actions must be in 0..1, got 5. Were they stored"):
        law.log_prob(torch.tensor([0, 5, 1]))
    with pytest.raises(ShapeError, match=r"actions have shape \(2,\).*shape \(3,\)"):
        law.log_prob(torch.tensor([0, 1]))
    with pytest.raises(
        NonFiniteError, match=r"probabilities must be finite, got nan at index \(1, 0\)"
    ):
        Categorical(torch.tensor([[0.0, 0.0], [torch.nan, 0.0]])).sample(
            rng=np.random.default_rng(0)
        )
    with pytest.raises(NonFiniteError, match="probabilities must be finite"):
        Categorical(torch.full((2,), -torch.inf)).sample(rng=np.random.default_rng(0))
    with pytest.raises(
        TypeError, match="kl compares two laws of one family, got Categorical and Bernoulli"
    ):
        law.kl(Bernoulli(torch.zeros(3, 2)))
    with pytest.raises(ShapeError, match="add up to 5"):
        MultiCategorical(torch.zeros(4), (3, 2))
    with pytest.raises(ShapeError, match=r"other_params has shape \(2,\)"):
        law.kl(Categorical(torch.zeros(2)))
    with pytest.raises(ShapeError, match="log_std has shape"):
        DiagonalGaussian(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(TypeError, match="rng must be"):
        law.sample(rng=0)
    with pytest.raises(InputError, match="num_samples must be at least 1, got 0"):
        law.sample(rng=np.random.default_rng(0), num_samples=0)


def clipped_and_inverted(law, raw):
    """The density by way of the action: what rounds to the bound is lost."""
    a = law.squash(raw).clamp(-1 + 1e-6, 1 - 1e-6)
    return SquashedGaussian.log_prob(law, torch.atanh(a))


def without_stretch(law, raw):
    return DiagonalGaussian.log_prob(law, raw)


@pytest.mark.parametrize("wrong", [clipped_and_inverted, without_stretch])
def test_known_wrong_densities_are_told_apart(wrong):
    law = SquashedGaussian(torch.tensor([8.0]), torch.tensor([0.0]))
    raw = torch.tensor([9.5])
    x, y = 1 / (1 + math.exp(-19.0)), 1 / (1 + math.exp(19.0))
    expected = oracle.squashed_gaussian_law(8.0, 1.0).log_density((x, y))
    assert law.log_prob(raw).item() == pytest.approx(expected, rel=1e-5)
    assert wrong(law, raw).item() != pytest.approx(expected, rel=1e-2)
