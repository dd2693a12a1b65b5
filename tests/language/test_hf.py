"""Models of transformers as policies: against transformers' own logits, our transformer, and each other."""

import copy

import numpy as np
import pytest
import torch

from dodona.errors import DataError, InputError, MissingDependencyError, ShapeError
from dodona.language import (
    HFEngine,
    HFPolicy,
    HFTokenizer,
    Sampling,
    TorchEngine,
    audit_rollout,
    generate,
    hf,
    score_tokens,
)
from dodona.language.rollouts import Engine
from dodona.policies import TransformerPolicy, to_llama

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'dodona[hf]'"
)

V, CONTEXT = 24, 40
COMMON = {
    "vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SHAPES = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**COMMON, tie_word_embeddings=True)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=V,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=CONTEXT,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )  # fmt: skip
    ),
}
# what stands between the output matrix and the logits: a number, a cap, a bias
HEADS = {
    "granite": lambda: transformers.GraniteForCausalLM(
        transformers.GraniteConfig(**COMMON, logits_scaling=4.0)
    ),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**COMMON, head_dim=4, final_logit_softcapping=3.0, sliding_window=4)
    ),
    "phi": lambda: transformers.PhiForCausalLM(
        transformers.PhiConfig(**COMMON | {"num_key_value_heads": 4})
    ),
}  # fmt: skip
PROMPTS = [[1, 3], [1, 4, 5, 6, 7, 8, 9], [7], [9, 9, 2, 11]]
OBS = {
    "prompt": torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8], [9, 0, 0, 2]]),
    "prompt_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1]]),
}
ANSWERS = torch.tensor([[1, 2, 3, 20], [4, 5, 6, 21], [7, 8, 9, 22]])
BARE = [[3, 4], [5, 6, 7, 8], [9, 2]]  # the prompts of OBS without their pads


def made(name, *, sharp=8.0):
    """A tiny model in float64, its law far from uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, name)))
        model = {**SHAPES, **HEADS}[name]().double().eval()
    with torch.no_grad():
        head = model.get_output_embeddings()
        head.weight.mul_(sharp)
        if head.bias is not None:
            head.bias.copy_(torch.linspace(-1, 1, V))
    return model


def rows_alone(model, temperature=1.0):
    """The law of every answer's tokens by transformers, each row without pads: [B, T, V]."""
    laws = []
    for prompt, answer in zip(BARE, ANSWERS.tolist(), strict=True):
        logits = model(torch.tensor([prompt + answer[:-1]]), use_cache=False).logits[0]
        laws.append(torch.log_softmax(logits[len(prompt) - 1 :] / temperature, -1))
    return torch.stack(laws)


def tokens(rollouts):
    return [r.token_ids.tolist() for r in rollouts]


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    return made(request.param)


@pytest.mark.parametrize("name", [*SHAPES, *HEADS])
def test_log_prob_is_the_log_softmax_of_transformers(name, monkeypatch):
    """Whatever pads stand where, for every kind of head, and in pieces too."""
    model = made(name)
    policy = HFPolicy(model)
    law = rows_alone(model, 0.7)
    expected = law.gather(-1, ANSWERS[..., None])[..., 0]
    for large in (hf.LARGE, 2 * V):
        monkeypatch.setattr(hf, "LARGE", large)
        got = policy.log_prob(OBS, ANSWERS, temperature=0.7)
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
        law = rows_alone(model)
        torch.testing.assert_close(policy.entropy(OBS, ANSWERS), -(law.exp() * law).sum(-1))
    torch.testing.assert_close(policy.distribution(OBS, ANSWERS).logits.log_softmax(-1), law)
    first = policy.distribution(OBS).logits.log_softmax(-1)
    torch.testing.assert_close(first, law[:, 0])


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi", "odd"])
def test_the_gradient_is_that_of_the_whole_table(name, monkeypatch):
    model = odd() if name == "odd" else made(name)
    policy = HFPolicy(model)
    assert policy._direct == (name != "odd")
    expected = rows_alone(model).gather(-1, ANSWERS[..., None]).sum()
    weights = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, weights)
    monkeypatch.setattr(hf, "LARGE", 2 * V)
    got = torch.autograd.grad(policy.log_prob(OBS, ANSWERS).sum(), weights)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)  # gemma's norms are float32


