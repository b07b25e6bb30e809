"""Maps of brain tissue: a phantom, and slices of a template brain."""

from bilo_ppl.anatomy.phantom import brain_phantom
from bilo_ppl.anatomy.templates import template_slice
from bilo_ppl.anatomy.tissue_maps import TissueMaps

__all__ = ["TissueMaps", "brain_phantom", "template_slice"]
