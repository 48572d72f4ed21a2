"""The admin API: one table of endpoints, from which the routes and the OpenAPI document come."""
