"""Structured pruning: channels that matter least leave, and what stays makes up for them."""
