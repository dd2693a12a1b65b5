"""The transformer against loops over positions, against itself without a cache, and against Llama."""

import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch.utils._python_dispatch import TorchDispatchMode

from dodona.core.batch import Batch
from dodona.errors import InputError, ShapeError
from dodona.oracles import transformer as oracle
from dodona.policies import (
    TransformerConfig,
    TransformerPolicy,
    from_llama,
    to_llama,
)
from dodona.policies._decoding import FIRST, Decoder
from dodona.policies._token_logp import token_entropy, token_logp
from dodona.policies.transformer import answer_states

V = 11
RAGGED = [[3, 1, 4], [1], [5, 9, 2, 6, 5]]


def small(dtype=torch.float64, *, seed=0, size=(12, 2, 2), vocab=V, context=160):
    """A policy with gains that are not one, so that forgetting one shows."""
    policy = TransformerPolicy(vocab, size=size, context=context, seed=seed).to(dtype)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            if p.ndim == 1:
                p.copy_(torch.rand(p.shape, generator=rng, dtype=dtype) + 0.5)
        policy.trunk.embedding.weight.mul_(40.0)
    return policy


def prompts(rows=RAGGED, *, left=False):
    width = max(map(len, rows))
    ids, mask = torch.full((2, len(rows), width), 7)
    for i, row in enumerate(rows):
        at = slice(width - len(row), None) if left else slice(0, len(row))
        ids[i, at], mask[i] = torch.tensor(row), 0
        mask[i, at] = 1
    return {"prompt": ids, "prompt_mask": mask.bool()}


def weights(policy):
    return {k: p.detach().numpy() for k, p in policy.named_parameters()}


def test_logits_are_those_of_the_loops():
    policy, ids = small(), [3, 1, 4, 1, 5, 9, 2, 6]
    expected = oracle.logits(weights(policy), ids, num_heads=2)
    got = policy(torch.tensor([ids]))[0].detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-11)


def test_another_base_and_norm_reach_every_layer():
    config = TransformerConfig(
        vocab_size=V, width=12, num_heads=3, num_layers=2, rope_base=50.0, norm_eps=0.3
    )
    policy = TransformerPolicy.from_config(config, seed=1).double()
    expected = oracle.logits(weights(policy), RAGGED[2], num_heads=3, rope_base=50.0, norm_eps=0.3)
    np.testing.assert_allclose(policy(torch.tensor([RAGGED[2]]))[0].detach(), expected, atol=1e-12)


@pytest.mark.parametrize("left", [False, True])
def test_log_prob_does_not_see_pads_wherever_they_stand(left):
    policy, actions = small(), torch.tensor([[2, 0, 8], [6, 6, 1], [10, 3, 3]])
    got = policy.log_prob(prompts(left=left), actions).detach().numpy()
    for i, row in enumerate(RAGGED):
        expected = oracle.answer_logp(weights(policy), row, actions[i].tolist(), num_heads=2)
        np.testing.assert_allclose(got[i], expected, atol=1e-11)


def test_forward_with_a_mask_is_forward_without_the_pads():
    policy = small()
    ids = torch.tensor([[0, 3, 0, 1, 4, 0]])
    mask = torch.tensor([[0, 1, 0, 1, 1, 0]])
    logits = policy(ids, mask)
    torch.testing.assert_close(logits[:, [1, 3, 4]], policy(torch.tensor([[3, 1, 4]])))
    assert (logits[:, [0, 2, 5]] == 0).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_a_cached_step_is_the_full_forward_pass(shared, dtype, tolerance):
    """Ragged prompts shared by several rows, rows dropped on the way, more tokens than the first room."""
    policy, obs = small(dtype), prompts()
    rows = torch.arange(3).repeat_interleave(2)
    tokens = torch.randint(V, (6, FIRST + 9), generator=torch.Generator().manual_seed(2))
    expected = policy.distribution({k: x[rows] for k, x in obs.items()}, tokens).logits
    read = Decoder(policy.trunk, shared=shared).prefill(obs["prompt"], obs["prompt_mask"].sum(1))
    decoding, left = read.begin(rows, capacity=tokens.shape[1]), torch.arange(6)
    torch.testing.assert_close(read.logits[rows], expected[:, 0], atol=tolerance, rtol=0)
    for t in range(tokens.shape[1] - 1):
        if t in (3, FIRST + 2):
            kept = torch.tensor([0, 2, 3, 5] if t == 3 else [1, 2])
            decoding.keep(kept)
            left = left[kept]
        logits = decoding.decode(tokens[left, t])
        torch.testing.assert_close(logits, expected[left, t + 1], atol=tolerance, rtol=0)


