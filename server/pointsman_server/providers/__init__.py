"""Providers of models: what an adapter offers (`base`), the adapters, and stand-ins for demo and tests."""
