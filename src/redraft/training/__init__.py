"""Training: recipes, their objective, data and loop, and fine-tuning on rows of one's own."""

from redraft.training.finetuning import finetune
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.session import TrainingResult, run_recipe
from redraft.training.settings import LoRASettings, TrainingSettings

__all__ = ["LoRASettings", "Recipe", "TrainingData", "TrainingResult", "TrainingSettings", "finetune", "run_recipe"]