def odd():
    """A model whose logits no config explains."""

    class Odd(transformers.LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits + 0.1 * out.logits**2
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Odd(transformers.LlamaConfig(**COMMON, initializer_range=0.5)).double().eval()


def test_a_model_that_no_config_explains_is_asked_for_its_own_logits(monkeypatch):
    model = odd()
    policy = HFPolicy(model)
    law = rows_alone(model)
    for large in (hf.LARGE, V):
        monkeypatch.setattr(hf, "LARGE", large)
        expected = law.gather(-1, ANSWERS[..., None])[..., 0]
        torch.testing.assert_close(policy.log_prob(OBS, ANSWERS), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(policy.distribution(OBS, ANSWERS).logits.log_softmax(-1), law)
    assert audit_rollout(HFEngine(policy), policy, PROMPTS).max_abs < 1e-4
    with pytest.raises(InputError, match="Odd shows no hidden states"):
        policy.with_value_head()


def test_few_logits_are_held_at_once(monkeypatch):
    """12 tokens, room for 2 rows of logits: the output layer never sees more."""
    monkeypatch.setattr(hf, "LARGE", 2 * V)
    model, seen = made("phi"), []
    policy = HFPolicy(model)
    model.lm_head.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[:-1].numel()))  # fmt: skip
    policy.log_prob(OBS, ANSWERS).sum().backward()
    assert max(seen) == 2 and sum(seen) == 2 * ANSWERS.numel()


def test_logits_are_those_of_rows_without_pads(model):
    policy = HFPolicy(model)
    logits = policy(OBS["prompt"], OBS["prompt_mask"])
    for row, mask, prompt in zip(logits, OBS["prompt_mask"], BARE, strict=True):
        torch.testing.assert_close(row[mask.bool()], model(torch.tensor([prompt])).logits[0])
        assert (row[~mask.bool()] == 0).all()
    torch.testing.assert_close(policy(ANSWERS), model(ANSWERS).logits)


def test_pads_that_count_as_positions_would_be_noticed(model):
    """The bug that this is about: left pads given to the model as they are."""
    ids = torch.cat([OBS["prompt"], ANSWERS], 1)
    logits = model(ids).logits[:, 3:-1]
    wrong = torch.log_softmax(logits, -1).gather(-1, ANSWERS[..., None])[..., 0]
    right = HFPolicy(model).log_prob(OBS, ANSWERS)
    torch.testing.assert_close(wrong[1], right[1])
    assert (wrong[0] - right[0]).abs().max() > 1e-3


