"""Which negatives count (SigLIP, section 4.8): a share of those of the global batch, at random, or by their loss.

A negative's loss grows with its logit, so the hardest are those above a threshold. It is found like a radix sort's:
every logit has an integer of the same order, and two counts over all tiles and ranks, of the upper and then the lower
16 bits, give the exact value with the wanted number of negatives above it. Nothing is sorted and no B × B matrix is
held; each count costs one matrix product a tile. Random choice is the same, on a hash of each pair's place in the
global batch: the same pairs whatever the tile size and number of ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed as dist

from repro.loss.call import Plan
from repro.loss.exchange import Block, rank, ranks, visit, waiting
from repro.loss.tiles import Tile, buffers, diagonal, tile_logits, tiles, total, view

Kind = Literal["random", "hard", "easy"]


@dataclass(frozen=True)
class Negatives:
    """Keep `share` of all B² − B negatives of the global batch: any ('random'), those with the highest loss ('hard')
    or the lowest ('easy'). Of equal logits at the threshold all are kept. Raises ValueError."""

    kind: Kind
    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"negatives {self.kind!r} are not known; expected one of {', '.join(get_args(Kind))}")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"a share of {self.share} of the negatives cannot be kept; expected more than 0, at most 1"
            )


@dataclass(frozen=True)
class MeanLogits:
    """Over the global batch."""

    positive: float
    negative: float
    """Mean logit of the negatives kept; NaN where there is none."""
    kept: int
    """How many negatives."""


class Selection:
    """The choice for one batch: where the threshold lies, and the mean logits of what it keeps."""

    def __init__(self, negatives: Negatives, draw: int, plan: Plan, inputs: tuple[torch.Tensor | None, ...]):
        """inputs: images, texts [b, d], t, b. Communicates: all ranks choose at the same time."""
        self.negatives, self.plan = negatives, plan
        self.local, self.rank = len(inputs[0]), rank(plan.group)
        self.hashes = _hashes(negatives.seed, draw, self.local * ranks(plan.group), inputs[0].device)
        self.sums = inputs[0].new_zeros(4, dtype=torch.float64)  # positives' logits, negatives' logits, their counts
        batch = self.local * ranks(plan.group)
        wanted = max(1, round(negatives.share * (batch * batch - batch)))
        upper, wanted = _place(self._count(lambda keys: keys >> 16, None, *inputs), wanted)
        upper -= 1 << 15
        lower, _ = _place(self._count(lambda keys: (keys & 0xFFFF) - (1 << 15), upper, *inputs), wanted)
        self.threshold = (upper << 16) + lower

    def drop(self, logits: torch.Tensor, tile: Tile, owner: int) -> None:
        """Logits [m, n] of the negatives not kept ← −∞, which costs nothing and pulls nowhere."""
        offset = tile.offset(0 if owner == self.rank else None)
        dropped = self._keys(logits, tile, owner) < self.threshold
        diagonal(dropped, offset).fill_(False)
        positives = diagonal(logits, offset)
        positive_sum, kept_sum = positives.sum(dtype=torch.float64), total(logits.masked_fill(dropped, 0))
        kept = logits.numel() - dropped.sum() - len(positives)
        self.sums += torch.stack([positive_sum, kept_sum - positive_sum, kept.new_tensor(len(positives)), kept])
        logits.masked_fill_(dropped, -torch.inf)

    def mean_logits(self) -> MeanLogits:
        if ranks(self.plan.group) > 1:
            with waiting():
                dist.all_reduce(self.sums, group=self.plan.group)
        positive, negative, positives, kept = self.sums.tolist()
        return MeanLogits(positive / positives, negative / kept if kept else torch.nan, int(kept))

    def _keys(self, logits: torch.Tensor, tile: Tile, owner: int) -> torch.Tensor:
        """[m, n] int32: those with the largest are kept first."""
        if self.negatives.kind == "random":
            rows, columns = self.hashes
            rows = rows[self.rank * self.local :][tile.rows]
            columns = columns[owner * self.local :][tile.columns]
            return _mix(rows[:, None] + columns)
        bits = logits.float().view(torch.int32)
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers in the order of the numbers
        return ordered if self.negatives.kind == "hard" else ~ordered

    def _count(
        self,
        digit: Callable[[torch.Tensor], torch.Tensor],
        upper: int | None,
        images: torch.Tensor,
        texts: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """How many negatives have each 16-bit digit, [65536] over all ranks; of keys with these upper bits only."""
        counts = torch.zeros(1 << 16, dtype=torch.int64, device=images.device)
        space = buffers(2, images, self.plan.tile, self.plan.logits)

        def work(owner: int, block: Block, _: None = None) -> None:
            for tile in tiles(self.local, self.local, self.plan.tile):
                room, logits = (view(buffer, tile.shape) for buffer in space)
                offset = tile.offset(0 if owner == self.rank else None)
                if self.negatives.kind != "random":
                    x, y = images[tile.rows], block[0][tile.columns]
                    tile_logits(x, y, scale, bias, room, logits, offset)
                keys = self._keys(logits, tile, owner)
                for part, sign in ((keys.flatten(), 1), (diagonal(keys, offset), -1)):
                    chosen = part if upper is None else part[part >> 16 == upper]
                    counts.add_(torch.bincount(digit(chosen) + (1 << 15), minlength=1 << 16), alpha=sign)

        if self.negatives.kind == "random":  # needs no texts, so none travel
            for owner in range(ranks(self.plan.group)):
                work(owner, [texts])
        else:
            visit([texts], work, self.plan.exchange, self.plan.group)
        if ranks(self.plan.group) > 1:
            with waiting():
                dist.all_reduce(counts, group=self.plan.group)
        return counts


def _place(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The largest digit with at least `wanted` keys at or above it, and how many are wanted among its own."""
    from_above = counts.flip(0).cumsum(0)
    place = min(int((from_above < wanted).sum()), len(counts) - 1)
    digit = len(counts) - 1 - place
    return digit, wanted - int(from_above[place] - counts[digit])


def _hashes(seed: int, draw: int, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """A random int32 for each row and each column of the global batch, the same on every rank."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
    low, high = -(1 << 31), 1 << 31
    rows, columns = torch.randint(low, high, (2, batch), generator=generator, dtype=torch.int64).to(torch.int32)
    return rows.to(device), columns.to(device)


def _mix(keys: torch.Tensor) -> torch.Tensor:
    """Every bit of an int32 into every other, in place: a bijection (two rounds of multiply and xor-shift)."""
    for multiplier, shift in ((0x7FEB352D, 15), (0x2C1B3C6D, 13)):
        keys.bitwise_xor_((keys >> shift) & ((1 << (32 - shift)) - 1)).mul_(multiplier)
    return keys.bitwise_xor_((keys >> 16) & 0xFFFF)
