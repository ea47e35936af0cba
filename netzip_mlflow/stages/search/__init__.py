"""The command `search`: the best OCS under the constraint."""