def test_greedy_answers_are_those_of_transformers(model):
    """Token by token until EOS, each prompt by itself."""
    engine = HFEngine(HFPolicy(model), eos_id=2)
    ours = engine.generate(
        PROMPTS, max_new_tokens=12, seed=0, sampling=Sampling(temperature=0.0)
    )  # fmt: skip
    for prompt, answer in zip(PROMPTS, tokens(ours), strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
        assert theirs[0, len(prompt) :].tolist() == answer


@pytest.mark.parametrize("name", [*SHAPES, "gemma2", "granite"])
def test_an_engine_draws_by_the_law_it_tells(name):
    """Every row alone gives what all give together, and scoring finds the same numbers: gemma2 forgets behind 4 tokens."""
    model = made(name)
    # its own attention has no float64: of a row of pads it makes NaN
    policy = HFPolicy(model.float() if name == "gemma2" else model)
    engine = HFEngine(policy, eos_id=2, version=3)
    assert isinstance(engine, Engine)
    options = {"num_samples": 12, "max_new_tokens": 10, "seed": 5}
    together = engine.generate(PROMPTS, **options)
    scored = score_tokens(policy, together).numpy()
    for r, row in zip(together, scored, strict=True):
        np.testing.assert_allclose(
            r.logp, row[: len(r.logp)], atol=1e-4 if name == "gemma2" else 1e-6
        )
    alone = [
        r
        for place, prompt in enumerate(PROMPTS)
        for r in engine.generate([prompt], prompt_index=[place], **options)
    ]
    assert tokens(alone) == tokens(together)
    assert len({tuple(t) for t in tokens(together)}) > 20
    assert {r.finish for r in together} == {"eos", "length"}
    assert all((r.version == 3).all() for r in together)


def ours_and_theirs():
    own = TransformerPolicy(V, size=(24, 2, 2), context=CONTEXT, seed=0).double()
    with torch.no_grad():
        own.trunk.embedding.weight.mul_(20.0)
    config, tensors = to_llama(own)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).double()
    model.load_state_dict(tensors)
    return own, HFPolicy(model)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7, top_p=0.9), Sampling(top_k=3), Sampling(temperature=0.0)],
)  # fmt: skip
def test_both_engines_draw_the_same_tokens(sampling):
    """One law, one set of random numbers; more rows than one thread writes, some of them cut and continued."""
    own, policy = ours_and_theirs()
    torch.testing.assert_close(
        policy.log_prob(OBS, ANSWERS), own.log_prob(OBS, ANSWERS), atol=1e-5, rtol=0
    )
    a, b = HFEngine(policy, eos_id=2), TorchEngine(own, eos_id=2)
    options = {"num_samples": 20, "seed": 1, "sampling": sampling}
    whole = b.generate(PROMPTS, max_new_tokens=12, **options)
    theirs = a.generate(PROMPTS, max_new_tokens=12, **options)
    assert tokens(theirs) == tokens(whole)
    for x, y in zip(theirs, whole, strict=True):
        np.testing.assert_allclose(x.logp, y.logp, atol=1e-5)
        np.testing.assert_allclose(x.entropy, y.entropy, atol=1e-5)
    begun = a.generate(PROMPTS, max_new_tokens=5, **options)
    cut = [r for r in begun if r.finish == "length"]
    resumed = a.generate([], max_new_tokens=7, seed=9, sampling=sampling, resume=cut)
    expected = {(r.prompt_index, r.sample_index): r.token_ids.tolist() for r in whole}
    assert len(resumed) > 10
    assert all(r.token_ids.tolist() == expected[r.prompt_index, r.sample_index] for r in resumed)


def test_an_engine_of_another_arithmetic_is_refused():
    """bfloat16 of a sharp law is another law; nothing but the audit shows it."""
    policy = HFPolicy(made("llama", sharp=20.0).float())
    assert audit_rollout(HFEngine(policy), policy, PROMPTS, limit=2e-3).max_abs < 1e-4
    with pytest.raises(InputError, match=r"differ by .* nats a token .* the limit is 0.002"):
        audit_rollout(HFEngine(policy, dtype=torch.bfloat16), policy, PROMPTS, limit=2e-3)
    low = HFEngine(policy, dtype=torch.bfloat16).policy.model.model
    assert (
        low.norm.weight.dtype == torch.bfloat16 and low.rotary_emb.inv_freq.dtype == torch.float32
    )


def test_an_engine_stays_as_it_was_until_it_is_synced():
    policy, other = HFPolicy(made("qwen2")), HFPolicy(made("qwen2", sharp=3.0))
    engine = HFEngine(policy)
    options = {"num_samples": 6, "max_new_tokens": 8, "seed": 0}
    before = tokens(engine.generate(PROMPTS, **options))
    policy.load_state_dict(other.state_dict())
    assert tokens(engine.generate(PROMPTS, **options)) == before
    engine.sync(policy.named_parameters(), version=4)
    after = engine.generate(PROMPTS, **options)
    assert tokens(after) == tokens(HFEngine(other).generate(PROMPTS, **options)) != before
    assert all((r.version == 4).all() for r in after)
    named = dict(policy.named_parameters())
    named.popitem()
    with pytest.raises(InputError, match="1 weights are missing"):
        engine.sync(named.items(), version=5)
    assert engine.version == 4


def test_samples_are_scored_as_they_were_drawn(model):
    policy = HFPolicy(model)
    drawn, logp = policy.sample(
        OBS, rng=np.random.default_rng(0), num_samples=8, max_new_tokens=6, eos_id=2
    )
    assert drawn.shape == logp.shape == (24, 6)
    behind = torch.cumsum(drawn == 2, 1) - (drawn == 2).long() > 0
    assert (drawn[behind] == 0).all() and (logp[behind] == 0).all() and behind.any()
    many = {k: x.repeat_interleave(8, 0) for k, x in OBS.items()}
    torch.testing.assert_close(policy.log_prob(many, drawn)[~behind], logp[~behind])
    again, _ = policy.sample(OBS, rng=np.random.default_rng(0), num_samples=8, max_new_tokens=6, eos_id=2)  # fmt: skip
    assert torch.equal(again, drawn)
    longest, _ = policy.sample(OBS, rng=torch.Generator().manual_seed(0))
    assert longest.shape == (3, CONTEXT - 4)


