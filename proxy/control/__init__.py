"""The control plane: owns the host's share of the ledger, feeds and watches the workers."""
