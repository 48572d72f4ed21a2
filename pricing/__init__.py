"""Prices and costs: pure functions over immutable, versioned tables. No clock, no network."""
