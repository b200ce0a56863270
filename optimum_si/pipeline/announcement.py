"""What a run is about to prune, in three lines."""

import sys
from collections import Counter

from tqdm.auto import tqdm

from optimum_si.models.inventory import take_inventory
from optimum_si.report.text import printable

from .plan import Plan


def announce(plan: Plan) -> None:
    """Print stacks, what is pruned of them, and what stays dense, as ``optimum-cli si inspect`` has it at length."""
    for line in lines_of(plan):
        tqdm.write(printable(line), file=sys.stderr)


def lines_of(plan: Plan) -> tuple[str, str, str]:
    """The three lines."""
    views = [view for of_block in plan.views for view in of_block.values()]
    treated = Counter(
        block.stack for block, of_block in zip(plan.structure.blocks, plan.views, strict=True) if of_block
    )
    inventory = take_inventory(plan.model, plan.structure, views)
    return (
        f"stacks: {', '.join(f'{stack} ({count} blocks)' for stack, count in treated.items())}",
        f"to prune: {len(views)} layers, {inventory.pruned:,} of {inventory.total:,} weights ({inventory.share:.1%})",
        f"stay dense: {inventory.in_words()}",
    )
