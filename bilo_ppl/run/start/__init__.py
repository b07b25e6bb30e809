"""Where one begins: the models there are (``bilo-ppl list``), a file to change (``bilo-ppl new``)."""

from bilo_ppl.run.start.models import ListSettings, list_models
from bilo_ppl.run.start.new import NewSettings, new_model

__all__ = ["ListSettings", "NewSettings", "list_models", "new_model"]
