"""A first look without network or keys: simulated provider, proxy, official SDKs, live costs."""