def test_training_mode_does_not_make_the_law_random():
    """GPT-2 comes with dropout 0.1."""
    policy = HFPolicy(made("gpt2"))
    still = policy.log_prob(OBS, ANSWERS)
    assert torch.equal(policy.train().log_prob(OBS, ANSWERS), still)
    assert (
        policy.model.config.resid_pdrop == 0.1
    )  # the config is the checkpoint's, and saved as it was


@pytest.mark.parametrize("name", SHAPES)
def test_a_checkpoint_comes_back_as_it_was(name, tmp_path):
    policy = HFPolicy(made(name))
    policy.save(tmp_path)
    assert not list(tmp_path.glob("*.bin")) and list(tmp_path.glob("*.safetensors"))
    back = HFPolicy.load(tmp_path, dtype=torch.float64)
    assert torch.equal(back.log_prob(OBS, ANSWERS), policy.log_prob(OBS, ANSWERS))
    assert back.config == policy.config
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    torch.testing.assert_close(theirs(ANSWERS).logits, policy(ANSWERS))
    assert next(HFPolicy.load(tmp_path).parameters()).dtype == torch.float32
    assert HFPolicy.load(tmp_path, context=9).config.context == 9


def test_a_critic_sees_the_prefix_alone(model):
    policy = HFPolicy(model)
    critic = policy.with_value_head()
    assert (critic(OBS, ANSWERS) == 0).all()
    with torch.no_grad():
        critic.value.weight.copy_(torch.linspace(-1, 1, 16)[None])
    values = critic({**OBS, "tokens": ANSWERS})
    changed = ANSWERS.clone()
    changed[:, 2] = 19
    other = critic(OBS, changed)
    assert torch.equal(values[:, :3], other[:, :3]) and (values[:, 3] != other[:, 3]).all()
    alone = critic({"prompt": torch.tensor([BARE[0]])}, ANSWERS[:1])
    torch.testing.assert_close(alone, values[:1])
    shared = policy.with_value_head(share=True)
    assert shared.trunk is model.base_model and critic.trunk is not model.base_model
    with pytest.raises(InputError, match="needs obs\\['tokens'\\]"):
        critic(OBS)


def test_what_a_policy_refuses(tmp_path, monkeypatch):
    policy = HFPolicy(made("llama"))
    with pytest.raises(InputError, match="token id 24 at row 1, position 4 is outside the vocabulary: ids must be in 0..23"):  # fmt: skip
        policy.log_prob(OBS, torch.tensor([[1, 1], [24, 1], [1, 1]]))
    with pytest.raises(InputError, match="have 42 tokens together, the model's context is 40"):
        policy.log_prob({"prompt": torch.ones(1, 30, dtype=torch.long)}, torch.ones(1, 12, dtype=torch.long))  # fmt: skip
    with pytest.raises(InputError, match="rows have 41 tokens, the model's context is 40"):
        policy(torch.ones(1, 41, dtype=torch.long))
    with pytest.raises(InputError, match="prompt 1 is empty"):
        policy.log_prob({**OBS, "prompt_mask": torch.tensor([[1] * 4, [0] * 4, [1] * 4])}, ANSWERS)
    with pytest.raises(ShapeError, match=r"actions have shape \(2, 4\) and prompts \(3, 4\)"):
        hf.joined(OBS, ANSWERS[:2], CONTEXT)
    with pytest.raises((ShapeError, TypeError)):  # in tests the annotation speaks first
        policy(OBS["prompt"], OBS["prompt_mask"][:, :3])
    with pytest.raises(InputError, match=r"temperature must be in \(0, inf\), got 0"):
        policy.log_prob(OBS, ANSWERS, temperature=0.0)
    with pytest.raises(InputError, match="prompt 1 has 7 tokens and max_new_tokens=34 may follow, the context holds 40"):  # fmt: skip
        HFEngine(policy).generate(PROMPTS, max_new_tokens=34, seed=0)
    with pytest.raises(InputError, match="token id 99 at row 0, position 1 is outside"):
        HFEngine(policy).generate([[1, 99]], max_new_tokens=3, seed=0)
    with pytest.raises(InputError, match="this model has no adapters"):
        policy.save(tmp_path, adapters=True)


