"""One file per provider dialect: routes, request facts, meter, error body."""
