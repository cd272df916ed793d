"""What stands between the app and the network: limits, refusals and draining."""
