"""Any causal language model of Hugging Face as a policy over answers.

    policy = HFPolicy.load("checkpoints/qwen2.5-0.5b")           from a folder; lora=16 trains adapters alone
    policy.log_prob(obs, answers);  policy.save("trained")

Prompts and answers are moved together before the model sees them, as in TransformerPolicy, so positions are
counted without pads whatever the model makes of a mask. The logits of all tokens are never held together
where there are many: the hidden states are kept, and logits made for some rows at a time. What the model does
between hidden states and logits (a bias, a scale, a cap) is read from its config and compared with its own
logits when it is loaded; a model that does something else gets its own logits for some answers at a time.

Only safetensors are read, only from folders, and no code that comes with weights is run.
Dropout is switched off: a policy whose law is random has no log-probability.

Source: Wolf et al. 2020, arXiv:1910.03771 (transformers); Hu et al. 2022, arXiv:2106.09685 (LoRA).
Not here: drawing answers (hf_engine.py), text (hf_tokenizer.py); our own transformer (policies/transformer.py).
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dodona.core.inputs import check_count, check_range
from dodona.errors import InputError, MissingDependencyError, ShapeError
from dodona.language.hf_tokenizer import SAFE, checkpoint_folder, installed_transformers
from dodona.policies._draws import uniforms
from dodona.policies._token_logp import LARGE, token_logp
from dodona.policies.discrete import Categorical
from dodona.policies.transformer import Prompts, compacted_prompts

# names in configs of what stands between the output matrix and the logits, and how it acts
TIMES = ("logit_scale", "lm_head_multiplier")
DIVIDED = ("logits_scaling",)
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
UNLIMITED = 1 << 30  # tokens, of a model without positions
NEAR = {torch.float64: 1e-8, torch.float32: 1e-4}  # of the largest logit; half precision: 0.05

Measure = Callable[[Tensor, Tensor], Tensor]  # logits [N, V], tokens [N] -> [N]


@dataclass(frozen=True, kw_only=True)
class HFConfig:
    """What others ask of a model: vocab_size, logits per position; width of a hidden state; context, most tokens."""

    vocab_size: int
    width: int
    context: int


class HFPolicy(nn.Module):
    """Answers token by token by a model of transformers: log_prob, entropy, distribution, sample.

    Args:
        model: a ``...ForCausalLM``, or a PeftModel of one; kept, not copied.
        context: most tokens of prompt and answer; None: the model's own limit.
    Attributes: model; config, an HFConfig.
    Raises: InputError: a model without logits.
    Source: see the module.  Oracle: transformers' own log-softmax, TransformerPolicy on a Llama's weights (tests).
    Cost: one pass of the model; LARGE logits at a time, made twice where there are more.
    """

    def __init__(self, model: nn.Module, *, context: int | None = None):
        super().__init__()
        check_count(context=context)
        self.model = model.eval()
        _without_dropout(model)
        theirs: Any = self.causal_lm.config.get_text_config()
        self._times, self._cap = _between(theirs)
        self._direct, vocab_size = self._probe()
        limit: int = context or getattr(theirs, "max_position_embeddings", None) or UNLIMITED
        self.config = HFConfig(vocab_size=vocab_size, width=theirs.hidden_size, context=limit)

    @classmethod
    def load(
        cls, path: str | Path, *, lora: int | str | Path | Any = None, dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu", context: int | None = None, seed: int = 0,
    ) -> "HFPolicy":  # fmt: skip
        """The model of a checkpoint folder, ready to be trained.

        Args:
            path: with config.json and safetensors.
            lora: trains low-rank additions to all linear layers and keeps the rest: a rank (their scale is 2, alpha =
                2 rank), a peft.LoraConfig, or a folder of adapters that ``save(adapters=True)`` wrote. None: all
                weights are trained.
            dtype: of the weights. bfloat16 halves memory, and loses updates below a 256th of a weight.
            context: as the class.  seed: of fresh adapters.
        Raises:
            DataError: no such folder, no config.json, no safetensors.
            MissingDependencyError: transformers, or peft for lora, is not installed.
        """
        transformers = installed_transformers()
        folder = checkpoint_folder(path, "*.safetensors")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **SAFE
        )
        if lora is not None:
            model = _with_adapters(model, lora, seed)
        return cls(model.to(device), context=context)

    def decoder(self) -> Any:
        """What draws answers with this model's own cache, for language.generate."""
        from dodona.language.hf_engine import HFDecoder

        return HFDecoder(self)

    def save(self, path: str | Path, *, adapters: bool = False) -> None:
        """Write config and weights as safetensors, which ``load``, transformers and servers read.

        Args: adapters: the LoRA weights alone; else they are added to the weights they belong to.
        Raises: InputError: adapters of a model that has none.
        """
        adapted = self.causal_lm is not self.model
        if adapters and not adapted:
            raise InputError("this model has no adapters. Save it whole, or load it with lora=.")
        model: Any = self.model
        if adapted and not adapters:
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(str(path))

    def forward(
        self, ids: Int[Tensor, "B W"], mask: Shaped[Tensor, "B W"] | None = None
    ) -> Float[Tensor, "B W V"]:
        """The logits behind every position, nats up to a constant; 0 at pads.

        Args: mask: [B, W], 0 = a pad, anywhere; positions are counted without them. None: no pads.
        Raises: InputError: rows longer than the context, an id outside the vocabulary.  ShapeError: mask.
        """
        if mask is None:
            return self._whole_logits(ids)
        if mask.shape != ids.shape:
            raise ShapeError(f"mask has shape {tuple(mask.shape)}, ids {tuple(ids.shape)}: equal ones are expected.")  # fmt: skip
        order = (mask == 0).to(torch.int8).argsort(dim=1, stable=True)
        back = order.argsort(dim=1)[:, :, None]
        logits = self._whole_logits(ids.gather(1, order))
        return logits.gather(1, back.expand_as(logits)) * (mask != 0)[:, :, None]

    def log_prob(
        self, obs: Prompts, actions: Int[Tensor, "B T"], *, temperature: float = 1.0
    ) -> Float[Tensor, "B T"]:
        """log p of every token after the prompt and the tokens before it, nats, with gradient.

        Args, Raises: as TransformerPolicy.log_prob.
        """
        check_range("(0, inf)", "Greedy answers have no law to score.", temperature=temperature)
        matrix = self._matrix
        if matrix is None:
            return self._per_token(obs, actions, lambda z, y: _picked(z / temperature, y))
        hidden = self._states(*joined(obs, actions, self.config.context)).flatten(0, 1)
        logp = token_logp(
            hidden, matrix, actions.reshape(-1), temperature=temperature / self._times
        )
        return logp.view(actions.shape)

    @torch.no_grad()
    def entropy(self, obs: Prompts, actions: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Entropy of the law of every token, nats, without gradient.  Raises: as log_prob."""
        return self._per_token(obs, actions, _entropy)

    def distribution(self, obs: Prompts, actions: Int[Tensor, "B T"] | None = None) -> Categorical:
        """The law of each token after the ones before it, [B, T]; without actions that of the first, [B].

        Holds all B T V logits.  Raises: as log_prob.
        """
        given = obs["prompt"].new_zeros(len(obs["prompt"]), 1) if actions is None else actions
        ids, at = joined(obs, given, self.config.context)
        logits = self._logits(self._states(ids, at)) if self._direct else self._logits_at(ids, at)
        return Categorical(logits if actions is not None else logits[:, 0])

    @torch.no_grad()
    def sample(
        self, obs: Prompts, *, rng: Any, num_samples: int = 1, max_new_tokens: int | None = None,
        eos_id: int | None = None,
    ) -> tuple[Int[Tensor, "N T"], Float[Tensor, "N T"]]:  # fmt: skip
        """(answers, log p of each token), N = B num_samples; samples of a row are adjacent.

        Args, Raises: as TransformerPolicy.sample; max_new_tokens is needed where the model has no limit.
        """
        from dodona.language.generation import generate
        from dodona.language.hf_engine import HFDecoder
        from dodona.language.rollouts import padded

        ids, lengths = compacted_prompts(obs)
        if max_new_tokens is None:
            max_new_tokens = self.config.context - int(lengths.max())
        prompts = [row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
        rollouts = generate(
            self, prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, eos_id=eos_id,
            seed=int(uniforms((), rng=rng, device=torch.device("cpu")) * 2**53), decoder=HFDecoder(self),
        )  # fmt: skip
        tokens, _ = padded([r.token_ids for r in rollouts], 0, "int64")
        logp, _ = padded([r.logp for r in rollouts], 0, rollouts[0].logp.dtype)
        return torch.from_numpy(tokens).to(ids.device), torch.from_numpy(logp).to(ids.device)

    def with_value_head(self, *, share: bool = False) -> "HFCritic":
        """A critic with the trunk of this model: a copy of it, or (share) the very same, which both losses then train.

        Raises: InputError: a model whose hidden states are not found.
        """
        if not self._direct:
            raise InputError(f"{type(self.causal_lm).__name__} shows no hidden states that its logits are made of: a value head has nothing to stand on.")  # fmt: skip
        trunk = self.causal_lm.base_model
        return HFCritic(trunk if share else copy.deepcopy(trunk), self.config)

    @property
    def causal_lm(self) -> Any:
        """The ...ForCausalLM itself, with adapters inside it or none."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def _matrix(self) -> Tensor | None:
        """The output matrix, where logits are it times the hidden states and a number."""
        head = self.causal_lm.get_output_embeddings()
        plain = self._direct and type(head) is nn.Linear and head.bias is None and self._cap is None
        return head.weight if plain else None

    def _states(self, ids: Int[Tensor, "B W"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        return _gathered(_hidden(self.causal_lm.base_model, ids, self.config), at)

    def _logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        logits = _widened(self.causal_lm.get_output_embeddings()(hidden)) * self._times
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    def run(self, ids: Int[Tensor, "B W"], **given: Any) -> Any:
        """The model's own output for these ids.  Raises: InputError: an id outside the vocabulary."""
        with _known_ids(ids, self.config.vocab_size):
            return self.causal_lm(input_ids=ids, **given)

    def _whole_logits(self, ids: Int[Tensor, "B W"]) -> Float[Tensor, "B W V"]:
        if ids.shape[1] > self.config.context:
            raise InputError(f"rows have {ids.shape[1]} tokens, the model's context is {self.config.context}. Shorten them.")  # fmt: skip
        return _widened(self.run(ids, **_whole(ids)).logits)

    def _logits_at(self, ids: Int[Tensor, "B W"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return _gathered(self._whole_logits(ids), at)

    def _per_token(
        self, obs: Prompts, actions: Int[Tensor, "B T"], measure: Measure
    ) -> Float[Tensor, "B T"]:
        """A number of every token's logits, of which only LARGE are held at once; for the gradient they are made again."""
        ids, at = joined(obs, actions, self.config.context)
        if self._direct:
            rows, made_of, logits = 1, (self._states(ids, at).flatten(0, 1),), self._logits
            tokens = actions.reshape(-1)
        else:
            rows, made_of, logits, tokens = (
                max(ids.shape[1], 1),
                (ids, at),
                self._logits_at,
                actions,
            )

        def work(tokens: Tensor, *parts: Tensor) -> Tensor:
            return measure(logits(*parts).flatten(0, -2), tokens.reshape(-1))

        size = max(1, LARGE // (self.config.vocab_size * rows))
        pieces = zip(*(x.split(size) for x in (tokens, *made_of)), strict=True)
        found = [
            checkpoint(work, *p, use_reentrant=False, preserve_rng_state=False) for p in pieces
        ]
        return torch.cat(found).view(actions.shape)

    @torch.no_grad()
    def _probe(self) -> tuple[bool, int]:
        """(whether _logits of the hidden states are the model's logits, how many there are)."""
        lm = self.causal_lm
        embedding = lm.get_input_embeddings().weight
        ids = (torch.arange(8, device=embedding.device) * 31 % len(embedding))[None]
        whole = _widened(lm(input_ids=ids, **_whole(ids)).logits)
        states = lm.base_model(input_ids=ids, **_whole(ids))
        hidden = getattr(states, "last_hidden_state", None)
        head = lm.get_output_embeddings()
        if hidden is None or getattr(head, "in_features", None) != hidden.shape[-1]:
            return False, whole.shape[-1]
        near = NEAR.get(hidden.dtype, 0.05) * float(whole.abs().max())
        return bool(((self._logits(hidden) - whole).abs() <= near).all()), whole.shape[-1]


class HFCritic(nn.Module):
    """A value for the prefix before each token of an answer, [B, T], reward units; 0 at the start.

    Args: trunk: the base model of a causal language model.  config: of its HFPolicy.
    Called as policies.TransformerCritic.
    Source: card rlhf-ppo-max, sec. 2.  Oracle: tests.  Cost: one pass of the trunk.
    """

    def __init__(self, trunk: nn.Module, config: HFConfig):
        super().__init__()
        self.trunk, self.config = trunk, config
        self.value = nn.Linear(config.width, 1, bias=False).to(next(trunk.parameters()))
        nn.init.zeros_(self.value.weight)

    def forward(
        self, obs: Mapping[str, Tensor], actions: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T"]:
        """v of the prompt and the tokens before each.  Raises: as log_prob.  InputError: no answers."""
        if actions is None and "tokens" not in obs:
            raise InputError(f"obs has {sorted(obs)}: a critic of answers needs obs['tokens'] [B, T], or the answers as its second argument.")  # fmt: skip
        ids, at = joined(obs, obs["tokens"] if actions is None else actions, self.config.context)
        return self.value(_gathered(_hidden(self.trunk, ids, self.config), at))[..., 0]


def joined(
    obs: Mapping[str, Tensor], actions: Int[Tensor, "B T"], context: int
) -> tuple[Int[Tensor, "B W"], Int[Tensor, "B T"]]:
    """(prompts and answers moved together, the column before each token of the answers).

    What is left over behind an answer is any token: nothing causal sees it.
    Raises: InputError: an empty prompt, more tokens than the context.  ShapeError: rows that differ.
    """
    ids, lengths = compacted_prompts(obs)
    if actions.ndim != 2 or len(actions) != len(ids):
        raise ShapeError(
            f"actions have shape {tuple(actions.shape)} and prompts {tuple(ids.shape)}: [B, T] and [B, P] with one B "
            "are expected."
        )
    P, T = ids.shape[1], actions.shape[1]
    if P + T > context + 1:
        raise InputError(f"prompt and answer have {P + T} tokens together, the model's context is {context}. Shorten them.")  # fmt: skip
    columns = torch.arange(P + T - 1, device=ids.device)
    source = torch.where(columns < lengths[:, None], columns, columns - lengths[:, None] + P)
    both = torch.cat([ids, actions], dim=1).gather(1, source.clamp_max(P + T - 1))
    return both, lengths[:, None] - 1 + torch.arange(T, device=ids.device)


def _hidden(trunk: Any, ids: Tensor, config: HFConfig) -> Float[Tensor, "B W D"]:
    with _known_ids(ids, config.vocab_size):
        return trunk(input_ids=ids, **_whole(ids)).last_hidden_state


@contextmanager
def _known_ids(ids: Tensor, vocab_size: int) -> Iterator[None]:
    """Says which token a model does not know, where the model only says that there is one."""
    try:
        yield
    except IndexError:
        for row, position in ((ids < 0) | (ids >= vocab_size)).nonzero()[:1].tolist():
            raise InputError(
                f"token id {int(ids[row, position])} at row {row}, position {position} is outside the vocabulary: ids "
                f"must be in 0..{vocab_size - 1}. Is the tokenizer the model's?"
            ) from None
        raise


def _whole(ids: Tensor) -> dict[str, Any]:
    """What a pass over rows without pads is told: some models warn of token ids that look like one."""
    return {"attention_mask": torch.ones_like(ids), "use_cache": False}


def _gathered(x: Tensor, at: Tensor) -> Tensor:
    """[B, T, ...] rows of x [B, W, ...] at columns."""
    return x.gather(1, at[:, :, None].expand(*at.shape, x.shape[-1]))


def _widened(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _picked(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def _entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def _between(config: Any) -> tuple[float, float | None]:
    """(the number that logits are multiplied by, what caps them), as a config tells."""
    times = 1.0
    for name in TIMES:
        times *= getattr(config, name, None) or 1.0
    for name in DIVIDED:
        times /= getattr(config, name, None) or 1.0
    return float(times), next((float(c) for name in CAPS if (c := getattr(config, name, None))), None)  # fmt: skip


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and type(value) is float:  # attention keeps its own as a number
                setattr(module, name, 0.0)


def _with_adapters(model: nn.Module, lora: Any, seed: int) -> nn.Module:
    try:
        import peft
    except ImportError:
        raise MissingDependencyError("lora needs peft, which is not installed: pip install peft. Without it, lora=None trains all weights.") from None  # fmt: skip
    if isinstance(lora, (str, Path)):
        folder = checkpoint_folder(lora, "adapter_model.safetensors", config="adapter_config.json")
        return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)
    if isinstance(lora, int):
        check_count(lora=lora)
        lora = peft.LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM")  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws from the global generator, which is put back
        return peft.get_peft_model(model, lora)
