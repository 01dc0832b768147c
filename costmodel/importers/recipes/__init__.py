"""One entry for each `model_type`: which of its fields become which of ours, and what the implementation takes for a missing one.

One more type of a known family is one more entry in the file of its kind. Checked against the classes of `transformers`,
which is not imported.
"""

from __future__ import annotations

from costmodel.importers.recipes import dense, diffusion, experts, hybrids, recurrent, state_spaces
from costmodel.importers.recipes.base import Nested, Recipe, Tower

RECIPES: dict[str, Recipe | Nested] = {
    **dense.RECIPES,
    **experts.RECIPES,
    **hybrids.RECIPES,
    **state_spaces.RECIPES,
    **diffusion.RECIPES,
    **recurrent.RECIPES,
}
"""How each `model_type` is read."""

__all__ = ["RECIPES", "Nested", "Recipe", "Tower"]
