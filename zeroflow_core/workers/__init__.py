"""Work spread over processes. `each.py` does tasks in any order, `in_order.py` gives results in that of the tasks, and
`process.py` is what both start. `parent.py` is for programs that are to end with whoever started them."""

from zeroflow_core.workers.each import run_in_workers
from zeroflow_core.workers.in_order import map_in_workers
from zeroflow_core.workers.process import cores

__all__ = ["cores", "map_in_workers", "run_in_workers"]