def test_memory_of_answers_that_are_done_is_used_again():
    policy, obs = small(), prompts()
    decoder = Decoder(policy.trunk)
    read = decoder.prefill(obs["prompt"], obs["prompt_mask"].sum(1))
    first = read.begin(torch.arange(3), capacity=5)
    first.close()
    second = read.begin(torch.arange(2), capacity=5)
    assert np.shares_memory(second.own, first.own) and not decoder.scratch


def test_a_cache_with_positions_off_by_one_is_noticed():
    policy, obs = small(), prompts()
    tokens = torch.randint(V, (3, 4), generator=torch.Generator().manual_seed(2))
    decoder = Decoder(policy.trunk)
    decoder.cos, decoder.sin = decoder.cos[1:].contiguous(), decoder.sin[1:].contiguous()
    decoding = decoder.prefill(obs["prompt"], obs["prompt_mask"].sum(1)).begin(
        torch.arange(3), capacity=4
    )
    wrong = (decoding.decode(tokens[:, 0]) - policy.distribution(obs, tokens).logits[:, 1]).abs()
    assert wrong.max() > 1e-3


def test_bfloat16_products_stay_near():
    policy, obs = small(torch.float32), prompts()
    tokens = torch.randint(V, (3, 6), generator=torch.Generator().manual_seed(2))
    expected = policy.distribution(obs, tokens).log_probs
    for shared in (True, False):
        decoder = Decoder(policy.trunk, dtype=torch.bfloat16, shared=shared)
        decoding = decoder.prefill(obs["prompt"], obs["prompt_mask"].sum(1)).begin(
            torch.arange(3), capacity=6
        )
        for t in range(5):
            got = decoding.decode(tokens[:, t]).log_softmax(-1)
            error = (got - expected[:, t + 1]).abs().max()
            assert 1e-4 < error < 0.3


def test_sample_tells_the_log_prob_of_what_it_drew():
    policy, obs = small(), prompts()
    rng = torch.Generator().manual_seed(0)
    actions, logp = policy.sample(obs, rng=rng, num_samples=5, max_new_tokens=12, eos_id=4)
    assert actions.shape == logp.shape and len(actions) == 15 and actions.shape[1] <= 12
    rows = torch.arange(3).repeat_interleave(5)
    scored = policy.log_prob({k: x[rows] for k, x in obs.items()}, actions)
    ended = (actions == 4).cumsum(1) - (actions == 4).long() > 0
    assert ended.any() and (logp[ended] == 0).all() and (actions[ended] == 0).all()
    torch.testing.assert_close(logp[~ended], scored.detach()[~ended])


def test_without_an_end_samples_fill_the_context():
    policy = small(context=9)
    actions, _ = policy.sample(prompts(), rng=np.random.default_rng(0))
    assert actions.shape == (3, 9 - 5)


def test_the_distribution_is_the_law_of_log_prob():
    policy, obs, actions = small(), prompts(), torch.tensor([[2, 0], [6, 1], [3, 3]])
    law = policy.distribution(obs, actions)
    torch.testing.assert_close(law.log_prob(actions), policy.log_prob(obs, actions))
    torch.testing.assert_close(law.entropy(), policy.entropy(obs, actions))
    torch.testing.assert_close(policy.distribution(obs).logits, law.logits[:, 0])
    hot = type(law)(law.logits / 2.0).log_prob(actions)
    torch.testing.assert_close(policy.log_prob(obs, actions, temperature=2.0), hot)


