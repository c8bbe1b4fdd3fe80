"""How ranks see each other's text embeddings, and how what each makes of a block comes back to its owner.

`visit` takes a function to every rank's block. In a ring each block travels with what was made of it so far (its
gradient, say): the next block and the last results are in flight while this one is worked on. Two buffers a
direction, no rank holds more than a few blocks, whatever the number of ranks (SigLIP, section 3.3). In a gather every
rank holds all blocks at once and results are reduced and scattered: fewer messages, memory O(B·d).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

# Their present names: torch warns of the old ones.
all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

EXCHANGES = ("ring", "ring-bidirectional", "gather", "none")

Block = Sequence[torch.Tensor]
Group = dist.ProcessGroup | None
Work = Callable[[int, Block, torch.Tensor | None], torch.Tensor | None]
"""(owner, its block, room) → what this rank contributes to the owner's result, or None where nothing is to come back.

room: a tensor of the contribution's size that is free to be filled and returned, or None where there is none yet.
"""
Combine = Callable[..., torch.Tensor]
"""Combines two contributions: torch.add or torch.logaddexp, with `out`."""

_measure: ContextVar[Callable[[], AbstractContextManager]] = ContextVar("measure", default=nullcontext)


@contextmanager
def measure_waiting(measure: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """While inside, a loss enters a context of `measure` wherever it stands waiting for other ranks.

    What travels while tiles are worked on is no waiting. On a GPU it is the stream that waits: the host runs ahead.
    """
    token = _measure.set(measure)
    try:
        yield
    finally:
        _measure.reset(token)


def waiting() -> AbstractContextManager:
    """Around what sends messages that nothing hides, and what waits for some: nothing, unless somebody measures it."""
    return _measure.get()()


def ranks(group: Group = None) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def rank(group: Group = None) -> int:
    return dist.get_rank(group) if ranks(group) > 1 else 0


def visit(
    block: Block, work: Work, exchange: str, group: Group = None, combine: Combine = torch.add
) -> torch.Tensor | None:
    """Work on the blocks of all ranks, this one's among them; what all ranks made of this rank's block, combined.

    block: this rank's tensors, of the same shapes and dtypes on all ranks. Every rank must call, with work that
    returns the same shape and dtype, or None on all.
    """
    block = [tensor.contiguous() for tensor in block]
    if ranks(group) == 1:
        return work(0, block, None)
    if exchange == "gather":
        return _visit_gathered(block, work, group, combine)
    return _visit_ring(block, work, exchange == "ring-bidirectional", group, combine)


def _visit_gathered(block: Block, work: Work, group: Group, combine: Combine) -> torch.Tensor | None:
    local = len(block[0])
    gathered = [tensor.new_empty((ranks(group) * len(tensor), *tensor.shape[1:])) for tensor in block]
    with waiting():
        for whole, own in zip(gathered, block, strict=True):
            all_gather_single(whole, own, group=group)
    made: torch.Tensor | None = None
    for owner in range(ranks(group)):
        rows = slice(owner * local, (owner + 1) * local)
        contribution = work(owner, [whole[rows] for whole in gathered], None if made is None else made[rows])
        if contribution is not None and made is None:
            made = contribution.new_empty((len(gathered[0]), *contribution.shape[1:]))
            made[rows] = contribution
    if made is None:
        return None
    if combine is torch.add:
        home = made.new_empty((local, *made.shape[1:]))
        with waiting():
            reduce_scatter_single(home, made, group=group)
        return home
    parts = torch.empty_like(made)
    with waiting():
        dist.all_to_all_single(parts, made, group=group)
    home, *others = parts.split(local)
    for other in others:
        combine(home, other, out=home)
    return home


@dataclass
class _Stream:
    """Blocks moving one way round the ring: at step k this rank works on the block of the rank k places behind.

    The block is at its owner at step 0 and visits `hops` ranks; what is made of it follows one step later, and goes
    straight home from the last. All ranks post the same messages in the same order in each step, and a step's
    messages are one batch: no rank waits for a message that the other has not posted.
    """

    rank: int
    ranks: int
    step: int  # +1 or −1
    hops: int
    group: Group
    held: Block
    incoming: Block = field(default_factory=list)
    spare: Block = field(default_factory=list)
    rooms: list[torch.Tensor] = field(default_factory=list)  # sent, or added up: free for what comes next
    made: torch.Tensor | None = None  # of the last step's block, to be sent on
    partial: torch.Tensor | None = None  # what the ranks before made of this step's block
    home: torch.Tensor | None = None  # what all others made of this rank's block

    def place(self, steps: int) -> int:
        return (self.rank + self.step * steps) % self.ranks

    def owner(self, k: int) -> int:
        return self.place(-k)

    def messages(self, k: int) -> list[dist.P2POp]:
        """The blocks that travel while step k is worked on."""
        messages = []
        if k < self.hops:
            self.incoming = self.spare or [torch.empty_like(tensor) for tensor in self.held]
            messages += [self._send(tensor, self.place(1)) for tensor in self.held]
            messages += [self._receive(tensor, self.place(-1)) for tensor in self.incoming]
        if self.made is not None and 2 <= k <= self.hops:
            self.partial = self.room() if self.rooms else torch.empty_like(self.made)
            messages += [self._send(self.made, self.place(1)), self._receive(self.partial, self.place(-1))]
        elif self.made is not None and k == self.hops + 1:
            self.home = self.room() if self.rooms else torch.empty_like(self.made)
            messages += [self._send(self.made, self.owner(self.hops)), self._receive(self.home, self.place(self.hops))]
        return messages

    def room(self) -> torch.Tensor | None:
        return self.rooms.pop() if self.rooms else None

    def arrived(self, k: int, made: torch.Tensor | None, combine: Combine) -> None:
        """All messages of step k are through, and `made` is this rank's part of the block held."""
        if made is not None and self.partial is not None:
            combine(made, self.partial, out=made)
        self.rooms += [free for free in (self.made, self.partial) if free is not None]
        self.made, self.partial = made, None
        last = self.held if 0 < k < self.hops - 1 else []  # at step 0 the caller's own tensors are held
        self.held, self.incoming, self.spare = self.incoming, [], last

    def _send(self, tensor: torch.Tensor, to: int) -> dist.P2POp:
        return dist.P2POp(dist.isend, tensor, group=self.group, group_peer=to)

    def _receive(self, tensor: torch.Tensor, source: int) -> dist.P2POp:
        return dist.P2POp(dist.irecv, tensor, group=self.group, group_peer=source)


