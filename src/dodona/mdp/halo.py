"""Processes that hold the states of one model in turn, and what they tell each other.

Three things only: small arrays of every rank (``World.gather``), the values of foreign states
(``Halo.fetch``), and nothing else. Sums are taken from what was gathered, rank after rank, and not
by all_reduce: every rank then computes the same number, bit for bit, and all of them stop at the same
iteration whatever algorithm the backend would have chosen.

Not here: models and sweeps (sharded.py).
Source: the halo exchange of distributed sparse products; PyTorch's torch.distributed.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.errors import InputError

DENSE_SHARE = 0.3  # of all foreign values: from here on all_gather, which packs nothing, is cheaper


class World:
    """The processes of a group; one process without torch.distributed is a world of one.

    Args:
        process_group: a group of torch.distributed that moves CPU tensors (gloo), or None: the
            default group where there is one, else this process alone.
    Raises:
        InputError: this process is not in the group, or the group moves no CPU tensors.
    """

    def __init__(self, process_group: Any = None):
        import torch.distributed as dist

        self.group, self.rank, self.size = process_group, 0, 1
        if process_group is None and not (dist.is_available() and dist.is_initialized()):
            return
        self.rank, self.size = dist.get_rank(process_group), dist.get_world_size(process_group)
        if self.rank < 0:
            raise InputError(
                "this process is not in process_group. Call solve_sharded on its members only."
            )
        backend = str(dist.get_backend_config(process_group))
        if "cpu:" not in backend:
            raise InputError(
                f"process_group moves no CPU tensors (backend {backend}). Shards are NumPy arrays: "
                "make a group with torch.distributed.new_group(backend='gloo')."
            )

    def gather(self, part: Shaped[np.ndarray, "K"]) -> Shaped[np.ndarray, "ranks K"]:
        """The same small array of every rank, one row per rank."""
        if self.size == 1:
            return part[None]
        import torch
        import torch.distributed as dist

        mine = torch.from_numpy(np.ascontiguousarray(part))
        out = mine.new_empty((self.size, *mine.shape))
        dist.all_gather(list(out), mine, group=self.group)
        return out.numpy()

    def swap(
        self,
        send: Shaped[np.ndarray, "sent"],
        send_counts: Int[np.ndarray, "ranks"],
        out: Shaped[np.ndarray, "received"],
        out_counts: Int[np.ndarray, "ranks"],
    ) -> None:
        """out <- what every rank sends here; ``send`` is cut into one piece per rank."""
        import torch
        import torch.distributed as dist

        dist.all_to_all_single(
            torch.from_numpy(out), torch.from_numpy(send),
            out_counts.tolist(), send_counts.tolist(), group=self.group,
        )  # fmt: skip


class Halo:
    """Fetches the values of foreign states by a plan made once.

    Args:
        world: the processes.
        edges: [ranks + 1]; rank r holds the states edges[r]..edges[r + 1] - 1.
        states: [H] the foreign states whose values are needed here, rising.
    Cost: one collective a fetch. It moves the needed values only, or, where ranks together need
        more than DENSE_SHARE of what they lack, all values.
    """

    def __init__(
        self, world: World, edges: Int[np.ndarray, "ranks_plus_1"], states: Int[np.ndarray, "H"]
    ):
        self.world, self.dense = world, False
        if world.size == 1:
            return
        owner = np.searchsorted(edges, states, side="right") - 1
        needed = int(world.gather(np.array([len(states)])).sum())
        self.dense = needed > DENSE_SHARE * (world.size - 1) * int(edges[-1])
        if self.dense:
            width = int(np.diff(edges).max())
            self.sent = np.zeros(width)
            self.places = owner * width + (states - edges[owner])
            return
        ones = np.ones(world.size, dtype=np.int64)
        self.out_counts = np.bincount(owner, minlength=world.size)
        self.send_counts = np.empty(world.size, dtype=np.int64)
        world.swap(self.out_counts, ones, self.send_counts, ones)
        wanted = np.empty(int(self.send_counts.sum()), dtype=np.int64)
        world.swap(np.array(states, dtype=np.int64), self.out_counts, wanted, self.send_counts)
        self.places, self.sent = wanted - edges[world.rank], np.empty(len(wanted))

    def fetch(self, own: Float[np.ndarray, "S"], out: Float[np.ndarray, "H"]) -> None:
        """out <- the values of the foreign states; ``own``: those of the states held here."""
        if self.world.size == 1:
            return
        if self.dense:
            self.sent[: len(own)] = own
            np.take(self.world.gather(self.sent).ravel(), self.places, out=out, mode="clip")
            return
        np.take(own, self.places, out=self.sent, mode="clip")  # "raise" would copy once more
        self.world.swap(self.sent, self.send_counts, out, self.out_counts)
