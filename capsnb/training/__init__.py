"""From a Spec to a Run: the loop, its hooks, evaluation, and runs on disk."""
