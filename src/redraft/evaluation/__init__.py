"""How good a model is: tasks, cases, scores, and the frontier of quality and speed."""
