"""The live leaderboard: pages of what was verified, and an API that takes submissions."""
