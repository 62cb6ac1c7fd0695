"""What a server tells of itself: counts, health, the dashboard. Must not know: how workers are run."""
