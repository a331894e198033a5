"""Layers that several methods share. One idea per file; all export with static shapes."""
