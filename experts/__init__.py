"""Experts: messages and gates to tokens. Model store, gated adapters, engine, training, remote."""
