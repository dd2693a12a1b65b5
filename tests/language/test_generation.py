"""Answers against teacher forcing and against themselves drawn another way; their frequencies: checks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.language import (
    CharTokenizer,
    Sampling,
    draw,
    exact_pass_rate,
    exact_pass_rates,
    generate,
    rollouts_to_batch,
    sampling_logp,
    score_tokens,
)
from dodona.language._writing import BLOCK
from dodona.language.generation import forced
from dodona.language.sampling import _draw_by_torch
from dodona.oracles import transformer as oracle
from dodona.policies import TransformerPolicy
from dodona.policies._decoding import Decoder

TOKENIZER = CharTokenizer("ab12+=")
V = len(TOKENIZER)
PROMPTS = [[1, *TOKENIZER.encode(text)] for text in ("a=", "1", "ab+2=", "2+")]


def small(dtype=torch.float64, *, seed=0, context=80, sharp=30.0):
    policy = TransformerPolicy(V, size=(12, 2, 2), context=context, seed=seed).to(dtype)
    with torch.no_grad():
        policy.trunk.embedding.weight.mul_(sharp)
    return policy


def drawn(policy, prompts=PROMPTS, **options):
    options = {"num_samples": 5, "max_new_tokens": 12, "seed": 3, "tokenizer": TOKENIZER} | options
    return generate(policy, prompts, **options)


def same(a, b, *, atol=1e-12):
    """Two rollouts that are one."""
    assert (a.prompt_index, a.sample_index, a.seed) == (b.prompt_index, b.sample_index, b.seed)
    assert (a.finish, a.stop_id, a.text) == (b.finish, b.stop_id, b.text)
    for name in ("prompt_ids", "token_ids", "version"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("logp", "logp_raw", "entropy"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_what_generation_tells_is_what_scoring_finds(dtype, tolerance):
    policy = small(dtype)
    rollouts = drawn(policy, sampling=Sampling(temperature=0.7))
    warm, raw = (
        score_tokens(policy, rollouts, temperature=t, max_tokens=40).numpy() for t in (0.7, 1.0)
    )
    for i, rollout in enumerate(rollouts):
        n = len(rollout.token_ids)
        np.testing.assert_allclose(rollout.logp, warm[i, :n], atol=tolerance)
        np.testing.assert_allclose(rollout.logp_raw, raw[i, :n], atol=tolerance)
        assert (raw[i, n:] == 0).all()
        obs = {"prompt": torch.tensor([rollout.prompt_ids.tolist()])}
        actions = torch.from_numpy(rollout.token_ids.astype(np.int64))[None]
        entropy = policy.entropy(obs, actions)[0].numpy()
        np.testing.assert_allclose(rollout.entropy, entropy, atol=tolerance)


def test_scoring_is_that_of_the_loops():
    policy = small()
    rollouts = drawn(policy, num_samples=2)
    weights = {k: p.detach().numpy() for k, p in policy.named_parameters()}
    scored = score_tokens(policy, rollouts).numpy()
    for rollout, row in zip(rollouts, scored, strict=True):
        prompt, tokens = rollout.prompt_ids.tolist(), rollout.token_ids.tolist()
        expected = oracle.answer_logp(weights, prompt, tokens, num_heads=2)
        np.testing.assert_allclose(row[: len(tokens)], expected, atol=1e-10)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_answers_do_not_depend_on_the_batch(size):
    policy = small()
    prompts = [[1, 3 + i % 6, 3 + i % 5] for i in range(64)]
    whole = drawn(policy, prompts, num_samples=2, max_new_tokens=6)
    assert len(whole) > 4 * BLOCK  # parts of it are written by threads of their own
    order = np.random.default_rng(0).permutation(64)
    found = {}
    for begin in range(0, 64, size):
        part = order[begin : begin + size]
        for r in drawn(
            policy, [prompts[i] for i in part], num_samples=2, max_new_tokens=6, prompt_index=part
        ):
            found[r.prompt_index, r.sample_index] = r
    for rollout in whole:
        same(rollout, found[rollout.prompt_index, rollout.sample_index])


@pytest.mark.filterwarnings("ignore:stop .* can not spell it")
@pytest.mark.parametrize("cuts", [(1, 11), (5, 7), (2, 3, 7), (1,) * 12])
def test_answers_do_not_depend_on_where_they_are_cut(cuts):
    """Stops and repeats that straddle a cut are found as well."""
    policy = small()
    law = Sampling(stop=("aa", "1+"), stop_ids=(TOKENIZER.encode("=")[0],), stop_repeats=True)
    whole = drawn(policy, sampling=law, eos_id=2)
    done, open_ = [], None
    for cut in cuts:
        given = dict(max_new_tokens=cut, sampling=law)
        if open_ is None:
            rollouts = drawn(policy, **given)
        else:
            rollouts = drawn(policy, [], resume=open_, seed=99, **given)
        done += [r for r in rollouts if r.finish != "length"]
        open_ = [r for r in rollouts if r.finish == "length"]
    found = {(r.prompt_index, r.sample_index): r for r in done + open_}
    for rollout in whole:
        same(rollout, found[rollout.prompt_index, rollout.sample_index])


def test_resumed_tokens_keep_the_version_that_drew_them():
    policy = small()
    first = [r for r in drawn(policy, max_new_tokens=2) if r.finish == "length"]
    again = drawn(policy, [], resume=first, max_new_tokens=3, version=7)
    for old, new in zip(first, again, strict=True):
        assert new.version.tolist() == [0, 0] + [7] * (len(new.token_ids) - 2)
        np.testing.assert_array_equal(new.logp[:2], old.logp)


def test_rows_that_move_together_give_the_same_answers():
    """Dense keys and values, which are moved when fewer than three quarters of the rows are left."""
    policy = small()
    dense = drawn(policy, num_samples=9, decoder=Decoder(policy.trunk, shared=False))
    for a, b in zip(dense, drawn(policy, num_samples=9), strict=True):
        same(a, b, atol=1e-10)
    assert {len(r.token_ids) for r in dense} >= {2, 4, 12}


def test_another_seed_or_sample_or_prompt_number_draws_other_tokens():
    policy = small()
    base = [r.token_ids.tolist() for r in drawn(policy, [PROMPTS[0]], num_samples=8)]
    other = [r.token_ids.tolist() for r in drawn(policy, [PROMPTS[0]], num_samples=8, seed=4)]
    moved = drawn(policy, [PROMPTS[0]], num_samples=8, prompt_index=[5])
    assert base != other and base != [r.token_ids.tolist() for r in moved]
    assert len({tuple(x) for x in base}) > 4


LAWS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 2.0]),
        "top_k": st.sampled_from([0, 1, 3, 50]),
        "top_p": st.sampled_from([1.0, 0.9, 0.5, 0.01]),
        "min_p": st.sampled_from([0.0, 0.05, 0.6]),
    }
)


@given(LAWS, st.lists(st.sampled_from([-3.0, -0.5, 0.0, 0.7, 1.1, 4.0]), min_size=2, max_size=9))
def test_the_law_that_draws_is_the_one_that_loops_cut_out(law, row):
    expected = oracle.sampling_law(row, **law)
    got = sampling_logp(torch.tensor([row]), Sampling(**law)).exp()[0].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(LAWS)
def test_evenly_spread_uniforms_draw_every_token_as_often_as_its_probability(law):
    row, N = [0.3, -1.0, -np.inf, 2.0, 0.3, 1.7], 2000
    uniforms = (np.arange(N) + 0.5) / N
    got = draw(torch.tensor([row]).expand(N, -1), uniforms, Sampling(**law))
    expected = oracle.sampling_law(row, **law)
    np.testing.assert_allclose(np.bincount(got.tokens, minlength=6) / N, expected, atol=1.01 / N)
    np.testing.assert_allclose(np.exp(got.logp), expected[got.tokens], atol=1e-7)
    plain = oracle.sampling_law(row)
    np.testing.assert_allclose(np.exp(got.logp_raw), plain[got.tokens], atol=1e-7)
    entropy = -sum(p * np.log(p) for p in plain if p > 0)
    np.testing.assert_allclose(got.entropy, entropy, atol=1e-6)


@given(st.integers(0, 2**32), st.sampled_from([0.4, 1.0, 3.0]))
def test_the_compiled_draw_is_that_of_torch(seed, temperature):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=5.0, size=(20, 7)))
    logits[rng.random((20, 7)) < 0.2] = -torch.inf
    logits[:, 0] = 0.0
    law, uniforms = Sampling(temperature=temperature), rng.random(20)
    uniforms[:2] = 0.0, 1.0 - 1e-9
    a, b = draw(logits, uniforms, law), _draw_by_torch(logits, uniforms, law)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    for x, y in zip(a[1:], b[1:], strict=True):
        np.testing.assert_allclose(x, y, atol=1e-10)


def test_greedy_takes_the_likeliest_and_tells_its_own_log_prob():
    policy = small()
    rollouts = drawn(policy, num_samples=2, sampling=Sampling(temperature=0.0))
    for rollout in rollouts:
        obs = {"prompt": torch.tensor([rollout.prompt_ids.tolist()])}
        law = policy.distribution(obs, torch.from_numpy(rollout.token_ids.astype(np.int64))[None])
        assert law.mode()[0].tolist() == rollout.token_ids.tolist()
        np.testing.assert_array_equal(rollout.logp, rollout.logp_raw)
    with pytest.raises(InputError, match="temperature=0 gives one answer"):
        Sampling(temperature=0.0).check_trainable()
    with pytest.warns(UserWarning, match=r"top_p=0.9, top_k=0"):
        Sampling(top_p=0.9).check_trainable()
    Sampling().check_trainable()


@pytest.mark.parametrize("include", [False, True])
def test_stops_are_those_of_the_text_after_every_token(include):
    """Multi-symbol tokens, so that stops straddle and end inside them; the naive search is str.find."""

    class Pairs:
        """Every pair of two letters and the letters themselves as tokens, EOS last."""

        vocab_bytes = (b"a", b"b", b"aa", b"ab", b"ba", b"bb", b"", b"", b"")
        eos_id = 8

    stops, policy = ("abb", "aaaa", "ba"), small()
    law = Sampling(stop=stops, include_stop=include)
    rollouts = drawn(policy, num_samples=40, max_new_tokens=9, tokenizer=Pairs(), sampling=law)
    reasons = set()
    for rollout in rollouts:
        text, finish, which, num_read = "", "length", None, 0
        for token in rollout.token_ids:
            num_read += 1
            if token == 8:
                finish = "eos"
                break
            text += Pairs.vocab_bytes[token].decode()
            ends = [(text.find(s) + len(s), -len(s), i) for i, s in enumerate(stops) if s in text]
            if ends:
                end, size, which = min(ends)
                text, finish = text[: end if include else end + size], "stop"
                break
        assert num_read == len(rollout.token_ids)
        assert (rollout.text, rollout.finish, rollout.stop_id) == (text, finish, which)
        reasons.add((finish, which))
    assert len(reasons) >= 4


def test_tokens_that_stop_come_after_strings_in_numbering():
    law = Sampling(stop=("zz",), stop_ids=(4, 3))
    rollouts = drawn(small(), sampling=law, num_samples=20)
    for rollout in rollouts:
        if rollout.finish == "stop":
            assert rollout.stop_id == {4: 1, 3: 2}[int(rollout.token_ids[-1])]
            assert rollout.text == TOKENIZER.decode(rollout.token_ids[:-1].tolist())
    assert {r.stop_id for r in rollouts} >= {1, 2}


def test_an_answer_that_repeats_itself_ends():
    policy = small(sharp=400.0)  # nearly deterministic, so it runs in circles
    law = Sampling(stop_repeats=True)
    rollouts = drawn(policy, max_new_tokens=60, sampling=law, num_samples=3)
    cycles = [r for r in rollouts if r.finish == "repeat"]
    assert cycles and all(32 <= len(r.token_ids) < 60 for r in cycles)


def test_the_exact_pass_rate_is_the_sum_over_all_texts():
    policy = small()

    class Sums:
        """Right: two letters that differ."""

        def answers(self, item):
            return ["ab", "ba"]

    class Item:
        prompt = "1+"

    weights = {k: p.detach().numpy() for k, p in policy.named_parameters()}
    prompt = [1, *TOKENIZER.encode("1+")]
    expected = sum(
        np.exp(oracle.answer_logp(weights, prompt, [*TOKENIZER.encode(x), 2], num_heads=2).sum())
        for x in ("ab", "ba")
    )
    rate = exact_pass_rate(policy, Sums(), Item(), tokenizer=TOKENIZER)
    assert rate == pytest.approx(expected, rel=1e-12)
    N = 20_000
    sampled = drawn(policy, [prompt], num_samples=N, max_new_tokens=4)
    right = np.mean([r.finish == "eos" and r.text in ("ab", "ba") for r in sampled])
    assert abs(right - rate) < 4 * np.sqrt(rate * (1 - rate) / N)
    rates = exact_pass_rates(policy, Sums(), [Item(), Item()], tokenizer=TOKENIZER, max_tokens=9)
    np.testing.assert_allclose(rates, rate)


def test_a_batch_is_the_rollouts_in_rows():
    rollouts = drawn(small(), num_samples=3, prompt_index=[9, 4, 6, 7])
    scores = [float(i) for i in range(len(rollouts))]
    batch = rollouts_to_batch(rollouts, scores, pad_id=0).validate()
    assert batch.group.tolist() == [3] * 3 + [0] * 3 + [1] * 3 + [2] * 3
    np.testing.assert_allclose(batch.total_rewards(), scores)
    for i, rollout in enumerate(rollouts):
        n, last = len(rollout.token_ids), batch.mask[i].sum() - 1
        assert batch.actions[i, :n].tolist() == rollout.token_ids.tolist() and n == last + 1
        assert (
            batch.obs["prompt"][i][batch.obs["prompt_mask"][i]].tolist()
            == rollout.prompt_ids.tolist()
        )
        assert batch.rewards[i, last] == scores[i]
        assert bool(batch.terminated[i, last]) == (rollout.finish == "eos")
        assert bool(batch.truncated[i, last]) == (rollout.finish == "length")
        np.testing.assert_allclose(batch.logp_old[i, :n], rollout.logp, atol=1e-6)
    assert batch.terminated.sum() + batch.truncated.sum() == len(rollouts)
    logp = small().log_prob(batch.obs, batch.actions).detach()
    torch.testing.assert_close((logp * batch.mask).float(), batch.logp_old, atol=1e-5, rtol=0)


def test_errors_count_nowhere_and_steps_are_rewards_of_their_tokens():
    one = forced([1], [5, 6, 2])
    wrong = forced([1], [5, 6, 2, 2], 1)
    object.__setattr__(wrong, "finish", "error")
    batch = rollouts_to_batch(
        [one, wrong], pad_id=0, steps=[[(0, 0.5), (2, 1.0)], [(1, 1.0)]]
    ).validate()
    assert batch.mask.sum(1).tolist() == [3, 0]
    assert batch.rewards.tolist() == [[0.5, 0, 1.0, 0], [0] * 4]
    assert batch.reward_mask.tolist() == [[True, False, True, False], [False] * 4]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(prompts=[[1], []]), "prompt 1 is empty"),
        (dict(prompts=[[1], [1] * 75]), r"prompt 1 has 75 tokens .* context holds 80"),
        (dict(prompts=[[1, V]]), f"token id {V} at row 0, position 1"),
        (dict(num_samples=0), "num_samples must be at least 1"),
        (dict(max_new_tokens=0), "max_new_tokens must be at least 1"),
        (dict(seed=-1), "seed must be at least 0"),
        (dict(prompt_index=[0, 1, 1, 2]), "3 different numbers for 4 prompts"),
        (dict(tokenizer=None, sampling=Sampling(stop=("a",))), "needs a tokenizer"),
        (dict(resume=[forced([1], [3, 2])]), r"resume\[0\] has ended by 'eos'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        drawn(small(), **options)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(temperature=-1.0), r"temperature must be in \[0, inf\)"),
        (dict(top_p=0.0), r"top_p must be in \(0, 1\]"),
        (dict(top_k=-1), "top_k must be at least 0"),
        (dict(min_p=1.0), r"min_p must be in \[0, 1\)"),
        (dict(stop=("a", "")), "an empty text"),
    ],
)
def test_a_law_that_is_none_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Sampling(**options)


def test_a_stop_that_can_not_be_spelled_is_warned_of():
    with pytest.warns(UserWarning, match="has 4 bytes, and 3 tokens of at most 1"):
        drawn(small(), max_new_tokens=3, sampling=Sampling(stop=("abab",)))


@pytest.mark.parametrize("law", [Sampling(), Sampling(top_k=2)])
def test_logits_that_are_no_law_name_prompt_sample_and_position(law):
    policy = small()
    with torch.no_grad():
        policy.trunk.norm.weight[0] = torch.nan
    with pytest.raises(NonFiniteError, match="token 0 of prompt 0, sample 0"):
        drawn(policy, sampling=law)


def test_scores_that_are_not_theirs_are_refused():
    rollouts = [forced([1], [3, 2])]
    with pytest.raises(ShapeError, match="scores has 2 entries for 1 rollouts"):
        rollouts_to_batch(rollouts, [1.0, 2.0], pad_id=0)
    with pytest.raises(InputError, match="both given"):
        rollouts_to_batch(rollouts, [1.0], pad_id=0, steps=[[]])
    with pytest.raises(InputError, match="a step ends at token 2 after one at -1"):
        rollouts_to_batch(rollouts, pad_id=0, steps=[[(2, 1.0)]])
    for function in (lambda x: rollouts_to_batch(x, pad_id=0), lambda x: score_tokens(small(), x)):
        with pytest.raises(InputError, match="got no rollout"):
            function([])