def test_where_checkpoints_are_not_found(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="org/model is no folder: .* nothing is downloaded"):
        HFPolicy.load("org/model")
    with pytest.raises(DataError, match="has no config.json"):
        HFPolicy.load(tmp_path)
    made("llama").config.save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no \*.safetensors. Weights are read from safetensors"):  # fmt: skip
        HFPolicy.load(tmp_path)
    made("llama").save_pretrained(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingDependencyError, match="lora needs peft, .* pip install peft"):
        HFPolicy.load(tmp_path, lora=2)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dodona\[hf\]'"):
        HFPolicy.load(tmp_path)


def test_a_model_that_keeps_nothing_can_not_be_continued(monkeypatch):
    class Forgetful(transformers.LlamaForCausalLM):
        def forward(self, *args, use_cache=None, **kwargs):
            return super().forward(*args, use_cache=False, **kwargs)

    policy = HFPolicy(Forgetful(transformers.LlamaConfig(**COMMON)))
    with pytest.raises(InputError, match="Forgetful keeps no keys and values"):
        HFEngine(policy).generate(PROMPTS, max_new_tokens=3, seed=0)


@pytest.mark.filterwarnings("default::FutureWarning")  # peft asks transformers by an old name
def test_adapters_train_alone_and_are_added_when_saved(tmp_path):
    """LoRA begins as nothing; after a step the merged checkpoint and the adapters' folder mean the same law."""
    pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    made("qwen2").save_pretrained(tmp_path / "base")
    load = lambda **given: HFPolicy.load(tmp_path / "base", dtype=torch.float64, **given)  # noqa: E731
    base, policy = load(), load(lora=2, seed=3)
    assert torch.equal(policy.log_prob(OBS, ANSWERS), base.log_prob(OBS, ANSWERS))
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n for n in trained)
    same = load(lora=2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), same.parameters(), strict=True))  # fmt: skip
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (-policy.log_prob(OBS, ANSWERS).mean()).backward()
        optimizer.step()
    now = policy.log_prob(OBS, ANSWERS)
    assert (now - base.log_prob(OBS, ANSWERS)).mean() > 0.02
    engine = HFEngine(same)
    engine.sync(policy.named_parameters(), version=1)
    assert audit_rollout(engine, policy, PROMPTS).max_abs < 1e-10
    policy.save(tmp_path / "merged")
    policy.save(tmp_path / "adapters", adapters=True)
    merged = HFPolicy.load(tmp_path / "merged", dtype=torch.float64)
    torch.testing.assert_close(merged.log_prob(OBS, ANSWERS), now)
    torch.testing.assert_close(policy.log_prob(OBS, ANSWERS), now)  # saving changed nothing
    again = load(lora=tmp_path / "adapters")
    torch.testing.assert_close(again.log_prob(OBS, ANSWERS), now)
    assert {n for n, p in again.named_parameters() if p.requires_grad} == trained


# tokenizers -----------------------------------------------------------------------------------------

TEXT = "naïve 3 + 4 = 7, déjà vu \n  two  spaces → 日本語 ok"


