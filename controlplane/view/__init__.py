"""What this controller has seen, and whether that is current: the only place where clocks become flags and ages.

`view` puts it together from `mirror` (typed copies of the store), `pulse` (beats, stalls, wall clocks), `eyes` and
`votes` (one vote a site); `evidence` is what people are shown of it.
"""

from controlplane.view.view import View

__all__ = ["View"]
