"""The page that shows what a run found: one HTML file that works offline, with its pictures inside."""
