"""The gradient of a perceptron written out: the chain rule over its layers, without autograd.

    h_0 = x,  h_i = max(0, h_{i-1} W_i^T + b_i),  q = h W^T + b (dueling: v + A - mean A)
    dW_i = dz_i^T h_{i-1},  db_i = sum dz_i,  dz_{i-1} = (dz_i W_i) [h_{i-1} > 0]

For a few thousand weights, autograd's bookkeeping takes longer than the products; results are those of
autograd. Not here: any other network, which goes through autograd.

Source: Rumelhart, Hinton & Williams 1986.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.rl.q_networks import QNetwork


class Perceptron:
    """Values and gradient of a QNetwork whose parameters are views of FlatParameters.

    Args: net: one for which ``fits`` says True.
    Oracle: autograd (tests).  Cost: the matrix products.
    """

    def __init__(self, net: QNetwork):
        linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
        self.layers = [(m.weight.data, m.bias.data, m.weight.grad, m.bias.grad) for m in linear]
        self.dueling = net.dueling

    @staticmethod
    def fits(net: nn.Module) -> bool:
        """Whether the network is layers and rectifiers on vectors, and nothing else."""
        if type(net) is not QNetwork or net.action_mask is not None or net.action_as_input:
            return False
        plain = all(isinstance(m, (nn.Flatten, nn.Linear, nn.ReLU)) for m in (*net.body, net.head))
        return plain and net.num_states is None

    def activations(self, x: Float[Tensor, "B ..."]) -> list[Float[Tensor, "B D"]]:
        """The input of every layer, and the output of the last."""
        hidden = [x.flatten(1)]
        for weight, bias, *_ in self.layers[:-1]:
            hidden.append(torch.addmm(bias, hidden[-1], weight.t()).relu_())
        weight, bias, *_ = self.layers[-1]
        return [*hidden, torch.addmm(bias, hidden[-1], weight.t())]

    def __call__(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        """Action values, without gradient."""
        return self.q(self.activations(x)[-1])

    def q(self, output: Float[Tensor, "B D"]) -> Float[Tensor, "B A"]:
        """Action values, from what the last layer gave."""
        if not self.dueling:
            return output
        return output[:, :1] + output[:, 1:] - output[:, 1:].mean(dim=1, keepdim=True)

    def backward(self, hidden: list[Float[Tensor, "B D"]], d_q: Float[Tensor, "B A"]) -> None:
        """Write d loss / d parameters where the flat gradient lies, from d loss / d q."""
        dz = d_q
        if self.dueling:
            total = d_q.sum(dim=1, keepdim=True)
            dz = torch.cat([total, d_q - total / d_q.shape[1]], dim=1)
        for i in range(len(self.layers) - 1, -1, -1):
            weight, _, d_weight, d_bias = self.layers[i]
            torch.mm(dz.t(), hidden[i], out=d_weight)
            torch.sum(dz, 0, out=d_bias)
            if i:
                dz = torch.mm(dz, weight).mul_(hidden[i] > 0)
