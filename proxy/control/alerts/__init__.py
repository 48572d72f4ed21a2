"""What people are told: seen by watches, raised once, delivered until that is known."""
