"""The jobs of the command line, also to be started from Python: settings, and a function for each.

``sample_model(SampleSettings("poisson", chains=2))`` is ``bilo-ppl run poisson --chains 2``, and
``estimate_model(MapSettings("poisson"))`` is ``bilo-ppl map poisson``. Both return the exit status.
"""

from bilo_ppl.run.compare.pipeline import compare_methods
from bilo_ppl.run.compare.settings import CompareSettings
from bilo_ppl.run.map.pipeline import estimate_model
from bilo_ppl.run.map.settings import MapSettings
from bilo_ppl.run.sample.pipeline import sample_model
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.settings import BadInputError, RunFailedError

__all__ = [
    "BadInputError",
    "CompareSettings",
    "MapSettings",
    "RunFailedError",
    "SampleSettings",
    "compare_methods",
    "estimate_model",
    "sample_model",
]
