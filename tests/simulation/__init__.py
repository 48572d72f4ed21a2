"""A seeded, deterministic world around the real worker, control and ledger. See docs/testing.md."""