def test_chunked_log_probs_have_the_gradient_of_plain_ones():
    rng = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 6, generator=rng, dtype=torch.float64) for n in (9, 13))
    tokens, grad = torch.randint(13, (9,), generator=rng), torch.randn(9, generator=rng).double()
    found = []
    for large in (1 << 20, 13 * 4):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
        logp = token_logp(*leaves, tokens, temperature=0.7, large=large)
        found.append([logp, *torch.autograd.grad(logp, leaves, grad)])
    for plain, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, plain, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        token_entropy(hidden, weight, large=30), token_entropy(hidden, weight)
    )


class Living(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self):
        super().__init__()
        self.held, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr():
                self._born(x)
        return out

    def _born(self, x):
        key, size = x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()
        if key not in self.held:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.held[key] = self.held.get(key, 0) + 1
        weakref.finalize(x, self._died, key, size)

    def _died(self, key, size):
        self.held[key] -= 1
        if not self.held[key]:
            del self.held[key]
            self.now -= size


def test_a_large_vocabulary_never_has_a_table_of_logits():
    """150,000 tokens, 512 positions: the table alone would be 307 MB, its softmax and gradient as much again."""
    vocab, rows, steps = 150_000, 16, 32
    policy = TransformerPolicy(vocab, size=(16, 1, 1))
    obs, actions = {"prompt": torch.full((rows, 3), 5)}, torch.randint(vocab, (rows, steps))
    table = 4 * vocab * rows * steps
    with Living() as memory:
        policy.log_prob(obs, actions).mean().backward()
    assert memory.peak < 0.9 * table
    with Living() as plain:
        policy.distribution(obs, actions).log_prob(actions).mean().backward()
    assert plain.peak > 2 * table  # and the way by the distribution is what it costs


def test_the_critic_values_the_prefix_before_each_token():
    policy, obs = small(), prompts()
    critic = policy.with_value_head()
    actions = torch.tensor([[2, 0, 8], [6, 6, 1], [10, 3, 3]])
    assert (critic(obs, actions) == 0).all()
    torch.nn.init.ones_(critic.value.weight)
    values = critic({**obs, "tokens": actions})
    changed = actions.clone()
    changed[:, 1] = 9
    moved = critic(obs, changed) != values
    assert moved.tolist() == [[False, False, True]] * 3
    assert critic.trunk is not policy.trunk
    assert policy.with_value_head(share=True).trunk is policy.trunk
    with pytest.raises(InputError, match=r"needs obs\['tokens'\]"):
        critic(obs)


def test_a_batch_may_be_padded_and_joined_without_a_change():
    policy = small()
    rows = [prompts([row]) for row in RAGGED]
    parts = []
    for i, obs in enumerate(rows):
        actions = torch.full((1, 2 + i), 3 + i)
        batch = Batch(obs=obs, actions=actions, mask=torch.ones(1, 2 + i))
        parts.append(batch.replace(logp_old=policy.log_prob(obs, actions).detach()))
    whole = Batch.cat(parts)
    again = policy.log_prob(whole.obs, whole.actions).detach() * whole.mask
    torch.testing.assert_close(again, whole.logp_old)


def test_gradients_are_right():
    policy, obs = small(size=(4, 1, 1)), prompts([[1, 2], [3]])
    actions = torch.tensor([[2, 0], [6, 6]])
    weight = policy.trunk.blocks[0].qkv.weight
    (grad,) = torch.autograd.grad(policy.log_prob(obs, actions).sum(), weight)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            weight.add_(sign * 1e-5 * step)
            ends.append(policy.log_prob(obs, actions).sum())
            weight.sub_(sign * 1e-5 * step)
    torch.testing.assert_close(
        (ends[0] - ends[1]) / 2e-5, (grad * step).sum(), rtol=1e-6, atol=1e-9
    )


