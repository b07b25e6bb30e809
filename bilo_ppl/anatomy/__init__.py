"""Maps of brain tissue: a phantom, and slices of a template brain; labels of tissue and their odds."""

from bilo_ppl.anatomy.labels import check_labels, dice, log_odds
from bilo_ppl.anatomy.phantom import brain_phantom
from bilo_ppl.anatomy.templates import template_slice
from bilo_ppl.anatomy.tissue_maps import TissueMaps

__all__ = ["TissueMaps", "brain_phantom", "check_labels", "dice", "log_odds", "template_slice"]
