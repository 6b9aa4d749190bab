"""What every room needs: whole files, JSON, locks on folders, signals."""