def test_presets_have_the_published_number_of_weights():
    for size, millions in (("nano", 0.33), ("tiny", 0.79), ("mini", 2.65), ("mid", 6.3)):
        policy = TransformerPolicy(24, size=size)
        assert sum(p.numel() for p in policy.parameters()) / 1e6 == pytest.approx(
            millions, rel=0.02
        )


def test_a_policy_can_be_built_again_and_its_file_shares_nothing():
    policy = small()
    again = TransformerPolicy.from_config(policy.config).double()
    again.load_state_dict(load(save(policy.state_dict())))
    ids = torch.tensor([RAGGED[2]])
    assert torch.equal(again(ids), policy(ids))
    assert set(dict(policy.named_parameters())) == set(policy.state_dict())


def test_wider_weights_bring_exact_rotations():
    single, double = small(torch.float32), small()
    with torch.no_grad():
        for a, b in zip(single.parameters(), double.parameters(), strict=True):
            b.copy_(a)
    ids = torch.arange(150)[None] % V
    torch.testing.assert_close(single.double()(ids), double(ids), atol=1e-12, rtol=0)


def test_llama_names_there_and_back():
    policy = small()
    config, tensors = to_llama(policy)
    again = from_llama(config, tensors)
    ids = torch.tensor([RAGGED[2]])
    assert torch.equal(again(ids), policy(ids)) and again.config == policy.config
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        from_llama(config, tensors)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_key_value_heads": 1}, "grouped keys"),
        ({"tie_word_embeddings": False}, "an output matrix of its own"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rotary positions 'llama3'"),
    ],
)
def test_another_kind_of_llama_is_refused(change, message):
    config, tensors = to_llama(small())
    with pytest.raises(InputError, match=message):
        from_llama(config | change, tensors)


@pytest.mark.filterwarnings("ignore")
def test_logits_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    policy = small(size=(24, 3, 4, 40))
    config, tensors = to_llama(policy)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).double()
    model.load_state_dict(tensors)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    with torch.no_grad():
        torch.testing.assert_close(
            policy(ids), model(ids).logits, atol=1e-5, rtol=0
        )  # its rotations are float32
    again = from_llama(model.config.to_dict(), model.state_dict())
    assert torch.equal(again(ids), policy(ids))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TransformerPolicy(V, size="nanno"), "Did you mean 'nano'"),
        (lambda: TransformerPolicy(V, size=(12, 2)), r"\(width, layers, heads\)"),
        (lambda: TransformerPolicy(V, size=(10, 2, 4)), "heads of 2.5 numbers"),
        (lambda: TransformerPolicy(0), "vocab_size must be at least 1"),
        (lambda: small(context=4)(torch.zeros(1, 5).long()), "have 5 tokens together, the context holds 4"),
        (lambda: small()(torch.tensor([[1, 2], [3, 11]])), "token id 11 at row 1, position 1"),
        (lambda: small().log_prob({"prompt": torch.zeros(2, 0)}, torch.zeros(2, 1).long()), "prompt 0 is empty"),
        (lambda: small().log_prob({"text": torch.zeros(2, 1)}, torch.zeros(2, 1).long()), "'prompt' .* is needed"),
        (lambda: small().log_prob(prompts(), torch.zeros(3, 1).long(), temperature=0.0), "Greedy"),
        (lambda: Decoder(small().to("meta").trunk, shared=True), "need weights on the cpu"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_shapes_that_do_not_fit_are_named():
    states = answer_states.__wrapped__  # past annotations
    with pytest.raises(ShapeError, match=r"\(2, 1\) and prompts \(3, 5\)"):
        states(small().trunk, prompts(), torch.zeros(2, 1).long())
    obs = {"prompt": torch.zeros(1, 2).long(), "prompt_mask": torch.ones(1, 3)}
    with pytest.raises(ShapeError, match=r"mask has shape \(1, 3\) and the ids \(1, 2\)"):
        states(small().trunk, obs, torch.zeros(1, 1).long())
