"""Capsules, routing and the models made of them: torch alone."""
