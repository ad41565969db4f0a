"""The leaderboard's library: submissions, how they are checked, how they are ranked.

A submission is a folder that anyone can check without trusting who made it; the pages that show
submissions, and the server that takes them, stand on the top floor in ``curate.leaderboard``.
"""
