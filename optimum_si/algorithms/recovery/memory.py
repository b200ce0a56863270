"""How a recovery fits into the memory that is free."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import nn

from optimum_si.models.weight_view import linear_views


#: Share of the free memory that a recovery may plan with; the rest is for what nobody foresees.
USABLE = 0.8
#: So many times the model in fp32 may be taken by activations that are kept instead of computed again.
ACTIVATIONS = 0.9
#: Values that a token leaves behind in a block, per input and output of its linear layers: norms, products, softmax.
PER_FEATURE = 1.5
#: fp32 values of a parameter beside itself: gradient, and Adam's two moments or Adafactor's next to nothing.
ADAM, ADAFACTOR = 3, 1.1


class Level(Enum):
    """How much memory a recovery takes, from the most to the least."""

    ADAM = "Adam"
    ADAFACTOR = "Adafactor"
    GROUPS = "Adam, groups of blocks"
    OFF = "off"


@dataclass(frozen=True)
class MemoryPlan:
    """What fits.

    Args:
        level: optimizer, and whether all blocks are trained at once.
        checkpointed: how many of the first blocks compute their activations again in the backward pass.
        groups: positions of the blocks that are trained together; all of them in one group unless ``level`` says
            otherwise.
        needed: bytes that the least demanding level would take, for the line that says why nothing fits.
    """

    level: Level
    checkpointed: int
    groups: Sequence[range]
    needed: int = 0


@dataclass(frozen=True)
class Demand:
    """What a recovery of a model would hold, in values.

    Args:
        blocks: trained values of each block.
        others: trained values outside blocks.
        frozen: all other values of the model.
        itemsize: bytes of a stored value.
        activations: values that one pass leaves behind in each block.
        hidden: values of the hidden states of one pass.
        narrow: whether blocks compute in 16 bits.
    """

    blocks: Sequence[int]
    others: int
    frozen: int
    itemsize: int
    activations: Sequence[int]
    hidden: int
    narrow: bool = False

    def plan(self, free: int) -> MemoryPlan:
        """The first level that fits into so many free bytes."""
        everything = [range(len(self.blocks))]
        usable = int(USABLE * free)
        trained = sum(self.blocks) + self.others
        # Wherever weights are stored in less than fp32, all of them are widened beside the stored copy of the best.
        widened = (trained + self.frozen) * max(4 - self.itemsize, 0)
        kept = trained * self.itemsize
        inputs, every = self._inputs(self._width), len(self.blocks)
        for level, values in ((Level.ADAM, ADAM), (Level.ADAFACTOR, ADAFACTOR)):
            left = usable - widened - kept - int(4 * values * trained) - inputs
            if left >= 0:
                room = min(left, int(ACTIVATIONS * 4 * (trained + self.frozen)))
                return MemoryPlan(level, every - self._kept_whole(room), everything)
        # A group alone is widened, and computes as wide as it is.
        inputs = self._inputs(4)
        each = max(4 - self.itemsize, 0) + self.itemsize + 4 * ADAM
        groups, needed = self._groups(usable - inputs, each), inputs + max(self.blocks, default=0) * each
        if groups is None:
            return MemoryPlan(Level.OFF, every, [], needed=int(needed / USABLE))
        return MemoryPlan(Level.GROUPS, every, groups)

    @property
    def _width(self) -> int:
        """Bytes of an activation."""
        return 2 if self.narrow else 4

    def _inputs(self, width: int) -> int:
        """Bytes of activations where no more than the inputs of blocks is kept, and one block is computed again."""
        return width * max(self.activations, default=0) + 4 * self.hidden * (len(self.blocks) + 1)

    def _kept_whole(self, room: int) -> int:
        """How many of the last blocks, which the backward pass is through with first, may keep their activations."""
        count = 0
        for activations in reversed(self.activations):
            room -= self._width * activations
            if room < 0:
                break
            count += 1
        return count

    def _groups(self, room: int, each: int) -> list[range] | None:
        """As many blocks together as there is room for; None where one of them is too large."""
        groups: list[range] = []
        for index, values in enumerate(self.blocks):
            if values * each > room:
                return None
            start = groups[-1].start if groups else 0
            if groups and sum(self.blocks[start : index + 1]) * each <= room:
                groups[-1] = range(start, index + 1)
            else:
                groups.append(range(index, index + 1))
        return groups


def activations_of(block: nn.Module, tokens: int) -> int:
    """Values that a pass of so many tokens leaves behind in a block, by its linear layers."""
    return int(PER_FEATURE * sum(sum(view.shape) for view in linear_views(block, "")) * tokens)


def free_memory(device: torch.device) -> int:
    """Bytes that are free where a model is: of the GPU, or of this process's share of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(free for free in (_available(), _left_of_group()) if free is not None)


def _available() -> int:
    """What the system says could be had without swapping; on systems that do not say, half of what there is."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return 2**33


def _left_of_group() -> int | None:
    """What the limit of a container leaves; None where there is none."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            values = [Path(name).read_text(encoding="ascii").strip() for name in (limit, used)]
        except OSError:
            continue
        if all(value.isdigit() for value in values):
            return max(int(values[0]) - int(values[1]), 0)
    return None
