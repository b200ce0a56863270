"""Write ``model-classes.md``: what of each class of transformers is pruned, of tiny models of all of them.

Run it after a change of the models in ``tests/support/zoo`` or of what is found in them::

    python docs/model_classes.py
"""

import itertools
import sys
import warnings
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.zoo import ZOO, Specimen
from support.zoo.exceptions import NOT_REACHED, OF_NO_KIND, REFUSED

from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.inventory import ADAPTERS, CONVOLUTIONS, OTHERS, ROUTERS, take_inventory
from optimum_si.models.selection import select_views
from optimum_si.models.structure import find_structure


PAGE = Path(__file__).with_name("model-classes.md")
#: What blocks hold beside layers that are pruned.
IN_BLOCKS = (ROUTERS, ADAPTERS, CONVOLUTIONS, OTHERS)
HEAD = """# Classes of models

Written by `docs/model_classes.py` of the tiny models in `tests/support/zoo`, transformers {version}: how many of the
weights in the matrices of a class's blocks are pruned by default, and what the others are. Shares are those of the
tiny models: of a real one `optimum-cli si inspect MODEL` tells them. `tests/models/test_classes.py` prunes each and
holds the table to be true.
[Models](models.md) explains.
"""


def page() -> str:
    """What the page should hold."""
    import transformers

    parts = [HEAD.format(version=".".join(transformers.__version__.split(".")[:2]))]
    for kind, specimens in itertools.groupby(ZOO.values(), key=lambda specimen: specimen.kind):
        rows = ["| class | lists of blocks | pruned | stays dense |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {kind[0].upper()}{kind[1:]}", "", *rows, *map(row, specimens), ""]))
    return "\n".join(parts)


def row(specimen: Specimen) -> str:
    """A class, its stacks, the share that is pruned and what stays dense."""
    name = specimen.name
    if name in REFUSED:
        return f"| {name} | | refused | no list of blocks with linear layers |"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = specimen.build()
        with experts_as_linears(model):
            structure = find_structure(model)
            views = [view for block in select_views(structure, None, None, None) for view in block.values()]
            found = take_inventory(model, structure, views)
    dense = {why: count for why, count in found.dense.items() if why in IN_BLOCKS}
    share = found.pruned / (found.pruned + sum(dense.values()))
    reasons = [OF_NO_KIND.get(name, why) if why == OTHERS else why for why in dense]
    reasons += [f"what no data comes to ({NOT_REACHED[name]})"] if name in NOT_REACHED else []
    stacks = ", ".join(f"`{stack.name}`" for stack in structure.stacks)
    return f"| {name} | {stacks} | {share:.0%} | {'; '.join(reasons)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