def byte_level():
    """Bytes as symbols and some merges, as GPT-2, Qwen and Llama 3 have them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    found.train_from_iterator([TEXT, "the cat that sat on the mat"], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="<pad>", eos_token="<eos>"
    )


def byte_fallback():
    """U+2581 for spaces, and bytes written out where no symbol is known, as Llama 2 and Gemma have them."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    symbols = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz0123456789+=,", "th"]  # fmt: skip
    found = Tokenizer(
        models.BPE(
            {s: i for i, s in enumerate(symbols)},
            [("t", "h")],
            unk_token="<unk>",
            byte_fallback=True,
        )  # fmt: skip
    )
    found.normalizer = normalizers.Replace(" ", "▁")
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_text_is_the_bytes_of_its_tokens(make, tmp_path):
    theirs = make()
    tokenizer = HFTokenizer(theirs, vocab_size=400)
    ids = tokenizer.encode(TEXT)
    assert b"".join(tokenizer.vocab_bytes[i] for i in ids) == TEXT.encode()
    assert tokenizer.decode(ids) == TEXT == theirs.decode(ids)
    assert ids == theirs.encode(TEXT, add_special_tokens=False) and max(ids) > 3
    assert len(tokenizer) == len(tokenizer.vocab_bytes) == 400 and tokenizer.vocab_bytes[399] == b""
    assert tokenizer.decode([*ids, tokenizer.eos_id, 399]) == TEXT
    assert tokenizer.encode("a", eos=True)[-1] == tokenizer.eos_id
    tokenizer.save(tmp_path)
    transformers.LlamaConfig(**COMMON).save_pretrained(tmp_path)
    back = HFTokenizer.load(tmp_path)
    assert back.encode(TEXT) == ids and back.vocab_bytes == tokenizer.vocab_bytes[: len(back)]


def test_added_tokens_are_text_and_special_ones_are_not():
    theirs = byte_level()
    theirs.add_tokens(["<think>"])
    theirs.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer = HFTokenizer(theirs)
    ids = tokenizer.encode("a <think>b<|turn|>c")
    assert tokenizer.decode(ids) == "a <think>bc"


def test_a_prompt_is_the_turn_of_the_template_or_bos_and_text():
    plain = HFTokenizer(byte_fallback())
    assert plain.prompt("abc") == plain.encode("abc", bos=True)
    bare = HFTokenizer(byte_level())
    assert bare.bos_id is None and bare.pad_id == 0 and bare.prompt("abc") == bare.encode("abc")
    theirs = byte_level()
    theirs.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = HFTokenizer(theirs)
    assert chat.decode(chat.prompt("3+4")) == "[user]3+4[assistant]"


def test_answers_are_told_as_text_and_end_at_their_stops():
    policy = HFPolicy(made("llama"))
    with pytest.raises(InputError, match="the tokenizer has 300 ids, the model 24 rows"):
        HFEngine(policy, tokenizer=HFTokenizer(byte_level()))
    config = transformers.LlamaConfig(**COMMON | {"vocab_size": 320})
    policy = HFPolicy(transformers.LlamaForCausalLM(config).double())
    tokenizer = HFTokenizer(byte_level(), vocab_size=320)
    engine = HFEngine(policy, tokenizer=tokenizer)
    rollouts = engine.generate(
        [tokenizer.encode("the")], num_samples=40, max_new_tokens=20, seed=0, sampling=Sampling(stop=("a", "t"))
    )  # fmt: skip
    stopped = [r for r in rollouts if r.finish == "stop"]
    assert stopped and not any("a" in r.text or "t" in r.text for r in rollouts)
    whole = [tokenizer.decode(r.token_ids.tolist()) for r in stopped]
    assert all(w.startswith(r.text) and set(w[len(r.text) :]) & set("at") for w, r in zip(whole, stopped, strict=True))  # fmt: skip


def test_what_a_tokenizer_refuses(tmp_path):
    with pytest.raises(InputError, match="the tokenizer has ids up to 299, the model 24 rows"):
        HFTokenizer(byte_level(), vocab_size=24)
    tokenizer = HFTokenizer(byte_level())
    with pytest.raises(InputError, match="bos=True, and this tokenizer has no BOS token"):
        tokenizer.encode("a", bos=True)
    with pytest.raises(InputError, match="id 300 at position 1 is none of 0..299"):
        tokenizer.decode([5, 300])
    with pytest.raises(DataError, match="is no folder"):
        HFTokenizer.load(tmp_path / "absent")


def test_generate_takes_the_decoder_of_a_copy():
    """An engine's draws are those of generate on the policy itself."""
    from dodona.language.hf_engine import HFDecoder

    policy = HFPolicy(made("gpt2"))
    options = {"num_samples": 3, "max_new_tokens": 6, "seed": 2}
    direct = generate(policy, PROMPTS, decoder=HFDecoder(policy), **options)
    assert tokens(direct) == tokens(HFEngine(copy.deepcopy(policy)).generate(PROMPTS, **options))
