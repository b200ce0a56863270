"""The interface of a pruning method: the statistics it needs, a score, and a new weight."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.moments import Moments
from optimum_si.linalg.units import unit_of

from . import get_method
from .targets import Target


@dataclass(frozen=True)
class Settings:
    """What methods may read of the recipe beside the target."""

    damping: float = 0.01
    damping_mode: str = "mean"
    block_size: int = 128

    @classmethod
    def of(cls, config: SIConfig) -> "Settings":
        """The settings of a recipe."""
        return cls(config.damping, config.damping_mode, config.block_size)


class PruningMethod(ABC):
    """A pruning method, from one layer's weight and input moments to its pruned weight.

    A learned scale changes the score and never the weight: scores are taken on moments that the fast update (Eq. 10)
    has transformed by it, which is Eq. 11 for every method.
    """

    #: Default comparison group of an unstructured target, "row" or "layer".
    group: ClassVar[str] = "row"
    #: True when the full Gram matrix is needed, False when its diagonal is enough.
    needs_gram: ClassVar[bool] = False
    #: True when a scale of output rows moves the mask, since rows share a threshold.
    ranks_rows_together: ClassVar[bool] = False
    #: True when a target of group "row" is met by each row, False when only by the layer as a whole.
    counts_rows: ClassVar[bool] = True
    #: False when :meth:`prune` changes kept weights.
    keeps_weights: ClassVar[bool] = True

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def cautious(self, factor: float) -> Self:
        """The same method with more damping, for a layer that it failed on.

        Args:
            factor: by which damping grows; from the default where there is none.
        """
        damping = factor * (self.settings.damping or Settings.damping)
        cautious = copy(self)
        cautious.settings = replace(self.settings, damping=damping)
        return cautious

    @abstractmethod
    def score(self, weight: Tensor, moments: Moments) -> Tensor:
        """Importance of each weight.

        Args:
            weight: [d_out, d_in], fp32 or fp64.
            moments: input moments of the layer, ``gram`` [d_in, d_in] only where ``needs_gram``.

        Returns:
            [d_out, d_in] >= 0, zero where the weight is zero.
        """

    def scaled_score(
        self, weight: Tensor, moments: Moments, scale: Tensor | None = None, row_scale: Tensor | None = None
    ) -> Tensor:
        """What :meth:`prune` ranks by: the score refreshed by the fast update (Eq. 10). Arguments are those of it."""
        score = self.score(weight, moments if scale is None else moments.transformed(scale))
        return score if row_scale is None else score * row_scale[:, None].to(score.dtype)

    def prune(
        self,
        weight: Tensor,
        moments: Moments,
        target: Target,
        scale: Tensor | None = None,
        row_scale: Tensor | None = None,
    ) -> Tensor:
        """The pruned weight; zeros of ``weight`` stay zeros and count.

        Args:
            weight: [d_out, d_in].
            moments: input moments.
            target: how many weights go, and where.
            scale: learned s, [d_in]; the score is refreshed by the fast update (Eq. 10), the weight is not scaled.
            row_scale: factor of each output row that absorption brings, [d_out]; matters to methods that rank rows
                together.

        Returns:
            [d_out, d_in] in the dtype of ``weight``.
        """
        score = self.scaled_score(weight / unit_of(weight), moments, scale, row_scale)
        # Zeros go first, also where an input that is always zero makes other scores zero: they count.
        return weight * target.keep(score.masked_fill(weight == 0, -1))


class Improved(PruningMethod):
    """A method whose result is improved on the full Gram matrix; it ranks weights as that method does.

    Args:
        method: what is improved.
        settings: None are those of the method.
    """

    needs_gram = True

    def __init__(self, method: PruningMethod, settings: Settings | None = None) -> None:
        super().__init__(settings or method.settings)
        self.method = method
        self.ranks_rows_together = method.ranks_rows_together  # type: ignore[misc]
        self.counts_rows = method.counts_rows  # type: ignore[misc]

    def cautious(self, factor: float) -> Self:
        cautious = super().cautious(factor)
        cautious.method = self.method.cautious(factor)
        return cautious

    def score(self, weight: Tensor, moments: Moments) -> Tensor:
        return self.method.score(weight, moments)

    def scaled_score(
        self, weight: Tensor, moments: Moments, scale: Tensor | None = None, row_scale: Tensor | None = None
    ) -> Tensor:
        return self.method.scaled_score(weight, moments, scale, row_scale)


def bare_method(config: SIConfig) -> PruningMethod:
    """The method of a recipe, without fits and swaps."""
    return get_method(config.method)(Settings.of(config))
