"""What is used of nnsight, whose import gives every object of the process an attribute `save`; here it is taken off.

In a trace write `nnsight.save(value)`. Where nnsight was imported before, everything stays as it was.
"""

_before = hasattr(object, "save")

from nnsight import Envoy, NNsight, TransformersModel, save  # noqa: E402
from nnsight._c import unmount  # noqa: E402

if unmount and not _before:
    unmount("save")

__all__ = ["Envoy", "NNsight", "TransformersModel", "save"]
