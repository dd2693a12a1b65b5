"""How policies are told in a file and made again: a class and its arguments, as JSON and as tensors.

Only what these classes make by themselves can be told: a network that somebody has rebuilt would come back as another,
so it is refused. Weights are no arguments; they follow in the file.

Source: ours.  Not here: the file (trained_policy.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from dodona.policies.cnn import CNNPolicy, NatureTrunk
from dodona.policies.deterministic import DeterministicPolicy
from dodona.policies.lstm import LSTMPolicy
from dodona.policies.mlp import MLPPolicy
from dodona.policies.perceptron import ACTIVATIONS
from dodona.policies.table import TablePolicy
from dodona.rl.q_networks import EpsilonGreedy, Pixels, QNetwork

IMAGE_LAYERS = (NatureTrunk, nn.Sequential, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear)
VECTOR_LAYERS = (nn.Sequential, nn.Linear, nn.Tanh)
Described = tuple[dict[str, Any], dict[str, Tensor | None]]


class Kind(NamedTuple):
    """How a class of policies is told and made again.

    describe: policy -> (arguments as JSON, arguments that are tensors), or None: it can not be told.
    make: the same two -> a policy, whose weights come after.
    """

    describe: Callable[[Any], Described | None]
    make: Callable[[dict[str, Any], dict[str, Tensor]], nn.Module]


# ---------------------------------------------------------------------- private
def _describe_mlp(policy: MLPPolicy) -> Described | None:
    layers = [x for x in policy.net if isinstance(x, nn.Linear)]
    between = {type(x) for x in policy.net if not isinstance(x, nn.Linear)}
    names = [name for name, kind in ACTIVATIONS.items() if between <= {kind}]
    if not names:
        return None
    arguments = {
        "obs_dim": layers[0].in_features, "size": policy.size, "family": policy.family,
        "hidden": [x.out_features for x in layers[:-1]], "activation": names[0],
        "log_std": None if policy.log_std is None else 0.0,
    }  # fmt: skip
    return arguments, {"low": policy.low, "high": policy.high}


def _make_mlp(arguments: dict[str, Any], extra: dict[str, Tensor]) -> MLPPolicy:
    bounds = (extra["low"], extra["high"]) if extra else None
    return MLPPolicy(**arguments, bounds=bounds)


def _describe_table(policy: TablePolicy) -> Described:
    num_states, num_actions = policy.logits.shape
    return {"num_states": num_states, "num_actions": num_actions}, {
        "action_mask": policy.action_mask
    }


def _make_table(arguments: dict[str, Any], extra: dict[str, Tensor]) -> TablePolicy:
    return TablePolicy(**arguments, action_mask=extra.get("action_mask"))


def _describe_greedy(policy: EpsilonGreedy) -> Described | None:
    net = policy.q_net
    if not isinstance(net, QNetwork):
        return None
    common = {"num_actions": net.num_actions, "dueling": net.dueling, "epsilon": policy.epsilon}
    if net.image_shape is not None:
        plain = (Pixels, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear)
        if not all(isinstance(x, plain) for x in net.body):
            return None
        return common | {"image_shape": list(net.image_shape)}, {}
    plain = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ReLU, nn.Flatten)
    if not all(isinstance(x, plain) for x in net.body):
        return None
    layers = [x for x in [*net.body, net.head] if isinstance(x, (nn.Linear, nn.Embedding))]
    width = layers[0].weight.shape[1] - net.action_as_input
    arguments = {
        "inputs": [width] if net.num_states is None else net.num_states, "action_as_input": net.action_as_input,
        "hidden": [x.weight.shape[1 if isinstance(x, nn.Embedding) else 0] for x in layers[:-1]],
        "layer_norm": any(isinstance(x, nn.LayerNorm) for x in net.body),
    }  # fmt: skip
    return common | arguments, {"coordinates": net.coordinates, "action_mask": net.action_mask}


def _make_greedy(arguments: dict[str, Any], extra: dict[str, Tensor]) -> EpsilonGreedy:
    arguments = dict(arguments)
    epsilon = arguments.pop("epsilon")
    if "image_shape" in arguments:
        net = QNetwork.nature(obs_shape=tuple(arguments.pop("image_shape")), **arguments)
    else:
        inputs = arguments.pop("inputs")
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        net = QNetwork(inputs, **arguments, **extra)
    return EpsilonGreedy(net, epsilon=epsilon)


def _describe_deterministic(policy: DeterministicPolicy) -> Described | None:
    if not isinstance(policy.net, nn.Sequential):
        return None
    layers = [x for x in policy.net if isinstance(x, nn.Linear)]
    if not layers or not all(isinstance(x, (nn.Linear, nn.ReLU)) for x in policy.net):
        return None
    arguments = {
        "obs_dim": layers[0].in_features, "action_dim": layers[-1].out_features,
        "hidden": [x.out_features for x in layers[:-1]],
    }  # fmt: skip
    return arguments, {"low": policy.low, "high": policy.high}


def _make_deterministic(arguments: dict[str, Any], extra: dict[str, Tensor]) -> DeterministicPolicy:
    bounds = (extra["low"], extra["high"]) if extra else None
    return DeterministicPolicy.mlp(**arguments, bounds=bounds)


def _describe_cnn(policy: CNNPolicy) -> Described | None:
    trunk = policy.trunk
    if not all(isinstance(x, IMAGE_LAYERS) for x in [*trunk.modules(), policy.head]):
        return None
    return {
        "image_shape": list(trunk.image_shape), "num_actions": policy.head.out_features, "hidden": trunk.hidden,
        "scale_images": trunk.scale_images,
    }, {}  # fmt: skip


def _make_cnn(arguments: dict[str, Any], extra: dict[str, Tensor]) -> CNNPolicy:
    return CNNPolicy(**arguments | {"image_shape": tuple(arguments["image_shape"])})


def _describe_lstm(policy: LSTMPolicy) -> Described | None:
    body, encoder = policy.body, policy.body.encoder
    plain = IMAGE_LAYERS if isinstance(encoder, NatureTrunk) else VECTOR_LAYERS
    if not all(isinstance(x, plain) for x in encoder.modules()):
        return None
    # how the LSTM was drawn and where episodes begin is in the weights
    arguments = {
        "obs_shape": list(body.obs_shape), "size": policy.head.out_features,
        "family": "categorical" if policy.log_std is None else "gaussian",
        "hidden": body.lstm.input_size, "memory": body.memory, "reset_state": body.reset_state,
        "scale_images": encoder.scale_images if isinstance(encoder, NatureTrunk) else True,
    }  # fmt: skip
    return arguments, {"low": policy.low, "high": policy.high}


def _make_lstm(arguments: dict[str, Any], extra: dict[str, Tensor]) -> LSTMPolicy:
    bounds = (extra["low"], extra["high"]) if extra else None
    return LSTMPolicy(**arguments | {"obs_shape": tuple(arguments["obs_shape"]), "bounds": bounds})


KINDS: Mapping[str, Kind] = {
    "CNNPolicy": Kind(_describe_cnn, _make_cnn),
    "DeterministicPolicy": Kind(_describe_deterministic, _make_deterministic),
    "EpsilonGreedy": Kind(_describe_greedy, _make_greedy),
    "LSTMPolicy": Kind(_describe_lstm, _make_lstm),
    "MLPPolicy": Kind(_describe_mlp, _make_mlp),
    "TablePolicy": Kind(_describe_table, _make_table),
}
"""Class of a policy -> how it is told in a file and made again."""
