"""What the app can do, and for whom, without a page."""