def _visit_ring(block: Block, work: Work, both_ways: bool, group: Group, combine: Combine) -> torch.Tensor | None:
    """This rank's own block comes last, while what the others made of it comes home."""
    count = ranks(group)
    hops = {1: count // 2, -1: (count - 1) // 2} if both_ways else {1: count - 1}
    streams = [_Stream(rank(group), count, step, n, group, block) for step, n in hops.items() if n]
    home: torch.Tensor | None = None
    for k in range(streams[0].hops + 2):
        messages = [message for stream in streams for message in stream.messages(k)]
        with waiting():
            under_way = dist.batch_isend_irecv(messages) if messages else []
        made = [
            work(stream.owner(k), stream.held, stream.room()) if 1 <= k <= stream.hops else None for stream in streams
        ]
        if k > streams[0].hops:
            home = work(rank(group), block, streams[0].room())
        with waiting():
            for message in under_way:
                message.wait()
        for stream, contribution in zip(streams, made, strict=True):
            stream.arrived(k, contribution, combine)
    for stream in streams:
        if home is not None:
            combine(home, stream.home, out=home)
    return home


def gather(features: torch.Tensor) -> torch.Tensor:
    """[b, d] on each rank → [B, d], the ranks' blocks in order. Gradients flow back to the rank they came from."""
    return _Gather.apply(features) if ranks() > 1 else features


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: torch.Tensor) -> torch.Tensor:
        features = features.contiguous()
        gathered = features.new_empty((ranks() * len(features), *features.shape[1:]))
        all_gather_single(gathered, features)
        return gathered

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        home = gradient.new_empty((len(gradient) // ranks(), *gradient.shape[1:]))
        reduce_scatter_single(home, gradient.contiguous())
        return home
