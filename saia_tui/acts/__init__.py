"""What an operator can do to the cluster, by what it is done to."""
