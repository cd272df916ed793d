"""The panel beside the tabs, and what all tabs share."""
