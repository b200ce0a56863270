"""``si_scales.safetensors``: learned scales beside an induced checkpoint, which a later ``prune`` takes up.

An absorbed checkpoint does not show them to Wanda or SparseGPT (input scales move no bit of their masks), so
they are kept apart: for each block the learned s, the powers of two that were absorbed, and what was learned for the
pruned layers: bias changes, and factors of their rows and columns.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.algorithms.induction.absorption import absorb
from optimum_si.algorithms.layers import Scaling
from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CheckpointError
from optimum_si.models.families.base import UNDECLARED
from optimum_si.models.finding.spec import Spec
from optimum_si.models.scale_groups import INPUT_OF, ScaleGroup
from optimum_si.models.structure import Block
from optimum_si.warnings import warn


logger = logging.getLogger(__name__)

SCALES_NAME = "si_scales.safetensors"
#: Version 2 may hold factors of rows and columns.
_VERSION, _READ = "2", ("1", "2")


@dataclass(frozen=True, eq=False)
class SavedScales:
    """Scales of a whole model.

    Args:
        method, target: what they were learned for, such as "wanda" and "2:4".
        tensors: "BLOCK|scale|CHANNELS", "BLOCK|absorbed|CHANNELS", "BLOCK|bias|LAYER", "BLOCK|rows|LAYER" and
            "BLOCK|columns|LAYER" -> values.
        shifted: whether biases took up the shift, for each block that was induced.
        transformations: those that the model went through before; `prune` does not repeat them.
        reconstruction: the fit of the weights that factors of rows and columns were learned for.
    """

    method: str
    target: str
    tensors: Mapping[str, Tensor]
    shifted: Mapping[str, bool]
    transformations: Sequence[str] = ()
    reconstruction: str = "none"

    @classmethod
    def of(
        cls,
        config: SIConfig,
        learned: Mapping[str, tuple[Scaling | None, Mapping[str, Tensor]]],
        transformations: Sequence[str] = (),
    ) -> "SavedScales":
        """What a run learned.

        Args:
            config: the recipe.
            learned: the scaling of each block by its name, and the powers of two that were absorbed.
            transformations: those that the model went through.
        """
        tensors: dict[str, Tensor] = {}
        shifted: dict[str, bool] = {}
        for name, (scaling, absorbed) in learned.items():
            if scaling is None or scaling.name == "plain":
                continue
            shifted[name] = scaling.shifted
            kinds = {
                "scale": scaling.scales,
                "absorbed": absorbed,
                "bias": scaling.bias_change,
                "rows": scaling.rows,
                "columns": scaling.columns,
            }
            for kind, values in kinds.items():
                for key, value in values.items():
                    tensors[f"{name}|{kind}|{key}"] = value.detach().cpu().contiguous()
        transformed = tuple(transformations)
        return cls(config.method, config.target_name, tensors, shifted, transformed, config.reconstruction)

    def undo(self, block: Block) -> None:
        """Take the absorbed powers of two out of a block again, which restores it bit for bit."""
        # Last in, first out: in between, every weight is one that its dtype held before.
        absorbed = self._of(block.name, "absorbed", torch.device("cpu"))
        groups = [_group(block, name) for name in absorbed.keys() - {group.name for group in block.scale_groups}]
        for group in reversed([*block.scale_groups, *(group for group in groups if group is not None)]):
            if group.name in absorbed:
                absorb(group, 1 / absorbed[group.name])

    def scalings(self, config: SIConfig, device: torch.device) -> dict[str, Scaling]:
        """The saved scaling of each block that has one, by its name.

        Args:
            config: the recipe that takes them up; factors suit only weights that are fitted as those that they were
                learned for.
            device: where the model is.
        """
        rescales = config.induction is not None and config.induction.rescale
        suit = rescales and config.reconstruction == self.reconstruction
        return {
            name: Scaling(
                self._of(name, "scale", device),
                shifted,
                self._of(name, "bias", device),
                *(self._of(name, kind, device) if suit else {} for kind in ("rows", "columns")),
            )
            for name, shifted in self.shifted.items()
        }

    def fit(self, config: SIConfig) -> bool:
        """Whether a recipe can take these scales up; says so, or warns that it cannot."""
        if (self.method, self.target) == (config.method, config.target_name):
            logger.warning(
                "taking up the scales that `induce` learned for %s %s: nothing is learned again",
                self.method,
                self.target,
            )
            return True
        warn(
            f"the saved scales were learned for {self.method} {self.target}; for {config.method} "
            f"{config.target_name} they are learned anew."
        )
        return False

    def taken_out(self, blocks: Sequence[Block]) -> "SavedScales":
        """Undo what was absorbed into blocks; the same scales for the model that is left.

        Raises:
            CheckpointError: where these scales were not learned on a model of this shape.
        """
        self.check(blocks)
        for block in blocks:
            self.undo(block)
        kept = {key: value for key, value in self.tensors.items() if key.split("|")[1] != "absorbed"}
        return replace(self, tensors=kept)

    def check(self, blocks: Sequence[Block]) -> None:
        """Raise :class:`CheckpointError` where these scales were not learned on a model of this shape."""
        by_name = {block.name: block for block in blocks}
        for key, value in self.tensors.items():
            block_name, kind, name = key.split("|", 2)
            block = by_name.get(block_name)
            if block is None or not _fits(block, kind, name, len(value)):
                raise CheckpointError(
                    f"{SCALES_NAME} was learned on another model: its {kind} {name!r} of block {block_name!r} with "
                    f"{len(value)} entries, which this model does not have. Run `induce` again or delete the file."
                )

    def _of(self, block: str, kind: str, device: torch.device) -> dict[str, Tensor]:
        prefix = f"{block}|{kind}|"
        return {key[len(prefix) :]: value.to(device) for key, value in self.tensors.items() if key.startswith(prefix)}

    def save(self, directory: Path) -> None:
        """Write ``si_scales.safetensors`` into a directory."""
        metadata = {
            "version": _VERSION,
            "method": self.method,
            "target": self.target,
            "shifted": json.dumps(dict(self.shifted)),
            "transformations": json.dumps(list(self.transformations)),
            "reconstruction": self.reconstruction,
        }
        save_file(dict(self.tensors), str(directory / SCALES_NAME), metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "SavedScales":
        """Read ``si_scales.safetensors``.

        Raises:
            CheckpointError: when the file is damaged or of a later version.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            if metadata.get("version") not in _READ:
                raise CheckpointError(
                    f"{str(path)!r} has version {metadata.get('version')!r}, this optimum-si reads {_VERSION!r}: "
                    "update optimum-si, or run `induce` again."
                )
            transformations = json.loads(metadata.get("transformations", "[]"))
            return cls(
                metadata["method"],
                metadata["target"],
                tensors,
                json.loads(metadata["shifted"]),
                transformations,
                metadata.get("reconstruction", "none"),
            )
        except (SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged ({error}): run `induce` again, or delete it.") from error


def transformations_of(model: PreTrainedModel, scales: SavedScales | None) -> list[str]:
    """Transformations that a model went through before: a second time they would bring nothing new.

    Args:
        model: its config records them.
        scales: saved beside it by an earlier run, or None.
    """
    if scales is not None:
        return list(scales.transformations)
    record = getattr(model.config, "sparsity_config", None)
    return list((record.get("transformations") if isinstance(record, dict) else None) or [])


def _fits(block: Block, kind: str, name: str, size: int) -> bool:
    """Whether a block has the channels, or the layer, that a saved tensor is for."""
    if kind in ("bias", "rows", "columns"):
        view = block.views.get(name[len(block.name) + 1 :])
        return view is not None and view.shape[kind == "columns"] == size
    if name.startswith(INPUT_OF):
        views = [block.views.get(local) for local in name[len(INPUT_OF) :].split(",")]
        return all(view is not None and view.shape[1] == size for view in views)
    group = _group(block, name)
    return group is not None and group.size == size


def _group(block: Block, name: str) -> ScaleGroup | None:
    """A pair of a block by its name: one that its family declares, or one that was found."""
    declared = next((group for group in block.scale_groups if group.name == name), None)
    if declared is not None or block.family is not UNDECLARED:
        return declared
    spec = Spec.parsed(name)
    return None if spec is None else spec.group(block.module, block.views)
