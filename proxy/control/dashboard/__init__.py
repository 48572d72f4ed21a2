"""The dashboard: what the admin API knows, for people. Server-rendered, nothing is built."""
