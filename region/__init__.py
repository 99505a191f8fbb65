"""Real servers for tests, benchmarks and a region on a laptop: development only, never imported by the product."""
