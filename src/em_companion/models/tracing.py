"""What is used of nnsight, whose import gives every object of the process an attribute `save`; here it is taken off."""

_before = hasattr(object, "save")

from nnsight import NNsight, TransformersModel, save  # noqa: E402
from nnsight._c import unmount  # noqa: E402

if unmount and not _before:
    unmount("save")

__all__ = ["NNsight", "TransformersModel", "save"]
