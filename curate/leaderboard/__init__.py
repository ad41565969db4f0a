"""The leaderboard that people look at: a static site, and a server that takes submissions."""
